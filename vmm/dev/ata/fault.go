package ata

import (
	"errors"
	"fmt"
	"slices"

	"refault/vmm/dev/disk"
)

// FaultKind is what goes wrong.
type FaultKind uint8

// The kinds of fault. Those up to FaultICRC end a command at the first sector they
// cover; the sectors before it move.
const (
	// FaultUNC is an uncorrectable data error.
	FaultUNC FaultKind = iota + 1
	// FaultIDNF is a sector whose ID field is not found.
	FaultIDNF
	// FaultICRC is a CRC error on the cable. It hits DMA commands in a UDMA mode only.
	FaultICRC
	// FaultABRT aborts the command before any data moves.
	FaultABRT
	// FaultDF is a device fault: the command fails before any data moves.
	FaultDF
	// FaultTimeout leaves the drive busy, without an interrupt, until it is reset.
	FaultTimeout
	// FaultSlow delays the command by ExtraNs.
	FaultSlow
	// FaultWrong changes Mask's bits at byte Offset of each sector on its way.
	FaultWrong
	// FaultDropped acknowledges a write without writing.
	FaultDropped
	// FaultTorn lets only the command's first Bytes bytes reach the medium.
	FaultTorn
	// FaultMisdirected reads or writes Target and the sectors after it instead of LBA and the sectors after it.
	FaultMisdirected
	numFaultKinds
)

// faultKinds tells each kind's name, as fault descriptions write it, and the commands it can hit.
var faultKinds = [numFaultKinds]struct {
	name string
	ops  Ops // the commands it can hit
	def  Ops // those it hits unless told otherwise
	code uint8
}{
	FaultUNC:         {"unc", OpRead | OpWrite, OpRead, errorUNC},
	FaultIDNF:        {"idnf", OpRead | OpWrite, OpRead | OpWrite, errorIDNF},
	FaultICRC:        {"icrc", OpRead | OpWrite, OpRead | OpWrite, errorICRC | errorABRT},
	FaultABRT:        {"abrt", OpAny, OpRead | OpWrite, errorABRT},
	FaultDF:          {"df", OpAny, OpRead | OpWrite, errorABRT},
	FaultTimeout:     {"timeout", OpAny, OpRead | OpWrite, 0},
	FaultSlow:        {"slow", OpAny, OpRead | OpWrite, 0},
	FaultWrong:       {"wrong", OpRead | OpWrite, OpRead, 0},
	FaultDropped:     {"dropped", OpWrite, OpWrite, 0},
	FaultTorn:        {"torn", OpWrite, OpWrite, 0},
	FaultMisdirected: {"misdirected", OpRead | OpWrite, OpWrite, 0},
}

// String returns the name of the kind.
func (k FaultKind) String() string {
	if k == 0 || k >= numFaultKinds {
		return fmt.Sprintf("FaultKind(%d)", uint8(k))
	}
	return faultKinds[k].name
}

// DefaultOps returns the commands that a fault of the kind hits unless it is told otherwise.
func (k FaultKind) DefaultOps() Ops {
	if k >= numFaultKinds {
		return 0
	}
	return faultKinds[k].def
}

// ParseFaultKind is the inverse of String.
func ParseFaultKind(name string) (FaultKind, bool) {
	for k := FaultKind(1); k < numFaultKinds; k++ {
		if faultKinds[k].name == name {
			return k, true
		}
	}
	return 0, false
}

// FaultKinds returns the names of all kinds.
func FaultKinds() []string {
	var names []string
	for _, k := range faultKinds[1:] {
		names = append(names, k.name)
	}
	return names
}

// Ops is a set of classes of commands.
type Ops uint8

// The classes of commands.
const (
	OpRead  Ops = 1 << iota // reads and verifies
	OpWrite                 // writes
	OpFlush                 // cache flushes
	OpOther                 // everything else: IDENTIFY DEVICE, SET FEATURES, …
	OpAny   = OpRead | OpWrite | OpFlush | OpOther
)

// Fault is one thing that is wrong with a drive. It is plain data: an event of a
// recording carries it, and so does the drive's state.
type Fault struct {
	ID   uint64 // names the fault within the drive
	Kind FaultKind
	Ops  Ops
	// LBA and Count are the sectors it covers. It hits reads and writes that touch
	// one of them; commands without sectors it hits wherever it lies.
	LBA, Count uint64
	// Remaining is the number of commands that it will still hit; zero means no limit.
	Remaining uint32
	// UntilRewritten takes a sector out of the fault when the sector is written, as a
	// drive does that remaps it.
	UntilRewritten bool
	Hits           uint64 // commands it has hit
	// Every makes it hit only each n-th of the commands that it could; zero is one. Chance makes it a matter of luck, with a
	// probability of Chance/2^32 (zero: always), drawn from Random, which is the state of a generator (splitmix64).
	Every, Chance, Random uint64
	Occasions             uint64 // commands that it could have hit

	ExtraNs uint64 // FaultSlow
	Offset  uint32 // FaultWrong
	Mask    []byte // FaultWrong
	Bytes   uint64 // FaultTorn
	Target  uint64 // FaultMisdirected
}

func (f Fault) clone() Fault {
	f.Mask = slices.Clone(f.Mask)
	return f
}

// covers tells whether the fault's range holds a sector.
func (f *Fault) covers(lba uint64) bool { return lba >= f.LBA && lba-f.LBA < f.Count }

// Planned is a fault that the command under way runs into.
type Planned struct {
	Fault Fault // as it was when the command started
	Hit   bool  // it has shown, and was counted
}

const (
	faultsMax  = 1 << 16
	extraNsMax = 1 << 50
)

// check tells what is wrong with a fault for this drive.
func (d *Drive) checkFault(f *Fault) error {
	if f.Kind == 0 || f.Kind >= numFaultKinds {
		return fmt.Errorf("unknown kind of disk fault %d", uint8(f.Kind))
	}
	if f.Ops == 0 || f.Ops&^faultKinds[f.Kind].ops != 0 {
		return fmt.Errorf("a disk fault of kind %v cannot hit these commands (%#x)", f.Kind, uint8(f.Ops))
	}
	sectors := d.disk.Sectors()
	if f.Count == 0 || f.LBA >= sectors || f.Count > sectors-f.LBA {
		return fmt.Errorf("%d sectors from %d on are not all on a disk of %d sectors", f.Count, f.LBA, sectors)
	}
	switch f.Kind {
	case FaultSlow:
		if f.ExtraNs == 0 || f.ExtraNs > extraNsMax {
			return fmt.Errorf("a delay of %d ns is out of range", f.ExtraNs)
		}
	case FaultWrong:
		if len(f.Mask) == 0 || uint64(f.Offset)+uint64(len(f.Mask)) > disk.SectorSize {
			return fmt.Errorf("a mask of %d bytes at byte %d does not lie in a sector", len(f.Mask), f.Offset)
		}
		if !slices.ContainsFunc(f.Mask, func(b byte) bool { return b != 0 }) {
			return errors.New("a mask without a bit changes nothing")
		}
	case FaultMisdirected:
		if f.Target >= sectors || f.Count > sectors-f.Target {
			return fmt.Errorf("%d sectors from target %d on are not all on a disk of %d sectors", f.Count, f.Target, sectors)
		}
	}
	return nil
}

// AddFault makes something be wrong with the drive, for commands that start from now on.
// The description may come from a user: an error says what cannot be.
func (d *Drive) AddFault(f Fault) error {
	if err := d.checkFault(&f); err != nil {
		return err
	}
	for i := range d.faults {
		if d.faults[i].ID == f.ID {
			return fmt.Errorf("the drive has a fault %d already", f.ID)
		}
	}
	if len(d.faults) >= faultsMax {
		return errors.New("too many disk faults")
	}
	d.faults = append(d.faults, f.clone())
	return nil
}

// RemoveFault takes a fault away and tells whether it was there. A command under
// way that has run into it is not helped.
func (d *Drive) RemoveFault(id uint64) bool {
	n := len(d.faults)
	d.faults = slices.DeleteFunc(d.faults, func(f Fault) bool { return f.ID == id })
	return len(d.faults) < n
}

// Faults returns the faults that the drive has. One that was rewritten in part is several with one ID.
func (d *Drive) Faults() []Fault {
	var all []Fault
	for _, f := range d.faults {
		all = append(all, f.clone())
	}
	return all
}

// planFaults notes the faults that the command can run into, in the order in which they were added.
func (d *Drive) planFaults(c *command) {
	for i := range d.faults {
		f := &d.faults[i]
		switch {
		case f.Ops&c.ops == 0:
		case f.Kind == FaultICRC && !(c.dma() && d.transfer&transferUDMA != 0):
		case c.moves() && (f.LBA >= d.lba+uint64(d.left) || d.lba >= f.LBA+f.Count):
		case f.strikes():
			d.plan = append(d.plan, Planned{Fault: f.clone()})
		}
	}
}

// strikes counts a command that the fault could hit, and reports whether it does.
func (f *Fault) strikes() bool {
	f.Occasions++
	if f.Every > 1 && f.Occasions%f.Every != 0 {
		return false
	}
	if f.Chance == 0 {
		return true
	}
	f.Random += 0x9e3779b97f4a7c15
	z := f.Random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z^z>>31)>>32 < f.Chance
}

// hit counts a planned fault that shows, once a command.
func (d *Drive) hit(p *Planned) {
	if p.Hit {
		return
	}
	p.Hit = true
	gone := false
	for i := range d.faults {
		f := &d.faults[i]
		if f.ID != p.Fault.ID {
			continue
		}
		f.Hits++
		if f.Remaining > 0 {
			f.Remaining--
			gone = f.Remaining == 0
		}
	}
	if gone {
		d.RemoveFault(p.Fault.ID)
	}
}

// faultsAtStart applies the faults that concern a command as a whole.
func (d *Drive) faultsAtStart() (extraNs uint64, hang bool) {
	for i := range d.plan {
		p := &d.plan[i]
		switch p.Fault.Kind {
		case FaultTimeout:
			d.hit(p)
			return 0, true
		case FaultABRT, FaultDF:
			if d.regs.Error == 0 {
				d.hit(p)
				d.regs.Error = errorABRT
				if p.Fault.Kind == FaultDF {
					d.status |= statusDF
				}
			}
		case FaultSlow:
			d.hit(p)
			extraNs = min(extraNs+p.Fault.ExtraNs, extraNsMax)
		}
	}
	return extraNs, false
}

// firstError returns the first of n sectors from lba on that fails, and the Error register for it.
func (d *Drive) firstError(lba uint64, n uint32) (at uint64, e uint8) {
	var first *Planned
	at = lba + uint64(n)
	for i := range d.plan {
		p := &d.plan[i]
		if p.Fault.Kind > FaultICRC {
			continue
		}
		if s := max(lba, p.Fault.LBA); s < at && p.Fault.covers(s) {
			first, at = p, s
		}
	}
	if first == nil {
		return 0, 0
	}
	d.hit(first)
	return at, faultKinds[first.Fault.Kind].code
}

// spoilRead applies the faults that change what is read. b is what lies at lba.
func (d *Drive) spoilRead(b []byte) bool {
	for i := range d.plan {
		p := &d.plan[i]
		f := &p.Fault
		if f.Kind != FaultWrong && f.Kind != FaultMisdirected {
			continue
		}
		for at := 0; at < len(b); at += disk.SectorSize {
			lba := d.lba + uint64(at/disk.SectorSize)
			if !f.covers(lba) {
				continue
			}
			d.hit(p)
			sector := b[at : at+disk.SectorSize]
			if f.Kind == FaultWrong {
				f.spoil(sector)
			} else if d.disk.ReadSectors(sector, f.Target+lba-f.LBA) != nil {
				return false
			}
		}
	}
	return true
}

func (f *Fault) spoil(sector []byte) {
	for i, m := range f.Mask {
		sector[int(f.Offset)+i] ^= m
	}
}

// write puts b on the disk at lba, or does what the faults make of it.
func (d *Drive) write(b []byte) error {
	if len(d.plan) == 0 {
		return d.writeSectors(b, d.lba)
	}
	for at := 0; at < len(b); at += disk.SectorSize {
		if err := d.writeSector(b[at:at+disk.SectorSize], uint64(at/disk.SectorSize)); err != nil {
			return err
		}
	}
	return nil
}

// writeSector writes the sector that lies n sectors behind lba.
func (d *Drive) writeSector(b []byte, n uint64) error {
	lba := d.lba + n
	target, keep := lba, disk.SectorSize
	for i := range d.plan {
		p := &d.plan[i]
		f := &p.Fault
		if !f.covers(lba) {
			continue
		}
		switch f.Kind {
		case FaultWrong:
			d.hit(p)
			f.spoil(b)
		case FaultMisdirected:
			d.hit(p)
			target = f.Target + lba - f.LBA
		case FaultDropped:
			d.hit(p)
			keep = 0
		case FaultTorn:
			// Bytes counts from the command's first byte.
			start := (uint64(d.moved) + n) * disk.SectorSize
			if whole := f.Bytes - min(f.Bytes, start); whole < disk.SectorSize {
				d.hit(p)
				keep = min(keep, int(whole))
			}
		}
	}
	switch {
	case keep == 0:
		return nil
	case keep < disk.SectorSize:
		old := make([]byte, disk.SectorSize)
		if err := d.disk.ReadSectors(old, target); err != nil {
			return err
		}
		b = append(b[:keep:keep], old[keep:]...)
	}
	return d.writeSectors(b, target)
}

// writeSectors writes to the disk and ends the faults that last until their sectors are rewritten.
func (d *Drive) writeSectors(b []byte, lba uint64) error {
	if err := d.disk.WriteSectors(b, lba); err != nil {
		return err
	}
	if d.Wrote != nil {
		d.Wrote(lba, b)
	}
	end := lba + uint64(len(b)/disk.SectorSize)
	if !slices.ContainsFunc(d.faults, func(f Fault) bool { return f.UntilRewritten && f.LBA < end && lba < f.LBA+f.Count }) {
		return nil
	}
	var kept []Fault
	for _, f := range d.faults {
		if !f.UntilRewritten || f.LBA >= end || lba >= f.LBA+f.Count {
			kept = append(kept, f)
			continue
		}
		if f.LBA < lba {
			before := f.clone()
			before.Count = lba - f.LBA
			kept = append(kept, before)
		}
		if last := f.LBA + f.Count; last > end {
			after := f.clone()
			after.Target += end - f.LBA
			after.LBA, after.Count = end, last-end
			kept = append(kept, after)
		}
	}
	d.faults = kept
	return nil
}
