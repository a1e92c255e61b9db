//go:build amd64

package fpu

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newContext maps a Context. Sound: the mapping is page-aligned, zeroed, larger than a Context, and holds no Go pointers.
func newContext() (*Context, error) {
	p, err := unix.MmapPtr(-1, 0, nil, unsafe.Sizeof(Context{}), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("floating-point context: %w", err)
	}
	return (*Context)(p), nil
}

func freeContext(c *Context) error { return unix.MunmapPtr(unsafe.Pointer(c), unsafe.Sizeof(*c)) }

// contextAddr is for generated code. Sound: a Context is outside the Go heap and does not move.
func contextAddr(c *Context) uintptr { return uintptr(unsafe.Pointer(c)) }

// sliceAddr is the address of mapped memory, which does not move either.
func sliceAddr(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

// The stubs' offsets are those of the fields.
var _ = [1]struct{}{}[unsafe.Offsetof(Context{}.FX)-offFX+unsafe.Offsetof(Context{}.Flags)-offFlags+
	unsafe.Offsetof(Context{}.MXCSR)-offMXCSR+unsafe.Offsetof(Context{}.GPR)-offGPR+
	unsafe.Offsetof(Context{}.Count)-offCount+unsafe.Offsetof(Context{}.host)-offHost]
