package replay

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"refault/traces"
	"refault/vmm"
)

// TestOutputSteps: asked for together or one by one, bytes of the console have the
// steps at which a replay sees them come.
func TestOutputSteps(t *testing.T) {
	p := openPlayer(t, record(t, 12, often))
	var want []uint64
	p.Console = func(byte) { want = append(want, p.Machine().Step()) }
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	p.Console = nil
	var all []uint64
	for n := range want {
		all = append(all, uint64(n))
	}
	got, err := p.OutputSteps(append(all, uint64(len(want)), uint64(len(want))+9))
	if err != nil || !slices.Equal(got, append(slices.Clone(want), vmm.Never, vmm.Never)) {
		t.Errorf("%v: %v\nwant %v", err, got, want)
	}
	for _, n := range []int{len(want) - 1, 0, len(want) / 2} {
		if step, err := p.OutputStep(uint64(n)); err != nil || step != want[n] {
			t.Errorf("byte %d: step %d, %v; want %d", n, step, err, want[n])
		}
	}
	if got, err := p.OutputSteps([]uint64{0, uint64(len(want) - 1)}); err != nil || got[0] != want[0] || got[1] != want[len(want)-1] {
		t.Errorf("the first and the last: %v, %v", got, err)
	}
	if got, err := p.OutputSteps(nil); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
}

// TestWritesAreCompared: what the marks say of the disks is held to what a replay writes, from wherever it begins.
func TestWritesAreCompared(t *testing.T) {
	p := openPlayer(t, record(t, 12, often))
	sectors := uint64(0)
	for i := range p.marks {
		w := &p.marks[i].Written
		if sectors += w.Sectors; w.Sectors == 0 || i == 0 {
			continue
		}
		good := *w
		for _, bad := range []traces.Written{{Sectors: good.Sectors + 1, Sum: good.Sum, Hash: good.Hash}, {Sectors: good.Sectors, Hash: good.Hash}, {Sectors: good.Sectors, Sum: good.Sum}} {
			*w = bad
			var d *Divergence
			if err := errors.Join(p.Seek(p.marks[i-1].Step), p.RunTo(p.marks[i].Step)); !errors.As(err, &d) || !strings.Contains(d.Field, "written to the disks") || d.Step != p.marks[i].Step {
				t.Errorf("mark %d: %v", i, err)
			}
		}
		*w = good
	}
	if sectors != 12 {
		t.Errorf("the marks tell of %d sectors, the guest writes 12", sectors)
	}
	if err := p.Verify(); err != nil {
		t.Error(err)
	}
}
