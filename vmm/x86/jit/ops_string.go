//go:build linux && amd64

package jit

import (
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// repeat emits REP MOVS and REP STOS for runs that lie in one page, go upwards and fit
// the budget: the host's own instruction, on the host's addresses; and for those of no
// length, which kernels often have to copy behind the whole words. The rest is the interpreter's.
func (t *translator) repeat(size int) bool {
	a, in := &t.a, t.in
	if in.Prefix&(x86.PrefixRep|x86.PrefixRepne) == 0 || in.AddrSize != 8 || in.Seg != x86.SegFlat {
		return false
	}
	scale := map[int]uint8{1: 0, 2: 1, 4: 2, 8: 3}[size]
	slow, none := t.slowExit(), newLabel()
	a.rr(ins{op: 0x85, size: 8}, hRCX, hRCX) // test
	a.jcc(ccE, none)
	a.extm(ins{op: 0xf7, size: 4}, 0, at(hRSP, offRFLAGS)) // test
	a.imm32(x86.FlagDF)
	a.jcc(ccNE, slow)
	a.aluImm(7, 8, hRCX, mem.PageSize)
	a.jcc(ccA, slow)
	a.rm(ins{op: 0x3b, size: 8}, hRCX, budget)
	a.jcc(ccA, slow)
	translate := func(base int, write bool, addend int) {
		a.mov32(hR11, base)
		a.lea(hRAX, memop{base: base, index: hRCX, scale: scale, disp: -1})
		a.load(addend, t.lookUp(write, slow))
	}
	movs := in.Op == x86.OpMOVS
	if movs {
		translate(hRSI, false, hR10)
	}
	translate(hRDI, true, hR11)
	t.clobbered()
	// Each iteration counts one; the last is in the account already.
	a.aluImmMem(0, 8, budget, 1)
	a.rm(ins{op: 0x29, size: 8}, hRCX, budget)
	a.rr(ins{op: 0x03, size: 8}, hRDI, hR11)
	op := byte(0xaa)
	if movs {
		a.rr(ins{op: 0x03, size: 8}, hRSI, hR10)
		op = 0xa4
	} else {
		a.mov(hRAX, hostOf[x86.RAX])
	}
	a.bytes(0xf3)
	a.opcode(ins{op: uint32(op) | wide(size), size: size}, 0, 0, 0)
	a.rr(ins{op: 0x2b, size: 8}, hRDI, hR11)
	if movs {
		a.rr(ins{op: 0x2b, size: 8}, hRSI, hR10)
	}
	a.bind(none)
	return true
}
