package mem

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// PageSize is the size in bytes of the unit of protection, of flags and of snapshots.
	PageSize = 4096
	// PageShift is log2(PageSize).
	PageShift = 12
	// LowMax is the end, in bytes, of the RAM below 4 GiB; the rest starts at HighBase.
	LowMax = 3 << 30
	// HighBase is the physical address at which RAM beyond LowMax continues.
	HighBase = 4 << 30
	// MinSize is the smallest RAM that a PC's memory map can describe.
	MinSize = 1 << 20
	// MaxSize bounds RAM so that its two pieces fit the 40-bit physical addresses of the CPU model.
	MaxSize = 256 << 30
)

// Flags says who has to hear of a write to a page.
type Flags uint8

const (
	// Dirty: written since the last ClearDirty. A page without it must tell NoteWrite first.
	Dirty Flags = 1 << iota
	// Code: an engine holds code decoded or translated from this page.
	Code
	// Table: a page walk has read this page and a TLB may hold what it said.
	Table
	// Watched: a watchpoint, poison or a cache model wants every access.
	Watched
)

// RAM is the guest's physical memory. It is not safe for concurrent use.
type RAM struct {
	data  []byte  // mapped, outside the Go heap
	flags []Flags // mapped too, one a page: generated code may test them

	// OnWrite is called by NoteWrite for a write to a page that is Code, Table or
	// Watched, before the bytes change; off is an offset into RAM, and the write
	// does not cross a page. It is nil where no engine is attached.
	OnWrite func(off uint64, n int, flags Flags)

	// OnDirty, if set, is called before the first write to page n since the last
	// ClearDirty, while the page still holds what it held then.
	OnDirty func(page int)
	dirty   []int32 // the pages flagged Dirty, in the order of their first write
}

// ErrSize reports a RAM size that cannot be: not a whole number of pages, or out of bounds.
var ErrSize = errors.New("memory size must be a multiple of 4 KiB, at least 1 MiB and at most 256 GiB")

// New returns zeroed RAM of size bytes.
func New(size uint64) (*RAM, error) {
	if size%PageSize != 0 || size < MinSize || size > MaxSize {
		return nil, fmt.Errorf("%w (got %d bytes)", ErrSize, size)
	}
	const prot, private = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	data, err := unix.Mmap(-1, 0, int(size), prot, private|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("guest memory: mapping %d bytes: %w", size, err)
	}
	raw, err := unix.Mmap(-1, 0, int(size/PageSize), prot, private)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guest memory: mapping page flags: %w", err), unix.Munmap(data))
	}
	return &RAM{data: data, flags: flagSlice(raw)}, nil
}

// Close unmaps the memory. Nothing may use it, or a TLB filled from it, afterwards.
func (r *RAM) Close() error {
	if r.data == nil {
		return nil
	}
	err := errors.Join(unix.Munmap(r.data), unix.Munmap(flagBytes(r.flags)))
	r.data, r.flags = nil, nil
	return err
}

// Size returns the amount of RAM in bytes.
func (r *RAM) Size() uint64 { return uint64(len(r.data)) }

// Pages returns the amount of RAM in pages.
func (r *RAM) Pages() int { return len(r.flags) }

// Data returns all of RAM, by offset. A writer that uses it must call NoteWrite itself.
func (r *RAM) Data() []byte { return r.data }

// Page returns page n (by offset). A writer that uses it must call NoteWrite itself.
func (r *RAM) Page(n int) []byte {
	return r.data[n*PageSize : (n+1)*PageSize : (n+1)*PageSize]
}

// LowSize returns the number of bytes of RAM below 4 GiB.
func (r *RAM) LowSize() uint64 { return min(r.Size(), LowMax) }

// HighSize returns the number of bytes of RAM from HighBase on.
func (r *RAM) HighSize() uint64 { return r.Size() - r.LowSize() }

// Offset translates a physical address into an offset into RAM; ok is false where there is no RAM.
// The VGA window (A0000H to BFFFFH) is not RAM.
func (r *RAM) Offset(pa uint64) (off uint64, ok bool) {
	if pa < LowMax {
		return pa, pa < r.Size() && pa-0xa0000 >= 0x20000
	}
	off = pa - HighBase + LowMax
	return off, pa >= HighBase && off < r.Size()
}

// Addr is the inverse of Offset.
func (r *RAM) Addr(off uint64) (pa uint64) {
	if off < LowMax {
		return off
	}
	return off - LowMax + HighBase
}

// Flags returns the flags of the page that holds offset off.
func (r *RAM) Flags(off uint64) Flags { return r.flags[off>>PageShift] }

// SetFlags adds flags to the page that holds offset off. Setting Code, Table or
// Watched takes fast-path write permission away, so the caller must also make
// the TLBs forget the page.
func (r *RAM) SetFlags(off uint64, f Flags) { r.flags[off>>PageShift] |= f }

// ClearFlags removes flags from the page that holds offset off.
func (r *RAM) ClearFlags(off uint64, f Flags) { r.flags[off>>PageShift] &^= f }

// NoteWrite must be called before n bytes at offset off change, unless a TLB
// entry granted the write. Preconditions: the bytes lie in one page.
func (r *RAM) NoteWrite(off uint64, n int) {
	p := &r.flags[off>>PageShift]
	if *p&(Code|Table|Watched) != 0 && r.OnWrite != nil {
		r.OnWrite(off, n, *p)
	}
	if *p&Dirty == 0 {
		r.SetDirty(off)
	}
}

// SetDirty flags the page that holds offset off Dirty, before its first write.
func (r *RAM) SetDirty(off uint64) {
	n := off >> PageShift
	if r.flags[n]&Dirty != 0 {
		return
	}
	if r.OnDirty != nil {
		r.OnDirty(int(n))
	}
	r.flags[n] |= Dirty
	r.dirty = append(r.dirty, int32(n))
}

// ClearDirty calls visit for every dirty page in ascending order and clears the flag. It
// costs no more than there are such pages. The caller must make the TLBs forget their
// write permissions. Preconditions: visit writes nothing.
func (r *RAM) ClearDirty(visit func(page int)) {
	slices.Sort(r.dirty)
	for _, n := range r.dirty {
		r.flags[n] &^= Dirty
		visit(int(n))
	}
	r.dirty = r.dirty[:0]
}

// ReadAt copies from physical address pa into p. It reports false, having
// copied nothing, where any byte of the range is not RAM.
func (r *RAM) ReadAt(p []byte, pa uint64) bool {
	return r.each(pa, len(p), func(off uint64, at, n int) { copy(p[at:at+n], r.data[off:]) })
}

// WriteAt copies p to physical address pa, telling all who must hear of it. It
// reports false, having changed nothing, where any byte of the range is not RAM.
func (r *RAM) WriteAt(p []byte, pa uint64) bool {
	return r.each(pa, len(p), func(off uint64, at, n int) {
		r.NoteWrite(off, n)
		copy(r.data[off:], p[at:at+n])
	})
}

// Overwrite returns the n bytes at physical address pa, for the caller to write all of
// them, having told all who must hear of it. It returns nil where any of them is not RAM.
func (r *RAM) Overwrite(pa uint64, n int) []byte {
	start, ok := r.Offset(pa)
	if !ok || !r.each(pa, n, func(off uint64, _, n int) { r.NoteWrite(off, n) }) {
		return nil
	}
	return r.data[start:][:n:n] // in one piece, since there is no RAM on both sides of LowMax
}

// each splits [pa, pa+n) at page borders. It calls f only when all of it is RAM.
func (r *RAM) each(pa uint64, n int, f func(off uint64, at, n int)) bool {
	for at := 0; at < n; {
		a := pa + uint64(at)
		if _, ok := r.Offset(a); !ok || a < pa {
			return false
		}
		at += PageSize - int(a%PageSize)
	}
	for at := 0; at < n; {
		a := pa + uint64(at)
		off, _ := r.Offset(a)
		k := min(PageSize-int(a%PageSize), n-at)
		f(off, at, k)
		at += k
	}
	return true
}
