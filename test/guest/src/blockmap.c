// blockmap tells which sectors of the disk hold a file.
//
//	blockmap FILE...
#include <err.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { sector = 512 };

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int fd = open(argv[i], O_RDONLY);
		if (fd < 0)
			err(1, "%s", argv[i]);
		struct {
			struct fiemap map;
			struct fiemap_extent extents[16];
		} m = {.map = {.fm_length = FIEMAP_MAX_OFFSET, .fm_flags = FIEMAP_FLAG_SYNC, .fm_extent_count = 16}};
		if (ioctl(fd, FS_IOC_FIEMAP, &m.map) < 0)
			err(1, "%s: FS_IOC_FIEMAP", argv[i]);
		for (unsigned n = 0; n < m.map.fm_mapped_extents; n++) {
			struct fiemap_extent *e = &m.map.fm_extents[n];
			printf("blockmap: %s lba %llu count %llu\n", argv[i], e->fe_physical / sector, e->fe_length / sector);
		}
		close(fd);
	}
	return 0;
}
