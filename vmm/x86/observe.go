package x86

import "encoding/binary"

// Hooks for whoever looks at a processor from outside: triggers of faults, faults of
// the processor's own logic, debuggers. All of them hang on the slow paths: on a
// page of linear addresses that an Observer wants to see, translations are not cached,
// so every access and every instruction there comes to loadSlow, storeSlow and the
// interpreter's careful decoder. Nothing else pays.

// never is a step that does not come.
const never = 1<<64 - 1

// Observer says what is to be looked at. Its functions may be nil.
type Observer struct {
	// Data reports whether loads and stores on a page of linear addresses are to be looked at; Access is called before each.
	Data   func(page uint64) bool
	Access func(va uint64, n int, kind Access)
	// Code is Data for instructions, which are executed one by one there.
	Code func(page uint64) bool
	// Fetched may change bytes at la that were fetched for decoding: the processor sees what memory does not hold.
	Fetched func(la uint64, code []byte)
	// Before is called before the instruction at la, and After when it has retired. Before may Abandon it.
	Before func(la uint64, in *Inst)
	After  func(in *Inst)
}

// SetObserver sets what is to be looked at from the next instruction on; nil looks at nothing.
// Whoever changes what an Observer's Data or Code report calls it again.
func (c *CPU) SetObserver(p *Observer) {
	c.observer = p
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

// ObservesCode reports whether the instructions on the page of linear address la are to be looked at.
func (c *CPU) ObservesCode(la uint64) bool {
	return c.observer != nil && c.observer.Code != nil && c.observer.Code(la&^0xfff)
}

// ObserverFor returns the observer that wants to see the instruction at la, or nil.
func (c *CPU) ObserverFor(la uint64) *Observer {
	if !c.ObservesCode(la) {
		return nil
	}
	return c.observer
}

// observesData reports whether accesses to the page at va are to be looked at.
func (c *CPU) observesData(va uint64) bool {
	return c.observer != nil && c.observer.Data != nil && c.observer.Data(va&^0xfff)
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
