package compare

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"refault/test/recorded"
	"refault/vmm"
	"refault/vmm/dev/disk"
)

func propagation(t testing.TB, golden, faulty string, n int) *Curve {
	t.Helper()
	c, err := Propagation(recorded.Open(t, golden), recorded.Open(t, faulty), n, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPropagationCounts compares each point with both machines there, found on its own, and looked at bit by bit.
func TestPropagationCounts(t *testing.T) {
	golden := recorded.Golden(t, 12)
	for _, fault := range []string{"reg:name=rcx,bit=1@step:200001", "mem:addr=0x210000,bit=5@step:250000", "reg:name=rsp,bit=4@step:300000"} {
		t.Run(fault, func(t *testing.T) {
			faulty := inject(t, golden, fault)
			c := propagation(t, golden, faulty, 24)
			if len(c.Points) < 20 || c.Points[0].Step != c.FaultStep || c.Points[len(c.Points)-1].Step != c.EndStep {
				t.Fatalf("%d points from %d to %d", len(c.Points), c.FaultStep, c.EndStep)
			}
			if p := c.Points[0]; p.Registers+p.Words != 1 || !p.SamePlace {
				t.Errorf("at the fault: %+v", p)
			}
			for _, p := range c.Points[1:] {
				g, f := recorded.Open(t, golden), recorded.Open(t, faulty)
				if err := errors.Join(g.Seek(p.Step), f.Seek(p.Step)); err != nil {
					t.Fatal(err)
				}
				words, pages := 0, map[int]bool{}
				x, y := g.Machine().RAM.Data(), f.Machine().RAM.Data()
				for i := 0; i < len(x); i += 8 {
					if string(x[i:i+8]) != string(y[i:i+8]) {
						words++
						pages[i>>12] = true
					}
				}
				devices := 0
				a, b := everything(g.Machine()), everything(f.Machine())
				skip := len(a) - len(g.Machine().Devices()) + 1
				for i := skip; i < len(a); i++ {
					if a[i] != b[i] && !strings.HasPrefix(a[i], "disk") {
						devices++
					}
				}
				sectors := 0
				u, v := contentOf(t, g.Machine()), contentOf(t, f.Machine())
				for i := 0; i < len(u); i += disk.SectorSize {
					if string(u[i:i+disk.SectorSize]) != string(v[i:i+disk.SectorSize]) {
						sectors++
					}
				}
				registers := 0
				for i := range skip - 1 {
					if a[i] != b[i] {
						registers++
					}
				}
				if p.Words != words || p.Pages != len(pages) || p.Devices != devices || p.Sectors != sectors || p.Registers < registers || registers == 0 && p.Registers > 2 {
					t.Errorf("step %d: %+v; want %d registers, %d words, %d pages, %d devices, %d sectors", p.Step, p, registers, words, len(pages), devices, sectors)
				}
			}
		})
	}
}

func contentOf(t *testing.T, m *vmm.Machine) []byte {
	t.Helper()
	for _, d := range m.Devices() {
		if d, ok := d.(*disk.Disk); ok {
			b := make([]byte, d.Sectors()*disk.SectorSize)
			if err := d.ReadSectors(b, 0); err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatal("no disk")
	return nil
}

// TestPropagationSplit: both are at one place right before it, and not at it, and at one place at every point before.
func TestPropagationSplit(t *testing.T) {
	golden := recorded.Golden(t, 12)
	for _, fault := range []string{"reg:name=rcx,bit=1@step:200001", "reg:name=rsp,bit=4@step:300000"} {
		t.Run(fault, func(t *testing.T) {
			faulty := inject(t, golden, fault)
			c := propagation(t, golden, faulty, 16)
			if c.SplitStep == nil {
				t.Fatalf("no split: %+v", c)
			}
			p := &pair{g: recorded.Open(t, golden), f: recorded.Open(t, faulty), end: c.EndStep}
			for _, x := range []struct {
				step uint64
				same bool
			}{{*c.SplitStep - 1, true}, {*c.SplitStep, false}} {
				if err := p.seek(x.step); err != nil {
					t.Fatal(err)
				}
				if p.samePlace() != x.same {
					t.Errorf("step %d, with the split at %d: same place: %v", x.step, *c.SplitStep, !x.same)
				}
			}
			if !slices.ContainsFunc(c.Points, func(q Point) bool { return q.Step == *c.SplitStep && !q.SamePlace }) {
				t.Errorf("no point at the split at %d: %+v", *c.SplitStep, c.Points)
			}
			for i, q := range c.Points {
				if i > 0 && q.Step <= c.Points[i-1].Step {
					t.Errorf("step %d after %d", q.Step, c.Points[i-1].Step)
				}
				if q.Step < *c.SplitStep && !q.SamePlace {
					t.Errorf("step %d: another place, before the split at %d", q.Step, *c.SplitStep)
				}
			}
		})
	}
}

// TestPropagationOfWhatIsOverwritten: the differences go, the rest is flat, and a second fault makes new ones.
func TestPropagationOfWhatIsOverwritten(t *testing.T) {
	golden := recorded.Golden(t, 12)
	one := propagation(t, golden, inject(t, golden, "mem:addr=0x3f0000,bit=1@step:200000"), 16)
	for _, p := range one.Points {
		if p.Words != 1 || p.Pages != 1 || p.Registers != 0 || p.Devices != 0 || !p.SamePlace {
			t.Errorf("a word that nobody reads: %+v", p)
		}
	}
	if one.SplitStep != nil {
		t.Errorf("split at %d", *one.SplitStep)
	}
	// The same bit flipped back: equal in between the end of the second and the third.
	many := propagation(t, golden, inject(t, golden, "mem:addr=0x3f0000,bit=1@step:200000", "mem:addr=0x3f0000,bit=1@step:250000", "mem:addr=0x3f0008,bit=1@step:300000"), 16)
	var at []uint64
	for _, p := range many.Points {
		want := 1
		if p.Step >= 250_000 && p.Step < 300_000 {
			want = 0
		}
		if p.Words != want || p.Equal() != (want == 0) {
			t.Errorf("step %d: %d words, want %d", p.Step, p.Words, want)
		}
		at = append(at, p.Step)
	}
	for _, s := range []uint64{200_000, 250_000, 300_000} {
		if !slices.Contains(at, s) {
			t.Errorf("no point at the fault of step %d: %v", s, at)
		}
	}
}

func TestPropagationOfEqualRuns(t *testing.T) {
	golden := recorded.Golden(t, 3)
	c := propagation(t, golden, golden, 8)
	if len(c.Points) != 1 || !c.Points[0].Equal() || c.FaultStep != c.EndStep {
		t.Errorf("%+v", c)
	}
}

func TestPropagationTwiceIsTheSame(t *testing.T) {
	golden := recorded.Golden(t, 6)
	faulty := inject(t, golden, "reg:name=rsp,bit=4@step:150000")
	g, f := recorded.Open(t, golden), recorded.Open(t, faulty)
	var c [2]*Curve
	for i := range c {
		var err error
		if c[i], err = Propagation(g, f, 12, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(c[0], c[1]) {
		t.Errorf("%+v\n%+v", c[0], c[1])
	}
}

func TestPropagationRefuses(t *testing.T) {
	golden := recorded.Golden(t, 3)
	other := twiceTheMemory(t, 3)
	for _, n := range []int{-1, 0, 1, MaxPoints + 1} {
		if _, err := Propagation(recorded.Open(t, golden), recorded.Open(t, golden), n, Options{}); !errors.Is(err, ErrPoints) {
			t.Errorf("%d points: %v", n, err)
		}
	}
	if _, err := Propagation(recorded.Open(t, golden), recorded.Open(t, other), 8, Options{}); !errors.Is(err, ErrUnrelated) {
		t.Errorf("other machine: %v", err)
	}
}

func TestPointsAt(t *testing.T) {
	for _, c := range []struct{ first, last, n uint64 }{{0, 0, 2}, {5, 5, 64}, {5, 6, 2}, {0, 3, 64}, {100, 1_000_000_100, 64}, {0, 1 << 40, 2}, {1 << 40, 1<<40 + 1000, 1000}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			at := pointsAt(c.first, c.last, []uint64{c.first, c.last + 1}, int(c.n))
			if at[0] != c.first || at[len(at)-1] != c.last || uint64(len(at)) > c.n+2 {
				t.Errorf("%d: %v", len(at), at)
			}
			for i := 1; i < len(at); i++ {
				if at[i] <= at[i-1] {
					t.Errorf("%v", at)
				}
			}
			if length := c.last - c.first; length > 100*c.n && uint64(len(at)) < c.n*3/4 {
				t.Errorf("only %d points", len(at))
			}
			if c.last > c.first+1 && c.n > 2 && at[1] != c.first+1 {
				t.Errorf("the second is %d", at[1])
			}
		})
	}
}
