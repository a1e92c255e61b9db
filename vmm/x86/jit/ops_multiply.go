//go:build linux && amd64

package jit

import "refault/vmm/x86"

func (t *translator) imul(size int) bool {
	a, in := &t.a, t.in
	if in.Op == x86.OpIMUL2 {
		i, source := ins{op: 0x0faf, size: size}, false
		if in.IsMem {
			m, ok := t.guest(in, size, false, false)
			if !ok {
				return false
			}
			r, w := t.dst(in.Reg, size, hRAX)
			a.rm(i, r, m)
			t.bring(w)
		} else {
			r, w := t.dst(in.Reg, size, hR10)
			source = t.keepSource(r)
			t.withSource(i, r, in.RM)
			t.bring(w)
		}
		t.wrote(flagsMul)
		if source {
			t.rememberSource(againMul, size, in.Reg, in.RM, 0)
		}
		return true
	}
	if size < 4 {
		return false
	}
	if !t.setFromRM(ins{op: 0x69, size: size}, size, func() { a.imm32(int32(in.Imm)) }) {
		return false
	}
	t.wrote(flagsMul)
	return true
}

// mul emits the products that are twice as wide as their operands.
func (t *translator) mul(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	digit := 4
	if in.Op == x86.OpIMUL1 {
		digit = 5
	}
	i := ins{op: 0xf7, size: size}
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		a.mov(hRAX, hostOf[x86.RAX])
		a.extm(i, digit, m)
	} else {
		s := t.src(in.RM, hR10)
		a.mov(hRAX, hostOf[x86.RAX])
		a.ext(i, digit, s)
	}
	a.mov(hostOf[x86.RAX], hRAX)
	t.wrote(flagsMul)
	return true
}

// div emits divisions that cannot overflow; the others raise #DE in the interpreter.
func (t *translator) div(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	slow := t.slowExit()
	d := hR10
	if in.IsMem {
		m, ok := t.guest(in, size, false, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x8b, size: size}, hR10, m)
	} else {
		d = t.src(in.RM, hR10)
		if d == hRDX || d == hostOf[x86.RAX] {
			a.mov(hR10, d)
			d = hR10
		}
	}
	digit := 6
	if in.Op == x86.OpDIV {
		// The quotient fits if the upper half is below the divisor; that excludes zero.
		a.rr(ins{op: 0x3b, size: size}, hRDX, d)
		a.jcc(ccAE, slow)
		a.mov(hRAX, hostOf[x86.RAX])
	} else {
		digit = 7
		// Take the common case only: a dividend that fits one half, and a divisor other than 0 and -1.
		a.rm(ins{op: 0x8d, size: size}, hRAX, at(d, 1))
		a.aluImm(7, size, hRAX, 1)
		a.jcc(ccBE, slow)
		a.mov(hRAX, hostOf[x86.RAX])
		a.mov(hR11, hRAX)
		a.ext(ins{op: 0xc1, size: size}, 7, hR11) // sar
		a.bytes(byte(8*size - 1))
		a.rr(ins{op: 0x3b, size: size}, hR11, hRDX)
		a.jcc(ccNE, slow)
	}
	a.ext(ins{op: 0xf7, size: size}, digit, d)
	a.mov(hostOf[x86.RAX], hRAX)
	// All flags are undefined: ours are clear.
	a.extm(ins{op: 0xc7, size: 2}, 0, at(hRSP, offFlags))
	a.bytes(0, 0)
	t.fl = flagState{mem: true}
	return true
}

func (t *translator) cbw(size int) bool {
	r := hostOf[x86.RAX]
	switch size {
	case 8:
		t.a.rr(ins{op: 0x63, size: 8}, r, r)
	case 4:
		t.a.rr(ins{op: 0x0fbf, size: 4}, r, r)
	default:
		t.a.rr(ins{op: 0x0fbe, size: 2, rex: true}, r, r)
	}
	return true
}

func (t *translator) cwd(size int) bool {
	if size < 4 {
		return false
	}
	t.a.mov(hRAX, hostOf[x86.RAX])
	t.a.opcode(ins{op: 0x99, size: size}, 0, 0, 0)
	return true
}
