package x86

// Descriptors, segment registers and far transfers (SDM Vol. 3A chapters 3, 5 and 6).

// descriptor is a segment or gate descriptor as it lies in memory; hi is the
// upper half of a 16-byte system descriptor in IA-32e mode.
type descriptor struct {
	raw, hi uint64
	addr    uint64 // linear address
}

func (d descriptor) attr() uint16     { return uint16(d.raw>>40&0xf0ff) &^ 0x0f00 }
func (d descriptor) typ() uint8       { return uint8(d.raw >> 40 & 15) }
func (d descriptor) isCode() bool     { return d.raw>>43&3 == 3 }
func (d descriptor) isData() bool     { return d.raw>>43&3 == 2 }
func (d descriptor) isSystem() bool   { return d.raw>>44&1 == 0 }
func (d descriptor) present() bool    { return d.raw>>47&1 != 0 }
func (d descriptor) dpl() uint8       { return uint8(d.raw >> 45 & 3) }
func (d descriptor) conforming() bool { return d.raw>>42&1 != 0 }
func (d descriptor) readable() bool   { return d.raw>>41&1 != 0 } // of code; of data: writable
func (d descriptor) long() bool       { return d.raw>>53&1 != 0 }
func (d descriptor) big() bool        { return d.raw>>54&1 != 0 }

func (d descriptor) base() uint64 {
	return d.raw>>16&0xffffff | d.raw>>56<<24 | d.hi<<32
}

func (d descriptor) limit() uint32 {
	l := uint32(d.raw&0xffff | d.raw>>32&0xf0000)
	if d.raw>>55&1 != 0 {
		l = l<<12 | 0xfff
	}
	return l
}

func (d descriptor) segment(sel uint16) Segment {
	return Segment{Base: d.base(), Limit: d.limit(), Sel: sel, Attr: d.attr()}
}

// loadSys reads n bytes of a system structure at linear address la.
func (c *CPU) loadSys(la uint64, n int) (v uint64) {
	la = c.wrap(la)
	c.asSupervisor(func() { v = c.Load(la, n) })
	return v
}

func (c *CPU) storeSys(la uint64, v uint64, n int) {
	la = c.wrap(la)
	c.asSupervisor(func() { c.Store(la, v, n) })
}

// ProtectedMode reports CR0.PE without virtual-8086 mode.
func (c *CPU) ProtectedMode() bool { return c.CR0&CR0PE != 0 && c.RFLAGS&FlagVM == 0 }

// LongMode reports IA-32e mode.
func (c *CPU) LongMode() bool { return c.EFER&EFERLMA != 0 }

// readDescriptor reads the descriptor that sel selects. ok is false where it lies beyond its table.
func (c *CPU) readDescriptor(sel uint16) (d descriptor, ok bool) {
	base, limit := c.GDTR.Base, uint32(c.GDTR.Limit)
	if sel&4 != 0 {
		l := &c.Seg[LDTR]
		if l.Attr&SegPresent == 0 || l.Sel&^3 == 0 {
			return d, false
		}
		base, limit = l.Base, l.Limit
	}
	at := uint32(sel &^ 7)
	if at+7 > limit {
		return d, false
	}
	d.addr = base + uint64(at)
	d.raw = c.loadSys(d.addr, 8)
	return d, true
}

// wide reads the upper half of a 16-byte system descriptor.
func (c *CPU) wide(d *descriptor, sel uint16) bool {
	limit := uint32(c.GDTR.Limit)
	if sel&4 != 0 {
		limit = c.Seg[LDTR].Limit
	}
	if uint32(sel&^7)+15 > limit {
		return false
	}
	d.hi = c.loadSys(d.addr+8, 8) & 0xffffffff
	return true
}

// setAccessed sets the accessed bit of a descriptor in memory.
func (c *CPU) setAccessed(d *descriptor) {
	if d.raw>>40&1 == 0 {
		c.storeSys(d.addr+5, d.raw>>40&0xff|1, 1)
		d.raw |= 1 << 40
	}
}

func selError(sel uint16) uint32 { return uint32(sel &^ 3) }

// LoadSegment loads ES, SS, DS, FS or GS as MOV and POP do (SDM Vol. 2B, MOV).
func (c *CPU) LoadSegment(seg int, sel uint16) {
	if !c.ProtectedMode() {
		if c.RFLAGS&FlagVM != 0 {
			c.loadVM86(seg, sel)
			return
		}
		s := &c.Seg[seg]
		s.Sel, s.Base = sel, uint64(sel)<<4
		s.Attr |= SegPresent
		return
	}
	if sel&^3 == 0 {
		if seg == SS && (c.CodeSize() != 8 || c.CPL == 3 || uint8(sel&3) != c.CPL) {
			c.RaiseErr(VecGP, 0)
		}
		c.Seg[seg] = Segment{Sel: sel} // with base zero, as Intel processors do
		if seg == SS {
			c.Seg[SS].Attr = uint16(c.CPL)<<SegDPLShift | SegDB
		}
		return
	}
	d, ok := c.readDescriptor(sel)
	if !ok {
		c.RaiseErr(VecGP, selError(sel))
	}
	rpl := uint8(sel & 3)
	if seg == SS {
		if rpl != c.CPL || !d.isData() || !d.readable() || d.dpl() != c.CPL {
			c.RaiseErr(VecGP, selError(sel))
		}
		if !d.present() {
			c.RaiseErr(VecSS, selError(sel))
		}
	} else {
		ok := d.isData() || d.isCode() && d.readable()
		if ok && !(d.isCode() && d.conforming()) {
			ok = rpl <= d.dpl() && c.CPL <= d.dpl()
		}
		if !ok {
			c.RaiseErr(VecGP, selError(sel))
		}
		if !d.present() {
			c.RaiseErr(VecNP, selError(sel))
		}
	}
	c.setAccessed(&d)
	c.Seg[seg] = d.segment(sel)
}

// checkCode raises what a direct far transfer to code descriptor d raises.
func (c *CPU) checkCode(sel uint16, d descriptor) {
	rpl := uint8(sel & 3)
	switch {
	case !d.isCode(),
		d.conforming() && d.dpl() > c.CPL,
		!d.conforming() && (rpl > c.CPL || d.dpl() != c.CPL),
		c.LongMode() && d.long() && d.big():
		c.RaiseErr(VecGP, selError(sel))
	}
	if !d.present() {
		c.RaiseErr(VecNP, selError(sel))
	}
}

// setCS loads CS at a privilege level, which becomes CPL.
func (c *CPU) setCS(sel uint16, d descriptor, cpl uint8) {
	c.setAccessed(&d)
	c.Seg[CS] = d.segment(sel&^3 | uint16(cpl))
	c.CPL = cpl
	c.ModeChanged()
	c.flushFetch()
	c.Attention = true // the mode may have changed: decode anew
}

// flushFetch makes the engine look the address of code up again.
func (c *CPU) flushFetch() {
	if c.FetchChanged != nil {
		c.FetchChanged()
	}
}

// checkTarget raises #GP(0) where off cannot be an instruction pointer in code segment d.
func (c *CPU) checkTarget(d descriptor, off uint64) {
	if c.LongMode() && d.long() {
		if !Canonical(off) {
			c.RaiseErr(VecGP, 0)
		}
	} else if off > uint64(d.limit()) {
		c.RaiseErr(VecGP, 0)
	}
}

// JumpFar executes JMP ptr16:size.
func (c *CPU) JumpFar(sel uint16, off uint64) {
	if !c.ProtectedMode() {
		c.realCS(sel, off)
		return
	}
	d, _ := c.farTarget(sel)
	if d.isSystem() {
		if !c.farTask(sel, d, taskJump) {
			c.gateJump(sel, d)
		}
		return
	}
	c.checkCode(sel, d)
	c.checkTarget(d, off)
	c.setCS(sel, d, c.CPL)
	c.Regs[RIP] = off
}

func (c *CPU) realCS(sel uint16, off uint64) {
	if off > uint64(c.Seg[CS].Limit) {
		c.RaiseErr(VecGP, 0)
	}
	c.Seg[CS].Sel, c.Seg[CS].Base = sel, uint64(sel)<<4
	c.Regs[RIP] = off
	c.flushFetch()
	c.Attention = true
}

func (c *CPU) farTarget(sel uint16) (descriptor, bool) {
	if sel&^3 == 0 {
		c.RaiseErr(VecGP, 0)
	}
	d, ok := c.readDescriptor(sel)
	if !ok {
		c.RaiseErr(VecGP, selError(sel))
	}
	return d, true
}

// callGate is a decoded call gate.
type callGate struct {
	sel   uint16
	off   uint64
	count int
	size  int // bytes a parameter
	code  descriptor
}

// readGate checks and decodes the call gate d.
func (c *CPU) readGate(sel uint16, d descriptor) (g callGate) {
	if c.LongMode() {
		if d.typ() != 12 {
			c.RaiseErr(VecGP, selError(sel))
		}
		if !c.wide(&d, sel) || c.loadSys(d.addr+8, 8)>>40&31 != 0 {
			c.RaiseErr(VecGP, selError(sel))
		}
		g.size = 8
	} else {
		switch d.typ() {
		case 4:
			g.size = 2
		case 12:
			g.size = 4
		default:
			c.RaiseErr(VecGP, selError(sel))
		}
	}
	if d.dpl() < c.CPL || d.dpl() < uint8(sel&3) {
		c.RaiseErr(VecGP, selError(sel))
	}
	if !d.present() {
		c.RaiseErr(VecNP, selError(sel))
	}
	g.sel = uint16(d.raw >> 16)
	g.off = d.raw&0xffff | d.raw>>48<<16 | d.hi<<32
	if g.size == 2 {
		g.off &= 0xffff
	}
	g.count = int(d.raw >> 32 & 31)
	g.code, _ = c.farTarget(g.sel)
	if !g.code.isCode() || g.code.dpl() > c.CPL || c.LongMode() && (!g.code.long() || g.code.big()) {
		c.RaiseErr(VecGP, selError(g.sel))
	}
	if !g.code.present() {
		c.RaiseErr(VecNP, selError(g.sel))
	}
	return g
}

func (c *CPU) gateJump(sel uint16, d descriptor) {
	g := c.readGate(sel, d)
	if !g.code.conforming() && g.code.dpl() != c.CPL {
		c.RaiseErr(VecGP, selError(g.sel))
	}
	c.checkTarget(g.code, g.off)
	c.setCS(g.sel, g.code, c.CPL)
	c.Regs[RIP] = g.off
}

// CallFar executes CALL ptr16:size.
func (c *CPU) CallFar(sel uint16, off uint64, size int) {
	next := c.Regs[RIP]
	if !c.ProtectedMode() {
		c.probeStack(2 * size)
		if off > uint64(c.Seg[CS].Limit) {
			c.RaiseErr(VecGP, 0)
		}
		c.Push(uint64(c.Seg[CS].Sel), size)
		c.Push(next, size)
		c.realCS(sel, off)
		return
	}
	d, _ := c.farTarget(sel)
	if d.isSystem() {
		if !c.farTask(sel, d, taskNest) {
			c.gateCall(sel, d)
		}
		return
	}
	c.checkCode(sel, d)
	c.checkTarget(d, off)
	c.probeStack(2 * size)
	c.Push(uint64(c.Seg[CS].Sel), size)
	c.Push(next, size)
	c.setCS(sel, d, c.CPL)
	c.Regs[RIP] = off
}

func (c *CPU) gateCall(sel uint16, d descriptor) {
	g := c.readGate(sel, d)
	c.checkTarget(g.code, g.off)
	next, oldCS := c.Regs[RIP], uint64(c.Seg[CS].Sel)
	if g.code.conforming() || g.code.dpl() == c.CPL {
		c.probeStack(2 * g.size)
		c.Push(oldCS, g.size)
		c.Push(next, g.size)
		c.setCS(g.sel, g.code, c.CPL)
		c.Regs[RIP] = g.off
		return
	}
	var params []uint64
	for i := range g.count {
		if g.size == 8 {
			break
		}
		params = append(params, c.Peek(i*g.size, g.size))
	}
	oldSS, oldSP := uint64(c.Seg[SS].Sel), c.Regs[RSP]
	c.atomically(func() {
		cpl := g.code.dpl()
		c.enterStack(cpl, 0, g.size == 8)
		c.Push(oldSS, g.size)
		c.Push(oldSP, g.size)
		for i := len(params) - 1; i >= 0; i-- {
			c.Push(params[i], g.size)
		}
		c.Push(oldCS, g.size)
		c.Push(next, g.size)
		c.setCS(g.sel, g.code, cpl)
		c.Regs[RIP] = g.off
	})
}

// atomically runs f, and puts the registers back if a fault unwinds it.
func (c *CPU) atomically(f func()) {
	saved := *c.State
	done := false
	defer func() {
		c.stackError = 0
		if !done {
			step := c.Step
			*c.State = saved
			c.Step = step
			c.ModeChanged()
		}
	}()
	f()
	done = true
}

// probeStack raises what pushing n bytes would raise.
func (c *CPU) probeStack(n int) {
	sp := c.Regs[RSP]
	m := c.StackMask()
	for k := 1; k <= n; k++ {
		if at := (sp - uint64(k)) & m; k == n || at&0xfff == 0 {
			c.ProbeWrite(c.StackAddr(at, 1, Write), 1)
		}
	}
}

// enterStack switches to the stack that the TSS names for privilege level cpl
// (ist, if not zero, wins), and CPL with it. long: 64-bit, SS becomes null.
func (c *CPU) enterStack(cpl uint8, ist int, long bool) {
	t := &c.Seg[TR]
	if long {
		at := uint64(4 + 8*int(cpl))
		if ist > 0 {
			at = uint64(36 + 8*(ist-1))
		}
		if at+7 > uint64(t.Limit) {
			c.RaiseErr(VecTS, selError(t.Sel))
		}
		sp := c.loadSys(t.Base+at, 8)
		if !Canonical(sp) {
			c.RaiseErr(VecSS, 0)
		}
		if cpl != c.CPL {
			c.Seg[SS] = Segment{Sel: uint16(cpl), Attr: uint16(cpl)<<SegDPLShift | SegDB}
		}
		c.CPL = cpl
		c.Regs[RSP] = sp
		c.ModeChanged()
		return
	}
	var sel uint16
	var sp uint64
	if t.Attr&8 != 0 { // 32-bit TSS
		at := uint64(4 + 8*int(cpl))
		if at+5 > uint64(t.Limit) {
			c.RaiseErr(VecTS, selError(t.Sel))
		}
		sp, sel = c.loadSys(t.Base+at, 4), uint16(c.loadSys(t.Base+at+4, 2))
	} else {
		at := uint64(2 + 4*int(cpl))
		if at+3 > uint64(t.Limit) {
			c.RaiseErr(VecTS, selError(t.Sel))
		}
		sp, sel = c.loadSys(t.Base+at, 2), uint16(c.loadSys(t.Base+at+2, 2))
	}
	if sel&^3 == 0 {
		c.RaiseErr(VecTS, 0)
	}
	d, ok := c.readDescriptor(sel)
	if !ok || uint8(sel&3) != cpl || d.dpl() != cpl || !d.isData() || !d.readable() {
		c.RaiseErr(VecTS, selError(sel))
	}
	if !d.present() {
		c.RaiseErr(VecSS, selError(sel))
	}
	c.setAccessed(&d)
	c.CPL = cpl
	c.Seg[SS] = d.segment(sel)
	c.Regs[RSP] = sp
	c.stackError = selError(sel)
	c.ModeChanged()
}

// RetFar executes a far RET that pops extra bytes besides.
func (c *CPU) RetFar(size int, extra uint64) {
	if !c.ProtectedMode() {
		off, sel := c.Peek(0, size), uint16(c.Peek(size, size))
		c.realCS(sel, off)
		c.SetSP(c.Regs[RSP] + uint64(2*size) + extra)
		return
	}
	off, sel := c.Peek(0, size), uint16(c.Peek(size, size))
	if uint8(sel&3) < c.CPL {
		c.RaiseErr(VecGP, selError(sel))
	}
	c.returnTo(sel, off, size, 2*size, extra, nil)
}

// returnTo leaves for CS sel:off; the outer stack pointer, where privilege is
// lost or in 64-bit IRET always, lies at byte at of the stack (after extra bytes).
func (c *CPU) returnTo(sel uint16, off uint64, size, at int, extra uint64, iret *uint64) {
	d, _ := c.farTarget(sel)
	rpl := uint8(sel & 3)
	switch {
	case !d.isCode(), d.conforming() && d.dpl() > rpl, !d.conforming() && d.dpl() != rpl, c.LongMode() && d.long() && d.big():
		c.RaiseErr(VecGP, selError(sel))
	}
	if !d.present() {
		c.RaiseErr(VecNP, selError(sel))
	}
	outer := rpl != c.CPL
	from64 := c.CodeSize() == 8
	if !outer && !(from64 && iret != nil) {
		c.checkTarget(d, off)
		c.setAccessed(&d)
		c.SetSP(c.Regs[RSP] + uint64(at) + extra)
		c.setCS(sel, d, rpl)
		c.Regs[RIP] = off
		return
	}
	sp := c.Peek(at+int(extra), size)
	ss := uint16(c.Peek(at+int(extra)+size, size))
	var seg Segment
	if ss&^3 == 0 {
		if !(c.LongMode() && d.long()) || rpl == 3 || uint8(ss&3) != rpl {
			c.RaiseErr(VecGP, 0)
		}
		seg = Segment{Sel: ss, Attr: uint16(rpl)<<SegDPLShift | SegDB}
	} else {
		sd, ok := c.readDescriptor(ss)
		if !ok || uint8(ss&3) != rpl || !sd.isData() || !sd.readable() || sd.dpl() != rpl {
			c.RaiseErr(VecGP, selError(ss))
		}
		if !sd.present() {
			c.RaiseErr(VecSS, selError(ss))
		}
		c.setAccessed(&sd)
		seg = sd.segment(ss)
	}
	c.checkTarget(d, off)
	c.setCS(sel, d, rpl)
	c.Seg[SS] = seg
	c.Regs[RIP] = off
	if iret == nil {
		sp += extra
	}
	switch {
	case c.CodeSize() == 8:
		c.Regs[RSP] = sp
	case seg.Attr&SegDB != 0:
		c.Regs[RSP] = sp & 0xffffffff
	default:
		c.Regs[RSP] = c.Regs[RSP]&^0xffff | sp&0xffff
	}
	if outer {
		for s := ES; s <= GS; s++ {
			g := &c.Seg[s]
			if s == CS || s == SS || g.Attr&SegPresent == 0 {
				continue
			}
			if code := g.Attr&SegTypeCode != 0; (!code || g.Attr&SegTypeExpand == 0) && g.DPL() < c.CPL {
				*g = Segment{}
			}
		}
	}
}

// Iret executes IRET with an operand size of size bytes (SDM Vol. 2A, IRET).
func (c *CPU) Iret(size int) {
	if !c.ProtectedMode() {
		c.CheckVM86()
		off, sel, f := c.Peek(0, size), uint16(c.Peek(size, size)), c.Peek(2*size, size)
		c.realCS(sel, off)
		c.SetSP(c.Regs[RSP] + uint64(3*size))
		c.setFlags(f, size, c.CPL)
		c.NMIBlocked = false
		return
	}
	if c.RFLAGS&FlagNT != 0 {
		if c.LongMode() {
			c.RaiseErr(VecGP, 0)
		}
		c.NMIBlocked = false
		c.iretTask()
		return
	}
	off, sel, f := c.Peek(0, size), uint16(c.Peek(size, size)), c.Peek(2*size, size)
	if size == 4 && f&FlagVM != 0 && c.CPL == 0 && !c.LongMode() {
		c.iretVM86(sel, off, f)
		return
	}
	if sel&^3 == 0 || uint8(sel&3) < c.CPL {
		c.RaiseErr(VecGP, selError(sel))
	}
	cpl := c.CPL
	c.returnTo(sel, off, size, 3*size, 0, &f)
	c.setFlags(f, size, cpl)
	if cpl == 0 && size >= 4 {
		c.RFLAGS = c.RFLAGS&^(FlagVIF|FlagVIP) | f&(FlagVIF|FlagVIP)
	}
	c.NMIBlocked = false
	c.Attention = true
}

// setFlags loads RFLAGS as IRET and POPF do at privilege level cpl.
func (c *CPU) setFlags(f uint64, size int, cpl uint8) {
	mask := uint64(FlagsArith | FlagTF | FlagDF | FlagNT)
	if size >= 4 {
		mask |= FlagRF | FlagAC | FlagID
	}
	if cpl == 0 {
		mask |= FlagIOPL
	}
	if uint64(cpl) <= c.RFLAGS&FlagIOPL>>12 {
		mask |= FlagIF
	}
	c.Materialise()
	c.RFLAGS = c.RFLAGS&^mask | f&mask | Flag1
	c.ModeChanged()
	c.Attention = true
}
