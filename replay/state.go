package replay

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	"refault/snapshot"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev"
	"refault/vmm/dev/disk"
)

// tracker follows the state of a machine: its hash, and which pages changed since the last snapshot.
type tracker struct {
	m       *vmm.Machine
	hash    *snapshot.MemHash
	changed []bool
	onDirty func(page int)
	// writes are those to disks since the last mark, of which none was missed if whole.
	writes Writes
	whole  bool
}

func newTracker(m *vmm.Machine) *tracker {
	t := &tracker{m: m, hash: snapshot.NewMemHash(m.RAM.Pages()), changed: make([]bool, m.RAM.Pages())}
	m.Observe(&vmm.Observer{Wrote: t.writes.Add})
	return t
}

// written returns the pages that were written since it was last called, in ascending order.
func (t *tracker) written() []uint32 {
	var pages []uint32
	t.m.RAM.ClearDirty(func(page int) {
		pages = append(pages, uint32(page))
		t.changed[page] = true
		if t.onDirty != nil {
			t.onDirty(page)
		}
	})
	t.m.ForgetDirty(pages)
	return pages
}

// collect takes the pages that were written since the last call into the hash.
func (t *tracker) collect() {
	for _, n := range t.written() {
		t.hash.Update(int(n), t.m.RAM.Page(int(n)))
	}
}

// takeChanged reports which pages were changed, as far as they are collected, since it was last called.
func (t *tracker) takeChanged() func(page int) bool {
	changed := slices.Clone(t.changed)
	clear(t.changed)
	return func(page int) bool { return changed[page] }
}

// mark returns the hash of the machine's state.
func (t *tracker) mark() traces.Mark {
	t.collect()
	mk, devices := t.position()
	mk.Devices, mk.Memory = devices(), t.hash.Sum()
	return mk
}

// position returns a mark without the hashes of devices and memory. devices returns those of the devices, as they are
// now; another goroutine may call it, while the machine goes on.
func (t *tracker) position() (mk traces.Mark, devices func() []traces.Hash) {
	all := make([]func() traces.Hash, len(t.m.Devices()))
	for i, d := range t.m.Devices() {
		all[i] = hashDevice(d)
	}
	return traces.Mark{Step: t.m.Step(), TimeNs: t.m.TimeNs(), ConsoleBytes: t.m.Out()}, func() (h []traces.Hash) {
		for _, f := range all {
			h = append(h, f())
		}
		return h
	}
}

// hashDevice returns what hashes the state that a device has now.
func hashDevice(d dev.Device) func() traces.Hash {
	if x, ok := d.(dev.Hasher); ok {
		h := x.Hash()
		return func() traces.Hash { return h }
	}
	name, state := d.Name(), d.Save()
	return func() (h traces.Hash) {
		s := xxh3.Hash128(dev.EncodeSaved(name, state))
		binary.LittleEndian.PutUint64(h[:], s.Lo)
		binary.LittleEndian.PutUint64(h[8:], s.Hi)
		return h
	}
}

// entry returns a snapshot of the machine, without its memory and what is on its disks.
func (t *tracker) entry() snapshot.Entry {
	e := snapshot.Entry{Step: t.m.Step(), TimeNs: t.m.TimeNs(), ConsoleBytes: t.m.Out()}
	for _, d := range t.m.Devices() {
		b := snapshot.Blob{Name: d.Name()}
		if _, ok := d.(*disk.Disk); !ok {
			b.Data = dev.Encode(d)
		}
		e.Blobs = append(e.Blobs, b)
	}
	return e
}

// disks returns a machine's disks, by name in the entries of snapshots.
func disks(m *vmm.Machine) (all []snapshot.Disk) {
	for _, d := range m.Devices() {
		if d, ok := d.(*disk.Disk); ok {
			all = append(all, d)
		}
	}
	return all
}

// setCluster puts a cluster of a snapshot on a disk.
func setCluster(m *vmm.Machine, name string, cluster uint64, content []byte) error {
	for _, d := range m.Devices() {
		if d, ok := d.(*disk.Disk); ok && d.Name() == name {
			return d.SetCluster(cluster, content)
		}
	}
	return fmt.Errorf("no disk %.40q in this machine", name)
}

// clearDisks makes all disks what their images are.
func clearDisks(m *vmm.Machine) {
	for _, d := range m.Devices() {
		if d, ok := d.(*disk.Disk); ok {
			d.Clear()
		}
	}
}

// restoreDevices sets the state of every device from a snapshot, but what is on disks.
func restoreDevices(m *vmm.Machine, e *snapshot.Entry) error {
	ds := m.Devices()
	if len(ds) != len(e.Blobs) {
		return fmt.Errorf("snapshot at step %d: it has %d devices, this machine %d: %w", e.Step, len(e.Blobs), len(ds), traces.ErrDamaged)
	}
	for i, d := range ds {
		if e.Blobs[i].Name != d.Name() {
			return fmt.Errorf("snapshot at step %d: device %d is %q, in this machine %q: %w", e.Step, i, e.Blobs[i].Name, d.Name(), traces.ErrDamaged)
		}
		if _, ok := d.(*disk.Disk); ok {
			continue
		}
		if err := dev.Decode(d, e.Blobs[i].Data); err != nil {
			return fmt.Errorf("snapshot at step %d: %w: %w", e.Step, err, traces.ErrDamaged)
		}
	}
	if m.Step() != e.Step {
		return fmt.Errorf("snapshot at step %d: its processor is at %d: %w", e.Step, m.Step(), traces.ErrDamaged)
	}
	return nil
}

// Divergence reports that a replay did something else than the recording.
type Divergence struct {
	Step  uint64 // of the mark or event where it was seen
	Field string
	Want  string
	Got   string
}

func (d *Divergence) Error() string {
	return fmt.Sprintf("the replay diverged: at step %d, %s is %s, recorded was %s", d.Step, d.Field, d.Got, d.Want)
}

func writtenText(w traces.Written) string { return fmt.Sprintf("%d sectors, %v", w.Sectors, w.Sum) }

// compareMarks returns the first difference between a recorded mark and the machine's.
func compareMarks(want, got *traces.Mark, names []string) *Divergence {
	d := func(field string, w, g any) *Divergence {
		return &Divergence{Step: want.Step, Field: field, Want: fmt.Sprint(w), Got: fmt.Sprint(g)}
	}
	if want.TimeNs != got.TimeNs {
		return d("virtual time", want.TimeNs, got.TimeNs)
	}
	if len(want.Devices) != len(got.Devices) {
		return d("number of devices", len(want.Devices), len(got.Devices))
	}
	for i := range want.Devices {
		if want.Devices[i] != got.Devices[i] {
			return d("the state hash of "+names[i], want.Devices[i], got.Devices[i])
		}
	}
	if want.Memory != got.Memory {
		return d("the hash of memory", want.Memory, got.Memory)
	}
	if want.ConsoleBytes != got.ConsoleBytes {
		return d("the length of console output", want.ConsoleBytes, got.ConsoleBytes)
	}
	if want.Written != got.Written {
		return d("what was written to the disks since the last mark", writtenText(want.Written), writtenText(got.Written))
	}
	return nil
}
