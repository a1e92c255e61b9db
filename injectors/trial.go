package injectors

import (
	"errors"
	"fmt"

	"refault/replay"
	"refault/traces"
	"refault/vmm"
)

// Trial is what became of faults in a short run that nobody recorded.
type Trial struct {
	Step    uint64 // where it ended
	Reason  vmm.StopReason
	Status  uint32
	Output  []byte // what the guest said
	State   traces.Mark
	Written traces.Written // what was written to the disks
	Waiting []Waiting      // faults that did not happen
	Notices []vmm.Notice
}

// Try runs up to steps instructions from golden's current position with faults, and
// leaves golden where it was. Without faults it tells what to compare the others with.
// A thousand trials from one position cost little more than their instructions do.
func Try(golden *replay.Player, faults []*Fault, steps uint64) (*Trial, error) {
	for _, f := range faults {
		first, err := f.first(golden, faults)
		if err != nil {
			return nil, err
		}
		if at := golden.Machine().Step(); f.Trigger.Stages[0].atStep() && first < at {
			return nil, fmt.Errorf("fault %q: its step comes before the trial's first, %d: %w", f, at, ErrSpec)
		}
	}
	t := new(Trial)
	var s *Scheduler
	err := golden.Aside(func(m *vmm.Machine, next vmm.Inputs) vmm.Inputs {
		s = NewScheduler(m, next, faults, golden.Manifest.Seed)
		return s
	}, func(b byte) { t.Output = append(t.Output, b) }, func(m *vmm.Machine) error {
		defer s.Close()
		if err := s.Err(); err != nil {
			return err
		}
		var writes replay.Writes
		o := &vmm.Observer{Wrote: writes.Add}
		m.Observe(o)
		_, err := m.Run(m.Step() + steps)
		m.Unobserve(o)
		if e := s.Err(); e != nil {
			return e
		}
		t.Step = m.Step()
		t.Reason, t.Status = m.Stopped()
		t.State, t.Written = golden.Mark(), writes.Take()
		t.Waiting, t.Notices = s.Waiting(), s.Notices()
		return errors.Join(err, m.Err())
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// atStep reports whether the stage is a position.
func (s *Stage) atStep() bool {
	_, ok := s.cond.(*atStep)
	return ok
}
