//go:build linux && amd64

package jit

import "refault/vmm/x86"

func (t *translator) xchg(size int) bool {
	a, in := &t.a, t.in
	rm := in.RM
	if x86.FormOperands(in.Form)[0].Kind == 'Z' {
		rm = x86.RAX
		if in.Reg == x86.RAX {
			return true
		}
	}
	if size < 4 || in.Reg&x86.HighByte != 0 {
		return false
	}
	if in.IsMem {
		m, ok := t.guest(in, size, true, false)
		if !ok {
			return false
		}
		// A single processor needs no bus lock, which XCHG would imply.
		if hostOf[in.Reg] != hNone {
			r := hostOf[in.Reg]
			a.rm(ins{op: 0x8b, size: size}, hRAX, m)
			a.rm(ins{op: 0x89, size: size}, r, m)
			a.rr(ins{op: 0x8b, size: size}, r, hRAX)
			return true
		}
		a.lea(hR10, m)
		a.load(hRAX, home(in.Reg))
		a.rm(ins{op: 0x8b, size: size}, hR11, at(hR10, 0))
		a.rm(ins{op: 0x89, size: size}, hRAX, at(hR10, 0))
		a.store(home(in.Reg), hR11)
		return true
	}
	x, y := t.src(rm, hR10), t.src(in.Reg, hR11)
	a.rr(ins{op: 0x8b, size: size}, hRAX, x)
	r, w := t.set(rm, hR10)
	a.rr(ins{op: 0x8b, size: size}, r, y)
	t.bring(w)
	r, w = t.set(in.Reg, hR11)
	a.rr(ins{op: 0x8b, size: size}, r, hRAX)
	t.bring(w)
	return true
}

func (t *translator) xadd(size int) bool {
	a, in := &t.a, t.in
	if size < 4 {
		return false
	}
	i := ins{op: 0x0fc1, size: size}
	if in.IsMem {
		m, ok := t.guest(in, size, true, false)
		if !ok {
			return false
		}
		r, w := t.dst(in.Reg, size, hRAX)
		a.rm(i, r, m)
		t.bring(w)
	} else {
		if in.RM == in.Reg {
			return false
		}
		r, w := t.dst(in.RM, size, hR10)
		s, sw := t.dst(in.Reg, size, hR11)
		a.rr(i, s, r)
		t.bring(sw)
		t.bring(w)
	}
	t.wrote(flagsAll)
	return true
}

func (t *translator) cmpxchg(size int) bool {
	a, in := &t.a, t.in
	if !in.IsMem || size < 4 {
		return false
	}
	m, ok := t.guest(in, size, true, false)
	if !ok {
		return false
	}
	src := hostOf[in.Reg]
	if src == hNone {
		a.lea(hR10, m)
		m = at(hR10, 0)
		a.load(hR11, home(in.Reg))
		src = hR11
	}
	a.mov(hRAX, hostOf[x86.RAX])
	a.rm(ins{op: 0x0fb1, size: size}, src, m)
	a.mov(hostOf[x86.RAX], hRAX)
	t.wrote(flagsAll)
	return true
}

// cmpxchg16 needs RAX, RBX, RCX and RDX where the guest has them, but for RAX. Only ZF changes.
func (t *translator) cmpxchg16() bool {
	a, in := &t.a, t.in
	m, ok := t.guest(in, 16, true, true)
	if !ok {
		return false
	}
	a.lea(hR10, m)
	t.hostFlags(fAll)
	a.mov(hRAX, hostOf[x86.RAX])
	a.extm(ins{op: 0x0fc7, size: 8}, 1, at(hR10, 0))
	a.mov(hostOf[x86.RAX], hRAX)
	t.wrote(flagsAll)
	return true
}
