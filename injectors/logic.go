package injectors

import (
	"fmt"

	"refault/vmm"
)

// recurKeys say when a defect of the processor shows, and how long it lasts.
var recurKeys = []Key{
	{Name: "skip", Doc: "so many occasions pass before the first", Default: "0"},
	{Name: "for", Doc: "so many instructions long (default: without limit)"},
}

var levelKey = Key{Name: "level", Doc: "privilege of the code that it hits", Values: []string{"user", "kernel"}}

func level(a Args) uint16 {
	switch a.Text("level") {
	case "user":
		return vmm.ByUserFetch
	case "kernel":
		return vmm.ByKernelFetch
	}
	return 0
}

func logicNames() (names []string) {
	for _, c := range vmm.LogicClasses() {
		names = append(names, c.Name)
	}
	return names
}

var aluKind = Kind{
	Name:   "alu",
	Doc:    "a unit of the processor gives wrong results",
	Sees:   "wrong values, and flags that follow from them",
	Source: "fault-injection literature: errors in processor logic",
	Keys: concat([]Key{
		{Name: "unit", Doc: "whose results are wrong", Default: "add", Values: logicNames()},
	}, bitKeys, []Key{levelKey}, recurKeys, []Key{cpuKey}),
	Lasts: always,
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		d := vmm.Defect{Kind: vmm.DefectLogic, Class: a.Text("unit"), By: level(a), Skip: a.Uint("skip")}
		var err error
		if d.CPU, err = cpu(m, a, "alu"); err != nil {
			return nil, err
		}
		if d.Mask, err = pattern(a, "alu"); err != nil {
			return nil, err
		}
		if len(d.Mask) > 16 {
			return nil, fmt.Errorf("alu: no result has %d bytes: %w", len(d.Mask), ErrSpec)
		}
		recurs(m, a, &d)
		return defect(d), nil
	},
}

var opcodeKind = Kind{
	Name:   "opcode",
	Doc:    "bits of an instruction flip between memory and decoder",
	Sees:   "another instruction than memory holds, or #UD",
	Source: "fault-injection literature: errors of instruction fetch and decoding",
	Keys: concat([]Key{
		{Name: "vaddr", Doc: "virtual address or symbol (default: the next instruction at the trigger)", Addr: true},
	}, bitKeys, recurKeys, []Key{cpuKey}),
	Lasts: always,
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		d := vmm.Defect{Kind: vmm.DefectFetch, Addr: a.Uint("vaddr"), Skip: a.Uint("skip")}
		var err error
		if d.CPU, err = cpu(m, a, "opcode"); err != nil {
			return nil, err
		}
		if !a.Has("vaddr") {
			d.Addr = m.CPUs[d.CPU].LinearRIP()
		}
		if d.Mask, err = pattern(a, "opcode"); err != nil {
			return nil, err
		}
		if len(d.Mask) > 15 {
			return nil, fmt.Errorf("opcode: an instruction has up to 15 bytes, not %d: %w", len(d.Mask), ErrSpec)
		}
		if a.Text("p") != "1" {
			return nil, fmt.Errorf("opcode: key p is not possible, since bytes are decoded before it is certain that they are executed; use every: %w", ErrSpec)
		}
		recurs(m, a, &d)
		return defect(d), nil
	},
}
