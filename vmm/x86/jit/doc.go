// Package jit translates guest instructions into instructions of the host, which is
// of the same architecture: most of them stay what they are, with other registers. It
// runs 64-bit code with paging on linux/amd64; everything else, and every single
// instruction that it does not translate, it leaves to the interpreter, which stays
// the specification: the tests hold the two together step by step.
//
// # Where is what?
//
//	engine.go      Engine: finding blocks, entering and leaving generated code, invalidation
//	translate.go   the translator of a block, its exits, the code that all blocks share
//	ops_*.go       the translation of the instructions: ops_integer.go has emit, which tells them apart
//	flags.go       where the guest's arithmetic flags are, and how they are saved and had again
//	registers.go   where the guest's registers are, and how an instruction gets at them
//	memory.go      how it gets at memory
//	link.go        how a block leads to others
//	spaces.go      jump targets of address spaces that are not in use
//	window.go      looking several accesses up at once
//	value.go       which accesses are constants apart, whatever registers they go through
//	cold.go        code behind a block, that rarely runs
//	slow.go        instructions that are left to the interpreter
//	beside.go      accesses beside what somebody watches on the same page
//	loop.go        the second body of a loop, which looks up only what it cannot foretell
//	asm.go         the assembler
//	code_unsafe.go where generated code lies, and the offsets that it uses
//	enter_*.s      the way in
//	stats.go, account.go, codemap.go   what is counted, and names for perf
//
// # How does generated code live with the Go runtime?
//
// It is entered through an ABI0 function without a frame, calls nothing, and returns.
// RSP points into the frame meanwhile and RBP is the guest's. That is sound
// because the runtime has its signal handlers on a stack of their own and takes a
// program counter that belongs to no Go function as a reason to touch nothing: it
// neither preempts there nor unwinds. What the ABI wants back is RSP, RBP, MXCSR and an x87 unit after FNINIT.
// How long the collector may have to wait is bounded by the budget. Code is written
// through one mapping of memory and executed through another.
//
// # What is where, in generated code?
//
// RSP points into the frame, which has the general registers of the guest, the budget and the flags,
// and ends where the TLB of user programs begins: all of that is within a byte's displacement. Constants of
// four bytes are scarce in what a processor keeps of decoded instructions: a sort takes 5 % less since the
// budget and that TLB need none. All else of the processor and the engine is further away (x86.Layout).
//
// Twelve of the general registers live in host registers (hostOf), and those that
// instructions imply, but RAX, have the same number there; R12 to R15 of the guest stay in the frame (with
// R12 in the place of R11, a sort takes 4 % longer, and a fork 2 % less). RAX, R10 and R11 of the host are
// the translator's. In the second body of a loop, the budget may be in a register. The vector registers are the guest's once an instruction of the
// run needed one; a byte in the frame says so, and they are stored on the way out. The
// x87 unit likewise (ops_x87.go), while the guest masks all of its exceptions; the
// transcendentals, FNSAVE and its like are the interpreter's.
//
// # How is exactness kept?
//
// A block takes its length from the budget when it is entered, and leaves if that
// is not there; the interpreter executes the rest one by one. Where a block is left
// early, what did not retire goes back into the account. So the step of each
// instruction is known without being counted, and a time-stamp counter is a
// subtraction.
//
// # Where are the flags?
//
// The arithmetic flags are in the host's register after the instruction that sets
// them, and are stored (LAHF, SETO) only when something needs them that is not the
// next instruction: the end of a block, another use of the host's flags, an exit. For
// an exit they are rather computed once more, out of line, from the registers that
// they came from, while those have not changed; shifts and products store for that
// what they work on, where only exits are in question. What the manual leaves undefined is
// made what the interpreter defines when they are stored (flagClass).
//
// # How does memory work?
//
// Each access looks its page up in the processor's TLB, the one that the interpreter
// uses, with an inline sequence that also excludes crossing the page; then it is one
// instruction of the host. The TLB is always coherent and grants only what nobody
// needs to hear of, so a hit has no more to do. In all other cases the block is left
// before the instruction has changed anything, the interpreter executes it, with all
// that may come of it, and the block is resumed behind it if the world is still what
// it was. A window (window.go) looks several accesses up at once that are known to be
// near each other (value.go), and a loop through memory looks up once for each page what moves by constants (loop.go).
//
// # Where does a block end?
//
// At the end of its page, at what leads elsewhere by a register, a call, or an exit, and where it comes to an instruction of
// its own. A branch forwards is taken to be rare: the block goes on behind it. A jump, and a branch backwards, which is taken to
// be the rule, it follows up to three times where that leads to the same page. So a loop of several blocks mostly is one, whose end
// is its beginning, and windows hold for all of it. What an interrupt or an exit returns to is in the middle of something: blocks
// that begin there follow nothing, or they would become a loop that begins in its middle, and runs slower (the shuffle by 10 %).
//
// # What does it cost to be looked at?
//
// Where somebody wants to see an instruction (x86.Observer), blocks end before its address, and
// what begins there is left to the interpreter: about 80 ns each time, and nothing otherwise. Accesses
// to watched bytes leave generated code too. Those beside them, on the same page, go by TLB entries of their
// own kind, through a second look-up that only the instructions have that needed it once (beside.go).
//
// # What about modes and privilege?
//
// A block belongs to a mode: supervisor, user, or supervisor with EFLAGS.AC. That
// decides which of the TLBs its accesses use and what its privileged instructions
// may do, so neither is asked at run time. SYSCALL, SYSRET, IRET, STAC and CLAC go to
// blocks of another mode without leaving generated code.
//
// # What makes a block valid?
//
// It is known by linear address, RAM offset and mode. Writes to the bytes that it was made from drop it, and so do many
// to their page (mem.Code): its entry becomes an exit, since others jump there. Its address may
// come to mean another page without any write to this one; so jumps that stay in a
// page are direct, while those between pages go through a table of jump targets that
// CPU.CodeFlushed clears, or, among the pages of a kernel, which hardly ever move, are
// direct under a generation number. Returns and indirect jumps look the table up. What it
// says of user programs is put aside with their address space (spaces.go).
//
// # Why is nothing asked about interrupts?
//
// Whatever could make one deliverable is done by the interpreter, or changes IF. For
// STI, SYSRET and IRET the machine says beforehand whether an interrupt waits
// (CPU.InterruptPending): that cannot change before generated code is left. While none
// waits, the interrupt shadow of STI has no consequence, provided that the
// instruction behind it is in the same block.
//
// # Are returns predicted?
//
// By the host: each return has an indirect jump of its own, and a processor predicts those by the
// path that led to them. A recursive function in which every fifth instruction is a call or
// a return (Fibonacci's numbers) runs at two thirds of the processor's own speed. A stack of return
// addresses would take more instructions than the lookup does.
//
// # Which alternatives were tried?
//
// Measured on the user programs of test/bench and on the Debian boot: superblocks that
// go on behind branches and flags that are computed again changed little by themselves
// (the time is in memory accesses and branches that the processor predicts wrongly, and
// those cost more where the address of a load has to be translated first), but windows
// need the longer blocks. Versions of blocks that expect the flags of a certain comparison, so that
// branches within a loop need not save them, took 2 % off SHA-256 and up to 5 % off the sort, and added 4 % to the product of
// matrices: two copies of each hot branch have to be predicted. Leaving it to the interpreter to get from where an interrupt
// returns to the next branch saves 1 % of all translation, and no time. What brought most, in this order: a TLB that forgets ranges
// and not everything when tables change, links between the kernel's pages, system calls
// and STI without an exit, string instructions on the host. The second body of loops
// (loop.go) made a product of matrices three times faster: most instructions of an
// iteration were lookups. Two copies of a short one are better than one or four.
//
// # Where does the system path spend its time?
//
// In samples of the programs of test/bench that call the kernel. A system call without work
// (umask) never leaves generated code: 266 instructions, 80 ns. Passing a word through pipes
// left it thirteen times for each switch of processes, for 45 % of the time: the first accesses and jumps
// of a process after each switch (eight), REP MOVS of no length behind the whole words (two), XSAVE,
// XRSTOR and the load of CR3. Address spaces that come back (x86/spaces.go) and REP of no length
// in generated code made it a third faster, with bytes loaded and stored by the span. Keeping all jump
// targets of a process cost as much as it brought: those of its start are of no use later.
//
// A fork leaves generated code 150 times; it was 410. Of those 44 were two
// pages, a kernel's own data and the data of its processor, that shared an entry of the TLB, and 60 returns
// that shared a jump target: twice and four times as many of those made it 13 % faster. What is
// left is mostly stores to page tables (100), which the TLB has to hear of. The interpreter raises page faults by a
// Go panic, which was 8 % of the time of a fork; so those of an instruction's first access, and of a fetch, are found out before it
// is asked (slow.go). IRET in generated code is worth 3 % of a boot, which
// executes 120,000 to serialise the processor; after a page fault it stays with the interpreter, because RF is set.
// Entering generated code in slices, so that the collector waits less, was worth nothing.
//
// Recording costs the thread of the machine 2 to 3 % of the programs of test/bench (four pairs of profiles; it was 6 and more):
// copies of what it writes again before a snapshot has read it 0.4 %, marks 0.2 %, snapshots 0.2 %, the first of each 0.1 %, and
// 45,000 stores that come to their page for the first time after a mark, 0.25 us each, 0.3 %. The rest is slower
// memory, while another thread reads and writes as much: that one needs 0.9 s beside 4, for hashes, SHA-256, Zstandard and the
// files. What it took away from the thread of the machine (package snapshot): hashes of memory, 0.9 %; encodings of the devices,
// 0.4 %; locks, and waiting for them; page faults; and garbage. When the collector runs into generated code, it
// sends a signal every few microseconds until that returns, and each takes about ten from the thread: they were several thousand in a run.
//
// # What limits loops through memory?
//
// How far ahead the host looks. Each host instruction that writes a register takes one of its physical registers until it
// retires; an iteration of the shuffle of test/bench (a random element and one in order change places) that wrote forty
// of them left room for five iterations, and so for five loads that miss all caches, where the processor itself
// has twenty under way. Samples showed nothing but the load. So what counts there is the number of
// instructions: entries of 16 bytes in the TLB took 4 % off the walk through 64 MiB, windows for
// any operand and flags that only exits make 10 %, second bodies for such loops 20 %: it takes 1.3 times
// as long as on the processor itself, it was 1.8.
//
// # What keeps a sort from the processor's own speed?
//
// A heap sort takes 1.4 to 1.5 times as long. The branch that compares two children goes either way, and is wrong as often as
// on the processor itself. The rest was measured on a copy of the loop as it is translated, from which one thing
// after the other was taken: without lookups 1.08 times as long as the program, with them 1.38; without saving
// flags at the ends of blocks 1.32, without budgets 1.33. Of its three lookups two
// became one when blocks followed branches and both children were known to be neighbours (value.go): 8 % off. The next load waits
// for one after each wrong prediction. Shorter sequences (RORX, alignment in place of the last byte's page) change 2 % on the copy, and nothing in the sort.
// Masks from the frame instead of constants in the instructions cost it 4 %, as did a shift in the place of a test.
// Since what is used most is near to RSP, no budget at all would save 1 to 2 %, and no saved flags 1 %.
//
// On the copy most of that is the way from an address to the host's: with an addend that does not come from the entry, which is only
// checked, it is 1.18. In the sort itself, with its array mapped once more in linear order, and that one addend compared with
// the entry's, the check took what the shorter way brought.
//
// Comparing addresses with the ends of a run of pages that lie in one piece in host memory, where the block is hot, does
// better on the copy (1.17). A program's pages do not lie so; to map them once more in the order of their
// linear addresses takes as long as a thousand lookups each. With sampling, invalidation and that, the sort was 4 % faster at
// best and a fork 5 % slower, so it is not there. Guest memory in large pages changed nothing, although
// the host had them; the TLB in large pages (x86.newArea) made the sort 8 % faster.
package jit

import "errors"

// ErrHost reports a host that the translator does not support.
var ErrHost = errors.New("the translator runs on linux/amd64 only")
