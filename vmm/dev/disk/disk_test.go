package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"refault/vmm/dev"
)

var _ dev.Hasher = (*Disk)(nil)

func pattern(sectors int) Bytes {
	b := make(Bytes, sectors*SectorSize)
	for i := range b {
		b[i] = byte(i*7 + i>>9)
	}
	return b
}

func newDisk(t *testing.T, img Image) *Disk {
	t.Helper()
	d, err := New("disk0", img)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func write(t *testing.T, d *Disk, lba uint64, v byte, sectors int) {
	t.Helper()
	if err := d.WriteSectors(bytes.Repeat([]byte{v}, sectors*SectorSize), lba); err != nil {
		t.Fatal(err)
	}
}

func TestImageThatNoDiskCanHave(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"empty": 0, "odd": 1000} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, ErrSize) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want ErrSize with the path", name, err)
		}
		if _, err := New("disk0", make(Bytes, size)); !errors.Is(err, ErrSize) {
			t.Errorf("%s: New: %v, want ErrSize", name, err)
		}
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestFileIsReadAndHashedAndNeverWritten(t *testing.T) {
	want := pattern(19)
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, want, 0o400); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := SHA256(f)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := SHA256(want); a != b {
		t.Errorf("hash of the file %x, of its bytes %x", a, b)
	}
	d := newDisk(t, f)
	write(t, d, 3, 0xee, 9)
	got := make([]byte, len(want))
	if err := d.ReadSectors(got, 0); err != nil {
		t.Fatal(err)
	}
	expect := append(Bytes(nil), want...)
	copy(expect[3*SectorSize:], bytes.Repeat([]byte{0xee}, 9*SectorSize))
	if !bytes.Equal(got, expect) {
		t.Error("the disk reads other than image and writes together")
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, want) {
		t.Error("the image was written")
	}
}

func TestFileThatShrinksIsAnErrorThatSticks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, pattern(16), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 10*SectorSize); err != nil {
		t.Fatal(err)
	}
	d := newDisk(t, f)
	buf := make([]byte, 8*SectorSize)
	if err := d.ReadSectors(buf, 0); err != nil || d.Err() != nil {
		t.Fatalf("what is still there: %v", err)
	}
	if err := d.ReadSectors(buf, 8); err == nil {
		t.Error("reading what is not there succeeded")
	}
	_ = d.ReadSectors(buf, 0)
	if d.Err() == nil || !strings.Contains(d.Err().Error(), "disk0") {
		t.Errorf("Err() = %v, want one that names the disk", d.Err())
	}
	if _, err := SHA256(f); err == nil {
		t.Error("hashing succeeded")
	}
}

func TestStateIsWhatDiffersFromTheImage(t *testing.T) {
	img := pattern(21) // the last cluster is not whole
	d := newDisk(t, img)
	empty := d.Hash()
	write(t, d, 20, 1, 1)
	write(t, d, 0, 2, 1)
	h := d.Hash()
	if h == empty {
		t.Error("a write did not change the hash")
	}

	// The same content by another way.
	e := newDisk(t, img)
	write(t, e, 0, 9, 16)
	e.Hash()
	write(t, e, 0, 2, 1)
	write(t, e, 20, 1, 1)
	if err := e.WriteSectors(img[SectorSize:16*SectorSize], 1); err != nil {
		t.Fatal(err)
	}
	if e.Hash() != h {
		t.Error("equal content, different hashes")
	}
	if !bytes.Equal(dev.Encode(d), dev.Encode(e)) {
		t.Error("equal content, different states")
	}

	// And back to the image.
	if err := e.WriteSectors(img, 0); err != nil {
		t.Fatal(err)
	}
	if e.Hash() != empty {
		t.Error("a disk that equals its image does not have an empty one's hash")
	}

	d.Reset()
	if d.Hash() != h {
		t.Error("a reset changed what is on the disk")
	}
	d.Clear()
	if d.Hash() != empty {
		t.Error("not clear")
	}
}

// counting counts the reads that reach an image.
type counting struct {
	Bytes
	reads int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.reads++
	return c.Bytes.ReadAt(p, off)
}

func TestReadsOfTheImageAreJoined(t *testing.T) {
	img := &counting{Bytes: pattern(100)}
	d := newDisk(t, img)
	want := bytes.Clone(img.Bytes)
	for _, lba := range []uint64{24, 47, 48} { // clusters 3, 5 and 6
		write(t, d, lba, 0xcc, 1)
		copy(want[lba*SectorSize:], bytes.Repeat([]byte{0xcc}, SectorSize))
	}
	for _, c := range []struct{ lba, n, reads int }{
		{0, 24, 1}, {3, 90, 3}, {24, 8, 0}, {30, 5, 1}, {40, 16, 0}, {99, 1, 1},
	} {
		img.reads = 0
		got := make([]byte, c.n*SectorSize)
		if err := d.ReadSectors(got, uint64(c.lba)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[c.lba*SectorSize:(c.lba+c.n)*SectorSize]) {
			t.Errorf("%d sectors from %d: wrong data", c.n, c.lba)
		}
		if img.reads != c.reads {
			t.Errorf("%d sectors from %d: %d reads, want %d", c.n, c.lba, img.reads, c.reads)
		}
	}
}

func TestHashKnowsWhereAClusterLies(t *testing.T) {
	a, b := newDisk(t, make(Bytes, 16*SectorSize)), newDisk(t, make(Bytes, 16*SectorSize))
	write(t, a, 0, 5, 8)
	write(t, b, 8, 5, 8)
	if a.Hash() == b.Hash() {
		t.Error("the same cluster at two places has one hash")
	}
}

func TestRestoreEqualsSave(t *testing.T) {
	img := pattern(100)
	d := newDisk(t, img)
	for i := range uint64(30) {
		write(t, d, i*37%100, byte(i), 1)
	}
	r := newDisk(t, img)
	write(t, r, 50, 0xaa, 20) // is forgotten
	if err := dev.Decode(r, dev.Encode(d)); err != nil {
		t.Fatal(err)
	}
	a, b := make([]byte, len(img)), make([]byte, len(img))
	if d.ReadSectors(a, 0) != nil || r.ReadSectors(b, 0) != nil || !bytes.Equal(a, b) {
		t.Error("the restored disk reads other data")
	}
	if d.Hash() != r.Hash() {
		t.Error("the restored disk has another hash")
	}
}

func TestClearDirtyIsIncremental(t *testing.T) {
	img := pattern(80)
	d, copied := newDisk(t, img), newDisk(t, img)
	collect := func() (got []uint64) {
		d.ClearDirty(func(index uint64, data []byte) {
			got = append(got, index)
			if err := copied.SetCluster(index, data); err != nil {
				t.Fatal(err)
			}
		})
		if d.Hash() != copied.Hash() {
			t.Error("the copy differs")
		}
		return got
	}
	write(t, d, 70, 1, 4)
	write(t, d, 7, 1, 2)
	if got := collect(); len(got) != 4 || got[0] != 0 || got[1] != 1 || got[2] != 8 || got[3] != 9 {
		t.Errorf("changed clusters %v, want [0 1 8 9]", got)
	}
	if got := collect(); got != nil {
		t.Errorf("nothing was written, but %v changed", got)
	}
	if err := d.WriteSectors(img[:8*SectorSize], 0); err != nil {
		t.Fatal(err)
	}
	if got := collect(); len(got) != 1 || got[0] != 0 {
		t.Errorf("changed clusters %v, want [0]", got)
	}
	n := 0
	copied.Each(func(uint64, []byte) { n++ })
	if n != 3 {
		t.Errorf("%d clusters in the copy, want 3", n)
	}
}

func TestRestoreRefusesWhatCannotBe(t *testing.T) {
	full := make([]byte, ClusterSize)
	tail := make([]byte, ClusterSize)
	tail[4*SectorSize] = 1
	for name, s := range map[string]State{
		"version":      {Version: 9, Sectors: 20},
		"size":         {Version: 1, Sectors: 21},
		"order":        {Version: 1, Sectors: 20, Clusters: []Cluster{{1, full}, {0, full}}},
		"twice":        {Version: 1, Sectors: 20, Clusters: []Cluster{{1, full}, {1, full}}},
		"no data":      {Version: 1, Sectors: 20, Clusters: []Cluster{{Index: 1}}},
		"short data":   {Version: 1, Sectors: 20, Clusters: []Cluster{{1, full[:5]}}},
		"beyond":       {Version: 1, Sectors: 20, Clusters: []Cluster{{3, full}}},
		"far beyond":   {Version: 1, Sectors: 20, Clusters: []Cluster{{1 << 60, full}}},
		"data in tail": {Version: 1, Sectors: 20, Clusters: []Cluster{{2, tail}}},
	} {
		d := newDisk(t, pattern(20))
		if err := d.Restore(func(v any) error { *v.(*State) = s; return nil }); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzRestore(f *testing.F) {
	d, err := New("disk0", pattern(20))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(dev.Encode(d))
	if err := d.WriteSectors(make([]byte, 9*SectorSize), 3); err != nil {
		f.Fatal(err)
	}
	f.Add(dev.Encode(d))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDisk(t, pattern(20))
		if dev.Decode(d, b) != nil {
			return
		}
		// What was accepted is a state like any other.
		again := newDisk(t, pattern(20))
		if err := dev.Decode(again, dev.Encode(d)); err != nil || again.Hash() != d.Hash() {
			t.Errorf("accepted state does not survive: %v", err)
		}
	})
}
