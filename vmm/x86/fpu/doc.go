// Package fpu executes floating-point and vector instructions on the host's own
// unit: exact and cheap. For each instruction it generates once a stub of a few
// bytes that loads the operands and the guest's control state, executes that one
// instruction and stores the result; a trampoline in assembly calls it.
//
// # What may a stub do?
//
// It runs on the goroutine's stack below a NOSPLIT frame and uses none of it but
// the return address. It touches RAX, RDI, the vector and x87 registers, all free
// under ABI0, and puts the host's MXCSR back. x87 state is left as FNINIT leaves
// it, which is what Go expects. SSE exceptions are all masked while it runs, whatever
// the guest wants: the caller compares the flags that were raised with the guest's
// masks afterwards. x87 exceptions are masked as the guest has it: an unmasked one
// traps at the next waiting x87 instruction, and there is none before FNINIT. So no
// signal ever comes from a stub.
//
// # Is the result the same on every host?
//
// SSE and basic x87 arithmetic is defined to the bit by IEEE 754 and the SDM.
// What is not (RCPPS, RSQRTPS and their scalar forms, the x87 transcendentals) is
// not executed on the host but computed in software, by the interpreter. The pointers
// FIP, FDP and FOP, which vendors save differently, are the caller's business.
package fpu
