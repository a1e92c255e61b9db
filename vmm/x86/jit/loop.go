//go:build linux && amd64

package jit

import (
	"math"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Loops. A block that ends with a branch to its own beginning, and whose addresses move by
// constants, mostly goes through memory page by page: the array sum, the copy, the row
// times a column. For those the block has a second body, which does not look them up. Before
// it, each stream of accesses looks up the page that it is in, and the iterations are
// counted for which all streams stay in theirs; the budget is cut to those, so that what
// ends a turn for want of budget also ends it at a page's end. What is cut off waits in
// the scratch area (cut), and returns to the budget wherever the second body is left.
//
// The first iteration is always the block's own. So the second body begins with the flags
// of the branch, from the very registers that its own end leaves: neither stores them.
//
// What is no stream (an entry of a table, say) is looked up in each iteration, as elsewhere. Where that fails, the second
// body is left, and the block goes on from its beginning next time: so nothing changes a translation while it runs. An
// instruction that needs the interpreter for another reason refuses the loop. The second body holds the
// addends of its streams in host registers whose guests the loop does not use; they wait at home.

const (
	maxStreams = 6
	maxStride  = 256 // in bytes: with a longer one, few iterations fit a page
	// A short body stands there several times, so that one subtraction from the budget does for all.
	copiesMax   = 2
	copiesInsts = 32 // of all copies

	unlimited    = 1 << 20       // iterations, where no stream moves
	strideShift  = 24            // of the reciprocal of a stride: exact for what fits a page
	notEveryTime = math.MaxInt32 // a register that changes in other ways than by a constant an iteration
	noStream     = -1
)

// borrowable lists the registers of the guest whose host registers a loop may use. The others
// are operands of instructions that do not name them.
var borrowable = [...]uint8{x86.RBX, x86.RBP, x86.RSI, x86.RDI, x86.R8, x86.R9, x86.R10, x86.R11, x86.RSP}

// stream is a run of accesses with the same registers: at most a page in one iteration.
type stream struct {
	base, index, scale uint8
	va                 uint64 // where both are x86.RegZero: the address of the first access
	lo, hi             int32  // in bytes, from the address that the registers give at the beginning of an iteration
	write, align       bool
	fixed              bool // no register of it changes
	baseFixed          bool
	stride             int32
	addend             int // host register
}

// loop is the second body of a block in the making.
type loop struct {
	streams  [maxStreams]stream
	n        int            // streams
	of       [maxInsts]int8 // instruction's stream, or noStream
	step     [16]int32      // of the registers an iteration, or notEveryTime
	written  uint16
	inUse    uint16                // registers that the loop names
	guests   [maxStreams + 1]uint8 // whose host registers are borrowed,
	borrowed int                   // so many: for each stream's addend,
	budget   int                   // and for the budget, or hNone
	copies   int
	copy     int  // in work
	carry    bool // from one iteration to the next, the flags are what re makes
	re       again
	top      *label
	refused  bool
	looks    bool // some accesses are no streams
	looking  bool // the access in work is no stream, and may leave the second body
}

// loopOf plans the second body of a block that branches to its own beginning. It reports whether there may be one.
func (t *translator) loopOf() bool {
	if t.b.cross || t.b.plain {
		return false
	}
	l := &t.plan
	*l = loop{}
	for i := range t.insts {
		in := &t.insts[i]
		if !l.notes(in) {
			return false
		}
		written := regsWritten(in)
		l.written |= written
		d, constant := constantStep(in)
		for g := range l.step {
			switch {
			case written&(1<<g) == 0 || l.step[g] == notEveryTime:
			case constant:
				l.step[g] += d
			default:
				l.step[g] = notEveryTime
			}
		}
	}
	var moved [16]int32 // since the iteration began
	for i := range t.insts {
		in := &t.insts[i]
		l.of[i] = noStream
		if in.accesses() && !l.add(t.b, in, i, &moved) {
			l.looks = true
		}
		if d, ok := constantStep(in); ok {
			moved[in.RM&15] += d
		}
	}
	if l.looks && l.n == 0 {
		return false
	}
	free := 0
	borrow := func() (host int) {
		for ; free < len(borrowable); free++ {
			if g := borrowable[free]; l.inUse&(1<<g) == 0 {
				free++
				l.guests[l.borrowed] = g
				l.borrowed++
				return hostOf[g]
			}
		}
		return hNone
	}
	for i := range l.streams[:l.n] {
		s := &l.streams[i]
		if s.stride < -maxStride || s.stride > maxStride || s.align && s.stride%16 != 0 || s.hi-s.lo > windowSpan {
			return false
		}
		if s.addend = borrow(); s.addend == hNone {
			return false
		}
	}
	l.budget = borrow()
	l.copies = max(1, min(copiesMax, copiesInsts/len(t.insts)))
	return true
}

// notes notes the registers that an instruction names. It reports false where one is used without a name.
func (l *loop) notes(in *guestInst) bool {
	switch in.Op {
	case x86.OpCMPXCHG16B, x86.OpVectorString:
		return false
	}
	use := func(g uint8) {
		if g&x86.HighByte != 0 {
			g &= 3
		}
		if g < 16 {
			l.inUse |= 1 << g
		}
	}
	if in.IsMem || in.Op == x86.OpLEA {
		use(in.Base)
		use(in.Index)
	}
	for _, o := range x86.FormOperands(in.Form) {
		switch o.Kind {
		case 'G', 'Z':
			use(in.Reg)
		case 'E':
			if !in.IsMem {
				use(in.RM)
			}
		}
	}
	return true
}

// constantStep returns what an instruction adds to the register in its r/m operand, where it is a constant.
func constantStep(in *guestInst) (d int32, ok bool) {
	if in.OpSize != 8 || in.IsMem {
		return 0, false
	}
	switch in.Op {
	case x86.OpINC:
		return 1, true
	case x86.OpDEC:
		return -1, true
	case x86.OpADD, x86.OpSUB:
		ops := x86.FormOperands(in.Form)
		if ops[0].Kind != 'E' || ops[1].Kind != 'I' || int64(in.Imm) < -maxStride || int64(in.Imm) > maxStride {
			return 0, false
		}
		if in.Op == x86.OpSUB {
			return -int32(in.Imm), true
		}
		return int32(in.Imm), true
	}
	return 0, false
}

// add notes the access of instruction i, behind which its registers have moved.
func (l *loop) add(b *block, in *guestInst, i int, moved *[16]int32) bool {
	size, write, ok := access(in)
	if !ok || in.Seg != x86.SegFlat || !simpleAddress(in) || int64(in.Disp) < math.MinInt32/2 || int64(in.Disp) > math.MaxInt32/2 {
		return false
	}
	want := stream{base: in.Base, index: in.Index, scale: in.Scale & 3, fixed: true, baseFixed: true}
	at := int32(in.Disp)
	switch {
	case in.Base == x86.RIP:
		want.base = x86.RegZero
		want.va = b.ripAt(in.pos) + uint64(in.Len) + in.Disp
		at = 0
	case in.Base == x86.RegZero && in.Index == x86.RegZero:
		want.va = in.Disp
		at = 0
	}
	if want.index == x86.RegZero {
		want.scale = 0
	}
	for _, r := range [...]struct {
		g     uint8
		scale uint8
	}{{want.base, 0}, {want.index, want.scale}} {
		if r.g == x86.RegZero {
			continue
		}
		d := l.step[r.g]
		if d == notEveryTime {
			return false
		}
		want.stride += d << r.scale
		at += moved[r.g] << r.scale
	}
	if want.base != x86.RegZero && l.written&(1<<want.base) != 0 {
		want.fixed, want.baseFixed = false, false
		if want.index != x86.RegZero && l.written&(1<<want.index) != 0 || !mapped(want.base) {
			return false
		}
	}
	if want.index != x86.RegZero && l.written&(1<<want.index) != 0 {
		want.fixed = false
		if !mapped(want.index) {
			return false
		}
	}
	align := in.attr&x86.Align16 != 0
	for k := range l.streams[:l.n] {
		s := &l.streams[k]
		at := at
		if want.base == x86.RegZero && want.index == x86.RegZero {
			if d := want.va - s.va; int64(d) > -windowSpan && int64(d) < windowSpan {
				at = int32(d)
			} else {
				continue
			}
		}
		if s.base != want.base || s.index != want.index || s.scale != want.scale {
			continue
		}
		lo, hi := min(s.lo, at), max(s.hi, at+int32(size))
		if hi-lo > windowSpan || (align || s.align) && (at-s.lo)%16 != 0 {
			continue
		}
		s.lo, s.hi, s.write, s.align = lo, hi, s.write || write, s.align || align
		l.of[i] = int8(k)
		return true
	}
	if l.n == maxStreams {
		return false
	}
	want.lo, want.hi, want.write, want.align = at, at+int32(size), write, align
	l.streams[l.n] = want
	l.of[i] = int8(l.n)
	l.n++
	return true
}

// loopOperand returns the host's operand for the access of the instruction in work.
func (t *translator) loopOperand(in *guestInst) memop {
	s := &t.loop.streams[t.loop.of[t.i]]
	switch {
	case s.constant():
		va := in.Disp
		if in.Base == x86.RIP {
			va += t.next
		}
		return at(s.addend, int32(va-s.va))
	case s.fixed:
		return at(s.addend, int32(in.Disp))
	case !s.baseFixed:
		return memop{base: hostOf[s.base], index: s.addend, disp: int32(in.Disp)}
	}
	return memop{base: s.addend, index: hostOf[s.index], scale: s.scale, disp: int32(in.Disp)}
}

func (s *stream) constant() bool { return s.base == x86.RegZero && s.index == x86.RegZero }

// branchBack emits the branch to the block's own beginning, taken on condition cc of the host
// or always, and the second body. Preconditions: the flags are saved, loopOf said yes.
func (t *translator) branchBack(cc byte) {
	a := &t.a
	again := newLabel() // where it leads is known only when the second body was tried
	if cc == ccAlways {
		a.jmp(again)
	} else {
		a.jcc(cc, again)
	}
	flags, re, sse, x87 := t.fl.again, t.re, t.sse, t.x87
	t.later(func(t *translator, _ *coldPath) {
		start, exits, cold := len(a.b), t.e.exits.n, t.cold.n
		to := 0 // the block's own entry
		// What goes from one iteration to the next are best the flags that can be had again.
		for _, carry := range [...]bool{true, false} {
			if carry && !flags {
				continue
			}
			t.loop = &t.plan
			t.re, t.sse, t.x87 = re, sse, x87
			t.loseAll()
			t.loop.refused = false
			t.secondBody(carry)
			refused := t.loop.refused
			t.loop = nil
			if !refused {
				to = start
				t.e.Stats.Loops++
				if t.plan.looks {
					t.e.Stats.LookingLoops++
				}
				break
			}
			a.b = a.b[:start]
			t.cold.cut(cold)
			t.e.exits.cut(exits)
		}
		a.bindAt(again, to)
	})
}

// secondBody emits what comes before the second body, itself, and the ways out. carry says
// that from one iteration to the next the flags are not in memory but are what t.re makes.
func (t *translator) secondBody(carry bool) {
	a, l := &t.a, t.loop
	insts := len(t.insts)
	turn := int32(l.copies * insts)
	bail, entry := newLabel(), &label{at: 0}
	for _, g := range l.guests[:l.borrowed] {
		a.store(home(g), hostOf[g])
	}
	before := &label{at: len(a.b)}
	a.aluImmMem(7, 8, budget, turn)
	a.jcc(ccB, bail)
	a.movConst(hR10, unlimited-1) // one less than the iterations that all streams allow
	for i := range l.streams[:l.n] {
		t.lookStream(&l.streams[i], bail)
	}
	if l.copies > 1 {
		a.aluImm(7, 4, hR10, int32(l.copies-1))
		a.jcc(ccB, bail)
	}
	a.aluImm(0, 4, hR10, 1)
	a.rr(ins{op: 0x69, size: 4}, hR10, hR10) // imul
	a.imm32(int32(insts))
	a.load(hRAX, budget)
	a.rr(ins{op: 0x33, size: 4}, hR11, hR11)
	a.rr(ins{op: 0x2b, size: 8}, hRAX, hR10)
	a.rr(ins{op: 0x0f40 | ccB, size: 8}, hRAX, hR11) // cmovb
	a.store(t.e.scratchAt(sCut), hRAX)
	a.rm(ins{op: 0x29, size: 8}, hRAX, budget)
	if l.budget != hNone {
		a.load(l.budget, budget)
	}

	top := &label{at: len(a.b)}
	if l.budget != hNone {
		a.aluImm(5, 8, l.budget, turn)
	} else {
		a.aluImmMem(5, 8, budget, turn)
	}
	over := t.later(func(t *translator, p *coldPath) {
		t.saveFlagsOf(p)
		t.leaveLoop(l, turn)
		for _, g := range l.guests[:l.borrowed] {
			a.store(home(g), hostOf[g])
		}
		a.jmp(before)
		a.bind(bail)
		for _, g := range l.guests[:l.borrowed] {
			a.load(hostOf[g], home(g))
		}
		a.jmp(entry)
	})
	a.jcc(ccB, &over.label)
	l.top, l.carry, l.re = top, carry, t.re
	t.fl = flagState{again: carry, mem: !carry}
	over.fl, over.re = t.fl, t.re
	t.loseAll()
	for l.copy = range l.copies {
		t.windows, t.opened = [maxWindows]window{}, 0 // their keys are of one time through the block
		for t.i = range t.insts {
			if t.instruction(); l.refused {
				return
			}
		}
		if t.in.attr&x86.EndBlock == 0 && l.copy == l.copies-1 {
			t.carryFlags()
			a.jmp(l.top)
		}
	}
}

// leaveLoop gives back to the budget what a turn did not use, and the host registers to their guests.
func (t *translator) leaveLoop(l *loop, rest int32) {
	a := &t.a
	a.load(hRAX, t.e.scratchAt(sCut))
	if rest != 0 {
		a.aluImm(0, 8, hRAX, rest)
	}
	if l.budget != hNone {
		a.rr(ins{op: 0x03, size: 8}, hRAX, l.budget)
		a.store(budget, hRAX)
	} else {
		a.rm(ins{op: 0x01, size: 8}, hRAX, budget)
	}
	for _, g := range l.guests[:l.borrowed] {
		a.load(hostOf[g], home(g))
	}
}

// giveBack gives back to the budget what a block does not use that is left in its middle, or in its second body.
func (t *translator) giveBack(p *coldPath) {
	if p.loop != nil {
		t.leaveLoop(p.loop, p.rest)
	} else {
		t.a.aluImmMem(0, 8, budget, p.rest)
	}
}

// loopBranch emits the branch at the end of each copy of the second body.
func (t *translator) loopBranch() {
	a, l := &t.a, t.loop
	last := l.copy == l.copies-1
	if t.in.Op == x86.OpJMP {
		if last {
			t.carryFlags()
			a.jmp(l.top)
		}
		return
	}
	if last {
		t.carryFlags()
	}
	cc, _, next := t.in.ends(t.next)
	cc = t.cond(cc)
	if last {
		a.jcc(cc, l.top)
		t.saveFlags()
		t.leaveLoop(l, t.rest())
		t.link(next)
		return
	}
	p := t.later((*translator).emitSideExit)
	a.jcc(cc^1, &p.label)
	p.fl, p.re, p.rest, p.loop, p.target = t.fl, t.re, t.rest(), l, next
}

// carryFlags makes the flags what the beginning of an iteration expects, or refuses.
func (t *translator) carryFlags() {
	l := t.loop
	if !l.carry {
		t.saveFlags()
	} else if !t.fl.again || t.re != l.re {
		l.refused = true
	}
}

// lookStream looks the page of a stream up, makes the stream's addend, and lowers R10 to one less
// than the number of iterations that stay in the page.
func (t *translator) lookStream(s *stream, bail *label) {
	a := &t.a
	from := func(g uint8, tmp int) int {
		if !mapped(g) {
			a.load(tmp, home(g))
			return tmp
		}
		return hostOf[g]
	}
	if s.constant() {
		a.movConst(hRAX, s.va+uint64(int64(s.lo)))
	} else {
		m := memop{base: hNone, index: hNone, scale: s.scale, disp: s.lo}
		if s.base != x86.RegZero {
			m.base = from(s.base, hRAX)
		}
		if s.index != x86.RegZero {
			m.index = from(s.index, hR11)
		}
		a.lea(hRAX, m)
	}
	if s.align {
		a.bytes(0xa8, 15) // test al, 15
		a.jcc(ccNE, bail)
	}
	a.mov(s.addend, hRAX)
	a.mov32(hR11, hRAX)
	addend := t.lookUp(s.write, bail)
	most := mem.PageSize - (s.hi - s.lo)
	a.mov32(hRAX, s.addend)
	a.bytes(0x25) // and eax, 4095
	a.imm32(mem.PageSize - 1)
	a.bytes(0x3d) // cmp eax, …
	a.imm32(most)
	a.jcc(ccA, bail)
	if s.stride != 0 {
		stride := s.stride
		if stride > 0 {
			a.bytes(0xf7, 0xd8) // neg eax
			a.aluImm(0, 4, hRAX, most)
		} else {
			stride = -stride
		}
		a.rr(ins{op: 0x69, size: 8}, hRAX, hRAX) // imul
		a.imm32((1<<strideShift + stride - 1) / stride)
		a.bytes(0x48, 0xc1, 0xe8, strideShift) // shr rax, …
		a.rr(ins{op: 0x3b, size: 8}, hRAX, hR10)
		a.rr(ins{op: 0x0f40 | ccB, size: 8}, hR10, hRAX) // cmovb
	}
	a.load(hR11, addend)
	switch {
	case s.fixed:
		a.lea(s.addend, memop{base: s.addend, index: hR11, disp: -s.lo})
	case !s.baseFixed && s.index != x86.RegZero:
		a.lea(s.addend, memop{base: hR11, index: from(s.index, s.addend), scale: s.scale})
	case s.baseFixed && s.base != x86.RegZero:
		a.lea(s.addend, memop{base: from(s.base, s.addend), index: hR11})
	default:
		a.mov(s.addend, hR11)
	}
}
