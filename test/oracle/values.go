//go:build linux && amd64

package oracle

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// Values that instructions are likely to treat in a special way, and random ones.

// source is the generator of random numbers that a case is made from.
type source struct{ *rand.Rand }

func newSource(seed uint64) source { return source{rand.New(rand.NewPCG(seed, 0x5bd1e995))} }

// chance is true in percent of a hundred.
func (s source) chance(percent int) bool { return s.IntN(100) < percent }

func (s source) integer() uint64 {
	switch s.IntN(12) {
	case 0:
		return 0
	case 1:
		return 1
	case 2:
		return ^uint64(0)
	case 3:
		return 1 << s.IntN(64)
	case 4:
		return 1<<s.IntN(64) - 1
	case 5:
		return ^(uint64(1) << s.IntN(64))
	case 6:
		return uint64(s.IntN(65))
	case 7:
		return -uint64(s.IntN(65))
	case 8:
		return uint64(s.Uint32())
	case 9:
		// The bytes of a double word at the borders of their signs.
		b := [...]uint64{0, 1, 0x7f, 0x80, 0x81, 0xff}
		v := uint64(0)
		for range 8 {
			v = v<<8 | b[s.IntN(len(b))]
		}
		return v
	}
	return s.Uint64()
}

func (s source) float32() uint32 {
	special := [...]uint32{0, 1, 0x7fffff, 0x800000, 0x3f800000, 0x3fc00000, 0x3f7fffff, 0x3f800001, 0x7f7fffff, 0x7f800000,
		0x7fc00000, 0x7f800001, 0x7fbfffff, 0x7fffffff, 0x4f000000, 0x4effffff, 0x5f000000, 0x4b000000, 0x3f000000, 0x40200000}
	switch s.IntN(8) {
	case 0, 1, 2:
		return special[s.IntN(len(special))] | uint32(s.IntN(2))<<31
	case 3:
		return math.Float32bits(float32(int32(s.integer())))
	case 4: // of a size where sums and products round
		return s.Uint32()&0x807fffff | uint32(120+s.IntN(16))<<23
	case 5: // denormal
		return s.Uint32() & 0x807fffff
	}
	return s.Uint32()
}

func (s source) float64() uint64 {
	special := [...]uint64{0, 1, 1<<52 - 1, 1 << 52, 0x3ff0000000000000, 0x3ff8000000000000, 0x3fefffffffffffff, 0x3ff0000000000001,
		0x7fefffffffffffff, 0x7ff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001, 0x7ff7ffffffffffff, 0x7fffffffffffffff,
		0x41e0000000000000, 0x41dfffffffc00000, 0x43e0000000000000, 0x4330000000000000, 0x3fe0000000000000, 0x4004000000000000,
		0x36a0000000000000, 0x3810000000000000, 0x47efffffe0000000, 0x47effffff0000000}
	switch s.IntN(8) {
	case 0, 1, 2:
		return special[s.IntN(len(special))] | uint64(s.IntN(2))<<63
	case 3:
		return math.Float64bits(float64(int64(s.integer())))
	case 4:
		return s.Uint64()&0x800fffffffffffff | uint64(1016+s.IntN(16))<<52
	case 5:
		return s.Uint64() & 0x800fffffffffffff
	case 6: // around the range of single precision
		return s.Uint64()&0x800fffffffffffff | uint64(1023-150+s.IntN(300))<<52
	}
	return s.Uint64()
}

// float80 writes a number in extended precision, or what looks like one (SDM Vol. 1 4.8 and 8.2.2).
func (s source) float80(b []byte) {
	man, exp := s.Uint64(), uint16(s.Uint32())
	switch s.IntN(12) {
	case 0:
		man, exp = 0, 0
	case 1:
		man, exp = 1<<63, 0x3fff // 1
	case 2:
		man, exp = 1<<63, 0x7fff // infinity
	case 3:
		man, exp = man|3<<62, 0x7fff // quiet NaN
	case 4:
		man, exp = man&^(1<<62)|1<<63|1, 0x7fff // signaling NaN
	case 5:
		man, exp = man>>1, 0 // denormal
	case 6:
		man, exp = man|1<<63, 0 // pseudo-denormal
	case 7:
		man = s.integer() // often an unnormal, which is invalid
	case 8:
		man, exp = man|1<<63, 0x3fff+uint16(s.IntN(70)) // up to the range of integers
	case 9:
		man, exp = man|1<<63, 0x3fff-uint16(s.IntN(70))
	default:
		man |= 1 << 63
	}
	binary.LittleEndian.PutUint64(b, man)
	binary.LittleEndian.PutUint16(b[8:], exp&0x7fff|uint16(s.IntN(2))<<15)
}

// kind is what a piece of memory or a register is filled with.
type kind int

const (
	integers kind = iota
	singles
	doubles
	extendeds
	decimals
	numKinds
)

// fill fills b with values of a kind.
func (s source) fill(b []byte, k kind) {
	var v [16]byte
	for len(b) > 0 {
		n := 8
		switch k {
		case singles:
			binary.LittleEndian.PutUint32(v[:], s.float32())
			n = 4
		case doubles:
			binary.LittleEndian.PutUint64(v[:], s.float64())
		case extendeds:
			s.float80(v[:])
			n = 10
		case decimals:
			for i := range 9 {
				v[i] = byte(s.IntN(10)<<4 | s.IntN(10))
			}
			v[9] = byte(s.IntN(2) << 7)
			n = 10
		default:
			binary.LittleEndian.PutUint64(v[:], s.integer())
		}
		b = b[copy(b, v[:n]):]
	}
}
