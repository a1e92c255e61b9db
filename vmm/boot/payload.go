package boot

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"

	"refault/vmm/mem"
)

// maxKernel bounds what a payload may unpack to.
const maxKernel = 256 << 20

// Vmlinux returns the ELF kernel inside a bzImage, or k itself where it is an ELF file.
func Vmlinux(k []byte) ([]byte, error) {
	if bytes.HasPrefix(k, []byte(elf.ELFMAG)) {
		return k, nil
	}
	if !isBzImage(k) {
		return nil, ErrNotKernel
	}
	r, err := openPayload(k)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := bytes.NewBuffer(make([]byte, 0, r.size+bytes.MinRead)) // Buffer.Grow would touch all of it once more
	if _, err := out.ReadFrom(r); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(out.Bytes(), []byte(elf.ELFMAG)) {
		return nil, fmt.Errorf("%w: its payload is no ELF file", ErrDamaged)
	}
	return out.Bytes(), nil
}

// payload reads what is packed in a bzImage.
type payload struct {
	r      io.ReadCloser
	name   string // of the compression
	size   int    // what the image says of its size
	unread int    // of maxKernel
}

func (p *payload) Close() error { return p.r.Close() }

func (p *payload) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if p.unread -= n; p.unread < 0 {
		return n, fmt.Errorf("%w: its payload is larger than %d MiB", ErrDamaged, maxKernel>>20)
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: unpacking its %s payload: %v", ErrDamaged, p.name, err)
	}
	return n, err
}

// openPayload returns the payload of a bzImage.
func openPayload(k []byte) (*payload, error) {
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
	p := k[start : start+n]
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
			r = z.IOReadCloser()
		}
	case bytes.HasPrefix(p, []byte("BZh")):
		name = "bzip2"
		r = bzip2.NewReader(bytes.NewReader(p[:max(len(p)-4, 3)])) // the length follows, and is no further stream
	case bytes.HasPrefix(p, []byte{0x02, 0x21, 0x4c, 0x18}):
		name = "lz4"
		// A legacy frame, which has no end mark; the length of the kernel follows it.
		r = lz4.NewReader(bytes.NewReader(p[:len(p)-4]))
	case bytes.HasPrefix(p, []byte(elf.ELFMAG)):
		r = in
	default:
		return nil, fmt.Errorf("the payload is compressed in an unknown way; pass the uncompressed vmlinux instead: %w", ErrNotKernel)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: unpacking its %s payload: %v", ErrDamaged, name, err)
	}
	size := 0
	if len(p) > 4 { // the length follows in most formats; what nobody would believe is ignored
		size = int(min(uint64(le.Uint32(p[len(p)-4:])), maxKernel, 16*uint64(len(p))))
	}
	c, ok := r.(io.ReadCloser)
	if !ok {
		c = io.NopCloser(r)
	}
	return &payload{c, name, size, maxKernel}, nil
}

// readAhead returns the kernel in a payload, of which no more than the headers is unpacked. It returns nil
// where the segments cannot be read one after the other, or the headers not at all: then it takes all of it.
func readAhead(r io.Reader) *executable {
	head := make([]byte, mem.PageSize)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return nil
	}
	head = head[:n]
	var h elf.Header64
	if _, err := binary.Decode(head, le, &h); err != nil || h.Ident[elf.EI_CLASS] != byte(elf.ELFCLASS64) {
		return nil
	}
	// The headers of the sections are at the end. A loader needs none.
	h.Shoff, h.Shnum, h.Shstrndx = 0, 0, 0
	cut := bytes.Clone(head)
	if _, err := binary.Encode(cut, le, &h); err != nil {
		return nil
	}
	f, err := elf.NewFile(bytes.NewReader(cut))
	if err != nil {
		return nil
	}
	x := newExecutable(f, &forward{r: io.MultiReader(bytes.NewReader(head), r)})
	at := uint64(0)
	for _, s := range x.segs {
		if s.off < at {
			return nil
		}
		at = s.off + s.have
	}
	if len(x.segs) == 0 {
		return nil
	}
	return x
}

// forward reads at offsets that only ascend.
type forward struct {
	r  io.Reader
	at int64
}

func (f *forward) ReadAt(p []byte, off int64) (int, error) {
	skipped, err := io.CopyN(io.Discard, f.r, off-f.at)
	n := 0
	if err == nil {
		n, err = io.ReadFull(f.r, p)
	}
	f.at += skipped + int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = errTruncated(uint64(off)+uint64(len(p)), uint64(f.at))
	}
	return n, err
}
