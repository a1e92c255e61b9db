package guest

import "testing"

// TestNewer: a kernel years newer than the release's own boots as well, from the same disk.
func TestNewer(t *testing.T) {
	img := NewerForTest(t)
	log := boot(t, img.Kernel, img.Initrd, img.Disk, Demo, 8e9)
	at := 0
	for _, want := range []string{"Linux version 6.12.", SaysReady, "\n" + SaysHello + "pid ", string(FileText()), SaysCat + "0\n", "\nhello: done, 0 wrong bytes\n", SaysDone} {
		_, at = log.find(t, want, at)
	}
}
