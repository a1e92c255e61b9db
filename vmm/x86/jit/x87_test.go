//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// TestX87Programs runs random programs of x87 and MMX instructions, with others between them, on both engines.
func TestX87Programs(t *testing.T) {
	var forms, others, looping []uint16
	for _, f := range testForms() {
		switch row := x86.Forms()[f]; {
		case row.Op == x86.OpFLDCW || row.Op == x86.OpX87Flags || row.Op == x86.OpFNSTCW || row.Op == x86.OpFNSTSW || row.Op == x86.OpEMMS || row.Op == x86.OpFWAIT ||
			row.Op == x86.OpLDMXCSR || row.Op == x86.OpSTMXCSR:
			forms = append(forms, f, f, f, f) // of each, the translator does more than to emit it
		case row.Attr&(x86.IsFPU|x86.IsMMX) != 0:
			forms = append(forms, f)
			if row.Op != x86.OpX87Soft && (row.Op < x86.OpFLDENV || row.Op > x86.OpFNSAVE) {
				looping = append(looping, f)
			}
		default:
			others = append(others, f)
		}
	}
	s := lockstep(t, func(seed uint64) *program {
		r := rand.New(rand.NewPCG(seed, 19))
		mix := forms
		for range r.IntN(3) * len(forms) / 4 {
			mix = append(mix[:len(mix):len(mix)], others[r.IntN(len(others))])
		}
		p := generate(seed, mix)
		gen{r}.x87(p)
		return p
	}, 400, 5, 40, 400)
	t.Run("loops", func(t *testing.T) {
		forms := append(looping, others[:len(others)/8]...)
		s := lockstep(t, func(seed uint64) *program {
			p := generateLoop(seed, forms)
			gen{rand.New(rand.NewPCG(seed, 19))}.x87(p)
			return p
		}, 3000, 40, 500, 3000)
		if t.Logf("%d loops with a second body", s.Loops); s.Loops < uint64(*lockCases)/10 {
			t.Errorf("%d of %d loops have a second body", s.Loops, *lockCases)
		}
	})
	// Some are always left to the interpreter: those that are computed, and those that store or load everything.
	for form, n := range s.Fallbacks {
		f := x86.Forms()[form]
		if n == 0 || f.Attr&x86.IsFPU == 0 {
			continue
		}
		switch f.Op {
		case x86.OpX87, x86.OpX87Store, x86.OpX87Flags, x86.OpFLDCW, x86.OpFNSTCW, x86.OpFNSTSW, x86.OpFWAIT, x86.OpEMMS:
			// With an address of 32 bits, or that cannot be an operand's of 64 bits.
			if n*8 > s.Slow {
				t.Errorf("%s was left to the interpreter %d times", f.Syntax, n)
			}
		}
	}
}

// x87 makes the x87 state of a program, and the numbers in its data, interesting.
func (g gen) x87(p *program) {
	le := binary.LittleEndian
	fcw := uint16(0x7f) | uint16(g.Uint32())&0x1f00
	if g.IntN(10) == 0 {
		fcw &^= uint16(g.Uint32()) & 0x3f
	}
	fsw := uint16(g.Uint32()) & 0x7f00
	if g.IntN(4) == 0 {
		fsw |= uint16(g.Uint32()) & 0x7f
		if g.IntN(10) != 0 {
			fsw &= fcw | 0xff40
		}
	}
	le.PutUint16(p.fx[fxFCW:], fcw)
	le.PutUint16(p.fx[fxFSW:], fsw)
	p.fx[fxFTW] = byte(g.pick(0xff, 0xff, 0, g.Uint64()))
	le.PutUint16(p.fx[fxFOP:], uint16(g.Uint32())&0x7ff)
	le.PutUint64(p.fx[fxFIP:], g.value())
	for i := range 8 {
		g.float80(p.fx[fxST+16*i:])
	}
	for range len(p.data) / 12 {
		at := g.IntN(len(p.data)/2-5) * 2
		switch g.IntN(5) {
		case 0:
			le.PutUint16(p.data[at:], uint16(g.Uint32())|0x3f) // a control word
		case 4:
			le.PutUint32(p.data[at:], uint32(g.Uint32()&0xffff|0x1f80)) // of the vector unit
		case 1:
			le.PutUint32(p.data[at:], math.Float32bits(float32(g.number())))
		case 2:
			le.PutUint64(p.data[at:], math.Float64bits(g.number()))
		case 3:
			g.float80(p.data[at:])
		}
	}
	switch g.IntN(40) {
	case 0:
		p.cr0 = x86.CR0TS
	case 1:
		p.cr0 = x86.CR0TS | x86.CR0MP
	case 2:
		p.cr0 = x86.CR0EM
	case 3:
		p.cr0 = x86.CR0NE
	case 4:
		p.ignne = true
	}
}

// number is a number in double precision; some are denormal in it, or would be in single precision.
func (g gen) number() float64 {
	switch g.IntN(6) {
	case 0:
		return float64(g.IntN(200) - 100)
	case 1:
		return []float64{0, math.Copysign(0, -1), 0.5, math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat32, math.MaxFloat32}[g.IntN(9)]
	case 2:
		return math.Float64frombits(0x7ff0000000000000 | g.Uint64()) // not a number, quiet or signalling, or its negative
	case 3:
		return math.Float64frombits(g.Uint64() & 0x800fffffffffffff)
	case 4:
		return math.Float64frombits(g.Uint64()&0x807fffffffffffff | 0x3f80000000000000)
	}
	return math.Float64frombits(g.Uint64())
}

// float80 makes a number in extended precision, also of the kinds that no instruction makes.
func (g gen) float80(b []byte) {
	exp, man := uint16(g.pick(0, 1, 0x3fff, 0x3ffe, 0x4000, 0x403e, 0x7ffe, 0x7fff, 0x3fff-1023, 0x3fff+1024, g.Uint64()&0x7fff)), g.Uint64()
	switch g.IntN(4) {
	case 0:
		man = g.pick(0, 1, 1<<63, 1<<63|1, 1<<64-1, 0xc000000000000000, 1<<62, 1<<63|g.Uint64()<<48)
	case 1, 2:
		man |= 1 << 63
	}
	binary.LittleEndian.PutUint64(b, man)
	binary.LittleEndian.PutUint16(b[8:], exp|uint16(g.IntN(2))<<15)
}

// TestX87Cases runs what random programs rarely do, instruction by instruction and at once, and looks where it ran.
func TestX87Cases(t *testing.T) {
	const (
		fld1, fldpi, fldz = "\xd9\xe8", "\xd9\xeb", "\xd9\xee"
		divide            = "\xde\xf9"             // fdivp
		fnstsw            = "\xdf\xe0"             // fnstsw ax
		fldcw             = "\xd9\x2b"             // fldcw [rbx]
		unmask            = "\x66\xc7\x03\x7b\x03" // mov word [rbx], 0x37b: division by zero is not masked
		ignored           = "errors were ignored"
		mask              = "\x66\xc7\x03\x7f\x03"
		loop              = "\xff\xc9\x75" // dec ecx; jnz
	)
	for _, tt := range []struct {
		name, code string
		slow       uint64 // instructions that may be left to the interpreter
	}{
		{"a loop", "\xdd\x03\xdc\x43\x08\xd9\xe8\xde\xc1\xdd\x5b\x10\xdb\xe8\xd9\xca\xdf\xf1\x66\x0f\x58\xc1" + loop + "\xe6", 4},
		{"the control word changes in a loop", "\xd9\x7b\x10\x66\x81\x73\x10\x00\x0c\xd9\x6b\x10\xdb\x43\x08\xdb\x5b\x20" + loop + "\xea", 4},
		{"a division by zero, masked", fld1 + fldz + divide + fnstsw, 1},
		{"and unmasked behind it", fld1 + fldz + divide + unmask + fldcw + fnstsw + fld1, 8},
		{"unmasked before it", unmask + fldcw + fld1 + fldz + divide + fnstsw + "\x9b", 8},
		{"unmasked, and masked again", unmask + fldcw + fldpi + mask + fldcw + fld1 + fldz + divide + fnstsw, 6},
		{"more than the stack holds", fld1 + fldpi + fld1 + fldpi + fld1 + fldpi + fld1 + fldpi + fld1 + fnstsw + "\xdd\xd8", 1},
		{"less than nothing", "\xdd\xd8\xd8\xc1" + fnstsw, 1},
		{"flags of a multiplication, for a move", fld1 + fldpi + "\x31\xc0\x48\xf7\xe3\xda\xd1\x0c\x01\x48\xf7\xe3\xdb\xd1", 1},
		{ignored, fld1 + fldpi, 2},
		{"remainders, in one step", "\xd9\xed" + fldpi + "\xd9\xf8\xdd\xd8\xdd\xd8" + fldpi + fld1 + "\xd9\xf5" + fldz + "\xd9\xf8", 1},
		{"a remainder by zero, and in several steps", fldz + fldpi + "\xd9\xf8" + fldpi + "\xd8\xc8\xd8\xc8\xd8\xc8\xd8\xc8\xd8\xc8\xd8\xc8" + fldpi + "\xd9\xc9\xd9\xf8\xd9\xf5", 4},
		{"a page that is not there", fld1 + "\xdd\x04\x25\x00\x30\x03\x00" + fldpi, 4},
		{"a store across two pages", fldpi + "\xdb\x3c\x25\xf9\x0f\x03\x00" + fld1 + "\xdb\x2c\x25\xf9\x0f\x03\x00", 4},
		{"a store to a page that is read-only", fldpi + "\xdd\x14\x25\xf8\x2f\x03\x00" + fld1, 4},
		{"MMX and back", "\x0f\x6f\x03\x0f\xfc\x43\x08\x0f\x7f\x43\x10\x0f\x77" + fld1 + "\xdd\x5b\x18", 3},
		{"MMX in front of x87 without EMMS", "\x0f\xef\xc0" + fld1 + fnstsw, 1},
		{"vectors, x87, vectors", "\x66\x0f\x58\xc1" + fld1 + "\x66\x0f\x58\xc1\xd9\xff" + "\x66\x0f\x58\xc1" + fldpi + "\xd9\xff" + fld1, 4},
		{"MXCSR", "\x0f\xae\x5b\x10\x66\x81\x73\x10\x00\x60\x0f\xae\x53\x10\x66\x0f\x5e\xc1" + fld1 + "\x0f\xae\x5b\x20" + loop + "\xe4", 3},
		{"MXCSR that unmasks", "\x0f\xae\x5b\x10\x66\x81\x73\x10\x80\x00\x0f\xae\x53\x10\x66\x0f\x5e\xc1" + fld1, 6},
		{"MXCSR that cannot be", "\x0f\xae\x5b\x10\xc6\x43\x12\x01\x0f\xae\x53\x10\x66\x0f\x5e\xc1" + fld1, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &program{code: append([]byte(tt.code), 0xf4), data: make([]byte, 0x3000), flags: x86.Flag1}
			gen{rand.New(rand.NewPCG(5, 19))}.x87(p)
			p.cr0, p.ignne = 0, tt.name == ignored
			clear(p.fx[:32])
			binary.LittleEndian.PutUint16(p.fx[fxFCW:], 0x37f)
			binary.LittleEndian.PutUint32(p.fx[fxCSR:], 0x1f80)
			p.regs[x86.RBX], p.regs[x86.RCX], p.regs[x86.RSP] = dataAt+0x100, 50, stackAt
			a, b := newRig(t, false), newRig(t, true)
			for _, n := range []uint64{1000, 1, 3} {
				a.prepare(p)
				b.prepare(p)
				slow := b.jit.Stats.Slow
				for range 1000 / n {
					a.run(n)
					b.run(n)
					if d := differs(a, b); d != "" {
						t.Fatalf("%d instructions at a time:\n%s%s", n, d, p.list())
					}
				}
				if slow = b.jit.Stats.Slow - slow; n == 1000 && slow > tt.slow { // with the HLT at the end
					t.Errorf("%d instructions were left to the interpreter", slow)
				}
			}
		})
	}
}
