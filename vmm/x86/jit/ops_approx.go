//go:build linux && amd64

package jit

import "refault/vmm/x86"

// RCPPS, RSQRTPS and their scalar forms. Processors differ in them, so they are what the interpreter
// defines: the correctly rounded reciprocal, by way of double precision, cut to 12 bits. Here the same
// operations of the host compute it, in common code, for operands that nothing is special about. They
// change no flag of MXCSR, and its rounding does not matter to them.

// approxArea is the part of the tables for them.
type approxArea struct {
	in, out [16]byte
	saved   [3][16]byte // XMM0 to XMM2
	ones    [2]float64
	cut     [2]uint64 // the bits that stay
	mxcsr   uint32
}

const (
	approxIn    = 0
	approxOut   = 16
	approxSaved = 32
	approxOnes  = 80
	approxCut   = 96
	approxMXCSR = 112
)

func (a *approxArea) init() {
	a.ones = [2]float64{1, 1}
	a.cut = [2]uint64{0xfffff800_fffff800, 0xfffff800_fffff800}
}

// approxAt is a field of the area.
func (e *Engine) approxAt(field int32) memop {
	return at(hRSP, int32(e.layout.Engine)-bias+offApprox+field)
}

// approxOf is the index of the common code for an instruction.
func approxOf(root, scalar bool) int { return int(bit(root)<<1 | bit(scalar)) }

// emitApprox emits the common code. In: R10 is the exit to take for operands that are special, R11 where to go on.
func (e *Engine) emitApprox(a *asm, refused *label) {
	for _, root := range []bool{false, true} {
		for _, scalar := range []bool{false, true} {
			e.approx[approxOf(root, scalar)] = len(a.b)
			lanes := int32(4)
			if scalar {
				lanes = 1
			}
			for i := range lanes {
				// Positive if it is for a root, normal, and so that the reciprocal is.
				const least, most = 1 << 23, 253<<23 - 1
				a.rm(ins{op: 0x8b, size: 4}, hRAX, e.approxAt(approxIn+4*i))
				if !root {
					a.bytes(0x25) // and eax, …
					a.imm32(1<<31 - 1)
				}
				a.bytes(0x2d) // sub eax, …
				a.imm32(least)
				a.bytes(0x3d) // cmp eax, …
				a.imm32(most - least)
				a.jcc(ccA, refused)
			}
			a.extm(ins{op: 0x0fae, size: 4}, 3, e.approxAt(approxMXCSR)) // stmxcsr
			a.extm(ins{op: 0x0fae, size: 4}, 2, e.scratchAt(sHostMXCSR)) // ldmxcsr
			for i := range 3 {
				a.rm(ins{op: 0x0f11, size: 4}, i, e.approxAt(approxSaved+16*int32(i))) // movups
			}
			pair := func(x int, half int32) {
				a.rm(ins{op: 0x0f5a, size: 4}, 1, e.approxAt(approxIn+8*half)) // cvtps2pd xmm1
				if root {
					a.rr(ins{pre: 0x66, op: 0x0f51, size: 4}, 1, 1) // sqrtpd
				}
				a.rm(ins{op: 0x0f10, size: 4}, x, e.approxAt(approxOnes))
				a.rr(ins{pre: 0x66, op: 0x0f5e, size: 4}, x, 1) // divpd
				a.rr(ins{pre: 0x66, op: 0x0f5a, size: 4}, x, x) // cvtpd2ps
			}
			pair(0, 0)
			if !scalar {
				pair(2, 1)
				a.rr(ins{op: 0x0f16, size: 4}, 0, 2) // movlhps
			}
			a.rm(ins{op: 0x0f10, size: 4}, 1, e.approxAt(approxCut))
			a.rr(ins{op: 0x0f54, size: 4}, 0, 1) // andps
			a.rm(ins{op: 0x0f11, size: 4}, 0, e.approxAt(approxOut))
			for i := range 3 {
				a.rm(ins{op: 0x0f10, size: 4}, i, e.approxAt(approxSaved+16*int32(i)))
			}
			a.extm(ins{op: 0x0fae, size: 4}, 2, e.approxAt(approxMXCSR))
			a.bytes(0x41, 0xff, 0xe3) // jmp r11
		}
	}
}

// approximate translates them.
func (t *translator) approximate() bool {
	a, in, e := &t.a, t.in, t.e
	if in.IsMem && !simpleAddress(in) {
		return false
	}
	t.needVectors()
	t.saveFlags()
	t.slowExit()
	scalar := in.attr&x86.Align16 == 0
	switch {
	case !in.IsMem:
		a.rm(ins{op: 0x0f11, size: 4}, int(in.RM), e.approxAt(approxIn))
	case scalar:
		m, ok := t.guest(in, 4, false, false)
		if !ok {
			return false
		}
		a.rm(ins{op: 0x8b, size: 4}, hRAX, m)
		a.rm(ins{op: 0x89, size: 4}, hRAX, e.approxAt(approxIn))
	default:
		m, ok := t.guest(in, 16, false, true)
		if !ok {
			return false
		}
		a.load(hRAX, m)
		a.store(e.approxAt(approxIn), hRAX)
		m.disp += 8
		a.load(hRAX, m)
		a.store(e.approxAt(approxIn+8), hRAX)
	}
	back := newLabel()
	a.movConst(hR10, uint64(t.id))
	a.bytes(0x4c, 0x8d, 0x1d) // lea r11, [rip+…]
	a.ref(back)
	a.jmpTo(e.mem.addr(e.approx[approxOf(in.Opcode == 0x52, scalar)]))
	a.bind(back)
	if scalar {
		a.rm(ins{pre: 0x66, op: 0x0f3a22, size: 4}, int(in.Reg), e.approxAt(approxOut)) // pinsrd
		a.bytes(0)
	} else {
		a.rm(ins{op: 0x0f10, size: 4}, int(in.Reg), e.approxAt(approxOut))
	}
	t.clobbered()
	return true
}
