package x86

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"refault/vmm/mem"
)

// The TLB must never say what the tables do not say now. Here tables change at random, by stores through
// the very translations that they make, by writes to physical memory and by switches of root and privilege, and
// every access is compared with a walk that knows no TLB, on a copy of memory.

type nullBus struct{}

func (nullBus) ReadMMIO(*CPU, uint64, int) uint64   { return 0 }
func (nullBus) WriteMMIO(*CPU, uint64, int, uint64) {}
func (nullBus) In(*CPU, uint16, int) uint32         { return 0 }
func (nullBus) Out(*CPU, uint16, int, uint32)       {}
func (nullBus) ReadMSR(*CPU, uint32) (uint64, bool) { return 0, false }
func (nullBus) WriteMSR(*CPU, uint32, uint64) bool  { return false }
func (nullBus) ReadCR8(*CPU) uint64                 { return 0 }
func (nullBus) WriteCR8(*CPU, uint64)               {}
func (nullBus) TSC(*CPU) uint64                     { return 0 }
func (nullBus) Random(*CPU) uint64                  { return 0 }

const (
	mmuRAM    = 4 << 20
	mmuTables = 0x100000 // pages that are tables, of any level, some of them of several
	mmuCount  = 13
	mmuRoot2  = 12 // a second root: its upper half is that of the first
)

type mmuTest struct {
	*rand.Rand
	c    *CPU
	copy []byte // of RAM, for the reference
	log  []string
	// tree: each table serves one level and one place, as in a kernel; otherwise any table serves anywhere.
	tree bool
}

func newMMUTest(t *testing.T, seed uint64) *mmuTest {
	ram, err := mem.New(mmuRAM)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCPU(0, ram, nullBus{})
	if err != nil {
		t.Fatal(err)
	}
	ram.OnWrite = c.NoteWrite
	t.Cleanup(func() { c.Close(); ram.Close() })
	m := &mmuTest{Rand: rand.New(rand.NewPCG(seed, 7)), c: c, copy: make([]byte, mmuRAM), tree: seed%2 == 1}
	for i := range m.copy {
		m.copy[i] = byte(i>>12*7 + i)
	}
	clear(m.copy[mmuTables : mmuTables+mmuCount*mem.PageSize])
	ram.WriteAt(m.copy[:0xa0000], 0)
	ram.WriteAt(m.copy[0xc0000:], 0xc0000)
	clear(m.copy[0xa0000:0xc0000])
	c.CR0 = CR0PE | CR0PG | CR0WP | CR0ET
	c.CR4 = CR4PAE
	c.EFER = EFERLME | EFERLMA | EFERNXE
	c.Seg[CS].Attr |= SegL
	c.CR3 = mmuTables
	c.ModeChanged()
	c.FlushTLB()
	for range 400 {
		m.changeEntry()
	}
	return m
}

func (m *mmuTest) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

// index is one of few, so that tables meet.
func (m *mmuTest) index() uint64 { return [...]uint64{0, 1, 2, 255, 256, 511}[m.IntN(6)] }

func (m *mmuTest) va() uint64 {
	va := m.index()<<39 | m.index()<<30 | m.index()<<21 | m.index()<<12
	if m.tree && m.IntN(10) != 0 { // where there are tables
		va = uint64(m.IntN(2))*511<<39 | uint64(m.IntN(2))<<30 | uint64(m.IntN(2))<<21 | uint64(m.IntN(3))<<12
	}
	va = signExtend48(va | uint64(m.IntN(mem.PageSize)))
	if m.IntN(8) == 0 {
		va |= 0xff0 + uint64(m.IntN(16)) // across the border
	}
	return va
}

// entry makes an entry for the slot at pa, if that is known.
func (m *mmuTest) entry(pa uint64) uint64 {
	e := mmuTables + uint64(m.IntN(mmuCount))<<12
	kind := m.IntN(4)
	if m.tree {
		// Table 0 is the root, of which slot 0 and 511 have tables 1 and 2; those have 3 to 6, and those 7 to 11.
		switch page, slot := (pa-mmuTables)>>12, pa>>3&511; {
		case page == mmuRoot2 && slot == 0:
			e, kind = mmuTables+2<<12, 3
		case page == mmuRoot2 && slot == 511:
			e, kind = mmuTables+2<<12, 3
		case page >= 7:
			if kind != 3 { // mostly data; else a table, to be written as data
				kind = 0
			}
		case slot <= 1 || slot == 511:
			first := 2*page + 1 // of a binary tree
			if slot == 511 || slot == 1 && page != 0 {
				first++
			}
			e = mmuTables + min(first, mmuRoot2-1)<<12
			if first >= mmuRoot2 {
				kind = 1
			}
			if page < 3 || m.IntN(4) != 0 {
				kind = 3
			}
		default:
			kind = m.IntN(2)
		}
	}
	switch kind {
	case 0: // a page of data
		e = 0x200000 + uint64(m.IntN(64))<<12
	case 1: // a large page, perhaps with a reserved bit
		e = uint64(m.IntN(2))<<21 | ptePS
		if m.IntN(8) == 0 {
			e |= 1 << 13
		}
	}
	e |= pteP | pteW | pteU
	if m.IntN(3) == 0 {
		e &^= []uint64{pteP, pteW, pteU}[m.IntN(3)]
	}
	if m.IntN(10) == 0 {
		e |= pteNX
	}
	if m.IntN(40) == 0 {
		e |= 1 << 45
	}
	return e | uint64(m.Uint32())&(pteA|pteD)
}

// changeEntry changes an entry in physical memory, as a device would, or part of one.
func (m *mmuTest) changeEntry() {
	pa := mmuTables + uint64(m.IntN(mmuCount))<<12 + m.index()*8
	if m.tree && len(m.log) > 1000 && m.IntN(20) != 0 { // mostly the last level
		pa = mmuTables + uint64(7+m.IntN(5))<<12 + uint64(m.IntN(3))*8
	}
	b := binary.LittleEndian.AppendUint64(nil, m.entry(pa))
	if m.IntN(6) == 0 {
		k := m.IntN(8)
		b, pa = b[k:], pa+uint64(k)
	}
	m.note("physical %#x: % x", pa, b)
	m.c.RAM.WriteAt(b, pa)
	copy(m.copy[pa:], b)
	if other := uint64(mmuTables + mmuRoot2<<12); m.tree && pa&0xfff >= 2048 {
		switch {
		case pa>>12 == mmuTables>>12:
			other += pa & 0xfff
		case pa>>12 == other>>12:
			other = mmuTables + pa&0xfff
		default:
			return
		}
		m.c.RAM.WriteAt(b, other)
		copy(m.copy[other:], b)
	}
}

// walk is the reference (SDM Vol. 3A 4.5 to 4.7): physical address, or error code.
func (m *mmuTest) walk(va uint64, kind Access) (pa uint64, code int) {
	c := m.c
	if !Canonical(va) {
		return 0, -2
	}
	code = 0
	user := c.CPL == 3
	if kind == Write {
		code |= 2
	}
	if user {
		code |= 4
	}
	if kind == Fetch && (c.EFER&EFERNXE != 0 || c.CR4&CR4SMEP != 0) {
		code |= 16
	}
	table := c.CR3 & pteAddr
	w, u, nx := true, true, false
	var at []uint64
	for shift := 39; ; shift -= 9 {
		ea := table + va>>shift&511*8
		if _, ok := c.RAM.Offset(ea); !ok {
			return 0, code
		}
		e := binary.LittleEndian.Uint64(m.copy[ea:])
		if e&1 == 0 {
			return 0, code
		}
		large := shift != 12 && e>>7&1 != 0
		if e>>40&0xfff != 0 || e>>63 != 0 && c.EFER&EFERNXE == 0 || shift == 39 && large {
			return 0, code | 9
		}
		w, u, nx = w && e&2 != 0, u && e&4 != 0, nx || e>>63 != 0
		at = append(at, ea)
		if shift != 12 && !large {
			table = e & pteAddr
			continue
		}
		mask := uint64(1)<<shift - 1
		if e&pteAddr&mask&^0x1fff != 0 {
			return 0, code | 9
		}
		pa = e&pteAddr&^mask | va&mask
		break
	}
	ac := c.RFLAGS&FlagAC != 0
	wp := c.CR0&CR0WP != 0
	var bad bool
	switch {
	case user:
		bad = !u || kind == Write && !w || kind == Fetch && nx
	case kind == Fetch:
		bad = nx || u && c.CR4&CR4SMEP != 0
	default:
		bad = u && c.CR4&CR4SMAP != 0 && !ac || kind == Write && !w && wp
	}
	if bad {
		return 0, code | 1
	}
	for i, ea := range at {
		m.copy[ea] |= pteA
		if i == len(at)-1 && kind == Write {
			m.copy[ea] |= pteD
		}
	}
	return pa, -1
}

// access is what an access came to.
type access struct {
	value uint64
	code  int // of #PF, -1 for none, -2 for #GP
	at    uint64
}

func (m *mmuTest) reference(va uint64, n int, kind Access, v uint64) access {
	var pas []uint64
	for i := 0; i < n; {
		at := va + uint64(i)
		pa, code := m.walk(at, kind)
		if code != -1 {
			return access{0, code, at}
		}
		k := min(n-i, mem.PageSize-int(at%mem.PageSize))
		for j := range k {
			pas = append(pas, pa+uint64(j))
		}
		i += k
	}
	var b [8]byte
	for i, pa := range pas {
		if _, ok := m.c.RAM.Offset(pa); !ok {
			continue // a device of which nothing is there
		}
		if kind == Write {
			m.copy[pa] = byte(v >> (8 * i))
		}
		b[i] = m.copy[pa]
	}
	if kind == Write {
		return access{0, -1, 0}
	}
	return access{binary.LittleEndian.Uint64(b[:]), -1, 0}
}

func (m *mmuTest) actual(va uint64, n int, kind Access, v uint64) (a access) {
	c := m.c
	defer func() {
		if r := recover(); r != nil {
			if !IsFault(r) {
				panic(r)
			}
			a = access{0, int(c.Exc.Err), c.Exc.Address}
			if c.Exc.Vec == VecGP {
				a.code = -2
			}
		}
	}()
	switch kind {
	case Write:
		c.Store(va, v, n)
		return access{0, -1, 0}
	case Fetch:
		off, ok := c.FetchPage(va)
		if !ok {
			return access{0, -1, 0}
		}
		return access{uint64(c.RAM.Data()[off+va%mem.PageSize]), -1, 0}
	}
	return access{c.Load(va, n), -1, 0}
}

func (m *mmuTest) step(t *testing.T) {
	c := m.c
	k := m.IntN(100)
	if m.tree && k >= 16 && m.IntN(8) != 0 {
		k = 99 // fewer of what flushes
	}
	switch {
	case k < 12:
		m.changeEntry()
	case k < 14:
		c.CPL ^= 3
		m.note("CPL %d", c.CPL)
		c.ModeChanged()
	case k < 15 && m.tree && m.IntN(4) == 0:
		m.adopt(t)
	case k < 15:
		c.RFLAGS ^= FlagAC
		m.note("flags %#x", c.RFLAGS)
		c.ModeChanged()
	case k < 16:
		root := mmuTables + uint64(m.IntN(4))<<12
		if m.tree {
			root = mmuTables + uint64(m.IntN(2)*mmuRoot2)<<12
		}
		m.note("CR3 %#x", root)
		m.writeCR(3, root)
	case k < 17:
		bit := []uint64{CR4SMAP, CR4SMEP, CR4PGE}[m.IntN(3)]
		m.note("CR4 %#x", c.CR4^bit)
		m.writeCR(4, c.CR4^bit)
	case k < 18:
		if m.IntN(2) == 0 {
			m.note("CR0 %#x", c.CR0^CR0WP)
			m.writeCR(0, c.CR0^CR0WP)
		} else {
			m.note("EFER %#x", c.EFER^EFERNXE)
			c.WriteMSR(MSREFER, c.EFER^EFERNXE)
		}
	case k < 19:
		m.look()
	default:
		va, n, kind := m.va(), 1<<m.IntN(4), Access(m.IntN(3))
		v := m.Uint64()
		if m.IntN(2) == 0 {
			v = m.entry(uint64(m.IntN(mmuRAM)))
		}
		if kind == Fetch {
			n = 1
		}
		m.access(t, va, n, kind, v)
	}
}

func (m *mmuTest) access(t *testing.T, va uint64, n int, kind Access, v uint64) {
	t.Helper()
	want := m.reference(va, n, kind, v)
	early := m.c.PageFault(va, n, kind)
	if e := (access{0, int(m.c.Exc.Err), m.c.Exc.Address}); early && (e != want || m.c.Exc.Vec != VecPF) {
		t.Fatalf("access %d of %d bytes at %#x: told before to fault like %+v, by the tables %+v", kind, n, va, e, want)
	}
	if !early && want.code >= 0 && m.c.Watch == nil && va%mem.PageSize+uint64(n) <= mem.PageSize {
		t.Fatalf("access %d of %d bytes at %#x: not told before to fault, by the tables %+v", kind, n, va, want)
	}
	got := m.actual(va, n, kind, v)
	m.note("access %d of %d at %#x: %+v", kind, n, va, want)
	if want != got {
		t.Fatalf("access %d of %d bytes at %#x: %+v, by the tables %+v; before that:\n%v", kind, n, va, got, want, m.log[max(0, len(m.log)-12):])
	}
}

// look makes somebody look at some bytes, by linear address or in RAM, or nobody look any more.
func (m *mmuTest) look() {
	c := m.c
	switch m.IntN(4) {
	case 0:
		va := m.va()
		m.note("observing %#x", va)
		c.SetObserver(&Observer{Data: []Span{{va, va + 7}}, Access: func(uint64, int, Access) {}})
	case 1:
		m.note("observing nothing")
		c.SetObserver(nil)
	case 2:
		off := uint64(m.IntN(mmuRAM - 8))
		m.note("watching %#x", off)
		c.Watch, c.WatchHull = func(uint64, int, Access) {}, Span{off, off + 7}
		for at := off &^ (mem.PageSize - 1); at <= off+7; at += mem.PageSize {
			c.RAM.SetFlags(at, mem.Watched)
		}
		c.FlushTLB()
	case 3:
		m.note("watching nothing")
		for page := range c.RAM.Pages() {
			c.RAM.ClearFlags(uint64(page)<<mem.PageShift, mem.Watched)
		}
		c.Watch = nil
	}
}

// adopt makes a table of a page of data, as a kernel does, through a mapping that was just used to write to it,
// and changes it through the same mapping when it has been walked.
func (m *mmuTest) adopt(t *testing.T) {
	const all = pteP | pteW | pteU
	put := func(pa, e uint64) {
		b := binary.LittleEndian.AppendUint64(nil, e)
		m.c.RAM.WriteAt(b, pa)
		copy(m.copy[pa:], b)
	}
	table := 0x200000 + uint64(m.IntN(64))<<12
	m.note("adopt %#x", table)
	m.c.CPL = 0
	m.c.ModeChanged()
	const pd, pt = mmuTables + 3<<12, mmuTables + 7<<12
	put(m.c.CR3&pteAddr, (mmuTables+1<<12)|all)
	put(mmuTables+1<<12, pd|all)
	put(pd, pt|all)
	put(pt+5*8, table|all)
	const window, under = 5 << 12, 3 << 21
	m.access(t, window, 8, Write, 0x200000|all)
	put(pd+3*8, table|all)
	for range 3 {
		m.access(t, under, 8, Access(m.IntN(2)), 0)
		m.access(t, window, 8, Write, 0x200000+uint64(m.IntN(64))<<12|all)
	}
	m.access(t, under, 8, Read, 0)
}

// writeCR writes a control register as ring 0 does.
func (m *mmuTest) writeCR(n uint8, v uint64) {
	cpl := m.c.CPL
	m.c.CPL = 0
	m.c.WriteCR(n, v)
	m.c.CPL = cpl
	m.c.ModeChanged()
}

func TestTLBIsCoherent(t *testing.T) {
	seeds, steps := 20, 20000
	if testing.Short() {
		seeds = 4
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newMMUTest(t, seed)
			for i := range steps {
				m.step(t)
				if i%64 == 0 && !bytes.Equal(m.c.RAM.Data()[mmuTables:mmuTables+mmuCount*mem.PageSize], m.copy[mmuTables:mmuTables+mmuCount*mem.PageSize]) {
					t.Fatalf("the tables differ (accessed and dirty bits?) after:\n%v", m.log[max(0, len(m.log)-80):])
				}
			}
			faults := 0
			for _, l := range m.log {
				if len(l) > 0 && l[0] == 'a' && !bytes.Contains([]byte(l), []byte("code:-1")) {
					faults++
				}
			}
			if faults == 0 || faults > len(m.log)*9/10 {
				t.Errorf("%d faults of %d", faults, len(m.log))
			}
		})
	}
}
