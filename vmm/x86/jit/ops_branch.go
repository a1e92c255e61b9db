//go:build linux && amd64

package jit

import "refault/vmm/x86"

// branch emits the jumps that end a block.
func (t *translator) branch() bool {
	a, in := &t.a, t.in
	size := int(in.OpSize)
	if size != 8 {
		return false
	}
	direct := len(x86.FormOperands(in.Form)) > 0 && x86.FormOperands(in.Form)[0].Kind == 'J'
	target := t.next + in.Imm
	if direct && !x86.Canonical(target) {
		return false
	}
	switch in.Op {
	case x86.OpJCC:
		if in.side {
			return t.sideExit()
		}
		if t.loop != nil {
			t.loopBranch()
			return true
		}
		t.compute()
		cc, target, next := in.ends(t.next)
		exact := t.fl.host && classExact[t.fl.class]&condFlags[cc>>1&7] == condFlags[cc>>1&7]
		if exact && !t.fl.mem {
			if t.fl.class == flagsAll || t.fl.class == flagsRotN {
				t.saveFlags()
			} else {
				a.bytes(0x41, 0x0f, 0x90|cc, 0xc3) // setcc r11b
				t.saveFlags()
				a.bytes(0x45, 0x84, 0xdb) // test r11b, r11b
				cc = ccNE
			}
		} else {
			t.saveFlags()
			cc = t.cond(cc)
		}
		if target == t.b.rip && t.loopOf() {
			t.branchBack(cc)
		} else {
			t.linkBy(target, func(l *label) { a.jcc(cc, l) })
		}
		t.link(next)
		return true
	case x86.OpJCXZ, x86.OpLOOP:
		if in.AddrSize != 8 {
			return false
		}
		t.saveFlags()
		cc := byte(ccE)
		if in.Op == x86.OpJCXZ {
			a.rr(ins{op: 0x85, size: 8}, hRCX, hRCX)
		} else {
			a.aluImm(5, 8, hRCX, 1)
			cc = ccNE
		}
		t.clobbered()
		t.linkBy(target, func(l *label) { a.jcc(cc, l) })
		t.link(t.next)
		return true
	case x86.OpRET:
		t.saveFlags()
		slow := t.slowExit()
		a.load(hRAX, t.guestStack(0, 8, false))
		j := t.lookup(slow)
		a.lea(hStack, at(hStack, 8+int32(in.Imm&0xffff)))
		a.extm(ins{op: 0xff, size: 4}, 4, j)
		return true
	case x86.OpJMP:
		if in.follow {
			return true
		}
		if direct && t.loop != nil {
			t.loopBranch()
			return true
		}
		if direct {
			t.saveFlags()
			t.goTo(target)
			return true
		}
		t.saveFlags()
		slow := t.slowExit()
		if !t.loadTarget() {
			return false
		}
		a.extm(ins{op: 0xff, size: 4}, 4, t.lookup(slow))
		return true
	case x86.OpCALL:
		t.saveFlags()
		if direct {
			m := t.guestStack(-8, 8, true)
			t.storeConst(m, t.next)
			a.lea(hStack, at(hStack, -8))
			t.link(target)
			return true
		}
		slow := t.slowExit()
		if !t.loadTarget() {
			return false
		}
		a.store(t.e.scratchAt(sTmp), hRAX)
		m := t.guestStack(-8, 8, true) // uses R11 only
		a.load(hRAX, t.e.scratchAt(sTmp))
		j := t.lookup(slow)
		t.storeConst(m, t.next)
		a.lea(hStack, at(hStack, -8))
		a.extm(ins{op: 0xff, size: 4}, 4, j)
		return true
	}
	return false
}

// ends returns the condition of the branch that ends a block, where it leads then, and where otherwise. next is behind it.
func (in *guestInst) ends(next uint64) (cc byte, target, other uint64) {
	cc, target = in.Opcode&15, next+in.Imm
	if in.turned {
		return cc ^ 1, next, target
	}
	return cc, target, next
}

// loadTarget loads the operand of an indirect jump into RAX.
func (t *translator) loadTarget() bool {
	if t.in.IsMem {
		m, ok := t.guest(t.in, 8, false, false)
		if !ok {
			return false
		}
		t.a.load(hRAX, m)
		return true
	}
	t.a.mov(hRAX, t.src(t.in.RM, hRAX))
	return true
}

// storeConst stores 8 bytes; it may use RAX.
func (t *translator) storeConst(m memop, v uint64) {
	if fits32(v) {
		t.a.extm(ins{op: 0xc7, size: 8}, 0, m)
		t.a.imm32(int32(v))
		return
	}
	t.a.movConst(hRAX, v)
	t.a.store(m, hRAX)
}
