//go:build linux && amd64

package jit

import (
	"refault/vmm/mem"
	"refault/vmm/x86"
)

type guestInst struct {
	x86.Inst
	attr   x86.Attr
	pos    int16 // from the block's first instruction
	side   bool  // in the middle of the block, although it is of those that end one
	follow bool  // a branch behind which the block goes on where it leads, and not behind it
	turned bool  // the branch that ends the block leads out of a loop, which goes on behind it

	mem, stack int16 // its accesses in translator.refs, or noRef
}

// accesses reports whether an instruction accesses its memory operand.
func (in *guestInst) accesses() bool { return in.IsMem && in.Op != x86.OpLEA && in.Op != x86.OpNOP }

// simple reports whether an instruction's memory operand goes through one register, which lives in the host.
func (in *guestInst) simple() bool {
	return in.Index == x86.RegZero && mapped(in.Base) && in.Seg == x86.SegFlat
}

// translator translates one block.
type translator struct {
	a     asm
	e     *Engine
	b     *block
	insts []guestInst
	cold  list[coldPath]
	view  int32 // of the TLB, from RSP
	mode  uint8 // the block's, but behind an instruction that changes it

	i    int // the instruction in work
	in   *guestInst
	next uint64 // RIP behind it
	fl   flagState
	re   again     // good while fl.again
	slow *coldPath // of the instruction, if it has one
	lost bool      // the exit has to compute the flags first, by exitRe

	values      values
	keys        []value // of the windows that there may be
	refs        []ref
	windows     [maxWindows]window
	opened      int  // windows that are on
	kept        int  // the register or the window that R10 has the value of, or keptNone
	kept11      int  // the window that R11 has the value of, likewise
	keeps       bool // the instruction in work leaves R10 and R11 to src, dst, set and guest
	exitRe      again
	forgetAfter bool // the instruction changes what the flags would be computed from, and they are dead behind it
	id          int  // the exit
	call        bool // it is one always
	sse         bool // the vector registers are loaded
	x87         bool // the x87 unit is loaded

	plan loop
	loop *loop // the plan, while it is carried out
}

// begin forgets the last block, but keeps what was allocated for it.
func (t *translator) begin(e *Engine) {
	insts, keys, refs, cold, code := t.insts[:0], t.keys[:0], t.refs[:0], t.cold, t.a.b[:0]
	cold.cut(0)
	*t = translator{} // in place, which a literal with the rest would not be
	t.e, t.insts, t.keys, t.refs, t.cold, t.a.b = e, insts, keys, refs, cold, code
}

// endsBlock are operations that end a block although the opcode table does not say so.
func endsBlock(op x86.Op) bool { return op == x86.OpCLAC || op == x86.OpSTAC }

// translate makes the block at rip, or returns nil where there is nothing to translate.
// A plain block has no windows, a straight one follows no branches.
func (e *Engine) translate(rip, off uint64, mode uint8, plain, straight bool) *block {
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
	looked := c.ObservesCode(rip&^(mem.PageSize-1), rip|(mem.PageSize-1))
	t := &e.t
	t.begin(e)
	code := c.RAM.Page(int(off >> mem.PageShift))
	begin := int(off % mem.PageSize)
	at, first, last := begin, begin, begin
	goesOn := func(at int) bool {
		return at >= 0 && at < len(code) && len(t.insts) < maxInsts && (at >= last || !t.has(at-begin)) && !(looked && c.ObservesCode(rip+uint64(at-begin), rip+uint64(at-begin)))
	}
	follows := 0
	st := x86.DecodeOK
	for {
		t.insts = append(t.insts, guestInst{pos: int16(at - begin)})
		in := &t.insts[len(t.insts)-1]
		if st = x86.Decode(code[at:], 8, &in.Inst); st != x86.DecodeOK {
			t.insts = t.insts[:len(t.insts)-1]
			break
		}
		at += int(in.Len)
		last = max(last, at)
		in.attr = x86.Forms()[in.Form].Attr
		ends := in.attr&x86.EndBlock != 0 || endsBlock(in.Op)
		if ends && !straight && follows < maxFollows && in.follows() {
			if target := int64(at) + int64(in.Imm); target == int64(int(target)) && goesOn(int(target)) {
				in.side, in.follow = true, true
				at = int(target)
				first = min(first, at)
				follows++
				continue
			}
		}
		if !goesOn(at) {
			break
		}
		// A branch forwards is rather not taken: the block goes on, and the branch leaves it.
		in.side = in.Op == x86.OpJCC && int64(in.Imm) > 0
		in.side = in.side || in.Op == x86.OpINVLPG && mode != x86.ViewUser
		// STI holds interrupts off for the instruction behind it, so that must be there.
		in.side = in.side || in.Op == x86.OpSTI && mode != x86.ViewUser
		if ends && !in.side {
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
		if second, ok = e.crossing(rip, code[begin:], &whole); !ok {
			return nil
		}
	}
	end := &t.insts[len(t.insts)-1]
	end.side, end.follow = false, false
	end.turned = end.Op == x86.OpJCC && !cross && t.has(at-begin)
	b := e.add(block{rip: rip, off: off, mode: mode, n: uint8(len(t.insts)), before: uint16(begin - first), size: uint16(last - begin), entry: e.mem.used, cross: cross, second: second, code: whole, plain: plain, straight: straight})
	t.b, t.mode = b, mode
	t.view = int32(e.layout.Views[mode]) - bias
	t.a.base = e.mem.addr(b.entry)
	t.findRefs()
	t.emitBlock()
	e.keep(b, off)
	if cross {
		e.holdsCode(second, b)
	}
	return b
}

// has reports whether the block has an instruction pos bytes from its beginning.
func (t *translator) has(pos int) bool {
	for i := range t.insts {
		if int(t.insts[i].pos) == pos {
			return true
		}
	}
	return false
}

// follows reports whether a block may go on where a branch leads: jumps, and branches backwards, which are rather taken.
func (in *guestInst) follows() bool {
	return in.OpSize == 8 && (in.Op == x86.OpJCC && int64(in.Imm) < 0 || in.Op == x86.OpJMP && x86.FormOperands(in.Form)[0].Kind == 'J')
}

// keep takes over a block whose code was emitted.
func (e *Engine) keep(b *block, off uint64) {
	code := e.t.a.b
	copy(e.mem.rw[b.entry:], code)
	e.mem.used += (len(code) + 15) &^ 15
	e.holdsCode(off, b)
	e.translated(b, len(code))
}

// translateObserved makes the block at an address where somebody wants to see the instruction: it leaves
// that to the interpreter.
func (e *Engine) translateObserved(rip, off uint64, mode uint8, plain bool) *block {
	t := &e.t
	b := e.add(block{rip: rip, off: off, mode: mode, entry: e.mem.used, plain: plain})
	t.begin(e)
	t.b, t.a.base = b, e.mem.addr(b.entry)
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
	p := e.pages[off>>mem.PageShift]
	if p == nil {
		p = &codePage{}
		e.pages[off>>mem.PageShift] = p
	}
	p.blocks, p.writes = append(p.blocks, b), 0
}

func (t *translator) exit(x exit) int {
	x.b, x.mode = t.b.id, t.b.mode
	return t.e.exits.add(x)
}

// leave takes exit id.
func (t *translator) leave(id int) {
	t.a.storeImm32(at(hRSP, offExit), int32(id))
	t.a.jmpTo(t.e.mem.addr(t.e.exitAt))
}

func (t *translator) emitBlock() {
	a := &t.a
	a.aluImmMem(5, 8, budget, int32(t.b.n)) // sub
	a.jcc(ccB, &t.later((*translator).emitShort).label)
	t.fl = flagState{mem: true}
	t.loseAll()
	for t.i = range t.insts {
		t.instruction()
	}
	if last := &t.insts[t.b.n-1]; last.attr&x86.EndBlock == 0 && !endsBlock(last.Op) {
		t.saveFlags()
		t.goTo(t.next)
	}
	t.emitCold()
}

// emitShort emits the exit of a block for which the budget does not last.
func (t *translator) emitShort(*coldPath) {
	t.a.aluImmMem(0, 8, budget, int32(t.b.n))
	t.leave(t.exit(exit{kind: exitBudget}))
}

// instruction translates the instruction in work.
func (t *translator) instruction() {
	t.in = &t.insts[t.i]
	t.next = t.b.ripAt(t.in.pos) + uint64(t.in.Len)
	t.slow, t.call, t.lost = nil, false, false
	t.forgetAfter = false
	t.keepFlags()
	if t.keeps = keepsTemporaries(t.in); !t.keeps {
		t.loseAll()
	}
	if !t.emit() {
		t.leaveToInterpreter()
		t.loseAll()
	}
	if !t.keeps {
		t.loseAll()
	}
	if t.forgetAfter {
		t.fl.again = false
	}
	t.closeWindows()
	if t.slow != nil {
		t.finishSlow()
	}
}

// rest is how many instructions the block's account has behind the one in work.
func (t *translator) rest() int32 { return int32(len(t.insts)-t.i-1) + t.copiesRest() }

// copiesRest is how many of those are in further copies of a second body.
func (t *translator) copiesRest() int32 {
	l := t.loop
	if l == nil {
		return 0
	}
	return int32((l.copies - l.copy - 1) * len(t.insts))
}

// slowExit returns the label of the exit that leaves the instruction to the
// interpreter, and makes the guest's flags valid in memory for it.
func (t *translator) slowExit() *label {
	switch {
	case t.loop != nil && !t.loop.looking: // the code is thrown away, and flags that only an exit could want may be gone
		t.loop.refused, t.fl = true, flagState{mem: true}
	case !t.fl.mem && t.fl.again:
		t.lost, t.exitRe = true, t.re
	default:
		t.saveFlags()
	}
	if t.slow == nil {
		t.slow = t.later((*translator).emitSlow)
		t.id = t.exit(exit{kind: exitSlow, idx: uint8(t.i), pos: t.in.pos, sti: t.i > 0 && t.insts[t.i-1].Op == x86.OpSTI})
	}
	return &t.slow.label
}

// leaveToInterpreter makes the instruction one that the interpreter always executes.
func (t *translator) leaveToInterpreter() {
	l := t.slowExit()
	t.call = true
	t.a.jmp(l)
	t.fl = flagState{mem: true}
}

// finishSlow leaves the exit of an instruction that has one to be emitted, with where to go on behind it.
func (t *translator) finishSlow() {
	p := t.slow
	x := t.e.exits.at(t.id)
	x.call, x.vec, x.x87 = t.call, t.sse, t.x87
	p.fl, p.re = flagState{mem: !t.lost, again: t.lost}, t.exitRe
	p.id, p.loop, p.rest = t.id, t.loop, t.copiesRest()
	p.after.at, p.host, p.sse, p.x87, p.keeps = len(t.a.b), t.fl.host, t.sse, t.x87, t.kept
	end := (t.in.attr&x86.EndBlock != 0 || endsBlock(t.in.Op)) && !t.in.side
	p.resumes = !end && t.loop == nil && t.opened == 0 // what windows say may not be true any more
}

// needVectors makes sure that the vector registers are loaded before the instruction, and that the guest may use them.
func (t *translator) needVectors() { t.need(&t.sse, offXMM, t.e.loadXMM) }

// needX87 is needVectors for the x87 unit.
func (t *translator) needX87() { t.need(&t.x87, offX87, t.e.loadX87) }

func (t *translator) need(has *bool, loaded int32, common int) {
	if *has {
		return
	}
	t.saveFlags()
	t.slowExit()
	t.loadUnit(loaded, common, t.id)
	t.clobbered()
	*has = true
}

// loadUnit loads the vector registers or the x87 unit, by common code, unless the byte at loaded says that they are; id is
// the exit to take where the guest may not use them.
func (t *translator) loadUnit(loaded int32, common, id int) {
	a := &t.a
	a.aluImmMem(7, 1, at(hRSP, loaded), 0) // cmp
	p := t.later(func(t *translator, p *coldPath) {
		a.movConst(hR10, uint64(id))
		a.bytes(0x4c, 0x8d, 0x1d) // lea r11, [rip+…]
		a.ref(&p.after)
		a.jmpTo(t.e.mem.addr(common))
	})
	a.jcc(ccE, &p.label)
	p.after.at = len(a.b)
}

// budget is how many instructions may still be executed. Each block takes from it, so it is where it takes the least room in the code.
var budget = at(hRSP, offBudget)

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
	a.extm(ins{op: 0xff, size: 4}, 4, e.scratchAt(sTarget))

	for len(a.b)%16 != 0 {
		a.bytes(0xcc)
	}
	e.exitAt = len(a.b)
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
