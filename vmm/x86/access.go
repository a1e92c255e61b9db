package x86

import (
	"encoding/binary"

	"refault/vmm/mem"
)

// Loads and stores at linear addresses, at the current privilege. The fast path
// (access_unsafe.go) is a TLB hit within a page; everything rare is here: misses,
// accesses across pages, devices, watched pages, alignment checking.

// asSupervisor makes implicit accesses (descriptor tables, TSS): as supervisor, whatever CPL and AC are.
func (c *CPU) asSupervisor(f func()) {
	m := &c.mmu
	cpl, ac, align, id := c.CPL, m.ac, m.align, m.viewID
	c.CPL = 0
	m.ac, m.align = false, false
	m.viewID, m.view = viewSuper, &m.data[viewSuper]
	defer func() {
		c.CPL = cpl
		m.ac, m.align, m.viewID, m.view = ac, align, id, &m.data[id]
	}()
	f()
}

// lookup translates an access that does not cross a page. host is nil for a device.
func (c *CPU) lookup(va uint64, n int, kind Access) (pa, off uint64, ram bool) {
	m := &c.mmu
	c.Counts.SlowAccesses++
	if m.paging && c.EFER&EFERLMA != 0 && !Canonical(va) {
		// Which of #GP and #SS it is, Deliver finds out: it depends on the instruction.
		c.Exc = Exception{Vec: VecGP, HasErr: true, Address: va, nonCanonical: true}
		panic(fault)
	}
	if off, ok := c.beside(va, n, kind); ok {
		c.Counts.Beside++
		return 0, off, true
	}
	user := c.CPL == 3
	p := c.walk(va, kind, user, m.ac)
	observed := c.observesData(va)
	if observed {
		c.observer.Access(va, n, kind)
	}
	off, ram = c.RAM.Offset(p.pa)
	if !ram {
		return p.pa, 0, false
	}
	f := c.RAM.Flags(off)
	if f&mem.Watched != 0 && c.Watch != nil && kind != Write {
		c.Watch(off, n, kind)
	}
	// Who was told may have changed what is looked at.
	f = c.RAM.Flags(off)
	looked := observed || f&mem.Watched != 0
	if m.viewID == viewSlow {
		return p.pa, off, true
	}
	page := va &^ (mem.PageSize - 1)
	if m.viewID == viewSuper && page>>63 == 0 {
		m.low = true
		m.filledLow.add(va >> mem.PageShift % tlbSize)
	}
	tag := page
	if looked {
		tag ^= lookedTag
	}
	e := &m.view[va>>mem.PageShift%tlbSize]
	addend := c.hostAddr(off) - va
	if e.tag&^(tagReadOnly|tagNoted) != tag || e.addend != addend {
		c.Counts.Misses++
		if e.empty() {
			m.filled[m.viewID].add(va >> mem.PageShift % tlbSize)
		}
		*e = tlbEntry{tag: tag | tagReadOnly, addend: addend}
	}
	if kind == Write && p.writable {
		switch {
		case f&(mem.Code|mem.Table) == 0:
			c.RAM.SetDirty(off) // the stores that this entry grants will not tell
			m.noteGrant(off, uint32(va>>mem.PageShift%tlbSize))
			e.tag = tag
		case !looked:
			e.tag = tag | tagReadOnly | tagNoted
		}
	}
	return p.pa, off, true
}

// loadSlow reads n bytes (up to 8), zero-extended.
func (c *CPU) loadSlow(va uint64, n int) uint64 {
	c.check(va, n, Read)
	if k := mem.PageSize - int(va%mem.PageSize); k < n {
		// Both pages must be readable before either is read.
		var b [8]byte
		pa0, off0, ram0 := c.lookup(va, k, Read)
		pa1, off1, ram1 := c.lookup(c.wrap(va+uint64(k)), n-k, Read)
		c.readPart(b[:k], pa0, off0, ram0)
		c.readPart(b[k:n], pa1, off1, ram1)
		return binary.LittleEndian.Uint64(b[:])
	}
	pa, off, ram := c.lookup(va, n, Read)
	if !ram {
		return c.readDevice(pa, n)
	}
	d := c.RAM.Data()[off:]
	switch n {
	case 1:
		return uint64(d[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(d))
	case 4:
		return uint64(binary.LittleEndian.Uint32(d))
	}
	return binary.LittleEndian.Uint64(d)
}

// storeSlow writes the low n bytes (up to 8) of v.
func (c *CPU) storeSlow(va uint64, v uint64, n int) {
	c.check(va, n, Write)
	if k := mem.PageSize - int(va%mem.PageSize); k < n {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		pa0, off0, ram0 := c.lookup(va, k, Write)
		pa1, off1, ram1 := c.lookup(c.wrap(va+uint64(k)), n-k, Write)
		c.writePart(b[:k], pa0, off0, ram0)
		c.writePart(b[k:n], pa1, off1, ram1)
		return
	}
	off, ok := c.notedOffset(va)
	if ok {
		c.Counts.SlowAccesses++
		c.Counts.Noted++
	} else {
		var pa uint64
		if pa, off, ok = c.lookup(va, n, Write); !ok {
			c.writeDevice(pa, v, n)
			return
		}
	}
	c.RAM.NoteWrite(off, n)
	d := c.RAM.Data()[off:]
	switch n {
	case 1:
		d[0] = uint8(v)
	case 2:
		binary.LittleEndian.PutUint16(d, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(d, uint32(v))
	default:
		binary.LittleEndian.PutUint64(d, v)
	}
}

// ProbeWrite raises what a store of n bytes at va would raise, and stores nothing. An
// instruction that stores in parts calls it first, so that it faults before it changes anything.
func (c *CPU) ProbeWrite(va uint64, n int) { c.probe(va, n, Write) }

// ProbeRead is ProbeWrite for a load.
func (c *CPU) ProbeRead(va uint64, n int) { c.probe(va, n, Read) }

func (c *CPU) probe(va uint64, n int, kind Access) {
	c.check(va, n, Fetch)
	if k := mem.PageSize - int(va%mem.PageSize); k < n {
		c.lookup(va, k, kind)
		c.lookup(c.wrap(va+uint64(k)), n-k, kind)
		return
	}
	c.lookup(va, n, kind)
}

// PageFault reports whether an access of n bytes at va raises #PF, which is in Exc then. It changes nothing, and where
// it reports false the access may still raise something; but where it reports true that took no panic, which takes
// longer than the rest of a fault.
func (c *CPU) PageFault(va uint64, n int, kind Access) bool {
	m := &c.mmu
	if !m.paging || m.viewID == viewSlow || c.Watch != nil || !Canonical(va) || va%mem.PageSize+uint64(n) > mem.PageSize {
		return false
	}
	ac := m.ac
	if kind == Fetch {
		ac = true
	} else if e := &m.view[va>>mem.PageShift%tlbSize]; e.reads(va) && (kind == Read || e.writes(va) || e.notes(va)) {
		return false
	}
	_, code := c.tryWalk(va, kind, c.CPL == 3, ac, false)
	if code < 0 {
		return false
	}
	c.Exc = pageFault(va, code)
	return true
}

func pageFault(va uint64, code int) Exception {
	return Exception{Vec: VecPF, HasErr: true, Err: uint32(code), Address: va}
}

func (c *CPU) wrap(va uint64) uint64 {
	if c.EFER&EFERLMA == 0 {
		return va & 0xffffffff
	}
	return va
}

func (c *CPU) readPart(b []byte, pa, off uint64, ram bool) {
	if ram {
		copy(b, c.RAM.Data()[off:])
		return
	}
	for i := range b {
		b[i] = uint8(c.readDevice(pa+uint64(i), 1))
	}
}

func (c *CPU) writePart(b []byte, pa, off uint64, ram bool) {
	if ram {
		c.RAM.NoteWrite(off, len(b))
		copy(c.RAM.Data()[off:], b)
		return
	}
	for i := range b {
		c.writeDevice(pa+uint64(i), uint64(b[i]), 1)
	}
}

// readDevice splits an access that crosses an aligned 8 bytes.
func (c *CPU) readDevice(pa uint64, n int) (v uint64) {
	c.Counts.Devices++
	if int(pa%8)+n <= 8 {
		return c.Bus.ReadMMIO(c, pa, n)
	}
	for i := range n {
		v |= c.Bus.ReadMMIO(c, pa+uint64(i), 1) << (8 * i)
	}
	return v
}

func (c *CPU) writeDevice(pa uint64, v uint64, n int) {
	c.Counts.Devices++
	if int(pa%8)+n <= 8 {
		c.Bus.WriteMMIO(c, pa, n, v)
		return
	}
	for i := range n {
		c.Bus.WriteMMIO(c, pa+uint64(i), 1, v>>(8*i)&0xff)
	}
}

// check does what alignment checking and data breakpoints ask for before an access.
func (c *CPU) check(va uint64, n int, kind Access) {
	if c.mmu.align && va&uint64(n-1) != 0 && n&(n-1) == 0 {
		c.RaiseErr(VecAC, 0)
	}
	if c.mmu.breaks && kind != Fetch {
		c.touch(va, n, kind)
	}
}

// LoadBytes reads len(p) bytes of any number.
func (c *CPU) LoadBytes(va uint64, p []byte) {
	for len(p) > 0 {
		k := min(len(p), mem.PageSize-int(va%mem.PageSize))
		if s := c.HostSpan(va, k, Read); s != nil {
			copy(p, s)
			p, va = p[k:], c.wrap(va+uint64(k))
			continue
		}
		k = min(k, 8)
		for k&(k-1) != 0 {
			k &= k - 1
		}
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], c.Load(va, k))
		copy(p, b[:k])
		p, va = p[k:], c.wrap(va+uint64(k))
	}
}

// StoreBytes writes p. Preconditions: the caller has probed the range if a fault in its middle must change nothing.
func (c *CPU) StoreBytes(va uint64, p []byte) {
	for len(p) > 0 {
		k := min(len(p), mem.PageSize-int(va%mem.PageSize))
		if s := c.HostSpan(va, k, Write); s != nil {
			copy(s, p)
			p, va = p[k:], c.wrap(va+uint64(k))
			continue
		}
		k = min(k, 8)
		for k&(k-1) != 0 {
			k &= k - 1
		}
		var b [8]byte
		copy(b[:], p[:k])
		c.Store(va, binary.LittleEndian.Uint64(b[:]), k)
		p, va = p[k:], c.wrap(va+uint64(k))
	}
}

// Load reads n bytes (1, 2, 4 or 8), zero-extended.
func (c *CPU) Load(va uint64, n int) uint64 {
	switch n {
	case 1:
		return uint64(c.Load8(va))
	case 2:
		return uint64(c.Load16(va))
	case 4:
		return uint64(c.Load32(va))
	}
	return c.Load64(va)
}

// Store writes the low n bytes (1, 2, 4 or 8) of v.
func (c *CPU) Store(va uint64, v uint64, n int) {
	switch n {
	case 1:
		c.Store8(va, uint8(v))
	case 2:
		c.Store16(va, uint16(v))
	case 4:
		c.Store32(va, uint32(v))
	default:
		c.Store64(va, v)
	}
}
