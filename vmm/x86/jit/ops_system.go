//go:build linux && amd64

package jit

import (
	"refault/vmm/mem"
	"refault/vmm/x86"
)

func segAt(seg int, field int32) memop { return at(hRSP, offSeg+segSize*int32(seg)+field) }

// emitSystem translates the system instructions that kernels use most. What depends on privilege
// is decided by the mode that the block was translated for.
func (t *translator) emitSystem() bool {
	a, in := &t.a, t.in
	user := t.b.mode == x86.ViewUser
	switch in.Op {
	case x86.OpRDTSC, x86.OpRDTSCP:
		t.rdtsc(user)
		return true
	case x86.OpMOVFromSeg:
		s := int(in.Reg & 7)
		if s > x86.GS {
			return false
		}
		if in.IsMem {
			m, ok := t.guest(in, 2, true, false)
			if !ok {
				return false
			}
			a.rm(ins{op: 0x0fb7, size: 4}, hRAX, segAt(s, offSel))
			a.rm(ins{op: 0x89, size: 2}, hRAX, m)
			return true
		}
		if in.OpSize < 4 {
			a.rm(ins{op: 0x0fb7, size: 4}, hRAX, segAt(s, offSel))
			r, w := t.dst(in.RM, 2, hR10)
			a.rr(ins{op: 0x8b, size: 2}, r, hRAX)
			t.bring(w)
			return true
		}
		r, w := t.set(in.RM, hRAX)
		a.rm(ins{op: 0x0fb7, size: 4}, r, segAt(s, offSel))
		t.bring(w)
		return true
	case x86.OpRDFSBASE, x86.OpRDGSBASE, x86.OpWRFSBASE, x86.OpWRGSBASE:
		return t.segmentBase()
	case x86.OpSYSCALL:
		return user && t.syscall()
	case x86.OpSYSRET:
		return !user && in.OpSize == 8 && t.sysret()
	case x86.OpIRET:
		return t.b.mode == x86.ViewSuper && in.OpSize == 8 && t.iret()
	}
	if user {
		return false
	}
	switch in.Op {
	case x86.OpINVLPG:
		return in.side // the TLB is coherent
	case x86.OpMOVFromCR:
		var m memop
		switch in.Reg {
		case 0:
			m = at(hRSP, offCR0)
		case 2:
			m = at(hRSP, offCR2)
		case 3:
			m = at(hRSP, offCR3)
		case 4:
			m = at(hRSP, offCR4)
		default:
			return false
		}
		r, w := t.set(in.RM, hRAX)
		a.load(r, m)
		t.bring(w)
		return true
	case x86.OpCLI:
		t.saveFlags()
		a.aluImmMem(4, 4, at(hRSP, offRFLAGS), ^int32(x86.FlagIF))
		t.clobbered()
		return true
	case x86.OpSTI:
		if !in.side {
			return false
		}
		// With no interrupt waiting, nothing comes of it: the shadow ends before anybody looks.
		slow := t.slowExit()
		a.aluImmMem(7, 4, t.e.scratchAt(sQuiet), 0)
		a.jcc(ccE, slow)
		a.rm(ins{op: 0x8b, size: 4}, hRAX, at(hRSP, offRFLAGS))
		a.rm(ins{op: 0x89, size: 4}, hRAX, t.e.scratchAt(sBeforeSTI))
		a.aluImmMem(1, 4, at(hRSP, offRFLAGS), x86.FlagIF)
		t.clobbered()
		return true
	case x86.OpSTAC, x86.OpCLAC:
		t.saveFlags()
		if in.Op == x86.OpSTAC {
			a.aluImmMem(1, 4, at(hRSP, offRFLAGS), x86.FlagAC)
			t.mode = x86.ViewSuperAC
		} else {
			a.aluImmMem(4, 4, at(hRSP, offRFLAGS), ^int32(x86.FlagAC))
			t.mode = x86.ViewSuper
		}
		t.clobbered()
		t.link(t.next)
		return true
	case x86.OpSWAPGS:
		gs := segAt(x86.GS, 0)
		a.load(hRAX, gs)
		a.load(hR10, at(hRSP, offKGS))
		a.store(gs, hR10)
		a.store(at(hRSP, offKGS), hRAX)
		return true
	case x86.OpPUSHF:
		if in.OpSize != 8 {
			return false
		}
		t.saveFlags()
		m := t.guestStack(-8, 8, true)
		a.lea(hR10, m)
		t.composeFlags()
		a.store(at(hR10, 0), hR11)
		a.lea(hStack, at(hStack, -8))
		return true
	}
	return false
}

// composeFlags loads RFLAGS, as instructions store it, into R11. It uses RAX. Preconditions: the flags are saved.
func (t *translator) composeFlags() {
	a := &t.a
	a.load(hR11, at(hRSP, offRFLAGS))
	a.aluImm(4, 8, hR11, ^int32(x86.FlagsArith|x86.FlagVM|x86.FlagRF))
	a.rm(ins{op: 0x0fb6, size: 4}, hRAX, at(hRSP, offFlags+1))
	a.aluImm(4, 4, hRAX, x86.FlagsArith&0xff)
	a.rr(ins{op: 0x0b, size: 8}, hR11, hRAX)
	a.rm(ins{op: 0x0fb6, size: 4}, hRAX, at(hRSP, offFlags))
	a.bytes(0xc1, 0xe0, 11) // shl eax, 11
	a.rr(ins{op: 0x0b, size: 8}, hR11, hRAX)
	t.clobbered()
}

// setFlags makes R11 the guest's RFLAGS. It uses RAX.
func (t *translator) setFlags() {
	a := &t.a
	a.store(at(hRSP, offRFLAGS), hR11)
	a.rr(ins{op: 0x0fb6, size: 4, rex: true}, hRAX, hR11)
	a.bytes(0xc1, 0xe0, 8)                   // shl eax, 8
	a.ext(ins{op: 0x0fba, size: 4}, 4, hR11) // bt r11d, 11
	a.bytes(11, 0x0f, 0x92, 0xc0)            // setc al
	a.rm(ins{op: 0x89, size: 2}, hRAX, at(hRSP, offFlags))
	t.fl = flagState{mem: true}
}

// rdtsc: the counter is a constant less what is left of the budget.
func (t *translator) rdtsc(user bool) {
	a := &t.a
	if user {
		slow := t.slowExit()
		a.extm(ins{op: 0xf7, size: 4}, 0, at(hRSP, offCR4)) // test
		a.imm32(x86.CR4TSD)
		a.jcc(ccNE, slow)
	}
	t.saveFlags()
	a.load(hRAX, t.e.scratchAt(sTSC))
	a.aluImm(5, 8, hRAX, int32(int(t.b.n)-t.i))
	a.rm(ins{op: 0x2b, size: 8}, hRAX, budget)
	a.mov32(hostOf[x86.RAX], hRAX)
	a.bytes(0x48, 0xc1, 0xe8, 32) // shr rax, 32
	a.mov32(hRDX, hRAX)
	if t.in.Op == x86.OpRDTSCP {
		a.rm(ins{op: 0x8b, size: 4}, hRCX, at(hRSP, offTSCAux))
	}
	t.clobbered()
}

func (t *translator) segmentBase() bool {
	a, in := &t.a, t.in
	size := max(4, int(in.OpSize))
	t.saveFlags()
	slow := t.slowExit()
	a.extm(ins{op: 0xf7, size: 4}, 0, at(hRSP, offCR4)) // test
	a.imm32(x86.CR4FSGSBASE)
	a.jcc(ccE, slow)
	t.clobbered()
	seg := x86.FS
	if in.Op == x86.OpRDGSBASE || in.Op == x86.OpWRGSBASE {
		seg = x86.GS
	}
	m := segAt(seg, 0)
	if in.Op == x86.OpRDFSBASE || in.Op == x86.OpRDGSBASE {
		r, w := t.set(in.RM, hRAX)
		a.rm(ins{op: 0x8b, size: size}, r, m)
		t.bring(w)
		return true
	}
	a.rr(ins{op: 0x8b, size: size}, hR10, t.src(in.RM, hRAX))
	a.mov(hRAX, hR10)
	a.bytes(0x48, 0xc1, 0xe0, 16, 0x48, 0xc1, 0xf8, 16) // shl rax, 16; sar rax, 16
	a.rr(ins{op: 0x3b, size: 8}, hRAX, hR10)
	a.jcc(ccNE, slow)
	a.store(m, hR10)
	return true
}

// segment stores a flat segment whose selector is in AX.
func (t *translator) segment(seg int, attr uint16) {
	a := &t.a
	a.extm(ins{op: 0xc7, size: 8}, 0, segAt(seg, 0))
	a.imm32(0)
	a.storeImm32(segAt(seg, offLimit), -1)
	a.rm(ins{op: 0x89, size: 2}, hRAX, segAt(seg, offSel))
	a.extm(ins{op: 0xc7, size: 2}, 0, segAt(seg, offAttr))
	a.bytes(byte(attr), byte(attr>>8))
}

const (
	flatData = x86.SegPresent | x86.SegS | x86.SegTypeAccessed | x86.SegTypeWritable | x86.SegG | x86.SegDB
	flatCode = flatData&^x86.SegDB | x86.SegTypeCode | x86.SegL
)

// syscall enters privilege level 0 without leaving generated code (SDM Vol. 2B, SYSCALL).
func (t *translator) syscall() bool {
	a := &t.a
	t.saveFlags()
	slow := t.slowExit()
	a.aluImmMem(7, 4, t.e.scratchAt(sSysOK), 0)
	a.jcc(ccE, slow)
	a.aluImmMem(7, 4, t.e.scratchAt(sSysSeen), 0)
	seen := t.later(func(t *translator, p *coldPath) {
		a.mov(hRAX, hostOf[x86.RAX])
		a.rm(ins{op: 0x2b, size: 8}, hRAX, t.e.scratchAt(sSysFirst))
		a.rm(ins{op: 0x3b, size: 8}, hRAX, t.e.scratchAt(sSysSpan))
		a.jcc(ccBE, slow)
		a.jmp(&p.after)
	})
	a.jcc(ccNE, &seen.label)
	seen.after.at = len(a.b)
	t.mode = x86.ViewSuper
	a.load(hRAX, at(hRSP, offLSTAR))
	j := t.lookup(slow)
	a.movConst(hRCX, t.next)
	t.composeFlags()
	a.mov(hostOf[x86.R11], hR11)
	a.load(hRAX, at(hRSP, offSFMASK))
	a.ext(ins{op: 0xf7, size: 8}, 2, hRAX) // not
	a.rr(ins{op: 0x23, size: 8}, hR11, hRAX)
	a.aluImm(1, 8, hR11, x86.Flag1)
	t.setFlags()
	a.load(hRAX, at(hRSP, offSTAR))
	a.bytes(0x48, 0xc1, 0xe8, 32) // shr rax, 32
	a.aluImm(4, 4, hRAX, 0xfffc)
	t.segment(x86.CS, flatCode)
	a.aluImm(0, 4, hRAX, 8)
	t.segment(x86.SS, flatData)
	a.storeImm8(at(hRSP, offCPL), 0)
	a.extm(ins{op: 0xff, size: 4}, 4, j)
	return true
}

// sysret returns to privilege level 3 (SDM Vol. 2B, SYSRET).
func (t *translator) sysret() bool {
	a := &t.a
	t.saveFlags()
	slow := t.slowExit()
	a.aluImmMem(7, 4, t.e.scratchAt(sSysOK), 0)
	a.jcc(ccE, slow)
	a.aluImmMem(7, 4, t.e.scratchAt(sQuiet), 0)
	a.jcc(ccE, slow)
	a.ext(ins{op: 0xf7, size: 4}, 0, hostOf[x86.R11]) // test
	a.imm32(x86.FlagAC | x86.FlagTF)
	a.jcc(ccNE, slow)
	t.mode = x86.ViewUser
	a.mov(hRAX, hRCX)
	j := t.lookup(slow)
	const keep = x86.FlagsArith | x86.FlagIF | x86.FlagDF | x86.FlagIOPL | x86.FlagNT | x86.FlagVIF | x86.FlagVIP | x86.FlagID
	a.mov32(hR11, hostOf[x86.R11])
	a.aluImm(4, 4, hR11, keep)
	a.aluImm(1, 4, hR11, x86.Flag1)
	t.setFlags()
	a.load(hRAX, at(hRSP, offSTAR))
	a.bytes(0x48, 0xc1, 0xe8, 48) // shr rax, 48
	a.aluImm(0, 4, hRAX, 16)
	a.aluImm(1, 4, hRAX, 3)
	t.segment(x86.CS, flatCode|x86.SegDPL)
	a.rm(ins{op: 0x0fb7, size: 4}, hRAX, at(hRSP, offSTAR+6))
	a.aluImm(0, 4, hRAX, 8)
	a.aluImm(1, 4, hRAX, 3)
	t.segment(x86.SS, flatData|x86.SegDPL)
	a.storeImm8(at(hRSP, offCPL), 3)
	a.extm(ins{op: 0xff, size: 4}, 4, j)
	return true
}

// flatDescriptor is the descriptor of a flat segment with attributes attr.
func flatDescriptor(attr uint16) uint64 { return uint64(attr)<<40 | 0x0f<<48 | 0xffff }

// iret returns from an interrupt at privilege level 0, to it or to level 3, without leaving generated code (SDM Vol. 2A,
// IRET): where the segments are those of a kernel in 64-bit mode, and no flag is set that asks for anything.
func (t *translator) iret() bool {
	a := &t.a
	t.saveFlags()
	slow := t.slowExit()
	a.aluImmMem(7, 4, t.e.scratchAt(sQuiet), 0)
	a.jcc(ccE, slow)
	a.aluImmMem(7, 1, at(hRSP, offNMI), 0)
	a.jcc(ccNE, slow)
	a.extm(ins{op: 0xf7, size: 4}, 0, at(hRSP, offRFLAGS)) // test
	a.imm32(x86.FlagNT)
	a.jcc(ccNE, slow)
	// The frame, of which the scratch area keeps the address: RIP, CS, RFLAGS, RSP, SS.
	const fRIP, fCS, fFlags, fRSP, fSS = 0, 8, 16, 24, 32
	a.lea(hR10, t.translateAddress(hStack, 0, fSS+8, false, false, slow))
	frame := t.e.scratchAt(sTmp)
	a.store(frame, hR10)
	const plain = x86.FlagsArith | x86.FlagIF | x86.FlagDF | x86.FlagID | x86.Flag1
	a.extm(ins{op: 0xf7, size: 8}, 0, at(hR10, fFlags)) // test
	a.imm32(^int32(plain))
	a.jcc(ccNE, slow)
	// R11 becomes the host's address of the descriptor table, which lies in a page.
	a.load(hRAX, at(hRSP, offGDT))
	a.ext(ins{op: 0xf7, size: 4}, 0, hRAX) // test
	a.imm32(mem.PageSize - 1)
	a.jcc(ccNE, slow)
	a.mov32(hR11, hRAX)
	a.load(hR11, t.lookUp(false, slow))
	a.rm(ins{op: 0x03, size: 8}, hR11, at(hRSP, offGDT))
	a.rm(ins{op: 0x0fb7, size: 4}, hRAX, at(hRSP, offGDTLim))
	a.aluImm(7, 4, hRAX, mem.PageSize-1)
	a.jcc(ccA, slow)
	// selector compares the descriptor that the selector in EAX selects at a privilege level.
	selector := func(level int32, attr uint16) {
		a.mov32(hR10, hRAX)
		a.aluImm(4, 4, hR10, 7)
		a.aluImm(7, 4, hR10, level)
		a.jcc(ccNE, slow)
		a.mov32(hR10, hRAX)
		a.aluImm(1, 4, hR10, 7)
		a.rm(ins{op: 0x3b, size: 2}, hR10, at(hRSP, offGDTLim))
		a.jcc(ccA, slow)
		a.aluImm(4, 4, hRAX, ^int32(7))
		a.movConst(hR10, flatDescriptor(attr))
		a.rm(ins{op: 0x3b, size: 8}, hR10, memop{base: hR11, index: hRAX})
		a.jcc(ccNE, slow)
	}
	word := func(field int32) {
		a.load(hRAX, frame)
		a.rm(ins{op: 0x0fb7, size: 4}, hRAX, at(hRAX, field))
	}
	target := func(mode uint8) memop {
		t.mode = mode
		a.load(hRAX, frame)
		a.load(hRAX, at(hRAX, fRIP))
		return t.lookup(slow)
	}
	enter := func(code uint16) {
		a.load(hRAX, frame)
		a.load(hStack, at(hRAX, fRSP))
		a.load(hR11, at(hRAX, fFlags))
		a.aluImm(1, 8, hR11, x86.Flag1)
		t.setFlags()
		word(fCS)
		t.segment(x86.CS, code)
		word(fSS)
	}
	outer := newLabel()
	word(fCS)
	a.ext(ins{op: 0xf6, size: 1}, 0, hRAX) // test
	a.bytes(3)
	a.jcc(ccNE, outer)

	selector(0, flatCode)
	null, same := newLabel(), newLabel()
	word(fSS)
	a.rr(ins{op: 0x85, size: 4}, hRAX, hRAX)
	a.jcc(ccE, null)
	selector(0, flatData)
	a.bind(null)
	j := target(x86.ViewSuper)
	enter(flatCode)
	a.rr(ins{op: 0x85, size: 4}, hRAX, hRAX)
	empty := newLabel()
	a.jcc(ccE, empty)
	t.segment(x86.SS, flatData)
	a.bind(same)
	a.extm(ins{op: 0xff, size: 4}, 4, j)
	a.bind(empty)
	t.segment(x86.SS, x86.SegDB)
	a.storeImm32(segAt(x86.SS, offLimit), 0)
	a.jmp(same)

	a.bind(outer)
	selector(3, flatCode|x86.SegDPL)
	word(fSS)
	selector(3, flatData|x86.SegDPL)
	for _, s := range []int{x86.ES, x86.DS, x86.FS, x86.GS} {
		// A segment of an inner level becomes null.
		a.rm(ins{op: 0x0fb7, size: 4}, hRAX, segAt(s, offAttr))
		a.aluImm(4, 4, hRAX, x86.SegPresent|x86.SegDPL)
		a.aluImm(5, 4, hRAX, x86.SegPresent)
		a.aluImm(7, 4, hRAX, x86.SegDPL)
		a.jcc(ccB, slow)
	}
	j = target(x86.ViewUser)
	enter(flatCode | x86.SegDPL)
	t.segment(x86.SS, flatData|x86.SegDPL)
	a.storeImm8(at(hRSP, offCPL), 3)
	a.extm(ins{op: 0xff, size: 4}, 4, j)
	return true
}
