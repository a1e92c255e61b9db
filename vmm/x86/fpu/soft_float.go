package fpu

import (
	"fmt"
	"math"

	"refault/vmm/x86/fpu/softfloat"
)

// The SSE instructions on floating-point numbers (SDM Vol. 1 chapters 10 to 12, and 4.8; Vol. 2 for each). MXCSR masks all
// exceptions here.

// Bits of MXCSR (SDM Vol. 1 10.2.3).
const (
	mxcsrDAZ = 1 << 6
	mxcsrRC  = 13
	mxcsrFZ  = 1 << 15
)

func sseEnv(mxcsr uint32) softfloat.Env {
	return softfloat.Env{
		Rounding: softfloat.Rounding(mxcsr >> mxcsrRC & 3),
		DAZ:      mxcsr&mxcsrDAZ != 0,
		FTZ:      mxcsr&mxcsrFZ != 0,
	}
}

// elements are the numbers of a register.
type elements struct {
	softfloat.Format
	w int // bytes of each
	n int // bytes of all that the instruction works on
}

func (f elements) load(r *register, i int) softfloat.Num { return f.Unpack(lane(r, i, f.w)) }

func (f elements) store(r *register, i int, n softfloat.Num) { setLane(r, i, f.w, f.Pack(n)) }

var (
	packedSingle = elements{softfloat.Single, 4, 16}
	packedDouble = elements{softfloat.Double, 8, 16}
	scalarSingle = elements{softfloat.Single, 4, 4}
	scalarDouble = elements{softfloat.Double, 8, 8}
)

// arithmetic makes of two numbers one, not rounded yet.
type arithmetic func(e *softfloat.Env, a, b softfloat.Num) softfloat.Num

func sqrt(e *softfloat.Env, _, b softfloat.Num) softfloat.Num { return e.Sqrt(b) }

var arithmetics = map[opcode]arithmetic{
	0x51: sqrt, 0x58: (*softfloat.Env).Add, 0x59: (*softfloat.Env).Mul, 0x5c: (*softfloat.Env).Sub, 0x5e: (*softfloat.Env).Div,
}

// compileFloat returns an instruction that looks at MXCSR.
func (v vectorCode) compileFloat() func(*Context) {
	f := map[byte]elements{0: packedSingle, 0x66: packedDouble, 0xf3: scalarSingle, 0xf2: scalarDouble}[v.prefix]
	var do func(e *softfloat.Env, c *Context)
	switch v.opcode {
	case 0x51, 0x58, 0x59, 0x5c, 0x5e:
		op := arithmetics[v.opcode]
		do = func(e *softfloat.Env, c *Context) {
			for i := 0; i < f.n; i += f.w {
				f.store(&c.Dst, i, e.Round(op(e, f.load(&c.Dst, i), f.load(&c.Src, i)), f.Format))
			}
		}
	case 0x5d, 0x5f:
		order := softfloat.Less
		if v.opcode == 0x5f {
			order = softfloat.Greater
		}
		do = func(e *softfloat.Env, c *Context) {
			for i := 0; i < f.n; i += f.w {
				a, b := f.load(&c.Dst, i), f.load(&c.Src, i)
				if e.Compare(a, b, true) != order {
					a = b
				}
				f.store(&c.Dst, i, e.Flushed(a))
			}
		}
	case 0xc2:
		do = func(e *softfloat.Env, c *Context) {
			for i := 0; i < f.n; i += f.w {
				setLane(&c.Dst, i, f.w, compare(e, f.load(&c.Dst, i), f.load(&c.Src, i), v.imm))
			}
		}
	case 0x2e, 0x2f: // UCOMISS, COMISS
		f.n = f.w
		do = func(e *softfloat.Env, c *Context) {
			c.setFlags(orderFlags(e.Compare(f.load(&c.Dst, 0), f.load(&c.Src, 0), v.opcode == 0x2f)), false)
		}
	case 0x7c, 0x7d, 0xd0: // HADDPS, HSUBPS, ADDSUBPS
		if v.prefix == 0xf2 {
			f = packedSingle
		}
		do = v.pairwise(f)
	case 0x3a08, 0x3a09, 0x3a0a, 0x3a0b: // ROUNDPS, ROUNDPD, ROUNDSS, ROUNDSD
		f = [4]elements{packedSingle, packedDouble, scalarSingle, scalarDouble}[v.opcode&3]
		do = func(e *softfloat.Env, c *Context) {
			if v.imm&4 == 0 {
				e.Rounding = softfloat.Rounding(v.imm & 3)
			}
			for i := 0; i < f.n; i += f.w {
				f.store(&c.Dst, i, e.RoundInt(f.load(&c.Src, i), v.imm&8 != 0))
			}
			e.Raised &^= softfloat.DenormalOperand // the only one that takes them without a word
		}
	case 0x3a40, 0x3a41: // DPPS, DPPD
		f = [2]elements{packedSingle, packedDouble}[v.opcode&1]
		do = func(e *softfloat.Env, c *Context) { dotProduct(e, c, f, v.imm) }
	default:
		do = v.conversion(f)
	}
	e := new(softfloat.Env) // once: this is called often
	return func(c *Context) {
		*e = sseEnv(c.MXCSR)
		do(e, c)
		c.MXCSR |= uint32(e.Raised)
	}
}

// compare returns all ones where the predicate holds (SDM Vol. 2A, CMPPS).
func compare(e *softfloat.Env, a, b softfloat.Num, predicate byte) uint64 {
	var is bool
	switch o := e.Compare(a, b, predicate&3 == 1 || predicate&3 == 2); predicate & 3 {
	case 0:
		is = o == softfloat.Equal
	case 1:
		is = o == softfloat.Less
	case 2:
		is = o == softfloat.Less || o == softfloat.Equal
	case 3:
		is = o == softfloat.Unordered
	}
	if is != (predicate&4 != 0) {
		return ^uint64(0)
	}
	return 0
}

// orderFlags are the flags of a comparison (SDM Vol. 2A, COMISD, FCOMI).
func orderFlags(o softfloat.Order) uint16 {
	return [...]uint16{
		softfloat.Less: flagCF, softfloat.Equal: flagZF, softfloat.Greater: 0, softfloat.Unordered: flagZF | flagPF | flagCF,
	}[o]
}

// pairwise returns an addition or subtraction of neighbours, or one of each.
func (v vectorCode) pairwise(f elements) func(e *softfloat.Env, c *Context) {
	if v.opcode == 0xd0 {
		return func(e *softfloat.Env, c *Context) {
			for i := 0; i < f.n; i += f.w {
				op := e.Sub
				if i/f.w&1 != 0 {
					op = e.Add
				}
				f.store(&c.Dst, i, e.Round(op(f.load(&c.Dst, i), f.load(&c.Src, i)), f.Format))
			}
		}
	}
	return func(e *softfloat.Env, c *Context) {
		op := e.Add
		if v.opcode == 0x7d {
			op = e.Sub
		}
		var r register
		for i := 0; i < f.n; i += 2 * f.w {
			f.store(&r, i/2, e.Round(op(f.load(&c.Dst, i), f.load(&c.Dst, i+f.w)), f.Format))
			f.store(&r, (f.n+i)/2, e.Round(op(f.load(&c.Src, i), f.load(&c.Src, i+f.w)), f.Format))
		}
		c.Dst = r
	}
}

// dotProduct is DPPS and DPPD: products, rounded, then sums of neighbours, rounded.
func dotProduct(e *softfloat.Env, c *Context, f elements, imm byte) {
	var terms [4]softfloat.Num
	n := f.n / f.w
	for i := range n {
		if imm>>(4+i)&1 != 0 {
			terms[i] = e.Round(e.Mul(f.load(&c.Dst, i*f.w), f.load(&c.Src, i*f.w)), f.Format)
		}
	}
	sum := func(a, b softfloat.Num) softfloat.Num { return e.Round(e.Add(a, b), f.Format) }
	total := sum(terms[0], terms[1])
	if n == 4 {
		total = sum(total, sum(terms[2], terms[3]))
	}
	for i := range n {
		r := softfloat.Num{}
		if imm>>i&1 != 0 {
			r = total
		}
		f.store(&c.Dst, i*f.w, r)
	}
}

// conversion returns an instruction that converts.
func (v vectorCode) conversion(f elements) func(e *softfloat.Env, c *Context) {
	single := v.prefix == 0 || v.prefix == 0xf3
	switch v.opcode {
	case 0x2a: // CVTPI2PS, CVTPI2PD, CVTSI2SS, CVTSI2SD
		if v.prefix == 0xf3 || v.prefix == 0xf2 {
			return func(e *softfloat.Env, c *Context) {
				v := int64(c.GPR) << (64 - 8*v.general()) >> (64 - 8*v.general())
				f.store(&c.Dst, 0, e.Round(softfloat.Signed(v), f.Format))
			}
		}
		f.n = 2 * f.w
		return fromIntegers(f)
	case 0x2c, 0x2d: // CVTTPS2PI, CVTTSS2SI, and without the second T
		truncate := v.opcode == 0x2c
		if v.prefix == 0xf3 || v.prefix == 0xf2 {
			return func(e *softfloat.Env, c *Context) { c.GPR = toInteger(e, f.load(&c.Src, 0), v.general(), truncate) }
		}
		if single {
			f.n = 8
		}
		return toIntegers(f, truncate, 8)
	case 0x5a: // CVTPS2PD, CVTPD2PS, CVTSS2SD, CVTSD2SS
		to := scalarSingle
		if single {
			to = scalarDouble
		}
		if v.prefix == 0 {
			f.n = 8
		}
		return func(e *softfloat.Env, c *Context) {
			src := c.Src
			if v.prefix == 0x66 {
				c.Dst = register{}
			}
			for i := 0; i < f.n; i += f.w {
				to.store(&c.Dst, i/f.w*to.w, e.Round(e.Quieted(f.load(&src, i)), to.Format))
			}
		}
	case 0x5b: // CVTDQ2PS, CVTPS2DQ, CVTTPS2DQ
		if v.prefix == 0 {
			return fromIntegers(packedSingle)
		}
		return toIntegers(packedSingle, v.prefix == 0xf3, 16)
	case 0xe6: // CVTDQ2PD, CVTTPD2DQ, CVTPD2DQ
		if v.prefix == 0xf3 {
			return fromIntegers(packedDouble)
		}
		return toIntegers(packedDouble, v.prefix == 0x66, 16)
	}
	panic(fmt.Sprintf("BUG: no floating-point instruction: %#x with %#x", v.opcode, v.prefix))
}

// fromIntegers converts as many 32-bit integers as there are elements.
func fromIntegers(f elements) func(e *softfloat.Env, c *Context) {
	return func(e *softfloat.Env, c *Context) {
		src := c.Src
		for i := 0; i < f.n; i += f.w {
			f.store(&c.Dst, i, e.Round(softfloat.Signed(signedLane(&src, i/f.w*4, 4)), f.Format))
		}
	}
}

// toIntegers converts to 32-bit integers; what they leave of n bytes is cleared.
func toIntegers(f elements, truncate bool, n int) func(e *softfloat.Env, c *Context) {
	return func(e *softfloat.Env, c *Context) {
		src := c.Src
		clear(c.Dst[:n])
		for i := 0; i < f.n; i += f.w {
			setLane(&c.Dst, i/f.w*4, 4, toInteger(e, f.load(&src, i), 4, truncate))
		}
	}
}

// toInteger converts to an integer of n bytes, or to the one that stands for none.
func toInteger(e *softfloat.Env, a softfloat.Num, n int, truncate bool) uint64 {
	if truncate {
		e.Rounding = softfloat.TowardZero
	}
	v, ok := e.ToInt(a, 8*n)
	if !ok {
		v = -1 << (8*n - 1)
	}
	return uint64(v) << (64 - 8*n) >> (64 - 8*n)
}

// approximate is RCPPS, RCPSS, RSQRTPS and RSQRTSS, whose results differ between
// processors within 1.5·2^-12, to one definition: the correctly rounded
// reciprocal, cut to 12 bits of significand (SDM Vol. 2B, RCPPS). MXCSR does not matter.
func (v vectorCode) approximate() func(*Context) {
	f := packedSingle
	if v.prefix == 0xf3 {
		f = scalarSingle
	}
	return func(c *Context) {
		for i := 0; i < f.n; i += f.w {
			setLane(&c.Dst, i, f.w, uint64(approxOne(math.Float32frombits(uint32(lane(&c.Src, i, f.w))), v.opcode == 0x52)))
		}
	}
}

func approxOne(v float32, sqrt bool) uint32 {
	bits := math.Float32bits(v)
	sign := bits & (1 << 31)
	switch exp := bits >> 23 & 0xff; {
	case v != v:
		return bits | 1<<22
	case exp == 0: // zero, and denormals count as zero
		return sign | 0x7f800000
	case exp == 0xff && !sqrt:
		return sign
	}
	if sqrt {
		switch {
		case sign != 0:
			return 0xffc00000
		case math.IsInf(float64(v), 0):
			return 0
		}
		return math.Float32bits(float32(1/math.Sqrt(float64(v)))) &^ 0x7ff
	}
	r := math.Float32bits(float32(1/float64(v))) &^ 0x7ff
	if r>>23&0xff == 0 {
		return sign // a tiny result is flushed to zero
	}
	return r
}
