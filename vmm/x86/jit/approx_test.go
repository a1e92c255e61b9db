//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// TestApproximations runs RCPPS and its relatives on many numbers, on both engines.
func TestApproximations(t *testing.T) {
	// l: movups xmm1,[rbx]; rcpps xmm0,xmm1; rsqrtps xmm2,[rbx]; rcpss xmm3,[rbx+4]; rsqrtss xmm4,xmm1; and
	// pxor xmm5,xmm0; pxor xmm5,xmm2; pxor xmm5,xmm3; pxor xmm5,xmm4; movups [rbx],xmm5; add rbx,16; dec ecx; jnz l
	code := []byte("\x0f\x10\x0b\x0f\x53\xc1\x0f\x52\x13\xf3\x0f\x53\x5b\x04\xf3\x0f\x52\xe1" +
		"\x66\x0f\xef\xe8\x66\x0f\xef\xea\x66\x0f\xef\xeb\x66\x0f\xef\xec\x0f\x11\x2b\x48\x83\xc3\x10\xff\xc9\x75\xd3\xf4")
	a, b := newRig(t, false), newRig(t, true)
	r := rand.New(rand.NewPCG(11, 12))
	const numbers = 0x1f00 / 16
	for round := range 200 {
		p := &program{code: code, data: make([]byte, 0x3000), flags: x86.Flag1}
		for i := 0; i < len(p.data); i += 4 {
			v := r.Uint32() & (1<<31 - 1)
			switch {
			case round%2 == 0: // all ordinary
				v = v%(253<<23-1<<23) + 1<<23
			case r.IntN(8) == 0:
				v |= 1 << 31
			case r.IntN(8) == 0:
				v &= 1<<23 - 1
			case r.IntN(8) == 0:
				v |= 0xfd << 23
			}
			binary.LittleEndian.PutUint32(p.data[i:], v)
		}
		p.regs[x86.RBX], p.regs[x86.RCX], p.regs[x86.RSP] = dataAt, numbers, stackAt
		binary.LittleEndian.PutUint32(p.fx[fxCSR:], 0x1f80|r.Uint32()&0xe07f)
		a.prepare(p)
		b.prepare(p)
		slow := b.jit.Stats.Slow
		a.run(20 * numbers)
		b.run(20 * numbers)
		if got := a.c.Regs[x86.RBX]; got != dataAt+16*numbers {
			t.Fatalf("round %d: the loop ended at %#x", round, got)
		}
		if d := differs(a, b); d != "" {
			t.Fatalf("round %d:\n%s", round, d)
		}
		if slow = b.jit.Stats.Slow - slow; round > 0 && round%2 == 0 && slow > 8 {
			t.Fatalf("round %d: %d instructions were left to the interpreter", round, slow)
		}
	}
}
