// Package compare tells how two runs differ: a golden one, and a faulty one that
// was forked from it.
//
// # Where does a run diverge?
//
// A fault changes the state of the hardware at its own step: that is where the
// state differs first, and nobody has noticed yet. The divergence is the first
// instruction after which the processor itself (its registers, its next
// instruction) is not what it was in the golden run. To find it, both machines are
// put side by side before the fault and run in chunks; the chunk after which
// something differs besides what the fault itself changed is run again in smaller
// ones, and at last instruction by instruction.
//
// # What is an outcome?
//
// One word for what became of the run, from its end and its outputs: see Outcome.
package compare
