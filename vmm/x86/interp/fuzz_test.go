package interp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// A guest may execute anything, with any privilege, in any mode: the engine must neither panic nor hang, and a second run
// must do the same.
func FuzzExecute(f *testing.F) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 64 {
		code := make([]byte, 64)
		for i := range code {
			code[i] = byte(random.Uint32())
		}
		f.Add(code, random.Uint64(), byte(random.Uint32()))
	}
	f.Add([]byte{0xf3, 0xa4, 0xf4}, uint64(1), byte(0))
	f.Fuzz(func(t *testing.T, code []byte, seed uint64, mode byte) {
		a, b := executeAnything(t, code, seed, mode), executeAnything(t, code, seed, mode)
		if a != b {
			t.Errorf("two runs differ:\n%x\n%x", a, b)
		}
	})
}

func executeAnything(t *testing.T, code []byte, seed uint64, mode byte) (regs [x86.NumRegs]uint64) {
	var r *rig
	at := uint64(0)
	switch mode & 7 {
	case 0, 1, 2:
		s := newSystemRig(t)
		r = s.rig
		if mode&7 == 0 {
			s.user()
		} else {
			s.kernel()
		}
	case 3:
		s := newSystemRig(t)
		s.at(userCode, 3, selUCode32, selUData, userStack, nil)
		r = s.rig
	case 4, 5:
		l := newLegacyRig(t)
		l.protected()
		if mode&7 == 4 {
			l.user()
		} else {
			l.kernel()
		}
		r = l.rig
	default:
		r = newLegacyRig(t).rig
		r.c.Seg[x86.CS].Base, r.c.Seg[x86.CS].Sel = 0x10000, 0x1000
		r.c.Regs[x86.RIP], at = 0, 0x10000
		r.c.RAM.WriteAt(make([]byte, 0x400), 0)
	}
	random := rand.New(rand.NewPCG(seed, 9))
	c := r.c
	c.CR4 |= x86.CR4OSXSAVE
	c.XCR0 = 3
	if len(code) > 4096 {
		code = code[:4096]
	}
	c.RAM.WriteAt(code, at+c.Regs[x86.RIP])
	for i := range 16 {
		if i == x86.RSP {
			continue
		}
		switch random.IntN(4) {
		case 0:
			c.Regs[i] = random.Uint64()
		case 1:
			c.Regs[i] = random.Uint64() >> random.IntN(64)
		default:
			c.Regs[i] = userData + random.Uint64N(0x2000)
		}
	}
	c.Regs[x86.RCX] &= 0xfff // of iterations
	if mode&8 != 0 {
		c.RFLAGS |= x86.FlagTF
	}
	if mode&16 != 0 {
		binary.LittleEndian.PutUint16(c.FX[0:], uint16(random.Uint32())&0x1f3f|0x40)
		c.SetMXCSR(random.Uint32() & x86.MXCSRMask)
		for i := range c.FX[32:416] {
			c.FX[32+i] = byte(random.Uint32())
		}
	}
	if mode&32 != 0 {
		c.DR[7], c.DR[0] = random.Uint64()&0xffff2bff|1<<10, userData
	}
	if mode&64 != 0 {
		r.e.Trace = func(*x86.Inst) {}
	}
	c.ModeChanged()
	end := c.Step + 60
	for n := 0; c.Step < end && n < 500 && c.Activity == x86.Active; n++ {
		c.Attention = false
		r.e.Run(end)
		c.ServiceEvents(noInterrupts{})
	}
	return c.Regs
}

func TestAnythingCanBeExecuted(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	n := 600
	if testing.Short() {
		n = 100
	}
	for range n {
		code := make([]byte, 48)
		for i := range code {
			code[i] = byte(random.Uint32())
		}
		// Mostly opcodes that exist.
		for at := 0; at < len(code)-20; at += 1 + random.IntN(10) {
			var in x86.Inst
			for try := 0; try < 20 && x86.Decode(code[at:], 8, &in) != x86.DecodeOK; try++ {
				code[at+random.IntN(3)] = byte(random.Uint32())
			}
		}
		executeAnything(t, code, random.Uint64(), byte(random.Uint32()))
	}
}
