package interp

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
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
		number := func() extended {
			x := extended{class: normal, neg: random.IntN(2) == 0, man: random.Uint64() | 1<<63, exp: random.IntN(12) - 10}
			switch random.IntN(8) {
			case 0:
				x.exp = random.IntN(62)
			case 1:
				x.exp = random.IntN(32000) - 16000
			case 2:
				x.man = 1<<63 | random.Uint64()>>random.IntN(64)
			case 3:
				x.man = ^(random.Uint64() >> (1 + random.IntN(63)))
			case 4: // near a multiple of a half of pi
				m := newSoft().Mul(pi66, softInt(1+random.Int64N(1<<(1+random.IntN(30)))))
				x.exp = m.MantExp(m) - 2
				x.man, _ = m.SetMantExp(m, 64).Uint64()
			case 5:
				x.class, x.exp, x.man = denormal, 1-expBias, random.Uint64()>>1|1
			}
			return x
		}
		worst, asked, decided := 0.0, 0, 0
		for range 4000 {
			x, y := number(), number()
			if f.modrm >= 0xf2 && !f.two && x.exp >= 63 {
				continue
			}
			if f.modrm == 0xf1 && random.IntN(8) != 0 {
				x.neg = false
			}
			a, b, _ := transcendental(f.modrm, x, y, f.two)
			for _, r := range []softResult{a, b} {
				if r.slow == nil {
					continue
				}
				near := r.near
				r.slow(&r)
				r.slow = nil
				asked++
				any := false
				for fcw := uint16(0x37f); fcw < 0x37f+4<<10; fcw += 1 << 10 {
					var got [10]byte
					r := r
					if raised, ok := near.round(fcw, got[:]); ok {
						any = true
						if want := r.round(fcw); raised != want || got != r.bytes {
							t.Fatalf("%s of %+v and %+v, control word %#x: %x (%#x), want %x (%#x)", f.name, x, y, fcw, got, raised, r.bytes, want)
						}
					}
				}
				if any {
					decided++
					worst = max(worst, near.units(r.f))
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
