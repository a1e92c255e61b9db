package softfloat

import "math/bits"

// Flags are exceptions, with the bits that MXCSR and the x87 status word have for them.
type Flags uint8

const (
	Invalid Flags = 1 << iota
	DenormalOperand
	DivideByZero
	Overflow
	Underflow
	Inexact

	// OfOperands are those that an operation raises before there is a result.
	OfOperands = Invalid | DenormalOperand | DivideByZero
)

// Rounding is a rounding mode, numbered as MXCSR.RC and the x87 control word do.
type Rounding uint8

const (
	NearestEven Rounding = iota
	Down
	Up
	TowardZero
)

// Env is what operations depend on, and the exceptions that they raised.
type Env struct {
	Rounding Rounding
	X87      bool // of two NaNs, the one with the larger significand
	DAZ      bool // denormal operands are zeros
	FTZ      bool // tiny results are zeros
	// Wrap has Overflow or Underflow where these are not masked: then the result has another exponent, see Bias.
	Wrap Flags

	Raised    Flags
	RoundedUp bool // the magnitude of the last result is larger than that of the exact one
}

// Bias is by how much the exponent of a result is out after an unmasked overflow (less) or underflow (more) (SDM
// Vol. 1 8.5.4 and 8.5.5).
const Bias = 24576

// Class is what kind of number a Num is.
type Class uint8

const (
	Zero Class = iota
	Denormal
	Normal
	Infinite
	Quiet
	Signaling
	Unsupported // unnormals, pseudo-infinities and pseudo-NaNs of extended precision
)

// Num is an unpacked number.
type Num struct {
	Class Class
	Neg   bool
	Exp   int    // of the most significant bit of Sig
	Sig   uint64 // with its most significant bit set, if the number is finite and not zero; of a NaN, the significand
	Low   uint64 // what follows Sig in an unrounded result; the last bit stands for all that follow it
}

// Special values.
var (
	Indefinite = Num{Class: Quiet, Neg: true, Sig: 3 << 62}
	One        = Num{Class: Normal, Sig: 1 << 63}
)

// Finite reports whether n is a number, and not zero.
func (n Num) Finite() bool { return n.Class == Normal || n.Class == Denormal }

// NaN reports whether n is a NaN.
func (n Num) NaN() bool { return n.Class == Quiet || n.Class == Signaling }

// Integer returns the Num of an integer: magnitude and sign.
func Integer(v uint64, neg bool) Num {
	if v == 0 {
		return Num{Class: Zero, Neg: neg}
	}
	k := bits.LeadingZeros64(v)
	return Num{Class: Normal, Neg: neg, Exp: 63 - k, Sig: v << k}
}

// Signed returns the Num of a signed integer.
func Signed(v int64) Num {
	if v < 0 {
		return Integer(-uint64(v), true)
	}
	return Integer(uint64(v), false)
}

func zero(neg bool) Num     { return Num{Class: Zero, Neg: neg} }
func infinity(neg bool) Num { return Num{Class: Infinite, Neg: neg, Sig: 1 << 63} }

// Abs returns n without its sign.
func (n Num) Abs() Num { n.Neg = false; return n }

// Negated returns n with the other sign.
func (n Num) Negated() Num { n.Neg = !n.Neg; return n }

// InvalidOperation raises the exception and returns the result of an invalid operation.
func (e *Env) InvalidOperation() Num {
	e.Raised |= Invalid
	return Indefinite
}

// quiet returns what becomes of an operand that is a NaN.
func (e *Env) quiet(n Num) Num {
	if n.Class == Signaling {
		e.Raised |= Invalid
		n.Class = Quiet
		n.Sig |= 1 << 62
	}
	return n
}

// Flushed takes denormal operands for zeros, under DAZ.
func (e *Env) Flushed(n Num) Num {
	if e.DAZ && n.Class == Denormal {
		return zero(n.Neg)
	}
	return n
}

// denormal raises the exception for denormal operands.
func (e *Env) denormal(a, b Num) {
	if a.Class == Denormal || b.Class == Denormal {
		e.Raised |= DenormalOperand
	}
}

// Special returns the result of an operation with an operand that is no number at all, and whether there is one.
func (e *Env) Special(a, b Num) (Num, bool) {
	if a.Class == Unsupported || b.Class == Unsupported {
		return e.InvalidOperation(), true
	}
	if !a.NaN() && !b.NaN() {
		return Num{}, false
	}
	return e.nan(a, b), true
}

// nan picks the NaN that is the result (SDM Vol. 1 table 4-7). Preconditions: one of them is one.
func (e *Env) nan(a, b Num) Num {
	if a.Class == Signaling || b.Class == Signaling {
		e.Raised |= Invalid
	}
	switch {
	case !b.NaN():
		return e.quiet(a)
	case !a.NaN():
		return e.quiet(b)
	case !e.X87:
		return e.quiet(a)
	case a.Class != b.Class && a.Class == Signaling:
		return b
	case a.Class != b.Class:
		return a
	}
	a, b = e.quiet(a), e.quiet(b)
	if a.Sig > b.Sig || a.Sig == b.Sig && !a.Neg {
		return a
	}
	return b
}

// Quieted returns a number as a load or a conversion does: a signaling NaN is made quiet, denormals are noticed.
func (e *Env) Quieted(n Num) Num {
	n = e.Flushed(n)
	if r, ok := e.Special(n, n); ok {
		return r
	}
	e.denormal(n, n)
	return n
}

// Add returns a + b.
func (e *Env) Add(a, b Num) Num { return e.add(a, b, false) }

// Sub returns a - b.
func (e *Env) Sub(a, b Num) Num { return e.add(a, b, true) }

func (e *Env) add(a, b Num, sub bool) Num {
	a, b = e.Flushed(a), e.Flushed(b)
	if r, ok := e.Special(a, b); ok {
		return r
	}
	b.Neg = b.Neg != sub
	if a.Class == Infinite && b.Class == Infinite && a.Neg != b.Neg {
		return e.InvalidOperation()
	}
	e.denormal(a, b)
	switch {
	case a.Class == Infinite:
		return a
	case b.Class == Infinite:
		return b
	case a.Class == Zero && b.Class == Zero && a.Neg == b.Neg:
		return a
	case a.Class == Zero && b.Class == Zero:
		return zero(e.Rounding == Down)
	case a.Class == Zero:
		return b
	case b.Class == Zero:
		return a
	}
	if a.Exp < b.Exp || a.Exp == b.Exp && a.Sig < b.Sig {
		a, b = b, a
	}
	// Now a is the larger. The smaller is shifted into its place, and what is shifted out stays as a sticky bit.
	hi, lo := shiftRight(b.Sig, 0, uint(a.Exp-b.Exp))
	r := Num{Class: Normal, Neg: a.Neg, Exp: a.Exp}
	if a.Neg == b.Neg {
		var carry uint64
		r.Sig, carry = bits.Add64(a.Sig, hi, 0)
		r.Low = lo
		if carry != 0 {
			r.Sig, r.Low = shiftRight(r.Sig, r.Low, 1)
			r.Sig |= 1 << 63
			r.Exp++
		}
		return r
	}
	var borrow uint64
	r.Low, borrow = bits.Sub64(0, lo, 0)
	r.Sig, _ = bits.Sub64(a.Sig, hi, borrow)
	if r.Sig|r.Low == 0 {
		return zero(e.Rounding == Down)
	}
	return r.normalised()
}

// normalised shifts the most significant bit to its place. Preconditions: there is one.
func (n Num) normalised() Num {
	if n.Sig == 0 {
		n.Sig, n.Low = n.Low, 0
		n.Exp -= 64
	}
	k := bits.LeadingZeros64(n.Sig)
	n.Sig = n.Sig<<k | n.Low>>(64-k)
	n.Low <<= k
	n.Exp -= k
	return n
}

// shiftRight shifts 128 bits; if any that is set is shifted out, the last one is set.
func shiftRight(hi, lo uint64, k uint) (uint64, uint64) {
	switch {
	case k == 0:
		return hi, lo
	case k < 64:
		return hi >> k, hi<<(64-k) | lo>>k | sticky(lo<<(64-k))
	case k < 128:
		return 0, hi>>(k-64) | sticky(hi<<(128-k)|lo)
	}
	return 0, sticky(hi | lo)
}

func sticky(v uint64) uint64 {
	if v != 0 {
		return 1
	}
	return 0
}

// Mul returns a · b.
func (e *Env) Mul(a, b Num) Num {
	a, b = e.Flushed(a), e.Flushed(b)
	if r, ok := e.Special(a, b); ok {
		return r
	}
	if a.Class == Infinite && b.Class == Zero || a.Class == Zero && b.Class == Infinite {
		return e.InvalidOperation()
	}
	e.denormal(a, b)
	neg := a.Neg != b.Neg
	switch {
	case a.Class == Infinite || b.Class == Infinite:
		return infinity(neg)
	case a.Class == Zero || b.Class == Zero:
		return zero(neg)
	}
	r := Num{Class: Normal, Neg: neg, Exp: a.Exp + b.Exp + 1}
	r.Sig, r.Low = bits.Mul64(a.Sig, b.Sig)
	return r.normalised()
}

// Div returns a / b.
func (e *Env) Div(a, b Num) Num {
	a, b = e.Flushed(a), e.Flushed(b)
	if r, ok := e.Special(a, b); ok {
		return r
	}
	neg := a.Neg != b.Neg
	switch {
	case a.Class == b.Class && (a.Class == Infinite || a.Class == Zero):
		return e.InvalidOperation()
	case b.Class == Zero && a.Class != Infinite:
		e.Raised |= DivideByZero
		return infinity(neg)
	}
	e.denormal(a, b)
	switch {
	case a.Class == Infinite:
		return infinity(neg)
	case a.Class == Zero || b.Class == Infinite:
		return zero(neg)
	}
	r := Num{Class: Normal, Neg: neg, Exp: a.Exp - b.Exp}
	var rest uint64
	if a.Sig >= b.Sig {
		r.Sig, rest = bits.Div64(a.Sig>>1, a.Sig<<63, b.Sig)
	} else {
		r.Sig, rest = bits.Div64(a.Sig, 0, b.Sig)
		r.Exp--
	}
	r.Low, rest = bits.Div64(rest, 0, b.Sig)
	r.Low |= sticky(rest)
	return r
}

// Sqrt returns the square root of a.
func (e *Env) Sqrt(a Num) Num {
	a = e.Flushed(a)
	if r, ok := e.Special(a, a); ok {
		return r
	}
	if a.Neg && a.Class != Zero {
		return e.InvalidOperation()
	}
	e.denormal(a, a)
	if !a.Finite() {
		return a
	}
	// Sig is made an integer of 128 bits, with an even exponent.
	hi, lo := a.Sig, uint64(0)
	if a.Exp&1 == 0 {
		hi, lo = hi>>1, hi<<63
	}
	r := Num{Class: Normal, Exp: a.Exp >> 1}
	r.Sig = root(hi, lo)
	// Whether the root is above what was found, and above the middle to the next: (s+1/2)² = s² + s + 1/4.
	sqHi, sqLo := bits.Mul64(r.Sig, r.Sig)
	restLo, borrow := bits.Sub64(lo, sqLo, 0)
	restHi, _ := bits.Sub64(hi, sqHi, borrow)
	switch {
	case restHi != 0 || restLo > r.Sig:
		r.Low = 1<<63 | 1
	case restLo != 0:
		r.Low = 1
	}
	return r
}

// root returns the integer part of the square root of 128 bits, by Newton's method from above. Preconditions: it has 64 bits.
func root(hi, lo uint64) uint64 {
	x := ^uint64(0)
	for hi < x { // otherwise the quotient is more than 64 bits, and more than x
		q, _ := bits.Div64(hi, lo, x)
		sum, carry := bits.Add64(x, q, 0)
		y := sum>>1 | carry<<63
		if y >= x {
			break
		}
		x = y
	}
	return x
}

// Order is the outcome of a comparison.
type Order uint8

const (
	Less Order = iota
	Equal
	Greater
	Unordered
)

// Compare compares a and b. A quiet NaN is an invalid operand if signals says so.
func (e *Env) Compare(a, b Num, signals bool) Order {
	a, b = e.Flushed(a), e.Flushed(b)
	if a.Class == Unsupported || b.Class == Unsupported || a.NaN() || b.NaN() {
		if signals || a.Class >= Signaling || b.Class >= Signaling {
			e.Raised |= Invalid
		}
		return Unordered
	}
	e.denormal(a, b)
	return order(a, b)
}

func order(a, b Num) Order {
	switch {
	case a.Class == Zero && b.Class == Zero:
		return Equal
	case a.Class == Zero && b.Neg, b.Class == Zero && !a.Neg, a.Class != Zero && b.Class != Zero && b.Neg && !a.Neg:
		return Greater
	case a.Class == Zero || b.Class == Zero || a.Neg != b.Neg:
		return Less
	}
	less := a.Neg // if its magnitude is larger
	switch {
	case a.Class == Infinite && b.Class == Infinite:
		return Equal
	case a.Class == Infinite:
	case b.Class == Infinite:
		less = !less
	case a.Exp == b.Exp && a.Sig == b.Sig:
		return Equal
	case a.Exp < b.Exp || a.Exp == b.Exp && a.Sig < b.Sig:
		less = !less
	}
	if less {
		return Less
	}
	return Greater
}

// cut rounds the magnitude of a finite number to its first keep bits; keep may be zero or less.
func (e *Env) cut(n Num, keep int) (r Num, inexact, up bool) {
	r = n
	r.Low = 0
	var half, odd bool
	var rest uint64
	switch {
	case keep > 64:
		// No rounding: only exact numbers have that many bits. Low is zero.
		return r, false, false
	case keep == 64:
		half, rest = n.Low>>63 != 0, n.Low<<1
		odd = n.Sig&1 != 0
	case keep > 0:
		r.Sig = n.Sig >> (64 - keep) << (64 - keep)
		half, rest = n.Sig>>(63-keep)&1 != 0, n.Sig<<(keep+1)|n.Low
		odd = r.Sig>>(64-keep)&1 != 0
	case keep == 0:
		r.Sig = 0
		half, rest = true, n.Sig<<1|n.Low
	default:
		r.Sig = 0
		rest = 1
	}
	if !half && rest == 0 {
		return r, false, false
	}
	switch e.Rounding {
	case NearestEven:
		up = half && (odd || rest != 0)
	case Up:
		up = !n.Neg
	case Down:
		up = n.Neg
	}
	switch {
	case up && keep <= 0:
		r.Class, r.Sig, r.Exp = Normal, 1<<63, n.Exp+1-keep
	case up:
		r.Sig += 1 << (64 - keep)
		if r.Sig == 0 {
			r.Sig, r.Exp = 1<<63, r.Exp+1
		}
	case r.Sig == 0:
		r.Class = Zero
	}
	return r, true, up
}

// RoundInt rounds n to an integer; inexactly, that raises Inexact, unless quietly.
func (e *Env) RoundInt(n Num, quietly bool) Num {
	n = e.Quieted(n)
	if !n.Finite() {
		return n
	}
	r, inexact, up := e.cut(n, n.Exp+1)
	e.RoundedUp = up
	if inexact && !quietly {
		e.Raised |= Inexact
	}
	return r
}

// ToInt rounds n to a signed integer of the given number of bits. What does not fit is invalid, and ok false.
func (e *Env) ToInt(n Num, size int) (v int64, ok bool) {
	if n = e.Flushed(n); n.Class == Zero {
		return 0, true
	}
	r := n
	var inexact, up bool
	if n.Finite() {
		r, inexact, up = e.cut(n, n.Exp+1)
	}
	most := size - 1 // bits of magnitude
	if r.Class != Zero && (!r.Finite() || r.Exp >= most) && !(r.Finite() && r.Neg && r.Exp == most && r.Sig == 1<<63) {
		e.Raised |= Invalid
		return 0, false
	}
	e.RoundedUp = up
	if inexact {
		e.Raised |= Inexact
	}
	if r.Class == Zero {
		return 0, true
	}
	v = int64(r.Sig >> (63 - r.Exp))
	if r.Neg {
		v = -v
	}
	return v, true
}

// Scale returns a · 2^b, with b truncated to an integer (SDM Vol. 2A, FSCALE).
func (e *Env) Scale(a, b Num) Num {
	a, b = e.Flushed(a), e.Flushed(b)
	if r, ok := e.Special(a, b); ok {
		return r
	}
	if b.Class == Infinite && (a.Class == Zero && !b.Neg || a.Class == Infinite && b.Neg) {
		return e.InvalidOperation()
	}
	e.denormal(a, b)
	switch {
	case !a.Finite():
		return a
	case b.Class == Infinite && b.Neg:
		return zero(a.Neg)
	case b.Class == Infinite:
		return infinity(a.Neg)
	}
	if b.Class == Zero || b.Exp < 0 {
		return a
	}
	const far = 1 << 17 // beyond all that there is, between any two exponents
	k := far
	if b.Exp < 17 {
		k = int(b.Sig >> (63 - b.Exp))
	}
	if b.Neg {
		k = -k
	}
	a.Exp += k
	return a
}

// Extract returns the exponent and the significand of a (SDM Vol. 2A, FXTRACT).
func (e *Env) Extract(a Num) (exp, sig Num) {
	a = e.Flushed(a)
	if r, ok := e.Special(a, a); ok {
		return r, r
	}
	e.denormal(a, a)
	switch a.Class {
	case Zero:
		e.Raised |= DivideByZero
		return infinity(true), a
	case Infinite:
		return infinity(false), a
	}
	exp = Signed(int64(a.Exp))
	a.Class, a.Exp = Normal, 0
	return exp, a
}

// Remainder returns the remainder of a / b, which is exact, and the low bits of the quotient. The quotient is truncated, or
// rounded to the nearest. Where the exponents are 64 or more apart, a is only reduced, by a multiple of b that the
// SDM leaves to the processor (Vol. 2A, FPREM), and partial is set: ours is the one that processors are known for.
func (e *Env) Remainder(a, b Num, nearest bool) (r Num, quotient uint64, partial bool) {
	a, b = e.Flushed(a), e.Flushed(b)
	if r, ok := e.Special(a, b); ok {
		return r, 0, false
	}
	if a.Class == Infinite || b.Class == Zero {
		return e.InvalidOperation(), 0, false
	}
	e.denormal(a, b)
	d := a.Exp - b.Exp
	if a.Class == Zero || b.Class == Infinite || d < -1 || d < 0 && !nearest {
		return a, 0, false
	}
	r = Num{Class: Normal, Neg: a.Neg, Exp: b.Exp}
	switch {
	case d >= 64:
		n := d&31 | 32
		_, r.Sig = bits.Div64(a.Sig>>(64-n), a.Sig<<n, b.Sig)
		r.Exp = a.Exp - n
		partial = true
	case d < 0:
		// Less than b, and perhaps more than half of it.
		if a.Sig <= b.Sig {
			return a, 0, false
		}
		r.Neg, r.Exp = !a.Neg, a.Exp
		r.Sig = 2*b.Sig - a.Sig
		quotient = 1
	default:
		quotient, r.Sig = bits.Div64(a.Sig>>(64-d), a.Sig<<d, b.Sig)
		if rest := b.Sig - r.Sig; nearest && (r.Sig > rest || r.Sig == rest && quotient&1 != 0) {
			quotient++
			r.Neg, r.Sig = !r.Neg, rest
		}
	}
	if r.Sig == 0 {
		return zero(a.Neg), quotient, partial
	}
	return r.normalised(), quotient, partial
}
