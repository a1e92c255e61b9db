package compare

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"refault/injectors"
	"refault/replay"
	"refault/test/recorded"
	"refault/test/tiny"
	"refault/vmm"
	"refault/vmm/dev"
	"refault/vmm/x86"
)

// twiceTheMemory is recorded.Golden of another machine.
func twiceTheMemory(t testing.TB, rounds int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "other.rec")
	s := recorded.Setup(rounds)
	s.MemoryBytes *= 2
	if err := recorded.Make(dir, s, recorded.Often); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inject makes a faulty recording of what golden does with faults.
func inject(t testing.TB, golden string, specs ...string) string {
	t.Helper()
	var faults []*injectors.Fault
	for _, s := range specs {
		f, err := injectors.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		faults = append(faults, f)
	}
	dir := filepath.Join(t.TempDir(), "faulty.rec")
	g := recorded.Open(t, golden)
	i, err := injectors.Inject(g, dir, faults, replay.Options{SnapshotEvery: 200_000, MaxSteps: 2 * g.End()}, tiny.Disk())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Run(); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func diff(t testing.TB, golden, faulty string) *Report {
	t.Helper()
	r, err := Diff(recorded.Open(t, golden), recorded.Open(t, faulty), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// everything is the whole state of a machine, a part a line.
func everything(m *vmm.Machine) []string {
	var s []string
	c := m.CPUs[0]
	for _, r := range x86.Registers() {
		s = append(s, fmt.Sprintf("%s %x", r.Name, r.Read(c)))
	}
	st := c.Save().(*x86.State)
	st.FlagRes, st.FlagAux, st.FlagsLazy = 0, 0, 0
	s = append(s, fmt.Sprintf("other %v %v %v %v %v %v %v %v", st.CPL, st.Activity, st.Shadow, st.NMIBlocked, st.NMIPending, st.MCPending, st.PendingDebug, st.MTRRFixed))
	for _, d := range m.Devices()[1:] {
		s = append(s, fmt.Sprintf("%s %x", d.Name(), dev.Encode(d)))
	}
	return s
}

// slowly finds the first divergence by looking at everything after each instruction.
func slowly(t *testing.T, golden, faulty string, at uint64, limit int) (step uint64, found bool) {
	t.Helper()
	g, f := recorded.Open(t, golden), recorded.Open(t, faulty)
	both := func(do func(p *replay.Player) error) {
		if err := errors.Join(do(g), do(f)); err != nil {
			t.Fatal(err)
		}
	}
	both(func(p *replay.Player) error { return p.Seek(at) })
	both(func(p *replay.Player) error { return p.Accept() })
	ours := map[string]bool{}
	differences := func() (d []string) {
		a, b := everything(g.Machine()), everything(f.Machine())
		for i := range a {
			if a[i] != b[i] {
				// Of a device, that it differs; of the rest, how.
				if name, _, _ := strings.Cut(a[i], " "); len(a[i]) > 200 || strings.HasPrefix(name, "ata") || strings.HasPrefix(name, "mca") {
					d = append(d, name)
				} else {
					d = append(d, a[i]+b[i])
				}
			}
		}
		x, y := g.Machine().RAM.Data(), f.Machine().RAM.Data()
		for i := 0; i < len(x); i += 4096 {
			if bytes.Equal(x[i:i+4096], y[i:i+4096]) {
				continue
			}
			for k := i; k < i+4096; k += 8 {
				if !bytes.Equal(x[k:k+8], y[k:k+8]) {
					d = append(d, fmt.Sprintf("word %x %x %x", k, x[k:k+8], y[k:k+8]))
				}
			}
		}
		return d
	}
	for _, x := range differences() {
		ours[x] = true
	}
	for range limit {
		at := g.Machine().Step()
		if at >= g.End() || at >= f.End() {
			return 0, false
		}
		both(func(p *replay.Player) error { return p.RunTo(at + 1) })
		left := map[string]bool{}
		for _, x := range differences() {
			if !ours[x] {
				return at, true
			}
			left[x] = true
		}
		ours = left
	}
	return 0, false
}

func TestFirstDivergence(t *testing.T) {
	golden := recorded.Golden(t, 20)
	end := recorded.Open(t, golden).End()
	for _, c := range []struct {
		name, fault string
		at          uint64
		outcome     Outcome
		check       func(t *testing.T, r *Report)
	}{
		{"a register that is used soon", "reg:name=rcx,bit=1@step:300001", 300_001, SDC, nil},
		{"a register that is never used", "reg:name=r9,bit=17@step:300001", 300_001, Latent, func(t *testing.T, r *Report) {
			if r.First != nil {
				t.Errorf("diverged: %+v", r.First)
			}
		}},
		{"the instruction pointer", "reg:name=rip,bit=22@step:300001", 300_001, "", func(t *testing.T, r *Report) {
			if r.First == nil || r.First.Step != 300_001 || r.Flow == nil || r.Flow.Step != 300_001 {
				t.Errorf("first %+v, control flow %+v", r.First, r.Flow)
			}
		}},
		{"memory that is read later", "mem:addr=0x210000,bit=5@step:123456", 123_456, Latent, nil},
		{"memory that is never read", "mem:addr=0x3ff000,bit=5@step:123456", 123_456, Latent, func(t *testing.T, r *Report) {
			if r.First != nil || r.Healed != nil || r.Output != nil {
				t.Errorf("diverged: %+v, healed %v, output %+v", r.First, r.Healed, r.Output)
			}
		}},
		{"memory that is overwritten", "mem:addr=0x116010,bit=5@step:200000", 200_000, Masked, func(t *testing.T, r *Report) {
			if r.First != nil || r.Healed == nil {
				t.Errorf("diverged: %+v, healed %v", r.First, r.Healed)
			}
		}},
		{"code", "mem:vaddr=0x100100,mask=0xff@step:50000", 50_000, "", nil},
		{"machine check", "mce:type=srao,addr=0x200000@step:250000", 250_000, "", func(t *testing.T, r *Report) {
			if r.First == nil || r.First.Step != 250_000 || r.First.Faulty.After != "#MC" || r.Flow == nil || r.Flow.Step != 250_000 {
				t.Errorf("first %+v, control flow %+v", r.First, r.Flow)
			}
		}},
		{"unreadable sector", "ata:error=unc,lba=35@step:100000", 100_000, SDC, func(t *testing.T, r *Report) {
			if r.First == nil || r.Disks[0].Equal {
				t.Errorf("first %+v, disks %+v", r.First, r.Disks)
			}
		}},
		{"the last instruction", fmt.Sprintf("reg:name=rax,bit=1@step:%d", end-1), end - 1, SDC, func(t *testing.T, r *Report) {
			if r.First == nil || r.First.Step != end-1 || !strings.HasPrefix(r.First.Faulty.Text, "out") {
				t.Errorf("first %+v", r.First)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty := inject(t, golden, c.fault)
			r := diff(t, golden, faulty)
			if r.Equal || len(r.Injected) != 1 || r.Injected[0].Step != c.at {
				t.Errorf("equal %v, injected %+v", r.Equal, r.Injected)
			}
			if c.outcome != "" && r.Outcome != c.outcome {
				t.Errorf("outcome %s: %s; want %s", r.Outcome, r.Why, c.outcome)
			}
			if c.check != nil {
				c.check(t, r)
			}
			const limit = 3000
			step, found := slowly(t, golden, faulty, c.at, limit)
			switch {
			case r.First != nil && r.First.Step < c.at+limit:
				if !found || step != r.First.Step {
					t.Errorf("diverges at step %d (%+v); looking at every step: %d (%v)", r.First.Step, r.First.Faulty, step, found)
				}
			case found:
				t.Errorf("looking at every step it diverges at %d; found was %+v", step, r.First)
			}
			if r.First != nil {
				t.Logf("step %d: %+v; outcome %s: %s", r.First.Step, r.First.Faulty, r.Outcome, r.Why)
			}
		})
	}
}

func TestDiffOfEqualRuns(t *testing.T) {
	r := diff(t, recorded.Golden(t, 3), recorded.Golden(t, 3))
	if !r.Equal || r.First != nil || r.Outcome != Masked {
		t.Errorf("%+v", r)
	}
}

func TestDiffOfTwoFaults(t *testing.T) {
	golden := recorded.Golden(t, 12)
	// The first is overwritten; the second is used at once.
	r := diff(t, golden, inject(t, golden, "mem:addr=0x116010,bit=5@step:200000", "reg:name=rip,bit=22@step:300001"))
	if len(r.Injected) != 2 || r.First == nil || r.First.Step != 300_001 || r.Healed != nil {
		t.Errorf("%+v, first %+v", r, r.First)
	}
	// The first is never read, and stays its own when the second comes.
	r = diff(t, golden, inject(t, golden, "mem:addr=0x3ff000,bit=5@step:100000", "mem:addr=0x3fe000,bit=5@step:200000"))
	if len(r.Injected) != 2 || r.First != nil || r.Outcome != Latent {
		t.Errorf("%+v, first %+v", r, r.First)
	}
}

func TestDiffOfForksOfForks(t *testing.T) {
	golden := recorded.Golden(t, 12)
	one := inject(t, golden, "mem:addr=0x3ff000,bit=5@step:100000")
	two := inject(t, one, "reg:name=rip,bit=22@step:300001")
	if r := diff(t, one, two); len(r.Injected) != 1 || r.First == nil || r.First.Step != 300_001 {
		t.Errorf("against its parent: %+v, first %+v", r, r.First)
	}
	// The snapshots of two begin after the first fault.
	if r := diff(t, golden, two); len(r.Injected) != 2 || r.First == nil || r.First.Step != 300_001 {
		t.Errorf("against its grandparent: %+v, first %+v", r, r.First)
	}
}

func TestDiffOfDifferentMachines(t *testing.T) {
	_, err := Diff(recorded.Open(t, recorded.Golden(t, 3)), recorded.Open(t, twiceTheMemory(t, 3)), Options{})
	if !errors.Is(err, ErrUnrelated) || !strings.Contains(err.Error(), "memory") {
		t.Errorf("%v", err)
	}
}

// TestAllProcessorStateIsCompared changes each byte of the processor's state: a field that the comparison does not list would go unnoticed.
func TestAllProcessorStateIsCompared(t *testing.T) {
	golden := recorded.Golden(t, 3)
	p := &pair{g: recorded.Open(t, golden), f: recorded.Open(t, golden)}
	if err := p.seek(100_000); err != nil {
		t.Fatal(err)
	}
	if !p.identical() {
		t.Fatal("two replays are not equal")
	}
	a := p.f.Machine().CPUs[0]
	saved := *a.State
	for _, f := range []struct {
		name   string
		change func(s *x86.State)
	}{
		{"CPL", func(s *x86.State) { s.CPL ^= 3 }}, {"Activity", func(s *x86.State) { s.Activity ^= 1 }}, {"Shadow", func(s *x86.State) { s.Shadow ^= 1 }},
		{"MCPending", func(s *x86.State) { s.MCPending = !s.MCPending }}, {"NMIPending", func(s *x86.State) { s.NMIPending = !s.NMIPending }},
		{"NMIBlocked", func(s *x86.State) { s.NMIBlocked = !s.NMIBlocked }}, {"PDPTE", func(s *x86.State) { s.PDPTE[3] ^= 1 }},
		{"MTRRVar", func(s *x86.State) { s.MTRRVar[15] ^= 1 }}, {"MTRRFixed", func(s *x86.State) { s.MTRRFixed[10] ^= 1 }},
		{"PendingDebug", func(s *x86.State) { s.PendingDebug ^= 1 }}, {"FX", func(s *x86.State) { s.FX[170] ^= 1 }}, {"LSTAR", func(s *x86.State) { s.LSTAR ^= 1 }},
		{"TR", func(s *x86.State) { s.Seg[x86.TR].Attr ^= 1 }}, {"CSTAR", func(s *x86.State) { s.CSTAR ^= 1 }},
	} {
		f.change(a.State)
		n := 0
		p.registers(func(string, []byte, []byte) { n++ })
		if n == 0 {
			t.Errorf("a change of %s goes unnoticed", f.name)
		}
		*a.State = saved
	}
}

// Runs of one machine that begin with another command line have no past in common, not even step 0.
func TestOtherCommandLine(t *testing.T) {
	r := diff(t, recorded.Golden(t, 3), recorded.Golden(t, 4))
	if r.Equal || r.First == nil || len(r.Injected) > 0 {
		t.Fatalf("equal %v, first %+v, injected %+v", r.Equal, r.First, r.Injected)
	}
	// The first instruction that made something of it read the command line: long before any output.
	if f := r.First; f.Step == 0 || f.Step > 100_000 || len(f.Registers)+len(f.Words) == 0 {
		t.Errorf("the first divergence is at step %d, in %+v and %+v", f.Step, f.Registers, f.Words)
	}
	if r.Output == nil {
		t.Error("the consoles are equal, with a round more")
	}
}
