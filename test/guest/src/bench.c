// bench does a fixed piece of work and prints a checksum of its result: the same everywhere. It tells no time; who runs it does.
//
//	bench sort|sha256|matrix|extended|memwalk|syscalls|pipes|fork
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// next is a 64-bit linear congruential generator with Knuth's constants; the high bits are good.
static uint64_t next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 32;
}

// fold adds a value to a checksum (FNV-1a, a word at a time).
static uint64_t fold(uint64_t sum, uint64_t v)
{
	return (sum ^ v) * 0x100000001b3u;
}

static const uint64_t fold_start = 0xcbf29ce484222325u;

static void *allocate(size_t n)
{
	void *p = malloc(n);
	if (!p)
		err(1, "%zu bytes", n);
	return p;
}

// sort: heapsort, so that it is the same in every C library.

static void sift(uint32_t *a, size_t i, size_t n)
{
	uint32_t v = a[i];
	for (size_t c; (c = 2 * i + 1) < n; i = c) {
		if (c + 1 < n && a[c] < a[c + 1])
			c++;
		if (a[c] <= v)
			break;
		a[i] = a[c];
	}
	a[i] = v;
}

static uint64_t work_sort(void)
{
	enum { n = 1000 * 1000 };
	uint32_t *a = allocate(n * sizeof *a);
	uint64_t seed = 1, sum = fold_start;
	for (size_t i = 0; i < n; i++)
		a[i] = next(&seed);
	for (size_t i = n / 2; i-- > 0;)
		sift(a, i, n);
	for (size_t end = n - 1; end > 0; end--) {
		uint32_t v = a[0];
		a[0] = a[end];
		a[end] = v;
		sift(a, 0, end);
	}
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && a[i - 1] > a[i])
			errx(1, "sort: element %zu is out of order", i);
		sum = fold(sum, a[i]);
	}
	return sum;
}

// sha256: FIPS 180-4.

static const uint32_t sha256_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotr(uint32_t v, int n)
{
	return v >> n | v << (32 - n);
}

static void sha256_block(uint32_t h[8], const uint8_t *p)
{
	uint32_t w[64], s[8];
	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];
		w[i] = w[i - 16] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + w[i - 7] + (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
	}
	memcpy(s, h, sizeof s);
	for (int i = 0; i < 64; i++) {
		uint32_t a = s[0], e = s[4];
		uint32_t t1 = s[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + sha256_k[i] + w[i];
		uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
		memmove(s + 1, s, 7 * sizeof *s);
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		h[i] += s[i];
}

static uint64_t work_sha256(void)
{
	enum { size = 16 << 20 };
	uint8_t *p = allocate(size + 64);
	uint64_t seed = 2;
	for (size_t i = 0; i < size; i++)
		p[i] = next(&seed);
	memset(p + size, 0, 64);
	p[size] = 0x80;
	for (int i = 0; i < 8; i++)
		p[size + 63 - i] = (uint64_t)size * 8 >> 8 * i;
	uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	for (size_t i = 0; i < size + 64; i += 64)
		sha256_block(h, p + i);
	return (uint64_t)h[0] << 32 | h[1];
}

// matrix: multiplication in double precision.
static uint64_t work_matrix(void)
{
	enum { n = 384 };
	static double a[n][n], b[n][n], c[n][n];
	uint64_t seed = 3, sum = fold_start;
	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++) {
			a[i][j] = (double)next(&seed) / 4294967296.0 - 0.5;
			b[i][j] = (double)next(&seed) / 4294967296.0 - 0.5;
		}
	for (int round = 0; round < 3; round++) {
		memset(c, 0, sizeof c);
		for (int i = 0; i < n; i++)
			for (int k = 0; k < n; k++)
				for (int j = 0; j < n; j++)
					c[i][j] += a[i][k] * b[k][j];
		memcpy(a, c, sizeof a);
	}
	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++) {
			uint64_t bits;
			memcpy(&bits, &c[i][j], sizeof bits);
			sum = fold(sum, bits);
		}
	return sum;
}

// extended: multiplication of matrices in extended precision, which only the x87 unit has, and what else C makes of it:
// roots, comparisons, and conversions to integers.
static uint64_t work_extended(void)
{
	enum { n = 224 };
	static long double a[n][n], b[n][n], c[n][n];
	uint64_t seed = 3, sum = fold_start;
	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++) {
			a[i][j] = next(&seed) / 4294967296.0L - 0.5L;
			b[i][j] = next(&seed) / 4294967296.0L - 0.5L;
		}
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < n; i++)
			for (int j = 0; j < n; j++) {
				long double s = 0;
				for (int k = 0; k < n; k++)
					s += a[i][k] * b[k][j];
				c[i][j] = s < 0 ? -__builtin_sqrtl(-s) : s;
			}
		memcpy(a, c, sizeof a);
	}
	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++) {
			uint64_t bits;
			memcpy(&bits, &c[i][j], sizeof bits); // all of the mantissa
			sum = fold(sum, bits ^ (uint64_t)(int64_t)(c[i][j] * 65536));
		}
	return sum;
}

// memwalk: a chain of dependent loads through more memory than caches and TLBs hold.
static uint64_t work_memwalk(void)
{
	enum { n = 16 << 20, steps = 4 * 1000 * 1000 };
	uint32_t *follow = allocate(n * sizeof *follow);
	uint64_t seed = 4, sum = fold_start;
	for (uint32_t i = 0; i < n; i++)
		follow[i] = i;
	for (uint32_t i = n - 1; i > 0; i--) { // Sattolo's shuffle: one cycle through all
		uint32_t j = next(&seed) * i >> 32, v = follow[i];
		follow[i] = follow[j];
		follow[j] = v;
	}
	uint32_t at = 0;
	for (int i = 0; i < steps; i++) {
		at = follow[at];
		sum += at;
	}
	return fold(sum, at);
}

static uint64_t work_syscalls(void)
{
	uint64_t sum = fold_start;
	for (int i = 0; i < 1000 * 1000; i++)
		sum = fold(sum, syscall(SYS_umask, i & 0777));
	return sum;
}

static void transfer(ssize_t (*how)(int, void *, size_t), int fd, void *p, size_t n)
{
	if (how(fd, p, n) != (ssize_t)n)
		err(1, "pipe");
}

static ssize_t write_to(int fd, void *p, size_t n)
{
	return write(fd, p, n);
}

// pipes: two processes pass a word to and fro.
static uint64_t work_pipes(void)
{
	enum { rounds = 20 * 1000 };
	int to[2], from[2];
	uint64_t v = 5;
	if (pipe(to) || pipe(from))
		err(1, "pipe");
	pid_t child = fork();
	if (child < 0)
		err(1, "fork");
	for (int i = 0; i < rounds; i++) {
		if (child)
			transfer(write_to, to[1], &v, sizeof v);
		transfer(read, child ? from[0] : to[0], &v, sizeof v);
		next(&v);
		if (!child)
			transfer(write_to, from[1], &v, sizeof v);
	}
	if (!child)
		_exit(0);
	if (wait(NULL) != child)
		err(1, "wait");
	return v;
}

static uint64_t work_fork(void)
{
	uint64_t sum = fold_start;
	for (int i = 0; i < 2000; i++) {
		int status;
		pid_t child = fork();
		if (child < 0)
			err(1, "fork");
		if (!child)
			_exit(i & 0x7f);
		if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
			err(1, "waitpid");
		sum = fold(sum, WEXITSTATUS(status));
	}
	return sum;
}

static const struct {
	const char *name;
	uint64_t (*work)(void);
	uint64_t sum;
} works[] = {
	{"sort", work_sort, 0xb30e2b69db8fc2cc},
	{"sha256", work_sha256, 0xea79534a0fa45581},
	{"matrix", work_matrix, 0xd2efb3a98088d212},
	{"extended", work_extended, 0x82d7668d1a64b454},
	{"memwalk", work_memwalk, 0x89d28dfeb6d3f060},
	{"syscalls", work_syscalls, 0xa7bd39b0a6003b48},
	{"pipes", work_pipes, 0x216f43926ea8da45},
	{"fork", work_fork, 0x2f59c451791db735},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
		if (argc != 2 || strcmp(argv[1], works[i].name))
			continue;
		uint64_t sum = works[i].work();
		if (sum != works[i].sum)
			errx(1, "%s: checksum %016llx, not %016llx", argv[1], (unsigned long long)sum, (unsigned long long)works[i].sum);
		printf("bench: %s: checksum %016llx\n", argv[1], (unsigned long long)sum);
		return 0;
	}
	errx(2, "usage: bench sort|sha256|matrix|extended|memwalk|syscalls|pipes|fork");
}
