package interp

import (
	"bytes"
	"flag"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"refault/vmm/x86"
	"refault/vmm/x86/fpu"
)

// What package fpu computes in software on other hosts is here held to what the host's own unit computes, for each
// instruction that the interpreter has it execute, and for each immediate. Where there is no such unit, it is held to what it
// computed where there was.

// hosted is an instruction that package fpu executes.
type hosted struct {
	name  string
	class fpu.Class
	code  []byte
	in    x86.Inst
	x87   bool
}

// hostedInstructions finds them all, by decoding all opcodes that there are.
func hostedInstructions() (all []hosted) {
	seen := map[string]bool{}
	try := func(code ...byte) {
		var in x86.Inst
		if x86.Decode(code, 8, &in) != x86.DecodeOK {
			return
		}
		h := hosted{name: strings.Fields(x86.Forms()[in.Form].Syntax)[0], in: in}
		switch in.Op {
		case x86.OpX87, x86.OpX87Store, x86.OpX87Flags:
			h.x87 = true
			h.code = []byte{in.Opcode, in.ModRM}
			if in.IsMem {
				h.code[1] &= 0x38
			}
		case x86.OpVector:
		case x86.OpVectorFP:
			h.class = fpu.Float
		case x86.OpVectorFlags:
			h.class = fpu.Flags
		case x86.OpVectorFPFlags:
			h.class = fpu.Float | fpu.Flags
		case x86.OpVectorImplicit:
			h.class = fpu.Implicit
		case x86.OpVectorString:
			h.class = fpu.Implicit | fpu.Flags
		default:
			return
		}
		if !h.x87 {
			p := planVector(h.class, &in)
			h.class, h.code = p.class, hostCode(&in, &p)
		}
		h.name = fmt.Sprintf("%s (% x)", h.name, h.code)
		if !seen[h.name] {
			seen[h.name] = true
			all = append(all, h)
		}
	}
	tail := make([]byte, 4)
	for opcode := range 256 {
		for modrm := range 256 {
			if opcode >= 0xd8 && opcode <= 0xdf {
				try(append([]byte{byte(opcode), byte(modrm)}, tail...)...)
			}
			for _, prefix := range []string{"", "\x66", "\xf2", "\xf3"} {
				for _, rex := range []string{"", "\x48"} {
					for _, m := range []string{"\x0f", "\x0f\x38", "\x0f\x3a"} {
						if modrm != 0x12 && modrm>>6 != 3 || modrm&7 != 2 {
							continue
						}
						code := append([]byte(prefix+rex+m), byte(opcode), byte(modrm))
						var in x86.Inst
						if x86.Decode(append(code, tail...), 8, &in) != x86.DecodeOK {
							continue
						}
						n := 1
						for _, o := range x86.FormOperands(in.Form) {
							if o.Kind == 'I' {
								n = 256
							}
						}
						for imm := range n {
							try(append(append(code[:len(code):len(code)], byte(imm)), tail...)...)
						}
					}
				}
			}
		}
	}
	return all
}

// operands makes operands that are worth a try.
type operands struct{ *rand.Rand }

// number returns the bits of a floating-point number with the given numbers of bits of fraction and exponent.
func (r operands) number(fraction, exponent int) uint64 {
	most := uint64(1)<<exponent - 1
	bias := most / 2
	var exp uint64
	switch r.IntN(10) {
	case 0:
		exp = 0
	case 1:
		exp = most
	case 2:
		exp = uint64(r.IntN(fraction + 4)) // near the denormals
	case 3:
		exp = most - 1 - uint64(r.IntN(4))
	case 4:
		exp = r.Uint64() & most
	case 5:
		exp = bias + uint64(r.IntN(70)) // near integers
	case 6:
		exp = bias - uint64(r.IntN(fraction+4))
	case 7:
		exp = bias/2 + uint64(r.IntN(80))
	case 8:
		exp = bias + bias/2 + uint64(r.IntN(80))
	default:
		exp = bias + uint64(r.IntN(4)) - 2
	}
	return (r.Uint64()&1<<exponent|min(exp, most))<<fraction | r.fraction(fraction)
}

// fraction returns bits with few ones, few zeros, long runs, or none of it.
func (r operands) fraction(n int) uint64 {
	mask := uint64(1)<<n - 1
	var v uint64
	switch r.IntN(8) {
	case 0:
	case 1:
		v = mask
	case 2:
		v = 1 << r.IntN(n)
	case 3:
		v = 1 << r.IntN(n)
		v |= 1 << r.IntN(n)
	case 4:
		v = mask - 1<<r.IntN(n)
	case 5:
		v = mask << r.IntN(n)
	case 6:
		v = r.Uint64() << r.IntN(n)
	default:
		v = r.Uint64()
	}
	return v & mask
}

// vector fills a register, with singles, doubles, integers or whatever.
func (r operands) vector(b *[16]byte) {
	switch r.IntN(6) {
	case 0, 1:
		for i := 0; i < 16; i += 4 {
			le.PutUint32(b[i:], uint32(r.number(23, 8)))
		}
	case 2, 3:
		for i := 0; i < 16; i += 8 {
			le.PutUint64(b[i:], r.number(52, 11))
		}
	case 4:
		for i := range b {
			b[i] = []byte{0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff, byte(r.IntN(256))}[r.IntN(9)]
		}
	default:
		le.PutUint64(b[:], r.Uint64())
		le.PutUint64(b[8:], r.Uint64())
	}
}

func (r operands) extended(b []byte) {
	v := r.number(48, 15)
	se := uint16(v >> 48)
	man := r.fraction(63)
	switch {
	case se&0x7fff == 0 && r.IntN(8) == 0, se&0x7fff != 0 && r.IntN(64) != 0:
		man |= 1 << 63
	}
	le.PutUint64(b, man)
	le.PutUint16(b[8:], se)
}

// fill makes a context for an instruction.
func (r operands) fill(u *fpu.Context, h *hosted) {
	r.vector(&u.Dst)
	r.vector(&u.Src)
	if r.IntN(8) == 0 {
		u.Src = u.Dst
	}
	r.vector(&u.Mask)
	for _, p := range []*uint64{&u.GPR, &u.GPR2, &u.Count} {
		*p = r.fraction(63) << r.IntN(2)
		if r.IntN(2) == 0 {
			*p = uint64(int64(r.IntN(40) - 20))
		}
	}
	u.MXCSR = 0x1f80 | uint32(r.IntN(4))<<13
	if r.IntN(2) == 0 {
		u.MXCSR = r.Uint32()&0xffff | 0x1f80
	}
	u.Flags = uint16(r.Uint32())
	clear(u.FX[:])
	if !h.x87 {
		return
	}
	fcw := uint16(r.Uint32())
	if r.IntN(2) == 0 {
		fcw |= 0x3f
	}
	fsw := uint16(r.Uint32())
	le.PutUint16(u.FX[0:], fcw)
	le.PutUint16(u.FX[2:], fsw)
	u.FX[4] = 0xff &^ (1 << r.IntN(8)) &^ (1 << r.IntN(8))
	if r.IntN(2) == 0 {
		u.FX[4] = 0xff
	}
	if r.IntN(4) != 0 {
		u.FX[4] &^= 1 << ((fsw>>11 + 7) & 7) // room to push
	}
	for i := range 8 {
		r.extended(u.FX[32+16*i:])
	}
	if r.IntN(2) == 0 {
		// Neighbours, for cancellation and quotients near one.
		copy(u.FX[48:58], u.FX[32:42])
		le.PutUint64(u.FX[48:], le.Uint64(u.FX[48:])^1<<r.IntN(64))
		le.PutUint16(u.FX[56:], le.Uint16(u.FX[56:])+uint16(r.IntN(7))-3)
	}
	if !h.in.IsMem {
		return
	}
	switch size := x87Size(x86.FormOperands(h.in.Form)[0]); {
	case h.in.Opcode&1 == 1 && h.in.Opcode != 0xd9 && h.in.Opcode != 0xdd && size < 10:
	case size == 4:
		le.PutUint32(u.Src[:], uint32(r.number(23, 8)))
	case size == 8:
		le.PutUint64(u.Src[:], r.number(52, 11))
	case size == 10:
		r.extended(u.Src[:])
	}
}

// possible makes a context what the interpreter may call an instruction with.
func possible(u *fpu.Context) {
	u.MXCSR = u.MXCSR&0xffff | 0x1f80
	u.Flags = u.Flags&0xd500 | 0x0200
	fcw := le.Uint16(u.FX[0:])&0x0f3f | 0x40
	le.PutUint16(u.FX[0:], fcw)
	le.PutUint16(u.FX[2:], le.Uint16(u.FX[2:])&0x7f7f&^(^fcw&0x3f)) // nothing is pending
	u.FX[24], u.FX[25] = 0x80, 0x1f
}

// pairOf is the same unit twice.
type pairOf struct{ native, software *fpu.Unit }

func newPair(t testing.TB) pairOf {
	if runtime.GOARCH != "amd64" {
		t.Skip("this host has no such unit")
	}
	native, err := fpu.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { native.Close() })
	return pairOf{native, fpu.NewSoftware()}
}

// stubs returns an instruction for both.
func (p pairOf) stubs(h *hosted) (native, software fpu.Stub) {
	return stubOf(p.native, h), stubOf(p.software, h)
}

func stubOf(u *fpu.Unit, h *hosted) fpu.Stub {
	if h.x87 {
		return u.X87(h.code[0], h.code[1])
	}
	return u.Vector(h.class, h.code)
}

// differs runs an instruction on both units, from the state of the native one, and says how the results differ.
func (p pairOf) differs(h *hosted, native, software fpu.Stub) string {
	n, s := p.native.Context, p.software.Context
	possible(n)
	before := *n
	*s = before
	p.native.Call(native)
	p.software.Call(software)
	var b strings.Builder
	field := func(name string, was, native, software []byte) {
		if !bytes.Equal(native, software) {
			fmt.Fprintf(&b, "  %s: % x: native % x, software % x\n", name, was, native, software)
		}
	}
	if h.x87 {
		fcw, fsw := le.Uint16(before.FX[0:]), le.Uint16(n.FX[2:])
		unmasked := fsw & 0x3f &^ fcw
		const codes = fswC0 | fswC2 | fswC3
		if unmasked&(fswIE|fswDE) != 0 && compares(&h.in) {
			// See runX87.
			le.PutUint16(n.FX[2:], le.Uint16(n.FX[2:])&^codes)
			le.PutUint16(s.FX[2:], le.Uint16(s.FX[2:])&^codes)
		}
		if !h.in.IsMem || unmasked&(fswIE|fswOE|fswUE) != 0 {
			s.Src = n.Src
		}
		if h.in.Op != x86.OpX87Flags || h.in.Opcode == 0xda || h.in.ModRM < 0xe8 || unmasked != 0 {
			s.Flags = n.Flags
		}
		field("control, status, tags", before.FX[:5], n.FX[:5], s.FX[:5])
		for i := range 8 {
			field(fmt.Sprintf("ST(%d)", i), before.FX[32+16*i:48+16*i], n.FX[32+16*i:48+16*i], s.FX[32+16*i:48+16*i])
		}
		field("Src", before.Src[:], n.Src[:], s.Src[:])
	} else {
		field("Dst", before.Dst[:], n.Dst[:], s.Dst[:])
		field("Mask", before.Mask[:], n.Mask[:], s.Mask[:])
		word := func(v uint64) []byte { return le.AppendUint64(nil, v) }
		field("GPR", word(before.GPR), word(n.GPR), word(s.GPR))
		field("Count", word(before.Count), word(n.Count), word(s.Count))
		field("MXCSR", word(uint64(before.MXCSR)), word(uint64(n.MXCSR)), word(uint64(s.MXCSR)))
	}
	if h.class&fpu.Flags != 0 || h.in.Op == x86.OpX87Flags {
		field("Flags", le.AppendUint16(nil, before.Flags), le.AppendUint16(nil, n.Flags), le.AppendUint16(nil, s.Flags))
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("%s of % x, % x, MXCSR %#x:\n%s", h.name, before.Dst, before.Src, before.MXCSR, b.String())
}

var softwareCases = flag.Int("software-cases", 1000, "cases of each instruction that is held to the host's unit")

func TestSoftwareUnit(t *testing.T) {
	all := hostedInstructions()
	if len(all) < 1000 {
		t.Fatalf("only %d instructions", len(all))
	}
	p := newPair(t)
	r := operands{rand.New(rand.NewPCG(5, 6))}
	end := time.Now()
	if soak, err := time.ParseDuration(os.Getenv("REFAULT_SOAK")); err == nil {
		r = operands{rand.New(rand.NewPCG(rand.Uint64(), 0))}
		end = end.Add(soak)
	}
	for first := true; first || time.Now().Before(end); first = false {
		for i := range all {
			h := &all[i]
			native, software := p.stubs(h)
			cases := *softwareCases
			switch {
			case len(x86.FormOperands(h.in.Form)) == 3:
				cases = max(8, cases/64) // there are 256 of it
			case !h.x87 && h.class&fpu.Float == 0:
				cases /= 10
			}
			for range cases {
				r.fill(p.native.Context, h)
				if d := p.differs(h, native, software); d != "" {
					t.Error(d)
					break
				}
			}
		}
	}
}

// What these instructions compute is part of every recording.
func TestSoftwareUnitIsTheSameEverywhere(t *testing.T) {
	u := fpu.NewSoftware()
	r := operands{rand.New(rand.NewPCG(7, 8))}
	sum := fnv.New64a()
	for _, h := range hostedInstructions() {
		stub := stubOf(u, &h)
		for range 5 {
			r.fill(u.Context, &h)
			possible(u.Context)
			u.Call(stub)
			for _, b := range [][]byte{u.Dst[:], u.Src[:], u.Mask[:], u.FX[:]} {
				sum.Write(b)
			}
			for _, v := range []uint64{u.GPR, u.Count, uint64(u.MXCSR), uint64(u.Flags)} {
				sum.Write(le.AppendUint64(nil, v))
			}
		}
	}
	const want = 0xbbcc9ca031fc90f7
	if got := sum.Sum64(); got != want {
		t.Errorf("%#x, want %#x", got, uint64(want))
	}
}

func FuzzSoftwareUnit(f *testing.F) {
	all := hostedInstructions()
	p := newPair(f)
	for i := 0; i < len(all); i += 97 {
		f.Add(uint(i), []byte("\x01\x00\x00\x80\xff\xff\x7f\x3f"))
	}
	f.Fuzz(func(t *testing.T, i uint, data []byte) {
		h := &all[i%uint(len(all))]
		u := p.native.Context
		next := func(n int) []byte {
			b := make([]byte, n)
			data = data[copy(b, data):]
			return b
		}
		clear(u.FX[:])
		copy(u.Dst[:], next(16))
		copy(u.Src[:], next(16))
		copy(u.Mask[:], next(16))
		u.GPR, u.GPR2, u.Count = le.Uint64(next(8)), le.Uint64(next(8)), le.Uint64(next(8))
		u.MXCSR, u.Flags = le.Uint32(next(4)), le.Uint16(next(2))
		copy(u.FX[:], next(5))
		for i := range 8 {
			copy(u.FX[32+16*i:], next(10))
		}
		native, software := p.stubs(h)
		if d := p.differs(h, native, software); d != "" {
			t.Error(d)
		}
	})
}

func BenchmarkUnit(b *testing.B) {
	p := newPair(b)
	for _, h := range hostedInstructions() {
		switch name, _, _ := strings.Cut(h.name, " ("); name {
		case "addpd", "mulss", "sqrtpd", "pxor", "pshufb", "paddusb", "cvttsd2si":
		case "fadd", "fdiv":
			if h.in.IsMem || h.in.RM != 1 {
				continue
			}
		default:
			continue
		}
		for _, u := range []struct {
			name string
			*fpu.Unit
		}{{"native", p.native}, {"software", p.software}} {
			b.Run(h.name+"/"+u.name, func(b *testing.B) {
				for i := 0; i < 16; i += 8 {
					le.PutUint64(u.Dst[i:], math.Float64bits(1.25))
					le.PutUint64(u.Src[i:], math.Float64bits(-3.7))
				}
				u.MXCSR = 0x1f80
				possible(u.Context)
				clear(u.FX[:])
				le.PutUint16(u.FX[0:], fcwInit)
				u.FX[4] = 0xff
				for i := range 8 {
					x := extendedOf(1.5 + float64(i))
					copy(u.FX[32+16*i:], x[:])
				}
				stub := stubOf(u.Unit, &h)
				for range b.N {
					u.Call(stub)
				}
			})
		}
	}
}
