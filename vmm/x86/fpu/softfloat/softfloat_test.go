package softfloat

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// The tests here hold arithmetic to Go's own and to package math/big, on any host. What a processor makes of special operands,
// exceptions and the condition code is held to one in package interp.

func random(r *rand.Rand) uint64 {
	v := r.Uint64()
	switch r.IntN(4) {
	case 0:
		v &= ^uint64(0) << r.IntN(64)
	case 1:
		v |= 1<<r.IntN(52) - 1
	case 2:
		v = v&^(0x7ff<<52) | (1023-uint64(r.IntN(4)))<<52
	}
	return v
}

type operation struct {
	name string
	soft func(e *Env, a, b Num) Num
	real func(a, b float64) float64
	big  func(z, a, b *big.Float) *big.Float
}

var operations = []operation{
	{"add", (*Env).Add, func(a, b float64) float64 { return a + b }, (*big.Float).Add},
	{"sub", (*Env).Sub, func(a, b float64) float64 { return a - b }, (*big.Float).Sub},
	{"mul", (*Env).Mul, func(a, b float64) float64 { return a * b }, (*big.Float).Mul},
	{"div", (*Env).Div, func(a, b float64) float64 { return a / b }, (*big.Float).Quo},
	{"sqrt", func(e *Env, a, _ Num) Num { return e.Sqrt(a) }, func(a, _ float64) float64 { return math.Sqrt(a) }, nil},
}

func TestDoubleAndSingleAsInGo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, op := range operations {
		for range 50_000 {
			x, y := random(r), random(r)
			a, b := math.Float64frombits(x), math.Float64frombits(y)
			var e Env
			got := math.Float64frombits(Double.Pack(e.Round(op.soft(&e, Double.Unpack(x), Double.Unpack(y)), Double)))
			if want := op.real(a, b); got != want && (got == got || want == want) || math.Signbit(got) != math.Signbit(want) && got == got {
				t.Fatalf("%s of %x and %x: %x, Go has %x", op.name, x, y, math.Float64bits(got), math.Float64bits(want))
			}
			// In single precision, what double precision has is exact, or so near that it is rounded as the exact result is.
			x, y = x>>32, y>>32
			c, d := math.Float32frombits(uint32(x)), math.Float32frombits(uint32(y))
			single := math.Float32frombits(uint32(Single.Pack(e.Round(op.soft(&e, Single.Unpack(x), Single.Unpack(y)), Single))))
			if want := float32(op.real(float64(c), float64(d))); single != want && (single == single || want == want) {
				t.Fatalf("%s of %x and %x: %x, Go has %x", op.name, x, y, math.Float32bits(single), math.Float32bits(want))
			}
		}
	}
}

// float returns the value of a finite number.
func (n Num) float() *big.Float {
	f := new(big.Float).SetUint64(n.Sig)
	if n.Class == Zero {
		f = new(big.Float)
	}
	f.SetMantExp(f, n.Exp-63)
	if n.Neg {
		f.Neg(f)
	}
	return f
}

func TestExtendedAsInMathBig(t *testing.T) {
	modes := [...]big.RoundingMode{NearestEven: big.ToNearestEven, Down: big.ToNegativeInf, Up: big.ToPositiveInf, TowardZero: big.ToZero}
	r := rand.New(rand.NewPCG(3, 4))
	number := func() Num {
		return UnpackExtended(random(r)|1<<63, uint16(16383-40+r.IntN(80))|uint16(r.IntN(2))<<15)
	}
	for range 200_000 {
		op := operations[r.IntN(4)]
		a, b := number(), number()
		precision := []int{24, 53, 64}[r.IntN(3)]
		e := Env{Rounding: Rounding(r.IntN(4)), X87: true}
		got := e.Round(op.soft(&e, a, b), Extended.Limited(precision))
		want := op.big(new(big.Float).SetPrec(uint(precision)).SetMode(modes[e.Rounding]), a.float(), b.float())
		up := want.Acc() != big.Exact && (want.Acc() == big.Above) != want.Signbit()
		if got.float().Cmp(want) != 0 || got.Neg != want.Signbit() || (e.Raised&Inexact != 0) != (want.Acc() != big.Exact) || e.RoundedUp != up {
			t.Fatalf("%s of %v and %v to %d bits, mode %d: %v (raised %#x, up %v), want %v (%v)",
				op.name, a.float(), b.float(), precision, e.Rounding, got.float(), e.Raised, e.RoundedUp, want, want.Acc())
		}
	}
}

func TestFormatsPackWhatTheyUnpack(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 100_000 {
		v := random(r)
		if got := Double.Pack(Double.Unpack(v)); got != v {
			t.Fatalf("%x comes back as %x", v, got)
		}
		if got := Single.Pack(Single.Unpack(v >> 32)); got != v>>32 {
			t.Fatalf("%x comes back as %x", v>>32, got)
		}
		n := Double.Unpack(v)
		sig, se := PackExtended((&Env{}).Round(n, Extended))
		if got := Double.Pack((&Env{}).Round(UnpackExtended(sig, se), Double)); got != v {
			t.Fatalf("%x comes back from extended precision as %x", v, got)
		}
	}
}
