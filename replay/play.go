package replay

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"refault/snapshot"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev/disk"
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
	live     bool // the machine is at a position of the recording
}

// Open opens a recording. images are the disks that are in no file, as in Setup.
func Open(dir string, images ...disk.Image) (*Player, error) {
	p, err := open(dir, images)
	if err != nil && !errors.Is(err, traces.ErrNotRecording) {
		return nil, fmt.Errorf("recording %s: %w", dir, err)
	}
	return p, err
}

func open(dir string, images []disk.Image) (p *Player, err error) {
	man, err := traces.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	p = &Player{Dir: dir, Manifest: man, script: &script{}}
	events, err := readAll[traces.Event](dir, traces.FileEvents)
	if err != nil {
		return nil, err
	}
	if p.marks, err = readAll[traces.Mark](dir, traces.FileMarks); err != nil {
		return nil, err
	}
	if len(p.marks) == 0 {
		return nil, fmt.Errorf("its recorder was killed before the first mark; nothing can be played: %w", traces.ErrDamaged)
	}
	for i := range events {
		e, err := fromTrace(&events[i])
		if err != nil {
			return nil, err
		}
		if i > 0 && e.Step < events[i-1].Step {
			return nil, fmt.Errorf("%s: event %d is out of order: %w", traces.FileEvents, i, traces.ErrDamaged)
		}
		p.script.events = append(p.script.events, e)
	}
	for i := range p.marks {
		if len(p.marks[i].Devices) != len(man.Devices) || i > 0 && p.marks[i].Step < p.marks[i-1].Step {
			return nil, fmt.Errorf("%s: mark %d contradicts the manifest: %w", traces.FileMarks, i, traces.ErrDamaged)
		}
	}
	if p.console, err = os.ReadFile(filepath.Join(dir, traces.FileConsole)); err != nil {
		return nil, err
	}
	if want := p.last().ConsoleBytes; uint64(len(p.console)) < want {
		return nil, fmt.Errorf("%s has %d bytes, its last mark says %d: %w", traces.FileConsole, len(p.console), want, traces.ErrDamaged)
	}
	p.console = p.console[:p.last().ConsoleBytes]
	if p.m, err = reopen(man, images); err != nil {
		return nil, err
	}
	if p.snaps, err = snapshot.OpenReader(dir, p.m.RAM.Pages()); err != nil {
		return nil, errors.Join(err, p.m.close())
	}
	if len(p.snaps.Steps()) == 0 {
		return nil, errors.Join(fmt.Errorf("it has no snapshot to start from: %w", traces.ErrDamaged), p.Close())
	}
	p.track = newTracker(p.m.Machine)
	p.track.onDirty = p.snaps.Changed
	p.m.SetInputs(p.script)
	p.m.Console = p.output
	return p, nil
}

func readAll[T any](dir, name string) ([]T, error) {
	r, err := traces.OpenBlocks(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return traces.ReadRecords[T](r)
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
func (p *Player) Complete() bool { return p.Manifest.End != nil && p.Manifest.End.Step == p.End() }

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

// Interrupt makes Seek, RunTo and Verify return vmm.ErrInterrupted soon. It is safe to call from another goroutine.
func (p *Player) Interrupt() { p.m.Interrupt() }

// restore puts the machine at snapshot i.
func (p *Player) restore(i int) error {
	p.live = false
	p.track.collect()
	ram := p.m.RAM
	e, err := p.snaps.Restore(i, func(page int, content []byte) {
		if !bytes.Equal(ram.Page(page), content) {
			ram.NoteWrite(uint64(page)<<12, len(content))
			copy(ram.Page(page), content)
		}
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
	p.script.seek(e.Step)
	p.compared = sort.Search(len(p.marks), func(k int) bool { return p.marks[k].Step >= e.Step })
	p.live = true
	return nil
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
	for {
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
		if err := p.m.Err(); err != nil {
			return err
		}
		if why != vmm.Running && p.m.Step() < next {
			p.live = false
			return &Divergence{Step: p.m.Step(), Field: "the machine", Want: "running", Got: "stopped: " + why.String()}
		}
	}
}

// compare checks the machine against a mark at its position. The last mark of a
// run is taken after the machine stopped, at the same step and later in time.
func (p *Player) compare(want *traces.Mark) error {
	if want.Step < p.m.Step() {
		return nil // the machine was put beyond it
	}
	if want == p.last() {
		if err := p.finish(want); err != nil {
			return err
		}
	}
	got := p.track.mark()
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
	end := p.Manifest.End
	if why, _ := p.m.Stopped(); end == nil || why != vmm.Running {
		return nil
	}
	switch end.Reason {
	case ReasonMaxSteps:
		return nil
	case ReasonInterrupted:
		return p.m.RunIdle(want.TimeNs)
	}
	return p.m.RunIdle(vmm.Never)
}

// Verify plays the whole recording and compares all of it.
func (p *Player) Verify() error {
	if err := p.restore(0); err != nil {
		return err
	}
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
	if err := snapshot.Append(p.Dir, p.track.entry(), p.m.RAM); err != nil {
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

// Checkpoint is a position of a Player that it can go back to quickly, held in memory.
type Checkpoint struct {
	entry    snapshot.Entry
	ram      []byte
	event    int
	compared int
}

// Checkpoint remembers the current position.
func (p *Player) Checkpoint() *Checkpoint {
	return &Checkpoint{entry: p.track.entry(), ram: bytes.Clone(p.m.RAM.Data()), event: p.script.next, compared: p.compared}
}

// Rollback goes back to a checkpoint.
func (p *Player) Rollback(c *Checkpoint) error {
	ram := p.m.RAM
	for n := range ram.Pages() {
		if old := c.ram[n<<12 : (n+1)<<12]; !bytes.Equal(ram.Page(n), old) {
			ram.NoteWrite(uint64(n)<<12, len(old))
			copy(ram.Page(n), old)
		}
	}
	if err := restoreDevices(p.m.Machine, &c.entry); err != nil {
		return err
	}
	p.script.next, p.compared, p.live = c.event, c.compared, true
	return nil
}
