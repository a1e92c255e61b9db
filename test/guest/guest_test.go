package guest

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCpio has cpio(1) read what was written.
func TestCpio(t *testing.T) {
	i := initramfs{}
	i.program("init", []byte("#!/bin/sh\n"))
	i.file("lib/modules/odd", []byte("odd"))
	i.file("lib/modules/none", nil)
	i.symlink("bin/sh", "busybox")
	i.directory("proc")
	b := i.cpio()
	if !bytes.Equal(b, i.cpio()) {
		t.Error("not the same bytes twice")
	}
	if len(b)%4 != 0 {
		t.Errorf("%d bytes", len(b))
	}
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is not installed")
	}
	dir := t.TempDir()
	cmd := exec.Command(cpio, "-idm", "--no-preserve-owner")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if d.Type().IsRegular() && !st.ModTime().Equal(time.Unix(0, 0)) {
			t.Errorf("%s is dated %v", path, st.ModTime())
		}
		name, _ := filepath.Rel(dir, path)
		got = append(got, st.Mode().String()+" "+name)
		return nil
	})
	want := []string{"drwxr-xr-x bin", "Lrwxrwxrwx bin/sh", "-rwxr-xr-x init", "drwxr-xr-x lib", "drwxr-xr-x lib/modules",
		"-rw-r--r-- lib/modules/none", "-rw-r--r-- lib/modules/odd", "drwxr-xr-x proc"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "lib/modules/odd")); string(b) != "odd" {
		t.Errorf("%q, %v", b, err)
	}
	if to, err := os.Readlink(filepath.Join(dir, "bin/sh")); to != "busybox" {
		t.Errorf("link to %q, %v", to, err)
	}
}

func TestLoadOrder(t *testing.T) {
	k := &kernelPackage{builtin: map[string]bool{"core": true}, modules: map[string]*module{
		"disk":        {depends: []string{"bus", "core"}},
		"bus":         {depends: []string{"lib"}},
		"lib":         {},
		"sum_generic": {depends: []string{"lib"}},
		"broken":      {depends: []string{"lost"}},
		"one":         {depends: []string{"two"}},
		"two":         {depends: []string{"one"}},
	}}
	for _, c := range []struct {
		wanted, want string
		err          string
	}{
		{"disk", "lib bus disk", ""},
		{"sum_generic disk bus", "lib sum_generic bus disk", ""},
		{"other_generic disk", "lib bus disk", ""}, // not in this kernel
		{"core", "", ""},
		{"", "", ""},
		{"broken", "", "kernel module lost, needed by broken"},
		{"absent", "", "kernel module absent, needed by the guest"},
		{"one", "two one", ""}, // a cycle ends
	} {
		got, err := k.loadOrder(strings.Fields(c.wanted))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want one with %q", c.wanted, err, c.err)
			}
		} else if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, %v; want %q", c.wanted, got, err, c.want)
		}
	}
}

func TestModuleName(t *testing.T) {
	for _, c := range []struct{ file, name, suffix string }{
		{"kernel/lib/crc-t10dif.ko", "crc_t10dif", ""},
		{"kernel/fs/ext4/ext4.ko.xz", "ext4", ".xz"},
	} {
		if name, suffix, ok := moduleName(c.file); name != c.name || suffix != c.suffix || !ok {
			t.Errorf("%s: %q %q %v", c.file, name, suffix, ok)
		}
	}
	if _, _, ok := moduleName("kernel/modules.order"); ok {
		t.Error("modules.order taken for a module")
	}
}

func TestModuleDependsMistakes(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("text"), []byte("\x7fELF\x02\x01\x01")} {
		if d, err := moduleDepends(b); err == nil {
			t.Errorf("%q: %q without an error", b, d)
		}
	}
}

// TestDisk makes the image twice, at different times, under different umasks.
func TestDisk(t *testing.T) {
	make := func(umask int) []byte {
		defer syscall.Umask(syscall.Umask(umask))
		work := t.TempDir()
		file := filepath.Join(work, "disk.img")
		if err := makeDisk(context.Background(), work, file); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a := make(0o022)
	time.Sleep(1100 * time.Millisecond) // times are in seconds
	b := make(0o077)
	if !bytes.Equal(a, b) {
		t.Error("not the same bytes twice")
	}
	if len(a) != diskBytes {
		t.Errorf("%d bytes", len(a))
	}
	// In one piece, and on a sector of its own.
	if i := bytes.Index(a, FileText()); i < 0 || i%512 != 0 {
		t.Errorf("the file lies at byte %d", i)
	}
	if e2fsck, err := exec.LookPath("e2fsck"); err == nil {
		image := filepath.Join(t.TempDir(), "disk.img")
		if err := os.WriteFile(image, a, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(e2fsck, "-f", "-n", image).CombinedOutput(); err != nil {
			t.Errorf("e2fsck: %v\n%s", err, out)
		}
	}
}

// TestBuild builds from the packages that another build has fetched: twice the same, and not again without need.
func TestBuild(t *testing.T) {
	img := ForTest(t)
	first := filepath.Dir(img.Kernel)
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(first, "packages"), filepath.Join(dir, "packages")); err != nil {
		t.Fatal(err)
	}
	build := func() (said []string) {
		t.Helper()
		got, err := Build(context.Background(), dir, func(s string) { said = append(said, s) })
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Packages, img.Packages) {
			t.Errorf("packages %v, not %v", got.Packages, img.Packages)
		}
		return said
	}
	if said := build(); len(said) == 0 {
		t.Error("nothing was built")
	}
	for _, name := range append(outputs(), recordFile) {
		a, err := hashFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := hashFile(filepath.Join(dir, name)); err != nil || a != b {
			t.Errorf("%s differs between two builds: %s, %s, %v", name, a, b, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "build-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if said := build(); len(said) > 0 {
		t.Errorf("built again without need: %q", said)
	}
	// Damage is noticed, and so is a record of other inputs.
	if err := os.Truncate(filepath.Join(dir, "initrd.cpio"), 1000); err != nil {
		t.Fatal(err)
	}
	if r := cached(dir, recordFile, inputs(), outputs()); r != nil {
		t.Error("a damaged initrd was not noticed")
	}
	if said := build(); len(said) == 0 {
		t.Error("not built again after damage")
	}
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, b[:len(b)/2], bytes.Replace(b, []byte(inputs()), []byte(sum("other inputs")), 1)} {
		if err := os.WriteFile(filepath.Join(dir, recordFile), bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if r := cached(dir, recordFile, inputs(), outputs()); r != nil {
			t.Errorf("a record that reads %.60q passed", bad)
		}
	}
}

// TestProgramsOnHost: the programs run on the host as they do in the guest.
func TestProgramsOnHost(t *testing.T) {
	img := ForTest(t)
	for _, work := range Works {
		if out, err := exec.Command(filepath.Join(img.Programs, "bench"), work).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "bench: "+work+": checksum ") {
			t.Errorf("bench %s: %v\n%s", work, err, out)
		}
	}
	if out, err := exec.Command(filepath.Join(img.Programs, "bench"), "nothing").CombinedOutput(); err == nil {
		t.Errorf("bench nothing: %s", out)
	}
	if out, err := exec.Command(filepath.Join(img.Programs, "stress"), t.TempDir()).CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "\nstress: done\n") {
		t.Errorf("stress: %v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Not every file system can tell.
	if out, err := exec.Command(filepath.Join(img.Programs, "blockmap"), file).CombinedOutput(); err != nil && !strings.Contains(string(out), "FIEMAP") {
		t.Errorf("blockmap: %v\n%s", err, out)
	}
}
