package linux

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"refault/vmm/ksym"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// moduleLayout is what it takes to find the kernel's modules and their symbols.
type moduleLayout struct {
	head uint64 // address of the list
	init uint64 // address of the function that starts each module; 0: not known

	list, name, kallsyms    uint64 // offsets of members
	symtab, symbols, strtab uint64 // of struct mod_kallsyms
	parts                   []uint64
	partBase, partSize      uint64 // in each part
}

// newModuleLayout returns nil where the kernel has no modules, or has not told all of it.
func newModuleLayout(t *btf, s Symbols) *moduleLayout {
	var l moduleLayout
	var ok bool
	if l.head, ok = s.Addr("modules"); !ok {
		return nil
	}
	l.init, _ = s.Addr("do_init_module")
	part, each := "module_layout", []string{"core_layout", "init_layout"}
	if first, err := t.member("module", "mem"); err == nil { // since Linux 6.4: an array
		size := t.size("module_memory")
		if part, each = "module_memory", nil; size == 0 {
			return nil
		}
		for i := range uint64(7) {
			l.parts = append(l.parts, first+i*size)
		}
	}
	type wanted struct {
		to           *uint64
		name, member string
	}
	all := []wanted{{&l.list, "module", "list"}, {&l.name, "module", "name"}, {&l.kallsyms, "module", "kallsyms"},
		{&l.symtab, "mod_kallsyms", "symtab"}, {&l.symbols, "mod_kallsyms", "num_symtab"}, {&l.strtab, "mod_kallsyms", "strtab"},
		{&l.partBase, part, "base"}, {&l.partSize, part, "size"}}
	at := make([]uint64, len(each))
	for i, name := range each {
		all = append(all, wanted{&at[i], "module", name})
	}
	for _, x := range all {
		var err error
		if *x.to, err = t.member(x.name, x.member); err != nil {
			return nil
		}
	}
	l.parts = append(l.parts, at...)
	return &l
}

// Module is a module of the guest's kernel.
type Module struct {
	Name  string
	Parts []Part // of memory: code, data

	at                      uint64 // of its struct module
	symtab, strtab, symbols uint64
}

// Part is memory of a module, by its virtual address.
type Part struct{ First, Size uint64 }

func (m *Module) has(addr uint64) bool {
	return slices.ContainsFunc(m.Parts, func(p Part) bool { return addr-p.First < p.Size })
}

// Bounds of what is read.
const (
	maxModules       = 1024
	maxModuleBytes   = 64 << 20 // of a part
	maxModulePages   = 1 << 16  // of all of them
	maxModuleSymbols = 1 << 16
	maxModuleStrings = 4 << 20
)

// Modules lists the modules that the kernel has at this moment, the one that was loaded last first.
func (k *Kernel) Modules(c *x86.CPU) (all []Module) {
	l := k.modules
	if l == nil || !c.LongMode() {
		return nil
	}
	at, ok := load(c, l.head, 8)
	for ; ok && at != l.head && len(all) < maxModules; at, ok = load(c, at, 8) {
		m, ok := k.module(c, at-l.list)
		if !ok {
			break
		}
		all = append(all, m)
	}
	return all
}

// module reads a struct module.
func (k *Kernel) module(c *x86.CPU, at uint64) (m Module, ok bool) {
	l := k.modules
	name := make([]byte, 56)
	if !read(c, at+l.name, name) {
		return m, false
	}
	name, _, terminated := bytes.Cut(name, []byte{0})
	if !terminated || len(name) == 0 || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return m, false
	}
	m.Name, m.at = string(name), at
	for _, off := range l.parts {
		base, ok1 := load(c, at+off+l.partBase, 8)
		size, ok2 := load(c, at+off+l.partSize, 4)
		if ok1 && ok2 && base>>63 != 0 && size > 0 && size <= maxModuleBytes && base+size > base {
			m.Parts = append(m.Parts, Part{base, size})
		}
	}
	// Without symbols it is a module, too.
	if table, ok := load(c, at+l.kallsyms, 8); ok && table != 0 {
		n, ok1 := load(c, table+l.symbols, 4)
		symtab, ok2 := load(c, table+l.symtab, 8)
		strtab, ok3 := load(c, table+l.strtab, 8)
		if ok1 && ok2 && ok3 && n <= maxModuleSymbols {
			m.symtab, m.strtab, m.symbols = symtab, strtab, n
		}
	}
	return m, true
}

// elfSymbolBytes is the size of an Elf64_Sym.
const elfSymbolBytes = 24

// ModuleSymbols reads the symbols of a module that is loaded, by ascending address.
func (k *Kernel) ModuleSymbols(c *x86.CPU, m *Module) []ksym.Symbol { return symbolsOf(c, m) }

func symbolsOf(c *x86.CPU, m *Module) []ksym.Symbol {
	table := make([]byte, m.symbols*elfSymbolBytes)
	if len(table) == 0 || !read(c, m.symtab, table) {
		return nil
	}
	// The strings end with the last name.
	last := uint64(0)
	for at := 0; at < len(table); at += elfSymbolBytes {
		last = max(last, uint64(le.Uint32(table[at:])))
	}
	if last > maxModuleStrings {
		return nil
	}
	var strings []byte
	for n := uint64(0); n <= last || bytes.IndexByte(strings[last:], 0) < 0; {
		page := make([]byte, mem.PageSize-(m.strtab+n)%mem.PageSize)
		if !read(c, m.strtab+n, page) {
			break
		}
		strings, n = append(strings, page...), n+uint64(len(page))
		if n > 2*maxModuleStrings {
			break
		}
	}
	return parseSymbols(table, strings, m)
}

// parseSymbols decodes the symbols of a module's symbol table that lie in it.
func parseSymbols(table, strings []byte, m *Module) (all []ksym.Symbol) {
	for ; len(table) >= elfSymbolBytes; table = table[elfSymbolBytes:] {
		off, section, value := uint64(le.Uint32(table)), le.Uint16(table[6:]), le.Uint64(table[8:])
		if section == 0 || off >= uint64(len(strings)) || !m.has(value) {
			continue
		}
		name, _, ok := bytes.Cut(strings[off:], []byte{0})
		if !ok || len(name) == 0 || len(name) > 511 || name[0] == '.' || name[0] == '$' || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			continue
		}
		all = append(all, ksym.Symbol{Addr: value, Name: string(name)})
	}
	slices.SortStableFunc(all, func(a, b ksym.Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	return all
}

// Place is where a module has a symbol.
type Place struct {
	Module Module
	Addr   uint64
}

// Find returns where modules have a symbol at this moment, the module that was loaded last first: the named
// module, or, where the name is empty, all of them.
func (k *Kernel) Find(c *x86.CPU, module, symbol string) (all []Place) {
	for _, m := range k.Modules(c) {
		if module != "" && m.Name != module {
			continue
		}
		s := symbolsOf(c, &m)
		if i := slices.IndexFunc(s, func(s ksym.Symbol) bool { return s.Name == symbol }); i >= 0 {
			all = append(all, Place{m, s[i].Addr})
		}
	}
	return all
}

// Holds reports whether the module of a place is still there, and has that address.
func (k *Kernel) Holds(c *x86.CPU, p *Place) bool {
	m, ok := k.module(c, p.Module.at)
	return ok && m.Name == p.Module.Name && m.has(p.Addr)
}

// ModuleStart returns the address of the kernel's function that starts a module which has all its symbols in
// memory: nothing of the module's own has been executed, but for what its parameters may need.
func (k *Kernel) ModuleStart() (addr uint64, ok bool) {
	if k.modules == nil {
		return 0, false
	}
	return k.modules.init, k.modules.init != 0
}

// Names names addresses in modules, as they are at the moment when it is asked. It is not safe for concurrent use.
type Names struct {
	os *Kernel
	// Symbols that were read. They stay what they are while their module does.
	read map[string][]ksym.Symbol
	// last are the modules that there were when a list was last read, the one loaded last first.
	last []Module
}

// NewNames returns a Names for a kernel.
func NewNames(k *Kernel) *Names { return &Names{os: k, read: map[string][]ksym.Symbol{}} }

// find returns the module that has an address.
func (n *Names) find(c *x86.CPU, addr uint64) (m Module, ok bool) {
	// The kernel is compiled to have all its code in the last 2 GiB.
	if addr < 1<<64-1<<31 || n.os.modules == nil {
		return m, false
	}
	// Most often it is where it was found before: then only that one is read.
	if first, ok := load(c, n.os.modules.head, 8); ok && len(n.last) > 0 && first == n.last[0].at+n.os.modules.list {
		for i := range n.last {
			if !n.last[i].has(addr) {
				continue
			}
			if m, ok := n.os.module(c, n.last[i].at); ok && m.has(addr) && m.Name == n.last[i].Name {
				return m, true
			}
		}
	}
	n.last = n.os.Modules(c)
	for _, m := range n.last {
		if m.has(addr) {
			return m, true
		}
	}
	return m, false
}

func (n *Names) symbols(c *x86.CPU, m *Module) []ksym.Symbol {
	key := fmt.Sprint(*m)
	s, ok := n.read[key]
	if !ok {
		if s = symbolsOf(c, m); s != nil {
			n.read[key] = s
		}
	}
	return s
}

// Lookup returns the symbol at or before an address in a module, as "module:symbol", and the distance.
func (n *Names) Lookup(c *x86.CPU, addr uint64) (name string, offset uint64, ok bool) {
	m, ok := n.find(c, addr)
	if !ok {
		return "", 0, false
	}
	s := n.symbols(c, &m)
	i, exact := slices.BinarySearchFunc(s, addr, func(s ksym.Symbol, addr uint64) int { return cmp.Compare(s.Addr, addr) })
	if !exact {
		i--
	}
	for i > 0 && s[i-1].Addr == s[i].Addr { // the first of aliases
		i--
	}
	for _, p := range m.Parts {
		if addr-p.First >= p.Size {
			continue
		}
		if i < 0 || s[i].Addr < p.First {
			return m.Name, addr - p.First, true
		}
	}
	return m.Name + ":" + s[i].Name, addr - s[i].Addr, true
}

// Name returns "module:symbol+0xoffset", or "" where no module is.
func (n *Names) Name(c *x86.CPU, addr uint64) string {
	name, off, ok := n.Lookup(c, addr)
	if !ok || off == 0 {
		return name
	}
	return fmt.Sprintf("%s+%#x", name, off)
}

// Symbols returns the symbols of all modules, without the modules' names, by ascending address.
func (n *Names) Symbols(c *x86.CPU) (all []ksym.Symbol) {
	for _, m := range n.os.Modules(c) {
		all = append(all, n.symbols(c, &m)...)
	}
	slices.SortStableFunc(all, func(a, b ksym.Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	return all
}

// Holding returns the virtual address at which a module has physical address pa.
func (n *Names) Holding(c *x86.CPU, pa uint64) (addr uint64, ok bool) {
	pages := maxModulePages
	for _, m := range n.os.Modules(c) {
		for _, p := range m.Parts {
			for at := p.First &^ (mem.PageSize - 1); at < p.First+p.Size; at += mem.PageSize {
				if pages--; pages < 0 {
					return 0, false
				}
				if x, ok := c.Translate(at); ok && x>>mem.PageShift == pa>>mem.PageShift {
					return at + pa%mem.PageSize, true
				}
			}
		}
	}
	return 0, false
}
