// stress exercises what user space asks of a machine, and checks every result. It ends with the line "stress: done", or with
// "stress: FAILED" and what.
//
//	stress DIR [PART]...    DIR is where it may write files; without PARTs, all of them
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { page_size = 4096 };

static const char *part; // under way

static _Noreturn void failed(int line, const char *format, ...)
{
	int e = errno;
	va_list args;
	va_start(args, format);
	fprintf(stdout, "stress: FAILED %s, line %d: ", part, line);
	vfprintf(stdout, format, args);
	fprintf(stdout, " (errno %d)\n", e);
	fflush(stdout);
	_exit(1);
}

#define CHECK(what)                             \
	do {                                    \
		if (!(what))                    \
			failed(__LINE__, #what); \
	} while (0)

#define SAME(got, want)                                                                                                     \
	do {                                                                                                                \
		uint64_t got_ = (got), want_ = (want);                                                                      \
		if (got_ != want_)                                                                                          \
			failed(__LINE__, "%s: %#llx, not %#llx", #got, (unsigned long long)got_, (unsigned long long)want_); \
	} while (0)

static uint64_t next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 32;
}

static uint64_t fold(uint64_t sum, uint64_t v)
{
	return (sum ^ v) * 0x100000001b3u;
}

static int exit_status(pid_t child)
{
	int status;
	SAME(waitpid(child, &status, 0), child);
	return status;
}

// fork: generations of processes, each with its own copy of memory.
static void test_fork(const char *dir)
{
	(void)dir;
	enum { words = 64 * page_size / 8 };
	uint64_t *p = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	for (int i = 0; i < words; i++)
		p[i] = i;
	for (int round = 0; round < 40; round++) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (!child) {
			for (int i = round % 8; i < words; i += 8)
				p[i] += 1000;
			pid_t grandchild = fork();
			CHECK(grandchild >= 0);
			for (int i = 0; i < words; i++)
				SAME(p[i], i + (i % 8 == round % 8 ? 1000 : 0));
			if (!grandchild)
				_exit(7);
			SAME(exit_status(grandchild), 7 << 8);
			_exit(round);
		}
		SAME(exit_status(child), round << 8);
		for (int i = 0; i < words; i++)
			SAME(p[i], i); // the copy was the child's
	}
	char self[] = "/proc/self/exe";
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		execl(self, "stress", "--exec", "argument", NULL);
		_exit(99);
	}
	SAME(exit_status(child), 42 << 8);
	CHECK(munmap(p, words * 8) == 0);
}

// pipes: a stream through a chain of processes, each of which changes it.
static void test_pipes(const char *dir)
{
	(void)dir;
	enum { stages = 5, size = 256 * 1024 };
	int in[2];
	CHECK(pipe(in) == 0);
	pid_t pids[stages + 1];
	int first = in[1], last = in[0];
	for (int s = 0; s < stages; s++) {
		int out[2];
		CHECK(pipe(out) == 0);
		pids[s] = fork();
		CHECK(pids[s] >= 0);
		if (!pids[s]) {
			uint8_t b[777];
			close(first);
			close(out[0]);
			for (ssize_t n; (n = read(last, b, sizeof b)) != 0;) {
				CHECK(n > 0);
				for (ssize_t i = 0; i < n; i++)
					b[i] = b[i] * 3 + s;
				for (ssize_t done = 0, w; done < n; done += w)
					CHECK((w = write(out[1], b + done, n - done)) > 0);
			}
			_exit(0);
		}
		close(last);
		close(out[1]);
		last = out[0];
	}
	pids[stages] = fork();
	CHECK(pids[stages] >= 0);
	if (!pids[stages]) {
		uint64_t seed = 11;
		close(last);
		for (int i = 0; i < size; i += 64) {
			uint8_t b[64];
			for (int j = 0; j < 64; j++)
				b[j] = next(&seed);
			SAME(write(first, b, sizeof b), sizeof b);
		}
		_exit(0);
	}
	close(first);
	uint64_t seed = 11, total = 0;
	uint8_t b[1000];
	for (ssize_t n; (n = read(last, b, sizeof b)) != 0; total += n) {
		CHECK(n > 0);
		for (ssize_t i = 0; i < n; i++) {
			uint8_t v = next(&seed);
			for (int s = 0; s < stages; s++)
				v = v * 3 + s;
			SAME(b[i], v);
		}
	}
	close(last);
	SAME(total, size);
	for (int s = 0; s <= stages; s++)
		SAME(exit_status(pids[s]), 0);

	// A pipe that nobody reads any more.
	CHECK(pipe(in) == 0);
	close(in[0]);
	CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	CHECK(write(in[1], b, 1) == -1 && errno == EPIPE);
	close(in[1]);
}

static volatile sig_atomic_t signals, signal_value, signal_code;
static sigjmp_buf jump;

static void count_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	// The handler's use of the registers of the floating-point unit must not show outside.
	volatile double x = 1.5;
	volatile long double y = 2.25L;
	x = x * 3 + (double)sqrtl(y);
	signals++;
	signal_value = info->si_value.sival_int;
	signal_code = info->si_code;
}

// allow_unaligned clears RFLAGS.AC.
static void allow_unaligned(void)
{
	__asm__ volatile("pushf; andl $~0x40000, (%%rsp); popf" ::: "memory", "cc");
}

static void jump_out(int sig, siginfo_t *info, void *context)
{
	(void)context;
	allow_unaligned(); // the kernel leaves the flag as it was
	signal_code = info->si_code;
	siglongjmp(jump, sig);
}

static void handle(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
	sigemptyset(&a.sa_mask);
	CHECK(sigaction(sig, &a, NULL) == 0);
}

// RAISES checks that code raises a signal with a code (sigaction(2), si_code).
#define RAISES(sig, code, what)                                 \
	do {                                                    \
		handle(sig, jump_out, 0);                       \
		volatile int caught = sigsetjmp(jump, 1);       \
		if (!caught) {                                  \
			what;                                   \
			failed(__LINE__, "no signal");          \
		}                                               \
		SAME(caught, sig);                              \
		SAME(signal_code, code);                        \
		CHECK(signal(sig, SIG_DFL) != SIG_ERR);         \
	} while (0)

static void test_signals(const char *dir)
{
	(void)dir;
	// The processor's exceptions.
	volatile int zero = 0, one = 1;
	RAISES(SIGFPE, FPE_INTDIV, one = one / zero);
	volatile int least = INT32_MIN;
	zero = -1;
	RAISES(SIGFPE, FPE_INTDIV, one = least / zero);
	RAISES(SIGILL, ILL_ILLOPN, __asm__ volatile("ud2"));
	int *volatile nowhere = (int *)16, *volatile noncanonical = (int *)0x8000000000000000;
	RAISES(SIGSEGV, SEGV_MAPERR, *nowhere = 1);
	RAISES(SIGSEGV, SI_KERNEL, __asm__ volatile("hlt"));
	RAISES(SIGSEGV, SI_KERNEL, *noncanonical = 1);
	RAISES(SIGTRAP, SI_KERNEL, __asm__ volatile("int3"));
	// Single steps.
	handle(SIGTRAP, count_signal, 0);
	signals = 0;
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop; nop; pushf; andl $~0x100, (%%rsp); popf" ::: "memory", "cc");
	SAME(signal_code, TRAP_TRACE);
	SAME(signals, 6); // after each of nop, nop, nop, pushf, andl, popf

	// Those that a process sends itself, queued with values.
	handle(SIGRTMIN, count_signal, 0);
	signals = 0;
	double d = 0.1;
	long double l = 0.1L;
	for (int i = 0; i < 500; i++) {
		CHECK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}) == 0);
		SAME(signal_value, i);
		d = d * 1.0000001 + 0.25;
		l = l * 1.0000001L + 0.25L;
	}
	SAME(signals, 500);
	double d2 = 0.1;
	long double l2 = 0.1L;
	for (int i = 0; i < 500; i++) {
		d2 = d2 * 1.0000001 + 0.25;
		l2 = l2 * 1.0000001L + 0.25L;
	}
	CHECK(d == d2 && l == l2);

	// Blocked, pending, and then delivered.
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	handle(SIGUSR1, count_signal, 0);
	signals = 0;
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(raise(SIGUSR1) == 0 && raise(SIGUSR1) == 0);
	SAME(signals, 0);
	CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
	SAME(signals, 1);

	// On a stack of their own, with the first stack exhausted by recursion.
	stack_t alt = {.ss_sp = malloc(64 * 1024), .ss_size = 64 * 1024};
	CHECK(alt.ss_sp && sigaltstack(&alt, NULL) == 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		struct rlimit small = {256 * 1024, 256 * 1024};
		CHECK(setrlimit(RLIMIT_STACK, &small) == 0);
		handle(SIGSEGV, jump_out, SA_ONSTACK);
		if (sigsetjmp(jump, 1))
			_exit(33);
		for (volatile char *p = __builtin_alloca(page_size);; p -= page_size)
			*p = 1;
	}
	SAME(exit_status(child), 33 << 8);
	alt.ss_flags = SS_DISABLE;
	void *stack = alt.ss_sp;
	CHECK(sigaltstack(&alt, NULL) == 0);
	free(stack);

	// From a timer, into a loop.
	handle(SIGALRM, count_signal, SA_RESTART);
	signals = 0;
	struct itimerval every = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}};
	CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
	uint64_t x = 1, y = 1;
	long n = 0;
	while (signals < 20) {
		for (int i = 0; i < 1000; i++, n++)
			next(&x);
	}
	CHECK(setitimer(ITIMER_REAL, &off, NULL) == 0);
	while (n-- > 0)
		next(&y);
	SAME(x, y);

	// A child that is killed.
	child = fork();
	CHECK(child >= 0);
	if (!child)
		for (;;)
			pause();
	CHECK(kill(child, SIGKILL) == 0);
	int status = exit_status(child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

// align: accesses that are not aligned, while they are not allowed. QEMU's TCG does not check them.
static void test_align(const char *dir)
{
	(void)dir;
	RAISES(SIGBUS, BUS_ADRALN,
	       __asm__ volatile("pushf; orl $0x40000, (%%rsp); popf; mov 1(%%rsp), %%rax" ::: "rax", "memory", "cc"));
}

// memory: mappings that come, go, move and change what they allow.
static void test_memory(const char *dir)
{
	(void)dir;
	enum { pages = 256 };
	uint8_t *volatile p = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	for (int i = 0; i < pages; i++) {
		SAME(p[i * page_size + i], 0);
		p[i * page_size + i] = i;
	}
	for (int i = 0; i < pages; i += 3) {
		CHECK(mprotect(p + i * page_size, page_size, PROT_READ) == 0);
		SAME(p[i * page_size + i], i & 0xff);
		RAISES(SIGSEGV, SEGV_ACCERR, *(volatile uint8_t *)(p + i * page_size) = 1);
		CHECK(mprotect(p + i * page_size, page_size, PROT_NONE) == 0);
		RAISES(SIGSEGV, SEGV_ACCERR, (void)*(volatile uint8_t *)(p + i * page_size));
		RAISES(SIGSEGV, SEGV_ACCERR, ((void (*)(void))(p + i * page_size))());
		CHECK(mprotect(p + i * page_size, page_size, PROT_READ | PROT_WRITE) == 0);
		p[i * page_size] = 1;
	}
	for (int i = 0; i < pages; i += 2)
		CHECK(munmap(p + i * page_size, page_size) == 0);
	RAISES(SIGSEGV, SEGV_MAPERR, *(volatile uint8_t *)(p + 2 * page_size) = 1);
	for (int i = 1; i < pages; i += 2)
		SAME(p[i * page_size + i], i & 0xff);
	CHECK(munmap(p, pages * page_size) == 0);

	// Moved: the same pages elsewhere.
	uint64_t *q = mmap(NULL, 64 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(q != MAP_FAILED);
	size_t size = 64 * page_size;
	for (size_t i = 0; i < size / 8; i++)
		q[i] = i * 7;
	for (int round = 0; round < 8; round++) {
		q = mremap(q, size, size + 32 * page_size, MREMAP_MAYMOVE);
		CHECK(q != MAP_FAILED);
		for (size_t i = 0; i < size / 8; i++)
			SAME(q[i], i * 7);
		for (size_t i = size / 8; i < size / 8 + 32 * page_size / 8; i++)
			q[i] = i * 7;
		size += 32 * page_size;
	}
	CHECK(munmap(q, size) == 0);

	// Shared between processes.
	_Atomic uint64_t *s = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(s != MAP_FAILED);
	pid_t pids[4];
	for (int i = 0; i < 4; i++) {
		pids[i] = fork();
		CHECK(pids[i] >= 0);
		if (!pids[i]) {
			for (int n = 0; n < 20000; n++)
				atomic_fetch_add(&s[0], 1), s[1 + i] += i;
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++)
		SAME(exit_status(pids[i]), 0);
	SAME(s[0], 80000);
	for (int i = 0; i < 4; i++)
		SAME(s[1 + i], 20000 * i);
	CHECK(munmap((void *)s, page_size) == 0);

	// Large pages, where the kernel gives some, split by a change of protection in the middle.
	size = 8 << 20;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	madvise(p, size, MADV_HUGEPAGE);
	for (size_t i = 0; i < size; i += 512)
		p[i] = i >> 9;
	CHECK(mprotect(p + (5 << 20), page_size, PROT_READ) == 0);
	RAISES(SIGSEGV, SEGV_ACCERR, *(volatile uint8_t *)(p + (5 << 20)) = 1);
	for (size_t i = 0; i < size; i += 512)
		SAME(p[i], (i >> 9) & 0xff);
	CHECK(madvise(p, 4 << 20, MADV_DONTNEED) == 0);
	SAME(p[512], 0);
	SAME(p[(4 << 20) + 512], ((4 << 20) + 512) >> 9 & 0xff);
	CHECK(munmap(p, size) == 0);

	// Code that is written, run, and rewritten.
	uint8_t *code = mmap(NULL, page_size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(code != MAP_FAILED);
	memcpy(code, (uint8_t[]){0xb8, 0, 0, 0, 0, 0xc3}, 6); // mov eax, imm32; ret
	for (uint32_t i = 0; i < 5000; i++) {
		memcpy(code + 1, &i, 4);
		SAME(((uint32_t(*)(void))code)(), i);
	}
	CHECK(munmap(code, page_size) == 0);
}

static uint64_t bits(double d)
{
	uint64_t u;
	memcpy(&u, &d, sizeof u);
	return u;
}

// float_sums are the results of test_float on real processors, by rounding mode: nearest, down, up, to zero.
static const uint64_t float_sums[4] = {0x26f68d65593a9ff3, 0xcbe34432addaa789, 0xb70252cf3d35b424, 0x5b4875cfc1f106d6};

// float_sum folds the results of the four operations, roots and conversions in the three formats.
static uint64_t float_sum(void)
{
	uint64_t seed = 17, sum = 0xcbf29ce484222325u;
	for (int i = 0; i < 20000; i++) {
		uint64_t a = next(&seed) << 32 | next(&seed), b = next(&seed) << 32 | next(&seed);
		// Exponents near enough that sums are not one of the two, except now and then; then every bit pattern there is.
		if (i % 4) {
			a = (a & 0x800fffffffffffff) | (0x3f0 + (a >> 52 & 31)) << 52;
			b = (b & 0x800fffffffffffff) | (0x3f0 + (b >> 52 & 31)) << 52;
		}
		volatile double x, y, z;
		memcpy((void *)&x, &a, 8);
		memcpy((void *)&y, &b, 8);
		if (x != x || y != y)
			continue; // which NaN results is up to the compiler's order of operands
		volatile float fx = x, fy = y, fz;
		volatile long double lx = x, ly = y, lz;
#define FOLD64(e) (z = (e), sum = fold(sum, z != z ? 1 : bits(z)))
#define FOLD32(e) (fz = (e), sum = fold(sum, fz != fz ? 1 : bits(fz)))
#define FOLD80(e) (lz = (e), sum = fold(sum, lz != lz ? 1 : bits(lz)), sum = fold(sum, lz != lz ? 1 : bits(lz - (double)lz)))
		FOLD64(x + y);
		FOLD64(x - y);
		FOLD64(x * y);
		FOLD64(x / y);
		FOLD64(__builtin_sqrt(x < 0 ? -x : x));
		FOLD32(fx + fy);
		FOLD32(fx * fy);
		FOLD32(fx / fy);
		FOLD32(__builtin_sqrtf(fx < 0 ? -fx : fx));
		FOLD80(lx + ly);
		FOLD80(lx * ly);
		FOLD80(lx / ly);
		FOLD80(__builtin_sqrtl(lx < 0 ? -lx : lx));
		if (x > -1e9 && x < 1e9) {
			sum = fold(sum, (uint64_t)(int64_t)x);
			sum = fold(sum, (uint64_t)lrint(x));
			sum = fold(sum, (uint64_t)llrintl(lx * 1000));
		}
		sum = fold(sum, (x < y) | (x == y) << 1 | (fx < fy) << 2 | (lx < ly) << 3);
	}
	return sum;
}

static void test_float(const char *dir)
{
	(void)dir;
	static const int modes[4] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
	for (int i = 0; i < 4; i++) {
		CHECK(fesetround(modes[i]) == 0);
		uint64_t sum = float_sum();
		CHECK(fesetround(FE_TONEAREST) == 0);
		SAME(sum, float_sums[i]);
	}

	volatile double one = 1, zero = 0, three = 3, most = DBL_MAX, least = DBL_MIN, r;
	volatile long double lone = 1, lthree = 3, lr;
#define FLAGS(e, flags)                                    \
	do {                                               \
		feclearexcept(FE_ALL_EXCEPT);              \
		e;                                         \
		SAME(fetestexcept(FE_ALL_EXCEPT), flags); \
	} while (0)
	FLAGS(r = one + one, 0);
	FLAGS(r = one / zero, FE_DIVBYZERO);
	FLAGS(r = zero / zero, FE_INVALID);
	FLAGS(r = one / three, FE_INEXACT);
	FLAGS(r = most * three, FE_OVERFLOW | FE_INEXACT);
	FLAGS(r = least / three, FE_UNDERFLOW | FE_INEXACT);
	FLAGS(lr = lone / lthree, FE_INEXACT);
	feclearexcept(FE_ALL_EXCEPT);

	// Each process has a unit of its own.
	for (int i = 0; i < 4; i++) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (!child) {
			CHECK(fesetround(modes[i]) == 0);
			for (int n = 0; n < 4; n++) {
				SAME(float_sum(), float_sums[i]);
				sched_yield();
			}
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++) {
		int status;
		CHECK(wait(&status) > 0);
		SAME(status, 0);
	}
	(void)r;
	(void)lr;
}

// fpe: exceptions of the floating-point units that are not masked are signals, #XM from SSE and #MF from the x87. QEMU's TCG has
// only the latter.
static void test_fpe(const char *dir)
{
	(void)dir;
	volatile double one = 1, zero = 0, r;
	volatile long double lone = 1, lzero = 0, lr;
	CHECK(feenableexcept(FE_DIVBYZERO | FE_INVALID) != -1);
	RAISES(SIGFPE, FPE_FLTDIV, r = one / zero);
	feclearexcept(FE_ALL_EXCEPT);
	CHECK(feenableexcept(FE_DIVBYZERO | FE_INVALID) != -1);
	RAISES(SIGFPE, FPE_FLTDIV, lr = lone / lzero; __asm__ volatile("fwait"));
	feclearexcept(FE_ALL_EXCEPT);
	CHECK(fedisableexcept(FE_ALL_EXCEPT) != -1);
	CHECK(fesetenv(FE_DFL_ENV) == 0);
	(void)r;
	(void)lr;
}

// files: what is written is what is read, also from the disk itself.
static void test_files(const char *dir)
{
	char name[256], other[256];
	enum { size = 1 << 20, chunk = 4099 };
	static uint8_t b[chunk + 1];
	CHECK(chdir(dir) == 0);
	int fd = open("stress.data", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0);
	uint64_t seed = 23, left = size;
	for (; left > 0;) {
		size_t n = left < chunk ? left : chunk;
		for (size_t i = 0; i < n; i++)
			b[i] = next(&seed);
		SAME(write(fd, b, n), n);
		left -= n;
	}
	CHECK(fsync(fd) == 0);
	int drop = open("/proc/sys/vm/drop_caches", O_WRONLY); // root only; without, the cache is read
	if (drop >= 0) {
		CHECK(write(drop, "3", 1) == 1);
		close(drop);
	}
	seed = 23;
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	for (left = size; left > 0;) {
		ssize_t n = read(fd, b, 1000);
		CHECK(n > 0);
		for (ssize_t i = 0; i < n; i++)
			SAME(b[i], (uint8_t)next(&seed));
		left -= n;
	}
	SAME(read(fd, b, 1), 0);

	// Through a mapping, and back through read.
	uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	for (int i = 0; i < size; i += page_size)
		p[i + 17] ^= 0xff;
	CHECK(msync(p, size, MS_SYNC) == 0);
	CHECK(munmap(p, size) == 0);
	seed = 23;
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	for (int at = 0; at < size; at += page_size) {
		SAME(read(fd, b, page_size), page_size);
		for (int i = 0; i < page_size; i++)
			SAME(b[i], (uint8_t)next(&seed) ^ (i == 17 ? 0xff : 0));
	}

	// Holes, and a shorter file.
	CHECK(ftruncate(fd, 100) == 0);
	SAME(pwrite(fd, "x", 1, 3 * page_size), 1);
	SAME(pread(fd, b, page_size, 2 * page_size), page_size);
	for (int i = 0; i < page_size; i++)
		SAME(b[i], 0);
	struct stat st;
	CHECK(fstat(fd, &st) == 0);
	SAME(st.st_size, 3 * page_size + 1);
	close(fd);
	CHECK(unlink("stress.data") == 0);

	// Names.
	CHECK(mkdir("stress.d", 0700) == 0);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof name, "stress.d/a-rather-long-name-of-a-file-%d", i);
		fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
		CHECK(fd >= 0);
		SAME(write(fd, name, strlen(name)), strlen(name));
		close(fd);
		snprintf(other, sizeof other, "stress.d/%d", i);
		CHECK(rename(name, other) == 0);
	}
	sync();
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof name, "stress.d/a-rather-long-name-of-a-file-%d", i);
		CHECK(open(name, O_RDONLY) == -1 && errno == ENOENT);
		snprintf(other, sizeof other, "stress.d/%d", i);
		fd = open(other, O_RDONLY);
		CHECK(fd >= 0);
		SAME(read(fd, b, sizeof b), strlen(name));
		CHECK(memcmp(b, name, strlen(name)) == 0);
		close(fd);
		CHECK(unlink(other) == 0);
	}
	CHECK(rmdir("stress.d") == 0);
}

// threads: a bounded queue under a mutex and two conditions, which are futexes when contended.
enum { producers = 4, consumers = 3, items = 3000, room = 16 };

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t not_full, not_empty;
	int at, n, ended;
	uint64_t slots[room];
} queue = {.mutex = PTHREAD_MUTEX_INITIALIZER, .not_full = PTHREAD_COND_INITIALIZER, .not_empty = PTHREAD_COND_INITIALIZER};

static _Atomic uint64_t consumed, consumed_sum;
static __thread uint64_t own;

static void *produce(void *arg)
{
	for (uint64_t i = 1; i <= items; i++) {
		pthread_mutex_lock(&queue.mutex);
		while (queue.n == room)
			pthread_cond_wait(&queue.not_full, &queue.mutex);
		queue.slots[(queue.at + queue.n++) % room] = i + (uintptr_t)arg * items;
		own += i;
		pthread_cond_signal(&queue.not_empty);
		pthread_mutex_unlock(&queue.mutex);
	}
	return (void *)own;
}

static void *consume(void *arg)
{
	for (;;) {
		pthread_mutex_lock(&queue.mutex);
		while (queue.n == 0 && !queue.ended)
			pthread_cond_wait(&queue.not_empty, &queue.mutex);
		if (queue.n == 0) {
			pthread_mutex_unlock(&queue.mutex);
			return arg;
		}
		uint64_t v = queue.slots[queue.at];
		queue.at = (queue.at + 1) % room;
		queue.n--;
		own += v;
		pthread_cond_signal(&queue.not_full);
		pthread_mutex_unlock(&queue.mutex);
		atomic_fetch_add(&consumed, 1);
		atomic_fetch_add(&consumed_sum, v);
	}
}

static void test_threads(const char *dir)
{
	(void)dir;
	pthread_t t[producers + consumers];
	for (uintptr_t i = 0; i < producers + consumers; i++)
		CHECK(pthread_create(&t[i], NULL, i < producers ? produce : consume, (void *)i) == 0);
	void *result;
	for (int i = 0; i < producers; i++) {
		CHECK(pthread_join(t[i], &result) == 0);
		SAME((uintptr_t)result, (uint64_t)items * (items + 1) / 2);
	}
	pthread_mutex_lock(&queue.mutex);
	queue.ended = 1;
	pthread_cond_broadcast(&queue.not_empty);
	pthread_mutex_unlock(&queue.mutex);
	for (int i = producers; i < producers + consumers; i++)
		CHECK(pthread_join(t[i], &result) == 0);
	uint64_t all = (uint64_t)producers * items;
	SAME(consumed, all);
	SAME(consumed_sum, all * (all + 1) / 2);
	SAME(own, 0); // this thread's
}

// time: clocks go forward, and sleeping takes as long as was asked.
static void test_time(const char *dir)
{
	(void)dir;
	struct timespec a, b, nap = {0, 3 * 1000 * 1000};
	CHECK(clock_gettime(CLOCK_MONOTONIC, &a) == 0);
	for (int i = 0; i < 10000; i++) {
		CHECK(clock_gettime(CLOCK_MONOTONIC, &b) == 0);
		CHECK(b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec));
		a = b;
	}
	for (int i = 0; i < 20; i++) {
		CHECK(clock_gettime(CLOCK_MONOTONIC, &a) == 0);
		CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL) == 0);
		CHECK(clock_gettime(CLOCK_MONOTONIC, &b) == 0);
		CHECK((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec >= nap.tv_nsec);
	}
}

static const struct {
	const char *name;
	void (*test)(const char *dir);
} parts[] = {
	{"fork", test_fork},   {"pipes", test_pipes}, {"signals", test_signals}, {"align", test_align},
	{"memory", test_memory},
	{"float", test_float}, {"fpe", test_fpe},     {"files", test_files},     {"threads", test_threads},
	{"time", test_time},
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc == 3 && !strcmp(argv[1], "--exec")) // test_fork's child
		return strcmp(argv[2], "argument") ? 1 : 42;
	if (argc < 2) {
		fprintf(stderr, "usage: stress DIR [PART]...\n");
		return 2;
	}
	int ran = 0;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		int wanted = argc == 2;
		for (int n = 2; n < argc; n++)
			wanted |= !strcmp(argv[n], parts[i].name);
		if (!wanted)
			continue;
		part = parts[i].name;
		parts[i].test(argv[1]);
		printf("stress: %s\n", part);
		ran++;
	}
	if (argc > 2 && ran != argc - 2) {
		printf("stress: FAILED: a part that is not known\n");
		return 2;
	}
	printf("stress: done\n");
	return 0;
}
