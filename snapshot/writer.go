package snapshot

import (
	"errors"
	"path/filepath"
	"slices"
	"sync"

	"refault/traces"
	"refault/vmm/mem"
)

const (
	// clustersPerChunk is how many clusters of disks go to the writer's goroutine at a time.
	clustersPerChunk = 64
	// maxChunks bounds the chunks that wait for it: 64 MiB.
	maxChunks = maxLoans
	// maxHashings bounds the calls of Hash that wait for it, and so how far marks are behind the machine.
	maxHashings = 4
	// maxSaved bounds the pages that were copied because the machine was about to write them: 64 MiB.
	maxSaved = 16384
)

// Writer takes snapshots of one machine, in ascending order of position, and the hashes of its memory.
//
// Take copies what changed on disks, lends the pages that changed to a goroutine, and
// returns; reading them, hashing, compressing and writing happen there. Hash lends it pages too, and they come
// first. The machine must call BeforeWrite before it writes a page, which copies or hashes it if the goroutine has
// not read it yet: what it reads is what was there at the position of the snapshot, and
// how it is scheduled cannot matter to the machine. When it falls behind, the machine waits.
type Writer struct {
	work     chan *chunk
	hashings chan *hashing // before all work
	free     chan *chunk   // chunks to be filled; nil stands for one that was not made yet
	done     chan struct{}

	mu  sync.Mutex
	err error

	toStore, toHash *lender

	// Of the goroutine.
	store *Store
	w     *traces.RecordWriter[Entry]
	ids   []uint32              // of every page, at the snapshot before
	disks map[string]*diskTable // by name
	since int
	pages []uint32 // changed since the snapshot before
	page  [mem.PageSize]byte
}

// diskTable is what a disk held at the snapshot before.
type diskTable struct {
	ids     map[uint64]uint32
	changed []uint64
}

// chunk is work for the goroutine.
type chunk struct {
	items []item
	data  []byte
	entry *Entry     // the snapshot that these are the last clusters of
	ack   chan error // or: tell when all before it is written

	loan *loan // of the snapshot: pages of memory that may have changed
}

// hashing is a call of Hash.
type hashing struct {
	hash *MemHash
	loan *loan
	then func() error
	ack  chan error // or: tell when all before it is hashed
}

// item is a cluster of a disk.
type item struct {
	disk    string
	n       uint64
	asImage bool // it has no data
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
	return newWriter(st, b, pages), nil
}

func newWriter(st *Store, b *traces.BlockWriter, pages int) *Writer {
	w := &Writer{
		work: make(chan *chunk, maxChunks), hashings: make(chan *hashing, maxHashings), free: make(chan *chunk, maxChunks), done: make(chan struct{}),
		toStore: &lender{pages: make([]lent, pages), copies: newPagePool(maxSaved)}, toHash: &lender{pages: make([]lent, pages)}, store: st, w: traces.NewRecordWriter[Entry](b), ids: make([]uint32, pages), disks: map[string]*diskTable{},
	}
	for range maxChunks {
		w.free <- nil
	}
	go w.run()
	return w
}

// Append adds one snapshot to the finished recording in dir, at any position. It is a
// full one, so that it needs none of the others and they do not notice it.
func Append(dir string, e Entry, m Memory, disks []Disk) error {
	lock, err := traces.Lock(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
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
	w := newWriter(st, b, m.Pages())
	if err := w.Take(e, m, nil, disks); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

// Take takes a snapshot. changed reports whether a page may differ from the
// snapshot before; nil means that any may, and any cluster of any disk. An error
// may be that of an earlier one.
func (w *Writer) Take(e Entry, m Memory, changed func(page int) bool, disks []Disk) error {
	if err := w.Err(); err != nil {
		return err
	}
	c := w.chunk()
	e.Disks = nil
	for _, d := range disks {
		e.Disks = append(e.Disks, DiskEntry{Name: d.Name()})
		visit := func(n uint64, data []byte) {
			if len(c.items) == clustersPerChunk {
				w.work <- c
				c = w.chunk()
			}
			c.items = append(c.items, item{d.Name(), n, data == nil})
			c.data = append(c.data, data...)
		}
		if changed == nil {
			d.Each(visit)
		} else {
			d.ClearDirty(visit)
		}
	}
	var pages []uint32
	for n := range m.Pages() {
		if changed == nil || changed(n) {
			pages = append(pages, uint32(n))
		}
	}
	c.entry, c.loan = &e, w.toStore.lend(m, pages)
	w.work <- c
	return nil
}

// Hash makes the goroutine take what pages hold now into h, after earlier calls of Hash and before everything else,
// and then call then, whose error is the goroutine's. Nothing of that happens after an error. The pages are all
// different, and the goroutine keeps them; until Hashed or Sync nobody else may look at h.
func (w *Writer) Hash(h *MemHash, m Memory, pages []uint32, then func() error) {
	w.hashings <- &hashing{hash: h, loan: w.toHash.lend(m, pages), then: then}
}

// Hashed waits for all calls of Hash.
func (w *Writer) Hashed() error {
	ack := make(chan error)
	w.hashings <- &hashing{ack: ack}
	return <-ack
}

// BeforeWrite must be called before the first write to a page of memory after each snapshot and each hash; more often does no harm.
func (w *Writer) BeforeWrite(page int) {
	w.toHash.beforeWrite(page)
	w.toStore.beforeWrite(page)
}

// chunk returns an empty chunk, and waits for one where all are in use.
func (w *Writer) chunk() *chunk {
	c := <-w.free
	if c == nil {
		c = &chunk{items: make([]item, 0, clustersPerChunk)}
	}
	return c
}

// Err returns the first error of the goroutine, after which nothing is written any more.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *Writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// Sync waits until all that was taken is written.
func (w *Writer) Sync() error {
	c := w.chunk()
	c.ack = make(chan error)
	w.work <- c
	return <-c.ack
}

// Close waits until all that was taken is written, and closes both files.
func (w *Writer) Close() error {
	close(w.work)
	<-w.done
	w.toStore.copies.close()
	if err := w.Err(); err != nil {
		w.store.abandon()
		w.w.Abandon()
		return err
	}
	return errors.Join(w.store.Close(), w.w.Close())
}

// run is the goroutine.
func (w *Writer) run() {
	defer close(w.done)
	for {
		select {
		case h := <-w.hashings:
			w.hash(h)
		case c, ok := <-w.work:
			w.hashAll()
			if !ok {
				return
			}
			w.do(c)
		}
	}
}

func (w *Writer) do(c *chunk) {
	if w.Err() == nil {
		if err := w.take(c); err != nil {
			w.fail(err)
		}
	}
	if c.loan != nil {
		w.toStore.giveBack(c.loan)
	}
	if c.ack != nil {
		c.ack <- w.Err()
	}
	c.items, c.data, c.entry, c.loan, c.ack = c.items[:0], c.data[:0], nil, nil, nil
	w.free <- c
}

// hashAll does what waits to be hashed.
func (w *Writer) hashAll() {
	for {
		select {
		case h := <-w.hashings:
			w.hash(h)
		default:
			return
		}
	}
}

func (w *Writer) hash(h *hashing) {
	if h.ack != nil {
		h.ack <- w.Err()
		return
	}
	if w.Err() != nil {
		w.toHash.giveBack(h.loan)
		return
	}
	for range h.loan.pages {
		h.hash.set(w.toHash.nextHash(h.loan))
	}
	if h.then == nil {
		return
	}
	if err := h.then(); err != nil {
		w.fail(err)
	}
}

// take stores the clusters of a chunk and, if they complete one, a snapshot.
func (w *Writer) take(c *chunk) error {
	data := c.data
	for _, it := range c.items {
		id := uint32(asImage)
		if !it.asImage {
			var err error
			if id, err = w.store.Put(data[:mem.PageSize]); err != nil {
				return err
			}
			data = data[mem.PageSize:]
		}
		t := w.disks[it.disk]
		if t == nil {
			t = &diskTable{ids: map[uint64]uint32{}}
			w.disks[it.disk] = t
		}
		if old, ok := t.ids[it.n]; !ok || old != id {
			t.ids[it.n] = id
			t.changed = append(t.changed, it.n)
		}
	}
	if c.entry == nil {
		return nil
	}
	for _, n := range c.loan.pages {
		w.hashAll()
		w.toStore.copies.ready()
		w.toStore.nextCopy(c.loan, w.page[:])
		id, err := w.store.Put(w.page[:])
		if err != nil {
			return err
		}
		if w.ids[n] != id {
			w.ids[n] = id
			w.pages = append(w.pages, n)
		}
	}
	return w.finish(c.entry)
}

// finish writes the entry of a snapshot whose pages are in the store.
func (w *Writer) finish(e *Entry) error {
	e.Full = w.since == 0
	w.since = (w.since + 1) % fullEvery
	e.Numbers, e.IDs = nil, nil
	list := func(n uint32) {
		e.Numbers = append(e.Numbers, n)
		e.IDs = append(e.IDs, w.ids[n])
	}
	if e.Full {
		for n, id := range w.ids {
			if id != zeroID {
				list(uint32(n))
			}
		}
	} else {
		for _, n := range w.pages { // in ascending order, as they were taken
			list(n)
		}
	}
	w.pages = w.pages[:0]
	for i := range e.Disks {
		d := &e.Disks[i]
		t := w.disks[d.Name]
		if t == nil {
			continue
		}
		numbers := t.changed
		if e.Full {
			numbers = nil
			for n, id := range t.ids {
				if id == asImage {
					delete(t.ids, n)
				} else {
					numbers = append(numbers, n)
				}
			}
			slices.Sort(numbers)
		}
		for _, n := range numbers {
			d.Numbers = append(d.Numbers, n)
			d.IDs = append(d.IDs, t.ids[n])
		}
		t.changed = t.changed[:0]
	}
	// The pages come first: an entry must not name what is not there.
	if err := w.store.Flush(); err != nil {
		return err
	}
	e.StorePages = uint32(w.store.Pages())
	if err := w.w.Add(e.Step, e); err != nil {
		return err
	}
	return w.w.Flush()
}
