//go:build linux && amd64

package jit

import "refault/vmm/x86"

// hostOf maps general registers of the guest to those of the host; hNone lives in
// the frame. RAX, R10 and R11 are the translator's own, and
// RSP points into the frame.
var hostOf = [16]int{
	x86.RAX: hR14, x86.RCX: hRCX, x86.RDX: hRDX, x86.RBX: hRBX, x86.RSP: hR15, x86.RBP: hRBP, x86.RSI: hRSI, x86.RDI: hRDI,
	x86.R8: hR8, x86.R9: hR9, x86.R10: hR12, x86.R11: hR13, x86.R12: hNone, x86.R13: hNone, x86.R14: hNone, x86.R15: hNone,
}

const hStack = hR15

// home is where register g of the guest lives in the frame.
func home(g uint8) memop { return at(hRSP, offRegs+8*int32(g)) }

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
	case x86.OpCMP, x86.OpTEST, x86.OpJCC, x86.OpJMP, x86.OpNOP, x86.OpFENCE, x86.OpBT:
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
	case x86.OpPOP:
		switch x86.FormOperands(in.Form)[0].Kind {
		case 'Z':
			return bit(in.Reg) | 1<<x86.RSP
		case 'E':
			return rm | 1<<x86.RSP
		}
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

// fits32 reports whether v is a sign-extended 32-bit immediate.
func fits32(v uint64) bool { return int64(v) == int64(int32(v)) }

// mapped reports whether a register operand is simply a host register.
func mapped(g uint8) bool { return g < 16 && hostOf[g] != hNone }

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
		t.lose(tmp)
		t.a.rm(ins{op: 0x0fb6, size: 4}, tmp, t.spillHigh(g))
		return tmp
	case hostOf[g] != hNone:
		return hostOf[g]
	case t.kept == int(g):
		return hR10
	}
	t.lose(tmp)
	t.a.load(tmp, home(g))
	t.hold(g, tmp)
	return tmp
}

// inFrame returns where register g is in memory, if it is nowhere else.
func (t *translator) inFrame(g uint8) (m memop, ok bool) {
	if g&x86.HighByte != 0 || hostOf[g] != hNone || t.kept == int(g) {
		return m, false
	}
	return home(g), true
}

// withSource emits an instruction of host register r, which is not RAX, and register g, wherever that is. The flags stay.
func (t *translator) withSource(i ins, r int, g uint8) {
	if m, ok := t.inFrame(g); ok {
		t.a.rm(i, r, m)
		return
	}
	t.a.rr(i, r, t.src(g, hRAX))
}

// written is what has to be done when register g of the guest was modified in host register r (bring): nothing, where g
// lives in the host, as RAX does, which is the zero value.
type written struct {
	g    uint8
	r    int
	high memop // where g is bits 15:8 of a register
	set  bool  // r may keep the value
}

// bring brings a register home. The flags stay.
func (t *translator) bring(w written) {
	switch {
	case w.g&x86.HighByte != 0:
		t.a.rm(ins{op: 0x88, size: 1}, w.r, w.high)
		t.a.load(hostOf[w.g&3], home(w.g&3))
	case hostOf[w.g] != hNone:
	default:
		t.a.store(home(w.g), w.r)
		if w.set {
			if t.kept == int(w.g) {
				t.kept = keptNone
			}
			t.hold(w.g, w.r)
		}
	}
}

// dst returns a host register to modify as register g of size bytes, and what to bring home then. The flags stay.
func (t *translator) dst(g uint8, size, tmp int) (r int, w written) {
	switch {
	case g&x86.HighByte != 0:
		m := t.spillHigh(g)
		t.lose(tmp)
		t.a.rm(ins{op: 0x0fb6, size: 4}, tmp, m)
		return tmp, written{g: g, r: tmp, high: m}
	case hostOf[g] != hNone:
		return hostOf[g], written{g: g}
	case t.kept == int(g):
		tmp = hR10
	default:
		t.lose(tmp)
		t.a.load(tmp, home(g))
		t.hold(g, tmp)
	}
	return tmp, written{g: g, r: tmp}
}

// set is dst for a register that is only written, with an operand of 4 or 8 bytes. The
// instruction that writes it may read R10.
func (t *translator) set(g uint8, tmp int) (r int, w written) {
	if hostOf[g] != hNone {
		return hostOf[g], written{g: g}
	}
	if t.keeps && tmp == hRAX {
		tmp = hR10
	}
	t.lose(tmp)
	return tmp, written{g: g, r: tmp, set: true}
}

// R10 keeps the value of one register that lives in the frame from one instruction to the
// next, so that a chain of operations on it waits for no load. Its home has the value too. R10 and
// R11 likewise keep what makes the addresses of a window the host's, which goes to the
// window's slot only when they are needed for something else.

const (
	keptNone   = -1
	keptWindow = 16 // and from here on windows
)

// hold notes that tmp has the value of register g. Preconditions: it was lost.
func (t *translator) hold(g uint8, tmp int) {
	if tmp == hR10 && t.keeps {
		t.kept = int(g)
	}
}

// holdWindow notes that tmp has what makes the addresses of window k the host's. Preconditions: it was lost.
func (t *translator) holdWindow(k, tmp int) {
	switch {
	case !t.keeps:
		t.storeWindow(k, tmp)
	case tmp == hR10:
		t.kept = keptWindow + k
	case tmp == hR11:
		t.kept11 = keptWindow + k
	}
}

// storeWindow brings what tmp has of window k to its slot, if it is not there.
func (t *translator) storeWindow(k, tmp int) {
	if w := &t.windows[k]; w.on && !w.stored {
		t.a.store(t.e.slotOf(k), tmp)
		w.stored = true
	}
}

// lose notes that tmp is going to be used for something else.
func (t *translator) lose(tmp int) {
	lose := func(kept *int) {
		if *kept >= keptWindow {
			t.storeWindow(*kept-keptWindow, tmp)
		}
		*kept = keptNone
	}
	switch tmp {
	case hR10:
		lose(&t.kept)
	case hR11:
		lose(&t.kept11)
	}
}

func (t *translator) loseAll() {
	t.lose(hR10)
	t.lose(hR11)
}

// loseWindow notes that window k is closed.
func (t *translator) loseWindow(k int) {
	if t.kept == keptWindow+k {
		t.kept = keptNone
	}
	if t.kept11 == keptWindow+k {
		t.kept11 = keptNone
	}
}

// keepsTemporaries reports whether an instruction's translation uses R10 and R11 through src, dst, set, guest and guestStack only.
func keepsTemporaries(in *guestInst) bool {
	switch in.Op {
	case x86.OpADD, x86.OpOR, x86.OpADC, x86.OpSBB, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpCMP, x86.OpTEST, x86.OpMOV,
		x86.OpMOVZX8, x86.OpMOVZX16, x86.OpMOVSX8, x86.OpMOVSX16, x86.OpMOVSXD, x86.OpLEA, x86.OpINC, x86.OpDEC, x86.OpNOT, x86.OpNEG,
		x86.OpSHL, x86.OpSAL, x86.OpSHR, x86.OpSAR, x86.OpROL, x86.OpROR, x86.OpBSWAP, x86.OpPOP, x86.OpNOP, x86.OpIMUL2, x86.OpIMUL3:
		return true
	case x86.OpPUSH, x86.OpCMOVCC, x86.OpSETCC:
		return !in.IsMem
	case x86.OpJCC, x86.OpCALL, x86.OpRET, x86.OpJMP: // they use R10 for the target, but only then
		return true
	}
	return false
}
