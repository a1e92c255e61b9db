package replay

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"refault/test/tiny"
	"refault/traces"
	"refault/vmm"
)

var update = flag.Bool("update", false, "record the sample of the current format anew")

func sampleDir(version int) string { return filepath.Join("testdata", fmt.Sprint("v", version)) }

// recordSample makes a recording that has something of everything: typed input, clock
// corrections, the power button, faults, and a past that it shares with its parent.
func recordSample(t *testing.T, dir string) {
	t.Helper()
	golden := filepath.Join(t.TempDir(), "golden.rec")
	opt := Options{MarkEvery: 10_000, SnapshotEvery: 20_000}
	r, err := NewRecorder(golden, tinySetup(1), func(*vmm.Machine) vmm.Inputs {
		return &script{events: []*vmm.Event{
			{Step: 9_000, Kind: vmm.EventConsole, Data: []byte("hello")},
			{Step: 15_000, Kind: vmm.EventClock, DeltaNs: 12_345},
			{Step: 16_000, Kind: vmm.EventPower},
			{Step: 39_000, Kind: vmm.EventConsole, Data: []byte("x")},
		}}
	}, opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	faulty := forked(t, golden, opt, fault(25_000, vmm.Fault{Kind: vmm.FaultMemory, Spec: "mem:addr=0x2ff000,bit=3@step:25000", Addr: 0x2ff000, Mask: []byte{8}}),
		fault(25_000, vmm.Fault{Kind: vmm.FaultMCE, Spec: "mce:type=srao,addr=0x200000@step:25000", Bank: 9, Status: 0xbd000000000000c0, MCGStatus: 5, Addr: 0x200000, Misc: 0x8c}))
	man, err := traces.ReadManifest(faulty)
	if err != nil {
		t.Fatal(err)
	}
	man.Parent = "golden.rec" // not where it happened to be
	if err := errors.Join(traces.WriteManifest(faulty, man), os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(faulty))); err != nil {
		t.Fatal(err)
	}
}

// ifMeant tells whoever changed something what that takes.
const ifMeant = `If that is meant, old recordings have to be refused by name: a format that changed (also a field of an event,
a fault or a snapshot) gets another number, traces.FormatVersion; a machine that does something else, or whose
devices have other states, another name, vmm.Model or x86.CPUModel. Then: go test ./replay -run Frozen -update
(Before the first release the last alone will do.)`

func TestFrozenSamples(t *testing.T) {
	if *update {
		recordSample(t, sampleDir(traces.FormatVersion))
	}
	for v := 1; v <= traces.FormatVersion; v++ {
		dir := sampleDir(v)
		p, err := Open(dir, tiny.Disk())
		if errors.Is(err, traces.ErrFormat) && v < traces.FormatVersion {
			t.Logf("refused by name: %v", err)
			continue
		}
		if err != nil {
			t.Errorf("format %d: %v\n%s", v, err, ifMeant)
			continue
		}
		defer p.Close()
		if err := p.Verify(); err != nil {
			t.Errorf("format %d: %v\n%s", v, err, ifMeant)
		}
		if !p.Complete() || len(p.Events()) != 6 || len(p.Snapshots().Steps()) < 2 || p.Manifest.Parent != "golden.rec" {
			t.Errorf("format %d: %d events, %d snapshots, complete %v, parent %q", v, len(p.Events()), len(p.Snapshots().Steps()), p.Complete(), p.Manifest.Parent)
		}
	}
}
