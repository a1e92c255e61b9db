package injectors

import (
	"fmt"
	"strings"

	"refault/vmm"
	"refault/vmm/dev/mca"
	"refault/vmm/ecc"
)

var eccKind = Kind{
	Name:   "ecc",
	Doc:    "cells of a word of memory under ECC (SEC-DED, 72 bits for 64) flip",
	Sees:   "one bit: a corrected error (CMCI); two: #MC when it is consumed; three: as the code decides, mostly wrong data with a corrected error",
	Source: "M. Y. Hsiao, IBM J. Res. Dev. 14 (1970); SDM Vol. 3B 15.9.3",
	Keys: concat(placeKeys, []Key{
		{Name: "bit", Doc: "the cells, as 3+17+64: 0 to 63 are data, 64 to 71 the check bits", Needed: true, Text: true},
		{Name: "hold", Doc: "yes: they flip again after each correction", Values: []string{"yes", "no"}, Default: "no"},
		{Name: "scrub", Doc: "the patrol scrubber's speed in bytes a second; it began at address 0 at power-on (default: none)"},
		{Name: "bank", Doc: "bank that reports (default: 13, the memory controller; 1 and 0 for loads and fetches of what is uncorrectable)"},
		cpuKey,
	}),
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		addr, err := place(m, a, "ecc")
		if err != nil {
			return nil, err
		}
		d := vmm.Defect{Kind: vmm.DefectECC, Addr: addr &^ 7, Bank: -1, Grain: 64, By: vmm.ByAll, Bad: []byte{0xff}, Mask: make([]byte, 9),
			Hold: a.Text("hold") == "yes", ScrubBytesPerS: a.Uint("scrub")}
		if d.CPU, err = cpu(m, a, "ecc"); err != nil {
			return nil, err
		}
		for _, s := range strings.Split(a.Text("bit"), "+") {
			bit, err := ParseUint(s)
			if err != nil || bit >= ecc.Bits {
				return nil, fmt.Errorf("ecc: bit=%s: a word has bits 0 to %d: %w", a.Text("bit"), ecc.Bits-1, ErrSpec)
			}
			if d.Mask[bit/8]>>(bit%8)&1 != 0 {
				return nil, fmt.Errorf("ecc: bit=%s: bit %d is there twice: %w", a.Text("bit"), bit, ErrSpec)
			}
			d.Mask[bit/8] |= 1 << (bit % 8)
		}
		if a.Has("bank") {
			if d.Bank = int(min(a.Uint("bank"), 1<<16)); d.Bank >= mca.NumBanks {
				return nil, fmt.Errorf("ecc: bank %d of %d: %w", d.Bank, mca.NumBanks, ErrSpec)
			}
		}
		if !m.RAM.ReadAt(make([]byte, 8), d.Addr) {
			return nil, outsideRAM(m, "ecc", addr)
		}
		return defect(d), nil
	},
}
