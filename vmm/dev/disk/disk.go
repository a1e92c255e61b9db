package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"

	"github.com/zeebo/xxh3"
)

// ClusterSize is the overlay's granularity in bytes. It equals a page, so that
// the page store of a recording can hold clusters too.
const ClusterSize = 4096

// Disk is an image with an overlay. It is not safe for concurrent use.
type Disk struct {
	name     string
	base     Image
	clusters map[uint64]*cluster
	// written lists the clusters whose term in sum is out of date.
	written []uint64
	sum     xxh3.Uint128
	// dirty holds the clusters that changed since ClearDirty, those that were dropped included.
	dirty map[uint64]struct{}
	err   error
}

type cluster struct {
	data    [ClusterSize]byte
	term    xxh3.Uint128 // what this cluster contributes to the sum
	written bool         // listed in Disk.written
}

// State is the saved state of a Disk.
type State struct {
	Version  uint8
	Sectors  uint64
	Clusters []Cluster // in ascending order
}

// Cluster is one cluster of the overlay. The last one of a disk is padded with zeros.
type Cluster struct {
	Index uint64
	Data  []byte
}

// New returns a disk with nothing written. name identifies it in recordings, for example "disk0".
func New(name string, base Image) (*Disk, error) {
	if err := checkSize(base.Size()); err != nil {
		return nil, err
	}
	d := &Disk{name: name, base: base}
	d.Clear()
	return d, nil
}

// Sectors returns the disk's size in sectors.
func (d *Disk) Sectors() uint64 { return uint64(d.base.Size()) / SectorSize }

// Err returns the first error that the host gave for the image, or nil. The
// machine must not go on after one.
func (d *Disk) Err() error { return d.err }

// ReadSectors fills p from sector lba on. After an error p holds zeros where the host failed.
// Preconditions: p is a whole number of sectors, all of them on the disk.
func (d *Disk) ReadSectors(p []byte, lba uint64) error {
	d.check(p, lba)
	var err error
	base := 0 // the bytes of p from here to the current cluster come from the image
	read := func(end int) {
		if end > base {
			if e := d.readBase(p[base:end], int64(lba*SectorSize)+int64(base)); e != nil {
				err = e
			}
		}
	}
	at := 0
	d.each(p, lba, func(index uint64, in int, part []byte) {
		if c := d.clusters[index]; c != nil {
			read(at)
			copy(part, c.data[in:])
			base = at + len(part)
		}
		at += len(part)
	})
	read(at)
	return err
}

// WriteSectors puts p into the overlay from sector lba on.
// Preconditions: as for ReadSectors.
func (d *Disk) WriteSectors(p []byte, lba uint64) error {
	d.check(p, lba)
	var err error
	d.each(p, lba, func(index uint64, at int, p []byte) {
		c := d.clusters[index]
		if c == nil {
			c = new(cluster)
			if len(p) < ClusterSize {
				if e := d.readCluster(index, &c.data); e != nil {
					err = e
				}
			}
			d.clusters[index] = c
		}
		copy(c.data[at:], p)
		if !c.written {
			c.written = true
			d.written = append(d.written, index)
		}
		d.dirty[index] = struct{}{}
	})
	return err
}

// each splits a range of sectors at the borders of clusters.
func (d *Disk) each(p []byte, lba uint64, f func(index uint64, at int, p []byte)) {
	off := lba * SectorSize
	for len(p) > 0 {
		at := int(off % ClusterSize)
		n := min(ClusterSize-at, len(p))
		f(off/ClusterSize, at, p[:n])
		off += uint64(n)
		p = p[n:]
	}
}

func (d *Disk) check(p []byte, lba uint64) {
	n := uint64(len(p)) / SectorSize
	if len(p)%SectorSize != 0 || lba > d.Sectors() || n > d.Sectors()-lba {
		panic(fmt.Sprintf("BUG: %s: %d bytes at sector %d of %d", d.name, len(p), lba, d.Sectors()))
	}
}

// readBase reads from the image. A read that comes back short is an error even
// at the end of the file: the size was checked when the image was opened.
func (d *Disk) readBase(p []byte, off int64) error {
	n, err := d.base.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	clear(p[n:])
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	err = fmt.Errorf("%s: reading %d bytes of the image at byte %d: %w", d.name, len(p), off, err)
	if d.err == nil {
		d.err = err
	}
	return err
}

// readCluster reads one cluster of the image; what lies beyond the disk's end is zero.
func (d *Disk) readCluster(index uint64, data *[ClusterSize]byte) error {
	n := d.clusterLen(index)
	clear(data[n:])
	return d.readBase(data[:n], int64(index*ClusterSize))
}

// clusterLen returns how many bytes of a cluster are on the disk.
func (d *Disk) clusterLen(index uint64) int {
	return int(min(uint64(d.base.Size())-index*ClusterSize, ClusterSize))
}

// settle drops the written clusters that equal the image again and brings the sum up to date.
func (d *Disk) settle() {
	var base [ClusterSize]byte
	for _, index := range d.written {
		c := d.clusters[index]
		c.written = false
		d.sum = sub(d.sum, c.term)
		// Where the image cannot be read the run is over anyway (Err).
		if d.readCluster(index, &base) == nil && base == c.data {
			delete(d.clusters, index)
			continue
		}
		c.term = xxh3.Hash128Seed(c.data[:], index)
		d.sum = add(d.sum, c.term)
	}
	d.written = d.written[:0]
}

// Hash implements dev.Hasher, at the cost of what was written since the last call.
func (d *Disk) Hash() [16]byte {
	d.settle()
	var h [16]byte
	binary.BigEndian.PutUint64(h[:8], d.sum.Hi)
	binary.BigEndian.PutUint64(h[8:], d.sum.Lo)
	return h
}

// ClearDirty calls visit, in ascending order, for every cluster that changed
// since the last call; data is nil for one that equals the image again. An
// incremental snapshot stores these. visit must not keep data.
func (d *Disk) ClearDirty(visit func(index uint64, data []byte)) {
	d.settle()
	for _, index := range slices.Sorted(maps.Keys(d.dirty)) {
		if c := d.clusters[index]; c != nil {
			visit(index, c.data[:])
		} else {
			visit(index, nil)
		}
	}
	clear(d.dirty)
}

// Each calls visit, in ascending order, for every cluster that differs from the
// image. visit must not keep data.
func (d *Disk) Each(visit func(index uint64, data []byte)) {
	d.settle()
	for _, index := range slices.Sorted(maps.Keys(d.clusters)) {
		visit(index, d.clusters[index].data[:])
	}
}

// SetCluster replaces one cluster of the overlay; data nil makes it equal the
// image. It serves a restore that gets its clusters from Each or ClearDirty.
// The data may come from outside.
func (d *Disk) SetCluster(index uint64, data []byte) error {
	if index > (uint64(d.base.Size())-1)/ClusterSize {
		return fmt.Errorf("%s: cluster %d is beyond the end of a disk of %d sectors", d.name, index, d.Sectors())
	}
	if data != nil {
		if len(data) != ClusterSize {
			return fmt.Errorf("%s: cluster %d has %d bytes instead of %d", d.name, index, len(data), ClusterSize)
		}
		if n := d.clusterLen(index); bytes.Count(data[n:], []byte{0}) != ClusterSize-n {
			return fmt.Errorf("%s: cluster %d has data beyond the end of the disk", d.name, index)
		}
	}
	c := d.clusters[index]
	if c == nil {
		if data == nil {
			return nil
		}
		c = new(cluster)
		d.clusters[index] = c
	}
	if data == nil {
		if err := d.readCluster(index, &c.data); err != nil {
			return err
		}
	} else {
		copy(c.data[:], data)
	}
	if !c.written {
		c.written = true
		d.written = append(d.written, index)
	}
	d.dirty[index] = struct{}{}
	return nil
}

// Name implements dev.Device.
func (d *Disk) Name() string { return d.name }

// Reset implements dev.Device. It does nothing: what is on a disk outlives a reset and a power cycle.
func (d *Disk) Reset() {}

// Clear forgets all that was written.
func (d *Disk) Clear() {
	d.clusters = make(map[uint64]*cluster)
	d.dirty = make(map[uint64]struct{})
	d.written = nil
	d.sum = xxh3.Uint128{}
	d.err = nil
}

// Save implements dev.Device. It copies the whole overlay; the hash timeline and
// incremental snapshots have Hash and ClearDirty.
func (d *Disk) Save() any {
	s := &State{Version: 1, Sectors: d.Sectors()}
	d.Each(func(index uint64, data []byte) {
		s.Clusters = append(s.Clusters, Cluster{Index: index, Data: slices.Clone(data)})
	})
	return s
}

// Restore implements dev.Device.
func (d *Disk) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	if s.Sectors != d.Sectors() {
		return fmt.Errorf("the state is of a disk of %d sectors, this one has %d", s.Sectors, d.Sectors())
	}
	d.Clear()
	for i, c := range s.Clusters {
		if i > 0 && c.Index <= s.Clusters[i-1].Index {
			return fmt.Errorf("cluster %d is out of order", c.Index)
		}
		if c.Data == nil {
			return fmt.Errorf("cluster %d has no data", c.Index)
		}
		if err := d.SetCluster(c.Index, c.Data); err != nil {
			return err
		}
	}
	return nil
}

func add(a, b xxh3.Uint128) xxh3.Uint128 {
	lo, carry := bits.Add64(a.Lo, b.Lo, 0)
	hi, _ := bits.Add64(a.Hi, b.Hi, carry)
	return xxh3.Uint128{Hi: hi, Lo: lo}
}

func sub(a, b xxh3.Uint128) xxh3.Uint128 {
	lo, borrow := bits.Sub64(a.Lo, b.Lo, 0)
	hi, _ := bits.Sub64(a.Hi, b.Hi, borrow)
	return xxh3.Uint128{Hi: hi, Lo: lo}
}
