// Package fpu executes the guest's floating-point and vector instructions, one at a time: on amd64 on the
// host's own unit, exact and cheap; on other hosts in software, exact too.
//
//	fpu.go            Context, where operands and results are; Unit, which makes an instruction a Stub and calls it
//	native_*.go       stubs for the host's unit, with a trampoline in assembly
//	soft.go           an instruction taken apart, and made a function
//	soft_integer.go   MMX and SSE integer instructions, moves and shuffles
//	soft_float.go     SSE floating point
//	soft_x87.go       x87: the register stack, the condition code, loads and stores
//	soft_transcendental.go, wide.go
//	                  the x87 transcendentals
//	softfloat         arithmetic, for SSE and x87 alike
//
// # What may a stub do?
//
// For each instruction, a stub of a few bytes is generated once that loads the operands and the guest's control
// state, executes that one instruction and stores the result. It runs on the goroutine's stack below a NOSPLIT
// frame and uses none of it but the return address. It touches RAX, RCX, RDX, RDI, the vector and x87 registers, all free
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
// What is not, is done in software on every host: RCPPS, RSQRTPS and their scalar forms, the x87 transcendentals, FPREM,
// FBLD. The pointers
// FIP, FDP and FOP, which vendors save differently, are the caller's business.
//
// The software is held to the host's unit by a test in package interp, which runs each instruction that
// the interpreter has executed here, with each immediate, on both, and compares everything: results, flags,
// tags and the condition code. Where the SDM leaves something open, the software does as that unit did.
package fpu
