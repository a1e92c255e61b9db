package injectors

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"refault/vmm"
)

// What several kinds of fault have in common: where in memory, which bits, how often.

// placeKeys say where in memory.
var placeKeys = []Key{
	{Name: "addr", Doc: "physical address"},
	{Name: "vaddr", Doc: "virtual address or symbol, in the address space that is current at the trigger", Addr: true},
	{Name: "cr3", Doc: "another address space, for vaddr"},
	{Name: "pid", Doc: "or that of a process, by its number (Linux)"},
	{Name: "comm", Doc: "or that of the first process of a name (Linux)", Text: true},
}

// space returns the CR3 of the address space that keys cr3, pid and comm name.
func space(m *vmm.Machine, a Args, kind string) (uint64, error) {
	c := m.CPUs[0]
	n := 0
	for _, k := range []string{"cr3", "pid", "comm"} {
		if a.Has(k) {
			n++
		}
	}
	switch {
	case n > 1:
		return 0, fmt.Errorf("%s: give one of cr3, pid and comm: %w", kind, ErrSpec)
	case n == 0:
		return c.CR3, nil
	case a.Has("cr3"):
		return a.Uint("cr3"), nil
	case a.guest == nil:
		return 0, fmt.Errorf("%s: keys pid and comm need a Linux kernel with symbols and type information (BTF): %w", kind, ErrSpec)
	}
	var names []string
	for _, p := range a.guest.Processes(c) {
		if p.CR3 == 0 {
			continue
		}
		if a.Has("pid") && uint64(p.PID) == a.Uint("pid") || p.Name == a.Text("comm") {
			return p.CR3, nil
		}
		names = append(names, fmt.Sprintf("%s (%d)", p.Name, p.PID))
	}
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return 0, fmt.Errorf("%s: no such process at step %d; there are %s: %w", kind, m.Step(), strings.Join(names, ", "), ErrSpec)
}

// place returns the physical address that the placeKeys name.
func place(m *vmm.Machine, a Args, kind string) (uint64, error) {
	if a.Has("addr") == a.Has("vaddr") {
		return 0, fmt.Errorf("%s: give one of addr and vaddr: %w", kind, ErrSpec)
	}
	if a.Has("addr") {
		return a.Uint("addr"), nil
	}
	va := a.Uint("vaddr")
	cr3, err := space(m, a, kind)
	if err != nil {
		return 0, err
	}
	pa, ok := m.CPUs[0].TranslateIn(cr3, va)
	if !ok {
		return 0, fmt.Errorf("%s: virtual address %#x is not mapped at step %d: %w", kind, va, m.Step(), ErrSpec)
	}
	return pa, nil
}

// bitKeys say which bits.
var bitKeys = []Key{
	{Name: "bit", Doc: "the bit, counted from the address; several as 3+17+64", Text: true},
	{Name: "mask", Doc: "the bits, as a number of up to 64 bits, little-endian"},
	{Name: "data", Doc: "the bits, as bytes in hexadecimal", Text: true},
}

// maxPattern bounds a pattern: what a page holds.
const maxPattern = 4096

// pattern returns the bits that the bitKeys name, from byte 0 on.
func pattern(a Args, kind string) (mask []byte, err error) {
	n := 0
	for _, k := range bitKeys {
		if a.Has(k.Name) {
			n++
		}
	}
	if n != 1 {
		return nil, fmt.Errorf("%s: give one of bit, mask and data: %w", kind, ErrSpec)
	}
	switch {
	case a.Has("mask"):
		if mask = maskBytes(a.Uint("mask")); mask == nil {
			return nil, fmt.Errorf("%s: a mask of zero names no bit: %w", kind, ErrSpec)
		}
	case a.Has("data"):
		if mask, err = hex.DecodeString(a.Text("data")); err != nil || len(mask) == 0 || len(mask) > maxPattern {
			return nil, fmt.Errorf("%s: data=%s is not up to %d bytes in hexadecimal: %w", kind, a.Text("data"), maxPattern, ErrSpec)
		}
	default:
		return patternOf(a.Text("bit"), kind)
	}
	return mask, nil
}

// patternOf returns the bits that a text as 3+17 names.
func patternOf(text, kind string) (mask []byte, err error) {
	for _, s := range strings.Split(text, "+") {
		bit, err := ParseUint(s)
		if err != nil {
			return nil, fmt.Errorf("%s: bit=%s: %w: %w", kind, text, err, ErrSpec)
		}
		if bit >= 8*maxPattern {
			return nil, fmt.Errorf("%s: bit %d is beyond %d bytes: %w", kind, bit, maxPattern, ErrSpec)
		}
		for uint64(len(mask)) <= bit/8 {
			mask = append(mask, 0)
		}
		mask[bit/8] |= 1 << (bit % 8)
	}
	return mask, nil
}

// maskBytes returns a mask's bytes up to its highest bit, little-endian.
func maskBytes(v uint64) (mask []byte) {
	for ; v != 0; v >>= 8 {
		mask = append(mask, byte(v))
	}
	return mask
}

// Operations on bits.
const (
	opFlip  = "flip"
	opSet   = "set"
	opClear = "clear"
	opWrite = "write"
)

var opKey = Key{Name: "op", Doc: "what happens to the bits; write makes the bytes what mask or data say", Default: opFlip,
	Values: []string{opFlip, opSet, opClear, opWrite}}

// apply returns which bits of old an operation with a pattern changes.
func apply(op string, old, pattern []byte) []byte {
	x := make([]byte, len(pattern))
	for i, p := range pattern {
		switch op {
		case opSet:
			x[i] = p &^ old[i]
		case opClear:
			x[i] = p & old[i]
		case opWrite:
			x[i] = p ^ old[i]
		default:
			x[i] = p
		}
	}
	return x
}

// held returns which bits a stuck fault holds, and at what: those that the pattern names, as the operation leaves them.
func held(op string, old, pattern []byte) (mask, value []byte) {
	x := apply(op, old, pattern)
	mask, value = make([]byte, len(pattern)), make([]byte, len(pattern))
	for i := range pattern {
		mask[i], value[i] = pattern[i], old[i]^x[i]
		if op == opWrite {
			mask[i] = 0xff
		}
	}
	return mask, value
}

var stuckKeys = []Key{
	{Name: "stuck", Doc: "yes: the bits stay what they became, whatever is written", Values: []string{"yes", "no"}, Default: "no"},
	{Name: "for", Doc: "so many instructions long (stuck=yes; default: for ever)"},
}

// recurs puts the keys that say how often into a defect.
func recurs(m *vmm.Machine, a Args, d *vmm.Defect) {
	d.Remaining = a.Uint("times")
	if d.Every = a.Uint("every"); d.Every == 1 {
		d.Every = 0
	}
	d.Chance = chance(a)
	if hasKey(a, "for") {
		d.UntilStep = m.Step() + max(a.Uint("for"), 1)
	}
}

// chance returns what key p says, of 2^32; zero is always.
func chance(a Args) uint64 {
	p, err := strconv.ParseFloat(a.Text("p"), 64)
	if err != nil || p >= 1 {
		return 0
	}
	return max(uint64(math.Round(p*(1<<32))), 1)
}

func hasKey(a Args, name string) bool {
	for _, k := range a.kind.keys() {
		if k.Name == name {
			return a.Has(name)
		}
	}
	return false
}

// defect is what Resolve returns of a fault that stays.
func defect(d vmm.Defect) []*vmm.Fault {
	return one(&vmm.Fault{Kind: vmm.FaultDefect, CPU: d.CPU, Defect: &d})
}

func concat(parts ...[]Key) (all []Key) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

var cpuKey = Key{Name: "cpu", Doc: "the processor", Default: "0"}

// cpu returns the processor that key cpu names.
func cpu(m *vmm.Machine, a Args, kind string) (int, error) {
	if n := a.Uint("cpu"); n < uint64(len(m.CPUs)) {
		return int(n), nil
	}
	return 0, fmt.Errorf("%s: processor %d of %d: %w", kind, a.Uint("cpu"), len(m.CPUs), ErrSpec)
}
