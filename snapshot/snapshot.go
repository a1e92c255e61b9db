package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"sort"

	"refault/traces"
	"refault/vmm/mem"
)

// fullEvery is how many incremental snapshots may follow a full one.
const fullEvery = 16

// Blob is the encoded state of one device.
type Blob struct {
	Name string
	Data []byte
}

// Entry is one snapshot, as it is stored.
type Entry struct {
	Step         uint64
	TimeNs       uint64
	ConsoleBytes uint64
	Full         bool
	Blobs        []Blob
	// Page n of memory has the content IDs[i] where Numbers[i] is n. Pages that are not
	// listed are as in the snapshot before; in a full one, zero.
	Numbers []uint32
	IDs     []uint32
}

// Memory is a memory that can be snapshotted. *mem.RAM implements it.
type Memory interface {
	Pages() int
	Page(n int) []byte
}

var _ Memory = (*mem.RAM)(nil)

// Writer takes snapshots of one machine, in ascending order of position.
type Writer struct {
	store *Store
	w     *traces.RecordWriter[Entry]
	ids   []uint32 // of every page, at the snapshot before
	since int
}

// CreateWriter makes the store and the list of snapshots in a recording's directory.
func CreateWriter(dir string, pages int) (*Writer, error) {
	st, err := CreateStore(dir)
	if err != nil {
		return nil, err
	}
	b, err := traces.CreateBlocks(filepath.Join(dir, traces.FileSnapshots))
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return &Writer{store: st, w: traces.NewRecordWriter[Entry](b), ids: make([]uint32, pages)}, nil
}

// Take stores a snapshot. changed reports whether a page may differ from the
// snapshot before; nil means that any may.
func (w *Writer) Take(e Entry, m Memory, changed func(page int) bool) error {
	e.Full = w.since == 0
	e.Numbers, e.IDs = nil, nil
	for n := range m.Pages() {
		id := w.ids[n]
		if changed == nil || changed(n) {
			var err error
			if id, err = w.store.Put(m.Page(n)); err != nil {
				return err
			}
		}
		if id != w.ids[n] || e.Full && id != zeroID {
			e.Numbers = append(e.Numbers, uint32(n))
			e.IDs = append(e.IDs, id)
		}
		w.ids[n] = id
	}
	w.since = (w.since + 1) % fullEvery
	// The pages come first: an entry must not name what is not there.
	if err := w.store.Flush(); err != nil {
		return err
	}
	if err := w.w.Add(e.Step, &e); err != nil {
		return err
	}
	return w.w.Flush()
}

// Close closes both files.
func (w *Writer) Close() error { return errors.Join(w.store.Close(), w.w.Close()) }

// Append adds one snapshot to the finished recording in dir, at any position. It is a
// full one, so that it needs none of the others and they do not notice it.
func Append(dir string, e Entry, m Memory) error {
	st, err := appendStore(dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, traces.FileSnapshots)
	r, err := traces.OpenBlocks(path)
	if err != nil {
		return errors.Join(err, st.Close())
	}
	b, err := traces.AppendBlocks(path, r.End())
	if err := errors.Join(err, r.Close()); err != nil {
		return errors.Join(err, st.Close())
	}
	w := &Writer{store: st, w: traces.NewRecordWriter[Entry](b), ids: make([]uint32, m.Pages())}
	return errors.Join(w.Take(e, m, nil), w.Close())
}

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
	st, err := OpenStore(dir)
	if err != nil {
		return nil, err
	}
	b, err := traces.OpenBlocks(filepath.Join(dir, traces.FileSnapshots))
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	r := &Reader{store: st, blocks: b, pages: pages}
	for i, x := range b.Blocks {
		if x.Records != 1 {
			return nil, errors.Join(fmt.Errorf("%s: a block of %d snapshots: %w", traces.FileSnapshots, x.Records, traces.ErrDamaged), b.Close(), st.Close())
		}
		r.block = append(r.block, i)
	}
	sort.SliceStable(r.block, func(i, j int) bool { return b.Blocks[r.block[i]].First < b.Blocks[r.block[j]].First })
	for _, i := range r.block {
		r.steps = append(r.steps, b.Blocks[i].First)
	}
	return r, nil
}

// Steps returns the positions of the snapshots, ascending.
func (r *Reader) Steps() []uint64 { return r.steps }

// Before returns the index of the last snapshot at or before step, or -1.
func (r *Reader) Before(step uint64) int {
	return sort.Search(len(r.steps), func(i int) bool { return r.steps[i] > step }) - 1
}

// Entry returns snapshot i as it is stored.
func (r *Reader) Entry(i int) (*Entry, error) { return r.entry(r.block[i]) }

func (r *Reader) entry(i int) (*Entry, error) {
	raw, err := r.blocks.Read(i)
	if err != nil {
		return nil, err
	}
	es, err := traces.DecodeRecords[Entry](raw, 1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", traces.FileSnapshots, err)
	}
	e := &es[0]
	if len(e.Numbers) != len(e.IDs) || e.Step != r.blocks.Blocks[i].First {
		return nil, fmt.Errorf("%s: snapshot %d contradicts itself: %w", traces.FileSnapshots, i, traces.ErrDamaged)
	}
	for _, n := range e.Numbers {
		if int(n) >= r.pages {
			return nil, fmt.Errorf("%s: snapshot %d has page %d of %d: %w", traces.FileSnapshots, i, n, r.pages, traces.ErrDamaged)
		}
	}
	return e, nil
}

// Sizes returns the bytes on disk of the list and of the page store, and the number of different pages.
func (r *Reader) Sizes() (list, store int64, pages int) {
	return r.blocks.End(), r.store.r.End(), r.store.Pages()
}

// Restore fills memory with snapshot i and returns its entry. write is called for
// every page whose content has to change, as far as the reader knows: all of them
// the first time, and after Forget.
func (r *Reader) Restore(i int, write func(page int, content []byte)) (*Entry, error) {
	want := make([]uint32, r.pages)
	first := r.block[i]
	e, err := r.Entry(i)
	if err != nil {
		return nil, err
	}
	chain := []*Entry{e}
	for !chain[len(chain)-1].Full {
		if first--; first < 0 {
			return nil, fmt.Errorf("%s: no full snapshot before %d: %w", traces.FileSnapshots, i, traces.ErrDamaged)
		}
		p, err := r.entry(first)
		if err != nil {
			return nil, err
		}
		chain = append(chain, p)
	}
	for k := len(chain) - 1; k >= 0; k-- {
		for j, n := range chain[k].Numbers {
			want[n] = chain[k].IDs[j]
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
	return e, nil
}

// Changed tells the reader that pages of the memory it restored have changed since.
func (r *Reader) Changed(page int) {
	if r.have != nil {
		r.have[page] = unknownID
	}
}

// Forget tells the reader that it knows nothing of the memory any more.
func (r *Reader) Forget() { r.have = nil }

// unknownID is no page's identifier.
const unknownID = 1<<32 - 1

// Close closes both files.
func (r *Reader) Close() error { return errors.Join(r.store.Close(), r.blocks.Close()) }
