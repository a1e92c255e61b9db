//go:build linux && amd64

package jit

import (
	"refault/vmm/mem"
	"refault/vmm/x86"
	"refault/vmm/x86/interp"
)

// emitSlow emits the exit that leaves an instruction to the interpreter, and how the block goes on.
func (t *translator) emitSlow(p *coldPath) {
	a := &t.a
	t.saveFlagsOf(p)
	if p.loop != nil {
		t.leaveLoop(p.loop, p.rest)
	}
	t.leave(p.id)
	if !p.resumes {
		return
	}
	t.e.exits.at(p.id).resume = int32(t.b.entry + len(a.b))
	if p.sse {
		t.loadUnit(offXMM, t.e.loadXMM, p.id)
	}
	if p.x87 {
		t.loadUnit(offX87, t.e.loadX87, p.id)
	}
	if p.keeps != keptNone {
		a.load(hR10, home(uint8(p.keeps)))
	}
	if p.host {
		t.reload()
	}
	a.jmp(&p.after)
}

// slowInst is an instruction that exits leave to the interpreter, and its first access to memory, if that is
// known: size bytes at its memory operand, or on the stack at RSP+disp. Nothing that it raises comes before what
// this access does.
type slowInst struct {
	x86.Inst
	size  int // or 0
	kind  x86.Access
	stack bool
	disp  int32
}

// instruction returns the instruction that an exit leaves to the interpreter, or nil where its bytes are not what they were.
func (e *Engine) instruction(x *exit) *slowInst {
	if x.inst == 0 {
		in, b := new(slowInst), e.blockOf(x)
		at := b.offAt(x.pos)
		code := e.c.RAM.Page(int(at >> mem.PageShift))[at%mem.PageSize:]
		if b.cross {
			code = b.code[:]
		}
		if b.dead || x86.Decode(code, 8, &in.Inst) != x86.DecodeOK {
			return nil
		}
		in.noteAccess()
		interp.Bind(&in.Inst)
		x.inst = int32(len(e.insts))
		e.insts = append(e.insts, in)
	}
	return e.insts[x.inst]
}

// noteAccess finds the first access out. Vector and x87 instructions may raise other things before.
func (in *slowInst) noteAccess() {
	g := guestInst{Inst: in.Inst, attr: x86.Forms()[in.Form].Attr}
	if g.attr&(x86.IsSSE|x86.IsMMX|x86.IsFPU|x86.Priv) != 0 {
		return
	}
	size, write, ok := access(&g)
	if !in.IsMem {
		size, in.stack = 8, true
		in.disp, write, ok = stackAccess(&g)
	}
	if !ok {
		return
	}
	in.size, in.kind = size, x86.Read
	if write {
		in.kind = x86.Write
	}
}

// faults reports whether the first access of an instruction at RIP raises #PF, which is in CPU.Exc then.
func (e *Engine) faults(in *slowInst) bool {
	c := e.c
	switch {
	case in.size == 0:
		return false
	case in.stack:
		return c.PageFault(c.Regs[x86.RSP]+uint64(in.disp), in.size, in.kind)
	}
	off := c.Offset(&in.Inst)
	if in.Base == x86.RIP {
		off = (off + uint64(in.Len)) & in.AddrMask
	}
	return c.PageFault(c.Seg[in.Seg].Base+off, in.size, in.kind)
}
