package guest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// errStop, returned by the function that readDeb calls, ends the reading without an error.
var errStop = errors.New("stop")

// readDebFile calls visit for each regular file of a package.
func readDebFile(name string, visit func(path string, r io.Reader) error) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := readDeb(f, visit); err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	return nil
}

// readDeb calls visit for each regular file of a Debian binary package, with its
// path without a leading slash. It stops at the first error.
func readDeb(r io.Reader, visit func(path string, r io.Reader) error) error {
	data, suffix, err := debMember(r, "data.tar")
	if err != nil {
		return err
	}
	data, err = decompress(data, suffix)
	if err != nil {
		return err
	}
	for t := tar.NewReader(data); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("data.tar%s: %w", suffix, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := visit(strings.TrimPrefix(h.Name, "./"), t); err == errStop {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// Sizes in the ar format (ar(5)): a magic, then members, each a header and data padded to an even length.
const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
	arEnd        = "`\n" // at the header's end
)

// debMember returns the ar member whose name starts with name, and the rest of its name.
func debMember(r io.Reader, name string) (member io.Reader, suffix string, err error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != arMagic {
		return nil, "", errors.New("not a Debian package: no ar archive")
	}
	for {
		var h [arHeaderSize]byte
		if _, err := io.ReadFull(r, h[:]); err == io.EOF {
			return nil, "", fmt.Errorf("not a Debian package: no %s in it", name)
		} else if err != nil {
			return nil, "", fmt.Errorf("ar header: %w", err)
		}
		size, err := strconv.ParseUint(strings.TrimSpace(string(h[48:58])), 10, 62)
		if err != nil || string(h[58:]) != arEnd {
			return nil, "", fmt.Errorf("damaged ar header %q", h)
		}
		got := strings.TrimRight(string(h[:16]), " /")
		if s, ok := strings.CutPrefix(got, name); ok {
			return io.LimitReader(r, int64(size)), s, nil
		}
		if _, err := io.CopyN(io.Discard, r, int64(size+size&1)); err != nil {
			return nil, "", fmt.Errorf("ar member %s: %w", got, err)
		}
	}
}

// decompress returns r decompressed as a file name's suffix says.
func decompress(r io.Reader, suffix string) (io.Reader, error) {
	switch suffix {
	case "":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(r, dictMax)
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(dictMax))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("compressed as %q, which is not known", suffix)
}

// dictMax bounds what a package can make us allocate; xz -9 uses 64 MiB.
const dictMax = 64 << 20

// readLimited reads all of r, which is not expected to be longer than limit.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	return b.Bytes(), nil
}
