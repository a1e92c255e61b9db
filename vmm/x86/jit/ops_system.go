//go:build linux && amd64

package jit

import "refault/vmm/x86"

// emitSystem translates the system instructions that kernels use most. What depends on privilege
// is decided by the view that the block was translated for.
func (t *translator) emitSystem() bool {
	a, in := &t.a, t.in
	if t.b.mode == x86.ViewUser {
		return false
	}
	switch in.Op {
	case x86.OpCLI:
		t.saveFlags()
		a.aluImmMem(4, 4, at(hRSP, offRFLAGS), ^int32(x86.FlagIF))
		t.clobbered()
		return true
	case x86.OpSWAPGS:
		gs := at(hRSP, offSeg+segSize*x86.GS)
		a.load(hRAX, gs)
		a.load(hR10, at(hRSP, offKGS))
		a.store(gs, hR10)
		a.store(at(hRSP, offKGS), hRAX)
		return true
	case x86.OpPUSHF:
		if in.OpSize != 8 {
			return false
		}
		m := t.guestStack(-8, 8, true)
		const arith, hidden = x86.FlagsArith, x86.FlagVM | x86.FlagRF
		a.load(hRAX, at(hRSP, offRFLAGS))
		a.bytes(0x48, 0x25) // and rax, …
		a.imm32(^int32(arith | hidden))
		a.rm(ins{op: 0x0fb6, size: 4}, hR10, at(hRSP, offFlags+1))
		a.aluImm(4, 4, hR10, arith&0xff)
		a.rr(ins{op: 0x0b, size: 8}, hRAX, hR10)
		a.rm(ins{op: 0x0fb6, size: 4}, hR10, at(hRSP, offFlags))
		a.bytes(0x41, 0xc1, 0xe2, 11) // shl r10d, 11
		a.rr(ins{op: 0x0b, size: 8}, hRAX, hR10)
		a.store(m, hRAX)
		a.lea(hStack, at(hStack, -8))
		return true
	}
	return false
}
