package replay

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"refault/test/tiny"
	"refault/vmm"
	"refault/vmm/dev/ata"
	"refault/vmm/dev/disk"
	"refault/vmm/x86/fpu"
)

func tinySetup(rounds int) *Setup {
	return &Setup{KernelBytes: tiny.Kernel, DiskImages: []disk.Image{tiny.Disk()}, CommandLine: fmt.Sprint(rounds),
		MemoryBytes: tiny.MemoryBytes, Clock: ClockVirtual, Seed: 7, RTCStartUnix: 1_700_000_000}
}

// scripted is a world in which things are typed at given steps. It stands
// for the live one, and is no less deterministic than the test wants it to be.
func scripted(typed map[uint64]string) func(m *vmm.Machine) vmm.Inputs {
	return func(*vmm.Machine) vmm.Inputs {
		s := &script{}
		for step, text := range typed {
			s.events = append(s.events, &vmm.Event{Step: step, Kind: vmm.EventConsole, Data: []byte(text)})
		}
		slices.SortFunc(s.events, func(a, b *vmm.Event) int { return int(a.Step) - int(b.Step) })
		return s
	}
}

var typing = map[uint64]string{50_000: "hello", 200_001: "a", 200_002: "bc", 333_333: "world"}

// record makes a recording of the tiny guest and returns its directory.
func record(t testing.TB, rounds int, opt Options) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "golden.rec")
	r, err := NewRecorder(dir, tinySetup(rounds), scripted(typing), opt)
	if err != nil {
		t.Fatal(err)
	}
	end, err := r.Run()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if end.Reason != vmm.DebugExit.String() || end.Status != tiny.ExitStatus {
		t.Fatalf("the guest ended with %+v", end)
	}
	return dir
}

func openPlayer(t testing.TB, dir string) *Player {
	t.Helper()
	p, err := Open(dir, tiny.Disk())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// timeline is what two equal runs have in common: every mark and the console.
func timeline(p *Player) string {
	var b strings.Builder
	for _, m := range p.Marks() {
		fmt.Fprintln(&b, m)
	}
	b.Write(p.RecordedConsole())
	return b.String()
}

var often = Options{MarkEvery: 10_000, SnapshotEvery: 70_000}

func TestVerifyUnderOtherSchedulersAndCollectors(t *testing.T) {
	dir := record(t, 20, often)
	for _, procs := range []int{1, 2} {
		for _, gc := range []int{10, -1} {
			t.Run(fmt.Sprintf("GOMAXPROCS=%d,GOGC=%d", procs, gc), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				defer debug.SetGCPercent(debug.SetGCPercent(gc))
				p := openPlayer(t, dir)
				if err := p.Verify(); err != nil {
					t.Error(err)
				}
				if !p.Complete() || p.compared != len(p.marks) {
					t.Errorf("compared %d of %d marks", p.compared, len(p.marks))
				}
				again := openPlayer(t, record(t, 20, often))
				if timeline(again) != timeline(p) {
					t.Error("recording once more gave another timeline")
				}
			})
		}
	}
}

func TestSnapshotsDoNotChangeTheRun(t *testing.T) {
	want := timeline(openPlayer(t, record(t, 20, Options{MarkEvery: 10_000})))
	for _, every := range []uint64{9_999, 70_000, 123_456} {
		p := openPlayer(t, record(t, 20, Options{MarkEvery: 10_000, SnapshotEvery: every}))
		if timeline(p) != want {
			t.Errorf("snapshots every %d steps: another timeline than without", every)
		}
		if n := len(p.Snapshots().Steps()); n < 5 {
			t.Errorf("snapshots every %d steps: only %d", every, n)
		}
	}
}

func TestReplayFromEverySnapshot(t *testing.T) {
	p := openPlayer(t, record(t, 20, Options{MarkEvery: 10_000, SnapshotEvery: 33_333}))
	// Backwards too, so that what a restore leaves behind is not what the next one needs.
	order := make([]int, 0, 2*len(p.Snapshots().Steps()))
	for i := range p.Snapshots().Steps() {
		order = append(order, i)
	}
	for i := range p.Snapshots().Steps() {
		order = append(order, len(p.Snapshots().Steps())-1-i)
	}
	for _, i := range order {
		if err := p.restore(i); err != nil {
			t.Fatal(err)
		}
		if err := p.RunTo(p.End()); err != nil {
			t.Errorf("from snapshot %d, at step %d: %v", i, p.Snapshots().Steps()[i], err)
		}
		if p.compared != len(p.marks) {
			t.Errorf("from snapshot %d: compared up to mark %d of %d", i, p.compared, len(p.marks))
		}
	}
}

func TestStridesDoNotChangeTheRun(t *testing.T) {
	p := openPlayer(t, record(t, 12, often))
	for _, stride := range []uint64{1, 3, 97, 1009, 65_537} {
		if err := p.Seek(0); err != nil {
			t.Fatal(err)
		}
		for at := stride; ; at += stride {
			if stride < 90 && at > 60_000 {
				break // single steps are slow
			}
			if err := p.RunTo(min(at, p.End())); err != nil {
				t.Fatalf("strides of %d: %v", stride, err)
			}
			if at >= p.End() {
				break
			}
		}
	}
}

func TestSeekGoesEverywhere(t *testing.T) {
	p := openPlayer(t, record(t, 12, often))
	ref := openPlayer(t, p.Dir)
	if err := ref.Seek(0); err != nil {
		t.Fatal(err)
	}
	hashes := map[uint64]string{}
	steps := []uint64{0, 1, 50_000, 50_001, 69_999, 70_000, 70_001, 200_001, 200_002, 200_003, p.End() - 1, p.End()}
	for _, s := range steps {
		if err := ref.RunTo(s); err != nil {
			t.Fatal(err)
		}
		hashes[s] = fmt.Sprint(ref.track.mark())
	}
	for i := range steps {
		s := steps[(i*5)%len(steps)] // to and fro
		if err := p.Seek(s); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(p.track.mark()); got != hashes[s] {
			t.Errorf("at step %d: %s, when played from the start %s", s, got, hashes[s])
		}
	}
}

func TestAnyEngineMakesTheSameRecording(t *testing.T) {
	want := ""
	engines := []vmm.Engine{vmm.EngineInterp}
	if runtime.GOARCH == "amd64" {
		engines = append(engines, vmm.EngineJIT)
	}
	for _, e := range engines {
		s := tinySetup(20)
		s.Engine = e
		dir := filepath.Join(t.TempDir(), "golden.rec")
		r, err := NewRecorder(dir, s, scripted(typing), often)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Run(); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		p := openPlayer(t, dir)
		if want == "" {
			want = timeline(p)
		} else if timeline(p) != want {
			t.Errorf("engine %s records another timeline", e)
		}
		for _, other := range engines {
			if err := p.Machine().SetEngine(other); err != nil {
				t.Fatal(err)
			}
			if err := p.Verify(); err != nil {
				t.Errorf("recorded by engine %s, replayed by %s: %v", e, other, err)
			}
		}
	}
}

// A recording moves to hosts that compute floating point in software.
func TestSoftwareFloatingPointReplaysTheSame(t *testing.T) {
	p := openPlayer(t, record(t, 20, often))
	if err := p.Machine().SetEngine(vmm.EngineInterp); err != nil {
		t.Fatal(err)
	}
	c := p.Machine().CPUs[0]
	if err := c.FPU.Close(); err != nil {
		t.Fatal(err)
	}
	c.FPU = fpu.NewSoftware()
	if err := p.Verify(); err != nil {
		t.Error(err)
	}
}

func TestTwoMachinesInOneProcess(t *testing.T) {
	dir := record(t, 20, often)
	var wg sync.WaitGroup
	for range 2 {
		p := openPlayer(t, dir)
		wg.Go(func() {
			if err := p.Verify(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// planned puts faults in front of other inputs, each at the position in it. (Package
// injectors does this by description; it stands above this one.)
type planned struct {
	vmm.Inputs
	faults []*vmm.Event
}

func (p *planned) Take(step, timeNs uint64) *vmm.Event {
	if len(p.faults) > 0 && p.faults[0].Step <= step {
		e := p.faults[0]
		p.faults = p.faults[1:]
		return e
	}
	return p.Inputs.Take(step, timeNs)
}

func (p *planned) Horizon(step uint64) uint64 {
	h := p.Inputs.Horizon(step)
	if len(p.faults) > 0 {
		h = min(h, max(p.faults[0].Step, step+1))
	}
	return h
}

func fault(step uint64, f vmm.Fault) *vmm.Event {
	return &vmm.Event{Step: step, Kind: vmm.EventFault, Fault: &f}
}

// forked makes a faulty recording of what golden does with faults, which are in order.
func forked(t testing.TB, golden string, opt Options, faults ...*vmm.Event) string {
	t.Helper()
	p := openPlayer(t, golden)
	dir := filepath.Join(t.TempDir(), "faulty.rec")
	opt.MaxSteps = 2 * p.End()
	r, err := Fork(p, dir, faults[0].Step, func(_ *vmm.Machine, next vmm.Inputs) vmm.Inputs {
		return &planned{next, faults}
	}, []string{"as the test says"}, opt, tiny.Disk())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFaultyRunsAreRecordings(t *testing.T) {
	golden := record(t, 20, often)
	srao := vmm.Fault{Kind: vmm.FaultMCE, Bank: 9, Status: 0xbd000000000000c0, MCGStatus: 5, Addr: 0x200000, Misc: 0x8c}
	memory := vmm.Fault{Kind: vmm.FaultMemory, Addr: 0x210ff8, Mask: []byte{8, 0, 0, 0, 0, 0, 0, 0, 0, 1}}
	unc := vmm.Fault{Kind: vmm.FaultDisk, Disk: ata.Fault{ID: 1, Kind: ata.FaultUNC, Ops: ata.OpRead, LBA: 35, Count: 1}}
	for name, faults := range map[string][]*vmm.Event{
		"memory":       {fault(123_456, memory)},
		"register":     {fault(300_001, vmm.Fault{Kind: vmm.FaultRegister, Register: "rcx", Mask: []byte{0, 0, 2}})},
		"rip":          {fault(300_001, vmm.Fault{Kind: vmm.FaultRegister, Register: "rip", Mask: []byte{0, 0, 0, 64}})},
		"unc":          {fault(100_000, unc)},
		"dropped":      {fault(0, vmm.Fault{Kind: vmm.FaultDisk, Disk: ata.Fault{ID: 1, Kind: ata.FaultDropped, Ops: ata.OpWrite, Count: 256}})},
		"mce":          {fault(250_000, srao)},
		"at once":      {fault(250_000, srao), fault(250_000, memory), fault(400_000, unc)},
		"at the end":   {fault(vmm.Never, memory)},
		"in the start": {fault(0, memory)},
	} {
		t.Run(name, func(t *testing.T) {
			g := openPlayer(t, golden)
			n := len(faults)
			if faults[0].Step == vmm.Never {
				faults[0].Step = g.End()
				n = 0 // the machine stops there and looks at nothing any more
			}
			p := openPlayer(t, forked(t, golden, often, faults...))
			for _, e := range p.Events() {
				if e.Kind == vmm.EventFault {
					n--
				}
			}
			if n != 0 {
				t.Errorf("%d faults too few in the log", n)
			}
			for range 2 {
				if err := p.Verify(); err != nil {
					t.Error(err)
				}
			}
			if name != "at the end" && timeline(g) == timeline(p) {
				t.Error("the faulty run is the golden one")
			}
			// And a fork of the fork, without another fault, is the fork.
			mid := p.Snapshots().Steps()[len(p.Snapshots().Steps())/2]
			again := filepath.Join(t.TempDir(), "again.rec")
			r, err := Fork(p, again, mid, func(_ *vmm.Machine, next vmm.Inputs) vmm.Inputs { return next }, nil,
				Options{SnapshotEvery: often.SnapshotEvery, MaxSteps: p.End()}, tiny.Disk())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Run(); err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			q := openPlayer(t, again)
			if err := q.Verify(); err != nil {
				t.Error(err)
			}
			if !strings.Contains(timeline(q), fmt.Sprint(*p.last())) {
				t.Errorf("the fork of the fork ends as %v, the fork as %v", *q.last(), *p.last())
			}
		})
	}
}

func TestStepBeyondTheEnd(t *testing.T) {
	p := openPlayer(t, record(t, 3, often))
	if err := p.Seek(p.End() + 1); !errors.Is(err, ErrBeyond) || !strings.Contains(err.Error(), fmt.Sprint(p.End())) {
		t.Errorf("Seek beyond the end: %v", err)
	}
}
