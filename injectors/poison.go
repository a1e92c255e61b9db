package injectors

import (
	"fmt"
	"strings"

	"refault/vmm"
	"refault/vmm/dev/mca"
)

// consumers are who may find poison, by the names that key by takes.
var consumers = []struct {
	name string
	bit  uint16
}{
	{"kernel-load", vmm.ByKernelLoad}, {"user-load", vmm.ByUserLoad}, {"kernel-fetch", vmm.ByKernelFetch}, {"user-fetch", vmm.ByUserFetch},
	{"walk", vmm.ByWalk}, {"dma", vmm.ByDMA}, {"scrubber", vmm.ByScrubber}, {"writeback", vmm.ByWriteBack}, {"any", vmm.ByAll},
}

var poisonKind = Kind{
	Name:   "poison",
	Doc:    "a line or page of memory becomes uncorrectable, which shows when somebody consumes it",
	Sees:   "#MC (SRAR) at the load, page walk or fetch; #MC (SRAO) from scrubber or write-back; CMCI (UCNA) for DMA; nothing if it is overwritten",
	Source: "SDM Vol. 3B 15.6 and 15.9.3; error injectors of hardware vendors",
	Keys: concat(placeKeys, []Key{
		{Name: "size", Doc: "line (64 bytes), page (4096), or a number of bytes", Default: "line", Text: true},
		{Name: "grain", Doc: "bytes that are good or bad together: 64 for ECC of lines, 1 for parity of bytes", Default: "64"},
		{Name: "by", Doc: "who notices, joined by +: " + consumerNames(), Default: "any", Text: true},
		{Name: "scrub", Doc: "the patrol scrubber's speed in bytes a second; it began at address 0 at power-on (default: none)"},
		{Name: "writeback", Doc: "the time after which its line, dirty, leaves the cache (default: it stays)", Time: true},
		{Name: "bank", Doc: "bank that reports (default: the one that fits: 0 fetch, 1 load, 9 cache, 13 memory)"},
		cpuKey,
		{Name: "times", Doc: "how often it is noticed before it is gone; 0: until it is overwritten", Default: "0"},
	}),
	Lasts: always,
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		addr, err := place(m, a, "poison")
		if err != nil {
			return nil, err
		}
		d := vmm.Defect{Kind: vmm.DefectPoison, Addr: addr, Bank: -1, Grain: a.Uint("grain"), ScrubBytesPerS: a.Uint("scrub"), WriteBackNs: uint64(max(a.Ns("writeback"), 0))}
		if d.CPU, err = cpu(m, a, "poison"); err != nil {
			return nil, err
		}
		if d.Grain == 0 || d.Grain&(d.Grain-1) != 0 || d.Grain > 4096 {
			return nil, fmt.Errorf("poison: grain=%s is not a power of two up to 4096: %w", a.Text("grain"), ErrSpec)
		}
		n := uint64(64)
		switch s := a.Text("size"); s {
		case "line":
			d.Addr &^= 63
		case "page":
			d.Addr &^= 4095
			n = 4096
		default:
			if n, err = ParseUint(s); err != nil || n == 0 || n > 1<<22 {
				return nil, fmt.Errorf("poison: size=%s is neither line, page nor a number of bytes up to 4 MiB: %w", s, ErrSpec)
			}
		}
		first := d.Addr & 7 // the bitmap begins at an address whose bits fill bytes
		d.Addr -= first
		d.Bad = make([]byte, (first+n+7)/8)
		for i := first; i < first+n; i++ {
			d.Bad[i/8] |= 1 << (i % 8)
		}
		if !m.RAM.ReadAt(make([]byte, 8*len(d.Bad)), d.Addr) {
			return nil, outsideRAM(m, "poison", addr)
		}
		if d.By, err = parseConsumers(a.Text("by")); err != nil {
			return nil, err
		}
		if a.Has("bank") {
			if d.Bank = int(min(a.Uint("bank"), 1<<16)); d.Bank >= mca.NumBanks {
				return nil, fmt.Errorf("poison: bank %d of %d: %w", d.Bank, mca.NumBanks, ErrSpec)
			}
		}
		if d.By == vmm.ByScrubber && d.ScrubBytesPerS == 0 {
			return nil, fmt.Errorf("poison: by=scrubber needs key scrub: %w", ErrSpec)
		}
		if d.By == vmm.ByWriteBack && d.WriteBackNs == 0 {
			return nil, fmt.Errorf("poison: by=writeback needs key writeback: %w", ErrSpec)
		}
		recurs(m, a, &d)
		return defect(d), nil
	},
}

func consumerNames() string {
	var names []string
	for _, c := range consumers {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

func parseConsumers(s string) (by uint16, err error) {
	for _, name := range strings.Split(s, "+") {
		found := false
		for _, c := range consumers {
			if c.name == name {
				by |= c.bit
				found = true
			}
		}
		if !found {
			return 0, fmt.Errorf("poison: by=%s: nobody is called %q; there are %s: %w", s, name, consumerNames(), ErrSpec)
		}
	}
	return by, nil
}
