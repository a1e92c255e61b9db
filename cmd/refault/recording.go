package main

import (
	"encoding/json"
	"errors"
	"io"

	"refault/compare"
	"refault/replay"
	"refault/vmm"
)

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
	if err := m.begin(p.Machine(), func() (*kernel, error) { return readKernel(p.Manifest) }); err != nil {
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
