package interp

import "unsafe"

// hostDistance returns how far a begins after b in memory, or zero if it begins
// before. Sound: the addresses are compared and never dereferenced.
func hostDistance(a, b []byte) uint64 {
	pa, pb := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	if pa <= pb {
		return 0
	}
	return uint64(pa - pb)
}
