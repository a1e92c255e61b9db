// Package bounded checks msgpack that comes from outside before it is decoded: the
// decoder trusts the lengths it reads, and would allocate whatever a header
// announces. It depends on nothing, so that the machine and the recordings can
// both use it.
package bounded

import (
	"encoding/binary"
	"errors"
)

// nestingMax is more than any state's encoding nests.
const nestingMax = 32

// ErrEncoding reports bytes that are not the msgpack that was asked for.
var ErrEncoding = errors.New("malformed encoding")

// Check tells whether b is exactly n msgpack values that nest no deeper
// than a state can. The decoder makes room for as many elements as an array's header
// announces, and skips what it does not know by recursion; after this
// check the input's length bounds both.
func Check(b []byte, n uint64) error {
	left := make([]uint64, 1, nestingMax+1) // values to come, a level
	left[0] = n
	for len(left) > 0 {
		if left[len(left)-1] == 0 {
			left = left[:len(left)-1]
			continue
		}
		left[len(left)-1]--
		if len(b) == 0 {
			return ErrEncoding
		}
		code := b[0]
		b = b[1:]
		skip, values, ok := header(code, &b)
		if !ok || skip > uint64(len(b)) || values > uint64(len(b)) {
			return ErrEncoding
		}
		b = b[skip:]
		if values > 0 {
			if len(left) == nestingMax {
				return ErrEncoding
			}
			left = append(left, values)
		}
	}
	if len(b) != 0 {
		return ErrEncoding
	}
	return nil
}

// header takes the length that follows a msgpack code from b. It returns how many
// bytes of payload, and how many values, follow.
func header(code byte, b *[]byte) (skip, values uint64, ok bool) {
	number := func(n int) uint64 {
		if len(*b) < n {
			return ^uint64(0) // more than there is, whatever it counts
		}
		var w [8]byte
		copy(w[8-n:], *b)
		*b = (*b)[n:]
		return binary.BigEndian.Uint64(w[:])
	}
	switch {
	case code <= 0x7f || code >= 0xe0: // fixint
		return 0, 0, true
	case code <= 0x8f: // fixmap
		return 0, 2 * uint64(code&15), true
	case code <= 0x9f: // fixarray
		return 0, uint64(code & 15), true
	case code <= 0xbf: // fixstr
		return uint64(code & 31), 0, true
	}
	switch code {
	case 0xc0, 0xc2, 0xc3: // nil, false, true
		return 0, 0, true
	case 0xc4, 0xd9: // bin 8, str 8
		return number(1), 0, true
	case 0xc5, 0xda:
		return number(2), 0, true
	case 0xc6, 0xdb:
		return number(4), 0, true
	case 0xcc, 0xd0: // integers and floats
		return 1, 0, true
	case 0xcd, 0xd1:
		return 2, 0, true
	case 0xca, 0xce, 0xd2:
		return 4, 0, true
	case 0xcb, 0xcf, 0xd3:
		return 8, 0, true
	case 0xdc: // array 16
		return 0, number(2), true
	case 0xdd:
		return 0, number(4), true
	}
	// Maps with a long header and extension types occur in no state.
	return 0, 0, false
}
