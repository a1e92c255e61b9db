package injectors

import (
	"fmt"
	"slices"

	"refault/vmm"
)

// Scheduler stands in front of another Inputs and adds faults to what comes from
// there, each when its trigger says.
type Scheduler struct {
	m     *vmm.Machine
	next  vmm.Inputs
	armed []*Fault
	err   error
}

// NewScheduler returns a Scheduler for machine m over inputs next.
func NewScheduler(m *vmm.Machine, next vmm.Inputs, faults []*Fault) *Scheduler {
	return &Scheduler{m: m, next: next, armed: slices.Clone(faults)}
}

// Armed returns the faults whose trigger has not come yet.
func (s *Scheduler) Armed() []*Fault { return s.armed }

// Err returns the error of the first fault that could not be resolved at its trigger.
func (s *Scheduler) Err() error { return s.err }

// Take implements vmm.Inputs. Faults come before other events of the same position.
func (s *Scheduler) Take(step, timeNs uint64) *vmm.Event {
	for i, f := range s.armed {
		if !f.due(step, timeNs) {
			continue
		}
		s.armed = slices.Delete(s.armed, i, i+1)
		v, err := f.Kind.Resolve(s.m, f.Args)
		if err != nil {
			if s.err == nil {
				s.err = fmt.Errorf("at step %d: %w", step, err)
			}
			s.m.Interrupt()
			return nil
		}
		v.Spec = f.String()
		return &vmm.Event{Step: step, TimeNs: timeNs, Kind: vmm.EventFault, Fault: v}
	}
	return s.next.Take(step, timeNs)
}

func (f *Fault) due(step, timeNs uint64) bool {
	if f.Trigger.AtStep {
		return step >= f.Trigger.Step
	}
	return timeNs >= f.Trigger.TimeNs
}

// Horizon implements vmm.Inputs.
func (s *Scheduler) Horizon(step uint64) uint64 {
	h := s.next.Horizon(step)
	now := s.m.TimeNs()
	for _, f := range s.armed {
		if f.Trigger.AtStep {
			h = min(h, max(f.Trigger.Step, step+1))
		} else {
			h = min(h, step+max(f.Trigger.TimeNs, now+1)-now)
		}
	}
	return h
}

// Idle implements vmm.Inputs.
func (s *Scheduler) Idle(step, timeNs, untilNs uint64) uint64 {
	for _, f := range s.armed {
		if !f.Trigger.AtStep && f.Trigger.TimeNs > timeNs {
			untilNs = min(untilNs, f.Trigger.TimeNs)
		}
	}
	return s.next.Idle(step, timeNs, untilNs)
}
