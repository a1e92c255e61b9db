//go:build linux && amd64

package jit

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"refault/vmm/x86"
)

// enter runs generated code at an address with a context. Sound: the code was
// made by this package, keeps to its context and returns.
//
//go:noescape
func enter(code, ctx uintptr)

// Offsets of what generated code uses in State, from where RSP points (see bias).
const (
	offRFLAGS = int32(unsafe.Offsetof(x86.State{}.RFLAGS)) - bias
	offFX     = int32(unsafe.Offsetof(x86.State{}.FX)) - bias
	offSeg    = int32(unsafe.Offsetof(x86.State{}.Seg)) - bias
	segSize   = int32(unsafe.Sizeof(x86.Segment{}))
	offKGS    = int32(unsafe.Offsetof(x86.State{}.KernelGSBase)) - bias
	offSel    = int32(unsafe.Offsetof(x86.Segment{}.Sel))
	offLimit  = int32(unsafe.Offsetof(x86.Segment{}.Limit))
	offAttr   = int32(unsafe.Offsetof(x86.Segment{}.Attr))
	offCPL    = int32(unsafe.Offsetof(x86.State{}.CPL)) - bias
	offCR0    = int32(unsafe.Offsetof(x86.State{}.CR0)) - bias
	offCR2    = int32(unsafe.Offsetof(x86.State{}.CR2)) - bias
	offCR3    = int32(unsafe.Offsetof(x86.State{}.CR3)) - bias
	offCR4    = int32(unsafe.Offsetof(x86.State{}.CR4)) - bias
	offXCR0   = int32(unsafe.Offsetof(x86.State{}.XCR0)) - bias
	offSTAR   = int32(unsafe.Offsetof(x86.State{}.STAR)) - bias
	offLSTAR  = int32(unsafe.Offsetof(x86.State{}.LSTAR)) - bias
	offSFMASK = int32(unsafe.Offsetof(x86.State{}.SFMASK)) - bias
	offTSCAux = int32(unsafe.Offsetof(x86.State{}.TSCAux)) - bias
	offGDT    = int32(unsafe.Offsetof(x86.State{}.GDTR)) - bias
	offGDTLim = offGDT + int32(unsafe.Offsetof(x86.Table{}.Limit))
	offNMI    = int32(unsafe.Offsetof(x86.State{}.NMIBlocked)) - bias

	// And in the frame.
	frameAt   = x86.NearAt - bias
	offRegs   = frameAt + int32(unsafe.Offsetof(frame{}.regs))
	offBudget = frameAt + int32(unsafe.Offsetof(frame{}.budget))
	offExit   = frameAt + int32(unsafe.Offsetof(frame{}.exit))
	offXMM    = frameAt + int32(unsafe.Offsetof(frame{}.xmm)) // and behind it
	offX87    = frameAt + int32(unsafe.Offsetof(frame{}.x87))
	offFlags  = frameAt + int32(unsafe.Offsetof(frame{}.flags))
	offX87ID  = frameAt + int32(unsafe.Offsetof(frame{}.x87ID))

	sizeofTables = int(unsafe.Sizeof(tables{}))
	offScratch   = int32(unsafe.Offsetof(tables{}.scratch))
	offX87Area   = int32(unsafe.Offsetof(tables{}.x87))
	offApprox    = int32(unsafe.Offsetof(tables{}.approx))
)

// tablesOf views the engine's area. Sound: the area is larger, aligned to a page, and tables hold no Go pointers.
func tablesOf(c *x86.CPU) *tables { return (*tables)(unsafe.Pointer(c.EngineArea())) }

var _ = [1]struct{}{}[max(sizeofTables-x86.EngineBytes, 0)]

// frameOf views what lies near the TLBs. Sound: the frame is as large, at a multiple of 16 bytes, and holds no Go pointers.
func frameOf(c *x86.CPU) *frame { return (*frame)(unsafe.Pointer(c.EngineNear())) }

var _ = [1]struct{}{}[unsafe.Sizeof(frame{})-x86.NearBytes]

// FXSAVE and FXRSTOR want their images at multiples of 16 bytes.
var _ = [1]struct{}{}[(unsafe.Offsetof(x86.State{}.FX)|unsafe.Offsetof(tables{}.x87))%16]

// codeMemory is anonymous memory mapped twice: never writable and executable at once. Linux perf
// looks for the names of code in anonymous memory where SetCodeMap's users put them, and not
// for those in a memfd.
type codeMemory struct {
	rw, rx []byte
	used   int
}

func newCodeMemory(size int) (*codeMemory, error) {
	m := &codeMemory{}
	var err error
	if m.rw, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS); err != nil {
		return nil, fmt.Errorf("translated code: mapping it writable: %w", err)
	}
	// Of a shared mapping, an old size of zero makes a second one (mremap(2)).
	p, err := unix.MremapPtr(unsafe.Pointer(&m.rw[0]), 0, nil, uintptr(size), unix.MREMAP_MAYMOVE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("translated code: mapping it twice: %w", err), unix.Munmap(m.rw))
	}
	m.rx = unsafe.Slice((*byte)(p), size) // sound: it is that large, and stays until close
	if err := unix.Mprotect(m.rx, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return nil, errors.Join(fmt.Errorf("translated code: making it executable: %w", err), m.close())
	}
	return m, nil
}

// close unmaps both. Sound: nobody uses the code any more.
func (m *codeMemory) close() error {
	return errors.Join(unix.Munmap(m.rw), unix.MunmapPtr(unsafe.Pointer(&m.rx[0]), uintptr(len(m.rx))))
}

// addr is the executable address of offset off. Sound: the mapping does not move.
func (m *codeMemory) addr(off int) uintptr { return uintptr(unsafe.Pointer(&m.rx[0])) + uintptr(off) }
