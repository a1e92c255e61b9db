// Package debugexit is the port by which a test kernel ends the machine and says
// how it went, as QEMU's isa-debug-exit device has it: a guest that writes v ends
// the run with status 2v+1, so that no status that a guest writes is zero.
package debugexit

import (
	"fmt"

	"refault/vmm/dev"
)

// Base is the first of NumPorts ports.
const (
	Base     = 0xf4
	NumPorts = 4
)

// State is the saved state: there is none but the version.
type State struct{ Version uint8 }

// DebugExit is the device.
type DebugExit struct{ exit func(status uint32) }

var (
	_ dev.Device = (*DebugExit)(nil)
	_ dev.Ports  = (*DebugExit)(nil)
)

// New returns a device that calls exit with the status.
func New(exit func(status uint32)) *DebugExit { return &DebugExit{exit} }

// In implements dev.Ports: QEMU's device reads as zero.
func (d *DebugExit) In(uint16, int) uint32 { return 0 }

// Out implements dev.Ports. A write to any of the ports counts.
func (d *DebugExit) Out(_ uint16, size int, v uint32) {
	d.exit(uint32(uint64(v)&(1<<(8*size)-1))<<1 | 1)
}

// Name implements dev.Device.
func (d *DebugExit) Name() string { return "debugexit" }

// Reset implements dev.Device.
func (d *DebugExit) Reset() {}

// Save implements dev.Device.
func (d *DebugExit) Save() any { return &State{Version: 1} }

// Restore implements dev.Device.
func (d *DebugExit) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	return nil
}
