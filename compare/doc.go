// Package compare tells how two runs differ: a golden one, and a faulty one that
// was forked from it.
//
//	diff.go         Diff: the first divergence and what follows from it
//	pair.go         two machines side by side; the search for a step
//	touch.go        the search for what touches memory or drives that a fault changed
//	propagation.go  how much differs, as a function of step
//	console.go      two consoles, aligned by line
//	writes.go       what two runs wrote to their disks, sector by sector
//	bisect.go       the first step at which a condition (predicate.go) holds
//	explain.go      the chains of instructions from a fault to what was seen of it
//	origin.go       where a byte that was written to a disk was in memory
//	owner.go        what memory belongs to, from the guest's own tables
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
// Both machines are put side by side right after the fault. Where it changed nothing but memory and drives
// (one that has a bad sector now), they do the same until one of the bytes that differ is touched, or a drive has to do with
// something: the faulty run is played
// with these bytes and the drives watched, and the two are compared after each instruction that touches
// them, and each access of a page walk or a bus master. Nothing can be missed (touch.go).
//
// Where it changed a register or another device (a pending interrupt, a clock), no
// such watch tells when that is made use of. So after the fault the first 16,384 instructions are
// compared one by one, registers and memory, and the registers alone up to 262,144. Then marks at which nothing
// differs but what differed before are skipped without playing: memory's hash is
// a sum over its pages, so two memories that keep differing in the same words keep
// the same difference of hashes. From there both run in chunks, the chunk after which
// something differs runs again in smaller ones, from a checkpoint that costs what was
// written since, and at last instruction by instruction.
//
// What remains: a fault in a register or such a device of which nothing is made for so long, of which then
// something is made that is gone without a trace before the chunk ends, of up to 10,000,000
// steps, or 50,000,000 between two marks. Report.SureTo says up to where nothing was missed. It
// is the same for bytes that are touched all the time to no effect, when that was given up.
//
// # What do equal steps mean when control flow has split?
//
// Less: the runs are at different places. Control flow and privilege are compared
// at equal steps because where they first differ says how the fault was noticed; what
// both said is aligned as text, where a line that came later is the same line.
//
// # What did they write to their disks?
//
// Each mark tells what was written since the one before it, in number and hash. The stretches
// in which these are equal are equal; those of the others are played, by both runs, and each sector
// that reaches a disk there is noted, with its place and content. The n-th write of a content to a
// place is the same as the other run's, however much later it came and however the guest put
// sectors together to commands. What has no equal is told, with its bytes; and of what has, how
// many sectors have to be taken out for the rest to be in the same order. What counts is what reaches
// the medium: a write that a drive acknowledged and lost is missing.
//
// # How is a wrong value followed back?
//
// From where it was seen, to the last instruction that wrote it: memory is watched
// while intervals are played, from the nearest checkpoint back to the fault; a register
// is compared after each instruction. What that instruction made it of is found by trying,
// not from a table of operands: in the golden machine each of the wrong inputs is made
// wrong alone and the instruction executed. What changes the result is a reason: an
// address, where the instruction then accesses other memory; control, where another instruction
// comes next; and otherwise data. The first chain is followed to its end, then all other reasons, within bounds; where
// they meet again they are one. The main chain is the one, by the first reasons, that leads to the
// fault; the others are told as what joins it. This holds up to where control flow splits, which is an effect like any other (of the
// wrong flags, of a wrong pointer, of an exception); from there to the output the
// calls are told.
//
// # What is an outcome?
//
// One word for what became of the run, from its end and its outputs: see Outcome.
package compare
