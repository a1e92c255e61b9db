//go:build linux && amd64

package jit

import (
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
		r, w := t.dst(in.Reg, size, hR10)
		t.a.opcode(ins{op: 0x0fc8 | uint32(r&7), size: size}, 0, 0, r)
		t.bring(w)
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
		if m, ok := t.inFrame(rm); ok && cmp {
			a.aluImmMem(op, size, m, v)
			t.wrote(flagsAll)
			t.rememberALU(op, size, rm, 0, true, v)
			return true
		}
		r, w := t.dst(rm, size, hR10)
		a.aluImm(op, size, r, v)
		if !cmp {
			t.bring(w)
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
		r, w := t.dst(rm, size, hR10)
		t.withSource(ins{op: uint32(op)<<3 | 2 | wide(size), size: size}, r, in.Reg)
		if !cmp {
			t.bring(w)
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
			r, w := t.dst(in.Reg, size, hRAX)
			a.rm(ins{op: uint32(op)<<3 | 2 | wide(size), size: size}, r, m)
			if !cmp {
				t.bring(w)
			}
			t.wrote(flagsAll)
			if op == 1 || op == 4 || op == 6 {
				t.rememberALU(op, size, in.Reg, in.Reg, false, 0)
			}
			return true
		}
		needCF()
		r, w := t.dst(in.Reg, size, hR10)
		t.withSource(ins{op: uint32(op)<<3 | 2 | wide(size), size: size}, r, rm)
		if !cmp {
			t.bring(w)
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
			r, w := t.set(reg, hRAX)
			a.rm(ins{op: 0x8b, size: size}, r, m)
			t.bring(w)
			return true
		}
		r, w := t.dst(reg, size, hRAX)
		a.rm(ins{op: 0x8a | wide(size), size: size}, r, m)
		t.bring(w)
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
		if size == 8 && hostOf[to] == hNone {
			a.store(home(to), t.src(from, hRAX))
			if t.kept == int(to) {
				t.kept = keptNone
			}
			return
		}
		if m, ok := t.inFrame(from); ok && hostOf[to] != hNone {
			a.rm(ins{op: 0x8b, size: size}, hostOf[to], m)
			return
		}
		s := t.src(from, hRAX)
		r, w := t.set(to, hRAX)
		a.rr(ins{op: 0x8b, size: size}, r, s)
		t.bring(w)
		return
	}
	r, w := t.dst(to, size, hR10)
	t.withSource(ins{op: 0x8a | wide(size), size: size}, r, from)
	t.bring(w)
}

func (t *translator) moveConst(g uint8, size int, v uint64) bool {
	a := &t.a
	switch size {
	case 8, 4:
		if size == 4 {
			v = uint64(uint32(v))
		}
		r, w := t.set(g, hRAX)
		a.movConst(r, v)
		t.bring(w)
	default:
		r, w := t.dst(g, size, hR10)
		a.movConst(hRAX, v&(1<<(8*size)-1))
		a.rr(ins{op: 0x8a | wide(size), size: size}, r, hRAX)
		t.bring(w)
	}
	return true
}

// extend emits MOVZX, MOVSX and MOVSXD.
func (t *translator) extend(size int) bool {
	in := t.in
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
	return t.setFromRM(i, from, func() {})
}

// setFromRM emits an instruction that reads its r/m operand, of size bytes, and writes its register operand,
// with what follows it: an immediate.
func (t *translator) setFromRM(i ins, size int, immediate func()) bool {
	a, in := &t.a, t.in
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		r, w := t.set(in.Reg, hRAX)
		a.rm(i, r, m)
		immediate()
		t.bring(w)
		return true
	}
	s := t.src(in.RM, hRAX)
	r, w := t.set(in.Reg, hRAX)
	i.rex = size == 1 // SPL to DIL
	a.rr(i, r, s)
	immediate()
	t.bring(w)
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
	m := t.operand(in, int32(in.Disp))
	r, w := t.set(in.Reg, hRAX)
	a.rm(ins{op: 0x8d, size: size}, r, m)
	t.bring(w)
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
		r, w := t.dst(in.RM, size, hR10)
		a.ext(i, digit, r)
		t.bring(w)
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
		r, w := t.dst(in.RM, size, hR10)
		a.ext(i, digit, r)
		t.bring(w)
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
	r, w := t.set(g, hRAX)
	a.load(r, m)
	a.lea(hStack, at(hStack, 8))
	t.bring(w)
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
	r, w := t.dst(in.RM, 1, hR10)
	a.rr(ins{op: 0x8a, size: 1}, r, hRAX)
	t.bring(w)
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
		r, w := t.dst(in.Reg, size, hR11)
		a.rr(ins{op: op | uint32(cc), size: size}, r, hR10)
		t.bring(w)
		return true
	}
	cc := t.cond(in.Opcode & 15)
	r, w := t.dst(in.Reg, size, hR10)
	a.rr(ins{op: op | uint32(cc), size: size}, r, t.src(in.RM, hRAX))
	t.bring(w)
	return true
}
