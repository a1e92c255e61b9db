package snapshot

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"

	"refault/traces"
	"refault/vmm/mem"
)

// pagesPerBlock is how many pages are compressed together: enough for the
// compressor to find something, few enough to read one without regret.
const pagesPerBlock = 64

// zeroID is the identifier of the page of zeros, which is not stored.
const zeroID = 0

// Store is the page store of a recording. Identifiers count stored pages from 1.
type Store struct {
	w     *traces.BlockWriter // nil when read only
	r     *traces.BlockReader
	ids   map[[32]byte]uint32 // of a writer
	first []uint32            // identifier of the first page of each block
	next  uint32
	buf   []byte
	base  uint32 // identifier of the first page in buf

	cached  int // block in cache, or -1
	content []byte
}

// CreateStore makes an empty store in a recording's directory.
func CreateStore(dir string) (*Store, error) {
	w, err := traces.CreateBlocks(filepath.Join(dir, traces.FilePages))
	if err != nil {
		return nil, err
	}
	return &Store{w: w, ids: map[[32]byte]uint32{}, next: 1, base: 1, cached: -1}, nil
}

// appendStore opens a store to add pages to it.
func appendStore(dir string) (*Store, error) {
	r, err := OpenStore(dir)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	s := &Store{ids: map[[32]byte]uint32{}, next: r.next, base: r.next, cached: -1}
	for id := uint32(1); id < r.next; id++ {
		p, err := r.Get(id)
		if err != nil {
			return nil, err
		}
		s.ids[sha256.Sum256(p)] = id
	}
	s.w, err = traces.AppendBlocks(filepath.Join(dir, traces.FilePages), r.r.End())
	return s, err
}

// OpenStore opens a store to read.
func OpenStore(dir string) (*Store, error) {
	r, err := traces.OpenBlocks(filepath.Join(dir, traces.FilePages))
	if err != nil {
		return nil, err
	}
	s := &Store{r: r, next: 1, cached: -1}
	for _, b := range r.Blocks {
		if b.Raw != b.Records*mem.PageSize || b.Records == 0 || b.Records > pagesPerBlock || b.First != uint64(s.next) || s.next+b.Records < s.next {
			r.Close()
			return nil, fmt.Errorf("%s: the block at byte %d has %d pages from page %d on, in %d bytes: %w", traces.FilePages, b.Offset, b.Records, b.First, b.Raw, traces.ErrDamaged)
		}
		s.first = append(s.first, s.next)
		s.next += b.Records
	}
	return s, nil
}

// Put stores a page, unless it is there, and returns its identifier.
func (s *Store) Put(page []byte) (uint32, error) {
	if isZero(page) {
		return zeroID, nil
	}
	key := sha256.Sum256(page)
	if id, ok := s.ids[key]; ok {
		return id, nil
	}
	if s.next == asImage {
		return 0, fmt.Errorf("%s: %d pages: %w", traces.FilePages, s.next, traces.ErrTooLarge)
	}
	id := s.next
	s.next++
	s.ids[key] = id
	s.buf = append(s.buf, page...)
	if len(s.buf) == pagesPerBlock*mem.PageSize {
		return id, s.Flush()
	}
	return id, nil
}

// Flush writes pages that wait for their block to fill.
func (s *Store) Flush() error {
	n := len(s.buf) / mem.PageSize
	if n == 0 {
		return nil
	}
	_, err := s.w.Write(s.buf, n, uint64(s.base), uint64(s.base)+uint64(n)-1)
	if err != nil {
		return err
	}
	s.base += uint32(n)
	s.buf = s.buf[:0]
	return nil
}

// Get returns the page with an identifier; it is good until the next Get.
func (s *Store) Get(id uint32) ([]byte, error) {
	if id == zeroID {
		return zeroPage[:], nil
	}
	if id >= s.next {
		return nil, fmt.Errorf("%s: page %d of %d: %w", traces.FilePages, id, s.next-1, traces.ErrDamaged)
	}
	lo, hi := 0, len(s.first)
	for hi-lo > 1 {
		if m := (lo + hi) / 2; s.first[m] <= id {
			lo = m
		} else {
			hi = m
		}
	}
	if s.cached != lo {
		b, err := s.r.Read(lo)
		if err != nil {
			return nil, err
		}
		s.cached, s.content = lo, b
	}
	at := int(id-s.first[lo]) * mem.PageSize
	return s.content[at : at+mem.PageSize], nil
}

// Pages returns how many different pages the store holds.
func (s *Store) Pages() int { return int(s.next - 1) }

// Close closes the store.
func (s *Store) Close() error {
	if s.w != nil {
		err := s.Flush()
		if e := s.w.Close(); err == nil {
			err = e
		}
		return err
	}
	return s.r.Close()
}

// abandon closes a store that could not be written.
func (s *Store) abandon() { s.w.Close() }
