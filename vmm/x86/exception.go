package x86

import "refault/vmm/mem"

// Delivery of exceptions and interrupts (SDM Vol. 3A chapter 6).

// Deliver delivers e. A fault during delivery is delivered in its place, or
// makes a double fault, or shuts the processor down (SDM Vol. 3A 6.15, #DF).
func (c *CPU) Deliver(e Exception) {
	if e.abandoned {
		c.Attention = true
		return
	}
	if e.nonCanonical && c.accessesStack(e.Address) {
		e.Vec = VecSS
	}
	for !c.tryDeliver(e) {
		second := c.Exc
		if second.Vec == VecPF {
			c.CR2 = second.Address // even if a double fault comes of it
		}
		switch {
		case second.abandoned:
			c.Attention = true
			return
		case e.Vec == VecDF:
			c.Activity = Shutdown
			c.Attention = true
			return
		case !e.Ext && !e.Soft && (contributory(e.Vec) && contributory(second.Vec) ||
			e.Vec == VecPF && (contributory(second.Vec) || second.Vec == VecPF)):
			e = Exception{Vec: VecDF, HasErr: true}
		default:
			e = second
		}
	}
}

// accessesStack reports whether the instruction at InstRIP, which faulted on the
// non-canonical address va in 64-bit mode, meant the stack segment: a push or a
// pop, or an operand based on RSP or RBP without an override (SDM Vol. 1 3.7.4).
func (c *CPU) accessesStack(va uint64) bool {
	var code []byte
	for i := range uint64(maxInstLen) {
		pa, ok := c.Translate(c.InstRIP + i)
		var b [1]byte
		if !ok || !c.RAM.ReadAt(b[:], pa) {
			break
		}
		code = append(code, b[0])
	}
	var in Inst
	if Decode(code, 8, &in) != DecodeOK {
		return false
	}
	switch in.Op {
	case OpPUSH, OpPOP, OpPUSHF, OpPOPF, OpPUSHSeg, OpPOPSeg, OpENTER, OpLEAVE, OpCALL, OpRET, OpCALLF, OpRETF, OpIRET:
		if !in.IsMem {
			return true
		}
		lin := c.Offset(&in)
		if in.Seg != SegFlat {
			lin += c.Seg[in.Seg].Base
		}
		return va-lin >= mem.PageSize || in.Stack
	}
	return in.IsMem && in.Stack
}

func contributory(vec uint8) bool {
	switch vec {
	case VecDE, VecTS, VecNP, VecSS, VecGP:
		return true
	}
	return false
}

// isFaultClass reports exceptions that point at the instruction that caused them.
func isFaultClass(vec uint8) bool {
	switch vec {
	case VecDB, VecNMI, VecBP, VecOF, VecDF, VecMC:
		return false
	}
	return vec < 32
}

// tryDeliver delivers e; false means that a fault got in the way: it is in c.Exc, and nothing has changed.
func (c *CPU) tryDeliver(e Exception) (ok bool) {
	saved := *c.State
	defer func() {
		c.stackError = 0
		if r := recover(); r != nil {
			if !IsFault(r) {
				panic(r)
			}
			if !c.switched { // what comes after the commit point of a task switch is the new task's
				cr2, step, mc := c.CR2, c.Step, c.MCPending
				activity := c.Activity
				*c.State = saved
				c.CR2, c.Step, c.MCPending = cr2, step, mc
				if activity == Shutdown {
					c.Activity = Shutdown
				}
			}
			c.ModeChanged()
			ok, c.Delivering = false, false
			if c.Exc.nonCanonical {
				c.Exc.Vec = VecSS // the tables' addresses are canonical: it was a push
			}
			if c.Exc.HasErr && !e.Soft && c.Exc.Vec != VecPF {
				c.Exc.Err |= 1 // EXT: the event was not the program's own
			}
		}
	}()
	c.Delivering, c.switched = true, false
	if c.Activity == Halted {
		c.Activity = Active
	}
	c.Materialise()
	if e.Vec == VecPF && !e.Ext && !e.Soft {
		c.CR2 = e.Address
	}
	c.Shadow = 0
	flags := c.RFLAGS
	if !e.Ext && !e.Soft && isFaultClass(e.Vec) {
		flags |= FlagRF
	}
	if e.Vec == VecDB && !e.Soft {
		c.DR[7] &^= 1 << 13 // GD
	}
	switch {
	case !c.ProtectedMode() && c.RFLAGS&FlagVM == 0:
		c.deliverReal(e, flags)
	case c.LongMode():
		c.deliverLong(e, flags)
	default:
		c.deliverProtected(e, flags)
	}
	c.flushFetch()
	c.Attention = true
	c.Exc = e
	c.Delivering, c.DeliveredAt = false, c.Step
	if c.Delivered != nil {
		c.Delivered(e)
	}
	return true
}

func (c *CPU) deliverReal(e Exception, flags uint64) {
	at := uint64(e.Vec) * 4
	if at+3 > uint64(c.IDTR.Limit) {
		c.RaiseErr(VecGP, 0)
	}
	v := c.Load(c.IDTR.Base+at, 4)
	c.Push(flags&0xffff, 2)
	c.Push(uint64(c.Seg[CS].Sel), 2)
	c.Push(c.Regs[RIP]&0xffff, 2)
	c.RFLAGS &^= FlagIF | FlagTF | FlagAC | FlagRF
	c.Seg[CS].Sel, c.Seg[CS].Base = uint16(v>>16), v>>16<<4
	c.Regs[RIP] = v & 0xffff
	c.ModeChanged()
}

func (c *CPU) deliverLong(e Exception, flags uint64) {
	idtErr := uint32(e.Vec)<<3 | 2
	at := uint64(e.Vec) * 16
	if at+15 > uint64(c.IDTR.Limit) {
		c.RaiseErr(VecGP, idtErr)
	}
	lo, hi := c.loadSys(c.IDTR.Base+at, 8), c.loadSys(c.IDTR.Base+at+8, 8)
	d := descriptor{raw: lo}
	if typ := lo >> 40 & 31; typ != 14 && typ != 15 || hi>>40&31 != 0 {
		c.RaiseErr(VecGP, idtErr)
	}
	if e.Soft && d.dpl() < c.CPL {
		c.RaiseErr(VecGP, idtErr)
	}
	if !d.present() {
		c.RaiseErr(VecNP, idtErr)
	}
	sel := uint16(lo >> 16)
	off := lo&0xffff | lo>>48<<16 | hi<<32
	ist := int(lo >> 32 & 7)
	if sel&^3 == 0 {
		c.RaiseErr(VecGP, 0)
	}
	code, ok := c.readDescriptor(sel)
	if !ok || !code.isCode() || code.dpl() > c.CPL || !code.long() || code.big() {
		c.RaiseErr(VecGP, selError(sel))
	}
	if !code.present() {
		c.RaiseErr(VecNP, selError(sel))
	}
	oldCS, oldSS, oldSP, oldRIP := c.Seg[CS].Sel, c.Seg[SS].Sel, c.Regs[RSP], c.Regs[RIP]
	cpl := c.CPL
	if !code.conforming() {
		cpl = code.dpl()
	}
	if cpl != c.CPL || ist != 0 {
		c.enterStack(cpl, ist, true)
	}
	if !Canonical(off) {
		c.RaiseErr(VecGP, 0)
	}
	sp := c.Regs[RSP] &^ 15
	push := func(v uint64) {
		sp -= 8
		c.Store64(sp, v)
	}
	push(uint64(oldSS))
	push(oldSP)
	push(flags)
	push(uint64(oldCS))
	push(oldRIP)
	if e.HasErr {
		push(uint64(e.Err))
	}
	c.Regs[RSP] = sp
	c.setAccessed(&code)
	c.Seg[CS] = code.segment(sel&^3 | uint16(cpl))
	c.CPL = cpl
	c.RFLAGS &^= FlagTF | FlagNT | FlagRF | FlagVM
	if lo>>40&1 == 0 { // interrupt gate
		c.RFLAGS &^= FlagIF
	}
	c.Regs[RIP] = off
	c.ModeChanged()
}

func (c *CPU) deliverProtected(e Exception, flags uint64) {
	idtErr := uint32(e.Vec)<<3 | 2
	at := uint64(e.Vec) * 8
	if at+7 > uint64(c.IDTR.Limit) {
		c.RaiseErr(VecGP, idtErr)
	}
	d := descriptor{raw: c.loadSys(c.IDTR.Base+at, 8)}
	typ := d.raw >> 40 & 31
	switch typ {
	case 5, 6, 7, 14, 15:
	default:
		c.RaiseErr(VecGP, idtErr)
	}
	if e.Soft && d.dpl() < c.CPL {
		c.RaiseErr(VecGP, idtErr)
	}
	if !d.present() {
		c.RaiseErr(VecNP, idtErr)
	}
	if typ == 5 {
		c.taskGate(uint16(d.raw>>16), e, flags)
		return
	}
	size := 4
	off := d.raw&0xffff | d.raw>>48<<16
	if typ < 8 {
		size = 2
		off &= 0xffff
	}
	sel := uint16(d.raw >> 16)
	if sel&^3 == 0 {
		c.RaiseErr(VecGP, 0)
	}
	code, ok := c.readDescriptor(sel)
	if !ok || !code.isCode() || code.dpl() > c.CPL {
		c.RaiseErr(VecGP, selError(sel))
	}
	if !code.present() {
		c.RaiseErr(VecNP, selError(sel))
	}
	oldCS, oldSS, oldSP, oldRIP := c.Seg[CS].Sel, c.Seg[SS].Sel, c.Regs[RSP], c.Regs[RIP]
	vm := flags&FlagVM != 0
	cpl := c.CPL
	if !code.conforming() {
		cpl = code.dpl()
	}
	if vm {
		if cpl != 0 {
			c.RaiseErr(VecGP, selError(sel))
		}
		c.RFLAGS &^= FlagVM
	}
	if cpl != c.CPL {
		old := c.Seg
		c.enterStack(cpl, 0, false)
		if vm {
			for _, s := range []int{GS, FS, DS, ES} {
				c.Push(uint64(old[s].Sel), size)
				c.Seg[s] = Segment{}
			}
		}
		c.Push(uint64(oldSS), size)
		c.Push(oldSP, size)
	}
	c.Push(flags, size)
	c.Push(uint64(oldCS), size)
	c.Push(oldRIP, size)
	if e.HasErr {
		c.Push(uint64(e.Err), size)
	}
	if off > uint64(code.limit()) {
		c.RaiseErr(VecGP, 0)
	}
	c.setAccessed(&code)
	c.Seg[CS] = code.segment(sel&^3 | uint16(cpl))
	c.CPL = cpl
	c.RFLAGS &^= FlagTF | FlagNT | FlagRF | FlagVM
	if typ&1 == 0 {
		c.RFLAGS &^= FlagIF
	}
	c.Regs[RIP] = off
	c.ModeChanged()
}

// Interrupts is where a processor's maskable interrupts come from: its local APIC.
type Interrupts interface {
	// Pending reports whether an interrupt waits that the task priority lets through.
	Pending() bool
	// Acknowledge takes the highest and returns its vector.
	Acknowledge() (vector uint8)
}

// ServiceEvents delivers at most one event at an instruction boundary, by priority:
// machine check, debug trap, NMI, maskable interrupt (SDM Vol. 3A 6.9, table 6-2). It
// reports whether there was one.
func (c *CPU) ServiceEvents(from Interrupts) bool {
	if c.Activity == Shutdown || c.Activity == WaitSIPI {
		return false
	}
	switch {
	case c.MCPending:
		c.MCPending = false
		if c.CR4&CR4MCE == 0 {
			c.Activity = Shutdown
			return false
		}
		c.Deliver(Exception{Vec: VecMC})
	case c.PendingDebug != 0 && c.Shadow&ShadowMOVSS == 0:
		c.DR[6] = c.DR[6]&^0xf | c.PendingDebug
		c.PendingDebug = 0
		c.Deliver(Exception{Vec: VecDB})
	case c.NMIPending && !c.NMIBlocked && c.Shadow == 0:
		c.NMIPending, c.NMIBlocked = false, true
		c.Deliver(Exception{Vec: VecNMI})
	case c.RFLAGS&FlagIF != 0 && c.Shadow == 0 && from.Pending():
		c.Deliver(Exception{Vec: from.Acknowledge(), Ext: true})
	default:
		return false
	}
	return true
}

// Soft delivers a software interrupt: INT n, INT3 or INTO.
func (c *CPU) Soft(vec uint8) {
	e := Exception{Vec: vec, Soft: true}
	if c.tryDeliver(e) {
		return
	}
	// The fault points at the instruction.
	f := c.Exc
	c.Regs[RIP] = c.InstRIP
	panicFault(c, f)
}

func panicFault(c *CPU, e Exception) {
	c.Exc = e
	panic(fault)
}
