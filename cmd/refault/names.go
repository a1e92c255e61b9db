package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"refault/compare"
	"refault/injectors"
	"refault/replay"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/boot"
	"refault/vmm/ksym"
	"refault/vmm/linux"
	"refault/vmm/x86"
)

// kernel is what is known of a guest's kernel.
type kernel struct {
	symbols *ksym.Table // nil, which names nothing: it has none
	// linux tells of its processes and files.
	linux func() (*linux.Kernel, error)
}

// parseKernel unpacks a kernel and reads its symbols.
func parseKernel(k []byte) (*kernel, error) {
	elf, err := boot.Vmlinux(k)
	if err != nil {
		return nil, err
	}
	t, err := ksym.Read(elf)
	if err != nil && !errors.Is(err, ksym.ErrNone) {
		return nil, err
	}
	return &kernel{t, sync.OnceValues(func() (*linux.Kernel, error) { return linux.New(elf, t) })}, nil
}

// readKernel is parseKernel of a recording's kernel, if its file is still there and the
// same. One that is in no file has no symbols here. It takes most of a second for Debian's.
func readKernel(m *traces.Manifest) (*kernel, error) {
	k, err := kernelFile(m)
	if err != nil {
		return nil, err
	}
	if k == nil {
		return new(kernel), nil
	}
	return parseKernel(k)
}

// lookup returns what finds the symbol at or before an address, and the distance: of the kernel, or, at the moment
// when it is asked, of a module that a guest has there, in the first of the machines that has one.
func (k *kernel) lookup(machines ...*vmm.Machine) func(addr uint64) (name string, offset uint64, ok bool) {
	modules := k.moduleNames()
	return func(addr uint64) (name string, offset uint64, ok bool) {
		if k.symbols == nil {
			return "", 0, false
		}
		if name, offset, ok = k.symbols.Lookup(addr); ok || addr>>63 == 0 {
			return name, offset, ok
		}
		if names := modules(); names != nil {
			for _, m := range machines {
				if name, offset, ok = names.Lookup(m.CPUs[0], addr); ok {
					return name, offset, ok
				}
			}
		}
		return "", 0, false
	}
}

// nameOf is lookup as text, symbol+0xoffset, or "".
func (k *kernel) nameOf(machines ...*vmm.Machine) func(addr uint64) string {
	lookup := k.lookup(machines...)
	return func(addr uint64) string {
		name, offset, ok := lookup(addr)
		if !ok || offset == 0 {
			return name
		}
		return fmt.Sprintf("%s+%#x", name, offset)
	}
}

// guest returns what knows the guest's processes and modules, or nil.
func (k *kernel) guest() injectors.Guest {
	if k.symbols == nil {
		return nil
	}
	known, err := k.linux()
	if err != nil {
		return nil
	}
	return known
}

// scope is where names of symbols are looked for: in the kernel, and then in modules.
type scope struct {
	*ksym.Table
	modules func() (modules, error)
}

// modules are names of modules: by symbol, those that have it, the one that was loaded last first.
type modules map[string][]string

// has reports whether any symbol of a module is known.
func (m modules) has(module string) bool {
	for _, in := range m {
		if slices.Contains(in, module) {
			return true
		}
	}
	return false
}

// Modules implements injectors.ModuleSymbols.
func (s scope) Modules(symbol string) ([]string, error) {
	all, err := s.modules()
	return all[symbol], err
}

// Near implements injectors.Symbols.
func (s scope) Near(name string, n int) []string {
	all, err := s.modules()
	if err != nil {
		all = nil
	}
	return ksym.Near(name, slices.Values(slices.Concat(s.Table.Near(name, n), ksym.Near(name, maps.Keys(all), n))), n)
}

// now is the scope of the kernel and of the modules that a machine has at this moment.
func (k *kernel) now(m *vmm.Machine) injectors.Symbols {
	if k.symbols == nil {
		return nil
	}
	return scope{k.symbols, func() (modules, error) { return k.moduleSymbols(m), nil }}
}

// moduleSymbols returns the symbols of a machine's modules at this moment.
func (k *kernel) moduleSymbols(m *vmm.Machine) modules {
	g := k.guest()
	if g == nil {
		return nil
	}
	all := modules{}
	c := m.CPUs[0]
	for _, mod := range g.Modules(c) {
		for _, s := range g.ModuleSymbols(c, &mod) {
			if in := all[s.Name]; len(in) == 0 || in[len(in)-1] != mod.Name {
				all[s.Name] = append(in, mod.Name)
			}
		}
	}
	return all
}

// names are those of a recording's kernel and of the modules that its guest loads, read when they are needed.
type names struct {
	kernel func() (*kernel, error)
	atEnd  func() (modules, error) // of those that are loaded where the recording ends
}

func (a *app) names(ctx context.Context, p *replay.Player) *names {
	n := &names{kernel: sync.OnceValues(func() (*kernel, error) {
		k, err := readKernel(p.Manifest)
		if err != nil {
			return nil, fmt.Errorf("reading the kernel's symbols: %w", err)
		}
		return k, nil
	})}
	n.atEnd = sync.OnceValues(func() (modules, error) {
		k, err := n.kernel()
		if err != nil {
			return nil, err
		}
		if k.guest() == nil {
			return nil, nil
		}
		q, err := a.open(p.Dir) // p may be in use, and stays where it is
		if err != nil {
			return nil, err
		}
		defer q.Close()
		defer withCancel(ctx, q.Interrupt)()
		if err := q.Seek(q.End()); err != nil {
			return nil, err
		}
		return k.moduleSymbols(q.Machine()), nil
	})
	return n
}

// scope is that of the kernel and of the modules that are loaded where the recording ends.
func (n *names) scope() (injectors.Symbols, error) {
	k, err := n.kernel()
	if err != nil || k.symbols == nil {
		return nil, err
	}
	return scope{k.symbols, n.atEnd}, nil
}

// location finds a symbol, for conditions at any step.
func (n *names) location(name string) (compare.Location, error) {
	e, err := injectors.ParseExpr(name)
	if err != nil {
		return nil, err
	}
	s, err := n.scope()
	if err != nil {
		return nil, err
	}
	var g injectors.Guest
	if e.Beyond(s) {
		k, _ := n.kernel()
		g = k.guest()
	}
	if err := e.Bind(s, g); err != nil {
		return nil, err
	}
	if e.Module != "" {
		all, err := n.atEnd()
		if err != nil {
			return nil, err
		}
		if all.has(e.Module) && !slices.Contains(all[e.Symbol], e.Module) {
			return nil, fmt.Errorf("module %s has no symbol %s where the recording ends", e.Module, e.Symbol)
		}
	}
	return func(c *x86.CPU) (uint64, bool) {
		if e.Module == "" {
			return e.Addr, true
		}
		at := e // several ask at the same time
		place, _, _ := at.Locate(c, g)
		return at.Addr, place != nil
	}, nil
}

// nameOf is that of the kernel; one that cannot be read names nothing.
func (n *names) nameOf(machines ...*vmm.Machine) func(addr uint64) string {
	k, err := n.kernel()
	if err != nil {
		k = new(kernel)
	}
	return k.nameOf(machines...)
}

// moduleNames returns what knows the modules of a guest when it is needed for the first time, or nil for one that is not understood.
func (k *kernel) moduleNames() func() *linux.Names {
	return sync.OnceValue(func() *linux.Names {
		if k.linux == nil {
			return nil
		}
		known, err := k.linux()
		if err != nil {
			return nil
		}
		return linux.NewNames(known)
	})
}

// withModules returns the kernel's symbols with those of the modules that a guest has at this moment.
func (k *kernel) withModules(m *vmm.Machine) *ksym.Table {
	if names := k.moduleNames()(); names != nil {
		return k.symbols.With(names.Symbols(m.CPUs[0]))
	}
	return k.symbols
}

// kernelFile reads a recording's kernel, if its file is still there and the same; nil where it is in no file.
func kernelFile(m *traces.Manifest) ([]byte, error) {
	if m.Kernel == nil {
		return nil, nil
	}
	k, err := os.ReadFile(m.Kernel.Path)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(k); hex.EncodeToString(sum[:]) != m.Kernel.SHA256 {
		return nil, errors.New(m.Kernel.Path + " is not the recorded kernel any more")
	}
	return k, nil
}

// kernelOrNot is readKernel where names are a convenience only.
func kernelOrNot(m *traces.Manifest) *kernel {
	k, err := readKernel(m)
	if err != nil {
		return new(kernel)
	}
	return k
}

// address reads a number or a symbol, of the kernel or of a module that a machine has at this moment.
func (n *names) address(m *vmm.Machine, s string) (uint64, error) {
	e, err := injectors.ParseExpr(s)
	if err != nil || e.Symbol == "" {
		return e.Addr, err
	}
	k, err := n.kernel()
	if err != nil {
		return 0, err
	}
	if err := e.Bind(k.now(m), k.guest()); err != nil || e.Module == "" {
		return e.Addr, err
	}
	if at, missing, _ := e.Locate(m.CPUs[0], k.guest()); at == nil {
		return 0, fmt.Errorf("%s at step %d", missing, m.Step())
	}
	return e.Addr, nil
}
