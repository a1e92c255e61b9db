//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// TestXSAVE runs programs that save and restore the x87 and vector state, use it in between, and damage what was saved.
func TestXSAVE(t *testing.T) {
	le := binary.LittleEndian
	lockstep(t, func(seed uint64) *program {
		g := gen{rand.New(rand.NewPCG(seed, 29))}
		p := &program{seed: seed, data: make([]byte, 0x3000), flags: x86.Flag1, user: g.IntN(4) == 0, cr4: x86.CR4OSXSAVE, xcr0: 3}
		g.x87(p)
		switch p.cr0 = 0; g.IntN(30) {
		case 0:
			p.cr0 = x86.CR0TS
		case 1:
			p.cr4 = 0
		case 2:
			p.xcr0 = 1
		case 3:
			p.cr0 = x86.CR0EM
		}
		le.PutUint32(p.fx[fxCSR:], 0x1f80|g.Uint32()&0xe03f)
		for i := fxXMM; i < fxXMM+256; i += 8 {
			le.PutUint64(p.fx[i:], g.Uint64())
		}
		p.regs[x86.RBX], p.regs[x86.RAX], p.regs[x86.RSP] = dataAt, 3, stackAt
		areas := []uint32{0x40, 0x280, 0x4c0, 0x700, 0xf00, 0x1000}
		for _, at := range areas { // one of them reaches into the next page
			var q program
			q.data = make([]byte, 16)
			g.x87(&q)
			copy(p.data[at:], q.fx[:160])
			le.PutUint32(p.data[at+fxCSR:], 0x1f80|g.Uint32()&0xe03f)
			for i := range xsaveBytes - 160 {
				p.data[int(at)+160+i] = byte(g.Uint32())
			}
			for st := range 8 { // what XRSTOR does not look at
				le.PutUint32(p.data[int(at)+fxST+16*st+12:], g.Uint32())
			}
			clear(p.data[at+512 : at+576])
			p.data[at+xsaveBV] = byte(g.pick(3, 3, 3, 3, 3, 2, 1, 0))
		}
		where := func() []byte {
			at := areas[g.IntN(len(areas))]
			if g.IntN(40) == 0 {
				at += 8
			}
			return le.AppendUint32(nil, at)
		}
		p.code = []byte("\x80\x4b\x10\x00\x80\x8b\x10\x10\x00\x00\x00") // or byte [rbx+…], 0: the pages are in the TLB
		for range 6 + g.IntN(20) {
			switch n := g.IntN(20); n {
			case 0, 1, 2:
				p.code = append(p.code, 0x0f, 0x58, 0xc1|byte(g.IntN(8)<<3)) // addps
			case 3:
				p.code = append(p.code, 0xd9, byte(g.pick(0xe8, 0xeb, 0xc1, 0xc9, 0xfa)))
			case 4:
				p.code = append(p.code, 0x0f, 0xfc, 0xc1|byte(g.IntN(8)<<3)) // paddb
			case 5:
				p.code = append(p.code, 0xb8) // mov eax
				p.code = le.AppendUint32(p.code, uint32(g.pick(3, 3, 3, 3, 3, 3, 7, 1<<32-1, 1, 2, 0)))
			case 6: // damage
				p.code = append(p.code, 0xc6, 0x83) // mov byte [rbx+…]
				p.code = le.AppendUint32(p.code, areas[g.IntN(len(areas))]+uint32(g.pick(0, 1, 2, 5, 24, 25, 27, 40, 44, 512, 513, 520, 528)))
				p.code = append(p.code, byte(g.Uint32()))
			default:
				op := byte(0xa3) // xsave64 [rbx+…]
				if n >= 14 {
					op = 0xab // xrstor64
				}
				rex := byte(0x48)
				if g.IntN(30) == 0 {
					rex = 0x40
				}
				p.code = append(p.code, rex, 0x0f, 0xae, op)
				p.code = append(p.code, where()...)
			}
		}
		back := -len(p.code) - 5
		p.code = le.AppendUint32(append(p.code, 0xe9), uint32(back))
		return p
	}, 300, 3, 30, 300)
}

// TestXSAVEStays checks that a kernel's switch between tasks does not leave generated code.
func TestXSAVEStays(t *testing.T) {
	// l: xsave64 [rbx]; xrstor64 [rbx+1024]; addps xmm1,xmm2; xsave64 [rbx+1024]; xrstor64 [rbx]; dec ecx; jnz l
	p := &program{code: []byte("\x48\x0f\xae\x23\x48\x0f\xae\xab\x00\x04\x00\x00\x0f\x58\xca\x48\x0f\xae\xa3\x00\x04\x00\x00\x48\x0f\xae\x2b\xff\xc9\x75\xe1\xf4"),
		data: make([]byte, 0x3000), flags: x86.Flag1, cr4: x86.CR4OSXSAVE, xcr0: 3}
	for _, b := range [][]byte{p.fx[:], p.data[0x400:]} {
		binary.LittleEndian.PutUint16(b[fxFCW:], 0x37f)
		binary.LittleEndian.PutUint32(b[fxCSR:], 0x1f80)
	}
	p.data[0x400+xsaveBV] = 3
	p.regs[x86.RBX], p.regs[x86.RAX], p.regs[x86.RCX], p.regs[x86.RSP] = dataAt, 3, 1000, stackAt
	r := newPair(t)
	p.limit, p.stride = 8000, 8000
	if within, d := r.differ(p); d != "" {
		t.Fatalf("within %d steps: %s", within, d)
	}
	s := &r.jit.jit.Stats
	if r.jit.c.Regs[x86.RCX] != 0 || s.Slow > 20 {
		t.Errorf("%d turns to go; %d instructions were left to the interpreter", r.jit.c.Regs[x86.RCX], s.Slow)
	}
}
