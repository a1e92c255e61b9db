package fpu

import (
	"math/big"
	"math/bits"

	"refault/vmm/x86/fpu/softfloat"
)

// A transcendental is first computed with numbers of 128 bits, in integer arithmetic that is the same on
// all hosts. That says how to round in all but one case of some ten million million: where the approximation is
// so near to a number in extended precision, or to the middle of two, that its own
// error matters. Then, and where the result has few bits, overflows or underflows, it is computed with more.

// wide is a number of 128 bits: (hi·2^64 + lo)·2^(exp-127), with the top bit of hi set. Zero has no bits.
type wide struct {
	neg    bool
	exp    int
	hi, lo uint64
}

// wideError bounds the errors of what is computed here, in units of lo. Each operation is wrong by a few units at most, and
// what follows each other has hardly a hundred of them: the tests find errors below 2^5.
const wideError = 1 << 20

func wideOfNum(n softfloat.Num) wide { return wide{neg: n.Neg, exp: n.Exp, hi: n.Sig, lo: n.Low} }

func wideOf(f *big.Float) wide {
	if f.Sign() == 0 {
		return wide{}
	}
	abs := new(big.Float).Abs(f)
	exp := abs.MantExp(abs) - 1
	v, _ := abs.SetMantExp(abs, 128).Int(nil)
	lo := new(big.Int).And(v, new(big.Int).SetUint64(1<<64-1)).Uint64()
	return wide{neg: f.Signbit(), exp: exp, hi: v.Rsh(v, 64).Uint64(), lo: lo}
}

// float returns a's value.
func (a wide) float() *big.Float {
	f := newSoft().SetMantExp(newSoft().SetUint64(a.hi), 64)
	f.Add(f, newSoft().SetUint64(a.lo))
	f.SetMantExp(f, a.exp-127)
	if a.neg {
		f.Neg(f)
	}
	return f
}

func wideInt(v int64) wide { return wideOfNum(softfloat.Signed(v)) }

// scale returns a·2^n.
func (a wide) scale(n int) wide {
	a.exp += n
	return a
}

func (a wide) negate(yes bool) wide {
	a.neg = a.neg != yes
	return a
}

func (a wide) mul(b wide) wide {
	if a.hi == 0 || b.hi == 0 {
		return wide{}
	}
	hi, mid := bits.Mul64(a.hi, b.hi)
	p, _ := bits.Mul64(a.hi, b.lo)
	q, _ := bits.Mul64(a.lo, b.hi)
	lo, c := bits.Add64(mid, p, 0)
	hi += c
	lo, c = bits.Add64(lo, q, 0)
	hi += c
	r := wide{neg: a.neg != b.neg, exp: a.exp + b.exp + 1, hi: hi, lo: lo}
	if hi>>63 == 0 {
		r.exp, r.hi, r.lo = r.exp-1, hi<<1|lo>>63, lo<<1
	}
	return r
}

func (a wide) add(b wide) wide {
	if a.hi == 0 || b.hi != 0 && a.exp < b.exp {
		a, b = b, a
	}
	d := uint(a.exp - b.exp)
	switch {
	case b.hi == 0 || d >= 128:
		return a
	case d >= 64:
		b.hi, b.lo = 0, b.hi>>(d-64)
	default:
		b.hi, b.lo = b.hi>>d, b.lo>>d|b.hi<<(64-d)
	}
	if a.neg == b.neg {
		lo, c := bits.Add64(a.lo, b.lo, 0)
		hi, c := bits.Add64(a.hi, b.hi, c)
		if c != 0 {
			lo, hi = lo>>1|hi<<63, hi>>1|1<<63
			a.exp++
		}
		a.hi, a.lo = hi, lo
		return a
	}
	lo, c := bits.Sub64(a.lo, b.lo, 0)
	hi, c := bits.Sub64(a.hi, b.hi, c)
	if c != 0 { // only with equal exponents
		a.neg = b.neg
		lo, c = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, c)
	}
	if hi == 0 {
		if hi, lo = lo, 0; hi == 0 {
			return wide{}
		}
		a.exp -= 64
	}
	n := bits.LeadingZeros64(hi)
	a.hi, a.lo, a.exp = hi<<n|lo>>(64-n), lo<<n, a.exp-n
	return a
}

func (a wide) sub(b wide) wide { return a.add(b.negate(true)) }

// quo returns a/b. Preconditions: b is not zero.
func (a wide) quo(b wide) wide {
	// A reciprocal of 62 bits, and a step of Newton's.
	q, _ := bits.Div64(1<<62, 0, b.hi)
	n := bits.LeadingZeros64(q)
	r := wide{neg: b.neg, exp: -b.exp - n, hi: q << n}
	return a.mul(r.mul(wideInt(2).sub(b.mul(r))))
}

// poly returns the value of a polynomial, with the coefficients in ascending order.
func (a wide) poly(coefficients []wide) wide {
	last := len(coefficients) - 1
	sum := coefficients[last]
	for i := last - 1; i >= 0; i-- {
		sum = sum.mul(a).add(coefficients[i])
	}
	return sum
}

// num returns a number to be rounded, and whether that is sure to be what the exact result is rounded to.
func (a wide) num() (n softfloat.Num, sure bool) {
	sure = a.hi != 0 && a.exp > 1-expBias && a.exp < expBias && a.lo+wideError >= 2*wideError && a.lo-(1<<63-wideError) >= 2*wideError
	return softfloat.Num{Class: softfloat.Normal, Neg: a.neg, Exp: a.exp, Sig: a.hi, Low: a.lo}, sure
}

// Constants, and coefficients of the series. Behind the last, the next term is below 2^-115.
var (
	widePi, wideLn2 = wideOf(softPi), wideOf(softLn2)
	wideLog2e       = wideOf(newSoft().Quo(softInt(1), softLn2))
	wideOne         = wideInt(1)

	factorials  = inverseFactorials(36)
	expSeries   = series(30, func(k int64) *big.Float { return factorials[k+1] })
	sinSeries   = series(17, func(k int64) *big.Float { return alternate(k, factorials[2*k+1]) })
	cosSeries   = series(18, func(k int64) *big.Float { return alternate(k, factorials[2*k]) })
	atanhSeries = series(30, func(k int64) *big.Float { return newSoft().Quo(softInt(1), softInt(2*k+1)) })
	atanSeries  = series(48, func(k int64) *big.Float { return alternate(k, newSoft().Quo(softInt(1), softInt(2*k+1))) })
)

func series(n int64, coefficient func(k int64) *big.Float) (s []wide) {
	for k := range n {
		s = append(s, wideOf(coefficient(k)))
	}
	return s
}

// inverseFactorials returns 1/k! for k below n.
func inverseFactorials(n int64) []*big.Float {
	s := []*big.Float{softInt(1)}
	for k := int64(1); k < n; k++ {
		s = append(s, newSoft().Quo(s[k-1], softInt(k)))
	}
	return s
}

func alternate(k int64, f *big.Float) *big.Float {
	if k&1 != 0 {
		return newSoft().Neg(f)
	}
	return f
}

// wideExp2m1 computes 2^x-1 for x between -1 and 1.
func wideExp2m1(x wide) wide {
	t := x.mul(wideLn2)
	return t.mul(t.poly(expSeries))
}

// wideLog2 computes log2((1+s)/(1-s)) for a magnitude of s below 1/4.
func wideLog2(s wide) wide {
	return s.scale(1).mul(wideLog2e).mul(s.mul(s).poly(atanhSeries))
}

// wideAtan computes the arc tangent of t, from 0 to 1.
func wideAtan(t wide) wide {
	far := t.exp >= -1 || t.exp == -2 && t.hi > 0xd413cccfe7799211 // sqrt(2)-1, the tangent of pi/8
	if far {
		t = t.sub(wideOne).quo(t.add(wideOne))
	}
	t = t.mul(t.mul(t).poly(atanSeries))
	if far {
		t = t.add(widePi.scale(-2))
	}
	return t
}

// wideAngle computes the angle of (x, y), of which neither is zero.
func wideAngle(x, y wide) wide {
	xneg, yneg := x.neg, y.neg
	x.neg, y.neg = false, false
	var a wide
	if d := y.sub(x); d.neg || d.hi == 0 {
		a = wideAtan(y.quo(x))
	} else {
		a = widePi.scale(-1).sub(wideAtan(x.quo(y)))
	}
	if xneg {
		a = widePi.sub(a)
	}
	return a.negate(yneg)
}

// wideSincos computes both for x, of a magnitude below 2^63.
func wideSincos(x softfloat.Num) (sin, cos wide) {
	// x less n halves of pi, exactly: pi66 is p·2^-64.
	const pHi, pLo = 0x3, 0x243f6a8885a308d3
	r, n := wideOfNum(x), uint64(0)
	r.neg = false
	if r.exp >= -1 {
		s := uint(r.exp + 2) // x is v·2^-65
		vHi, vLo := r.hi>>(64-s), r.hi<<s
		if s == 64 {
			vHi, vLo = r.hi, 0
		}
		times := func(n uint64) (hi, lo uint64) { // n·p, modulo 2^128
			hi, lo = bits.Mul64(n, pLo)
			return hi + n*pHi, lo
		}
		n, _ = bits.Div64(vHi>>2, vLo>>2|vHi<<62, pHi<<62|pLo>>2) // or the next one, either way
		nHi, nLo := times(n)
		dLo, c := bits.Sub64(vLo, nLo, 0)
		dHi, _ := bits.Sub64(vHi, nHi, c)
		for int64(dHi) < 0 {
			n--
			dLo, c = bits.Add64(dLo, pLo, 0)
			dHi, _ = bits.Add64(dHi, pHi, c)
		}
		neg := false
		for dHi<<1|dLo>>63 > pHi || dHi<<1|dLo>>63 == pHi && dLo<<1 > pLo { // more than the half of p, or all of it
			n++
			neg = true
			dLo, c = bits.Sub64(pLo, dLo, 0)
			dHi, _ = bits.Sub64(pHi, dHi, c)
			if int64(dHi) < 0 {
				neg = false
				dLo, c = bits.Sub64(0, dLo, 0)
				dHi, _ = bits.Sub64(0, dHi, c)
			}
		}
		r = wide{exp: 127 - 65, hi: dHi, lo: dLo}
		if dHi == 0 {
			r.hi, r.lo, r.exp = dLo, 0, r.exp-64
		}
		k := bits.LeadingZeros64(r.hi)
		r.hi, r.lo, r.exp = r.hi<<k|r.lo>>(64-k), r.lo<<k, r.exp-k
		r.neg = neg
	}
	sq := r.mul(r)
	s, c := r.mul(sq.poly(sinSeries)), sq.poly(cosSeries)
	switch n & 3 {
	case 1:
		s, c = c, s.negate(true)
	case 2:
		s, c = s.negate(true), c.negate(true)
	case 3:
		s, c = c.negate(true), s
	}
	return s.negate(x.Neg), c
}
