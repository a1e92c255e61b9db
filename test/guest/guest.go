package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where a guest is kept, below the root of the source tree, unless the caller says otherwise.
const Dir = ".cache/guest"

// Image is a guest that was built: paths of files.
type Image struct {
	Kernel, Initrd           string // Debian's kernel for all machines
	CloudKernel, CloudInitrd string // and its smaller one for virtual machines
	Disk                     string // 16 MiB of ext4 with FileName on it
	Programs                 string // directory of the programs in the initrd, which run on the host too
	Packages                 []Package
}

// What the guest can be told to do.
const (
	commandLine = "console=ttyS0 panic=-1 nokaslr refault.run="

	// Demo runs hello in the background, tells where the file lies on the disk, prints it, and powers off.
	Demo = commandLine + "demo"
	// Stress runs the stress of user space, and powers off. Followed by a colon and a list of parts of src/stress.c, those only.
	Stress = commandLine + "stress"
	// Shell runs a shell on the console.
	Shell = commandLine + "shell"
	// PowerOff powers off as soon as the disk is mounted.
	PowerOff = commandLine + "poweroff"
)

// Bench returns the command line for fixed pieces of work of src/bench.c, one after the other.
func Bench(works ...string) string { return commandLine + "bench:" + strings.Join(works, ",") }

// Works are the pieces of work that Bench knows.
var Works = [...]string{"sort", "sha256", "matrix", "extended", "memwalk", "syscalls", "pipes", "fork"}

// What the guest says. Each is a whole line, or its beginning.
const (
	SaysReady    = "guest: ready"
	SaysDone     = "guest: done" // the last line: without it, something went wrong
	SaysHello    = "hello: "     // … pid N virtual ADDRESS physical ADDRESS
	SaysBlockmap = "blockmap: "  // … FILE lba N count N
	SaysCat      = "guest: cat: exit status "
	SaysBench    = "guest: bench "              // … WORK, as it begins
	SaysBenchEnd = "guest: bench: exit status " // … as it ends
	SaysHelloEnd = "guest: hello: exit status "
)

// record is what built.json holds.
type record struct {
	Inputs   string // hash of what the guest was made from
	Packages []Package
	Outputs  map[string]string // SHA-256 by path below the cache's directory
}

const recordFile = "built.json"

// applets are the busybox programs that src/init calls, and those that a person at the shell will miss first.
var applets = []string{"[", "basename", "cat", "chmod", "cp", "cut", "date", "dd", "dmesg", "echo", "env", "expr", "false", "free", "grep", "head", "hexdump",
	"insmod", "kill", "ln", "ls", "lsmod", "mkdir", "mkfifo", "mknod", "mount", "mv", "poweroff", "printf", "ps", "reboot", "rm", "rmdir", "seq", "setsid", "cttyhack",
	"sh", "sleep", "sort", "stat", "stty", "sync", "tail", "test", "time", "top", "touch", "tr", "true", "umount", "uname", "uptime", "usleep", "vi", "wc", "xxd"}

// Build makes the guest in dir, or finds that it is there already. progress,
// which may be nil, is told what is being done.
func Build(ctx context.Context, dir string, progress func(string)) (img *Image, err error) {
	if progress == nil {
		progress = func(string) {}
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "packages"), 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()

	if r := cached(dir); r != nil {
		return image(dir, r.Packages), nil
	}
	if err := os.Remove(filepath.Join(dir, recordFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	packages, err := build(ctx, dir, progress)
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	r := record{Inputs: inputs(), Packages: packages, Outputs: map[string]string{}}
	for _, name := range outputs() {
		if r.Outputs[name], err = hashFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, recordFile), append(b, '\n'), 0o644); err != nil {
		return nil, err
	}
	return image(dir, packages), nil
}

func image(dir string, packages []Package) *Image {
	at := func(name string) string { return filepath.Join(dir, name) }
	return &Image{Kernel: at("vmlinuz"), Initrd: at("initrd.cpio"), CloudKernel: at("vmlinuz-cloud"), CloudInitrd: at("initrd-cloud.cpio"),
		Disk: at("disk.img"), Programs: at("programs"), Packages: packages}
}

// outputs returns the names of the files that a guest is.
func outputs() []string {
	names := []string{"vmlinuz", "initrd.cpio", "vmlinuz-cloud", "initrd-cloud.cpio", "disk.img"}
	for _, p := range programNames() {
		names = append(names, "programs/"+p)
	}
	return names
}

// lock waits until no other process builds in the same directory.
func lock(name string) (unlock func() error, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return f.Close, nil
}

// cached returns the record of the guest in dir if that is whole, and made from what would be used now.
func cached(dir string) *record {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil || r.Inputs != inputs() {
		return nil
	}
	for _, name := range outputs() {
		if sum, err := hashFile(filepath.Join(dir, name)); err != nil || sum != r.Outputs[name] {
			return nil
		}
	}
	return r
}

// recipe changes whenever the code of this package makes other bytes of the same sources.
const recipe = 2

// inputs returns a hash of all that a guest is made from.
func inputs() string {
	h := sha256.New()
	fmt.Fprintln(h, recipe, kernelSource, cloudSource, busyboxSource, wantedModules, applets, compilerFlags, diskBytes, diskUUID, diskHash, diskFeatures, diskEpoch)
	fmt.Fprintf(h, "%x\n", sha256.Sum256(FileText()))
	files, err := fs.Glob(sources, "src/*")
	if err != nil {
		panic(fmt.Sprintf("BUG: %v", err))
	}
	for _, f := range files {
		fmt.Fprintf(h, "%s %x\n", f, sha256.Sum256(sourceFile(filepath.Base(f))))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func build(ctx context.Context, dir string, progress func(string)) (packages []Package, err error) {
	work, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	progress("compiling " + strings.Join(programNames(), ", "))
	if err := os.MkdirAll(filepath.Join(dir, "programs"), 0o755); err != nil {
		return nil, err
	}
	common := initramfs{}
	for _, name := range programNames() {
		if err := compile(ctx, work, name); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(filepath.Join(work, name))
		if err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(dir, "programs", name), b, 0o755); err != nil {
			return nil, err
		}
		common.program("bin/"+name, b)
	}

	fetch := func(s source) (string, error) {
		file, p, err := s.fetch(ctx, filepath.Join(dir, "packages"), progress)
		packages = append(packages, p)
		return file, err
	}
	deb, err := fetch(busyboxSource)
	if err != nil {
		return nil, err
	}
	if err := addBusybox(common, deb); err != nil {
		return nil, err
	}
	common.program("init", sourceFile("init"))
	for _, d := range []string{"dev", "disk", "proc", "run", "sys", "tmp"} {
		common.directory(d)
	}
	for _, k := range []struct {
		source         source
		kernel, initrd string
	}{{kernelSource, "vmlinuz", "initrd.cpio"}, {cloudSource, "vmlinuz-cloud", "initrd-cloud.cpio"}} {
		deb, err := fetch(k.source)
		if err != nil {
			return nil, err
		}
		progress("unpacking " + filepath.Base(deb))
		kernel, err := readKernel(deb)
		if err != nil {
			return nil, err
		}
		initrd := initramfs{}
		for name, f := range common {
			initrd[name] = f
		}
		order, err := kernel.loadOrder(wantedModules)
		if err != nil {
			return nil, fmt.Errorf("package %s: %w", deb, err)
		}
		for _, name := range order {
			initrd.file("lib/modules/"+name+".ko", kernel.modules[name].image)
		}
		initrd.file("lib/modules/order", []byte(strings.Join(order, "\n")+"\n"))
		if err := writeFile(filepath.Join(dir, k.kernel), kernel.vmlinuz, 0o644); err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(dir, k.initrd), initrd.cpio(), 0o644); err != nil {
			return nil, err
		}
	}
	progress("making the disk")
	return packages, makeDisk(ctx, work, filepath.Join(dir, "disk.img"))
}

// addBusybox adds busybox, and the names under which it is called.
func addBusybox(i initramfs, deb string) error {
	err := readDebFile(deb, func(name string, r io.Reader) error {
		if strings.TrimPrefix(name, "usr/") != "bin/busybox" {
			return nil
		}
		b, err := readLimited(r, fileMax)
		if err != nil {
			return err
		}
		i.program("bin/busybox", b)
		return errStop
	})
	if err != nil {
		return err
	}
	if _, ok := i["bin/busybox"]; !ok {
		return fmt.Errorf("package %s holds no busybox", deb)
	}
	for _, a := range applets {
		i.symlink("bin/"+a, "busybox")
	}
	return nil
}
