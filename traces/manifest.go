package traces

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// FormatVersion is the version of the on-disk format. It is not the product's.
const FormatVersion = 1

// Names of the files of a recording.
const (
	FileFormat    = "FORMAT"
	FileManifest  = "manifest.json"
	FileEvents    = "events"
	FileMarks     = "marks"
	FilePages     = "pages"
	FileSnapshots = "snapshots"
	FileConsole   = "console.log"
)

// Errors of opening a recording.
var (
	// ErrNotRecording: the directory is none.
	ErrNotRecording = errors.New("not a recording")
	// ErrFormat: it is one of another format.
	ErrFormat = errors.New("recording of another format")
	// ErrBusy: another program is writing to it.
	ErrBusy = errors.New("another program is writing to it; wait for that to end")
	// ErrEmpty: it was begun, and its recorder ended before it had written anything that can be played.
	ErrEmpty = errors.New("nothing in it can be played")
)

// File is a file of the host that a recording depends on.
type File struct {
	Path   string `json:"path,omitempty"` // absolute; empty for what the program has built in
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// ChangeTimeNs, the inode's ctime, spares hashing a file that was not touched.
	ChangeTimeNs int64 `json:"ctime_ns,omitempty"`
}

// Manifest says what was recorded.
type Manifest struct {
	Product      string   `json:"product"` // name and version of the program that wrote it
	Machine      string   `json:"machine"`
	CPUModel     string   `json:"cpu_model"`
	CPUs         int      `json:"cpus"`
	MemoryBytes  uint64   `json:"memory_bytes"`
	Kernel       *File    `json:"kernel,omitempty"`
	Initrd       *File    `json:"initrd,omitempty"`
	CommandLine  string   `json:"command_line"`
	Disks        []File   `json:"disks,omitempty"`
	Images       []File   `json:"images,omitempty"` // disks that are in no file, after Disks
	Clock        string   `json:"clock"`            // virtual or host
	Seed         uint64   `json:"seed"`
	RTCStartUnix int64    `json:"rtc_start_unix"`
	MarkEvery    uint64   `json:"mark_every"`
	Devices      []string `json:"devices"` // the order of Mark.Devices
	// Parent names the recording that this one was injected from, and Faults what was injected.
	Parent string   `json:"parent,omitempty"`
	Faults []string `json:"faults,omitempty"`
	// End is missing while a recorder is at work, or if it was killed.
	End *End `json:"end,omitempty"`
	// Checksum is over all the rest but the paths and times of files, which may change
	// when a recording moves to another host.
	Checksum string `json:"checksum"`
}

// End says how a recording ended.
type End struct {
	Step   uint64 `json:"step"`
	TimeNs uint64 `json:"time_ns"`
	Reason string `json:"reason"`
	Status uint32 `json:"status,omitempty"`
}

// manifestMax bounds the size in bytes of a manifest, and of FORMAT.
const manifestMax = 1 << 20

// checksum returns what Checksum has to be.
func (m *Manifest) checksum() string {
	c := *m
	c.Checksum = ""
	strip := func(files []File) []File {
		files = append([]File(nil), files...)
		for i := range files {
			files[i].Path, files[i].ChangeTimeNs = "", 0
		}
		return files
	}
	c.Disks, c.Images = strip(m.Disks), strip(m.Images)
	if m.Kernel != nil {
		c.Kernel = &strip([]File{*m.Kernel})[0]
	}
	if m.Initrd != nil {
		c.Initrd = &strip([]File{*m.Initrd})[0]
	}
	b, err := json.Marshal(&c)
	if err != nil {
		panic("BUG: a manifest cannot be encoded: " + err.Error())
	}
	return fmt.Sprintf("%016x", xxh3.Hash(b))
}

// WriteManifest writes the manifest, whole or not at all.
func WriteManifest(dir string, m *Manifest) error {
	m.Checksum = m.checksum()
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, FileManifest+".incomplete")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o666); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("writing %s: %w", tmp, pathless(err))
	}
	return os.Rename(tmp, filepath.Join(dir, FileManifest))
}

// WriteFormat marks dir as a recording of this format.
func WriteFormat(dir string) error {
	return os.WriteFile(filepath.Join(dir, FileFormat), fmt.Appendf(nil, "refault recording %d\n", FormatVersion), 0o666)
}

// Lock makes the caller the only one to write to a recording, until the file that is
// returned is closed, or its process ends.
func Lock(dir string) (*os.File, error) {
	f, err := os.Open(filepath.Join(dir, FileFormat))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			err = ErrBusy
		}
		return nil, fmt.Errorf("recording %s: %w", dir, err)
	}
	return f, nil
}

// ReadManifest reads FORMAT and the manifest of a recording.
func ReadManifest(dir string) (*Manifest, error) {
	f, err := readSmall(filepath.Join(dir, FileFormat))
	if err != nil {
		if _, e := os.Stat(dir); e != nil {
			return nil, pathless(e)
		}
		return nil, fmt.Errorf("%s cannot be read (%v): %w", FileFormat, pathless(err), ErrNotRecording)
	}
	if err := ParseFormat(f); err != nil {
		return nil, err
	}
	b, err := readSmall(filepath.Join(dir, FileManifest))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("it has no %s: its recorder ended before it began: %w", FileManifest, ErrEmpty)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", FileManifest, pathless(err))
	}
	return ParseManifest(b)
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifestMax+1))
	if err == nil && len(b) > manifestMax {
		err = fmt.Errorf("more than %d bytes: %w", manifestMax, ErrDamaged)
	}
	return b, err
}

// ParseFormat checks the content of FORMAT.
func ParseFormat(b []byte) error {
	line := strings.TrimSuffix(string(b), "\n")
	number, ok := strings.CutPrefix(line, "refault recording ")
	version, err := strconv.ParseUint(number, 10, 31)
	if !ok || err != nil || strconv.FormatUint(version, 10) != number {
		return fmt.Errorf("its %s says %q: %w", FileFormat, line[:min(len(line), 60)], ErrNotRecording)
	}
	if version != FormatVersion {
		return fmt.Errorf("it has format %d and this program reads format %d; use the program that recorded it: %w", version, FormatVersion, ErrFormat)
	}
	return nil
}

// ParseManifest decodes a manifest.
func ParseManifest(b []byte) (*Manifest, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	m := new(Manifest)
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("%s: at byte %d: %v: %w", FileManifest, dec.InputOffset(), err, ErrDamaged)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%s: at byte %d: more than one value: %w", FileManifest, dec.InputOffset(), ErrDamaged)
	}
	if want := m.checksum(); m.Checksum != want {
		return nil, fmt.Errorf("%s: its checksum is %q, its content has %q: %w", FileManifest, m.Checksum, want, ErrDamaged)
	}
	if m.CPUs != 1 || len(m.Disks)+len(m.Images) > 4 || m.MarkEvery == 0 || len(m.Devices) == 0 {
		return nil, fmt.Errorf("%s: it describes a machine that cannot be: %w", FileManifest, ErrDamaged)
	}
	return m, nil
}
