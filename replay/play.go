package replay

import (
	"bytes"
	"errors"
	"fmt"

	"refault/snapshot"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/mem"
)

// ErrBeyond reports a step that a recording does not have.
var ErrBeyond = errors.New("beyond the recording")

// Player is a recording as a timeline of its machine.
type Player struct {
	Dir      string
	Manifest *traces.Manifest
	// Console, if set, gets the guest's output as it is played.
	Console func(b byte)
	// Progress, if set, is called at each mark that was compared.
	Progress func(step, end uint64)

	m        *machine
	track    *tracker
	script   *script
	marks    []traces.Mark
	snaps    *snapshot.Reader
	console  []byte // what was recorded
	compared int    // marks
	diverged *Divergence
	live     bool          // the machine is at a position of the recording
	ended    bool          // and beyond the last instruction, where finish put it
	checking bool          // snapshots are compared too
	checked  int           // of them
	held     []*Checkpoint // the oldest first
}

func (p *Player) last() *traces.Mark { return &p.marks[len(p.marks)-1] }

// Start and End return the first and the last position of the recording.
func (p *Player) Start() uint64 { return p.snaps.Steps()[0] }

// End returns the last position of the recording.
func (p *Player) End() uint64 { return p.last().Step }

// Machine returns the machine, which is at the position that Seek and RunTo left it at.
func (p *Player) Machine() *vmm.Machine { return p.m.Machine }

// Marks returns the recorded state-hash timeline.
func (p *Player) Marks() []traces.Mark { return p.marks }

// Events returns the recorded events.
func (p *Player) Events() []*vmm.Event { return p.script.events }

// Snapshots returns the reader of the recording's snapshots.
func (p *Player) Snapshots() *snapshot.Reader { return p.snaps }

// RecordedConsole returns what the guest said in the whole recording.
func (p *Player) RecordedConsole() []byte { return p.console }

// Complete reports whether the recorder finished; otherwise the recording ends at its last mark.
func (p *Player) Complete() bool { return p.last().End != "" }

// output compares what the guest says with what it said.
func (p *Player) output(b byte) {
	at := p.m.Out() - 1
	if p.diverged == nil && at < uint64(len(p.console)) && p.console[at] != b {
		p.diverged = &Divergence{Step: p.m.Step(), Field: fmt.Sprintf("byte %d of the console", at), Want: fmt.Sprintf("%q", p.console[at]), Got: fmt.Sprintf("%q", b)}
		p.m.Interrupt()
	}
	if p.Console != nil {
		p.Console(b)
	}
}

// missed is told of an event that did not find the position at which it was recorded.
func (p *Player) missed(e *vmm.Event) {
	if p.diverged == nil {
		at := func(step, timeNs uint64) string { return fmt.Sprintf("step %d, %d ns", step, timeNs) }
		p.diverged = &Divergence{Step: p.m.Step(), Field: fmt.Sprintf("the position of a %v event", e.Kind),
			Want: at(e.Step, e.TimeNs), Got: at(p.m.Step(), p.m.TimeNs())}
		p.m.Interrupt()
	}
}

// Interrupt makes Seek, RunTo and Verify return vmm.ErrInterrupted soon. It is safe to call from another goroutine.
func (p *Player) Interrupt() { p.m.Interrupt() }

// putPage makes a page of memory what it is at another position.
func (p *Player) putPage(page int, content []byte) {
	p.m.Unwatched(func() { p.m.RAM.NoteWrite(uint64(page)<<mem.PageShift, mem.PageSize) })
	copy(p.m.RAM.Page(page), content)
}

// restore puts the machine at snapshot i.
func (p *Player) restore(i int) error {
	p.live = false
	p.track.collect()
	ram := p.m.RAM
	clearDisks(p.m.Machine)
	e, err := p.snaps.Restore(i, func(page int, content []byte) {
		if !bytes.Equal(ram.Page(page), content) {
			p.putPage(page, content)
		}
	}, func(disk string, cluster uint64, content []byte) error {
		return setCluster(p.m.Machine, disk, cluster, content)
	})
	if err != nil {
		return err
	}
	// What the restore wrote is what the reader says: it must not hear of it as a change.
	p.track.onDirty = nil
	p.track.collect()
	p.track.onDirty = p.snaps.Changed
	if err := restoreDevices(p.m.Machine, e); err != nil {
		return err
	}
	p.settle(e)
	return nil
}

// enter makes the Player go on from where the machine was put: at the next event and the next mark to compare.
func (p *Player) enter(event, mark int) {
	p.script.next, p.compared, p.diverged, p.live, p.ended, p.checking = event, mark, nil, true, false, false
	p.track.whole = false
	p.m.Entered()
}

// Seek puts the machine at a step, from the nearest snapshot before it or from where it is.
func (p *Player) Seek(step uint64) error {
	if step < p.Start() || step > p.End() {
		return fmt.Errorf("step %d: the recording %s has steps %d to %d: %w", step, p.Dir, p.Start(), p.End(), ErrBeyond)
	}
	i := p.snaps.Before(step)
	if at := p.m.Step(); !p.live || at > step || p.snaps.Steps()[i] > at {
		if err := p.restore(i); err != nil {
			return err
		}
	}
	return p.RunTo(step)
}

// RunTo plays forward to a step, comparing every mark on the way. The error is a
// *Divergence where the run is another.
func (p *Player) RunTo(step uint64) error {
	steps := p.snaps.Steps()
	for {
		if p.checking {
			for ; p.checked < len(steps) && steps[p.checked] <= p.m.Step(); p.checked++ {
				if err := p.checkSnapshot(p.checked); err != nil {
					return err
				}
			}
		}
		for p.compared < len(p.marks) && p.marks[p.compared].Step <= p.m.Step() {
			if err := p.compare(&p.marks[p.compared]); err != nil {
				return err
			}
			p.compared++
		}
		at := p.m.Step()
		if at >= step {
			return nil
		}
		next := step
		if p.compared < len(p.marks) {
			next = min(next, p.marks[p.compared].Step)
		}
		if p.checking && p.checked < len(steps) {
			next = min(next, steps[p.checked])
		}
		why, err := p.m.Run(next)
		if p.diverged != nil {
			d := p.diverged
			p.diverged = nil
			p.live = false
			return d
		}
		if err != nil {
			return err
		}
		if why != vmm.Running && p.m.Step() < next {
			p.live = false
			return &Divergence{Step: p.m.Step(), Field: "the machine", Want: "running", Got: "stopped: " + why.String()}
		}
	}
}

// compare checks the machine against a mark at its position.
func (p *Player) compare(want *traces.Mark) error {
	if want.Step < p.m.Step() {
		return nil // the machine was put beyond it
	}
	if want.End != "" {
		if err := p.finish(want); err != nil {
			return err
		}
	}
	got := p.track.mark()
	if got.Written = p.track.writes.Take(); !p.track.whole {
		got.Written = want.Written
	}
	p.track.whole = true
	if d := compareMarks(want, &got, p.Manifest.Devices); d != nil {
		p.live = false
		return d
	}
	if p.Progress != nil {
		p.Progress(want.Step, p.End())
	}
	return nil
}

// finish lets the machine do what it still did at its last step: while it is
// halted, time passes and events come, and no instruction retires.
func (p *Player) finish(want *traces.Mark) error {
	why, _ := p.m.Stopped()
	at := p.m.TimeNs()
	defer func() {
		now, _ := p.m.Stopped()
		p.ended = p.ended || now != why || p.m.TimeNs() != at
	}()
	switch want.End {
	case ReasonMaxSteps:
		return nil
	case ReasonInterrupted:
		return p.m.RunIdle(want.TimeNs)
	}
	return p.m.RunOut(want.TimeNs)
}

// checkSnapshot compares snapshot i, which is of the machine's step, with the machine.
func (p *Player) checkSnapshot(i int) error {
	e, err := p.snaps.Entry(i)
	if err != nil {
		return err
	}
	d := &Divergence{Step: e.Step, Want: "what its snapshot says", Got: "another"}
	p.track.collect()
	if d.Field, err = p.snaps.Compare(i, p.m.RAM, p.track.takeChanged(), disks(p.m.Machine)); err != nil {
		return err
	}
	for k, b := range p.track.entry().Blobs {
		if d.Field == "" && (k >= len(e.Blobs) || b.Name != e.Blobs[k].Name || !bytes.Equal(b.Data, e.Blobs[k].Data)) {
			d.Field = "the state of " + b.Name
		}
	}
	if d.Field == "" {
		return nil
	}
	p.live = false
	return d
}

// Verify plays the whole recording and compares all of it: marks, console and snapshots.
func (p *Player) Verify() error {
	if err := p.restore(0); err != nil {
		return err
	}
	p.checking, p.checked = true, 0
	defer func() { p.checking = false }()
	if err := p.RunTo(p.End()); err != nil {
		return err
	}
	if got := p.m.Out(); got != uint64(len(p.console)) {
		return &Divergence{Step: p.m.Step(), Field: "the length of console output", Want: fmt.Sprint(len(p.console)), Got: fmt.Sprint(got)}
	}
	return nil
}

// Close closes the recording and its machine.
func (p *Player) Close() error { return errors.Join(p.snaps.Close(), p.m.close()) }

// TakeSnapshot adds a snapshot of the current position to the recording. It reports
// whether there was none yet.
func (p *Player) TakeSnapshot() (bool, error) {
	at := p.m.Step()
	if i := p.snaps.Before(at); i >= 0 && p.snaps.Steps()[i] == at {
		return false, nil
	}
	if p.ended {
		return false, errors.New("the machine is halted where the recording ends; take the snapshot a step earlier")
	}
	if err := snapshot.Append(p.Dir, p.track.entry(), p.m.RAM, disks(p.m.Machine)); err != nil {
		return false, err
	}
	r, err := snapshot.OpenReader(p.Dir, p.m.RAM.Pages())
	if err != nil {
		return false, err
	}
	err = p.snaps.Close()
	p.snaps, p.track.onDirty = r, r.Changed
	return true, err
}

// StepAtTime returns a step that the recording reached no later than virtual time timeNs.
func (p *Player) StepAtTime(timeNs uint64) uint64 {
	step := p.Start()
	for i := range p.marks {
		if p.marks[i].TimeNs > timeNs {
			break
		}
		step = max(step, p.marks[i].Step)
	}
	return step
}
