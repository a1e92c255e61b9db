package replay

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"refault/vmm"
)

// TestCheckpointsGoBack takes, releases and goes back to checkpoints at random, and seeks in between: the state must be what the recording has there.
func TestCheckpointsGoBack(t *testing.T) {
	dir := record(t, 12, often)
	ref, p := openPlayer(t, dir), openPlayer(t, dir)
	want := map[uint64]string{}
	at := func(step uint64) string {
		if _, ok := want[step]; !ok {
			if err := ref.Seek(step); err != nil {
				t.Fatal(err)
			}
			want[step] = fmt.Sprint(ref.track.mark())
		}
		return want[step]
	}
	r := rand.New(rand.NewPCG(1, 2))
	if err := p.Seek(0); err != nil {
		t.Fatal(err)
	}
	var held []*Checkpoint
	back, released := 0, 0
	for range 300 {
		switch r.IntN(8) {
		case 0, 1:
			held = append(held, p.Checkpoint())
		case 2, 3:
			if len(held) == 0 {
				break
			}
			i := r.IntN(len(held))
			c := held[i]
			held = held[:i+1]
			if err := p.Rollback(c); err != nil {
				t.Fatal(err)
			}
			if p.m.Step() != c.Step() {
				t.Fatalf("went back to step %d, not %d", p.m.Step(), c.Step())
			}
			back++
		case 4:
			if len(held) == 0 {
				break
			}
			i := r.IntN(len(held))
			p.Release(held[i])
			held = append(held[:i], held[i+1:]...)
			released++
		case 5:
			if err := p.Seek(r.Uint64N(p.End())); err != nil {
				t.Fatal(err)
			}
		default:
			if err := p.RunTo(min(p.End(), p.m.Step()+r.Uint64N(20_000))); err != nil {
				t.Fatal(err)
			}
		}
		if got := fmt.Sprint(p.track.mark()); got != at(p.m.Step()) {
			t.Fatalf("at step %d: %s, recorded %s", p.m.Step(), got, at(p.m.Step()))
		}
	}
	if back < 20 || released < 10 {
		t.Errorf("only %d times back, %d released", back, released)
	}
	if err := p.Verify(); err != nil {
		t.Error(err)
	}
}

func TestAcceptIsPartOfRunning(t *testing.T) {
	golden := record(t, 12, often)
	flip := vmm.Fault{Kind: vmm.FaultMemory, Addr: 0x210000, Mask: []byte{8}}
	p := openPlayer(t, forked(t, golden, often, fault(123_456, flip)))
	if err := p.Seek(123_456); err != nil {
		t.Fatal(err)
	}
	before := p.Memory().Sum()
	if err := p.Accept(); err != nil {
		t.Fatal(err)
	}
	if p.Memory().Sum() == before {
		t.Error("the fault did not happen")
	}
	if err := p.RunTo(p.End()); err != nil {
		t.Error(err)
	}
}

func BenchmarkCheckpointAndRollback(b *testing.B) {
	p := openPlayer(b, record(b, 12, often))
	if err := p.Seek(100_000); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c := p.Checkpoint()
		if err := p.RunTo(101_000); err != nil {
			b.Fatal(err)
		}
		if err := p.Rollback(c); err != nil {
			b.Fatal(err)
		}
		p.Release(c)
	}
}
