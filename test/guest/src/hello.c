// hello dirties a page, says where it is, and keeps touching it for a while: a target for faults in memory.
//
//	hello [READY]    creates the file READY once it has said where its page is
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	page_size = 4096,
	fill = 0x5a,
	rounds = 8,
	touches = 8 * 1000 * 1000, // a round: some 50 million instructions
};

// physical returns the physical address of a virtual one, from the page map (the kernel's Documentation/admin-guide/mm/pagemap.rst).
static uint64_t physical(const volatile void *p)
{
	uint64_t entry;
	int fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0 || pread(fd, &entry, sizeof entry, (off_t)((uintptr_t)p / page_size * sizeof entry)) != sizeof entry)
		err(1, "/proc/self/pagemap");
	close(fd);
	if (!(entry >> 63))
		errx(1, "page not present");
	return (entry & ((1ULL << 55) - 1)) * page_size + (uintptr_t)p % page_size;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	volatile uint8_t *page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		err(1, "mmap");
	for (int i = 0; i < page_size; i++)
		page[i] = fill;
	printf("hello: pid %d virtual 0x%lx physical 0x%llx\n", getpid(), (unsigned long)page, (unsigned long long)physical(page));
	if (argc > 1 && (creat(argv[1], 0600) < 0))
		err(1, "%s", argv[1]);

	unsigned wrong = 0;
	for (int round = 1; round <= rounds; round++) {
		for (int i = 0; i < touches; i++) {
			volatile uint8_t *p = &page[i % page_size];
			wrong += *p != fill;
			*p = fill;
		}
		printf("hello: round %d of %d\n", round, rounds);
	}
	printf("hello: done, %u wrong bytes\n", wrong);
	return wrong != 0;
}
