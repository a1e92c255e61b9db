package guest

import (
	"os"
	"strings"
	"testing"

	"refault/vmm"
	"refault/vmm/dev/disk"
)

// console is what a guest said, and at which step it had said how much.
type console struct {
	text  string
	steps []uint64 // of each byte of text
}

// boot runs a guest in the machine until it stops, and returns what it said.
func boot(t *testing.T, kernel, initrd, image, commandLine string, stepsMax uint64) console {
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
	var said []byte
	var c console
	m.Console = func(b byte) {
		if b != '\r' {
			said = append(said, b)
			c.steps = append(c.steps, m.Step())
		}
	}
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
	c.text = string(said)
	return c
}

// find returns the step at which the guest has said something after byte from, and the byte after it.
func (c console) find(t *testing.T, what string, from int) (step uint64, end int) {
	t.Helper()
	i := strings.Index(c.text[from:], what)
	if i < 0 {
		t.Fatalf("the console does not say %q after byte %d:\n%s", what, from, c.text)
	}
	end = from + i + len(what)
	return c.steps[end-1], end
}

func TestDemo(t *testing.T) {
	img := ForTest(t)
	for _, k := range []struct{ name, kernel, initrd string }{{"amd64", img.Kernel, img.Initrd}, {"cloud-amd64", img.CloudKernel, img.CloudInitrd}} {
		t.Run(k.name, func(t *testing.T) {
			log := boot(t, k.kernel, k.initrd, img.Disk, Demo, 6e9)
			at := 0
			var steps []uint64
			for _, want := range []string{SaysReady, "\n" + SaysHello + "pid ", "\n" + SaysBlockmap, string(FileText()), SaysCat + "0\n", "\nhello: done, 0 wrong bytes\n", SaysHelloEnd + "0\n", SaysDone} {
				var step uint64
				step, at = log.find(t, want, at)
				steps = append(steps, step)
			}
			// There is time to break hello's page, and cat runs in it.
			if n := steps[5] - steps[1]; n < 200e6 {
				t.Errorf("hello goes on for %d steps after it said where its page is", n)
			}
		})
	}
}

func TestStress(t *testing.T) {
	img := ForTest(t)
	log := boot(t, img.Kernel, img.Initrd, img.Disk, Stress, 20e9)
	_, at := log.find(t, "\nstress: done\nguest: stress: exit status 0\n", 0)
	log.find(t, SaysDone, at)
}

// TestBench checks that the pieces of work give in the guest what they give on the host: bench compares checksums itself.
func TestBench(t *testing.T) {
	img := ForTest(t)
	for _, work := range []string{"sort", "extended", "pipes"} {
		t.Run(work, func(t *testing.T) {
			log := boot(t, img.CloudKernel, img.CloudInitrd, img.Disk, Bench(work), 10e9)
			_, at := log.find(t, "\nguest: bench: exit status 0\n", 0)
			log.find(t, SaysDone, at)
		})
	}
}
