package ksym

import (
	"bytes"
	"encoding/binary"
)

var le = binary.LittleEndian

// namesPerMarker is how many names lie between two markers.
const namesPerMarker = 256

// maxSymbols bounds what a table can claim.
const maxSymbols = 4 << 20

// digits is what the token table holds from token '0' on.
var digits = []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

// kallsyms finds and decodes the kernel's own symbol table.
func kallsyms(k []byte) ([]Symbol, error) {
	for at := 0; ; at++ {
		i := bytes.Index(k[at:], digits)
		if i < 0 {
			return nil, ErrNone
		}
		at += i
		t := tables{image: k}
		if t.tokens(at) && t.names() {
			if s := t.addresses(); s != nil {
				return s, nil
			}
		}
	}
}

// tables are the parts of kallsyms, by offset in the image.
type tables struct {
	image      []byte
	token      [256][]byte
	tokenTable int
	indexEnd   int // end of the token index
	countAt    int // the number of names
	count      int
	name       []string
}

func align(n, to int) int { return (n + to - 1) &^ (to - 1) }

// tokens reads the token table, of which token '0' is at offset zero, and checks it against the index after it.
func (t *tables) tokens(zero int) bool {
	start := zero
	for range '0' {
		if start < 2 || t.image[start-1] != 0 {
			return false
		}
		start = bytes.LastIndexByte(t.image[:start-1], 0) + 1
	}
	// Padding before the table would be taken for the beginning of its first token.
	at := start
	offset := make([]int, len(t.token))
	for i := range t.token {
		n := bytes.IndexByte(t.image[at:], 0)
		if n <= 0 {
			return false
		}
		offset[i], t.token[i] = at-start, t.image[at:at+n]
		at += n + 1
	}
	for _, a := range []int{2, 4, 8} {
		index := align(at, a)
		if index+2*len(offset) <= len(t.image) && t.indexIs(index, offset) {
			t.tokenTable, t.indexEnd = start, index+2*len(offset)
			return true
		}
	}
	return false
}

func (t *tables) indexIs(at int, offset []int) bool {
	for i, o := range offset {
		if int(le.Uint16(t.image[at+2*i:])) != o {
			return false
		}
	}
	return true
}

// maxNames bounds how far before the token table the names can begin.
const maxNames = 64 << 20

// names finds the number of names and the names, somewhere before the token
// table: decoded, they must end where their markers begin, and meet every one.
func (t *tables) names() bool {
	for at := t.tokenTable&^7 - 8; at >= max(0, t.tokenTable-maxNames); at -= 8 {
		if n := le.Uint64(t.image[at:]); n > namesPerMarker && n < maxSymbols && t.decode(at+8, int(n)) {
			t.countAt, t.count = at, int(n)
			return true
		}
	}
	return false
}

// decode expands n names from an offset on.
func (t *tables) decode(at, n int) bool {
	if n > t.tokenTable-at { // a name takes a byte or more
		return false
	}
	start := at
	var marker []uint32
	spans := make([][]byte, 0, n)
	for i := range n {
		if i%namesPerMarker == 0 {
			marker = append(marker, uint32(at-start))
		}
		size := int(t.image[at])
		at++
		if size&0x80 != 0 { // a long name: two bytes of length, low seven bits first
			size = size&0x7f | int(t.image[at])<<7
			at++
		}
		if size == 0 || at+size >= t.tokenTable {
			return false
		}
		spans = append(spans, t.image[at:at+size])
		at += size
	}
	at = align(at, 8)
	for _, m := range marker {
		if at+4 > t.tokenTable || le.Uint32(t.image[at:]) != m {
			return false
		}
		at += 4
	}
	t.name = make([]string, n)
	var b []byte
	for i, span := range spans {
		b = b[:0]
		for _, c := range span {
			b = append(b, t.token[c]...)
		}
		t.name[i] = string(b[1:]) // without the letter for its type
	}
	return true
}

// addresses finds the addresses, and returns the symbols.
func (t *tables) addresses() []Symbol {
	// Until Linux 6.3: offsets, their base, the number of names. Since 6.4: after the token index, offsets, base.
	before := t.countAt - 8 - align(4*t.count, 8)
	after := align(t.indexEnd, 8)
	for _, at := range []int{before, after} {
		base := at + align(4*t.count, 8)
		if at < 0 || base+8 > len(t.image) {
			continue
		}
		b := le.Uint64(t.image[base:])
		for _, percpu := range []bool{true, false} {
			if s := t.decodeAddresses(at, b, percpu); s != nil {
				return s
			}
		}
	}
	return nil
}

// decodeAddresses reads offsets: from base on, or, with percpu, absolute where they
// are positive and from base on where negative (CONFIG_KALLSYMS_ABSOLUTE_PERCPU).
func (t *tables) decodeAddresses(at int, base uint64, percpu bool) []Symbol {
	if base < 1<<20 {
		return nil
	}
	s := make([]Symbol, t.count)
	descents := 0
	for i := range s {
		o := le.Uint32(t.image[at+4*i:])
		a := base + uint64(o)
		if percpu {
			if a = uint64(o); int32(o) < 0 {
				a = base - 1 - uint64(int64(int32(o)))
			}
		}
		s[i] = Symbol{a, t.name[i]}
		if i > 0 && a < s[i-1].Addr {
			descents++
		}
	}
	if descents > t.count/100 || s[t.count-1].Addr < base {
		return nil
	}
	return s
}
