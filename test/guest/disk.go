package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"refault/test/guest/bare"
)

const (
	diskBytes = 16 << 20
	diskUUID  = "5eed0000-0000-4000-8000-000000000001"
	diskHash  = "5eed0000-0000-4000-8000-000000000002" // seed of the directories' hashes
	// diskFeatures are those of Debian 12's mke2fs.conf, without what makes mounting or growing work later.
	diskFeatures = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
	// diskEpoch is when everything on the disk was made: 2023-11-14 22:13:20 UTC.
	diskEpoch = 1700000000
)

// FileName is the text file on the disk, in its root.
const FileName = bare.FileName

// FileText returns what FileName holds.
func FileText() []byte { return bare.FileText() }

// makeDisk writes the ext4 image.
func makeDisk(ctx context.Context, work, file string) (err error) {
	root := filepath.Join(work, "disk.d")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	text := filepath.Join(root, FileName)
	if err := os.WriteFile(text, FileText(), 0o644); err != nil {
		return err
	}
	tmp := file + ".incomplete"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	env := []string{"E2FSPROGS_FAKE_TIME=" + strconv.Itoa(diskEpoch), "SOURCE_DATE_EPOCH=" + strconv.Itoa(diskEpoch),
		"MKE2FS_CONFIG=/dev/null", "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
	// With everything initialised, the guest's kernel finds nothing to finish in the background.
	_, err = run(ctx, work, env, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-N", "256", "-m", "0", "-L", "refault",
		"-U", diskUUID, "-O", diskFeatures,
		"-E", "hash_seed="+diskHash+",lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", "-d", root, tmp, strconv.Itoa(diskBytes>>10)+"K")
	if err != nil {
		return err
	}
	// mke2fs takes owners, modes and times from the host's files; a change time cannot be set there.
	script := fmt.Sprintf("set_current_time @%d\n", diskEpoch)
	for _, field := range []string{"mode 0100644", "uid 0", "gid 0", "atime @%d", "mtime @%d", "ctime @%d", "crtime @%d",
		"atime_extra 0", "mtime_extra 0", "ctime_extra 0", "crtime_extra 0"} {
		script += "set_inode_field " + FileName + " " + strings.ReplaceAll(field, "%d", strconv.Itoa(diskEpoch)) + "\n"
	}
	for _, field := range []string{"mode 040755", "atime @%d", "mtime @%d", "ctime @%d", "atime_extra 0", "mtime_extra 0", "ctime_extra 0"} {
		script += "set_inode_field / " + strings.ReplaceAll(field, "%d", strconv.Itoa(diskEpoch)) + "\n"
	}
	commands := filepath.Join(work, "debugfs.cmd")
	if err := os.WriteFile(commands, []byte(script), 0o644); err != nil {
		return err
	}
	if _, err := run(ctx, work, env, "debugfs", "-w", "-f", commands, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
