package vmm

import (
	"testing"

	"refault/vmm/x86"
)

// What is watched may be code that runs already, in the middle of its page: each engine tells of each fetch.
func TestWatchOnCodeThatRuns(t *testing.T) {
	fetches := func(e Engine) (n int) {
		m := tinyMachine(t)
		if err := m.SetEngine(e); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Run(20_000); err != nil {
			t.Fatal(err)
		}
		at := m.CPUs[0].Regs[x86.RIP] // where linear addresses are physical ones
		if _, err := m.Watch(at, 1, func(t *Touch) {
			if t.Kind == x86.Fetch {
				n++
			}
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Run(40_000); err != nil {
			t.Fatal(err)
		}
		return n
	}
	want := fetches(EngineInterp)
	if got := fetches(EngineAuto); got != want || want < 100 {
		t.Errorf("%d fetches, want %d, and at least 100", got, want)
	}
}
