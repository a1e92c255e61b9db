// Package softfloat computes in binary floating point as an x86 processor does, bit for bit, with integers only:
// IEEE 754 single and double precision as SSE has them, extended precision as x87 has it, all rounding modes
// and exceptions.
//
// # How is it built?
//
// One unpacked form, Num, serves all formats: a class, a sign, an exponent, and a significand with its most significant bit
// at the top of a word, whatever the precision. An operation takes Nums and returns one that is exact, or has so many
// bits in Low, the last of them sticky, that rounding it is as good as rounding the exact result. Env.Round then rounds once, to
// a Format, and a Format packs. So no operation knows of a format, and no format of an operation.
//
// # Where do SSE and x87 differ?
//
// In which of two NaNs an operation returns (Env.X87), in denormal operands and tiny results that are taken for zero
// (Env.DAZ, Env.FTZ), and in what an unmasked overflow or underflow does: x87 delivers a result whose exponent is
// out by 24576 (Env.Wrap); SSE delivers none, so its caller masks everything and looks at the flags afterwards.
// Both detect tininess after rounding (SDM Vol. 1 4.9.1.5).
//
// # In which order do exceptions come?
//
// An operation raises those of its operands: invalid operation, division by zero, denormal operand; rounding raises those of
// the result. A caller for whom one of the former is unmasked looks at Env.Raised in between, and does not round.
package softfloat
