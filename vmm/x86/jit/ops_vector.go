//go:build linux && amd64

package jit

import (
	"strings"

	"refault/vmm/x86"
)

// emitVector translates SSE and MMX instructions: the guest's vector registers are the host's,
// so an instruction between them stays what it is.
func (t *translator) emitVector() bool {
	a, in := &t.a, t.in
	if in.Op == x86.OpXSAVE || in.Op == x86.OpXRSTOR {
		return t.xsave(in.Op == x86.OpXSAVE)
	}
	need, last := t.needVectors, 15
	switch in.attr & (x86.IsSSE | x86.IsMMX) {
	case x86.IsSSE:
	case x86.IsMMX:
		need, last = t.needX87, 7
	default:
		return false
	}
	switch in.Op {
	case x86.OpLDMXCSR, x86.OpSTMXCSR:
		return t.mxcsr(in.Op == x86.OpSTMXCSR)
	case x86.OpVectorApprox:
		return t.approximate()
	case x86.OpMOVD, x86.OpMOVQ, x86.OpVector:
	case x86.OpMOVVec, x86.OpMOVScalar, x86.OpMOVLow, x86.OpMOVHigh,
		x86.OpVectorFP, x86.OpVectorFlags, x86.OpVectorFPFlags, x86.OpVectorImplicit, x86.OpVectorString:
		if in.attr&x86.IsMMX != 0 {
			return false // from or to XMM registers
		}
	default:
		return false
	}
	ops := x86.FormOperands(in.Form)
	i := ins{op: vectorOpcode(&in.Inst), pre: mandatoryPrefix(in.Form), size: 4}
	if in.Rex&8 != 0 {
		i.size = 8
	}
	imm := func() {
		if o := ops[len(ops)-1]; o.Kind == 'I' {
			a.bytes(byte(in.Imm))
		}
	}
	if ops[0].Kind == 'U' || ops[0].Kind == 'N' { // shifts by an immediate
		need()
		a.ext(i, int(in.ModRM>>3&7), int(in.RM)&last)
		imm()
		return true
	}
	var reg, rm x86.Operand
	for _, o := range ops {
		switch o.Kind {
		case 'V', 'P', 'G':
			reg = o
		case 'W', 'Q', 'U', 'N', 'E', 'M':
			rm = o
		}
	}
	if reg.Kind == 0 || rm.Kind == 0 {
		return false
	}
	store := ops[0].Kind == rm.Kind
	if in.IsMem && !simpleAddress(in) {
		return false
	}
	need()
	var m memop
	if in.IsMem {
		var ok bool
		if m, ok = t.guest(in, in.VectorSize(rm), store, in.attr&x86.Align16 != 0); !ok {
			return false
		}
	}
	if in.Op == x86.OpVectorString {
		a.mov(hRAX, hostOf[x86.RAX]) // a length; the other is RDX, and the result RCX
	}
	var w written
	r := int(in.Reg) & last
	if reg.Kind == 'G' {
		r, w = t.set(in.Reg, hRAX)
	}
	switch {
	case in.IsMem:
		a.rm(i, r, m)
	case rm.Kind != 'E':
		a.rr(i, r, int(in.RM)&last)
	case store:
		var g int
		g, w = t.set(in.RM, hRAX)
		a.rr(i, r, g)
	default:
		a.rr(i, r, t.src(in.RM, hRAX))
	}
	imm()
	t.bring(w)
	switch in.Op {
	case x86.OpVectorFlags, x86.OpVectorFPFlags, x86.OpVectorString:
		t.wrote(flagsAll)
	}
	return true
}

// mxcsr translates LDMXCSR and STMXCSR: the host's register is the guest's, while that masks all exceptions.
func (t *translator) mxcsr(store bool) bool {
	a, in := &t.a, t.in
	if !simpleAddress(in) {
		return false
	}
	t.needVectors()
	t.saveFlags()
	m, ok := t.guest(in, 4, store, false)
	if !ok {
		return false
	}
	if store {
		a.extm(ins{op: 0x0fae, size: 4}, 3, m)
		return true
	}
	const masked = 0x1f80
	slow := t.slowExit()
	a.rm(ins{op: 0x8b, size: 4}, hRAX, m)
	a.aluImm(4, 4, hRAX, masked|^x86.MXCSRMask)
	a.aluImm(7, 4, hRAX, masked)
	a.jcc(ccNE, slow)
	a.extm(ins{op: 0x0fae, size: 4}, 2, m)
	t.clobbered()
	return true
}

func vectorOpcode(in *x86.Inst) uint32 {
	switch x86.OpcodeMap(in.Form) {
	case 2:
		return 0x0f3800 | uint32(in.Opcode)
	case 3:
		return 0x0f3a00 | uint32(in.Opcode)
	}
	return 0x0f00 | uint32(in.Opcode)
}

func mandatoryPrefix(form uint16) byte {
	p, _, _ := strings.Cut(x86.Forms()[form].Enc, " ")
	switch p {
	case "66":
		return 0x66
	case "F2":
		return 0xf2
	case "F3":
		return 0xf3
	}
	return 0
}
