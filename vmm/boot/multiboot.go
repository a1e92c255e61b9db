package boot

import (
	"bytes"
	"debug/elf"
	"fmt"

	"refault/vmm/mem"
)

// Multiboot 1 (Multiboot Specification 0.6.96), as QEMU's -kernel takes it.
const (
	mbMagic       = 0x1badb002
	mbLoaderMagic = 0x2badb002
	mbSearch      = 8192

	mbPageAlign = 1 << 0
	mbMemory    = 1 << 1
	mbVideo     = 1 << 2
	mbAddresses = 1 << 16 // the header says where to load

	mbInfoMemory  = 1 << 0
	mbInfoCmdline = 1 << 2
	mbInfoModules = 1 << 3
	mbInfoMap     = 1 << 6
	mbInfoName    = 1 << 9
)

// multibootHeader returns the offset of the Multiboot header, or -1.
func multibootHeader(k []byte) int {
	for at := 0; at+12 <= min(len(k), mbSearch); at += 4 {
		if le.Uint32(k[at:]) == mbMagic && le.Uint32(k[at:])+le.Uint32(k[at+4:])+le.Uint32(k[at+8:]) == 0 {
			return at
		}
	}
	return -1
}

// physicalEntry returns the physical address of an ELF file's entry point. The file
// gives a virtual one, which is another where a kernel is linked to be mapped elsewhere.
func physicalEntry(f *elf.File) uint64 {
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && f.Entry-p.Vaddr < p.Filesz {
			return f.Entry - p.Vaddr + p.Paddr
		}
	}
	return f.Entry
}

func loadMultiboot(ram *mem.RAM, cfg Config) (*Entry, error) {
	k := cfg.Kernel
	at := multibootHeader(k)
	flags := le.Uint32(k[at+4:])
	if unknown := flags & 0xffff &^ (mbPageAlign | mbMemory | mbVideo); unknown != 0 {
		return nil, fmt.Errorf("the Multiboot header requires features %#x that this loader does not have: %w", unknown, ErrNotKernel)
	}
	var segs []segment
	var entry uint64
	if flags&mbAddresses != 0 {
		if at+32 > len(k) {
			return nil, fmt.Errorf("%w: its Multiboot header is cut off", ErrDamaged)
		}
		u := func(i int) uint64 { return uint64(le.Uint32(k[at+i:])) }
		header, load, loadEnd, bss := u(12), u(16), u(20), u(24)
		entry = u(28)
		start := uint64(at) - (header - load)
		if load > header || start > uint64(at) {
			return nil, fmt.Errorf("%w: its Multiboot header gives load address %#x for a header at %#x", ErrDamaged, load, header)
		}
		have := uint64(len(k)) - start
		if loadEnd != 0 {
			if loadEnd < load || loadEnd-load > have {
				return nil, fmt.Errorf("%w: its Multiboot header asks for bytes beyond the file", ErrDamaged)
			}
			have = loadEnd - load
		}
		size := have
		if bss > load+size {
			size = bss - load
		}
		segs = []segment{{load, start, have, size}}
	} else {
		if !bytes.HasPrefix(k, []byte(elf.ELFMAG)) {
			return nil, fmt.Errorf("a Multiboot header without addresses in a file that is no ELF: %w", ErrNotKernel)
		}
		x, err := readELF(k)
		if err != nil {
			return nil, err
		}
		segs, entry = x.segs, physicalEntry(x.File)
	}
	end, err := loadSegments(ram, bytes.NewReader(k), segs, entry)
	if err != nil {
		return nil, err
	}

	info := make([]byte, 120)
	infoFlags := uint32(mbInfoMemory | mbInfoCmdline | mbInfoMap | mbInfoName)
	le.PutUint32(info[4:], lowEnd>>10)
	le.PutUint32(info[8:], uint32((ram.LowSize()-0x100000)>>10))
	next := uint64(multibootAt + len(info))
	put := func(b []byte) uint64 {
		a := next
		ram.WriteAt(b, a)
		next = (a + uint64(len(b)) + 7) &^ 7
		return a
	}
	le.PutUint32(info[16:], uint32(put(append([]byte("kernel "+cfg.CommandLine), 0))))
	if len(cfg.Initrd) > 0 {
		a, err := placeInitrd(ram, cfg.Initrd, end, 0xffffffff)
		if err != nil {
			return nil, err
		}
		infoFlags |= mbInfoModules
		var m [16]byte
		le.PutUint32(m[0:], uint32(a))
		le.PutUint32(m[4:], uint32(a)+uint32(len(cfg.Initrd)))
		le.PutUint32(m[8:], uint32(put([]byte("initrd\x00"))))
		le.PutUint32(info[20:], 1)
		le.PutUint32(info[24:], uint32(put(m[:])))
	}
	var mm []byte
	for _, r := range e820(ram) {
		typ := uint32(2)
		if r.usable {
			typ = 1
		}
		mm = le.AppendUint32(mm, 20)
		mm = le.AppendUint64(mm, r.addr)
		mm = le.AppendUint64(mm, r.size)
		mm = le.AppendUint32(mm, typ)
	}
	le.PutUint32(info[44:], uint32(len(mm)))
	le.PutUint32(info[48:], uint32(put(mm)))
	le.PutUint32(info[64:], uint32(put([]byte("refault\x00"))))
	le.PutUint32(info[0:], infoFlags)
	ram.WriteAt(info, multibootAt)

	e := &Entry{Mode: Protected32, RIP: entry, RAX: mbLoaderMagic, RBX: multibootAt, RSP: lowEnd}
	setupGDT(ram, e, 0x00cf9b000000ffff)
	return e, nil
}
