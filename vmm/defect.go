package vmm

import (
	"fmt"
	"slices"

	"refault/vmm/dev"
	"refault/vmm/dev/ioapic"
	"refault/vmm/dev/lapic"
	"refault/vmm/dev/mca"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Defects are what is wrong with the hardware and stays wrong: poisoned lines, stuck
// bits, an adder that errs, interrupts that get lost. A fault's event plants one; what
// becomes of it then follows from the machine's state alone, of which it is a part. So
// a faulty run replays without whoever planted it.
//
// # What does a defect cost?
//
// One in memory makes its pages mem.Watched, one in code or data at linear addresses
// keeps its page out of the TLB, and one in the processor's logic makes it execute one
// instruction at a time. Without any, nothing is asked anywhere.

// DefectKind names how hardware is broken.
type DefectKind uint8

const (
	// DefectPoison: the bytes of Bad are uncorrectable, which shows when they are consumed.
	DefectPoison DefectKind = iota + 1
	// DefectStuck: bits of memory that are what they are, whatever is written.
	DefectStuck
	// DefectRegister: bits of a register, likewise.
	DefectRegister
	// DefectFetch: bits of an instruction flip on their way to the decoder.
	DefectFetch
	// DefectLogic: bits flip in results of a class of instructions.
	DefectLogic
	// DefectInterrupt: interrupts get lost or late.
	DefectInterrupt
	// DefectECC: cells of a word under ECC have flipped.
	DefectECC
	// DefectCache is nothing that can be planted: an injector's model of a cache tells of itself under this name.
	DefectCache
	// NoticeBank is no defect either: what becomes of an error in a machine-check bank, whose number is its ID.
	NoticeBank
	// DefectBus: accesses to a device's registers time out, or their data flips. Grain is how many from Addr are concerned.
	DefectBus
)

// Consumers are who may find a poisoned line. They are bits of Defect.By.
const (
	ByKernelLoad = 1 << iota
	ByUserLoad
	ByKernelFetch
	ByUserFetch
	ByWalk      // the processor's own reading of page tables
	ByDMA       // a bus master that reads
	ByScrubber  // the memory controller's patrol
	ByWriteBack // the cache, when it displaces the line
	ByAll       = 1<<iota - 1
)

// Defect is one of Defects. It is plain data: an event of a recording carries it, and
// so does the machine's state. The fields that a kind does not name are zero.
type Defect struct {
	ID   uint64
	Kind DefectKind
	CPU  int

	// Skip: so many occasions pass first. Every: it strikes at each n-th only; zero is one. Chance: with a probability of
	// Chance/2^32; zero is always. Remaining: how often it will still strike; zero is without limit.
	Skip, Every, Chance, Remaining uint64
	Random                         uint64 // state of the generator behind Chance (splitmix64): the guest's must not hear of it
	Occasions, Strikes             uint64 // so far
	UntilStep                      uint64 // from here on it is gone; zero: never

	// Addr is where it is: physical (poison, stuck), linear (fetch).
	Addr uint64
	// Bad is the bytes that are uncorrectable, a bit each (poison). Grain is how many bytes share their fate: reading
	// any byte of a granule consumes what is bad in it.
	Bad   []byte
	Grain uint64
	By    uint16
	Bank  int // that reports; negative: the one that fits
	// Silent: the bytes are wrong, and nothing notices: it is only told who consumed them, or that they were overwritten.
	Silent bool
	// ScrubBytesPerS is the patrol's speed, and WriteBackNs how long a dirty line stays in the cache; zero: it is not
	// patrolled, or displaced. DueNs is when either of them comes next.
	ScrubBytesPerS, WriteBackNs, DueNs uint64
	// Mask is the bits that are stuck, or flip, little-endian from Addr or of a register, and Value what they are stuck at.
	Mask, Value []byte
	Register    string
	// Hold: the cells flip again after each correction (ECC). Corrected: memory holds what the decoder made of the word.
	Hold, Corrected bool
	// Class is the class of instructions whose results are wrong.
	Class string
	// Vector of the interrupts, or with PIC the input of the 8259s, and how late they are; zero: they are lost.
	Vector  uint8
	PIC     bool
	DelayNs uint64
}

func (d *Defect) clone() Defect {
	c := *d
	c.Bad, c.Mask, c.Value = slices.Clone(d.Bad), slices.Clone(d.Mask), slices.Clone(d.Value)
	return c
}

// late is an interrupt that is on its way.
type late struct {
	DueNs  uint64
	CPU    int
	Vector uint8
	Level  bool
	PIC    bool
}

// picInput reports whether a device can interrupt by input n of the 8259s. At input 2 of the first, the second is.
func picInput(n uint8) bool { return n < 16 && n != 2 }

// DefectState is the saved state of Defects.
type DefectState struct {
	Version uint8
	NextID  uint64
	Defects []Defect
	Late    []late
	// TSCOffset is by how much the time-stamp counter has jumped.
	TSCOffset uint64
}

// Defects is the device.
type Defects struct {
	DefectState
	m       *Machine
	timer   *dev.Timer
	undo    []func() // ends what looks for them
	patch   bool     // stuck bits may have been written
	forcing bool     // it is us who write
}

// maxDefects bounds what a recording can plant.
const maxDefects = 1 << 16

func newDefects(m *Machine) *Defects {
	d := &Defects{m: m}
	d.timer = m.queue.NewTimer(d.Name(), d.tick)
	d.Reset()
	return d
}

// Name implements dev.Device.
func (d *Defects) Name() string { return "defects" }

// Reset implements dev.Device.
func (d *Defects) Reset() { d.DefectState = DefectState{Version: 1, NextID: 1} }

// Save implements dev.Device.
func (d *Defects) Save() any {
	s := d.DefectState
	s.Defects = nil
	for i := range d.Defects {
		s.Defects = append(s.Defects, d.Defects[i].clone())
	}
	s.Late = slices.Clone(d.Late)
	return &s
}

// Restore implements dev.Device.
func (d *Defects) Restore(decode func(any) error) error {
	var s DefectState
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("version %d, this program reads 1", s.Version)
	}
	for i := range s.Defects {
		if err := d.check(&s.Defects[i]); err != nil {
			return err
		}
	}
	for _, l := range s.Late {
		if l.CPU < 0 || l.CPU >= len(d.m.CPUs) || !l.PIC && l.Vector < 16 || l.PIC && !picInput(l.Vector) {
			return fmt.Errorf("a late interrupt %d for processor %d", l.Vector, l.CPU)
		}
	}
	d.DefectState = s
	d.patch = true // what was written by the last instruction, if it was
	d.look()
	return nil
}

// check holds what came from outside to what the code relies on.
func (d *Defects) check(f *Defect) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("defect: %s: %w", fmt.Sprintf(format, args...), ErrTarget)
	}
	if f.CPU < 0 || f.CPU >= len(d.m.CPUs) {
		return bad("processor %d of %d", f.CPU, len(d.m.CPUs))
	}
	ram := func(n int) error {
		if n == 0 || !d.m.RAM.ReadAt(make([]byte, n), f.Addr) {
			return bad("physical address %#x, %d bytes: outside RAM", f.Addr, n)
		}
		if f.Addr < mem.HighBase && f.Addr+uint64(n) > mem.HighBase {
			return bad("physical address %#x, %d bytes: over the hole", f.Addr, n)
		}
		return nil
	}
	switch f.Kind {
	case DefectPoison:
		if f.Bank >= mca.NumBanks || f.Grain == 0 || f.Grain&(f.Grain-1) != 0 || f.Grain > mem.PageSize || len(f.Bad) > 1<<20 {
			return bad("bank %d, granules of %d, %d bytes", f.Bank, f.Grain, 8*len(f.Bad))
		}
		if f.ScrubBytesPerS > 1<<50 || f.WriteBackNs > 1<<60 {
			return bad("a scrubber of %d bytes a second, a write-back after %d ns", f.ScrubBytesPerS, f.WriteBackNs)
		}
		return ram(8 * len(f.Bad))
	case DefectStuck:
		if len(f.Mask) != len(f.Value) {
			return bad("a mask of %d bytes for a value of %d", len(f.Mask), len(f.Value))
		}
		return ram(len(f.Mask))
	case DefectRegister:
		if r, ok := x86.LookupRegister(f.Register); !ok || len(f.Mask) != r.Size || len(f.Value) != r.Size {
			return bad("register %q, %d bytes", f.Register, len(f.Mask))
		}
	case DefectFetch:
		if len(f.Mask) == 0 || len(f.Mask) > 15 {
			return bad("%d bytes of an instruction", len(f.Mask))
		}
	case DefectLogic:
		if logicClass(f.Class) == nil || len(f.Mask) == 0 || len(f.Mask) > 16 {
			return bad("%q instructions, %d bytes", f.Class, len(f.Mask))
		}
	case DefectECC:
		if len(f.Mask) != eccBytes || len(f.Bad) != 1 || f.Addr%8 != 0 || f.Bank >= mca.NumBanks || f.Grain != eccLine || f.ScrubBytesPerS > 1<<50 {
			return bad("a word of %d bytes at %#x, bank %d", len(f.Mask), f.Addr, f.Bank)
		}
		return ram(8)
	case DefectBus:
		if !f.checkBus() {
			return bad("%d addresses of the bus from %s %#x", f.Grain, f.Class, f.Addr)
		}
	case DefectInterrupt:
		if !f.PIC && f.Vector < 16 || f.DelayNs > 1<<60 {
			return bad("vector %d, %d ns late", f.Vector, f.DelayNs)
		}
		if f.PIC && !picInput(f.Vector) {
			return bad("input %d of the 8259s", f.Vector)
		}
	default:
		return bad("unknown kind %d", f.Kind)
	}
	return nil
}

// plant adds a defect.
func (d *Defects) plant(f *Defect) error {
	if err := d.check(f); err != nil {
		return err
	}
	if len(d.Defects) >= maxDefects {
		return fmt.Errorf("more than %d defects: %w", maxDefects, ErrTarget)
	}
	if f.Kind == DefectECC && d.plantECC(f) {
		return nil
	}
	f.ID = d.NextID
	d.NextID++
	d.Defects = append(d.Defects, f.clone())
	n := &d.Defects[len(d.Defects)-1]
	switch n.Kind {
	case DefectPoison, DefectECC:
		d.aim(n)
	case DefectStuck:
		d.patch = true
		d.force(n)
	case DefectRegister:
		d.forceRegister(n)
	}
	d.look()
	return nil
}

// find returns the defect of an ID, or nil when it is gone.
func (d *Defects) find(id uint64) *Defect {
	for i := range d.Defects {
		if d.Defects[i].ID == id {
			return &d.Defects[i]
		}
	}
	return nil
}

// remove takes a defect away.
func (d *Defects) remove(id uint64) {
	d.Defects = slices.DeleteFunc(d.Defects, func(f Defect) bool { return f.ID == id })
	d.look()
}

// strikes counts an occasion and reports whether the defect shows.
func (d *Defects) strikes(f *Defect) bool {
	f.Occasions++
	if f.Occasions <= f.Skip || f.Every > 1 && (f.Occasions-f.Skip)%f.Every != 0 {
		return false
	}
	if f.Chance != 0 && f.random()>>32 >= f.Chance {
		return false
	}
	f.Strikes++
	return true
}

// spend counts a strike off, and takes the defect away when that was its last one.
func (d *Defects) spend(id uint64) {
	if f := d.find(id); f != nil && f.Remaining > 0 {
		if f.Remaining--; f.Remaining == 0 {
			d.remove(id)
		}
	}
}

// until returns the first step at which a defect goes, or Never.
func (d *Defects) until() uint64 {
	step := uint64(Never)
	for i := range d.Defects {
		if u := d.Defects[i].UntilStep; u != 0 {
			step = min(step, u)
		}
	}
	return step
}

func (f *Defect) random() uint64 {
	f.Random += 0x9e3779b97f4a7c15
	z := f.Random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// look connects the machine to what its defects have to see. It is called whenever there is another one.
func (d *Defects) look() {
	for _, f := range d.undo {
		f()
	}
	d.undo = nil
	for _, l := range d.m.lapics {
		l.Filter = nil
	}
	d.m.pic.Filter = nil
	d.m.bus.broken = false
	for i := range d.Defects {
		f := &d.Defects[i]
		id := f.ID
		switch f.Kind {
		case DefectPoison:
			d.watch(f.Addr, 8*len(f.Bad), func(t *Touch) { d.poisonTouched(id, t) })
		case DefectECC:
			d.watch(f.Addr&^(eccLine-1), eccLine, func(t *Touch) { d.eccTouched(id, t) })
		case DefectStuck:
			d.watch(f.Addr, len(f.Mask), func(t *Touch) { d.stuckTouched(id, t) })
		case DefectRegister:
			d.observe(&Observer{Code: Everywhere, After: func(c *x86.CPU, _ *x86.Inst) { d.registerWritten(id, c) }})
		case DefectFetch:
			const before = 14 // bytes that the first wrong one may have before it in an instruction
			span := Span{First: f.Addr - min(f.Addr, before), Last: f.Addr + uint64(len(f.Mask)) - 1}
			d.observe(&Observer{Code: span,
				Fetched: func(c *x86.CPU, la uint64, code []byte) { d.fetched(id, c, la, code) },
				Before:  func(c *x86.CPU, la uint64, in *x86.Inst) { d.decoded(id, c, la, in) }})
		case DefectLogic:
			d.observe(&Observer{Code: Everywhere, After: func(c *x86.CPU, in *x86.Inst) { d.calculated(id, c, in) }})
		case DefectBus:
			d.m.bus.broken = true
		case DefectInterrupt:
			if f.PIC {
				d.m.pic.Filter = func(n int) bool { return d.interrupted(0, uint8(n), false, true) }
				break
			}
			cpu := f.CPU
			d.m.lapics[cpu].Filter = func(vector uint8, level bool) bool { return d.interrupted(cpu, vector, level, false) }
		}
	}
	d.arm()
}

func (d *Defects) watch(pa uint64, n int, f func(t *Touch)) {
	w, err := d.m.Watch(pa, uint64(n), f)
	if err != nil {
		panic("BUG: a defect outside RAM")
	}
	d.undo = append(d.undo, func() { d.m.Unwatch(w) })
}

func (d *Defects) observe(o *Observer) {
	d.m.Observe(o)
	d.undo = append(d.undo, func() { d.m.Unobserve(o) })
}

// arm sets the timer for whatever comes next.
func (d *Defects) arm() {
	next := uint64(dev.Never)
	for i := range d.Defects {
		if due := d.Defects[i].DueNs; due != 0 {
			next = min(next, due)
		}
	}
	for _, l := range d.Late {
		next = min(next, l.DueNs)
	}
	if next != d.timer.Deadline() {
		d.timer.Set(next)
	}
}

// tick does what is due.
func (d *Defects) tick() {
	now := d.m.queue.Now()
	for i := 0; i < len(d.Late); {
		if l := d.Late[i]; l.DueNs <= now {
			d.Late = slices.Delete(d.Late, i, i+1)
			if l.PIC {
				d.m.pic.Arrive(int(l.Vector))
			} else {
				d.m.lapics[l.CPU].Accept(l.Vector, l.Level)
			}
			d.m.attend()
			continue
		}
		i++
	}
	for _, id := range d.ids() {
		if f := d.find(id); f != nil && f.DueNs != 0 && f.DueNs <= now {
			d.poisonDue(f)
		}
	}
	d.arm()
}

func (d *Defects) ids() []uint64 {
	var ids []uint64
	for i := range d.Defects {
		ids = append(ids, d.Defects[i].ID)
	}
	return ids
}

// boundary does what has to be done between two instructions, and reports whether there was anything.
func (d *Defects) boundary(step uint64) (acted bool) {
	if len(d.Defects) == 0 {
		return false
	}
	if d.patch {
		d.patch = false
		for i := range d.Defects {
			if d.Defects[i].Kind == DefectStuck {
				d.force(&d.Defects[i])
				acted = true
			}
		}
	}
	for _, id := range d.ids() {
		if f := d.find(id); f.UntilStep != 0 && f.UntilStep <= step {
			d.tell(f, 0, "gone")
			d.remove(id)
			acted = true
		}
	}
	return acted
}

// Notice is something that a defect did, or that became of an error in a machine-check bank, for whoever wants to show it.
type Notice struct {
	Step, TimeNs uint64
	ID           uint64
	Kind         DefectKind
	What         string
	Addr         uint64
	RIP          uint64 // of the instruction that met it, if one did
}

var defectNames = [...]string{DefectPoison: "poison", DefectStuck: "stuck bits", DefectRegister: "stuck register", DefectFetch: "instruction", DefectLogic: "logic", DefectInterrupt: "interrupt",
	DefectECC: "ECC word", DefectCache: "cache", NoticeBank: "machine-check bank", DefectBus: "bus"}

func (k DefectKind) String() string {
	if int(k) < len(defectNames) && defectNames[k] != "" {
		return defectNames[k]
	}
	return "unknown"
}

func (n Notice) String() string {
	s := fmt.Sprintf("%s %d", n.Kind, n.ID)
	if n.Addr != 0 {
		s += fmt.Sprintf(" at %#x", n.Addr)
	}
	s += ": " + n.What
	if n.RIP != 0 {
		s += fmt.Sprintf(" (RIP %#x)", n.RIP)
	}
	return s
}

// tell tells the observers what became of a defect. rip is of the instruction that met it, or zero.
func (d *Defects) tell(f *Defect, rip uint64, format string, args ...any) {
	for _, o := range d.m.observers {
		if o.Notice != nil {
			c := d.m.CPUs[f.CPU]
			o.Notice(Notice{Step: c.Step, TimeNs: d.m.TimeNs(), ID: f.ID, Kind: f.Kind, Addr: f.Addr, RIP: rip, What: fmt.Sprintf(format, args...)})
		}
	}
}

// Defects returns what is wrong with the machine now.
func (m *Machine) Defects() []Defect { return m.defects.Save().(*DefectState).Defects }

// LineVector returns the vector to which an input of the I/O APIC is routed; ok is false where it is masked.
func (m *Machine) LineVector(line int) (vector uint8, ok bool) {
	if line < 0 || line >= ioapic.NumPins {
		return 0, false
	}
	e := m.ioapic.Entry[line]
	return uint8(e), e&ioapic.EntryMask == 0
}

// PICInput reports whether an input of the 8259s may interrupt the processor, or be disturbed: neither they nor its
// local APIC mask it.
func (m *Machine) PICInput(n int, disturb bool) bool {
	return n >= 0 && n < 16 && picInput(uint8(n)) && m.pic.Open(n, disturb) && m.lapics[0].TakesExtINT()
}

// LocalVector returns the vector of an entry of a local APIC's local vector table; ok is false where it is masked.
func (m *Machine) LocalVector(cpu, entry int) (vector uint8, ok bool) {
	v := m.lapics[cpu].LVT[entry]
	return uint8(v), v&lapic.LVTMasked == 0
}

// ReadBank returns IA32_MCi_STATUS, ADDR and MISC of a machine-check bank.
func (m *Machine) ReadBank(cpu, bank int) (status, addr, misc uint64) {
	b := m.mcas[cpu].Bank(bank)
	return b.Status, b.Addr, b.Misc
}

// TSC returns the time-stamp counter, without IA32_TSC_ADJUST.
func (m *Machine) TSC() uint64 { return m.bus.TSC(nil) }
