package injectors

import (
	"fmt"

	"refault/vmm"
)

var busKind = Kind{
	Name:   "bus",
	Doc:    "accesses of a processor to a device's registers time out, or their data flips",
	Sees:   "ones where it reads, a device that does not do what it was told, wrong data",
	Source: "Injecting Errors for Fun and Profit: timeouts and bus errors",
	Keys: concat([]Key{
		{Name: "port", Doc: "I/O port"},
		{Name: "addr", Doc: "or physical address of a register that is not in RAM"},
		{Name: "len", Doc: "so many ports or addresses from there", Default: "1"},
		{Name: "do", Doc: "timeout: a read gives ones, a write is lost; flip: bits of the data flip", Default: "timeout", Values: []string{"timeout", "flip"}},
		{Name: "ops", Doc: "which accesses", Default: "both", Values: []string{"read", "write", "both"}},
	}, bitKeys, recurKeys),
	Lasts: always,
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		d := vmm.Defect{Kind: vmm.DefectBus, Class: vmm.BusPort, Addr: a.Uint("port"), Grain: a.Uint("len"), Skip: a.Uint("skip")}
		most := uint64(0x10000)
		if a.Has("port") == a.Has("addr") {
			return nil, fmt.Errorf("bus: give one of port and addr: %w", ErrSpec)
		}
		if a.Has("addr") {
			d.Class, d.Addr, most = vmm.BusMemory, a.Uint("addr"), 1<<40
			if _, ram := m.RAM.Offset(d.Addr); ram {
				return nil, fmt.Errorf("bus: physical address %#x is in RAM; mem, poison and ecc are for that: %w", d.Addr, ErrSpec)
			}
		}
		if d.Grain == 0 || d.Addr >= most || d.Grain > most-d.Addr {
			return nil, fmt.Errorf("bus: %d from %#x; there is nothing from %#x on: %w", d.Grain, d.Addr, most, ErrSpec)
		}
		d.By = map[string]uint16{"read": vmm.ByBusRead, "write": vmm.ByBusWrite, "both": vmm.ByBusRead | vmm.ByBusWrite}[a.Text("ops")]
		if a.Text("do") == "flip" {
			var err error
			if d.Mask, err = pattern(a, "bus"); err != nil {
				return nil, err
			}
			if uint64(len(d.Mask)) > min(d.Grain, 64) {
				return nil, fmt.Errorf("bus: the bits take %d bytes, of %d: give key len: %w", len(d.Mask), d.Grain, ErrSpec)
			}
		} else if a.Has("bit") || a.Has("mask") || a.Has("data") {
			return nil, fmt.Errorf("bus: bits go with do=flip: %w", ErrSpec)
		}
		recurs(m, a, &d)
		return defect(d), nil
	},
}
