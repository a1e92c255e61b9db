package traces

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"

	"refault/vmm/bounded"
)

// Hash is a 128-bit hash of state.
type Hash [16]byte

func (h Hash) String() string { return fmt.Sprintf("%x", h[:]) }

// Event is one nondeterministic input: what it is, is the business of the machine's package.
type Event struct {
	Step, TimeNs uint64
	Kind         uint8
	Data         []byte // console input; of a fault, its encoding
	DeltaNs      uint64
	Spec         string // of a fault, as it was asked for
}

// Mark is the hash of the whole state at a position, and how much of the other
// files belongs to what came before it.
type Mark struct {
	Step, TimeNs uint64
	Memory       Hash
	Devices      []Hash // in the order of Manifest.Devices: processors first
	ConsoleBytes uint64 // length of console.log
	ConsoleHash  uint64 // xxh3 of that much of it
	EventCount   uint64 // records in events
	// Written is what the guest wrote to its disks since the mark before this one.
	Written Written
	// End is empty, but in the last mark of a recording that was ended: the reason,
	// as in Manifest.End.
	End string
}

// Written is what was written to disks, in one stretch of a run.
type Written struct {
	Sectors uint64
	Sum     Hash   // of the hashes of the sectors: the same whatever the order
	Hash    uint64 // xxh3 of these hashes, in their order
}

const (
	// maxRecords bounds how many records one block may claim.
	maxRecords = 1 << 20
	// A file may decode to unpackedFree bytes, and to unpackedMax times its size: no
	// recorder reaches that, and it bounds what a small hostile file makes a reader allocate.
	unpackedFree = 64 << 20
	unpackedMax  = 64
)

// RecordWriter collects records of one type into blocks.
type RecordWriter[T any] struct {
	w           *BlockWriter
	buf         bytes.Buffer
	enc         *msgpack.Encoder
	n           int
	first, last uint64
}

// NewRecordWriter returns a writer of records to w.
func NewRecordWriter[T any](w *BlockWriter) *RecordWriter[T] {
	rw := &RecordWriter[T]{w: w}
	rw.enc = msgpack.NewEncoder(&rw.buf)
	rw.enc.UseArrayEncodedStructs(true)
	return rw
}

// Add appends a record that belongs to a position.
func (w *RecordWriter[T]) Add(step uint64, v *T) error {
	if w.n == 0 {
		w.first = step
	}
	w.last = step
	w.n++
	if err := w.enc.Encode(v); err != nil {
		return err
	}
	if w.buf.Len() > 1<<20 || w.n == maxRecords {
		return w.Flush()
	}
	return nil
}

// Flush writes what was collected as a block.
func (w *RecordWriter[T]) Flush() error {
	if w.n == 0 {
		return nil
	}
	_, err := w.w.Write(w.buf.Bytes(), w.n, w.first, w.last)
	if err == nil {
		w.buf.Reset()
		w.n = 0
	}
	return err
}

// Close flushes and closes the file.
func (w *RecordWriter[T]) Close() error { return errors.Join(w.Flush(), w.w.Close()) }

// Abandon closes the file without writing what was collected.
func (w *RecordWriter[T]) Abandon() error { return w.w.Close() }

// ReadRecords reads all records of a file of blocks.
func ReadRecords[T any](r *BlockReader) ([]T, error) {
	var all []T
	size := reflect.TypeFor[T]().Size()
	room := unpackedFree + unpackedMax*r.size
	for i, b := range r.Blocks {
		if room -= int64(b.Raw) + int64(b.Records)*int64(size); room < 0 {
			return nil, fmt.Errorf("%s: the block at byte %d: the file unpacks to much more than a recorder writes: %w", r.path, b.Offset, ErrDamaged)
		}
		raw, err := r.Read(i)
		if err != nil {
			return nil, err
		}
		one, err := DecodeRecords[T](raw, int(b.Records))
		if err != nil {
			return nil, fmt.Errorf("%s: the block at byte %d: %w", r.path, b.Offset, err)
		}
		all = append(all, one...)
	}
	return all, nil
}

// DecodeRecords decodes n records that raw holds.
func DecodeRecords[T any](raw []byte, n int) ([]T, error) {
	if n > maxRecords || n > len(raw) {
		return nil, fmt.Errorf("it claims %d records in %d bytes: %w", n, len(raw), ErrDamaged)
	}
	if err := bounded.Check(raw, uint64(n)); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	dec := msgpack.NewDecoder(bytes.NewReader(raw))
	var all []T
	for range n {
		var v T
		if err := dec.Decode(&v); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrDamaged, err)
		}
		all = append(all, v)
	}
	if _, err := dec.PeekCode(); err != io.EOF {
		return nil, fmt.Errorf("bytes after the last record: %w", ErrDamaged)
	}
	return all, nil
}
