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
	Keys: concat(placeKeys, bitKeys, []Key{opKey}, stuckKeys, []Key{
		{Name: "track", Doc: "yes: tell whether they are consumed first, and by whom, or overwritten", Values: []string{"yes", "no"}, Default: "no"},
	}),
	Lasts: func(a Args) bool { return a.Text("stuck") == "yes" },
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
		flip := &vmm.Fault{Kind: vmm.FaultMemory, Addr: addr, Mask: apply(a.Text("op"), old, bits)}
		if a.Text("track") != "yes" {
			return one(flip), nil
		}
		return []*vmm.Fault{flip, {Kind: vmm.FaultDefect, Defect: tracked(flip)}}, nil
	},
}

// tracked is a defect that tells what becomes of the bytes that a fault changes, and does nothing else.
func tracked(f *vmm.Fault) *vmm.Defect {
	first := f.Addr & 7 // the bitmap begins at an address whose bits fill bytes
	d := &vmm.Defect{Kind: vmm.DefectPoison, Addr: f.Addr - first, Bank: -1, Grain: 1, By: vmm.ByAll, Silent: true, Remaining: 1}
	d.Bad = make([]byte, (first+uint64(len(f.Mask))+7)/8)
	for i, m := range f.Mask {
		if at := first + uint64(i); m != 0 {
			d.Bad[at/8] |= 1 << (at % 8)
		}
	}
	return d
}
