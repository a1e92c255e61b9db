//go:build linux && amd64

package jit

import "refault/vmm/x86"

// block lets the interpreter execute one block.
func (e *Engine) block(until uint64, why Reason) {
	before := e.c.Step
	e.in.Block(until)
	i := &e.Stats.Interpreted[why]
	i.Times++
	i.Insts += e.c.Step - before
}

// unusable says why generated code may not run.
func (e *Engine) unusable() Reason {
	c := e.c
	if c.CodeSize() != 8 || c.CR0&x86.CR0PG == 0 {
		return ReasonMode
	}
	return ReasonCareful
}

// execute lets the interpreter execute one instruction that generated code was left for.
// always: the translator knows no better. It reports whether the instruction was abandoned.
func (e *Engine) execute(in *slowInst, until uint64, always bool) (abandoned bool) {
	c, s := e.c, &e.Stats
	step, slow := c.Step, c.Counts.SlowAccesses
	form := in.Form
	attr := x86.Forms()[form].Attr
	if e.faults(in) {
		abandoned = e.in.Fault()
	} else {
		abandoned = e.in.Execute(&in.Inst, until)
	}
	i := &s.Interpreted[ReasonFallback]
	i.Times++
	i.Insts += c.Step - step
	switch {
	case always:
		if s.Fallbacks == nil {
			s.Fallbacks = make([]uint64, len(x86.Forms()))
		}
		s.Fallbacks[form]++
	case c.Counts.SlowAccesses != slow:
		s.Memory++
	case attr&(x86.IsSSE|x86.IsMMX|x86.IsFPU) != 0:
		s.Vector++
	case attr&x86.EndBlock != 0 || endsBlock(in.Op):
		s.Target++
	default:
		s.Memory++
	}
	return abandoned
}

// Counted returns what the engine counted so far.
func (e *Engine) Counted() *Stats { return &e.Stats }

// SetCodeMap makes m hear of all code from now on; nil ends that.
// Preconditions: no block was translated yet, or it is of no interest.
func (e *Engine) SetCodeMap(m *CodeMap) {
	e.codeMap = m
	if m != nil {
		m.Common(e.mem.addr(0), e.firstBlock)
	}
}

// translated notes a block that was translated to size bytes of code.
func (e *Engine) translated(b *block, size int) {
	e.Stats.Blocks++
	e.Stats.Insts += uint64(b.n)
	e.Stats.CodeBytes += uint64(size)
	if e.codeMap != nil {
		e.codeMap.Block(e.mem.addr(b.entry), size, b.rip)
	}
}

// flushed notes that all blocks were dropped.
func (e *Engine) flushed() {
	e.Stats.Flushes++
	if e.codeMap != nil {
		e.codeMap.Flushed()
	}
}
