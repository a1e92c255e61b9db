package tiny

import (
	"strings"
	"testing"

	"refault/vmm"
	"refault/vmm/dev/disk"
)

func TestGuestRunsToItsEnd(t *testing.T) {
	d, err := disk.New("disk0", Disk())
	if err != nil {
		t.Fatal(err)
	}
	m, err := vmm.New(vmm.Config{MemoryBytes: MemoryBytes, Disks: []*disk.Disk{d}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Boot(Kernel, nil, "20"); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	m.Console = func(b byte) { out.WriteByte(b) }
	why, err := m.Run(10_000_000)
	_, status := m.Stopped()
	t.Logf("%v at step %d, time %d ns, console %q", why, m.Step(), m.TimeNs(), out.String())
	if err != nil || why != vmm.DebugExit || status != ExitStatus || !strings.HasSuffix(out.String(), "\ndone\n") {
		t.Errorf("ended with %v, %v, status %#x", why, err, status)
	}
}
