package interp

import (
	"encoding/binary"

	"refault/vmm/x86"
	"refault/vmm/x86/fpu"
)

// sseOps binds the MMX and SSE instructions.
var sseOps = map[x86.Op]selector{
	x86.OpVector: vectorOp(0), x86.OpVectorFP: vectorOp(fpu.Float),
	x86.OpVectorFlags: vectorOp(fpu.Flags), x86.OpVectorFPFlags: vectorOp(fpu.Float | fpu.Flags),
	x86.OpVectorImplicit: vectorOp(fpu.Implicit), x86.OpVectorString: vectorOp(fpu.Implicit | fpu.Flags),
	x86.OpVectorApprox: vectorOp(0),
	x86.OpMOVVec:       guarded(movVec), x86.OpMOVScalar: guarded(movScalar),
	x86.OpMOVLow: guarded(movLow), x86.OpMOVHigh: guarded(movHigh), x86.OpMOVD: guarded(movD), x86.OpMOVQ: guarded(movQ),
	x86.OpMOVQ2DQ: guarded(movq2dq), x86.OpMOVDQ2Q: guarded(movdq2q), x86.OpMASKMOV: guarded(maskmov),
	x86.OpEMMS: guarded(emms), x86.OpLDMXCSR: guarded(ldmxcsr), x86.OpSTMXCSR: guarded(stmxcsr),
	x86.OpFXSAVE: always(fxsave), x86.OpFXRSTOR: always(fxrstor), x86.OpXSAVE: always(xsave), x86.OpXRSTOR: always(xrstor),
}

var le = binary.LittleEndian

// guard does the checks that a form's attributes ask for.
func guard(c *x86.CPU, attr x86.Attr) {
	if attr&x86.IsSSE != 0 {
		c.CheckSSE()
	}
	if attr&x86.IsMMX != 0 {
		c.CheckMMX()
	}
}

// guarded makes a selector that picks h behind its form's checks.
func guarded(h x86.Handler) selector {
	return func(in *x86.Inst) x86.Handler {
		if attr := x86.Forms()[in.Form].Attr; attr&(x86.IsSSE|x86.IsMMX) != x86.IsSSE {
			return func(c *x86.CPU, in *x86.Inst) {
				guard(c, attr)
				h(c, in)
			}
		}
		return func(c *x86.CPU, in *x86.Inst) {
			c.CheckSSE()
			h(c, in)
		}
	}
}

func aligned(in *x86.Inst) bool { return x86.Forms()[in.Form].Attr&x86.Align16 != 0 }

// loadVector reads n bytes of memory operand into p.
func loadVector(c *x86.CPU, in *x86.Inst, p *[16]byte, n int) {
	va := c.AddrR(in, n)
	if n < 16 {
		le.PutUint64(p[:], c.Load(va, n))
		return
	}
	if va&15 != 0 && aligned(in) {
		gp0(c)
	}
	lo := c.Load64(va)
	hi := c.Load64(va + 8)
	le.PutUint64(p[:], lo)
	le.PutUint64(p[8:], hi)
}

// storeVector writes n bytes of p to the memory operand, all or nothing.
func storeVector(c *x86.CPU, in *x86.Inst, p *[16]byte, n int) {
	va := c.AddrW(in, n)
	if n < 16 {
		c.Store(va, le.Uint64(p[:]), n)
		return
	}
	if va&15 != 0 && aligned(in) {
		gp0(c)
	}
	c.LoadRMW(va, 8)
	c.LoadRMW(va+8, 8) // the second half must not fault after the first is written
	c.Store64(va, le.Uint64(p[:]))
	c.Store64(va+8, le.Uint64(p[8:]))
}

// vectorPlan is what a generic vector instruction has to do, worked out at decoding.
type vectorPlan struct {
	class    fpu.Class
	stub     fpu.Stub
	attr     x86.Attr
	dst      byte // where the result goes: 'V', 'P', 'G', 'E' (general register or memory), 'U' and 'N' (r/m as a vector), 0 for flags
	reg, rm  byte // operand kinds of the ModRM fields: 'V', 'P', 'G', 0; 'W', 'Q', 'E', 0
	rmSize   int
	gprSize  int
	isString bool
}

// vectorOp makes a selector for instructions that package fpu executes.
func vectorOp(class fpu.Class) selector {
	return func(in *x86.Inst) x86.Handler {
		p := planVector(class, in)
		code := hostCode(in, &p)
		if in.IsMem && p.rm == 'Q' && p.dst == 'V' {
			p.attr &^= x86.IsMMX // CVTPI2PS and CVTPI2PD touch no MMX register then
		}
		h := func(c *x86.CPU, in *x86.Inst) {
			guard(c, p.attr)
			if p.stub == 0 {
				p.stub = c.FPU.Vector(p.class, code)
			}
			execVector(c, in, &p)
		}
		return h
	}
}

func planVector(class fpu.Class, in *x86.Inst) vectorPlan {
	form := x86.Forms()[in.Form]
	p := vectorPlan{class: class, attr: form.Attr, isString: form.Op == x86.OpVectorString}
	for i, o := range x86.FormOperands(in.Form) {
		switch o.Kind {
		case 'V', 'P', 'G':
			p.reg = o.Kind
			if o.Kind == 'G' {
				p.gprSize = 4
				if o.Size == 'y' && in.Rex&8 != 0 {
					p.gprSize = 8
				}
			}
		case 'W', 'U', 'Q', 'N', 'E':
			p.rm = o.Kind
			p.rmSize = in.VectorSize(o)
		}
		if i == 0 {
			p.dst = o.Kind
		}
		if o.Kind == 'P' || o.Kind == 'Q' || o.Kind == 'N' {
			p.class |= fpu.MMX
		}
	}
	if p.class&fpu.Flags != 0 {
		p.dst = 0
	}
	if p.class&fpu.MMX != 0 && p.dst == 'V' {
		p.class |= fpu.ToXMM
	}
	return p
}

// hostCode returns the bytes of the instruction with its operands where package fpu has them.
func hostCode(in *x86.Inst, p *vectorPlan) []byte {
	var b []byte
	enc := x86.Forms()[in.Form].Enc
	switch {
	case enc[:2] == "66" || enc[:2] == "F2" || enc[:2] == "F3":
		b = append(b, map[string]byte{"66": 0x66, "F2": 0xf2, "F3": 0xf3}[enc[:2]])
	}
	if in.Rex&8 != 0 {
		b = append(b, 0x48)
	}
	b = append(b, 0x0f)
	switch x86.OpcodeMap(in.Form) {
	case 2:
		b = append(b, 0x38)
	case 3:
		b = append(b, 0x3a)
	}
	b = append(b, in.Opcode)
	reg := in.ModRM >> 3 & 7 // a digit
	switch p.reg {
	case 'V', 'P':
		reg = 1
	case 'G':
		reg = 0
	}
	rm := byte(2)
	switch {
	case p.rm == 'E':
		rm = 0
	case p.reg == 0:
		rm = 1 // shifts by an immediate work on the r/m operand
	}
	b = append(b, 0xc0|reg<<3|rm)
	for _, o := range x86.FormOperands(in.Form) {
		if o.Kind == 'I' {
			imm := byte(in.Imm) & immediateMask(in)
			if enc == insertps && in.IsMem {
				imm &= 0x3f // the source is the operand in memory, not one of four elements
			}
			b = append(b, imm)
		}
	}
	return b
}

// immediateMask returns what counts of an immediate: other bits are reserved in some instructions, and cleared.
func immediateMask(in *x86.Inst) byte {
	switch m := x86.OpcodeMap(in.Form); {
	case m == 1 && in.Opcode == 0xc2: // CMPPS and relatives
		return 7
	case m == 3 && in.Opcode >= 0x08 && in.Opcode <= 0x0b: // ROUNDPS and relatives
		return 15
	case m == 3 && in.Opcode >= 0x60 && in.Opcode <= 0x63: // PCMPESTRM and relatives
		return 0x7f
	}
	return 0xff
}

const insertps = "66 0F 3A 21 /r"

func execVector(c *x86.CPU, in *x86.Inst, p *vectorPlan) {
	u := c.FPU
	// Operands.
	switch p.rm {
	case 'W', 'U':
		if in.IsMem {
			loadVector(c, in, &u.Src, p.rmSize)
		} else {
			u.Src = *c.XMM(in.RM)
		}
	case 'Q', 'N':
		if in.IsMem {
			loadVector(c, in, &u.Src, p.rmSize)
		} else {
			le.PutUint64(u.Src[:], c.MM(in.RM))
		}
	case 'E':
		if p.dst != 'E' {
			if in.IsMem {
				u.GPR = c.Load(c.AddrR(in, p.rmSize), p.rmSize)
			} else {
				u.GPR = c.Regs[in.RM&15]
			}
		}
	}
	switch p.reg {
	case 'V':
		u.Dst = *c.XMM(in.Reg)
	case 'P':
		le.PutUint64(u.Dst[:], c.MM(in.Reg))
	case 0:
		u.Dst = u.Src
	}
	if p.class&fpu.Implicit != 0 {
		u.Mask = *c.XMM(0)
		if p.isString {
			u.GPR, u.GPR2, u.Count = c.Regs[x86.RAX], c.Regs[x86.RDX], c.Regs[x86.RCX]
		}
	}
	if p.class&fpu.Float != 0 {
		runFloat(c, in, p.stub)
	} else {
		u.Call(p.stub)
	}
	// Results.
	if p.attr&x86.IsMMX != 0 {
		c.TouchMMX()
	}
	switch p.dst {
	case 'V':
		*c.XMM(in.Reg) = u.Dst
	case 'U':
		*c.XMM(in.RM) = u.Dst
	case 'P':
		c.SetMM(in.Reg, le.Uint64(u.Dst[:]))
	case 'N':
		c.SetMM(in.RM, le.Uint64(u.Dst[:]))
	case 'G':
		c.SetReg(in.Reg, u.GPR, p.gprSize)
	case 'E':
		if in.IsMem {
			c.Store(c.AddrW(in, p.rmSize), u.GPR, p.rmSize)
		} else {
			c.SetReg(in.RM&15, u.GPR, max(4, p.rmSize))
		}
	}
	if p.class&fpu.Flags != 0 {
		var f uint64
		if u.Flags&1 != 0 {
			f = x86.FlagOF
		}
		c.SetArith(f | uint64(u.Flags>>8))
		if p.isString {
			if in.Opcode&1 != 0 {
				c.SetReg(x86.RCX, u.Count, 4)
			} else {
				*c.XMM(0) = u.Mask
			}
		}
	}
}

// Bits of MXCSR (SDM Vol. 1 10.2.3).
const (
	mxcsrUE = 1 << 4
	mxcsrUM = 1 << 11
	mxcsrFZ = 1 << 15
)

// runFloat calls a stub under the guest's MXCSR with all exceptions masked, and
// raises #XM if one came up that the guest has not masked: then nothing is written.
// What unmasking changes beyond that: a tiny result underflows even if it is exact,
// and is not flushed to zero. (And the inexact flag of a result that overflows or
// underflows would be that of an unbounded exponent: ours is always set.)
func runFloat(c *x86.CPU, in *x86.Inst, s fpu.Stub) {
	u := c.FPU
	csr := c.MXCSR()
	u.MXCSR = csr&^0x3f | 0x1f80
	if csr&mxcsrUM == 0 {
		u.MXCSR &^= mxcsrFZ
	}
	u.Call(s)
	raised := u.MXCSR & 0x3f
	if csr&mxcsrUM == 0 && tiny(in, &u.Dst) {
		raised |= mxcsrUE
	}
	if raised == 0 {
		return
	}
	raiseSSE(c, csr, raised)
}

// tiny reports whether an arithmetic instruction has a denormal among its results.
func tiny(in *x86.Inst, dst *[16]byte) bool {
	enc := x86.Forms()[in.Form].Enc
	single := enc[:2] == "NP" || enc[:2] == "F3"
	n := 16
	if enc[0] == 'F' {
		n = 8
		if single {
			n = 4
		}
	}
	switch m := x86.OpcodeMap(in.Form); {
	case m == 1 && (in.Opcode == 0x58 || in.Opcode == 0x59 || in.Opcode == 0x5c || in.Opcode == 0x5e): // ADD, MUL, SUB, DIV
	case m == 1 && (in.Opcode == 0x7c || in.Opcode == 0x7d || in.Opcode == 0xd0): // HADD, HSUB, ADDSUB
		single, n = enc[0] == 'F', 16
	case m == 1 && in.Opcode == 0x5a && enc[0] == '6': // CVTPD2PS
		single, n = true, 8
	case m == 1 && in.Opcode == 0x5a && enc[:2] == "F2": // CVTSD2SS
		single, n = true, 4
	case m == 3 && (in.Opcode == 0x40 || in.Opcode == 0x41): // DPPS, DPPD
		single, n = in.Opcode == 0x40, 16
	default:
		return false
	}
	if single {
		for i := 0; i < n; i += 4 {
			if v := le.Uint32(dst[i:]) << 1; v != 0 && v>>24 == 0 {
				return true
			}
		}
		return false
	}
	for i := 0; i < n; i += 8 {
		if v := le.Uint64(dst[i:]) << 1; v != 0 && v>>53 == 0 {
			return true
		}
	}
	return false
}

func raiseSSE(c *x86.CPU, csr, raised uint32) {
	unmasked := raised &^ (csr >> 7)
	if unmasked&7 != 0 {
		raised &= 7 // exceptions of the operands come before those of the result (SDM Vol. 1 11.5.2)
	}
	c.SetMXCSR(csr | raised)
	if unmasked == 0 {
		return
	}
	if c.CR4&x86.CR4OSXMMEXCPT == 0 {
		c.Raise(x86.VecUD)
	}
	c.Raise(x86.VecXM)
}

// movVec moves a whole operand, in the direction that its form says.
func movVec(c *x86.CPU, in *x86.Inst) {
	load := x86.FormOperands(in.Form)[0].Kind == 'V'
	switch {
	case in.IsMem && load:
		loadVector(c, in, c.XMM(in.Reg), 16)
	case in.IsMem:
		storeVector(c, in, c.XMM(in.Reg), 16)
	case load:
		*c.XMM(in.Reg) = *c.XMM(in.RM)
	default:
		*c.XMM(in.RM) = *c.XMM(in.Reg)
	}
}

func movScalar(c *x86.CPU, in *x86.Inst) {
	o := x86.FormOperands(in.Form)[0]
	n := in.VectorSize(o)
	load := o.Kind == 'V'
	switch {
	case in.IsMem && load:
		v := c.Load(c.AddrR(in, n), n)
		x := c.XMM(in.Reg)
		le.PutUint64(x[:], v)
		le.PutUint64(x[8:], 0)
	case in.IsMem:
		c.Store(c.AddrW(in, n), le.Uint64(c.XMM(in.Reg)[:]), n)
	case load:
		copy(c.XMM(in.Reg)[:n], c.XMM(in.RM)[:n])
	default:
		copy(c.XMM(in.RM)[:n], c.XMM(in.Reg)[:n])
	}
}

func movHalf(c *x86.CPU, in *x86.Inst, at int) {
	if x86.FormOperands(in.Form)[0].Kind == 'V' {
		le.PutUint64(c.XMM(in.Reg)[at:], c.Load64(c.AddrR(in, 8)))
		return
	}
	c.Store64(c.AddrW(in, 8), le.Uint64(c.XMM(in.Reg)[at:]))
}

func movLow(c *x86.CPU, in *x86.Inst)  { movHalf(c, in, 0) }
func movHigh(c *x86.CPU, in *x86.Inst) { movHalf(c, in, 8) }

// movD moves 4 or 8 bytes between a general register or memory and a vector register.
func movD(c *x86.CPU, in *x86.Inst) {
	ops := x86.FormOperands(in.Form)
	n := 4
	if in.Rex&8 != 0 {
		n = 8
	}
	if ops[0].Kind == 'E' {
		var v uint64
		if ops[1].Kind == 'P' {
			v = c.MM(in.Reg)
		} else {
			v = le.Uint64(c.XMM(in.Reg)[:])
		}
		c.WriteRM(in, v, n)
		if ops[1].Kind == 'P' {
			c.TouchMMX()
		}
		return
	}
	v := c.ReadRM(in, n)
	if ops[0].Kind == 'P' {
		c.TouchMMX()
		c.SetMM(in.Reg, v)
		return
	}
	x := c.XMM(in.Reg)
	le.PutUint64(x[:], v)
	le.PutUint64(x[8:], 0)
}

// movQ moves 8 bytes; a vector register is cleared above.
func movQ(c *x86.CPU, in *x86.Inst) {
	ops := x86.FormOperands(in.Form)
	setXMM := func(r uint8, v uint64) {
		x := c.XMM(r)
		le.PutUint64(x[:], v)
		le.PutUint64(x[8:], 0)
	}
	switch ops[0].Kind {
	case 'V':
		if in.IsMem {
			setXMM(in.Reg, c.Load64(c.AddrR(in, 8)))
		} else {
			setXMM(in.Reg, le.Uint64(c.XMM(in.RM)[:]))
		}
	case 'W':
		v := le.Uint64(c.XMM(in.Reg)[:])
		if in.IsMem {
			c.Store64(c.AddrW(in, 8), v)
		} else {
			setXMM(in.RM, v)
		}
	case 'P':
		v := c.MM(in.RM)
		if in.IsMem {
			v = c.Load64(c.AddrR(in, 8))
		}
		c.TouchMMX()
		c.SetMM(in.Reg, v)
	default:
		v := c.MM(in.Reg)
		if in.IsMem {
			c.Store64(c.AddrW(in, 8), v)
			c.TouchMMX()
			return
		}
		c.TouchMMX()
		c.SetMM(in.RM, v)
	}
}

func movq2dq(c *x86.CPU, in *x86.Inst) {
	v := c.MM(in.RM)
	c.TouchMMX()
	x := c.XMM(in.Reg)
	le.PutUint64(x[:], v)
	le.PutUint64(x[8:], 0)
}

func movdq2q(c *x86.CPU, in *x86.Inst) {
	v := le.Uint64(c.XMM(in.RM)[:])
	c.TouchMMX()
	c.SetMM(in.Reg, v)
}

// maskmov stores the bytes whose mask has its top bit set, at DS:rDI.
func maskmov(c *x86.CPU, in *x86.Inst) {
	n := 16
	var data, mask [16]byte
	if x86.FormOperands(in.Form)[0].Kind == 'P' {
		n = 8
		le.PutUint64(data[:], c.MM(in.Reg))
		le.PutUint64(mask[:], c.MM(in.RM))
	} else {
		data, mask = *c.XMM(in.Reg), *c.XMM(in.RM)
	}
	at := func(i int) uint64 {
		off := (c.Regs[x86.RDI] + uint64(i)) & in.AddrMask
		if in.Mode == 8 && in.Seg == x86.SegFlat {
			return off
		}
		return c.Linear(int(in.Seg), off, 1, x86.Write, int(in.Mode))
	}
	if in.Mode != 8 { // the segment is checked for all of the operand, masked or not
		c.Linear(int(in.Seg), c.Regs[x86.RDI]&in.AddrMask, n, x86.Write, int(in.Mode))
	}
	for i := range n {
		if mask[i]&0x80 != 0 {
			c.ProbeWrite(at(i), 1)
		}
	}
	for i := range n {
		if mask[i]&0x80 != 0 {
			c.Store8(at(i), data[i])
		}
	}
	if n == 8 {
		c.TouchMMX()
	}
}

func emms(c *x86.CPU, _ *x86.Inst) { c.EmptyX87() }

func ldmxcsr(c *x86.CPU, in *x86.Inst) {
	v := c.Load32(c.AddrR(in, 4))
	if v&^x86.MXCSRMask != 0 {
		gp0(c)
	}
	c.SetMXCSR(v)
}

func stmxcsr(c *x86.CPU, in *x86.Inst) { c.Store32(c.AddrW(in, 4), c.MXCSR()) }
