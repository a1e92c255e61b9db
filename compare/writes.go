package compare

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"refault/replay"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev/disk"
)

// DiskDiff compares what two runs wrote to a disk: each sector, with what was written to it
// and in which order. A sector that was only written later is no difference.
type DiskDiff struct {
	Name string `json:"name"`
	// Equal: the disk ends with the same content.
	Equal bool `json:"equal"`
	// Sectors that were written with another content, by the golden run only, by
	// the faulty run only, and by both but in another order.
	Changed int `json:"changed_sectors"`
	Missing int `json:"missing_sectors"`
	Added   int `json:"added_sectors"`
	Moved   int `json:"moved_sectors"`
	// First is the first of these, of the first kind that there is: what differs in order only, where nothing else does.
	First *WriteDiff `json:"first,omitempty"`
	// Note says what could not be looked at.
	Note string `json:"note,omitempty"`
}

// Same reports whether both runs wrote the same in the same order.
func (d *DiskDiff) Same() bool {
	return d.Equal && d.Changed+d.Missing+d.Added+d.Moved == 0 && d.Note == ""
}

// Summary tells what differs, in a few words.
func (d *DiskDiff) Summary() string {
	s := "differs in the end"
	if d.Equal {
		s = "equal in the end"
	}
	var parts []string
	for _, x := range []struct {
		n    int
		what string
	}{{d.Changed, "with other content"}, {d.Missing, "not written"}, {d.Added, "written in addition"}, {d.Moved, "in another order"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", Sectors(x.n), x.what))
		}
	}
	switch {
	case len(parts) > 0:
		return s + "; " + strings.Join(parts, ", ")
	case d.Note == "":
		return s + "; both wrote the same"
	}
	return s
}

// Sectors writes a number of sectors.
func Sectors(n int) string {
	if n == 1 {
		return "1 sector"
	}
	return strconv.Itoa(n) + " sectors"
}

// Summary tells what is wrong with the write, in a few words.
func (w *WriteDiff) Summary() string {
	at := fmt.Sprintf("first at LBA %d, %s, ", w.LBA, Sectors(w.Sectors))
	switch w.Kind {
	case WriteChanged:
		return at + fmt.Sprintf("from byte %d on", w.Byte)
	case WriteMissing:
		return at + "which the faulty run did not write"
	case WriteAdded:
		return at + "which only the faulty run wrote"
	case WriteMisdirected:
		return at + "which the faulty run wrote elsewhere"
	}
	return at + "which the runs wrote in another order"
}

// What is wrong with a write.
const (
	WriteChanged     = "changed"     // another content
	WriteMissing     = "missing"     // of the golden run only
	WriteAdded       = "added"       // of the faulty run only
	WriteMisdirected = "misdirected" // the same content, at another place
	WriteMoved       = "moved"       // in another order
)

// WriteDiff is a write that differs.
type WriteDiff struct {
	Kind string `json:"kind"`
	// LBA is the first sector that differs, Sectors how many do in a row.
	LBA     uint64 `json:"lba"`
	Sectors int    `json:"sectors"`
	// Golden and Faulty are the writes that they are a part of; nil where there was none.
	Golden *Write `json:"golden,omitempty"`
	Faulty *Write `json:"faulty,omitempty"`
	// Byte is the first byte that differs, from the beginning of LBA on, and GoldenBytes and FaultyBytes
	// what was written from there on, in hexadecimal.
	Byte        int    `json:"byte"`
	GoldenBytes string `json:"golden_bytes,omitempty"`
	FaultyBytes string `json:"faulty_bytes,omitempty"`
}

// Step returns the step of the first of the two writes.
func (w *WriteDiff) Step() uint64 {
	switch {
	case w.Golden == nil:
		return w.Faulty.Step
	case w.Faulty == nil:
		return w.Golden.Step
	}
	return min(w.Golden.Step, w.Faulty.Step)
}

// Write is sectors in a row that reached a disk at one step.
type Write struct {
	Step    uint64 `json:"step"`
	LBA     uint64 `json:"lba"`
	Sectors int    `json:"sectors"`
}

// Bounds of what is looked at and told.
const (
	maxSectors = 1 << 20 // of each run, one by one: half a GiB
	shownBytes = 16
)

// content names a sector with its content. Of drive anchor, it is a stretch of both runs in which they wrote the same.
type content struct {
	drive int
	lba   uint64
	sum   xxh3.Uint128
}

const anchor = -1

// sector is one that was written.
type sector struct {
	content
	step uint64
}

// writesBetween is what both runs wrote between two marks that both have.
type writesBetween struct {
	from               uint64
	goldenTo, faultyTo uint64
	golden, faulty     traces.Written
}

// span is a part of a run, from the first to the last step.
type span struct{ from, to uint64 }

// disks compares what was written to the disks, and what is on them in the end.
func disks(golden, faulty *replay.Player) (d []DiskDiff, err error) {
	x, y := golden.Marks(), faulty.Marks()
	a, b := x[len(x)-1].Devices, y[len(y)-1].Devices
	for i, name := range golden.Manifest.Devices {
		if diskName.MatchString(name) {
			d = append(d, DiskDiff{Name: name, Equal: a[i] == b[i]})
		}
	}
	var spans [2][]span
	var list [2][]sector
	for i, w := range stretches(x, y) {
		if w.golden == w.faulty {
			if w.golden.Sectors > 0 {
				for k := range list {
					list[k] = append(list[k], sector{content{drive: anchor, lba: uint64(i)}, w.from})
				}
			}
			continue
		}
		if w.golden.Sectors > 0 {
			spans[0] = append(spans[0], span{w.from, w.goldenTo})
		}
		if w.faulty.Sectors > 0 {
			spans[1] = append(spans[1], span{w.from, w.faultyTo})
		}
	}
	if len(spans[0])+len(spans[1]) == 0 {
		return d, nil
	}
	var notes [2]string
	done := make(chan error, 1)
	collect := func(k int, p *replay.Player) (err error) {
		var found []sector
		found, notes[k], err = written(p, spans[k])
		list[k] = append(list[k], found...)
		slices.SortStableFunc(list[k], func(a, b sector) int { return cmp.Compare(a.step, b.step) })
		return err
	}
	go func() { done <- collect(1, faulty) }()
	if err := errors.Join(collect(0, golden), <-done); err != nil {
		return nil, err
	}
	m := match(list[0], list[1])
	for i := range d {
		d[i].Note = cmp.Or(notes[0], notes[1])
		if err := m.describe(&d[i], i, golden, faulty); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// stretches puts the marks of two runs side by side.
func stretches(golden, faulty []traces.Mark) (all []writesBetween) {
	var w writesBetween
	for i, k := 0, 0; i < len(golden) || k < len(faulty); {
		var g, f uint64 = vmm.Never, vmm.Never
		if i < len(golden) {
			g = golden[i].Step
		}
		if k < len(faulty) {
			f = faulty[k].Step
		}
		at := min(g, f)
		for ; i < len(golden) && golden[i].Step == at; i++ {
			w.golden, w.goldenTo = plus(w.golden, golden[i].Written), at
		}
		for ; k < len(faulty) && faulty[k].Step == at; k++ {
			w.faulty, w.faultyTo = plus(w.faulty, faulty[k].Written), at
		}
		if g == f || i == len(golden) && k == len(faulty) {
			all = append(all, w)
			w = writesBetween{from: at}
		}
	}
	return all
}

// plus is what was written in two stretches, one after the other. Of more than one with writes the order is not known.
func plus(a, b traces.Written) (w traces.Written) {
	if a.Sectors == 0 || b.Sectors == 0 {
		if b.Sectors == 0 && a != (traces.Written{}) {
			return a
		}
		return b
	}
	w.Sectors = a.Sectors + b.Sectors
	le := binary.LittleEndian
	lo, carry := bits.Add64(le.Uint64(a.Sum[:]), le.Uint64(b.Sum[:]), 0)
	hi, _ := bits.Add64(le.Uint64(a.Sum[8:]), le.Uint64(b.Sum[8:]), carry)
	le.PutUint64(w.Sum[:], lo)
	le.PutUint64(w.Sum[8:], hi)
	// Any function of both: it only has to be another where one of them is.
	w.Hash = xxh3.Hash(le.AppendUint64(le.AppendUint64(nil, a.Hash), b.Hash))
	return w
}

// writtenInAll returns what a run wrote to its disks, whatever the order.
func writtenInAll(p *replay.Player) (w traces.Written) {
	for i := range p.Marks() {
		w = plus(w, p.Marks()[i].Written)
	}
	w.Hash = 0
	return w
}

// written plays parts of a run, and lists the sectors that are written there.
func written(p *replay.Player, spans []span) (all []sector, note string, err error) {
	m := p.Machine()
	o := &vmm.Observer{Wrote: func(drive int, lba uint64, b []byte) {
		for ; len(b) > 0 && len(all) < maxSectors; b, lba = b[disk.SectorSize:], lba+1 {
			all = append(all, sector{content{drive, lba, xxh3.Hash128(b[:disk.SectorSize])}, m.Step()})
		}
	}}
	for _, s := range spans {
		if s.to <= p.Start() && p.Start() > 0 {
			note = fmt.Sprintf("what %s wrote before step %d is not in it", p.Dir, p.Start())
			continue
		}
		if err := p.Seek(max(s.from, p.Start())); err != nil {
			return nil, "", err
		}
		m.Observe(o)
		err := p.RunTo(s.to)
		m.Unobserve(o)
		if err != nil {
			return nil, "", err
		}
		if len(all) == maxSectors {
			return all, fmt.Sprintf("of what %s wrote only the first %d sectors were looked at", p.Dir, maxSectors), nil
		}
	}
	return all, note, nil
}

// matching says which sectors of two runs are the same write.
type matching struct {
	golden, faulty []sector
	pair           []int // the faulty run's, by the golden run's; or none
	of             []int // the same, but moved where the order is another
	back           []int // the golden run's, by the faulty run's
}

const (
	none  = -1
	moved = -2
)

// match finds for each sector of the golden run the one of the faulty run that is the same: of those with the
// same place and content the n-th for the n-th.
func match(golden, faulty []sector) *matching {
	m := &matching{golden, faulty, make([]int, len(golden)), nil, make([]int, len(faulty))}
	left := make(map[content][]int, len(faulty))
	for k := range faulty {
		left[faulty[k].content] = append(left[faulty[k].content], k)
		m.back[k] = none
	}
	for i := range golden {
		m.pair[i] = none
		if q := left[golden[i].content]; len(q) > 0 {
			m.pair[i], m.back[q[0]] = q[0], i
			left[golden[i].content] = q[1:]
		}
	}
	m.of = slices.Clone(m.pair)
	m.order()
	return m
}

// order finds those that are in another order: of the pairs all but a longest sequence that ascends in both.
func (m *matching) order() {
	var ends []int // by length, the golden sector at which the ascending sequence of that length ends soonest
	before := make([]int, len(m.of))
	for i, k := range m.of {
		if k == none {
			continue
		}
		n, _ := slices.BinarySearchFunc(ends, k, func(e, k int) int { return cmp.Compare(m.of[e], k) })
		before[i] = none
		if n > 0 {
			before[i] = ends[n-1]
		}
		if n == len(ends) {
			ends = append(ends, i)
		} else {
			ends[n] = i
		}
	}
	kept := make([]bool, len(m.of))
	if len(ends) > 0 {
		for i := ends[len(ends)-1]; i != none; i = before[i] {
			kept[i] = true
		}
	}
	for i, k := range m.of {
		if k != none && !kept[i] {
			m.of[i] = moved
		}
	}
}

// difference is a sector that differs, by its numbers in both runs; one of them may be none.
type difference struct {
	kind           string
	golden, faulty int
}

// differences lists what differs: first what was not written alike, and then what was, but in another
// order; each by step. Of what has no equal the n-th write to a place belongs to the n-th of the other run.
func (m *matching) differences() (all []difference) {
	type place struct {
		drive int
		lba   uint64
	}
	alone := map[place][]int{}
	for k, s := range m.faulty {
		if m.back[k] == none {
			at := place{s.drive, s.lba}
			alone[at] = append(alone[at], k)
		}
	}
	paired := map[int]bool{}
	var order []difference
	for i, s := range m.golden {
		switch m.of[i] {
		case none:
			at := place{s.drive, s.lba}
			if q := alone[at]; len(q) > 0 {
				all = append(all, difference{WriteChanged, i, q[0]})
				paired[q[0]], alone[at] = true, q[1:]
			} else {
				all = append(all, difference{WriteMissing, i, none})
			}
		case moved:
			if s.drive != anchor {
				order = append(order, difference{WriteMoved, i, m.pair[i]})
			}
		}
	}
	for k := range m.faulty {
		if m.back[k] == none && !paired[k] {
			all = append(all, difference{WriteAdded, none, k})
		}
	}
	slices.SortStableFunc(all, func(a, b difference) int { return cmp.Compare(m.step(a), m.step(b)) })
	return append(all, order...)
}

// step returns the first step at which a difference shows.
func (m *matching) step(x difference) uint64 {
	step := uint64(vmm.Never)
	if x.golden != none {
		step = m.golden[x.golden].step
	}
	if x.faulty != none {
		step = min(step, m.faulty[x.faulty].step)
	}
	return step
}

// sector returns what differs.
func (m *matching) sector(x difference) *sector {
	if x.golden != none {
		return &m.golden[x.golden]
	}
	return &m.faulty[x.faulty]
}

// describe fills in what differs on a drive.
func (m *matching) describe(d *DiskDiff, drive int, golden, faulty *replay.Player) error {
	var mine []difference
	for _, x := range m.differences() {
		if m.sector(x).drive != drive {
			continue
		}
		mine = append(mine, x)
		switch x.kind {
		case WriteChanged:
			d.Changed++
		case WriteMissing:
			d.Missing++
		case WriteAdded:
			d.Added++
		case WriteMoved:
			d.Moved++
		}
	}
	if len(mine) == 0 {
		return nil
	}
	x := mine[0]
	w := &WriteDiff{Kind: x.kind, LBA: m.sector(x).lba}
	for w.Sectors = 1; w.Sectors < len(mine); w.Sectors++ {
		if y := mine[w.Sectors]; y.kind != x.kind || m.sector(y).lba != w.LBA+uint64(w.Sectors) || m.step(y) != m.step(x) {
			break
		}
	}
	if x.kind == WriteMissing {
		// The same, at the same step, at another place?
		for _, y := range mine {
			if y.kind == WriteAdded && m.step(y) == m.step(x) && m.faulty[y.faulty].sum == m.golden[x.golden].sum {
				w.Kind, x.faulty = WriteMisdirected, y.faulty
				break
			}
		}
	}
	d.First = w
	var g, f []byte
	var err error
	if x.golden != none {
		w.Golden = writeOf(m.golden, x.golden)
		if g, err = sectorOf(golden, &m.golden[x.golden]); err != nil {
			return err
		}
	}
	if x.faulty != none {
		w.Faulty = writeOf(m.faulty, x.faulty)
		if f, err = sectorOf(faulty, &m.faulty[x.faulty]); err != nil {
			return err
		}
	}
	if g != nil && f != nil && !bytes.Equal(g, f) {
		for g[w.Byte] == f[w.Byte] {
			w.Byte++
		}
	}
	shown := func(b []byte) string {
		if b == nil {
			return ""
		}
		return hex.EncodeToString(b[w.Byte:min(w.Byte+shownBytes, len(b))])
	}
	w.GoldenBytes, w.FaultyBytes = shown(g), shown(f)
	return nil
}

// writeOf returns the write that sector i of a run is a part of.
func writeOf(all []sector, i int) *Write {
	follows := func(a, b *sector) bool { return a.drive == b.drive && a.step == b.step && a.lba+1 == b.lba }
	first, last := i, i
	for first > 0 && follows(&all[first-1], &all[first]) {
		first--
	}
	for last+1 < len(all) && follows(&all[last], &all[last+1]) {
		last++
	}
	return &Write{all[i].step, all[first].lba, last - first + 1}
}

// sectorOf plays a run once more to where a sector was written, and returns what was.
func sectorOf(p *replay.Player, s *sector) (b []byte, err error) {
	m := p.Machine()
	o := &vmm.Observer{Wrote: func(drive int, lba uint64, data []byte) {
		for ; len(data) > 0 && b == nil; data, lba = data[disk.SectorSize:], lba+1 {
			if drive == s.drive && lba == s.lba && m.Step() == s.step && xxh3.Hash128(data[:disk.SectorSize]) == s.sum {
				b = bytes.Clone(data[:disk.SectorSize])
			}
		}
	}}
	// It may be written before or by the instruction of that step.
	if err := p.Seek(max(p.Start(), s.step-min(s.step, 1))); err != nil {
		return nil, err
	}
	m.Observe(o)
	defer m.Unobserve(o)
	return b, p.RunTo(min(s.step+1, p.End()))
}
