package interp

import (
	"refault/vmm/x86"
	"refault/vmm/x86/fpu"
)

// x87Ops binds the x87 instructions.
//
// Package fpu executes one instruction at a time on a copy of the guest's
// state. FIP, FDP and FOP, which vendors save differently,
// are kept here: FIP and FOP of the last instruction that is not a control
// instruction, FDP of the last one that raised an unmasked exception
// (CPUID.7.0:EBX[6]); the selectors are deprecated and read as zero.
var x87Ops = map[x86.Op]selector{
	x86.OpX87: selectX87, x86.OpX87Store: selectX87, x86.OpX87Flags: selectX87, x86.OpX87Soft: selectX87,
	x86.OpFLDENV: always(fldenv), x86.OpFNSTENV: always(fnstenv), x86.OpFLDCW: always(fldcw), x86.OpFNSTCW: always(fnstcw),
	x86.OpFNCLEX: always(fnclex), x86.OpFNINIT: always(fninit), x86.OpFRSTOR: always(frstor), x86.OpFNSAVE: always(fnsave),
	x86.OpFNSTSW: always(fnstsw), x86.OpFWAIT: always(fwait),
	x86.OpX87Nop: always(func(c *x86.CPU, _ *x86.Inst) { c.CheckX87() }),
}

// Bits of the x87 status word (SDM Vol. 1 8.1.3).
const (
	fswIE  = 1 << 0
	fswDE  = 1 << 1
	fswZE  = 1 << 2
	fswOE  = 1 << 3
	fswUE  = 1 << 4
	fswPE  = 1 << 5
	fswSF  = 1 << 6
	fswES  = 1 << 7
	fswC0  = 1 << 8
	fswC1  = 1 << 9
	fswC2  = 1 << 10
	fswC3  = 1 << 14
	fswB   = 1 << 15
	fswTop = 7 << 11

	fcwInit = 0x37f
)

func selectX87(in *x86.Inst) x86.Handler {
	size := 0
	if in.IsMem {
		size = x87Size(x86.FormOperands(in.Form)[0])
	}
	store := in.Op == x86.OpX87Store
	flags := in.Op == x86.OpX87Flags
	var stub fpu.Stub
	return func(c *x86.CPU, in *x86.Inst) {
		c.CheckX87()
		c.CheckX87Error()
		u := c.FPU
		if stub == 0 {
			stub = u.X87(in.Opcode, in.ModRM)
		}
		var va uint64
		switch {
		case store:
			va = c.AddrW(in, size)
			c.ProbeWrite(va, size)
		case size > 0:
			va = c.AddrR(in, size)
			c.LoadBytes(va, u.Src[:size])
		}
		if flags {
			u.Flags = uint16(c.Flags()&0xff) << 8
		} else {
			u.Flags = 0x0200
		}
		unmasked := runX87(c, in, stub, va)
		if store && unmasked&(fswIE|fswOE|fswUE) == 0 {
			c.StoreBytes(va, u.Src[:size])
		}
		if flags && in.Opcode != 0xda && in.ModRM >= 0xe8 && unmasked&(fswIE|fswDE) == 0 {
			c.SetArith(uint64(u.Flags>>8) & (x86.FlagZF | x86.FlagPF | x86.FlagCF))
		}
	}
}

func x87Size(o x86.Operand) int {
	switch o.Size {
	case 'w':
		return 2
	case 'd':
		return 4
	case 'q':
		return 8
	}
	return 10
}

// runX87 executes a stub on the guest's x87 state, with the guest's own masks: an unmasked exception has all
// its effects but the trap, which would come at the next waiting instruction, and the stub has none. It returns
// the unmasked exceptions that were raised. Preconditions: none is pending.
func runX87(c *x86.CPU, in *x86.Inst, stub fpu.Stub, va uint64) (unmasked uint16) {
	u := c.FPU
	fcw, fsw := le.Uint16(c.FX[0:]), le.Uint16(c.FX[2:])
	u.FX = c.FX
	u.Call(stub)
	now := le.Uint16(u.FX[2:])
	unmasked = now & 0x3f &^ fcw
	setPointers(c, in, unmasked != 0, va)
	if unmasked&(fswIE|fswDE) != 0 && compares(in) {
		// Processors differ: the condition code stays, as the SDM has it (Vol. 2A, FCOM).
		const codes = fswC0 | fswC2 | fswC3
		now = now&^codes | fsw&codes
	}
	le.PutUint16(c.FX[2:], now)
	c.FX[4] = u.FX[4]
	copy(c.FX[32:160], u.FX[32:160])
	return unmasked
}

// setPointers sets FOP and FIP, and FDP where an exception was raised.
func setPointers(c *x86.CPU, in *x86.Inst, raised bool, va uint64) {
	le.PutUint16(c.FX[6:], uint16(in.Opcode&7)<<8|uint16(in.ModRM))
	le.PutUint64(c.FX[8:], c.InstRIP)
	if raised {
		le.PutUint64(c.FX[16:], va)
	}
}

// compares reports whether an instruction sets the condition code to the outcome of a comparison.
func compares(in *x86.Inst) bool {
	digit := in.ModRM >> 3 & 7
	switch {
	case in.Opcode&1 == 0 && in.Opcode != 0xde && in.Opcode != 0xdf || in.IsMem && in.Opcode == 0xde: // D8, DA, DC, and DE with memory
		return (digit == 2 || digit == 3) && (in.IsMem || in.Opcode != 0xda) || in.ModRM == 0xe9 && in.Opcode == 0xda
	case in.Opcode == 0xdd:
		return !in.IsMem && (digit == 4 || digit == 5)
	case in.Opcode == 0xde:
		return in.ModRM == 0xd9 || digit == 2
	case in.Opcode == 0xd9:
		return in.ModRM == 0xe4
	}
	return false
}

// setStatus sets the summary bits of the status word from its exceptions and the control word.
func setStatus(c *x86.CPU) {
	img := c.FX
	x86.CleanX87(&img)
	c.FX = img
}

func fwait(c *x86.CPU, _ *x86.Inst) {
	if c.CR0&(x86.CR0TS|x86.CR0MP) == x86.CR0TS|x86.CR0MP {
		c.Raise(x86.VecNM)
	}
	c.CheckX87Error()
}

func fldcw(c *x86.CPU, in *x86.Inst) {
	c.CheckX87()
	c.CheckX87Error()
	le.PutUint16(c.FX[0:], c.Load16(c.AddrR(in, 2))&0x1f3f|0x40)
	setStatus(c)
}

func fnstcw(c *x86.CPU, in *x86.Inst) {
	c.CheckX87()
	c.Store16(c.AddrW(in, 2), le.Uint16(c.FX[0:]))
}

func fnstsw(c *x86.CPU, in *x86.Inst) {
	c.CheckX87()
	v := le.Uint16(c.FX[2:])
	if in.IsMem {
		c.Store16(c.AddrW(in, 2), v)
		return
	}
	c.SetReg(x86.RAX, uint64(v), 2)
}

func fnclex(c *x86.CPU, _ *x86.Inst) {
	c.CheckX87()
	le.PutUint16(c.FX[2:], le.Uint16(c.FX[2:])&^(0x7f|fswES|fswB))
}

func fninit(c *x86.CPU, _ *x86.Inst) {
	c.CheckX87()
	initX87(c)
}

// initX87 sets control, status, tag and pointers; the registers stay, at their places.
func initX87(c *x86.CPU) {
	rotateStack(c, 0)
	clear(c.FX[:24])
	le.PutUint16(c.FX[0:], fcwInit)
}

// rotateStack changes the stack top and keeps each physical register's content.
func rotateStack(c *x86.CPU, top uint16) {
	fsw := le.Uint16(c.FX[2:])
	d := int(top) - int(fsw>>11&7)
	var st [128]byte
	copy(st[:], c.FX[32:160])
	for i := range 8 {
		copy(c.FX[32+16*i:48+16*i], st[16*((i+d)&7):])
	}
	le.PutUint16(c.FX[2:], fsw&^fswTop|top<<11)
}

// fullTag computes the 16-bit tag word of FSTENV from the abridged one (SDM Vol. 1 8.1.7).
func fullTag(c *x86.CPU) (tag uint16) {
	top := int(le.Uint16(c.FX[2:]) >> 11 & 7)
	for r := range 8 {
		t := uint16(3)
		if c.FX[4]>>r&1 != 0 {
			st := c.FX[32+16*((r-top)&7):]
			exp, man := le.Uint16(st[8:])&0x7fff, le.Uint64(st)
			switch {
			case exp == 0 && man == 0:
				t = 1
			case exp == 0 || exp == 0x7fff || man>>63 == 0:
				t = 2
			default:
				t = 0
			}
		}
		tag |= t << (2 * r)
	}
	return tag
}

// environment lays out the x87 environment for FSTENV and FSAVE (SDM Vol. 1 figures 8-9 to 8-12).
func environment(c *x86.CPU, in *x86.Inst) []byte {
	fcw, fsw, tag := le.Uint16(c.FX[0:]), le.Uint16(c.FX[2:]), fullTag(c)
	fip, fdp, fop := le.Uint64(c.FX[8:]), le.Uint64(c.FX[16:]), le.Uint16(c.FX[6:])
	if in.OpSize == 2 {
		b := make([]byte, 14)
		for i, v := range []uint16{fcw, fsw, tag, uint16(fip), 0, uint16(fdp), 0} {
			le.PutUint16(b[2*i:], v)
		}
		return b
	}
	b := make([]byte, 28)
	for i, v := range []uint32{0xffff0000 | uint32(fcw), 0xffff0000 | uint32(fsw), 0xffff0000 | uint32(tag), uint32(fip), uint32(fop) << 16, uint32(fdp), 0xffff0000} {
		le.PutUint32(b[4*i:], v)
	}
	return b
}

func environmentSize(in *x86.Inst) int {
	if in.OpSize == 2 {
		return 14
	}
	return 28
}

func setEnvironment(c *x86.CPU, b []byte) {
	var fcw, fsw, tag, fop uint16
	var fip, fdp uint64
	if len(b) == 14 {
		fcw, fsw, tag = le.Uint16(b), le.Uint16(b[2:]), le.Uint16(b[4:])
		fip, fdp = uint64(le.Uint16(b[6:])), uint64(le.Uint16(b[10:]))
	} else {
		fcw, fsw, tag = le.Uint16(b), le.Uint16(b[4:]), le.Uint16(b[8:])
		fip, fop, fdp = uint64(le.Uint32(b[12:])), le.Uint16(b[18:])&0x7ff, uint64(le.Uint32(b[20:]))
	}
	rotateStack(c, fsw>>11&7)
	le.PutUint16(c.FX[0:], fcw&0x1f3f|0x40)
	le.PutUint16(c.FX[2:], fsw)
	var abridged byte
	for r := range 8 {
		if tag>>(2*r)&3 != 3 {
			abridged |= 1 << r
		}
	}
	c.FX[4] = abridged
	le.PutUint16(c.FX[6:], fop)
	le.PutUint64(c.FX[8:], fip)
	le.PutUint64(c.FX[16:], fdp)
	setStatus(c)
}

func fnstenv(c *x86.CPU, in *x86.Inst) {
	c.CheckX87()
	b := environment(c, in)
	va := c.AddrW(in, len(b))
	c.ProbeWrite(va, 1)
	c.ProbeWrite(va+uint64(len(b))-1, 1)
	c.StoreBytes(va, b)
	le.PutUint16(c.FX[0:], le.Uint16(c.FX[0:])|0x3f)
	setStatus(c)
}

func fldenv(c *x86.CPU, in *x86.Inst) {
	c.CheckX87()
	c.CheckX87Error()
	b := make([]byte, environmentSize(in))
	c.LoadBytes(c.AddrR(in, len(b)), b)
	setEnvironment(c, b)
}

func fnsave(c *x86.CPU, in *x86.Inst) {
	c.CheckX87()
	b := environment(c, in)
	for i := range 8 {
		b = append(b, c.FX[32+16*i:42+16*i]...)
	}
	va := c.AddrW(in, len(b))
	c.ProbeWrite(va, 1)
	c.ProbeWrite(va+uint64(len(b))-1, 1)
	c.StoreBytes(va, b)
	initX87(c)
}

func frstor(c *x86.CPU, in *x86.Inst) {
	c.CheckX87()
	c.CheckX87Error()
	n := environmentSize(in)
	b := make([]byte, n+80)
	c.LoadBytes(c.AddrR(in, len(b)), b)
	setEnvironment(c, b[:n])
	for i := range 8 {
		copy(c.FX[32+16*i:42+16*i], b[n+10*i:])
	}
}
