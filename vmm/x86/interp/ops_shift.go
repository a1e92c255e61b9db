package interp

import (
	"math/bits"

	"refault/vmm/x86"
)

// Shifts, rotates, bit tests, and the decimal adjustments: instructions whose
// flags do not follow from a result and carries.
//
// Flags that the manuals leave undefined are cleared: AF after a shift, OF after
// one by more than one bit (SDM Vol. 2B, SAL/SAR/SHL/SHR).

func selectShift(in *x86.Inst) x86.Handler {
	switch x86.FormOperands(in.Form)[1].Kind {
	case 'c':
		return func(c *x86.CPU, in *x86.Inst) { shift(c, in, c.Regs[x86.RCX]) }
	case '1':
		in.Imm = 1
	}
	return func(c *x86.CPU, in *x86.Inst) { shift(c, in, in.Imm) }
}

func shift(c *x86.CPU, in *x86.Inst, count uint64) {
	n := int(in.OpSize)
	if n == 8 {
		count &= 63
	} else {
		count &= 31
	}
	var va, v uint64
	if in.IsMem {
		va = c.AddrW(in, n)
		v = c.LoadRMW(va, n)
	} else {
		v = c.GetReg(in.RM, n)
	}
	if count == 0 {
		if in.IsMem {
			c.Store(va, v, n)
		} else {
			c.SetReg(in.RM, v, n)
		}
		return
	}
	var r uint64
	switch in.Op {
	case x86.OpSHL, x86.OpSAL, x86.OpSHR, x86.OpSAR:
		r = shiftBits(c, in.Op, v, uint(count), n)
	default:
		r = rotate(c, in.Op, v, uint(count), n)
	}
	if in.IsMem {
		c.Store(va, r, n)
	} else {
		c.SetReg(in.RM, r, n)
	}
}

// setShift sets the flags after a shift with result r and the last bit shifted out.
func setShift(c *x86.CPU, r uint64, n int, cf, of bool) {
	f := uint64(0)
	if cf {
		f |= x86.FlagCF
	}
	if of {
		f |= x86.FlagOF
	}
	r = signExtend(r, n)
	if r == 0 {
		f |= x86.FlagZF
	}
	f |= r >> 63 << 7
	if bits.OnesCount8(uint8(r))&1 == 0 {
		f |= x86.FlagPF
	}
	c.SetArith(f)
}

func shiftBits(c *x86.CPU, op x86.Op, v uint64, count uint, n int) (r uint64) {
	width := uint(8 * n)
	top := width - 1
	var cf, of bool
	switch op {
	case x86.OpSHR:
		r = v >> count
		cf = v>>(count-1)&1 != 0
		of = count == 1 && v>>top&1 != 0
	case x86.OpSAR:
		s := int64(signExtend(v, n))
		r = uint64(s >> count)
		cf = s>>(count-1)&1 != 0
	default:
		r = v << count
		cf = count <= width && v>>(width-count)&1 != 0
		of = count == 1 && (r>>top&1 != 0) != cf
	}
	setShift(c, r, n, cf, of)
	return r
}

// rotate changes CF and OF only.
func rotate(c *x86.CPU, op x86.Op, v uint64, count uint, n int) (r uint64) {
	width := uint(8 * n)
	top := width - 1
	f := c.Flags()
	cf := f & x86.FlagCF
	var of uint64
	switch op {
	case x86.OpROL:
		k := count % width
		r = v<<k | v>>(width-k)&sizeMask(n)
		if k == 0 {
			r = v
		}
		cf = r & 1
		of = r>>top&1 ^ cf
	case x86.OpROR:
		k := count % width
		r = v>>k | v<<(width-k)
		if k == 0 {
			r = v
		}
		r &= sizeMask(n)
		cf = r >> top & 1
		of = r>>top&1 ^ r>>(top-1)&1
	case x86.OpRCL:
		r = v
		k := count % (width + 1)
		for range k {
			out := r >> top & 1
			r = r<<1 | cf
			cf = out
		}
		of = r>>top&1 ^ cf
	case x86.OpRCR:
		r = v
		k := count % (width + 1)
		for range k {
			out := r & 1
			r = r&sizeMask(n)>>1 | cf<<top
			cf = out
		}
		of = r>>top&1 ^ r>>(top-1)&1
	}
	f = f&^(x86.FlagCF|x86.FlagOF) | cf
	if count == 1 {
		f |= of << 11
	}
	c.SetArith(f)
	return r
}

func selectShiftDouble(in *x86.Inst) x86.Handler {
	if x86.FormOperands(in.Form)[2].Kind == 'c' {
		return func(c *x86.CPU, in *x86.Inst) { shiftDouble(c, in, c.Regs[x86.RCX]) }
	}
	return func(c *x86.CPU, in *x86.Inst) { shiftDouble(c, in, in.Imm) }
}

// shiftDouble shifts bits of a register into an operand. A count beyond the operand's
// width, possible with 16 bits, is undefined: ours goes on as the 32-bit pair does.
func shiftDouble(c *x86.CPU, in *x86.Inst, n64 uint64) {
	n := int(in.OpSize)
	count := uint(n64 & 31)
	if n == 8 {
		count = uint(n64 & 63)
	}
	width := uint(8 * n)
	var va, v uint64
	if in.IsMem {
		va = c.AddrW(in, n)
		v = c.LoadRMW(va, n)
	} else {
		v = c.GetReg(in.RM, n)
	}
	src := c.GetReg(in.Reg, n)
	r := v
	if count != 0 {
		var cf uint64
		switch {
		case n == 2:
			// Rotate the 48-bit string operand:source:operand, as processors do.
			if in.Op == x86.OpSHLD {
				all := v<<32 | src<<16 | v
				cf = all >> (48 - count) & 1
				r = all << count >> 32
			} else {
				all := v<<32 | src<<16 | v
				cf = all >> (count - 1) & 1
				r = all >> count
			}
			r &= 0xffff
		case in.Op == x86.OpSHLD:
			cf = v >> (width - count) & 1
			r = v<<count | src>>(width-count)
		default:
			cf = v >> (count - 1) & 1
			r = v>>count | src<<(width-count)
		}
		of := count == 1 && (r^v)>>(width-1)&1 != 0
		setShift(c, r, n, cf != 0, of)
	}
	if in.IsMem {
		c.Store(va, r, n)
	} else {
		c.SetReg(in.RM, r, n)
	}
}

func selectBitTest(in *x86.Inst) x86.Handler {
	if x86.FormOperands(in.Form)[1].Kind == 'I' {
		return func(c *x86.CPU, in *x86.Inst) { bitTest(c, in, in.Imm, false) }
	}
	return func(c *x86.CPU, in *x86.Inst) {
		bitTest(c, in, signExtend(c.Regs[in.Reg], int(in.OpSize)), true)
	}
}

// bitTest sets CF; ZF is unchanged, the others are undefined and stay too (as processors do).
func bitTest(c *x86.CPU, in *x86.Inst, bit uint64, string_ bool) {
	n := int(in.OpSize)
	width := uint64(8 * n)
	var va, v uint64
	if in.IsMem {
		off := c.Offset(in)
		if string_ {
			off = (off + uint64(int64(bit)>>bits.TrailingZeros64(width))*uint64(n)) & in.AddrMask
		}
		kind := x86.Write
		if in.Op == x86.OpBT {
			kind = x86.Read
		}
		va = off
		if in.Seg != x86.SegFlat {
			va = c.Linear(int(in.Seg), off, n, kind, int(in.Mode))
		}
		if in.Op == x86.OpBT {
			v = c.Load(va, n)
		} else {
			v = c.LoadRMW(va, n)
		}
	} else {
		v = c.GetReg(in.RM, n)
	}
	k := bit & (width - 1)
	f := c.Flags()&^x86.FlagCF | v>>k&1
	switch in.Op {
	case x86.OpBTS:
		v |= 1 << k
	case x86.OpBTR:
		v &^= 1 << k
	case x86.OpBTC:
		v ^= 1 << k
	}
	if in.Op != x86.OpBT {
		if in.IsMem {
			c.Store(va, v, n)
		} else {
			c.SetReg(in.RM, v, n)
		}
	}
	c.SetArith(f)
}

// The decimal adjustments follow the operation sections of SDM Vol. 2A. OF is undefined: cleared.

func daa(c *x86.CPU, _ *x86.Inst) { decimal(c, 1) }
func das(c *x86.CPU, _ *x86.Inst) { decimal(c, -1) }

func decimal(c *x86.CPU, sign int) {
	f := c.Flags()
	al := c.Regs[x86.RAX] & 0xff
	old, cf, af := al, f&x86.FlagCF != 0, f&x86.FlagAF != 0
	low := al&15 > 9 || af
	carry := false
	if low {
		next := al + uint64(6*sign)
		carry = cf || next > 0xff
		al = next & 0xff
	}
	high := old > 0x99 || cf
	if high {
		al = (al + uint64(0x60*sign)) & 0xff
		carry = true
	} else if sign > 0 {
		carry = false
	}
	c.Set8(x86.RAX, al)
	setShift(c, al, 1, carry, false)
	if low {
		c.SetArith(c.Flags() | x86.FlagAF)
	}
}

func aaa(c *x86.CPU, _ *x86.Inst) { asciiAdjust(c, 1) }
func aas(c *x86.CPU, _ *x86.Inst) { asciiAdjust(c, -1) }

func asciiAdjust(c *x86.CPU, sign int64) {
	f := c.Flags()
	ax := c.Regs[x86.RAX] & 0xffff
	var set uint64
	if ax&15 > 9 || f&x86.FlagAF != 0 {
		if sign > 0 {
			ax += 0x106
		} else {
			ax -= 6
			ax -= 0x100
		}
		set = x86.FlagAF | x86.FlagCF
	}
	c.SetReg(x86.RAX, ax&0xff0f, 2)
	c.SetArith(set)
}

func aam(c *x86.CPU, in *x86.Inst) {
	d := in.Imm & 0xff
	if d == 0 {
		c.Raise(x86.VecDE)
	}
	al := c.Regs[x86.RAX] & 0xff
	c.SetReg(x86.RAX, al/d<<8|al%d, 2)
	setShift(c, al%d, 1, false, false)
}

func aad(c *x86.CPU, in *x86.Inst) {
	ax := c.Regs[x86.RAX]
	al := (ax&0xff + ax>>8&0xff*(in.Imm&0xff)) & 0xff
	c.SetReg(x86.RAX, al, 2)
	setShift(c, al, 1, false, false)
}
