package injectors

import (
	"fmt"

	"refault/vmm"
	"refault/vmm/dev/lapic"
)

var irqKind = Kind{
	Name:   "irq",
	Doc:    "interrupts get lost, come late, or come though nobody sent them",
	Sees:   "a device that seems silent or slow; an interrupt that no device claims",
	Source: "field experience with interrupt routing",
	Keys: concat([]Key{
		{Name: "do", Doc: "what goes wrong", Needed: true, Values: []string{"lose", "delay", "spurious"}},
		{Name: "vector", Doc: "interrupt vector, as the local APIC sees it"},
		{Name: "line", Doc: "input of the I/O APIC (ISA interrupt; 2 for the 8254), whose vector counts at the trigger"},
		{Name: "source", Doc: "or an interrupt of the local APIC itself", Values: []string{"timer", "cmci", "error"}},
		{Name: "by", Doc: "how late (do=delay)", Time: true},
		{Name: "skip", Doc: "so many pass before the first", Default: "0"},
		{Name: "for", Doc: "so many instructions long (default: without limit)"},
		cpuKey,
	}),
	Lasts: func(a Args) bool { return a.Text("do") != "spurious" },
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		n, err := cpu(m, a, "irq")
		if err != nil {
			return nil, err
		}
		vector, err := vectorOf(m, a, n)
		if err != nil {
			return nil, err
		}
		if a.Text("do") == "spurious" {
			return one(&vmm.Fault{Kind: vmm.FaultInterrupt, CPU: n, Vector: vector}), nil
		}
		d := vmm.Defect{Kind: vmm.DefectInterrupt, CPU: n, Vector: vector, Skip: a.Uint("skip")}
		if a.Text("do") == "delay" {
			if d.DelayNs = uint64(a.Ns("by")); a.Ns("by") <= 0 || d.DelayNs > 1<<60 {
				return nil, fmt.Errorf("irq: do=delay needs key by, a time as 5ms: %w", ErrSpec)
			}
		}
		recurs(m, a, &d)
		return defect(d), nil
	},
}

// vectorOf returns the vector that the keys name.
func vectorOf(m *vmm.Machine, a Args, cpu int) (uint8, error) {
	given := 0
	for _, k := range []string{"vector", "line", "source"} {
		if a.Has(k) {
			given++
		}
	}
	if given != 1 {
		return 0, fmt.Errorf("irq: give one of vector, line and source: %w", ErrSpec)
	}
	var v uint8
	var ok bool
	switch {
	case a.Has("vector"):
		if a.Uint("vector") > 255 || a.Uint("vector") < 16 {
			return 0, fmt.Errorf("irq: vector %s; a local APIC takes 16 to 255: %w", a.Text("vector"), ErrSpec)
		}
		return uint8(a.Uint("vector")), nil
	case a.Has("line"):
		v, ok = m.LineVector(int(min(a.Uint("line"), 1<<16)))
	default:
		lvt := map[string]int{"timer": lapic.LVTTimer, "cmci": lapic.LVTCMCI, "error": lapic.LVTError}[a.Text("source")]
		v, ok = m.LocalVector(cpu, lvt)
	}
	if !ok || v < 16 {
		return 0, fmt.Errorf("irq: the guest has not set that interrupt up at step %d: %w", m.Step(), ErrSpec)
	}
	return v, nil
}

var clockKind = Kind{
	Name:   "clock",
	Doc:    "a clock jumps",
	Sees:   "time that passed without it, or a time-stamp counter that went back",
	Source: "field experience with unstable time-stamp counters",
	Keys: []Key{
		{Name: "of", Doc: "the clock: tsc, or time, which is all of them at once and only goes forward", Default: vmm.ClockTSC, Values: []string{vmm.ClockTSC, vmm.ClockTime}},
		{Name: "by", Doc: "by how much, as 5ms or -200us", Needed: true, Time: true},
	},
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		if a.Ns("by") == 0 || a.Text("of") == vmm.ClockTime && a.Ns("by") < 0 {
			return nil, fmt.Errorf("clock: of=%s cannot jump by %s: %w", a.Text("of"), a.Text("by"), ErrSpec)
		}
		return one(&vmm.Fault{Kind: vmm.FaultClock, Clock: a.Text("of"), DeltaNs: uint64(a.Ns("by"))}), nil
	},
}
