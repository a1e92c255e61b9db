package vmm

import "refault/vmm/x86"

// Errors between a processor and a device: an access to its registers gets no answer in time, so that a read
// gives ones, as where there is no device, and a write is lost; or bits of the data flip on their way.

// What an access of a DefectBus goes to: Defect.Class.
const (
	BusPort   = "port"   // of the I/O address space
	BusMemory = "memory" // physical addresses that are not RAM
)

// Accesses that a DefectBus concerns: bits of Defect.By.
const (
	ByBusRead = 1 << iota
	ByBusWrite
)

// busErrors decides what becomes of an access: it gets through or not, and which bits flip.
func (d *Defects) busErrors(c *x86.CPU, class string, addr uint64, size int, kind uint16) (through bool, flips uint64) {
	through = true
	what := map[uint16]string{ByBusRead: "read", ByBusWrite: "write"}[kind]
	for _, id := range d.ids() {
		f := d.find(id)
		if f == nil || f.Kind != DefectBus || f.Class != class || f.By&kind == 0 || addr >= f.Addr+f.Grain || f.Addr >= addr+uint64(size) {
			continue
		}
		var mask uint64
		for i := range uint64(size) {
			if at := addr + i - f.Addr; at < uint64(len(f.Mask)) {
				mask |= uint64(f.Mask[at]) << (8 * i)
			}
		}
		timeout := len(f.Mask) == 0
		if !timeout && mask == 0 || !d.strikes(f) {
			continue
		}
		if timeout {
			through = false
			d.tell(f, c.InstRIP, "%d-byte %s of %s %#x timed out", size, what, class, addr)
		} else {
			flips ^= mask
			d.tell(f, c.InstRIP, "%d-byte %s of %s %#x: bits %#x flipped", size, what, class, addr, mask)
		}
		d.spend(id)
	}
	return through, flips
}

// busRead is a read of a device while there are defects of the bus.
func (d *Defects) busRead(c *x86.CPU, class string, addr uint64, size int, read func() uint64) uint64 {
	through, flips := d.busErrors(c, class, addr, size, ByBusRead)
	v := uint64(1)<<(8*size) - 1
	if through {
		v = read()
	}
	return v ^ flips
}

// busWrite is a write to a device, likewise.
func (d *Defects) busWrite(c *x86.CPU, class string, addr uint64, size int, v uint64, write func(v uint64)) {
	if through, flips := d.busErrors(c, class, addr, size, ByBusWrite); through {
		write(v ^ flips)
	}
}

// checkBus holds a defect of the bus to what the code relies on.
func (f *Defect) checkBus() bool {
	last := f.Addr + f.Grain - 1
	return (f.Class == BusPort && last <= 0xffff || f.Class == BusMemory && last < 1<<40) && f.Grain != 0 && last >= f.Addr &&
		f.By != 0 && f.By <= ByBusRead|ByBusWrite && uint64(len(f.Mask)) <= min(f.Grain, 64)
}
