package guest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// kernelPackage is what a linux-image package gives.
type kernelPackage struct {
	vmlinuz []byte
	modules map[string]*module // by name, with underscores
	builtin map[string]bool
}

// module is one kernel module.
type module struct {
	image   []byte
	depends []string
}

// wantedModules are what the guest loads besides what these depend on. The first
// ones are not dependencies of the others that a tool could see: the crypto API
// asks for them by the algorithm's name.
var wantedModules = []string{"crc32c_generic", "crct10dif_generic", "crc64_rocksoft_generic", "sd_mod", "ata_piix", "ext4"}

// moduleFolders hold all of them and of their dependencies.
var moduleFolders = []string{"kernel/crypto/", "kernel/lib/", "kernel/block/", "kernel/fs/ext4/", "kernel/fs/jbd2/", "kernel/fs/mbcache",
	"kernel/drivers/ata/", "kernel/drivers/scsi/"}

const fileMax = 64 << 20

// readKernel takes the kernel and the modules that could be wanted out of a linux-image package.
func readKernel(deb string) (*kernelPackage, error) {
	k := &kernelPackage{modules: map[string]*module{}, builtin: map[string]bool{}}
	err := readDebFile(deb, func(name string, r io.Reader) error {
		name = strings.TrimPrefix(name, "usr/")
		if strings.HasPrefix(name, "boot/vmlinuz-") {
			b, err := readLimited(r, fileMax)
			k.vmlinuz = b
			return err
		}
		rest, ok := strings.CutPrefix(name, "lib/modules/")
		if !ok {
			return nil
		}
		_, rest, _ = strings.Cut(rest, "/") // the kernel's version
		if rest == "modules.builtin" {
			b, err := readLimited(r, fileMax)
			for line := range strings.Lines(string(b)) {
				n, _, _ := moduleName(strings.TrimSpace(line))
				k.builtin[n] = true
			}
			return err
		}
		n, suffix, ok := moduleName(rest)
		if !ok || !slices.ContainsFunc(moduleFolders, func(f string) bool { return strings.HasPrefix(rest, f) }) {
			return nil
		}
		r, err := decompress(r, suffix)
		if err != nil {
			return err
		}
		b, err := readLimited(r, fileMax)
		if err != nil {
			return err
		}
		depends, err := moduleDepends(b)
		k.modules[n] = &module{b, depends}
		return err
	})
	if err != nil {
		return nil, err
	}
	if k.vmlinuz == nil {
		return nil, fmt.Errorf("package %s holds no boot/vmlinuz-*", deb)
	}
	return k, nil
}

// moduleName returns the name of a module by its file, and how the file is compressed.
func moduleName(file string) (name, suffix string, ok bool) {
	name, suffix, ok = strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_"), suffix, ok
}

// moduleDepends returns the names of the modules that a module needs.
func moduleDepends(image []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(strings.ReplaceAll(string(list), "-", "_"), ","), nil
		}
	}
	return nil, nil
}

// loadOrder returns the wanted modules and what they depend on, each after what it needs.
// What is built into the kernel needs no loading. An algorithm that is neither is
// one that this kernel does not have, and so nothing in it asks for.
func (k *kernelPackage) loadOrder(wanted []string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var add func(name, by string) error
	add = func(name, by string) error {
		if seen[name] || k.builtin[name] {
			return nil
		}
		seen[name] = true
		m := k.modules[name]
		if m == nil {
			return fmt.Errorf("kernel module %s, needed by %s, is neither in the package nor built in", name, by)
		}
		for _, d := range m.depends {
			if err := add(d, name); err != nil {
				return err
			}
		}
		order = append(order, name)
		return nil
	}
	for _, name := range wanted {
		if strings.HasSuffix(name, "_generic") && k.modules[name] == nil {
			continue
		}
		if err := add(name, "the guest"); err != nil {
			return nil, err
		}
	}
	return order, nil
}
