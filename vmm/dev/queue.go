package dev

import (
	"fmt"
	"math"
)

// Never is the deadline of a timer that is not set.
const Never = math.MaxUint64

// Queue is the machine's queue of virtual-time events. Timers that fall due at
// the same nanosecond fire in the order in which they were made, so that the
// order is a property of the machine's composition and of nothing else.
type Queue struct {
	now    func() uint64
	timers []*Timer
	next   uint64 // the earliest deadline
}

// Timer is one source of events. Devices make their timers once, when they are
// built; the deadline is part of the queue's state, not of the device's.
type Timer struct {
	q        *Queue
	name     string
	fn       func()
	deadline uint64
}

// QueueState is the saved state of a Queue.
type QueueState struct {
	Version uint8
	Timers  []TimerState
}

// TimerState is the saved state of a Timer.
type TimerState struct {
	Name       string
	DeadlineNs uint64
}

// NewQueue returns an empty queue; now tells virtual time in nanoseconds.
func NewQueue(now func() uint64) *Queue { return &Queue{now: now, next: Never} }

// Now returns virtual time in nanoseconds since power-on.
func (q *Queue) Now() uint64 { return q.now() }

// NewTimer adds a timer that is not set. fn runs at the deadline, once.
func (q *Queue) NewTimer(name string, fn func()) *Timer {
	t := &Timer{q: q, name: name, fn: fn, deadline: Never}
	q.timers = append(q.timers, t)
	return t
}

// Next returns the earliest deadline in nanoseconds, or Never.
func (q *Queue) Next() uint64 { return q.next }

// firesMax bounds how many timers fire at one instant. A device skips the periods that
// it missed when time jumps, so no run comes near it; but a state that comes from
// outside can make a timer fall due again and again, and time would stand still.
const firesMax = 1 << 16

// Run fires every timer whose deadline has come, earliest first.
func (q *Queue) Run() {
	fires := 0
	for now := q.now(); q.next <= now; fires++ {
		var due *Timer
		for _, t := range q.timers {
			if t.deadline <= now && (due == nil || t.deadline < due.deadline) {
				due = t
			}
		}
		due.deadline = Never
		q.update()
		if fires < firesMax {
			due.fn()
		}
	}
}

func (q *Queue) update() {
	q.next = Never
	for _, t := range q.timers {
		q.next = min(q.next, t.deadline)
	}
}

// Set arms the timer for virtual time deadlineNs; a time that has passed fires as soon as possible.
func (t *Timer) Set(deadlineNs uint64) {
	t.deadline = deadlineNs
	t.q.update()
}

// Stop disarms the timer.
func (t *Timer) Stop() { t.Set(Never) }

// Deadline returns the time in nanoseconds for which the timer is set, or Never.
func (t *Timer) Deadline() uint64 { return t.deadline }

// Name implements Device.
func (q *Queue) Name() string { return "queue" }

// Reset disarms all timers.
func (q *Queue) Reset() {
	for _, t := range q.timers {
		t.deadline = Never
	}
	q.next = Never
}

// Save implements Device.
func (q *Queue) Save() any {
	s := &QueueState{Version: 1}
	for _, t := range q.timers {
		s.Timers = append(s.Timers, TimerState{Name: t.name, DeadlineNs: t.deadline})
	}
	return s
}

// Restore implements Device.
func (q *Queue) Restore(decode func(any) error) error {
	var s QueueState
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 || len(s.Timers) != len(q.timers) {
		return fmt.Errorf("queue: state version %d with %d timers, this machine has version 1 with %d", s.Version, len(s.Timers), len(q.timers))
	}
	for i, t := range q.timers {
		if s.Timers[i].Name != t.name {
			return fmt.Errorf("queue: timer %d is %q in the state, %q in this machine", i, s.Timers[i].Name, t.name)
		}
		t.deadline = s.Timers[i].DeadlineNs
	}
	q.update()
	return nil
}
