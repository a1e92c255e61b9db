package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"

	"refault/traces"
	"refault/vmm/mem"
)

// fullEvery is how many snapshots there are from one full one to the next.
const fullEvery = 16

// Blob is the encoded state of one device.
type Blob struct {
	Name string
	Data []byte // empty for a disk, whose state is in Entry.Disks
}

// Entry is one snapshot, as it is stored.
type Entry struct {
	Step         uint64
	TimeNs       uint64
	ConsoleBytes uint64
	Full         bool
	// StorePages is how many pages the store held when the entry was written: it names none beyond.
	StorePages uint32
	Blobs      []Blob
	// Page Numbers[i] of memory has the content IDs[i]. Pages that are not
	// listed are as in the snapshot before; in a full one, zero.
	Numbers []uint32
	IDs     []uint32
	Disks   []DiskEntry
}

// DiskEntry is what was written to a disk.
type DiskEntry struct {
	Name string
	// Cluster Numbers[i] has the content IDs[i], or where that is asImage what the image has.
	// Clusters that are not listed are as in the snapshot before; in a full one, as in the image.
	Numbers []uint64
	IDs     []uint32
}

// asImage is the identifier of what a disk's image has.
const asImage = 1<<32 - 1

// Memory is a memory that can be snapshotted. *mem.RAM implements it.
type Memory interface {
	Pages() int
	Page(n int) []byte
}

// Disk is a disk that can be snapshotted. *disk.Disk implements it.
type Disk interface {
	Name() string
	// Each visits every cluster that differs from the image; ClearDirty those that
	// changed since it was last called, with nil for one that is as in the image again.
	Each(visit func(index uint64, data []byte))
	ClearDirty(visit func(index uint64, data []byte))
}

var _ Memory = (*mem.RAM)(nil)

// Reader restores snapshots.
type Reader struct {
	store  *Store
	blocks *traces.BlockReader
	steps  []uint64 // ascending
	block  []int    // where each is in the file: what was appended later stands last
	pages  int

	have []uint32 // identifiers of what Restore's memory held last
}

// OpenReader opens the snapshots of a recording whose machine has so many pages.
func OpenReader(dir string, pages int) (*Reader, error) {
	// In the reverse of the order in which a writer writes, which may be at work.
	b, err := traces.OpenBlocks(filepath.Join(dir, traces.FileSnapshots))
	if err != nil {
		return nil, err
	}
	st, err := OpenStore(dir)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	r := &Reader{store: st, blocks: b, pages: pages}
	if err := r.index(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Reader) index() error {
	n := len(r.blocks.Blocks)
	for i, x := range r.blocks.Blocks {
		if x.Records != 1 || x.First != x.Last {
			return r.damaged(i, "a block of %d snapshots", x.Records)
		}
	}
	// Where the store ends early, as when it was copied in part, so does the list.
	for ; n > 0; n-- {
		e, err := r.entry(n - 1)
		if err != nil {
			return err
		}
		if int(e.StorePages) <= r.store.Pages() {
			break
		}
	}
	for i := range n {
		r.block = append(r.block, i)
	}
	sort.SliceStable(r.block, func(i, j int) bool { return r.blocks.Blocks[r.block[i]].First < r.blocks.Blocks[r.block[j]].First })
	for _, i := range r.block {
		r.steps = append(r.steps, r.blocks.Blocks[i].First)
	}
	return nil
}

func (r *Reader) damaged(block int, format string, args ...any) error {
	return fmt.Errorf("%s: the snapshot at byte %d: %s: %w", traces.FileSnapshots, r.blocks.Blocks[block].Offset, fmt.Sprintf(format, args...), traces.ErrDamaged)
}

// Steps returns the positions of the snapshots, ascending.
func (r *Reader) Steps() []uint64 { return r.steps }

// Before returns the index of the last snapshot at or before step, or -1.
func (r *Reader) Before(step uint64) int {
	return sort.Search(len(r.steps), func(i int) bool { return r.steps[i] > step }) - 1
}

// Entry returns snapshot i as it is stored.
func (r *Reader) Entry(i int) (*Entry, error) { return r.entry(r.block[i]) }

// entry returns the snapshot in a block.
func (r *Reader) entry(block int) (*Entry, error) {
	raw, err := r.blocks.Read(block)
	if err != nil {
		return nil, err
	}
	es, err := traces.DecodeRecords[Entry](raw, 1)
	if err != nil {
		return nil, r.damaged(block, "%v", err)
	}
	e := &es[0]
	if err := e.check(r.pages); err != nil {
		return nil, r.damaged(block, "%v", err)
	}
	if e.Step != r.blocks.Blocks[block].First {
		return nil, r.damaged(block, "it says step %d", e.Step)
	}
	return e, nil
}

// check tells whether an entry that comes from outside makes sense for a memory of so many pages.
func (e *Entry) check(pages int) error {
	if err := checkTable(e.Numbers, e.IDs, e.StorePages, uint32(pages)); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	for i := range e.Disks {
		d := &e.Disks[i]
		if err := checkTable(d.Numbers, d.IDs, e.StorePages, 1<<63); err != nil {
			return fmt.Errorf("%.40q: %w", d.Name, err)
		}
	}
	return nil
}

func checkTable[N uint32 | uint64](numbers []N, ids []uint32, stored uint32, limit N) error {
	if len(numbers) != len(ids) {
		return fmt.Errorf("%d pages, %d identifiers", len(numbers), len(ids))
	}
	for i, n := range numbers {
		if n >= limit || i > 0 && n <= numbers[i-1] {
			return fmt.Errorf("page %d is out of order, or beyond %d", n, limit)
		}
		if ids[i] > stored && ids[i] != asImage {
			return fmt.Errorf("page %d is page %d of %d in the store", n, ids[i], stored)
		}
	}
	return nil
}

// Sizes returns the bytes on disk of the list and of the page store, and the number of different pages.
func (r *Reader) Sizes() (list, store int64, pages int) {
	return r.blocks.End(), r.store.r.End(), r.store.Pages()
}

// Compare tells in what snapshot i differs from a machine's memory and disks: "", or
// the name of the first page or cluster. Pages are looked at that it lists, and those
// that changed reports; all of them where that is nil.
func (r *Reader) Compare(i int, m Memory, changed func(page int) bool, disks []Disk) (string, error) {
	chain, err := r.chain(i)
	if err != nil {
		return "", err
	}
	last := chain[len(chain)-1]
	want := make([]uint32, r.pages)
	for _, e := range chain {
		for j, n := range e.Numbers {
			want[n] = e.IDs[j]
		}
	}
	look := make([]bool, r.pages)
	for _, n := range last.Numbers {
		look[n] = true
	}
	var order []int
	for n := range look {
		if look[n] || changed == nil || changed(n) {
			order = append(order, n)
		}
	}
	sort.SliceStable(order, func(a, b int) bool { return want[order[a]] < want[order[b]] })
	for _, n := range order {
		p, err := r.store.Get(want[n])
		if err != nil {
			return "", err
		}
		if !bytes.Equal(p, m.Page(n)) {
			return fmt.Sprintf("page %d of memory", n), nil
		}
	}
	for _, d := range disks {
		left := 0
		now := map[uint64][]byte{}
		d.Each(func(n uint64, data []byte) { now[n] = bytes.Clone(data) })
		diff := ""
		err := r.restoreDisk(chain, d.Name(), func(_ string, n uint64, data []byte) error {
			if left++; diff == "" && !bytes.Equal(now[n], data) {
				diff = fmt.Sprintf("cluster %d of %s", n, d.Name())
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		if diff == "" && left != len(now) {
			diff = fmt.Sprintf("the number of clusters of %s", d.Name())
		}
		if diff != "" {
			return diff, nil
		}
	}
	return "", nil
}

// chain returns the entries from the last full snapshot at or before i, in the order of the file, to i.
func (r *Reader) chain(i int) ([]*Entry, error) {
	var chain []*Entry
	for at := r.block[i]; ; at-- {
		if at < 0 {
			return nil, r.damaged(r.block[i], "there is no full one before it")
		}
		e, err := r.entry(at)
		if err != nil {
			return nil, err
		}
		chain = append(chain, e)
		if e.Full {
			slices.Reverse(chain)
			return chain, nil
		}
	}
}

// Restore gives the content of snapshot i and returns its entry. write is called for
// every page of memory whose content has to change, as far as the reader knows: all of
// them the first time, and after Forget. writeDisk is called for every cluster of
// every disk that is not as in its image.
func (r *Reader) Restore(i int, write func(page int, content []byte), writeDisk func(disk string, cluster uint64, content []byte) error) (*Entry, error) {
	chain, err := r.chain(i)
	if err != nil {
		return nil, err
	}
	want := make([]uint32, r.pages)
	for _, e := range chain {
		for j, n := range e.Numbers {
			want[n] = e.IDs[j]
		}
	}
	// In the order of the store, so that each block is unpacked once.
	order := make([]int, 0, r.pages)
	for n, id := range want {
		if r.have == nil || r.have[n] != id {
			order = append(order, n)
		}
	}
	sort.Slice(order, func(a, b int) bool { return want[order[a]] < want[order[b]] })
	r.have = nil // in case of an error
	for _, n := range order {
		p, err := r.store.Get(want[n])
		if err != nil {
			return nil, err
		}
		write(n, p)
	}
	r.have = want
	e := chain[len(chain)-1]
	for k := range e.Disks {
		if err := r.restoreDisk(chain, e.Disks[k].Name, writeDisk); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (r *Reader) restoreDisk(chain []*Entry, name string, write func(disk string, cluster uint64, content []byte) error) error {
	ids := map[uint64]uint32{}
	for _, e := range chain {
		for k := range e.Disks {
			if d := &e.Disks[k]; d.Name == name {
				for j, n := range d.Numbers {
					ids[n] = d.IDs[j]
				}
			}
		}
	}
	order := make([]uint64, 0, len(ids))
	for n, id := range ids {
		if id != asImage {
			order = append(order, n)
		}
	}
	sort.Slice(order, func(a, b int) bool {
		x, y := ids[order[a]], ids[order[b]]
		return x < y || x == y && order[a] < order[b]
	})
	for _, n := range order {
		p, err := r.store.Get(ids[n])
		if err != nil {
			return err
		}
		if err := write(name, n, p); err != nil {
			return fmt.Errorf("%s: %w: %w", traces.FileSnapshots, err, traces.ErrDamaged)
		}
	}
	return nil
}

// Changed tells the reader that pages of the memory it restored have changed since.
func (r *Reader) Changed(page int) {
	if r.have != nil {
		r.have[page] = unknownID
	}
}

// Blank tells the reader that the memory is all zeros, as a new machine's is: the first
// Restore need not write, or even look at, the pages that stay so.
func (r *Reader) Blank() { r.have = make([]uint32, r.pages) }

// Forget tells the reader that it knows nothing of the memory any more.
func (r *Reader) Forget() { r.have = nil }

// unknownID is no page's identifier.
const unknownID = 1<<32 - 1

// Close closes both files.
func (r *Reader) Close() error { return errors.Join(r.store.Close(), r.blocks.Close()) }
