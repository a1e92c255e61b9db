package interp

import (
	"refault/vmm/x86"
)

// systemOps binds the system instructions.
var systemOps = map[x86.Op]selector{
	x86.OpHLT: always(hlt), x86.OpCLI: always(cli), x86.OpSTI: always(sti),
	x86.OpPUSHF: always(pushf), x86.OpPOPF: always(popf),
	x86.OpINT: always(intN), x86.OpINT3: always(int3), x86.OpINT1: always(int1), x86.OpINTO: always(into),
	x86.OpIRET: always(func(c *x86.CPU, in *x86.Inst) { c.Iret(int(in.OpSize)) }),
	x86.OpIN:   always(inPort), x86.OpOUT: always(outPort),
	x86.OpINS:   always(func(c *x86.CPU, in *x86.Inst) { repeat(c, in, insOne, nil) }),
	x86.OpOUTS:  always(func(c *x86.CPU, in *x86.Inst) { repeat(c, in, outsOne, nil) }),
	x86.OpRDTSC: always(rdtsc), x86.OpRDTSCP: always(rdtscp), x86.OpRDPMC: always(rdpmc), x86.OpCPUID: always(cpuid),
	x86.OpRDMSR: always(rdmsr), x86.OpWRMSR: always(wrmsr),
	x86.OpMOVFromCR: always(func(c *x86.CPU, in *x86.Inst) { c.SetReg(in.RM, c.ReadCR(in.Reg), longSize(c)) }),
	x86.OpMOVToCR:   always(func(c *x86.CPU, in *x86.Inst) { c.WriteCR(in.Reg, c.GetReg(in.RM, longSize(c))) }),
	x86.OpMOVFromDR: always(func(c *x86.CPU, in *x86.Inst) { c.SetReg(in.RM, c.ReadDR(in.Reg), longSize(c)) }),
	x86.OpMOVToDR:   always(func(c *x86.CPU, in *x86.Inst) { c.WriteDR(in.Reg, c.GetReg(in.RM, longSize(c))) }),
	x86.OpCLTS:      always(func(c *x86.CPU, _ *x86.Inst) { c.CR0 &^= x86.CR0TS }),
	x86.OpLMSW:      always(func(c *x86.CPU, in *x86.Inst) { c.LoadMSW(c.ReadRM(in, 2)); c.Attention = true }),
	x86.OpSMSW:      always(func(c *x86.CPU, in *x86.Inst) { umip(c); storeWord(c, in, c.CR0) }),
	x86.OpSGDT:      always(func(c *x86.CPU, in *x86.Inst) { umip(c); storeTable(c, in, c.GDTR) }),
	x86.OpSIDT:      always(func(c *x86.CPU, in *x86.Inst) { umip(c); storeTable(c, in, c.IDTR) }),
	x86.OpLGDT:      always(func(c *x86.CPU, in *x86.Inst) { c.GDTR = loadTable(c, in) }),
	x86.OpLIDT:      always(func(c *x86.CPU, in *x86.Inst) { c.IDTR = loadTable(c, in) }),
	x86.OpSLDT: always(func(c *x86.CPU, in *x86.Inst) {
		protectedOnly(c)
		umip(c)
		storeWord(c, in, uint64(c.Seg[x86.LDTR].Sel))
	}),
	x86.OpSTR:  always(func(c *x86.CPU, in *x86.Inst) { protectedOnly(c); umip(c); storeWord(c, in, uint64(c.Seg[x86.TR].Sel)) }),
	x86.OpLLDT: always(func(c *x86.CPU, in *x86.Inst) { protectedOnly(c); c.LoadLDT(uint16(c.ReadRM(in, 2))) }),
	x86.OpLTR:  always(func(c *x86.CPU, in *x86.Inst) { protectedOnly(c); c.LoadTR(uint16(c.ReadRM(in, 2))) }),
	x86.OpVERR: always(func(c *x86.CPU, in *x86.Inst) { protectedOnly(c); setZF(c, c.Verify(uint16(c.ReadRM(in, 2)), false)) }),
	x86.OpVERW: always(func(c *x86.CPU, in *x86.Inst) { protectedOnly(c); setZF(c, c.Verify(uint16(c.ReadRM(in, 2)), true)) }),
	x86.OpLAR:  always(lar), x86.OpLSL: always(lsl), x86.OpARPL: always(arpl),
	x86.OpINVLPG: always(nop), x86.OpINVPCID: always(invpcid), x86.OpINVD: always(nop),
	x86.OpCLFLUSH:    always(func(c *x86.CPU, in *x86.Inst) { c.Load8(c.AddrR(in, 1)) }),
	x86.OpMOVFromSeg: always(movFromSeg), x86.OpMOVToSeg: always(movToSeg),
	x86.OpPUSHSeg: always(pushSeg), x86.OpPOPSeg: always(popSeg), x86.OpLoadFar: always(loadFar),
	x86.OpJMPF: always(jmpFar), x86.OpCALLF: always(callFar),
	x86.OpRETF:     always(func(c *x86.CPU, in *x86.Inst) { c.RetFar(int(in.OpSize), in.Imm) }),
	x86.OpSYSCALL:  always(func(c *x86.CPU, _ *x86.Inst) { c.Syscall() }),
	x86.OpSYSRET:   always(func(c *x86.CPU, in *x86.Inst) { c.Sysret(int(in.OpSize)) }),
	x86.OpSYSENTER: always(func(c *x86.CPU, _ *x86.Inst) { c.Sysenter() }),
	x86.OpSYSEXIT:  always(func(c *x86.CPU, in *x86.Inst) { c.Sysexit(int(in.OpSize)) }),
	x86.OpSWAPGS: always(func(c *x86.CPU, _ *x86.Inst) {
		c.Seg[x86.GS].Base, c.KernelGSBase = c.KernelGSBase, c.Seg[x86.GS].Base
	}),
	x86.OpCLAC:     always(func(c *x86.CPU, _ *x86.Inst) { setAC(c, false) }),
	x86.OpSTAC:     always(func(c *x86.CPU, _ *x86.Inst) { setAC(c, true) }),
	x86.OpRDFSBASE: selectBase(x86.FS, false), x86.OpRDGSBASE: selectBase(x86.GS, false),
	x86.OpWRFSBASE: selectBase(x86.FS, true), x86.OpWRGSBASE: selectBase(x86.GS, true),
	x86.OpRDRAND: always(random), x86.OpRDSEED: always(random),
	x86.OpXGETBV: always(xgetbv), x86.OpXSETBV: always(xsetbv),
}

func gp0(c *x86.CPU) { c.RaiseErr(x86.VecGP, 0) }

// longSize is the operand size of moves to and from control and debug registers.
func longSize(c *x86.CPU) int {
	if c.CodeSize() == 8 {
		return 8
	}
	return 4
}

func umip(c *x86.CPU) {
	if c.CPL != 0 && c.CR4&x86.CR4UMIP != 0 {
		gp0(c)
	}
}

func protectedOnly(c *x86.CPU) {
	if !c.ProtectedMode() {
		c.Raise(x86.VecUD)
	}
}

func hlt(c *x86.CPU, _ *x86.Inst) {
	c.Activity = x86.Halted
	c.Attention = true
}

// mayMask raises #GP(0) unless CPL is within IOPL.
func mayMask(c *x86.CPU) {
	if uint64(c.CPL) > c.RFLAGS&x86.FlagIOPL>>12 {
		gp0(c)
	}
}

func cli(c *x86.CPU, _ *x86.Inst) {
	mayMask(c)
	c.RFLAGS &^= x86.FlagIF
}

func sti(c *x86.CPU, _ *x86.Inst) {
	mayMask(c)
	if c.RFLAGS&x86.FlagIF == 0 {
		c.RFLAGS |= x86.FlagIF
		c.Shadow |= x86.ShadowSTI
		c.Attention = true
	}
}

func pushf(c *x86.CPU, in *x86.Inst) {
	c.CheckVM86()
	c.Push(c.Flags()&^(x86.FlagVM|x86.FlagRF), int(in.OpSize))
}

func popf(c *x86.CPU, in *x86.Inst) {
	c.CheckVM86()
	n := int(in.OpSize)
	f := c.Pop(n)
	rf := c.RFLAGS & x86.FlagRF
	c.SetFlags(f, n)
	c.RFLAGS = c.RFLAGS&^x86.FlagRF | rf
}

func intN(c *x86.CPU, in *x86.Inst) {
	c.CheckVM86()
	c.Soft(uint8(in.Imm))
}

func int3(c *x86.CPU, _ *x86.Inst) { c.Soft(x86.VecBP) }
func int1(c *x86.CPU, _ *x86.Inst) { c.Deliver(x86.Exception{Vec: x86.VecDB}) }
func into(c *x86.CPU, _ *x86.Inst) {
	if c.Flags()&x86.FlagOF != 0 {
		c.Soft(x86.VecOF)
	}
}

// portSize is the size in bytes of a port access: quadwords do not exist.
func portSize(in *x86.Inst) int { return min(int(in.OpSize), 4) }

func portOf(c *x86.CPU, in *x86.Inst) uint16 {
	if in.Opcode&8 != 0 {
		return uint16(c.Regs[x86.RDX])
	}
	return uint16(in.Imm & 0xff)
}

func inPort(c *x86.CPU, in *x86.Inst) {
	n := portSize(in)
	c.SetReg(x86.RAX, uint64(c.InPort(portOf(c, in), n)), n)
}

func outPort(c *x86.CPU, in *x86.Inst) {
	n := portSize(in)
	c.OutPort(portOf(c, in), n, uint32(c.GetReg(x86.RAX, n)))
}

func insOne(c *x86.CPU, in *x86.Inst) {
	n := portSize(in)
	c.CheckPort(uint16(c.Regs[x86.RDX]), n)
	va := dest(c, in, n, x86.Write)
	c.ProbeWrite(va, n) // a device must not be read for nothing
	c.Store(va, uint64(c.InPort(uint16(c.Regs[x86.RDX]), n)), n)
	advanceBy(c, in, x86.RDI, n)
}

func outsOne(c *x86.CPU, in *x86.Inst) {
	n := portSize(in)
	c.CheckPort(uint16(c.Regs[x86.RDX]), n)
	c.OutPort(uint16(c.Regs[x86.RDX]), n, uint32(c.Load(source(c, in, n), n)))
	advanceBy(c, in, x86.RSI, n)
}

func advanceBy(c *x86.CPU, in *x86.Inst, reg uint8, n int) {
	d := uint64(n)
	if c.RFLAGS&x86.FlagDF != 0 {
		d = -d
	}
	c.SetReg(reg, c.Regs[reg]+d, int(in.AddrSize))
}

func rdtsc(c *x86.CPU, _ *x86.Inst) {
	if c.CR4&x86.CR4TSD != 0 && c.CPL != 0 {
		gp0(c)
	}
	t := c.Bus.TSC(c) + c.TSCAdjust
	c.Regs[x86.RAX], c.Regs[x86.RDX] = t&0xffffffff, t>>32
}

func rdtscp(c *x86.CPU, in *x86.Inst) {
	rdtsc(c, in)
	c.Regs[x86.RCX] = c.TSCAux & 0xffffffff
}

// rdpmc: there are no performance counters.
func rdpmc(c *x86.CPU, _ *x86.Inst) { gp0(c) }

func cpuid(c *x86.CPU, _ *x86.Inst) {
	a, b, cx, d := c.CPUID(uint32(c.Regs[x86.RAX]), uint32(c.Regs[x86.RCX]))
	c.Regs[x86.RAX], c.Regs[x86.RBX], c.Regs[x86.RCX], c.Regs[x86.RDX] = uint64(a), uint64(b), uint64(cx), uint64(d)
}

func rdmsr(c *x86.CPU, _ *x86.Inst) {
	v, ok := c.ReadMSR(uint32(c.Regs[x86.RCX]))
	if !ok {
		gp0(c)
	}
	c.Regs[x86.RAX], c.Regs[x86.RDX] = v&0xffffffff, v>>32
}

func wrmsr(c *x86.CPU, _ *x86.Inst) {
	if !c.WriteMSR(uint32(c.Regs[x86.RCX]), c.Regs[x86.RDX]<<32|c.Regs[x86.RAX]&0xffffffff) {
		gp0(c)
	}
	c.Attention = true
}

// storeWord stores a system register: all of it in a register, 16 bits in memory.
func storeWord(c *x86.CPU, in *x86.Inst, v uint64) {
	if in.IsMem {
		c.Store16(c.AddrW(in, 2), uint16(v))
		return
	}
	if in.Op != x86.OpSMSW {
		v &= 0xffff
	}
	c.SetReg(in.RM, v, int(in.OpSize))
}

func storeTable(c *x86.CPU, in *x86.Inst, t x86.Table) {
	n := longSize(c)
	va := c.AddrW(in, 2+n)
	c.ProbeWrite(va, 2)
	c.ProbeWrite(va+2, n)
	c.Store16(va, t.Limit)
	c.Store(va+2, t.Base, n)
}

func loadTable(c *x86.CPU, in *x86.Inst) x86.Table {
	n := longSize(c)
	va := c.AddrR(in, 2+n)
	t := x86.Table{Limit: c.Load16(va), Base: c.Load(va+2, n)}
	if in.OpSize == 2 && n == 4 {
		t.Base &= 0xffffff
	}
	if n == 8 && !x86.Canonical(t.Base) {
		gp0(c)
	}
	return t
}

func lar(c *x86.CPU, in *x86.Inst) {
	protectedOnly(c)
	v, ok := c.AccessRights(uint16(c.ReadRM(in, 2)))
	if ok {
		c.SetReg(in.Reg, v, int(in.OpSize))
	}
	setZF(c, ok)
}

func lsl(c *x86.CPU, in *x86.Inst) {
	protectedOnly(c)
	v, ok := c.SegmentLimit(uint16(c.ReadRM(in, 2)))
	if ok {
		c.SetReg(in.Reg, uint64(v), int(in.OpSize))
	}
	setZF(c, ok)
}

func arpl(c *x86.CPU, in *x86.Inst) {
	protectedOnly(c)
	var v uint64
	if in.IsMem {
		v = c.Load(c.AddrR(in, 2), 2) // it is written only if it changes
	} else {
		v = c.GetReg(in.RM, 2)
	}
	rpl := c.GetReg(in.Reg, 2) & 3
	low := v&3 < rpl
	if low {
		v = v&^3 | rpl
		if in.IsMem {
			c.Store16(c.AddrW(in, 2), uint16(v))
		} else {
			c.SetReg(in.RM, v, 2)
		}
	}
	setZF(c, low)
}

// invpcid checks its operands; the TLB is coherent, so there is nothing to forget.
func invpcid(c *x86.CPU, in *x86.Inst) {
	va := c.AddrR(in, 16)
	lo, hi := c.Load64(va), c.Load64(va+8)
	kind := c.GetReg(in.Reg, longSize(c))
	if kind > 3 || lo>>12 != 0 || kind == 0 && !x86.Canonical(hi) || kind < 2 && c.CR4&x86.CR4PCIDE == 0 && lo != 0 {
		gp0(c)
	}
}

func movFromSeg(c *x86.CPU, in *x86.Inst) {
	s := in.Reg & 7
	if s > x86.GS {
		c.Raise(x86.VecUD)
	}
	if in.IsMem {
		c.Store16(c.AddrW(in, 2), c.Seg[s].Sel)
		return
	}
	c.SetReg(in.RM, uint64(c.Seg[s].Sel), int(in.OpSize))
}

// segmentLoaded follows a load of a segment register: SS holds interrupts off for one instruction.
func segmentLoaded(c *x86.CPU, s int) {
	if s == x86.SS {
		c.Shadow |= x86.ShadowMOVSS
		c.Attention = true
	}
}

func movToSeg(c *x86.CPU, in *x86.Inst) {
	s := int(in.Reg & 7)
	if s == x86.CS || s > x86.GS {
		c.Raise(x86.VecUD)
	}
	c.LoadSegment(s, uint16(c.ReadRM(in, 2)))
	segmentLoaded(c, s)
}

func fixedSegment(in *x86.Inst) int { return int(x86.FormOperands(in.Form)[0].Fix) }

func pushSeg(c *x86.CPU, in *x86.Inst) {
	c.Push(uint64(c.Seg[fixedSegment(in)].Sel), int(in.OpSize))
}

func popSeg(c *x86.CPU, in *x86.Inst) {
	s, n := fixedSegment(in), int(in.OpSize)
	c.LoadSegment(s, uint16(c.Peek(0, n)))
	c.SetSP(c.Regs[x86.RSP] + uint64(n))
	segmentLoaded(c, s)
}

// farPointer reads a far pointer from memory.
func farPointer(c *x86.CPU, in *x86.Inst) (sel uint16, off uint64) {
	n := int(in.OpSize)
	va := c.AddrR(in, n+2)
	off = c.Load(va, n)
	return c.Load16(va + uint64(n)), off
}

func loadFar(c *x86.CPU, in *x86.Inst) {
	sel, off := farPointer(c, in)
	s := map[uint8]int{0xc4: x86.ES, 0xc5: x86.DS, 0xb2: x86.SS, 0xb4: x86.FS, 0xb5: x86.GS}[in.Opcode]
	c.LoadSegment(s, sel)
	c.SetReg(in.Reg, off, int(in.OpSize))
}

func jmpFar(c *x86.CPU, in *x86.Inst) {
	if in.IsMem {
		sel, off := farPointer(c, in)
		c.JumpFar(sel, off)
		return
	}
	c.JumpFar(uint16(in.Imm2), in.Imm)
}

func callFar(c *x86.CPU, in *x86.Inst) {
	if in.IsMem {
		sel, off := farPointer(c, in)
		c.CallFar(sel, off, int(in.OpSize))
		return
	}
	c.CallFar(uint16(in.Imm2), in.Imm, int(in.OpSize))
}

func setAC(c *x86.CPU, on bool) {
	if c.CPL != 0 {
		c.Raise(x86.VecUD)
	}
	if on {
		c.RFLAGS |= x86.FlagAC
	} else {
		c.RFLAGS &^= x86.FlagAC
	}
	c.ModeChanged()
}

func selectBase(seg int, write bool) selector {
	return always(func(c *x86.CPU, in *x86.Inst) {
		if c.CR4&x86.CR4FSGSBASE == 0 {
			c.Raise(x86.VecUD)
		}
		n := int(in.OpSize)
		if n == 2 {
			n = 4
		}
		if !write {
			c.SetReg(in.RM, c.Seg[seg].Base, n)
			return
		}
		v := c.GetReg(in.RM, n)
		if !x86.Canonical(v) {
			gp0(c)
		}
		c.Seg[seg].Base = v
	})
}

func random(c *x86.CPU, in *x86.Inst) {
	c.SetReg(in.RM, c.Bus.Random(c), int(in.OpSize))
	c.SetArith(x86.FlagCF)
}

func xgetbv(c *x86.CPU, _ *x86.Inst) {
	if c.CR4&x86.CR4OSXSAVE == 0 {
		c.Raise(x86.VecUD)
	}
	if uint32(c.Regs[x86.RCX]) != 0 {
		gp0(c)
	}
	c.Regs[x86.RAX], c.Regs[x86.RDX] = c.XCR0&0xffffffff, c.XCR0>>32
}

func xsetbv(c *x86.CPU, _ *x86.Inst) {
	if c.CR4&x86.CR4OSXSAVE == 0 {
		c.Raise(x86.VecUD)
	}
	v := c.Regs[x86.RDX]<<32 | c.Regs[x86.RAX]&0xffffffff
	if uint32(c.Regs[x86.RCX]) != 0 || v&1 == 0 || v&^3 != 0 {
		gp0(c)
	}
	c.XCR0 = v
}
