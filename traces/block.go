package traces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
)

// Limits of a block, which bound what a reader allocates.
const (
	blockMagic     = 0x31424652 // "RFB1"
	blockHeader    = 44
	blockRawMax    = 64 << 20
	blockPackedMax = blockRawMax + 1<<20
)

// Errors of reading and writing blocks.
var (
	// ErrDamaged: the recording is not what was written: a flipped bit, not a missing end.
	ErrDamaged = errors.New("damaged recording; copy it again, or record it again")
	// ErrTooLarge: something is larger than a block can hold.
	ErrTooLarge = errors.New("larger than the format allows")
)

// Block is the header of a block.
type Block struct {
	Offset      int64 // of the header, in the file
	Raw, Packed uint32
	Records     uint32
	First, Last uint64 // positions
	sum         uint64
}

// blockFile is what a BlockWriter needs of a file. *os.File implements it.
type blockFile interface {
	io.WriteSeeker
	io.Closer
	Truncate(size int64) error
	Name() string
}

// BlockWriter appends blocks to a file.
type BlockWriter struct {
	f    blockFile
	enc  *zstd.Encoder
	size int64
	buf  []byte // of the block that was written last, for the next one
}

// readFile is what a BlockReader needs of a file. *os.File implements it.
type readFile interface {
	io.ReaderAt
	io.Closer
}

// BlockReader reads blocks of a file.
type BlockReader struct {
	f      readFile
	path   string
	size   int64 // when it was opened: a recorder may still be at work
	dec    *zstd.Decoder
	Blocks []Block
	// Truncated is the number of bytes after the last whole block: the rest of a write that was cut short.
	Truncated int64
}

func fileHeader(name string) string { return fmt.Sprintf("refault %s %d\n", name, FormatVersion) }

// CreateBlocks makes a file of blocks; it must not exist.
func CreateBlocks(path string) (*BlockWriter, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, err
	}
	h := fileHeader(filepath.Base(path))
	if _, err := f.WriteString(h); err != nil {
		f.Close()
		return nil, err
	}
	return newBlockWriter(f, int64(len(h)))
}

// AppendBlocks opens a file of blocks to append to it, after size bytes: what
// follows is dropped.
func AppendBlocks(path string, size int64) (*BlockWriter, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return newBlockWriter(f, size)
}

func newBlockWriter(f blockFile, size int64) (*BlockWriter, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &BlockWriter{f: f, enc: enc, size: size, buf: make([]byte, blockHeader)}, nil
}

// Write appends a block and returns its header. When the host's disk is full the file
// is cut back to its last whole block, so that it stays readable.
func (w *BlockWriter) Write(raw []byte, records int, first, last uint64) (Block, error) {
	if len(raw) > blockRawMax {
		return Block{}, fmt.Errorf("writing %s: %d bytes in one block; it can have %d: %w", w.f.Name(), len(raw), blockRawMax, ErrTooLarge)
	}
	buf := w.enc.EncodeAll(raw, w.buf[:blockHeader])
	w.buf = buf
	b := Block{Offset: w.size, Raw: uint32(len(raw)), Packed: uint32(len(buf) - blockHeader), Records: uint32(records), First: first, Last: last}
	b.encode(buf)
	if _, err := w.f.Write(buf); err != nil {
		// Where even this fails, the reader finds an incomplete block at the end.
		if w.f.Truncate(w.size) == nil {
			w.f.Seek(w.size, io.SeekStart)
		}
		return b, fmt.Errorf("writing %s: %w", w.f.Name(), pathless(err))
	}
	w.size += int64(len(buf))
	return b, nil
}

// pathless takes the path off an error of package os, for a message that has it already.
func pathless(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Size returns the length of the file in bytes.
func (w *BlockWriter) Size() int64 { return w.size }

// Close closes the file.
func (w *BlockWriter) Close() error {
	w.enc.Close()
	return w.f.Close()
}

// encode writes the header at the beginning of buf, whose rest are the packed bytes.
func (b *Block) encode(buf []byte) {
	le := binary.LittleEndian
	le.PutUint32(buf, blockMagic)
	le.PutUint32(buf[4:], b.Raw)
	le.PutUint32(buf[8:], b.Packed)
	le.PutUint32(buf[12:], b.Records)
	le.PutUint64(buf[16:], b.First)
	le.PutUint64(buf[24:], b.Last)
	h := xxh3.New()
	h.Write(buf[:32])
	h.Write(buf[blockHeader:])
	b.sum = h.Sum64()
	le.PutUint64(buf[32:], b.sum)
	le.PutUint32(buf[40:], uint32(xxh3.Hash(buf[:40])))
}

// OpenBlocks reads the headers of a file of blocks. A file that its writer did not come
// to write anything to gives ErrEmpty.
func OpenBlocks(path string) (*BlockReader, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("it has no file %s: %w", filepath.Base(path), ErrEmpty)
	} else if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := scanBlocks(f, path, st.Size())
	if err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

func scanBlocks(f readFile, path string, size int64) (*BlockReader, error) {
	want := fileHeader(filepath.Base(path))
	head := make([]byte, len(want))
	if n, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	} else if n < len(want) && want[:n] == string(head[:n]) {
		return nil, fmt.Errorf("%s: it ends at byte %d, in its first line: %w", path, n, ErrEmpty)
	} else if string(head) != want {
		return nil, fmt.Errorf("%s: at byte 0 it has %q instead of %q: %w", path, head[:n], want, ErrDamaged)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(blockRawMax))
	if err != nil {
		return nil, err
	}
	r := &BlockReader{f: f, dec: dec, path: path, size: size}
	le := binary.LittleEndian
	for at := int64(len(want)); at < size; {
		var h [blockHeader]byte
		if size-at < blockHeader {
			r.Truncated = size - at
			break
		}
		if _, err := f.ReadAt(h[:], at); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		b := Block{Offset: at, Raw: le.Uint32(h[4:]), Packed: le.Uint32(h[8:]), Records: le.Uint32(h[12:]),
			First: le.Uint64(h[16:]), Last: le.Uint64(h[24:]), sum: le.Uint64(h[32:])}
		if le.Uint32(h[:]) != blockMagic || uint32(xxh3.Hash(h[:40])) != le.Uint32(h[40:]) || b.Raw > blockRawMax || b.Packed > blockPackedMax {
			return nil, fmt.Errorf("%s: the block header at byte %d is wrong: %w", path, at, ErrDamaged)
		}
		if size-at-blockHeader < int64(b.Packed) {
			r.Truncated = size - at
			break
		}
		r.Blocks = append(r.Blocks, b)
		at += blockHeader + int64(b.Packed)
	}
	return r, nil
}

// End returns the offset of the end of the last whole block.
func (r *BlockReader) End() int64 {
	if n := len(r.Blocks); n > 0 {
		return r.Blocks[n-1].Offset + blockHeader + int64(r.Blocks[n-1].Packed)
	}
	return int64(len(fileHeader(filepath.Base(r.path))))
}

// Read returns the content of block i.
func (r *BlockReader) Read(i int) ([]byte, error) {
	b := r.Blocks[i]
	buf := make([]byte, blockHeader+int(b.Packed))
	if _, err := r.f.ReadAt(buf, b.Offset); err == io.EOF {
		return nil, fmt.Errorf("%s: the block at byte %d is cut off: %w", r.path, b.Offset, ErrDamaged)
	} else if err != nil {
		return nil, fmt.Errorf("%s: block at byte %d: %w", r.path, b.Offset, pathless(err))
	}
	h := xxh3.New()
	h.Write(buf[:32])
	h.Write(buf[blockHeader:])
	if h.Sum64() != b.sum {
		return nil, fmt.Errorf("%s: the checksum of the block at byte %d is wrong: %w", r.path, b.Offset, ErrDamaged)
	}
	raw, err := r.dec.DecodeAll(buf[blockHeader:], make([]byte, 0, b.Raw))
	if err != nil || len(raw) != int(b.Raw) {
		return nil, fmt.Errorf("%s: the block at byte %d does not unpack (%v): %w", r.path, b.Offset, err, ErrDamaged)
	}
	return raw, nil
}

// Close closes the file.
func (r *BlockReader) Close() error {
	r.dec.Close()
	return r.f.Close()
}
