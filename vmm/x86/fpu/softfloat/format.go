package softfloat

import "math/bits"

// Format is an interchange format, or extended precision.
type Format struct {
	precision int // bits of the significand, with the first
	bias      int // of the exponent, and the largest one
}

// The formats (SDM Vol. 1 table 4-2).
var (
	Single   = Format{precision: 24, bias: 127}
	Double   = Format{precision: 53, bias: 1023}
	Extended = Format{precision: 64, bias: 16383}
)

// Limited returns f with fewer bits of precision and the same exponents, as the x87 precision control has it.
func (f Format) Limited(precision int) Format {
	f.precision = min(f.precision, precision)
	return f
}

// Round rounds a result to what f can hold.
func (e *Env) Round(n Num, f Format) Num {
	e.RoundedUp = false
	if !n.Finite() {
		return n
	}
	least := 1 - f.bias
	r, inexact, up := e.cut(n, f.precision)
	r.Class = Normal
	switch {
	case r.Exp < least && e.Wrap&Underflow != 0:
		e.Raised |= Underflow
		if r.Exp += Bias; r.Exp < least { // massive, as only Scale makes them
			e.Raised |= Inexact
			return zero(n.Neg)
		}
	case r.Exp < least && e.FTZ:
		e.Raised |= Underflow | Inexact
		return zero(n.Neg)
	case r.Exp < least:
		// Tiny: rounded again, to the bits that a denormal has.
		r, inexact, up = e.cut(n, f.precision-(least-n.Exp))
		if inexact {
			e.Raised |= Underflow
		}
		switch {
		case r.Class == Zero:
		case r.Exp < least:
			r.Class = Denormal
		default:
			r.Class = Normal
		}
	case r.Exp > f.bias && e.Wrap&Overflow != 0:
		e.Raised |= Overflow
		if r.Exp -= Bias; r.Exp > f.bias {
			e.Raised |= Inexact
			e.RoundedUp = true
			return infinity(n.Neg)
		}
	case r.Exp > f.bias:
		e.Raised |= Overflow | Inexact
		if e.Rounding == NearestEven || e.Rounding == Up && !n.Neg || e.Rounding == Down && n.Neg {
			e.RoundedUp = true
			return infinity(n.Neg)
		}
		return Num{Class: Normal, Neg: n.Neg, Exp: f.bias, Sig: ^uint64(0) << (64 - f.precision)}
	}
	if inexact {
		e.Raised |= Inexact
	}
	e.RoundedUp = up
	return r
}

// Unpack takes a number of an interchange format apart.
func (f Format) Unpack(v uint64) Num {
	stored := f.precision - 1
	n := Num{Sig: v << (64 - f.precision) &^ (1 << 63)}
	most := 2*f.bias + 1
	biased := int(v>>stored) & most
	n.Neg = v>>stored > uint64(most)
	switch biased {
	case most:
		return nonFinite(n)
	case 0:
		if n.Sig == 0 {
			return n
		}
		n.Class = Denormal
		n.Exp = 1 - f.bias
		return n.normalised()
	}
	n.Class = Normal
	n.Exp = biased - f.bias
	n.Sig |= 1 << 63
	return n
}

// nonFinite classifies what has the largest exponent.
func nonFinite(n Num) Num {
	switch {
	case n.Sig<<1 == 0:
		n.Class = Infinite
	case n.Sig>>62&1 != 0:
		n.Class = Quiet
	default:
		n.Class = Signaling
	}
	n.Sig |= 1 << 63
	return n
}

// Pack makes a number of an interchange format. Preconditions: n was rounded to f, or is not finite. A NaN loses what does
// not fit.
func (f Format) Pack(n Num) uint64 {
	stored := f.precision - 1
	biased, sig := uint64(0), n.Sig
	switch {
	case n.Class == Zero:
		sig = 0
	case n.Class == Denormal:
		sig >>= 1 - f.bias - n.Exp
	case n.Class == Normal:
		biased = uint64(n.Exp + f.bias)
	default:
		biased = uint64(2*f.bias + 1)
	}
	v := biased<<stored | sig<<1>>(64-stored)
	if n.Class == Denormal {
		v = sig >> (63 - stored)
	}
	if n.Neg {
		v |= uint64(2*f.bias+2) << stored
	}
	return v
}

// UnpackExtended takes a number of extended precision apart: its significand, and its sign and exponent.
func UnpackExtended(sig uint64, se uint16) Num {
	n := Num{Neg: se>>15 != 0, Sig: sig}
	biased := int(se & 0x7fff)
	switch {
	case biased == 0 && sig == 0:
		return n
	case biased == 0:
		// With the first bit set, a pseudo-denormal: a denormal operand that is worth what it says.
		n.Class = Denormal
		n.Exp = 1 - Extended.bias - bits.LeadingZeros64(sig)
		n.Sig <<= bits.LeadingZeros64(sig)
		return n
	case sig>>63 == 0:
		n.Class = Unsupported
		return n
	case biased == 0x7fff:
		return nonFinite(n)
	}
	n.Class = Normal
	n.Exp = biased - Extended.bias
	return n
}

// PackExtended undoes UnpackExtended. Preconditions: n was rounded to Extended, or is not finite.
func PackExtended(n Num) (sig uint64, se uint16) {
	sig = n.Sig
	switch n.Class {
	case Zero:
		sig = 0
	case Denormal:
		sig >>= 1 - Extended.bias - n.Exp
	case Normal:
		se = uint16(n.Exp + Extended.bias)
	default:
		se = 0x7fff
	}
	if n.Neg {
		se |= 1 << 15
	}
	return sig, se
}
