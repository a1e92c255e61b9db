package guest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// member is an ar member.
type member struct {
	name string
	data []byte
}

func ar(members ...member) []byte {
	var b bytes.Buffer
	b.WriteString(arMagic)
	for _, m := range members {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d%s", m.name, 0, 0, 0, "100644", len(m.data), arEnd)
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func tarball(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t testing.TB, suffix string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch suffix {
	case "":
		return b
	case ".gz":
		w = gzip.NewWriter(&out)
	case ".zst":
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	case ".xz":
		cmd := exec.Command("xz", "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(b), &out
		if err := cmd.Run(); err != nil {
			t.Skipf("xz: %v", err)
		}
		return out.Bytes()
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReadDeb(t *testing.T) {
	data := tarball(t, map[string]string{"./boot/": "", "./boot/vmlinuz-1": "kernel", "./lib/a": "", "usr/x": "y"})
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		t.Run("data.tar"+suffix, func(t *testing.T) {
			deb := ar(member{"debian-binary", []byte("2.0\n")}, member{"control.tar/", []byte("odd")}, member{"data.tar" + suffix, compress(t, suffix, data)})
			got := map[string]string{}
			err := readDeb(bytes.NewReader(deb), func(name string, r io.Reader) error {
				b, err := io.ReadAll(r)
				got[name] = string(b)
				return err
			})
			want := map[string]string{"boot/vmlinuz-1": "kernel", "lib/a": "", "usr/x": "y"}
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
			n := 0
			err = readDeb(bytes.NewReader(deb), func(string, io.Reader) error { n++; return errStop })
			if err != nil || n != 1 {
				t.Errorf("stopped after %d files, %v", n, err)
			}
			err = readDeb(bytes.NewReader(deb[:len(deb)/2]), func(_ string, r io.Reader) error { _, err := io.ReadAll(r); return err })
			if err == nil {
				t.Error("a truncated package: no error")
			}
		})
	}
}

func TestReadDebMistakes(t *testing.T) {
	header := ar(member{"data.tar", nil})
	for _, c := range []struct {
		name string
		deb  []byte
		want string
	}{
		{"empty", nil, "no ar archive"},
		{"other file", []byte("\x7fELF............"), "no ar archive"},
		{"nothing in it", []byte(arMagic), "no data.tar"},
		{"no data", ar(member{"control.tar", []byte("x")}), "no data.tar"},
		{"cut header", header[:30], "ar header"},
		{"size that is none", bytes.Replace(header, []byte("0         `"), []byte("-1        `"), 1), "damaged ar header"},
		{"no end mark", bytes.Replace(header, []byte("`\n"), []byte("xx"), 1), "damaged ar header"},
		{"member that is cut off", ar(member{"control.tar", make([]byte, 100)})[:90], "ar member control.tar"},
		{"unknown compression", ar(member{"data.tar.lrz", []byte("x")}), `compressed as ".lrz"`},
		{"not what its name says", ar(member{"data.tar.gz", []byte("plain text, not gzip")}), "gzip"},
		{"no tar", ar(member{"data.tar", bytes.Repeat([]byte("x"), 1024)}), "data.tar"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := readDeb(bytes.NewReader(c.deb), func(string, io.Reader) error { return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func FuzzReadDeb(f *testing.F) {
	data := tarball(f, map[string]string{"./boot/vmlinuz-1": "kernel"})
	f.Add(ar(member{"debian-binary", []byte("2.0\n")}, member{"data.tar", data}))
	f.Add(ar(member{"data.tar.gz", compress(f, ".gz", data)}))
	f.Add(ar(member{"data.tar.zst", compress(f, ".zst", data)}))
	f.Fuzz(func(t *testing.T, deb []byte) {
		// It ends, with or without an error.
		n := 0
		_ = readDeb(bytes.NewReader(deb), func(_ string, r io.Reader) error {
			if n++; n > 1000 {
				return errStop
			}
			_, err := readLimited(r, 1<<20)
			return err
		})
	})
}
