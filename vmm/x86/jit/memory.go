//go:build linux && amd64

package jit

import (
	"math"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// effective emits the linear address of the memory operand, plus extra, into dst: R10, or
// RAX where index registers may not be needed any more.
func (t *translator) effective(in *guestInst, dst int) {
	a := &t.a
	if in.Base == x86.RIP {
		t.lose(dst)
		a.movConst(dst, t.next+in.Disp)
	} else {
		t.address(in, int32(in.Disp), dst)
	}
	if in.Seg != x86.SegFlat && in.Op != x86.OpLEA {
		a.rm(ins{op: 0x03, size: 8}, dst, at(hRSP, offSeg+segSize*int32(in.Seg)))
	}
}

// address is effective with another displacement, and without a segment.
func (t *translator) address(in *guestInst, disp int32, dst int) {
	m := t.operand(in, disp)
	t.lose(dst)
	t.a.lea(dst, m)
}

// operand returns the memory operand with a displacement, as an operand of LEA. It may need R10 and R11.
func (t *translator) operand(in *guestInst, disp int32) memop {
	m := memop{base: hNone, index: hNone, scale: in.Scale & 3, disp: disp}
	if in.Base != x86.RegZero {
		m.base = t.src(in.Base, hR10)
	}
	if in.Index != x86.RegZero {
		m.index = t.src(in.Index, hR11)
	}
	return m
}

// simpleAddress reports whether the translator can compute the memory operand's address.
func simpleAddress(in *guestInst) bool {
	return in.AddrSize == 8 && (in.Seg == x86.SegFlat || in.Seg == x86.FS || in.Seg == x86.GS) &&
		int64(in.Disp) < math.MaxInt32-64 && fits32(in.Disp)
}

// constant returns the linear address of the memory operand where it is known now.
func (t *translator) constant(in *guestInst) (va uint64, ok bool) {
	if in.Index != x86.RegZero || in.Seg != x86.SegFlat || in.AddrSize != 8 {
		return 0, false
	}
	switch in.Base {
	case x86.RIP:
		return t.next + in.Disp, true
	case x86.RegZero:
		return in.Disp, true
	}
	return 0, false
}

// tlbShift and tlbMask make the offset of a TLB entry of an address.
const (
	tlbShift = mem.PageShift - 4 // by the size of an entry
	tlbMask  = (x86.TLBEntries - 1) * x86.TLBEntryBytes
	tlbAdd   = 8 // where in the entry the addend is
)

// tlbOffset is the offset of the TLB entry of va in a view.
func tlbOffset(va uint64) int32 { return int32(va>>mem.PageShift%x86.TLBEntries) * x86.TLBEntryBytes }

// testPage compares addresses in RAX, which were XORed: they are of the same page where the flags say equal. A shift
// would be shorter, but the host does it and the branch behind as one: a sort takes 4 % longer with the shift.
func (a *asm) testPage() {
	a.bytes(0x48, 0xa9) // test rax, -4096
	a.imm32(-mem.PageSize)
}

// guest emits the translation of the memory operand for an access of size bytes
// through the TLB, and returns the operand of the host. It uses RAX, R10 and R11,
// of which the operand needs R10 and R11, and the flags. ok is false where it cannot.
func (t *translator) guest(in *guestInst, size int, write bool, align bool) (m memop, ok bool) {
	if l := t.loop; l != nil {
		if l.of[t.i] != noStream {
			return t.loopOperand(in), true
		}
		l.looking = true
		defer func() { l.looking = false }()
	}
	if va, ok := t.constant(in); ok {
		return t.guestConst(va, size, write, align)
	}
	if !simpleAddress(in) {
		return m, false
	}
	simple := in.simple()
	if in.mem != noRef {
		var plain memop
		if simple {
			plain = at(hostOf[in.Base], int32(in.Disp))
		}
		if m, ok := t.windowed(&t.refs[in.mem], size, write, plain); ok {
			return m, true
		}
	}
	slow := t.slowExit()
	if simple {
		return t.translateAddress(hostOf[in.Base], int32(in.Disp), size, write, align, slow), true
	}
	t.effective(in, hR10)
	return t.translateAddress(hR10, 0, size, write, align, slow), true
}

// guestStack is guest for the stack at RSP+disp, where stackAccess says that the instruction accesses it.
func (t *translator) guestStack(disp int32, size int, write bool) memop {
	if t.in.stack != noRef {
		if m, ok := t.windowed(&t.refs[t.in.stack], size, write, at(hStack, disp)); ok {
			return m
		}
	}
	return t.translateAddress(hStack, disp, size, write, false, t.slowExit())
}

// lookUp looks in the TLB for the page with the address in R11, of which the lower half is enough, where the
// address in RAX must lie too. It returns where what makes its addresses the host's is, which needs R11. The branch
// to slow comes last. RAX is garbage then, of which goBeside can make out what it needs.
func (t *translator) lookUp(write bool, slow *label) (addend memop) {
	a := &t.a
	a.bytes(0x41, 0xc1, 0xeb, tlbShift) // shr r11d, …
	a.aluImm(4, 4, hR11, tlbMask)
	entry := memop{base: hRSP, index: hR11, disp: t.view}
	if write {
		a.aluImmRAX(4, -mem.PageSize)
		a.rm(ins{op: 0x3b, size: 8}, hRAX, entry)
	} else {
		a.rm(ins{op: 0x33, size: 8}, hRAX, entry)
		a.testPage()
	}
	a.jcc(ccNE, slow)
	entry.disp += tlbAdd
	return entry
}

func (t *translator) translateAddress(base int, disp int32, size int, write, align bool, slow *label) memop {
	a := &t.a
	t.lose(hR11)
	if disp == 0 {
		a.mov32(hR11, base)
	} else {
		a.lea32(hR11, at(base, disp))
	}
	if last := disp + int32(size) - 1; last == 0 {
		a.mov(hRAX, base)
	} else {
		a.lea(hRAX, at(base, last))
	}
	if align {
		a.bytes(0x41, 0xf6, 0xc3, 15) // test r11b, 15
		a.jcc(ccNE, slow)
	}
	addend := t.lookUp(write, slow)
	site := len(a.b) - 4
	a.load(hR11, addend)
	if size <= accessMax {
		t.noteAccess(slow, site, size, beside{base: int8(base), at: uint64(disp), write: write})
	}
	t.clobbered()
	return memop{base: base, index: hR11, disp: disp}
}

func (t *translator) guestConst(va uint64, size int, write, align bool) (m memop, ok bool) {
	if !x86.Canonical(va) || va%mem.PageSize+uint64(size) > mem.PageSize || align && va%16 != 0 {
		return m, false
	}
	a := &t.a
	t.lose(hR11)
	slow := t.slowExit()
	entry := at(hRSP, t.view+tlbOffset(va))
	page := va &^ (mem.PageSize - 1)
	switch {
	case !write:
		a.movConst(hRAX, page)
		a.rm(ins{op: 0x33, size: 8}, hRAX, entry)
		a.testPage()
	case fits32(page):
		a.extm(ins{op: 0x81, size: 8}, 7, entry)
		a.imm32(int32(page))
	default:
		a.movConst(hRAX, page)
		a.rm(ins{op: 0x3b, size: 8}, hRAX, entry)
	}
	a.jcc(ccNE, slow)
	site := len(a.b) - 4
	entry.disp += tlbAdd
	a.load(hR11, entry)
	t.noteAccess(slow, site, size, beside{base: hNone, at: va, write: write})
	t.clobbered()
	if fits32(va) {
		return at(hR11, int32(va)), true
	}
	t.lose(hR10)
	a.movConst(hR10, va)
	return memop{base: hR10, index: hR11}, true
}
