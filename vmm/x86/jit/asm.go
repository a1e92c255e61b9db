//go:build linux && amd64

package jit

import "encoding/binary"

// Host registers, by their encoding.
const (
	hRAX = iota
	hRCX
	hRDX
	hRBX
	hRSP
	hRBP
	hRSI
	hRDI
	hR8
	hR9
	hR10
	hR11
	hR12
	hR13
	hR14
	hR15
	hNone = -1
)

// ins is an instruction without its operands: an optional mandatory prefix, an
// opcode (0x0F.., 0x0F38.. and 0x0F3A.. name the maps) and an operand size in
// bytes. A size of 8 makes REX.W, a size of 2 the prefix 66; rex forces a REX
// prefix, so that registers 4 to 7 are SPL to DIL.
type ins struct {
	pre  byte
	op   uint32
	size int
	rex  bool
}

// memop is a memory operand. base and index may be hNone.
type memop struct {
	base, index int
	scale       uint8
	disp        int32
}

// label is a place in code that may be jumped to before it is known.
type label struct {
	at int // or -1
	// ref is where the last displacement is that waits for it, or zero; that one says where the one before is.
	ref int
}

func newLabel() *label { return &label{at: -1} }

// asm assembles code that will lie at address base.
type asm struct {
	b    []byte
	base uintptr
}

func (a *asm) bytes(b ...byte) { a.b = append(a.b, b...) }

func (a *asm) imm32(v int32) { a.b = binary.LittleEndian.AppendUint32(a.b, uint32(v)) }

// imm emits the immediate of an operand of size bytes: at most four.
func (a *asm) imm(v int32, size int) {
	switch size {
	case 1:
		a.b = append(a.b, byte(v))
	case 2:
		a.b = binary.LittleEndian.AppendUint16(a.b, uint16(v))
	default:
		a.imm32(v)
	}
}

func (a *asm) opcode(i ins, reg, index, base int) {
	if i.size == 2 {
		a.b = append(a.b, 0x66)
	}
	if i.pre != 0 {
		a.b = append(a.b, i.pre)
	}
	rex := byte(reg>>3&1<<2 | index>>3&1<<1 | base>>3&1)
	if i.size == 8 {
		rex |= 8
	}
	if rex != 0 || i.rex {
		a.b = append(a.b, 0x40|rex)
	}
	switch {
	case i.op > 0xffff:
		a.b = append(a.b, 0x0f, byte(i.op>>8), byte(i.op))
	case i.op > 0xff:
		a.b = append(a.b, 0x0f, byte(i.op))
	default:
		a.b = append(a.b, byte(i.op))
	}
}

// rr emits an instruction with two register operands, by their ModRM fields.
func (a *asm) rr(i ins, reg, rm int) {
	if i.size == 1 && (reg >= 4 && reg < 8 || rm >= 4 && rm < 8) {
		i.rex = true
	}
	a.opcode(i, reg, 0, rm)
	a.b = append(a.b, byte(0xc0|reg&7<<3|rm&7))
}

// rm emits an instruction with a register and a memory operand.
func (a *asm) rm(i ins, reg int, m memop) {
	if i.size == 1 && reg >= 4 && reg < 8 {
		i.rex = true
	}
	a.opcode(i, reg, max(m.index, 0), max(m.base, 0))
	a.operand(reg, m)
}

// ext emits an instruction whose ModRM.reg extends the opcode, with a register operand.
func (a *asm) ext(i ins, digit, rm int) {
	if i.size == 1 && rm >= 4 && rm < 8 {
		i.rex = true
	}
	a.opcode(i, 0, 0, rm)
	a.b = append(a.b, byte(0xc0|digit<<3|rm&7))
}

// extm is ext with a memory operand.
func (a *asm) extm(i ins, digit int, m memop) {
	a.opcode(i, 0, max(m.index, 0), max(m.base, 0))
	a.operand(digit, m)
}

// operand emits ModRM, SIB and displacement.
func (a *asm) operand(reg int, m memop) {
	r := byte(reg & 7 << 3)
	if m.base == hNone {
		x := byte(4)
		if m.index != hNone {
			x = byte(m.index & 7)
		}
		a.b = append(a.b, r|4, m.scale<<6|x<<3|5)
		a.imm32(m.disp)
		return
	}
	mod := byte(0x80)
	switch {
	case m.disp == 0 && m.base&7 != 5:
		mod = 0
	case m.disp == int32(int8(m.disp)):
		mod = 0x40
	}
	if m.index != hNone || m.base&7 == 4 {
		x := byte(4)
		if m.index != hNone {
			x = byte(m.index & 7)
		}
		a.b = append(a.b, mod|r|4, m.scale<<6|x<<3|byte(m.base&7))
	} else {
		a.b = append(a.b, mod|r|byte(m.base&7))
	}
	switch mod {
	case 0x40:
		a.b = append(a.b, byte(m.disp))
	case 0x80:
		a.imm32(m.disp)
	}
}

// at is the memory operand [base+disp].
func at(base int, disp int32) memop { return memop{base: base, index: hNone, disp: disp} }

func (a *asm) mov(dst, src int) {
	if dst != src {
		a.rr(ins{op: 0x8b, size: 8}, dst, src)
	}
}
func (a *asm) mov32(dst, src int)          { a.rr(ins{op: 0x8b, size: 4}, dst, src) }
func (a *asm) load(dst int, m memop)       { a.rm(ins{op: 0x8b, size: 8}, dst, m) }
func (a *asm) store(m memop, src int)      { a.rm(ins{op: 0x89, size: 8}, src, m) }
func (a *asm) lea(dst int, m memop)        { a.rm(ins{op: 0x8d, size: 8}, dst, m) }
func (a *asm) lea32(dst int, m memop)      { a.rm(ins{op: 0x8d, size: 4}, dst, m) }
func (a *asm) storeImm32(m memop, v int32) { a.extm(ins{op: 0xc7, size: 4}, 0, m); a.imm32(v) }
func (a *asm) storeImm8(m memop, v byte)   { a.extm(ins{op: 0xc6, size: 1}, 0, m); a.bytes(v) }

// aluImm emits one of the eight ALU operations with an immediate.
func (a *asm) aluImm(op, size, rm int, v int32) {
	switch {
	case size == 1:
		a.ext(ins{op: 0x80, size: 1}, op, rm)
		a.bytes(byte(v))
	case v == int32(int8(v)):
		a.ext(ins{op: 0x83, size: size}, op, rm)
		a.bytes(byte(v))
	default:
		a.ext(ins{op: 0x81, size: size}, op, rm)
		a.imm(v, size)
	}
}

// aluImmRAX is aluImm for the whole of RAX and an immediate of more than a byte.
func (a *asm) aluImmRAX(op int, v int32) {
	a.bytes(0x48, byte(op<<3|5))
	a.imm32(v)
}

// aluImmMem is aluImm with a memory operand.
func (a *asm) aluImmMem(op, size int, m memop, v int32) {
	switch {
	case size == 1:
		a.extm(ins{op: 0x80, size: 1}, op, m)
		a.bytes(byte(v))
	case v == int32(int8(v)):
		a.extm(ins{op: 0x83, size: size}, op, m)
		a.bytes(byte(v))
	default:
		a.extm(ins{op: 0x81, size: size}, op, m)
		a.imm(v, size)
	}
}

// movConst loads a constant, in the shortest way that leaves the flags.
func (a *asm) movConst(dst int, v uint64) {
	switch {
	case v == uint64(uint32(v)):
		a.opcode(ins{op: 0xb8 | uint32(dst&7), size: 4}, 0, 0, dst)
		a.imm32(int32(v))
	case int64(v) == int64(int32(v)):
		a.ext(ins{op: 0xc7, size: 8}, 0, dst)
		a.imm32(int32(v))
	default:
		a.opcode(ins{op: 0xb8 | uint32(dst&7), size: 8}, 0, 0, dst)
		a.b = binary.LittleEndian.AppendUint64(a.b, v)
	}
}

func (a *asm) bind(l *label) { a.bindAt(l, len(a.b)) }

func (a *asm) bindAt(l *label, to int) {
	l.at = to
	for l.ref != 0 {
		before := int(binary.LittleEndian.Uint32(a.b[l.ref:]))
		a.fix(l.ref, to)
		l.ref = before
	}
}

func (a *asm) fix(ref, to int) {
	binary.LittleEndian.PutUint32(a.b[ref:], uint32(int32(to-ref-4)))
}

func (a *asm) ref(l *label) {
	p := len(a.b)
	a.imm32(int32(l.ref))
	if l.at >= 0 {
		a.fix(p, l.at)
	} else {
		l.ref = p
	}
}

func (a *asm) jcc(cc byte, l *label) { a.bytes(0x0f, 0x80|cc); a.ref(l) }
func (a *asm) jmp(l *label)          { a.bytes(0xe9); a.ref(l) }

// jmpTo jumps to an address outside this code.
func (a *asm) jmpTo(target uintptr) {
	a.bytes(0xe9)
	a.imm32(int32(int64(target) - int64(a.base) - int64(len(a.b)) - 4))
}

// Condition codes.
const (
	ccO  = 0
	ccB  = 2
	ccAE = 3
	ccE  = 4
	ccNE = 5
	ccBE = 6
	ccA  = 7
	ccS  = 8
	ccGE = 13

	ccAlways = 0xff // no condition
)
