package replay

import (
	"slices"
	"testing"

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
