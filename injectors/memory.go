package injectors

import (
	"fmt"

	"refault/vmm"
)

var memKind = Kind{
	Name:   "mem",
	Doc:    "bits of memory flip, and nothing notices",
	Sees:   "the wrong value, when it reads it",
	Source: "fault-injection literature: single- and multi-bit upsets",
	Keys: []Key{
		{Name: "addr", Doc: "physical address"},
		{Name: "vaddr", Doc: "virtual address, in the address space that is current at the trigger", Addr: true},
		{Name: "bit", Doc: "the bit to flip, counted from the address", Default: ""},
		{Name: "mask", Doc: "the bits to flip, as a number of up to 64 bits, little-endian from the address"},
	},
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		f := &vmm.Fault{Kind: vmm.FaultMemory, Addr: a.Uint("addr")}
		switch {
		case a.Has("addr") == a.Has("vaddr"):
			return nil, fmt.Errorf("mem: give one of addr and vaddr: %w", ErrSpec)
		case a.Has("vaddr"):
			pa, ok := m.CPUs[0].Translate(a.Uint("vaddr"))
			if !ok {
				return nil, fmt.Errorf("mem: virtual address %#x is not mapped at step %d: %w", a.Uint("vaddr"), m.Step(), ErrSpec)
			}
			f.Addr = pa
		}
		mask, at, err := flips(a, "mem")
		if err != nil {
			return nil, err
		}
		f.Addr += at
		f.Mask = mask
		if !m.RAM.ReadAt(make([]byte, len(mask)), f.Addr) {
			return nil, outsideRAM(m, "mem", f.Addr)
		}
		return one(f), nil
	},
}

// flips returns the XOR mask that keys bit and mask ask for, and the byte at which it begins.
func flips(a Args, kind string) (mask []byte, at uint64, err error) {
	switch {
	case a.Has("bit") == a.Has("mask"):
		return nil, 0, fmt.Errorf("%s: give one of bit and mask: %w", kind, ErrSpec)
	case a.Has("bit"):
		bit := a.Uint("bit")
		return []byte{1 << (bit % 8)}, bit / 8, nil
	}
	if mask = maskBytes(a.Uint("mask")); mask == nil {
		return nil, 0, fmt.Errorf("%s: a mask of zero flips nothing: %w", kind, ErrSpec)
	}
	return mask, 0, nil
}

// maskBytes returns a mask's bytes up to its highest bit, little-endian.
func maskBytes(v uint64) (mask []byte) {
	for ; v != 0; v >>= 8 {
		mask = append(mask, byte(v))
	}
	return mask
}
