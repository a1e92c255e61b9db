package bare

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
)

//go:generate nasm -f bin -o bare.elf bare.asm

// Kernel is the guest: a Multiboot 1 ELF file. It knows one word on its command
// line: rounds=N, how often hello goes around, 6 million instructions each.
//
//go:embed bare.elf
var Kernel []byte

// MemoryBytes is how much memory it needs.
const MemoryBytes = 8 << 20

// The disk: a directory of one file in the first sector, and the file.
const (
	DiskBytes = 1 << 20
	FileName  = "lines.txt"
	FileLBA   = 64 // its first sector

	sectorSize = 512
	diskMagic  = "REFAULT1"
)

const (
	fileLines    = 64
	fileLineSize = 64
)

// FileText returns what FileName holds: 4 KiB of numbered lines of 64 bytes, so
// that each sector, and each line that a damaged one changes, can be told by eye.
func FileText() []byte {
	var b bytes.Buffer
	for i := range fileLines {
		line := fmt.Sprintf("line %02d, sector %d of the file, byte %4d ", i, i*fileLineSize/sectorSize, i*fileLineSize)
		b.WriteString(line)
		for n := len(line); n < fileLineSize-1; n++ {
			b.WriteByte('a' + byte((i+n)%26))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// Disk returns the disk's content.
func Disk() []byte {
	b := make([]byte, DiskBytes)
	text := FileText()
	// The directory's only entry: magic, first sector, length, name.
	copy(b, diskMagic)
	binary.LittleEndian.PutUint32(b[8:], FileLBA)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(text)))
	copy(b[16:], FileName+"\x00")
	copy(b[FileLBA*sectorSize:], text)
	return b
}
