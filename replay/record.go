package replay

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/zeebo/xxh3"

	"refault/snapshot"
	"refault/traces"
	"refault/vmm"
)

// Options say how a recording is made.
type Options struct {
	MarkEvery     uint64 // steps between marks
	SnapshotEvery uint64 // steps between snapshots; zero: only the first
	MaxSteps      uint64 // where to stop at the latest; zero: nowhere
	// Console gets the guest's output as it comes.
	Console func(b byte)
	// Progress, if set, is called at each mark, while it is made.
	Progress func(step, timeNs uint64)
}

// Defaults of Options. With the translator a mark comes about ten times a second, and a snapshot once: closer together,
// they cost a recording more than they save who looks for a place in it.
const (
	DefaultMarkEvery     = 100_000_000
	DefaultSnapshotEvery = 1_000_000_000
)

func (o *Options) defaults() {
	if o.MarkEvery == 0 {
		o.MarkEvery = DefaultMarkEvery
	}
	if o.MaxSteps == 0 {
		o.MaxSteps = vmm.Never
	}
}

// ReasonMaxSteps and ReasonInterrupted are reasons of a recording's end that are not the guest's.
const (
	ReasonMaxSteps    = "max-steps"
	ReasonInterrupted = "interrupted"
)

// Recorder runs a machine and writes its recording.
type Recorder struct {
	dir     string
	lock    *os.File
	m       *machine
	man     *traces.Manifest
	opt     Options
	track   *tracker
	events  *traces.RecordWriter[traces.Event]
	marks   *traces.RecordWriter[traces.Mark]
	snaps   *snapshot.Writer
	console *bufio.Writer
	file    *os.File
	said    *xxh3.Hasher // what went to console.log
	pending *vmm.Event   // taken, and not yet in the log: applying it fills in what it replaced
	logged  uint64       // events
	marked  uint64       // step of the last mark; of the writer's goroutine until it has hashed
	inner   vmm.Inputs
	err     error // the first; nothing is written after it
}

// NewRecorder starts the recording of a new run in directory dir, which must not exist.
func NewRecorder(dir string, s *Setup, in func(m *vmm.Machine) vmm.Inputs, opt Options) (*Recorder, error) {
	m, man, err := build(s, true)
	if err != nil {
		return nil, err
	}
	r, err := newRecorder(dir, m, man, opt)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	r.start(in(m.Machine))
	if err := r.begin(r.track.writes.Take()); err != nil {
		return nil, r.abandon(err)
	}
	return r, nil
}

// abandon removes a recording of which nothing can be played, and frees the machine.
func (r *Recorder) abandon(err error) error {
	r.err = err
	r.Close()
	removeFiles(r.dir)
	return err
}

// removeFiles removes the files of a recording, and its directory if nothing else is there.
func removeFiles(dir string) {
	for _, name := range []string{traces.FileFormat, traces.FileManifest, traces.FileEvents, traces.FileMarks,
		traces.FilePages, traces.FileSnapshots, traces.FileConsole} {
		os.Remove(filepath.Join(dir, name))
	}
	os.Remove(dir)
}

// newRecorder makes the directory and the files of a recording.
func newRecorder(dir string, m *machine, man *traces.Manifest, opt Options) (*Recorder, error) {
	opt.defaults()
	man.MarkEvery = opt.MarkEvery
	if err := os.Mkdir(dir, 0o777); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("%s exists; remove it or choose another name", dir)
		}
		return nil, err
	}
	lock, err := newFormat(dir)
	if err != nil {
		removeFiles(dir)
		return nil, err
	}
	r := &Recorder{dir: dir, lock: lock, m: m, man: man, opt: opt, track: newTracker(m.Machine), said: xxh3.New()}
	if err := r.createFiles(); err != nil {
		r.err = err
		r.closeFiles()
		removeFiles(dir)
		return nil, err
	}
	return r, nil
}

// createFiles makes the files of a recording.
func (r *Recorder) createFiles() error {
	if err := traces.WriteManifest(r.dir, r.man); err != nil {
		return err
	}
	ew, err := traces.CreateBlocks(filepath.Join(r.dir, traces.FileEvents))
	if err != nil {
		return err
	}
	r.events = traces.NewRecordWriter[traces.Event](ew)
	mw, err := traces.CreateBlocks(filepath.Join(r.dir, traces.FileMarks))
	if err != nil {
		return err
	}
	r.marks = traces.NewRecordWriter[traces.Mark](mw)
	if r.snaps, err = snapshot.CreateWriter(r.dir, r.m.RAM.Pages()); err != nil {
		return err
	}
	if r.file, err = os.Create(filepath.Join(r.dir, traces.FileConsole)); err != nil {
		return err
	}
	r.console = bufio.NewWriter(r.file)
	return nil
}

// newFormat writes FORMAT and locks the recording.
func newFormat(dir string) (*os.File, error) {
	if err := traces.WriteFormat(dir); err != nil {
		return nil, err
	}
	return traces.Lock(dir)
}

// start puts the recorder between the machine and its inputs.
func (r *Recorder) start(in vmm.Inputs) {
	r.inner = in
	r.m.SetInputs(r)
	r.m.RAM.OnDirty = r.snaps.BeforeWrite
	r.m.Console = func(b byte) {
		r.say([]byte{b})
		if r.opt.Console != nil {
			r.opt.Console(b)
		}
	}
}

// say adds to console.log. An error of the writer comes back when it is flushed.
func (r *Recorder) say(b []byte) {
	r.console.Write(b)
	r.said.Write(b)
}

// begin writes the first snapshot and the first mark, written before which was w since the one before it.
func (r *Recorder) begin(w traces.Written) error {
	if err := r.snapshot(); err != nil {
		return err
	}
	if err := r.mark("", w); err != nil {
		return err
	}
	return r.snaps.Hashed()
}

// Machine returns the machine that is being recorded.
func (r *Recorder) Machine() *vmm.Machine { return r.m.Machine }

// Take implements vmm.Inputs: whatever comes from inside goes to the log.
func (r *Recorder) Take(step, timeNs uint64) *vmm.Event {
	r.log()
	e := r.inner.Take(step, timeNs)
	if e != nil {
		e.Step, e.TimeNs = step, timeNs
		r.pending = e
	}
	return e
}

// Horizon implements vmm.Inputs.
func (r *Recorder) Horizon(step uint64) uint64 { return r.inner.Horizon(step) }

// Idle implements vmm.Inputs.
func (r *Recorder) Idle(step, timeNs, until uint64) uint64 { return r.inner.Idle(step, timeNs, until) }

// log writes the event that was taken last.
func (r *Recorder) log() {
	if r.pending == nil {
		return
	}
	t, err := toTrace(r.pending)
	if err == nil {
		err = r.events.Add(t.Step, &t)
	}
	r.pending = nil
	r.logged++
	r.fail(err)
}

func (r *Recorder) fail(err error) {
	if err != nil && r.err == nil {
		r.err = err
		r.m.Interrupt()
	}
}

// mark writes the hash of the state, after everything that it vouches for. end is the
// reason where this is the recording's end, and w what was written to the disks since the last one.
// The state is hashed, and the mark written, while the machine goes on.
func (r *Recorder) mark(end string, w traces.Written) error {
	r.log()
	mk, devices := r.track.position()
	if r.err != nil {
		return r.err
	}
	if err := r.snaps.Err(); err != nil {
		return err
	}
	mk.EventCount, mk.ConsoleHash, mk.Written, mk.End = r.logged, r.said.Sum64(), w, end
	if err := r.events.Flush(); err != nil {
		return err
	}
	if err := r.console.Flush(); err != nil {
		return err
	}
	r.hash(func() error {
		mk.Devices, mk.Memory = devices(), r.track.hash.Sum()
		if err := r.marks.Add(mk.Step, &mk); err != nil {
			return err
		}
		if err := r.marks.Flush(); err != nil {
			return err
		}
		r.marked = mk.Step
		return nil
	})
	if r.opt.Progress != nil {
		r.opt.Progress(mk.Step, mk.TimeNs)
	}
	return nil
}

// hash makes the writer's goroutine hash what was written to memory, and then call then.
func (r *Recorder) hash(then func() error) {
	r.snaps.Hash(r.track.hash, r.m.RAM, r.track.written(), then)
}

func (r *Recorder) snapshot() error {
	r.hash(nil)
	return r.snaps.Take(r.track.entry(), r.m.RAM, r.track.takeChanged(), disks(r.m.Machine))
}

// nextMultiple returns the first multiple of every beyond step.
func nextMultiple(step, every uint64) uint64 {
	if every == 0 {
		return vmm.Never
	}
	return (step/every + 1) * every
}

// Run runs the machine to its end, or to Options.MaxSteps, or until Interrupt is
// called, and completes the recording. After an error what was written up to then
// is a recording that ends at its last mark.
func (r *Recorder) Run() (*traces.End, error) {
	end, err := r.run()
	if err != nil {
		if r.err == nil {
			r.err = err
		}
		r.snaps.Hashed() // or not, after an error of its own
		return nil, fmt.Errorf("the recording ends at step %d: %w", r.marked, err)
	}
	return end, nil
}

func (r *Recorder) run() (*traces.End, error) {
	for {
		if r.err != nil {
			return nil, r.err
		}
		step := r.m.Step()
		next := min(nextMultiple(step, r.opt.MarkEvery), nextMultiple(step, r.opt.SnapshotEvery), r.opt.MaxSteps)
		why, err := r.m.Run(next)
		if r.err != nil {
			return nil, r.err
		}
		at := r.m.Step()
		switch {
		case errors.Is(err, vmm.ErrInterrupted):
			return r.end(ReasonInterrupted)
		case err != nil:
			r.pending = nil // it did not happen
			return nil, err
		case why != vmm.Running:
			return r.end(why.String())
		case at >= r.opt.MaxSteps:
			return r.end(ReasonMaxSteps)
		}
		if r.opt.SnapshotEvery != 0 && at%r.opt.SnapshotEvery == 0 {
			if err := r.snapshot(); err != nil {
				return nil, err
			}
		}
		if at%r.opt.MarkEvery == 0 {
			if err := r.mark("", r.track.writes.Take()); err != nil {
				return nil, err
			}
		}
	}
}

// end writes the last mark, and the manifest with the outcome.
func (r *Recorder) end(reason string) (*traces.End, error) {
	if err := r.mark(reason, r.track.writes.Take()); err != nil {
		return nil, err
	}
	if err := r.snaps.Sync(); err != nil {
		return nil, err
	}
	_, status := r.m.Stopped()
	r.man.End = &traces.End{Step: r.m.Step(), TimeNs: r.m.TimeNs(), Reason: reason, Status: status}
	return r.man.End, traces.WriteManifest(r.dir, r.man)
}

// Close closes the recording and the machine. An error that Run returned is not returned again.
func (r *Recorder) Close() error {
	err := r.closeFiles()
	if r.err != nil {
		err = nil
	}
	return errors.Join(err, r.m.close())
}

// closeFiles closes the files; after an error, without writing what waits.
func (r *Recorder) closeFiles() error {
	var errs []error
	failed := r.err != nil
	if r.snaps != nil { // first, since its goroutine writes marks
		err := r.snaps.Close()
		failed = failed || err != nil
		errs = append(errs, err)
	}
	if r.events != nil {
		if failed {
			r.events.Abandon()
		} else {
			errs = append(errs, r.events.Close())
		}
	}
	if r.marks != nil {
		if failed {
			r.marks.Abandon()
		} else {
			errs = append(errs, r.marks.Close())
		}
	}
	if r.console != nil {
		if !failed {
			errs = append(errs, r.console.Flush())
		}
		errs = append(errs, r.file.Close())
	}
	r.lock.Close()
	return errors.Join(errs...)
}
