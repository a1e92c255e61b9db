package injectors

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"refault/vmm/ksym"
	"refault/vmm/linux"
	"refault/vmm/x86"
)

// Symbols are the names of a kernel's addresses. *ksym.Table implements it.
type Symbols interface {
	Addr(name string) (addr uint64, ok bool)
	Near(name string, n int) []string
}

// ModuleSymbols is a Symbols that also knows which modules of the recorded run have a symbol.
type ModuleSymbols interface {
	Symbols
	Modules(symbol string) (modules []string, err error)
}

// Guest tells of the processes of a guest and of the modules of its kernel, at the moment when it is asked.
// *linux.Kernel implements it.
type Guest interface {
	Processes(c *x86.CPU) []linux.Process
	Current(c *x86.CPU) (p linux.Process, ok bool)
	Modules(c *x86.CPU) []linux.Module
	ModuleSymbols(c *x86.CPU, m *linux.Module) []ksym.Symbol
	Find(c *x86.CPU, module, symbol string) []linux.Place
	Holds(c *x86.CPU, p *linux.Place) bool
	ModuleStart() (addr uint64, ok bool)
}

// ErrSymbol is wrapped by the error of a symbol that cannot be resolved.
var ErrSymbol = errors.New("unknown symbol")

// Expr is an address: a number, or a symbol and an offset. Addr is valid once it is bound; where
// Module is set by then, only Locate says where that is.
type Expr struct {
	Module string // whose symbol it is; empty: the kernel's
	Symbol string
	Offset uint64
	Addr   uint64
}

// ParseExpr reads an address.
func ParseExpr(s string) (Expr, error) {
	if n, err := ParseUint(s); err == nil {
		return Expr{Addr: n}, nil
	}
	if s == "" || s[0] >= '0' && s[0] <= '9' || s[0] == '+' || s[0] == '-' {
		return Expr{}, fmt.Errorf("%q is not an address: a number or a symbol", s)
	}
	module, symbol, found := strings.Cut(s, ":")
	if !found {
		module, symbol = "", s
	} else if module == "" || symbol == "" {
		return Expr{}, fmt.Errorf("%q is not an address: a symbol of a module is MODULE:SYMBOL", s)
	}
	e := Expr{Module: strings.ReplaceAll(module, "-", "_"), Symbol: symbol} // as the kernel does
	if at := strings.LastIndexAny(symbol, "+-"); at >= 0 {
		off, err := ParseUint(symbol[at+1:])
		if err != nil {
			return Expr{}, fmt.Errorf("%q is not an address: %w", s, err)
		}
		if symbol[at] == '-' {
			off = -off
		}
		e.Symbol, e.Offset = symbol[:at], off
	}
	return e, nil
}

// Bind resolves a symbol of the kernel, and finds out the module of another.
func (e *Expr) Bind(s Symbols, g Guest) error {
	if e.Symbol == "" {
		return nil
	}
	if e.Module == "" {
		if err := e.bindKernel(s); err != nil || e.Module == "" {
			return err
		}
	}
	if g == nil {
		return fmt.Errorf("%s: symbols of modules need a Linux kernel with symbols and type information (BTF)", e)
	}
	if _, ok := g.ModuleStart(); !ok {
		return fmt.Errorf("%s: this kernel has no modules", e)
	}
	return nil
}

// bindKernel resolves a symbol that no module is given for.
func (e *Expr) bindKernel(s Symbols) error {
	if s == nil {
		return fmt.Errorf("%w %s: this kernel has no symbols that we could read; give an address", ErrSymbol, e.Symbol)
	}
	if a, ok := s.Addr(e.Symbol); ok {
		e.Addr = a + e.Offset
		return nil
	}
	hint := ""
	if r, ok := s.(ModuleSymbols); ok {
		hint = "; one of a module that is not loaded is MODULE:SYMBOL"
		modules, err := r.Modules(e.Symbol)
		switch {
		case err != nil:
			return err
		case len(modules) == 1:
			e.Module = modules[0]
			return nil
		case len(modules) > 1:
			return fmt.Errorf("symbol %s is in the modules %s; write for example %s:%s", e.Symbol, strings.Join(modules, ", "), modules[0], e.Symbol)
		}
	}
	return fmt.Errorf("%w %s%s%s", ErrSymbol, e.Symbol, nearby(s.Near(e.Symbol, 3)), hint)
}

func nearby(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; near it are " + strings.Join(names, ", ")
}

// String returns what ParseExpr takes.
func (e *Expr) String() string {
	switch {
	case e.Symbol == "":
		return fmt.Sprintf("%#x", e.Addr)
	case e.Module != "":
		return e.Module + ":" + e.Symbol
	}
	return e.Symbol
}

// Locate finds a symbol of a module, as it is at this moment, and sets Addr. Where there is none it
// says why; wrong then means that the module has just been loaded, and so never had it. One that is still being
// loaded, while another is started, has no symbols yet.
func (e *Expr) Locate(c *x86.CPU, g Guest) (at *linux.Place, missing string, wrong bool) {
	if found := g.Find(c, e.Module, e.Symbol); len(found) > 0 {
		e.Addr = found[0].Addr + e.Offset
		return &found[0], "", false
	}
	loaded := g.Modules(c)
	for i := range loaded {
		if loaded[i].Name != e.Module {
			continue
		}
		var names []string
		for _, s := range g.ModuleSymbols(c, &loaded[i]) {
			names = append(names, s.Name)
		}
		return nil, fmt.Sprintf("module %s has no symbol %s%s", e.Module, e.Symbol, nearby(ksym.Near(e.Symbol, slices.Values(names), 3))), i == 0 && len(names) > 0
	}
	return nil, fmt.Sprintf("module %s is not loaded", e.Module), false
}

// SetGuest tells who knows the guest's processes and modules, for keys pid and comm and for symbols of modules.
func (f *Fault) SetGuest(g Guest) {
	f.Args.guest = g
	for i := range f.Trigger.Stages {
		if w, ok := f.Trigger.Stages[i].cond.(interface{ location() *where }); ok {
			w.location().guest = g
		}
	}
}

// NeedsGuest reports whether a fault names more than symbols of the kernel, which s has: a process, or a
// symbol of a module.
func (f *Fault) NeedsGuest(s Symbols) bool {
	for _, st := range f.Trigger.Stages {
		if w, ok := st.cond.(interface{ location() *where }); ok && (w.location().needsGuest() || w.location().Beyond(s)) {
			return true
		}
	}
	for _, e := range f.addresses() {
		if e != nil && e.Beyond(s) {
			return true
		}
	}
	return hasKey(f.Args, "pid") || hasKey(f.Args, "comm")
}

// Beyond reports whether it is a symbol that is none of the kernel's.
func (e *Expr) Beyond(s Symbols) bool {
	if e.Symbol == "" || e.Module != "" || s == nil {
		return e.Module != ""
	}
	_, ok := s.Addr(e.Symbol)
	return !ok
}

// addresses returns the values of keys that take a symbol, by index of the key; nil for others.
func (f *Fault) addresses() []*Expr {
	all := make([]*Expr, len(f.Args.values))
	for i, k := range f.Kind.keys() {
		if !k.Addr || f.Args.values[i] == "" || f.draws != nil && f.draws[i] != nil {
			continue
		}
		if e, err := ParseExpr(f.Args.values[i]); err == nil { // Parse has checked it
			all[i] = &e
		}
	}
	return all
}

// Bind resolves the symbols of a fault's description. s may be nil. Symbols of modules are resolved at each
// moment when they are needed, by the guest of SetGuest.
func (f *Fault) Bind(s Symbols) error {
	for i := range f.Trigger.Stages {
		if err := f.Trigger.Stages[i].cond.bind(s); err != nil {
			return fmt.Errorf("fault %q: %w: %w", f, err, ErrSpec)
		}
	}
	f.late = nil
	for i, e := range f.addresses() {
		if e == nil {
			continue
		}
		if err := e.Bind(s, f.Args.guest); err != nil {
			return fmt.Errorf("fault %q: key %s: %w: %w", f, f.Kind.keys()[i].Name, err, ErrSpec)
		}
		if e.Module != "" {
			if f.late == nil {
				f.late = make([]*Expr, len(f.Args.values))
			}
			f.late[i] = e
			continue
		}
		f.Args.values[i] = fmt.Sprintf("%#x", e.Addr)
	}
	f.bound = true
	return nil
}

// Symbolic reports whether Bind needs symbols.
func (f *Fault) Symbolic() bool {
	for _, s := range f.Trigger.Stages {
		if w, ok := s.cond.(interface{ location() *where }); ok && w.location().Symbol != "" {
			return true
		}
	}
	for _, e := range f.addresses() {
		if e != nil && e.Symbol != "" {
			return true
		}
	}
	return false
}

// didYouMean returns ` (did you mean "x"?)` where a name is like one of the known ones.
func didYouMean(name string, known []string) string {
	best, dist := "", len(name)/3+2
	for _, k := range known {
		if d := ksym.Distance(name, k, dist); d < dist {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}
