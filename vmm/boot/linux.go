package boot

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"

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
	// maxKernel bounds what a payload may unpack to.
	maxKernel = 256 << 20
)

func isBzImage(k []byte) bool {
	return len(k) > bpE820 && string(k[bpMagic:bpMagic+4]) == "HdrS" && le.Uint16(k[bpBootFlag:]) == 0xaa55
}

// Vmlinux returns the ELF kernel inside a bzImage, or k itself where it is an ELF file.
func Vmlinux(k []byte) ([]byte, error) {
	if bytes.HasPrefix(k, []byte(elf.ELFMAG)) {
		return k, nil
	}
	if !isBzImage(k) {
		return nil, ErrNotKernel
	}
	if v := le.Uint16(k[bpVersion:]); v < 0x208 {
		return nil, fmt.Errorf("boot protocol %d.%02d is too old (want 2.08 or later): %w", v>>8, v&0xff, ErrNotKernel)
	}
	sects := int(k[bpSetupSects])
	if sects == 0 {
		sects = 4
	}
	start := uint64(sects+1)*512 + uint64(le.Uint32(k[bpPayload:]))
	n := uint64(le.Uint32(k[bpPayloadLen:]))
	if start+n > uint64(len(k)) {
		return nil, fmt.Errorf("%w: its payload ends at byte %d of %d: the file is truncated", ErrDamaged, start+n, len(k))
	}
	out, err := unpack(k[start : start+n])
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(out, []byte(elf.ELFMAG)) {
		return nil, fmt.Errorf("%w: its payload is no ELF file", ErrDamaged)
	}
	return out, nil
}

// unpack decompresses a payload.
func unpack(p []byte) ([]byte, error) {
	var r io.Reader
	var err error
	name := ""
	in := bytes.NewReader(p)
	switch {
	case bytes.HasPrefix(p, []byte("\xfd7zXZ\x00")):
		name = "xz"
		var x *xz.Reader
		if x, err = xz.NewReader(in, 1<<27); err == nil {
			x.Multistream(false) // the length follows
			r = x
		}
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		name = "gzip"
		var g *gzip.Reader
		if g, err = gzip.NewReader(in); err == nil {
			g.Multistream(false)
			r = g
		}
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		name = "zstd"
		var z *zstd.Decoder
		// The length of the kernel follows the frame; it is no frame of its own.
		if z, err = zstd.NewReader(bytes.NewReader(p[:len(p)-4]), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxKernel)); err == nil {
			defer z.Close()
			r = z
		}
	case bytes.HasPrefix(p, []byte("BZh")):
		name = "bzip2"
		r = bzip2.NewReader(bytes.NewReader(p[:max(len(p)-4, 3)])) // the length follows, and is no further stream
	case bytes.HasPrefix(p, []byte{0x02, 0x21, 0x4c, 0x18}):
		name = "lz4"
		// A legacy frame, which has no end mark; the length of the kernel follows it.
		r = lz4.NewReader(bytes.NewReader(p[:len(p)-4]))
	case bytes.HasPrefix(p, []byte(elf.ELFMAG)):
		return p, nil
	default:
		return nil, fmt.Errorf("the payload is compressed in an unknown way; pass the uncompressed vmlinux instead: %w", ErrNotKernel)
	}
	size := 0
	if len(p) > 4 { // the length follows in most formats; what nobody would believe is ignored
		size = int(min(uint64(le.Uint32(p[len(p)-4:])), maxKernel, 16*uint64(len(p))))
	}
	out := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead)) // Buffer.Grow would touch all of it once more
	if err == nil {
		_, err = out.ReadFrom(io.LimitReader(r, maxKernel+1))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: unpacking its %s payload: %v", ErrDamaged, name, err)
	}
	if out.Len() > maxKernel {
		return nil, fmt.Errorf("%w: its payload is larger than %d MiB", ErrDamaged, maxKernel>>20)
	}
	return out.Bytes(), nil
}

func loadBzImage(ram *mem.RAM, cfg Config) (*Entry, error) {
	k := cfg.Kernel
	vmlinux, err := Vmlinux(k)
	if err != nil {
		return nil, err
	}
	end := bpMagic + int(k[bpHeaderEnd])
	if end > len(k) || end > bpE820 {
		return nil, fmt.Errorf("%w: its header ends at byte %d", ErrDamaged, end)
	}
	return loadLinux(ram, cfg, vmlinux, k[bpHeader:end])
}

// loadLinux loads a 64-bit vmlinux and enters it by the 64-bit boot protocol.
func loadLinux(ram *mem.RAM, cfg Config, vmlinux, header []byte) (*Entry, error) {
	f, segs, err := elfSegments(vmlinux)
	if err != nil {
		return nil, err
	}
	if f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("an ELF file for %v without a Multiboot header: %w", f.Machine, ErrNotKernel)
	}
	end, err := loadSegments(ram, segs, f.Entry)
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
		end = max(end, segs[0].addr+uint64(le.Uint32(bp[bpInitSize:])))
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
	e := &Entry{Mode: Long64, RIP: f.Entry, RSI: bootParamsAt, RSP: lowEnd, CR3: setupTables(ram)}
	setupGDT(ram, e, 0x00af9b000000ffff)
	return e, nil
}
