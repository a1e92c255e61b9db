//go:build linux && amd64

package oracle

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	offRIP  = uint64(unsafe.Offsetof(context{}.RIP))
	offRegs = uint64(unsafe.Offsetof(context{}.Regs))
	offFar  = uint64(unsafe.Offsetof(context{}.far))
	offExit = uint64(unsafe.Offsetof(context{}.exit))
)

// mapFixed maps at an address. Sound: the range is reserved first without replacing anything, and lies outside the Go heap.
func mapFixed(addr, size uintptr, fd int, off int64, prot, flags int) error {
	p, _, e := unix.Syscall6(unix.SYS_MMAP, addr, size, uintptr(prot), uintptr(flags), uintptr(fd), uintptr(off))
	if e != 0 {
		return os.NewSyscallError("mmap", e)
	}
	if p != addr {
		return os.NewSyscallError("mmap", unix.EEXIST)
	}
	return nil
}

func unmapFixed(addr, size uintptr) error {
	_, _, e := unix.Syscall(unix.SYS_MUNMAP, addr, size, 0)
	return os.NewSyscallError("munmap", errno(e))
}

func errno(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// contextAt is the context at its fixed address. Sound: a page was mapped there, which is larger and zeroed.
func contextAt(addr uintptr) *context { return *(**context)(unsafe.Pointer(&addr)) }

// sigaction is the kernel's struct.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	saSiginfo  = 4
	saRestorer = 0x04000000
	saOnstack  = 0x08000000
)

// takeSignal makes handler the handler of a signal, on the alternate stack that Go's threads have.
func takeSignal(s unix.Signal, handler, restorer uintptr) (old sigaction, err error) {
	act := sigaction{handler: handler, flags: saSiginfo | saRestorer | saOnstack, restorer: restorer, mask: ^uint64(0)}
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&act)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	return old, errno(e)
}

// setSignal puts an action back. Sound: both structs have the kernel's layout.
func setSignal(s unix.Signal, act *sigaction) error {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(act)), 0, 8, 0, 0)
	return errno(e)
}
