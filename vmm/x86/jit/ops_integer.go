//go:build linux && amd64

package jit

import (
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// emit translates the instruction in work. It reports false, having changed
// nothing that the guest sees, where the interpreter has to execute it.
func (t *translator) emit() bool {
	in := t.in
	size := int(in.OpSize)
	switch in.Op {
	case x86.OpADD, x86.OpOR, x86.OpADC, x86.OpSBB, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpCMP:
		return t.alu(int(in.Op-x86.OpADD), size)
	case x86.OpTEST:
		return t.test(size)
	case x86.OpMOV:
		return t.move(size)
	case x86.OpMOVNTI:
		size = max(size, 4)
		m, ok := t.guest(in, size, true, false)
		if ok {
			t.a.rm(ins{op: 0x89, size: size}, t.src(in.Reg, hRAX), m)
		}
		return ok
	case x86.OpMOVZX8, x86.OpMOVZX16, x86.OpMOVSX8, x86.OpMOVSX16, x86.OpMOVSXD:
		return t.extend(size)
	case x86.OpLEA:
		return t.leaOp(size)
	case x86.OpINC, x86.OpDEC:
		return t.incDec(size)
	case x86.OpNOT, x86.OpNEG:
		return t.notNeg(size)
	case x86.OpPUSH:
		return t.push(size)
	case x86.OpPOP:
		return t.pop(size)
	case x86.OpLEAVE:
		return t.leaveOp(size)
	case x86.OpSHL, x86.OpSAL, x86.OpSHR, x86.OpSAR, x86.OpROL, x86.OpROR, x86.OpRCL, x86.OpRCR:
		return t.shift(size)
	case x86.OpSHLD, x86.OpSHRD:
		return t.shiftDouble(size)
	case x86.OpIMUL2, x86.OpIMUL3:
		return t.imul(size)
	case x86.OpMUL, x86.OpIMUL1:
		return t.mul(size)
	case x86.OpDIV, x86.OpIDIV:
		return t.div(size)
	case x86.OpBT, x86.OpBTS, x86.OpBTR, x86.OpBTC:
		return t.bitTest(size)
	case x86.OpBSF, x86.OpBSR:
		return t.scan(size)
	case x86.OpPOPCNT:
		return t.popcnt(size)
	case x86.OpBSWAP:
		if size < 4 {
			return false
		}
		r, done := t.dst(in.Reg, size, hR10)
		t.a.opcode(ins{op: 0x0fc8 | uint32(r&7), size: size}, 0, 0, r)
		done()
		return true
	case x86.OpCBW:
		return t.cbw(size)
	case x86.OpCWD:
		return t.cwd(size)
	case x86.OpXCHG:
		return t.xchg(size)
	case x86.OpXADD:
		return t.xadd(size)
	case x86.OpCMPXCHG:
		return t.cmpxchg(size)
	case x86.OpCMPXCHG16B:
		return t.cmpxchg16()
	case x86.OpSETCC:
		return t.setcc()
	case x86.OpCMOVCC:
		return t.cmov(size)
	case x86.OpNOP, x86.OpFENCE:
		return true
	case x86.OpCLD:
		// The flags register of the State holds all but the arithmetic flags.
		t.saveFlags()
		t.a.aluImmMem(4, 4, at(hRSP, offRFLAGS), ^int32(x86.FlagDF))
		t.clobbered()
		return true
	case x86.OpSTD:
		t.saveFlags()
		t.a.aluImmMem(1, 4, at(hRSP, offRFLAGS), x86.FlagDF)
		t.clobbered()
		return true
	case x86.OpMOVS, x86.OpSTOS:
		return t.repeat(size)
	case x86.OpCLC, x86.OpSTC, x86.OpCMC:
		t.hostFlags(fAll)
		t.a.bytes(map[x86.Op]byte{x86.OpCLC: 0xf8, x86.OpSTC: 0xf9, x86.OpCMC: 0xf5}[in.Op])
		t.wrote(flagsAll)
		return true
	case x86.OpJCC, x86.OpJMP, x86.OpCALL, x86.OpRET, x86.OpJCXZ, x86.OpLOOP:
		return t.branch()
	}
	return t.loop == nil && t.emitSystem() || t.emitVector() || t.emitX87()
}

// repeat emits REP MOVS and REP STOS for runs that lie in one page, go upwards and fit
// the budget: the host's own instruction, on the host's addresses; and for those of no
// length, which kernels often have to copy behind the whole words. The rest is the interpreter's.
func (t *translator) repeat(size int) bool {
	a, in := &t.a, t.in
	if in.Prefix&(x86.PrefixRep|x86.PrefixRepne) == 0 || in.AddrSize != 8 || in.Seg != x86.SegFlat {
		return false
	}
	scale := map[int]uint8{1: 0, 2: 1, 4: 2, 8: 3}[size]
	slow, none := t.slowExit(), newLabel()
	a.rr(ins{op: 0x85, size: 8}, hRCX, hRCX) // test
	a.jcc(ccE, none)
	a.extm(ins{op: 0xf7, size: 4}, 0, at(hRSP, offRFLAGS)) // test
	a.imm32(x86.FlagDF)
	a.jcc(ccNE, slow)
	a.aluImm(7, 8, hRCX, mem.PageSize)
	a.jcc(ccA, slow)
	a.rr(ins{op: 0x3b, size: 8}, hRCX, hBudget)
	a.jcc(ccA, slow)
	translate := func(base int, write bool, addend int) {
		a.mov32(hR11, base)
		a.bytes(0x41, 0xc1, 0xeb, 7) // shr r11d, 7
		a.aluImm(4, 4, hR11, tlbIndexMask)
		a.lea(hRAX, memop{base: base, index: hRCX, scale: scale, disp: -1})
		a.bytes(0x48, 0x25) // and rax, -4096
		a.imm32(-mem.PageSize)
		a.rm(ins{op: 0x3b, size: 8}, hRAX, memop{base: hRSP, index: hR11, disp: t.view + tagDisp(write)})
		a.jcc(ccNE, slow)
		a.load(addend, memop{base: hRSP, index: hR11, disp: t.view + 16})
	}
	movs := in.Op == x86.OpMOVS
	if movs {
		translate(hRSI, false, hR10)
	}
	translate(hRDI, true, hR11)
	t.clobbered()
	// Each iteration counts one; the last is in the account already.
	a.lea(hBudget, at(hBudget, 1))
	a.rr(ins{op: 0x2b, size: 8}, hBudget, hRCX)
	a.rr(ins{op: 0x03, size: 8}, hRDI, hR11)
	op := byte(0xaa)
	if movs {
		a.rr(ins{op: 0x03, size: 8}, hRSI, hR10)
		op = 0xa4
	} else {
		a.mov(hRAX, hostOf[x86.RAX])
	}
	a.bytes(0xf3)
	a.opcode(ins{op: uint32(op) | wide(size), size: size}, 0, 0, 0)
	a.rr(ins{op: 0x2b, size: 8}, hRDI, hR11)
	if movs {
		a.rr(ins{op: 0x2b, size: 8}, hRSI, hR10)
	}
	a.bind(none)
	return true
}

// immediate returns the instruction's immediate, as an operand of size bytes holds it sign-extended.
func immediate(in *guestInst, size int) int32 {
	switch size {
	case 1:
		return int32(int8(in.Imm))
	case 2:
		return int32(int16(in.Imm))
	}
	return int32(in.Imm)
}

// wide is the opcode bit that tells operands of one byte from the others.
func wide(size int) uint32 {
	if size == 1 {
		return 0
	}
	return 1
}

func (t *translator) alu(op, size int) bool {
	a, in := &t.a, t.in
	ops := x86.FormOperands(in.Form)
	cmp := op == 7
	carry := op == 2 || op == 3
	needCF := func() {
		if carry {
			t.hostCF()
		}
	}
	kind, rm := ops[0].Kind, in.RM
	if kind == 'a' {
		rm = x86.RAX
		kind = 'E'
		in.IsMem = false
	}
	switch {
	case kind == 'E' && ops[1].Kind == 'I':
		v := immediate(in, size)
		if in.IsMem {
			m, ok := t.guest(in, size, !cmp, false)
			if !ok {
				return false
			}
			needCF()
			a.aluImmMem(op, size, m, v)
			break
		}
		needCF()
		r, done := t.dst(rm, size, hR10)
		a.aluImm(op, size, r, v)
		if !cmp {
			done()
		}
		t.wrote(flagsAll)
		t.rememberALU(op, size, rm, 0, true, v)
		return true
	case kind == 'E':
		if in.IsMem {
			m, ok := t.guest(in, size, !cmp, false)
			if !ok {
				return false
			}
			needCF()
			a.rm(ins{op: uint32(op)<<3 | wide(size), size: size}, t.src(in.Reg, hRAX), m)
			break
		}
		needCF()
		r, done := t.dst(rm, size, hR10)
		a.rr(ins{op: uint32(op)<<3 | wide(size), size: size}, t.src(in.Reg, hRAX), r)
		if !cmp {
			done()
		}
		t.wrote(flagsAll)
		t.rememberALU(op, size, rm, in.Reg, false, 0)
		return true
	default: // G, E
		if in.IsMem {
			m, ok := t.guest(in, size, false, false)
			if !ok {
				return false
			}
			needCF()
			r, done := t.dst(in.Reg, size, hRAX)
			a.rm(ins{op: uint32(op)<<3 | 2 | wide(size), size: size}, r, m)
			if !cmp {
				done()
			}
			break
		}
		needCF()
		r, done := t.dst(in.Reg, size, hR10)
		a.rr(ins{op: uint32(op)<<3 | 2 | wide(size), size: size}, r, t.src(rm, hRAX))
		if !cmp {
			done()
		}
		t.wrote(flagsAll)
		t.rememberALU(op, size, in.Reg, rm, false, 0)
		return true
	}
	t.wrote(flagsAll)
	return true
}

// rememberALU notes how the flags of an operation between registers, or with an immediate, can be had once more.
func (t *translator) rememberALU(op, size int, a, b uint8, immediate bool, imm int32) {
	switch op {
	case 7:
		t.remember(againCmp, size, a, b, immediate, imm)
	case 1, 4, 6: // the result says it all
		t.remember(againTest, size, a, a, false, 0)
	case 0, 5:
		if size >= 4 && (immediate || a != b) {
			kind := againAdd
			if op == 5 {
				kind = againSub
			}
			t.remember(kind, size, a, b, immediate, imm)
		}
	}
}

func (t *translator) test(size int) bool {
	a, in := &t.a, t.in
	ops := x86.FormOperands(in.Form)
	rm := in.RM
	if ops[0].Kind == 'a' {
		rm, in.IsMem = x86.RAX, false
	}
	if ops[1].Kind == 'I' {
		v := immediate(in, size)
		if in.IsMem {
			m, ok := t.guest(in, size, false, false)
			if !ok {
				return false
			}
			a.extm(ins{op: 0xf6 | wide(size), size: size}, 0, m)
		} else {
			a.ext(ins{op: 0xf6 | wide(size), size: size}, 0, t.src(rm, hRAX))
		}
		a.imm(v, size)
		t.wrote(flagsAll)
		if !in.IsMem {
			t.remember(againTest, size, rm, 0, true, v)
		}
		return true
	} else if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x84 | wide(size), size: size}, t.src(in.Reg, hRAX), m)
	} else {
		r := t.src(rm, hR10)
		a.rr(ins{op: 0x84 | wide(size), size: size}, t.src(in.Reg, hRAX), r)
		t.wrote(flagsAll)
		t.remember(againTest, size, rm, in.Reg, false, 0)
		return true
	}
	t.wrote(flagsAll)
	return true
}

func (t *translator) move(size int) bool {
	a, in := &t.a, t.in
	ops := x86.FormOperands(in.Form)
	d, s := ops[0].Kind, ops[1].Kind
	reg := in.Reg
	if d == 'a' {
		reg, d = x86.RAX, 'G'
	}
	if s == 'a' {
		reg, s = x86.RAX, 'G'
	}
	switch {
	case d == 'Z':
		return t.moveConst(reg, size, in.Imm)
	case s == 'I' && in.IsMem:
		m, ok := t.guest(in, size, true, false)
		if !ok {
			return false
		}
		a.extm(ins{op: 0xc6 | wide(size), size: size}, 0, m)
		a.imm(immediate(in, size), size)
	case s == 'I':
		return t.moveConst(in.RM, size, uint64(int64(immediate(in, size))))
	case in.IsMem && d == 'G':
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		if size >= 4 {
			r, done := t.set(reg, hRAX)
			a.rm(ins{op: 0x8b, size: size}, r, m)
			done()
			return true
		}
		r, done := t.dst(reg, size, hRAX)
		a.rm(ins{op: 0x8a | wide(size), size: size}, r, m)
		done()
	case in.IsMem:
		m, ok := t.guest(in, size, true, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x88 | wide(size), size: size}, t.src(reg, hRAX), m)
	default:
		to, from := in.RM, reg
		if d == 'G' {
			to, from = from, to
		}
		t.moveReg(to, from, size)
	}
	return true
}

// moveReg emits a move between registers.
func (t *translator) moveReg(to, from uint8, size int) {
	a := &t.a
	if size >= 4 {
		s := t.src(from, hRAX)
		if size == 8 && hostOf[to] == hNone {
			a.store(home(to), s)
			if t.kept == int(to) {
				t.kept = keptNone
			}
			return
		}
		r, done := t.set(to, hRAX)
		a.rr(ins{op: 0x8b, size: size}, r, s)
		done()
		return
	}
	r, done := t.dst(to, size, hR10)
	a.rr(ins{op: 0x8a | wide(size), size: size}, r, t.src(from, hRAX))
	done()
}

func (t *translator) moveConst(g uint8, size int, v uint64) bool {
	a := &t.a
	switch size {
	case 8, 4:
		if size == 4 {
			v = uint64(uint32(v))
		}
		r, done := t.set(g, hRAX)
		a.movConst(r, v)
		done()
	default:
		r, done := t.dst(g, size, hR10)
		a.movConst(hRAX, v&(1<<(8*size)-1))
		a.rr(ins{op: 0x8a | wide(size), size: size}, r, hRAX)
		done()
	}
	return true
}

// extend emits MOVZX, MOVSX and MOVSXD.
func (t *translator) extend(size int) bool {
	a, in := &t.a, t.in
	i := ins{size: size}
	from := 1
	switch in.Op {
	case x86.OpMOVZX8:
		i.op = 0x0fb6
	case x86.OpMOVZX16:
		i.op, from = 0x0fb7, 2
	case x86.OpMOVSX8:
		i.op = 0x0fbe
	case x86.OpMOVSX16:
		i.op, from = 0x0fbf, 2
	default:
		i.op, from = 0x63, 4
	}
	if size < 4 {
		return false
	}
	if in.IsMem {
		m, ok := t.guest(in, from, false, false)
		if !ok {
			return false
		}
		r, done := t.set(in.Reg, hRAX)
		a.rm(i, r, m)
		done()
		return true
	}
	s := t.src(in.RM, hRAX)
	r, done := t.set(in.Reg, hRAX)
	i.rex = from == 1 // SPL to DIL
	a.rr(i, r, s)
	done()
	return true
}

func (t *translator) leaOp(size int) bool {
	a, in := &t.a, t.in
	if in.AddrSize != 8 || !fits32(in.Disp) || size < 4 {
		return false
	}
	if in.Base == x86.RIP {
		v := t.next + in.Disp
		return t.moveConst(in.Reg, size, v)
	}
	r, done := t.set(in.Reg, hRAX)
	m := memop{base: hNone, index: hNone, scale: in.Scale & 3, disp: int32(in.Disp)}
	if in.Base != x86.RegZero {
		m.base = t.src(in.Base, hR10)
	}
	if in.Index != x86.RegZero {
		m.index = t.src(in.Index, hR11)
	}
	a.rm(ins{op: 0x8d, size: size}, r, m)
	done()
	return true
}

func (t *translator) incDec(size int) bool {
	a, in := &t.a, t.in
	digit := int(in.Op - x86.OpINC)
	i := ins{op: 0xfe | wide(size), size: size}
	if in.IsMem {
		m, ok := t.guest(in, size, true, false)
		if !ok {
			return false
		}
		t.hostCF()
		a.extm(i, digit, m)
	} else {
		if !t.dead(t.i) {
			t.hostCF()
		}
		r, done := t.dst(in.RM, size, hR10)
		a.ext(i, digit, r)
		done()
	}
	t.wrote(flagsAll)
	return true
}

func (t *translator) notNeg(size int) bool {
	a, in := &t.a, t.in
	digit := 2
	if in.Op == x86.OpNEG {
		digit = 3
	}
	i := ins{op: 0xf6 | wide(size), size: size}
	if in.IsMem {
		m, ok := t.guest(in, size, true, false)
		if !ok {
			return false
		}
		a.extm(i, digit, m)
	} else {
		r, done := t.dst(in.RM, size, hR10)
		a.ext(i, digit, r)
		done()
	}
	if in.Op == x86.OpNEG {
		t.wrote(flagsAll)
	}
	return true
}

func (t *translator) push(size int) bool {
	a, in := &t.a, t.in
	if size != 8 {
		return false
	}
	switch x86.FormOperands(in.Form)[0].Kind {
	case 'Z':
		m := t.guestStack(-8, 8, true)
		a.store(m, t.src(in.Reg, hRAX))
	case 'I':
		if !fits32(in.Imm) {
			return false
		}
		m := t.guestStack(-8, 8, true)
		a.extm(ins{op: 0xc7, size: 8}, 0, m)
		a.imm32(int32(in.Imm))
	default:
		if !in.IsMem {
			m := t.guestStack(-8, 8, true)
			a.store(m, t.src(in.RM, hRAX))
			break
		}
		m, ok := t.guest(in, 8, false, false)
		if !ok {
			return false
		}
		a.load(hRAX, m)
		a.store(t.e.scratchAt(sTmp), hRAX)
		to := t.guestStack(-8, 8, true)
		a.load(hRAX, t.e.scratchAt(sTmp))
		a.store(to, hRAX)
	}
	a.lea(hStack, at(hStack, -8))
	return true
}

func (t *translator) pop(size int) bool {
	a, in := &t.a, t.in
	if size != 8 || in.IsMem {
		return false
	}
	g := in.RM
	if x86.FormOperands(in.Form)[0].Kind == 'Z' {
		g = in.Reg
	}
	m := t.guestStack(0, 8, false)
	if g == x86.RSP {
		a.load(hStack, m)
		return true
	}
	r, done := t.set(g, hRAX)
	a.load(r, m)
	a.lea(hStack, at(hStack, 8))
	done()
	return true
}

func (t *translator) leaveOp(size int) bool {
	if size != 8 {
		return false
	}
	a := &t.a
	m := t.translateAddress(hRBP, 0, 8, false, false, t.slowExit())
	a.lea(hStack, at(hRBP, 8))
	a.load(hRBP, m)
	return true
}

// shift emits shifts and rotates, where the flags allow it.
func (t *translator) shift(size int) bool {
	a, in := &t.a, t.in
	digit := int(in.Op - x86.OpROL)
	if in.Op == x86.OpSAL {
		digit = 4
	}
	if in.RM&x86.HighByte != 0 && !in.IsMem {
		return false
	}
	rotate := digit < 4
	mask := uint64(31)
	if size == 8 {
		mask = 63
	}
	count := uint64(1)
	kind := x86.FormOperands(in.Form)[1].Kind
	if kind == 'I' {
		count = in.Imm & mask
	}
	if kind == 'c' {
		return t.shiftCL(size, digit, rotate)
	}
	if count == 0 || !rotate && count >= uint64(8*size) || digit == 2 && count != 1 || digit == 3 && count != 1 || rotate && count >= uint64(8*size) {
		return false
	}
	i := ins{op: 0xc0 | wide(size), size: size}
	var m memop
	if in.IsMem {
		var ok bool
		if m, ok = t.guest(in, size, true, false); !ok {
			return false
		}
	}
	dead := t.dead(t.i)
	switch {
	case digit == 2 || digit == 3:
		// RCL and RCR read CF, and keep the others.
		t.hostFlags(fAll)
	case rotate && !dead:
		t.hostFlags(fAll)
	}
	if in.IsMem {
		a.extm(i, digit, m)
		a.bytes(byte(count))
	} else {
		r, done := t.dst(in.RM, size, hR10)
		a.ext(i, digit, r)
		a.bytes(byte(count))
		done()
	}
	switch {
	case rotate && count == 1:
		t.wrote(flagsAll)
	case rotate:
		t.wrote(flagsRotN)
	case count == 1:
		t.wrote(flagsShift1)
	default:
		t.wrote(flagsShiftN)
	}
	return true
}

// shiftCL emits shifts by CL. A count of zero leaves the flags.
func (t *translator) shiftCL(size, digit int, rotate bool) bool {
	a, in := &t.a, t.in
	i := ins{op: 0xd2 | wide(size), size: size}
	if in.IsMem {
		return false
	}
	if digit != 2 && digit != 3 && t.dead(t.i) {
		r, done := t.dst(in.RM, size, hR10)
		a.ext(i, digit, r)
		done()
		t.fl = flagState{}
		return true
	}
	if rotate || size < 4 {
		return false
	}
	t.saveFlags()
	// RCX may be the operand: keep the count.
	a.mov32(hR11, hRCX)
	r, done := t.dst(in.RM, size, hR10)
	a.ext(i, digit, r)
	done()
	t.shiftFlags(size)
	return true
}

// shiftFlags saves the flags of a shift by the count that R11 holds a copy of.
func (t *translator) shiftFlags(size int) {
	a := &t.a
	mask := int32(31)
	if size == 8 {
		mask = 63
	}
	a.bytes(0x0f, 0x90, 0xc0, 0x9f) // seto al; lahf
	a.bytes(0x80, 0xe4, 0xef)       // and ah, ~AF
	same := newLabel()
	a.aluImm(4, 4, hR11, mask)
	a.jcc(ccE, same)
	// OF counts where the count is one.
	a.aluImm(7, 4, hR11, 1)
	a.bytes(0x41, 0x0f, 0x94, 0xc3)          // setz r11b
	a.rr(ins{op: 0x22, size: 1}, hRAX, hR11) // and al, r11b
	a.rm(ins{op: 0x89, size: 2}, hRAX, at(hRSP, offFlags))
	a.bind(same)
	t.fl = flagState{mem: true}
}

func (t *translator) shiftDouble(size int) bool {
	a, in := &t.a, t.in
	if size < 4 || in.IsMem {
		return false
	}
	op := uint32(0x0fa4)
	if in.Op == x86.OpSHRD {
		op = 0x0fac
	}
	if x86.FormOperands(in.Form)[2].Kind == 'c' {
		if t.dead(t.i) {
			r, done := t.dst(in.RM, size, hR10)
			a.rr(ins{op: op + 1, size: size}, t.src(in.Reg, hRAX), r)
			done()
			t.fl = flagState{}
			return true
		}
		t.saveFlags()
		a.mov32(hR11, hRCX)
		r, done := t.dst(in.RM, size, hR10)
		a.rr(ins{op: op + 1, size: size}, t.src(in.Reg, hRAX), r)
		done()
		t.shiftFlags(size)
		return true
	}
	count := in.Imm & 31
	if size == 8 {
		count = in.Imm & 63
	}
	if count == 0 {
		return false
	}
	r, done := t.dst(in.RM, size, hR10)
	a.rr(ins{op: op, size: size}, t.src(in.Reg, hRAX), r)
	a.bytes(byte(count))
	done()
	if count == 1 {
		t.wrote(flagsShift1)
	} else {
		t.wrote(flagsShiftN)
	}
	return true
}

func (t *translator) imul(size int) bool {
	a, in := &t.a, t.in
	if in.Op == x86.OpIMUL2 {
		i := ins{op: 0x0faf, size: size}
		if in.IsMem {
			m, ok := t.guest(in, size, false, false)
			if !ok {
				return false
			}
			r, done := t.dst(in.Reg, size, hRAX)
			a.rm(i, r, m)
			done()
		} else {
			r, done := t.dst(in.Reg, size, hR10)
			a.rr(i, r, t.src(in.RM, hRAX))
			done()
		}
		t.wrote(flagsMul)
		return true
	}
	if size < 4 {
		return false
	}
	i := ins{op: 0x69, size: size}
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		r, done := t.set(in.Reg, hRAX)
		a.rm(i, r, m)
		a.imm32(int32(in.Imm))
		done()
	} else {
		s := t.src(in.RM, hRAX)
		r, done := t.set(in.Reg, hRAX)
		a.rr(i, r, s)
		a.imm32(int32(in.Imm))
		done()
	}
	t.wrote(flagsMul)
	return true
}

// mul emits the products that are twice as wide as their operands.
func (t *translator) mul(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	digit := 4
	if in.Op == x86.OpIMUL1 {
		digit = 5
	}
	i := ins{op: 0xf7, size: size}
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		a.mov(hRAX, hostOf[x86.RAX])
		a.extm(i, digit, m)
	} else {
		s := t.src(in.RM, hR10)
		a.mov(hRAX, hostOf[x86.RAX])
		a.ext(i, digit, s)
	}
	a.mov(hostOf[x86.RAX], hRAX)
	t.wrote(flagsMul)
	return true
}

// div emits divisions that cannot overflow; the others raise #DE in the interpreter.
func (t *translator) div(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	slow := t.slowExit()
	d := hR10
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x8b, size: size}, hR10, m)
	} else {
		d = t.src(in.RM, hR10)
		if d == hRDX || d == hostOf[x86.RAX] {
			a.mov(hR10, d)
			d = hR10
		}
	}
	digit := 6
	if in.Op == x86.OpDIV {
		// The quotient fits if the upper half is below the divisor; that excludes zero.
		a.rr(ins{op: 0x3b, size: size}, hRDX, d)
		a.jcc(ccAE, slow)
		a.mov(hRAX, hostOf[x86.RAX])
	} else {
		digit = 7
		// Take the common case only: a dividend that fits one half, and a divisor other than 0 and -1.
		a.rm(ins{op: 0x8d, size: size}, hRAX, at(d, 1))
		a.aluImm(7, size, hRAX, 1)
		a.jcc(ccBE, slow)
		a.mov(hRAX, hostOf[x86.RAX])
		a.mov(hR11, hRAX)
		a.ext(ins{op: 0xc1, size: size}, 7, hR11) // sar
		a.bytes(byte(8*size - 1))
		a.rr(ins{op: 0x3b, size: size}, hR11, hRDX)
		a.jcc(ccNE, slow)
	}
	a.ext(ins{op: 0xf7, size: size}, digit, d)
	a.mov(hostOf[x86.RAX], hRAX)
	// All flags are undefined: ours are clear.
	a.extm(ins{op: 0xc7, size: 2}, 0, at(hRSP, offFlags))
	a.bytes(0, 0)
	t.fl = flagState{mem: true}
	return true
}

func (t *translator) bitTest(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	n := int(in.Op - x86.OpBT)
	imm := x86.FormOperands(in.Form)[1].Kind == 'I'
	if in.IsMem {
		if !simpleAddress(in) {
			return false
		}
		var m memop
		if imm {
			var ok bool
			if m, ok = t.guest(in, size, n != 0, false); !ok {
				return false
			}
		} else {
			slow := t.slowExit()
			t.effective(in, hR10)
			// The bit offset is signed, and reaches beyond the operand.
			bit := t.src(in.Reg, hRAX)
			shift := byte(5)
			if size == 8 {
				shift = 6
				a.mov(hR11, bit)
			} else {
				a.rr(ins{op: 0x63, size: 8}, hR11, bit) // movsxd
			}
			a.ext(ins{op: 0xc1, size: 8}, 7, hR11)
			a.bytes(shift)
			a.lea(hR10, memop{base: hR10, index: hR11, scale: shift - 3})
			m = t.translateAddress(hR10, 0, size, n != 0, false, slow)
		}
		t.hostFlags(fAll)
		if imm {
			a.extm(ins{op: 0x0fba, size: size}, 4+n, m)
			a.bytes(byte(in.Imm) & byte(8*size-1))
		} else {
			// A register operand of the host's instruction stays within the register.
			bit := t.src(in.Reg, hRAX)
			if n == 0 {
				if bit == hRAX {
					a.rm(ins{op: 0x8b, size: size}, hR10, m)
					a.rr(ins{op: 0x0fa3, size: size}, bit, hR10)
				} else {
					a.rm(ins{op: 0x8b, size: size}, hRAX, m)
					a.rr(ins{op: 0x0fa3, size: size}, bit, hRAX)
				}
			} else {
				// The address stays in R10, the addend in R11: the value needs RAX.
				a.lea(hR10, m)
				a.mov(hR11, bit)
				a.rm(ins{op: 0x8b, size: size}, hRAX, at(hR10, 0))
				a.rr(ins{op: 0x0fa3 + uint32(n)*8, size: size}, hR11, hRAX)
				a.rm(ins{op: 0x89, size: size}, hRAX, at(hR10, 0))
			}
		}
		t.wrote(flagsAll)
		return true
	}
	if !t.dead(t.i) {
		t.hostFlags(fAll)
	}
	if imm {
		r, done := t.dst(in.RM, size, hR10)
		a.ext(ins{op: 0x0fba, size: size}, 4+n, r)
		a.bytes(byte(in.Imm) & byte(8*size-1))
		if n != 0 {
			done()
		}
	} else {
		r, done := t.dst(in.RM, size, hR10)
		a.rr(ins{op: 0x0fa3 + uint32(n)*8, size: size}, t.src(in.Reg, hRAX), r)
		if n != 0 {
			done()
		}
	}
	t.wrote(flagsAll)
	return true
}

// scan emits BSF and BSR: of zero, the destination stays, whatever the host does.
func (t *translator) scan(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	op := uint32(0x0fbc)
	if in.Op == x86.OpBSR {
		op = 0x0fbd
	}
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x8b, size: size}, hR10, m)
	} else {
		s := t.src(in.RM, hR10)
		a.rr(ins{op: 0x8b, size: size}, hR10, s)
	}
	zero := newLabel()
	a.rr(ins{op: op, size: size}, hR10, hR10)
	a.jcc(ccE, zero)
	// A move leaves the flags; 32 bits clear the upper half.
	r, done := t.set(in.Reg, hRAX)
	a.mov32(r, hR10)
	done()
	a.bind(zero)
	t.wrote(flagsScan)
	return true
}

func (t *translator) popcnt(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	i := ins{pre: 0xf3, op: 0x0fb8, size: size}
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		r, done := t.set(in.Reg, hRAX)
		a.rm(i, r, m)
		done()
	} else {
		s := t.src(in.RM, hRAX)
		r, done := t.set(in.Reg, hRAX)
		a.rr(i, r, s)
		done()
	}
	t.wrote(flagsAll)
	return true
}

func (t *translator) cbw(size int) bool {
	r := hostOf[x86.RAX]
	switch size {
	case 8:
		t.a.rr(ins{op: 0x63, size: 8}, r, r)
	case 4:
		t.a.rr(ins{op: 0x0fbf, size: 4}, r, r)
	default:
		t.a.rr(ins{op: 0x0fbe, size: 2, rex: true}, r, r)
	}
	return true
}

func (t *translator) cwd(size int) bool {
	if size < 4 {
		return false
	}
	t.a.mov(hRAX, hostOf[x86.RAX])
	t.a.opcode(ins{op: 0x99, size: size}, 0, 0, 0)
	return true
}

func (t *translator) xchg(size int) bool {
	a, in := &t.a, t.in
	rm := in.RM
	if x86.FormOperands(in.Form)[0].Kind == 'Z' {
		rm = x86.RAX
		if in.Reg == x86.RAX {
			return true
		}
	}
	if size < 4 || in.Reg&x86.HighByte != 0 {
		return false
	}
	if in.IsMem {
		m, ok := t.guest(in, size, true, false)
		if !ok {
			return false
		}
		// A single processor needs no bus lock, which XCHG would imply.
		if hostOf[in.Reg] != hNone {
			r := hostOf[in.Reg]
			a.rm(ins{op: 0x8b, size: size}, hRAX, m)
			a.rm(ins{op: 0x89, size: size}, r, m)
			a.rr(ins{op: 0x8b, size: size}, r, hRAX)
			return true
		}
		a.lea(hR10, m)
		a.load(hRAX, home(in.Reg))
		a.rm(ins{op: 0x8b, size: size}, hR11, at(hR10, 0))
		a.rm(ins{op: 0x89, size: size}, hRAX, at(hR10, 0))
		a.store(home(in.Reg), hR11)
		return true
	}
	x, y := t.src(rm, hR10), t.src(in.Reg, hR11)
	a.rr(ins{op: 0x8b, size: size}, hRAX, x)
	r, done := t.set(rm, hR10)
	a.rr(ins{op: 0x8b, size: size}, r, y)
	done()
	r, done = t.set(in.Reg, hR11)
	a.rr(ins{op: 0x8b, size: size}, r, hRAX)
	done()
	return true
}

func (t *translator) xadd(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	i := ins{op: 0x0fc1, size: size}
	if in.IsMem {
		m, ok := t.guest(in, size, true, false)
		if !ok {
			return false
		}
		r, done := t.dst(in.Reg, size, hRAX)
		a.rm(i, r, m)
		done()
	} else {
		if in.RM == in.Reg {
			return false
		}
		r, done := t.dst(in.RM, size, hR10)
		s, sdone := t.dst(in.Reg, size, hR11)
		a.rr(i, s, r)
		sdone()
		done()
	}
	t.wrote(flagsAll)
	return true
}

func (t *translator) cmpxchg(size int) bool {
	a, in := &t.a, t.in
	if !in.IsMem || size < 4 {
		return false
	}
	m, ok := t.guest(in, size, true, false)
	if !ok {
		return false
	}
	src := hostOf[in.Reg]
	if src == hNone {
		a.lea(hR10, m)
		m = at(hR10, 0)
		a.load(hR11, home(in.Reg))
		src = hR11
	}
	a.mov(hRAX, hostOf[x86.RAX])
	a.rm(ins{op: 0x0fb1, size: size}, src, m)
	a.mov(hostOf[x86.RAX], hRAX)
	t.wrote(flagsAll)
	return true
}

// cmpxchg16 needs RAX, RBX, RCX and RDX where the guest has them, but for RAX. Only ZF changes.
func (t *translator) cmpxchg16() bool {
	a, in := &t.a, t.in
	m, ok := t.guest(in, 16, true, true)
	if !ok {
		return false
	}
	a.lea(hR10, m)
	t.hostFlags(fAll)
	a.mov(hRAX, hostOf[x86.RAX])
	a.extm(ins{op: 0x0fc7, size: 8}, 1, at(hR10, 0))
	a.mov(hostOf[x86.RAX], hRAX)
	t.wrote(flagsAll)
	return true
}

func (t *translator) setcc() bool {
	a, in := &t.a, t.in
	if in.IsMem {
		if !simpleAddress(in) {
			return false
		}
		// The translation of the address needs the flags: the result waits in memory.
		cc := t.cond(in.Opcode & 15)
		a.bytes(0x0f, 0x90|cc, 0xc0) // setcc al
		a.rm(ins{op: 0x88, size: 1}, hRAX, t.e.scratchAt(sTmp))
		m, ok := t.guest(in, 1, true, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x8a, size: 1}, hRAX, t.e.scratchAt(sTmp))
		a.rm(ins{op: 0x88, size: 1}, hRAX, m)
		return true
	}
	cc := t.cond(in.Opcode & 15)
	if mapped(in.RM) {
		r := hostOf[in.RM]
		a.opcode(ins{op: 0x0f90 | uint32(cc), size: 1, rex: r >= 4 && r < 8}, 0, 0, r)
		a.bytes(0xc0 | byte(r&7))
		return true
	}
	a.bytes(0x0f, 0x90|cc, 0xc0)
	r, done := t.dst(in.RM, 1, hR10)
	a.rr(ins{op: 0x8a, size: 1}, r, hRAX)
	done()
	return true
}

func (t *translator) cmov(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	op := uint32(0x0f40)
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x8b, size: size}, hR10, m)
		cc := t.cond(in.Opcode & 15)
		r, done := t.dst(in.Reg, size, hR11)
		a.rr(ins{op: op | uint32(cc), size: size}, r, hR10)
		done()
		return true
	}
	cc := t.cond(in.Opcode & 15)
	r, done := t.dst(in.Reg, size, hR10)
	a.rr(ins{op: op | uint32(cc), size: size}, r, t.src(in.RM, hRAX))
	done()
	return true
}

// branch emits the jumps that end a block.
func (t *translator) branch() bool {
	a, in := &t.a, t.in
	size := int(in.OpSize)
	if size != 8 {
		return false
	}
	direct := len(x86.FormOperands(in.Form)) > 0 && x86.FormOperands(in.Form)[0].Kind == 'J'
	target := t.next + in.Imm
	if direct && !x86.Canonical(target) {
		return false
	}
	switch in.Op {
	case x86.OpJCC:
		if in.side {
			return t.sideExit()
		}
		if t.loop != nil {
			t.loopBranch()
			return true
		}
		t.compute()
		cc := in.Opcode & 15
		exact := t.fl.host && classExact[t.fl.class]&condFlags[cc>>1&7] == condFlags[cc>>1&7]
		if exact && !t.fl.mem {
			if t.fl.class == flagsAll || t.fl.class == flagsRotN {
				t.saveFlags()
			} else {
				a.bytes(0x41, 0x0f, 0x90|cc, 0xc3) // setcc r11b
				t.saveFlags()
				a.bytes(0x45, 0x84, 0xdb) // test r11b, r11b
				cc = ccNE
			}
		} else {
			t.saveFlags()
			cc = t.cond(cc)
		}
		if target == t.b.rip && t.loopOf() {
			t.branchBack(cc)
		} else {
			t.linkBy(target, func(l *label) { a.jcc(cc, l) })
		}
		t.link(t.next)
		return true
	case x86.OpJCXZ:
		if in.AddrSize != 8 {
			return false
		}
		t.saveFlags()
		a.rr(ins{op: 0x85, size: 8}, hRCX, hRCX)
		t.clobbered()
		t.linkBy(target, func(l *label) { a.jcc(ccE, l) })
		t.link(t.next)
		return true
	case x86.OpLOOP:
		if in.AddrSize != 8 {
			return false
		}
		t.saveFlags()
		a.aluImm(5, 8, hRCX, 1)
		t.clobbered()
		t.linkBy(target, func(l *label) { a.jcc(ccNE, l) })
		t.link(t.next)
		return true
	case x86.OpRET:
		t.saveFlags()
		slow := t.slowExit()
		a.load(hRAX, t.guestStack(0, 8, false))
		j := t.lookup(slow)
		a.lea(hStack, at(hStack, 8+int32(in.Imm&0xffff)))
		a.extm(ins{op: 0xff, size: 4}, 4, j)
		return true
	case x86.OpJMP:
		if direct && t.loop != nil {
			t.loopBranch()
			return true
		}
		if direct {
			t.saveFlags()
			if target == t.b.rip && t.loopOf() {
				t.branchBack(ccAlways)
			} else {
				t.link(target)
			}
			return true
		}
		t.saveFlags()
		slow := t.slowExit()
		if !t.loadTarget() {
			return false
		}
		a.extm(ins{op: 0xff, size: 4}, 4, t.lookup(slow))
		return true
	case x86.OpCALL:
		t.saveFlags()
		if direct {
			m := t.guestStack(-8, 8, true)
			t.storeConst(m, t.next)
			a.lea(hStack, at(hStack, -8))
			t.link(target)
			return true
		}
		slow := t.slowExit()
		if !t.loadTarget() {
			return false
		}
		a.store(t.e.scratchAt(sTmp), hRAX)
		m := t.guestStack(-8, 8, true) // uses R11 only
		a.load(hRAX, t.e.scratchAt(sTmp))
		j := t.lookup(slow)
		t.storeConst(m, t.next)
		a.lea(hStack, at(hStack, -8))
		a.extm(ins{op: 0xff, size: 4}, 4, j)
		return true
	}
	return false
}

// loadTarget loads the operand of an indirect jump into RAX.
func (t *translator) loadTarget() bool {
	if t.in.IsMem {
		m, ok := t.guest(t.in, 8, false, false)
		if !ok {
			return false
		}
		t.a.load(hRAX, m)
		return true
	}
	t.a.mov(hRAX, t.src(t.in.RM, hRAX))
	return true
}

// storeConst stores 8 bytes; it may use RAX.
func (t *translator) storeConst(m memop, v uint64) {
	if fits32(v) {
		t.a.extm(ins{op: 0xc7, size: 8}, 0, m)
		t.a.imm32(int32(v))
		return
	}
	t.a.movConst(hRAX, v)
	t.a.store(m, hRAX)
}
