package replay

import (
	"fmt"
)

// Timeline moves a Player to and fro. Going back is playing forward from a place before: the
// nearest of the recording's snapshots, or of the checkpoints that the Timeline leaves on its
// way, the closer together the nearer to where it was asked to go. So the next small step
// back costs next to nothing.
type Timeline struct {
	P    *Player
	held []*Checkpoint // ascending in position
}

// Distances of checkpoints.
const (
	strideSteps = 32_000_000 // on the way forward
	nearSteps   = 2_000      // the nearest before a place that was gone back to
	closerBy    = 8          // how much nearer each is than the one before
	maxHeld     = 24
)

// NewTimeline returns a Timeline of p, which nothing else may hold checkpoints of.
func NewTimeline(p *Player) *Timeline { return &Timeline{P: p} }

// Step returns the current step.
func (t *Timeline) Step() uint64 { return t.P.m.Step() }

// Close gives all checkpoints up.
func (t *Timeline) Close() { t.drop(0) }

// drop gives up the checkpoints from i on.
func (t *Timeline) drop(i int) {
	for k := len(t.held) - 1; k >= i; k-- {
		t.P.Release(t.held[k])
	}
	t.held = t.held[:i]
}

// mark leaves a checkpoint where the machine is.
func (t *Timeline) mark() {
	if n := len(t.held); n > 0 && t.held[n-1].Step() >= t.Step() {
		return
	}
	if len(t.held) == maxHeld {
		// Every other of the older ones goes.
		kept := t.held[:0]
		for i, c := range t.held {
			if i < maxHeld/2 && i%2 == 1 {
				t.P.Release(c)
			} else {
				kept = append(kept, c)
			}
		}
		t.held = kept
	}
	t.held = append(t.held, t.P.Checkpoint())
}

// Before goes to the latest place before step from which it can be played: what can be
// looked for between there and step is all that there is.
func (t *Timeline) Before(step uint64) error {
	if step <= t.P.Start() || step > t.P.End()+1 {
		return fmt.Errorf("before step %d: the recording %s has steps %d to %d: %w", step, t.P.Dir, t.P.Start(), t.P.End(), ErrBeyond)
	}
	return t.back(step - 1)
}

// back goes to the latest place at or before step from which it can be played.
func (t *Timeline) back(step uint64) error {
	n := len(t.held)
	for n > 0 && t.held[n-1].Step() > step {
		n--
	}
	snap := t.P.snaps.Steps()[max(t.P.snaps.Before(step), 0)]
	if n > 0 && t.held[n-1].Step() >= snap {
		t.drop(n)
		return t.P.Rollback(t.held[n-1])
	}
	t.drop(0)
	return t.P.restore(max(t.P.snaps.Before(step), 0))
}

// Leave tells that the machine is not where it was when it came to its step: an
// exception may have been delivered there. The next move goes through a checkpoint or a snapshot.
func (t *Timeline) Leave() { t.P.live = false }

// Goto goes to a step, and leaves checkpoints before it.
func (t *Timeline) Goto(step uint64) error {
	if step < t.P.Start() || step > t.P.End() {
		return fmt.Errorf("step %d: the recording %s has steps %d to %d: %w", step, t.P.Dir, t.P.Start(), t.P.End(), ErrBeyond)
	}
	snap := t.P.snaps.Steps()[t.P.snaps.Before(step)]
	if at := t.Step(); !t.P.live || at > step || snap > at {
		if err := t.back(step); err != nil {
			return err
		}
	}
	for d := uint64(nearSteps * closerBy * closerBy * closerBy * closerBy); d >= nearSteps; d /= closerBy {
		if step < d || step-d <= t.Step() {
			continue
		}
		if err := t.Forward(step - d); err != nil {
			return err
		}
		t.mark()
	}
	return t.P.RunTo(step)
}

// Forward plays to a step, and leaves checkpoints on the way. If it is stopped by Machine.Pause, the error is vmm.ErrPaused.
func (t *Timeline) Forward(step uint64) error {
	for t.Step() < step {
		next := step
		if n := len(t.held); n == 0 || t.Step()-t.held[n-1].Step() >= strideSteps {
			t.mark()
			next = min(step, t.Step()+strideSteps)
		} else {
			next = min(step, t.held[n-1].Step()+strideSteps)
		}
		if err := t.P.RunTo(next); err != nil {
			return err
		}
	}
	return t.P.RunTo(step)
}
