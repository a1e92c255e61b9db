package replay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

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

// fileOf describes a file of the host.
func fileOf(path string) (*traces.File, []byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	f, err := statFile(path)
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(b)
	f.SHA256 = hex.EncodeToString(sum[:])
	return f, b, nil
}

func statFile(path string) (*traces.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(abs)
	if err != nil {
		return nil, err
	}
	return &traces.File{Path: abs, Size: st.Size(), ModTimeNs: st.ModTime().UnixNano()}, nil
}

// build makes the machine that a setup describes, with its kernel loaded, and the manifest that describes it.
func build(s *Setup) (*machine, *traces.Manifest, error) {
	man := &traces.Manifest{
		Product: "refault " + Version, Machine: vmm.Model, CPUModel: x86.CPUModel, CPUs: 1, MemoryBytes: s.MemoryBytes,
		CommandLine: s.CommandLine, Clock: s.Clock, Seed: s.Seed, RTCStartUnix: s.RTCStartUnix,
	}
	kernel := s.KernelBytes
	var initrd []byte
	var err error
	if kernel == nil {
		if man.Kernel, kernel, err = fileOf(s.Kernel); err != nil {
			return nil, nil, fmt.Errorf("kernel: %w", err)
		}
	}
	if s.Initrd != "" {
		if man.Initrd, initrd, err = fileOf(s.Initrd); err != nil {
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
	m, err := newMachine(man, s.DiskImages, func(i int, f *disk.File) error {
		sum, err := disk.SHA256(f)
		if err != nil {
			return err
		}
		man.Disks[i].SHA256 = hex.EncodeToString(sum[:])
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if err := m.Boot(kernel, initrd, s.CommandLine); err != nil {
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

// newMachine makes a machine in its power-on state. check looks at each disk.
func newMachine(man *traces.Manifest, images []disk.Image, check func(i int, f *disk.File) error) (*machine, error) {
	m := &machine{}
	fail := func(err error) (*machine, error) {
		for _, f := range m.files {
			f.Close()
		}
		return nil, err
	}
	cfg := vmm.Config{MemoryBytes: man.MemoryBytes, Seed: man.Seed, RTCStartUnix: man.RTCStartUnix}
	add := func(img disk.Image) error {
		d, err := disk.New(fmt.Sprintf("disk%d", len(cfg.Disks)), img)
		if err == nil {
			cfg.Disks = append(cfg.Disks, d)
		}
		return err
	}
	for i, d := range man.Disks {
		f, err := disk.Open(d.Path)
		if err != nil {
			return fail(fmt.Errorf("disk %s: %w", d.Path, err))
		}
		m.files = append(m.files, f)
		if err := check(i, f); err != nil {
			return fail(fmt.Errorf("disk %s: %w", d.Path, err))
		}
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

// checkFile compares a file with what the manifest says of it.
func checkFile(what string, f *traces.File, hash func() (string, error)) error {
	now, err := statFile(f.Path)
	if err != nil {
		return fmt.Errorf("%s of the recording: %w", what, err)
	}
	if now.Size == f.Size && now.ModTimeNs == f.ModTimeNs {
		return nil
	}
	if now.Size != f.Size {
		return fmt.Errorf("%s %s has %d bytes, recorded were %d: %w", what, f.Path, now.Size, f.Size, ErrChanged)
	}
	sum, err := hash()
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, f.Path, err)
	}
	if sum != f.SHA256 {
		return fmt.Errorf("%s %s has SHA-256 %s, recorded was %s: %w", what, f.Path, sum, f.SHA256, ErrChanged)
	}
	return nil
}

// reopen makes the machine of a recording, in its power-on state.
func reopen(man *traces.Manifest, images []disk.Image) (*machine, error) {
	if man.Machine != vmm.Model || man.CPUModel != x86.CPUModel {
		return nil, fmt.Errorf("it was recorded on machine %s with processor %s; this program has %s with %s: %w",
			man.Machine, man.CPUModel, vmm.Model, x86.CPUModel, traces.ErrFormat)
	}
	// The kernel and the initrd are in the first snapshot; their files need not
	// exist any more, but one that says something else would mislead.
	for what, f := range map[string]*traces.File{"kernel": man.Kernel, "initrd": man.Initrd} {
		if f == nil {
			continue
		}
		if _, err := os.Stat(f.Path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := checkFile(what, f, func() (string, error) {
			x, _, err := fileOf(f.Path)
			if err != nil {
				return "", err
			}
			return x.SHA256, nil
		}); err != nil {
			return nil, err
		}
	}
	for i := range man.Disks {
		d := &man.Disks[i]
		if err := checkFile("disk", d, func() (string, error) {
			f, err := disk.Open(d.Path)
			if err != nil {
				return "", err
			}
			defer f.Close()
			sum, err := disk.SHA256(f)
			return hex.EncodeToString(sum[:]), err
		}); err != nil {
			return nil, err
		}
	}
	m, err := newMachine(man, images, func(int, *disk.File) error { return nil })
	if err != nil {
		return nil, err
	}
	for i, d := range m.Devices() {
		if i >= len(man.Devices) || man.Devices[i] != d.Name() {
			return nil, errors.Join(fmt.Errorf("manifest: device %d is not %q: %w", i, d.Name(), traces.ErrDamaged), m.close())
		}
	}
	return m, nil
}
