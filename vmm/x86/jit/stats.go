package jit

// Stats counts what an engine did. All of it is counted where generated code is not
// running, so it costs nothing that could be measured, and is always on.
type Stats struct {
	Blocks, Insts, CodeBytes uint64 // translated
	Loops                    uint64 // blocks with a second body
	LookingLoops             uint64 // of those, with accesses that are looked up in each iteration
	AddressWindows           uint64 // windows by an address of the host
	AddendWindows            uint64 // and by an addend to a register
	Sources                  uint64 // operands that are kept so that an exit can make flags of them
	Flushes                  uint64 // times that all code was dropped
	Dropped                  uint64 // blocks whose page was written

	// Enters counts the times that generated code was entered; the others say why it was left.
	Enters uint64
	Budget uint64 // the block is longer than what is left to run
	Link   uint64 // the target of a direct jump was not linked
	Jump   uint64 // the target of a jump to another page was not known
	Dead   uint64 // the block was dropped
	Slow   uint64 // an instruction was left to the interpreter: the sum of Fallbacks and of these
	Memory uint64 // memory that the TLB does not grant, or that raises an exception
	Target uint64 // the target of an indirect jump was not known
	Vector uint64 // an SSE, MMX or x87 instruction that the guest may not execute, or that may raise an exception

	// Fallbacks counts the instructions that the translator always leaves to the interpreter, by form.
	Fallbacks []uint64
	// Interpreted says what was left to the interpreter, and why.
	Interpreted [NumReasons]Interpreted
}

// Interpreted counts work of the interpreter.
type Interpreted struct {
	Times uint64
	Insts uint64 // instructions that retired
}

// Reason says why the interpreter executed something.
type Reason uint8

const (
	// ReasonFallback: an instruction that is not translated, or could not complete in generated code.
	ReasonFallback Reason = iota
	// ReasonCold: a block that cannot be translated, or be fetched without an exception.
	ReasonCold
	// ReasonBudget: less was left to run than the block is long.
	ReasonBudget
	// ReasonCareful: what follows STI or MOV SS, single steps, breakpoints.
	ReasonCareful
	// ReasonMode: not 64-bit mode with paging.
	ReasonMode
	// ReasonStale: an instruction whose bytes are not what they were when it was translated.
	ReasonStale
	// ReasonObserved: an instruction at an address that an observer wants to see.
	ReasonObserved
	NumReasons
)

var reasonNames = [NumReasons]string{"instruction not translated", "cold code", "end of a run", "interrupt shadow, trap or breakpoint", "not 64-bit mode", "modified code", "observed address"}

func (r Reason) String() string { return reasonNames[r] }
