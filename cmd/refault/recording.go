package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"

	"refault/compare"
	"refault/replay"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/boot"
	"refault/vmm/ksym"
	"refault/vmm/linux"
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

// nameOf returns what names addresses of the kernel and, at the moment when it is asked, of the modules of
// a guest, in the first machine that has one there.
func (k *kernel) nameOf(machines ...*vmm.Machine) func(addr uint64) string {
	modules := k.modules()
	return func(addr uint64) string {
		if s := k.symbols.Name(addr); s != "" || addr>>63 == 0 {
			return s
		}
		if names := modules(); names != nil {
			for _, m := range machines {
				if s := names.Name(m.CPUs[0], addr); s != "" {
					return s
				}
			}
		}
		return ""
	}
}

// modules returns what knows the modules of a guest when it is needed for the first time, or nil for one that is not understood.
func (k *kernel) modules() func() *linux.Names {
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
	if names := k.modules()(); names != nil {
		return k.symbols.With(names.Symbols(m.CPUs[0]))
	}
	return k.symbols
}

// symbols reads the symbols of a recording's kernel.
func symbols(m *traces.Manifest) (*ksym.Table, error) { return symbolsOf(readKernel(m)) }

func symbolsOf(k *kernel, err error) (*ksym.Table, error) {
	if err != nil {
		return nil, err
	}
	return k.symbols, nil
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

// compareOptions are the names that the kernel of two recordings gives to things, where it has any.
func compareOptions(golden, faulty *replay.Player) compare.Options {
	k := kernelOrNot(golden.Manifest)
	if k.symbols == nil {
		return compare.Options{}
	}
	known, err := k.linux()
	if err != nil {
		known = nil // then processes, files and modules are not known
	}
	return compare.Options{Symbols: k.nameOf(golden.Machine(), faulty.Machine()), Owner: compare.NewOwners(k.symbols, known).Owner}
}

// kernelOrNot is readKernel where names are a convenience only.
func kernelOrNot(m *traces.Manifest) *kernel {
	k, err := readKernel(m)
	if err != nil {
		return new(kernel)
	}
	return k
}

// open opens a recording, to be played with the engine that was asked for.
func (a *app) open(dir string) (*replay.Player, error) {
	p, err := replay.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := p.Machine().SetEngine(vmm.Engine(a.engine)); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// measured opens a recording whose replay is to be measured.
func (a *app) measured(dir string, m *measureFlags) (*replay.Player, error) {
	if err := m.check(a.engine); err != nil {
		return nil, err
	}
	p, err := a.open(dir)
	if err != nil {
		return nil, err
	}
	if err := m.begin(p.Machine(), func() (*ksym.Table, error) { return symbols(p.Manifest) }); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// seek opens a recording at a step.
func (a *app) seek(dir string, step uint64) (*replay.Player, error) {
	p, err := a.open(dir)
	if err != nil {
		return nil, err
	}
	if err := p.Seek(step); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
