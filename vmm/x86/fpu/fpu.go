package fpu

import "fmt"

// Context is where an instruction finds its operands and leaves its results. On amd64 it lives
// outside the Go heap, at a 64-byte boundary; the offsets are part of the stubs.
type Context struct {
	Dst   [16]byte // XMM1 or MM1
	Src   [16]byte // XMM2 or MM2, or the memory operand of an x87 instruction
	Mask  [16]byte // XMM0
	GPR   uint64   // RAX
	GPR2  uint64   // RDX: the lengths of PCMPESTRx
	Count uint64   // RCX: its result
	MXCSR uint32   // Preconditions: all exceptions are masked
	host  uint32
	Flags uint16 // AH as LAHF gives it, AL as SETO
	_     [6]byte
	_     [24]byte
	FX    [512]byte // x87 state, as FXSAVE64 lays it out
}

// Unit executes the instructions of one processor.
type Unit struct {
	*Context
	native *native          // nil: all is done in software
	ops    []func(*Context) // what is done in software; a Stub is an index, plus one, or the address of generated code
	stubs  map[string]Stub
}

// Stub is one instruction, ready to be called. The zero value is none.
type Stub uintptr

// New returns a unit that executes on the host's own where that can be, and in software elsewhere.
func New() (*Unit, error) {
	n, c, err := newNative()
	if err != nil {
		return nil, fmt.Errorf("floating-point stubs: %w", err)
	}
	if n == nil {
		return NewSoftware(), nil
	}
	return &Unit{Context: c, native: n, stubs: map[string]Stub{}}, nil
}

// NewSoftware returns a unit that executes in software.
func NewSoftware() *Unit { return &Unit{Context: new(Context), stubs: map[string]Stub{}} }

// Close frees the unit.
func (u *Unit) Close() error {
	if u.native == nil {
		return nil
	}
	return u.native.close(u.Context)
}

// Call executes an instruction.
func (u *Unit) Call(s Stub) {
	if s > Stub(len(u.ops)) { // nothing is mapped at addresses so low
		u.native.call(s, u.Context)
		return
	}
	u.ops[s-1](u.Context)
}

// Class says what there is around an instruction.
type Class uint8

const (
	// Float: MXCSR matters.
	Float Class = 1 << iota
	// MMX registers instead of XMM.
	MMX
	// Flags are a result.
	Flags
	// Implicit: XMM0, RDX and RCX are operands.
	Implicit
	// ToXMM, with MMX: the result is an XMM register all the same.
	ToXMM
)

// Vector returns the vector instruction with these bytes, whose register operands are XMM1 or MM1 or
// RAX (reg) and XMM2 or MM2 or RAX (r/m). Preconditions: it is one that a stub may execute.
func (u *Unit) Vector(class Class, code []byte) Stub {
	key := string(rune(class)) + string(code)
	s, ok := u.stubs[key]
	switch {
	case ok:
	case u.native != nil && !approximate(code):
		s = u.native.vector(class, code)
		u.stubs[key] = s
	default:
		s = u.software(key, compileVector(class, code))
	}
	return s
}

// X87 returns an x87 instruction: its opcode byte (D8 to DF) and ModRM. A memory operand is Context.Src.
func (u *Unit) X87(opcode, modrm byte) Stub {
	if modrm < 0xc0 {
		modrm &= 0x38 // the operand is in the context, whatever its address was
	}
	key := string([]byte{opcode, modrm})
	s, ok := u.stubs[key]
	switch {
	case ok:
	case u.native != nil && !varies(opcode, modrm):
		s = u.native.x87(opcode, modrm)
		u.stubs[key] = s
	default:
		x := new(x87) // once: it is called often
		s = u.software(key, func(c *Context) { x.run(c, opcode, modrm) })
	}
	return s
}

// approximate reports whether processors differ in what a vector instruction does, because it is an approximation.
func approximate(code []byte) bool {
	op := parseVector(0, code).opcode
	return op == 0x52 || op == 0x53
}

// varies reports whether processors differ in what an x87 instruction does: in the last bits of the transcendentals, by how
// much FPREM and FPREM1 reduce a dividend at a time, and in what digits above nine are worth to FBLD.
func varies(opcode, modrm byte) bool {
	switch opcode {
	case 0xd9:
		return modrm >= 0xf0 && modrm != 0xf4 && modrm != 0xf6 && modrm != 0xf7 && modrm != 0xfa && modrm != 0xfc && modrm != 0xfd
	case 0xdf:
		return modrm == 4<<3
	}
	return false
}

func (u *Unit) software(key string, op func(*Context)) Stub {
	u.ops = append(u.ops, op)
	s := Stub(len(u.ops))
	u.stubs[key] = s
	return s
}
