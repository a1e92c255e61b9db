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
	// pagesPerChunk is how many pages go to the writer's goroutine at a time.
	pagesPerChunk = 64
	// maxChunks bounds the chunks that wait for it: 64 MiB.
	maxChunks = 256
)

// Writer takes snapshots of one machine, in ascending order of position.
//
// Take copies what changed and returns; hashing, compressing and writing happen in
// a goroutine. It sees nothing but the copies, so how it is scheduled cannot
// matter to the machine. When it falls behind, Take waits.
type Writer struct {
	work chan *chunk
	free chan *chunk // chunks to be filled; nil stands for one that was not made yet
	done chan struct{}

	mu  sync.Mutex
	err error

	// Of the goroutine.
	store *Store
	w     *traces.RecordWriter[Entry]
	ids   []uint32              // of every page, at the snapshot before
	disks map[string]*diskTable // by name
	since int
	pages []uint32 // changed since the snapshot before
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
	entry *Entry     // the snapshot that these are the last pages of
	ack   chan error // or: tell when all before it is written
}

// item is a page of memory, or a cluster of a disk.
type item struct {
	disk    string // empty for memory
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
		work: make(chan *chunk, maxChunks), free: make(chan *chunk, maxChunks), done: make(chan struct{}),
		store: st, w: traces.NewRecordWriter[Entry](b), ids: make([]uint32, pages), disks: map[string]*diskTable{},
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
	add := func(it item, data []byte) {
		if len(c.items) == pagesPerChunk {
			w.work <- c
			c = w.chunk()
		}
		c.items = append(c.items, it)
		c.data = append(c.data, data...)
	}
	for n := range m.Pages() {
		if changed == nil || changed(n) {
			add(item{n: uint64(n)}, m.Page(n))
		}
	}
	e.Disks = nil
	for _, d := range disks {
		e.Disks = append(e.Disks, DiskEntry{Name: d.Name()})
		visit := func(n uint64, data []byte) { add(item{d.Name(), n, data == nil}, data) }
		if changed == nil {
			d.Each(visit)
		} else {
			d.ClearDirty(visit)
		}
	}
	c.entry = &e
	w.work <- c
	return nil
}

// chunk returns an empty chunk, and waits for one where all are in use.
func (w *Writer) chunk() *chunk {
	c := <-w.free
	if c == nil {
		c = &chunk{items: make([]item, 0, pagesPerChunk), data: make([]byte, 0, pagesPerChunk*mem.PageSize)}
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
	for c := range w.work {
		if w.Err() == nil {
			if err := w.take(c); err != nil {
				w.fail(err)
			}
		}
		if c.ack != nil {
			c.ack <- w.Err()
		}
		c.items, c.data, c.entry, c.ack = c.items[:0], c.data[:0], nil, nil
		w.free <- c
	}
}

// take stores the pages of a chunk, and the entry that they complete.
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
		if it.disk == "" {
			if w.ids[it.n] != id {
				w.ids[it.n] = id
				w.pages = append(w.pages, uint32(it.n))
			}
			continue
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
