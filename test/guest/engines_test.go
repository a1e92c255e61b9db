package guest

import (
	"bytes"
	"os"
	"testing"

	"refault/vmm"
	"refault/vmm/dev/disk"
	"refault/vmm/x86"
)

// TestEnginesAgree boots Debian on the interpreter and on the translator side by
// side, and compares the processors every so often, and all of memory now and then.
func TestEnginesAgree(t *testing.T) {
	img := ForTest(t)
	kernel, err := os.ReadFile(img.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := os.ReadFile(img.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	var ms [2]*vmm.Machine
	var console [2]bytes.Buffer
	for i, e := range []vmm.Engine{vmm.EngineInterp, vmm.EngineJIT} {
		f, err := disk.Open(img.Disk)
		if err != nil {
			t.Fatal(err)
		}
		d, err := disk.New("disk0", f)
		if err != nil {
			t.Fatal(err)
		}
		m, err := vmm.New(vmm.Config{MemoryBytes: 256 << 20, Disks: []*disk.Disk{d}, RTCStartUnix: diskEpoch, Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		m.Console = func(b byte) { console[i].WriteByte(b) }
		if err := m.Boot(kernel, initrd, Demo); err != nil {
			t.Fatal(err)
		}
		ms[i] = m
	}
	a, b := ms[0], ms[1]
	const stride = 999_983
	for n := 1; ; n++ {
		why, err := a.Run(a.Step() + stride)
		if err != nil {
			t.Fatal(err)
		}
		if why2, err := b.Run(b.Step() + stride); err != nil || why2 != why || b.Step() != a.Step() {
			t.Fatalf("the interpreter is %v at step %d; the translator %v at %d (%v)", why, a.Step(), why2, b.Step(), err)
		}
		for _, r := range x86.Registers() {
			if x, y := r.Read(a.CPUs[0]), r.Read(b.CPUs[0]); !bytes.Equal(x, y) {
				t.Errorf("step %d: %s is %x on the translator, %x on the interpreter", a.Step(), r.Name, y, x)
			}
		}
		if (n%500 == 0 || why != vmm.Running) && !bytes.Equal(a.RAM.Data(), b.RAM.Data()) {
			t.Errorf("step %d: memory differs", a.Step())
		}
		if t.Failed() {
			t.FailNow()
		}
		if why != vmm.Running {
			if why != vmm.PowerOff || !bytes.Equal(console[0].Bytes(), console[1].Bytes()) {
				t.Errorf("ended with %v; equal consoles: %v", why, bytes.Equal(console[0].Bytes(), console[1].Bytes()))
			}
			return
		}
	}
}
