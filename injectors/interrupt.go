package injectors

import (
	"fmt"
	"strings"

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
		{Name: "line", Doc: "or input of the I/O APIC, whose vector at the trigger counts: a number, or " + pinNames("ioapic"), Text: true},
		{Name: "pic", Doc: "or input of the 8259s, where it goes wrong itself, of a guest that uses them (Linux with noapic): a number, or " + pinNames("pic") + "; spurious on 7 or 15: a request that goes away before it is acknowledged", Text: true},
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
		vector, pic, err := vectorOf(m, a, n)
		if err != nil {
			return nil, err
		}
		if a.Text("do") == "spurious" {
			return one(&vmm.Fault{Kind: vmm.FaultInterrupt, CPU: n, Vector: vector, PIC: pic}), nil
		}
		d := vmm.Defect{Kind: vmm.DefectInterrupt, CPU: n, Vector: vector, PIC: pic, Skip: a.Uint("skip")}
		if a.Text("do") == "delay" {
			if d.DelayNs = uint64(a.Ns("by")); a.Ns("by") <= 0 || d.DelayNs > 1<<60 {
				return nil, fmt.Errorf("irq: do=delay needs key by, a time as 5ms: %w", ErrSpec)
			}
		}
		recurs(m, a, &d)
		return defect(d), nil
	},
}

// pins are the devices that have an interrupt line of their own, and where it leads.
var pins = []struct {
	name        string
	pic, ioapic uint64
}{{"pit", 0, 2}, {"keyboard", 1, 1}, {"com1", 4, 4}, {"rtc", 8, 8}, {"acpi", 9, 9}, {"ata0", 14, 14}, {"ata1", 15, 15}}

// pinNames lists the devices, and which input each has.
func pinNames(of string) string {
	var s []string
	for _, p := range pins {
		n := p.pic
		if of == "ioapic" {
			n = p.ioapic
		}
		s = append(s, fmt.Sprintf("%s (%d)", p.name, n))
	}
	return strings.Join(s, ", ")
}

// pin returns the input that a key names.
func pin(a Args, key string) (uint64, error) {
	text := a.Text(key)
	var names []string
	for _, p := range pins {
		if p.name == text && key == "pic" {
			return p.pic, nil
		} else if p.name == text {
			return p.ioapic, nil
		}
		names = append(names, p.name)
	}
	n, err := ParseUint(text)
	if err != nil {
		return 0, fmt.Errorf("irq: %s=%s is neither a number nor one of %s: %w", key, text, strings.Join(names, ", "), ErrSpec)
	}
	return n, nil
}

// vectorOf returns the vector that the keys name, or the input of the 8259s.
func vectorOf(m *vmm.Machine, a Args, cpu int) (vector uint8, pic bool, err error) {
	given := 0
	for _, k := range []string{"vector", "line", "pic", "source"} {
		if a.Has(k) {
			given++
		}
	}
	if given != 1 {
		return 0, false, fmt.Errorf("irq: give one of vector, line, pic and source: %w", ErrSpec)
	}
	var ok bool
	switch {
	case a.Has("vector"):
		if a.Uint("vector") > 255 || a.Uint("vector") < 16 {
			return 0, false, fmt.Errorf("irq: vector %s; a local APIC takes 16 to 255: %w", a.Text("vector"), ErrSpec)
		}
		return uint8(a.Uint("vector")), false, nil
	case a.Has("pic"):
		n, err := pin(a, "pic")
		if err != nil {
			return 0, false, err
		}
		if n > 15 || n == 2 {
			return 0, false, fmt.Errorf("irq: pic=%d; devices have inputs 0 to 15 but 2, at which the second controller is: %w", n, ErrSpec)
		}
		if !m.PICInput(int(n), a.Text("do") == "spurious") {
			return 0, false, fmt.Errorf("irq: the guest takes no interrupts from input %d of the 8259s at step %d (Linux does with noapic on its command line): %w", n, m.Step(), ErrSpec)
		}
		return uint8(n), true, nil
	case a.Has("line"):
		n, err := pin(a, "line")
		if err != nil {
			return 0, false, err
		}
		vector, ok = m.LineVector(int(min(n, 1<<16)))
	default:
		lvt := map[string]int{"timer": lapic.LVTTimer, "cmci": lapic.LVTCMCI, "error": lapic.LVTError}[a.Text("source")]
		vector, ok = m.LocalVector(cpu, lvt)
	}
	if !ok || vector < 16 {
		return 0, false, fmt.Errorf("irq: the guest has not set that interrupt up at step %d: %w", m.Step(), ErrSpec)
	}
	return vector, false, nil
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
