// Package pit is the 8254 interval timer of a PC and the system control port 61H
// that gates its third channel (Intel 8254 data sheet).
//
// # Who counts?
//
// Nobody. What a counter reads and what its output is follow from virtual time, from
// the clock at which its counting element was loaded and from what it was loaded with;
// only channel 0, whose output is an interrupt, has a timer, for the next edge that matters.
// Time is in clocks since power-on, so that all edges lie where the crystal puts them.
//
// # What is not exact?
//
// A count that is written takes effect at the next clock, as it does on the chip; in
// between, for less than a microsecond, the counter reads as if it had. Modes 2, 4 and 5
// have an output that is low for one clock: channel 0 tells of its end, the rising edge, alone.
package pit
