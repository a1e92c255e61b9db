//go:build linux && amd64

package jit

import (
	"encoding/binary"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Accesses beside what is watched. The TLB has entries of a kind of their own for pages with something on
// them that is looked at (x86.LookedTag), which the ordinary look-up does not take: it fails, and the
// interpreter executes the instruction. Where that finds that the access was beside what is looked at, the
// look-up gets a second chance, out of line: it takes such an entry if the address is not where anybody
// looks. So those few places that touch the page pay for it, and no other.

// lookedSpan is where somebody looks at accesses, as generated code compares it: first, and how much more.
type lookedSpan struct{ first, span uint64 }

// accessMax is the size in bytes of the longest access that gets a second chance.
const accessMax = 16

// accessesOf returns the addresses from which an access may reach into s.
func accessesOf(s x86.Span) lookedSpan {
	first := s.First - min(s.First, accessMax-1)
	return lookedSpan{first, s.Last - first}
}

// beside is a look-up that may get its second chance.
type beside struct {
	site, back uint32 // offsets: of the displacement of the branch that fails, and of the code behind
	at         uint64 // the address, or where there is a base the displacement
	base       int8   // register of the host, or hNone
	write      bool
	done       bool
}

// noteAccess notes a look-up for size bytes whose branch has its displacement at site, for the exit of the instruction in work.
func (t *translator) noteAccess(slow *label, site, size int, b beside) {
	if t.slow == nil || slow != &t.slow.label || size > accessMax {
		return // of a window, since the plain block has its own; or of a whole frame or area
	}
	b.site, b.back = uint32(t.b.entry+site), uint32(t.b.entry+len(t.a.b))
	x := t.e.exits.at(t.id)
	if i := t.e.besides.add(b); x.accesses == 0 {
		x.access = uint32(i)
	}
	x.accesses++
}

// goBeside gives a look-up in a block of a mode its second chance.
func (e *Engine) goBeside(b *beside, mode uint8) {
	const most = 160 // bytes
	if b.done || e.mem.used+most > len(e.mem.rx) {
		return
	}
	b.done = true
	at0 := e.mem.used
	a := &asm{base: e.mem.addr(at0)}
	slow := e.mem.addr(int(b.site) + 4 + int(int32(binary.LittleEndian.Uint32(e.mem.rw[b.site:]))))
	leave := func(cc byte) {
		a.bytes(0x0f, 0x80|cc)
		a.imm32(int32(int64(slow) - int64(a.base) - int64(len(a.b)) - 4))
	}
	check := func(i int32) {
		a.rm(ins{op: 0x2b, size: 8}, hRAX, e.scratchAt(sLooked+16*i))
		a.rm(ins{op: 0x3b, size: 8}, hRAX, e.scratchAt(sLooked+16*i+8))
		leave(ccBE)
	}
	entry := memop{base: hRSP, index: hR11, disp: int32(e.layout.Views[mode]) - bias} // R11 is the entry's offset
	if b.base == hNone {
		entry.index = hNone
		entry.disp += tlbOffset(b.at)
	}
	if b.write {
		if b.base == hNone {
			a.movConst(hRAX, b.at&^(mem.PageSize-1))
		}
		a.rm(ins{op: 0x33, size: 8}, hRAX, entry)
		a.aluImmRAX(7, x86.LookedTag)
	} else {
		a.aluImmRAX(4, -mem.PageSize) // it was XORed with the tag already
		a.aluImmRAX(7, x86.LookedTag&^(mem.PageSize-1))
	}
	leave(ccNE)
	entry.disp += tlbAdd
	a.load(hR11, entry)
	if b.base == hNone {
		a.movConst(hRAX, b.at)
		check(0)
		a.movConst(hRAX, b.at)
		a.rr(ins{op: 0x03, size: 8}, hRAX, hR11)
	} else {
		a.lea(hRAX, at(int(b.base), int32(b.at)))
		check(0)
		a.lea(hRAX, memop{base: int(b.base), index: hR11, disp: int32(b.at)})
	}
	check(1)
	a.jmpTo(e.mem.addr(int(b.back)))
	if len(a.b) > most {
		panic("BUG: a second chance is longer than it may be")
	}
	copy(e.mem.rw[at0:], a.b)
	e.mem.used += (len(a.b) + 15) &^ 15
	e.patch(int(b.site), at0)
}
