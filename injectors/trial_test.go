package injectors

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"refault/replay"
	"refault/test/recorded"
	"refault/test/tiny"
)

// TestTrialIsTheInjectedRun: a trial comes to the state that a recorded injection comes
// to at that step, and leaves the golden run as if it had not been.
func TestTrialIsTheInjectedRun(t *testing.T) {
	g := golden(t)
	const at, steps = 300_000, 150_000
	if err := g.Seek(at); err != nil {
		t.Fatal(err)
	}
	before := g.Mark()
	for _, specs := range [][]string{
		nil,
		{"reg:name=rax,bit=3@step:333333"},
		{"mem:addr=$done,bit=0@step:310000"},
		{"mem:addr=$done,bit=1,stuck=yes@step:310000", "reg:name=rbx,bit=9@step:400000"},
		{"mem:addr=0x300000,bit=0@exec:$sources#2"},
		{"reg:name=rip,bit=30@step:330000"}, // it does not survive that
		{"mce:type=fatal,addr=0x300000@step:345678"},
	} {
		tr, err := Try(g, parseAll(t, specs), steps)
		if err != nil {
			t.Fatalf("%q: %v", specs, err)
		}
		if now := g.Mark(); !reflect.DeepEqual(now, before) {
			t.Fatalf("%q: the golden run is not where it was", specs)
		}
		if specs == nil {
			continue
		}
		dir := filepath.Join(t.TempDir(), "faulty.rec")
		other := recorded.Open(t, goldenDir)
		inj, err := Inject(other, dir, parseAll(t, specs), replay.Options{MarkEvery: 20_000, MaxSteps: at + steps}, tiny.Disk())
		if err != nil {
			t.Fatal(err)
		}
		end, err := inj.Run()
		if err := errors.Join(err, inj.Close()); err != nil {
			t.Fatal(err)
		}
		f := recorded.Open(t, dir)
		if err := f.Verify(); err != nil {
			t.Fatal(err)
		}
		if want := f.Mark(); end.Step != tr.Step || !reflect.DeepEqual(want, tr.State) {
			t.Errorf("%q: the trial ends at step %d (%v), the recorded run at %d (%s); the same state: %v", specs, tr.Step, tr.Reason, end.Step, end.Reason, reflect.DeepEqual(want, tr.State))
		}
		if out := f.RecordedConsole(); !strings.HasSuffix(string(out), string(tr.Output)) {
			t.Errorf("%q: the trial said %q, the recorded run %q", specs, tr.Output, out)
		}
	}
	if err := g.RunTo(g.End()); err != nil {
		t.Errorf("the golden run after the trials: %v", err)
	}
}

func TestTrialBeforeItsBeginning(t *testing.T) {
	g := golden(t)
	if err := g.Seek(300_000); err != nil {
		t.Fatal(err)
	}
	if _, err := Try(g, parseAll(t, []string{"reg:name=rax,bit=3@step:299999"}), 1000); !errors.Is(err, ErrSpec) {
		t.Errorf("a fault before the trial: %v", err)
	}
}

// TestCampaign: the same seed makes the same trials, on however many players.
func TestCampaign(t *testing.T) {
	tmpl, err := ParseTemplate("reg:name={rax|rbx|rcx|rsp},bit={0..31}@step:{200000..250000}")
	if err != nil {
		t.Fatal(err)
	}
	run := func(players int) map[string]string {
		var ps []*replay.Player
		golden(t)
		for range players {
			ps = append(ps, recorded.Open(t, goldenDir))
		}
		results := map[string]string{}
		c := Campaign{At: 200_000, Steps: 60_000, Faults: []*Template{tmpl}, Count: 24, Seed: 5}
		if err := c.Run(context.Background(), ps, func(i int, fs []*Fault, _, tr *Trial) error {
			results[fmt.Sprint(i, " ", fs)] = fmt.Sprint(tr.Step, tr.Reason, tr.State)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return results
	}
	one, two := run(1), run(2)
	if len(one) != 24 || !reflect.DeepEqual(one, two) {
		t.Errorf("%d trials on one player, %d on two, or other ones", len(one), len(two))
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	c := Campaign{At: 200_000, Steps: 60_000, Faults: []*Template{tmpl}, Count: 1000}
	err = c.Run(ctx, []*replay.Player{recorded.Open(t, goldenDir)}, func(int, []*Fault, *Trial, *Trial) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n > 5 {
		t.Errorf("cancelled in trial 3: %v after %d", err, n)
	}
}

func TestTemplate(t *testing.T) {
	tmpl, err := ParseTemplate("mem:addr={0x1000..0x1fff},bit={0..7}@step:{5e5|600000}")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range 200 {
		text := tmpl.Draw(rand.New(rand.NewPCG(1, uint64(i))))
		f, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if a := f.Args.Uint("addr"); a < 0x1000 || a > 0x1fff {
			t.Errorf("%s: address %#x", text, a)
		}
		_, trigger, _ := strings.Cut(text, "@")
		seen["bit "+f.Args.Text("bit")], seen[trigger] = true, true
	}
	if len(seen) != 8+2 {
		t.Errorf("of 8 bits and 2 steps were drawn: %v", slices.Sorted(func(yield func(string) bool) {
			for s := range seen {
				if !yield(s) {
					return
				}
			}
		}))
	}
	for _, bad := range []string{"mem:addr={1..2,bit=0@step:1", "mem:addr={5..1},bit=0@step:1", "mem:addr={x},bit=0@step:1", "mem:addr={1..y},bit=0@step:1", "gremlin:x={1..2}@step:1"} {
		if _, err := ParseTemplate(bad); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("mem:addr={0x1000..0x1fff},bit={0|7}@step:{5e5..6e5}")
	f.Fuzz(func(t *testing.T, text string) { ParseTemplate(text) })
}

// BenchmarkTrial is a trial of 10^5 steps: what it costs besides its instructions shows.
func BenchmarkTrial(b *testing.B) {
	g := golden(b)
	if err := g.Seek(300_000); err != nil {
		b.Fatal(err)
	}
	fs := parseAll(b, []string{"reg:name=rax,bit=3@step:333333"})
	for b.Loop() {
		if _, err := Try(g, fs, 100_000); err != nil {
			b.Fatal(err)
		}
	}
}
