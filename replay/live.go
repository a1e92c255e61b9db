package replay

import (
	"time"

	"refault/vmm"
)

// pollEvery is how many steps may pass before the live world is looked at: a
// tenth of a millisecond of virtual time.
const pollEvery = 100_000

// typedMax bounds the size in bytes of one event of console input; the rest makes more of them.
const typedMax = 64 << 10

// correctAfterNs is how far virtual time may fall behind the host's clock before a correction is logged.
const correctAfterNs = 2_000_000

// Live is the live world behind a machine's door: what is typed at the console
// and, with ClockHost, the passing of time. It implements vmm.Inputs.
type Live struct {
	m     *vmm.Machine
	host  bool
	input <-chan []byte // nil: nobody can type
	typed []byte
	wake  chan struct{}
	begin time.Time
	zero  uint64 // virtual time at begin
	open  bool
}

// NewLive returns the live world for m. input is closed when nobody will type any more.
func NewLive(m *vmm.Machine, clock string, input <-chan []byte) *Live {
	return &Live{m: m, host: clock == ClockHost, input: input, wake: make(chan struct{}, 1), open: input != nil}
}

// Interrupt stops the machine, also while it sleeps. It is safe to call from another goroutine.
func (l *Live) Interrupt() {
	l.m.Interrupt()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// hostNs returns what virtual time would be if it had followed the host's clock.
func (l *Live) hostNs(timeNs uint64) uint64 {
	if l.begin.IsZero() {
		l.begin, l.zero = time.Now(), timeNs
	}
	return l.zero + uint64(time.Since(l.begin))
}

// receive takes a chunk that came from the console; ok is false at its end.
func (l *Live) receive(b []byte, ok bool) {
	if !ok {
		l.input, l.open = nil, false
		return
	}
	l.typed = append(l.typed, b...)
}

// poll takes what has been typed.
func (l *Live) poll() {
	for l.open {
		select {
		case b, ok := <-l.input:
			l.receive(b, ok)
		default:
			return
		}
	}
}

// Take implements vmm.Inputs.
func (l *Live) Take(step, timeNs uint64) *vmm.Event {
	if l.host {
		if now := l.hostNs(timeNs); now > timeNs+correctAfterNs {
			return &vmm.Event{Step: step, TimeNs: timeNs, Kind: vmm.EventClock, DeltaNs: now - timeNs}
		}
	}
	l.poll()
	if len(l.typed) == 0 {
		return nil
	}
	n := min(len(l.typed), typedMax)
	e := &vmm.Event{Step: step, TimeNs: timeNs, Kind: vmm.EventConsole, Data: l.typed[:n:n]}
	l.typed = l.typed[n:]
	return e
}

// Horizon implements vmm.Inputs.
func (l *Live) Horizon(step uint64) uint64 {
	if !l.open && !l.host {
		return vmm.Never
	}
	return step + pollEvery
}

// Idle implements vmm.Inputs. When it was woken, time has passed, be it a
// nanosecond: what it was woken for gets a position of its own.
func (l *Live) Idle(_, timeNs, until uint64) uint64 {
	if len(l.typed) > 0 {
		return timeNs + 1
	}
	if !l.host && until != vmm.Never {
		return until
	}
	if !l.open && until == vmm.Never {
		return vmm.Never
	}
	var alarm <-chan time.Time
	if l.host && until != vmm.Never {
		now := l.hostNs(timeNs)
		if now >= until {
			return until
		}
		t := time.NewTimer(time.Duration(until - now))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case b, ok := <-l.input:
		l.receive(b, ok)
	case <-alarm:
		return until
	case <-l.wake:
	}
	if !l.host {
		return timeNs + 1
	}
	return min(max(l.hostNs(timeNs), timeNs+1), until)
}
