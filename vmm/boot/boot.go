package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"refault/vmm/mem"
)

var le = binary.LittleEndian

// Errors that a kernel or initrd can cause. All are wrapped with what was found.
var (
	// ErrNotKernel: the file is no kernel that this package knows.
	ErrNotKernel = errors.New("not a kernel (want a Linux bzImage, an ELF vmlinux or a Multiboot 1 ELF)")
	// ErrDamaged: the file is a kernel, and broken.
	ErrDamaged = errors.New("damaged kernel")
	// ErrPlace: the kernel wants to lie where the loader or the firmware has something.
	ErrPlace = errors.New("the kernel cannot be loaded there")
	// ErrTooLarge: something does not fit the guest's memory.
	ErrTooLarge = errors.New("does not fit the guest's memory; give the machine more with --memory")
)

// Blob is something that firmware leaves in memory.
type Blob struct {
	Addr  uint64
	Bytes []byte
}

// Config says what to boot.
type Config struct {
	Kernel, Initrd []byte
	CommandLine    string
	// Firmware is put in memory as it is; RSDP is the address of the ACPI root pointer in it.
	Firmware []Blob
	RSDP     uint64
}

// Mode is the mode in which the processor enters the kernel.
type Mode uint8

const (
	// Protected32: flat 32-bit protected mode, paging off.
	Protected32 Mode = iota + 1
	// Long64: 64-bit mode on identity-mapping tables.
	Long64
)

// Entry is the processor's state at the kernel's first instruction.
type Entry struct {
	Mode               Mode
	RIP                uint64
	RAX, RBX, RSI, RSP uint64
	CR3                uint64 // Long64
	GDTBase            uint64
	GDTLimit           uint16
	CS, DS             uint16 // selectors of the flat segments
}

// Where the loader keeps its things in low memory.
const (
	tablesAt      = 0x80000 // PML4, PDPT, four page directories: the first 4 GiB
	gdtAt         = 0x8f000
	bootParamsAt  = 0x90000
	commandLineAt = 0x91000
	multibootAt   = 0x94000
	lowEnd        = 0x9fc00
	highMemory    = 0x100000

	commandLineMax = 2048
)

// Load fills RAM and returns where to start.
func Load(ram *mem.RAM, cfg Config) (*Entry, error) {
	for _, b := range cfg.Firmware {
		if !ram.WriteAt(b.Bytes, b.Addr) {
			return nil, fmt.Errorf("firmware tables at %#x: %w", b.Addr, ErrTooLarge)
		}
	}
	if len(cfg.CommandLine) >= commandLineMax {
		return nil, fmt.Errorf("command line of %d bytes; the kernel takes up to %d", len(cfg.CommandLine), commandLineMax-1)
	}
	switch k := cfg.Kernel; {
	case isBzImage(k):
		return loadBzImage(ram, cfg)
	case multibootHeader(k) >= 0:
		return loadMultiboot(ram, cfg)
	case bytes.HasPrefix(k, []byte(elf.ELFMAG)):
		return loadVmlinux(ram, cfg, k, nil)
	}
	return nil, ErrNotKernel
}

// memoryMap is an entry of the BIOS memory map.
type memoryMap struct {
	addr, size uint64
	usable     bool
}

func e820(ram *mem.RAM) []memoryMap {
	m := []memoryMap{
		{0, lowEnd, true},
		{lowEnd, 0xa0000 - lowEnd, false},
		{0xe0000, 0x20000, false},
		{0x100000, ram.LowSize() - 0x100000, true},
	}
	if h := ram.HighSize(); h > 0 {
		m = append(m, memoryMap{mem.HighBase, h, true})
	}
	return m
}

// setupGDT writes a GDT of flat segments: 10H code, 18H data.
func setupGDT(ram *mem.RAM, e *Entry, code uint64) {
	var g [32]byte
	le.PutUint64(g[16:], code)
	le.PutUint64(g[24:], 0x00cf93000000ffff)
	ram.WriteAt(g[:], gdtAt)
	e.GDTBase, e.GDTLimit, e.CS, e.DS = gdtAt, uint16(len(g)-1), 0x10, 0x18
}

// setupTables maps the first 4 GiB one to one, with pages of 2 MiB.
func setupTables(ram *mem.RAM) uint64 {
	const present = 0x63 // with accessed and dirty
	put := func(at, v uint64) { ram.WriteAt(le.AppendUint64(nil, v), at) }
	put(tablesAt, tablesAt+0x1000|present)
	for i := range uint64(4) {
		put(tablesAt+0x1000+8*i, tablesAt+0x2000+i<<12|present)
		for j := range uint64(512) {
			put(tablesAt+0x2000+i<<12+8*j, i<<30|j<<21|0x80|present)
		}
	}
	return tablesAt
}

// segment is a part of a kernel that goes to memory.
type segment struct {
	addr      uint64
	off, have uint64 // the bytes in the file
	size      uint64 // in memory: the rest is zero
}

// loadSegments reads segments from a file to memory, in their order, and returns the end of the highest. entry has to be in one.
func loadSegments(ram *mem.RAM, file io.ReaderAt, segs []segment, entry uint64) (end uint64, err error) {
	entered := false
	for _, s := range segs {
		last := s.addr + s.size
		if last < s.addr || s.have > s.size {
			return 0, fmt.Errorf("a segment of %d bytes at %#x: %w", s.size, s.addr, ErrDamaged)
		}
		if s.addr < highMemory && last > tablesAt {
			return 0, fmt.Errorf("a segment at %#x to %#x; the loader and the firmware need %#x to %#x: %w", s.addr, last, tablesAt, highMemory, ErrPlace)
		}
		if last > ram.LowSize() {
			return 0, fmt.Errorf("kernel at %#x to %#x: %w", s.addr, last, ErrTooLarge)
		}
		end = max(end, last)
		entered = entered || entry-s.addr < s.size
	}
	if !entered {
		return 0, fmt.Errorf("%w: its entry point, %#x, is in none of its segments", ErrDamaged, entry)
	}
	for _, s := range segs {
		if n, err := file.ReadAt(ram.Overwrite(s.addr, int(s.have)), int64(s.off)); uint64(n) < s.have {
			return 0, err
		}
	}
	return end, nil
}

// executable is an ELF file whose segments can be read from file, in their order.
type executable struct {
	*elf.File
	segs []segment
	file io.ReaderAt
}

func newExecutable(f *elf.File, file io.ReaderAt) *executable {
	x := &executable{File: f, file: file}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Memsz != 0 {
			x.segs = append(x.segs, segment{p.Paddr, p.Off, p.Filesz, p.Memsz})
		}
	}
	return x
}

func readELF(k []byte) (*executable, error) {
	r := bytes.NewReader(k)
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	x := newExecutable(f, r)
	if len(x.segs) == 0 {
		return nil, fmt.Errorf("%w: nothing to load in the ELF file", ErrDamaged)
	}
	for _, s := range x.segs {
		if n := uint64(len(k)); s.off > n || s.have > n-s.off {
			return nil, errTruncated(s.off+s.have, n)
		}
	}
	return x, nil
}

func errTruncated(end, size uint64) error {
	return fmt.Errorf("%w: a segment ends at byte %d of %d: the file is truncated", ErrDamaged, end, size)
}

// placeInitrd copies the initrd below limit, and above the kernel.
func placeInitrd(ram *mem.RAM, initrd []byte, above, limit uint64) (addr uint64, err error) {
	top := min(ram.LowSize(), limit) &^ (mem.PageSize - 1)
	n := (uint64(len(initrd)) + mem.PageSize - 1) &^ (mem.PageSize - 1)
	if n > top || top-n < above {
		return 0, fmt.Errorf("initrd of %d bytes above the kernel's end at %#x: %w", len(initrd), above, ErrTooLarge)
	}
	ram.WriteAt(initrd, top-n)
	return top - n, nil
}
