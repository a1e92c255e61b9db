package ksym

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sort"
)

// ErrNone reports a kernel without symbols.
var ErrNone = errors.New("the kernel has no symbols")

// Symbol is a name of an address.
type Symbol struct {
	Addr uint64
	Name string
}

// Table is a kernel's symbols, by address.
type Table struct {
	symbols []Symbol // ascending
	byName  map[string]uint64
	end     uint64 // first address beyond the kernel
	// Where the modules are, whose symbols With added; empty where none are.
	modulesFirst, modulesEnd uint64
}

// With returns a table that has the symbols of modules too, which lie in their own range of addresses.
// Lookup and Name still know the kernel's alone.
func (t *Table) With(modules []Symbol) *Table {
	if len(modules) == 0 {
		return t
	}
	n := *t
	n.symbols = slices.Concat(t.symbols, modules)
	slices.SortStableFunc(n.symbols, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	n.byName = maps.Clone(t.byName)
	n.modulesFirst = modules[0].Addr
	for _, s := range modules {
		if _, ok := n.byName[s.Name]; !ok {
			n.byName[s.Name] = s.Addr
		}
		n.modulesFirst, n.modulesEnd = min(n.modulesFirst, s.Addr), max(n.modulesEnd, s.Addr+1)
	}
	return &n
}

// Read reads the symbols of a kernel in an ELF file (for a bzImage: boot.Vmlinux).
// The error is ErrNone where there are none.
func Read(kernel []byte) (*Table, error) {
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return nil, fmt.Errorf("kernel symbols: %w", err)
	}
	t := &Table{byName: map[string]uint64{}}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Vaddr+p.Memsz > t.end && p.Vaddr+p.Memsz > p.Vaddr {
			t.end = p.Vaddr + p.Memsz
		}
	}
	if syms, err := f.Symbols(); err == nil {
		for _, s := range syms {
			k := elf.ST_TYPE(s.Info)
			if s.Name != "" && s.Section != elf.SHN_UNDEF && (k == elf.STT_FUNC || k == elf.STT_OBJECT || k == elf.STT_NOTYPE) {
				t.symbols = append(t.symbols, Symbol{s.Value, s.Name})
			}
		}
	}
	if len(t.symbols) == 0 {
		if t.symbols, err = kallsyms(kernel); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(t.symbols, func(i, j int) bool { return t.symbols[i].Addr < t.symbols[j].Addr })
	for _, s := range t.symbols {
		if _, ok := t.byName[s.Name]; !ok {
			t.byName[s.Name] = s.Addr
		}
	}
	return t, nil
}

// Len returns the number of symbols.
func (t *Table) Len() int { return len(t.symbols) }

// Lookup returns the symbol at or before an address of the kernel, and the distance.
func (t *Table) Lookup(addr uint64) (name string, offset uint64, ok bool) {
	if addr >= t.end {
		return "", 0, false
	}
	i := sort.Search(len(t.symbols), func(i int) bool { return t.symbols[i].Addr > addr }) - 1
	// What lies below the kernel's own addresses are offsets into each processor's data.
	if i < 0 || t.symbols[i].Addr < 1<<20 {
		return "", 0, false
	}
	for i > 0 && t.symbols[i-1].Addr == t.symbols[i].Addr { // the first of aliases
		i--
	}
	return t.symbols[i].Name, addr - t.symbols[i].Addr, true
}

// Name returns "symbol+0xoffset", or "" where no symbol is. A nil Table names nothing.
func (t *Table) Name(addr uint64) string {
	if t == nil {
		return ""
	}
	name, off, ok := t.Lookup(addr)
	switch {
	case !ok:
		return ""
	case off == 0:
		return name
	}
	return fmt.Sprintf("%s+%#x", name, off)
}

// Addr returns the address of a symbol.
func (t *Table) Addr(name string) (addr uint64, ok bool) {
	if t == nil {
		return 0, false
	}
	addr, ok = t.byName[name]
	return addr, ok
}

// Near returns up to n names that are like name, the nearest first.
func (t *Table) Near(name string, n int) []string { return Near(name, maps.Keys(t.byName), n) }

// Near returns up to n of some names that are like name, the nearest first.
func Near(name string, of iter.Seq[string], n int) []string {
	type near struct {
		name string
		dist int
	}
	var all []near
	limit := len(name)/3 + 1
	for s := range of {
		if d := Distance(name, s, limit); d <= limit {
			all = append(all, near{s, d})
		}
	}
	slices.SortFunc(all, func(a, b near) int {
		if a.dist != b.dist {
			return a.dist - b.dist
		}
		return bytes.Compare([]byte(a.name), []byte(b.name))
	})
	var names []string
	all = slices.Compact(all)
	for _, a := range all[:min(n, len(all))] {
		names = append(names, a.name)
	}
	return names
}

// Distance is the number of edits between two names (Levenshtein), or more than limit where it is more.
func Distance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		least := row[0]
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			prev = row[j+1]
			row[j+1] = min(cost, row[j]+1, prev+1)
			least = min(least, row[j+1])
		}
		if least > limit {
			return limit + 1
		}
	}
	return row[len(b)]
}
