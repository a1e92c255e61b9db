//go:build linux && amd64

package jit

import (
	"math"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Windows. A block often accesses memory through the same registers several times: the
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

// windowKey is what the addresses of a window are made of: base+index<<scale, of which one may be x86.RegZero.
type windowKey struct{ base, index, scale uint8 }

// window is a span of memory, from what the registers of its key make now.
type window struct {
	on     bool
	key    windowKey
	lo, hi int32
	origin int32 // where its address points to, unless it has an addend
	write  bool
	stored bool // the slot has the address or addend
}

// windowOf returns the key and the displacement of an instruction's memory operand, where windows are made for such.
func windowOf(in *guestInst) (key windowKey, disp int32, ok bool) {
	key = windowKey{in.Base, in.Index, in.Scale & 3}
	if in.Index == x86.RegZero {
		key.scale = 0
	}
	ok = in.Seg == x86.SegFlat && in.AddrSize == 8 && in.Base != x86.RIP && (in.Base != x86.RegZero || in.Index != x86.RegZero) &&
		fits32(in.Disp) && int64(in.Disp) > math.MinInt32/2 && int64(in.Disp) < math.MaxInt32/2
	return key, int32(in.Disp), ok
}

// simple reports whether the key is a register that lives in the host: the window's slot has an addend then, and
// otherwise an address of the host.
func (k windowKey) simple() bool {
	return k.index == x86.RegZero && k.base < 16 && mapped(k.base)
}

// within reports whether one of the given registers is in the key.
func (k windowKey) within(regs uint16) bool {
	return k.base < 16 && regs&(1<<k.base) != 0 || k.index < 16 && regs&(1<<k.index) != 0
}

// slotOf is where window k keeps what makes its addresses the host's.
func (e *Engine) slotOf(k int) memop { return e.scratchAt(sWindows + 8*int32(k)) }

// windowed returns the host's operand for an access, where a window has it or one can be opened for it.
func (t *translator) windowed(key windowKey, disp int32, size int, write bool) (m memop, ok bool) {
	if t.b.plain || t.loop != nil && !t.loop.looking {
		return m, false
	}
	free := noWindow
	for k := range t.windows {
		w := &t.windows[k]
		switch {
		case w.on && w.key == key:
			if !w.holds(disp, size, write) {
				return m, false
			}
			return t.through(k, disp), true
		case !w.on && free == noWindow:
			free = k
		}
	}
	v := window{on: true, key: key, lo: disp, hi: disp + int32(size), write: write}
	if free == noWindow || !t.widen(&v) {
		return m, false
	}
	return t.open(free, &v, disp), true
}

// through returns the host's operand for an access through window k. It may load R11.
func (t *translator) through(k int, disp int32) memop {
	w := &t.windows[k]
	if !w.key.simple() && t.kept == keptWindow+k {
		return at(hR10, disp-w.origin)
	}
	if t.kept11 != keptWindow+k {
		t.lose(hR11)
		t.a.load(hR11, t.e.slotOf(k))
		t.holdWindow(k, hR11)
	}
	if !w.key.simple() {
		return at(hR11, disp-w.origin)
	}
	return memop{base: hostOf[w.key.base], index: hR11, disp: disp}
}

// open makes v window k, and returns the host's operand for the access at disp.
func (t *translator) open(k int, v *window, disp int32) (m memop) {
	a := &t.a
	lost, re := false, t.re
	if !t.fl.mem && t.fl.again {
		lost = true
	} else {
		t.saveFlags()
	}
	plain := newLabel()
	if v.key.simple() {
		r := t.translateAddress(hostOf[v.key.base], v.lo, int(v.hi-v.lo), v.write, false, plain)
		t.windows[k] = *v
		t.holdWindow(k, r.index)
		t.e.Stats.AddendWindows++
		m = memop{base: r.base, index: r.index, disp: disp}
	} else {
		v.origin = v.lo
		t.address(v.key, v.lo, hR10)
		r := t.translateAddress(hR10, 0, int(v.hi-v.lo), v.write, false, plain)
		a.rr(ins{op: 0x03, size: 8}, r.base, r.index) // add
		t.windows[k] = *v
		t.holdWindow(k, r.base)
		t.e.Stats.AddressWindows++
		m = at(r.base, disp-v.origin)
	}
	rest, rip, l := t.rest()+1, t.b.rip+uint64(t.in.pos), t.loop
	t.cold = append(t.cold, func() {
		a.bind(plain)
		if lost {
			t.fl, t.re = flagState{again: true}, re
			t.saveFlags()
		}
		t.giveBack(l, rest)
		stub := newLabel()
		a.jmp(stub)
		site := t.b.entry + len(a.b) - 4
		a.bind(stub)
		t.leave(t.exit(exit{kind: exitPlain, target: rip, site: int32(site)}))
	})
	return m
}

// widen widens a window that opens at the instruction in work by the accesses that follow. It
// reports whether there are any.
func (t *translator) widen(w *window) bool {
	first := *w
	shift := int32(0) // of the base since
	found := false
	for j := t.i; j < len(t.insts); j++ {
		in := &t.insts[j]
		add := func(disp int32, size int, write bool) bool {
			disp += shift
			lo, hi := min(w.lo, disp), max(w.hi, disp+int32(size))
			if hi-lo > windowSpan {
				return false
			}
			w.lo, w.hi, w.write = lo, hi, w.write || write
			found = found || j > t.i
			return true
		}
		if size, write, ok := access(in); ok && in.attr&x86.Align16 == 0 {
			if key, disp, ok := windowOf(in); ok && key == w.key && !add(disp, size, write) {
				break
			}
		}
		if disp, write, ok := stackAccess(in); ok && w.key == stackKey && !add(disp, 8, write) {
			break
		}
		d, ok := w.key.moves(in)
		if !ok {
			break
		}
		shift += d
	}
	if !found {
		*w = first
	}
	return found
}

// stackKey is the key of the stack's window.
var stackKey = windowKey{base: x86.RSP, index: x86.RegZero}

// moves returns how far an instruction moves what a key stands for, where that can be told.
func (k windowKey) moves(in *guestInst) (d int32, ok bool) {
	written := regsWritten(in)
	if k.base == x86.RSP {
		if d, ok := stackShift(in); ok {
			return d, !windowKey{k.index, x86.RegZero, 0}.within(written)
		}
	}
	return 0, !k.within(written)
}

// moveWindows follows what the instruction in work did to the registers.
func (t *translator) moveWindows() {
	for k := range t.windows {
		w := &t.windows[k]
		if !w.on {
			continue
		}
		d, ok := w.key.moves(t.in)
		w.lo -= d
		w.hi -= d
		w.origin -= d
		if !ok {
			w.on = false
			t.loseWindow(k)
		}
	}
}

// windowFor returns the open window with a key, or nil.
func (t *translator) windowFor(key windowKey) *window {
	for k := range t.windows {
		if w := &t.windows[k]; w.on && w.key == key {
			return w
		}
	}
	return nil
}

// holds reports whether an access has the window.
func (w *window) holds(disp int32, size int, write bool) bool {
	return disp >= w.lo && disp+int32(size) <= w.hi && (w.write || !write)
}

func (t *translator) anyWindow() bool {
	for k := range t.windows {
		if t.windows[k].on {
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
