package fpu

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Context is where a stub finds its operands and leaves its results. It lives
// outside the Go heap, at a 64-byte boundary; the offsets are part of the stubs.
type Context struct {
	Dst   [16]byte // XMM1 or MM1
	Src   [16]byte // XMM2 or MM2, or the memory operand of an x87 instruction
	Mask  [16]byte // XMM0
	GPR   uint64   // RAX
	GPR2  uint64   // RDX: the lengths of PCMPESTRx
	Count uint64   // RCX: its result
	MXCSR uint32
	host  uint32
	Flags uint16 // AH as LAHF gives it, AL as SETO
	_     [6]byte
	_     [24]byte
	FX    [512]byte // x87 state, as FXSAVE64 lays it out
}

const (
	offDst   = 0
	offSrc   = 16
	offMask  = 32
	offGPR   = 48
	offGPR2  = 56
	offCount = 64
	offMXCSR = 72
	offHost  = 76
	offFlags = 80
	offFX    = 112
)

// codeSize bounds the stubs, in bytes. A guest can make one of each instruction that there is, and of each
// immediate: 80 forms with 256 immediates, with and without REX.W, of up to 192 bytes, are the bulk of it. Only what is used
// takes memory.
const codeSize = 16 << 20

// Unit holds the stubs and the context of one processor.
type Unit struct {
	*Context
	rw, rx []byte // one memfd, mapped twice: never writable and executable at once
	used   int
	stubs  map[string]uintptr
}

// New maps a unit.
func New() (*Unit, error) {
	fd, err := unix.MemfdCreate("refault-stubs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("floating-point stubs: memfd_create: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, codeSize); err != nil {
		return nil, fmt.Errorf("floating-point stubs: %w", err)
	}
	u := &Unit{stubs: map[string]uintptr{}}
	if u.rw, err = unix.Mmap(fd, 0, codeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("floating-point stubs: mapping them writable: %w", err)
	}
	if u.rx, err = unix.Mmap(fd, 0, codeSize, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED); err != nil {
		return nil, errors.Join(fmt.Errorf("floating-point stubs: mapping them executable: %w", err), unix.Munmap(u.rw))
	}
	if u.Context, err = newContext(); err != nil {
		return nil, errors.Join(err, unix.Munmap(u.rw), unix.Munmap(u.rx))
	}
	u.host = 0x1f80
	return u, nil
}

// Close unmaps the unit.
func (u *Unit) Close() error {
	return errors.Join(freeContext(u.Context), unix.Munmap(u.rw), unix.Munmap(u.rx))
}

// Stub is generated code for one instruction.
type Stub uintptr

// Call executes a stub.
func (u *Unit) Call(s Stub) { call(uintptr(s), contextAddr(u.Context)) }

func call(code, ctx uintptr)

// Class says what a stub has to load and store around its instruction.
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
)

// Vector returns the stub for the vector instruction with these bytes, whose
// register operands are XMM1 or MM1 or RAX (reg) and XMM2 or MM2 or RAX (r/m).
func (u *Unit) Vector(class Class, code []byte) Stub {
	return u.stub(string(rune(class))+string(code), func(a *asm) {
		if class&Float != 0 {
			a.mem([]byte{0x0f, 0xae}, 2, offMXCSR) // ldmxcsr
		}
		if class&Implicit != 0 {
			a.mem([]byte{0x0f, 0x10}, 0, offMask)  // movups xmm0
			a.mem([]byte{0x48, 0x8b}, 2, offGPR2)  // mov rdx
			a.mem([]byte{0x48, 0x8b}, 1, offCount) // mov rcx
		}
		load, store := []byte{0x0f, 0x10}, []byte{0x0f, 0x11} // movups
		if class&MMX != 0 {
			load, store = []byte{0x0f, 0x6f}, []byte{0x0f, 0x7f} // movq mm
			// An operand may be an XMM register all the same (CVTPI2PS, MOVDQ2Q).
			a.mem([]byte{0x0f, 0x10}, 1, offDst)
			a.mem([]byte{0x0f, 0x10}, 2, offSrc)
		}
		a.mem(load, 1, offDst)
		a.mem(load, 2, offSrc)
		a.mem([]byte{0x48, 0x8b}, 0, offGPR) // mov rax
		a.bytes(code...)
		a.mem(store, 1, offDst)
		if class&Flags != 0 {
			if class&Implicit != 0 {
				a.mem([]byte{0x48, 0x89}, 1, offCount)
				a.mem([]byte{0x0f, 0x11}, 0, offMask)
			}
			a.bytes(0x9f, 0x0f, 0x90, 0xc0) // lahf; seto al
			a.mem([]byte{0x66, 0x89}, 0, offFlags)
		} else {
			a.mem([]byte{0x48, 0x89}, 0, offGPR)
		}
		if class&Float != 0 {
			a.mem([]byte{0x0f, 0xae}, 3, offMXCSR) // stmxcsr
			a.mem([]byte{0x0f, 0xae}, 2, offHost)
		}
		if class&MMX != 0 {
			a.bytes(0x0f, 0x77) // emms
		}
	})
}

// VectorToXMM is Vector for an MMX-class instruction whose result is an XMM register.
func (u *Unit) VectorToXMM(class Class, code []byte) Stub {
	return u.stub("x"+string(rune(class))+string(code), func(a *asm) {
		a.mem([]byte{0x0f, 0xae}, 2, offMXCSR)
		a.mem([]byte{0x0f, 0x10}, 1, offDst)
		a.mem([]byte{0x0f, 0x6f}, 2, offSrc)
		a.bytes(code...)
		a.mem([]byte{0x0f, 0x11}, 1, offDst)
		a.mem([]byte{0x0f, 0xae}, 3, offMXCSR)
		a.mem([]byte{0x0f, 0xae}, 2, offHost)
		a.bytes(0x0f, 0x77)
	})
}

// X87 returns the stub for an x87 instruction: its opcode byte (D8 to DF) and ModRM. A
// memory operand is Context.Src.
func (u *Unit) X87(opcode, modrm byte) Stub {
	if modrm < 0xc0 {
		modrm &= 0x38 // the operand is in the context, whatever its address was
	}
	return u.stub(string([]byte{opcode, modrm}), func(a *asm) {
		a.mem([]byte{0x66, 0x8b}, 0, offFlags) // mov ax; sahf: for FCMOVcc
		a.bytes(0x9e)
		a.mem([]byte{0x48, 0x0f, 0xae}, 1, offFX) // fxrstor64
		if modrm < 0xc0 {
			a.mem([]byte{opcode}, modrm>>3&7, offSrc)
		} else {
			a.bytes(opcode, modrm)
		}
		a.bytes(0x9f) // lahf: of FCOMI
		a.mem([]byte{0x66, 0x89}, 0, offFlags)
		a.mem([]byte{0x48, 0x0f, 0xae}, 0, offFX) // fxsave64
		a.bytes(0xdb, 0xe3)                       // fninit
		a.mem([]byte{0x0f, 0xae}, 2, offHost)
	})
}

type asm struct{ b []byte }

func (a *asm) bytes(b ...byte) { a.b = append(a.b, b...) }

// mem emits an instruction with register field reg and memory operand [RDI+off].
func (a *asm) mem(op []byte, reg byte, off int) {
	a.b = append(a.b, op...)
	a.b = append(a.b, 0x87|reg<<3, byte(off), byte(off>>8), 0, 0)
}

func (u *Unit) stub(key string, gen func(a *asm)) Stub {
	if s, ok := u.stubs[key]; ok {
		return Stub(s)
	}
	var a asm
	gen(&a)
	a.bytes(0xc3)
	if u.used+len(a.b) > codeSize {
		panic("BUG: more stubs than there are instructions")
	}
	copy(u.rw[u.used:], a.b)
	s := sliceAddr(u.rx) + uintptr(u.used)
	u.used += (len(a.b) + 15) &^ 15
	u.stubs[key] = s
	return Stub(s)
}
