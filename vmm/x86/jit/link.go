//go:build linux && amd64

package jit

import (
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// sideExit emits a branch behind which the block goes on, and which leaves it otherwise.
func (t *translator) sideExit() bool {
	in := t.in
	target := t.next + in.Imm
	if in.OpSize != 8 || !x86.Canonical(target) {
		return false
	}
	cc := t.cond(in.Opcode & 15)
	if in.follow {
		target, cc = t.next, cc^1
	}
	p := t.later((*translator).emitSideExit)
	t.a.jcc(cc, &p.label)
	p.fl, p.re, p.rest, p.loop, p.target = t.fl, t.re, t.rest(), t.loop, target
	return true
}

func (t *translator) emitSideExit(p *coldPath) {
	t.saveFlagsOf(p)
	t.giveBack(p)
	t.mode = t.b.mode
	t.link(p.target)
}

// goTo is link at the end of a block, which may be a loop.
func (t *translator) goTo(target uint64) {
	if target == t.b.rip && t.loopOf() {
		t.branchBack(ccAlways)
	} else {
		t.link(target)
	}
}

// link goes on at a constant address. Preconditions: the flags are saved.
func (t *translator) link(target uint64) {
	t.linkBy(target, func(l *label) { t.a.jmp(l) })
}

// linkBy is link with a jump that may be conditional, where it is direct.
func (t *translator) linkBy(target uint64, jump func(l *label)) {
	a := &t.a
	if target>>mem.PageShift == t.b.rip>>mem.PageShift {
		p := t.exitTo(exitLink, t.mode, target)
		jump(&p.label)
		p.site = t.b.entry + len(a.b) - 4
		return
	}
	emit := (*translator).emitJump
	if target>>63 != 0 {
		emit = (*translator).emitFar
	}
	p := t.later(emit)
	jump(&p.label)
	p.mode, p.target = t.mode, target
}

// emitFar emits a jump to another page of the upper half. Where the kernel's pages lie hardly ever changes: it is
// direct, for as long as none has.
func (t *translator) emitFar(p *coldPath) {
	a, stub := &t.a, newLabel()
	a.extm(ins{op: 0x81, size: 4}, 7, t.e.scratchAt(sGeneration))
	a.imm32(0) // no generation
	a.jcc(ccNE, stub)
	p.kind, p.site = exitFar, t.jumpBehind()
	a.bind(stub)
	t.emitExitTo(p)
}

// jumpBehind emits a jump that leads to what comes behind it until it is patched. It returns where its displacement is.
func (t *translator) jumpBehind() (site int) {
	t.a.bytes(0xe9)
	t.a.imm32(0)
	return t.b.entry + len(t.a.b) - 4
}

// emitJump emits a jump to another page by way of the table of jump targets.
func (t *translator) emitJump(p *coldPath) {
	a := &t.a
	slot := t.jumpTableOf(p.mode) + int32(hashRIP(p.target)%jumpSlots)*16
	if fits32(p.target) {
		a.extm(ins{op: 0x81, size: 8}, 7, at(hRSP, slot))
		a.imm32(int32(p.target))
	} else {
		a.movConst(hRAX, p.target)
		a.rm(ins{op: 0x3b, size: 8}, hRAX, at(hRSP, slot))
	}
	a.jcc(ccNE, &t.exitTo(exitJump, p.mode, p.target).label)
	a.extm(ins{op: 0xff, size: 4}, 4, at(hRSP, slot+8))
}

// exitTo returns the path that leaves generated code, in a mode, for target.
func (t *translator) exitTo(kind exitKind, mode uint8, target uint64) *coldPath {
	p := t.later((*translator).emitExitTo)
	p.kind, p.mode, p.target = kind, mode, target
	return p
}

func (t *translator) emitExitTo(p *coldPath) {
	id := t.exit(exit{kind: p.kind, target: p.target, site: int32(p.site)})
	t.e.exits.at(id).mode = p.mode
	t.leave(id)
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
	t.kept = keptNone // for good
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
