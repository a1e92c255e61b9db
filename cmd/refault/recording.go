package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"

	"refault/compare"
	"refault/replay"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/boot"
	"refault/vmm/ksym"
	"refault/vmm/linux"
)

// symbols reads the symbols of a recording's kernel, if its file is still there and the
// same. Without any, the table is nil, which names nothing.
func symbols(m *traces.Manifest) (*ksym.Table, error) {
	k, err := kernelFile(m)
	if k == nil || err != nil {
		return nil, err
	}
	return kernelSymbols(k)
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

// compareOptions are the names that a recording's kernel gives to things, where it has any.
func compareOptions(m *traces.Manifest) compare.Options {
	k, err := kernelFile(m)
	if k == nil || err != nil {
		return compare.Options{}
	}
	elf, err := boot.Vmlinux(k)
	if err != nil {
		return compare.Options{}
	}
	t, err := ksym.Read(elf)
	if err != nil {
		return compare.Options{}
	}
	known, err := linux.New(elf, t)
	if err != nil {
		known = nil // then processes and files are not known
	}
	return compare.Options{Symbols: t.Name, Owner: compare.NewOwners(t, known).Owner}
}

// kernelSymbols reads the symbols of a kernel. Without any, the table is nil.
func kernelSymbols(k []byte) (*ksym.Table, error) {
	elf, err := boot.Vmlinux(k)
	if err != nil {
		return nil, err
	}
	t, err := ksym.Read(elf)
	if errors.Is(err, ksym.ErrNone) {
		return nil, nil
	}
	return t, err
}

// symbolsOrNot is symbols where they are a convenience only.
func symbolsOrNot(m *traces.Manifest) *ksym.Table {
	t, err := symbols(m)
	if err != nil {
		return nil
	}
	return t
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
