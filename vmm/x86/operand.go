package x86

// Operands of decoded instructions, as handlers use them.

// Offset returns the effective address of the memory operand: an offset in its segment.
func (c *CPU) Offset(in *Inst) uint64 {
	return (c.Regs[in.Base] + c.Regs[in.Index]<<(in.Scale&3) + in.Disp) & in.AddrMask
}

// AddrR returns the linear address of the memory operand, for reading size bytes.
func (c *CPU) AddrR(in *Inst, size int) uint64 {
	off := (c.Regs[in.Base] + c.Regs[in.Index]<<(in.Scale&3) + in.Disp) & in.AddrMask
	if in.Seg == SegFlat {
		return off
	}
	return c.Linear(int(in.Seg), off, size, Read, int(in.Mode))
}

// AddrW returns the linear address of the memory operand, for writing size bytes.
func (c *CPU) AddrW(in *Inst, size int) uint64 {
	off := (c.Regs[in.Base] + c.Regs[in.Index]<<(in.Scale&3) + in.Disp) & in.AddrMask
	if in.Seg == SegFlat {
		return off
	}
	return c.Linear(int(in.Seg), off, size, Write, int(in.Mode))
}

// Linear returns the linear address of an offset in a segment, and raises #GP or
// #SS where the segment does not allow the access (SDM Vol. 3A 5.3 and 5.4).
// mode is the code size: in 64-bit mode only the base counts.
func (c *CPU) Linear(seg int, off uint64, size int, kind Access, mode int) uint64 {
	s := &c.Seg[seg]
	if mode == 8 {
		if seg >= FS {
			return off + s.Base
		}
		return off
	}
	off &= 0xffffffff
	vec, code := uint8(VecGP), uint32(0)
	if seg == SS {
		vec, code = VecSS, c.stackError
	}
	if c.CR0&CR0PE != 0 && c.RFLAGS&FlagVM == 0 {
		if s.Attr&SegPresent == 0 {
			c.RaiseErr(vec, code)
		}
		isCode := s.Attr&SegTypeCode != 0
		switch kind {
		case Write:
			if isCode || s.Attr&SegTypeWritable == 0 {
				c.RaiseErr(vec, code)
			}
		case Read:
			if isCode && s.Attr&SegTypeWritable == 0 {
				c.RaiseErr(vec, code)
			}
		}
		if !isCode && s.Attr&SegTypeExpand != 0 {
			top := uint64(0xffff)
			if s.Attr&SegDB != 0 {
				top = 0xffffffff
			}
			if off <= uint64(s.Limit) || off+uint64(size)-1 > top {
				c.RaiseErr(vec, code)
			}
			return (s.Base + off) & 0xffffffff
		}
	}
	if off+uint64(size)-1 > uint64(s.Limit) {
		c.RaiseErr(vec, code)
	}
	return (s.Base + off) & 0xffffffff
}

// Get8 reads byte register r, which may carry HighByte.
func (c *CPU) Get8(r uint8) uint64 {
	if r&HighByte != 0 {
		return c.Regs[r&3] >> 8 & 0xff
	}
	return c.Regs[r] & 0xff
}

// Set8 writes byte register r, which may carry HighByte.
func (c *CPU) Set8(r uint8, v uint64) {
	if r&HighByte != 0 {
		p := &c.Regs[r&3]
		*p = *p&^0xff00 | v&0xff<<8
		return
	}
	c.Regs[r] = c.Regs[r]&^0xff | v&0xff
}

// GetReg reads size bytes (1, 2, 4, 8) of register r, zero-extended.
func (c *CPU) GetReg(r uint8, size int) uint64 {
	switch size {
	case 8:
		return c.Regs[r]
	case 4:
		return uint64(uint32(c.Regs[r]))
	case 2:
		return uint64(uint16(c.Regs[r]))
	}
	return c.Get8(r)
}

// SetReg writes size bytes of register r. Four bytes clear the upper half; one and two leave the rest.
func (c *CPU) SetReg(r uint8, v uint64, size int) {
	switch size {
	case 8:
		c.Regs[r] = v
	case 4:
		c.Regs[r] = uint64(uint32(v))
	case 2:
		c.Regs[r] = c.Regs[r]&^0xffff | v&0xffff
	default:
		c.Set8(r, v)
	}
}

// ReadRM reads the r/m operand of size bytes, zero-extended.
func (c *CPU) ReadRM(in *Inst, size int) uint64 {
	if in.IsMem {
		return c.Load(c.AddrR(in, size), size)
	}
	return c.GetReg(in.RM, size)
}

// WriteRM writes the r/m operand of size bytes.
func (c *CPU) WriteRM(in *Inst, v uint64, size int) {
	if in.IsMem {
		c.Store(c.AddrW(in, size), v, size)
		return
	}
	c.SetReg(in.RM, v, size)
}

// LoadRMW reads a memory operand that the instruction will also write: it raises
// what the write would raise, so that the Store that follows cannot.
func (c *CPU) LoadRMW(va uint64, size int) uint64 {
	if !c.writable(va, size) {
		c.ProbeWrite(va, size)
	}
	return c.Load(va, size)
}

// StackSize returns the size in bytes of the stack pointer: 2, 4 or 8.
func (c *CPU) StackSize() int {
	switch {
	case c.EFER&EFERLMA != 0 && c.Seg[CS].Attr&SegL != 0:
		return 8
	case c.Seg[SS].Attr&SegDB != 0:
		return 4
	}
	return 2
}

// StackMask returns the mask of the stack pointer.
func (c *CPU) StackMask() uint64 { return 1<<(8*uint(c.StackSize())-1)<<1 - 1 }

// SetSP sets the part of RSP that the stack size makes visible.
func (c *CPU) SetSP(v uint64) {
	m := c.StackMask()
	if m == 1<<32-1 {
		c.Regs[RSP] = v & m
		return
	}
	c.Regs[RSP] = c.Regs[RSP]&^m | v&m
}

// StackAddr returns the linear address of an offset in the stack segment.
func (c *CPU) StackAddr(off uint64, size int, kind Access) uint64 {
	if c.StackSize() == 8 {
		return off
	}
	return c.Linear(SS, off&c.StackMask(), size, kind, 4)
}

// Push pushes size bytes.
func (c *CPU) Push(v uint64, size int) {
	sp := (c.Regs[RSP] - uint64(size)) & c.StackMask()
	c.Store(c.StackAddr(sp, size, Write), v, size)
	c.SetSP(sp)
}

// Peek reads size bytes at byte at of the stack.
func (c *CPU) Peek(at, size int) uint64 {
	return c.Load(c.StackAddr(c.Regs[RSP]+uint64(at), size, Read), size)
}

// Pop pops size bytes.
func (c *CPU) Pop(size int) uint64 {
	v := c.Peek(0, size)
	c.SetSP(c.Regs[RSP] + uint64(size))
	return v
}

// Jump sets RIP for a near transfer with an operand size of size bytes, and
// raises #GP(0) where the target is outside the code segment.
func (c *CPU) Jump(target uint64, size int) {
	switch size {
	case 2:
		target &= 0xffff
	case 4:
		target &= 0xffffffff
	}
	if c.CodeSize() == 8 {
		if !Canonical(target) {
			c.RaiseErr(VecGP, 0)
		}
	} else if target > uint64(c.Seg[CS].Limit) {
		c.RaiseErr(VecGP, 0)
	}
	c.Regs[RIP] = target
}

// VectorSize is the size in bytes of a vector or memory operand.
func (in *Inst) VectorSize(o Operand) int {
	switch o.Size {
	case 'b':
		return 1
	case 'w':
		return 2
	case 'd':
		return 4
	case 'q':
		return 8
	case 'y':
		if in.Rex&8 != 0 {
			return 8
		}
		return 4
	}
	return 16
}
