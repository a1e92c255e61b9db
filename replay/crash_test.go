package replay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"refault/test/tiny"
	"refault/traces"
)

// TestMain lets the test binary be a recorder that a test can kill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("REFAULT_TEST_RECORD"); dir != "" {
		os.Exit(childRecorder(dir, os.Getenv("REFAULT_TEST_FILE_MAX")))
	}
	os.Exit(m.Run())
}

// childRecorder records the tiny guest. A limit on the size of files is set when it has begun.
func childRecorder(dir, fileMax string) int {
	signal.Ignore(unix.SIGXFSZ)
	limit := func() error {
		if fileMax == "" {
			return nil
		}
		n, err := strconv.ParseUint(fileMax, 10, 64)
		return errors.Join(err, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}))
	}
	r, err := NewRecorder(dir, tinySetup(400), scripted(typing), Options{MarkEvery: 20_000, SnapshotEvery: 300_000})
	if err == nil {
		fmt.Println("recording")
		err = limit()
	}
	if err == nil {
		_, err = r.Run()
	}
	if r != nil {
		if e := r.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("and when closing: %w", e))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func startChild(t *testing.T, dir string, env ...string) (*exec.Cmd, *strings.Builder, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "REFAULT_TEST_RECORD="+dir), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &stderr, bufio.NewReader(out)
}

func TestKilledRecorderLeavesARecording(t *testing.T) {
	whole := uint64(0)
	n := 24
	if testing.Short() {
		n = 8
	}
	for i := range n {
		dir := filepath.Join(t.TempDir(), "killed.rec")
		cmd, _, out := startChild(t, dir)
		begun := i%4 != 0
		if begun {
			if line, err := out.ReadString('\n'); err != nil {
				t.Fatalf("the recorder said %q, %v", line, err)
			}
		}
		// However fast it is: when it has written so much, or at an odd moment.
		start := time.Now()
		for marks := int64(0); begun && marks < int64(i*i*60) && time.Since(start) < 20*time.Second; time.Sleep(200 * time.Microsecond) {
			if st, err := os.Stat(filepath.Join(dir, traces.FileMarks)); err == nil {
				marks = st.Size()
			}
		}
		time.Sleep(time.Duration(i*37%11) * 150 * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		p, err := Open(dir, tiny.Disk())
		if err != nil {
			if !errors.Is(err, traces.ErrEmpty) && !errors.Is(err, traces.ErrNotRecording) && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("killed at moment %d: %v", i, err)
			}
			continue
		}
		if err := p.Verify(); err != nil {
			t.Errorf("killed at moment %d, after step %d: %v", i, p.End(), err)
		}
		whole = max(whole, p.End())
		t.Logf("killed at moment %d: it ends at step %d, %d snapshots, complete %v", i, p.End(), len(p.Snapshots().Steps()), p.Complete())
		p.Close()
	}
	if whole == 0 {
		t.Error("no recording had anything in it")
	}
}

// checkFull checks what is left of a recording whose disk became full.
func checkFull(t *testing.T, what, dir, message string) {
	t.Helper()
	if strings.Count(message, "\n") != 1 || !strings.Contains(message, "writ") || !strings.Contains(message, dir) || !strings.HasPrefix(message, "the recording ends at step ") {
		t.Errorf("%s: the recorder said %q", what, message)
	}
	p, err := Open(dir, tiny.Disk())
	if errors.Is(err, traces.ErrEmpty) {
		t.Logf("%s: %v", what, err)
		return
	} else if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer p.Close()
	if err := p.Verify(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if p.Complete() {
		t.Errorf("%s: the recording is complete", what)
	}
	t.Logf("%s: it ends at step %d, %d snapshots; %s", what, p.End(), len(p.Snapshots().Steps()), strings.TrimSpace(message))
}

func TestFileTooLargeEndsTheRecording(t *testing.T) {
	for _, limit := range []int{1, 100, 2_000, 20_000, 60_000, 150_000, 400_000} {
		dir := filepath.Join(t.TempDir(), "full.rec")
		cmd, stderr, out := startChild(t, dir, fmt.Sprint("REFAULT_TEST_FILE_MAX=", limit))
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err == nil {
			t.Errorf("files of up to %d bytes: the recorder ended well", limit)
			continue
		}
		checkFull(t, fmt.Sprintf("files of up to %d bytes", limit), dir, stderr.String())
	}
}

func TestFullDiskEndsTheRecording(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=200k"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	dir := filepath.Join(disk, "full.rec")
	cmd, stderr, out := startChild(t, dir)
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); err == nil {
		t.Fatal("the recorder ended well")
	}
	checkFull(t, "a disk of 200 KiB", dir, stderr.String())
}

func TestNoRoomToBegin(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	dir := filepath.Join(disk, "none.rec")
	_, err := NewRecorder(dir, tinySetup(1), scripted(nil), often)
	if !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") {
		t.Errorf("on a full disk: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it leaves something behind: %v", err)
	}
}
