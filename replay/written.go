package replay

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"refault/traces"
	"refault/vmm/dev/disk"
)

// Writes sums up what a machine writes to its disks. Its Add is a vmm.Observer's Wrote.
type Writes struct {
	sectors uint64
	sum     xxh3.Uint128
	order   xxh3.Hasher
}

// SectorHash is the hash of a sector that was written to a drive.
func SectorHash(drive int, lba uint64, b []byte) xxh3.Uint128 {
	return xxh3.Hash128Seed(b[:disk.SectorSize], lba+uint64(drive)<<56)
}

// Add notes sectors that were written to a drive.
func (w *Writes) Add(drive int, lba uint64, b []byte) {
	for ; len(b) > 0; b, lba = b[disk.SectorSize:], lba+1 {
		h := SectorHash(drive, lba, b)
		var carry uint64
		w.sum.Lo, carry = bits.Add64(w.sum.Lo, h.Lo, 0)
		w.sum.Hi, _ = bits.Add64(w.sum.Hi, h.Hi, carry)
		var one [16]byte
		binary.LittleEndian.PutUint64(one[:], h.Lo)
		binary.LittleEndian.PutUint64(one[8:], h.Hi)
		w.order.Write(one[:])
		w.sectors++
	}
}

// Take returns what was written since it was last called.
func (w *Writes) Take() (t traces.Written) {
	t.Sectors, t.Hash = w.sectors, w.order.Sum64()
	binary.LittleEndian.PutUint64(t.Sum[:], w.sum.Lo)
	binary.LittleEndian.PutUint64(t.Sum[8:], w.sum.Hi)
	w.sectors, w.sum = 0, xxh3.Uint128{}
	w.order.Reset()
	return t
}
