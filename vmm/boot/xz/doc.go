// Package xz unpacks what the build of Linux packs with xz: a stream that is all there, to memory that
// is all there.
//
// It follows "The .xz File Format", version 1.1.0: any check, any number of blocks, LZMA2 behind the filter
// for x86 branches or nothing.
//
// # Why not a library?
//
// Unpacking is the longest part of getting a machine to its first instruction. A reader of streams has
// to keep what it has put out as a dictionary, may run out of input or output after any bit, and so
// has its state in memory. Here the output is the dictionary, the decoder's state is in registers, and it does not branch
// where the host would guess wrong: it takes two thirds of the time. The tests hold it to a library.
package xz
