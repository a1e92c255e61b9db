package x86

import (
	"encoding/binary"

	"refault/vmm/mem"
)

// The TLB is always coherent: it never says what a walk of the tables would not
// say now. So it is invisible, is no part of the saved state, and each engine may
// size and flush it as it likes. Coherence costs little because a page that a
// walk has read is flagged mem.Table: a write to it takes the slow path and comes
// to tableWrite, which forgets what the changed entry could have said. A write
// over an entry that was not present forgets nothing, since only present entries
// are ever cached.

const (
	tlbSize  = 1024
	tlbNone  = 1         // a tag that matches no page address
	itlbSize = 256       // instruction pages
	physMask = 1<<40 - 1 // MAXPHYADDR is 40
	pteAddr  = physMask &^ 0xfff

	allAddresses = 1<<64 - 1
	lowerHalf    = 1<<47 - 1
)

// Page-table entry bits (SDM Vol. 3A 4.5).
const (
	pteP   = 1 << 0
	pteW   = 1 << 1
	pteU   = 1 << 2
	pteA   = 1 << 5
	pteD   = 1 << 6
	ptePS  = 1 << 7
	pteNX  = 1 << 63
	pteRsv = (1<<52 - 1) &^ physMask
	// pteRsvPAE are reserved in PAE paging besides, and ignored in 4-level paging.
	pteRsvPAE = 0x7ff << 52
)

// Page-fault error code bits (SDM Vol. 3A 4.7).
const (
	pfP  = 1 << 0
	pfW  = 1 << 1
	pfU  = 1 << 2
	pfR  = 1 << 3 // reserved bit
	pfID = 1 << 4
)

// Views of memory: the privileges under which an access is made. Each has a TLB of its own.
const (
	viewSuper   = iota // supervisor, user pages out of reach if SMAP
	viewUser           // CPL 3
	viewSuperAC        // supervisor with EFLAGS.AC set
	viewSlow           // alignment checking or data breakpoints: always empty, so that every access is looked at
	numViews
)

// tlbEntry maps one page of linear addresses. Tags are page addresses, or tlbNone.
type tlbEntry struct {
	read, write uint64
	addend      uint64 // host address minus linear address
	_           uint64
}

type itlbEntry struct {
	tag uint64
	off uint64 // offset into RAM of the page
}

// tlbs is what the mmu keeps outside the Go heap.
type tlbs struct {
	data [numViews][tlbSize]tlbEntry
	code [2][itlbSize]itlbEntry // supervisor, user
}

// Layout tells an engine where things lie.
type Layout struct {
	// State is the address of the State; the rest are offsets from it.
	State uintptr
	// Views are the data TLBs, by CPU.View: arrays of TLBEntries entries of 32 bytes, each with the tag
	// for reading, the tag for writing (page addresses) and what makes a linear address a host address.
	Views [numViews]int
	// Engine is the engine's own EngineBytes.
	Engine int
}

// Indices into Layout.Views, and the number of entries of each.
const (
	ViewSuper   = viewSuper
	ViewUser    = viewUser
	ViewSuperAC = viewSuperAC
	// ViewSlow has no entries ever: each access has to be looked at.
	ViewSlow   = viewSlow
	NumViews   = numViews
	TLBEntries = tlbSize
)

// View returns which of the data TLBs holds under the current privilege.
func (c *CPU) View() int { return c.mmu.viewID }

// tableInfo says what the walks that read a table page used it for.
type tableInfo struct {
	va    uint64 // first linear address that the page maps, if leaf
	leaf  bool   // only ever the last level of one place in the tables
	known bool
}

type mmu struct {
	*tlbs
	view   *[tlbSize]tlbEntry // of the current privilege
	viewID int
	paging bool
	ac     bool        // supervisor accesses may reach user pages in spite of SMAP
	align  bool        // alignment is checked
	breaks bool        // data breakpoints are enabled
	tables []tableInfo // by page of RAM
	stale  int         // slow writes to table pages since the last flush
	low    bool        // viewSuper may hold entries of the lower half
}

func (m *mmu) select_(c *CPU) {
	was := m.paging
	m.paging = c.CR0&CR0PG != 0
	m.ac = c.CPL != 3 && c.RFLAGS&FlagAC != 0
	m.align = c.CPL == 3 && c.CR0&CR0AM != 0 && c.RFLAGS&FlagAC != 0
	m.breaks = c.dataBreakpoints()
	switch {
	case m.align || m.breaks:
		m.viewID = viewSlow
	case c.CPL == 3:
		m.viewID = viewUser
	case m.ac:
		m.viewID = viewSuperAC
	default:
		m.viewID = viewSuper
	}
	m.view = &m.data[m.viewID]
	if was != m.paging {
		c.FlushTLB()
	}
}

// FlushTLB forgets all translations. It is needed when a register changed that
// translation depends on (CR0, CR3, CR4, EFER), when page flags took
// permissions away, and never for what the guest writes into its tables.
func (c *CPU) FlushTLB() {
	m := &c.mmu
	for v := range m.data {
		clearTLB(&m.data[v])
	}
	m.low = false
	m.stale = 0
	c.flushCode(0, allAddresses)
}

// flushCode forgets the translations of instruction addresses first to last.
func (c *CPU) flushCode(first, last uint64) {
	for u := range c.mmu.code {
		for i := range c.mmu.code[u] {
			if e := &c.mmu.code[u][i]; e.tag >= first && e.tag <= last {
				e.tag = tlbNone
			}
		}
	}
	if c.CodeFlushed != nil {
		c.CodeFlushed(first, last)
	}
}

func clearTLB(t *[tlbSize]tlbEntry) {
	for i := range t {
		t[i].read, t[i].write = tlbNone, tlbNone
	}
}

// SetCR3 changes the root of the tables. Where the upper half of both roots is
// the same, as it is between the processes of one kernel, its translations stay.
func (c *CPU) SetCR3(v uint64) {
	old := c.CR3
	c.CR3 = v
	m := &c.mmu
	if !m.paging || c.EFER&EFERLMA == 0 {
		c.FlushTLB()
		return
	}
	if old&pteAddr == v&pteAddr {
		return // the tables are the same, and so is all that they say
	}
	a, okA := c.RAM.Offset(old & pteAddr)
	b, okB := c.RAM.Offset(v & pteAddr)
	d := c.RAM.Data()
	if m.low || !okA || !okB || string(d[a+2048:a+4096]) != string(d[b+2048:b+4096]) {
		c.FlushTLB()
		return
	}
	c.noteTable(b, 0, false)
	clearTLB(&m.data[viewUser])
	clearTLB(&m.data[viewSuperAC])
	c.flushCode(0, lowerHalf)
}

// InvalidatePage forgets one page. The TLB is coherent, so INVLPG need not call it.
func (c *CPU) invalidatePage(va uint64) {
	i := va >> mem.PageShift % tlbSize
	for v := range c.mmu.data {
		e := &c.mmu.data[v][i]
		e.read, e.write = tlbNone, tlbNone
	}
	page := va &^ (mem.PageSize - 1)
	for u := range c.mmu.code {
		if e := &c.mmu.code[u][va>>mem.PageShift%itlbSize]; e.tag == page {
			e.tag = tlbNone
		}
	}
	// The engine is told in any case: it may know the page when the entry has long made room for another.
	if c.CodeFlushed != nil {
		c.CodeFlushed(page, page+mem.PageSize-1)
	}
}

// RevokeWrite takes fast-path permissions for the page at RAM offset off away, after it got a new flag.
func (c *CPU) RevokeWrite(off uint64) {
	host := c.hostAddr(off &^ (mem.PageSize - 1))
	watched := c.RAM.Flags(off)&mem.Watched != 0
	for v := range c.mmu.data {
		for i := range c.mmu.data[v] {
			e := &c.mmu.data[v][i]
			if e.write != tlbNone && e.write+e.addend == host {
				e.write = tlbNone
			}
			if watched && e.read != tlbNone && e.read+e.addend == host {
				e.read = tlbNone
			}
		}
	}
}

// RevokeWrites takes fast-path permission to write away from all pages, after their Dirty flags were cleared.
func (c *CPU) RevokeWrites() {
	for v := range c.mmu.data {
		for i := range c.mmu.data[v] {
			c.mmu.data[v][i].write = tlbNone
		}
	}
}

// noteTable flags the page of tables at off, and remembers what it maps.
func (c *CPU) noteTable(off uint64, va uint64, leaf bool) {
	m := &c.mmu
	if m.tables == nil {
		m.tables = make([]tableInfo, c.RAM.Pages())
	}
	if c.RAM.Flags(off)&mem.Table == 0 {
		c.RAM.SetFlags(off, mem.Table)
		c.RevokeWrite(off)
	}
	t := &m.tables[off>>mem.PageShift]
	switch {
	case !t.known:
		*t = tableInfo{va: va, leaf: leaf, known: true}
	case t.leaf && (!leaf || t.va != va):
		// It served another place before: nothing may remain from there.
		c.FlushTLB()
		*t = tableInfo{va: va, leaf: leaf, known: true}
	}
	// A page that is known as an upper level stays one: the cautious choice.
}

// NoteWrite must be called before n bytes at RAM offset off change, where the
// page carries flags; mem.RAM.OnWrite does so for all processors of a machine.
func (c *CPU) NoteWrite(off uint64, n int, flags mem.Flags) {
	if flags&mem.Table != 0 {
		c.tableWrite(off, n)
	}
	if flags&mem.Code != 0 && c.CodeWritten != nil {
		c.CodeWritten(off, n)
	}
	if flags&mem.Watched != 0 && c.Watch != nil {
		c.Watch(off, n, Write)
	}
}

// tableWrite forgets what the entries that are about to change may have said.
func (c *CPU) tableWrite(off uint64, n int) {
	m := &c.mmu
	page := c.RAM.Page(int(off >> mem.PageShift))
	var t tableInfo
	if m.tables != nil {
		t = m.tables[off>>mem.PageShift]
	}
	size := uint64(8)
	long := c.CR4&CR4PAE != 0
	if !long {
		size = 4
	}
	first := off % mem.PageSize / size
	last := (off%mem.PageSize + uint64(n) - 1) / size
	for i := first; i <= last; i++ {
		if page[i*size]&pteP == 0 {
			continue
		}
		if !t.known || !t.leaf || !long {
			c.forgetTables(off)
			return
		}
		c.invalidatePage(signExtend48(t.va + i<<mem.PageShift))
	}
	// A page that was a table once and now holds data would be slow for ever.
	if m.stale++; m.stale > 4096 {
		c.forgetTables(off)
	}
}

// forgetTables flushes, and then takes the flag from one page, which the next walk that reads it puts back.
func (c *CPU) forgetTables(off uint64) {
	c.FlushTLB()
	// Every processor of the machine must agree before a flag is dropped; with
	// the flag kept, the others stay coherent.
	c.mmu.tables[off>>mem.PageShift] = tableInfo{}
	c.RAM.ClearFlags(off, mem.Table)
}

func signExtend48(v uint64) uint64 { return uint64(int64(v<<16) >> 16) }

// Canonical reports whether va is a canonical 48-bit address.
func Canonical(va uint64) bool { return signExtend48(va) == va }

// page is what a walk found.
type page struct {
	pa       uint64 // physical address of the byte asked for
	writable bool   // with the permissions of the access's view, and the dirty bit is set
}

// walk translates va as the tables say now, sets accessed and dirty bits, and
// raises #PF where the access is not allowed (SDM Vol. 3A 4.3 to 4.7).
func (c *CPU) walk(va uint64, kind Access, user, ac bool) page {
	if !c.mmu.paging {
		return page{pa: va & 0xffffffff, writable: true}
	}
	p, code := c.tryWalk(va, kind, user, ac, true)
	if code >= 0 {
		c.Exc = Exception{Vec: VecPF, HasErr: true, Err: uint32(code), Address: va}
		panic(fault)
	}
	return p
}

// tryWalk is walk without its exception: code is the #PF error code, or -1.
// With touch it sets accessed and dirty bits.
func (c *CPU) tryWalk(va uint64, kind Access, user, ac bool, touch bool) (p page, code int) {
	errCode := 0
	if kind == Write {
		errCode |= pfW
	}
	if user {
		errCode |= pfU
	}
	if kind == Fetch && (c.EFER&EFERNXE != 0 && c.CR4&CR4PAE != 0 || c.CR4&CR4SMEP != 0) {
		errCode |= pfID
	}

	var table uint64
	var levels, width uint // width: index bits a level
	size := uint64(8)
	perms := uint64(pteW | pteU)
	nx := uint64(0)
	switch {
	case c.EFER&EFERLMA != 0:
		table, levels, width = c.CR3&pteAddr, 4, 9
	case c.CR4&CR4PAE != 0:
		e := c.PDPTE[va>>30&3]
		if e&pteP == 0 {
			return p, errCode
		}
		table, levels, width = e&pteAddr, 2, 9
		va &= 0xffffffff
	default:
		table, levels, width, size = c.CR3&0xfffff000, 2, 10, 4
		va &= 0xffffffff
	}

	// The chain of entries is checked whole before any is marked accessed.
	var at [4]uint64
	var entry [4]uint64
	n := 0
	shift := uint(mem.PageShift) + (levels-1)*width
	var frame, pageMask uint64
	for level := levels; ; level-- {
		ea := table + va>>shift&(1<<width-1)*size
		off, ok := c.RAM.Offset(ea)
		if !ok {
			return p, errCode // tables outside RAM read as not present
		}
		if touch {
			c.noteTable(off, va&^(1<<(shift+width)-1), level == 1)
			if c.Watch != nil && c.RAM.Flags(off)&mem.Watched != 0 {
				c.Watch(off, int(size), Walk)
			}
		}
		var e uint64
		if size == 8 {
			e = binary.LittleEndian.Uint64(c.RAM.Data()[off:])
		} else {
			e = uint64(binary.LittleEndian.Uint32(c.RAM.Data()[off:]))
		}
		if e&pteP == 0 {
			return p, errCode
		}
		at[n], entry[n] = off, e
		n++
		if size == 8 {
			rsv := uint64(pteRsv)
			if c.EFER&EFERLMA == 0 {
				rsv |= pteRsvPAE
			}
			if c.EFER&EFERNXE == 0 {
				rsv |= pteNX
			}
			if level == 4 {
				rsv |= ptePS
			}
			if e&rsv != 0 {
				return p, errCode | pfP | pfR
			}
		}
		perms &= e
		nx |= e & pteNX
		large := level > 1 && level < 4 && e&ptePS != 0 && (size == 8 || c.CR4&CR4PSE != 0)
		if level == 1 || large {
			pageMask = 1<<shift - 1
			frame = e & pteAddr &^ pageMask
			if size == 4 && large {
				if e>>21&1 != 0 { // PSE-36 has 40 bits of address
					return p, errCode | pfP | pfR
				}
				frame = e&0xffc00000 | e>>13&0xff<<32 // PSE-36
			}
			if size == 8 && large && e&pteAddr&pageMask&^(1<<12) != 0 {
				return p, errCode | pfP | pfR
			}
			break
		}
		table = e & pteAddr
		shift -= width
	}

	bad := false
	wp := c.CR0&CR0WP != 0
	userPage := perms&pteU != 0
	writable := perms&pteW != 0
	switch {
	case user:
		bad = !userPage || kind == Write && !writable || kind == Fetch && nx != 0
	default:
		writable = writable || !wp
		smap := userPage && kind != Fetch && c.CR4&CR4SMAP != 0 && !ac
		smep := userPage && kind == Fetch && c.CR4&CR4SMEP != 0
		bad = smap || smep || kind == Write && !writable || kind == Fetch && nx != 0
	}
	if bad {
		return p, errCode | pfP
	}

	if touch {
		for i := range n {
			want := entry[i] | pteA
			if i == n-1 && kind == Write {
				want |= pteD
			}
			if want != entry[i] {
				c.setEntry(at[i], want, size)
			}
			entry[i] = want
		}
	}
	p.pa = frame | va&pageMask
	p.writable = writable && entry[n-1]&pteD != 0
	return p, -1
}

// setEntry stores a table entry whose accessed or dirty bit the processor sets.
// That changes no translation, so the TLB need not hear of it; the others do.
func (c *CPU) setEntry(off, v uint64, size uint64) {
	if f := c.RAM.Flags(off); f&(mem.Code|mem.Watched) != 0 {
		c.NoteWrite(off, int(size), f&^mem.Table)
	}
	c.RAM.SetDirty(off)
	if size == 8 {
		binary.LittleEndian.PutUint64(c.RAM.Data()[off:], v)
	} else {
		binary.LittleEndian.PutUint32(c.RAM.Data()[off:], uint32(v))
	}
}

// Translate returns the physical address of va as the current privilege would read it, without
// side effects; ok is false where nothing is mapped. Debuggers and injectors use it.
func (c *CPU) Translate(va uint64) (pa uint64, ok bool) {
	if !c.mmu.paging {
		return va & 0xffffffff, true
	}
	if c.EFER&EFERLMA != 0 && !Canonical(va) {
		return 0, false
	}
	p, code := c.tryWalk(va, Read, false, true, false)
	return p.pa, code < 0
}

// FetchPage translates the page of instruction address va (linear) and returns its offset
// into RAM. ok is false where the instruction bytes are not in RAM. It raises #PF.
func (c *CPU) FetchPage(va uint64) (off uint64, ok bool) {
	user := 0
	if c.CPL == 3 {
		user = 1
	}
	tag := va &^ (mem.PageSize - 1)
	e := &c.mmu.code[user][va>>mem.PageShift%itlbSize]
	if e.tag == tag {
		return e.off, true
	}
	p := c.walk(va, Fetch, user == 1, true)
	off, ok = c.RAM.Offset(p.pa &^ (mem.PageSize - 1))
	if ok && c.RAM.Flags(off)&mem.Watched == 0 && !c.ObservesCode(va) {
		*e = itlbEntry{tag, off}
	}
	return off, ok
}

// CodeOffset is FetchPage for an engine that only wants to know what is known: it returns the
// offset into RAM of instruction address va, and not ok where a fetch would have to walk the tables.
func (c *CPU) CodeOffset(va uint64) (off uint64, ok bool) {
	user := 0
	if c.CPL == 3 {
		user = 1
	}
	e := &c.mmu.code[user][va>>mem.PageShift%itlbSize]
	return e.off + va%mem.PageSize, e.tag == va&^(mem.PageSize-1)
}
