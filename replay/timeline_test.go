package replay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestTimelineGoesEverywhere(t *testing.T) {
	dir := record(t, 12, often)
	ref, p := openPlayer(t, dir), openPlayer(t, dir)
	tl := NewTimeline(p)
	r := rand.New(rand.NewPCG(5, 6))
	at := uint64(0)
	for i := range 150 {
		switch i % 3 {
		case 0:
			at = r.Uint64N(p.End() + 1)
		case 1: // a little back
			at -= min(at, r.Uint64N(5000))
		case 2:
			at = min(at+r.Uint64N(5000), p.End())
		}
		if i%10 == 0 {
			tl.Leave()
		}
		if err := tl.Goto(at); err != nil {
			t.Fatal(err)
		}
		if err := ref.Seek(at); err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(p.track.mark()), fmt.Sprint(ref.track.mark()); tl.Step() != at || got != want {
			t.Fatalf("at step %d: %s, played from a snapshot %s", tl.Step(), got, want)
		}
	}
	if len(tl.held) == 0 || len(tl.held) > maxHeld {
		t.Errorf("%d checkpoints", len(tl.held))
	}
	tl.Close()
	if len(p.held) != 0 {
		t.Errorf("%d checkpoints left", len(p.held))
	}
	if err := tl.Goto(p.End() + 1); !errors.Is(err, ErrBeyond) {
		t.Errorf("beyond the end: %v", err)
	}
	if err := tl.Before(p.Start()); !errors.Is(err, ErrBeyond) {
		t.Errorf("before the beginning: %v", err)
	}
	for _, step := range []uint64{1, 70_000, 70_001, p.End()} {
		if err := tl.Before(step); err != nil || tl.Step() >= step {
			t.Errorf("before step %d: %d, %v", step, tl.Step(), err)
		}
	}
}

// BenchmarkStepBack goes back one instruction at a time.
func BenchmarkStepBack(b *testing.B) {
	p := openPlayer(b, record(b, 40, Options{}))
	tl := NewTimeline(p)
	at := p.End()
	for b.Loop() {
		if at--; at == 0 {
			at = p.End()
		}
		if err := tl.Goto(at); err != nil {
			b.Fatal(err)
		}
	}
}
