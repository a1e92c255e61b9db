package compare

import (
	"fmt"
	"testing"

	"refault/injectors"
	"refault/replay"
	"refault/test/recorded"
	"refault/test/tiny"
)

// BenchmarkDiff finds the first divergent instruction of two long runs: the fault strikes
// in the middle, and is noticed after some hundred steps or, of a word that is read
// seldom, after some hundred thousand.
func BenchmarkDiff(b *testing.B) {
	for _, steps := range []int{1e9, 1e10} {
		b.Run(fmt.Sprintf("steps=%.0e", float64(steps)), func(b *testing.B) {
			golden := recordLong(b, steps)
			mid := recorded.Open(b, golden).End() / 2
			for name, fault := range map[string]string{
				"soon":  fmt.Sprintf("reg:name=rcx,bit=1@step:%d", mid),
				"later": fmt.Sprintf("mem:addr=0x210000,bit=5@step:%d", mid),
			} {
				b.Run(name, func(b *testing.B) {
					faulty := injectLong(b, golden, fault, mid+100_000_000)
					b.ResetTimer()
					for b.Loop() {
						g, f := recorded.Open(b, golden), recorded.Open(b, faulty)
						r, err := Diff(g, f, Options{})
						if err != nil || r.First == nil {
							b.Fatal(r, err)
						}
					}
				})
			}
		})
	}
}

// recordLong makes a recording of the tiny guest of about so many steps, with marks and snapshots as they are by default.
func recordLong(b *testing.B, steps int) string {
	const stepsPerRound = 43_000
	dir := b.TempDir() + "/golden.rec"
	if err := recorded.Make(dir, recorded.Setup(steps/stepsPerRound), replay.Options{SnapshotEvery: replay.DefaultSnapshotEvery}); err != nil {
		b.Fatal(err)
	}
	return dir
}

func injectLong(b *testing.B, golden, spec string, to uint64) string {
	f, err := injectors.Parse(spec)
	if err != nil {
		b.Fatal(err)
	}
	g := recorded.Open(b, golden)
	dir := b.TempDir() + "/faulty.rec"
	// What follows the divergence is nobody's concern here.
	i, err := injectors.Inject(g, dir, []*injectors.Fault{f}, replay.Options{SnapshotEvery: replay.DefaultSnapshotEvery, MaxSteps: to}, tiny.Disk())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := i.Run(); err != nil {
		b.Fatal(err)
	}
	if err := i.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkExplain follows a wrong output back to the flipped bit.
func BenchmarkExplain(b *testing.B) {
	golden := recordLong(b, 1e9)
	mid := recorded.Open(b, golden).End() / 2
	faulty := injectLong(b, golden, fmt.Sprintf("ata:error=unc,lba=35@step:%d", mid), mid+100_000_000)
	for b.Loop() {
		e, err := Explain(recorded.Open(b, golden), recorded.Open(b, faulty), Options{})
		if err != nil || !e.Complete {
			b.Fatal(e, err)
		}
	}
}
