package linux

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrNotUnderstood is wrapped by the errors of New.
var ErrNotUnderstood = errors.New("not understood")

// Kinds of BTF types, and how many bytes follow each: a fixed number, and so many for each of its members.
const (
	kindStruct = 4
	kindUnion  = 5
)

var following = [...]struct{ fixed, each int }{
	1: {4, 0}, 2: {}, 3: {12, 0}, 4: {0, 12}, 5: {0, 12}, 6: {0, 8}, 7: {}, 8: {}, 9: {}, 10: {}, 11: {}, 12: {}, 13: {0, 8},
	14: {4, 0}, 15: {0, 12}, 16: {}, 17: {4, 0}, 18: {}, 19: {0, 12},
}

const btfMagic = 0xeb9f

// btf is a kernel's type information.
type btf struct {
	types   []byte
	strings []byte
	at      []int // offset into types, by type number; 0 is void
}

var le = binary.LittleEndian

// parseBTF reads the contents of a .BTF section.
func parseBTF(b []byte) (*btf, error) {
	bad := func(what string) (*btf, error) { return nil, fmt.Errorf("BTF: %s: %w", what, ErrNotUnderstood) }
	if len(b) < 24 || le.Uint16(b) != btfMagic || b[2] != 1 {
		return bad("no header of version 1")
	}
	part := func(off, n uint32) []byte {
		first := uint64(le.Uint32(b[4:])) + uint64(off)
		if last := first + uint64(n); first < 24 || last > uint64(len(b)) {
			return nil
		} else {
			return b[first:last]
		}
	}
	t := &btf{types: part(le.Uint32(b[8:]), le.Uint32(b[12:])), strings: part(le.Uint32(b[16:]), le.Uint32(b[20:])), at: []int{-1}}
	if t.types == nil || t.strings == nil {
		return bad("its parts lie outside it")
	}
	for at := 0; at < len(t.types); {
		if at+12 > len(t.types) {
			return bad("a type is cut off")
		}
		info := le.Uint32(t.types[at+4:])
		kind := int(info >> 24 & 31)
		if kind == 0 || kind >= len(following) {
			return bad("a type of unknown kind")
		}
		t.at = append(t.at, at)
		at += 12 + following[kind].fixed + following[kind].each*int(info&0xffff)
		if at > len(t.types) {
			return bad("a type is cut off")
		}
	}
	return t, nil
}

func (t *btf) name(off uint32) string {
	if uint64(off) >= uint64(len(t.strings)) {
		return ""
	}
	s := t.strings[off:]
	if i := bytes.IndexByte(s, 0); i >= 0 {
		return string(s[:i])
	}
	return ""
}

// member returns the offset in bytes of a member of a struct, also inside its anonymous structs and unions.
func (t *btf) member(structName, name string) (uint64, error) {
	for _, at := range t.at[1:] {
		info := le.Uint32(t.types[at+4:])
		if info>>24&31 == kindStruct && info&0xffff != 0 && t.name(le.Uint32(t.types[at:])) == structName {
			budget := maxVisits
			if bits, ok := t.find(at, name, &budget); ok {
				return uint64(bits / 8), nil
			}
		}
	}
	return 0, fmt.Errorf("struct %s has no member %s: %w", structName, name, ErrNotUnderstood)
}

// size returns the size of a struct in bytes; 0 where there is none.
func (t *btf) size(structName string) uint64 {
	for _, at := range t.at[1:] {
		if info := le.Uint32(t.types[at+4:]); info>>24&31 == kindStruct && t.name(le.Uint32(t.types[at:])) == structName {
			return uint64(le.Uint32(t.types[at+8:]))
		}
	}
	return 0
}

// maxVisits bounds a search: what is read may contain itself.
const maxVisits = 100_000

// find looks for a member of the struct or union at an offset.
func (t *btf) find(at int, name string, budget *int) (bits uint32, ok bool) {
	info := le.Uint32(t.types[at+4:])
	for i := range int(info & 0xffff) {
		if *budget--; *budget < 0 {
			return 0, false
		}
		m := t.types[at+12+12*i:]
		off, number := le.Uint32(m[8:]), le.Uint32(m[4:])
		if info>>31 != 0 {
			off &= 0xffffff // the rest is the size of a bit field
		}
		if n := t.name(le.Uint32(m)); n == name {
			return off, true
		} else if n != "" || uint64(number) >= uint64(len(t.at)) || number == 0 {
			continue
		}
		inner := t.at[number]
		if k := le.Uint32(t.types[inner+4:]) >> 24 & 31; k == kindStruct || k == kindUnion {
			if b, ok := t.find(inner, name, budget); ok {
				return off + b, true
			}
		}
	}
	return 0, false
}

// section returns the contents of an ELF file's .BTF section.
func section(kernel []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return nil, fmt.Errorf("the kernel: %w: %w", err, ErrNotUnderstood)
	}
	s := f.Section(".BTF")
	if s == nil || s.Type == elf.SHT_NOBITS || s.Offset > uint64(len(kernel)) || s.FileSize > uint64(len(kernel))-s.Offset {
		return nil, fmt.Errorf("the kernel has no type information (.BTF): %w", ErrNotUnderstood)
	}
	return kernel[s.Offset : s.Offset+s.FileSize], nil
}
