//go:build linux && amd64

package jit

import (
	"math"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Windows. A block often accesses memory through one register several times: the
// stack, the fields of a structure. The first access looks the whole span of them up
// in the TLB, which succeeds where the span lies in one page, and keeps what makes its
// addresses the host's; the others need no look. Where it does not succeed, for
// whatever reason, the plain translation of the rest of the block takes over, which
// looks each access up by itself and raises what there is to raise.
//
// What a window says must stay true until its last use. Generated code changes no
// translation, so only what the interpreter executes in between could: a block with
// a window in use is not resumed behind such an instruction.

// windowSpan is the longest window in bytes: beyond, it would often not lie in one page.
const windowSpan = 512

// window is a span of memory, from a register's present value.
type window struct {
	on     bool
	lo, hi int32
	write  bool
}

// slotOf is where the window of register g keeps what makes its addresses the host's.
func (e *Engine) slotOf(g uint8) memop { return e.scratchAt(sWindows + 8*int32(g)) }

// windowed returns the host's operand for an access through register g, where a window has it or one can be opened for it.
func (t *translator) windowed(g uint8, disp int32, size int, write bool) (m memop, ok bool) {
	if t.b.plain || !mapped(g) {
		return m, false
	}
	w := &t.windows[g]
	a := &t.a
	m = memop{base: hostOf[g], index: hR11, disp: disp}
	if w.on {
		if disp < w.lo || disp+int32(size) > w.hi || write && !w.write {
			return m, false
		}
		a.load(hR11, t.e.slotOf(g))
		return m, true
	}
	v := window{on: true, lo: disp, hi: disp + int32(size), write: write}
	if !t.widen(&v, g) {
		return m, false
	}
	*w = v
	lost, re := false, t.re
	if !t.fl.mem && t.fl.again {
		lost = true
	} else {
		t.saveFlags()
	}
	plain := newLabel()
	r := t.translateAddress(hostOf[g], v.lo, int(v.hi-v.lo), v.write, false, plain)
	a.store(t.e.slotOf(g), r.index)
	rest, rip := int32(int(t.b.n)-t.i), t.b.rip+uint64(t.in.pos)
	t.cold = append(t.cold, func() {
		a.bind(plain)
		if lost {
			t.fl, t.re = flagState{again: true}, re
			t.saveFlags()
		}
		a.aluImm(0, 8, hBudget, rest)
		stub := newLabel()
		a.jmp(stub)
		site := t.b.entry + len(a.b) - 4
		a.bind(stub)
		t.leave(t.exit(exit{kind: exitPlain, target: rip, site: site}))
	})
	return m, true
}

// widen widens a window that opens at the instruction in work by the accesses that follow. It
// reports whether there are any.
func (t *translator) widen(w *window, g uint8) bool {
	first := *w
	shift := int32(0) // of the register since
	found := false
	for j := t.i; j < len(t.insts); j++ {
		in := &t.insts[j]
		add := func(disp int32, size int, write bool) bool {
			disp += shift
			lo, hi := min(w.lo, disp), max(w.hi, disp+int32(size))
			if hi-lo > windowSpan {
				return false
			}
			*w = window{on: true, lo: lo, hi: hi, write: w.write || write}
			found = found || j > t.i
			return true
		}
		if size, write, ok := access(in); ok && in.attr&x86.Align16 == 0 && in.Base == g && in.Index == x86.RegZero && in.Seg == x86.SegFlat && in.AddrSize == 8 &&
			fits32(in.Disp) && int64(in.Disp) > math.MinInt32/2 && int64(in.Disp) < math.MaxInt32/2 {
			if !add(int32(in.Disp), size, write) {
				break
			}
		}
		if g == x86.RSP {
			if disp, write, ok := stackAccess(in); ok && !add(disp, 8, write) {
				break
			}
			if d, ok := stackShift(in); ok {
				shift += d
				continue
			}
		}
		if regsWritten(in)&(1<<g) != 0 {
			break
		}
	}
	if !found {
		*w = first
	}
	return found
}

// moveWindows follows what the instruction in work did to the registers.
func (t *translator) moveWindows() {
	written := regsWritten(t.in)
	for g := range t.windows {
		w := &t.windows[g]
		if !w.on || g != x86.RSP && written&(1<<g) == 0 {
			continue
		}
		if g == x86.RSP {
			if d, ok := stackShift(t.in); ok {
				w.lo -= d
				w.hi -= d
				continue
			}
			if written&(1<<g) == 0 {
				continue
			}
		}
		w.on = false
	}
}

func (t *translator) anyWindow() bool {
	for g := range t.windows {
		if t.windows[g].on {
			return true
		}
	}
	return false
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
