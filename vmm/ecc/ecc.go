// Package ecc is the error-correcting code of a memory: SEC-DED (72,64), which adds
// eight check bits to eight bytes, corrects one wrong bit and detects two. It is an
// odd-weight-column code (M. Y. Hsiao, "A Class of Optimal Minimum Odd-weight-column
// SEC-DED Codes", IBM J. Res. Dev. 14, 1970), as memory controllers use.
//
// # What happens to more than two wrong bits?
//
// What the code decides. A syndrome depends on the wrong bits alone, not on the data.
// Three of them have a syndrome of odd weight: if that is the column of a bit, this bit
// is "corrected", which makes four; otherwise the error is detected. Four may have the
// syndrome zero, and nobody notices.
package ecc

import "math/bits"

// Bits of a code word: 64 of data, then 8 that check.
const (
	DataBits  = 64
	CheckBits = 8
	Bits      = DataBits + CheckBits
)

// columns are the columns of the parity-check matrix: the syndrome of each bit when it alone is wrong.
var columns = func() (c [Bits]uint8) {
	n := 0
	// All 56 columns of weight 3, then 8 of weight 5, each a rotation of one, so that all check bits cover alike many.
	for v := 1; v < 256; v++ {
		if bits.OnesCount8(uint8(v)) == 3 {
			c[n] = uint8(v)
			n++
		}
	}
	for i := range 8 {
		c[n] = bits.RotateLeft8(0b00011111, i)
		n++
	}
	for i := range CheckBits {
		c[DataBits+i] = 1 << i
	}
	return c
}()

// Encode returns the check bits of data.
func Encode(data uint64) (check uint8) {
	for ; data != 0; data &= data - 1 {
		check ^= columns[bits.TrailingZeros64(data)]
	}
	return check
}

// Verdict is what a decoder finds.
type Verdict uint8

const (
	Good          Verdict = iota // no error is seen
	Corrected                    // one bit was wrong, as far as the decoder can tell
	Uncorrectable                // more were
)

func (v Verdict) String() string {
	return [...]string{"good", "corrected", "uncorrectable"}[v]
}

// Decode checks a word. Where it corrects, it returns which bit, and otherwise -1.
func Decode(data uint64, check uint8) (v Verdict, bit int) {
	return Judge(Encode(data) ^ check)
}

// Judge tells what a decoder makes of a syndrome.
func Judge(syndrome uint8) (v Verdict, bit int) {
	if syndrome == 0 {
		return Good, -1
	}
	for i, c := range columns {
		if c == syndrome {
			return Corrected, i
		}
	}
	return Uncorrectable, -1
}
