package boot

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/xi2/xz"
)

// general unpacks an xz file by the general reader.
func general(p []byte) ([]byte, error) {
	r, err := xz.NewReader(bytes.NewReader(p), 1<<27)
	if err != nil {
		return nil, err
	}
	r.Multistream(false)
	return io.ReadAll(r)
}

// samples are contents that make a packer do different things.
func samples() map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 80_000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	var text, code bytes.Buffer
	words := []string{"the ", "page ", "of ", "memory ", "machine ", "\n", "check ", "0123456789 "}
	for text.Len() < 300_000 {
		text.WriteString(words[rnd.IntN(len(words))])
	}
	// CALL and JMP near each other and overlapping, with targets near and far.
	for code.Len() < 200_000 {
		switch rnd.IntN(6) {
		case 0:
			code.Write(noise[:rnd.IntN(12)])
		case 1:
			code.Write([]byte{0xe8, byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.IntN(4)), 0xff * byte(rnd.IntN(2))})
		case 2:
			code.Write([]byte{0xe9, byte(rnd.Uint32()), 0xe8, byte(rnd.IntN(2)), 0xff * byte(rnd.IntN(2))})
		case 3:
			code.Write([]byte{0xe8, 0xe9, 0xe8, 0xff, 0xff, 0, 0xe8, 0, 0}[:1+rnd.IntN(9)])
		case 4:
			code.Write([]byte{0x48, 0x89, 0xe5, 0x0f, 0x1f, 0x44, 0, 0})
		case 5:
			code.WriteByte(byte(rnd.Uint32()))
		}
	}
	return map[string][]byte{
		"empty": nil, "one": {7}, "zeros": make([]byte, 3<<20), "noise": noise, "text": text.Bytes(), "code": code.Bytes(),
		"all": bytes.Join([][]byte{noise, text.Bytes(), noise, code.Bytes(), make([]byte, 1<<20), noise[:70_001]}, nil),
	}
}

// TestUnxz: what xz packs in the ways in which kernels are packed comes out again.
func TestUnxz(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("there is no xz to pack with")
	}
	for name, content := range samples() {
		for _, args := range [][]string{
			{"--check=crc32", "--x86", "--lzma2=dict=32MiB"}, // scripts/xz_wrap.sh of Linux
			{"--check=crc64"},
			{"--check=crc32", "-0"},
			{"--check=crc32", "--lzma2=lc=0,lp=4,pb=0,dict=64KiB"},
			{"--check=crc32", "--x86", "--lzma2=lc=4,lp=0,pb=4"},
			{"--check=crc64", "--lzma2=lc=1,lp=3,pb=3,nice=273"},
		} {
			cmd := exec.Command("xz", append([]string{"-c", "-T1"}, args...)...)
			cmd.Stdin = bytes.NewReader(content)
			p, err := cmd.Output()
			if err != nil {
				t.Fatalf("xz %v: %v", args, err)
			}
			got, err := unxz(p, 0)
			if len(content) == 0 && errors.Is(err, errNotPlain) {
				continue // it has no block
			}
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s, xz %v: %d bytes of %d, %v", name, args, len(got), len(content), err)
			}
		}
		// Other ways are left to the general reader.
		cmd := exec.Command("xz", "-c", "--check=sha256")
		cmd.Stdin = bytes.NewReader(content)
		p, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unxz(p, 0); !errors.Is(err, errNotPlain) {
			t.Errorf("%s with SHA-256: %v", name, err)
		}
		if got, err := unpack(append(p, 0, 0, 0, 0)); len(content) > 0 && (err != nil || !bytes.Equal(got, content)) {
			t.Errorf("%s with SHA-256: unpack: %v", name, err)
		}
	}
}

// packedSample is "the page of memory the page of memory CALL…" behind the x86 filter, as xz packs it.
func packedSample(tb testing.TB) []byte {
	b, err := os.ReadFile("testdata/sample.xz")
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestUnxzDamaged: one damaged byte never gives another content.
func TestUnxzDamaged(t *testing.T) {
	p := packedSample(t)
	want, err := unxz(p, 0)
	if err != nil || len(want) < 4000 {
		t.Fatalf("%d bytes, %v", len(want), err)
	}
	if g, err := general(p); err != nil || !bytes.Equal(g, want) {
		t.Fatalf("the general reader reads something else: %v", err)
	}
	for i := range p {
		for _, flip := range []byte{1, 0x80, 0xff} {
			q := bytes.Clone(p)
			q[i] ^= flip
			if got, err := unxz(q, 0); err == nil && !bytes.Equal(got, want) {
				t.Fatalf("byte %d damaged: other content", i)
			}
		}
		if _, err := unxz(p[:i], 0); err == nil && i < len(p)-40 {
			t.Fatalf("cut at byte %d: no error", i)
		}
	}
}

// FuzzUnxz: whatever is read, is what the general reader reads.
func FuzzUnxz(f *testing.F) {
	f.Add(packedSample(f))
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := unxz(p, 0)
		if err != nil {
			return
		}
		if want, err := general(p); err == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes, the general reader has %d", len(got), len(want))
		}
	})
}

// FuzzLZMA is FuzzUnxz behind the checksums, which a fuzzer does not get past.
func FuzzLZMA(f *testing.F) {
	p := packedSample(f)
	f.Add(p[12+(int(p[12])+1)*4:])
	f.Fuzz(func(t *testing.T, p []byte) {
		d := newLZMA(0)
		if _, err := d.chunks(p); err == nil {
			fromX86(d.out)
		}
	})
}
