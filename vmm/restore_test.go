package vmm_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"refault/test/tiny"
	"refault/vmm"
	"refault/vmm/dev"
	"refault/vmm/dev/disk"
)

// tinyMachine returns a machine with the guest for unit tests, and what it says.
func tinyMachine(t *testing.T) (*vmm.Machine, *bytes.Buffer) {
	t.Helper()
	d, err := disk.New("disk0", tiny.Disk())
	if err != nil {
		t.Fatal(err)
	}
	m, err := vmm.New(vmm.Config{MemoryBytes: tiny.MemoryBytes, Disks: []*disk.Disk{d}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if err := m.Boot(tiny.Kernel, nil, "6"); err != nil {
		t.Fatal(err)
	}
	out := new(bytes.Buffer)
	m.Console = func(b byte) { out.WriteByte(b) }
	return m, out
}

// TestSaveRestore: a machine that is saved and restored in the middle of anything goes on as the one that was left alone.
func TestSaveRestore(t *testing.T) {
	a, saidA := tinyMachine(t)
	b, saidB := tinyMachine(t)
	r := rand.New(rand.NewPCG(1, 1))
	for n := 0; ; n++ {
		why, err := a.Run(a.Step() + 1 + r.Uint64N(8000))
		if err != nil {
			t.Fatal(err)
		}
		// b is whatever it was: all of it has to be replaced.
		for i, d := range a.Devices() {
			if err := dev.Decode(b.Devices()[i], dev.Encode(d)); err != nil {
				t.Fatal(err)
			}
		}
		page := make([]byte, tiny.MemoryBytes)
		if !a.RAM.ReadAt(page[:0xa0000], 0) || !a.RAM.ReadAt(page[0xc0000:], 0xc0000) ||
			!b.RAM.WriteAt(page[:0xa0000], 0) || !b.RAM.WriteAt(page[0xc0000:], 0xc0000) {
			t.Fatal("no RAM")
		}
		b.Entered()
		saidA.Reset()
		saidB.Reset()
		if why != vmm.Running {
			if got, _ := b.Stopped(); got != why {
				t.Errorf("restored: %v, want %v", got, why)
			}
			if _, status := b.Stopped(); n < 10 || status != tiny.ExitStatus {
				t.Errorf("ended after %d restores with status %d", n, status)
			}
			return
		}
		until := a.Step() + 1 + r.Uint64N(3000)
		for _, m := range []*vmm.Machine{a, b} {
			if _, err := m.Run(until); err != nil {
				t.Fatal(err)
			}
		}
		if a.Step() != b.Step() || a.TimeNs() != b.TimeNs() || !bytes.Equal(saidA.Bytes(), saidB.Bytes()) {
			t.Fatalf("restore %d: step %d, %d ns, said %q; without %d, %d, %q", n, b.Step(), b.TimeNs(), saidB, a.Step(), a.TimeNs(), saidA)
		}
		for i, d := range a.Devices() {
			if !bytes.Equal(dev.Encode(d), dev.Encode(b.Devices()[i])) {
				t.Fatalf("restore %d, step %d: %s is\n%+v, without\n%+v", n, a.Step(), d.Name(), b.Devices()[i].Save(), d.Save())
			}
		}
		if !bytes.Equal(a.RAM.Data(), b.RAM.Data()) {
			t.Fatalf("restore %d, step %d: memory differs", n, a.Step())
		}
	}
}
