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
	way := newLabel()
	t.a.jcc(cc, way)
	fl, re, rest, l := t.fl, t.re, t.rest(), t.loop
	t.cold = append(t.cold, func() {
		t.a.bind(way)
		t.fl, t.re, t.mode = fl, re, t.b.mode
		t.saveFlags()
		t.giveBack(l, rest)
		t.link(target)
	})
	return true
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
	stub := newLabel()
	mode := t.mode
	if target>>mem.PageShift == t.b.rip>>mem.PageShift {
		jump(stub)
		site := t.b.entry + len(a.b) - 4
		t.cold = append(t.cold, func() {
			a.bind(stub)
			t.leaveIn(mode, exit{kind: exitLink, target: target, site: int32(site)})
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
			t.leaveIn(mode, exit{kind: exitFar, target: target, site: int32(site)})
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
		t.leaveIn(mode, exit{kind: exitJump, target: target})
	})
	way := newLabel()
	jump(way)
	t.cold = append(t.cold, func() {
		a.bind(way)
		far()
	})
}

// leaveIn takes an exit in a mode.
func (t *translator) leaveIn(mode uint8, x exit) {
	id := t.exit(x)
	t.e.exits.at(id).mode = mode
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
