// Package tiny is a guest for unit tests: a bare-metal kernel that runs a few
// million instructions in milliseconds and meets, in each of its rounds, timer
// and disk interrupts, paging that changes under its feet, string instructions,
// floating point, the time-stamp counter, the random generator, halts, and
// whatever is typed at its console. tiny.S is its source, with the way to build it.
package tiny

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"encoding/binary"

	"refault/vmm/dev/disk"
)

// Kernel is the guest: an ELF file with a Multiboot 1 header. Its command line is
// the number of its rounds, each about 43,000 instructions.
//
//go:embed tiny.elf
var Kernel []byte

// MemoryBytes is how much memory it needs.
const MemoryBytes = 4 << 20

// ExitStatus is the status with which it ends when all went well.
const ExitStatus = 0x31<<1 | 1

// Disk returns the disk that it wants: 256 sectors of numbers.
func Disk() disk.Bytes {
	b := make(disk.Bytes, 256*disk.SectorSize)
	x := uint32(1)
	for i := 0; i < len(b); i += 4 {
		x = x*1664525 + 1013904223
		binary.LittleEndian.PutUint32(b[i:], x)
	}
	return b
}

// Symbol returns the address of a label of tiny.S.
func Symbol(name string) uint64 {
	f, err := elf.NewFile(bytes.NewReader(Kernel))
	if err != nil {
		panic("BUG: tiny.elf: " + err.Error())
	}
	symbols, err := f.Symbols()
	if err != nil {
		panic("BUG: tiny.elf: " + err.Error())
	}
	for _, s := range symbols {
		if s.Name == name {
			return s.Value
		}
	}
	panic("BUG: tiny.S has no label " + name)
}
