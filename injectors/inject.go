package injectors

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"refault/replay"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev/disk"
)

// Injection is a faulty run: a recording of its own, forked from a golden one.
type Injection struct {
	rec   *replay.Recorder
	sched *Scheduler
}

// hangFactor bounds a faulty run by a multiple of the golden run's length, and hangMargin more.
const (
	hangFactor = 2
	hangMargin = 1_000_000_000
)

// Inject prepares the faulty run of golden with faults, to be recorded in directory
// dir. Without Options.MaxSteps it ends at the latest at twice the golden run's
// length and 10^9 steps more: beyond that it hangs.
func Inject(golden *replay.Player, dir string, faults []*Fault, opt replay.Options, images ...disk.Image) (*Injection, error) {
	if len(faults) == 0 {
		return nil, fmt.Errorf("no fault to inject: %w", ErrSpec)
	}
	from := golden.End()
	var texts []string
	for _, f := range faults {
		texts = append(texts, f.String())
		first, err := f.first(golden, faults)
		if err != nil {
			return nil, err
		}
		from = min(from, first)
	}
	if opt.MaxSteps == 0 {
		opt.MaxSteps = hangFactor*golden.End() + hangMargin
	}
	inj := new(Injection)
	var err error
	inj.rec, err = replay.Fork(golden, dir, from, func(m *vmm.Machine, next vmm.Inputs) vmm.Inputs {
		inj.sched = NewScheduler(m, next, faults, golden.Manifest.Seed)
		return inj.sched
	}, texts, opt, images...)
	if err != nil {
		return nil, err
	}
	if err := inj.sched.Err(); err != nil {
		return nil, errors.Join(err, inj.Close(), os.RemoveAll(dir))
	}
	return inj, nil
}

// first returns a step of golden from which the fault's trigger has to be looked for. A
// fault that names nothing need not have been bound before.
func (f *Fault) first(golden *replay.Player, all []*Fault) (uint64, error) {
	if !f.bound {
		if err := f.Bind(nil); err != nil {
			return 0, err
		}
	}
	for _, s := range f.Trigger.Stages {
		if o, ok := s.cond.(*onFault); ok && !slices.ContainsFunc(all, func(x *Fault) bool { return x.ID == o.id }) {
			if n, err := strconv.Atoi(o.id); err != nil || n < 1 || n > len(all) {
				return 0, fmt.Errorf("fault %q: trigger %s: no fault has that id=, and there are %d: %w", f, s.Text, len(all), ErrSpec)
			}
		}
	}
	switch c := f.Trigger.Stages[0].cond.(type) {
	case *atStep:
		if c.first < golden.Start() || c.first > golden.End() {
			return 0, fmt.Errorf("fault %q: the recording %s has steps %d to %d: %w", f, golden.Dir, golden.Start(), golden.End(), replay.ErrBeyond)
		}
		return c.first, nil
	case *atTime:
		return golden.StepAtTime(c.firstNs), nil
	}
	return golden.Start(), nil
}

// Run runs the faulty machine to its end and completes the recording. Waiting returns
// what did not happen.
func (i *Injection) Run() (*traces.End, error) {
	end, err := i.rec.Run()
	if e := i.sched.Err(); e != nil {
		return nil, errors.Join(e, err)
	}
	return end, err
}

// Waiting returns the faults whose trigger never came, with how near each came.
func (i *Injection) Waiting() []Waiting { return i.sched.Waiting() }

// Notices returns what became of the faults that stay in the machine, the first of it.
func (i *Injection) Notices() []vmm.Notice { return i.sched.Notices() }

// Interrupt ends the run soon. It is safe to call from another goroutine.
func (i *Injection) Interrupt() { i.rec.Machine().Interrupt() }

// Close closes the recording.
func (i *Injection) Close() error { return i.rec.Close() }
