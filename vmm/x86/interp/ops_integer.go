package interp

import (
	"hash/crc32"
	"math/bits"

	"refault/vmm/x86"
)

// integerOps binds the general-purpose instructions, except string ones.
var integerOps = map[x86.Op]selector{
	x86.OpADD: selectALU, x86.OpOR: selectALU, x86.OpADC: selectALU, x86.OpSBB: selectALU,
	x86.OpAND: selectALU, x86.OpSUB: selectALU, x86.OpXOR: selectALU, x86.OpCMP: selectALU, x86.OpTEST: selectALU,
	x86.OpROL: selectShift, x86.OpROR: selectShift, x86.OpRCL: selectShift, x86.OpRCR: selectShift,
	x86.OpSHL: selectShift, x86.OpSHR: selectShift, x86.OpSAL: selectShift, x86.OpSAR: selectShift,
	x86.OpINC: selectIncDec, x86.OpDEC: selectIncDec,
	x86.OpNOT:   always(not),
	x86.OpNEG:   always(neg),
	x86.OpMUL:   always(mul),
	x86.OpIMUL1: always(imul1),
	x86.OpIMUL2: always(imul2),
	x86.OpIMUL3: always(imul3),
	x86.OpDIV:   always(div),
	x86.OpIDIV:  always(idiv),
	x86.OpSHLD:  selectShiftDouble, x86.OpSHRD: selectShiftDouble,
	x86.OpBT: selectBitTest, x86.OpBTS: selectBitTest, x86.OpBTR: selectBitTest, x86.OpBTC: selectBitTest,
	x86.OpBSF: always(bsf), x86.OpBSR: always(bsr), x86.OpBSWAP: always(bswap),
	x86.OpPOPCNT: always(popcnt), x86.OpCRC32: always(crc),
	x86.OpMOV: selectMov, x86.OpMOVNTI: always(movnti),
	x86.OpMOVZX8: selectMovzx8, x86.OpMOVZX16: always(movzx16),
	x86.OpMOVSX8: always(movsx8), x86.OpMOVSX16: always(movsx16), x86.OpMOVSXD: always(movsxd),
	x86.OpLEA: selectLea, x86.OpXCHG: selectXchg, x86.OpXADD: always(xadd), x86.OpCMPXCHG: always(cmpxchg),
	x86.OpCMPXCHG8B: always(cmpxchg8b), x86.OpCMPXCHG16B: always(cmpxchg16b),
	x86.OpPUSH: selectPush, x86.OpPOP: selectPop, x86.OpPUSHA: always(pusha), x86.OpPOPA: always(popa),
	x86.OpENTER: always(enter), x86.OpLEAVE: always(leave),
	x86.OpJCC: selectJcc, x86.OpJMP: selectJmp, x86.OpCALL: selectCall, x86.OpRET: always(ret),
	x86.OpLOOPNE: always(loop), x86.OpLOOPE: always(loop), x86.OpLOOP: always(loop), x86.OpJCXZ: always(jcxz),
	x86.OpSETCC: always(setcc), x86.OpCMOVCC: always(cmovcc),
	x86.OpCBW: always(cbw), x86.OpCWD: always(cwd),
	x86.OpDAA: always(daa), x86.OpDAS: always(das), x86.OpAAA: always(aaa), x86.OpAAS: always(aas),
	x86.OpAAM: always(aam), x86.OpAAD: always(aad),
	x86.OpLAHF: always(lahf), x86.OpSAHF: always(sahf),
	x86.OpCLC:  always(func(c *x86.CPU, _ *x86.Inst) { c.SetArith(c.Flags() &^ x86.FlagCF) }),
	x86.OpSTC:  always(func(c *x86.CPU, _ *x86.Inst) { c.SetArith(c.Flags() | x86.FlagCF) }),
	x86.OpCMC:  always(func(c *x86.CPU, _ *x86.Inst) { c.SetArith(c.Flags() ^ x86.FlagCF) }),
	x86.OpCLD:  always(func(c *x86.CPU, _ *x86.Inst) { c.RFLAGS &^= x86.FlagDF }),
	x86.OpSTD:  always(func(c *x86.CPU, _ *x86.Inst) { c.RFLAGS |= x86.FlagDF }),
	x86.OpXLAT: always(xlat), x86.OpBOUND: always(bound),
	x86.OpNOP: always(nop), x86.OpFENCE: always(nop), x86.OpUD: always(undefined),
}

func nop(*x86.CPU, *x86.Inst) {}

// sizeMask returns the mask of an operand of size bytes.
func sizeMask(size int) uint64 { return 1<<(8*uint(size)-1)<<1 - 1 }

func signExtend(v uint64, size int) uint64 {
	n := uint(64-8*size) & 63
	return uint64(int64(v<<n) >> n)
}

// alu computes a op b on size bytes and sets the flags. The result may have garbage above its size.
func alu(c *x86.CPU, op x86.Op, a, b uint64, size int) (r uint64) {
	switch op {
	case x86.OpADD:
		r = a + b
		c.SetFlagsAdd(a, b, r, size)
	case x86.OpADC:
		r = a + b + c.CF()
		c.SetFlagsAdd(a, b, r, size)
	case x86.OpSBB:
		r = a - b - c.CF()
		c.SetFlagsSub(a, b, r, size)
	case x86.OpSUB, x86.OpCMP:
		r = a - b
		c.SetFlagsSub(a, b, r, size)
	case x86.OpOR:
		r = a | b
		c.SetFlagsLogic(r, size)
	case x86.OpAND, x86.OpTEST:
		r = a & b
		c.SetFlagsLogic(r, size)
	case x86.OpXOR:
		r = a ^ b
		c.SetFlagsLogic(r, size)
	}
	return r
}

func keepsDest(op x86.Op) bool { return op == x86.OpCMP || op == x86.OpTEST }

// selectALU picks by the operands: E,G E,I G,E a,I.
func selectALU(in *x86.Inst) x86.Handler {
	ops := x86.FormOperands(in.Form)
	switch {
	case ops[0].Kind == 'a':
		in.RM, in.IsMem = x86.RAX, false
		in.Imm &= sizeMask(int(in.OpSize))
		return aluRegImm(in)
	case ops[1].Kind == 'I':
		in.Imm &= sizeMask(int(in.OpSize))
		if in.IsMem {
			if keepsDest(in.Op) {
				return cmpMemImm
			}
			return aluMemImm
		}
		return aluRegImm(in)
	case ops[0].Kind == 'G':
		if in.IsMem {
			return aluRegMem
		}
		in.Reg, in.RM = in.RM, in.Reg // E,G with the same registers
		return aluRegReg(in)
	case in.IsMem:
		if keepsDest(in.Op) {
			return cmpMemReg
		}
		return aluMemReg
	}
	return aluRegReg(in)
}

func aluRegReg(in *x86.Inst) x86.Handler {
	switch {
	case in.OpSize == 8:
		switch in.Op {
		case x86.OpADD:
			return func(c *x86.CPU, in *x86.Inst) {
				a, b := c.Regs[in.RM], c.Regs[in.Reg]
				r := a + b
				c.SetFlagsAdd(a, b, r, 8)
				c.Regs[in.RM] = r
			}
		case x86.OpSUB:
			return func(c *x86.CPU, in *x86.Inst) {
				a, b := c.Regs[in.RM], c.Regs[in.Reg]
				r := a - b
				c.SetFlagsSub(a, b, r, 8)
				c.Regs[in.RM] = r
			}
		case x86.OpCMP:
			return func(c *x86.CPU, in *x86.Inst) {
				a, b := c.Regs[in.RM], c.Regs[in.Reg]
				c.SetFlagsSub(a, b, a-b, 8)
			}
		case x86.OpTEST:
			return func(c *x86.CPU, in *x86.Inst) { c.SetFlagsLogic(c.Regs[in.RM]&c.Regs[in.Reg], 8) }
		case x86.OpXOR:
			return func(c *x86.CPU, in *x86.Inst) {
				r := c.Regs[in.RM] ^ c.Regs[in.Reg]
				c.SetFlagsLogic(r, 8)
				c.Regs[in.RM] = r
			}
		}
	case in.OpSize == 4:
		switch in.Op {
		case x86.OpADD:
			return func(c *x86.CPU, in *x86.Inst) {
				a, b := c.Regs[in.RM], c.Regs[in.Reg]
				r := a + b
				c.SetFlagsAdd(a, b, r, 4)
				c.Regs[in.RM] = uint64(uint32(r))
			}
		case x86.OpCMP:
			return func(c *x86.CPU, in *x86.Inst) {
				a, b := c.Regs[in.RM], c.Regs[in.Reg]
				c.SetFlagsSub(a, b, a-b, 4)
			}
		case x86.OpTEST:
			return func(c *x86.CPU, in *x86.Inst) { c.SetFlagsLogic(c.Regs[in.RM]&c.Regs[in.Reg], 4) }
		case x86.OpXOR:
			return func(c *x86.CPU, in *x86.Inst) {
				r := uint64(uint32(c.Regs[in.RM] ^ c.Regs[in.Reg]))
				c.SetFlagsLogic(r, 4)
				c.Regs[in.RM] = r
			}
		}
	}
	if keepsDest(in.Op) {
		return func(c *x86.CPU, in *x86.Inst) {
			n := int(in.OpSize)
			alu(c, in.Op, c.GetReg(in.RM, n), c.GetReg(in.Reg, n), n)
		}
	}
	return func(c *x86.CPU, in *x86.Inst) {
		n := int(in.OpSize)
		c.SetReg(in.RM, alu(c, in.Op, c.GetReg(in.RM, n), c.GetReg(in.Reg, n), n), n)
	}
}

func aluRegImm(in *x86.Inst) x86.Handler {
	switch {
	case in.OpSize == 8:
		switch in.Op {
		case x86.OpADD:
			return func(c *x86.CPU, in *x86.Inst) {
				a := c.Regs[in.RM]
				r := a + in.Imm
				c.SetFlagsAdd(a, in.Imm, r, 8)
				c.Regs[in.RM] = r
			}
		case x86.OpSUB:
			return func(c *x86.CPU, in *x86.Inst) {
				a := c.Regs[in.RM]
				r := a - in.Imm
				c.SetFlagsSub(a, in.Imm, r, 8)
				c.Regs[in.RM] = r
			}
		case x86.OpCMP:
			return func(c *x86.CPU, in *x86.Inst) {
				a := c.Regs[in.RM]
				c.SetFlagsSub(a, in.Imm, a-in.Imm, 8)
			}
		case x86.OpAND:
			return func(c *x86.CPU, in *x86.Inst) {
				r := c.Regs[in.RM] & in.Imm
				c.SetFlagsLogic(r, 8)
				c.Regs[in.RM] = r
			}
		}
	case in.OpSize == 4:
		switch in.Op {
		case x86.OpADD:
			return func(c *x86.CPU, in *x86.Inst) {
				a := c.Regs[in.RM]
				r := a + in.Imm
				c.SetFlagsAdd(a, in.Imm, r, 4)
				c.Regs[in.RM] = uint64(uint32(r))
			}
		case x86.OpCMP:
			return func(c *x86.CPU, in *x86.Inst) {
				a := c.Regs[in.RM]
				c.SetFlagsSub(a, in.Imm, a-in.Imm, 4)
			}
		case x86.OpAND:
			return func(c *x86.CPU, in *x86.Inst) {
				r := uint64(uint32(c.Regs[in.RM] & in.Imm))
				c.SetFlagsLogic(r, 4)
				c.Regs[in.RM] = r
			}
		}
	}
	if keepsDest(in.Op) {
		return func(c *x86.CPU, in *x86.Inst) {
			n := int(in.OpSize)
			alu(c, in.Op, c.GetReg(in.RM, n), in.Imm, n)
		}
	}
	return func(c *x86.CPU, in *x86.Inst) {
		n := int(in.OpSize)
		c.SetReg(in.RM, alu(c, in.Op, c.GetReg(in.RM, n), in.Imm, n), n)
	}
}

func aluRegMem(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	b := c.Load(c.AddrR(in, n), n)
	r := alu(c, in.Op, c.GetReg(in.Reg, n), b, n)
	if !keepsDest(in.Op) {
		c.SetReg(in.Reg, r, n)
	}
}

func aluMemReg(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	va := c.AddrW(in, n)
	a := c.LoadRMW(va, n)
	c.Store(va, alu(c, in.Op, a, c.GetReg(in.Reg, n), n), n)
}

func aluMemImm(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	va := c.AddrW(in, n)
	a := c.LoadRMW(va, n)
	c.Store(va, alu(c, in.Op, a, in.Imm, n), n)
}

func cmpMemReg(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	a := c.Load(c.AddrR(in, n), n)
	alu(c, in.Op, a, c.GetReg(in.Reg, n), n)
}

func cmpMemImm(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	a := c.Load(c.AddrR(in, n), n)
	alu(c, in.Op, a, in.Imm, n)
}

// modify reads the r/m operand, applies f and writes it back. f sets the flags.
func modify(c *x86.CPU, in *x86.Inst, f func(v uint64, size int) uint64) {
	n := int(in.OpSize)
	if in.IsMem {
		va := c.AddrW(in, n)
		c.Store(va, f(c.LoadRMW(va, n), n), n)
		return
	}
	c.SetReg(in.RM, f(c.GetReg(in.RM, n), n), n)
}

func selectIncDec(in *x86.Inst) x86.Handler {
	if x86.FormOperands(in.Form)[0].Kind == 'Z' {
		in.RM = in.Reg
	}
	return incDec
}

// incDec keeps CF.
func incDec(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	cf := c.CF()
	var va, v, r uint64
	if in.IsMem {
		va = c.AddrW(in, n)
		v = c.LoadRMW(va, n)
	} else {
		v = c.GetReg(in.RM, n)
	}
	if in.Op == x86.OpINC {
		r = v + 1
		c.SetFlagsAdd(v, 1, r, n)
	} else {
		r = v - 1
		c.SetFlagsSub(v, 1, r, n)
	}
	c.KeepCF(cf)
	if in.IsMem {
		c.Store(va, r, n)
	} else {
		c.SetReg(in.RM, r, n)
	}
}

func not(c *x86.CPU, in *x86.Inst) {
	modify(c, in, func(v uint64, _ int) uint64 { return ^v })
}

func neg(c *x86.CPU, in *x86.Inst) {
	modify(c, in, func(v uint64, n int) uint64 {
		c.SetFlagsSub(0, v, -v, n)
		return -v
	})
}

// Multiplication sets CF and OF alike and leaves SF, ZF, AF and PF undefined: ours are cleared.
func setMulFlags(c *x86.CPU, overflow bool) {
	if overflow {
		c.SetArith(x86.FlagCF | x86.FlagOF)
	} else {
		c.SetArith(0)
	}
}

func mul(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	v := c.ReadRM(in, n)
	switch n {
	case 1:
		r := c.Regs[x86.RAX] & 0xff * v
		c.SetReg(x86.RAX, r, 2)
		setMulFlags(c, r>>8 != 0)
	case 8:
		hi, lo := bits.Mul64(c.Regs[x86.RAX], v)
		c.Regs[x86.RAX], c.Regs[x86.RDX] = lo, hi
		setMulFlags(c, hi != 0)
	default:
		r := c.GetReg(x86.RAX, n) * v
		c.SetReg(x86.RAX, r, n)
		c.SetReg(x86.RDX, r>>(8*uint(n)), n)
		setMulFlags(c, r>>(8*uint(n)) != 0)
	}
}

// mulSigned returns the product of two signed numbers as high and low halves.
func mulSigned(a, b uint64) (hi, lo uint64) {
	hi, lo = bits.Mul64(a, b)
	if int64(a) < 0 {
		hi -= b
	}
	if int64(b) < 0 {
		hi -= a
	}
	return hi, lo
}

func imul1(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	v := signExtend(c.ReadRM(in, n), n)
	switch n {
	case 1:
		r := signExtend(c.Regs[x86.RAX], 1) * v
		c.SetReg(x86.RAX, r, 2)
		setMulFlags(c, signExtend(r, 1) != r)
	case 8:
		hi, lo := mulSigned(c.Regs[x86.RAX], v)
		c.Regs[x86.RAX], c.Regs[x86.RDX] = lo, hi
		setMulFlags(c, hi != uint64(int64(lo)>>63))
	default:
		r := signExtend(c.Regs[x86.RAX], n) * v
		c.SetReg(x86.RAX, r, n)
		c.SetReg(x86.RDX, r>>(8*uint(n)), n)
		setMulFlags(c, signExtend(r, n) != r)
	}
}

func imulTo(c *x86.CPU, reg uint8, a, b uint64, n int) {
	hi, lo := mulSigned(signExtend(a, n), signExtend(b, n))
	c.SetReg(reg, lo, n)
	r := signExtend(lo, n)
	setMulFlags(c, r != lo || hi != uint64(int64(lo)>>63))
}

func imul2(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	imulTo(c, in.Reg, c.GetReg(in.Reg, n), c.ReadRM(in, n), n)
}

func imul3(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	imulTo(c, in.Reg, c.ReadRM(in, n), in.Imm, n)
}

// Division leaves all flags undefined: ours are cleared.
func div(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	d := c.ReadRM(in, n)
	if d == 0 {
		c.Raise(x86.VecDE)
	}
	var q, r uint64
	switch n {
	case 1:
		a := c.Regs[x86.RAX] & 0xffff
		q, r = a/d, a%d
		if q > 0xff {
			c.Raise(x86.VecDE)
		}
		c.SetReg(x86.RAX, r<<8|q, 2)
	case 8:
		if c.Regs[x86.RDX] >= d {
			c.Raise(x86.VecDE)
		}
		c.Regs[x86.RAX], c.Regs[x86.RDX] = bits.Div64(c.Regs[x86.RDX], c.Regs[x86.RAX], d)
	default:
		a := c.GetReg(x86.RDX, n)<<(8*uint(n)) | c.GetReg(x86.RAX, n)
		q, r = a/d, a%d
		if q > sizeMask(n) {
			c.Raise(x86.VecDE)
		}
		c.SetReg(x86.RAX, q, n)
		c.SetReg(x86.RDX, r, n)
	}
	c.SetArith(0)
}

func idiv(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	d := int64(signExtend(c.ReadRM(in, n), n))
	if d == 0 {
		c.Raise(x86.VecDE)
	}
	if n == 8 {
		idiv128(c, d)
		return
	}
	var a int64
	if n == 1 {
		a = int64(int16(c.Regs[x86.RAX]))
	} else {
		a = int64(signExtend(c.GetReg(x86.RDX, n)<<(8*uint(n))|c.GetReg(x86.RAX, n), 2*n))
	}
	if d == -1 && a == -1<<63 {
		c.Raise(x86.VecDE)
	}
	q, r := a/d, a%d
	if int64(signExtend(uint64(q), n)) != q {
		c.Raise(x86.VecDE)
	}
	if n == 1 {
		c.SetReg(x86.RAX, uint64(r)&0xff<<8|uint64(q)&0xff, 2)
	} else {
		c.SetReg(x86.RAX, uint64(q), n)
		c.SetReg(x86.RDX, uint64(r), n)
	}
	c.SetArith(0)
}

func idiv128(c *x86.CPU, d int64) {
	hi, lo := c.Regs[x86.RDX], c.Regs[x86.RAX]
	negA, negD := int64(hi) < 0, d < 0
	if negA {
		var b uint64
		lo, b = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, b)
	}
	ud := uint64(d)
	if negD {
		ud = -ud
	}
	if hi >= ud {
		c.Raise(x86.VecDE)
	}
	q, r := bits.Div64(hi, lo, ud)
	if negA != negD {
		if q > 1<<63 {
			c.Raise(x86.VecDE)
		}
		q = -q
	} else if q > 1<<63-1 {
		c.Raise(x86.VecDE)
	}
	if negA {
		r = -r
	}
	c.Regs[x86.RAX], c.Regs[x86.RDX] = q, r
	c.SetArith(0)
}

func bsf(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	if v := c.ReadRM(in, n); v != 0 {
		c.SetReg(in.Reg, uint64(bits.TrailingZeros64(v)), n)
		c.SetArith(0)
		return
	}
	c.SetArith(x86.FlagZF) // the destination stays
}

func bsr(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	if v := c.ReadRM(in, n); v != 0 {
		c.SetReg(in.Reg, uint64(63-bits.LeadingZeros64(v)), n)
		c.SetArith(0)
		return
	}
	c.SetArith(x86.FlagZF)
}

func bswap(c *x86.CPU, in *x86.Inst) {
	switch in.OpSize {
	case 8:
		c.Regs[in.Reg] = bits.ReverseBytes64(c.Regs[in.Reg])
	case 4:
		c.Regs[in.Reg] = uint64(bits.ReverseBytes32(uint32(c.Regs[in.Reg])))
	default:
		c.SetReg(in.Reg, 0, 2) // undefined (SDM Vol. 2A, BSWAP): what processors do
	}
}

func popcnt(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	v := uint64(bits.OnesCount64(c.ReadRM(in, n)))
	c.SetReg(in.Reg, v, n)
	if v == 0 {
		c.SetArith(x86.FlagZF)
	} else {
		c.SetArith(0)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	if in.Opcode == 0xf0 {
		n = 1
	}
	v := c.ReadRM(in, n)
	sum := ^uint32(c.Regs[in.Reg])
	var b [1]byte
	for range n {
		b[0] = byte(v)
		sum = crc32.Update(sum, castagnoli, b[:])
		v >>= 8
	}
	c.Regs[in.Reg] = uint64(^sum)
}

func selectMov(in *x86.Inst) x86.Handler {
	ops := x86.FormOperands(in.Form)
	d, s := ops[0].Kind, ops[1].Kind
	if d == 'a' {
		in.Reg = x86.RAX
		d = 'G'
	}
	if s == 'a' {
		in.Reg = x86.RAX
		s = 'G'
	}
	switch {
	case d == 'Z':
		in.Imm &= sizeMask(int(in.OpSize))
		if in.OpSize >= 4 {
			return func(c *x86.CPU, in *x86.Inst) { c.Regs[in.Reg] = in.Imm }
		}
		return func(c *x86.CPU, in *x86.Inst) { c.SetReg(in.Reg, in.Imm, int(in.OpSize)) }
	case s == 'I' && in.IsMem:
		return func(c *x86.CPU, in *x86.Inst) {
			n := int(in.OpSize)
			c.Store(c.AddrW(in, n), in.Imm, n)
		}
	case s == 'I':
		return func(c *x86.CPU, in *x86.Inst) { c.SetReg(in.RM, in.Imm, int(in.OpSize)) }
	case in.IsMem && d == 'G':
		switch in.OpSize {
		case 8:
			return func(c *x86.CPU, in *x86.Inst) { c.Regs[in.Reg] = c.Load64(c.AddrR(in, 8)) }
		case 4:
			return func(c *x86.CPU, in *x86.Inst) { c.Regs[in.Reg] = uint64(c.Load32(c.AddrR(in, 4))) }
		}
		return func(c *x86.CPU, in *x86.Inst) {
			n := int(in.OpSize)
			c.SetReg(in.Reg, c.Load(c.AddrR(in, n), n), n)
		}
	case in.IsMem:
		switch in.OpSize {
		case 8:
			return func(c *x86.CPU, in *x86.Inst) { c.Store64(c.AddrW(in, 8), c.Regs[in.Reg]) }
		case 4:
			return func(c *x86.CPU, in *x86.Inst) { c.Store32(c.AddrW(in, 4), uint32(c.Regs[in.Reg])) }
		}
		return func(c *x86.CPU, in *x86.Inst) {
			n := int(in.OpSize)
			c.Store(c.AddrW(in, n), c.GetReg(in.Reg, n), n)
		}
	}
	if d == 'G' {
		in.Reg, in.RM = in.RM, in.Reg
	}
	switch in.OpSize {
	case 8:
		return func(c *x86.CPU, in *x86.Inst) { c.Regs[in.RM] = c.Regs[in.Reg] }
	case 4:
		return func(c *x86.CPU, in *x86.Inst) { c.Regs[in.RM] = uint64(uint32(c.Regs[in.Reg])) }
	}
	return func(c *x86.CPU, in *x86.Inst) {
		n := int(in.OpSize)
		c.SetReg(in.RM, c.GetReg(in.Reg, n), n)
	}
}

func movnti(c *x86.CPU, in *x86.Inst) {
	n := max(4, int(in.OpSize))
	c.Store(c.AddrW(in, n), c.GetReg(in.Reg, n), n)
}

func selectMovzx8(in *x86.Inst) x86.Handler {
	if in.IsMem && in.OpSize >= 4 {
		return func(c *x86.CPU, in *x86.Inst) { c.Regs[in.Reg] = uint64(c.Load8(c.AddrR(in, 1))) }
	}
	return func(c *x86.CPU, in *x86.Inst) { c.SetReg(in.Reg, c.ReadRM(in, 1), int(in.OpSize)) }
}

func movzx16(c *x86.CPU, in *x86.Inst) { c.SetReg(in.Reg, c.ReadRM(in, 2), int(in.OpSize)) }
func movsx8(c *x86.CPU, in *x86.Inst) {
	c.SetReg(in.Reg, signExtend(c.ReadRM(in, 1), 1), int(in.OpSize))
}
func movsx16(c *x86.CPU, in *x86.Inst) {
	c.SetReg(in.Reg, signExtend(c.ReadRM(in, 2), 2), int(in.OpSize))
}
func movsxd(c *x86.CPU, in *x86.Inst) {
	n := min(int(in.OpSize), 4)
	c.SetReg(in.Reg, signExtend(c.ReadRM(in, n), n), int(in.OpSize))
}

func selectLea(in *x86.Inst) x86.Handler {
	if in.OpSize == 8 && in.AddrSize == 8 {
		return func(c *x86.CPU, in *x86.Inst) {
			c.Regs[in.Reg] = c.Regs[in.Base] + c.Regs[in.Index]<<(in.Scale&3) + in.Disp
		}
	}
	return func(c *x86.CPU, in *x86.Inst) { c.SetReg(in.Reg, c.Offset(in), int(in.OpSize)) }
}

func selectXchg(in *x86.Inst) x86.Handler {
	if x86.FormOperands(in.Form)[0].Kind == 'Z' {
		in.RM = x86.RAX
		if in.Reg == x86.RAX {
			return nop
		}
	}
	return xchg
}

func xchg(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	r := c.GetReg(in.Reg, n)
	if in.IsMem {
		va := c.AddrW(in, n)
		v := c.LoadRMW(va, n)
		c.Store(va, r, n)
		c.SetReg(in.Reg, v, n)
		return
	}
	v := c.GetReg(in.RM, n)
	c.SetReg(in.RM, r, n)
	c.SetReg(in.Reg, v, n)
}

func xadd(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	b := c.GetReg(in.Reg, n)
	if in.IsMem {
		va := c.AddrW(in, n)
		a := c.LoadRMW(va, n)
		c.Store(va, alu(c, x86.OpADD, a, b, n), n)
		c.SetReg(in.Reg, a, n)
		return
	}
	a := c.GetReg(in.RM, n)
	r := alu(c, x86.OpADD, a, b, n)
	c.SetReg(in.Reg, a, n)
	c.SetReg(in.RM, r, n)
}

func cmpxchg(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	acc := c.GetReg(x86.RAX, n)
	var va, old uint64
	if in.IsMem {
		va = c.AddrW(in, n)
		old = c.LoadRMW(va, n)
	} else {
		old = c.GetReg(in.RM, n)
	}
	alu(c, x86.OpCMP, acc, old, n)
	if acc != old {
		if in.IsMem {
			c.Store(va, old, n) // the processor writes the old value back; a register stays whole
		}
		c.SetReg(x86.RAX, old, n)
		return
	}
	if in.IsMem {
		c.Store(va, c.GetReg(in.Reg, n), n)
	} else {
		c.SetReg(in.RM, c.GetReg(in.Reg, n), n)
	}
}

func setZF(c *x86.CPU, z bool) {
	f := c.Flags() &^ x86.FlagZF
	if z {
		f |= x86.FlagZF
	}
	c.SetArith(f)
}

func cmpxchg8b(c *x86.CPU, in *x86.Inst) {
	va := c.AddrW(in, 8)
	old := c.LoadRMW(va, 8)
	if old == c.GetReg(x86.RDX, 4)<<32|c.GetReg(x86.RAX, 4) {
		c.Store64(va, c.GetReg(x86.RCX, 4)<<32|c.GetReg(x86.RBX, 4))
		setZF(c, true)
		return
	}
	c.Store64(va, old)
	c.Regs[x86.RAX], c.Regs[x86.RDX] = old&0xffffffff, old>>32
	setZF(c, false)
}

func cmpxchg16b(c *x86.CPU, in *x86.Inst) {
	va := c.AddrW(in, 16)
	if va&15 != 0 {
		c.RaiseErr(x86.VecGP, 0)
	}
	lo, hi := c.LoadRMW(va, 8), c.LoadRMW(va+8, 8)
	if lo == c.Regs[x86.RAX] && hi == c.Regs[x86.RDX] {
		c.Store64(va, c.Regs[x86.RBX])
		c.Store64(va+8, c.Regs[x86.RCX])
		setZF(c, true)
		return
	}
	c.Store64(va, lo)
	c.Store64(va+8, hi)
	c.Regs[x86.RAX], c.Regs[x86.RDX] = lo, hi
	setZF(c, false)
}

func selectPush(in *x86.Inst) x86.Handler {
	switch x86.FormOperands(in.Form)[0].Kind {
	case 'Z':
		if in.OpSize == 8 {
			return func(c *x86.CPU, in *x86.Inst) {
				sp := c.Regs[x86.RSP] - 8
				c.Store64(sp, c.Regs[in.Reg])
				c.Regs[x86.RSP] = sp
			}
		}
		return func(c *x86.CPU, in *x86.Inst) { c.Push(c.GetReg(in.Reg, int(in.OpSize)), int(in.OpSize)) }
	case 'I':
		return func(c *x86.CPU, in *x86.Inst) { c.Push(in.Imm, int(in.OpSize)) }
	}
	return func(c *x86.CPU, in *x86.Inst) { c.Push(c.ReadRM(in, int(in.OpSize)), int(in.OpSize)) }
}

func selectPop(in *x86.Inst) x86.Handler {
	if x86.FormOperands(in.Form)[0].Kind == 'Z' {
		if in.OpSize == 8 {
			return func(c *x86.CPU, in *x86.Inst) {
				v := c.Load64(c.Regs[x86.RSP])
				c.Regs[x86.RSP] += 8
				c.Regs[in.Reg] = v
			}
		}
		return func(c *x86.CPU, in *x86.Inst) { c.SetReg(in.Reg, c.Pop(int(in.OpSize)), int(in.OpSize)) }
	}
	return func(c *x86.CPU, in *x86.Inst) {
		// An address that uses RSP is computed after RSP was incremented (SDM Vol. 2B, POP).
		n := int(in.OpSize)
		sp := c.Regs[x86.RSP]
		v := c.Pop(n)
		if !in.IsMem {
			c.SetReg(in.RM, v, n)
			return
		}
		after := c.Regs[x86.RSP]
		va := c.Offset(in)
		c.Regs[x86.RSP] = sp // in case of a fault
		if in.Seg != x86.SegFlat {
			va = c.Linear(int(in.Seg), va, n, x86.Write, int(in.Mode))
		}
		c.Store(va, v, n)
		c.Regs[x86.RSP] = after
	}
}

func pusha(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	sp := c.Regs[x86.RSP]
	m := c.StackMask()
	for r := range uint8(8) { // probe first: a fault changes nothing
		c.ProbeWrite(c.StackAddr((sp-uint64(n)*uint64(r+1))&m, n, x86.Write), n)
	}
	for r := range uint8(8) {
		v := c.GetReg(r, n)
		if r == x86.RSP {
			v = sp & sizeMask(n)
		}
		c.Push(v, n)
	}
}

func popa(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	var v [8]uint64
	for i := range v {
		v[i] = c.Peek(i*n, n)
	}
	for i := range v {
		if r := uint8(7 - i); r != x86.RSP {
			c.SetReg(r, v[i], n)
		}
	}
	c.SetSP(c.Regs[x86.RSP] + 8*uint64(n))
}

// enter follows SDM Vol. 2A, ENTER.
func enter(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	level := in.Imm2 & 31
	m := c.StackMask()
	sp, bp := c.Regs[x86.RSP], c.Regs[x86.RBP]
	put := func(v uint64) {
		sp = sp&^m | (sp-uint64(n))&m
		c.Store(c.StackAddr(sp&m, n, x86.Write), v, n)
	}
	put(bp)
	frame := sp
	if level > 0 {
		for i := uint64(1); i < level; i++ {
			put(c.Load(c.StackAddr((bp-i*uint64(n))&m, n, x86.Read), n))
		}
		put(frame)
	}
	final := (sp - in.Imm&0xffff) & m
	c.ProbeWrite(c.StackAddr(final, n, x86.Write), n)
	c.SetReg(x86.RBP, frame&m|bp&^m, max(n, c.StackSize()))
	c.SetSP(final)
}

func leave(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	bp := c.Regs[x86.RBP]
	v := c.Load(c.StackAddr(bp, n, x86.Read), n)
	c.SetSP(bp + uint64(n))
	c.SetReg(x86.RBP, v, n)
}

func selectJcc(in *x86.Inst) x86.Handler {
	cc := in.Opcode & 15
	in.Imm2 = uint64(cc)
	if in.OpSize == 8 {
		switch cc {
		case 4:
			return func(c *x86.CPU, in *x86.Inst) {
				if c.Cond(4) {
					c.Jump(c.Regs[x86.RIP]+in.Imm, 8)
				}
			}
		case 5:
			return func(c *x86.CPU, in *x86.Inst) {
				if c.Cond(5) {
					c.Jump(c.Regs[x86.RIP]+in.Imm, 8)
				}
			}
		}
	}
	return func(c *x86.CPU, in *x86.Inst) {
		if c.Cond(uint8(in.Imm2)) {
			c.Jump(c.Regs[x86.RIP]+in.Imm, int(in.OpSize))
		}
	}
}

func selectJmp(in *x86.Inst) x86.Handler {
	if x86.FormOperands(in.Form)[0].Kind == 'J' {
		return func(c *x86.CPU, in *x86.Inst) { c.Jump(c.Regs[x86.RIP]+in.Imm, int(in.OpSize)) }
	}
	return func(c *x86.CPU, in *x86.Inst) { c.Jump(c.ReadRM(in, int(in.OpSize)), int(in.OpSize)) }
}

func selectCall(in *x86.Inst) x86.Handler {
	if x86.FormOperands(in.Form)[0].Kind == 'J' {
		return func(c *x86.CPU, in *x86.Inst) { call(c, c.Regs[x86.RIP]+in.Imm, int(in.OpSize)) }
	}
	return func(c *x86.CPU, in *x86.Inst) { call(c, c.ReadRM(in, int(in.OpSize)), int(in.OpSize)) }
}

// call pushes first: a fault of the push comes before one of the target. Neither changes anything.
func call(c *x86.CPU, target uint64, n int) {
	next := c.Regs[x86.RIP]
	sp := (c.Regs[x86.RSP] - uint64(n)) & c.StackMask()
	va := c.StackAddr(sp, n, x86.Write)
	c.LoadRMW(va, n)
	c.Jump(target, n)
	c.Store(va, next, n)
	c.SetSP(sp)
}

func ret(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	c.Jump(c.Peek(0, n), n)
	c.SetSP(c.Regs[x86.RSP] + uint64(n) + in.Imm&0xffff)
}

func loop(c *x86.CPU, in *x86.Inst) {
	n := int(in.AddrSize)
	count := (c.Regs[x86.RCX] - 1) & in.AddrMask
	taken := count != 0
	switch in.Op {
	case x86.OpLOOPE:
		taken = taken && c.Cond(4)
	case x86.OpLOOPNE:
		taken = taken && c.Cond(5)
	}
	if taken {
		c.Jump(c.Regs[x86.RIP]+in.Imm, int(in.OpSize))
	}
	c.SetReg(x86.RCX, count, n)
}

func jcxz(c *x86.CPU, in *x86.Inst) {
	if c.Regs[x86.RCX]&in.AddrMask == 0 {
		c.Jump(c.Regs[x86.RIP]+in.Imm, int(in.OpSize))
	}
}

func setcc(c *x86.CPU, in *x86.Inst) {
	var v uint64
	if c.Cond(in.Opcode & 15) {
		v = 1
	}
	c.WriteRM(in, v, 1)
}

// cmovcc reads its source, and clears the upper half of a 32-bit destination, whatever the condition.
func cmovcc(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	v := c.ReadRM(in, n)
	if !c.Cond(in.Opcode & 15) {
		v = c.GetReg(in.Reg, n)
	}
	c.SetReg(in.Reg, v, n)
}

func cbw(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	c.SetReg(x86.RAX, signExtend(c.Regs[x86.RAX], n/2), n)
}

func cwd(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	c.SetReg(x86.RDX, uint64(int64(signExtend(c.Regs[x86.RAX], n))>>63), n)
}

func lahf(c *x86.CPU, _ *x86.Inst) { c.Set8(x86.RAX|x86.HighByte, c.Flags()&0xff|x86.Flag1) }

func sahf(c *x86.CPU, _ *x86.Inst) {
	const bits = x86.FlagSF | x86.FlagZF | x86.FlagAF | x86.FlagPF | x86.FlagCF
	c.SetArith(c.Flags()&x86.FlagOF | c.Regs[x86.RAX]>>8&bits)
}

func xlat(c *x86.CPU, in *x86.Inst) {
	off := (c.Regs[x86.RBX] + c.Regs[x86.RAX]&0xff) & in.AddrMask
	va := off
	if in.Seg != x86.SegFlat {
		va = c.Linear(int(in.Seg), off, 1, x86.Read, int(in.Mode))
	}
	c.Set8(x86.RAX, uint64(c.Load8(va)))
}

func bound(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	va := c.AddrR(in, 2*n)
	lo, hi := signExtend(c.Load(va, n), n), signExtend(c.Load(va+uint64(n), n), n)
	v := int64(signExtend(c.GetReg(in.Reg, n), n))
	if v < int64(lo) || v > int64(hi) {
		c.Raise(x86.VecBR)
	}
}
