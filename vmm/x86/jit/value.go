//go:build linux && amd64

package jit

import (
	"math"

	"refault/vmm/x86"
)

// Values. What the general registers hold is followed through a block before it is translated, as sums of
// multiples of unknowns: what they held at its beginning, and what instructions put there that do more than add. So
// two accesses are known to be so and so far apart, whatever registers lead to them: those of one window.

const (
	maxTerms   = 3
	maxFactor  = 1 << 8
	maxSum     = 1 << 29
	noRef      = -1
	firstOther = 16 // unknown, behind those that the registers held at the beginning
)

// term is a multiple of an unknown.
type term struct {
	unknown uint16
	factor  int32
}

// value is a sum modulo 2^64: of terms by their unknowns, and of a constant.
type value struct {
	terms [maxTerms]term
	n     int
	sum   int64
}

// ref is an access to memory.
type ref struct {
	inst   int
	key    int // of its window: an address without its constant
	disp   int32
	size   int // in bytes; 0 for what has no windows of its own
	write  bool
	simple bool // guestInst.simple, or of the stack
	stack  bool // of PUSH and its like
}

// values follows the registers.
type values struct {
	regs [16]value
	next uint16 // unknown
}

func (v *values) begin() {
	for g := range v.regs {
		v.regs[g] = value{n: 1, terms: [maxTerms]term{{uint16(g), 1}}}
	}
	v.next = firstOther
}

// forget puts an unknown into a register.
func (v *values) forget(g uint8) {
	v.regs[g] = value{n: 1, terms: [maxTerms]term{{v.next, 1}}}
	v.next++
}

// add adds a multiple of another value. It reports false where that is more than a value can be.
func (a *value) add(b *value, factor int32) bool {
	a.sum += b.sum * int64(factor)
	if a.sum < -maxSum || a.sum > maxSum {
		return false
	}
	for _, t := range b.terms[:b.n] {
		t.factor *= factor
		if t.factor < -maxFactor || t.factor > maxFactor || !a.addTerm(t) {
			return false
		}
	}
	return true
}

func (a *value) addTerm(t term) bool {
	i := 0
	for i < a.n && a.terms[i].unknown < t.unknown {
		i++
	}
	switch {
	case i < a.n && a.terms[i].unknown == t.unknown:
		if a.terms[i].factor += t.factor; a.terms[i].factor == 0 {
			copy(a.terms[i:], a.terms[i+1:])
			a.n--
			a.terms[a.n] = term{}
			return true
		}
		return a.terms[i].factor >= -maxFactor && a.terms[i].factor <= maxFactor
	case a.n == maxTerms:
		return false
	}
	copy(a.terms[i+1:], a.terms[i:a.n])
	a.terms[i] = t
	a.n++
	return true
}

// address returns what a memory operand stands for, without its segment.
func (v *values) address(in *x86.Inst) (a value, ok bool) {
	if in.Base == x86.RIP || in.AddrSize != 8 || int64(in.Disp) < -maxSum || int64(in.Disp) > maxSum {
		return a, false
	}
	for range 2 {
		a = value{sum: int64(in.Disp)}
		if (in.Base == x86.RegZero || a.add(&v.regs[in.Base], 1)) && (in.Index == x86.RegZero || a.add(&v.regs[in.Index], 1<<(in.Scale&3))) {
			return a, true
		}
		// More than a value can be. What lies near it may still be found by the same registers.
		for _, g := range [...]uint8{in.Base, in.Index} {
			if g != x86.RegZero && (v.regs[g].n != 1 || v.regs[g].sum != 0 || v.regs[g].terms[0].factor != 1) {
				v.forget(g)
			}
		}
	}
	return a, false
}

// follow follows what an instruction does to the registers.
func (v *values) follow(in *guestInst) {
	written := regsWritten(in)
	if written == 0 {
		return
	}
	if d, ok := stackShift(in); ok {
		v.regs[x86.RSP].sum += int64(d)
		written &^= 1 << x86.RSP
	} else if g, to, ok := v.result(in); ok {
		v.regs[g] = to
		return
	}
	for g := range uint8(16) {
		if written&(1<<g) != 0 {
			v.forget(g)
		}
	}
}

// result returns what an instruction puts into its only destination, where that is no unknown of its own.
func (v *values) result(in *guestInst) (g uint8, to value, ok bool) {
	if in.OpSize != 8 {
		return 0, to, false
	}
	if in.Op == x86.OpLEA {
		to, ok = v.address(&in.Inst)
		return in.Reg, to, ok
	}
	ops := x86.FormOperands(in.Form)
	if in.IsMem || len(ops) == 0 {
		return 0, to, false
	}
	var from uint8
	switch {
	case ops[0].Kind == 'E':
		g, from = in.RM, in.Reg
	case ops[0].Kind == 'G':
		g, from = in.Reg, in.RM
	default:
		return 0, to, false
	}
	register := len(ops) > 1 && (ops[1].Kind == 'G' || ops[1].Kind == 'E')
	immediate := len(ops) > 1 && ops[1].Kind == 'I' && int64(in.Imm) > -maxSum && int64(in.Imm) < maxSum
	to = v.regs[g]
	switch {
	case in.Op == x86.OpMOV && register:
		return g, v.regs[from], true
	case in.Op == x86.OpADD && register:
		ok = to.add(&v.regs[from], 1)
	case in.Op == x86.OpSUB && register:
		ok = to.add(&v.regs[from], -1)
	case in.Op == x86.OpADD && immediate:
		ok = to.add(&value{sum: int64(in.Imm)}, 1)
	case in.Op == x86.OpSUB && immediate:
		ok = to.add(&value{sum: int64(in.Imm)}, -1)
	case in.Op == x86.OpINC:
		ok = to.add(&value{sum: 1}, 1)
	case in.Op == x86.OpDEC:
		ok = to.add(&value{sum: 1}, -1)
	case in.Op == x86.OpSHL && immediate && in.Imm < 4:
		to = value{}
		ok = to.add(&v.regs[g], 1<<in.Imm)
	}
	return g, to, ok
}

// findRefs finds the accesses of the block for which there may be windows: none has one of its own.
func (t *translator) findRefs() {
	n, last := 0, 0
	for i := range t.insts {
		in := &t.insts[i]
		in.mem, in.stack = noRef, noRef
		if _, _, ok := stackAccess(in); ok || in.accesses() {
			n, last = n+1, i
		}
	}
	if n < 2 || t.b.plain {
		return
	}
	v := &t.values
	v.begin()
	for i := range t.insts[:last+1] {
		in := &t.insts[i]
		if in.accesses() && in.Seg == x86.SegFlat && in.attr&x86.Align16 == 0 {
			if a, ok := v.address(&in.Inst); ok && a.n > 0 {
				size, write, _ := access(in)
				in.mem = t.ref(&a, ref{inst: i, size: size, write: write, simple: in.simple()})
			}
		}
		if disp, write, ok := stackAccess(in); ok {
			a := v.regs[x86.RSP]
			if a.sum += int64(disp); a.n > 0 {
				in.stack = t.ref(&a, ref{inst: i, size: 8, write: write, simple: true, stack: true})
			}
		}
		v.follow(in)
	}
}

// ref notes an access to address a.
func (t *translator) ref(a *value, r ref) int16 {
	if a.sum < math.MinInt32/2 || a.sum > math.MaxInt32/2 {
		return noRef
	}
	r.disp = int32(a.sum)
	key := *a
	key.sum = 0
	for r.key = 0; r.key < len(t.keys) && t.keys[r.key] != key; {
		r.key++
	}
	if r.key == len(t.keys) {
		t.keys = append(t.keys, key)
	}
	t.refs = append(t.refs, r)
	return int16(len(t.refs) - 1)
}
