//go:build linux && amd64

package jit

import (
	"math"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// hostOf maps general registers of the guest to those of the host; hNone lives in
// the State. RAX, R10 and R11 are the translator's own, R13 holds the budget and
// RSP points at the State.
var hostOf = [16]int{
	x86.RAX: hR14, x86.RCX: hRCX, x86.RDX: hRDX, x86.RBX: hRBX, x86.RSP: hR15, x86.RBP: hRBP, x86.RSI: hRSI, x86.RDI: hRDI,
	x86.R8: hR8, x86.R9: hR9, x86.R10: hNone, x86.R11: hNone, x86.R12: hR12, x86.R13: hNone, x86.R14: hNone, x86.R15: hNone,
}

const (
	hBudget = hR13
	hStack  = hR15
)

// home is where register g of the guest lives in the State.
func home(g uint8) memop { return at(hRSP, offRegs+8*int32(g)) }

// flagClass says how the flags that an instruction of the host left become the
// guest's: which of them are right already, and what to do about the others.
type flagClass uint8

const (
	flagsAll    flagClass = iota // all right
	flagsMul                     // CF and OF; the others are cleared
	flagsShift1                  // all but AF, which is cleared
	flagsShiftN                  // all but AF and OF, which are cleared
	flagsRotN                    // all but OF, which is cleared
	flagsScan                    // ZF; the others are cleared
	flagsOrder                   // ZF, PF and CF; the others are cleared
)

const (
	fCF = 1 << iota
	fPF
	fAF
	fZF
	fSF
	fOF
	fAll = 1<<iota - 1
)

var classExact = [...]uint8{flagsAll: fAll, flagsMul: fCF | fOF, flagsShift1: fAll &^ fAF, flagsShiftN: fAll &^ (fAF | fOF), flagsRotN: fAll &^ fOF, flagsScan: fZF, flagsOrder: fZF | fPF | fCF}

// condFlags are the flags that each pair of condition codes reads.
var condFlags = [8]uint8{fOF, fCF, fZF, fCF | fZF, fSF, fPF, fSF | fOF, fSF | fOF | fZF}

// flagState says where the guest's arithmetic flags are: in the host's register, in
// memory, in both; or nowhere, but to be had again by translator.again, from
// registers that have not changed since. In none of these only while they are dead.
type flagState struct {
	host, mem, again bool
	class            flagClass
}

// againKind says how flags are computed once more.
type againKind uint8

const (
	againCmp  againKind = iota // cmp a, b
	againTest                  // test a, b: also after an operation whose result a is, when all that counts is the result
	againAdd                   // a is the sum of something and b
	againSub                   // a is the difference of something and b
)

// again is what makes the flags of an instruction once more, from host registers a and b, or a and imm.
type again struct {
	kind againKind
	size int
	a, b int // b is hNone for an immediate
	imm  int32
	regs uint16 // the registers of the guest that it needs
}

type guestInst struct {
	x86.Inst
	attr x86.Attr
	pos  uint16
	side bool // in the middle of the block, although it is of those that end one
}

// translator translates one block.
type translator struct {
	a     asm
	e     *Engine
	b     *block
	insts []guestInst
	cold  []func()
	view  int32 // of the TLB, from RSP
	mode  uint8 // the block's, but behind an instruction that changes it

	i    int // the instruction in work
	in   *guestInst
	next uint64 // RIP behind it
	fl   flagState
	re   again  // good while fl.again
	slow *label // of the instruction's exit, if it has one
	lost bool   // the exit has to compute the flags first, by exitRe

	windows     [16]window // by register
	kept        int        // the register that R10 has the value of, or keptNone
	keeps       bool       // the instruction in work leaves R10 to src and dst
	exitRe      again
	forgetAfter bool // the instruction changes what the flags would be computed from, and they are dead behind it
	id          int  // the exit
	call        bool // it is one always
	sse         bool // the vector registers are loaded
	x87         bool // the x87 unit is loaded

	plan loop
	loop *loop // the plan, while it is carried out
}

// endsBlock are operations that end a block although the opcode table does not say so.
func endsBlock(op x86.Op) bool { return op == x86.OpCLAC || op == x86.OpSTAC }

// translate makes the block at rip, or returns nil where there is nothing to translate.
// A plain block has no windows.
func (e *Engine) translate(rip, off uint64, mode uint8, plain bool) *block {
	c := e.c
	if c.RAM.Flags(off)&mem.Watched != 0 {
		return nil
	}
	if e.mem.used+maxCode > len(e.mem.rx) {
		e.flush()
	}
	if c.ObservesCode(rip, rip) {
		return e.translateObserved(rip, off, mode, plain)
	}
	looked := c.ObservesCode(rip, rip|(mem.PageSize-1))
	t := &e.t
	*t = translator{e: e, insts: t.insts[:0], cold: t.cold[:0], a: asm{b: t.a.b[:0]}}
	code := c.RAM.Page(int(off >> mem.PageShift))[off%mem.PageSize:]
	pos := 0
	st := x86.DecodeOK
	for len(t.insts) < maxInsts {
		t.insts = append(t.insts, guestInst{pos: uint16(pos)})
		in := &t.insts[len(t.insts)-1]
		if st = x86.Decode(code[pos:], 8, &in.Inst); st != x86.DecodeOK {
			t.insts = t.insts[:len(t.insts)-1]
			break
		}
		pos += int(in.Len)
		end := pos == len(code) || len(t.insts) == maxInsts || looked && c.ObservesCode(rip+uint64(pos), rip+uint64(pos))
		in.attr = x86.Forms()[in.Form].Attr
		// A branch forwards is rather not taken: the block goes on, and the branch leaves it.
		in.side = in.Op == x86.OpJCC && int64(in.Imm) > 0 && !end
		in.side = in.side || in.Op == x86.OpINVLPG && mode != x86.ViewUser && !end
		// STI holds interrupts off for the instruction behind it, so that must be there.
		in.side = in.side || in.Op == x86.OpSTI && mode != x86.ViewUser && !end
		if end || !in.side && (in.attr&x86.EndBlock != 0 || endsBlock(in.Op)) {
			break
		}
	}
	cross := len(t.insts) == 0
	var whole [16]byte
	var second uint64
	if cross {
		var ok bool
		if st != x86.DecodeMore {
			return nil // raises an exception, and no fetch goes on
		}
		if second, ok = e.crossing(rip, code, &whole); !ok {
			return nil
		}
	}
	t.insts[len(t.insts)-1].side = false
	b := &block{rip: rip, off: off, mode: mode, n: uint8(len(t.insts)), size: uint16(pos), entry: e.mem.used, cross: cross, second: second, code: whole, plain: plain}
	t.b, t.mode = b, mode
	t.view = int32(e.layout.Views[mode]) - bias
	t.a.base = e.mem.addr(b.entry)
	t.emitBlock()
	e.keep(b, off)
	if cross {
		e.holdsCode(second, b)
	}
	return b
}

// keep takes over a block whose code was emitted.
func (e *Engine) keep(b *block, off uint64) {
	code := e.t.a.b
	copy(e.mem.rw[b.entry:], code)
	e.mem.used += (len(code) + 15) &^ 15
	e.blocks[b.key()] = b
	e.holdsCode(off, b)
	e.translated(b, len(code))
}

// translateObserved makes the block at an address where somebody wants to see the instruction: it leaves
// that to the interpreter.
func (e *Engine) translateObserved(rip, off uint64, mode uint8, plain bool) *block {
	t := &e.t
	b := &block{rip: rip, off: off, mode: mode, entry: e.mem.used, plain: plain}
	*t = translator{e: e, b: b, insts: t.insts[:0], cold: t.cold[:0], a: asm{b: t.a.b[:0], base: e.mem.addr(b.entry)}}
	t.leave(t.exit(exit{kind: exitObserved}))
	e.keep(b, off)
	return b
}

// crossing decodes an instruction that begins with code, the end of a page, and
// goes on in the next one; it returns where that lies.
func (e *Engine) crossing(rip uint64, code []byte, whole *[16]byte) (second uint64, ok bool) {
	c := e.c
	n := copy(whole[:15], code)
	next := (rip | (mem.PageSize - 1)) + 1
	if n == 15 || !x86.Canonical(next) {
		return 0, false
	}
	if second, ok = c.CodeOffset(next); !ok {
		return 0, false
	}
	copy(whole[n:15], c.RAM.Page(int(second>>mem.PageShift)))
	t := &e.t
	t.insts = append(t.insts, guestInst{})
	in := &t.insts[0]
	if x86.Decode(whole[:15], 8, &in.Inst) != x86.DecodeOK || int(in.Len) <= n {
		return 0, false
	}
	in.attr = x86.Forms()[in.Form].Attr
	return second, true
}

// holdsCode notes that b was made from the page at RAM offset off.
func (e *Engine) holdsCode(off uint64, b *block) {
	if e.c.RAM.Flags(off)&mem.Code == 0 {
		e.c.RAM.SetFlags(off, mem.Code)
		e.c.RevokeWrite(off)
	}
	e.pages[off>>mem.PageShift] = append(e.pages[off>>mem.PageShift], b)
}

func (t *translator) exit(x exit) int {
	x.b, x.mode = t.b, t.b.mode
	t.e.exits = append(t.e.exits, x)
	return len(t.e.exits) - 1
}

// leave takes exit id.
func (t *translator) leave(id int) {
	t.a.storeImm32(at(hRSP, offExit), int32(id))
	t.a.jmpTo(t.e.mem.addr(t.e.exitAt))
}

func (t *translator) emitBlock() {
	a := &t.a
	a.aluImm(5, 8, hBudget, int32(t.b.n)) // sub
	short := newLabel()
	a.jcc(ccB, short)
	t.cold = append(t.cold, func() {
		a.bind(short)
		a.aluImm(0, 8, hBudget, int32(t.b.n))
		t.leave(t.exit(exit{kind: exitBudget}))
	})
	t.fl, t.kept = flagState{mem: true}, keptNone
	for t.i = range t.insts {
		t.instruction()
	}
	if last := &t.insts[t.b.n-1]; last.attr&x86.EndBlock == 0 && !endsBlock(last.Op) {
		t.saveFlags()
		t.link(t.next)
	}
	for i := 0; i < len(t.cold); i++ { // they may add more
		t.cold[i]()
	}
}

// instruction translates the instruction in work.
func (t *translator) instruction() {
	t.in = &t.insts[t.i]
	t.next = t.b.rip + uint64(t.in.pos) + uint64(t.in.Len)
	t.slow, t.call, t.lost = nil, false, false
	t.forgetAfter = false
	t.keepFlags()
	if t.keeps = keepsR10(t.in); !t.keeps {
		t.kept = keptNone
	}
	if !t.emit() {
		t.leaveToInterpreter()
		t.kept = keptNone
	}
	if !t.keeps {
		t.kept = keptNone
	}
	if t.forgetAfter {
		t.fl.again = false
	}
	t.moveWindows()
	if t.slow != nil && t.loop == nil {
		t.finishSlow()
	}
}

// rest is how many instructions the block's account has behind the one in work.
func (t *translator) rest() int32 {
	rest := len(t.insts) - t.i - 1
	if l := t.loop; l != nil {
		rest += (l.copies - l.copy - 1) * len(t.insts)
	}
	return int32(rest)
}

// slowExit returns the label of the exit that leaves the instruction to the
// interpreter, and makes the guest's flags valid in memory for it.
func (t *translator) slowExit() *label {
	if t.loop != nil {
		t.loop.refused = true
	}
	if !t.fl.mem && t.fl.again {
		t.lost, t.exitRe = true, t.re
	} else {
		t.saveFlags()
	}
	if t.slow == nil {
		t.slow = newLabel()
		t.id = t.exit(exit{kind: exitSlow, idx: uint8(t.i), pos: t.in.pos, sti: t.i > 0 && t.insts[t.i-1].Op == x86.OpSTI})
	}
	return t.slow
}

// leaveToInterpreter makes the instruction one that the interpreter always executes.
func (t *translator) leaveToInterpreter() {
	l := t.slowExit()
	t.call = true
	t.a.jmp(l)
	t.fl = flagState{mem: true}
}

// finishSlow emits the exit of an instruction that has one, and where to go on behind it.
func (t *translator) finishSlow() {
	l, id, fl, sse, x87, lost, re := t.slow, t.id, t.fl, t.sse, t.x87, t.lost, t.exitRe
	t.e.exits[id].call, t.e.exits[id].vec, t.e.exits[id].x87 = t.call, sse, x87
	windows, kept := t.anyWindow(), t.kept
	after := &label{at: len(t.a.b)}
	end := (t.in.attr&x86.EndBlock != 0 || endsBlock(t.in.Op)) && !t.in.side
	t.cold = append(t.cold, func() {
		a := &t.a
		a.bind(l)
		if lost {
			t.fl, t.re = flagState{again: true}, re
			t.saveFlags()
		}
		t.leave(id)
		if end {
			return
		}
		if windows {
			return // what they say may not be true any more
		}
		t.e.exits[id].resume = t.b.entry + len(a.b)
		if sse {
			t.loadUnit(offXMM, t.e.loadXMM, id)
		}
		if x87 {
			t.loadUnit(offX87, t.e.loadX87, id)
		}
		if kept != keptNone {
			a.load(hR10, home(uint8(kept)))
		}
		if fl.host {
			t.reload()
		}
		a.jmp(after)
	})
}

// needVectors makes sure that the vector registers are loaded before the instruction, and that the guest may use them.
func (t *translator) needVectors() {
	if t.sse {
		return
	}
	t.saveFlags()
	t.slowExit()
	t.loadUnit(offXMM, t.e.loadXMM, t.id)
	t.clobbered()
	t.sse = true
}

// loadUnit loads the vector registers or the x87 unit, by common code, unless the byte at loaded says that they are; id is
// the exit to take where the guest may not use them.
func (t *translator) loadUnit(loaded int32, common, id int) {
	a := &t.a
	a.aluImmMem(7, 1, at(hRSP, loaded), 0) // cmp
	load := newLabel()
	a.jcc(ccE, load)
	back := &label{at: len(a.b)}
	t.cold = append(t.cold, func() {
		a.bind(load)
		a.movConst(hR10, uint64(id))
		a.bytes(0x4c, 0x8d, 0x1d) // lea r11, [rip+…]
		a.ref(back)
		a.jmpTo(t.e.mem.addr(common))
	})
}

// sideExit emits a branch that leaves the block in its middle.
func (t *translator) sideExit() bool {
	in := t.in
	target := t.next + in.Imm
	if in.OpSize != 8 || !x86.Canonical(target) {
		return false
	}
	cc := t.cond(in.Opcode & 15)
	way := newLabel()
	t.a.jcc(cc, way)
	fl, re, rest, l := t.fl, t.re, t.rest(), t.loop
	t.cold = append(t.cold, func() {
		t.a.bind(way)
		t.fl, t.re, t.mode = fl, re, t.b.mode
		t.saveFlags()
		if l != nil {
			t.leaveLoop(l, rest)
		} else {
			t.a.aluImm(0, 8, hBudget, rest)
		}
		t.link(target)
	})
	return true
}

// saveFlags makes the guest's flags valid in memory.
func (t *translator) saveFlags() {
	if t.fl.mem {
		return
	}
	t.compute()
	if !t.fl.host {
		panic("BUG: dead flags are needed")
	}
	a := &t.a
	seto := func() { a.bytes(0x0f, 0x90, 0xc0) } // seto al
	const lahf = 0x9f
	clearAF := func() { a.bytes(0x80, 0xe4, 0xef) } // and ah, ~AF
	noOF := func() { a.bytes(0xb0, 0) }             // mov al, 0
	keeps := false
	switch t.fl.class {
	case flagsAll:
		a.bytes(lahf)
		seto()
		keeps = true
	case flagsMul:
		seto()
		a.bytes(0x88, 0xc4) // mov ah, al
		keeps = true
	case flagsShift1:
		seto()
		a.bytes(lahf)
		clearAF()
	case flagsShiftN:
		a.bytes(lahf)
		clearAF()
		noOF()
	case flagsRotN:
		a.bytes(lahf)
		noOF()
		keeps = true
	case flagsScan:
		a.bytes(0x0f, 0x94, 0xc4, 0xc0, 0xe4, 6) // setz ah; shl ah, 6
		noOF()
	case flagsOrder:
		a.bytes(lahf, 0x80, 0xe4, x86.FlagZF|x86.FlagPF|x86.FlagCF) // and ah
		noOF()
	}
	a.rm(ins{op: 0x89, size: 2}, hRAX, at(hRSP, offFlags))
	t.fl.mem = true
	t.fl.host = t.fl.host && keeps
}

// compute makes the flags once more where they are nowhere. It may use RAX.
func (t *translator) compute() {
	if t.fl.host || t.fl.mem || !t.fl.again {
		return
	}
	a, d := &t.a, &t.re
	op := func(n, r int) {
		if d.b == hNone {
			a.aluImm(n, d.size, r, d.imm)
		} else {
			a.rr(ins{op: uint32(n)<<3 | wide(d.size), size: d.size}, d.b, r)
		}
	}
	switch d.kind {
	case againCmp:
		op(7, d.a)
	case againTest:
		if d.b == hNone {
			a.ext(ins{op: 0xf6 | wide(d.size), size: d.size}, 0, d.a)
			a.imm(d.imm, d.size)
		} else {
			a.rr(ins{op: 0x84 | wide(d.size), size: d.size}, d.b, d.a)
		}
	case againAdd:
		a.mov(hRAX, d.a)
		op(5, hRAX)
		op(0, hRAX)
	case againSub:
		a.mov(hRAX, d.a)
		op(0, hRAX)
		op(5, hRAX)
	}
	t.fl.host, t.fl.class = true, flagsAll
}

// remember notes how the flags that were just written can be had once more: from
// registers a and b of the guest, or from a and an immediate.
func (t *translator) remember(kind againKind, size int, a uint8, b uint8, immediate bool, imm int32) {
	if !mapped(a) || !immediate && !mapped(b) {
		return
	}
	t.re = again{kind: kind, size: size, a: hostOf[a], b: hNone, imm: imm, regs: 1 << a}
	if !immediate {
		t.re.b = hostOf[b]
		t.re.regs |= 1 << b
	}
	t.fl.again = true
}

// keepFlags looks at the next instruction: where it changes a register that the
// flags would be computed from, they are saved, unless it writes or nobody wants them.
func (t *translator) keepFlags() {
	if !t.fl.again || t.fl.mem || regsWritten(t.in)&t.re.regs == 0 || writesFlags(t.in) {
		return
	}
	if t.dead(t.i) {
		t.forgetAfter = true // they are good for the instruction's own exit
		return
	}
	if t.fl.host {
		t.fl.again = false // the exit, if there is one, saves them from there
		return
	}
	t.saveFlags()
	t.fl.again = false
}

// writesFlags reports whether an instruction writes all flags, and not before it has done what could fail.
func writesFlags(in *guestInst) bool {
	switch in.Op {
	case x86.OpADD, x86.OpOR, x86.OpADC, x86.OpSBB, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpCMP, x86.OpTEST, x86.OpNEG,
		x86.OpIMUL2, x86.OpIMUL3, x86.OpMUL, x86.OpIMUL1:
		return true
	}
	return false
}

// regsWritten returns the general registers that an instruction may change.
func regsWritten(in *guestInst) uint16 {
	bit := func(g uint8) uint16 {
		if g&x86.HighByte != 0 {
			g &= 3
		}
		return 1 << (g & 15)
	}
	rm := uint16(0)
	if !in.IsMem {
		rm = bit(in.RM)
	}
	switch in.Op {
	case x86.OpCMP, x86.OpTEST, x86.OpJCC, x86.OpNOP, x86.OpFENCE, x86.OpBT:
		return 0
	case x86.OpADD, x86.OpOR, x86.OpADC, x86.OpSBB, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpMOV:
		switch x86.FormOperands(in.Form)[0].Kind {
		case 'G', 'Z':
			return bit(in.Reg)
		case 'a':
			return 1 << x86.RAX
		case 'E':
			return rm
		}
		return 0 // to an absolute address
	case x86.OpINC, x86.OpDEC, x86.OpNOT, x86.OpNEG, x86.OpSHL, x86.OpSAL, x86.OpSHR, x86.OpSAR, x86.OpROL, x86.OpROR, x86.OpRCL, x86.OpRCR,
		x86.OpSHLD, x86.OpSHRD, x86.OpBTS, x86.OpBTR, x86.OpBTC, x86.OpSETCC:
		return rm
	case x86.OpMOVZX8, x86.OpMOVZX16, x86.OpMOVSX8, x86.OpMOVSX16, x86.OpMOVSXD, x86.OpLEA, x86.OpIMUL2, x86.OpIMUL3, x86.OpCMOVCC, x86.OpBSWAP,
		x86.OpPOPCNT, x86.OpBSF, x86.OpBSR:
		return bit(in.Reg)
	case x86.OpXCHG:
		if x86.FormOperands(in.Form)[0].Kind != 'Z' {
			return bit(in.Reg) | rm
		}
		if in.Reg == x86.RAX {
			return 0 // NOP
		}
		return bit(in.Reg) | 1<<x86.RAX
	case x86.OpMUL, x86.OpIMUL1:
		return 1<<x86.RAX | 1<<x86.RDX
	case x86.OpCBW:
		return 1 << x86.RAX
	case x86.OpCWD:
		return 1 << x86.RDX
	case x86.OpPUSH:
		return 1 << x86.RSP
	case x86.OpMOVVec, x86.OpMOVScalar, x86.OpMOVLow, x86.OpMOVHigh, x86.OpVectorFlags, x86.OpVectorFPFlags, x86.OpVectorImplicit:
		return 0
	case x86.OpVector, x86.OpVectorFP, x86.OpVectorApprox, x86.OpMOVD, x86.OpMOVQ:
		switch x86.FormOperands(in.Form)[0].Kind {
		case 'V', 'U', 'W', 'M':
			return 0
		case 'G':
			return bit(in.Reg)
		case 'E':
			return rm
		}
	case x86.OpX87, x86.OpX87Store, x86.OpX87Flags, x86.OpFLDCW, x86.OpFNSTCW, x86.OpFWAIT, x86.OpLDMXCSR, x86.OpSTMXCSR:
		return 0
	case x86.OpFNSTSW:
		if !in.IsMem {
			return 1 << x86.RAX
		}
		return 0
	}
	return 1<<16 - 1
}

// reload loads the host's flags from memory.
func (t *translator) reload() {
	t.a.rm(ins{op: 0x0fb7, size: 4}, hRAX, at(hRSP, offFlags)) // movzx eax, word
	t.a.bytes(0x04, 0x7f, 0x9e)                                // add al, 127; sahf
}

// hostFlags makes the given flags right in the host's register.
func (t *translator) hostFlags(mask uint8) {
	t.compute()
	if t.fl.host && classExact[t.fl.class]&mask == mask {
		return
	}
	t.saveFlags()
	t.reload()
	t.fl = flagState{host: true, mem: true}
}

// hostCF makes CF right in the host's register, and may leave garbage in the others.
func (t *translator) hostCF() {
	t.compute()
	if t.fl.host && classExact[t.fl.class]&fCF != 0 {
		return
	}
	t.saveFlags()
	t.a.extm(ins{op: 0x0fba, size: 4}, 4, at(hRSP, offFlags)) // bt
	t.a.bytes(8)
	t.fl.host = false
}

// cond makes a condition of the guest one of the host, and returns it.
func (t *translator) cond(cc byte) byte {
	t.compute()
	if t.fl.host && classExact[t.fl.class]&condFlags[cc>>1&7] == condFlags[cc>>1&7] {
		return cc
	}
	t.saveFlags()
	f, neg := offFlags+1, cc&1
	test := func(m memop, bits byte) byte {
		t.a.extm(ins{op: 0xf6, size: 1}, 0, m)
		t.a.bytes(bits)
		t.fl.host = false
		return ccNE ^ neg
	}
	switch cc >> 1 & 7 {
	case 0:
		return test(at(hRSP, offFlags), 1)
	case 1:
		return test(at(hRSP, f), x86.FlagCF)
	case 2:
		return test(at(hRSP, f), x86.FlagZF)
	case 3:
		return test(at(hRSP, f), x86.FlagCF|x86.FlagZF)
	case 4:
		return test(at(hRSP, f), x86.FlagSF)
	case 5:
		return test(at(hRSP, f), x86.FlagPF)
	}
	t.hostFlags(condFlags[cc>>1&7])
	return cc
}

// wrote notes that the last instruction set all of the guest's flags in the host's register.
func (t *translator) wrote(class flagClass) { t.fl = flagState{host: true, class: class} }

// clobbered notes that the host's flags are gone. Preconditions: they are saved, or dead.
func (t *translator) clobbered() { t.fl.host = false }

// dead reports whether all flags are overwritten before anything could see them
// after instruction i: no reader, no instruction that may leave.
func (t *translator) dead(i int) bool {
	for i++; i < len(t.insts) && i < t.i+10; i++ {
		in := &t.insts[i]
		if in.IsMem && in.Op != x86.OpLEA && in.Op != x86.OpNOP {
			return false
		}
		switch in.Op {
		case x86.OpADD, x86.OpOR, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpCMP, x86.OpTEST, x86.OpNEG:
			return true
		case x86.OpPOPCNT, x86.OpMUL, x86.OpIMUL1, x86.OpIMUL2, x86.OpIMUL3:
			return in.OpSize >= 4
		case x86.OpMOV, x86.OpNOT, x86.OpNOP:
		case x86.OpMOVZX8, x86.OpMOVZX16, x86.OpMOVSX8, x86.OpMOVSX16, x86.OpMOVSXD, x86.OpBSWAP, x86.OpCWD:
			if in.OpSize < 4 {
				return false
			}
		case x86.OpLEA:
			if in.OpSize < 4 || in.AddrSize != 8 {
				return false
			}
		default:
			return false
		}
	}
	return false
}

// fits32 reports whether v is a sign-extended 32-bit immediate.
func fits32(v uint64) bool { return int64(v) == int64(int32(v)) }

// mapped reports whether a register operand is simply a host register.
func mapped(g uint8) bool { return g&x86.HighByte == 0 && hostOf[g&15] != hNone }

// spill stores a register that lives in the host to its home, and returns the byte operand of its bits 15:8.
func (t *translator) spillHigh(g uint8) memop {
	g &= 3
	t.a.store(home(g), hostOf[g])
	m := home(g)
	m.disp++
	return m
}

// src returns a host register that holds register g: its own, or tmp, or R10 where it is there already. The flags stay.
func (t *translator) src(g uint8, tmp int) int {
	switch {
	case g&x86.HighByte != 0:
		t.a.rm(ins{op: 0x0fb6, size: 4}, tmp, t.spillHigh(g))
		t.lose(tmp)
		return tmp
	case hostOf[g] != hNone:
		return hostOf[g]
	case t.kept == int(g):
		return hR10
	}
	t.a.load(tmp, home(g))
	t.hold(g, tmp)
	return tmp
}

// dst returns a host register to modify as register g of size bytes, and what
// brings it home. The flags stay.
func (t *translator) dst(g uint8, size, tmp int) (r int, done func()) {
	switch {
	case g&x86.HighByte != 0:
		m := t.spillHigh(g)
		t.a.rm(ins{op: 0x0fb6, size: 4}, tmp, m)
		t.lose(tmp)
		return tmp, func() {
			t.a.rm(ins{op: 0x88, size: 1}, tmp, m)
			t.a.load(hostOf[g&3], home(g&3))
		}
	case hostOf[g] != hNone:
		return hostOf[g], func() {}
	case t.kept == int(g):
		tmp = hR10
	default:
		t.a.load(tmp, home(g))
		t.hold(g, tmp)
	}
	return tmp, func() { t.a.store(home(g), tmp) }
}

// set is dst for a register that is only written, with an operand of 4 or 8 bytes. The
// instruction that writes it may read R10.
func (t *translator) set(g uint8, tmp int) (r int, done func()) {
	if hostOf[g] != hNone {
		return hostOf[g], func() {}
	}
	if t.keeps && tmp == hRAX {
		tmp = hR10
	}
	return tmp, func() {
		t.a.store(home(g), tmp)
		if t.kept == int(g) {
			t.kept = keptNone
		}
		t.hold(g, tmp)
	}
}

// R10 keeps the value of one register that lives in the State from one instruction to the
// next, so that a chain of operations on it waits for no load. Its home has the value too.

const keptNone = -1

// hold notes that tmp has the value of register g.
func (t *translator) hold(g uint8, tmp int) {
	if tmp == hR10 {
		t.kept = keptNone
		if t.keeps {
			t.kept = int(g)
		}
	}
}

// lose notes that tmp was used for something else.
func (t *translator) lose(tmp int) {
	if tmp == hR10 {
		t.kept = keptNone
	}
}

// keepsR10 reports whether an instruction's translation uses R10 through src, dst, set and effective only.
func keepsR10(in *guestInst) bool {
	switch in.Op {
	case x86.OpADD, x86.OpOR, x86.OpADC, x86.OpSBB, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpCMP, x86.OpTEST, x86.OpMOV,
		x86.OpMOVZX8, x86.OpMOVZX16, x86.OpMOVSX8, x86.OpMOVSX16, x86.OpMOVSXD, x86.OpLEA, x86.OpINC, x86.OpDEC, x86.OpNOT, x86.OpNEG,
		x86.OpSHL, x86.OpSAL, x86.OpSHR, x86.OpSAR, x86.OpROL, x86.OpROR, x86.OpBSWAP, x86.OpPOP, x86.OpNOP, x86.OpIMUL2, x86.OpIMUL3:
		return true
	case x86.OpPUSH, x86.OpCMOVCC, x86.OpSETCC:
		return !in.IsMem
	case x86.OpJCC:
		return in.side
	}
	return false
}

// effective emits the linear address of the memory operand, plus extra, into dst: R10, or
// RAX where index registers may not be needed any more.
func (t *translator) effective(in *guestInst, dst int) {
	a := &t.a
	if in.Base == x86.RIP {
		a.movConst(dst, t.next+in.Disp)
	} else {
		m := memop{base: hNone, index: hNone, scale: in.Scale & 3, disp: int32(in.Disp)}
		if in.Base != x86.RegZero {
			m.base = t.src(in.Base, hR10)
		}
		if in.Index != x86.RegZero {
			m.index = t.src(in.Index, hR11)
		}
		a.lea(dst, m)
	}
	t.lose(dst)
	if in.Seg != x86.SegFlat && in.Op != x86.OpLEA {
		a.rm(ins{op: 0x03, size: 8}, dst, at(hRSP, offSeg+segSize*int32(in.Seg)))
	}
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

const tlbIndexMask = (x86.TLBEntries - 1) << 5

// guest emits the translation of the memory operand for an access of size bytes
// through the TLB, and returns the operand of the host. It uses RAX, R10 and R11,
// of which the operand needs R10 and R11, and the flags. ok is false where it cannot.
func (t *translator) guest(in *guestInst, size int, write bool, align bool) (m memop, ok bool) {
	if t.loop != nil {
		return t.loopOperand(in)
	}
	if va, ok := t.constant(in); ok {
		return t.guestConst(va, size, write, align)
	}
	if !simpleAddress(in) {
		return m, false
	}
	simple := in.Base < x86.RegZero && mapped(in.Base) && in.Index == x86.RegZero && in.Seg == x86.SegFlat
	if simple && !align {
		if m, ok := t.windowed(in.Base, int32(in.Disp), size, write); ok {
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

// guestStack is guest for the stack at RSP+disp.
func (t *translator) guestStack(disp int32, size int, write bool) memop {
	if m, ok := t.windowed(x86.RSP, disp, size, write); ok {
		return m
	}
	return t.translateAddress(hStack, disp, size, write, false, t.slowExit())
}

func tagDisp(write bool) int32 {
	if write {
		return 8
	}
	return 0
}

func (t *translator) translateAddress(base int, disp int32, size int, write, align bool, slow *label) memop {
	a := &t.a
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
	a.bytes(0x41, 0xc1, 0xeb, 7) // shr r11d, 7
	a.aluImm(4, 4, hR11, tlbIndexMask)
	a.bytes(0x48, 0x25) // and rax, -4096
	a.imm32(-mem.PageSize)
	a.rm(ins{op: 0x3b, size: 8}, hRAX, memop{base: hRSP, index: hR11, disp: t.view + tagDisp(write)})
	a.jcc(ccNE, slow)
	site := len(a.b) - 4
	a.load(hR11, memop{base: hRSP, index: hR11, disp: t.view + 16})
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
	slow := t.slowExit()
	entry := t.view + int32(va>>mem.PageShift%x86.TLBEntries)*32
	page := va &^ (mem.PageSize - 1)
	if fits32(page) {
		a.extm(ins{op: 0x81, size: 8}, 7, at(hRSP, entry+tagDisp(write)))
		a.imm32(int32(page))
	} else {
		a.movConst(hRAX, page)
		a.rm(ins{op: 0x3b, size: 8}, hRAX, at(hRSP, entry+tagDisp(write)))
	}
	a.jcc(ccNE, slow)
	site := len(a.b) - 4
	a.load(hR11, at(hRSP, entry+16))
	t.noteAccess(slow, site, size, beside{base: hNone, at: va, write: write})
	t.clobbered()
	if fits32(va) {
		return at(hR11, int32(va)), true
	}
	a.movConst(hR10, va)
	t.lose(hR10)
	return memop{base: hR10, index: hR11}, true
}

// link goes on at a constant address. Preconditions: the flags are saved.
func (t *translator) link(target uint64) {
	t.linkBy(target, func(l *label) { t.a.jmp(l) })
}

// linkBy is link with a jump that may be conditional, where it is direct.
func (t *translator) linkBy(target uint64, jump func(l *label)) {
	a := &t.a
	stub := newLabel()
	mode := t.mode
	leave := func(x exit) {
		id := t.exit(x)
		t.e.exits[id].mode = mode
		t.leave(id)
	}
	if target>>mem.PageShift == t.b.rip>>mem.PageShift {
		jump(stub)
		site := t.b.entry + len(a.b) - 4
		t.cold = append(t.cold, func() {
			a.bind(stub)
			leave(exit{kind: exitLink, target: target, site: site})
		})
		return
	}
	if target>>63 != 0 {
		// Where the kernel's pages lie hardly ever changes: a direct jump, for as long as none has.
		way := newLabel()
		jump(way)
		t.cold = append(t.cold, func() {
			a.bind(way)
			a.extm(ins{op: 0x81, size: 4}, 7, t.e.scratchAt(sGeneration))
			a.imm32(0) // no generation
			a.jcc(ccNE, stub)
			a.jmp(stub)
			site := t.b.entry + len(a.b) - 4
			a.bind(stub)
			leave(exit{kind: exitFar, target: target, site: site})
		})
		return
	}
	far := func() {
		slot := t.jumpTableOf(mode) + int32(hashRIP(target)%jumpSlots)*16
		if fits32(target) {
			a.extm(ins{op: 0x81, size: 8}, 7, at(hRSP, slot))
			a.imm32(int32(target))
		} else {
			a.movConst(hRAX, target)
			a.rm(ins{op: 0x3b, size: 8}, hRAX, at(hRSP, slot))
		}
		a.jcc(ccNE, stub)
		a.extm(ins{op: 0xff, size: 4}, 4, at(hRSP, slot+8))
	}
	t.cold = append(t.cold, func() {
		a.bind(stub)
		leave(exit{kind: exitJump, target: target})
	})
	way := newLabel()
	jump(way)
	t.cold = append(t.cold, func() {
		a.bind(way)
		far()
	})
}

// farGap is how far before the displacement of a link to another page the generation lies that it is good for.
const farGap = 11

// jumpTableOf is where the table of jump targets of a mode lies, from RSP.
func (t *translator) jumpTableOf(mode uint8) int32 {
	return int32(t.e.layout.Engine) - bias + int32(mode)*jumpSlots*16
}

// lookup finds the code for the guest address in RAX, or leaves the instruction to the
// interpreter. It returns the operand of the jump, which needs R10; R11 stays.
func (t *translator) lookup(slow *label) memop {
	a := &t.a
	a.mov(hR10, hRAX)
	a.bytes(0x49, 0xc1, 0xea, 14) // shr r10, 14
	a.rr(ins{op: 0x33, size: 4}, hR10, hRAX)
	a.aluImm(4, 4, hR10, jumpSlots-1)
	a.bytes(0x41, 0xc1, 0xe2, 4) // shl r10d, 4
	m := memop{base: hRSP, index: hR10, disp: t.jumpTableOf(t.mode)}
	a.rm(ins{op: 0x3b, size: 8}, hRAX, m)
	a.jcc(ccNE, slow)
	m.disp += 8
	return m
}

// scratchAt is a field of the scratch area.
func (e *Engine) scratchAt(field int32) memop {
	return at(hRSP, int32(e.layout.Engine)-bias+offScratch+field)
}

// emitCommon makes what all blocks share: the way in, the way out, and loading the vector registers and the x87 unit.
func (e *Engine) emitCommon() {
	a := &asm{base: e.mem.addr(0)}
	tab := int32(e.layout.Engine) - bias + offScratch
	// In: R10 is the context.
	e.prologue = 0
	a.store(at(hR10, tab+sHostSP), hRSP)
	a.store(at(hR10, tab+sHostBP), hRBP)
	a.mov(hRSP, hR10)
	for g, h := range hostOf {
		if h != hNone {
			a.load(h, home(uint8(g)))
		}
	}
	a.load(hBudget, e.scratchAt(sBudget))
	a.extm(ins{op: 0xff, size: 4}, 4, e.scratchAt(sTarget))

	for len(a.b)%16 != 0 {
		a.bytes(0xcc)
	}
	e.exitAt = len(a.b)
	a.store(e.scratchAt(sBudget), hBudget)
	for g, h := range hostOf {
		if h != hNone {
			a.store(home(uint8(g)), h)
		}
	}
	units, out := newLabel(), newLabel()
	a.aluImmMem(7, 2, at(hRSP, offXMM), 0) // and offX87
	a.jcc(ccNE, units)
	a.bind(out)
	a.load(hRBP, e.scratchAt(sHostBP))
	a.load(hRSP, e.scratchAt(sHostSP))
	a.bytes(0xc3)
	a.bind(units)
	x87 := newLabel()
	a.aluImmMem(7, 1, at(hRSP, offXMM), 0)
	a.jcc(ccE, x87)
	storeVectors(a)
	a.bind(x87)
	e.emitStoreX87(a)
	a.extm(ins{op: 0x0fae, size: 4}, 2, e.scratchAt(sHostMXCSR))
	a.jmp(out)

	for len(a.b)%16 != 0 {
		a.bytes(0xcc)
	}
	e.loadXMM = len(a.b)
	refused := newLabel()
	a.aluImmMem(7, 1, e.scratchAt(sSSEOK), 0)
	a.jcc(ccE, refused)
	for i := range 16 {
		a.rm(ins{op: 0x0f10, size: 4}, i, at(hRSP, offFX+160+16*int32(i)))
	}
	a.extm(ins{op: 0x0fae, size: 4}, 2, at(hRSP, offFX+24)) // ldmxcsr
	a.storeImm8(at(hRSP, offXMM), 1)
	a.bytes(0x41, 0xff, 0xe3) // jmp r11
	e.emitLoadX87(a, refused)
	e.emitApprox(a, refused)
	e.emitXSAVE(a)
	a.bind(refused)
	a.rm(ins{op: 0x89, size: 4}, hR10, at(hRSP, offExit))
	a.jmpTo(e.mem.addr(e.exitAt))

	copy(e.mem.rw, a.b)
	e.firstBlock = (len(a.b) + 63) &^ 63
}
