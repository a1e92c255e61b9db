package disk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

// SectorSize is the size in bytes of a logical sector.
const SectorSize = 512

// Image is the initial content of a disk. It must not change while it is in use.
type Image interface {
	io.ReaderAt
	// Size returns the size in bytes.
	Size() int64
}

// ErrSize reports an image whose size no disk can have.
var ErrSize = errors.New("the size of a disk image must be a multiple of 512 bytes, and not zero")

// File is a raw image in a file or a block device, opened for reading only.
type File struct {
	f    *os.File
	size int64
}

// Open opens the raw image at path.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("disk image: %w", err)
	}
	img, err := newFile(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("disk image %s: %w", path, err)
	}
	return img, nil
}

func newFile(f *os.File) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	// A block device has no size in its inode, but its end can be sought.
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if err := checkSize(size); err != nil {
		return nil, err
	}
	return &File{f: f, size: size}, nil
}

// ReadAt implements io.ReaderAt.
func (i *File) ReadAt(p []byte, off int64) (int, error) { return i.f.ReadAt(p, off) }

// Size returns the size in bytes that the image had when it was opened.
func (i *File) Size() int64 { return i.size }

// Close closes the file.
func (i *File) Close() error { return i.f.Close() }

// Bytes is an image in memory.
type Bytes []byte

// ReadAt implements io.ReaderAt.
func (b Bytes) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size implements Image.
func (b Bytes) Size() int64 { return int64(len(b)) }

// SHA256 returns the hash of an image's content, by which a recording names it.
func SHA256(img Image) ([sha256.Size]byte, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(onlyWriter{h}, io.NewSectionReader(img, 0, img.Size()), make([]byte, 1<<20))
	if err == nil && n != img.Size() {
		err = fmt.Errorf("%d bytes instead of %d: %w", n, img.Size(), io.ErrUnexpectedEOF)
	}
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("hashing a disk image: %w", err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// onlyWriter hides other methods, so that CopyBuffer uses the buffer it is given.
type onlyWriter struct{ io.Writer }

func checkSize(size int64) error {
	if size <= 0 || size%SectorSize != 0 {
		return fmt.Errorf("%w (got %d)", ErrSize, size)
	}
	return nil
}
