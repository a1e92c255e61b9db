package injectors

import (
	"encoding/binary"
	"fmt"

	"refault/vmm"
)

// pteLevels are the levels of 4-level paging, by the names that Linux gives them.
var pteLevels = []string{"pte", "pmd", "pud", "pgd"}

// pteBits are bits of a page-table entry (SDM Vol. 3A 4.5).
var pteBits = map[string]uint64{
	"present": 1 << 0, "write": 1 << 1, "user": 1 << 2, "pwt": 1 << 3, "pcd": 1 << 4, "accessed": 1 << 5, "dirty": 1 << 6,
	"large": 1 << 7, "global": 1 << 8, "nx": 1 << 63,
}

var pteKind = Kind{
	Name:   "pte",
	Doc:    "bits of the page-table entry that maps an address change",
	Sees:   "page faults, wrong permissions, or another page of memory",
	Source: "SDM Vol. 3A 4.5; fault-injection literature",
	Keys: concat(placeKeys[1:], []Key{
		{Name: "level", Doc: "of the entry", Default: "pte", Values: pteLevels},
		{Name: "flag", Doc: "the bit, by name", Values: []string{"present", "write", "user", "pwt", "pcd", "accessed", "dirty", "large", "global", "nx"}},
	}, bitKeys, []Key{opKey}),
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		c, va := m.CPUs[0], a.Uint("vaddr")
		if !c.LongMode() {
			return nil, fmt.Errorf("pte: the processor is not in 64-bit mode at step %d: %w", m.Step(), ErrSpec)
		}
		if !a.Has("vaddr") {
			return nil, fmt.Errorf("pte: needs key vaddr: %w", ErrSpec)
		}
		cr3, err := space(m, a, "pte")
		if err != nil {
			return nil, err
		}
		lvl := 1
		for i, name := range pteLevels {
			if name == a.Text("level") {
				lvl = i + 1
			}
		}
		pa, ok := c.TableEntry(cr3, va, lvl)
		if !ok {
			return nil, fmt.Errorf("pte: the tables at step %d have no %s for %#x (a large page, or nothing): %w", m.Step(), a.Text("level"), va, ErrSpec)
		}
		var bits []byte
		if a.Has("flag") {
			if a.Has("bit") || a.Has("mask") || a.Has("data") {
				return nil, fmt.Errorf("pte: give one of flag, bit, mask and data: %w", ErrSpec)
			}
			bits = binary.LittleEndian.AppendUint64(nil, pteBits[a.Text("flag")])
		} else {
			if bits, err = pattern(a, "pte"); err != nil {
				return nil, err
			}
			if len(bits) > 8 {
				return nil, fmt.Errorf("pte: an entry has 64 bits: %w", ErrSpec)
			}
		}
		old := make([]byte, len(bits))
		if !m.RAM.ReadAt(old, pa) {
			return nil, outsideRAM(m, "pte", pa)
		}
		return one(&vmm.Fault{Kind: vmm.FaultMemory, Addr: pa, Mask: apply(a.Text("op"), old, bits)}), nil
	},
}
