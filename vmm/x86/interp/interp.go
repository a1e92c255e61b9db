package interp

import (
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// selector picks the handler for a decoded instruction.
type selector func(in *x86.Inst) x86.Handler

// selectors is the binding of operations to handlers, of all ops_*.go files.
var selectors = merge(integerOps, stringOps, systemOps, sseOps, x87Ops)

func merge(parts ...map[x86.Op]selector) *[x86.NumOps]selector {
	var all [x86.NumOps]selector
	for _, p := range parts {
		for op, s := range p {
			if all[op] != nil {
				panic("BUG: two selectors for one operation")
			}
			all[op] = s
		}
	}
	return &all
}

// always makes a selector that picks h for every form.
func always(h x86.Handler) selector { return func(*x86.Inst) x86.Handler { return h } }

// block is a run of instructions in one page, decoded.
type block struct {
	off   uint64 // offset into RAM of the first
	mode  uint8
	bytes uint32
	insts []x86.Inst
}

const (
	cacheSize  = 1 << 16
	maxBlock   = 64
	blockLimit = 1 << 19 // decoded instructions before everything is dropped
	noPage     = 1       // matches no page address
)

// Engine runs one processor.
type Engine struct {
	c *x86.CPU
	// Trace, if set, is called before each instruction is executed: the slow path
	// is taken for all of them.
	Trace func(in *x86.Inst)
	// Dropped, if set, is called when all blocks are dropped and no page is flagged mem.Code for them any more.
	Dropped func()

	cache  [cacheSize]*block
	pages  map[uint64][]*block // blocks by page, for invalidation
	total  int
	page   uint64 // linear address of the page of code that pageOff is the translation of, or noPage
	off    uint64
	inPage bool
	looked bool     // instructions of the page are observed
	single x86.Inst // decoded by the slow path

	// held is what careful takes from the processor while an instruction executes, and it has again if that is abandoned.
	held struct {
		shadow  uint8
		pending uint64 // debug traps
	}
}

// New returns an engine for c, and attaches it to c's notifications.
func New(c *x86.CPU) *Engine {
	e := &Engine{c: c, pages: make(map[uint64][]*block), page: noPage}
	c.CodeWritten = e.codeWritten
	c.CodeFlushed = e.codeFlushed
	c.FetchChanged = func() { e.page = noPage }
	return e
}

// Run executes until exactly until instructions have retired, or until the
// machine must look at something: CPU.Attention is set, or the processor is not active.
func (e *Engine) Run(until uint64) {
	c := e.c
	for c.Step < until && !c.Attention && c.Activity == x86.Active {
		if e.run(until, false) {
			e.fault()
		}
	}
	c.Materialise()
}

// fault delivers the exception that the instruction at InstRIP raised, and reports whether it was abandoned instead.
func (e *Engine) fault() (abandoned bool) {
	c := e.c
	c.Regs[x86.RIP] = c.InstRIP
	c.PendingDebug = 0 // its own accesses trap when it has completed
	if abandoned = c.Abandoned(); abandoned {
		c.Shadow, c.PendingDebug = e.held.shadow, e.held.pending
	}
	e.held.shadow, e.held.pending = 0, 0
	c.Deliver(c.Exc)
	return abandoned
}

// Block executes one basic block, or less where Run would return, for an engine that leaves it to this one.
func (e *Engine) Block(until uint64) {
	if e.run(until, true) {
		e.fault()
	}
}

// Bind sets the handler of a decoded instruction, for Execute. It may change the operands to what the handler wants.
func Bind(in *x86.Inst) { in.Fn = bind(in, x86.Forms()[in.Form].Attr) }

// Execute executes one instruction that lies at RIP and was decoded elsewhere, and delivers the exception that it raises. It
// reports whether the instruction was abandoned instead.
func (e *Engine) Execute(in *x86.Inst, until uint64) (abandoned bool) {
	return e.execute(in, until) && e.fault()
}

// Fault is Execute where the instruction at RIP, or fetching it, is known to raise CPU.Exc.
func (e *Engine) Fault() (abandoned bool) {
	e.c.InstRIP = e.c.Regs[x86.RIP]
	return e.fault()
}

func (e *Engine) execute(in *x86.Inst, until uint64) (faulted bool) {
	defer func() {
		if r := recover(); r != nil {
			if !x86.IsFault(r) {
				panic(r)
			}
			faulted = true
		}
	}()
	c := e.c
	c.Until = until
	c.InstRIP = c.Regs[x86.RIP]
	c.Regs[x86.RIP] += uint64(in.Len)
	in.Fn(c, in)
	c.Step++
	return false
}

// run executes until an exception is raised (faulted) or Run must look, or for one block.
func (e *Engine) run(until uint64, once bool) (faulted bool) {
	defer func() {
		if r := recover(); r != nil {
			if !x86.IsFault(r) {
				panic(r)
			}
			faulted = true
		}
	}()
	c := e.c
	c.Until = until
	for first := true; c.Step < until && (first || !once); first = false {
		if c.Shadow != 0 || e.Trace != nil || c.RFLAGS&(x86.FlagTF|x86.FlagRF) != 0 || c.DR[7]&0xff != 0 {
			e.careful()
			if c.Attention || c.Activity != x86.Active {
				return false
			}
			continue
		}
		insts := e.lookup()
		if insts == nil {
			e.slow()
			if c.Attention || c.Activity != x86.Active {
				return false
			}
			continue
		}
		if n := until - c.Step; uint64(len(insts)) > n {
			insts = insts[:n]
		}
		for i := range insts {
			in := &insts[i]
			rip := c.Regs[x86.RIP]
			c.InstRIP = rip
			c.Regs[x86.RIP] = rip + uint64(in.Len)
			in.Fn(c, in)
			c.Step++
			if c.Attention {
				return false
			}
		}
	}
	return false
}

// careful executes one instruction with everything that may happen around one.
func (e *Engine) careful() {
	c := e.c
	shadow, flags := c.Shadow, c.RFLAGS
	if c.CodeBreakpoint() {
		c.InstRIP = c.Regs[x86.RIP]
		c.Raise(x86.VecDB)
	}
	// The shadow covers the instruction that begins here, and ends with it.
	c.Shadow = 0
	e.held.shadow, e.held.pending = shadow, c.PendingDebug
	task := c.Seg[x86.TR].Sel
	e.slow()
	e.held.shadow, e.held.pending = 0, 0
	in := &e.single
	switched := c.Seg[x86.TR].Sel != task && in.Op != x86.OpLTR
	// RF lasts until the instruction is complete, which a string instruction that goes
	// back to itself is not; IRET and task switches have loaded the RF of what follows.
	if in.Op != x86.OpIRET && !switched && !(c.Regs[x86.RIP] == c.InstRIP && in.Prefix&(x86.PrefixRep|x86.PrefixRepne) != 0) {
		c.RFLAGS &^= flags & x86.FlagRF
	}
	stepped := flags&x86.FlagTF != 0
	switch in.Op {
	case x86.OpINT, x86.OpINT3, x86.OpINT1, x86.OpINTO, x86.OpSYSCALL:
		stepped = stepped && c.RFLAGS&x86.FlagTF != 0 && !switched // no trap after one that clears TF (SDM Vol. 3B 17.3.1.4)
	}
	if stepped {
		c.SingleStepped()
	}
	if c.PendingDebug != 0 || shadow != 0 {
		c.Attention = true
	}
}

// linear returns the linear address of the next instruction, after the checks of fetching.
func (e *Engine) linear() uint64 {
	c := e.c
	rip := c.Regs[x86.RIP]
	switch c.CodeSize() {
	case 8:
		if !x86.Canonical(rip) {
			c.InstRIP = rip
			c.RaiseErr(x86.VecGP, 0)
		}
		return rip
	case 4:
		rip &= 0xffffffff
	default:
		if c.Seg[x86.CS].Limit <= 0xffff {
			rip &= 0xffff
		}
	}
	c.Regs[x86.RIP] = rip
	if rip > uint64(c.Seg[x86.CS].Limit) {
		c.InstRIP = rip
		c.RaiseErr(x86.VecGP, 0)
	}
	return (c.Seg[x86.CS].Base + rip) & 0xffffffff
}

// translate returns the offset into RAM of linear address la; ok is false where it is not in RAM.
func (e *Engine) translate(la uint64) (off uint64, ok bool) {
	page := la &^ (mem.PageSize - 1)
	if e.page != page {
		e.c.InstRIP = e.c.Regs[x86.RIP]
		off, ok := e.c.FetchPage(la)
		e.page, e.off, e.inPage = page, off, ok
		e.looked = e.c.ObservesCode(page, page|(mem.PageSize-1))
	}
	return e.off + la%mem.PageSize, e.inPage
}

// lookup returns the instructions of the block at RIP, up to one that is observed, or nil where the slow path has to fetch.
func (e *Engine) lookup() []x86.Inst {
	la := e.linear()
	off, ok := e.translate(la)
	if !ok {
		return nil
	}
	mode := uint8(e.c.CodeSize())
	slot := &e.cache[(off^uint64(mode)<<13)%cacheSize]
	b := *slot
	if b == nil || b.off != off || b.mode != mode {
		b = e.decode(off, mode)
		*slot = b
	}
	if b == nil || mode != 8 && uint64(e.c.Seg[x86.CS].Limit)-e.c.Regs[x86.RIP] < uint64(b.bytes-1) {
		return nil // or decoded in a larger segment
	}
	if e.looked {
		return e.unobserved(la, b)
	}
	return b.insts
}

// unobserved returns the instructions of b, which begins at linear address la, before the first that is observed.
func (e *Engine) unobserved(la uint64, b *block) []x86.Inst {
	if !e.c.ObservesCode(la, la+uint64(b.bytes)-1) {
		return b.insts
	}
	for i := range b.insts {
		if e.c.ObservesCode(la, la) {
			if i == 0 {
				return nil
			}
			return b.insts[:i]
		}
		la += uint64(b.insts[i].Len)
	}
	return b.insts
}

// decode makes the block at off, or returns nil where its first instruction is not whole in its page.
func (e *Engine) decode(off uint64, mode uint8) *block {
	c := e.c
	for _, b := range e.pages[off>>mem.PageShift] {
		if b.off == off && b.mode == mode {
			return b
		}
	}
	if c.RAM.Flags(off)&mem.Watched != 0 {
		return nil // every fetch has to be seen
	}
	if e.total > blockLimit {
		e.dropAll()
	}
	// The limit of the code segment is checked at the first byte of a block only
	// by linear; a block must not run beyond it.
	room := uint64(mem.PageSize)
	if mode != 8 {
		room = uint64(c.Seg[x86.CS].Limit) - c.Regs[x86.RIP] + 1
	}
	code := c.RAM.Page(int(off >> mem.PageShift))[off%mem.PageSize:]
	if uint64(len(code)) > room {
		code = code[:room]
	}
	b := &block{off: off, mode: mode}
	for len(b.insts) < maxBlock {
		var in x86.Inst
		if x86.Decode(code, int(mode), &in) != x86.DecodeOK {
			break
		}
		attr := x86.Forms()[in.Form].Attr
		in.Fn = bind(&in, attr)
		b.insts = append(b.insts, in)
		b.bytes += uint32(in.Len)
		code = code[in.Len:]
		if attr&x86.EndBlock != 0 || attr&x86.RepOK != 0 && in.Prefix&(x86.PrefixRep|x86.PrefixRepne) != 0 {
			break
		}
	}
	if len(b.insts) == 0 {
		return nil
	}
	b.insts = append([]x86.Inst(nil), b.insts...)
	if c.RAM.Flags(off)&mem.Code == 0 {
		c.RAM.SetFlags(off, mem.Code)
		c.RevokeWrite(off)
	}
	e.pages[off>>mem.PageShift] = append(e.pages[off>>mem.PageShift], b)
	e.total += len(b.insts)
	return b
}

// bind returns the handler of an instruction, behind the checks that its form asks for.
func bind(in *x86.Inst, attr x86.Attr) x86.Handler {
	s := selectors[in.Op]
	if s == nil {
		return undefined
	}
	h := s(in)
	if attr&x86.Priv != 0 {
		return func(c *x86.CPU, in *x86.Inst) {
			if c.CPL != 0 {
				if in.Op == x86.OpLLDT || in.Op == x86.OpLTR {
					protectedOnly(c) // virtual-8086 mode does not have them
				}
				c.RaiseErr(x86.VecGP, 0)
			}
			h(c, in)
		}
	}
	return h
}

func undefined(c *x86.CPU, _ *x86.Inst) { c.Raise(x86.VecUD) }

// slow fetches, decodes and executes one instruction, wherever it lies.
func (e *Engine) slow() {
	c := e.c
	la := e.linear()
	c.InstRIP = c.Regs[x86.RIP]
	observer := c.ObserverFor(la)
	in := &e.single
	var buf [16]byte
	n := 0
	st := x86.DecodeMore
	limit := uint64(len(buf) - 1)
	if c.CodeSize() != 8 {
		limit = min(limit, uint64(c.Seg[x86.CS].Limit)-c.InstRIP+1)
	}
	for st == x86.DecodeMore {
		if uint64(n) == limit {
			c.RaiseErr(x86.VecGP, 0) // beyond the segment
		}
		at := la + uint64(n)
		if c.CodeSize() != 8 {
			at &= 0xffffffff
		} else if !x86.Canonical(at) {
			c.RaiseErr(x86.VecGP, 0)
		}
		// All bytes up to the end of the page are there to be decoded; the next
		// page is translated only if the instruction reaches it.
		k := min(int(limit)-n, mem.PageSize-int(at%mem.PageSize))
		k = c.FetchBytes(at, buf[n:n+k])
		if observer != nil && observer.Fetched != nil {
			observer.Fetched(at, buf[n:n+k])
		}
		n += k
		st = x86.Decode(buf[:n], c.CodeSize(), in)
	}
	if st == x86.DecodeOK {
		c.NoteFetch(la, int(in.Len))
	}
	if observer != nil && observer.Before != nil {
		if st == x86.DecodeUD {
			in.Len = 0
		}
		observer.Before(la, in)
	}
	switch st {
	case x86.DecodeUD:
		if e.Trace != nil {
			in.Len = 0
			e.Trace(in)
		}
		c.Raise(x86.VecUD)
	case x86.DecodeTooLong:
		c.RaiseErr(x86.VecGP, 0)
	}
	in.Fn = bind(in, x86.Forms()[in.Form].Attr)
	if e.Trace != nil {
		e.Trace(in)
	}
	c.Regs[x86.RIP] = c.InstRIP + uint64(in.Len)
	in.Fn(c, in)
	c.Step++
	if observer != nil && observer.After != nil {
		observer.After(in)
	}
}

// codeFlushed forgets the page of code where its translation may have changed.
func (e *Engine) codeFlushed(first, last uint64) {
	if e.page >= first && e.page <= last {
		e.page = noPage
	}
}

// codeWritten drops the blocks of a page that is about to change.
func (e *Engine) codeWritten(off uint64, n int) {
	page := off >> mem.PageShift
	for _, b := range e.pages[page] {
		slot := &e.cache[(b.off^uint64(b.mode)<<13)%cacheSize]
		if *slot == b {
			*slot = nil
		}
		e.total -= len(b.insts)
	}
	delete(e.pages, page)
	e.c.RAM.ClearFlags(off, mem.Code)
	// The running block may be among them: fetch anew.
	e.c.Attention = true
}

func (e *Engine) dropAll() {
	clear(e.cache[:])
	for page := range e.pages {
		e.c.RAM.ClearFlags(page<<mem.PageShift, mem.Code)
	}
	clear(e.pages)
	e.total = 0
	if e.Dropped != nil {
		e.Dropped()
	}
}
