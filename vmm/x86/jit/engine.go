//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"slices"

	"refault/vmm/mem"
	"refault/vmm/x86"
	"refault/vmm/x86/interp"
)

const (
	// bias is how far behind the State RSP points while generated code runs: into the frame, so that
	// all of that is within a byte's displacement, and so is the beginning of the TLB of user programs.
	bias = x86.NearAt + 8*16

	codeBytes  = 64 << 20
	maxCode    = 64 << 10 // that one block may take
	maxInsts   = 48       // in a block: with 64, more is translated, and a fork takes 5 % longer
	maxFollows = 3        // branches in a block behind which it goes on where they lead
	jumpSlots  = 65536    // of each table of jump targets
	tableSlots = 1 << 16
	numModes   = 3 // ViewSuper, ViewUser, ViewSuperAC
)

// tables is the engine's part of the processor's area, which generated code uses.
type tables struct {
	jumps   [numModes][jumpSlots]jumpSlot
	x87     x87Area
	approx  approxArea
	scratch scratch
}

// frame is what generated code has nearest to RSP, which points behind the registers.
type frame struct {
	regs     [16]uint64 // of the guest
	budget   uint64     // instructions that may still be executed
	exit     uint32     // which one was taken
	xmm, x87 uint8      // one while the vector registers are loaded, and the x87 unit
	_        [2]byte
	flags    uint16 // arithmetic flags as SETO AL and LAHF give them
	_        [2]byte
	x87ID    uint32 // number of the last instruction that set FIP and FOP, if there was one
	_        [8]byte
}

// jumpSlot says where the code of an instruction address is.
type jumpSlot struct {
	rip  uint64
	code uint64
}

type scratch struct {
	hostSP, hostBP uint64
	target         uint64
	tmp            uint64
	hostMXCSR      uint32
	sseOK          uint32 // SSE instructions raise nothing by themselves
	tsc            uint64 // the time-stamp counter where the budget will be spent
	sysOK          uint32 // SYSCALL and SYSRET raise nothing
	quiet          uint32 // no interrupt waits for IF
	windows        [maxWindows]uint64
	cut            uint64 // from the budget, by the second body of a loop
	source         uint64 // what flags may be made of once more
	generation     uint32 // of links between pages of the upper half: another whenever such a page may lie elsewhere
	beforeSTI      uint32 // RFLAGS as the last STI found them
	sysFirst       uint64 // somebody wants to see system calls with numbers from here,
	sysSpan        uint64 // so far,
	sysSeen        uint32 // if this is not 0
	looked         [2]lookedSpan
}

const (
	sHostSP = 8 * iota
	sHostBP
	sTarget
	sTmp
	sHostMXCSR
	sSSEOK      = sHostMXCSR + 4
	sTSC        = sHostMXCSR + 8
	sSysOK      = sTSC + 8
	sQuiet      = sSysOK + 4
	sWindows    = sQuiet + 4
	sCut        = sWindows + maxWindows*8
	sSource     = sCut + 8
	sGeneration = sSource + 8
	sBeforeSTI  = sGeneration + 4
	sSysFirst   = sBeforeSTI + 4
	sSysSpan    = sSysFirst + 8
	sSysSeen    = sSysSpan + 8
	sLooked     = sSysSeen + 8
)

type exitKind uint8

const (
	exitSlow     exitKind = iota // the interpreter has to execute the instruction
	exitBudget                   // the block is longer than what is left to run
	exitLink                     // the target of a jump is not linked
	exitJump                     // like exitLink, through the table of jump targets
	exitFar                      // like exitLink, behind a comparison with the generation of the kernel's links
	exitPlain                    // like exitLink, to the plain block that begins in the middle of this one
	exitDead                     // the block was dropped
	exitObserved                 // somebody wants to see the instruction at the beginning of the block
)

// exit says what generated code means by returning. There are five to a block, so they are small and hold no pointers.
type exit struct {
	kind   exitKind
	mode   uint8 // of the processor when the exit is taken
	idx    uint8 // instructions of the block that have retired
	call   bool  // exitSlow: not a miss, the translator knows no better
	sti    bool  // exitSlow: the instruction before is STI
	vec    bool  // exitSlow: going on needs the vector registers
	x87    bool  // exitSlow: going on needs the x87 unit
	pos    int16
	b      int32  // the block's number
	site   int32  // exitLink: offset of the displacement that names the target
	target uint64 // exitLink: RIP

	// exitSlow: the accesses of the instruction are besides[access:access+accesses].
	access   uint32
	accesses uint8
	resume   int32 // exitSlow: offset of the code that goes on behind the instruction, or 0
	inst     int32 // exitSlow: number of the decoded instruction, or 0 until it is first needed
}

// pieceLen is how many elements of a list are allocated at a time.
const pieceLen = 4096

// list is a slice in pieces: its elements never move, and nothing is copied where it grows.
type list[T any] struct {
	pieces []*[pieceLen]T
	n      int
}

func (l *list[T]) at(i int) *T { return &l.pieces[i/pieceLen][i%pieceLen] }

// add adds v and returns its index.
func (l *list[T]) add(v T) (i int) {
	i = l.n
	if i == len(l.pieces)*pieceLen {
		l.pieces = append(l.pieces, new([pieceLen]T))
	}
	*l.at(i) = v
	l.n++
	return i
}

// cut drops all elements but the first n.
func (l *list[T]) cut(n int) { l.n = n }

// block is a run of guest instructions in one page, translated.
type block struct {
	id       int32
	next     int32 // number of the next in its slot of Engine.table, or 0
	rip      uint64
	off      uint64 // offset into RAM
	mode     uint8
	n        uint8
	dead     bool
	plain    bool
	straight bool // it follows no branches, since it begins in the middle of something
	// Of the instructions, if it does not cross: in bytes, how far they reach before the first one and behind its beginning.
	before, size uint16
	entry        int // offset of its code

	// A block of one instruction that reaches into the next page, whose offset into RAM is second.
	cross  bool
	second uint64
	code   [16]byte
}

// ripAt returns the address of the instruction pos bytes from the first one, before it or behind.
func (b *block) ripAt(pos int16) uint64 { return b.rip + uint64(int64(pos)) }

// offAt is ripAt in RAM.
func (b *block) offAt(pos int16) uint64 { return b.off + uint64(int64(pos)) }

// filled lists the slots that may name the lower half.
type filled struct {
	at [4096]uint16
	n  int // beyond the array's length: too many to list
}

func (f *filled) add(i uint16) {
	if f.n < len(f.at) {
		f.at[f.n] = i
	}
	f.n++
}

// Engine runs one processor.
type Engine struct {
	c      *x86.CPU
	in     *interp.Engine
	mem    *codeMemory
	layout x86.Layout
	tab    *tables
	frame  *frame
	Stats  Stats

	codeMap *CodeMap

	tscOffset uint64 // of the time-stamp counter from the step, without IA32_TSC_ADJUST

	prologue, exitAt, loadXMM, loadX87, xsaveAt, xrstorAt int
	firstBlock                                            int // offset behind the common code

	exits    list[exit]
	blocks   list[block] // by number; there is none with number 0
	insts    []*slowInst // that exits leave to the interpreter, by number
	approx   [4]int      // offsets of common code
	besides  list[beside]
	x87Insts []x87Inst              // by the number that generated code notes, less one
	table    [tableSlots]int32      // numbers of blocks that live, by address
	pages    map[uint64]*codePage   // by page of RAM
	virtual  [2]map[uint64]struct{} // linear pages that the tables of jump targets name, by half
	filled   [numModes]filled
	spaces   spaces
	crossed  []*block // of the upper half, that links lead to as if they lay in one page

	observed []x86.Span // what the blocks know of ObservedCode

	current uint64 // linear page of the block that was left for an instruction
	remap   bool   // its translation may have changed since
	t       translator
}

// New returns a translator for c. It leaves what it does not translate to in, which
// must have been made for c before.
func New(c *x86.CPU, in *interp.Engine) (*Engine, error) {
	m, err := newCodeMemory(codeBytes)
	if err != nil {
		return nil, err
	}
	e := &Engine{c: c, in: in, mem: m, layout: c.Layout(), tab: tablesOf(c), frame: frameOf(c)}
	e.tab.approx.init()
	e.emitCommon()
	e.reset()
	written, flushed := c.CodeWritten, c.CodeFlushed
	c.CodeWritten = func(off uint64, n int) {
		written(off, n)
		e.codeWritten(off, n)
	}
	c.CodeFlushed = func(first, last uint64) {
		e.codeFlushed(first, last)
		flushed(first, last)
	}
	c.SpaceChanged = func(old, new uint64) {
		e.spaceChanged(old, new)
		flushed(0, x86.LowerHalf)
	}
	in.Dropped = e.flush
	return e, nil
}

// Close frees the code.
func (e *Engine) Close() error { return e.mem.close() }

// usable reports whether generated code may run: 64-bit mode, and nothing to look at between instructions.
func (e *Engine) usable() bool {
	c := e.c
	return c.Shadow == 0 && c.RFLAGS&(x86.FlagTF|x86.FlagRF) == 0 && c.DR[7]&0xff == 0 && e.in.Trace == nil &&
		c.View() != x86.ViewSlow && c.CodeSize() == 8 && c.CR0&x86.CR0PG != 0 && (c.CPL == 0 || c.CPL == 3)
}

// Run executes until exactly until instructions have retired, or until the
// machine must look at something: CPU.Attention is set, or the processor is not active.
func (e *Engine) Run(until uint64) {
	c, s := e.c, &e.tab.scratch
	e.observe()
	// Neither changes without Attention.
	e.tscOffset = c.Bus.TSC(c) - c.Step
	s.quiet = bit(c.InterruptPending != nil && !c.InterruptPending())
	middle := true
	for c.Step < until && !c.Attention && c.Activity == x86.Active {
		if !e.usable() {
			e.block(until, e.unusable())
		} else if b := e.find(c.Regs[x86.RIP], middle); b != nil {
			middle = e.exec(b, until)
		} else if c.PageFault(c.Regs[x86.RIP], 1, x86.Fetch) {
			e.in.Fault()
		} else {
			e.block(until, ReasonCold)
		}
	}
	c.Materialise()
}

// observe drops the blocks for which another set of addresses is observed than when they were translated.
// While code runs, addresses only come out of that set.
func (e *Engine) observe() {
	spans := e.c.ObservedCode()
	if slices.Equal(spans, e.observed) {
		return
	}
	var changed []x86.Span
	for _, s := range spans {
		if !slices.Contains(e.observed, s) {
			changed = append(changed, s)
		}
	}
	for _, s := range e.observed {
		if !slices.Contains(spans, s) {
			changed = append(changed, s)
		}
	}
	e.observed = slices.Clone(spans)
	for id := 1; id < e.blocks.n; id++ {
		b := e.blocks.at(id)
		// The address behind the block counts too: because of that it may end there.
		last := b.rip + min(uint64(b.size), ^b.rip)
		if slices.ContainsFunc(changed, func(s x86.Span) bool { return s.Overlaps(b.rip-uint64(b.before), last) }) {
			e.drop(b)
		}
	}
}

func hashRIP(rip uint64) uint64 { return rip ^ rip>>14 }

// noTarget is what slot i of a table of jump targets says where it says nothing: an address that is
// not canonical, and that is not looked up in that slot, since a guest may jump there.
func noTarget(i int) uint64 {
	if i == 0 {
		return 1<<62 | 1
	}
	return 1 << 62
}

// slot is where in Engine.table a block is.
func slot(rip uint64, mode uint8) uint64 { return (hashRIP(rip) ^ uint64(mode)<<13) % tableSlots }

// known returns a block that was translated, or nil.
func (e *Engine) known(rip, off uint64, mode uint8, plain bool) *block {
	for id := e.table[slot(rip, mode)]; id != 0; {
		b := e.blocks.at(int(id))
		if b.rip == rip && b.off == off && b.mode == mode && b.plain == plain {
			return b
		}
		id = b.next
	}
	return nil
}

// blockOf returns the block that an exit belongs to.
func (e *Engine) blockOf(x *exit) *block { return e.blocks.at(int(x.b)) }

// add takes up a block, which is known from now on.
func (e *Engine) add(v block) *block {
	first := &e.table[slot(v.rip, v.mode)]
	v.id, v.next = int32(e.blocks.n), *first
	*first = v.id
	return e.blocks.at(e.blocks.add(v))
}

// find returns the block at rip, or nil where the interpreter has to go on. middle says that no branch is known to lead there.
func (e *Engine) find(rip uint64, middle bool) *block {
	mode := uint8(e.c.View())
	off, ok := e.c.CodeOffset(rip)
	if !ok {
		return nil
	}
	b := e.known(rip, off, mode, false)
	if b != nil && b.straight && !middle {
		e.drop(b)
		b = nil
	}
	if b == nil {
		// At the first visit: decoding it for the interpreter costs more.
		if b = e.translate(rip, off, mode, false, middle); b == nil {
			return nil
		}
	}
	if b.cross {
		next := (rip | (mem.PageSize - 1)) + 1
		second, ok := e.c.CodeOffset(next)
		if !ok {
			return nil
		}
		if second != b.second {
			e.drop(b)
			return nil
		}
		e.virtual[next>>63][next>>mem.PageShift] = struct{}{}
	}
	i := hashRIP(rip) % jumpSlots
	slot := &e.tab.jumps[mode][i]
	if slot.rip != rip {
		slot.rip = rip
		half := rip >> 63
		e.virtual[half][rip>>mem.PageShift] = struct{}{}
		if half == 0 {
			e.filled[mode].add(uint16(i))
		}
	}
	slot.code = uint64(e.mem.addr(b.entry))
	return b
}

// plain returns the plain block at rip, or nil.
func (e *Engine) plain(rip uint64) *block {
	mode := uint8(e.c.View())
	off, ok := e.c.CodeOffset(rip)
	if !ok {
		return nil
	}
	if b := e.known(rip, off, mode, true); b != nil {
		return b
	}
	return e.translate(rip, off, mode, true, true)
}

// again returns the block that replaces one that was dropped.
func (e *Engine) again(b *block) *block {
	if b.plain {
		return e.plain(b.rip)
	}
	return e.find(b.rip, b.straight)
}

// exec runs generated code from the beginning of b until it needs somebody else. It reports whether
// what comes next is in the middle of something, as find wants to know.
func (e *Engine) exec(b *block, until uint64) (middle bool) {
	c := e.c
	at := b.entry
	for {
		x, left := e.enter(at, until-c.Step)
		switch x.kind {
		case exitBudget:
			c.Step = until - left
			c.Regs[x86.RIP] = e.blockOf(x).rip
			e.Stats.Budget++
			e.block(until, ReasonBudget)
			return true
		case exitObserved:
			c.Step = until - left
			c.Regs[x86.RIP] = e.blockOf(x).rip
			e.block(until, ReasonObserved)
			return true
		case exitDead:
			e.Stats.Dead++
			c.Step = until - left
			old := e.blockOf(x)
			c.Regs[x86.RIP] = old.rip
			flushes := e.Stats.Flushes
			t := e.again(old)
			if t == nil {
				return old.straight
			}
			if t.off == old.off && flushes == e.Stats.Flushes && e.mayLink(t) {
				e.mem.rw[old.entry] = 0xe9 // those who jump to the old one get to the new one
				e.patch(old.entry+1, t.entry)
			}
			at = t.entry
		case exitSlow:
			b := e.blockOf(x)
			b.checkIdx(x.idx)
			c.Step = until - left - uint64(b.n) + uint64(x.idx)
			c.Regs[x86.RIP] = b.ripAt(x.pos)
			e.Stats.Slow++
			in := e.instruction(x)
			if in == nil {
				e.block(until, ReasonStale)
				return true
			}
			next := c.Regs[x86.RIP] + uint64(in.Len)
			e.current, e.remap = b.rip, false
			resume, vec, x87, rest := x.resume, x.vec, x.x87, uint64(b.n)-uint64(x.idx)-1
			sti, seen, flushes := x.sti, c.Counts.Beside, e.Stats.Flushes
			first, last := x.access, x.access+uint32(x.accesses)
			if e.execute(in, until, x.call) && sti && e.tab.scratch.beforeSTI&x86.FlagIF == 0 {
				c.Shadow = x86.ShadowSTI // as STI left it
			}
			if c.Counts.Beside != seen && e.Stats.Flushes == flushes && !b.dead {
				for i := first; i < last; i++ {
					e.goBeside(e.besides.at(int(i)), b.mode)
				}
			}
			if resume == 0 || c.Attention || c.Activity != x86.Active || b.dead || e.remap || c.Regs[x86.RIP] != next ||
				c.Step+rest > until || uint8(c.View()) != b.mode || !e.usable() || vec && !e.sseOK() || x87 && !e.x87OK() {
				return in.Op == x86.OpIRET || x86.Forms()[in.Form].Attr&x86.EndBlock == 0
			}
			// The block has the rest of its instructions in its account already.
			at = int(resume)
			c.Step += rest
			continue
		case exitLink, exitJump, exitFar, exitPlain:
			c.Step = until - left
			c.Regs[x86.RIP] = x.target
			kind := x.kind
			if kind != exitJump {
				e.Stats.Link++
			} else {
				e.Stats.Jump++
			}
			if c.Step >= until {
				return false
			}
			site, from := int(x.site), e.blockOf(x)
			flushes := e.Stats.Flushes
			var t *block
			if kind == exitPlain {
				t = e.plain(x.target)
			} else {
				t = e.find(x.target, false)
			}
			if t == nil {
				if kind == exitPlain {
					e.block(until, ReasonStale)
				}
				return kind == exitPlain
			}
			if site != 0 && !from.dead && flushes == e.Stats.Flushes && (kind == exitFar || e.mayLink(t)) {
				e.patch(site, t.entry)
				if kind == exitFar {
					binary.LittleEndian.PutUint32(e.mem.rw[site-farGap:], e.tab.scratch.generation)
				}
			}
			at = t.entry
		}
	}
}

// mayLink reports whether a jump from the same page may lead to b for as long as b lives. Where
// the second page of a crossing instruction lies may change: in the lower half, it has to be
// looked up each time; in the upper half, codeFlushed ends the block.
func (e *Engine) mayLink(b *block) bool {
	if !b.cross {
		return true
	}
	if b.rip>>63 == 0 {
		return false
	}
	e.crossed = append(e.crossed, b)
	return true
}

func (b *block) checkIdx(i uint8) {
	if i >= b.n {
		panic("BUG: exit beyond its block")
	}
}

// enter runs generated code at offset at with a budget of instructions, and
// returns the exit that it took and what is left of the budget.
func (e *Engine) enter(at int, budget uint64) (x *exit, left uint64) {
	c, s, f := e.c, &e.tab.scratch, e.frame
	c.Materialise()
	*f = frame{regs: [16]uint64(c.Regs[:]), budget: budget, flags: uint16(c.RFLAGS&0xff<<8 | c.RFLAGS>>11&1)}
	s.target = uint64(e.mem.addr(at))
	s.hostMXCSR = 0x1f80
	s.sseOK = bit(e.sseOK())
	e.tab.x87.ok = bit(e.x87OK())
	const masked = x86.FlagAC | x86.FlagTF
	s.sysOK = bit(c.EFER&x86.EFERSCE != 0 && c.SFMASK&masked == masked)
	s.sysSeen, s.sysFirst, s.sysSpan = bit(c.SystemCall != nil), c.SystemCalls.First, c.SystemCalls.Last-c.SystemCalls.First
	linear, host := c.Looked()
	s.looked = [2]lookedSpan{accessesOf(linear), accessesOf(host)}
	s.tsc = e.tscOffset + c.TSCAdjust + c.Step + budget
	e.Stats.Enters++
	enter(e.mem.addr(e.prologue), e.layout.State+uintptr(bias))
	copy(c.Regs[:], f.regs[:])
	const low = x86.FlagsArith & 0xff
	c.RFLAGS = c.RFLAGS&^x86.FlagsArith | uint64(f.flags)>>8&low | uint64(f.flags)&1<<11
	x = e.exits.at(int(f.exit))
	if f.x87ID != 0 {
		e.setPointers(f.x87ID)
	}
	if uint8(c.View()) != x.mode {
		// Generated code changed the privilege.
		c.ModeChanged()
		if uint8(c.View()) != x.mode {
			panic("BUG: left in another mode")
		}
		if c.FetchChanged != nil {
			c.FetchChanged()
		}
	}
	return x, f.budget
}

// sseOK reports whether SSE instructions raise nothing by themselves: they are enabled, and all their exceptions masked.
func (e *Engine) sseOK() bool {
	c := e.c
	return c.CR0&(x86.CR0EM|x86.CR0TS) == 0 && c.CR4&x86.CR4OSFXSR != 0 && c.MXCSR()&0x1f80 == 0x1f80
}

func bit(v bool) uint32 {
	if v {
		return 1
	}
	return 0
}

// patch makes the jump whose displacement is at offset site go to offset target.
func (e *Engine) patch(site, target int) {
	binary.LittleEndian.PutUint32(e.mem.rw[site:], uint32(int32(target-site-4)))
}

// codePage is what was made from a page of RAM.
type codePage struct {
	blocks []*block
	writes int // to the page, since the last block was made from it
}

// writesMax bounds the writes to a page that spare what was not made from the very bytes: each has to be heard of. A kernel that
// adapts its own code changes a few instructions of a page; who writes more often fills the page with something else.
const writesMax = 64

// codeWritten drops the blocks that were made from n bytes of RAM at off, which are about to change.
func (e *Engine) codeWritten(off uint64, n int) {
	page := off >> mem.PageShift
	p := e.pages[page]
	if p == nil {
		return
	}
	p.writes++
	p.blocks = slices.DeleteFunc(p.blocks, func(b *block) bool {
		if p.writes > writesMax || b.madeFrom(off, n) {
			e.drop(b)
		}
		return b.dead
	})
	if len(p.blocks) == 0 {
		delete(e.pages, page)
		return
	}
	e.c.RAM.SetFlags(off, mem.Code) // the interpreter has cleared it, but no TLB has heard of that
}

// madeFrom reports whether a block depends on n bytes of RAM at off, in a page that holds code of it.
func (b *block) madeFrom(off uint64, n int) bool {
	return b.cross || off < b.off+uint64(b.size) && off+uint64(n) > b.off-uint64(b.before)
}

// drop makes the entry of a block an exit, since other blocks jump there.
func (e *Engine) drop(b *block) {
	if b.dead {
		return
	}
	b.dead = true
	e.Stats.Dropped++
	id := &e.table[slot(b.rip, b.mode)]
	for *id != b.id {
		id = &e.blocks.at(int(*id)).next
	}
	*id = b.next
	i := hashRIP(b.rip) % jumpSlots
	if s := &e.tab.jumps[b.mode][i]; s.rip == b.rip {
		s.rip = noTarget(int(i))
	}
	a := asm{base: e.mem.addr(b.entry)}
	a.storeImm32(at(hRSP, offExit), int32(e.exits.add(exit{kind: exitDead, b: b.id, mode: b.mode})))
	a.jmpTo(e.mem.addr(e.exitAt))
	copy(e.mem.rw[b.entry:], a.b)
}

// codeFlushed forgets where linear pages first to last lead.
func (e *Engine) codeFlushed(first, last uint64) {
	if e.current >= first && e.current <= last {
		e.remap = true
	}
	half := first >> 63
	if first>>mem.PageShift == last>>mem.PageShift {
		if _, ok := e.virtual[half][first>>mem.PageShift]; !ok {
			return
		}
	}
	if last>>63 == 0 {
		e.forgetLower()
		return
	}
	if half != 0 && len(e.virtual[1]) > 0 && last-first < 1<<40 {
		hit := false
		for p := range e.virtual[1] {
			hit = hit || p >= first>>mem.PageShift && p <= last>>mem.PageShift
		}
		if !hit {
			return
		}
	}
	for m := range e.tab.jumps {
		e.forget(m)
	}
	clear(e.virtual[0])
	clear(e.virtual[1])
	e.tab.scratch.generation++
	for _, b := range e.crossed {
		e.drop(b)
	}
	e.crossed = e.crossed[:0]
}

// forgetLower forgets the lower half, where user programs are, and rarely code of privileged modes.
func (e *Engine) forgetLower() {
	if len(e.virtual[0]) == 0 {
		return
	}
	e.forgetSlots()
	clear(e.virtual[0])
}

func (e *Engine) forgetSlots() {
	for m := range e.tab.jumps {
		f := &e.filled[m]
		if f.n > len(f.at) {
			for i := range e.tab.jumps[m] {
				if e.tab.jumps[m][i].rip>>63 == 0 {
					e.tab.jumps[m][i].rip = noTarget(int(i))
				}
			}
		} else {
			for _, i := range f.at[:f.n] {
				if e.tab.jumps[m][i].rip>>63 == 0 {
					e.tab.jumps[m][i].rip = noTarget(int(i))
				}
			}
		}
		f.n = 0
	}
}

func (e *Engine) forget(mode int) {
	for i := range e.tab.jumps[mode] {
		e.tab.jumps[mode][i].rip = noTarget(i)
	}
	e.filled[mode].n = 0
}

// flush drops everything. Pages keep their flag: it costs one slow write, and the interpreter may need it.
func (e *Engine) flush() {
	e.flushed()
	e.remap = true
	e.reset()
}

func (e *Engine) reset() {
	e.mem.used = e.firstBlock
	e.crossed = nil
	e.exits.cut(0)
	clear(e.insts)
	e.insts = append(e.insts[:0], nil) // there is none with number 0
	e.blocks.cut(0)
	e.blocks.add(block{})
	e.besides.cut(0)
	e.x87Insts = e.x87Insts[:0]
	e.pages = make(map[uint64]*codePage)
	e.virtual = [2]map[uint64]struct{}{{}, {}}
	e.spaces = spaces{}
	clear(e.table[:])
	e.tab.scratch.generation++
	for m := range e.tab.jumps {
		e.forget(m)
	}
}
