package linux

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"refault/test/guest"
	"refault/vmm"
	"refault/vmm/boot"
	"refault/vmm/dev/disk"
	"refault/vmm/ksym"
)

// The demo guest's processes and modules while hello runs.
func TestDebian(t *testing.T) { testDebian(t, guest.ForTest(t)) }

// The same of a kernel that keeps the parts of a module in an array (since Linux 6.4), and the running
// process with other things of its processor (since 6.2).
func TestDebianNewer(t *testing.T) { testDebian(t, guest.NewerForTest(t)) }

func testDebian(t *testing.T, img *guest.Image) {
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
	if ms := k.Modules(c); len(ms) > 0 {
		t.Errorf("before the kernel runs: %v", ms)
	}
	if ps := k.Processes(c); len(ps) > 1 {
		t.Errorf("before the kernel runs: %v", ps)
	}
	for !strings.Contains(console.String(), guest.SaysHello+"pid") && m.Step() < 4e9 {
		if _, err := m.Run(m.Step() + 1_000_000); err != nil {
			t.Fatal(err)
		}
	}
	modules := NewNames(k)
	loaded := map[string]Module{}
	for _, m := range k.Modules(c) {
		loaded[m.Name] = m
	}
	for name, symbol := range map[string]string{"ata_piix": "piix_init_one", "libata": "ata_qc_complete", "sd_mod": "sd_probe"} {
		m, ok := loaded[name]
		if !ok {
			t.Errorf("no module %s in %v", name, loaded)
			continue
		}
		i := slices.IndexFunc(modules.symbols(c, &m), func(s ksym.Symbol) bool { return s.Name == symbol })
		if i < 0 {
			t.Errorf("%s: no %s among %d symbols", name, symbol, len(modules.symbols(c, &m)))
			continue
		}
		at := modules.symbols(c, &m)[i].Addr
		if got := modules.Name(c, at+1); got != name+":"+symbol+"+0x1" {
			t.Errorf("%#x is %q", at+1, got)
		}
		if got := modules.Name(c, at); got != name+":"+symbol {
			t.Errorf("%#x is %q", at, got)
		}
		for _, in := range []string{name, ""} {
			places := k.Find(c, in, symbol)
			if len(places) != 1 || places[0].Addr != at || places[0].Module.Name != name || !k.Holds(c, &places[0]) {
				t.Fatalf("%s:%s is at %+v", in, symbol, places)
			}
			elsewhere, renamed := places[0], places[0]
			elsewhere.Addr, renamed.Module.Name = k.initTask, "other"
			if k.Holds(c, &elsewhere) || k.Holds(c, &renamed) {
				t.Errorf("%s has %#x, or another name", name, k.initTask)
			}
		}
		if len(k.Find(c, "other", symbol)) > 0 || len(k.Find(c, name, symbol+"x")) > 0 {
			t.Errorf("another module, or symbol, than %s:%s is there", name, symbol)
		}
		pa, ok := c.Translate(at)
		if va, ok2 := modules.Holding(c, pa); !ok || !ok2 || va != at {
			t.Errorf("%#x is at physical %#x, which is at %#x", at, pa, va)
		}
	}
	for _, addr := range []uint64{0, 0x401000, k.initTask, 1<<64 - 1, 0xffffffffc0000000 - 1} {
		if got := modules.Name(c, addr); got != "" {
			t.Errorf("%#x is %q", addr, got)
		}
	}
	if s := modules.Symbols(c); len(s) < 1000 || !slices.IsSortedFunc(s, func(a, b ksym.Symbol) int { return cmp.Compare(a.Addr, b.Addr) }) {
		t.Errorf("%d symbols of all modules", len(s))
	}
	if at, ok := k.ModuleStart(); !ok || symbols.Name(at) != "do_init_module" {
		t.Errorf("modules start at %#x", at)
	}
	names := map[string]Process{}
	for _, p := range k.Processes(c) {
		if _, ok := names[p.Name]; !ok { // children of init may not have got a name of their own yet
			names[p.Name] = p
		}
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

// FuzzModuleSymbols: whatever stands in the guest's memory, the symbols lie in the module and ascend.
func FuzzModuleSymbols(f *testing.F) {
	table := make([]byte, 2*elfSymbolBytes)
	le.PutUint32(table, 1)
	le.PutUint16(table[6:], 1)
	le.PutUint64(table[8:], 1<<63+16)
	copy(table[elfSymbolBytes:], table)
	f.Add(table, []byte("\x00piix_init_one\x00"))
	f.Fuzz(func(t *testing.T, table, strings []byte) {
		m := &Module{Parts: []Part{{1 << 63, 4096}}}
		all := parseSymbols(table, strings, m)
		for i, s := range all {
			if !m.has(s.Addr) || s.Name == "" || i > 0 && s.Addr < all[i-1].Addr {
				t.Errorf("%+v", all)
			}
		}
	})
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
