// Package guest builds the Linux guest that demonstrations, tests and
// benchmarks run: Debian's own kernels, an initramfs of busybox and a few small
// programs, and a small ext4 disk. Nothing of it is patched, and nothing of it
// knows that it runs in refault; QEMU boots the same files.
//
// The parts, one file each:
//
//	packages.go  which Debian packages, and how they are fetched and checked
//	deb.go       the Debian binary package format (deb(5)): ar, then a compressed tar
//	modules.go   which kernel modules the disk needs, from the modules' own .modinfo
//	cpio.go      the initramfs (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst)
//	programs.go  the programs of src/, compiled by gcc and linked statically
//	disk.go      the ext4 image, made by mke2fs
//	guest.go     Build, BuildNewer, and the cache
//
// What the guest does is said on the kernel's command line, refault.run=WHAT;
// src/init reads it.
//
// # Why are the kernels' versions pinned?
//
// A recording of one kernel says nothing about another: steps, addresses and
// symbols all differ. So the versions, and the SHA-256 of each package, are
// fixed here, and all machines test the same bytes. Debian's archive, though,
// keeps only the newest version of a release's kernel. When a pinned one has
// gone, the one that takes its place in apt's index is used; its hash then
// comes from that index, which Debian signs, and Build says so in a line. A
// cache that holds the pinned packages keeps them.
//
// # Why is there a newer kernel?
//
// Linux's own tables, which tools read from outside, change: TestNewer and those who call NewerForTest hold what
// was written for later kernels to one. It is fetched when they run, and in no demonstration.
//
// # Why is the same guest built twice the same, byte for byte?
//
// Because a recording names its kernel, initrd and disk by hash. So nothing
// here takes the time, an order or an owner from the host: file times are a
// constant, the file system's UUID and hash seed are too, and gcc is told to
// leave out build IDs and paths. The programs still depend on Debian's
// compiler and C library; a cache is therefore not made anew when those change,
// only when the package's own inputs do.
package guest
