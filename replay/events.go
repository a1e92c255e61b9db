package replay

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"refault/traces"
	"refault/vmm"
	"refault/vmm/bounded"
)

// toTrace encodes an event for the log.
func toTrace(e *vmm.Event) (traces.Event, error) {
	t := traces.Event{Step: e.Step, TimeNs: e.TimeNs, Kind: uint8(e.Kind), Data: e.Data, DeltaNs: e.DeltaNs}
	if e.Fault != nil {
		var b bytes.Buffer
		enc := msgpack.NewEncoder(&b)
		enc.UseArrayEncodedStructs(true)
		if err := enc.Encode(e.Fault); err != nil {
			return t, err
		}
		t.Data, t.Spec = b.Bytes(), e.Fault.Spec
	}
	return t, nil
}

// clockMax bounds a clock correction of the log, in nanoseconds: two weeks.
const clockMax = 1 << 50

// fromTrace decodes an event of the log.
func fromTrace(t *traces.Event) (*vmm.Event, error) {
	e := &vmm.Event{Step: t.Step, TimeNs: t.TimeNs, Kind: vmm.EventKind(t.Kind), Data: t.Data, DeltaNs: t.DeltaNs}
	bad := func(why string) (*vmm.Event, error) {
		return nil, fmt.Errorf("at step %d: %s: %w", t.Step, why, traces.ErrDamaged)
	}
	switch e.Kind {
	case vmm.EventConsole, vmm.EventPower:
	case vmm.EventClock:
		if t.DeltaNs > clockMax {
			return bad("a clock correction of years")
		}
	case vmm.EventFault:
		e.Fault, e.Data = new(vmm.Fault), nil
		if err := bounded.Check(t.Data, 1); err != nil {
			return bad(err.Error())
		}
		if err := msgpack.Unmarshal(t.Data, e.Fault); err != nil {
			return bad(err.Error())
		}
	default:
		return bad(fmt.Sprintf("kind %d is unknown", t.Kind))
	}
	return e, nil
}

// script gives recorded events back at their positions. It implements vmm.Inputs.
type script struct {
	events []*vmm.Event
	next   int
	// missed is called for an event whose position the machine did not come to. It
	// happens at the next that it comes to: in a run that is another than the recorded one.
	missed func(e *vmm.Event)
}

// seek makes the next event the first at or after step.
func (s *script) seek(step uint64) {
	for s.next = 0; s.next < len(s.events) && s.events[s.next].Step < step; s.next++ {
	}
}

func (s *script) Take(step, timeNs uint64) *vmm.Event {
	if s.next == len(s.events) {
		return nil
	}
	e := s.events[s.next]
	if e.Step > step || e.Step == step && e.TimeNs > timeNs {
		return nil
	}
	s.next++
	if s.missed != nil && (e.Step != step || e.TimeNs != timeNs) {
		s.missed(e)
	}
	c := *e
	if e.Fault != nil {
		f := *e.Fault
		c.Fault = &f
	}
	return &c
}

func (s *script) Horizon(step uint64) uint64 {
	if s.next == len(s.events) {
		return vmm.Never
	}
	return max(s.events[s.next].Step, step+1)
}

func (s *script) Idle(step, _, until uint64) uint64 {
	if s.next < len(s.events) && s.events[s.next].Step == step {
		return min(until, s.events[s.next].TimeNs)
	}
	return until
}
