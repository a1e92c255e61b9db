package replay

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"refault/test/tiny"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev/disk"
	"refault/vmm/mem"
)

// oneLine fails unless err is what was wanted, on one line that has all of the words.
func oneLine(t *testing.T, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) || err == nil {
		t.Errorf("got %v, want %v", err, want)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than a line", err)
	}
}

// filesRecording records the tiny guest from files, and returns their names.
func filesRecording(t *testing.T) (dir, kernel, image string) {
	t.Helper()
	tmp := t.TempDir()
	kernel, image = filepath.Join(tmp, "kernel.elf"), filepath.Join(tmp, "disk.img")
	if err := errors.Join(os.WriteFile(kernel, tiny.Kernel, 0o666), os.WriteFile(image, tiny.Disk(), 0o666)); err != nil {
		t.Fatal(err)
	}
	s := tinySetup(2)
	s.KernelBytes, s.DiskImages, s.Kernel, s.Disks = nil, nil, kernel, []string{image}
	dir = filepath.Join(tmp, "golden.rec")
	r, err := NewRecorder(dir, s, scripted(nil), often)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, kernel, image
}

func verifyFiles(t *testing.T, dir string) error {
	t.Helper()
	p, err := Open(dir)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Verify()
}

func described(t *testing.T, path string) *traces.File {
	t.Helper()
	f, b, err := readFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hashFile(f, b)
	return f
}

func TestChangedFilesAreNamedWithBothHashes(t *testing.T) {
	dir, kernel, image := filesRecording(t)
	if err := verifyFiles(t, dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path    string
		content []byte
		sum     string // of the content at the time of the recording
	}{{kernel, tiny.Kernel, ""}, {image, tiny.Disk(), ""}} {
		recorded := described(t, c.path)
		// Same size and even the same mtime: only the content, and the ctime, tell.
		st, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(c.content)
		changed[len(changed)/2] ^= 1
		longer := append(bytes.Clone(c.content), make([]byte, 512)...)
		for _, content := range [][]byte{changed, longer} {
			if err := errors.Join(os.WriteFile(c.path, content, 0o666), os.Chtimes(c.path, st.ModTime(), st.ModTime())); err != nil {
				t.Fatal(err)
			}
			oneLine(t, verifyFiles(t, dir), ErrChanged, c.path, recorded.SHA256, described(t, c.path).SHA256)
		}
		if err := os.WriteFile(c.path, c.content, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := verifyFiles(t, dir); err != nil {
			t.Errorf("%s, changed and changed back: %v", c.path, err)
		}
	}
	if err := os.Remove(kernel); err != nil {
		t.Fatal(err)
	}
	if err := verifyFiles(t, dir); err != nil {
		t.Errorf("without the kernel's file: %v", err)
	}
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	oneLine(t, verifyFiles(t, dir), os.ErrNotExist, image)
}

func TestChangedBuiltInDisk(t *testing.T) {
	dir := record(t, 1, often)
	other := tiny.Disk()
	other[1000] ^= 4
	_, err := Open(dir, other)
	oneLine(t, err, ErrChanged, "built-in disk 0")
	_, err = Open(dir)
	oneLine(t, err, ErrChanged, "1 built-in disks", "there are 0")
}

func TestMemoryThatDoesNotFit(t *testing.T) {
	s := tinySetup(1)
	s.MemoryBytes = mem.MaxSize
	if checkMemory(s.MemoryBytes) == nil {
		t.Skip("this host has room for the largest machine")
	}
	dir := filepath.Join(t.TempDir(), "none.rec")
	_, err := NewRecorder(dir, s, scripted(nil), often)
	oneLine(t, err, ErrMemory, "262144 MiB")
	s.MemoryBytes = 12345
	_, err = NewRecorder(dir, s, scripted(nil), often)
	oneLine(t, err, mem.ErrSize, "12345")
	if _, err := os.Stat(dir); err == nil {
		t.Error("it leaves a directory behind")
	}
}

func TestSetupThatCannotBe(t *testing.T) {
	tmp := t.TempDir()
	odd := filepath.Join(tmp, "odd.img")
	if err := os.WriteFile(odd, make([]byte, 1000), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(s *Setup)
		want   error
		words  string
	}{
		"no kernel":    {func(s *Setup) { s.KernelBytes, s.Kernel = nil, filepath.Join(tmp, "vmlinuz") }, os.ErrNotExist, "kernel: "},
		"kernel dir":   {func(s *Setup) { s.KernelBytes, s.Kernel = nil, tmp }, nil, "is a directory"},
		"no initrd":    {func(s *Setup) { s.Initrd = filepath.Join(tmp, "initrd") }, os.ErrNotExist, "initrd: "},
		"no disk":      {func(s *Setup) { s.Disks = []string{filepath.Join(tmp, "disk")} }, os.ErrNotExist, "disk"},
		"odd disk":     {func(s *Setup) { s.Disks = []string{odd} }, disk.ErrSize, odd},
		"not bootable": {func(s *Setup) { s.KernelBytes = make([]byte, 5000) }, nil, "not a kernel"},
	} {
		s := tinySetup(1)
		c.change(s)
		_, err := NewRecorder(filepath.Join(tmp, "none.rec"), s, scripted(nil), often)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := record(t, 1, often)
	_, err := NewRecorder(dir, tinySetup(1), scripted(nil), often)
	if err == nil || !strings.Contains(err.Error(), dir+" exists") {
		t.Errorf("a recording that exists: %v", err)
	}
}

func TestStepThatIsNotThere(t *testing.T) {
	p := openPlayer(t, record(t, 3, often))
	oneLine(t, p.Seek(p.End()+1), ErrBeyond, fmt.Sprint("step ", p.End()+1), fmt.Sprint("0 to ", p.End()), p.Dir)
	_, err := Fork(p, filepath.Join(t.TempDir(), "f.rec"), p.End()+1, nil, nil, Options{}, tiny.Disk())
	oneLine(t, err, ErrBeyond, fmt.Sprint("ends at step ", p.End()))
	if err := p.Seek(p.End()); err != nil {
		t.Error(err)
	}
}

func TestOtherFormatsAndMachines(t *testing.T) {
	dir := record(t, 1, often)
	newer := withFile(t, dir, traces.FileFormat, []byte("refault recording 2\n"))
	_, err := Open(newer, tiny.Disk())
	oneLine(t, err, traces.ErrFormat, newer, "format 2", fmt.Sprint("format ", traces.FormatVersion))
	man, err := traces.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	man.Machine = "refault-pc-99"
	other := withFile(t, dir, traces.FileManifest, nil)
	if err := traces.WriteManifest(other, man); err != nil {
		t.Fatal(err)
	}
	_, err = Open(other, tiny.Disk())
	oneLine(t, err, traces.ErrFormat, "refault-pc-99", vmm.Model)
	_, err = Open(t.TempDir(), tiny.Disk())
	oneLine(t, err, traces.ErrNotRecording, "FORMAT")
	_, err = Open("/nonexistent/a.rec", tiny.Disk())
	oneLine(t, err, os.ErrNotExist, "/nonexistent/a.rec")
}

// failingImage is a disk image on a host whose disk breaks.
type failingImage struct {
	disk.Bytes
	reads int
}

var errBroken = errors.New("the host's disk is broken")

func (f *failingImage) ReadAt(p []byte, off int64) (int, error) {
	if f.reads--; f.reads < 0 {
		return 0, errBroken
	}
	return f.Bytes.ReadAt(p, off)
}

func TestHostThatCannotReadTheDiskEndsTheRecording(t *testing.T) {
	s := tinySetup(20)
	img := &failingImage{tiny.Disk(), 1 << 30}
	s.DiskImages = []disk.Image{img}
	dir := filepath.Join(t.TempDir(), "broken.rec")
	r, err := NewRecorder(dir, s, scripted(typing), often)
	if err != nil {
		t.Fatal(err)
	}
	img.reads = 9
	_, err = r.Run()
	oneLine(t, err, errBroken, "disk0", "the recording ends at step ")
	if err := r.Close(); err != nil {
		t.Errorf("closing says it again: %v", err)
	}
	p := openPlayer(t, dir)
	if err := p.Verify(); err != nil || p.Complete() || p.End() == 0 {
		t.Errorf("%v; it ends at step %d, complete %v", err, p.End(), p.Complete())
	}
	// The same on replay: an error, not a divergence.
	img = &failingImage{tiny.Disk(), 1 << 30}
	q, err := Open(record(t, 5, often), img)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	img.reads = 3
	oneLine(t, q.Verify(), errBroken)
}

// TestWhatIsHashed: a recording names what its machine was made of by its hash, and one
// that cannot be had ends it before it begins; a run that is not recorded needs none.
func TestWhatIsHashed(t *testing.T) {
	s := tinySetup(5)
	img := &failingImage{Bytes: tiny.Disk()}
	s.DiskImages = []disk.Image{img}
	dir := filepath.Join(t.TempDir(), "broken.rec")
	_, err := NewRecorder(dir, s, scripted(nil), often)
	oneLine(t, err, errBroken, "disk 0")
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory remains: %v", err)
	}
	img.reads = 0
	u, err := NewUnrecorded(s, scripted(nil), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if img.reads != 0 {
		t.Errorf("the disk was read %d times before the machine ran", -img.reads)
	}

	files, kernel, image := filesRecording(t)
	man, err := traces.ReadManifest(files)
	if err != nil {
		t.Fatal(err)
	}
	for path, f := range map[string]*traces.File{kernel: man.Kernel, image: &man.Disks[0]} {
		if want := described(t, path); f.SHA256 != want.SHA256 || f.Size != want.Size || f.Path != path {
			t.Errorf("%s is described as %+v, want %+v", path, f, want)
		}
	}
	built, err := traces.ReadManifest(record(t, 5, often))
	if err != nil {
		t.Fatal(err)
	}
	if built.Kernel != nil || len(built.Images) != 1 || built.Images[0].SHA256 != man.Disks[0].SHA256 {
		t.Errorf("what is in no file is described as %+v, and the kernel as %+v", built.Images, built.Kernel)
	}
}

func TestSnapshotOnDemand(t *testing.T) {
	dir := record(t, 8, Options{MarkEvery: 10_000})
	p := openPlayer(t, dir)
	for _, step := range []uint64{200_003, 100_000, 150_001} {
		if err := p.Seek(step); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if added, err := p.TakeSnapshot(); err != nil || added != (i == 0) {
				t.Errorf("snapshot %d at step %d: %v, %v", i, step, added, err)
			}
		}
	}
	for _, x := range []*Player{p, openPlayer(t, dir)} {
		if got := fmt.Sprint(x.Snapshots().Steps()); got != "[0 100000 150001 200003]" {
			t.Errorf("snapshots at %s", got)
		}
		if err := x.Verify(); err != nil {
			t.Error(err)
		}
		for i := range x.Snapshots().Steps() {
			if err := errors.Join(x.restore(i), x.RunTo(x.End())); err != nil {
				t.Errorf("from snapshot %d: %v", i, err)
			}
		}
	}
	lock, err := traces.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := p.Seek(77_777); err != nil {
		t.Fatal(err)
	}
	_, err = p.TakeSnapshot()
	oneLine(t, err, traces.ErrBusy, dir)
}

func TestRecorderIsTheOnlyWriter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "golden.rec")
	r, err := NewRecorder(dir, tinySetup(3), scripted(nil), often)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := traces.Lock(dir); !errors.Is(err, traces.ErrBusy) {
		t.Errorf("locked beside its recorder: %v", err)
	}
	if _, err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := traces.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// haltKernel is a guest that prints a dot and halts, with interrupts off if masked is
// set; otherwise its timer wakes it 100 times a second, for nothing.
func haltKernel(masked bool) []byte {
	code := []byte{
		0xba, 0xf8, 0x03, 0, 0, // mov edx, 3f8h
		0xb0, '.', 0xee, // mov al, '.'; out dx, al
		0xf4,       // hlt
		0xeb, 0xfd, // jmp back to hlt
	}
	if !masked {
		const idt, handler = 0x101000, 0x100080
		code = []byte{
			0xc7, 0x05, 0x00, 0x11, 0x10, 0, handler & 0xff, 0, 0x10, 0, // mov dword [idt + 20h*8], selector 10h : offset
			0xc7, 0x05, 0x04, 0x11, 0x10, 0, 0, 0x8e, 0x10, 0, // … offset's high half, interrupt gate
			0x0f, 0x01, 0x1d, 0x70, 0x00, 0x10, 0, // lidt [100070h]
			0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, 0xb0, 4, 0xe6, 0x21, 0xb0, 1, 0xe6, 0x21, // PIC at 20h
			0xb0, 0xfe, 0xe6, 0x21, // timer only
			0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x9c, 0xe6, 0x40, 0xb0, 0x2e, 0xe6, 0x40, // 100 Hz
			0xba, 0xf8, 0x03, 0, 0, 0xb0, '.', 0xee, // a dot
			0xfb, 0xf4, 0xeb, 0xfd, // sti; hlt; jmp back to hlt
		}
		_ = idt
	}
	k := make([]byte, 0x100)
	head := []uint32{0x1badb002, 1 << 16, ^uint32(0x1badb002 + 1<<16 - 1), 0x1000e0, 0x100000, 0, 0, 0x100000}
	copy(k, code)
	copy(k[0x70:], []byte{0xff, 0x07, 0x00, 0x10, 0x10, 0})          // IDT
	copy(k[0x80:], []byte{0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf}) // push eax; EOI; pop eax; iret
	for i, v := range head {
		k[0xe0+4*i], k[0xe1+4*i], k[0xe2+4*i], k[0xe3+4*i] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
	}
	return k
}

// TestEndsWhileHalted records machines that are halted when they end, in each of the ways in which that can be.
func TestEndsWhileHalted(t *testing.T) {
	for _, clock := range []string{ClockVirtual, ClockHost} {
		for _, masked := range []bool{true, false} {
			for _, typing := range []string{"nobody", "leaves", "stays"} {
				if !masked && typing != "stays" {
					continue // it would run for ever
				}
				t.Run(fmt.Sprintf("%s,masked=%v,%s", clock, masked, typing), func(t *testing.T) {
					s := &Setup{KernelBytes: haltKernel(masked), MemoryBytes: 2 << 20, Clock: clock}
					var input chan []byte
					if typing != "nobody" {
						input = make(chan []byte, 3)
						input <- []byte("a")
					}
					dir := filepath.Join(t.TempDir(), "halted.rec")
					var live *Live
					r, err := NewRecorder(dir, s, func(m *vmm.Machine) vmm.Inputs {
						live = NewLive(m, clock, input)
						return live
					}, Options{MarkEvery: 1000, SnapshotEvery: 7, MaxSteps: 5_000_000})
					if err != nil {
						t.Fatal(err)
					}
					done := time.AfterFunc(60*time.Millisecond, func() {
						if typing == "leaves" {
							input <- []byte("b")
							close(input)
							return
						}
						live.Interrupt()
					})
					defer done.Stop()
					end, err := r.Run()
					if err != nil {
						t.Fatal(err)
					}
					if err := r.Close(); err != nil {
						t.Fatal(err)
					}
					want := vmm.Dead.String()
					if typing == "stays" {
						want = ReasonInterrupted
					}
					if end.Reason != want && !(clock == ClockVirtual && !masked) {
						t.Errorf("it ended with %s, want %s", end.Reason, want)
					}
					p, err := Open(dir)
					if err != nil {
						t.Fatal(err)
					}
					defer p.Close()
					if !p.Complete() {
						t.Error("not complete")
					}
					for range 2 {
						if err := p.Verify(); err != nil {
							t.Error(err)
						}
					}
					t.Logf("%s at step %d, %d ns; %d events, %d marks, %d snapshots", end.Reason, end.Step, end.TimeNs, len(p.Events()), len(p.marks), len(p.snaps.Steps()))
					// Without the end in the manifest, as when the recorder was killed just before it wrote that.
					man := *p.Manifest
					man.End = nil
					if err := traces.WriteManifest(dir, &man); err != nil {
						t.Fatal(err)
					}
					if err := verifyFiles(t, dir); err != nil {
						t.Errorf("without the manifest's end: %v", err)
					}
				})
			}
		}
	}
}

func TestInterruptedAnywhere(t *testing.T) {
	for i := range 12 {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i, ".rec"))
		r, err := NewRecorder(dir, tinySetup(3000), scripted(typing), Options{MarkEvery: 50_000})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(i)*900*time.Microsecond, r.Machine().Interrupt)
		end, err := r.Run()
		if err != nil || end.Reason != ReasonInterrupted {
			t.Errorf("%+v, %v", end, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		p := openPlayer(t, dir)
		if err := p.Verify(); err != nil {
			t.Errorf("interrupted at step %d: %v", end.Step, err)
		}
	}
}

func TestInterruptedReplayGoesOn(t *testing.T) {
	p := openPlayer(t, record(t, 20, often))
	for range 5 {
		time.AfterFunc(500*time.Microsecond, p.Interrupt)
		err := p.Verify()
		for errors.Is(err, vmm.ErrInterrupted) {
			err = p.RunTo(p.End())
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func TestTypedAtAnyMoment(t *testing.T) {
	for _, clock := range []string{ClockVirtual, ClockHost} {
		s := tinySetup(400)
		s.Clock = clock
		input := make(chan []byte)
		stop := make(chan struct{})
		go func() {
			defer close(input)
			for i := range 26 {
				select {
				case input <- []byte{'a' + byte(i)}:
				case <-stop:
					return
				}
				time.Sleep(time.Duration(i*37%11) * 100 * time.Microsecond)
			}
		}()
		dir := filepath.Join(t.TempDir(), "typed.rec")
		r, err := NewRecorder(dir, s, func(m *vmm.Machine) vmm.Inputs { return NewLive(m, clock, input) }, Options{MarkEvery: 100_000, SnapshotEvery: 1_000_000})
		if err != nil {
			t.Fatal(err)
		}
		end, err := r.Run()
		close(stop)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		p := openPlayer(t, dir)
		if err := p.Verify(); err != nil {
			t.Errorf("%s: %v", clock, err)
		}
		kinds := map[vmm.EventKind]int{}
		for _, e := range p.Events() {
			kinds[e.Kind]++
		}
		t.Logf("%s: %s at step %d, %d ns; events %v, console %q", clock, end.Reason, end.Step, end.TimeNs, kinds, p.RecordedConsole())
		if kinds[vmm.EventConsole] < 5 || clock == ClockHost && kinds[vmm.EventClock] == 0 {
			t.Errorf("%s: events %v", clock, kinds)
		}
	}
}
