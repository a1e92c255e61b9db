// Package interp executes instructions one by one: the specification that every
// faster engine has to agree with.
//
// It decodes basic blocks once, into a cache keyed by physical address and mode,
// and runs the handlers of their instructions in a row. A handler is a small
// function of a CPU and a decoded instruction; each ops_*.go file binds the
// operations of its part of the opcode table to handlers with a selector, which
// picks the handler for an operand form once, at decoding.
//
// # How is an instruction added?
//
// A row in x86/optab_*.go says how it is encoded; a handler and its selector in the
// ops_*.go file of the same name say what it does. A test checks that every row
// has a selector.
//
// # How is exactness kept?
//
// A block never runs past the step it was asked for; a REP string instruction ends
// a block and bounds itself by CPU.Until. Whatever may make an interrupt
// deliverable sets CPU.Attention, which ends the run after that instruction. What
// must be looked at between any two instructions (single-step, breakpoints,
// interrupt shadows, a trace) takes the careful path, one instruction a time.
//
// # What computes floating point?
//
// Vector and x87 instructions go to package fpu, whole: to the host's own unit, or to software that a test here holds
// to it.
//
// # What is cached?
//
// Blocks lie in one page. An instruction that crosses into another is decoded
// every time it runs, from both pages as they are mapped then. A write to a page
// that holds decoded code drops that page's blocks before the next instruction.
package interp
