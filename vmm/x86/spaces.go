package x86

import "refault/vmm/mem"

// Address spaces come back: two processes that talk to each other switch between their
// tables at every word. So what the TLBs held of the lower half is put aside when
// another root of tables comes into use, and back when its own does, if nothing that it
// rests on has changed meanwhile:
//
//   - A write to a table that a walk has read is heard of (tableWrite), whether the table is
//     in use or not; each table knows the space whose walk read it last (tableInfo.epoch). A space
//     is given up when one of its tables is written, or is read by a walk of another space, which
//     the table then belongs to.
//   - Where permissions to write were taken away since, for pages that got a flag or that
//     are clean again, it comes back without those.
//   - FlushTLB, and a page that is to be watched, give up all of them.
//
// The epoch is the name of a space: a new one for each that is entered without anything
// known of it. An engine may keep by that name what it knows of the lower half (SpaceChanged).

const (
	// spacesMax is how many spaces are kept besides the one in use.
	spacesMax = 8
	// spaceEntries is how many entries of a view are worth keeping.
	spaceEntries = 1024
)

// space is what the TLBs held of the lower half.
type space struct {
	epoch   uint64 // zero: nothing
	root    uint64 // of its tables
	left    uint64 // mmu.epochs when it went out of use
	revoked uint64 // mmu.revoked then
	data    [viewSlow][]spaceEntry
	code    [2][]itlbEntry
}

type spaceEntry struct {
	tlbEntry
	i uint16
}

// newEpoch is called when nothing is known of the lower half.
func (m *mmu) newEpoch() {
	m.epochs++
	m.epoch = m.epochs
}

// giveUp forgets what is kept of a space.
func (m *mmu) giveUp(epoch uint64) {
	for i := range m.spaces {
		if s := &m.spaces[i]; s.epoch == epoch {
			s.epoch = 0
		}
	}
}

// giveUpAll forgets what is kept of all spaces.
func (m *mmu) giveUpAll() {
	for i := range m.spaces {
		m.spaces[i].epoch = 0
	}
}

// leaveSpace forgets the lower half, and keeps what it held where that is little enough.
func (m *mmu) leaveSpace(root uint64) {
	// The place of what is given up, or was left the longest time ago.
	s := &m.spaces[0]
	for i := range m.spaces {
		if p := &m.spaces[i]; s.epoch != 0 && (p.epoch == 0 || p.left < s.left) {
			s = p
		}
	}
	s.epoch, s.root, s.left, s.revoked = m.epoch, root, m.epochs, m.revoked
	for v := range s.data {
		s.data[v] = s.data[v][:0]
		t := &m.data[v]
		leave := func(i int) bool {
			e := &t[i]
			if e.says(0, LowerHalf) {
				if len(s.data[v]) < spaceEntries {
					s.data[v] = append(s.data[v], spaceEntry{*e, uint16(i)})
				}
				e.forget(uint64(i))
			}
			return !e.empty()
		}
		switch {
		case v != viewSuper:
			m.filled[v].sweep(tlbSize, leave)
		case m.low:
			// Few entries of many: a kernel's own are of the upper half.
			m.filledLow.sweep(tlbSize, func(i int) bool { leave(i); return false })
		}
	}
	m.low = false
	for u := range s.code {
		s.code[u] = s.code[u][:0]
		if u == 0 && !m.lowCode {
			continue
		}
		t := &m.code[u]
		m.filledCode[u].sweep(itlbSize, func(i int) bool {
			e := &t[i]
			if e.tag <= LowerHalf && e.tag != tlbNone {
				s.code[u] = append(s.code[u], *e)
				e.tag = tlbNone
			}
			return e.tag != tlbNone
		})
	}
	m.lowCode = false
}

// enterSpace puts back what is kept of the space with a root, if anything is. Preconditions: the lower half is forgotten.
func (m *mmu) enterSpace(root uint64) {
	var s *space
	for i := range m.spaces {
		if p := &m.spaces[i]; p.epoch != 0 && p.root == root {
			s = p
		}
	}
	if s == nil {
		m.newEpoch()
		return
	}
	m.epochs++ // spaces that are left later are younger
	m.epoch = s.epoch
	s.epoch = 0
	for v := range s.data {
		for _, k := range s.data[v] {
			if s.revoked != m.revoked { // otherwise mmu.grants still has the entry
				k.tag = k.tag&^tagNoted | tagReadOnly
			}
			e := &m.data[v][k.i]
			if e.empty() {
				m.filled[v].add(uint64(k.i))
			}
			*e = k.tlbEntry
			if v == viewSuper {
				m.low = true
				m.filledLow.add(uint64(k.i))
			}
		}
	}
	for u := range s.code {
		for _, k := range s.code[u] {
			m.setCode(u, &m.code[u][k.tag>>mem.PageShift%itlbSize], k)
		}
	}
}
