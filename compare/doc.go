// Package compare tells how two runs differ: a golden one, and a faulty one that
// was forked from it.
//
//	diff.go         Diff: the first divergence and what follows from it
//	pair.go         two machines side by side; the search for a step
//	propagation.go  how much differs, as a function of step
//	console.go      two consoles, aligned by line
//	outcome.go      what became of the faulty run, in a word
//
// # Where does a run diverge?
//
// A fault changes the state of the hardware at its own step: that is where the
// state differs first, and nobody has made anything of it yet. The divergence is the
// first instruction after which anything differs beyond that: another register, another
// word of memory, another value in the one that the fault changed, a device. A flipped bit
// that is overwritten before anybody reads it never makes one.
//
// # How is it found?
//
// Both machines are put side by side right after the fault. Marks at which nothing
// differs but what differed before are skipped without playing: memory's hash is
// a sum over its pages, so two memories that keep differing in the same words keep
// the same difference of hashes. From there both run in chunks, the chunk after which
// something differs runs again in smaller ones, from a checkpoint that costs what was
// written since, and at last instruction by instruction. So a difference that
// appears and is gone again within a chunk can escape, and only that: not near the
// fault, where every instruction is looked at.
//
// # What do equal steps mean when control flow has split?
//
// Less: the runs are at different places. Control flow and privilege are compared
// at equal steps because where they first differ says how the fault was noticed; what
// both said is aligned as text, where a line that came later is the same line.
//
// # What is an outcome?
//
// One word for what became of the run, from its end and its outputs: see Outcome.
package compare
