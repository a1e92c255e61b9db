// Package i8042 is the keyboard controller of a PC (IBM PS/2 Hardware Interface
// Technical Reference, "Keyboard and Auxiliary Device Controller") with a
// keyboard that nobody touches, and port 92H.
//
// Its job is to be found at once and left alone. A controller that is
// missing, or that has no keyboard, costs a guest seconds of waiting for answers;
// this one answers every command in the instruction that gives it. There is no mouse: the
// auxiliary port's loop-back and interface test fail as they do on a controller
// without one.
//
// A guest resets the machine through it (command FEH, the output port, or port 92H),
// by a callback. The A20 gate is a bit that can be written and read; address line
// 20 is never masked, as on every machine that has no gate any more.
package i8042
