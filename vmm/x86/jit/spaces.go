//go:build linux && amd64

package jit

import "refault/vmm/x86"

const (
	// spacesMax is how many address spaces are remembered besides the one in use.
	spacesMax = 8
	// spaceSlots is how many jump targets of a mode are worth it. Where there were more, most have been of no use for
	// long; those that are will be known again, and be all that is.
	spaceSlots = 64
)

// spaces is what the tables of jump targets said of the lower half in address spaces that are not in use.
type spaces struct {
	all  [spacesMax]space
	next int // the one that is overwritten next
}

type space struct {
	name    uint64 // as CPU.SpaceChanged gives it; zero: nothing
	slots   [numModes][]spaceSlot
	virtual map[uint64]struct{}
}

type spaceSlot struct {
	jumpSlot
	i uint16
}

// spaceChanged puts aside what is known of the lower half, and back what was known of the new one. Blocks that were
// dropped meanwhile are harmless: their entries say so.
func (e *Engine) spaceChanged(old, new uint64) {
	if e.current <= x86.LowerHalf {
		e.remap = true
	}
	s := &e.spaces.all[e.spaces.next]
	e.spaces.next = (e.spaces.next + 1) % spacesMax
	s.name = old
	for m := range e.tab.jumps {
		f, t := &e.filled[m], &e.tab.jumps[m]
		s.slots[m] = s.slots[m][:0]
		if f.n > spaceSlots {
			s.name = 0
			break
		}
		for _, i := range f.at[:f.n] {
			if t[i].rip <= x86.LowerHalf { // it may be listed twice
				s.slots[m] = append(s.slots[m], spaceSlot{t[i], i})
				t[i].rip = noTarget(int(i))
			}
		}
		f.n = 0
	}
	if s.name == 0 {
		e.forgetSlots()
	}
	if s.virtual == nil {
		s.virtual = map[uint64]struct{}{}
	}
	clear(s.virtual)
	e.virtual[0], s.virtual = s.virtual, e.virtual[0]
	for k := range e.spaces.all {
		s := &e.spaces.all[k]
		if s.name != new {
			continue
		}
		for m := range s.slots {
			for _, p := range s.slots[m] {
				e.tab.jumps[m][p.i] = p.jumpSlot
				e.filled[m].add(p.i)
			}
		}
		e.virtual[0], s.virtual = s.virtual, e.virtual[0]
		s.name = 0
	}
}
