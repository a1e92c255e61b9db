package injectors

import (
	"fmt"

	"refault/vmm"
)

var memKind = Kind{
	Name:   "mem",
	Doc:    "bits of memory change, and nothing notices",
	Sees:   "the wrong value, when it reads it",
	Source: "fault-injection literature: single- and multi-bit upsets, stuck cells",
	Keys:   concat(placeKeys, bitKeys, []Key{opKey}, stuckKeys),
	Lasts:  func(a Args) bool { return a.Text("stuck") == "yes" },
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		addr, err := place(m, a, "mem")
		if err != nil {
			return nil, err
		}
		bits, err := pattern(a, "mem")
		if err != nil {
			return nil, err
		}
		at := 0
		for a.Text("op") != opWrite && bits[at] == 0 { // from the first byte that is concerned
			at++
		}
		addr, bits = addr+uint64(at), bits[at:]
		old := make([]byte, len(bits))
		if !m.RAM.ReadAt(old, addr) {
			return nil, outsideRAM(m, "mem", addr)
		}
		if a.Text("stuck") == "yes" {
			mask, value := held(a.Text("op"), old, bits)
			d := vmm.Defect{Kind: vmm.DefectStuck, Addr: addr, Mask: mask, Value: value}
			if n := a.Uint("for"); n > 0 {
				d.UntilStep = m.Step() + n
			}
			return defect(d), nil
		}
		if a.Has("for") {
			return nil, fmt.Errorf("mem: key for goes with stuck=yes: %w", ErrSpec)
		}
		return one(&vmm.Fault{Kind: vmm.FaultMemory, Addr: addr, Mask: apply(a.Text("op"), old, bits)}), nil
	},
}
