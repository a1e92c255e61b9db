package injectors

import (
	"errors"
	"fmt"

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
		if f.Trigger.AtStep {
			if f.Trigger.Step < golden.Start() || f.Trigger.Step > golden.End() {
				return nil, fmt.Errorf("fault %q: the recording %s has steps %d to %d: %w", f, golden.Dir, golden.Start(), golden.End(), replay.ErrBeyond)
			}
			from = min(from, f.Trigger.Step)
		} else {
			from = min(from, golden.StepAtTime(f.Trigger.TimeNs))
		}
	}
	if opt.MaxSteps == 0 {
		opt.MaxSteps = hangFactor*golden.End() + hangMargin
	}
	inj := new(Injection)
	var err error
	inj.rec, err = replay.Fork(golden, dir, from, func(m *vmm.Machine, next vmm.Inputs) vmm.Inputs {
		inj.sched = NewScheduler(m, next, faults)
		return inj.sched
	}, texts, opt, images...)
	if err != nil {
		return nil, err
	}
	return inj, nil
}

// Run runs the faulty machine to its end and completes the recording. Armed returns
// what did not happen.
func (i *Injection) Run() (*traces.End, error) {
	end, err := i.rec.Run()
	if e := i.sched.Err(); e != nil {
		return nil, errors.Join(e, err)
	}
	return end, err
}

// Armed returns the faults whose trigger never came.
func (i *Injection) Armed() []*Fault { return i.sched.Armed() }

// Interrupt ends the run soon. It is safe to call from another goroutine.
func (i *Injection) Interrupt() { i.rec.Machine().Interrupt() }

// Close closes the recording.
func (i *Injection) Close() error { return i.rec.Close() }
