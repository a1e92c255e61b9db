package x86

// Breakpoints (SDM Vol. 3B chapter 17). DR7 enables four addresses; the engine
// takes its careful path while any is enabled, and asks here.

const (
	dr6BD  = 1 << 13    // access to a debug register while DR7.GD
	dr6BS  = 1 << 14    // single step
	dr6One = 0xfffe0ff0 // bits that read as one (without RTM, bit 16)

	dr7GD  = 1 << 13
	dr7One = 1 << 10
)

// breakpoints calls hit for each enabled breakpoint.
func (c *CPU) breakpoints(hit func(i int, addr uint64, kind, size int)) {
	for i := range 4 {
		if c.DR[7]>>(2*i)&3 == 0 {
			continue
		}
		ctl := c.DR[7] >> (16 + 4*i) & 15
		size := [4]int{1, 2, 8, 4}[ctl>>2]
		hit(i, c.DR[i]&^uint64(size-1), int(ctl&3), size)
	}
}

// CodeBreakpoint reports whether an instruction breakpoint is at RIP, and not
// suppressed by RF; it sets DR6 for the #DB that the caller raises.
func (c *CPU) CodeBreakpoint() bool {
	if c.DR[7]&0xff == 0 || c.RFLAGS&FlagRF != 0 {
		return false
	}
	la := c.Regs[RIP]
	if c.CodeSize() != 8 {
		la = (la + c.Seg[CS].Base) & 0xffffffff
	}
	found := false
	c.breakpoints(func(i int, addr uint64, kind, _ int) {
		if kind == 0 && c.DR[i] == la {
			c.DR[6] |= 1 << i
			found = true
		}
	})
	return found
}

// dataBreakpoints reports whether any breakpoint on data is enabled.
func (c *CPU) dataBreakpoints() (on bool) {
	if c.DR[7]&0xff != 0 {
		c.breakpoints(func(_ int, _ uint64, kind, _ int) { on = on || kind == 1 || kind == 3 })
	}
	return on
}

// touch notes an access for data breakpoints; the trap comes after the instruction.
func (c *CPU) touch(va uint64, n int, kind Access) {
	c.breakpoints(func(i int, addr uint64, what, size int) {
		if (what == 1 && kind == Write || what == 3 && kind != Fetch) && va < addr+uint64(size) && addr < va+uint64(n) {
			c.PendingDebug |= 1 << i
		}
	})
}

// touchPort notes an access to an I/O port.
func (c *CPU) touchPort(port uint16, n int) {
	if c.DR[7]&0xff == 0 || c.CR4&CR4DE == 0 {
		return
	}
	c.breakpoints(func(i int, addr uint64, what, size int) {
		if what == 2 && uint64(port) < addr+uint64(size) && addr < uint64(port)+uint64(n) {
			c.PendingDebug |= 1 << i
		}
	})
}

// SingleStepped notes that an instruction ran with TF set.
func (c *CPU) SingleStepped() { c.PendingDebug |= dr6BS }

// ReadDR executes MOV from DRn.
func (c *CPU) ReadDR(n uint8) uint64 { return c.DR[c.debugRegister(n)] }

// WriteDR executes MOV to DRn.
func (c *CPU) WriteDR(n uint8, v uint64) {
	n = c.debugRegister(n)
	switch n {
	case 6:
		if v>>32 != 0 {
			c.RaiseErr(VecGP, 0)
		}
		v = v&0xe00f | dr6One | 1<<16
	case 7:
		if v>>32 != 0 {
			c.RaiseErr(VecGP, 0)
		}
		v = v&0xffff2bff | dr7One
	default:
		if c.LongMode() && !Canonical(v) {
			c.RaiseErr(VecGP, 0)
		}
	}
	c.DR[n] = v
	c.ModeChanged()
	c.Attention = true
}

func (c *CPU) debugRegister(n uint8) uint8 {
	if n > 7 {
		c.Raise(VecUD)
	}
	if n == 4 || n == 5 {
		if c.CR4&CR4DE != 0 {
			c.Raise(VecUD)
		}
		n += 2
	}
	if c.CPL != 0 {
		c.RaiseErr(VecGP, 0)
	}
	if c.DR[7]&dr7GD != 0 {
		c.DR[6] |= dr6BD
		c.Raise(VecDB)
	}
	return n
}
