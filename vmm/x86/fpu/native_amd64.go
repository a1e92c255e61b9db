package fpu

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

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

// native holds the stubs of one unit.
type native struct {
	rw, rx []byte // one memfd, mapped twice: never writable and executable at once
	used   int
}

func newNative() (*native, *Context, error) {
	fd, err := unix.MemfdCreate("refault-stubs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, codeSize); err != nil {
		return nil, nil, err
	}
	n := &native{}
	if n.rw, err = unix.Mmap(fd, 0, codeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, nil, fmt.Errorf("mapping them writable: %w", err)
	}
	if n.rx, err = unix.Mmap(fd, 0, codeSize, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("mapping them executable: %w", err), unix.Munmap(n.rw))
	}
	c, err := newContext()
	if err != nil {
		return nil, nil, errors.Join(err, unix.Munmap(n.rw), unix.Munmap(n.rx))
	}
	c.host = 0x1f80
	return n, c, nil
}

func (n *native) close(c *Context) error {
	return errors.Join(freeContext(c), unix.Munmap(n.rw), unix.Munmap(n.rx))
}

func (n *native) call(s Stub, c *Context) { call(uintptr(s), contextAddr(c)) }

func call(code, ctx uintptr)

func (n *native) vector(class Class, code []byte) Stub {
	var a asm
	if class&Float != 0 {
		a.mem([]byte{0x0f, 0xae}, 2, offMXCSR) // ldmxcsr
	}
	if class&Implicit != 0 {
		a.mem([]byte{0x0f, 0x10}, 0, offMask)  // movups xmm0
		a.mem([]byte{0x48, 0x8b}, 2, offGPR2)  // mov rdx
		a.mem([]byte{0x48, 0x8b}, 1, offCount) // mov rcx
	}
	if class&MMX != 0 {
		a.mem([]byte{0x0f, 0x6f}, 1, offDst) // movq mm
		a.mem([]byte{0x0f, 0x6f}, 2, offSrc)
	}
	// An operand may be an XMM register all the same (CVTPI2PS, CVTPS2PI).
	a.mem([]byte{0x0f, 0x10}, 1, offDst) // movups
	a.mem([]byte{0x0f, 0x10}, 2, offSrc)
	a.mem([]byte{0x48, 0x8b}, 0, offGPR) // mov rax
	a.bytes(code...)
	if class&(MMX|ToXMM) == MMX {
		a.mem([]byte{0x0f, 0x7f}, 1, offDst)
	} else {
		a.mem([]byte{0x0f, 0x11}, 1, offDst)
	}
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
	return n.add(a)
}

func (n *native) x87(opcode, modrm byte) Stub {
	var a asm
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
	return n.add(a)
}

// add puts a stub into the code memory.
func (n *native) add(a asm) Stub {
	a.bytes(0xc3)
	if n.used+len(a.b) > codeSize {
		panic("BUG: more stubs than there are instructions")
	}
	copy(n.rw[n.used:], a.b)
	s := sliceAddr(n.rx) + uintptr(n.used)
	n.used += (len(a.b) + 15) &^ 15
	return Stub(s)
}

type asm struct{ b []byte }

func (a *asm) bytes(b ...byte) { a.b = append(a.b, b...) }

// mem emits an instruction with register field reg and memory operand [RDI+off].
func (a *asm) mem(op []byte, reg byte, off int) {
	a.b = append(a.b, op...)
	a.b = append(a.b, 0x87|reg<<3, byte(off), byte(off>>8), 0, 0)
}
