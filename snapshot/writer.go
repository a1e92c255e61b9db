package snapshot

import (
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"refault/traces"
	"refault/vmm/mem"
)

const (
	// clustersPerChunk is how many clusters of disks go to the writer's goroutine at a time.
	clustersPerChunk = 64
	// maxChunks bounds the chunks that wait for it: 64 MiB.
	maxChunks = 256
	// maxSaved bounds the pages that were copied because the machine was about to write them: 64 MiB.
	maxSaved = 16384
)

// Writer takes snapshots of one machine, in ascending order of position.
//
// Take copies what changed on disks, lends the pages that changed to a goroutine, and
// returns; reading them, hashing, compressing and writing happen there. The machine
// must call BeforeWrite before it writes a page, which copies it if the goroutine has
// not read it yet: what it reads is what was there at the position of the snapshot, and
// how it is scheduled cannot matter to the machine. When it falls behind, the machine waits.
type Writer struct {
	work chan *chunk
	free chan *chunk // chunks to be filled; nil stands for one that was not made yet
	done chan struct{}

	mu  sync.Mutex
	err error

	lent   []lent    // by page
	copies *pagePool // of pages that the machine was about to write

	// Of the machine's side.
	taken uint32            // snapshots
	loans [maxChunks]*chunk // the last of them, by number: no more can wait

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

	// Of the snapshot: pages of memory that may have changed, and how many of them were read.
	memory Memory
	number uint32
	pages  []uint32
	saved  []atomic.Int32 // of those that the machine was about to write, the copy plus one
	read   int
}

// lent says for which snapshot a page has to be read before it is written. Who copies it, the
// goroutine or the machine, puts beingCopied there first and notLent afterwards.
type lent struct {
	to atomic.Uint32 // the snapshot's number
	at uint32        // where it lists the page
}

// Values of lent.to besides the numbers of snapshots.
const (
	notLent = iota
	beingCopied
	firstNumber
)

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
	return newWriter(st, b, pages)
}

func newWriter(st *Store, b *traces.BlockWriter, pages int) (*Writer, error) {
	copies, err := newPagePool(maxSaved)
	if err != nil {
		return nil, errors.Join(err, st.Close(), b.Close())
	}
	w := &Writer{
		work: make(chan *chunk, maxChunks), free: make(chan *chunk, maxChunks), done: make(chan struct{}),
		lent: make([]lent, pages), copies: copies, store: st, w: traces.NewRecordWriter[Entry](b), ids: make([]uint32, pages), disks: map[string]*diskTable{},
	}
	for range maxChunks {
		w.free <- nil
	}
	go w.run()
	return w, nil
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
	w, err := newWriter(st, b, m.Pages())
	if err != nil {
		return err
	}
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
	c.entry, c.memory = &e, m
	for n := range m.Pages() {
		if changed == nil || changed(n) {
			w.BeforeWrite(n) // it may still wait for the snapshot before
			c.pages = append(c.pages, uint32(n))
		}
	}
	c.number = w.taken + firstNumber
	c.saved = make([]atomic.Int32, len(c.pages))
	w.loans[w.taken%maxChunks] = c
	w.taken++
	for i, n := range c.pages {
		w.lent[n].at = uint32(i)
		w.lent[n].to.Store(c.number)
	}
	w.work <- c
	return nil
}

// BeforeWrite must be called before the first write to a page of memory after each snapshot; more often does no harm.
func (w *Writer) BeforeWrite(page int) {
	l := &w.lent[page]
	for {
		switch number := l.to.Load(); number {
		case notLent:
			return
		case beingCopied:
			runtime.Gosched() // it takes no time
		default:
			p := w.copies.get() // the page may be read while this waits
			if !l.to.CompareAndSwap(number, beingCopied) {
				w.copies.put(p)
				continue
			}
			c := w.loans[(number-firstNumber)%maxChunks]
			copy(w.copies.page(p), c.memory.Page(page))
			c.saved[l.at].Store(p + 1)
			l.to.Store(notLent)
		}
	}
}

// next returns the next page of the snapshot that c completes; it is good until the next one is read.
func (w *Writer) next(c *chunk) []byte {
	i, n := c.read, c.pages[c.read]
	c.read++
	if l := &w.lent[n]; l.to.CompareAndSwap(c.number, beingCopied) {
		copy(w.page[:], c.memory.Page(int(n)))
		l.to.Store(notLent)
		return w.page[:]
	}
	p := c.wait(i)
	copy(w.page[:], w.copies.page(p))
	w.copies.put(p)
	return w.page[:]
}

// wait returns the copy of a page that the machine made, or is making.
func (c *chunk) wait(i int) int32 {
	for {
		if p := c.saved[i].Load(); p != 0 {
			return p - 1
		}
		runtime.Gosched()
	}
}

// giveBack ends the loan of pages that were not read.
func (w *Writer) giveBack(c *chunk) {
	for ; c.read < len(c.pages); c.read++ {
		if !w.lent[c.pages[c.read]].to.CompareAndSwap(c.number, notLent) {
			w.copies.put(c.wait(c.read))
		}
	}
	c.memory, c.pages, c.saved, c.read = nil, nil, nil, 0
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
	freed := w.copies.close()
	if err := w.Err(); err != nil {
		w.store.abandon()
		w.w.Abandon()
		return err
	}
	return errors.Join(freed, w.store.Close(), w.w.Close())
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
		w.giveBack(c)
		if c.ack != nil {
			c.ack <- w.Err()
		}
		c.items, c.data, c.entry, c.ack = c.items[:0], c.data[:0], nil, nil
		w.free <- c
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
	for _, n := range c.pages {
		id, err := w.store.Put(w.next(c))
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
