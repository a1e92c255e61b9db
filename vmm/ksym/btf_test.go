package ksym

import (
	"encoding/binary"
	"errors"
	"testing"
)

// btf builds a small table: struct s { int a; const t b; union { int c; struct { int pad; int d; }; }; }, typedef struct {int x;} t.
func btf() []byte {
	le := binary.LittleEndian
	strings := []byte("\x00s\x00a\x00b\x00c\x00d\x00x\x00t\x00int\x00pad\x00")
	at := func(name string) uint32 {
		for i := 1; i < len(strings); i++ {
			if strings[i-1] == 0 && string(strings[i:i+len(name)]) == name && strings[i+len(name)] == 0 {
				return uint32(i)
			}
		}
		return 0
	}
	var types []byte
	add := func(name string, kind, n uint32, size uint32, rest ...uint32) {
		off := uint32(0)
		if name != "" {
			off = at(name)
		}
		types = le.AppendUint32(types, off)
		types = le.AppendUint32(types, kind<<24|n)
		types = le.AppendUint32(types, size)
		for _, r := range rest {
			types = le.AppendUint32(types, r)
		}
	}
	add("int", btfInt, 0, 4, 32)                                        // 1
	add("", btfStruct, 1, 4, at("x"), 1, 0)                             // 2
	add("t", btfTypedef, 0, 2)                                          // 3
	add("", btfConst, 0, 3)                                             // 4
	add("", btfStruct, 2, 8, at("pad"), 1, 0, at("d"), 1, 32)           // 5
	add("", btfUnion, 2, 8, at("c"), 1, 0, 0, 5, 0)                     // 6
	add("s", btfStruct, 3, 16, at("a"), 1, 0, at("b"), 4, 32, 0, 6, 64) // 7
	b := le.AppendUint16(nil, btfMagic)
	b = append(b, 1, 0)
	b = le.AppendUint32(b, 24)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(types)))
	b = le.AppendUint32(b, uint32(len(types)))
	b = le.AppendUint32(b, uint32(len(strings)))
	return append(append(b, types...), strings...)
}

func TestBTF(t *testing.T) {
	b, err := parseBTF(btf())
	if err != nil {
		t.Fatal(err)
	}
	for member, want := range map[string]uint64{"a": 0, "b": 4, "c": 8, "pad": 8, "d": 12} {
		if off, ok := b.Offset("s", member); !ok || off != want {
			t.Errorf("%s is at %d, %v; want %d", member, off, ok, want)
		}
	}
	if _, ok := b.Offset("s", "x"); ok {
		t.Error("a member of a named member was found")
	}
	if _, ok := b.Offset("nosuch", "a"); ok {
		t.Error("a structure that is none was found")
	}
	var none *BTF
	if _, ok := none.Offset("s", "a"); ok {
		t.Error("nothing has a member")
	}
	if _, err := ReadBTF([]byte("no ELF file")); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
}

func FuzzBTF(f *testing.F) {
	f.Add(btf())
	f.Add(btf()[:40])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if b, err := parseBTF(raw); err == nil {
			b.Offset("s", "d")
		}
	})
}
