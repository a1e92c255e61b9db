package vmm

import (
	"fmt"
	"slices"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Touch is an access to watched memory, before it happens.
type Touch struct {
	CPU  *x86.CPU // who accesses; nil: a bus master
	Addr uint64   // physical
	Len  int
	Kind x86.Access
}

// DMA reports whether a bus master accesses, and not a processor.
func (t *Touch) DMA() bool { return t.CPU == nil }

// Watch is an interest in a range of RAM.
type Watch struct {
	first, last uint64 // offsets into RAM
	f           func(t *Touch)
}

// watches are all interests, by page of RAM. Pages that have one carry mem.Watched,
// so that every access to them takes the slow path, or another that leaves out what is watched; no other access pays.
type watches struct {
	all   []*Watch
	pages map[uint64][]*Watch
	blind bool
}

// hull tells the processors from where to where RAM is watched.
func (m *Machine) hull() {
	var spans []Span
	for _, w := range m.watches.all {
		spans = append(spans, Span{First: w.first, Last: w.last})
	}
	for _, c := range m.CPUs {
		c.WatchHull = x86.Hull(spans)
	}
}

// Unwatched does something that no Watch is told of: memory is made what it was at
// another position, and nobody in the machine writes it.
func (m *Machine) Unwatched(do func()) {
	m.watches.blind = true
	defer func() { m.watches.blind = false }()
	do()
}

// Watch makes f be called before each access to the n bytes at physical address pa. f
// may CPU.Abandon the instruction that loads or fetches, but not one that stores.
func (m *Machine) Watch(pa, n uint64, f func(t *Touch)) (*Watch, error) {
	off, ok := m.RAM.Offset(pa)
	last, ok2 := m.RAM.Offset(pa + n - 1)
	if !ok || !ok2 || n == 0 || last-off != n-1 {
		return nil, fmt.Errorf("physical address %#x, %d bytes: outside RAM: %w", pa, n, ErrTarget)
	}
	w := &Watch{first: off, last: last, f: f}
	m.watches.all = append(m.watches.all, w)
	m.hull()
	for page := off >> mem.PageShift; page <= last>>mem.PageShift; page++ {
		if m.watches.pages == nil {
			m.watches.pages = make(map[uint64][]*Watch)
		}
		ws := m.watches.pages[page]
		m.watches.pages[page] = append(ws[:len(ws):len(ws)], w)
		at := page << mem.PageShift
		old := m.RAM.Flags(at)
		m.RAM.SetFlags(at, mem.Watched)
		for _, c := range m.CPUs {
			c.Watch = func(off uint64, n int, kind x86.Access) { m.touched(c, off, n, kind) }
			if old&mem.Code != 0 {
				c.NoteWrite(at, mem.PageSize, mem.Code) // what is decoded would not be fetched any more
			}
			if old&mem.Watched == 0 {
				c.FlushTLB()
			}
		}
	}
	return w, nil
}

// Unwatch ends an interest. It may be called from a Watch's function.
func (m *Machine) Unwatch(w *Watch) {
	m.watches.all = slices.DeleteFunc(m.watches.all, func(o *Watch) bool { return o == w })
	m.hull()
	for page := w.first >> mem.PageShift; page <= w.last>>mem.PageShift; page++ {
		ws := slices.DeleteFunc(slices.Clone(m.watches.pages[page]), func(o *Watch) bool { return o == w })
		if len(ws) > 0 {
			m.watches.pages[page] = ws
			continue
		}
		delete(m.watches.pages, page)
		m.RAM.ClearFlags(page<<mem.PageShift, mem.Watched)
	}
	if len(m.watches.pages) == 0 {
		for _, c := range m.CPUs {
			c.Watch = nil
		}
	}
}

// touched tells all whom an access of n bytes at an offset into RAM concerns. The access does not cross a page.
func (m *Machine) touched(c *x86.CPU, off uint64, n int, kind x86.Access) {
	if m.watches.blind {
		return
	}
	if m.dma {
		c = nil
	}
	for _, w := range m.watches.pages[off>>mem.PageShift] {
		if w.first < off+uint64(n) && off <= w.last {
			w.f(&Touch{CPU: c, Addr: m.RAM.Addr(off), Len: n, Kind: kind})
		}
	}
}

// busMaster is RAM as devices see it.
type busMaster struct{ m *Machine }

// ReadAt implements dev.Memory.
func (b busMaster) ReadAt(p []byte, pa uint64) bool {
	b.m.observeDMA(pa, len(p), false)
	b.m.dma = true
	defer func() { b.m.dma = false }()
	if len(b.m.watches.pages) > 0 {
		for at := uint64(0); at < uint64(len(p)); {
			n := min(uint64(len(p))-at, mem.PageSize-(pa+at)%mem.PageSize)
			if off, ok := b.m.RAM.Offset(pa + at); ok {
				b.m.touched(nil, off, int(n), x86.Read)
			}
			at += n
		}
	}
	return b.m.RAM.ReadAt(p, pa)
}

// WriteAt implements dev.Memory.
func (b busMaster) WriteAt(p []byte, pa uint64) bool {
	b.m.observeDMA(pa, len(p), true)
	b.m.dma = true
	defer func() { b.m.dma = false }()
	return b.m.RAM.WriteAt(p, pa)
}
