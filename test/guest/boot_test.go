package guest

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"refault/vmm"
	"refault/vmm/dev/disk"
)

// boot runs a guest in the machine until it stops, and returns the console's log.
func boot(t *testing.T, kernel, initrd, image, commandLine string, stepsMax uint64) string {
	t.Helper()
	k, err := os.ReadFile(kernel)
	if err != nil {
		t.Fatal(err)
	}
	i, err := os.ReadFile(initrd)
	if err != nil {
		t.Fatal(err)
	}
	f, err := disk.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.New("disk0", f)
	if err != nil {
		t.Fatal(err)
	}
	m, err := vmm.New(vmm.Config{MemoryBytes: 256 << 20, Disks: []*disk.Disk{d}, RTCStartUnix: diskEpoch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	var console bytes.Buffer
	m.Console = func(b byte) { console.WriteByte(b) }
	if err := m.Boot(k, i, commandLine); err != nil {
		t.Fatal(err)
	}
	why, err := m.Run(stepsMax)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped: %v at step %d", why, m.Step())
	if why != vmm.PowerOff {
		t.Errorf("the guest stopped with %v, not by powering off", why)
	}
	return strings.ReplaceAll(console.String(), "\r\n", "\n")
}

func built(t *testing.T) *Image {
	t.Helper()
	if testing.Short() {
		t.Skip("boots Linux")
	}
	img, err := Build(context.Background(), "../../"+Dir, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestDemo(t *testing.T) {
	img := built(t)
	for _, k := range []struct{ name, kernel, initrd string }{{"amd64", img.Kernel, img.Initrd}, {"cloud-amd64", img.CloudKernel, img.CloudInitrd}} {
		t.Run(k.name, func(t *testing.T) {
			log := boot(t, k.kernel, k.initrd, img.Disk, Demo, 6e9)
			at := 0
			for _, want := range []string{SaysReady, "\n" + SaysHello + "pid ", "\n" + SaysBlockmap, string(FileText()), SaysCat + "0\n", SaysHelloEnd + "0\n", SaysDone} {
				i := strings.Index(log[at:], want)
				if i < 0 {
					t.Fatalf("the console does not say %q after byte %d:\n%s", want, at, log)
				}
				at += i + len(want)
			}
		})
	}
}

func TestStress(t *testing.T) {
	img := built(t)
	log := boot(t, img.Kernel, img.Initrd, img.Disk, Stress, 20e9)
	if want := "\nstress: done\nguest: stress: exit status 0\n"; !strings.Contains(log, want) || !strings.Contains(log, SaysDone) {
		t.Errorf("the console does not say %q:\n%s", want, log)
	}
}

// TestBench checks that the pieces of work give in the guest what they give on the host: bench compares checksums itself.
func TestBench(t *testing.T) {
	img := built(t)
	for _, work := range []string{"sort", "pipes"} {
		t.Run(work, func(t *testing.T) {
			log := boot(t, img.CloudKernel, img.CloudInitrd, img.Disk, Bench(work), 10e9)
			if !strings.Contains(log, "\nguest: bench: exit status 0\n") || !strings.Contains(log, SaysDone) {
				t.Errorf("bench %s failed:\n%s", work, log)
			}
		})
	}
}
