// Package oracle holds the interpreter to the processor it runs on: generated
// instructions are executed by both, from the same registers and memory, and
// everything that they leave behind is compared bit by bit.
//
// # How is an instruction executed on the processor?
//
// Its bytes lie in a page at a fixed low address. An assembly trampoline loads the
// general registers, RFLAGS and the FXSAVE image, jumps there, and comes back
// through landing pads: short code behind the instruction, and wherever it may
// branch to, that stores the registers. An exception comes back too: a signal
// handler of our own notes vector, error code and address that the kernel passes
// on, and lets the thread continue at a landing pad, so that exceptions are
// compared like everything else (SDM Vol. 3A chapter 6).
//
// 32-bit code runs in compatibility mode, entered and left by far jumps: Linux has
// the descriptors for it, and all addresses are below 2 GiB.
//
// # How does the interpreter see the same memory?
//
// Its page tables map other pages at the same linear addresses with the same
// permissions, and its descriptor tables hold what Linux has in its own. It runs
// in ring 3 and takes exceptions through a real IDT.
//
// # Where do the instructions come from?
//
// From the opcode table itself: each form is encoded with random prefixes,
// registers and addressing modes, then the registers that its address needs are
// solved for. So a new row is covered by being there. excluded.go lists the forms
// that cannot be compared, each with its reason; a form that is neither executed nor
// listed fails the test.
//
// # What is not compared?
//
// What the manuals leave undefined, and ours defines: undefined.go has the flags by
// operation, and checks that ours are as defined. What vendors do differently:
// vendor.go. The x87 instruction and data pointers, which processors save only
// with a pending exception. Reciprocal approximations and transcendentals are
// compared within the manual's bounds.
//
// # How is a failure reproduced?
//
// Each case has a seed of its own, which the report prints: go test
// ./test/oracle -oracle.case=SEED -oracle.run='^form$'.
package oracle
