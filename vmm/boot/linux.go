package boot

import (
	"debug/elf"
	"fmt"
	"io"

	"refault/vmm/mem"
)

// Offsets in the boot parameters and, the same, in a bzImage (boot.rst, "The Real-Mode Kernel Header").
const (
	bpRSDP        = 0x070
	bpE820Count   = 0x1e8
	bpHeader      = 0x1f1
	bpSetupSects  = 0x1f1
	bpVidMode     = 0x1fa
	bpBootFlag    = 0x1fe
	bpHeaderEnd   = 0x201
	bpMagic       = 0x202
	bpVersion     = 0x206
	bpLoader      = 0x210
	bpLoadFlags   = 0x211
	bpInitrd      = 0x218
	bpInitrdSize  = 0x21c
	bpCommandLine = 0x228
	bpInitrdMax   = 0x22c
	bpAlignment   = 0x230
	bpXLoadFlags  = 0x236
	bpCmdlineSize = 0x238
	bpPayload     = 0x248
	bpPayloadLen  = 0x24c
	bpInitSize    = 0x260
	bpE820        = 0x2d0

	bootParamsSize = 4096
)

func isBzImage(k []byte) bool {
	return len(k) > bpE820 && string(k[bpMagic:bpMagic+4]) == "HdrS" && le.Uint16(k[bpBootFlag:]) == 0xaa55
}

func loadBzImage(ram *mem.RAM, cfg Config) (*Entry, error) {
	k := cfg.Kernel
	r, err := openPayload(k)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	end := bpMagic + int(k[bpHeaderEnd])
	if end > len(k) || end > bpE820 {
		return nil, fmt.Errorf("%w: its header ends at byte %d", ErrDamaged, end)
	}
	header := k[bpHeader:end]
	x := readAhead(r)
	if x == nil {
		vmlinux, err := Vmlinux(k)
		if err != nil {
			return nil, err
		}
		return loadVmlinux(ram, cfg, vmlinux, header)
	}
	e, err := loadLinux(ram, cfg, x, header)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // the checksum is at the end
		return nil, err
	}
	return e, nil
}

// loadVmlinux loads a kernel in an ELF file.
func loadVmlinux(ram *mem.RAM, cfg Config, k, header []byte) (*Entry, error) {
	x, err := readELF(k)
	if err != nil {
		return nil, err
	}
	return loadLinux(ram, cfg, x, header)
}

// loadLinux loads a 64-bit vmlinux and enters it by the 64-bit boot protocol.
func loadLinux(ram *mem.RAM, cfg Config, x *executable, header []byte) (*Entry, error) {
	if x.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("an ELF file for %v without a Multiboot header: %w", x.Machine, ErrNotKernel)
	}
	end, err := loadSegments(ram, x.file, x.segs, x.Entry)
	if err != nil {
		return nil, err
	}
	bp := make([]byte, bootParamsSize)
	initrdMax := uint64(0x7fffffff)
	if header != nil {
		copy(bp[bpHeader:], header)
		if v := le.Uint32(bp[bpInitrdMax:]); v != 0 {
			initrdMax = uint64(v)
		}
		end = max(end, x.segs[0].addr+uint64(le.Uint32(bp[bpInitSize:])))
	} else {
		le.PutUint16(bp[bpBootFlag:], 0xaa55)
		copy(bp[bpMagic:], "HdrS")
		le.PutUint16(bp[bpVersion:], 0x20f)
		le.PutUint32(bp[bpAlignment:], 1<<21)
		le.PutUint32(bp[bpCmdlineSize:], commandLineMax-1)
	}
	bp[bpLoader] = 0xff // a loader without a number of its own
	bp[bpLoadFlags] |= 1
	le.PutUint16(bp[bpVidMode:], 0xffff)
	le.PutUint32(bp[bpCommandLine:], commandLineAt)
	le.PutUint64(bp[bpRSDP:], cfg.RSDP)
	ram.WriteAt(append([]byte(cfg.CommandLine), 0), commandLineAt)
	if len(cfg.Initrd) > 0 {
		at, err := placeInitrd(ram, cfg.Initrd, end, initrdMax)
		if err != nil {
			return nil, err
		}
		le.PutUint32(bp[bpInitrd:], uint32(at))
		le.PutUint32(bp[bpInitrdSize:], uint32(len(cfg.Initrd)))
	}
	m := e820(ram)
	bp[bpE820Count] = byte(len(m))
	for i, r := range m {
		b := bp[bpE820+20*i:]
		le.PutUint64(b, r.addr)
		le.PutUint64(b[8:], r.size)
		typ := uint32(2)
		if r.usable {
			typ = 1
		}
		le.PutUint32(b[16:], typ)
	}
	ram.WriteAt(bp, bootParamsAt)
	e := &Entry{Mode: Long64, RIP: x.Entry, RSI: bootParamsAt, RSP: lowEnd, CR3: setupTables(ram)}
	setupGDT(ram, e, 0x00af9b000000ffff)
	return e, nil
}
