package ksym

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// BTF is what a Linux kernel says of its own structures (Documentation/bpf/btf.rst): as
// much as it takes to find members.
type BTF struct {
	types   []btfType
	structs map[string]int // by name
}

type btfType struct {
	kind    uint32
	members []btfMember
	target  int // of what is named, or qualified
}

type btfMember struct {
	name string
	typ  int
	bits uint32 // offset
}

const (
	btfMagic     = 0xeb9f
	btfInt       = 1
	btfArray     = 3
	btfStruct    = 4
	btfUnion     = 5
	btfEnum      = 6
	btfTypedef   = 8
	btfVolatile  = 9
	btfConst     = 10
	btfFuncProto = 13
	btfVar       = 14
	btfDatasec   = 15
	btfDeclTag   = 17
	btfEnum64    = 19

	maxBTFTypes = 4 << 20
)

// ReadBTF reads the section .BTF of a kernel in an ELF file. The error is ErrNone where there is none that can be read.
func ReadBTF(kernel []byte) (*BTF, error) {
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return nil, ErrNone
	}
	s := f.Section(".BTF")
	if s == nil {
		return nil, ErrNone
	}
	raw, err := s.Data()
	if err != nil {
		return nil, ErrNone
	}
	return parseBTF(raw)
}

func parseBTF(raw []byte) (*BTF, error) {
	if len(raw) < 24 || binary.LittleEndian.Uint16(raw) != btfMagic {
		return nil, ErrNone
	}
	le := binary.LittleEndian
	head := uint64(le.Uint32(raw[4:]))
	part := func(off, n uint32) []byte {
		first, last := head+uint64(off), head+uint64(off)+uint64(n)
		if last > uint64(len(raw)) {
			return nil
		}
		return raw[first:last]
	}
	types, strings := part(le.Uint32(raw[8:]), le.Uint32(raw[12:])), part(le.Uint32(raw[16:]), le.Uint32(raw[20:]))
	if types == nil || strings == nil {
		return nil, ErrNone
	}
	name := func(off uint32) string {
		if uint64(off) >= uint64(len(strings)) {
			return ""
		}
		s := strings[off:]
		if i := bytes.IndexByte(s, 0); i >= 0 {
			s = s[:i]
		}
		return string(s)
	}
	b := &BTF{types: []btfType{{}}, structs: map[string]int{}}
	for len(types) >= 12 {
		nameOff, info, size := le.Uint32(types), le.Uint32(types[4:]), le.Uint32(types[8:])
		t := btfType{kind: info >> 24 & 0x1f, target: int(size)}
		n, flag := int(info&0xffff), info>>31 != 0
		types = types[12:]
		extra := 0
		switch t.kind {
		case btfInt, btfVar, btfDeclTag:
			extra = 4
		case btfArray:
			extra = 12
		case btfStruct, btfUnion, btfDatasec, btfEnum64:
			extra = 12 * n
		case btfEnum, btfFuncProto:
			extra = 8 * n
		}
		if extra > len(types) || len(b.types) == maxBTFTypes {
			return nil, ErrNone
		}
		if t.kind == btfStruct || t.kind == btfUnion {
			for i := range n {
				m := types[12*i:]
				bits := le.Uint32(m[8:])
				if flag { // the upper byte is the size of a bit field
					bits &= 0xffffff
				}
				t.members = append(t.members, btfMember{name(le.Uint32(m)), int(le.Uint32(m[4:])), bits})
			}
			if s := name(nameOff); s != "" && t.kind == btfStruct {
				b.structs[s] = len(b.types)
			}
		}
		types = types[extra:]
		b.types = append(b.types, t)
	}
	return b, nil
}

// Offset returns where a member of a structure is, in bytes. Members of anonymous
// structures and unions in it are its own, as in C.
func (b *BTF) Offset(structure, member string) (off uint64, ok bool) {
	if b == nil {
		return 0, false
	}
	id, ok := b.structs[structure]
	if !ok {
		return 0, false
	}
	bits, ok := b.find(id, member, 0)
	return bits / 8, ok
}

func (b *BTF) find(id int, member string, depth int) (bits uint64, ok bool) {
	const deep = 16
	if id >= len(b.types) || depth > deep {
		return 0, false
	}
	t := &b.types[id]
	switch t.kind {
	case btfConst, btfVolatile, btfTypedef:
		return b.find(t.target, member, depth+1)
	}
	for _, m := range t.members {
		if m.name == member {
			return uint64(m.bits), true
		}
		if m.name == "" {
			if in, ok := b.find(m.typ, member, depth+1); ok {
				return uint64(m.bits) + in, true
			}
		}
	}
	return 0, false
}
