package vmm

import (
	"math/bits"

	"refault/vmm/dev/mca"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Poison: bytes of memory that no code can correct any more, and that nobody has
// noticed yet. Whoever consumes them first is told, in the way that the SDM defines for
// him (Vol. 3B 15.6.3, and 15.9.3 for the error codes):
//
//	a load, a page walk           SRAR, 0134H: the instruction is not executed, #MC points at it
//	an instruction fetch          SRAR, 0150H: likewise
//	the patrol scrubber           SRAO, 00C0H: #MC at any place
//	the displacement of its line  SRAO, 017AH: likewise
//	a bus master that reads       UCNA, 009FH: CMCI; the master gets what is there
//
// A store consumes nothing: the line stays bad until all that is bad in it has been
// overwritten. A load while an exception is being delivered leaves no instruction to
// come back to, which is said by IA32_MCG_STATUS without RIPV.

const (
	poisonStatus = mca.StatusVAL | mca.StatusUC | mca.StatusEN | mca.StatusADDRV | mca.StatusMISCV

	mcacodLoad      = 0x0134
	mcacodFetch     = 0x0150
	mcacodScrub     = 0x00c0
	mcacodWriteBack = 0x017a
	mcacodRead      = 0x009f

	miscPhysical = 2 << 6 // address mode of IA32_MCi_MISC: physical

	// Where errors are reported unless a bank is given: the fetch unit, the data cache, the last-level cache, the memory controller.
	bankFetch, bankLoad, bankCache, bankMemory = 0, 1, 9, 13
)

// isBad reports whether byte i is.
func (f *Defect) isBad(i uint64) bool { return f.Bad[i/8]>>(i%8)&1 != 0 }

// granules widens [first, last], relative to Addr, to whole granules of the address space, within the defect.
func (f *Defect) granules(first, last uint64) (uint64, uint64) {
	lo, hi := (f.Addr+first)&^(f.Grain-1), (f.Addr+last)|(f.Grain-1)
	return max(lo, f.Addr) - f.Addr, min(hi-f.Addr, uint64(8*len(f.Bad))-1)
}

// firstBad returns the first bad byte in [first, last].
func (f *Defect) firstBad(first, last uint64) (i uint64, ok bool) {
	for i := first; i <= last; i++ {
		if f.isBad(i) {
			return i, true
		}
	}
	return 0, false
}

func (f *Defect) badBytes() (n int) {
	for _, b := range f.Bad {
		n += bits.OnesCount8(b)
	}
	return n
}

// poisonTouched is told of an access to the range of a poisoned line or page.
func (d *Defects) poisonTouched(id uint64, t *Touch) {
	f := d.find(id)
	if f == nil || d.forcing {
		return
	}
	first := max(t.Addr, f.Addr) - f.Addr
	last := min(t.Addr+uint64(t.Len)-1-f.Addr, uint64(8*len(f.Bad))-1)
	if t.Kind == x86.Write {
		d.overwritten(f, first, last, t.CPU)
		return
	}
	at, ok := f.firstBad(f.granules(first, last))
	if !ok {
		return
	}
	d.consume(f, t, at)
}

// consume tells the consumer of byte at of a defect that it is uncorrectable, if it is one who notices.
func (d *Defects) consume(f *Defect, t *Touch, at uint64) {
	id := f.ID
	by, what := uint16(ByKernelLoad), "a load of the kernel"
	code, bank := uint64(mcacodLoad), bankLoad
	switch {
	case t.DMA():
		by, what, code, bank = ByDMA, "a bus master", mcacodRead, bankMemory
	case t.Kind == x86.Walk:
		by, what = ByWalk, "a page walk"
	case t.Kind == x86.Fetch && t.CPU.CPL == 3:
		by, what, code, bank = ByUserFetch, "a fetch of user code", mcacodFetch, bankFetch
	case t.Kind == x86.Fetch:
		by, what, code, bank = ByKernelFetch, "a fetch of kernel code", mcacodFetch, bankFetch
	case t.CPU.CPL == 3:
		by, what = ByUserLoad, "a load of user code"
	}
	if f.By&by == 0 || !d.strikes(f) {
		return
	}
	rec := mca.Record{Status: poisonStatus | code}
	switch {
	case t.DMA():
	case t.CPU.Delivering:
		rec.Status |= mca.StatusS | mca.StatusAR
	default:
		rec.Status |= mca.StatusS | mca.StatusAR
		rec.McgStatus = mca.McgRIPV | mca.McgEIPV
	}
	rip := uint64(0)
	if t.CPU != nil {
		rip = t.CPU.InstRIP
	}
	d.tell(f, rip, "consumed by %s", what)
	if f.Silent {
		d.spend(id)
		return
	}
	signalled := d.reportPoison(f, at, bank, rec)
	d.spend(id)
	if signalled && t.CPU != nil {
		t.CPU.Abandon()
	}
}

// overwritten takes the bytes that are about to be stored out of the poison.
func (d *Defects) overwritten(f *Defect, first, last uint64, c *x86.CPU) {
	hit := false
	for i := first; i <= last; i++ {
		hit = hit || f.isBad(i)
		f.Bad[i/8] &^= 1 << (i % 8)
	}
	switch {
	case !hit:
	case f.badBytes() == 0:
		rip := uint64(0)
		if c != nil {
			rip = c.InstRIP
		}
		d.tell(f, rip, "overwritten")
		d.remove(f.ID)
		return
	}
	if f.WriteBackNs != 0 && f.DueNs == 0 {
		f.DueNs = d.m.queue.Now() + f.WriteBackNs // the line is dirty in the cache now
		d.arm()
	}
}

// reportPoison tells the bank of byte at of a defect. It reports whether a machine check is pending, or the processor shut down.
func (d *Defects) reportPoison(f *Defect, at uint64, bank int, rec mca.Record) bool {
	if f.Bank >= 0 {
		bank = f.Bank
	}
	rec.Addr = (f.Addr + at) &^ (f.Grain - 1)
	rec.Misc = miscPhysical | uint64(bits.TrailingZeros64(f.Grain))
	return d.m.report(d.m.CPUs[f.CPU], bank, rec)
}

// report gives an error to a bank, and the processor what that calls for. It reports
// whether a machine check is pending, or the processor shut down.
func (m *Machine) report(c *x86.CPU, bank int, rec mca.Record) bool {
	effect := m.mcas[c.ID].Report(bank, rec)
	how := "without a signal"
	if effect.CMCI {
		how = "with a CMCI"
		m.lapics[c.ID].TriggerCMCI()
	}
	switch {
	case effect.Shutdown:
		how = "during a machine check, which is a shutdown"
		c.Activity = x86.Shutdown
	case effect.MachineCheck:
		how = "with #MC"
		c.MCPending = true
	}
	m.reported(c, bank, how)
	c.Attention = true
	return effect.Shutdown || effect.MachineCheck
}

// aim sets when the scrubber, or a displacement, will find a poisoned line.
func (d *Defects) aim(f *Defect) {
	now := d.m.queue.Now()
	f.DueNs = 0
	if f.WriteBackNs != 0 && f.By&ByWriteBack != 0 {
		f.DueNs = now + f.WriteBackNs
	}
	if f.ScrubBytesPerS != 0 && f.By&ByScrubber != 0 {
		if due := d.patrol(f, now); f.DueNs == 0 || due < f.DueNs {
			f.DueNs = due
		}
	}
}

// patrol returns when the scrubber is next beyond the first bad byte. It began at address 0 at power-on
// and goes round and round, ScrubBytesPerS a second.
func (d *Defects) patrol(f *Defect, now uint64) uint64 {
	at, _ := f.firstBad(0, uint64(8*len(f.Bad))-1)
	off, _ := d.m.RAM.Offset(f.Addr + at)
	round := muldiv(d.m.RAM.Size(), 1e9, f.ScrubBytesPerS)
	due := muldiv(off&^(mem.PageSize-1)+mem.PageSize, 1e9, f.ScrubBytesPerS)
	if due <= now {
		due += ((now-due)/max(round, 1) + 1) * max(round, 1)
	}
	return due
}

// muldiv returns a*b/c without overflow on the way.
func muldiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return 1<<63 - 1
	}
	q, _ := bits.Div64(hi, lo, c)
	return q
}

// poisonDue is the scrubber's finding a line, or its displacement from the cache.
func (d *Defects) poisonDue(f *Defect) {
	id := f.ID
	now := d.m.queue.Now()
	at, _ := f.firstBad(0, uint64(8*len(f.Bad))-1)
	scrubbed := f.ScrubBytesPerS != 0 && f.By&ByScrubber != 0
	rec := mca.Record{Status: poisonStatus | mca.StatusS | mcacodScrub, McgStatus: mca.McgRIPV}
	what, bank := "found by the scrubber", bankMemory
	f.DueNs = 0
	if scrubbed {
		f.DueNs = d.patrol(f, now)
	} else {
		rec.Status = poisonStatus | mca.StatusS | mcacodWriteBack
		what, bank = "found in the displacement of its line", bankCache
	}
	if f.Kind == DefectECC {
		d.eccScrubbed(f)
		return
	}
	if !d.strikes(f) {
		return
	}
	d.tell(f, 0, "%s", what)
	d.reportPoison(f, at, bank, rec)
	d.spend(id)
}
