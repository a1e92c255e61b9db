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
	tlbSize  = 32768
	tlbNone  = 1         // a tag of code that matches no page address
	itlbSize = 2048      // instruction pages
	physMask = 1<<40 - 1 // MAXPHYADDR is 40
	pteAddr  = physMask &^ 0xfff

	allAddresses = 1<<64 - 1
	LowerHalf    = 1<<47 - 1
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
	viewUser    = iota // CPL 3
	viewSuper          // supervisor, user pages out of reach if SMAP
	viewSuperAC        // supervisor with EFLAGS.AC set
	viewSlow           // alignment checking or data breakpoints: always empty, so that every access is looked at
	numViews
)

// tlbEntry maps one page of linear addresses. Its tag is the page's address, with flags in the low bits: an access
// that reads compares all but those, one that writes compares all. A cache line holds four entries.
type tlbEntry struct {
	tag    uint64
	addend uint64 // host address minus linear address
}

// Flags of a tag.
const (
	tagReadOnly = 1 << iota // writes are not granted
	tagNoted                // with tagReadOnly: but those that NoteWrite hears of, since the page is a table or holds code
	tagLooked               // the entry is good only beside what is looked at (beside); its address is that of the page's neighbour
	tagEmpty                // of no page; its address is that of another entry's page

	tagFlags = mem.PageSize - 1
	// lookedTag is what the tag of an entry that grants accesses beside what is looked at differs in from the page's address.
	lookedTag = mem.PageSize | tagLooked
	// emptyTag is what the tag of an empty entry differs in from the address of the first of its pages.
	emptyTag = 2*mem.PageSize | tagEmpty
)

// forget empties the entry, which is the i-th of its view.
func (e *tlbEntry) forget(i uint64) { e.tag = i%tlbSize<<mem.PageShift ^ emptyTag }

func (e *tlbEntry) empty() bool { return e.tag&tagEmpty != 0 }

// page returns the page of an entry that is not empty.
func (e *tlbEntry) page() uint64 {
	if e.tag&tagLooked != 0 {
		return e.tag&^tagFlags ^ mem.PageSize
	}
	return e.tag &^ tagFlags
}

// says reports whether the entry says something of linear addresses from first to last.
func (e *tlbEntry) says(first, last uint64) bool {
	return !e.empty() && e.page() >= first && e.page() <= last
}

// reads and writes report whether the entry grants reading or writing at va.
func (e *tlbEntry) reads(va uint64) bool  { return (e.tag^va)&^tagFlags == 0 }
func (e *tlbEntry) writes(va uint64) bool { return e.tag == va&^tagFlags }

// notes reports whether the entry grants writes at va that NoteWrite hears of.
func (e *tlbEntry) notes(va uint64) bool { return e.tag == va&^tagFlags|tagReadOnly|tagNoted }

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
	// Views are the data TLBs, by CPU.View: arrays of TLBEntries entries of TLBEntryBytes bytes, each with a tag, which is the page's
	// address where writing is granted, too, and differs from it in the low 12 bits where it is not, and what makes a linear
	// address a host address.
	Views [numViews]int
	// Engine is the engine's own EngineBytes.
	Engine int
}

// Indices into Layout.Views, and the number of entries of each.
const (
	ViewUser    = viewUser
	ViewSuper   = viewSuper
	ViewSuperAC = viewSuperAC
	// ViewSlow has no entries ever: each access has to be looked at.
	ViewSlow   = viewSlow
	NumViews   = numViews
	TLBEntries = tlbSize
	// TLBEntryBytes is the size of each.
	TLBEntryBytes = 16
	// LookedTag is what the tag of an entry that is good only for accesses beside what is looked at differs in from the page's
	// address; where it does not grant writing, it differs in more of the low 12 bits.
	LookedTag = lookedTag
)

// View returns which of the data TLBs holds under the current privilege.
func (c *CPU) View() int { return c.mmu.viewID }

// tableInfo says what the walks that read a table page used it for.
type tableInfo struct {
	va     uint64 // first linear address that the page maps
	level  uint8  // 1 for the last; 0 where it is not known
	writes uint16 // since a walk read it
	epoch  uint64 // of the space whose walk read it last
}

// granters are the entries that may grant writes to a page, each plus one, without gaps: a kernel's own mapping, that of
// a process, what the kernel reaches that by. The first is grantsMany where there are more.
type granters [4]uint32

const grantsMany = 1<<32 - 1

// writesMax is how often a table is written before it must prove that it is one, by being walked.
const writesMax = 2048

// span returns the linear addresses that an entry at a level maps, less one.
func span(level uint8) uint64 { return 1<<(mem.PageShift+9*(level-1)) - 1 }

type mmu struct {
	*tlbs
	view   *[tlbSize]tlbEntry // of the current privilege
	viewID int
	paging bool
	ac     bool        // supervisor accesses may reach user pages in spite of SMAP
	align  bool        // alignment is checked
	breaks bool        // data breakpoints are enabled
	tables []tableInfo // by page of RAM
	low    bool        // viewSuper may hold entries of the lower half
	filled [numViews]filled

	filledLow  filled // entries of viewSuper that may hold something of the lower half
	filledCode [2]filled
	lowCode    bool       // the supervisor's part of code may hold entries of the lower half
	grants     []granters // by page of RAM

	epoch   uint64 // of the space in use
	epochs  uint64 // counts changes of space
	spaces  [spacesMax]space
	revoked uint64 // counts the times that permissions to write were taken away
}

// filled lists the entries of a table that hold something, so that most of it can
// be forgotten without looking at all of it. An entry may be listed twice.
type filled struct {
	at [4096]uint16
	n  int // beyond the array: too many to list
}

func (f *filled) add(i uint64) {
	if f.n < len(f.at) {
		f.at[f.n] = uint16(i)
	}
	f.n++
}

// sweep calls keep for all entries that hold something, and goes on listing those for which it reports true.
func (f *filled) sweep(size int, keep func(i int) bool) {
	if f.n > len(f.at) {
		f.n = 0
		for i := range size {
			if keep(i) {
				f.add(uint64(i))
			}
		}
		return
	}
	listed := f.at[:f.n]
	f.n = 0
	for _, i := range listed {
		if keep(int(i)) {
			f.add(uint64(i))
		}
	}
}

// init takes over zeroed memory, which says something, and which Reset has to clear.
func (m *mmu) init(t *tlbs) {
	m.tlbs = t
	for v := range m.filled {
		m.filled[v].n = len(m.filled[v].at) + 1
	}
	for u := range m.filledCode {
		m.filledCode[u].n = len(m.filledCode[u].at) + 1
	}
}

// forgetData forgets what a view says of linear addresses first to last.
func (m *mmu) forgetData(v int, first, last uint64) {
	t := &m.data[v]
	m.filled[v].sweep(tlbSize, func(i int) bool {
		e := &t[i]
		if e.says(first, last) {
			e.forget(uint64(i))
		}
		return !e.empty()
	})
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
	c.Counts.Flushes++
	for v := range m.data {
		m.forgetData(v, 0, allAddresses)
	}
	m.low, m.filledLow.n = false, 0
	m.giveUpAll()
	m.newEpoch()
	c.flushCode(0, allAddresses)
}

// flushCode forgets the translations of instruction addresses first to last.
func (c *CPU) flushCode(first, last uint64) {
	for u := range c.mmu.code {
		t := &c.mmu.code[u]
		if n := (last - first) >> mem.PageShift; n < 64 {
			for i := range n + 1 {
				if e := &t[(first>>mem.PageShift+i)%itlbSize]; e.tag >= first && e.tag <= last {
					e.tag = tlbNone
				}
			}
			continue
		}
		if u == 0 && last <= LowerHalf && !c.mmu.lowCode {
			continue
		}
		c.mmu.filledCode[u].sweep(itlbSize, func(i int) bool {
			e := &t[i]
			if e.tag >= first && e.tag <= last {
				e.tag = tlbNone
			}
			return e.tag != tlbNone
		})
	}
	if first == 0 && last >= LowerHalf {
		c.mmu.lowCode = false
	}
	if c.CodeFlushed != nil {
		c.CodeFlushed(first, last)
	}
}

// SetCR3 changes the root of the tables. Where the upper half of both roots is
// the same, as it is between the processes of one kernel, its translations stay, and
// those of the lower half are kept for when they are needed again.
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
	c.Counts.Roots++
	a, okA := c.RAM.Offset(old & pteAddr)
	b, okB := c.RAM.Offset(v & pteAddr)
	d := c.RAM.Data()
	if !okA || !okB || string(d[a+2048:a+4096]) != string(d[b+2048:b+4096]) {
		c.FlushTLB()
		return
	}
	left := m.epoch
	m.leaveSpace(old & pteAddr)
	m.enterSpace(v & pteAddr)
	c.noteTable(b, 0, 4)
	switch {
	case c.SpaceChanged != nil:
		c.SpaceChanged(left, m.epoch)
	case c.CodeFlushed != nil:
		c.CodeFlushed(0, LowerHalf)
	}
}

// flushRange forgets the linear addresses first to last, which are whole pages.
func (c *CPU) flushRange(first, last uint64) {
	m := &c.mmu
	if last-first >= 1<<47 {
		c.FlushTLB()
		return
	}
	c.Counts.RangeFlushes++
	for v := range viewSlow { // that one is empty
		if v == viewSuper && last <= LowerHalf && !m.low {
			continue
		}
		if n := (last - first) >> mem.PageShift; n < uint64(min(1024, m.filled[v].n)) {
			for i := first >> mem.PageShift; i <= first>>mem.PageShift+n; i++ {
				if e := &m.data[v][i%tlbSize]; e.says(first, last) {
					e.forget(i)
				}
			}
			continue
		}
		m.forgetData(v, first, last)
	}
	c.flushCode(first, last)
}

// InvalidatePage forgets one page. The TLB is coherent, so INVLPG need not call it.
func (c *CPU) invalidatePage(va uint64) {
	c.Counts.PageFlushes++
	page := va &^ (mem.PageSize - 1)
	for v := range c.mmu.data {
		if e := &c.mmu.data[v][va>>mem.PageShift%tlbSize]; e.says(page, page) {
			e.forget(va >> mem.PageShift)
		}
	}
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
	m := &c.mmu
	host := c.hostAddr(off &^ (mem.PageSize - 1))
	watched := c.RAM.Flags(off)&mem.Watched != 0
	revoke := func(v, i int) {
		e := &m.data[v][i]
		switch {
		case e.empty() || e.page()+e.addend != host:
		case watched:
			e.forget(uint64(i))
		case e.tag&tagReadOnly == 0:
			e.tag |= tagReadOnly | tagNoted
		}
	}
	m.revoked++
	if watched {
		m.giveUpAll()
	}
	g := m.grants[off>>mem.PageShift]
	m.grants[off>>mem.PageShift] = granters{}
	if g[0] == grantsMany || watched {
		for v := range m.data {
			m.filled[v].sweep(tlbSize, func(i int) bool {
				revoke(v, i)
				return !m.data[v][i].empty()
			})
		}
		return
	}
	for _, i := range g {
		if i != 0 {
			revoke(int(i-1)/tlbSize, int(i-1)%tlbSize)
		}
	}
}

// noteGrant notes that entry i of the current view grants writes to the page at off.
func (m *mmu) noteGrant(off uint64, i uint32) {
	g := &m.grants[off>>mem.PageShift]
	i += uint32(m.viewID)*tlbSize + 1
	for k := range g {
		switch g[k] {
		case 0:
			g[k] = i
			return
		case i, grantsMany:
			return
		}
	}
	g[0] = grantsMany
}

// RevokeWrites takes fast-path permission to write to pages of RAM away, after their Dirty flags were cleared.
func (c *CPU) RevokeWrites(pages []uint32) {
	m := &c.mmu
	m.revoked++
	many := false
	for _, n := range pages {
		g := &m.grants[n]
		if g[0] == grantsMany {
			many = true
			*g = granters{}
			continue
		}
		for k, i := range g {
			if i == 0 {
				break
			}
			m.data[(i-1)/tlbSize][(i-1)%tlbSize].tag |= tagReadOnly // it may be another page's by now: that is only asked for once more
			g[k] = 0
		}
	}
	if !many {
		return
	}
	for v := range m.data {
		t := &m.data[v]
		m.filled[v].sweep(tlbSize, func(i int) bool {
			t[i].tag |= tagReadOnly
			return !t[i].empty()
		})
	}
}

// noteTable flags the page of tables at off, and remembers what it maps.
func (c *CPU) noteTable(off uint64, va uint64, level uint8) {
	m := &c.mmu
	if level == 4 {
		va = 0 // a root maps both halves
	}
	if m.tables == nil {
		m.tables = make([]tableInfo, c.RAM.Pages())
	}
	if c.RAM.Flags(off)&mem.Table == 0 {
		c.RAM.SetFlags(off, mem.Table)
		c.RevokeWrite(off)
	}
	t := &m.tables[off>>mem.PageShift]
	if t.level != 0 && (t.level != level || t.va != va) {
		// It served another place before: nothing may remain from there.
		c.flushTable(t)
	}
	if t.level != 0 && t.va <= LowerHalf && t.epoch != m.epoch {
		m.giveUp(t.epoch)
	}
	*t = tableInfo{va: va, level: level, epoch: m.epoch}
}

// flushTable forgets all that a table may have said.
func (c *CPU) flushTable(t *tableInfo) {
	if t.level == 0 || t.level > 3 || c.CR4&CR4PAE == 0 {
		c.FlushTLB()
		return
	}
	c.flushRange(t.va, t.va+512*(span(t.level)+1)-1)
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
	if m.tables == nil {
		m.tables = make([]tableInfo, c.RAM.Pages())
	}
	t := &m.tables[off>>mem.PageShift]
	if c.LongMode() && c.idle(off, t) {
		m.giveUp(t.epoch)
		*t = tableInfo{}
		c.RAM.ClearFlags(off, mem.Table)
		return
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
		switch {
		case t.level == 0 || !long:
			c.forgetTable(off, t)
			return
		case t.level == 1:
			c.invalidatePage(t.va + i<<mem.PageShift)
		default:
			va := signExtend48(t.va + i*(span(t.level)+1))
			c.flushRange(va, va+span(t.level))
			t.writes += writesMax / 8 // a flush costs more than the next walk that notes the table again
		}
	}
	// A page that was a table once and now holds data would be slow for ever.
	if t.writes++; t.writes > writesMax {
		c.forgetTable(off, t)
	}
}

// idle reports whether nothing that a table of 4-level paging said is in the TLBs now. A
// root that is not in use says nothing: when it came out of use the lower half was
// forgotten, and SetCR3 compares the upper one. The same goes for tables below it
// that no walk of this space has read.
func (c *CPU) idle(off uint64, t *tableInfo) bool {
	if t.level == 4 {
		root, ok := c.RAM.Offset(c.CR3 & pteAddr)
		return ok && root != off&^(mem.PageSize-1)
	}
	return t.level != 0 && t.va <= LowerHalf && t.epoch != c.mmu.epoch
}

// forgetTable forgets what a table may have said, and takes the flag from its page, which the next walk that reads it puts back.
func (c *CPU) forgetTable(off uint64, t *tableInfo) {
	c.flushTable(t)
	// Every processor of the machine must agree before a flag is dropped; with
	// the flag kept, the others stay coherent.
	*t = tableInfo{}
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
		c.Exc = pageFault(va, code)
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
			c.noteTable(off, va&^(1<<(shift+width)-1), uint8(level))
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
	c.Counts.FetchMisses++
	p := c.walk(va, Fetch, user == 1, true)
	off, ok = c.RAM.Offset(p.pa &^ (mem.PageSize - 1))
	if ok && c.RAM.Flags(off)&mem.Watched == 0 {
		c.mmu.setCode(user, e, itlbEntry{tag, off})
	}
	return off, ok
}

func (m *mmu) setCode(user int, e *itlbEntry, v itlbEntry) {
	if e.tag == tlbNone {
		m.filledCode[user].add(v.tag >> mem.PageShift % itlbSize)
	}
	*e = v
	m.lowCode = m.lowCode || user == 0 && v.tag <= LowerHalf
}

// CodeOffset is FetchPage for an engine that fetches nothing yet: it returns the offset
// into RAM of instruction address va, and not ok where a fetch would raise an exception or not be from plain RAM.
func (c *CPU) CodeOffset(va uint64) (off uint64, ok bool) {
	user := 0
	if c.CPL == 3 {
		user = 1
	}
	e := &c.mmu.code[user][va>>mem.PageShift%itlbSize]
	page := va &^ (mem.PageSize - 1)
	if e.tag == page {
		return e.off + va%mem.PageSize, true
	}
	if !Canonical(va) || !c.mmu.paging || c.Watch != nil { // who watches a table may abandon what walks it
		return 0, false
	}
	c.Counts.FetchMisses++
	p, code := c.tryWalk(page, Fetch, user == 1, true, true)
	if code >= 0 {
		return 0, false
	}
	off, ok = c.RAM.Offset(p.pa)
	if !ok || c.RAM.Flags(off)&mem.Watched != 0 {
		return 0, false
	}
	c.mmu.setCode(user, e, itlbEntry{page, off})
	return off + va%mem.PageSize, true
}
