package fpu

import (
	"math/big"

	"refault/vmm/x86/fpu/softfloat"
)

// The x87 transcendentals (SDM Vol. 1 8.3.7 to 8.3.10). Processors differ in the last
// bit of their results, and Go's math package differs between hosts with and without
// FMA, so they are computed here with numbers of 192 bits, where 128 do not do (wide.go), and rounded
// once, as RC says: correct to the last bit but for the argument reduction of the trigonometric ones,
// which uses the 66 bits of pi that the SDM documents.

const softPrec = 192 // bits

// expBias is the bias, and the largest exponent, of extended precision.
const expBias = 16383

// floatOf returns the value of a finite number.
func floatOf(n softfloat.Num) *big.Float {
	f := newSoft().SetUint64(n.Sig)
	f.SetMantExp(f, n.Exp-63)
	if n.Neg {
		f.Neg(f)
	}
	return f
}

func newSoft() *big.Float { return new(big.Float).SetPrec(softPrec) }

func softInt(v int64) *big.Float { return newSoft().SetInt64(v) }

// softResult is a result that is not rounded yet.
type softResult struct {
	known softfloat.Num // where slow is nil
	near  wide
	slow  func() softfloat.Num // computes it, where near does not say what it is rounded to
}

// num returns what is to be rounded.
func (r softResult) num() softfloat.Num {
	if r.slow == nil {
		return r.known
	}
	if n, sure := r.near.num(); sure {
		return n
	}
	return r.slow()
}

func exactly(n softfloat.Num) softResult { return softResult{known: n} }

func softZero(neg bool) softResult { return exactly(softfloat.Num{Neg: neg}) }

func softInfinity(neg bool) softResult {
	return exactly(softfloat.Num{Class: softfloat.Infinite, Neg: neg, Sig: 1 << 63})
}

func softOne(neg bool, exp int) softResult {
	return exactly(softfloat.Num{Class: softfloat.Normal, Neg: neg, Exp: exp, Sig: 1 << 63})
}

// numOf returns f to be rounded. For an f that is an approximation and looks exact, toward says on which side of it the
// true value is: -1 nearer to zero, 1 farther away. Zero: f is exact.
func numOf(f *big.Float, toward int) softfloat.Num {
	w := wideOf(f)
	n := softfloat.Num{Class: softfloat.Normal, Neg: f.Signbit(), Exp: w.exp, Sig: w.hi, Low: w.lo}
	switch precise := f.MinPrec(); {
	case precise == 0:
		n.Class = softfloat.Zero
	case precise > 128:
		n.Low |= 1
	case precise > 64:
	case toward > 0:
		n.Low = 1
	case toward < 0:
		n.Low = ^uint64(0)
		if n.Sig--; n.Sig>>63 == 0 {
			n.Sig, n.Exp = ^uint64(0), n.Exp-1
		}
	}
	return n
}

// transcendental executes one.
func (x *x87) transcendental(modrm byte) (keep uint16) {
	two := modrm == 0xf1 || modrm == 0xf3 || modrm == 0xf9 // pops
	push := modrm == 0xf2 || modrm == 0xfb
	trigonometric := push || modrm == 0xfe || modrm == 0xff
	keep = butC1
	if trigonometric {
		keep &^= fswC2
	}
	first, second := exactly(softfloat.Indefinite), exactly(softfloat.Indefinite)
	switch a := x.st(0); {
	case x.empty(0) || two && x.empty(1):
		x.stackFault(false)
	case push && !x.empty(7):
		x.stackFault(true)
	case trigonometric && a.Finite() && a.Exp >= 63:
		x.codes |= fswC2 // out of range
		return keep
	default:
		first, second = x.transcend(modrm, a, x.st(1), two)
	}
	if x.unmasked(softfloat.OfOperands) {
		return keep
	}
	var pushed softfloat.Num
	if push {
		pushed = x.env.Round(second.num(), softfloat.Extended)
	}
	r := x.env.Round(first.num(), softfloat.Extended)
	switch {
	case two:
		x.set(1, r)
		x.pop()
	case push:
		x.set(0, r)
		x.rotate(-1)
		x.set(0, pushed)
	default:
		x.set(0, r)
	}
	return keep
}

// transcend computes the result of an instruction, and for those that push two: what ST(1) and what ST(0)
// become. It raises the exceptions of the operands.
func (x *x87) transcend(modrm byte, a, b softfloat.Num, two bool) (first, second softResult) {
	e := &x.env
	if !two {
		b = a
	}
	if r, ok := e.Special(a, b); ok {
		return exactly(r), exactly(r)
	}
	switch modrm {
	case 0xf0:
		first = f2xm1(a)
	case 0xf1:
		first = fyl2x(e, a, b)
	case 0xf9:
		first = fyl2xp1(e, a, b)
	case 0xf3:
		first = fpatan(a, b)
	default:
		first, second = trigonometric(e, modrm, a)
	}
	if e.Raised&(softfloat.Invalid|softfloat.DivideByZero) == 0 && (a.Class == softfloat.Denormal || b.Class == softfloat.Denormal) {
		e.Raised |= softfloat.DenormalOperand
	}
	return first, second
}

// trigonometric computes FSIN, FCOS, FSINCOS and FPTAN.
func trigonometric(e *softfloat.Env, modrm byte, a softfloat.Num) (first, second softResult) {
	one := softOne(false, 0)
	switch {
	case a.Class == softfloat.Infinite:
		r := exactly(e.InvalidOperation())
		return r, r
	case a.Class == softfloat.Zero && modrm == 0xff:
		return one, one
	case a.Class == softfloat.Zero:
		return softZero(a.Neg), one
	}
	sin, cos := sincos(a)
	switch modrm {
	case 0xf2:
		return softResult{near: sin.near.quo(cos.near), slow: func() softfloat.Num {
			sin, cos := softSincos(floatOf(a))
			return numOf(newSoft().Quo(sin, cos), 1)
		}}, one
	case 0xff:
		return cos, second
	}
	return sin, cos
}

// Constants to more bits than are used.
var (
	softPi  = parseSoft("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803483")
	softLn2 = parseSoft("0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863327")
	// pi66 is pi as argument reduction has it: 66 bits (SDM Vol. 1 8.3.8).
	pi66 = newSoft().SetMantExp(newSoft().SetInt(mustInt("3243F6A8885A308D3")), 2-66)
)

func parseSoft(s string) *big.Float {
	f, _, err := big.ParseFloat(s, 10, softPrec, big.ToNearestEven)
	if err != nil {
		panic("BUG: " + s)
	}
	return f
}

func mustInt(hex string) *big.Int {
	v, ok := new(big.Int).SetString(hex, 16)
	if !ok {
		panic("BUG: " + hex)
	}
	return v
}

// enough reports whether term no longer matters to sum.
func enough(sum, term *big.Float) bool {
	return term.Sign() == 0 || sum.Sign() != 0 && term.MantExp(nil) < sum.MantExp(nil)-softPrec
}

// f2xm1 computes 2^x-1 for x from -1 to 1; beyond, where the result is undefined, x itself.
func f2xm1(x softfloat.Num) softResult {
	switch {
	case x.Class == softfloat.Zero:
		return softZero(x.Neg)
	case x.Class == softfloat.Infinite && x.Neg:
		return softOne(true, 0)
	case x.Class == softfloat.Infinite || x.Exp > 0 || x.Exp == 0 && x.Sig<<1 != 0:
		return exactly(x)
	case x.Exp == 0 && x.Neg:
		return softOne(true, -1)
	case x.Exp == 0:
		return softOne(false, 0)
	}
	return softResult{near: wideExp2m1(wideOfNum(x)), slow: func() softfloat.Num { return numOf(softExp2m1(floatOf(x)), 0) }}
}

// softExp2m1 computes 2^x-1.
func softExp2m1(x *big.Float) *big.Float {
	// exp(t)-1 by its series, with t small, then (1+e)^2-1 = e(e+2) four times.
	const halvings = 4
	t := newSoft().Mul(x, softLn2)
	t.SetMantExp(t, -halvings)
	sum, term := newSoft().Set(t), newSoft().Set(t)
	for k := int64(2); !enough(sum, term); k++ {
		term.Mul(term, t)
		term.Quo(term, softInt(k))
		sum.Add(sum, term)
	}
	for range halvings {
		sum.Mul(sum, newSoft().Add(sum, softInt(2)))
	}
	return sum
}

// log2 computes log2((1+s)/(1-s)) = 2 atanh(s) / ln 2 for a small s.
func log2(s *big.Float) *big.Float {
	sq := newSoft().Mul(s, s)
	sum, power := newSoft().Set(s), newSoft().Set(s)
	for k := int64(3); ; k += 2 {
		power.Mul(power, sq)
		term := newSoft().Quo(power, softInt(k))
		if enough(sum, term) {
			break
		}
		sum.Add(sum, term)
	}
	sum.SetMantExp(sum, 1)
	return sum.Quo(sum, softLn2)
}

// fyl2x computes y log2(x) (SDM Vol. 2A, FYL2X).
func fyl2x(e *softfloat.Env, x, y softfloat.Num) softResult {
	one := x.Class == softfloat.Normal && x.Exp == 0 && x.Sig<<1 == 0
	below := x.Class == softfloat.Denormal || x.Class == softfloat.Normal && x.Exp < 0 // 1
	switch {
	case x.Class == softfloat.Zero && y.Class == softfloat.Zero, x.Neg && x.Class != softfloat.Zero,
		x.Class == softfloat.Infinite && y.Class == softfloat.Zero, one && y.Class == softfloat.Infinite:
		return exactly(e.InvalidOperation())
	case x.Class == softfloat.Zero && y.Class == softfloat.Infinite:
		return softInfinity(!y.Neg)
	case x.Class == softfloat.Zero:
		e.Raised |= softfloat.DivideByZero
		return softInfinity(!y.Neg)
	case x.Class == softfloat.Infinite, y.Class == softfloat.Infinite:
		return softInfinity(y.Neg != below)
	case one || y.Class == softfloat.Zero:
		return softZero(y.Neg != below)
	}
	return scaledLog2(wideOfNum(x), y)
}

// scaledLog2 computes y log2(v) for a positive v.
func scaledLog2(v wide, y softfloat.Num) softResult {
	// v = 2^k m with m from sqrt(1/2) to sqrt(2).
	m := v
	k := int64(m.exp)
	m.exp = 0
	if m.hi > 0xb504f333f9de6484 {
		m.exp = -1
		k++
	}
	l := wideInt(k)
	if d := m.sub(wideOne); d.hi != 0 {
		l = l.add(wideLog2(d.quo(m.add(wideOne))))
	}
	return softResult{near: l.mul(wideOfNum(y)), slow: func() softfloat.Num {
		m := m.float()
		l := softInt(k)
		if d := newSoft().Sub(m, softInt(1)); d.Sign() != 0 {
			l.Add(l, log2(d.Quo(d, m.Add(m, softInt(1)))))
		}
		return numOf(l.Mul(l, floatOf(y)), 0)
	}}
}

// fyl2xp1 computes y log2(x+1), for x from -(1-sqrt(1/2)) to sqrt(2)-1; beyond, the same as far as there is one.
func fyl2xp1(e *softfloat.Env, x, y softfloat.Num) softResult {
	switch {
	case x.Class == softfloat.Zero && y.Class == softfloat.Infinite, x.Class == softfloat.Infinite && (x.Neg || y.Class == softfloat.Zero):
		return exactly(e.InvalidOperation())
	case x.Class == softfloat.Infinite, y.Class == softfloat.Infinite && !(x.Neg && x.Class != softfloat.Zero && x.Exp >= 0):
		return softInfinity(x.Neg != y.Neg)
	case x.Class == softfloat.Zero || y.Class == softfloat.Zero:
		return softZero(x.Neg != y.Neg)
	case x.Exp >= 0:
		return exactly(softfloat.Indefinite) // far out of its range
	case x.Exp >= -2:
		return scaledLog2(wideOfNum(x).add(wideOne), y) // the sum is exact
	}
	w := wideOfNum(x)
	return softResult{near: wideLog2(w.quo(w.add(wideInt(2)))).mul(wideOfNum(y)), slow: func() softfloat.Num {
		f := floatOf(x)
		l := log2(newSoft().Quo(f, newSoft().Add(f, softInt(2))))
		return numOf(l.Mul(l, floatOf(y)), 0)
	}}
}

// fpatan computes the angle of (x, y) (SDM Vol. 2A, FPATAN).
func fpatan(x, y softfloat.Num) softResult {
	if y.Class == softfloat.Zero && !x.Neg {
		return softZero(y.Neg)
	}
	if x.Class == softfloat.Infinite && !x.Neg && y.Class != softfloat.Infinite {
		return softZero(y.Neg)
	}
	multiple := func(num, den int64) *big.Float { // of pi
		f := newSoft().Mul(softPi, softInt(num))
		return f.Quo(f, softInt(den))
	}
	var f *big.Float
	finish := func(f *big.Float) *big.Float {
		if y.Neg {
			f.Neg(f)
		}
		return f
	}
	switch {
	case y.Class == softfloat.Zero || x.Class == softfloat.Infinite && y.Class != softfloat.Infinite:
		f = multiple(1, 1)
	case x.Class == softfloat.Infinite && x.Neg:
		f = multiple(3, 4)
	case x.Class == softfloat.Infinite:
		f = multiple(1, 4)
	case y.Class == softfloat.Infinite || x.Class == softfloat.Zero:
		f = multiple(1, 2)
	default:
		return softResult{near: wideAngle(wideOfNum(x), wideOfNum(y)), slow: func() softfloat.Num {
			ax, ay := new(big.Float).Abs(floatOf(x)), new(big.Float).Abs(floatOf(y))
			if ay.Cmp(ax) <= 0 {
				f = atan(newSoft().Quo(ay, ax))
			} else {
				f = newSoft().Sub(multiple(1, 2), atan(newSoft().Quo(ax, ay)))
			}
			if x.Neg {
				f.Sub(softPi, f)
			}
			return numOf(finish(f), -1)
		}}
	}
	return exactly(numOf(finish(f), -1))
}

// atan computes the arc tangent of t, from 0 to 1.
func atan(t *big.Float) *big.Float {
	// atan t = 2 atan(t / (1 + sqrt(1+t²))).
	const halvings = 3
	t = newSoft().Set(t)
	for range halvings {
		d := newSoft().Mul(t, t)
		d.Sqrt(d.Add(d, softInt(1)))
		t.Quo(t, d.Add(d, softInt(1)))
	}
	sq := newSoft().Mul(t, t)
	sum, power := newSoft().Set(t), newSoft().Set(t)
	for k := int64(3); ; k += 2 {
		power.Mul(power, sq)
		power.Neg(power)
		term := newSoft().Quo(power, softInt(k))
		if enough(sum, term) {
			break
		}
		sum.Add(sum, term)
	}
	return sum.SetMantExp(sum, halvings)
}

// sincos computes both for x, of a magnitude below 2^63.
func sincos(x softfloat.Num) (sin, cos softResult) {
	sin.near, cos.near = wideSincos(x)
	sin.slow = func() softfloat.Num {
		f, _ := softSincos(floatOf(x))
		return numOf(f, -1)
	}
	cos.slow = func() softfloat.Num {
		_, f := softSincos(floatOf(x))
		return numOf(f, -1)
	}
	return sin, cos
}

func softSincos(x *big.Float) (sin, cos *big.Float) {
	half := newSoft().SetMantExp(pi66, -1)
	q := newSoft().Quo(x, half)
	if q.Signbit() {
		q.Sub(q, big.NewFloat(0.5))
	} else {
		q.Add(q, big.NewFloat(0.5))
	}
	n, _ := q.Int64()
	r := newSoft().Sub(x, newSoft().Mul(half, softInt(n)))
	sq := newSoft().Mul(r, r)
	series := func(term *big.Float, k int64) *big.Float {
		sum := newSoft().Set(term)
		for ; ; k += 2 {
			term.Mul(term, sq)
			term.Quo(term, softInt(-k*(k+1)))
			if enough(sum, term) {
				return sum
			}
			sum.Add(sum, term)
		}
	}
	s, c := series(newSoft().Set(r), 2), series(softInt(1), 1)
	switch n & 3 {
	case 1:
		s, c = c, s.Neg(s)
	case 2:
		s.Neg(s)
		c.Neg(c)
	case 3:
		s, c = c.Neg(c), s
	}
	return s, c
}
