package interp

import (
	"bytes"
	"encoding/binary"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// stringOps binds MOVS, CMPS, STOS, LODS and SCAS.
var stringOps = map[x86.Op]selector{
	x86.OpMOVS: always(func(c *x86.CPU, in *x86.Inst) { repeat(c, in, movsOne, movsMany) }),
	x86.OpSTOS: always(func(c *x86.CPU, in *x86.Inst) { repeat(c, in, stosOne, stosMany) }),
	x86.OpLODS: always(func(c *x86.CPU, in *x86.Inst) { repeat(c, in, lodsOne, nil) }),
	x86.OpCMPS: always(func(c *x86.CPU, in *x86.Inst) { repeatWhile(c, in, cmpsOne) }),
	x86.OpSCAS: always(func(c *x86.CPU, in *x86.Inst) { repeatWhile(c, in, scasOne) }),
}

// source returns the linear address of the source of a string instruction.
func source(c *x86.CPU, in *x86.Inst, n int) uint64 {
	off := c.Regs[x86.RSI] & in.AddrMask
	if in.Seg == x86.SegFlat {
		return off
	}
	return c.Linear(int(in.Seg), off, n, x86.Read, int(in.Mode))
}

// dest returns the linear address of the destination, which is always in ES.
func dest(c *x86.CPU, in *x86.Inst, n int, kind x86.Access) uint64 {
	off := c.Regs[x86.RDI] & in.AddrMask
	if in.Mode == 8 {
		return off
	}
	return c.Linear(x86.ES, off, n, kind, int(in.Mode))
}

// advance moves an index register by k operands in the direction of DF.
func advance(c *x86.CPU, in *x86.Inst, reg uint8, k uint64) {
	d := k * uint64(in.OpSize)
	if c.RFLAGS&x86.FlagDF != 0 {
		d = -d
	}
	c.SetReg(reg, c.Regs[reg]+d, int(in.AddrSize))
}

func isRep(in *x86.Inst) bool { return in.Prefix&(x86.PrefixRep|x86.PrefixRepne) != 0 }

// repeat runs the iterations of a string instruction that depends on the count
// only. many, if not nil, may do several at once: it returns how many it did.
func repeat(c *x86.CPU, in *x86.Inst, one func(*x86.CPU, *x86.Inst), many func(*x86.CPU, *x86.Inst, uint64) uint64) {
	if !isRep(in) {
		one(c, in)
		return
	}
	for {
		left := c.Regs[x86.RCX] & in.AddrMask
		if left == 0 {
			return // nothing to do: retires as one
		}
		done := uint64(0)
		if many != nil && c.RFLAGS&x86.FlagTF == 0 {
			done = many(c, in, min(left, c.Until-c.Step))
		}
		if done == 0 {
			one(c, in)
			done = 1
		}
		left -= done
		c.SetReg(x86.RCX, left, int(in.AddrSize))
		if left == 0 {
			c.Step += done - 1
			return
		}
		if pause(c, done) {
			return
		}
	}
}

// pause counts done iterations and reports whether the instruction stops here, to be resumed.
func pause(c *x86.CPU, done uint64) bool {
	if c.Step+done >= c.Until || c.Attention || c.RFLAGS&x86.FlagTF != 0 || c.PendingDebug != 0 {
		c.Step += done - 1 // the engine counts the last
		c.Regs[x86.RIP] = c.InstRIP
		return true
	}
	c.Step += done
	return false
}

// repeatWhile runs the iterations of CMPS and SCAS, which end by ZF too.
func repeatWhile(c *x86.CPU, in *x86.Inst, one func(*x86.CPU, *x86.Inst)) {
	if !isRep(in) {
		one(c, in)
		return
	}
	while := in.Prefix&x86.PrefixRep != 0
	for {
		left := c.Regs[x86.RCX] & in.AddrMask
		if left == 0 {
			return
		}
		one(c, in)
		left--
		c.SetReg(x86.RCX, left, int(in.AddrSize))
		if left == 0 || c.Cond(4) != while || pause(c, 1) {
			return
		}
	}
}

func movsOne(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	v := c.Load(source(c, in, n), n)
	c.Store(dest(c, in, n, x86.Write), v, n)
	advance(c, in, x86.RSI, 1)
	advance(c, in, x86.RDI, 1)
}

func stosOne(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	c.Store(dest(c, in, n, x86.Write), c.Regs[x86.RAX], n)
	advance(c, in, x86.RDI, 1)
}

func lodsOne(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	c.SetReg(x86.RAX, c.Load(source(c, in, n), n), n)
	advance(c, in, x86.RSI, 1)
}

func cmpsOne(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	a := c.Load(source(c, in, n), n)
	b := c.Load(dest(c, in, n, x86.Read), n)
	alu(c, x86.OpCMP, a, b, n)
	advance(c, in, x86.RSI, 1)
	advance(c, in, x86.RDI, 1)
}

func scasOne(c *x86.CPU, in *x86.Inst) {
	n := int(in.OpSize)
	b := c.Load(dest(c, in, n, x86.Read), n)
	alu(c, x86.OpCMP, c.GetReg(x86.RAX, n), b, n)
	advance(c, in, x86.RDI, 1)
}

// room returns how many operands of size n fit between va and the end of its page, going up.
func room(va uint64, n uint64) uint64 { return (mem.PageSize - va%mem.PageSize) / n }

// many… do whole iterations at once where both operands are in plain RAM, within
// a page, in 64-bit mode, going up; they return zero where they cannot.

func movsMany(c *x86.CPU, in *x86.Inst, limit uint64) uint64 {
	if in.Mode != 8 || in.AddrSize != 8 || c.RFLAGS&x86.FlagDF != 0 {
		return 0
	}
	n := uint64(in.OpSize)
	src, dst := source(c, in, int(n)), c.Regs[x86.RDI]
	k := min(limit, room(src, n), room(dst, n))
	if k < 2 {
		return 0
	}
	to := c.HostSpan(dst, int(k*n), x86.Write)
	from := c.HostSpan(src, int(k*n), x86.Read)
	if to == nil || from == nil {
		return 0
	}
	// Operand by operand, a destination just above the source repeats a pattern; copy must not.
	if d := hostDistance(to, from); d > 0 && d < k*n {
		return 0
	}
	copy(to, from)
	advance(c, in, x86.RSI, k)
	advance(c, in, x86.RDI, k)
	return k
}

func stosMany(c *x86.CPU, in *x86.Inst, limit uint64) uint64 {
	if in.Mode != 8 || in.AddrSize != 8 || c.RFLAGS&x86.FlagDF != 0 {
		return 0
	}
	n := uint64(in.OpSize)
	dst := c.Regs[x86.RDI]
	k := min(limit, room(dst, n))
	if k < 2 {
		return 0
	}
	to := c.HostSpan(dst, int(k*n), x86.Write)
	if to == nil {
		return 0
	}
	var pattern [8]byte
	binary.LittleEndian.PutUint64(pattern[:], c.Regs[x86.RAX])
	if bytes.Count(pattern[:n], pattern[:1]) == int(n) && pattern[0] == 0 {
		clear(to)
	} else {
		for i := range k {
			copy(to[i*n:], pattern[:n])
		}
	}
	advance(c, in, x86.RDI, k)
	return k
}
