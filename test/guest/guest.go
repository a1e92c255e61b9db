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
	"maps"
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

// record is what built.json, and newer.json, holds.
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

	packages, err := recorded(dir, recordFile, inputs(), outputs(), func() ([]Package, error) { return build(ctx, dir, progress) })
	if err != nil {
		return nil, err
	}
	return image(dir, packages), nil
}

// BuildNewer is Build, and makes what it returns as Kernel and Initrd of the newest kernel that Debian has for the
// release: for tests, of what changed in Linux since. There is an error where apt knows of none.
func BuildNewer(ctx context.Context, dir string, progress func(string)) (img *Image, err error) {
	if progress == nil {
		progress = func(string) {}
	}
	if img, err = Build(ctx, dir, progress); err != nil {
		return nil, err
	}
	dir = filepath.Dir(img.Disk)
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	made := []string{"vmlinuz-newer", "initrd-newer.cpio"}
	packages, err := recorded(dir, "newer.json", fmt.Sprintln(inputs(), newerSource), made, func() ([]Package, error) {
		common := initramfs{}
		for _, name := range programNames() {
			b, err := os.ReadFile(filepath.Join(img.Programs, name))
			if err != nil {
				return nil, err
			}
			common.program("bin/"+name, b)
		}
		f := fetcher{ctx: ctx, dir: dir, progress: progress}
		if err := f.skeleton(common); err != nil {
			return nil, err
		}
		return f.packages, f.kernel(newerSource, common, made[0], made[1])
	})
	if err != nil {
		return nil, err
	}
	img.Kernel, img.Initrd, img.Packages = filepath.Join(dir, made[0]), filepath.Join(dir, made[1]), packages
	return img, nil
}

// recorded makes outputs in dir and notes of what, or finds by the note that they are there already.
func recorded(dir, note, inputs string, outputs []string, build func() ([]Package, error)) ([]Package, error) {
	if r := cached(dir, note, inputs, outputs); r != nil {
		return r.Packages, nil
	}
	if err := os.Remove(filepath.Join(dir, note)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	packages, err := build()
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	r := record{Inputs: inputs, Packages: packages, Outputs: map[string]string{}}
	for _, name := range outputs {
		if r.Outputs[name], err = hashFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return nil, err
	}
	return packages, writeFile(filepath.Join(dir, note), append(b, '\n'), 0o644)
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

// cached returns the record of what was made in dir if that is whole, and made from what would be used now.
func cached(dir, note, inputs string, outputs []string) *record {
	b, err := os.ReadFile(filepath.Join(dir, note))
	if err != nil {
		return nil
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil || r.Inputs != inputs {
		return nil
	}
	for _, name := range outputs {
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

	f := fetcher{ctx: ctx, dir: dir, progress: progress}
	if err := f.skeleton(common); err != nil {
		return nil, err
	}
	if err := f.kernel(kernelSource, common, "vmlinuz", "initrd.cpio"); err != nil {
		return nil, err
	}
	if err := f.kernel(cloudSource, common, "vmlinuz-cloud", "initrd-cloud.cpio"); err != nil {
		return nil, err
	}
	progress("making the disk")
	return f.packages, makeDisk(ctx, work, filepath.Join(dir, "disk.img"))
}

// fetcher makes files of Debian's packages.
type fetcher struct {
	ctx      context.Context
	dir      string
	progress func(string)
	packages []Package // that were used
}

func (f *fetcher) fetch(s source) (string, error) {
	file, p, err := s.fetch(f.ctx, filepath.Join(f.dir, "packages"), f.progress)
	f.packages = append(f.packages, p)
	return file, err
}

// skeleton adds what every initramfs of the guest has besides the programs.
func (f *fetcher) skeleton(i initramfs) error {
	deb, err := f.fetch(busyboxSource)
	if err != nil {
		return err
	}
	if err := addBusybox(i, deb); err != nil {
		return err
	}
	i.program("init", sourceFile("init"))
	for _, d := range []string{"dev", "disk", "proc", "run", "sys", "tmp"} {
		i.directory(d)
	}
	return nil
}

// kernel writes the kernel of a package, and an initramfs of what is common to all kernels and of its modules.
func (f *fetcher) kernel(s source, common initramfs, vmlinuz, initrd string) error {
	deb, err := f.fetch(s)
	if err != nil {
		return err
	}
	f.progress("unpacking " + filepath.Base(deb))
	kernel, err := readKernel(deb)
	if err != nil {
		return err
	}
	order, err := kernel.loadOrder(wantedModules)
	if err != nil {
		return fmt.Errorf("package %s: %w", deb, err)
	}
	i := maps.Clone(common)
	for _, name := range order {
		i.file("lib/modules/"+name+".ko", kernel.modules[name].image)
	}
	i.file("lib/modules/order", []byte(strings.Join(order, "\n")+"\n"))
	if err := writeFile(filepath.Join(f.dir, vmlinuz), kernel.vmlinuz, 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(f.dir, initrd), i.cpio(), 0o644)
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
