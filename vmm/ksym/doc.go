// Package ksym names addresses of a guest's kernel.
//
// # Where do the names come from?
//
// From the kernel's image, never from the guest: an ELF file's symbol table where
// it has one, and otherwise the table that Linux carries for its own backtraces,
// kallsyms, which a stripped distribution kernel still has. Those of its modules are
// another matter, since where a module is, only the guest knows: package linux reads them, and
// With adds them for a debugger.
//
// # How is kallsyms found without symbols?
//
// Its parts follow each other in the read-only data and describe each other
// (scripts/kallsyms.c, kernel/kallsyms.c). The names are compressed with a table of
// 256 tokens, in which every digit and letter that is used stands for itself: the
// string "0\0001\000…9" finds it. The token index after it repeats its offsets.
// Before it, with other things in between since Linux 6.2, stand the number of
// names, the names, and the markers, which are the offset of every 256th name: all
// must agree. The addresses come before the number of names (until Linux 6.3) or
// after the token index (since 6.4), as 32-bit offsets of a base in one of two
// encodings; the right one is the one in which they ascend.
package ksym
