package injectors

import (
	"fmt"

	"refault/vmm"
	"refault/vmm/x86"
)

var regKind = Kind{
	Name:   "reg",
	Doc:    "bits of a register flip",
	Sees:   "the wrong value, when it reads it",
	Source: "fault-injection literature: single- and multi-bit upsets in the register file",
	Keys: []Key{
		{Name: "name", Doc: "the register: rax … r15, rip, rflags, cr3, fs.base, lstar, xmm0, …", Needed: true, Text: true},
		{Name: "bit", Doc: "the bit to flip"},
		{Name: "mask", Doc: "the bits to flip"},
		{Name: "cpu", Doc: "the processor", Default: "0"},
	},
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		r, ok := x86.LookupRegister(a.Text("name"))
		if !ok {
			return nil, fmt.Errorf("reg: no register %q (dump --at STEP regs lists them): %w", a.Text("name"), ErrSpec)
		}
		mask, at, err := flips(a, "reg")
		if err != nil {
			return nil, err
		}
		mask = append(make([]byte, min(at, uint64(r.Size))), mask...)
		if len(mask) > r.Size {
			return nil, fmt.Errorf("reg: %s has %d bits: %w", r.Name, 8*r.Size, ErrSpec)
		}
		return one(&vmm.Fault{Kind: vmm.FaultRegister, CPU: int(min(a.Uint("cpu"), 1<<16)), Register: r.Name, Mask: mask}), nil
	},
}
