// Command bench measures refault beside its peer, QEMU's TCG with -icount and
// rr=record and rr=replay, and beside the processor itself: the same kernel,
// initrd, disk and programs, in one run, the competitors in turn.
//
// # What is measured?
//
// Whole programs, as a user starts them. Each boots Debian's guest, which says when
// it has booted and when each piece of work begins and ends; those lines are timed
// as they come out. What is compared is the ratio of two times of the same round,
// and the median of these: a machine that is slow for a minute is slow for
// all. What takes seconds runs three times in a round. Natively, the same static programs run as they are.
//
// # What is a miss?
//
// A row whose ratio does not reach its target. It is said so, and is no error:
// a benchmark that fails on a busy machine would be worse than none.
package main
