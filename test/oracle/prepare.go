//go:build linux && amd64

package oracle

import (
	"encoding/binary"

	"refault/vmm/x86"
)

// prepare holds what an operation needs beyond registers and a memory operand: pointers,
// counts, branch targets, and operands for which it does more than fault.
var prepare = map[x86.Op]func(c *testCase, s source){
	x86.OpDIV: prepareDivision, x86.OpIDIV: prepareDivision,
	x86.OpBT: prepareBits, x86.OpBTS: prepareBits, x86.OpBTR: prepareBits, x86.OpBTC: prepareBits,
	x86.OpMOVS: prepareString, x86.OpCMPS: prepareString, x86.OpSTOS: prepareString, x86.OpLODS: prepareString, x86.OpSCAS: prepareString,
	x86.OpINS: prepareString, x86.OpOUTS: prepareString,
	x86.OpCMPXCHG: prepareCompare, x86.OpCMPXCHG8B: prepareCompare, x86.OpCMPXCHG16B: prepareCompare,
	x86.OpJCC: prepareJump, x86.OpLOOP: prepareJump, x86.OpLOOPE: prepareJump, x86.OpLOOPNE: prepareJump, x86.OpJCXZ: prepareJump,
	x86.OpJMP: prepareJump, x86.OpCALL: prepareJump, x86.OpRET: prepareReturn,
	x86.OpENTER: prepareFrame, x86.OpLEAVE: prepareFrame,
	x86.OpPOP: prepareStack, x86.OpPUSH: prepareStack, x86.OpPOPA: prepareStack, x86.OpPUSHA: prepareStack, x86.OpPUSHF: prepareStack,
	x86.OpPOPF: preparePopf, x86.OpXLAT: prepareXlat, x86.OpMASKMOV: prepareMask,
	x86.OpLAR: prepareSelector, x86.OpLSL: prepareSelector, x86.OpVERR: prepareSelector, x86.OpVERW: prepareSelector, x86.OpMOVToSeg: prepareSelector,
	x86.OpLoadFar: prepareFarPointer, x86.OpJMPF: prepareFarPointer, x86.OpCALLF: prepareFarPointer,
	x86.OpRETF: prepareFarReturn, x86.OpIRET: prepareFarReturn, x86.OpPOPSeg: preparePopSegment,
	x86.OpINT: prepareInt, x86.OpXSAVE: prepareComponents, x86.OpXRSTOR: prepareComponents,
	x86.OpFXRSTOR: prepareImage, x86.OpLDMXCSR: prepareImage,
}

func (c *testCase) reg(r uint8) *uint64 { return &c.state.Regs[r] }

// addressed reports whether the address of the memory operand uses register r.
func (c *testCase) addressed(r uint8) bool { return c.in.IsMem && (c.in.Base == r || c.in.Index == r) }

// set sets a register unless the memory operand's address needs it.
func (c *testCase) set(r uint8, v uint64) bool {
	if c.addressed(r) {
		return false
	}
	*c.reg(r) = v
	return true
}

// prepareDivision makes the quotient fit most of the time.
func prepareDivision(c *testCase, s source) {
	if s.chance(15) {
		return
	}
	n := uint(c.in.OpSize) * 8
	if n == 8 {
		c.set(x86.RAX, *c.reg(x86.RAX)&^0xffff|uint64(s.IntN(256)))
		return
	}
	a := s.integer()
	high := uint64(0)
	if c.in.Op == x86.OpIDIV {
		high = uint64(int64(a<<(64-n)) >> 63)
	}
	if s.chance(30) {
		high += uint64(s.IntN(3)) - 1
	}
	c.set(x86.RAX, a)
	c.set(x86.RDX, high)
}

// prepareBits keeps the bit string in memory.
func prepareBits(c *testCase, s source) {
	if c.in.IsMem && x86.FormOperands(c.form)[1].Kind == 'G' {
		v := uint64(s.IntN(4096)) - 2048
		if c.in.OpSize == 2 {
			v = v&0xffff | s.Uint64()<<16
		} else if c.in.OpSize == 4 {
			v = v&0xffffffff | s.Uint64()<<32
		}
		c.set(c.in.Reg, v)
	}
}

func (c *testCase) pointer(s source, v uint64) uint64 {
	if c.in.AddrSize == 4 {
		return v | s.Uint64()<<32
	}
	return v
}

func prepareString(c *testCase, s source) {
	n := uint64(c.in.OpSize)
	src := dataAddr + 0x800 + uint64(s.IntN(0x2000))
	dst := src + uint64(s.IntN(256)) - 128
	if s.chance(50) {
		dst = dataAddr + 0x800 + uint64(s.IntN(0x2000))
	}
	switch s.IntN(30) {
	case 0:
		dst = roAddr - n*uint64(s.IntN(20))
	case 1:
		src = roAddr + pageSize - n*uint64(s.IntN(20))
	}
	c.state.Regs[x86.RSI], c.state.Regs[x86.RDI] = c.pointer(s, src), c.pointer(s, dst)
	count := uint64(s.IntN(40))
	if s.chance(10) {
		count = 0
	}
	if c.in.Op == x86.OpINS || c.in.Op == x86.OpOUTS {
		count++ // whether the permission is checked before the count, processors differ
	}
	c.state.Regs[x86.RCX] = c.pointer(s, count)
	op := c.in.Op
	compares := op == x86.OpCMPS || op == x86.OpSCAS
	fillWith := s.Uint64()
	for _, at := range []uint64{src, dst} {
		w := c.window(s, at-340, 700, integers)
		if compares && s.chance(80) {
			v := binary.LittleEndian.AppendUint64(nil, fillWith)
			for i := range w {
				if !s.chance(1) {
					w[i] = v[(uint64(i)-340%n)%n]
				}
			}
		}
	}
	if op == x86.OpSCAS && s.chance(80) {
		c.state.Regs[x86.RAX] = fillWith
	}
	if !compares && count > 0 && c.in.Prefix&(x86.PrefixRep|x86.PrefixRepne) != 0 {
		c.chunk = 1 + uint64(s.IntN(int(count)))
	}
}

// prepareCompare lets half of the exchanges take place.
func prepareCompare(c *testCase, s source) {
	if s.chance(50) {
		return
	}
	a, d := *c.reg(x86.RAX), *c.reg(x86.RDX)
	switch c.in.Op {
	case x86.OpCMPXCHG8B:
		a, d = a&0xffffffff|d<<32, 0
	case x86.OpCMPXCHG:
		if !c.in.IsMem {
			c.set(c.in.RM&15, a)
		}
		d = s.Uint64()
	}
	if c.in.IsMem && c.target != 0 {
		c.store(c.target, a, 8)
		c.store(c.target+8, d, 8)
	}
}

// mapped reports whether n bytes at addr can be filled.
func mapped(addr uint64, n uint64) bool {
	for _, m := range mappings {
		if !m.exec && addr >= m.addr && addr+n <= m.addr+m.size && addr+n > addr {
			return true
		}
	}
	return false
}

// prepareJump makes the target a landing pad, mostly.
func prepareJump(c *testCase, s source) {
	in := &c.in
	if r := c.state.Regs[x86.RCX]; s.chance(60) {
		c.set(x86.RCX, r&^0xff|uint64(s.IntN(3)))
		if s.chance(50) {
			c.set(x86.RCX, c.pointer(s, uint64(s.IntN(3))))
		}
	}
	pad := c.pads[1+s.IntN(2)]
	if s.chance(5) {
		pad = dataAddr + uint64(s.IntN(0x8000)) // which cannot be executed
	}
	if x86.FormOperands(c.form)[0].Kind == 'J' {
		if x86.FormOperands(c.form)[0].Size == 'b' {
			pad = c.pads[1+s.IntN(2)]
		}
		d := pad - (c.at + uint64(len(c.code)))
		n := 4
		if x86.FormOperands(c.form)[0].Size == 'b' {
			n = 1
		} else if in.OpSize == 2 {
			n = 2
		}
		copy(c.code[len(c.code)-n:], binary.LittleEndian.AppendUint64(nil, d)[:n])
		c.decode()
		return
	}
	if s.chance(3) {
		pad |= 1 << (47 + s.IntN(16)) // not canonical
	}
	if in.IsMem {
		c.store(c.target, pad, 8)
	} else if !in.IsMem {
		*c.reg(in.RM) = pad
	}
	prepareStack(c, s)
}

// selector picks one of a descriptor that Linux and the guest have alike, or of none.
func (s source) selector() uint64 {
	all := [...]uint64{0, 1, 3, 0x08, 0x10, 0x18, 0x1b, 0x20, 0x23, 0x28, 0x2a, 0x2b, 0x2b, 0x2b, 0x30, 0x33, 0x33, 0x07, 0x1000, 0xfff3}
	return all[s.IntN(len(all))]
}

func prepareSelector(c *testCase, s source) {
	v := s.selector()
	if c.in.IsMem {
		c.store(c.target, v, 2)
	} else {
		c.set(c.in.RM, s.Uint64()<<16|v)
	}
}

// codeSelector is the one of code of the case's mode, mostly.
func (c *testCase) codeSelector(s source) uint64 {
	switch v := s.selector(); {
	case s.chance(30) && v&^7 != selUserCS&^7 && v&^7 != selUser32&^7: // which would change the mode
		return v
	case c.mode == 8:
		return selUserCS
	}
	return selUser32
}

func prepareFarPointer(c *testCase, s source) {
	off, sel := c.pads[s.IntN(3)], c.codeSelector(s)
	if c.in.Op == x86.OpLoadFar {
		off, sel = s.integer(), s.selector()
	}
	n := int(c.in.OpSize)
	if !c.in.IsMem {
		b := binary.LittleEndian.AppendUint64(nil, off)[:n]
		b = append(b, byte(sel), byte(sel>>8))
		copy(c.code[len(c.code)-n-2:], b)
		c.decode()
	} else {
		c.store(c.target, off, n)
		c.store(c.target+uint64(n), sel, 2)
	}
	if c.in.Op == x86.OpCALLF {
		prepareStack(c, s)
	}
}

func prepareFarReturn(c *testCase, s source) {
	prepareStack(c, s)
	n := uint64(c.in.OpSize)
	c.store(c.sp(), c.pads[s.IntN(3)], int(n))
	c.store(c.sp()+n, s.Uint64()<<16|c.codeSelector(s), int(n))
	if c.in.Op == x86.OpIRET {
		c.store(c.sp()+2*n, s.Uint64()&popfMask, int(n))
		c.store(c.sp()+3*n, stackAddr+uint64(s.IntN(0x1000))*2, int(n))
		ss := uint64(selUserDS)
		if s.chance(20) {
			ss = s.selector()
		}
		c.store(c.sp()+4*n, s.Uint64()<<16|ss, int(n))
	}
}

func preparePopSegment(c *testCase, s source) {
	prepareStack(c, s)
	c.store(c.sp(), s.Uint64()<<16|s.selector(), int(c.in.OpSize))
}

func (c *testCase) sp() uint64 { return c.state.Regs[x86.RSP] }

func prepareStack(c *testCase, s source) {
	// At the end of the stack, one way or the other.
	if s.chance(3) && !c.addressed(x86.RSP) {
		c.state.Regs[x86.RSP] = [...]uint64{stackAddr, stackAddr + stackPages*pageSize}[s.IntN(2)] + uint64(s.IntN(17)) - 8
	}
	c.window(s, c.sp(), 64, integers)
}

func prepareReturn(c *testCase, s source) {
	prepareStack(c, s)
	pad := c.pads[s.IntN(3)]
	if s.chance(3) {
		pad |= 1 << (47 + s.IntN(16))
	}
	if s.chance(3) {
		pad = dataAddr + uint64(s.IntN(0x8000))
	}
	c.store(c.sp(), pad, 8)
}

func prepareFrame(c *testCase, s source) {
	c.state.Regs[x86.RBP] = stackAddr + 0x2000 + uint64(s.IntN(0x200))*8
	if s.chance(3) {
		c.state.Regs[x86.RBP] = stackAddr + uint64(s.IntN(0x40))
	}
	c.window(s, c.state.Regs[x86.RBP]-300, 320, integers)
	prepareStack(c, s)
}

// popfMask are the flags that may be loaded on the processor: not TF, AC or NT.
const popfMask = userFlags | x86.FlagIF | x86.FlagIOPL | x86.FlagID | x86.FlagRF | 1<<1 | 1<<3 | 1<<5 | 1<<15 | 1<<31

func preparePopf(c *testCase, s source) {
	prepareStack(c, s)
	c.store(c.sp(), s.Uint64()&popfMask, int(c.in.OpSize))
}

func prepareXlat(c *testCase, s source) {
	t := c.chooseTarget(s)
	c.state.Regs[x86.RBX] = c.pointer(s, t-c.state.Regs[x86.RAX]&0xff)
	c.window(s, t-16, 32, integers)
}

func prepareMask(c *testCase, s source) {
	t := dataAddr + 0x800 + uint64(s.IntN(0x2000)) // where masked bytes fault, processors differ
	c.state.Regs[x86.RDI] = c.pointer(s, t)
	c.window(s, t-16, 48, integers)
}

// prepareComponents asks for components that the interpreter has too, and makes a valid header.
func prepareComponents(c *testCase, s source) {
	// The operand's address may need the registers; then it lies where they say.
	rax := s.Uint64() &^ 0xfffffffc
	if c.addressed(x86.RAX) || c.addressed(x86.RDX) {
		c.in.Form = noForm
		return
	}
	c.state.Regs[x86.RAX], c.state.Regs[x86.RDX] = rax, s.Uint64()<<32
	prepareImage(c, s)
	bv := uint64(s.IntN(4))
	if s.chance(5) {
		bv |= 1 << 63
	}
	c.store(c.target+512, bv, 8)
	comp := uint64(0)
	if s.chance(5) {
		comp = s.integer() &^ (1 << 63)
	}
	c.store(c.target+520, comp, 8)
	for i := uint64(528); i < 576; i += 8 {
		c.store(c.target+i, 0, 8)
	}
}

// noForm marks a case that came to nothing.
const noForm = 0xffff

// prepareImage makes MXCSR valid in an image, mostly. Bit 17 exists on AMD processors.
func prepareImage(c *testCase, s source) {
	at := c.target
	if c.in.Op != x86.OpLDMXCSR {
		at += 24
	}
	csr := uint64(s.Uint32() & 0xffff)
	if s.chance(10) {
		csr |= 1 << (18 + s.IntN(14))
	}
	c.store(at, csr, 4)
}

func prepareInt(c *testCase, _ source) {
	if v := c.in.Imm & 0xff; v == 0x80 || v < 32 && v != x86.VecBP {
		c.code[len(c.code)-1] = x86.VecBP // not a system call
		c.decode()
	}
}
