//go:build linux && amd64

package jit

import (
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Windows. A block often accesses memory several times at addresses that are constants apart (value.go): the
// stack, the fields of a structure, an element that it loads and stores. The first access looks
// the whole span of them up in the TLB, which succeeds where the span lies in one page, and
// keeps what makes its addresses the host's; the others need no look. Where it does not succeed, for
// whatever reason, the plain translation of the rest of the block takes over, which
// looks each access up by itself and raises what there is to raise.
//
// What a window says must stay true until its last use. Generated code changes no
// translation, so only what the interpreter executes in between could: a block with
// a window in use is not resumed behind such an instruction.
//
// Each host instruction that writes a register makes the host look less far ahead, so a
// window is not loaded while R10 or R11 has it.

const (
	// windowSpan is the longest window in bytes: beyond, it would often not lie in one page.
	windowSpan = 512
	maxWindows = 16
	noWindow   = -1
)

// window is a span of memory, from what its key stands for.
type window struct {
	on     bool
	key    int
	lo, hi int32
	write  bool
	addend bool // what is kept makes the guest's addresses the host's; otherwise it is the host's address of lo
	stack  bool // PUSH and its like need it
	stored bool // the slot has it
	last   int  // the last instruction that needs it
}

// slotOf is where window k keeps what makes its addresses the host's.
func (e *Engine) slotOf(k int) memop { return e.scratchAt(sWindows + 8*int32(k)) }

// windowed returns the host's operand for access r, where a window has it or one can be opened for it. The plain operand
// counts where r is simple.
func (t *translator) windowed(r *ref, size int, write bool, plain memop) (m memop, ok bool) {
	if t.b.plain || t.loop != nil && !t.loop.looking {
		return m, false
	}
	if k := t.windowFor(r, size, write); k != noWindow {
		return t.through(k, r, plain), true
	}
	v := window{on: true, key: r.key, lo: r.disp, hi: r.disp + int32(size), write: write, addend: r.simple, stack: r.stack}
	if !t.widen(&v, r) {
		return m, false
	}
	for k := range t.windows {
		if !t.windows[k].on {
			return t.open(k, &v, r, plain), true
		}
	}
	return m, false
}

// through returns the host's operand for access r through window k. It may load R11.
func (t *translator) through(k int, r *ref, plain memop) memop {
	w := &t.windows[k]
	if !w.addend && t.kept == keptWindow+k {
		return at(hR10, r.disp-w.lo)
	}
	if t.kept11 != keptWindow+k {
		t.lose(hR11)
		t.a.load(hR11, t.e.slotOf(k))
		t.holdWindow(k, hR11)
	}
	if !w.addend {
		return at(hR11, r.disp-w.lo)
	}
	plain.index = hR11
	return plain
}

// open makes v window k, and returns the host's operand for access r.
func (t *translator) open(k int, v *window, r *ref, plain memop) memop {
	a := &t.a
	if t.fl.mem || !t.fl.again {
		t.saveFlags()
	}
	p := t.later((*translator).emitPlain)
	p.fl, p.re = flagState{mem: t.fl.mem, again: !t.fl.mem}, t.re
	p.rest, p.loop = t.rest()+1, t.loop
	p.kind, p.mode, p.target = exitPlain, t.b.mode, t.b.ripAt(t.in.pos)
	leave := &p.label
	t.opened++
	if v.addend {
		m := t.translateAddress(plain.base, plain.disp+v.lo-r.disp, int(v.hi-v.lo), v.write, false, leave)
		t.windows[k] = *v
		t.holdWindow(k, m.index)
		t.e.Stats.AddendWindows++
		plain.index = m.index
	} else {
		t.address(t.in, int32(t.in.Disp)+v.lo-r.disp, hR10)
		m := t.translateAddress(hR10, 0, int(v.hi-v.lo), v.write, false, leave)
		a.rr(ins{op: 0x03, size: 8}, m.base, m.index) // add
		t.windows[k] = *v
		t.holdWindow(k, m.base)
		t.e.Stats.AddressWindows++
		plain = at(m.base, r.disp-v.lo)
	}
	return plain
}

// emitPlain emits the way to the plain translation, for an instruction whose window does not open.
func (t *translator) emitPlain(p *coldPath) {
	t.saveFlagsOf(p)
	t.giveBack(p)
	p.site = t.jumpBehind()
	t.emitExitTo(p)
}

// widen widens a window that opens with access r by those that follow. It reports whether there are any.
func (t *translator) widen(w *window, r *ref) bool {
	more := false
	for i := range t.refs {
		n := &t.refs[i]
		if n.inst < r.inst || n == r || n.key != w.key || n.size == 0 || n.stack && !w.addend || !n.simple && w.stack {
			continue
		}
		lo, hi := min(w.lo, n.disp), max(w.hi, n.disp+int32(n.size))
		if hi-lo > windowSpan {
			break
		}
		w.lo, w.hi, w.write, w.last = lo, hi, w.write || n.write, n.inst
		w.addend, w.stack = w.addend && n.simple, w.stack || n.stack
		more = true
	}
	return more
}

// closeWindows closes those that nothing needs any more.
func (t *translator) closeWindows() {
	if t.opened == 0 {
		return
	}
	for k := range t.windows {
		if w := &t.windows[k]; w.on && w.last <= t.i {
			w.on = false
			t.opened--
			t.loseWindow(k)
		}
	}
}

// windowFor returns the open window that has an access, or noWindow.
func (t *translator) windowFor(r *ref, size int, write bool) int {
	for k := range t.windows {
		if w := &t.windows[k]; w.on && w.key == r.key && r.disp >= w.lo && r.disp+int32(size) <= w.hi && (w.write || !write) && (r.simple || !w.addend) && (w.addend || !r.stack) {
			return k
		}
	}
	return noWindow
}

// stackShift returns what an instruction adds to RSP, where it changes RSP by a constant and nothing else matters.
func stackShift(in *guestInst) (d int32, ok bool) {
	kind := byte(0)
	if ops := x86.FormOperands(in.Form); len(ops) > 0 {
		kind = ops[0].Kind
	}
	switch in.Op {
	case x86.OpPUSH:
		return -8, in.OpSize == 8
	case x86.OpPOP:
		g := in.RM
		if kind == 'Z' {
			g = in.Reg
		}
		return 8, in.OpSize == 8 && !in.IsMem && g != x86.RSP
	case x86.OpADD, x86.OpSUB:
		if in.OpSize != 8 || in.IsMem || kind != 'E' || in.RM != x86.RSP || x86.FormOperands(in.Form)[1].Kind != 'I' ||
			int64(in.Imm) < -mem.PageSize || int64(in.Imm) > mem.PageSize {
			return 0, false
		}
		if in.Op == x86.OpSUB {
			return -int32(in.Imm), true
		}
		return int32(in.Imm), true
	case x86.OpLEA:
		return int32(in.Disp), in.OpSize == 8 && in.AddrSize == 8 && in.Reg == x86.RSP && in.Base == x86.RSP && in.Index == x86.RegZero &&
			int64(in.Disp) >= -mem.PageSize && int64(in.Disp) <= mem.PageSize
	}
	return 0, false
}

// stackAccess returns where an instruction accesses the stack, from RSP before it.
func stackAccess(in *guestInst) (disp int32, write, ok bool) {
	switch in.Op {
	case x86.OpPUSH, x86.OpCALL:
		return -8, true, in.OpSize == 8
	case x86.OpPOP:
		return 0, false, in.OpSize == 8 && !in.IsMem
	case x86.OpRET:
		return 0, false, in.OpSize == 8
	}
	return 0, false, false
}

// access returns what an instruction does with its memory operand.
func access(in *guestInst) (size int, write, ok bool) {
	if !in.IsMem {
		return 0, false, false
	}
	if size, write, ok := x87Access(&in.Inst); ok {
		return size, write, true
	}
	size = int(in.OpSize)
	ops := x86.FormOperands(in.Form)
	switch in.Op {
	case x86.OpADD, x86.OpOR, x86.OpADC, x86.OpSBB, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpMOV:
		return size, ops[0].Kind == 'E', ops[0].Kind == 'E' || ops[0].Kind == 'G'
	case x86.OpCMP, x86.OpTEST, x86.OpIMUL2, x86.OpIMUL3, x86.OpMUL, x86.OpIMUL1, x86.OpCMOVCC, x86.OpPOPCNT, x86.OpBSF, x86.OpBSR:
		return size, false, true
	case x86.OpINC, x86.OpDEC, x86.OpNOT, x86.OpNEG, x86.OpXCHG, x86.OpXADD, x86.OpCMPXCHG,
		x86.OpSHL, x86.OpSAL, x86.OpSHR, x86.OpSAR, x86.OpROL, x86.OpROR, x86.OpRCL, x86.OpRCR:
		return size, true, true
	case x86.OpMOVNTI:
		return max(size, 4), true, true
	case x86.OpMOVZX8, x86.OpMOVSX8:
		return 1, false, true
	case x86.OpMOVZX16, x86.OpMOVSX16:
		return 2, false, true
	case x86.OpMOVSXD:
		return 4, false, true
	case x86.OpSETCC:
		return 1, true, true
	case x86.OpPUSH, x86.OpCALL, x86.OpJMP:
		return 8, false, size == 8
	case x86.OpMOVVec, x86.OpMOVScalar, x86.OpMOVLow, x86.OpMOVHigh, x86.OpMOVD, x86.OpMOVQ, x86.OpVector, x86.OpVectorFP,
		x86.OpVectorFlags, x86.OpVectorFPFlags, x86.OpVectorImplicit:
		if in.attr&x86.IsMMX != 0 {
			return 0, false, false
		}
		for i, o := range ops {
			if o.Kind == 'W' || o.Kind == 'M' || o.Kind == 'E' {
				return in.VectorSize(o), i == 0, true
			}
		}
	}
	return 0, false, false
}
