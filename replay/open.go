package replay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/zeebo/xxh3"

	"refault/snapshot"
	"refault/traces"
	"refault/vmm/dev/disk"
)

// Open opens a recording. images are the disks that are in no file, as in Setup.
func Open(dir string, images ...disk.Image) (*Player, error) {
	p, err := open(dir, images)
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", dir, err)
	}
	return p, nil
}

func open(dir string, images []disk.Image) (p *Player, err error) {
	man, err := traces.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	p = &Player{Dir: dir, Manifest: man, script: &script{}}
	if err := p.readLog(); err != nil {
		return nil, err
	}
	if p.m, err = reopen(man, images); err != nil {
		return nil, err
	}
	if p.snaps, err = snapshot.OpenReader(dir, p.m.RAM.Pages()); err != nil {
		return nil, errors.Join(err, p.m.close())
	}
	p.snaps.Blank()
	if steps := p.snaps.Steps(); len(steps) == 0 || steps[0] > p.End() {
		return nil, errors.Join(fmt.Errorf("it has no whole snapshot: its recorder ended too early, or it was copied in part: %w", traces.ErrEmpty), p.Close())
	}
	p.track = newTracker(p.m.Machine)
	p.track.onDirty = p.snaps.Changed
	p.script.missed = p.missed
	p.m.SetInputs(p.script)
	p.m.Console = p.output
	return p, nil
}

// readLog reads events, marks and console, as far as the marks vouch for them.
func (p *Player) readLog() error {
	// In the reverse of the order in which a recorder writes, which may be at work.
	marks, err := readAll[traces.Mark](p.Dir, traces.FileMarks)
	if err != nil {
		return err
	}
	for i := range marks {
		m := &marks[i]
		if len(m.Devices) != len(p.Manifest.Devices) {
			return fmt.Errorf("%s: mark %d has %d devices, the manifest %d: %w", traces.FileMarks, i, len(m.Devices), len(p.Manifest.Devices), traces.ErrDamaged)
		}
		if i == 0 {
			continue
		}
		b := &marks[i-1]
		if m.Step < b.Step || m.TimeNs < b.TimeNs || m.ConsoleBytes < b.ConsoleBytes || m.EventCount < b.EventCount || b.End != "" {
			return fmt.Errorf("%s: mark %d is out of order: %w", traces.FileMarks, i, traces.ErrDamaged)
		}
	}
	console, err := readConsole(filepath.Join(p.Dir, traces.FileConsole), marks)
	if err != nil {
		return err
	}
	events, err := readAll[traces.Event](p.Dir, traces.FileEvents)
	if err != nil {
		return err
	}
	// A file that ends early, as when it was copied in part, ends the recording
	// with the last mark that vouches for no more than there is.
	n := sort.Search(len(marks), func(i int) bool {
		return marks[i].ConsoleBytes > uint64(len(console)) || marks[i].EventCount > uint64(len(events))
	})
	if p.marks = marks[:n]; n == 0 {
		return fmt.Errorf("it has no mark that the other files bear out: its recorder ended too early, or it was copied in part: %w", traces.ErrEmpty)
	}
	p.console = console[:p.last().ConsoleBytes]
	for i := range events[:p.last().EventCount] {
		t := &events[i]
		e, err := fromTrace(t)
		if err != nil {
			return fmt.Errorf("%s: event %d, %w", traces.FileEvents, i, err)
		}
		if i > 0 && (t.Step < events[i-1].Step || t.TimeNs < events[i-1].TimeNs) {
			return fmt.Errorf("%s: event %d, at step %d, is out of order: %w", traces.FileEvents, i, t.Step, traces.ErrDamaged)
		}
		p.script.events = append(p.script.events, e)
	}
	// The manifest is written last; the last mark has what it needs to say.
	if end := p.last(); end.End == "" {
		p.Manifest.End = nil
	} else if p.Manifest.End == nil {
		p.Manifest.End = &traces.End{Step: end.Step, TimeNs: end.TimeNs, Reason: end.End}
	}
	return nil
}

// readConsole reads console.log and checks it against the marks.
func readConsole(path string, marks []traces.Mark) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("it has no file %s: %w", traces.FileConsole, traces.ErrEmpty)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	var max uint64
	if len(marks) > 0 {
		max = marks[len(marks)-1].ConsoleBytes
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	console := make([]byte, min(max, uint64(st.Size())))
	if _, err := io.ReadFull(f, console); err != nil {
		return nil, fmt.Errorf("%s: %w", traces.FileConsole, err)
	}
	h, at := xxh3.New(), uint64(0)
	for i := range marks {
		m := &marks[i]
		if m.ConsoleBytes > uint64(len(console)) {
			break
		}
		h.Write(console[at:m.ConsoleBytes])
		if h.Sum64() != m.ConsoleHash {
			return nil, fmt.Errorf("%s: between byte %d and byte %d it is not what the guest said: %w", path, at, m.ConsoleBytes, traces.ErrDamaged)
		}
		at = m.ConsoleBytes
	}
	return slices.Clip(console), nil
}

func readAll[T any](dir, name string) ([]T, error) {
	r, err := traces.OpenBlocks(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return traces.ReadRecords[T](r)
}
