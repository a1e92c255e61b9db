package linux

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"refault/test/guest"
	"refault/vmm"
	"refault/vmm/boot"
	"refault/vmm/dev/disk"
	"refault/vmm/ksym"
)

// The demo guest's processes while hello runs.
func TestDebian(t *testing.T) {
	if testing.Short() {
		t.Skip("boots Linux")
	}
	img, err := guest.Build(context.Background(), "../../"+guest.Dir, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := os.ReadFile(img.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := os.ReadFile(img.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	vmlinux, err := boot.Vmlinux(kernel)
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := ksym.Read(vmlinux)
	if err != nil {
		t.Fatal(err)
	}
	k, err := New(vmlinux, symbols)
	if err != nil {
		t.Fatal(err)
	}
	f, err := disk.Open(img.Disk)
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.New("disk0", f)
	if err != nil {
		t.Fatal(err)
	}
	m, err := vmm.New(vmm.Config{MemoryBytes: 256 << 20, Disks: []*disk.Disk{d}, Engine: vmm.EngineJIT})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	var console bytes.Buffer
	m.Console = func(b byte) { console.WriteByte(b) }
	if err := m.Boot(kernel, initrd, guest.Demo); err != nil {
		t.Fatal(err)
	}
	c := m.CPUs[0]
	if ps := k.Processes(c); len(ps) > 1 {
		t.Errorf("before the kernel runs: %v", ps)
	}
	for !strings.Contains(console.String(), guest.SaysHello+"pid") && m.Step() < 4e9 {
		if _, err := m.Run(m.Step() + 1_000_000); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]Process{}
	for _, p := range k.Processes(c) {
		names[p.Name] = p
	}
	if p := names["init"]; p.PID != 1 || p.CR3 == 0 {
		t.Errorf("init: %+v, of %v", p, names)
	}
	if p := names["kthreadd"]; p.PID != 2 || p.CR3 != 0 {
		t.Errorf("kthreadd: %+v", p)
	}
	hello, ok := names["hello"]
	if !ok || hello.CR3 == 0 {
		t.Fatalf("no hello in %v", names)
	}
	for range 200 {
		if c.CPL == 3 {
			break
		}
		m.Run(m.Step() + 10_000)
	}
	if p, ok := k.Current(c); !ok || p != hello || p.CR3 != c.CR3&^0xfff {
		t.Errorf("running: %+v, %v; CR3 %#x; hello is %+v", p, ok, c.CR3, hello)
	}
}

func TestBadBTF(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 24), {0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := parseBTF(b); !errors.Is(err, ErrNotUnderstood) {
			t.Errorf("%x: %v", b, err)
		}
	}
	if _, err := New([]byte("no ELF"), nil); !errors.Is(err, ErrNotUnderstood) {
		t.Error(err)
	}
}

func FuzzBTF(f *testing.F) {
	f.Add([]byte("\x9f\xeb\x01\x00\x18\x00\x00\x00\x00\x00\x00\x00\x18\x00\x00\x00\x18\x00\x00\x00\x05\x00\x00\x00" +
		"\x01\x00\x00\x00\x01\x00\x00\x04\x08\x00\x00\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00a\x00b\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := parseBTF(b); err == nil {
			x.member("a", "b")
		}
	})
}
