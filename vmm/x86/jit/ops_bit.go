//go:build linux && amd64

package jit

import "refault/vmm/x86"

func (t *translator) bitTest(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	n := int(in.Op - x86.OpBT)
	imm := x86.FormOperands(in.Form)[1].Kind == 'I'
	if in.IsMem {
		if !simpleAddress(in) {
			return false
		}
		var m memop
		if imm {
			var ok bool
			if m, ok = t.guest(in, size, n != 0, false); !ok {
				return false
			}
		} else {
			slow := t.slowExit()
			t.effective(in, hR10)
			// The bit offset is signed, and reaches beyond the operand.
			bit := t.src(in.Reg, hRAX)
			shift := byte(5)
			if size == 8 {
				shift = 6
				a.mov(hR11, bit)
			} else {
				a.rr(ins{op: 0x63, size: 8}, hR11, bit) // movsxd
			}
			a.ext(ins{op: 0xc1, size: 8}, 7, hR11)
			a.bytes(shift)
			a.lea(hR10, memop{base: hR10, index: hR11, scale: shift - 3})
			m = t.translateAddress(hR10, 0, size, n != 0, false, slow)
		}
		t.hostFlags(fAll)
		if imm {
			a.extm(ins{op: 0x0fba, size: size}, 4+n, m)
			a.bytes(byte(in.Imm) & byte(8*size-1))
		} else {
			// A register operand of the host's instruction stays within the register.
			bit := t.src(in.Reg, hRAX)
			if n == 0 {
				if bit == hRAX {
					a.rm(ins{op: 0x8b, size: size}, hR10, m)
					a.rr(ins{op: 0x0fa3, size: size}, bit, hR10)
				} else {
					a.rm(ins{op: 0x8b, size: size}, hRAX, m)
					a.rr(ins{op: 0x0fa3, size: size}, bit, hRAX)
				}
			} else {
				// The address stays in R10, the addend in R11: the value needs RAX.
				a.lea(hR10, m)
				a.mov(hR11, bit)
				a.rm(ins{op: 0x8b, size: size}, hRAX, at(hR10, 0))
				a.rr(ins{op: 0x0fa3 + uint32(n)*8, size: size}, hR11, hRAX)
				a.rm(ins{op: 0x89, size: size}, hRAX, at(hR10, 0))
			}
		}
		t.wrote(flagsAll)
		return true
	}
	if !t.dead(t.i) {
		t.hostFlags(fAll)
	}
	if imm {
		r, w := t.dst(in.RM, size, hR10)
		a.ext(ins{op: 0x0fba, size: size}, 4+n, r)
		a.bytes(byte(in.Imm) & byte(8*size-1))
		if n != 0 {
			t.bring(w)
		}
	} else {
		r, w := t.dst(in.RM, size, hR10)
		a.rr(ins{op: 0x0fa3 + uint32(n)*8, size: size}, t.src(in.Reg, hRAX), r)
		if n != 0 {
			t.bring(w)
		}
	}
	t.wrote(flagsAll)
	return true
}

// scan emits BSF and BSR: of zero, the destination stays, whatever the host does.
func (t *translator) scan(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	op := uint32(0x0fbc)
	if in.Op == x86.OpBSR {
		op = 0x0fbd
	}
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x8b, size: size}, hR10, m)
	} else {
		s := t.src(in.RM, hR10)
		a.rr(ins{op: 0x8b, size: size}, hR10, s)
	}
	zero := newLabel()
	a.rr(ins{op: op, size: size}, hR10, hR10)
	a.jcc(ccE, zero)
	// A move leaves the flags; 32 bits clear the upper half.
	r, w := t.set(in.Reg, hRAX)
	a.mov32(r, hR10)
	t.bring(w)
	a.bind(zero)
	t.wrote(flagsScan)
	return true
}

func (t *translator) popcnt(size int) bool {
	if size < 4 {
		return false
	}
	if !t.setFromRM(ins{pre: 0xf3, op: 0x0fb8, size: size}, size, func() {}) {
		return false
	}
	t.wrote(flagsAll)
	return true
}
