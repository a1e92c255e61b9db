package bare

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"refault/vmm"
	"refault/vmm/dev/ata"
	"refault/vmm/dev/disk"
)

// rig is the guest in the machine.
type rig struct {
	t       *testing.T
	m       *vmm.Machine
	console bytes.Buffer
}

func newRig(t *testing.T, commandLine string, disks ...*disk.Disk) *rig {
	t.Helper()
	m, err := vmm.New(vmm.Config{MemoryBytes: MemoryBytes, Disks: disks, RTCStartUnix: 1700000000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	r := &rig{t: t, m: m}
	m.Console = func(b byte) { r.console.WriteByte(b) }
	if err := m.Boot(Kernel, nil, commandLine); err != nil {
		t.Fatal(err)
	}
	return r
}

func ownDisk(t *testing.T) *disk.Disk {
	t.Helper()
	d, err := disk.New("disk0", disk.Bytes(Disk()))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// run runs the guest to its end.
func (r *rig) run(want vmm.StopReason) string {
	r.t.Helper()
	why, err := r.m.Run(500e6)
	if err != nil {
		r.t.Fatal(err)
	}
	if why != want {
		r.t.Errorf("stopped with %v at step %d, not with %v", why, r.m.Step(), want)
	}
	return strings.ReplaceAll(r.console.String(), "\r\n", "\n")
}

// until runs the guest until its console says what matches, and a little further, so that hello is in its loop.
func (r *rig) until(re *regexp.Regexp) []string {
	r.t.Helper()
	for r.m.Step() < 100e6 {
		if _, err := r.m.Run(r.m.Step() + 10000); err != nil {
			r.t.Fatal(err)
		}
		if m := re.FindStringSubmatch(r.console.String()); m != nil {
			return m
		}
	}
	r.t.Fatalf("the console does not say %v:\n%s", re, &r.console)
	return nil
}

// story checks that the console says these things in this order.
func story(t *testing.T, console string, wants ...string) {
	t.Helper()
	at := 0
	for _, want := range wants {
		i := strings.Index(console[at:], want)
		if i < 0 {
			t.Fatalf("the console does not say %q after byte %d:\n%s", want, at, console)
		}
		at += i + len(want)
	}
}

var hello = regexp.MustCompile(`hello: task 1 virtual 0x7f0000200000 physical (0x[0-9a-f]+)\r\n`)

// page returns the physical address that hello tells, with hello under way.
func (r *rig) page() uint64 {
	r.t.Helper()
	addr, err := strconv.ParseUint(r.until(hello)[1], 0, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return addr
}

func TestGolden(t *testing.T) {
	r := newRig(t, "rounds=3", ownDisk(t))
	got := r.run(vmm.PowerOff)
	story(t, got, "guest: timer: ticks", "guest: disk: ", " 2048 sectors\n", "hello: task 1 ", "\nblockmap: lines.txt lba 64 count 8\n")
	for _, line := range strings.SplitAfter(string(FileText()), "\n") {
		story(t, got, line)
	}
	story(t, got, "guest: cat: exit status 0\n", "hello: round 3 of 3\n", "hello: done, 0 wrong bytes\n", "guest: hello: exit status 0\n")
	if !strings.HasSuffix(got, "\nguest: done\n") {
		t.Errorf("the last line is not done:\n%s", got)
	}
	t.Logf("%d steps\n%s", r.m.Step(), got)
}

const (
	valid = 1<<63 | 1<<60 | 1<<59 | 1<<58 // and enabled, with address and miscellaneous information
	uc    = 1 << 61
	pcc   = 1 << 57
	s     = 1 << 56
	ar    = 1 << 55
)

func TestMachineChecks(t *testing.T) {
	for _, c := range []struct {
		name      string
		status    uint64
		mcgStatus uint64
		elsewhere uint64 // address, if not hello's page
		stop      vmm.StopReason
		want      []string
	}{
		{"corrected", valid | 0xc0, 0, 0, vmm.PowerOff, []string{"guest: corrected: memory error, bank 9 status 0x9c000040000000c0 addr ", "hello: done, 0 wrong bytes", "guest: hello: exit status 0"}},
		{"UCNA", valid | uc | 0xc0, 0, 0, vmm.PowerOff, []string{"guest: corrected: no action required, bank 9 ", "guest: hello: exit status 0"}},
		{"SRAO", valid | uc | s | 0xc0, 5, 0, vmm.PowerOff, []string{"guest: machine check: MCG_STATUS 0x5 ", "bank 9 status 0xbd000000000000c0 addr ", "guest: recovered: page ",
			"hello goes on with page ", "hello: done, 0 wrong bytes", "guest: hello: exit status 0", "guest: done"}},
		{"SRAO of an unused page", valid | uc | s | 0xc0, 5, 0x700000, vmm.PowerOff, []string{"guest: recovered: page 0x700000 offlined, not in use", "guest: hello: exit status 0"}},
		{"SRAR", valid | uc | s | ar | 0x134, 7, 0, vmm.PowerOff, []string{"bank 9 status 0xbd80000000000134 addr ", "guest: recovered: killed hello due to hardware memory corruption",
			"guest: cat: exit status 0", "guest: hello: exit status 135", "guest: done"}},
		{"SRAR in the kernel", valid | uc | s | ar | 0x134, 7, 0x100000, vmm.DebugExit, []string{"guest: panic: machine check: memory of the kernel at 0x100000"}},
		{"corrupt", valid | uc | s | pcc | 0x135, 5, 0, vmm.DebugExit, []string{"guest: panic: machine check: processor context corrupt"}},
		{"no way back", valid | uc | s | ar | 0x134, 4, 0, vmm.DebugExit, []string{"guest: panic: machine check: no way back"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "rounds=2", ownDisk(t))
			addr := r.page()
			if c.elsewhere != 0 {
				addr = c.elsewhere
			}
			if err := r.m.Inject(&vmm.Fault{Kind: vmm.FaultMCE, Bank: 9, Status: c.status, MCGStatus: c.mcgStatus, Addr: addr, Misc: 0x8c}); err != nil {
				t.Fatal(err)
			}
			got := r.run(c.stop)
			story(t, got, c.want...)
			if c.stop == vmm.DebugExit && strings.Contains(got, "done") {
				t.Errorf("went on after a panic:\n%s", got)
			}
		})
	}
}

// TestMachineCheckInKernel has SRAR arrive at each of many places where the kernel runs: its main thread, and what it does for hello.
func TestMachineCheckInKernel(t *testing.T) {
	for n := range 60 {
		r := newRig(t, "rounds=2", ownDisk(t))
		addr := r.page()
		r.until(regexp.MustCompile(`blockmap: `))
		for skip := n * 41; skip >= 0; {
			if _, err := r.m.Run(r.m.Step() + 1); err != nil {
				t.Fatal(err)
			}
			if r.m.CPUs[0].CPL == 0 {
				skip--
			}
		}
		if err := r.m.Inject(&vmm.Fault{Kind: vmm.FaultMCE, Bank: 3, Status: valid | uc | s | ar | 0x134, MCGStatus: 7, Addr: addr, Misc: 0x8c}); err != nil {
			t.Fatal(err)
		}
		story(t, r.run(vmm.PowerOff), "guest: recovered: killed hello", "guest: cat: exit status 0", "guest: hello: exit status 135", "guest: done")
		if t.Failed() {
			return
		}
	}
}

func TestDiskFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault ata.Fault
		want  []string
	}{
		{"unreadable sector", ata.Fault{ID: 1, Kind: ata.FaultUNC, Ops: ata.OpRead, LBA: FileLBA, Count: 1},
			[]string{"guest: hda: read of sector 64: status 0x51, error 0x40 { UNC }, try 1 of 4\n", "try 4 of 4\n", "guest: I/O error, dev hda, sector 64\n", "guest: cat: exit status 1\n", "guest: done"}},
		{"sector not found, twice", ata.Fault{ID: 1, Kind: ata.FaultIDNF, Ops: ata.OpRead, LBA: FileLBA + 3, Count: 1, Remaining: 2},
			[]string{"read of sector 67: status 0x51, error 0x10 { IDNF }, try 2 of 4\n", "line 24, sector 3", "guest: cat: exit status 0\n"}},
		{"aborted", ata.Fault{ID: 1, Kind: ata.FaultABRT, Ops: ata.OpRead, LBA: FileLBA, Count: 1, Remaining: 1},
			[]string{"{ ABRT }, try 1 of 4\n", "guest: cat: exit status 0\n"}},
		{"no interrupt", ata.Fault{ID: 1, Kind: ata.FaultTimeout, Ops: ata.OpRead, LBA: FileLBA, Count: 1, Remaining: 1},
			[]string{"guest: hda: read of sector 64: no interrupt, reset, try 1 of 4\n", "guest: cat: exit status 0\n", "guest: done"}},
		{"wrong data", ata.Fault{ID: 1, Kind: ata.FaultWrong, Ops: ata.OpRead, LBA: FileLBA, Count: 1, Offset: 0, Mask: []byte{1}},
			[]string{"\nmine 00, sector 0", "guest: cat: exit status 0\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "rounds=2", ownDisk(t))
			r.page()
			if err := r.m.Inject(&vmm.Fault{Kind: vmm.FaultDisk, Disk: c.fault}); err != nil {
				t.Fatal(err)
			}
			story(t, r.run(vmm.PowerOff), c.want...)
		})
	}
}

func TestWithoutDisk(t *testing.T) {
	r := newRig(t, "rounds=1")
	story(t, r.run(vmm.PowerOff), "guest: disk: none\n", "cat: cannot read the file\n", "guest: cat: exit status 1\n", "guest: done")
}

func TestForeignDisk(t *testing.T) {
	d, err := disk.New("disk0", disk.Bytes(make([]byte, 4096)))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "rounds=1", d)
	story(t, r.run(vmm.PowerOff), "guest: disk: no directory on it\n", "guest: cat: exit status 1\n", "guest: done")
}

// TestUpToDate checks that the committed kernel is what its source gives.
func TestUpToDate(t *testing.T) {
	nasm, err := exec.LookPath("nasm")
	if err != nil {
		t.Skip("nasm is not installed: bare.elf is not compared with bare.asm")
	}
	out := filepath.Join(t.TempDir(), "bare.elf")
	if b, err := exec.Command(nasm, "-Wall", "-Werror", "-f", "bin", "-o", out, "bare.asm").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, Kernel) {
		t.Error("bare.elf is not what nasm makes of bare.asm: run go generate")
	}
}

// TestQEMU runs the same kernel and disk on the peer.
func TestQEMU(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	dir := t.TempDir()
	kernel, image := filepath.Join(dir, "bare.elf"), filepath.Join(dir, "disk.img")
	for name, b := range map[string][]byte{kernel: Kernel, image: Disk()} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, qemu, "-M", "pc", "-m", "16", "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot",
		"-kernel", kernel, "-append", "rounds=2", "-drive", "format=raw,if=ide,file="+image).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := strings.ReplaceAll(string(out), "\r\n", "\n")
	story(t, got, "guest: machine checks: 10 banks", "guest: timer: ", "QEMU HARDDISK, 2048 sectors\n", "hello: task 1 ", "blockmap: lines.txt lba 64 count 8\n")
	for _, line := range strings.SplitAfter(string(FileText()), "\n") {
		story(t, got, line)
	}
	story(t, got, "guest: cat: exit status 0\n", "guest: hello: exit status 0\n", "guest: done\n")
	story(t, got, "hello: done, 0 wrong bytes\n") // its time is the host's: it may be done before cat
}
