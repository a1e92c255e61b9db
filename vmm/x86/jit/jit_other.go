//go:build !(linux && amd64)

package jit

import (
	"refault/vmm/x86"
	"refault/vmm/x86/interp"
)

// Engine does not exist on this host.
type Engine struct{}

// New returns ErrHost.
func New(*x86.CPU, *interp.Engine) (*Engine, error) { return nil, ErrHost }

// Run is not reached.
func (*Engine) Run(uint64) {}

// Close does nothing.
func (*Engine) Close() error { return nil }

// Counted returns nothing.
func (*Engine) Counted() *Stats { return new(Stats) }

// SetCodeMap does nothing.
func (*Engine) SetCodeMap(*CodeMap) {}
