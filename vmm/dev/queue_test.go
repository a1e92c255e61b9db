package dev

import (
	"slices"
	"testing"
)

func TestQueueFiresInOrderOfDeadlineThenOfMaking(t *testing.T) {
	var now uint64
	var fired []string
	q := NewQueue(func() uint64 { return now })
	var a, b, c *Timer
	a = q.NewTimer("a", func() { fired = append(fired, "a") })
	b = q.NewTimer("b", func() { fired = append(fired, "b"); a.Set(now) })
	c = q.NewTimer("c", func() { fired = append(fired, "c") })
	c.Set(10)
	b.Set(10)
	a.Set(20)
	now = 9
	q.Run()
	if len(fired) != 0 || q.Next() != 10 {
		t.Fatalf("at 9: fired %v, next %d", fired, q.Next())
	}
	now = 10
	q.Run()
	if want := []string{"b", "a", "c"}; !slices.Equal(fired, want) {
		// a was set for "now" by b, with the same deadline as c, and was made before c.
		t.Errorf("fired %v, want %v", fired, want)
	}
	if q.Next() != Never {
		t.Errorf("next = %d, want Never", q.Next())
	}
}

func TestQueueStateNamesItsTimers(t *testing.T) {
	q := NewQueue(func() uint64 { return 0 })
	q.NewTimer("a", nil).Set(5)
	b := Encode(q)
	r := NewQueue(func() uint64 { return 0 })
	ta := r.NewTimer("a", nil)
	if err := Decode(r, b); err != nil || ta.Deadline() != 5 || r.Next() != 5 {
		t.Errorf("restored: %v, deadline %d", err, ta.Deadline())
	}
	other := NewQueue(func() uint64 { return 0 })
	other.NewTimer("z", nil)
	if err := Decode(other, b); err == nil {
		t.Error("a queue with other timers accepted the state")
	}
}

func TestQueueTimeGoesOn(t *testing.T) {
	q := NewQueue(func() uint64 { return 100 })
	var a *Timer
	fired := 0
	a = q.NewTimer("a", func() { fired++; a.Set(50) })
	a.Set(10)
	q.Run()
	if fired != firesMax || q.Next() != Never {
		t.Errorf("a timer that sets itself to the past fired %d times; next is %d", fired, q.Next())
	}
}
