// Package x86 is the architecture of one processor: its state, how instructions
// are encoded, how addresses are translated, how exceptions and interrupts are
// delivered, what CPUID and the MSRs say. It executes nothing by itself: engines
// (interp, jit) do, and call here for everything that they have in common.
//
// # Where is what?
//
//	state.go            State: all that is saved and hashed
//	cpu.go              CPU: a State attached to RAM and a Bus; raising exceptions
//	inst.go, optab*.go  Inst, a decoded instruction; the opcode table that says all encodings
//	decode*.go          the decoder, derived from the table
//	flags.go            lazy arithmetic flags and conditions
//	mmu.go              page walks and the TLB, which is always coherent
//	access*.go          loads and stores at linear addresses
//	segment.go          segment registers, far transfers
//	task.go             hardware task switching, virtual-8086 mode
//	exception.go        delivery of exceptions and interrupts
//	msr.go, cpuid.go    model-specific registers and CPUID
//
// # How does an exception leave a handler?
//
// CPU.Raise stores it in CPU.Exc and panics with a private sentinel; the engine
// recovers it (IsFault) and calls CPU.Deliver. A handler therefore does all that
// can fault before it changes anything. The happy path pays nothing.
//
// # What counts as an instruction?
//
// Step counts retired instructions. The engine adds one when a handler returns. A
// REP string instruction counts one for each iteration (and one when the count was
// zero): its handler runs iterations while Step < Until, adds all but the last
// to Step itself, and when it stops early sets RIP back to InstRIP. A fault retires
// nothing, but iterations that were complete before it count. Delivery counts nothing.
package x86
