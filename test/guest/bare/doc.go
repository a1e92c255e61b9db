// Package bare is a guest of refault's own, small enough to be part of the
// program: a bare-metal kernel, and a disk for it. It is what refault
// demonstrates itself on where no other guest is at hand, in seconds, and it
// tells the same story as the Linux guest does: a task, hello, dirties a page,
// says where it is and keeps touching it, while a file is read from the disk.
//
// bare.asm is its source, bare.elf what NASM makes of it (go generate); a test
// checks that the one is still the other. It is an ELF file with a Multiboot 1
// header, so QEMU's -kernel takes it too.
//
// What it exercises: real devices by their registers (16550A, 8254, the PICs,
// the local APIC, IDE by programmed I/O with interrupts, ACPI power-off), 64-bit
// mode with pages of 2 MiB and 4 KiB, a task at privilege level 3 with
// preemption and system calls, exceptions, and machine checks.
//
// # What does it do about a machine check?
//
// What a kernel that can recover does (SDM Vol. 3B 15.6 and 15.10). Corrected
// errors, and uncorrected ones that need no action, are logged when a CMCI or a
// poll finds them. For #MC each bank is logged, and then: with the processor's
// context corrupt, or no way back, it panics. An error that is optional to act on
// (SRAO) takes its page out of use; hello's page is clean, so its content is
// loaded into another one, and hello goes on. An error that was consumed (SRAR)
// ends hello if the page is hello's, whoever was running, since this kernel
// reads no page of a task in its place; anywhere else it is a panic.
//
// # What does it say?
//
// Lines of the kernel begin with "guest: "; the words after it are those that
// package compare looks for: "panic:", "recovered:", "corrected:". The last line
// is "guest: done".
package bare
