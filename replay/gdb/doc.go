// Package gdb lets GDB look at a recording: it serves the remote serial protocol
// (GDB manual, appendix E) on a replay.Timeline.
//
//	packet.go     framing: $data#sum, acknowledgements, the interrupt byte
//	server.go     what each packet asks for
//	run.go        going forward and back: steps, breakpoints, watchpoints
//	registers.go  the processor's registers as GDB wants them, and target.xml
//	monitor.go    the commands after "monitor"
//	files.go      the kernel's symbols, as a file on the target
//
// # What is a place?
//
// A step, the number of instructions retired, and whether an exception or interrupt
// was delivered there already. So a breakpoint on a handler's first instruction stops
// with the program counter on it, and single steps show a delivery as a step of its own.
//
// # How is a breakpoint found without changing the run?
//
// An observer notes the step at which it came; the Timeline then goes to that
// step. Backwards it is the last that came before: intervals are played from the
// nearest checkpoint before, until one has any.
//
// # How does one go to a step?
//
// As rr does it: GDB starts a program anew, at a step, with "target extended-remote" and
// "starti STEP" (vRun); "run STEP" goes on from there. GDB knows of no other packet by which a target could tell that all
// registers have changed: after "monitor step", it has to be told.
//
// # What can be changed?
//
// Nothing: this is what happened. Writes to memory and registers are refused.
package gdb
