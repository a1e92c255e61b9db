package mem

import "unsafe"

// flagSlice views mapped bytes as flags. Sound: Flags is a uint8, and the mapping outlives the RAM that holds it.
func flagSlice(b []byte) []Flags { return unsafe.Slice((*Flags)(unsafe.Pointer(&b[0])), len(b)) }

// flagBytes undoes flagSlice, so that the mapping can be unmapped as it was mapped.
func flagBytes(f []Flags) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(&f[0])), len(f)) }

// Host returns the host address of offset off, for TLB entries. Sound: the
// mapping is outside the Go heap, so it never moves, and TLBs die before Close.
func (r *RAM) Host(off uint64) unsafe.Pointer { return unsafe.Pointer(&r.data[off]) }
