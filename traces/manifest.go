package traces

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
)

// File is a file of the host that a recording depends on.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// ModTimeNs spares hashing a file that was not touched.
	ModTimeNs int64 `json:"mtime_ns,omitempty"`
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
	Clock        string   `json:"clock"` // virtual or host
	Seed         uint64   `json:"seed"`
	RTCStartUnix int64    `json:"rtc_start_unix"`
	MarkEvery    uint64   `json:"mark_every"`
	Devices      []string `json:"devices"` // the order of Mark.Devices
	// Parent names the recording that this one was injected from, and Faults what was injected.
	Parent string   `json:"parent,omitempty"`
	Faults []string `json:"faults,omitempty"`
	// End is missing while a recorder is at work, or if it was killed.
	End *End `json:"end,omitempty"`
}

// End says how a recording ended.
type End struct {
	Step   uint64 `json:"step"`
	TimeNs uint64 `json:"time_ns"`
	Reason string `json:"reason"`
	Status uint32 `json:"status,omitempty"`
}

// WriteManifest writes the manifest, whole or not at all.
func WriteManifest(dir string, m *Manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, FileManifest+".incomplete")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o666); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, FileManifest))
}

// WriteFormat marks dir as a recording of this format.
func WriteFormat(dir string) error {
	return os.WriteFile(filepath.Join(dir, FileFormat), fmt.Appendf(nil, "refault recording %d\n", FormatVersion), 0o666)
}

// ReadManifest reads FORMAT and the manifest of a recording.
func ReadManifest(dir string) (*Manifest, error) {
	f, err := os.ReadFile(filepath.Join(dir, FileFormat))
	if err != nil {
		if _, e := os.Stat(dir); e != nil {
			return nil, fmt.Errorf("recording %s: %w", dir, errors.Unwrap(e))
		}
		return nil, fmt.Errorf("%s: it has no readable file %s: %w", dir, FileFormat, ErrNotRecording)
	}
	var version int
	line := strings.TrimSuffix(string(f), "\n")
	if n, err := fmt.Sscanf(line, "refault recording %d", &version); n != 1 || err != nil || line != fmt.Sprintf("refault recording %d", version) {
		return nil, fmt.Errorf("%s: its %s says %q: %w", dir, FileFormat, line[:min(len(line), 60)], ErrNotRecording)
	}
	if version != FormatVersion {
		return nil, fmt.Errorf("%s has format %d and this program reads format %d; use the program that recorded it: %w", dir, version, FormatVersion, ErrFormat)
	}
	b, err := os.ReadFile(filepath.Join(dir, FileManifest))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return ParseManifest(b)
}

// ParseManifest decodes a manifest.
func ParseManifest(b []byte) (*Manifest, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	m := new(Manifest)
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("%s: %v: %w", FileManifest, err, ErrDamaged)
	}
	if m.CPUs != 1 || len(m.Disks) > 4 || m.MarkEvery == 0 || len(m.Devices) == 0 {
		return nil, fmt.Errorf("%s: it describes a machine that cannot be: %w", FileManifest, ErrDamaged)
	}
	return m, nil
}
