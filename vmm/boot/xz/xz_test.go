package xz

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	library "github.com/mikelolasagasti/xz"
)

// samples are streams that the xz program made of generated texts and bytes, by file name.
func samples(t testing.TB, pattern string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(names) == 0 {
		t.Fatal("no samples", err)
	}
	all := map[string][]byte{}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(n)] = b
	}
	return all
}

func good(t testing.TB) map[string][]byte {
	all := samples(t, "*.xz")
	for name := range all {
		if strings.HasPrefix(name, "unsupported") {
			delete(all, name)
		}
	}
	return all
}

const limit = 1 << 22

// unpackByLibrary returns what the library gets out of p, up to an error.
func unpackByLibrary(p []byte, dictMax uint32) ([]byte, error) {
	r, err := library.NewReader(bytes.NewReader(p), dictMax)
	if err != nil {
		return nil, err
	}
	r.Multistream(false)
	return io.ReadAll(io.LimitReader(r, limit+1))
}

func TestSamples(t *testing.T) {
	for name, p := range good(t) {
		want, err := unpackByLibrary(p, library.DefaultDictMax)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, size := range []int{0, len(want) / 2, len(want), 3 * len(want), 2 * limit, -1} {
			// What follows the stream is not looked at.
			for _, more := range []string{"", "more"} {
				got, err := Unpack(append(bytes.Clone(p), more...), size, limit)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %d bytes expected, %d more: %d bytes and %v, want %d", name, size, len(more), len(got), err, len(want))
				}
			}
		}
		if _, err := Unpack(p, len(want), len(want)); err != nil {
			t.Errorf("%s, with its size as a limit: %v", name, err)
		}
		if _, err := Unpack(p, len(want), len(want)-1); len(want) > 0 && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s, with a limit that is too low: %v", name, err)
		}
	}
}

func TestDamage(t *testing.T) {
	for name, p := range good(t) {
		for n := 0; n < len(p); n += 1 + n/30 {
			if _, err := Unpack(p[:n], 0, limit); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s cut at byte %d of %d: %v", name, n, len(p), err)
			}
		}
		if name == "check-none.xz" {
			continue
		}
		for i := 0; i < len(p); i += 1 + i/100 {
			d := bytes.Clone(p)
			d[i] ^= 1 << (i % 8)
			if _, err := Unpack(d, 0, limit); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%s with bit %d of byte %d wrong: %v", name, i%8, i, err)
			}
		}
	}
}

func TestUnsupported(t *testing.T) {
	for name, p := range samples(t, "unsupported-*.xz") {
		if _, err := Unpack(p, 0, limit); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := samples(t, "empty.xz")["empty.xz"]
	for _, flags := range []string{"\x00\x02", "\x00\x0f", "\x00\x11", "\x01\x01"} {
		d := append([]byte(Magic), flags...)
		d = le.AppendUint32(d, crc32.ChecksumIEEE([]byte(flags)))
		if _, err := Unpack(append(d, p[len(d):]...), 0, limit); !errors.Is(err, ErrUnsupported) {
			t.Errorf("stream flags %x: %v", flags, err)
		}
	}
	// Reserved flags of a block, a filter behind LZMA2, and bytes behind the filters.
	for _, block := range []string{"\x02\x04\x21\x01\x00\x00\x00\x00", "\x02\x01\x21\x01\x00\x04\x00\x00", "\x02\x00\x21\x01\x00\x00\x00\x01"} {
		d := append(bytes.Clone(p[:headerLen]), block...)
		d = le.AppendUint32(d, crc32.ChecksumIEEE([]byte(block)))
		if _, err := Unpack(append(d, 0, 0, 0, 0), 0, limit); !errors.Is(err, ErrUnsupported) {
			t.Errorf("block header %x: %v", block, err)
		}
	}
}

// FuzzUnpack unpacks chunks behind good headers, which no checksum covers, and the same by the library.
func FuzzUnpack(f *testing.F) {
	const header = Magic + "\x00\x00\xff\x12\xd9\x41"
	blocks := map[bool]string{false: "\x02\x00\x21\x01\x00\x00\x00\x00", true: "\x02\x01\x04\x00\x21\x01\x00\x00"}
	for _, p := range good(f) {
		f.Add(false, p)
		if len(p) > 24 {
			n := headerLen + (int(p[headerLen])+1)*4
			f.Add(false, p[n:])
			f.Add(true, p[n:])
		}
	}
	f.Fuzz(func(t *testing.T, x86 bool, p []byte) {
		if got, err := Unpack(p, 0, limit); err == nil {
			if want, err := unpackByLibrary(p, 1<<16); !errors.Is(err, library.ErrMemlimit) && (err != nil || !bytes.Equal(got, want)) {
				t.Fatalf("%d bytes; the library makes %d of it, and says %v", len(got), len(want), err)
			}
		}
		block := blocks[x86]
		s := append([]byte(header), block...)
		s = le.AppendUint32(s, crc32.ChecksumIEEE([]byte(block)))
		first := len(s)
		s = append(s, p...)
		got, _, err := lzma2(s, first, nil, 4096, limit)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
		if x86 {
			unbranch(got, 0)
		}
		// It fails behind the block at the latest, since there is no index.
		if want, _ := unpackByLibrary(s, 1<<16); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes of chunks; the library makes %d of it", len(got), len(want))
		}
	})
}
