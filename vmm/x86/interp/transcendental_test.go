package interp

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"
)

// x87 runs an x87 instruction on ST(0) and ST(1), and returns ST(0), ST(1) and the status word.
func (r *rig) x87(t testing.TB, modrm byte, fcw uint16, x, y [10]byte) (a, b [10]byte, fsw uint16) {
	c := r.c
	clear(c.FX[:416])
	le.PutUint16(c.FX[0:], fcw)
	le.PutUint16(c.FX[2:], 6<<11)
	c.FX[4] = 0xc0
	copy(c.FX[32:], x[:])
	copy(c.FX[48:], y[:])
	r.run(t, 1, 0xd9, modrm)
	copy(a[:], c.FX[32:])
	copy(b[:], c.FX[48:])
	return a, b, le.Uint16(c.FX[2:])
}

const expBias = 16383

func storeExtended(b []byte, neg bool, biased uint16, man uint64) {
	if neg {
		biased |= 1 << 15
	}
	le.PutUint64(b, man)
	le.PutUint16(b[8:], biased)
}

func extendedOf(f float64) (b [10]byte) {
	if f == 0 {
		storeExtended(b[:], math.Signbit(f), 0, 0)
		return b
	}
	frac, exp := math.Frexp(math.Abs(f))
	storeExtended(b[:], f < 0, uint16(exp-1+expBias), uint64(math.Ldexp(frac, 64)))
	return b
}

// The digits are those of published tables.
func TestTranscendentals(t *testing.T) {
	ext := func(neg bool, se uint16, man uint64) (b [10]byte) {
		storeExtended(b[:], neg, se, man)
		return b
	}
	for _, x := range []struct {
		name  string
		modrm byte
		x, y  float64
		want  [10]byte
		fsw   uint16 // exceptions
	}{
		{"FPATAN of 1 and 1 is pi/4", 0xf3, 1, 1, ext(false, 0x3ffe, 0xc90fdaa22168c235), fswPE},
		{"FPATAN of -1 and 0 is pi", 0xf3, -1, 0, ext(false, 0x4000, 0xc90fdaa22168c235), fswPE},
		{"FPATAN of 1 and -0", 0xf3, 1, math.Copysign(0, -1), ext(true, 0, 0), 0},
		{"FYL2X of e-like 10 and 1 is log2 10", 0xf1, 10, 1, ext(false, 0x4000, 0xd49a784bcd1b8afe), fswPE},
		{"FYL2X of 8 and 2.5", 0xf1, 8, 2.5, ext(false, 0x4001, 0xf000000000000000), 0},
		{"FYL2X of 0 and 3", 0xf1, 0, 3, ext(true, 0x7fff, 1<<63), fswZE},
		{"FYL2X of -1", 0xf1, -1, 3, ext(true, 0x7fff, 3<<62), fswIE},
		{"F2XM1 of 1/2 is sqrt(2)-1", 0xf0, 0.5, 0, ext(false, 0x3ffd, 0xd413cccfe7799211), fswPE},
		{"F2XM1 of -1", 0xf0, -1, 0, ext(true, 0x3ffe, 1<<63), 0},
		{"FYL2XP1 of 1/4 is log2 1.25", 0xf9, 0.25, 1, ext(false, 0x3ffd, 0xa4d3c25e68dc57f2), fswPE},
		{"FYL2XP1 of -1+2^-53 is -53, and soon", 0xf9, -1 + 0x1p-53, 1, ext(true, 0x4004, 53<<58), 0},
		{"FSIN of 1", 0xfe, 1, 0, ext(false, 0x3ffe, 0xd76aa47848677021), fswPE},
		{"FCOS of 1", 0xff, 1, 0, ext(false, 0x3ffe, 0x8a51407da8345c92), fswPE},
		{"FCOS of 0", 0xff, 0, 0, ext(false, 0x3fff, 1<<63), 0},
	} {
		r := newRig(t)
		got, _, fsw := r.x87(t, x.modrm, 0x37f, extendedOf(x.x), extendedOf(x.y))
		if got != x.want || fsw&0x7f != x.fsw {
			t.Errorf("%s: %x, status word %#x; want %x, %#x", x.name, got, fsw, x.want, x.fsw)
		}
	}
	r := newRig(t)
	if _, _, fsw := r.x87(t, 0xfe, 0x37f, extendedOf(math.Ldexp(1, 63)), extendedOf(0)); fsw&fswC2 == 0 {
		t.Error("FSIN of 2^63 is not said to be out of range")
	}
	// Rounded as RC says.
	down, _, _ := r.x87(t, 0xfe, 0x77f, extendedOf(1), extendedOf(0))
	up, _, _ := r.x87(t, 0xfe, 0xb7f, extendedOf(1), extendedOf(0))
	if d, u := le.Uint64(down[:]), le.Uint64(up[:]); u != d+1 {
		t.Errorf("FSIN of 1 rounded down %x, up %x", d, u)
	}
}

// What these instructions compute is part of every recording: it must not change, with no host and no compiler.
func TestTranscendentalsAreTheSameEverywhere(t *testing.T) {
	r := newRig(t)
	random := rand.New(rand.NewPCG(1, 2))
	number := func() (b [10]byte) {
		exp := expBias - 40 + random.IntN(60)
		if random.IntN(8) == 0 {
			exp = random.IntN(0x7fff)
		}
		storeExtended(b[:], random.IntN(2) == 0, uint16(exp), random.Uint64()|1<<63)
		return b
	}
	want := map[byte]uint64{
		0xf0: 0x869094dd39119c95, 0xf1: 0x7e80f96a5c96dcb7, 0xf2: 0xebcebfc81390feb6, 0xf3: 0x15e2369d72afff93,
		0xf9: 0x8342e58a98a85520, 0xfb: 0xaee8396548efc496, 0xfe: 0x19b56134221fbc29, 0xff: 0xb0a9d2338df2f9aa,
	}
	for _, modrm := range []byte{0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff} {
		h := fnv.New64a()
		for range 500 {
			a, b, fsw := r.x87(t, modrm, 0x37f|uint16(random.IntN(4))<<10, number(), number())
			h.Write(a[:])
			h.Write(b[:])
			h.Write([]byte{byte(fsw), byte(fsw >> 8)})
		}
		if got := h.Sum64(); got != want[modrm] {
			t.Errorf("D9 %02X: %#x, want %#x", modrm, got, want[modrm])
		}
	}
}
