package replay

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"refault/test/tiny"
	"refault/traces"
)

var recordingFiles = []string{traces.FileFormat, traces.FileManifest, traces.FileEvents, traces.FileMarks, traces.FilePages, traces.FileSnapshots, traces.FileConsole}

// withFile returns a copy of a recording in which one file has other content.
func withFile(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	to := t.TempDir()
	for _, f := range recordingFiles {
		if f == name {
			continue
		}
		if err := os.Symlink(filepath.Join(dir, f), filepath.Join(to, f)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(to, name), content, 0o666); err != nil {
		t.Fatal(err)
	}
	return to
}

// play opens and verifies a recording, from its start and from its last snapshot. It
// returns how far it went.
func play(t testing.TB, dir string) (end uint64, complete bool, err error) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p, err := Open(dir, tiny.Disk())
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 100<<20 {
		t.Errorf("opening %s took %d MiB", dir, used>>20)
	}
	if err != nil {
		return 0, false, err
	}
	defer p.Close()
	if err := p.restore(p.snaps.Before(p.End())); err != nil {
		return 0, false, err
	}
	return p.End(), p.Complete(), p.Verify()
}

// sample returns about n offsets of a file of size bytes: the first and last ones, and some between.
func sample(size, n int) (at []int) {
	for i := range size {
		if i < n/4 || i >= size-n/4 || i%(size/n+1) == 0 {
			at = append(at, i)
		}
	}
	return at
}

func samples() int {
	if testing.Short() {
		return 8
	}
	return 24
}

func TestRecordingCutOffAnywhere(t *testing.T) {
	dir := record(t, 2, Options{MarkEvery: 10_000, SnapshotEvery: 30_000})
	whole := openPlayer(t, dir)
	for _, name := range recordingFiles {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		for _, at := range sample(len(content), samples()) {
			end, complete, err := play(t, withFile(t, dir, name, content[:at]))
			var d *Divergence
			switch {
			case err == nil:
				if end < last || end > whole.End() || complete != (end == whole.End()) {
					t.Errorf("%s cut at byte %d: it ends at step %d, complete %v; cut before, at step %d", name, at, end, complete, last)
				}
				last = end
			case errors.As(err, &d) || last != 0:
				t.Errorf("%s cut at byte %d: %v", name, at, err)
			case !errors.Is(err, traces.ErrEmpty) && !errors.Is(err, traces.ErrDamaged) && !errors.Is(err, traces.ErrNotRecording),
				strings.Contains(err.Error(), "\n"), !strings.Contains(err.Error(), "recording "):
				t.Errorf("%s cut at byte %d: %v", name, at, err)
			}
		}
		t.Logf("%s: %d bytes", name, len(content))
	}
}

func TestRecordingWithAFlippedBit(t *testing.T) {
	dir := record(t, 2, Options{MarkEvery: 10_000, SnapshotEvery: 30_000})
	for _, name := range recordingFiles {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for i, at := range sample(len(content), samples()) {
			bad := bytes.Clone(content)
			bad[at] ^= 1 << (i % 8)
			_, _, err := play(t, withFile(t, dir, name, bad))
			if err == nil && name == traces.FileManifest {
				continue // the case of a letter, or white space
			}
			if !errors.Is(err, traces.ErrDamaged) && !errors.Is(err, traces.ErrNotRecording) && !errors.Is(err, traces.ErrFormat) ||
				!strings.Contains(err.Error(), name) && !errors.Is(err, traces.ErrFormat) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, byte %d, bit %d: %v", name, at, i%8, err)
			}
		}
	}
}

func TestMissingFile(t *testing.T) {
	dir := record(t, 1, often)
	for _, name := range recordingFiles {
		bad := withFile(t, dir, name, nil)
		if err := os.Remove(filepath.Join(bad, name)); err != nil {
			t.Fatal(err)
		}
		_, _, err := play(t, bad)
		if !errors.Is(err, traces.ErrEmpty) && !errors.Is(err, traces.ErrNotRecording) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestFilesOfTwoRecordings(t *testing.T) {
	// Every file is whole, and they do not belong together: nothing of it may pass for a recording.
	dir := record(t, 2, often)
	other := filepath.Join(t.TempDir(), "other.rec")
	s := tinySetup(2)
	s.Seed = 8
	r, err := NewRecorder(other, s, scripted(map[uint64]string{1000: "xyz"}), often)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{traces.FileManifest, traces.FileEvents, traces.FileMarks, traces.FilePages, traces.FileSnapshots, traces.FileConsole} {
		content, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := play(t, withFile(t, dir, name, content)); err == nil && name != traces.FileManifest {
			t.Errorf("with %s of another recording: equal", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestManyBlocksDoNotMatterToWhoOpens(t *testing.T) {
	dir := record(t, 2, Options{MarkEvery: 500, SnapshotEvery: 5_000})
	if end, complete, err := play(t, dir); err != nil || !complete {
		t.Errorf("%v; it ends at step %d", err, end)
	}
}
