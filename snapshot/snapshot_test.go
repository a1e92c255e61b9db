package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"refault/traces"
	"refault/vmm/dev/disk"
	"refault/vmm/mem"
)

const testPages = 300 // more than one chunk, more than one block

// memory is a memory for tests, with what a machine's tracker would know of it.
type memory struct {
	pages   [testPages][mem.PageSize]byte
	changed [testPages]bool
	before  func(page int) // a write
}

func (m *memory) Pages() int        { return testPages }
func (m *memory) Page(n int) []byte { return m.pages[n][:] }

// scribble changes some pages, some of them back to what they were or to what others are.
func (m *memory) scribble(r *rand.Rand) {
	for range r.IntN(40) {
		n := r.IntN(testPages)
		m.before(n)
		m.changed[n] = true
		switch r.IntN(5) {
		case 0:
			clear(m.pages[n][:])
		case 1:
			m.pages[n] = m.pages[r.IntN(testPages)]
		default:
			m.pages[n][r.IntN(mem.PageSize)] = byte(r.Uint32())
		}
	}
}

// state is what a snapshot should bring back.
type state struct {
	step  uint64
	pages [testPages][mem.PageSize]byte
	disk  map[uint64][]byte
}

func newDisk(t *testing.T) *disk.Disk {
	t.Helper()
	d, err := disk.New("disk0", disk.Bytes(make([]byte, 500*512)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func overlay(d *disk.Disk) map[uint64][]byte {
	all := map[uint64][]byte{}
	d.Each(func(n uint64, b []byte) { all[n] = bytes.Clone(b) })
	return all
}

// takeAll makes a recording's snapshots and returns what they are of.
func takeAll(t *testing.T, dir string, r *rand.Rand, n int) []*state {
	t.Helper()
	w, err := CreateWriter(dir, testPages)
	if err != nil {
		t.Fatal(err)
	}
	m, d := &memory{before: w.BeforeWrite}, newDisk(t)
	var all []*state
	for i := range n {
		m.scribble(r)
		for range r.IntN(4) {
			b := make([]byte, 512*(1+r.IntN(20)))
			b[r.IntN(len(b))] = byte(r.IntN(3))
			if err := d.WriteSectors(b, uint64(r.IntN(480))); err != nil {
				t.Fatal(err)
			}
		}
		s := &state{step: uint64(i) * 10, pages: m.pages, disk: overlay(d)}
		all = append(all, s)
		changed := m.changed
		if err := w.Take(Entry{Step: s.step, Blobs: []Blob{{"cpu0", []byte{byte(i)}}}}, m, func(p int) bool { return changed[p] }, []Disk{d}); err != nil {
			t.Fatal(err)
		}
		// The machine runs on while the writer is at work.
		m.changed = [testPages]bool{}
		if r.IntN(3) == 0 {
			if err := w.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// open opens the snapshots in dir for as long as the test runs.
func open(t *testing.T, dir string) *Reader {
	t.Helper()
	rd, err := OpenReader(dir, testPages)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rd.Close() })
	return rd
}

// restored is a memory and a disk into which snapshots are restored.
type restored struct {
	r     *Reader
	pages [testPages][mem.PageSize]byte
	wrote int
}

func (x *restored) check(t *testing.T, i int, want *state) {
	t.Helper()
	got := map[uint64][]byte{}
	x.wrote = 0
	e, err := x.r.Restore(i, func(n int, content []byte) {
		x.wrote++
		copy(x.pages[n][:], content)
	}, func(name string, n uint64, content []byte) error {
		if name != "disk0" || got[n] != nil {
			return fmt.Errorf("cluster %d of %s once more", n, name)
		}
		got[n] = bytes.Clone(content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if e.Step != want.step || x.pages != want.pages {
		t.Errorf("snapshot %d, of step %d, is not the memory of step %d", i, e.Step, want.step)
	}
	if !maps.EqualFunc(got, want.disk, bytes.Equal) {
		t.Errorf("snapshot %d has %d clusters of the disk, want %d", i, len(got), len(want.disk))
	}
}

func TestSnapshotsComeBackInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	dir := t.TempDir()
	if err := traces.WriteFormat(dir); err != nil {
		t.Fatal(err)
	}
	all := takeAll(t, dir, r, 40)
	rd, err := OpenReader(dir, testPages)
	if err != nil {
		t.Fatal(err)
	}
	x := &restored{r: rd}
	defer func() { x.r.Close() }()
	x.check(t, 0, all[0])
	if x.wrote != testPages {
		t.Errorf("the first time %d pages were written, not all", x.wrote)
	}
	for range 60 {
		i := r.IntN(len(all))
		if r.IntN(2) == 0 { // the machine ran on
			n := r.IntN(testPages)
			x.pages[n][5]++
			x.r.Changed(n)
		}
		x.check(t, i, all[i])
	}
	x.check(t, 7, all[7])
	x.check(t, 7, all[7])
	if x.wrote != 0 {
		t.Errorf("restored where it was, it wrote %d pages", x.wrote)
	}
	if i := x.r.Before(75); i != 7 {
		t.Errorf("before step 75 is snapshot %d", i)
	}

	// One more, of something else, between the others.
	m, d := &memory{before: func(int) {}}, newDisk(t)
	m.scribble(r)
	if err := d.WriteSectors(bytes.Repeat([]byte{9}, 512), 3); err != nil {
		t.Fatal(err)
	}
	if err := Append(dir, Entry{Step: 75}, m, []Disk{d}); err != nil {
		t.Fatal(err)
	}
	x.r.Close()
	if x.r, err = OpenReader(dir, testPages); err != nil {
		t.Fatal(err)
	}
	x.check(t, 8, &state{step: 75, pages: m.pages, disk: overlay(d)})
	for i := range all {
		at := i
		if i > 7 {
			at++
		}
		x.check(t, at, all[i])
	}
	if diff, err := x.r.Compare(8, m, nil, []Disk{d}); diff != "" || err != nil {
		t.Errorf("compared with what it is of: %q, %v", diff, err)
	}
	m.pages[123][4]++
	if diff, err := x.r.Compare(8, m, nil, nil); diff != "page 123 of memory" || err != nil {
		t.Errorf("another page: %q, %v", diff, err)
	}
	m.pages[123][4]--
	if diff, err := x.r.Compare(8, m, nil, []Disk{newDisk(t)}); diff != "cluster 0 of disk0" || err != nil {
		t.Errorf("another disk: %q, %v", diff, err)
	}
}

func TestStoreCutOffEndsTheList(t *testing.T) {
	dir := t.TempDir()
	all := takeAll(t, dir, rand.New(rand.NewPCG(5, 6)), 30)
	pages, err := os.ReadFile(filepath.Join(dir, traces.FilePages))
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for cut := 20; cut <= len(pages); cut += max(1, len(pages)/40) {
		if err := os.WriteFile(filepath.Join(dir, traces.FilePages), pages[:cut], 0o666); err != nil {
			t.Fatal(err)
		}
		rd, err := OpenReader(dir, testPages)
		if err != nil {
			t.Fatalf("cut at byte %d: %v", cut, err)
		}
		n := len(rd.Steps())
		if n < last {
			t.Errorf("cut at byte %d: %d snapshots, cut before %d", cut, n, last)
		}
		last = n
		if n > 0 {
			(&restored{r: rd}).check(t, n-1, all[n-1])
		}
		rd.Close()
	}
	if last < 20 {
		t.Errorf("only %d snapshots at the end", last)
	}
}

func TestPagesWrittenBeforeTheyAreRead(t *testing.T) {
	dir := t.TempDir()
	w, err := CreateWriter(dir, testPages)
	if err != nil {
		t.Fatal(err)
	}
	w.toStore.copies.most = 10
	// The goroutine stands still for as long as nobody hears its answer.
	c := w.chunk()
	c.ack = make(chan error)
	w.work <- c
	m := &memory{}
	for n := range m.pages {
		m.pages[n][0] = byte(n)
	}
	want := &state{step: 7, pages: m.pages}
	if err := w.Take(Entry{Step: 7}, m, nil, nil); err != nil {
		t.Fatal(err)
	}
	write := func(n int) {
		w.BeforeWrite(n)
		w.BeforeWrite(n)
		m.pages[n][0] = 99
	}
	for n := range int(w.toStore.copies.most) {
		write(3 * n)
	}
	if n := w.toStore.copies.inUse(); n != int(w.toStore.copies.most) {
		t.Fatalf("%d pages saved, want %d", n, w.toStore.copies.most)
	}
	written := make(chan struct{})
	go func() {
		for n := range 50 {
			write(testPages - 1 - n)
		}
		close(written)
	}()
	select {
	case <-written:
		t.Error("more pages are saved than may be")
	case <-time.After(20 * time.Millisecond):
	}
	<-c.ack
	<-written
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := w.toStore.copies.inUse(); n != 0 {
		t.Errorf("%d pages are still saved", n)
	}
	rd := open(t, dir)
	(&restored{r: rd}).check(t, 0, want)
}

func TestPagesOfASnapshotThatFailed(t *testing.T) {
	w, err := CreateWriter(t.TempDir(), testPages)
	if err != nil {
		t.Fatal(err)
	}
	w.store.next = asImage // it can take no page
	c := w.chunk()
	c.ack = make(chan error)
	w.work <- c
	m := &memory{}
	for n := range m.pages {
		m.pages[n][0] = 1
	}
	if err := w.Take(Entry{Step: 7}, m, nil, nil); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < testPages; n += 2 {
		w.BeforeWrite(n)
	}
	if n := w.toStore.copies.inUse(); n != testPages/2 {
		t.Errorf("%d pages saved, want %d", n, testPages/2)
	}
	<-c.ack
	if err := w.Sync(); !errors.Is(err, traces.ErrTooLarge) {
		t.Errorf("Sync returned %v", err)
	}
	if n := w.toStore.copies.inUse(); n != 0 {
		t.Errorf("%d pages are still saved", n)
	}
	for n := range m.pages {
		w.BeforeWrite(n)
	}
	if n := w.toStore.copies.inUse(); n != 0 {
		t.Errorf("%d pages were saved for a snapshot that failed", n)
	}
	if err := w.Close(); !errors.Is(err, traces.ErrTooLarge) {
		t.Errorf("Close returned %v", err)
	}
}

func TestEqualPagesAreStoredOnce(t *testing.T) {
	dir := t.TempDir()
	w, err := CreateWriter(dir, testPages)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{}
	for n := range m.pages {
		m.pages[n][0] = byte(n % 3) // two different pages, and zeros
	}
	for i := range 3 {
		if err := w.Take(Entry{Step: uint64(i)}, m, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rd := open(t, dir)
	if _, _, n := rd.Sizes(); n != 2 {
		t.Errorf("%d pages stored, want 2", n)
	}
	for i, want := range []int{200, 0, 0} {
		if e, err := rd.Entry(i); err != nil || len(e.Numbers) != want || e.Full != (i == 0) {
			t.Errorf("snapshot %d lists %d pages, %v; want %d", i, len(e.Numbers), err, want)
		}
	}
}

func TestHashOfMemoryIsOfItsContent(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	m := &memory{before: func(int) {}}
	h := NewMemHash(testPages)
	seen := map[traces.Hash]int{h.Sum(): -1}
	for i := range 30 {
		m.changed = [testPages]bool{}
		m.scribble(r)
		for n, c := range m.changed {
			if c {
				h.Update(n, m.Page(n))
			}
		}
		fresh := NewMemHash(testPages)
		for n := range testPages {
			fresh.Update(n, m.Page(n))
		}
		if h.Sum() != fresh.Sum() {
			t.Fatalf("round %d: updated %v, from scratch %v", i, h.Sum(), fresh.Sum())
		}
		seen[h.Sum()] = i
	}
	if len(seen) < 25 {
		t.Errorf("only %d different hashes", len(seen))
	}
	a, b := NewMemHash(2), NewMemHash(2)
	one := bytes.Repeat([]byte{1}, mem.PageSize)
	a.Update(0, one)
	b.Update(1, one)
	if a.Sum() == b.Sum() || a.PageHash(0) == b.PageHash(1) {
		t.Error("a page that moved is not seen")
	}
	a.Update(0, make([]byte, mem.PageSize))
	if a.Sum() != NewMemHash(2).Sum() {
		t.Error("zeros are not what nothing is")
	}
}

// hashOf is the hash of what a memory holds now, from scratch.
func hashOf(m *memory) traces.Hash {
	h := NewMemHash(testPages)
	for n := range m.pages {
		h.Update(n, m.pages[n][:])
	}
	return h.Sum()
}

// takePages returns which pages changed since it was last called.
func (m *memory) takePages() (pages []uint32) {
	for n := range m.changed {
		if m.changed[n] {
			pages = append(pages, uint32(n))
		}
	}
	m.changed = [testPages]bool{}
	return pages
}

func TestHashesWhileMemoryIsWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	dir := t.TempDir()
	w, err := CreateWriter(dir, testPages)
	if err != nil {
		t.Fatal(err)
	}
	m, h := &memory{before: w.BeforeWrite}, NewMemHash(testPages)
	var want, got []traces.Hash
	var all []*state
	var since [testPages]bool // the last snapshot
	for i := range 300 {
		m.scribble(r)
		pages := m.takePages()
		for _, n := range pages {
			since[n] = true
		}
		want = append(want, hashOf(m))
		w.Hash(h, m, pages, func() error {
			got = append(got, h.Sum())
			return nil
		})
		if i%7 != 0 {
			continue
		}
		s := &state{step: uint64(i), pages: m.pages}
		all = append(all, s)
		changed := since
		since = [testPages]bool{}
		if err := w.Take(Entry{Step: s.step}, m, func(n int) bool { return changed[n] }, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Hashed(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the hashes are not those of the memory when they were asked for")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rd := open(t, dir)
	back := &restored{r: rd}
	for i := range all {
		back.check(t, i, all[i])
	}
}

func TestHashesComeBeforeSnapshots(t *testing.T) {
	w, err := CreateWriter(t.TempDir(), testPages)
	if err != nil {
		t.Fatal(err)
	}
	// The goroutine stands still for as long as nobody hears its answer.
	c := w.chunk()
	c.ack = make(chan error)
	w.work <- c
	m, h := &memory{before: w.BeforeWrite}, NewMemHash(testPages)
	m.pages[5][0], m.pages[6][0] = 1, 2
	if err := w.Take(Entry{}, m, nil, nil); err != nil {
		t.Fatal(err)
	}
	want := hashOf(m)
	var order []string
	w.Hash(h, m, []uint32{5, 6}, func() error {
		order = append(order, "hash")
		if h.Sum() != want {
			t.Error("not the hash of what the memory held")
		}
		if w.store.Pages() != 0 {
			t.Error("the snapshot was first")
		}
		return nil
	})
	w.BeforeWrite(5)
	m.pages[5][0] = 9
	failed := errors.New("then failed")
	w.Hash(h, m, nil, func() error { return failed })
	w.BeforeWrite(6)
	m.pages[6][0] = 9
	w.Hash(h, m, []uint32{5, 6}, func() error { t.Error("called after an error"); return nil })
	<-c.ack
	for range 2 { // an error stays
		if err := w.Hashed(); err != failed {
			t.Errorf("Hashed returned %v", err)
		}
	}
	if err := w.Close(); err != failed || len(order) != 1 {
		t.Errorf("Close returned %v after %q", err, order)
	}
	if n := w.toStore.copies.inUse(); n != 0 {
		t.Errorf("%d pages are still saved", n)
	}
}

func TestEntriesThatCannotBe(t *testing.T) {
	for name, e := range map[string]Entry{
		"more identifiers":     {Numbers: []uint32{1}, IDs: []uint32{0, 0}},
		"no identifiers":       {Numbers: []uint32{1}},
		"page beyond memory":   {Numbers: []uint32{testPages}, IDs: []uint32{0}},
		"twice the same":       {Numbers: []uint32{3, 3}, IDs: []uint32{0, 0}},
		"backwards":            {Numbers: []uint32{4, 3}, IDs: []uint32{0, 0}},
		"beyond the store":     {StorePages: 5, Numbers: []uint32{3}, IDs: []uint32{6}},
		"disk without numbers": {Disks: []DiskEntry{{Name: "disk0", IDs: []uint32{1}}}},
		"disk backwards":       {StorePages: 5, Disks: []DiskEntry{{Name: "disk0", Numbers: []uint64{9, 8}, IDs: []uint32{1, 1}}}},
	} {
		if e.check(testPages) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestIncrementalWithoutAFullOne(t *testing.T) {
	dir := t.TempDir()
	st, err := CreateStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := traces.CreateBlocks(filepath.Join(dir, traces.FileSnapshots))
	if err != nil {
		t.Fatal(err)
	}
	w := traces.NewRecordWriter[Entry](b)
	if err := errors.Join(w.Add(5, &Entry{Step: 5}), w.Close(), st.Close()); err != nil {
		t.Fatal(err)
	}
	rd := open(t, dir)
	if _, err := rd.Restore(0, func(int, []byte) {}, nil); !errors.Is(err, traces.ErrDamaged) || !strings.Contains(err.Error(), "snapshots: ") {
		t.Errorf("restored: %v", err)
	}
}

func FuzzEntry(f *testing.F) {
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseArrayEncodedStructs(true)
	if err := enc.Encode(&Entry{Step: 1, Full: true, StorePages: 9, Blobs: []Blob{{"cpu0", []byte{1}}}, Numbers: []uint32{1, 2}, IDs: []uint32{3, 4},
		Disks: []DiskEntry{{"disk0", []uint64{5}, []uint32{6}}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		es, err := traces.DecodeRecords[Entry](raw, 1)
		if err != nil {
			if !errors.Is(err, traces.ErrDamaged) {
				t.Error(err)
			}
			return
		}
		if es[0].check(testPages) == nil {
			want := make([]uint32, testPages)
			for i, n := range es[0].Numbers {
				want[n] = es[0].IDs[i]
			}
		}
	})
}
