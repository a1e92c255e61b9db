package injectors

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"refault/replay"
	"refault/test/recorded"
	"refault/test/tiny"
	"refault/vmm"
	"refault/vmm/dev/disk"
)

// Addresses in the tiny guest.
var (
	tinyRound   = tiny.Symbol("round")
	tinySources = tiny.Symbol("sources") // RDTSC
	tinyTimer   = tiny.Symbol("timer")
	tinyFault   = tiny.Symbol("page_fault")
	tinyDone    = tiny.Symbol("done")
	tinyTicks   = tiny.Symbol("ticks")
)

const tinyRounds = 24

var (
	goldenOnce sync.Once
	goldenDir  string
	goldenErr  error
)

func TestMain(m *testing.M) {
	status := m.Run()
	if goldenDir != "" {
		os.RemoveAll(filepath.Dir(goldenDir))
	}
	os.Exit(status)
}

var often = replay.Options{MarkEvery: 20_000, SnapshotEvery: 200_000}

// golden opens a recording of the tiny guest.
func golden(t testing.TB) *replay.Player {
	t.Helper()
	goldenOnce.Do(func() {
		dir, err := os.MkdirTemp("", "refault-golden-")
		if err != nil {
			goldenErr = err
			return
		}
		goldenDir = filepath.Join(dir, "golden.rec")
		goldenErr = recorded.Make(goldenDir, recorded.Setup(tinyRounds), often)
	})
	if goldenErr != nil {
		t.Fatal(goldenErr)
	}
	return recorded.Open(t, goldenDir)
}

// symbols of the tiny guest, as specs of tests write them.
var tinySymbols = strings.NewReplacer("$round", fmt.Sprint(tinyRound), "$sources", fmt.Sprint(tinySources), "$done", fmt.Sprint(tinyDone), "$ticks", fmt.Sprint(tinyTicks))

func parseAll(t testing.TB, specs []string) []*Fault {
	t.Helper()
	var fs []*Fault
	for _, s := range specs {
		f, err := Parse(tinySymbols.Replace(s))
		if err != nil {
			t.Fatal(err)
		}
		fs = append(fs, f)
	}
	return fs
}

// outcome is a faulty run that has been replayed twice without the injector.
type outcome struct {
	*replay.Player
	reason  string
	faults  []*vmm.Event
	waiting []Waiting
	notices []vmm.Notice
}

func (o *outcome) said() string { return strings.ReplaceAll(string(o.RecordedConsole()), "\r\n", "\n") }

// inject makes a faulty run and holds its recording to replay, from its beginning and from the middle.
func inject(t testing.TB, specs ...string) *outcome {
	t.Helper()
	return injectFaults(t, parseAll(t, specs)...)
}

func injectFaults(t testing.TB, faults ...*Fault) *outcome {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "faulty.rec")
	opt := often
	opt.MaxSteps = 1_600_000
	inj, err := Inject(golden(t), dir, faults, opt, tiny.Disk())
	if err != nil {
		t.Fatal(err)
	}
	end, err := inj.Run()
	o := &outcome{waiting: inj.Waiting(), notices: inj.Notices()}
	if err := errors.Join(err, inj.Close()); err != nil {
		t.Fatal(err)
	}
	o.reason = end.Reason
	o.Player = recorded.Open(t, dir)
	for _, e := range o.Events() {
		if e.Kind == vmm.EventFault {
			o.faults = append(o.faults, e)
		}
	}
	if err := o.Verify(); err != nil {
		t.Fatalf("%v: replay: %v", faults, err)
	}
	again := recorded.Open(t, dir)
	if err := again.Seek((again.Start() + again.End()) / 2); err != nil {
		t.Fatalf("%v: seek: %v", faults, err)
	}
	if err := again.RunTo(again.End()); err != nil {
		t.Fatalf("%v: replay from the middle: %v", faults, err)
	}
	return o
}

func tinyDisk() disk.Image { return tiny.Disk() }
