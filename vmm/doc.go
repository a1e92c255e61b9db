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
package vmm
