// Package vmm is the machine: it composes processors, memory and devices, and
// runs them. It is a function of its initial state and of the events that come
// through one door, Inputs; nothing in it or below it reads a clock, a random
// source or a host file descriptor.
//
// # What is a position?
//
// A step: the number of instructions retired since power-on. Everything that
// happens, happens between two instructions, at a boundary. While all processors
// are halted no instruction retires and virtual time skips from timer to timer, so
// an event carries a virtual time too: it takes effect when exactly Step
// instructions have retired and virtual time has reached TimeNs.
//
// # What happens at a boundary?
//
// In this order: events from Inputs, timers that are due, then one exception or
// interrupt if the processor accepts one. Run stops before all of that when the
// step that it was asked for is reached. So a stop changes nothing: whatever
// becomes deliverable ends the engine's run at that very instruction (Attention),
// or was computed into the engine's bound before it started, and looking at a
// boundary once more finds nothing new.
//
// # What time is it?
//
// Virtual time in nanoseconds is step plus skew: one instruction takes one
// nanosecond, and the time-stamp counter runs at 1 GHz. Skew grows when a halted
// machine skips to its next timer, and by clock corrections, which are events.
//
// # What executes?
//
// One of two engines (SetEngine), at any step: the translator where the host can,
// or the interpreter, which is the specification. Neither polls anything: until which
// step it may run is computed before it is called. Where single instructions are
// looked at, by a Trace or an Observer, the interpreter runs in either case.
//
// # How is a device added?
//
// A package below dev with a type that implements dev.Device; a few lines in compose,
// which makes it, maps its ports or registers, connects its interrupt line, and puts it
// into the list of devices. The list is the order of states in snapshots and hashes: with
// another one, Model needs another name. The device's own package needs a test that
// saves, restores and goes on (devtest).
//
// # How does hardware break?
//
// Inject makes a resolved Fault happen: once (a bit flips, a bank reports), or as a
// Defect, which stays in the machine as a part of its state and strikes by itself. What
// waits for something to happen is not here: package injectors does, with Observers
// and Watches, and what comes of it is an event.
//
// # How is it looked at, and broken?
//
// An Observer hears of instructions, accesses, exceptions, output and disk commands, and a
// Watch of accesses to physical memory; only what is looked at pays. Both may abandon an
// instruction before it has done anything. Defects are what is wrong with the hardware
// and stays wrong; they are a device, so they are saved, restored and hashed.
package vmm
