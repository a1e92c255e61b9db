package traces

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"
)

// memFile is a file in memory that is full at limit bytes.
type memFile struct {
	b     []byte
	at    int64
	limit int64
}

func (f *memFile) Write(p []byte) (int, error) {
	n := int(min(int64(len(p)), f.limit-f.at))
	f.b = append(f.b[:f.at], p[:n]...)
	f.at += int64(n)
	if n < len(p) {
		return n, unix.ENOSPC
	}
	return n, nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}
func (f *memFile) Truncate(n int64) error               { f.b = f.b[:n]; return nil }
func (f *memFile) Close() error                         { return nil }
func (f *memFile) Name() string                         { return "events" }
func (f *memFile) Seek(off int64, _ int) (int64, error) { f.at = off; return off, nil }

func newMemFile() *memFile {
	f := &memFile{limit: 1 << 30}
	f.Write([]byte(fileHeader(FileEvents)))
	return f
}

func (f *memFile) open() (*BlockReader, error) {
	return scanBlocks(f, "a.rec/"+FileEvents, int64(len(f.b)))
}

func events(n int) []Event {
	all := make([]Event, n)
	for i := range all {
		all[i] = Event{Step: uint64(i) * 1000, TimeNs: uint64(i) * 1001, Kind: uint8(i%4 + 1), Data: bytes.Repeat([]byte{byte(i)}, i%7), DeltaNs: uint64(i % 3), Spec: strings.Repeat("x", i%5)}
		if len(all[i].Data) == 0 {
			all[i].Data = nil
		}
	}
	return all
}

// write puts events in blocks of three.
func write(t *testing.T, f *memFile, all []Event) {
	t.Helper()
	bw, err := newBlockWriter(f, int64(len(f.b)))
	if err != nil {
		t.Fatal(err)
	}
	w := NewRecordWriter[Event](bw)
	for i := range all {
		if err := w.Add(all[i].Step, &all[i]); err != nil {
			t.Fatal(err)
		}
		if i%3 == 2 {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsComeBack(t *testing.T) {
	f, want := newMemFile(), events(100)
	write(t, f, want)
	r, err := f.open()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecords[Event](r)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v; %d events", err, len(got))
	}
	if b := r.Blocks[1]; b.First != 3000 || b.Last != 5000 || b.Records != 3 {
		t.Errorf("block 1 is %+v", b)
	}
	if r.End() != int64(len(f.b)) || r.Truncated != 0 {
		t.Errorf("end %d of %d, %d truncated", r.End(), len(f.b), r.Truncated)
	}
}

func TestCutOffAnywhere(t *testing.T) {
	f, want := newMemFile(), events(12)
	write(t, f, want)
	whole, err := f.open()
	if err != nil {
		t.Fatal(err)
	}
	first := len(fileHeader(FileEvents))
	for n := range len(f.b) {
		cut := &memFile{b: f.b[:n]}
		r, err := cut.open()
		if n < first {
			if !errors.Is(err, ErrEmpty) {
				t.Errorf("cut at byte %d: %v", n, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at byte %d: %v", n, err)
		}
		blocks := 0
		for blocks < len(whole.Blocks) && whole.Blocks[blocks].Offset+blockHeader+int64(whole.Blocks[blocks].Packed) <= int64(n) {
			blocks++
		}
		got, err := ReadRecords[Event](r)
		if err != nil || len(got) != 3*blocks || len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
			t.Errorf("cut at byte %d: %v; %d events, want %d", n, err, len(got), 3*blocks)
		}
		if r.End()+r.Truncated != int64(n) {
			t.Errorf("cut at byte %d: end %d, %d truncated", n, r.End(), r.Truncated)
		}
		// And whoever goes on writing leaves no trace of the cut.
		again := &memFile{b: bytes.Clone(f.b[:r.End()]), at: r.End(), limit: 1 << 30}
		write(t, again, want[len(got):])
		if !bytes.Equal(again.b, f.b) {
			t.Errorf("cut at byte %d and continued: other bytes", n)
		}
	}
}

func TestFlippedBitIsNamed(t *testing.T) {
	f := newMemFile()
	write(t, f, events(12))
	for at := range f.b {
		for bit := range 8 {
			bad := &memFile{b: bytes.Clone(f.b)}
			bad.b[at] ^= 1 << bit
			r, err := bad.open()
			if err == nil {
				_, err = ReadRecords[Event](r)
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "events: ") || !strings.Contains(err.Error(), "at byte ") {
				t.Errorf("bit %d of byte %d: %v", bit, at, err)
			}
		}
	}
}

func TestFullDiskKeepsWhatIsWhole(t *testing.T) {
	f, want := newMemFile(), events(12)
	write(t, f, want)
	for limit := int64(len(fileHeader(FileEvents))); limit < int64(len(f.b)); limit++ {
		full := newMemFile()
		full.limit = limit
		bw, err := newBlockWriter(full, int64(len(full.b)))
		if err != nil {
			t.Fatal(err)
		}
		w := NewRecordWriter[Event](bw)
		n := 0
		for i := range want {
			if err = w.Add(want[i].Step, &want[i]); err != nil {
				break
			}
			if i%3 == 2 {
				if err = w.Flush(); err != nil {
					break
				}
				n = i + 1
			}
		}
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "events") || strings.Contains(err.Error(), "\n") {
			t.Fatalf("full at byte %d: %v", limit, err)
		}
		r, err := full.open()
		if err != nil || r.Truncated != 0 {
			t.Fatalf("full at byte %d: %v; %d bytes truncated", limit, err, r.Truncated)
		}
		if got, err := ReadRecords[Event](r); err != nil || len(got) != n {
			t.Errorf("full at byte %d: %v; %d events, want %d", limit, err, len(got), n)
		}
	}
}

func TestBlocksOfTheWrongSizeAreRefused(t *testing.T) {
	f := newMemFile()
	w, err := newBlockWriter(f, int64(len(f.b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, blockRawMax+1), 1, 0, 0); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a block too large: %v", err)
	}
	// A header that is right in itself, with limits exceeded.
	for _, b := range []Block{{Raw: blockRawMax + 1}, {Packed: blockPackedMax + 1}} {
		h := make([]byte, blockHeader)
		b.encode(h)
		bad := &memFile{b: append([]byte(fileHeader(FileEvents)), h...)}
		if _, err := bad.open(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

func TestSmallFileDoesNotUnpackToAGreatOne(t *testing.T) {
	f := newMemFile()
	w, err := newBlockWriter(f, int64(len(f.b)))
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	enc := msgpack.NewEncoder(&raw)
	enc.UseArrayEncodedStructs(true)
	const n = 500_000
	for range n {
		if err := enc.Encode(&Event{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 40 {
		if _, err := w.Write(raw.Bytes(), n, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	r, err := f.open()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = ReadRecords[Event](r)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrDamaged) || used > 600<<20 {
		t.Errorf("%d bytes on disk: %v, after allocating %d MiB", len(f.b), err, used>>20)
	}
}

func manifest() *Manifest {
	return &Manifest{Product: "p", Machine: "m", CPUModel: "c", CPUs: 1, MemoryBytes: 4 << 20, CommandLine: "a b", Clock: "virtual",
		Kernel: &File{Path: "/boot/k", Size: 3, SHA256: "00"}, Disks: []File{{Path: "/d", Size: 512, SHA256: "11"}}, MarkEvery: 1, Devices: []string{"cpu0"}}
}

func TestManifestComesBack(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(WriteFormat(dir), WriteManifest(dir, manifest())); err != nil {
		t.Fatal(err)
	}
	got, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := manifest()
	want.Checksum = want.checksum()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	// Whoever moves the files may say so.
	path := filepath.Join(dir, FileManifest)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte(`"/d"`), []byte(`"/elsewhere/d"`), 1), 0o666); err != nil {
		t.Fatal(err)
	}
	if got, err = ReadManifest(dir); err != nil || got.Disks[0].Path != "/elsewhere/d" {
		t.Errorf("moved disk: %v", err)
	}
}

func TestManifestChangedIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := WriteManifest(dir, manifest()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, FileManifest))
	if err != nil {
		t.Fatal(err)
	}
	want, err := ParseManifest(whole)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		if _, err := ParseManifest(whole[:at]); at < len(whole)-1 && !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at byte %d: %v", at, err)
		}
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[at] ^= 1 << bit
			got, err := ParseManifest(b)
			if err != nil {
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), FileManifest) {
					t.Errorf("bit %d of byte %d: %v", bit, at, err)
				}
				continue
			}
			// Letter case of a key, white space, and the paths may change.
			got.Kernel.Path, got.Disks[0].Path = want.Kernel.Path, want.Disks[0].Path
			if !reflect.DeepEqual(got, want) {
				t.Errorf("bit %d of byte %d: accepted as %+v", bit, at, got)
			}
		}
	}
}

func TestWhatIsNoRecordingOrANewerOne(t *testing.T) {
	for content, want := range map[string]error{
		"": ErrNotRecording, "\n": ErrNotRecording, "refault recording": ErrNotRecording, "refault recording 1x\n": ErrNotRecording,
		"refault recording 01\n": ErrNotRecording, "refault recording -1\n": ErrNotRecording, "refault recording 99999999999\n": ErrNotRecording,
		"refault recording 2\n": ErrFormat, "refault recording 0\n": ErrFormat, "refault recording 1\n": nil, "refault recording 1": nil,
	} {
		if err := ParseFormat([]byte(content)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", content, err, want)
		}
	}
	err := ParseFormat([]byte("refault recording 2\n"))
	if !strings.Contains(err.Error(), "format 2") || !strings.Contains(err.Error(), fmt.Sprint("format ", FormatVersion)) {
		t.Errorf("a newer format: %v", err)
	}
	dir := t.TempDir()
	if _, err := ReadManifest(dir); !errors.Is(err, ErrNotRecording) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := ReadManifest(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := WriteFormat(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadManifest(dir); !errors.Is(err, ErrEmpty) {
		t.Errorf("FORMAT and nothing else: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileManifest), make([]byte, manifestMax+1), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadManifest(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("a manifest that is too large: %v", err)
	}
}

func TestOneWriterAtATime(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFormat(dir); err != nil {
		t.Fatal(err)
	}
	f, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("locked twice: %v", err)
	}
	f.Close()
	if f, err = Lock(dir); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func FuzzBlocks(f *testing.F) {
	m := newMemFile()
	write(&testing.T{}, m, events(4))
	f.Add(m.b)
	f.Add([]byte(fileHeader(FileEvents)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := (&memFile{b: b}).open()
		if err != nil {
			return
		}
		for i := range r.Blocks {
			if raw, err := r.Read(i); err == nil && len(raw) != int(r.Blocks[i].Raw) {
				t.Errorf("block %d has %d bytes, its header says %d", i, len(raw), r.Blocks[i].Raw)
			}
		}
		ReadRecords[Event](r)
	})
}

// fuzzRecords checks a decoder of records, which sees what is in blocks, whose checksums a fuzzer cannot guess.
func fuzzRecords[T any](f *testing.F, seed *T) {
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseArrayEncodedStructs(true)
	if err := errors.Join(enc.Encode(seed), enc.Encode(seed)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), 2)
	f.Add([]byte{}, 0)
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		all, err := DecodeRecords[T](raw, n)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		if err == nil && len(all) != n {
			t.Errorf("%d records, want %d", len(all), n)
		}
	})
}

func FuzzEvents(f *testing.F) { fuzzRecords(f, &events(7)[6]) }

func FuzzMarks(f *testing.F) {
	fuzzRecords(f, &Mark{Step: 1, Devices: []Hash{{1}, {2}}, End: "reset"})
}

func FuzzManifest(f *testing.F) {
	m := manifest()
	dir := f.TempDir()
	if err := WriteManifest(dir, m); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, FileManifest))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"disks":[{},{},{},{},{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseManifest(b); err != nil && !errors.Is(err, ErrDamaged) || err == nil && m.CPUs != 1 {
			t.Error(err)
		}
	})
}

func FuzzFormat(f *testing.F) {
	f.Add([]byte("refault recording 1\n"))
	f.Add([]byte("refault recording 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := ParseFormat(b); err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrNotRecording) {
			t.Error(err)
		}
	})
}

func TestRandomBytesAreNoRecords(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := make([]byte, r.IntN(60))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if _, err := DecodeRecords[Mark](b, 1+r.IntN(3)); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("%x: %v", b, err)
		}
	}
	if _, err := DecodeRecords[Event](nil, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
