//go:build linux && amd64

package jit

import (
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// TestFlagsOfExits lets accesses raise exceptions behind what sets flags that nothing else wants to know: a
// frame on the stack has them.
func TestFlagsOfExits(t *testing.T) {
	g := gen{rand.New(rand.NewPCG(5, 5))}
	r := newPair(t)
	op := func(rex byte, code ...byte) []byte { return append([]byte{0x40 | rex}, code...) }
	for _, c := range []struct {
		name   string
		code   func(a, b uint8) []byte // b may be the same
		source bool                    // what it works on has to be kept
	}{
		{"shl by 1", func(a, b uint8) []byte { return op(a>>3, 0xd1, 0xe0|a&7) }, true},
		{"shl", func(a, b uint8) []byte { return op(8|a>>3, 0xc1, 0xe0|a&7, 1+byte(g.IntN(31))) }, true},
		{"shr by 1", func(a, b uint8) []byte { return op(8|a>>3, 0xc1, 0xe8|a&7, 1) }, true},
		{"shr", func(a, b uint8) []byte { return op(a>>3, 0xc1, 0xe8|a&7, 1+byte(g.IntN(31))) }, true},
		{"sar by 1", func(a, b uint8) []byte { return op(8|a>>3, 0xd1, 0xf8|a&7) }, true},
		{"sar", func(a, b uint8) []byte { return op(8|a>>3, 0xc1, 0xf8|a&7, 1+byte(g.IntN(31))) }, true},
		{"imul", func(a, b uint8) []byte { return op(8|a>>3<<2|b>>3, 0x0f, 0xaf, 0xc0|a&7<<3|b&7) }, true},
		{"imul, 32 bits", func(a, b uint8) []byte { return op(a>>3<<2|b>>3, 0x0f, 0xaf, 0xc0|a&7<<3|b&7) }, true},
		{"add", func(a, b uint8) []byte { return op(8|a>>3<<2|b>>3, 0x03, 0xc0|a&7<<3|b&7) }, false},
		{"sub", func(a, b uint8) []byte { return op(a>>3<<2|b>>3, 0x2b, 0xc0|a&7<<3|b&7) }, false},
		{"sub, immediate", func(a, b uint8) []byte { return op(a>>3, 0x83, 0xe8|a&7, byte(g.IntN(256))) }, false},
		{"cmp, 8 bits", func(a, b uint8) []byte { return op(a>>3<<2|b>>3, 0x3a, 0xc0|a&7<<3|b&7) }, false},
		{"cmp, immediate", func(a, b uint8) []byte { return op(8|a>>3, 0x83, 0xf8|a&7, byte(g.IntN(256))) }, false},
		{"test", func(a, b uint8) []byte { return op(8|b>>3<<2|a>>3, 0x85, 0xc0|b&7<<3|a&7) }, false},
		{"test, immediate", func(a, b uint8) []byte { return op(a>>3, 0xf6, 0xc0|a&7, byte(g.IntN(256))) }, false},
		{"and from memory", func(a, b uint8) []byte { return op(8|a>>3<<2, 0x23, 0x44|a&7<<3, 0x24, 0x08) }, false},
		{"add from memory", func(a, b uint8) []byte { return op(8|a>>3<<2, 0x03, 0x44|a&7<<3, 0x24, 0x08) }, false},
	} {
		registers := []uint8{x86.RCX, x86.RDX, x86.R10, x86.R11, x86.R13}
		for i := range 80 {
			p := generate(uint64(i), testForms())
			p.user, p.flags, p.limit, p.stride = i&1 == 0, x86.Flag1|g.Uint64()&x86.FlagsArith, 10, 10
			a, b := registers[g.IntN(5)], registers[g.IntN(5)]
			for j := range p.regs {
				p.regs[j] = g.value()
			}
			p.regs[x86.RSP], p.regs[x86.RDI], p.regs[x86.RSI] = stackAt, 1<<40, 1
			p.code = c.code(a, b)
			if g.IntN(3) == 0 {
				p.code = append(p.code, 0x48|b>>3, 0x89, 0xf0|b&7) // mov b, rsi: behind it, flags cannot be had of b
			}
			p.code = append(p.code, 0x8b, 0x04, 0xb7) // mov eax, [rdi+rsi*4]
			if g.IntN(2) == 0 {
				p.code = append(p.code, 0x89, 0x04, 0xb7) // and a window of it
			}
			p.code = append(p.code, 0x31, 0xc0, 0xf4, 0xf4) // xor eax, eax
			sources := r.jit.jit.Stats.Sources
			if n, d := r.differ(p); d != "" {
				t.Fatalf("%s: within %d steps\n%s%s", c.name, n, d, p.list())
			}
			if kept := r.jit.jit.Stats.Sources != sources; kept != c.source {
				t.Fatalf("%s: kept %v, want %v\n%s", c.name, kept, c.source, p.list())
			}
		}
	}
}

// TestRotationForTheInterpreter: a rotation that the interpreter has to execute wants to know the flags before it,
// although they are overwritten behind it.
func TestRotationForTheInterpreter(t *testing.T) {
	lookUps(t, []byte{
		0xd3, 0xe8, // shr eax, cl
		0xc1, 0xc9, 0x20, // ror ecx, 32
		0x31, 0xd2, // xor edx, edx
	})
}
