package mem

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func newRAM(t *testing.T, size uint64) *RAM {
	t.Helper()
	r, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestSizeOutOfBounds(t *testing.T) {
	for _, size := range []uint64{0, 4096, MinSize + 1, MaxSize + PageSize} {
		if _, err := New(size); !errors.Is(err, ErrSize) {
			t.Errorf("New(%d) = %v, want ErrSize", size, err)
		}
	}
}

func TestOffsetKnowsTheHoles(t *testing.T) {
	r := newRAM(t, LowMax+1<<20)
	for _, c := range []struct {
		pa  uint64
		off uint64
		ok  bool
	}{
		{0, 0, true}, {0x9ffff, 0x9ffff, true}, {0xa0000, 0, false}, {0xbffff, 0, false}, {0xc0000, 0xc0000, true},
		{LowMax - 1, LowMax - 1, true}, {LowMax, 0, false}, {0xfee00000, 0, false},
		{HighBase, LowMax, true}, {HighBase + 1<<20 - 1, LowMax + 1<<20 - 1, true}, {HighBase + 1<<20, 0, false},
	} {
		off, ok := r.Offset(c.pa)
		if ok != c.ok || ok && (off != c.off || r.Addr(off) != c.pa) {
			t.Errorf("Offset(%#x) = %#x, %v; want %#x, %v", c.pa, off, ok, c.off, c.ok)
		}
	}
}

func TestWriteTellsAndRefusesAsAWhole(t *testing.T) {
	r := newRAM(t, MinSize)
	var told []uint64
	r.OnWrite = func(off uint64, n int, f Flags) { told = append(told, off) }
	r.SetFlags(0x2000, Code)
	if !r.WriteAt(bytes.Repeat([]byte{7}, 0x1800), 0x1000) {
		t.Fatal("write refused")
	}
	if len(told) != 1 || told[0] != 0x2000 {
		t.Errorf("told of %#x, want one write at 0x2000", told)
	}
	if r.WriteAt([]byte{1, 2}, MinSize-1) || r.Data()[MinSize-1] != 0 {
		t.Error("a write that leaves RAM changed it")
	}
	if r.ReadAt(make([]byte, 2), 0x9ffff) {
		t.Error("read into the VGA window succeeded")
	}
	var dirty []int
	r.ClearDirty(func(p int) { dirty = append(dirty, p) })
	if len(dirty) != 2 || dirty[0] != 1 || dirty[1] != 2 {
		t.Errorf("dirty pages %v, want [1 2]", dirty)
	}
}

func TestOverwriteTellsAndRefusesAsAWhole(t *testing.T) {
	r := newRAM(t, LowMax+1<<20)
	var told []uint64
	r.OnWrite = func(off uint64, n int, f Flags) { told = append(told, off, uint64(n)) }
	r.SetFlags(LowMax+0x2000, Code)
	b := r.Overwrite(HighBase+0x1ffe, 4)
	if len(b) != 4 || cap(b) != 4 || !slices.Equal(told, []uint64{LowMax + 0x2000, 2}) {
		t.Fatalf("%d bytes of %d, told of %#x; want 4 of 4, and two at %#x", len(b), cap(b), told, LowMax+0x2000)
	}
	copy(b, "abcd")
	got := make([]byte, 4)
	if r.ReadAt(got, HighBase+0x1ffe); string(got) != "abcd" {
		t.Errorf("written to another place: read %q", got)
	}
	for _, c := range []struct {
		pa uint64
		n  int
	}{{0x9ffff, 2}, {0xa0000, 0}, {LowMax - 1, 2}, {LowMax, 1}, {1 << 40, 0}, {^uint64(0), 2}} {
		if b := r.Overwrite(c.pa, c.n); b != nil {
			t.Errorf("%d bytes at %#x are RAM", c.n, c.pa)
		}
	}
	var dirty []int
	r.ClearDirty(func(p int) { dirty = append(dirty, p) })
	if !slices.Equal(dirty, []int{LowMax>>PageShift + 1, LowMax>>PageShift + 2}) {
		t.Errorf("dirty pages %v", dirty)
	}
}
