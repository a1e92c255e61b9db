package x86

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"refault/vmm/mem"
)

// Address spaces with tables of their own and one upper half: what is kept of those that are not in use must
// be true when they come back, and must grant no writes that somebody wants to hear of.

const (
	spacesCount = 11 // more than are kept
	spacesUpper = mmuTables + 4*spacesCount<<12
	spacesData  = 0x200000
	spacesPages = 8 // of data
	spacesVA    = signBits | 511<<39 | 511<<30
	signBits    = 0xffff << 48
)

type spacesTest struct {
	*mmuTest
	code  map[uint64][]byte // what the pages held from which an engine made code
	clean []byte            // what data was when its pages were clean
}

// table returns where the table of a level of a space is: 4 is the root.
func (s *spacesTest) table(space, level int) uint64 {
	return mmuTables + uint64(4*space+4-level)<<12
}

func newSpacesTest(t *testing.T, seed uint64) *spacesTest {
	s := &spacesTest{mmuTest: newMMUTest(t, seed), code: map[uint64][]byte{}}
	c := s.c
	c.CodeWritten = func(off uint64, n int) {
		delete(s.code, off&^0xfff)
		c.RAM.ClearFlags(off, mem.Code)
	}
	all := s.copy[mmuTables : spacesUpper+mem.PageSize]
	clear(all)
	put := func(pa, v uint64) { binary.LittleEndian.PutUint64(s.copy[pa:], v) }
	put(spacesUpper+511*8, pteP|pteW|ptePS|pteNX) // memory
	for i := range spacesCount {
		put(s.table(i, 4)+511*8, spacesUpper|pteP|pteW)
		for level := 4; level > 1; level-- {
			put(s.table(i, level), s.table(i, level-1)|pteP|pteW|pteU)
		}
		for slot := range uint64(4) {
			put(s.table(i, 1)+slot*8, spacesData+uint64(s.IntN(spacesPages))<<12|pteP|pteW|pteU)
		}
	}
	c.RAM.WriteAt(all, mmuTables)
	c.FlushTLB()
	s.cleaned()
	return s
}

// cleaned makes all pages clean.
func (s *spacesTest) cleaned() {
	s.note("clean")
	var pages []uint32
	s.c.RAM.ClearDirty(func(n int) { pages = append(pages, uint32(n)) })
	s.c.RevokeWrites(pages)
	s.clean = bytes.Clone(s.data())
}

func (s *spacesTest) data() []byte {
	return s.c.RAM.Data()[spacesData : spacesData+spacesPages*mem.PageSize]
}

// change changes an entry of some space's table, in physical memory or through the mapping of the upper half.
func (s *spacesTest) change(t *testing.T) {
	level := [...]int{1, 1, 1, 1, 1, 1, 2, 3, 4}[s.IntN(9)]
	space := s.IntN(spacesCount)
	pa := s.table(space, level) + uint64(s.IntN(4))*8
	v := uint64(pteP | pteW | pteU)
	switch {
	case level == 1:
		v |= spacesData + uint64(s.IntN(spacesPages))<<12
	case s.IntN(8) == 0: // another's
		v |= s.table(s.IntN(spacesCount), level-1)
	default:
		v |= s.table(space, level-1)
	}
	if s.IntN(4) == 0 {
		v &^= [...]uint64{pteP, pteW, pteU}[s.IntN(3)]
	}
	if s.IntN(2) == 0 {
		cpl := s.c.CPL
		s.c.CPL = 0
		s.c.ModeChanged()
		s.access(t, spacesVA+pa, 8, Write, v)
		s.c.CPL = cpl
		s.c.ModeChanged()
		return
	}
	s.note("%#x: %#x", pa, v)
	b := binary.LittleEndian.AppendUint64(nil, v)
	copy(s.copy[pa:], b)
	s.c.RAM.WriteAt(b, pa)
}

func (s *spacesTest) step(t *testing.T) {
	c := s.c
	switch k := s.IntN(200); {
	case k < 30:
		root := s.table(s.IntN(1+s.IntN(spacesCount)), 4)
		s.note("CR3 %#x", root)
		s.writeCR(3, root)
	case k < 34:
		s.change(t)
	case k < 40:
		c.CPL ^= 3
		c.ModeChanged()
	case k < 43:
		c.RFLAGS ^= FlagAC
		c.ModeChanged()
	case k == 43:
		bit := []uint64{CR4SMAP, CR4SMEP}[s.IntN(2)]
		s.note("CR4 %#x", c.CR4^bit)
		s.writeCR(4, c.CR4^bit)
	case k == 44:
		s.cleaned()
	case k == 45:
		off := spacesData + uint64(s.IntN(spacesPages))<<12
		s.note("code at %#x", off)
		s.code[off] = bytes.Clone(c.RAM.Page(int(off >> mem.PageShift)))
		c.RAM.SetFlags(off, mem.Code)
		c.RevokeWrite(off)
	default:
		va := uint64(s.IntN(5))<<12 | uint64(s.IntN(mem.PageSize))
		if s.IntN(10) == 0 {
			va = spacesVA + spacesData + uint64(s.IntN(spacesPages*mem.PageSize))
		} else if s.IntN(20) == 0 {
			va |= uint64(s.IntN(4)) << [...]int{21, 30, 39}[s.IntN(3)]
		}
		kind := Access(s.IntN(3))
		n := 1
		if kind != Fetch {
			n <<= s.IntN(4)
		}
		s.access(t, va, n, kind, s.Uint64())
	}
	for off, was := range s.code {
		if !bytes.Equal(was, c.RAM.Page(int(off>>mem.PageShift))) {
			t.Fatalf("nobody heard of a write to code at %#x; before that:\n%v", off, s.log[max(0, len(s.log)-12):])
		}
	}
	for i := range spacesPages {
		off := uint64(i) << mem.PageShift
		if c.RAM.Flags(spacesData+off)&mem.Dirty == 0 && !bytes.Equal(s.clean[off:off+mem.PageSize], s.data()[off:off+mem.PageSize]) {
			t.Fatalf("nobody heard of a write to page %d; before that:\n%v", i, s.log[max(0, len(s.log)-12):])
		}
	}
}

func TestSpacesComeBack(t *testing.T) {
	seeds, steps := 16, 20000
	if testing.Short() {
		seeds = 4
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSpacesTest(t, 2*seed)
			back := 0
			names := map[uint64]bool{}
			s.c.SpaceChanged = func(old, new uint64) {
				names[old] = true
				if names[new] {
					back++
				}
			}
			for range steps {
				s.step(t)
			}
			if back < steps/100 {
				t.Errorf("%d spaces came back in %d steps", back, steps)
			}
		})
	}
}
