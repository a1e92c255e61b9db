package injectors

import (
	"fmt"

	"refault/vmm"
	"refault/vmm/dev/ata"
)

var ataKind = Kind{
	Name:   "ata",
	Doc:    "sectors of a drive, or the drive, fail",
	Sees:   "the error bits of the command, no interrupt at all, or wrong data",
	Source: "ATA8-ACS 6.2; for slow, wrong, dropped, torn and misdirected: field studies of drives",
	Keys: []Key{
		{Name: "error", Doc: "what goes wrong", Needed: true, Values: ata.FaultKinds()},
		{Name: "drive", Doc: "number of the drive, in the order of --disk", Default: "0"},
		{Name: "lba", Doc: "first sector that it covers"},
		{Name: "count", Doc: "how many sectors it covers", Default: "1"},
		{Name: "ops", Doc: "commands that it hits", Values: []string{"read", "write", "rw", "any"}},
		{Name: "times", Doc: "commands that it hits before it is gone; 0: no limit", Default: "0"},
		{Name: "until", Doc: "rewritten: a sector that is written is good again", Values: []string{"rewritten"}},
		{Name: "by", Doc: "how much later it answers (error=slow)", Time: true},
		{Name: "ns", Doc: "the same in nanoseconds"},
		{Name: "offset", Doc: "byte in the sector (error=wrong)", Default: "0"},
		{Name: "mask", Doc: "bits that flip there, as a number (error=wrong)"},
		{Name: "bytes", Doc: "how much of the write arrives (error=torn)"},
		{Name: "target", Doc: "sector that is written instead (error=misdirected)"},
	},
	Lasts: always,
	Resolve: func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
		kind, _ := ata.ParseFaultKind(a.Text("error"))
		n := int(min(a.Uint("drive"), 1<<16))
		d, err := m.Drive(n)
		if err != nil {
			return nil, fmt.Errorf("ata: %w: %w", err, ErrSpec)
		}
		f := ata.Fault{
			Kind: kind, Ops: kind.DefaultOps(), LBA: a.Uint("lba"), Count: a.Uint("count"),
			Remaining: uint32(min(a.Uint("times"), 1<<32-1)), UntilRewritten: a.Has("until"),
			ExtraNs: a.Uint("ns") + uint64(max(a.Ns("by"), 0)), Offset: uint32(min(a.Uint("offset"), 1<<32-1)), Bytes: a.Uint("bytes"), Target: a.Uint("target"),
		}
		switch a.Text("ops") {
		case "read":
			f.Ops = ata.OpRead
		case "write":
			f.Ops = ata.OpWrite
		case "rw":
			f.Ops = ata.OpRead | ata.OpWrite
		case "any":
			f.Ops = ata.OpAny
		}
		f.Every, f.Chance = a.Uint("every"), chance(a)
		size := d.Disk().Sectors()
		switch {
		case !a.Has("lba") && f.Ops&(ata.OpRead|ata.OpWrite) != 0:
			f.LBA, f.Count = 0, size // the whole drive
		case f.Count == 0 || f.LBA >= size || f.Count > size-f.LBA:
			return nil, fmt.Errorf("ata: sectors %d to %d of a drive that has 0 to %d: %w", f.LBA, f.LBA+f.Count-1, size-1, ErrSpec)
		}
		if a.Has("mask") {
			f.Mask = maskBytes(a.Uint("mask"))
		}
		for _, other := range d.Faults() {
			f.ID = max(f.ID, other.ID)
		}
		f.ID++
		return one(&vmm.Fault{Kind: vmm.FaultDisk, Drive: n, Disk: f}), nil
	},
}
