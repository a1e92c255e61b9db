package x86

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"refault/vmm/mem"
)

var _ = [1]struct{}{}[unsafe.Sizeof(tlbEntry{})-TLBEntryBytes]

// Each fast path dereferences addend+va as a host address. Sound: lookup set
// the entry from a page of the RAM mapping, which outlives the CPU and is outside
// the Go heap, and the comparison keeps the access within that page.

func (e *tlbEntry) host(va uint64) unsafe.Pointer { return unsafe.Add(nil, e.addend+va) }

// Load8 reads a byte at linear address va.
func (c *CPU) Load8(va uint64) uint8 {
	if e := &c.mmu.view[va>>mem.PageShift%tlbSize]; e.reads(va) {
		return *(*uint8)(e.host(va))
	}
	return uint8(c.loadSlow(va, 1))
}

// Load16 reads two bytes at linear address va.
func (c *CPU) Load16(va uint64) uint16 {
	if e := &c.mmu.view[va>>mem.PageShift%tlbSize]; e.reads(va) && va%mem.PageSize <= mem.PageSize-2 {
		return binary.LittleEndian.Uint16((*[2]byte)(e.host(va))[:])
	}
	return uint16(c.loadSlow(va, 2))
}

// Load32 reads four bytes at linear address va.
func (c *CPU) Load32(va uint64) uint32 {
	if e := &c.mmu.view[va>>mem.PageShift%tlbSize]; e.reads(va) && va%mem.PageSize <= mem.PageSize-4 {
		return binary.LittleEndian.Uint32((*[4]byte)(e.host(va))[:])
	}
	return uint32(c.loadSlow(va, 4))
}

// Load64 reads eight bytes at linear address va.
func (c *CPU) Load64(va uint64) uint64 {
	if e := &c.mmu.view[va>>mem.PageShift%tlbSize]; e.reads(va) && va%mem.PageSize <= mem.PageSize-8 {
		return binary.LittleEndian.Uint64((*[8]byte)(e.host(va))[:])
	}
	return c.loadSlow(va, 8)
}

// Store8 writes a byte at linear address va.
func (c *CPU) Store8(va uint64, v uint8) {
	if e := &c.mmu.view[va>>mem.PageShift%tlbSize]; e.writes(va) {
		*(*uint8)(e.host(va)) = v
		return
	}
	c.storeSlow(va, uint64(v), 1)
}

// Store16 writes two bytes at linear address va.
func (c *CPU) Store16(va uint64, v uint16) {
	if e := &c.mmu.view[va>>mem.PageShift%tlbSize]; e.writes(va) && va%mem.PageSize <= mem.PageSize-2 {
		binary.LittleEndian.PutUint16((*[2]byte)(e.host(va))[:], v)
		return
	}
	c.storeSlow(va, uint64(v), 2)
}

// Store32 writes four bytes at linear address va.
func (c *CPU) Store32(va uint64, v uint32) {
	if e := &c.mmu.view[va>>mem.PageShift%tlbSize]; e.writes(va) && va%mem.PageSize <= mem.PageSize-4 {
		binary.LittleEndian.PutUint32((*[4]byte)(e.host(va))[:], v)
		return
	}
	c.storeSlow(va, uint64(v), 4)
}

// Store64 writes eight bytes at linear address va.
func (c *CPU) Store64(va uint64, v uint64) {
	if e := &c.mmu.view[va>>mem.PageShift%tlbSize]; e.writes(va) && va%mem.PageSize <= mem.PageSize-8 {
		binary.LittleEndian.PutUint64((*[8]byte)(e.host(va))[:], v)
		return
	}
	c.storeSlow(va, v, 8)
}

// hostAddr returns the host address of RAM offset off.
func (c *CPU) hostAddr(off uint64) uint64 { return uint64(uintptr(c.RAM.Host(off))) }

// EngineBytes is the size of an engine's own part of an area, NearBytes that of another one, which lies NearAt bytes
// behind the State and ends where the TLB of user programs begins: code is shortest for what is near to what it points at.
const (
	EngineBytes = 4 << 20
	NearBytes   = 160
	NearAt      = int32(unsafe.Offsetof(area{}.near))
)

// area is one mapping outside the Go heap with everything of a processor that generated
// code touches, at fixed offsets from the State at its beginning.
type area struct {
	state  State
	_      [4096 - (unsafe.Sizeof(State{})+NearBytes)%4096]byte
	near   [NearBytes]byte
	tlbs   tlbs
	engine [EngineBytes]byte
}

const (
	hugePage  = 2 << 20 // the size of the host's large pages
	areaBytes = (unsafe.Sizeof(area{}) + mem.PageSize - 1) &^ (mem.PageSize - 1)
)

// newArea maps an area, in large pages if the host gives them: a guest that reads all over its memory reads all over
// the TLBs, too. Sound: what is kept of the mapping is aligned, zeroed and larger than an area, which holds
// no Go pointers. The caller flushes the TLBs before use.
func newArea() (*area, error) {
	p, err := unix.MmapPtr(-1, 0, nil, areaBytes+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", areaBytes+hugePage, err)
	}
	before := -uintptr(p) % hugePage
	a := unsafe.Add(p, before)
	if before > 0 {
		err = unix.MunmapPtr(p, before)
	}
	err = errors.Join(err, unix.MunmapPtr(unsafe.Add(a, areaBytes), hugePage-before))
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", areaBytes, err)
	}
	// A host without large pages is only slower.
	_ = unix.Madvise(unsafe.Slice((*byte)(a), areaBytes), unix.MADV_HUGEPAGE)
	return (*area)(a), nil
}

func freeArea(a *area) error { return unix.MunmapPtr(unsafe.Pointer(a), areaBytes) }

// Layout returns where generated code finds the processor's state. Sound: an area does not move.
func (c *CPU) Layout() Layout {
	l := Layout{State: uintptr(unsafe.Pointer(c.area)), Engine: int(unsafe.Offsetof(c.area.engine))}
	for v := range l.Views {
		l.Views[v] = int(unsafe.Offsetof(c.area.tlbs) + unsafe.Sizeof(c.area.tlbs.data[0])*uintptr(v))
	}
	return l
}

// EngineArea and EngineNear return the engine's own parts of the area. Sound: they live as long as the processor.
func (c *CPU) EngineArea() *[EngineBytes]byte { return &c.area.engine }
func (c *CPU) EngineNear() *[NearBytes]byte   { return &c.area.near }

// writable reports whether a store at va would take the fast path.
func (c *CPU) writable(va uint64, n int) bool {
	e := &c.mmu.view[va>>mem.PageShift%tlbSize]
	return (e.writes(va) || e.notes(va)) && va%mem.PageSize <= mem.PageSize-uint64(n)
}

// notedOffset returns the offset into RAM of va where an entry grants a write that NoteWrite has to hear of. Sound: such
// an entry was made from an address within the mapping, as all are.
func (c *CPU) notedOffset(va uint64) (off uint64, ok bool) {
	e := &c.mmu.view[va>>mem.PageShift%tlbSize]
	if !e.notes(va) {
		return 0, false
	}
	off = e.addend + va - c.hostAddr(0)
	return off, c.RAM.Flags(off)&(mem.Code|mem.Table) != 0
}

// HostSpan returns the host memory behind the n bytes at va, where an access of the kind takes the fast
// path, and nil otherwise. Preconditions: the bytes lie in one page. The slice is good until the next
// access that is not to it.
func (c *CPU) HostSpan(va uint64, n int, kind Access) []byte {
	e := &c.mmu.view[va>>mem.PageShift%tlbSize]
	if !e.reads(va) || kind == Write && !e.writes(va) {
		return nil
	}
	return unsafe.Slice((*byte)(e.host(va)), n)
}
