package injectors

import (
	"errors"
	"fmt"
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

// Guest tells of the processes of a guest. *linux.Kernel implements it.
type Guest interface {
	Processes(c *x86.CPU) []linux.Process
	Current(c *x86.CPU) (p linux.Process, ok bool)
}

// ErrSymbol is wrapped by the error of a symbol that cannot be resolved.
var ErrSymbol = errors.New("unknown symbol")

// Expr is an address: a number, or a symbol and an offset. Addr is valid once it is bound.
type Expr struct {
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
	at := strings.LastIndexAny(s, "+-")
	if at < 0 {
		return Expr{Symbol: s}, nil
	}
	off, err := ParseUint(s[at+1:])
	if err != nil {
		return Expr{}, fmt.Errorf("%q is not an address: %w", s, err)
	}
	if s[at] == '-' {
		off = -off
	}
	return Expr{Symbol: s[:at], Offset: off}, nil
}

func (e *Expr) bind(s Symbols) error {
	if e.Symbol == "" {
		return nil
	}
	if s == nil {
		return fmt.Errorf("%w %s: this kernel has no symbols that we could read; give an address", ErrSymbol, e.Symbol)
	}
	a, ok := s.Addr(e.Symbol)
	if !ok {
		near := ""
		if names := s.Near(e.Symbol, 3); len(names) > 0 {
			near = "; near it are " + strings.Join(names, ", ")
		}
		return fmt.Errorf("%w %s%s", ErrSymbol, e.Symbol, near)
	}
	e.Addr = a + e.Offset
	return nil
}

// SetGuest tells who knows the guest's processes, for keys pid and comm.
func (f *Fault) SetGuest(g Guest) {
	f.Args.guest = g
	for i := range f.Trigger.Stages {
		if w, ok := f.Trigger.Stages[i].cond.(interface{ setGuest(Guest) }); ok {
			w.setGuest(g)
		}
	}
}

// NeedsGuest reports whether a fault concerns a process by its name or number.
func (f *Fault) NeedsGuest() bool {
	for _, s := range f.Trigger.Stages {
		if w, ok := s.cond.(interface{ needsGuest() bool }); ok && w.needsGuest() {
			return true
		}
	}
	return hasKey(f.Args, "pid") || hasKey(f.Args, "comm")
}

// Bind resolves the symbols of a fault's description. s may be nil.
func (f *Fault) Bind(s Symbols) error {
	for i := range f.Trigger.Stages {
		if err := f.Trigger.Stages[i].cond.bind(s); err != nil {
			return fmt.Errorf("fault %q: %w: %w", f, err, ErrSpec)
		}
	}
	for i, k := range f.Kind.keys() {
		if !k.Addr || f.Args.values[i] == "" || f.draws != nil && f.draws[i] != nil {
			continue
		}
		e, err := ParseExpr(f.Args.values[i])
		if err == nil {
			err = e.bind(s)
		}
		if err != nil {
			return fmt.Errorf("fault %q: key %s: %w: %w", f, k.Name, err, ErrSpec)
		}
		f.Args.values[i] = fmt.Sprintf("%#x", e.Addr)
	}
	f.bound = true
	return nil
}

// Symbolic reports whether Bind needs symbols.
func (f *Fault) Symbolic() bool {
	for _, s := range f.Trigger.Stages {
		if w, ok := s.cond.(interface{ symbolic() bool }); ok && w.symbolic() {
			return true
		}
	}
	for i, k := range f.Kind.keys() {
		if e, err := ParseExpr(f.Args.values[i]); k.Addr && err == nil && e.symbolic() {
			return true
		}
	}
	return false
}

func (e *Expr) symbolic() bool { return e.Symbol != "" }

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
