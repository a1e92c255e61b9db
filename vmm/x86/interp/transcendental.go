package interp

import (
	"math/big"

	"refault/vmm/x86"
)

// The x87 transcendentals (SDM Vol. 1 8.3.7 to 8.3.10). Processors differ in the last
// bit of their results, and Go's math package differs between hosts with and without
// FMA, so they are computed here with numbers of 192 bits, where 128 do not do (wide.go), and rounded
// once, as RC says: correct to the last bit but for the argument reduction of the trigonometric ones,
// which uses the 66 bits of pi that the SDM documents.

const softPrec = 192 // bits

// extended is a number in extended precision, taken apart.
type extended struct {
	class class
	neg   bool
	man   uint64
	exp   int // of the most significant bit of man
}

type class uint8

const (
	zero class = iota
	denormal
	normal
	infinite
	quiet
	signaling
	unsupported // unnormals, pseudo-infinities, pseudo-NaNs
)

const expBias = 16383

func loadExtended(b []byte) extended {
	man, se := le.Uint64(b), le.Uint16(b[8:])
	x := extended{neg: se>>15 != 0, man: man}
	e := int(se & 0x7fff)
	x.exp = max(e, 1) - expBias
	switch {
	case e == 0x7fff && man>>63 == 0:
		x.class = unsupported
	case e == 0x7fff && man<<1 == 0:
		x.class = infinite
	case e == 0x7fff && man>>62&1 != 0:
		x.class = quiet
	case e == 0x7fff:
		x.class = signaling
	case man == 0 && e == 0:
		x.class = zero
	case e == 0:
		x.class = denormal
	case man>>63 == 0:
		x.class = unsupported
	default:
		x.class = normal
	}
	return x
}

// float returns the value of a finite number.
func (x extended) float() *big.Float {
	f := newSoft().SetUint64(x.man)
	f.SetMantExp(f, x.exp-63)
	if x.neg {
		f.Neg(f)
	}
	return f
}

func newSoft() *big.Float { return new(big.Float).SetPrec(softPrec) }

func softInt(v int64) *big.Float { return newSoft().SetInt64(v) }

func storeExtended(b []byte, neg bool, biased uint16, man uint64) {
	if neg {
		biased |= 1 << 15
	}
	le.PutUint64(b, man)
	le.PutUint16(b[8:], biased)
}

// softResult is a value to be rounded, or one that is exact already.
type softResult struct {
	// slow computes f and toward, where near does not say what f would be rounded to.
	slow  func(*softResult)
	near  wide
	f     *big.Float // nil if bytes says it
	bytes [10]byte
	// toward says, for an f that is an approximation and looks exact, on which side of it the true value
	// is: -1 nearer to zero, 1 farther away. Zero: f is exact.
	toward int
}

func exactly(neg bool, biased uint16, man uint64) (r softResult) {
	storeExtended(r.bytes[:], neg, biased, man)
	return r
}

func softZero(neg bool) softResult     { return exactly(neg, 0, 0) }
func softInfinity(neg bool) softResult { return exactly(neg, 0x7fff, 1<<63) }

func softNaN(x extended) softResult { return exactly(x.neg, 0x7fff, x.man|1<<62) }

func softIndefinite() (r softResult) {
	indefinite(r.bytes[:])
	return r
}

var roundingModes = [4]big.RoundingMode{big.ToNearestEven, big.ToNegativeInf, big.ToPositiveInf, big.ToZero}

// round rounds the result for control word fcw. It returns the exceptions, and C1 if the magnitude was rounded up.
func (r *softResult) round(fcw uint16) (raised uint16) {
	if r.slow != nil {
		if raised, ok := r.near.round(fcw, r.bytes[:]); ok {
			return raised
		}
		r.slow(r)
	}
	if r.f == nil {
		return 0
	}
	f := r.f
	mode := roundingModes[fcw>>10&3]
	if r.toward != 0 && f.MinPrec() <= 64 {
		nudge := newSoft().SetMantExp(softInt(int64(r.toward)), f.MantExp(nil)-softPrec+8)
		if f.Signbit() {
			nudge.Neg(nudge)
		}
		f.Add(f, nudge)
	}
	at := func(prec uint) (*big.Float, uint16) {
		g := new(big.Float).SetMode(mode).SetPrec(prec).Set(f)
		switch {
		case g.Acc() == big.Exact:
			return g, 0
		case (g.Acc() == big.Above) != f.Signbit():
			return g, fswPE | fswC1
		}
		return g, fswPE
	}
	g, raised := at(64)
	exp := g.MantExp(nil) - 1
	scale := 0
	const least, most = 1 - expBias, expBias
	switch {
	case exp > most && fcw&fswOE == 0:
		raised |= fswOE
		scale = -24576
	case exp > most:
		raised = fswOE | fswPE
		away := mode == big.ToNearestEven || mode == big.ToPositiveInf && !f.Signbit() || mode == big.ToNegativeInf && f.Signbit()
		if away {
			raised |= fswC1
			storeExtended(r.bytes[:], f.Signbit(), 0x7fff, 1<<63)
		} else {
			storeExtended(r.bytes[:], f.Signbit(), 0x7ffe, ^uint64(0))
		}
		return raised
	case exp < least && fcw&fswUE == 0:
		raised |= fswUE
		scale = 24576
	case exp < least:
		// Rounded again, at the bits that a denormal has.
		neg := f.Signbit()
		scaled := newSoft().SetMantExp(f, -(least - 63)) // in units of the least denormal
		man, inexact := integer(scaled, mode)
		if inexact&fswPE != 0 {
			raised = inexact | fswUE
		} else {
			raised = 0
		}
		biased := uint16(0)
		if man>>63 != 0 {
			biased = 1
		}
		storeExtended(r.bytes[:], neg, biased, man)
		return raised
	}
	man, _ := newSoft().SetMantExp(new(big.Float).Abs(g), 63-exp).Uint64()
	storeExtended(r.bytes[:], g.Signbit(), uint16(exp+scale+expBias), man)
	return raised
}

// integer rounds the magnitude of f to an integer.
func integer(f *big.Float, mode big.RoundingMode) (man uint64, raised uint16) {
	abs := new(big.Float).Abs(f)
	man, acc := abs.Uint64()
	if acc == big.Exact {
		return man, 0
	}
	rest := newSoft().Sub(abs, newSoft().SetUint64(man))
	half := rest.Cmp(big.NewFloat(0.5))
	up := false
	switch mode {
	case big.ToNearestEven:
		up = half > 0 || half == 0 && man&1 != 0
	case big.ToPositiveInf:
		up = !f.Signbit()
	case big.ToNegativeInf:
		up = f.Signbit()
	}
	if up {
		return man + 1, fswPE | fswC1
	}
	return man, fswPE
}

// x87Soft executes a transcendental.
func x87Soft(c *x86.CPU, in *x86.Inst) {
	c.CheckX87()
	c.CheckX87Error()
	two := in.ModRM == 0xf1 || in.ModRM == 0xf3 || in.ModRM == 0xf9 // pops
	push := in.ModRM == 0xf2 || in.ModRM == 0xfb
	fcw, fsw := le.Uint16(c.FX[0:]), le.Uint16(c.FX[2:])
	trig := push || in.ModRM == 0xfe || in.ModRM == 0xff

	var raised, codes uint16
	var first, second softResult
	partial := false
	x, y := loadExtended(st(c, 0)), loadExtended(st(c, 1))
	switch {
	case stEmpty(c, 0) || two && stEmpty(c, 1):
		raised = fswIE | fswSF
		first, second = softIndefinite(), softIndefinite()
	case push && !stEmpty(c, 7):
		raised, codes = fswIE|fswSF, fswC1
		first, second = softIndefinite(), softIndefinite()
	case trig && (x.class == normal || x.class == denormal) && x.exp >= 63:
		partial, codes = true, fswC2
	default:
		first, second, raised = transcendental(in.ModRM, x, y, two)
		if raised&^fcw&(fswIE|fswDE|fswZE) == 0 {
			if push {
				raised |= second.round(fcw)
			}
			raised = raised&^fswC1 | first.round(fcw)
		}
		codes = raised & fswC1
		raised &^= fswC1
	}

	unmasked := raised & 0x3f &^ fcw
	setPointers(c, in, unmasked != 0, 0)
	if !partial && unmasked&(fswIE|fswDE|fswZE) == 0 {
		top := fsw >> 11 & 7
		switch {
		case two:
			copy(st(c, 1), first.bytes[:])
			c.FX[4] |= 1 << ((top + 1) & 7)
			popStack(c)
			top++
		case push:
			copy(st(c, 0), first.bytes[:])
			c.FX[4] |= 1<<top | 1<<((top-1)&7)
			copy(c.FX[48:160], append([]byte(nil), c.FX[32:144]...))
			copy(st(c, 0), second.bytes[:])
			top--
		default:
			copy(st(c, 0), first.bytes[:])
			c.FX[4] |= 1 << top
		}
		fsw = fsw&^fswTop | top&7<<11
	}
	mask := uint16(fswC1)
	if trig {
		mask |= fswC2
	}
	fsw = fsw&^mask | codes | raised
	le.PutUint16(c.FX[2:], fsw)
	setStatus(c)
}

// transcendental computes the result of an instruction, and for those that push two: what ST(1) and what ST(0)
// become. raised has the exceptions of the operands.
func transcendental(modrm uint8, x, y extended, two bool) (first, second softResult, raised uint16) {
	invalid := func() (softResult, softResult, uint16) { return softIndefinite(), softIndefinite(), fswIE }
	if x.class == unsupported || two && y.class == unsupported {
		return invalid()
	}
	if n, ok := nanOf(x, y, two); ok {
		if x.class == signaling || two && y.class == signaling {
			raised = fswIE
		}
		return softNaN(n), softNaN(n), raised
	}
	if x.class == denormal || two && y.class == denormal {
		raised = fswDE
	}
	switch modrm {
	case 0xf0:
		return f2xm1(x), second, raised
	case 0xf1:
		r, more := fyl2x(x, y)
		return r, second, moreRaised(raised, more)
	case 0xf9:
		r, more := fyl2xp1(x, y)
		return r, second, moreRaised(raised, more)
	case 0xf3:
		return fpatan(x, y), second, raised
	}
	// The trigonometric ones.
	if x.class == infinite {
		return invalid()
	}
	one := exactly(false, expBias, 1<<63)
	if x.class == zero {
		switch modrm {
		case 0xff:
			return one, second, 0
		case 0xfe:
			return softZero(x.neg), second, 0
		}
		return softZero(x.neg), one, 0
	}
	sin, cos := sincos(x)
	switch modrm {
	case 0xf2:
		return softResult{near: sin.near.quo(cos.near), slow: func(r *softResult) {
			sin, cos := softSincos(x.float())
			r.f, r.toward = newSoft().Quo(sin, cos), 1
		}}, one, raised
	case 0xfb:
		return sin, cos, raised
	case 0xfe:
		return sin, second, raised
	}
	return cos, second, raised
}

// moreRaised joins the exceptions of operands: an invalid operation or a division by zero hides a denormal.
func moreRaised(raised, more uint16) uint16 {
	if more&(fswIE|fswZE) != 0 {
		return more
	}
	return raised | more
}

// nanOf picks the NaN that is the result, if an operand is one (SDM Vol. 1 table 4-7).
func nanOf(x, y extended, two bool) (extended, bool) {
	isNaN := func(v extended) bool { return v.class == quiet || v.class == signaling }
	switch {
	case !two || !isNaN(y):
		return x, isNaN(x)
	case !isNaN(x):
		return y, true
	case x.class == signaling && y.class == quiet:
		return y, true
	case x.class == quiet && y.class == signaling:
		return x, true
	}
	// The larger significand; of equal ones the positive.
	if a, b := x.man|1<<62, y.man|1<<62; a > b || a == b && !x.neg {
		return x, true
	}
	return y, true
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
func f2xm1(x extended) softResult {
	switch {
	case x.class == zero:
		return softZero(x.neg)
	case x.class == infinite && x.neg:
		return exactly(true, expBias, 1<<63)
	case x.class == infinite || x.exp > 0 || x.exp == 0 && x.man<<1 != 0:
		return exactly(x.neg, uint16(x.exp+expBias), x.man)
	case x.exp == 0 && x.neg:
		return exactly(true, expBias-1, 1<<63) // -1/2
	case x.exp == 0:
		return exactly(false, expBias, 1<<63)
	}
	return softResult{near: wideExp2m1(x.wide()), slow: func(r *softResult) { r.f = softExp2m1(x.float()) }}
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
func fyl2x(x, y extended) (r softResult, raised uint16) {
	one := x.class == normal && x.exp == 0 && x.man<<1 == 0
	below := x.class == denormal || x.class == normal && x.exp < 0 // 1
	switch {
	case x.class == zero && y.class == zero, x.neg && x.class != zero,
		x.class == infinite && y.class == zero, one && y.class == infinite:
		return softIndefinite(), fswIE
	case x.class == zero && y.class == infinite:
		return softInfinity(!y.neg), 0
	case x.class == zero:
		return softInfinity(!y.neg), fswZE
	case x.class == infinite, y.class == infinite:
		return softInfinity(y.neg != below), 0
	case one || y.class == zero:
		return softZero(y.neg != below), 0
	}
	return scaledLog2(x.wide(), y), 0
}

// scaledLog2 computes y log2(v) for a positive v.
func scaledLog2(v wide, y extended) softResult {
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
	return softResult{near: l.mul(y.wide()), slow: func(r *softResult) {
		m := m.float()
		l := softInt(k)
		if d := newSoft().Sub(m, softInt(1)); d.Sign() != 0 {
			l.Add(l, log2(d.Quo(d, m.Add(m, softInt(1)))))
		}
		r.f = l.Mul(l, y.float())
	}}
}

// fyl2xp1 computes y log2(x+1), for x from -(1-sqrt(1/2)) to sqrt(2)-1; beyond, the same as far as there is one.
func fyl2xp1(x, y extended) (r softResult, raised uint16) {
	switch {
	case x.class == zero && y.class == infinite, x.class == infinite && (x.neg || y.class == zero):
		return softIndefinite(), fswIE
	case x.class == infinite, y.class == infinite && !(x.neg && x.class != zero && x.exp >= 0):
		return softInfinity(x.neg != y.neg), 0
	case x.class == zero || y.class == zero:
		return softZero(x.neg != y.neg), 0
	case x.exp >= 0:
		return softIndefinite(), 0 // far out of its range
	case x.exp >= -2:
		return scaledLog2(x.wide().add(wideOne), y), 0 // the sum is exact
	}
	w := x.wide()
	return softResult{near: wideLog2(w.quo(w.add(wideInt(2)))).mul(y.wide()), slow: func(r *softResult) {
		f := x.float()
		l := log2(newSoft().Quo(f, newSoft().Add(f, softInt(2))))
		r.f = l.Mul(l, y.float())
	}}, 0
}

// fpatan computes the angle of (x, y) (SDM Vol. 2A, FPATAN).
func fpatan(x, y extended) softResult {
	if y.class == zero && !x.neg {
		return softZero(y.neg)
	}
	if x.class == infinite && !x.neg && y.class != infinite {
		return softZero(y.neg)
	}
	multiple := func(num, den int64) *big.Float { // of pi
		f := newSoft().Mul(softPi, softInt(num))
		return f.Quo(f, softInt(den))
	}
	var f *big.Float
	finish := func(f *big.Float) *big.Float {
		if y.neg {
			f.Neg(f)
		}
		return f
	}
	switch {
	case y.class == zero || x.class == infinite && y.class != infinite:
		f = multiple(1, 1)
	case x.class == infinite && x.neg:
		f = multiple(3, 4)
	case x.class == infinite:
		f = multiple(1, 4)
	case y.class == infinite || x.class == zero:
		f = multiple(1, 2)
	default:
		return softResult{near: wideAngle(x.wide(), y.wide()), slow: func(r *softResult) {
			ax, ay := new(big.Float).Abs(x.float()), new(big.Float).Abs(y.float())
			if ay.Cmp(ax) <= 0 {
				f = atan(newSoft().Quo(ay, ax))
			} else {
				f = newSoft().Sub(multiple(1, 2), atan(newSoft().Quo(ax, ay)))
			}
			if x.neg {
				f.Sub(softPi, f)
			}
			r.f, r.toward = finish(f), -1
		}}
	}
	return softResult{f: finish(f), toward: -1}
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
func sincos(x extended) (sin, cos softResult) {
	sin.near, cos.near = wideSincos(x)
	sin.slow = func(r *softResult) {
		r.f, _ = softSincos(x.float())
		r.toward = -1
	}
	cos.slow = func(r *softResult) {
		_, r.f = softSincos(x.float())
		r.toward = -1
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
