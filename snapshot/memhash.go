package snapshot

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"refault/traces"
	"refault/vmm/mem"
)

var zeroPage [mem.PageSize]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeroPage[:]) }

// MemHash is the hash of a memory: the sum over its pages, modulo 2^128, of a hash
// of the page's content keyed by its number. A page of zeros adds nothing. So an
// update costs the pages that were touched and no more.
type MemHash struct {
	sum   [2]uint64
	pages [][2]uint64
}

// NewMemHash returns the hash of a memory of n pages of zeros.
func NewMemHash(n int) *MemHash { return &MemHash{pages: make([][2]uint64, n)} }

// hashPage is the hash of one page, which the sum is of.
func hashPage(page int, content []byte) [2]uint64 {
	if isZero(content) {
		return [2]uint64{}
	}
	x := xxh3.Hash128Seed(content, uint64(page)+1)
	return [2]uint64{x.Lo, x.Hi}
}

// Update takes the new content of a page.
func (h *MemHash) Update(page int, content []byte) { h.set(page, hashPage(page, content)) }

// set takes the hash of the new content of a page.
func (h *MemHash) set(page int, v [2]uint64) {
	old := h.pages[page]
	var c uint64
	h.sum[0], c = bits.Sub64(h.sum[0], old[0], 0)
	h.sum[1], _ = bits.Sub64(h.sum[1], old[1], c)
	h.sum[0], c = bits.Add64(h.sum[0], v[0], 0)
	h.sum[1], _ = bits.Add64(h.sum[1], v[1], c)
	h.pages[page] = v
}

// Sum returns the hash of the whole memory.
func (h *MemHash) Sum() (s traces.Hash) {
	binary.LittleEndian.PutUint64(s[:], h.sum[0])
	binary.LittleEndian.PutUint64(s[8:], h.sum[1])
	return s
}

// PageHash returns the hash of one page: equal hashes, equal content.
func (h *MemHash) PageHash(page int) [2]uint64 { return h.pages[page] }
