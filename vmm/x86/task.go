package x86

// Hardware task switching (SDM Vol. 3A chapter "Task Management") and the entry to
// virtual-8086 mode. Neither exists in IA-32e mode.
//
// # What happens when a switch goes wrong halfway?
//
// There is a commit point. What goes wrong before it (the selector of the new task,
// its descriptor, a page of either TSS that is absent) is raised in the old task, and
// nothing has changed. After it the registers are the new task's, and so are the
// exceptions: they point at its first instruction, with the selectors of its TSS in
// registers that are not usable. CPU.switched tells the delivery of an exception, which
// otherwise puts everything back, on which side of that point it is.

// taskSwitch says what switches tasks.
type taskSwitch uint8

const (
	taskJump   taskSwitch = iota // JMP: the old task ends
	taskNest                     // CALL, an exception or an interrupt: the new task can return to the old one
	taskReturn                   // IRET with NT
)

// Types of the system descriptors that matter here (SDM Vol. 3A table 3-2).
const (
	typTSS16     = 1
	typTaskGate  = 5
	typTSS32     = 9
	typTSSBusy   = 2 // bit of the type: busy
	typTSSMask   = 0xd
	tssLimit16   = 0x2b
	tssLimit32   = 0x67
	tssSwitched  = 1 << 15 // DR6.BT
	dr7LocalBits = 0x155   // L0 to L3 and LE
)

func (d descriptor) isTSS() bool {
	t := d.typ() & typTSSMask
	return d.isSystem() && (t == typTSS16 || t == typTSS32)
}

// tss is the part of a TSS that a task switch saves and loads (SDM Vol. 3A figures 8-2 and 8-10).
type tss struct {
	regs  [8]uint64
	segs  [GS + 1]uint16
	ip    uint64
	flags uint64
	cr3   uint64
	ldt   uint16
	trap  bool
}

// Offsets in a TSS of 32 bits, and of 16.
const (
	tss32CR3, tss32EIP, tss32Flags, tss32Regs, tss32Segs, tss32LDT, tss32Trap = 28, 32, 36, 40, 72, 96, 100
	tss16IP, tss16Flags, tss16Regs, tss16Segs, tss16LDT                       = 14, 16, 18, 34, 42
)

func (c *CPU) loadTSS(s *Segment) (t tss) {
	if s.Attr&8 == 0 {
		t.ip, t.flags = c.loadSys(s.Base+tss16IP, 2), c.loadSys(s.Base+tss16Flags, 2)
		for i := range t.regs {
			// What the upper halves become is undefined: here they are ones.
			t.regs[i] = 0xffff0000 | c.loadSys(s.Base+tss16Regs+uint64(2*i), 2)
		}
		for i := ES; i <= DS; i++ {
			t.segs[i] = uint16(c.loadSys(s.Base+tss16Segs+uint64(2*i), 2))
		}
		t.ldt = uint16(c.loadSys(s.Base+tss16LDT, 2))
		return t
	}
	t.cr3 = c.loadSys(s.Base+tss32CR3, 4)
	t.ip, t.flags = c.loadSys(s.Base+tss32EIP, 4), c.loadSys(s.Base+tss32Flags, 4)
	for i := range t.regs {
		t.regs[i] = c.loadSys(s.Base+tss32Regs+uint64(4*i), 4)
	}
	for i := range t.segs {
		t.segs[i] = uint16(c.loadSys(s.Base+tss32Segs+uint64(4*i), 2))
	}
	t.ldt = uint16(c.loadSys(s.Base+tss32LDT, 2))
	t.trap = c.loadSys(s.Base+tss32Trap, 2)&1 != 0
	return t
}

// storeTSS saves the running task; the parts that software sets up (stacks, LDT, CR3, the map) stay.
func (c *CPU) storeTSS(s *Segment, flags uint64) {
	if s.Attr&8 == 0 {
		c.storeSys(s.Base+tss16IP, c.Regs[RIP], 2)
		c.storeSys(s.Base+tss16Flags, flags, 2)
		for i := range uint64(8) {
			c.storeSys(s.Base+tss16Regs+2*i, c.Regs[i], 2)
		}
		for i := ES; i <= DS; i++ {
			c.storeSys(s.Base+tss16Segs+uint64(2*i), uint64(c.Seg[i].Sel), 2)
		}
		return
	}
	c.storeSys(s.Base+tss32EIP, c.Regs[RIP], 4)
	c.storeSys(s.Base+tss32Flags, flags, 4)
	for i := range uint64(8) {
		c.storeSys(s.Base+tss32Regs+4*i, c.Regs[i], 4)
	}
	for i := ES; i <= GS; i++ {
		c.storeSys(s.Base+tss32Segs+uint64(4*i), uint64(c.Seg[i].Sel), 2)
	}
}

// probeSys raises what reading or writing the n bytes of a system structure at la would raise.
func (c *CPU) probeSys(la uint64, n int, kind Access) {
	la = c.wrap(la)
	c.asSupervisor(func() {
		c.probe(la, 1, kind)
		c.probe(c.wrap(la+uint64(n-1)), 1, kind)
	})
}

// farTask executes a far JMP or CALL whose target is the TSS or task gate d. It reports false where d is neither.
func (c *CPU) farTask(sel uint16, d descriptor, why taskSwitch) bool {
	if c.LongMode() || d.typ() != typTaskGate && !d.isTSS() {
		return false
	}
	if d.dpl() < c.CPL || d.dpl() < uint8(sel&3) {
		c.RaiseErr(VecGP, selError(sel))
	}
	if d.typ() == typTaskGate {
		if !d.present() {
			c.RaiseErr(VecNP, selError(sel))
		}
		sel = uint16(d.raw >> 16)
	}
	c.switchTask(sel, why, c.Flags()&^FlagRF, VecGP)
	return true
}

// taskGate delivers e through a task gate that names the TSS sel. flags is what the interrupted task has to have.
func (c *CPU) taskGate(sel uint16, e Exception, flags uint64) {
	c.switchTask(sel, taskNest, flags, VecGP)
	if e.HasErr {
		c.Push(uint64(e.Err), c.tssWidth())
	}
}

// tssWidth is the size in bytes of what goes on the stack of the current task.
func (c *CPU) tssWidth() int {
	if c.Seg[TR].Attr&8 == 0 {
		return 2
	}
	return 4
}

// iretTask executes IRET in a task that was nested: back to the one that its TSS names.
func (c *CPU) iretTask() {
	sel := uint16(c.loadSys(c.Seg[TR].Base, 2))
	c.switchTask(sel, taskReturn, c.Flags()&^FlagNT, VecTS)
}

// switchTask switches to the task whose TSS sel selects. The caller has checked
// privileges. flags is the EFLAGS image of the old task; bad is what a selector that
// does not fit raises.
func (c *CPU) switchTask(sel uint16, why taskSwitch, flags uint64, bad uint8) {
	if sel&4 != 0 || sel&^7 == 0 {
		c.RaiseErr(bad, selError(sel))
	}
	d, ok := c.readDescriptor(sel)
	if !ok || !d.isTSS() || d.typ()&typTSSBusy != 0 != (why == taskReturn) {
		c.RaiseErr(bad, selError(sel))
	}
	if !d.present() {
		c.RaiseErr(VecNP, selError(sel))
	}
	s := d.segment(sel)
	least := uint32(tssLimit32)
	if s.Attr&8 == 0 {
		least = tssLimit16
	}
	if s.Limit < least {
		c.RaiseErr(VecTS, selError(sel))
	}
	old := c.Seg[TR]
	oldLeast := uint32(tssLimit32)
	if old.Attr&8 == 0 {
		oldLeast = tssLimit16
	}
	if old.Attr&SegPresent == 0 || old.Limit < oldLeast {
		c.RaiseErr(VecTS, selError(old.Sel))
	}

	// Whatever is not mapped is found while it is still the old task's fault.
	oldType := c.GDTR.Base + uint64(old.Sel&^7) + 5
	c.probeSys(s.Base, int(least)+1, Read)
	c.probeSys(old.Base, int(oldLeast)+1, Write)
	if why != taskNest {
		c.probeSys(oldType, 1, Write)
	}
	if why != taskReturn {
		c.probeSys(d.addr+5, 1, Write)
	}
	if why == taskNest {
		c.probeSys(s.Base, 2, Write)
	}

	if why != taskNest {
		c.storeSys(oldType, c.loadSys(oldType, 1)&^typTSSBusy, 1)
	}
	c.Materialise()
	c.storeTSS(&old, flags)
	t := c.loadTSS(&s)
	if why == taskNest {
		c.storeSys(s.Base, uint64(old.Sel), 2)
		t.flags |= FlagNT
	}
	if why != taskReturn {
		c.storeSys(d.addr+5, d.raw>>40&0xff|typTSSBusy, 1)
	}
	s.Attr |= typTSSBusy
	c.enterTask(s, t)
}

// enterTask makes t, from the TSS s, the running task.
func (c *CPU) enterTask(s Segment, t tss) {
	const flags = FlagsArith | FlagTF | FlagIF | FlagDF | FlagIOPL | FlagNT | FlagRF | FlagVM | FlagAC | FlagVIF | FlagVIP | FlagID
	c.switched = true
	c.Seg[TR] = s
	c.CR0 |= CR0TS
	c.DR[7] &^= dr7LocalBits
	copy(c.Regs[:8], t.regs[:])
	c.Regs[RIP], c.InstRIP = t.ip, t.ip
	c.FlagsLazy = 0
	c.RFLAGS = t.flags&flags | Flag1
	vm := c.RFLAGS&FlagVM != 0
	for i := ES; i <= GS; i++ {
		if vm {
			c.loadVM86(i, t.segs[i])
		} else {
			c.Seg[i] = Segment{Sel: t.segs[i]}
		}
	}
	c.Seg[LDTR] = Segment{Sel: t.ldt}
	c.CPL = uint8(t.segs[CS] & 3)
	if vm {
		c.CPL = 3
	}
	c.Shadow = 0
	c.ModeChanged()
	c.flushFetch()
	c.Attention = true

	if c.CR0&CR0PG != 0 && s.Attr&8 != 0 {
		if c.CR4&CR4PAE != 0 {
			c.loadPDPTE(t.cr3)
		}
		c.SetCR3(t.cr3)
	}
	c.taskLDT(t.ldt)
	if !vm {
		for _, i := range [...]int{CS, SS, ES, DS, FS, GS} {
			c.taskSegment(i, t.segs[i])
		}
		c.ModeChanged()
		c.flushFetch()
	}
	if t.trap {
		c.PendingDebug |= tssSwitched
	}
	if t.ip > uint64(c.Seg[CS].Limit) {
		c.RaiseErr(VecGP, 0)
	}
}

func (c *CPU) taskLDT(sel uint16) {
	if sel&^3 == 0 {
		return
	}
	if sel&4 != 0 {
		c.RaiseErr(VecTS, selError(sel))
	}
	d, ok := c.readDescriptor(sel)
	if !ok || !d.isSystem() || d.typ() != 2 || !d.present() {
		c.RaiseErr(VecTS, selError(sel))
	}
	c.Seg[LDTR] = d.segment(sel)
}

// taskSegment loads a segment register of the new task: as LoadSegment does, but what does not fit is an invalid TSS.
func (c *CPU) taskSegment(seg int, sel uint16) {
	if sel&^3 == 0 {
		if seg == CS || seg == SS {
			c.RaiseErr(VecTS, 0)
		}
		return
	}
	d, ok := c.readDescriptor(sel)
	rpl := uint8(sel & 3)
	absent := uint8(VecNP)
	switch {
	case !ok || d.isSystem():
		ok = false
	case seg == CS:
		ok = d.isCode() && (d.dpl() == rpl || d.conforming() && d.dpl() < rpl)
	case seg == SS:
		ok = d.isData() && d.readable() && d.dpl() == c.CPL && rpl == c.CPL
		absent = VecSS
	case d.isCode():
		ok = d.readable() && (d.conforming() || rpl <= d.dpl() && c.CPL <= d.dpl())
	default:
		ok = rpl <= d.dpl() && c.CPL <= d.dpl()
	}
	if !ok {
		c.RaiseErr(VecTS, selError(sel))
	}
	if !d.present() {
		c.RaiseErr(absent, selError(sel))
	}
	c.setAccessed(&d)
	c.Seg[seg] = d.segment(sel)
}

// loadVM86 loads a segment register as virtual-8086 mode has it (SDM Vol. 3A, "Segment Registers" of the chapter on 8086 emulation).
func (c *CPU) loadVM86(seg int, sel uint16) {
	c.Seg[seg] = Segment{Sel: sel, Base: uint64(sel) << 4, Limit: 0xffff,
		Attr: SegPresent | SegS | SegDPL | SegTypeWritable | SegTypeAccessed}
}

// iretVM86 returns to virtual-8086 mode, from privilege level 0 (SDM Vol. 2A, IRET). The
// stack holds EIP, CS, EFLAGS, ESP, SS, ES, DS, FS and GS.
func (c *CPU) iretVM86(cs uint16, ip, flags uint64) {
	if ip > 0xffff {
		c.RaiseErr(VecGP, 0)
	}
	sp := c.Peek(12, 4)
	var segs [GS + 1]uint16
	segs[CS] = cs
	for i, s := range [...]int{SS, ES, DS, FS, GS} {
		segs[s] = uint16(c.Peek(16+4*i, 4))
	}
	const mask = FlagsArith | FlagTF | FlagIF | FlagDF | FlagIOPL | FlagNT | FlagRF | FlagVM | FlagAC | FlagVIF | FlagVIP | FlagID
	c.FlagsLazy = 0
	c.RFLAGS = flags&mask | Flag1
	for s, sel := range segs {
		c.loadVM86(s, sel)
	}
	c.Regs[RSP], c.Regs[RIP] = sp, ip
	c.CPL = 3
	c.NMIBlocked = false
	c.ModeChanged()
	c.flushFetch()
	c.Attention = true
}

// CheckVM86 raises #GP(0) in virtual-8086 mode unless IOPL is 3: for CLI, STI, PUSHF,
// POPF, INT n and IRET, which a monitor has to see.
func (c *CPU) CheckVM86() {
	if c.RFLAGS&FlagVM != 0 && c.RFLAGS&FlagIOPL != FlagIOPL {
		c.RaiseErr(VecGP, 0)
	}
}
