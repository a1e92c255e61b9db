//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// TestInterruptReturns runs loops of IRET to either level, with frames, descriptors and segments of all kinds, on both engines.
func TestInterruptReturns(t *testing.T) {
	const entry = codeAt + 0x1f00 // of SYSCALL: jmp rbx
	le := binary.LittleEndian
	fast := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 11))
		pick := func(v ...uint64) uint64 { return v[r.IntN(len(v))] }
		var code []byte
		emit := func(b ...byte) { code = append(code, b...) }
		constant := func(reg byte, v uint64) { code = le.AppendUint64(append(code, 0x48, 0xb8|reg), v) }
		emit(0x0f, 0x1f, 0)
		for range 12 {
			user := r.IntN(2) == 0
			cs, ss := uint64(8), pick(0, 0x10)
			if user {
				cs, ss = 0x1b, 0x23
			}
			flags := x86.Flag1 | pick(0, x86.FlagIF)
			var late [4]uint64 // differences of what is pushed, when all is known and IRET is not left to the interpreter
			switch r.IntN(8) {
			case 0:
				late[2] = pick(x86.FlagAC, x86.FlagRF, x86.FlagNT, x86.FlagIOPL, x86.FlagDF, x86.FlagID, x86.FlagVIF)
			case 1, 2:
				flags |= r.Uint64() & x86.FlagsArith
			case 3: // mov ds, eax
				constant(x86.RAX, pick(0, 0x10, 0x23))
				emit(0x8e, 0xd8)
			case 4: // a descriptor that is not accessed yet, or of another limit
				constant(x86.RDI, gdtAt+8*uint64(1+r.IntN(4))+pick(5, 1))
				emit(0x80, 0x37, 1) // xor byte [rdi], 1
			case 5: // above the selectors: ignored
				ss |= 1 << 40
			}
			if r.IntN(60) == 0 {
				late[0] = 1 << r.IntN(7)
			}
			if r.IntN(60) == 0 {
				late[3] = 1 << r.IntN(7)
			}
			for i, v := range []uint64{ss, stackAt - uint64(r.IntN(4))*8, flags, cs} {
				constant(x86.RAX, v)
				if late[i] != 0 {
					code = le.AppendUint32(append(code, 0x31, 0xd2, 0x48, 0x81, 0xfe), uint32(50+r.IntN(200))) // xor edx, edx; cmp rsi, …
					code = le.AppendUint32(append(code, 0x0f, 0x93, 0xc2, 0x48, 0x69, 0xd2), uint32(late[i]))  // setae dl; imul rdx, rdx, …
					emit(0x48, 0x31, 0xd0)                                                                     // xor rax, rdx
				}
				emit(0x50)
			}
			emit(0x48, 0x8d, 0x05, 3, 0, 0, 0, 0x50, 0x48, 0xcf) // lea rax, [rip+3]; push rax; iretq
			emit(0x48, 0xff, 0xc6)                               // inc rsi
			if user {
				emit(0x48, 0x8d, 0x1d, 2, 0, 0, 0, 0x0f, 0x05) // lea rbx, [rip+2]; syscall
			}
			constant(x86.RSP, stackAt)
		}
		code = le.AppendUint32(append(code, 0xe9), uint32(-len(code)-5))

		p := &program{code: code, flat: true, flags: x86.Flag1}
		p.regs[x86.RSP] = stackAt
		rigs := []*rig{newRig(t, false), newRig(t, true)}
		for _, g := range rigs {
			g.prepare(p)
			g.c.RAM.WriteAt([]byte{0xff, 0xe3}, entry)
			g.c.LSTAR, g.c.STAR, g.c.SFMASK = entry, 8<<32, x86.FlagTF|x86.FlagAC|x86.FlagNT|x86.FlagIOPL|x86.FlagRF
		}
		for run := range 400 {
			n := 1 + uint64(r.IntN(40))
			for _, g := range rigs {
				g.run(n)
			}
			if d := differs(rigs[0], rigs[1]); d != "" {
				t.Fatalf("seed %d, run %d: %s", seed, run, d)
			}
		}
		if rigs[0].c.Regs[x86.RSI] > 300 && rigs[1].jit.Stats.Target < rigs[0].c.Regs[x86.RSI]/2 {
			fast++
		}
	}
	if fast < 10 {
		t.Errorf("IRET was translated in %d programs of 60", fast)
	}
}
