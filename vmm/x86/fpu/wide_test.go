package fpu

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86/fpu/softfloat"
)

// units returns how far a is from f, in units of its last bit.
func (a wide) units(f *big.Float) float64 {
	if f.Sign() == 0 || a.hi == 0 {
		return math.Inf(1)
	}
	d := newSoft().Sub(a.float(), f)
	if d.Sign() == 0 {
		return 0
	}
	u, _ := d.SetMantExp(d, 127-(f.MantExp(nil)-1)).Float64()
	return math.Abs(u)
}

// TestWide holds what is computed with 128 bits to what is computed with 192: it is as exact as is said, and
// rounds to the same.
func TestWide(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for _, f := range []struct {
		name  string
		modrm uint8
		two   bool
	}{{"F2XM1", 0xf0, false}, {"FYL2X", 0xf1, true}, {"FPTAN", 0xf2, false}, {"FPATAN", 0xf3, true}, {"FYL2XP1", 0xf9, true}, {"FSINCOS", 0xfb, false}} {
		number := func() softfloat.Num {
			x := softfloat.Num{Class: softfloat.Normal, Neg: random.IntN(2) == 0, Sig: random.Uint64() | 1<<63, Exp: random.IntN(12) - 10}
			switch random.IntN(8) {
			case 0:
				x.Exp = random.IntN(62)
			case 1:
				x.Exp = random.IntN(32000) - 16000
			case 2:
				x.Sig = 1<<63 | random.Uint64()>>random.IntN(64)
			case 3:
				x.Sig = ^(random.Uint64() >> (1 + random.IntN(63)))
			case 4: // near a multiple of a half of pi
				m := newSoft().Mul(pi66, softInt(1+random.Int64N(1<<(1+random.IntN(30)))))
				x.Exp = m.MantExp(m) - 2
				x.Sig, _ = m.SetMantExp(m, 64).Uint64()
			case 5:
				x = softfloat.UnpackExtended(random.Uint64()>>1|1, uint16(random.IntN(2))<<15)
			}
			return x
		}
		worst, asked, decided := 0.0, 0, 0
		for range 4000 {
			x, y := number(), number()
			if f.modrm >= 0xf2 && !f.two && x.Exp >= 63 {
				continue
			}
			if f.modrm == 0xf1 && random.IntN(8) != 0 {
				x.Neg = false
			}
			at := x87{env: softfloat.Env{X87: true}}
			a, b := at.transcend(f.modrm, x, y, f.two)
			for _, r := range []softResult{a, b} {
				if r.slow == nil {
					continue
				}
				asked++
				got, sure := r.near.num()
				if !sure {
					continue
				}
				decided++
				want := r.slow()
				worst = max(worst, r.near.units(wideOfNum(want).float()))
				for mode := softfloat.NearestEven; mode <= softfloat.TowardZero; mode++ {
					e, near := softfloat.Env{Rounding: mode}, softfloat.Env{Rounding: mode}
					if w, g := e.Round(want, softfloat.Extended), near.Round(got, softfloat.Extended); w != g || e != near {
						t.Fatalf("%s of %+v and %+v, rounding mode %d: %+v (%#x), want %+v (%#x)", f.name, x, y, mode, g, near.Raised, w, e.Raised)
					}
				}
			}
		}
		t.Logf("%s: errors up to %.0f units, %d of %d decided", f.name, worst, decided, asked)
		if worst > wideError>>11 {
			t.Errorf("%s: an error of %g units, more than is said", f.name, worst)
		}
		if decided*2 < asked {
			t.Errorf("%s: only %d of %d results decided", f.name, decided, asked)
		}
	}
}

// TestWideArithmetic holds the operations to those of math/big.
func TestWideArithmetic(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	number := func() wide {
		a := wide{neg: random.IntN(2) == 0, exp: random.IntN(9) - 4, hi: random.Uint64() | 1<<63, lo: random.Uint64()}
		switch random.IntN(6) {
		case 0:
			a.exp = random.IntN(400) - 200
		case 1:
			a.hi, a.lo = 1<<63, uint64(random.IntN(2))
		case 2:
			a.hi, a.lo = math.MaxUint64, math.MaxUint64
		case 3:
			a.lo = 0
		}
		return a
	}
	for range 20000 {
		a, b := number(), number()
		x, y := a.float(), b.float()
		for _, op := range []struct {
			name string
			got  wide
			want *big.Float
			most float64
		}{
			{"*", a.mul(b), newSoft().Mul(x, y), 8},
			{"/", a.quo(b), newSoft().Quo(x, y), 64},
		} {
			if u := op.got.units(op.want); u > op.most {
				t.Fatalf("%+v %s %+v is %+v: %g units from %v", a, op.name, b, op.got, u, op.want)
			}
		}
		// Of a sum, the error is relative to the larger operand.
		sum, want := a.add(b), newSoft().SetPrec(1000).Add(x, y)
		if sum.hi != 0 && sum.hi>>63 == 0 {
			t.Fatalf("%+v + %+v is %+v, which is not normal", a, b, sum)
		}
		d := want.Sub(want, sum.float())
		if u, _ := d.SetMantExp(d, 127-max(a.exp, b.exp)).Float64(); math.Abs(u) > 2 {
			t.Fatalf("%+v + %+v is %+v: %g units off", a, b, sum, u)
		}
	}
}
