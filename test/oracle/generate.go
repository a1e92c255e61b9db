//go:build linux && amd64

package oracle

import (
	"encoding/binary"

	"refault/vmm/x86"
)

// testCase is one instruction and all that it starts from.
type testCase struct {
	seed  uint64
	form  uint16
	mode  int // of the code segment, in bytes
	in    x86.Inst
	code  []byte
	modrm int
	at    uint64 // address of the instruction
	state state
	// before is an instruction that sets flags and is executed right before, or nil: the interpreter computes flags late.
	// It leaves AF undefined if it is a logical one.
	before  []byte
	logical bool

	mem   []patch
	chunk uint64 // iterations of a string instruction to run at a time
	// careful: the engine looks at every instruction on its own, as it does for a trace.
	careful bool

	target uint64 // of the memory operand, or zero
	pads   [3]uint64
}

// patch is memory to be written before a case.
type patch struct {
	addr uint64
	data []byte
}

const padSize = 48

// generate makes the case of a seed. ok is false where it came to nothing: bytes that mean something else.
func generate(form uint16, mode int, seed uint64) (c *testCase, ok bool) {
	s := newSource(seed)
	c = &testCase{seed: seed, form: form, mode: mode}
	c.code, c.modrm = s.encode(form, mode)
	if !c.decode() {
		return nil, false
	}
	c.place(s)
	c.fillState(s)
	if !c.aim(s) {
		return nil, false
	}
	if p := prepare[c.in.Op]; p != nil {
		p(c, s)
	}
	if s.chance(35) {
		c.precede(s)
	}
	if mode != 8 {
		for i := range 8 {
			c.state.Regs[i] &= 0xffffffff
		}
	}
	if c.in.IsMem && c.in.AddrSize == 2 {
		r := &c.state.Regs
		c.target = c.in.Disp
		if c.in.Base != x86.RegZero {
			c.target += r[c.in.Base]
		}
		if c.in.Index != x86.RegZero {
			c.target += r[c.in.Index]
		}
		c.target &= 0xffff
	}
	return c, c.in.Form == form
}

// decode decodes the code, and cuts what is beyond the instruction.
func (c *testCase) decode() bool {
	if x86.Decode(c.code, c.mode, &c.in) != x86.DecodeOK || c.in.Form != c.form {
		return false
	}
	c.code = c.code[:c.in.Len]
	return true
}

// place decides where the instruction lies.
func (c *testCase) place(s source) {
	const border = codeAddr + pageSize
	c.at = codeAddr + 0x200 + uint64(s.IntN(0xc00))
	if len(c.code) > 1 && s.chance(10) {
		c.at = border - 1 - uint64(s.IntN(len(c.code)-1)) // across two pages
	}
	end := c.at + uint64(len(c.code))
	c.pads = [...]uint64{end, end + padSize, c.at - 2*padSize}
	c.state.RIP = c.at
	c.chunk = 1
	c.careful = s.chance(15)
}

const userFlags = x86.FlagsArith | x86.FlagDF

// precede puts an instruction before that changes flags, and at most a register that nothing depends on.
func (c *testCase) precede(s source) {
	switch c.in.Op {
	case x86.OpLAHF, x86.OpPUSHF, x86.OpPOPF:
		return // AF may be undefined
	}
	size := 1 << s.IntN(4)
	if c.mode != 8 {
		size = 1 << s.IntN(3)
	}
	wide := byte(0)
	if size > 1 {
		wide = 1
	}
	alu := byte(s.IntN(8))
	op := []byte{alu<<3 | wide}
	src, dst := byte(s.IntN(8)), byte(s.IntN(8))
	unary := byte(0)
	free := func(r uint8) bool { return !c.addressed(r) && r != c.in.Reg && r != c.in.RM }
	switch {
	case c.mode != 8 || !free(8+dst): // CMP and TEST change no register
		op = [][]byte{{0x38 | wide}, {0x84 | wide}}[s.IntN(2)]
		c.logical = op[0]&^1 == 0x84
	case s.chance(40): // INC, DEC, NEG, NOT
		unary = [...]byte{0, 1, 3, 2}[s.IntN(4)]
		op[0] = 0xfe | wide
		if unary >= 2 {
			op[0] = 0xf6 | wide
		}
		src = unary
	default:
		c.logical = alu == 1 || alu == 4 || alu == 6
	}
	if size == 2 {
		c.before = append(c.before, 0x66)
	}
	if c.mode == 8 {
		rex := byte(0x41) // the destination is one of R8 to R15
		if size == 8 {
			rex |= 8
		}
		if unary == 0 && src&1 != 0 && op[0] < 0xf6 {
			rex |= 4
		}
		c.before = append(c.before, rex)
	}
	c.before = append(append(c.before, op...), 0xc0|src<<3|dst)
	c.state.RIP -= uint64(len(c.before))
}

func (c *testCase) fillState(s source) {
	st := &c.state
	for i := range st.Regs {
		st.Regs[i] = s.integer()
	}
	if usesStack(c.in.Op) || s.chance(50) {
		st.Regs[x86.RSP] = stackAddr + 0x1000 + uint64(s.IntN(0x100))*8
		if s.chance(20) {
			st.Regs[x86.RSP] += uint64(s.IntN(8))
		}
	}
	st.RFLAGS = s.Uint64()&x86.FlagsArith | x86.Flag1 | x86.FlagIF
	if s.chance(20) {
		st.RFLAGS |= x86.FlagDF
	}
	c.fillFX(s)
}

// fillFX fills the vector and x87 state.
func (c *testCase) fillFX(s source) {
	fx := c.state.FX[:]
	le := binary.LittleEndian
	attr := x86.Forms()[c.form].Attr
	k := kind(s.IntN(int(decimals)))
	float := attr&(x86.IsFPU|x86.IsMMX|x86.IsSSE) != 0
	le.PutUint16(fx[0:], 0x37f)
	le.PutUint32(fx[24:], 0x1f80)
	if !float {
		for i := 32; i < 416; i += 8 {
			le.PutUint64(fx[i:], s.Uint64())
		}
	} else {
		for i := range 16 {
			s.fill(fx[160+16*i:][:16], k)
		}
		csr := s.Uint32()&0x6000 | 0x1f80
		if s.chance(30) {
			csr |= s.Uint32() & 0x8040 // flush to zero, denormals are zero
		}
		if s.chance(30) {
			csr |= s.Uint32() & 0x3f
		}
		if s.chance(15) {
			csr &^= s.Uint32() & 0x1f80
		}
		le.PutUint32(fx[24:], csr)

		fcw := uint16(0x7f) | uint16(s.IntN(4))<<10 | [...]uint16{3, 3, 2, 0}[s.IntN(4)]<<8
		if s.chance(15) {
			fcw &^= uint16(s.Uint32() & 0x3f)
		}
		fsw := uint16(s.Uint32()) & 0x7f00
		if s.chance(30) {
			fsw |= uint16(s.Uint32()) & 0x7f
			if s.chance(80) {
				fsw &= fcw | 0xff40 // nothing unmasked is pending
			}
		}
		if fsw&0x3f&^fcw != 0 {
			fsw |= 0x8080
		}
		le.PutUint16(fx[0:], fcw)
		le.PutUint16(fx[2:], fsw)
	}
	for i := range 8 {
		st := fx[32+16*i:][:16]
		clear(st)
		if float && s.chance(80) {
			s.float80(st)
		} else {
			s.fill(st[:10], k)
		}
	}
	fx[4] = [...]byte{0xff, 0xff, 0, byte(s.Uint32())}[s.IntN(4)]
}

// write adds a patch of b at addr, of those bytes where memory is mapped.
func (c *testCase) write(addr uint64, b []byte) {
	for _, m := range mappings {
		if m.exec {
			continue
		}
		first, last := max(addr, m.addr), min(addr+uint64(len(b)), m.addr+m.size)
		if first < last {
			c.mem = append(c.mem, patch{first, b[first-addr : last-addr]})
		}
	}
}

// window fills n bytes of memory at addr, as far as there is any, and returns them.
func (c *testCase) window(s source, addr uint64, n int, k kind) []byte {
	b := make([]byte, n)
	s.fill(b, k)
	c.write(addr, b)
	return b
}

// store adds a patch of v, in size bytes.
func (c *testCase) store(addr, v uint64, size int) {
	c.write(addr, binary.LittleEndian.AppendUint64(nil, v)[:size])
}

// operandSize is how many bytes the memory operand has, at most.
func (c *testCase) operandSize() int {
	switch c.in.Op {
	case x86.OpFXSAVE, x86.OpFXRSTOR:
		return 512
	case x86.OpXSAVE, x86.OpXRSTOR:
		return 576
	case x86.OpFRSTOR, x86.OpFNSAVE:
		return 108
	case x86.OpFLDENV, x86.OpFNSTENV:
		return 28
	}
	return 16
}

// chooseTarget decides where the memory operand lies.
func (c *testCase) chooseTarget(s source) uint64 {
	n := uint64(c.operandSize())
	t := dataAddr + 0x200 + uint64(s.IntN(0x3000))&^63
	attr := x86.Forms()[c.form].Attr
	switch {
	case n >= 512 && s.chance(95):
	case n >= 512:
		t += uint64(s.IntN(64))
	case attr&x86.Align16 != 0 || c.in.Op == x86.OpCMPXCHG16B:
		t += uint64(s.IntN(4)) * 16
		if s.chance(5) {
			t += uint64(s.IntN(16))
		}
	case s.chance(30):
		t += uint64(s.IntN(64))
	default:
		t += uint64(s.IntN(8)) * 8
	}
	switch s.IntN(60) {
	case 0, 1, 2: // across two pages
		t = dataAddr + uint64(1+s.IntN(3))*pageSize - uint64(s.IntN(int(n)))
	case 3: // into the page that cannot be written
		t = roAddr - uint64(s.IntN(int(n)))
	case 4: // in it
		t = roAddr + uint64(s.IntN(64))*8
	case 5: // out of it
		t = roAddr + pageSize - uint64(s.IntN(int(n)))
	case 6: // nowhere
		t = dataAddr - uint64(s.IntN(int(n)))
	case 7:
		if c.in.AddrSize == 8 {
			t |= 1 << (47 + s.IntN(17)) // not canonical, or not the user's
		}
	}
	return t
}

// aim makes the address of the memory operand one that is mapped.
func (c *testCase) aim(s source) bool {
	in := &c.in
	if !in.IsMem || in.Op == x86.OpLEA || in.Op == x86.OpNOP {
		return true
	}
	t := c.chooseTarget(s)
	if in.AddrSize == 2 {
		return true // nothing is mapped where 16 bits reach
	}
	if x86.FormOperands(c.form)[0].Kind == 'O' || len(x86.FormOperands(c.form)) > 1 && x86.FormOperands(c.form)[1].Kind == 'O' {
		b := binary.LittleEndian.AppendUint64(nil, t)
		copy(c.code[len(c.code)-int(in.AddrSize):], b[:in.AddrSize])
	} else if !c.solve(s, &t) {
		return false
	}
	if !c.decode() {
		return false
	}
	c.target = t
	c.window(s, t-16, 16+c.operandSize()+16, kind(s.IntN(int(numKinds))))
	return true
}

// solve sets registers and displacement so that the operand lies at t, or near.
func (c *testCase) solve(s source, t *uint64) bool {
	in, regs := &c.in, &c.state.Regs
	mod, rm := in.ModRM>>6, in.ModRM&7
	at := c.modrm + 1
	sib := rm == 4
	if sib {
		at++
	}
	disp32 := mod == 2 || mod == 0 && (rm == 5 || sib && in.Base == x86.RegZero)
	setDisp := func(v uint64) bool {
		copy(c.code[at:], binary.LittleEndian.AppendUint32(nil, uint32(v)))
		return int64(int32(v)) == int64(v) || in.AddrSize == 4
	}
	high := func(v uint64) uint64 { // what the address size ignores
		if in.AddrSize == 4 {
			return v&0xffffffff | s.Uint64()<<32
		}
		return v
	}
	switch {
	case in.Base == x86.RIP:
		return setDisp(*t - (c.at + uint64(len(c.code))))
	case in.Base == x86.RegZero && in.Index == x86.RegZero:
		return setDisp(*t)
	case in.Base == x86.RegZero:
		x := uint64(s.IntN(1<<16)) - 1<<15
		regs[in.Index] = high(x)
		return setDisp(*t - x<<in.Scale)
	case in.Index == x86.RegZero:
		regs[in.Base] = high(*t - in.Disp)
	case in.Base == in.Index:
		k := 1 + uint64(1)<<in.Scale
		x := (*t - in.Disp) / k
		if disp32 {
			x = (*t - uint64(s.IntN(1<<20))) / k
			if !setDisp(*t - x*k) {
				return false
			}
		} else {
			*t = x*k + in.Disp
		}
		regs[in.Base] = high(x)
	default:
		x := s.integer()
		regs[in.Index] = x
		regs[in.Base] = high(*t - in.Disp - x<<in.Scale)
	}
	return true
}

func usesStack(op x86.Op) bool {
	switch op {
	case x86.OpPUSH, x86.OpPOP, x86.OpPUSHA, x86.OpPOPA, x86.OpENTER, x86.OpLEAVE, x86.OpCALL, x86.OpRET,
		x86.OpPUSHF, x86.OpPOPF, x86.OpPUSHSeg, x86.OpPOPSeg, x86.OpCALLF, x86.OpRETF, x86.OpIRET:
		return true
	}
	return false
}
