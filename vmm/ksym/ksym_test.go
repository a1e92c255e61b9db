package ksym

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// layout is an order of the tables' parts, by the version of Linux that has it.
type layout struct {
	name       string
	late       bool // addresses come after the token index
	seqs       bool // three bytes a name between the markers and the tokens
	perProcess bool // the encoding with absolute addresses of per-CPU data
}

var layouts = []layout{
	{"5.10", false, false, true},
	{"6.1.192", false, true, true},
	{"6.4", true, true, true},
	{"6.15", true, true, false},
}

// image writes a kernel's tables as scripts/kallsyms.c does, with tokens "st" and "art" for compression.
func (l layout) image(syms []Symbol) []byte {
	const base = 0xffffffff81000000
	k := []byte(strings.Repeat("read-only data ", 40))
	pad := func() {
		for len(k)%8 != 0 {
			k = append(k, 0)
		}
	}
	addresses := func() {
		pad()
		for _, s := range syms {
			o := uint32(s.Addr - base)
			if l.perProcess {
				if o = uint32(s.Addr); s.Addr >= base {
					o = uint32(-1 - int64(s.Addr-base))
				}
			}
			k = le.AppendUint32(k, o)
		}
		pad()
		k = le.AppendUint64(k, base)
	}
	if !l.late {
		addresses()
	}
	pad()
	k = le.AppendUint32(k, uint32(len(syms)))
	pad()
	start, markers := len(k), []uint32(nil)
	for i, s := range syms {
		if i%namesPerMarker == 0 {
			markers = append(markers, uint32(len(k)-start))
		}
		n := strings.NewReplacer("art", "\x01", "st", "\x02").Replace("T" + s.Name)
		if len(n) < 0x80 {
			k = append(k, byte(len(n)))
		} else {
			k = append(k, byte(len(n))|0x80, byte(len(n)>>7))
		}
		k = append(k, n...)
	}
	pad()
	for _, m := range markers {
		k = le.AppendUint32(k, m)
	}
	if l.seqs {
		pad()
		for i := range syms {
			k = append(k, byte(i>>16), byte(i>>8), byte(i))
		}
	}
	pad()
	table := len(k)
	var index []uint16
	for i := range 256 {
		index = append(index, uint16(len(k)-table))
		tok := "x"
		switch {
		case i == 1:
			tok = "art"
		case i == 2:
			tok = "st"
		case i > ' ' && i < 0x7f:
			tok = string(rune(i))
		}
		k = append(append(k, tok...), 0)
	}
	pad()
	for _, o := range index {
		k = le.AppendUint16(k, o)
	}
	if l.late {
		addresses()
	}
	return append(k, make([]byte, 64)...)
}

func manySymbols() []Symbol {
	syms := []Symbol{{0, "fixed_percpu_data"}, {0x8000, "per_cpu_start"}}
	for i := range 1000 {
		syms = append(syms, Symbol{0xffffffff81000000 + 16*uint64(i), fmt.Sprintf("start_%d", i)})
	}
	return append(syms, Symbol{0xffffffff81800000, "a_" + strings.Repeat("long_", 60) + "name"})
}

func TestKallsyms(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			want := manySymbols()
			if !l.perProcess {
				want = want[2:]
			}
			got, err := kallsyms(l.image(want))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d symbols, the first %v; want %d", len(got), got[0], len(want))
			}
		})
	}
}

// TestKallsymsDamaged: a table that contradicts itself is none.
func TestKallsymsDamaged(t *testing.T) {
	k := layouts[0].image(manySymbols())
	count := 0
	for at := 700; at < len(k)-700; at += 97 {
		d := slices.Clone(k)
		d[at] ^= 0x55
		if _, err := kallsyms(d); err != nil {
			if !errors.Is(err, ErrNone) {
				t.Fatal(err)
			}
			count++
		}
	}
	if count == 0 {
		t.Error("no damage was noticed")
	}
	for n := 0; n < len(k)-64; n += 13 {
		if _, err := kallsyms(k[:n]); !errors.Is(err, ErrNone) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestTable(t *testing.T) {
	tab := &Table{end: 0x2001000, byName: map[string]uint64{"alpha": 0x1000000, "beta": 0x1000010, "memory_failure": 0x2000000},
		symbols: []Symbol{{8, "percpu"}, {0x1000000, "alpha"}, {0x1000010, "beta"}, {0x1000010, "beta_alias"}, {0x2000000, "memory_failure"}}}
	for _, tt := range []struct {
		addr uint64
		want string
	}{
		{0, ""}, {8, ""}, {0x900000, ""}, {0x1000000, "alpha"}, {0x100000f, "alpha+0xf"}, {0x1000010, "beta"},
		{0x1000011, "beta+0x1"}, {0x2000fff, "memory_failure+0xfff"}, {0x2001000, ""}, {1<<64 - 1, ""},
	} {
		if got := tab.Name(tt.addr); got != tt.want {
			t.Errorf("%#x is %q, want %q", tt.addr, got, tt.want)
		}
	}
	if got := tab.Near("memory_falure", 3); !slices.Equal(got, []string{"memory_failure"}) {
		t.Errorf("near memory_falure: %q", got)
	}
	var none *Table
	if _, ok := none.Addr("x"); ok || none.Name(1<<63) != "" {
		t.Error("a table of nothing has symbols")
	}
}

func FuzzKallsyms(f *testing.F) {
	for _, l := range layouts {
		f.Add(l.image(manySymbols()[:600]))
	}
	f.Fuzz(func(t *testing.T, k []byte) {
		kallsyms(k)
		Read(k)
	})
}

// TestWith: the symbols of modules are in a section of their own for a debugger, and the kernel's stay what they were.
func TestWith(t *testing.T) {
	kernel := &Table{symbols: []Symbol{{0xffffffff81000000, "_text"}, {0xffffffff81000100, "schedule"}, {0xffffffff81001000, "_etext"}},
		byName: map[string]uint64{"_text": 0xffffffff81000000, "schedule": 0xffffffff81000100, "_etext": 0xffffffff81001000}, end: 0xffffffff81002000}
	if kernel.With(nil) != kernel {
		t.Error("without modules it is another table")
	}
	both := kernel.With([]Symbol{{0xffffffffc0001000, "init"}, {0xffffffffc0001080, "schedule"}, {0xffffffffc0000000, "first"}})
	for name, want := range map[string]uint64{"schedule": 0xffffffff81000100, "init": 0xffffffffc0001000} {
		if got, ok := both.Addr(name); !ok || got != want {
			t.Errorf("%s is at %#x", name, got)
		}
	}
	if _, ok := kernel.Addr("init"); ok || kernel.Len() != 3 {
		t.Error("the kernel's own table has changed")
	}
	if got := both.Name(0xffffffffc0001001); got != "" {
		t.Errorf("Name knows a module: %s", got)
	}
	f, err := elf.NewFile(bytes.NewReader(both.ELF()))
	if err != nil {
		t.Fatal(err)
	}
	in := f.Section(".modules")
	syms, err := f.Symbols()
	if err != nil || in == nil || in.Addr != 0xffffffffc0000000 || in.Size != 0x1081 || in.Flags&elf.SHF_EXECINSTR == 0 || len(syms) != 6 {
		t.Fatalf("section %+v, symbols %+v, %v", in, syms, err)
	}
	for _, s := range syms {
		module := s.Value >= 0xffffffffc0000000
		if got := f.Sections[s.Section].Name; module != (got == ".modules") {
			t.Errorf("%s is in %s", s.Name, got)
		}
		if s.Name == "_etext" && s.Size != 0x1000 {
			t.Errorf("the kernel's last symbol has %#x bytes", s.Size)
		}
	}
	if text := f.Section(".text"); text.Addr != 0xffffffff81000000 || text.Addr+text.Size != 0xffffffff81001000 {
		t.Errorf(".text %+v", text)
	}
}
