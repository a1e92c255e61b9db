//go:build linux && amd64

package jit

import "refault/vmm/x86"

// shift emits shifts and rotates, where the flags allow it.
func (t *translator) shift(size int) bool {
	a, in := &t.a, t.in
	digit := int(in.Op - x86.OpROL)
	if in.Op == x86.OpSAL {
		digit = 4
	}
	if in.RM&x86.HighByte != 0 && !in.IsMem {
		return false
	}
	rotate := digit < 4
	mask := uint64(31)
	if size == 8 {
		mask = 63
	}
	count := uint64(1)
	kind := x86.FormOperands(in.Form)[1].Kind
	if kind == 'I' {
		count = in.Imm & mask
	}
	if kind == 'c' {
		return t.shiftCL(size, digit, rotate)
	}
	if count == 0 || !rotate && count >= uint64(8*size) || digit == 2 && count != 1 || digit == 3 && count != 1 || rotate && count >= uint64(8*size) {
		return false
	}
	i := ins{op: 0xc0 | wide(size), size: size}
	var m memop
	if in.IsMem {
		var ok bool
		if m, ok = t.guest(in, size, true, false); !ok {
			return false
		}
	}
	dead, source := t.dead(t.i), false
	switch {
	case digit == 2 || digit == 3:
		// RCL and RCR read CF, and keep the others.
		t.hostFlags(fAll)
	case rotate && !dead:
		t.hostFlags(fAll)
	}
	if in.IsMem {
		a.extm(i, digit, m)
		a.bytes(byte(count))
	} else {
		r, w := t.dst(in.RM, size, hR10)
		source = !rotate && size >= 4 && t.keepSource(r)
		a.ext(i, digit, r)
		a.bytes(byte(count))
		t.bring(w)
	}
	switch {
	case rotate && count == 1:
		t.wrote(flagsAll)
	case rotate:
		t.wrote(flagsRotN)
	case count == 1:
		t.wrote(flagsShift1)
	default:
		t.wrote(flagsShiftN)
	}
	if source {
		t.rememberSource(map[int]againKind{4: againShl, 5: againShr, 7: againSar}[digit], size, in.RM, x86.RegZero, int32(count))
	}
	return true
}

// shiftCL emits shifts by CL. A count of zero leaves the flags.
func (t *translator) shiftCL(size, digit int, rotate bool) bool {
	a, in := &t.a, t.in
	i := ins{op: 0xd2 | wide(size), size: size}
	if in.IsMem {
		return false
	}
	if digit != 2 && digit != 3 && t.dead(t.i) {
		r, w := t.dst(in.RM, size, hR10)
		a.ext(i, digit, r)
		t.bring(w)
		t.fl = flagState{}
		return true
	}
	if rotate || size < 4 {
		return false
	}
	t.saveFlags()
	// RCX may be the operand: keep the count.
	t.lose(hR11)
	a.mov32(hR11, hRCX)
	r, w := t.dst(in.RM, size, hR10)
	a.ext(i, digit, r)
	t.bring(w)
	t.shiftFlags(size)
	return true
}

// shiftFlags saves the flags of a shift by the count that R11 holds a copy of.
func (t *translator) shiftFlags(size int) {
	a := &t.a
	mask := int32(31)
	if size == 8 {
		mask = 63
	}
	a.bytes(0x0f, 0x90, 0xc0, 0x9f) // seto al; lahf
	a.bytes(0x80, 0xe4, 0xef)       // and ah, ~AF
	same := newLabel()
	a.aluImm(4, 4, hR11, mask)
	a.jcc(ccE, same)
	// OF counts where the count is one.
	a.aluImm(7, 4, hR11, 1)
	a.bytes(0x41, 0x0f, 0x94, 0xc3)          // setz r11b
	a.rr(ins{op: 0x22, size: 1}, hRAX, hR11) // and al, r11b
	a.rm(ins{op: 0x89, size: 2}, hRAX, at(hRSP, offFlags))
	a.bind(same)
	t.fl = flagState{mem: true}
}

func (t *translator) shiftDouble(size int) bool {
	a, in := &t.a, t.in
	if size < 4 || in.IsMem {
		return false
	}
	op := uint32(0x0fa4)
	if in.Op == x86.OpSHRD {
		op = 0x0fac
	}
	if x86.FormOperands(in.Form)[2].Kind == 'c' {
		if t.dead(t.i) {
			r, w := t.dst(in.RM, size, hR10)
			a.rr(ins{op: op + 1, size: size}, t.src(in.Reg, hRAX), r)
			t.bring(w)
			t.fl = flagState{}
			return true
		}
		t.saveFlags()
		a.mov32(hR11, hRCX)
		r, w := t.dst(in.RM, size, hR10)
		a.rr(ins{op: op + 1, size: size}, t.src(in.Reg, hRAX), r)
		t.bring(w)
		t.shiftFlags(size)
		return true
	}
	count := in.Imm & 31
	if size == 8 {
		count = in.Imm & 63
	}
	if count == 0 {
		return false
	}
	r, w := t.dst(in.RM, size, hR10)
	a.rr(ins{op: op, size: size}, t.src(in.Reg, hRAX), r)
	a.bytes(byte(count))
	t.bring(w)
	if count == 1 {
		t.wrote(flagsShift1)
	} else {
		t.wrote(flagsShiftN)
	}
	return true
}
