package injectors

import (
	"fmt"

	"refault/vmm"
	"refault/vmm/x86"
)

var regKind = Kind{
	Name:   "reg",
	Doc:    "bits of a register change",
	Sees:   "the wrong value, when it reads it",
	Source: "fault-injection literature: single- and multi-bit upsets in the register file, stuck bits",
	Keys: concat([]Key{
		{Name: "name", Doc: "the register: rax … r15, rip, rflags, cr3, fs.base, lstar, xmm0, st0, mxcsr, …", Needed: true, Text: true},
	}, bitKeys, []Key{opKey}, stuckKeys, []Key{cpuKey}),
	Lasts: func(a Args) bool { return a.Text("stuck") == "yes" },
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		n, err := cpu(m, a, "reg")
		if err != nil {
			return nil, err
		}
		r, ok := x86.LookupRegister(a.Text("name"))
		if !ok {
			var names []string
			for _, r := range x86.Registers() {
				names = append(names, r.Name)
			}
			return nil, fmt.Errorf("reg: no register %q%s (dump --at STEP regs lists them): %w", a.Text("name"), didYouMean(a.Text("name"), names), ErrSpec)
		}
		bits, err := pattern(a, "reg")
		if err != nil {
			return nil, err
		}
		if len(bits) > r.Size {
			return nil, fmt.Errorf("reg: %s has %d bits: %w", r.Name, 8*r.Size, ErrSpec)
		}
		old := r.Read(m.CPUs[n])
		if a.Text("stuck") == "yes" {
			for len(bits) < r.Size && a.Text("op") != opWrite {
				bits = append(bits, 0)
			}
			mask, value := held(a.Text("op"), old, bits)
			for len(mask) < r.Size {
				mask, value = append(mask, 0), append(value, 0)
			}
			d := vmm.Defect{Kind: vmm.DefectRegister, CPU: n, Register: r.Name, Mask: mask, Value: value}
			if k := a.Uint("for"); k > 0 {
				d.UntilStep = m.Step() + k
			}
			return defect(d), nil
		}
		if a.Has("for") {
			return nil, fmt.Errorf("reg: key for goes with stuck=yes: %w", ErrSpec)
		}
		return one(&vmm.Fault{Kind: vmm.FaultRegister, CPU: n, Register: r.Name, Mask: apply(a.Text("op"), old, bits)}), nil
	},
}
