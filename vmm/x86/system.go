package x86

import "refault/vmm/mem"

// System instructions that are more than a register move.

// SetFlags executes POPF with an operand of size bytes.
func (c *CPU) SetFlags(f uint64, size int) {
	c.setFlags(f, size, c.CPL)
	if size >= 4 && c.RFLAGS&FlagVM == 0 {
		c.RFLAGS &^= FlagVIF | FlagVIP
	}
}

// LoadLDT executes LLDT.
func (c *CPU) LoadLDT(sel uint16) {
	if sel&^3 == 0 {
		c.Seg[LDTR] = Segment{Sel: sel}
		return
	}
	d := c.systemDescriptor(sel)
	if d.typ() != 2 {
		c.RaiseErr(VecGP, selError(sel))
	}
	if !d.present() {
		c.RaiseErr(VecNP, selError(sel))
	}
	c.Seg[LDTR] = d.segment(sel)
}

// LoadTR executes LTR.
func (c *CPU) LoadTR(sel uint16) {
	if sel&^3 == 0 {
		c.RaiseErr(VecGP, 0)
	}
	d := c.systemDescriptor(sel)
	if t := d.typ(); t != 9 && (t != 1 || c.LongMode()) {
		c.RaiseErr(VecGP, selError(sel))
	}
	if !d.present() {
		c.RaiseErr(VecNP, selError(sel))
	}
	c.storeSys(d.addr+5, d.raw>>40&0xff|2, 1) // busy
	d.raw |= 2 << 40
	c.Seg[TR] = d.segment(sel)
}

// systemDescriptor reads a system descriptor from the GDT, 16 bytes of it in IA-32e mode.
func (c *CPU) systemDescriptor(sel uint16) descriptor {
	if sel&4 != 0 {
		c.RaiseErr(VecGP, selError(sel))
	}
	d, ok := c.readDescriptor(sel)
	if !ok || !d.isSystem() || c.LongMode() && !c.wide(&d, sel) {
		c.RaiseErr(VecGP, selError(sel))
	}
	return d
}

// visible reads a descriptor for LAR, LSL, VERR and VERW: ok is false where the program may not see it.
func (c *CPU) visible(sel uint16) (d descriptor, ok bool) {
	if sel&^3 == 0 {
		return d, false
	}
	d, ok = c.readDescriptor(sel)
	if !ok {
		return d, false
	}
	if d.isCode() && d.conforming() {
		return d, true
	}
	return d, d.dpl() >= c.CPL && d.dpl() >= uint8(sel&3)
}

// Verify executes VERR and VERW.
func (c *CPU) Verify(sel uint16, write bool) bool {
	d, ok := c.visible(sel)
	switch {
	case !ok || d.isSystem():
		return false
	case write:
		return d.isData() && d.readable()
	}
	return d.isData() || d.readable()
}

// AccessRights executes LAR.
func (c *CPU) AccessRights(sel uint16) (v uint64, ok bool) {
	d, ok := c.visible(sel)
	if !ok || d.isSystem() && !typeIn(d.typ(), c.LongMode(), 1, 2, 3, 4, 5, 9, 11, 12) {
		return 0, false
	}
	return d.raw >> 32 & 0xf0ff00, true
}

// SegmentLimit executes LSL.
func (c *CPU) SegmentLimit(sel uint16) (v uint32, ok bool) {
	d, ok := c.visible(sel)
	if !ok || d.isSystem() && !typeIn(d.typ(), c.LongMode(), 1, 2, 3, 9, 11) {
		return 0, false
	}
	return d.limit(), true
}

// typeIn reports whether a system descriptor type is among those listed; 16-bit ones do not exist in IA-32e mode.
func typeIn(t uint8, long bool, types ...uint8) bool {
	for _, x := range types {
		if t == x {
			return !long || t == 2 || t >= 9
		}
	}
	return false
}

// flat returns the segment that SYSCALL and friends load: flat, whatever the descriptor says.
func flat(sel uint16, code bool, dpl uint8, attr uint16) Segment {
	s := Segment{Sel: sel, Limit: 0xffffffff, Attr: SegPresent | SegS | uint16(dpl)<<SegDPLShift | SegTypeAccessed | SegTypeWritable | SegG | attr}
	if code {
		s.Attr |= SegTypeCode
	}
	return s
}

// Syscall executes SYSCALL in 64-bit mode (SDM Vol. 2B).
func (c *CPU) Syscall() {
	if c.EFER&EFERSCE == 0 {
		c.Raise(VecUD)
	}
	c.noteSystemCall()
	c.Regs[RCX] = c.Regs[RIP]
	c.Regs[R11] = c.Flags() &^ FlagRF
	c.Regs[RIP] = c.LSTAR
	c.RFLAGS = c.RFLAGS&^(c.SFMASK|FlagRF) | Flag1
	sel := uint16(c.STAR>>32) &^ 3
	c.enter(sel)
}

// enter loads CS and SS for privilege level 0 from selector sel.
func (c *CPU) enter(sel uint16) {
	c.Seg[CS] = flat(sel, true, 0, SegL)
	c.Seg[SS] = flat(sel+8, false, 0, SegDB)
	c.CPL = 0
	c.ModeChanged()
	c.flushFetch()
	c.Attention = c.Attention || c.RFLAGS&FlagTF != 0
}

// Sysret executes SYSRET (SDM Vol. 2B). Its #GP for a bad RCX comes at privilege level 0, as on Intel processors.
func (c *CPU) Sysret(size int) {
	if c.EFER&EFERSCE == 0 {
		c.Raise(VecUD)
	}
	sel := uint16(c.STAR >> 48)
	if size == 8 {
		if !Canonical(c.Regs[RCX]) {
			c.RaiseErr(VecGP, 0)
		}
		c.Regs[RIP] = c.Regs[RCX]
		c.Seg[CS] = flat(sel+16|3, true, 3, SegL)
	} else {
		c.Regs[RIP] = c.Regs[RCX] & 0xffffffff
		c.Seg[CS] = flat(sel|3, true, 3, SegDB)
	}
	c.Seg[SS] = flat(sel+8|3, false, 3, SegDB)
	const keep = FlagsArith | FlagTF | FlagIF | FlagDF | FlagIOPL | FlagNT | FlagAC | FlagVIF | FlagVIP | FlagID
	c.FlagsLazy = 0
	c.RFLAGS = c.Regs[R11]&keep | Flag1
	if c.RFLAGS&FlagTF != 0 {
		c.SingleStepped() // TF counts as it is after SYSRET
	}
	c.CPL = 3
	c.ModeChanged()
	c.flushFetch()
	c.Attention = true
}

// Sysenter executes SYSENTER (SDM Vol. 2B).
func (c *CPU) Sysenter() {
	sel := uint16(c.SysenterCS) &^ 3
	if c.CR0&CR0PE == 0 || sel == 0 {
		c.RaiseErr(VecGP, 0)
	}
	c.noteSystemCall()
	c.Materialise()
	c.RFLAGS &^= FlagVM | FlagIF
	c.enter(sel)
	if c.LongMode() {
		c.Regs[RSP], c.Regs[RIP] = c.SysenterESP, c.SysenterEIP
		return
	}
	c.Seg[CS] = flat(sel, true, 0, SegDB)
	c.Regs[RSP], c.Regs[RIP] = c.SysenterESP&0xffffffff, c.SysenterEIP&0xffffffff
	c.ModeChanged()
}

// Sysexit executes SYSEXIT (SDM Vol. 2B).
func (c *CPU) Sysexit(size int) {
	sel := uint16(c.SysenterCS) &^ 3
	if !c.ProtectedMode() || sel == 0 {
		c.RaiseErr(VecGP, 0)
	}
	if size == 8 {
		if !Canonical(c.Regs[RCX]) || !Canonical(c.Regs[RDX]) {
			c.RaiseErr(VecGP, 0)
		}
		c.Seg[CS], c.Seg[SS] = flat(sel+32|3, true, 3, SegL), flat(sel+40|3, false, 3, SegDB)
		c.Regs[RSP], c.Regs[RIP] = c.Regs[RCX], c.Regs[RDX]
	} else {
		c.Seg[CS], c.Seg[SS] = flat(sel+16|3, true, 3, SegDB), flat(sel+24|3, false, 3, SegDB)
		c.Regs[RSP], c.Regs[RIP] = c.Regs[RCX]&0xffffffff, c.Regs[RDX]&0xffffffff
	}
	c.CPL = 3
	c.ModeChanged()
	c.flushFetch()
	c.Attention = true
}

// CheckPort raises #GP(0) unless IOPL or the TSS allows an access of n bytes to port (SDM Vol. 1 19.5).
func (c *CPU) CheckPort(port uint16, n int) {
	if c.RFLAGS&FlagVM == 0 && uint64(c.CPL) <= c.RFLAGS&FlagIOPL>>12 {
		return // in virtual-8086 mode the map alone decides
	}
	t := &c.Seg[TR]
	if t.Attr&SegPresent == 0 || t.Attr&8 == 0 || t.Limit < 103 {
		c.RaiseErr(VecGP, 0)
	}
	at := c.loadSys(t.Base+102, 2) + uint64(port)/8
	if at+1 > uint64(t.Limit) {
		c.RaiseErr(VecGP, 0)
	}
	if c.loadSys(t.Base+at, 2)>>(port%8)&(1<<n-1) != 0 {
		c.RaiseErr(VecGP, 0)
	}
}

// InPort executes IN.
func (c *CPU) InPort(port uint16, n int) uint32 {
	c.CheckPort(port, n)
	c.touchPort(port, n)
	return c.Bus.In(c, port, n)
}

// OutPort executes OUT.
func (c *CPU) OutPort(port uint16, n int, v uint32) {
	c.CheckPort(port, n)
	c.touchPort(port, n)
	c.Bus.Out(c, port, n, v)
}

// FetchBytes reads up to len(p) instruction bytes at linear address la, within its page, and returns how
// many. It raises #PF.
func (c *CPU) FetchBytes(la uint64, p []byte) int {
	off, ok := c.FetchPage(la)
	in := la % mem.PageSize
	n := min(len(p), int(mem.PageSize-in))
	if ok {
		return copy(p[:n], c.RAM.Data()[off+in:])
	}
	// Not RAM: the bus answers.
	pa := c.walk(la, Fetch, c.CPL == 3, true).pa
	for i := range n {
		p[i] = byte(c.Bus.ReadMMIO(c, pa+uint64(i), 1))
	}
	return n
}

// noteFetch tells who watches the page that the n bytes at linear address la are executed.
// FetchBytes does not, since it reads ahead.
func (c *CPU) noteFetch(la uint64, n int) {
	for n > 0 {
		k := min(n, int(mem.PageSize-la%mem.PageSize))
		if off, ok := c.FetchPage(la); ok && c.Watch != nil && c.RAM.Flags(off)&mem.Watched != 0 {
			c.Watch(off+la%mem.PageSize, k, Fetch)
		}
		la, n = c.wrap(la+uint64(k)), n-k
	}
}

func (c *CPU) noteSystemCall() {
	if c.SystemCall != nil && c.SystemCalls.Overlaps(c.Regs[RAX], c.Regs[RAX]) {
		c.SystemCall()
	}
}

// NoteFetch must be called before an instruction of n bytes at la is executed that was decoded where it may be watched.
func (c *CPU) NoteFetch(la uint64, n int) {
	if c.Watch != nil {
		c.noteFetch(la, n)
	}
}
