//go:build linux && amd64

package jit

import "refault/vmm/x86"

// XSAVE64 and XRSTOR64 of all that there is, as a kernel executes them when it switches between tasks.
// The State is in the same layout, so they are copies. What is not simple (another mask, a state in
// its initial configuration, exceptions that are not masked, the x87 unit in use) is the interpreter's.

const (
	xsaveBytes = 576 // with the header, and nothing behind it
	xsaveAll   = 3   // x87 and SSE
	xsaveBV    = 512
)

// xsave translates them.
func (t *translator) xsave(store bool) bool {
	a, in, e := &t.a, t.in, t.e
	if in.Rex&8 == 0 || !simpleAddress(in) || t.x87 {
		return false
	}
	t.saveFlags()
	slow := t.slowExit()
	test := func(m memop, bits int32) {
		a.extm(ins{op: 0xf7, size: 4}, 0, m)
		a.imm32(bits)
	}
	test(at(hRSP, offCR4), x86.CR4OSXSAVE)
	a.jcc(ccE, slow)
	test(at(hRSP, offCR0), x86.CR0TS)
	a.jcc(ccNE, slow)
	a.aluImmMem(7, 1, at(hRSP, offX87), 0)
	a.jcc(ccNE, slow)
	a.rm(ins{op: 0x8b, size: 4}, hRAX, at(hRSP, offXCR0))
	a.rr(ins{op: 0x23, size: 4}, hRAX, hostOf[x86.RAX])
	a.aluImm(7, 4, hRAX, xsaveAll)
	a.jcc(ccNE, slow)
	m, ok := t.guest(in, xsaveBytes, store, false)
	if !ok {
		return false
	}
	a.lea(hR10, m)
	a.ext(ins{op: 0xf6, size: 1, rex: true}, 0, hR10) // test r10b, 63
	a.bytes(63)
	a.jcc(ccNE, slow)
	common := e.xsaveAt
	if !store {
		common = e.xrstorAt
		a.extm(ins{op: 0x81, size: 8}, 7, at(hR10, xsaveBV)) // cmp
		a.imm32(xsaveAll)
		a.jcc(ccNE, slow)
		a.load(hRAX, at(hR10, xsaveBV+8))
		a.rm(ins{op: 0x0b, size: 8}, hRAX, at(hR10, xsaveBV+16))
		a.jcc(ccNE, slow)
		masked := func(off, masks, others int32) {
			a.rm(ins{op: 0x8b, size: 4}, hRAX, at(hR10, off))
			a.aluImm(4, 4, hRAX, masks|others)
			a.aluImm(7, 4, hRAX, masks)
			a.jcc(ccNE, slow)
		}
		masked(fxCSR, 0x1f80, ^x86.MXCSRMask)
		masked(fxFCW, fcwMasks, 0)
	}
	back := newLabel()
	a.bytes(0x4c, 0x8d, 0x1d) // lea r11, [rip+…]
	a.ref(back)
	a.jmpTo(e.mem.addr(common))
	a.bind(back)
	t.clobbered()
	if !store {
		t.sse = false
	}
	return true
}

// emitXSAVE emits the common code: R10 is the area, R11 where to go on. It uses RAX.
func (e *Engine) emitXSAVE(a *asm) {
	area := func(off int32) memop { return at(hR10, off) }
	state := func(off int32) memop { return at(hRSP, offFX+off) }
	copy8 := func(to, from memop) {
		a.load(hRAX, from)
		a.store(to, hRAX)
	}
	resume := func() { a.bytes(0x41, 0xff, 0xe3) } // jmp r11

	e.xsaveAt = len(a.b)
	unloaded, header := newLabel(), newLabel()
	for off := int32(0); off < fxCSR; off += 8 {
		copy8(area(off), state(off))
	}
	a.aluImmMem(7, 1, at(hRSP, offXMM), 0)
	a.jcc(ccE, unloaded)
	for off := int32(fxST); off < fxXMM; off += 8 {
		copy8(area(off), state(off))
	}
	for i := range 16 {
		a.rm(ins{op: 0x0f11, size: 4}, i, area(fxXMM+16*int32(i))) // movups
	}
	a.extm(ins{op: 0x0fae, size: 4}, 3, area(fxCSR)) // stmxcsr
	a.jmp(header)
	a.bind(unloaded) // the host's vector registers are nobody's
	for off := int32(fxST); off < fxXMM+16*16; off += 16 {
		a.rm(ins{op: 0x0f10, size: 4}, 0, state(off))
		a.rm(ins{op: 0x0f11, size: 4}, 0, area(off))
	}
	a.rm(ins{op: 0x8b, size: 4}, hRAX, state(fxCSR))
	a.rm(ins{op: 0x89, size: 4}, hRAX, area(fxCSR))
	a.bind(header)
	a.storeImm32(area(fxCSR+4), x86.MXCSRMask)
	a.aluImmMem(1, 8, area(xsaveBV), xsaveAll)
	resume()

	e.xrstorAt = len(a.b)
	const inUse = 0x40 // bit 6 of the control word reads as one
	a.rm(ins{op: 0x8b, size: 4}, hRAX, area(fxFCW))
	a.aluImm(4, 4, hRAX, 0x7f7f1f3f) // without what is reserved, and ES and B of the status word
	a.aluImm(1, 4, hRAX, inUse)
	a.rm(ins{op: 0x89, size: 4}, hRAX, state(fxFCW))
	a.rm(ins{op: 0x8b, size: 4}, hRAX, area(fxFTW))
	a.aluImm(4, 4, hRAX, ^int32(0xff00))
	a.rm(ins{op: 0x89, size: 4}, hRAX, state(fxFTW))
	copy8(state(fxFIP), area(fxFIP))
	copy8(state(fxFIP+8), area(fxFIP+8))
	for off := int32(fxST); off < fxXMM; off += 16 {
		copy8(state(off), area(off))
		a.rm(ins{op: 0x0fb7, size: 4}, hRAX, area(off+8))
		a.store(state(off+8), hRAX)
	}
	for off := int32(fxXMM); off < fxXMM+16*16; off += 16 {
		a.rm(ins{op: 0x0f10, size: 4}, 0, area(off))
		a.rm(ins{op: 0x0f11, size: 4}, 0, state(off))
	}
	a.rm(ins{op: 0x8b, size: 4}, hRAX, area(fxCSR))
	a.rm(ins{op: 0x89, size: 4}, hRAX, state(fxCSR))
	a.extm(ins{op: 0x0fae, size: 4}, 2, e.scratchAt(sHostMXCSR))
	a.storeImm8(at(hRSP, offXMM), 0)
	resume()
}
