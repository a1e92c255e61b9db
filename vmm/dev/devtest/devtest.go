// Package devtest is what the tests of devices share: a clock that tests set,
// interrupt lines that remember, and the test that every device has to pass: a
// device that is saved and restored in the middle of a run goes on exactly as
// the one that was left alone.
package devtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"refault/vmm/dev"
)

// Clock is virtual time in the hands of a test.
type Clock struct {
	NowNs uint64
	Queue *dev.Queue
}

// NewClock returns a clock at zero with an empty queue.
func NewClock() *Clock {
	c := new(Clock)
	c.Queue = dev.NewQueue(func() uint64 { return c.NowNs })
	return c
}

// Advance lets ns nanoseconds pass, firing every timer at the nanosecond at which it is due.
func (c *Clock) Advance(ns uint64) {
	end := c.NowNs + ns
	for next := c.Queue.Next(); next <= end; next = c.Queue.Next() {
		c.NowNs = max(c.NowNs, next)
		c.Queue.Run()
	}
	c.NowNs = end
}

// Line is an interrupt line that counts its rising edges.
type Line struct {
	Level bool
	Rises int
}

// Set implements dev.Line.
func (l *Line) Set(level bool) {
	if level && !l.Level {
		l.Rises++
	}
	l.Level = level
}

// Take returns the number of rising edges since it was last called.
func (l *Line) Take() int {
	n := l.Rises
	l.Rises = 0
	return n
}

// Bench is a device under test with all that belongs to it.
type Bench struct {
	Clock   *Clock
	Devices []dev.Device
	Lines   []*Line
	// Step does one random thing to the device and returns what could be seen of it.
	Step func(r *rand.Rand) any
}

// SaveRestore runs a bench for a random number of steps, saves it, restores it
// into a new bench and demands that both go the same way from there.
func SaveRestore(t *testing.T, build func() *Bench) {
	t.Helper()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		a := build()
		for range r.IntN(200) {
			a.Step(r)
		}
		b := build()
		b.Clock.NowNs = a.Clock.NowNs
		for i, l := range a.Lines {
			*b.Lines[i] = *l
		}
		for i, d := range a.Devices {
			if err := dev.Decode(b.Devices[i], dev.Encode(d)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err := dev.Decode(b.Clock.Queue, dev.Encode(a.Clock.Queue)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, l := range a.Lines {
			if *b.Lines[i] != *l {
				t.Fatalf("seed %d: restoring drove line %d", seed, i)
			}
		}
		ra, rb := rand.New(rand.NewPCG(seed, 2)), rand.New(rand.NewPCG(seed, 2))
		for n := range 100 {
			va, vb := fmt.Sprint(a.Step(ra)), fmt.Sprint(b.Step(rb))
			if va != vb {
				t.Fatalf("seed %d: step %d after restoring saw %s, without %s", seed, n, vb, va)
			}
			for i, d := range a.Devices {
				if x, y := dev.Encode(d), dev.Encode(b.Devices[i]); !bytes.Equal(x, y) {
					t.Fatalf("seed %d: step %d after restoring: state of %s\n%+v, without\n%+v", seed, n, d.Name(), b.Devices[i].Save(), d.Save())
				}
			}
			if !bytes.Equal(dev.Encode(a.Clock.Queue), dev.Encode(b.Clock.Queue)) {
				t.Fatalf("seed %d: step %d after restoring: queue %+v, without %+v", seed, n, b.Clock.Queue.Save(), a.Clock.Queue.Save())
			}
			for i, l := range a.Lines {
				if *b.Lines[i] != *l {
					t.Fatalf("seed %d: step %d after restoring: line %d is %+v, without %+v", seed, n, i, *b.Lines[i], *l)
				}
			}
		}
	}
}
