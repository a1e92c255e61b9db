// Package dev is what every device of the machine has in common: ports and
// registers, interrupt lines, the queue of virtual-time events, and saved state.
// The devices themselves live one package each below it.
//
// # What may a device know?
//
// Its registers' offsets, its interrupt lines and the queue; never another
// device, never the CPU, never the host. The machine (package vmm) wires lines
// and buses. Virtual time, in nanoseconds since power-on, is the only clock.
// Anything a device does later, it does from a Timer, so that the machine knows
// how far the CPU may run before the device has to act.
//
// # How is state saved?
//
// A device's State is a plain struct (no maps, no pointers shared with the live
// device) with a leading Version. Its msgpack encoding is what snapshots store
// and what the state hash covers, so a field that is missing from State is found
// by the test that every device has: run N, save, run M equals restore, run M.
package dev
