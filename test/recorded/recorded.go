// Package recorded makes recordings of the tiny guest, for tests.
package recorded

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"refault/replay"
	"refault/test/tiny"
	"refault/vmm"
	"refault/vmm/dev/disk"
)

// Often is for recordings of a million steps or so: they have several marks and snapshots.
var Often = replay.Options{MarkEvery: 50_000, SnapshotEvery: 200_000}

// Setup is the tiny guest, which does rounds of its work.
func Setup(rounds int) *replay.Setup {
	return &replay.Setup{KernelBytes: tiny.Kernel, DiskImages: []disk.Image{tiny.Disk()}, CommandLine: fmt.Sprint(rounds),
		MemoryBytes: tiny.MemoryBytes, Clock: replay.ClockVirtual, Seed: 7, RTCStartUnix: 1_700_000_000}
}

// Make records a run, from its beginning to its end, in which nothing is typed.
func Make(dir string, s *replay.Setup, opt replay.Options) error {
	r, err := replay.NewRecorder(dir, s, func(m *vmm.Machine) vmm.Inputs { return replay.NewLive(m, s.Clock, nil) }, opt)
	if err != nil {
		return err
	}
	_, err = r.Run()
	return errors.Join(err, r.Close())
}

// Golden records rounds of the tiny guest, and returns the recording's directory.
func Golden(t testing.TB, rounds int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "golden.rec")
	if err := Make(dir, Setup(rounds), Often); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Open opens a recording of the tiny guest for as long as the test runs.
func Open(t testing.TB, dir string) *replay.Player {
	t.Helper()
	p, err := replay.Open(dir, tiny.Disk())
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
