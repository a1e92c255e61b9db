package guest

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// cpioFile is a file of an initramfs.
type cpioFile struct {
	mode fs.FileMode // permissions, and fs.ModeDir or fs.ModeSymlink
	data []byte      // what it holds, or where it points
}

// initramfs is the files of an initramfs, by path without a leading slash.
type initramfs map[string]cpioFile

func (i initramfs) file(name string, b []byte)    { i[name] = cpioFile{0o644, b} }
func (i initramfs) program(name string, b []byte) { i[name] = cpioFile{0o755, b} }
func (i initramfs) directory(name string)         { i[name] = cpioFile{mode: fs.ModeDir | 0o755} }
func (i initramfs) symlink(name, target string) {
	i[name] = cpioFile{fs.ModeSymlink | 0o777, []byte(target)}
}

// File types in c_mode (inode(7)).
const (
	cpioRegular   = 0o100000
	cpioDirectory = 0o040000
	cpioSymlink   = 0o120000
)

const cpioTrailer = "TRAILER!!!"

// cpio returns the archive in the "newc" format. Directories that only a path
// names are made. Files come in the order of their paths, owned by root and
// dated 1970, so the same files make the same bytes.
func (i initramfs) cpio() []byte {
	all := initramfs{}
	for name, f := range i {
		all[name] = f
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := i[dir]; !ok {
				all.directory(dir)
			}
		}
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names) // a directory before what it holds

	var b bytes.Buffer
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	entry := func(inode, mode, links int, name string, data []byte) {
		// Magic, then 13 numbers of eight digits: c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, the
		// device's and c_rdev's major and minor, c_namesize with the final zero, c_chksum.
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
			inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name)
		b.WriteByte(0)
		pad()
		b.Write(data)
		pad()
	}
	for n, name := range names {
		f := all[name]
		mode, links := int(f.mode.Perm()), 1
		switch f.mode.Type() {
		case fs.ModeDir:
			mode, links = mode|cpioDirectory, 2
		case fs.ModeSymlink:
			mode |= cpioSymlink
		case 0:
			mode |= cpioRegular
		default:
			panic("BUG: " + name + ": a file of type " + strings.TrimSpace(f.mode.Type().String()))
		}
		entry(n+1, mode, links, name, f.data)
	}
	entry(0, 0, 1, cpioTrailer, nil)
	return b.Bytes()
}
