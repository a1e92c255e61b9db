package x86

import (
	"encoding/binary"

	"refault/vmm/mem"
)

// Hooks for whoever looks at a processor from outside: triggers of faults, faults of
// the processor's own logic, debuggers. All of them hang on the slow paths. Where an
// Observer wants to see data, translations of the pages are not cached, so every access
// there comes to loadSlow and storeSlow. Where it wants to see instructions, the engines end
// their blocks, and what begins at an observed address is executed alone, by the
// interpreter's careful decoder. Nothing else pays, except that
// accesses beside what is looked at, on the same page, go by TLB entries of their own kind.

// never is a step that does not come.
const never = 1<<64 - 1

// Span is a range of addresses, both ends included.
type Span struct{ First, Last uint64 }

// Overlaps reports whether any address from first to last is in s.
func (s Span) Overlaps(first, last uint64) bool { return first <= s.Last && s.First <= last }

// nowhere is a span of which no linear address or offset into RAM is.
var nowhere = Span{1 << 62, 1 << 62}

// Hull returns the smallest span that holds others.
func Hull(spans []Span) Span {
	if len(spans) == 0 {
		return nowhere
	}
	h := spans[0]
	for _, s := range spans[1:] {
		h.First, h.Last = min(h.First, s.First), max(h.Last, s.Last)
	}
	return h
}

func overlap(spans []Span, first, last uint64) bool {
	for _, s := range spans {
		if s.Overlaps(first, last) {
			return true
		}
	}
	return false
}

// Observer says what is to be looked at. Its functions may be nil.
type Observer struct {
	// Data are the linear addresses on whose pages loads and stores are to be looked at; Access is called before each.
	Data   []Span
	Access func(va uint64, n int, kind Access)
	// Code are the linear addresses at which instructions are to be looked at that begin there.
	Code []Span
	// Fetched may change bytes at la that were fetched for decoding: the processor sees what memory does not hold.
	Fetched func(la uint64, code []byte)
	// Before is called before the instruction at la, and After when it has retired. Before may Abandon it.
	Before func(la uint64, in *Inst)
	After  func(in *Inst)
}

// SetObserver sets what is to be looked at from the next instruction on; nil looks at nothing.
// The Observer does not change meanwhile.
func (c *CPU) SetObserver(p *Observer) {
	c.observer = p
	c.dataHull = nowhere
	if p != nil {
		c.dataHull = Hull(p.Data)
	}
	c.FlushTLB()
	c.flushFetch()
}

// Observed reports whether anything is looked at.
func (c *CPU) Observed() bool { return c.observer != nil }

// Abandon unwinds the instruction that is executing, as an exception would and without
// one: nothing of it has happened, and the machine looks at the boundary before it once
// more. It does not return. Where an exception or interrupt is being delivered, that is lost.
func (c *CPU) Abandon() {
	c.Exc = Exception{abandoned: true}
	panic(fault)
}

// Abandoned reports whether the exception that was raised last is none: the instruction was abandoned.
func (c *CPU) Abandoned() bool { return c.Exc.abandoned }

// ObservedCode returns the linear addresses at which instructions are to be looked at. The caller changes nothing.
func (c *CPU) ObservedCode() []Span {
	if c.observer == nil {
		return nil
	}
	return c.observer.Code
}

// ObservesCode reports whether an instruction that begins at linear addresses first to last is to be looked at.
func (c *CPU) ObservesCode(first, last uint64) bool {
	return c.observer != nil && overlap(c.observer.Code, first, last)
}

// ObserverFor returns the observer that wants to see the instruction at la, or nil.
func (c *CPU) ObserverFor(la uint64) *Observer {
	if !c.ObservesCode(la, la) {
		return nil
	}
	return c.observer
}

// observesData reports whether accesses to the page at va are to be looked at.
func (c *CPU) observesData(va uint64) bool {
	return c.observer != nil && overlap(c.observer.Data, va&^(mem.PageSize-1), va|(mem.PageSize-1))
}

// beside returns the offset into RAM of an access to a page with something on it that is looked at, if the access is not
// to that and the TLB grants it.
func (c *CPU) beside(va uint64, n int, kind Access) (off uint64, ok bool) {
	e := &c.mmu.view[va>>mem.PageShift%tlbSize]
	d := e.tag ^ va&^tagFlags
	if kind != Write {
		d &^= tagReadOnly | tagNoted
	}
	if d != lookedTag {
		return 0, false
	}
	off = e.addend + va - c.hostAddr(0)
	last := uint64(n) - 1
	if c.dataHull.Overlaps(va, va+last) || c.Watch != nil && c.WatchHull.Overlaps(off, off+last) {
		return 0, false
	}
	return off, c.RAM.Flags(off)&mem.Watched != 0 || c.observesData(va)
}

// Looked returns where loads and stores are looked at, as linear and as host addresses, for an engine that
// grants those beside by the TLB's entries for them (LookedTag).
func (c *CPU) Looked() (linear, host Span) {
	if c.Watch == nil {
		return c.dataHull, nowhere
	}
	base := c.hostAddr(0)
	return c.dataHull, Span{base + c.WatchHull.First, base + c.WatchHull.Last}
}

// TranslateIn is Translate in the address space of another CR3.
func (c *CPU) TranslateIn(cr3, va uint64) (pa uint64, ok bool) {
	own := c.CR3
	c.CR3 = cr3
	defer func() { c.CR3 = own }()
	return c.Translate(va)
}

// TableEntry returns the physical address of the entry that maps va in the tables of 4-level paging at
// cr3: level 1 is that of a 4 KiB page, 4 the top. ok is false where the tables do not reach so far.
func (c *CPU) TableEntry(cr3, va uint64, level int) (pa uint64, ok bool) {
	table := cr3 & pteAddr
	for l := 4; ; l-- {
		pa = table + va>>(12+9*uint(l-1))&511*8
		var b [8]byte
		if !c.RAM.ReadAt(b[:], pa) {
			return 0, false
		}
		e := binary.LittleEndian.Uint64(b[:])
		switch {
		case l == level:
			return pa, true
		case e&pteP == 0 || l < 4 && e&ptePS != 0:
			return 0, false
		}
		table = e & pteAddr
	}
}

// LinearRIP returns the linear address of the next instruction.
func (c *CPU) LinearRIP() uint64 {
	if c.CodeSize() == 8 {
		return c.Regs[RIP]
	}
	return (c.Seg[CS].Base + c.Regs[RIP]) & 0xffffffff
}
