package replay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev/disk"
	"refault/vmm/x86"
)

// Version names the program in recordings.
const Version = "0.1.0"

// ErrChanged reports a file that is not what it was when the recording was made.
var ErrChanged = errors.New("the file changed since the recording was made")

// Clock modes.
const (
	ClockVirtual = "virtual"
	ClockHost    = "host"
)

// Setup is a machine as a user describes it.
type Setup struct {
	Kernel, Initrd string // paths; Initrd may be empty
	KernelBytes    []byte // in place of Kernel: a kernel that is in no file
	DiskImages     []disk.Image
	CommandLine    string
	Disks          []string
	MemoryBytes    uint64
	Clock          string
	Seed           uint64
	RTCStartUnix   int64
	Engine         vmm.Engine // not part of the recording: any engine makes the same one
}

// machine is a machine with the host's resources that it holds.
type machine struct {
	*vmm.Machine
	files []*disk.File
}

func (m *machine) close() error {
	errs := []error{m.Machine.Close()}
	for _, f := range m.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// readFile describes a file of the host, all but its hash, and returns its content.
func readFile(path string) (*traces.File, []byte, error) {
	f, err := statFile(path)
	if err != nil {
		return nil, nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	f.Size = int64(len(b))
	return f, b, nil
}

// hashFile completes the description of a file with content b.
func hashFile(f *traces.File, b []byte) {
	sum := sha256.Sum256(b)
	f.SHA256 = hex.EncodeToString(sum[:])
}

// settledNs is how old a file's last change must be for its time to tell it from a
// later one: the clock that stamps inodes ticks slowly.
const settledNs = 1_000_000_000

// statFile describes a file of the host without looking at its content.
func statFile(path string) (*traces.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(abs, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	f := &traces.File{Path: abs, Size: st.Size}
	// A block device's inode does not change when its content does.
	if c := st.Ctim.Nano(); st.Mode&unix.S_IFMT == unix.S_IFREG && time.Now().UnixNano()-c > settledNs {
		f.ChangeTimeNs = c
	}
	return f, nil
}

// hashImage completes the description of a disk image.
func hashImage(f *traces.File, img disk.Image) error {
	sum, err := disk.SHA256(img)
	f.Size, f.SHA256 = img.Size(), hex.EncodeToString(sum[:])
	return err
}

// ErrMemory reports a machine with more memory than the host has.
var ErrMemory = errors.New("more memory than the host has; give the machine less with --memory")

// checkMemory refuses memory that the host could not hold: it is mapped without
// reserving it, and the host would notice only when the guest uses it.
func checkMemory(size uint64) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil // then the host decides when the guest uses it
	}
	have := (uint64(info.Totalram) + uint64(info.Totalswap)) * uint64(info.Unit)
	// A container may have less.
	if b, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			have = min(have, n)
		}
	}
	if size > have {
		return fmt.Errorf("a machine with %d MiB, on a host with %d MiB: %w", size>>20, have>>20, ErrMemory)
	}
	return nil
}

// build makes the machine that a setup describes, with its kernel loaded, and the manifest that describes it, which
// has the hashes of what the machine was made of where a recording needs them.
func build(s *Setup, hashes bool) (*machine, *traces.Manifest, error) {
	man := &traces.Manifest{
		Product: "refault " + Version, Machine: vmm.Model, CPUModel: x86.CPUModel, CPUs: 1, MemoryBytes: s.MemoryBytes,
		CommandLine: s.CommandLine, Clock: s.Clock, Seed: s.Seed, RTCStartUnix: s.RTCStartUnix,
		Images: make([]traces.File, len(s.DiskImages)),
	}
	kernel := s.KernelBytes
	var initrd []byte
	var err error
	if kernel == nil {
		if man.Kernel, kernel, err = readFile(s.Kernel); err != nil {
			return nil, nil, fmt.Errorf("kernel: %w", err)
		}
	}
	if s.Initrd != "" {
		if man.Initrd, initrd, err = readFile(s.Initrd); err != nil {
			return nil, nil, fmt.Errorf("initrd: %w", err)
		}
	}
	for _, p := range s.Disks {
		f, err := statFile(p)
		if err != nil {
			return nil, nil, fmt.Errorf("disk: %w", err)
		}
		man.Disks = append(man.Disks, *f)
	}
	m, err := newMachine(man, s.DiskImages, s.Engine)
	if err != nil {
		return nil, nil, err
	}
	hashed := make(chan error, 1)
	if hashes { // while the kernel is unpacked, which takes longer
		go func() { hashed <- hashInputs(man, kernel, initrd, m.files, s.DiskImages) }()
	} else {
		hashed <- nil
	}
	err = m.Boot(kernel, initrd, s.CommandLine)
	if err := <-hashed; err != nil {
		return nil, nil, errors.Join(err, m.close())
	}
	if err != nil {
		name := s.Kernel
		if name == "" {
			name = "the built-in kernel"
		}
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", name, err), m.close())
	}
	for _, d := range m.Devices() {
		man.Devices = append(man.Devices, d.Name())
	}
	return m, man, nil
}

// hashInputs completes the descriptions of what a machine is made of.
func hashInputs(man *traces.Manifest, kernel, initrd []byte, files []*disk.File, images []disk.Image) error {
	if man.Kernel != nil {
		hashFile(man.Kernel, kernel)
	}
	if man.Initrd != nil {
		hashFile(man.Initrd, initrd)
	}
	for i, f := range files {
		if err := hashImage(&man.Disks[i], f); err != nil {
			return fmt.Errorf("disk %s: %w", man.Disks[i].Path, err)
		}
	}
	for i, img := range images {
		if err := hashImage(&man.Images[i], img); err != nil {
			return fmt.Errorf("built-in disk %d: %w", i, err)
		}
	}
	return nil
}

// newMachine makes a machine in its power-on state.
func newMachine(man *traces.Manifest, images []disk.Image, engine vmm.Engine) (*machine, error) {
	if err := checkMemory(man.MemoryBytes); err != nil {
		return nil, err
	}
	m := &machine{}
	fail := func(err error) (*machine, error) {
		for _, f := range m.files {
			f.Close()
		}
		return nil, err
	}
	cfg := vmm.Config{MemoryBytes: man.MemoryBytes, Seed: man.Seed, RTCStartUnix: man.RTCStartUnix, Engine: engine}
	add := func(img disk.Image) error {
		d, err := disk.New(fmt.Sprintf("disk%d", len(cfg.Disks)), img)
		if err == nil {
			cfg.Disks = append(cfg.Disks, d)
		}
		return err
	}
	for _, d := range man.Disks {
		f, err := disk.Open(d.Path)
		if err != nil {
			return fail(err)
		}
		m.files = append(m.files, f)
		if err := add(f); err != nil {
			return fail(fmt.Errorf("disk %s: %w", d.Path, err))
		}
	}
	for _, img := range images {
		if err := add(img); err != nil {
			return fail(err)
		}
	}
	var err error
	if m.Machine, err = vmm.New(cfg); err != nil {
		return fail(err)
	}
	return m, nil
}

// checkFile compares what is there now with what the manifest says.
func checkFile(what string, now, recorded *traces.File) error {
	if now.Size == recorded.Size && now.SHA256 == recorded.SHA256 {
		return nil
	}
	if recorded.Path != "" {
		what += " " + recorded.Path
	}
	return fmt.Errorf("%s has %d bytes and SHA-256 %s, recorded were %d bytes and SHA-256 %s: %w",
		what, now.Size, now.SHA256, recorded.Size, recorded.SHA256, ErrChanged)
}

// untouched tells whether a file's inode says that nobody touched it since the recording.
func untouched(f *traces.File) bool {
	now, err := statFile(f.Path)
	return err == nil && f.ChangeTimeNs != 0 && now.ChangeTimeNs == f.ChangeTimeNs && now.Size == f.Size
}

// reopen makes the machine of a recording, in its power-on state.
func reopen(man *traces.Manifest, images []disk.Image) (*machine, error) {
	if man.Machine != vmm.Model || man.CPUModel != x86.CPUModel {
		return nil, fmt.Errorf("it was recorded on machine %.40q with processor %.40q; this program has %q with %q; use the program that recorded it: %w",
			man.Machine, man.CPUModel, vmm.Model, x86.CPUModel, traces.ErrFormat)
	}
	if err := checkKernel("kernel", man.Kernel); err != nil {
		return nil, err
	}
	if err := checkKernel("initrd", man.Initrd); err != nil {
		return nil, err
	}
	if len(images) != len(man.Images) {
		return nil, fmt.Errorf("it was recorded with %d built-in disks, and there are %d: %w", len(man.Images), len(images), ErrChanged)
	}
	for i, img := range images {
		var now traces.File
		if err := hashImage(&now, img); err != nil {
			return nil, err
		}
		if err := checkFile(fmt.Sprintf("built-in disk %d", i), &now, &man.Images[i]); err != nil {
			return nil, err
		}
	}
	m, err := newMachine(man, images, "")
	if err != nil {
		return nil, err
	}
	for i, f := range m.files {
		if err := checkDisk(f, &man.Disks[i]); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	names := make([]string, 0, len(m.Devices()))
	for _, d := range m.Devices() {
		names = append(names, d.Name())
	}
	if !slices.Equal(names, man.Devices) {
		return nil, errors.Join(fmt.Errorf("%s: it lists other devices than this machine has: %w", traces.FileManifest, traces.ErrDamaged), m.close())
	}
	return m, nil
}

// checkDisk compares a disk's image with the manifest.
func checkDisk(img *disk.File, f *traces.File) error {
	if untouched(f) {
		return nil
	}
	var now traces.File
	if err := hashImage(&now, img); err != nil {
		return fmt.Errorf("disk %s: %w", f.Path, err)
	}
	return checkFile("disk", &now, f)
}

// checkKernel compares a kernel or initrd with the manifest. It is in the first
// snapshot; its file need not exist any more, but one that says something else would mislead.
func checkKernel(what string, f *traces.File) error {
	if f == nil || untouched(f) {
		return nil
	}
	now, b, err := readFile(f.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("%s of the recording: %w", what, err)
	}
	hashFile(now, b)
	return checkFile(what, now, f)
}
