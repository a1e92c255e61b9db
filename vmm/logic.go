package vmm

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"refault/vmm/x86"
)

// Wrong results of a processor's logic: the instruction is decoded, reads its operands
// and goes where it should, and a unit gives a wrong answer. The flags that are
// derived from a result (ZF, SF, PF) follow the wrong one, as they do where they are
// computed from the unit's output.

// logicClasses are the classes of instructions that share a unit, by mnemonic.
var logicClasses = []LogicClass{
	{"add", "the integer adder: add, adc, sub, sbb, inc, dec, neg, xadd", words("add adc sub sbb inc dec neg xadd")},
	{"logic", "bitwise: and, or, xor, not", words("and or xor not")},
	{"shift", "the shifter: rol, ror, rcl, rcr, shl, shr, sar, shld, shrd", words("rol ror rcl rcr shl shr sal sar shld shrd")},
	{"mul", "the integer multiplier", words("mul imul")},
	{"div", "the integer divider", words("div idiv")},
	{"cmp", "comparison: the mask flips bits of RFLAGS", words("cmp test")},
	{"lea", "the address adder, in lea", words("lea")},
	{"load", "what mov, movzx, movsx and movsxd read from memory", words("mov movzx movsx movsxd")},
	{"sse", "SSE floating point: add, sub, mul, div, sqrt", sseNames()},
	{"x87", "x87 arithmetic", words("fadd faddp fiadd fsub fsubp fsubr fsubrp fisub fisubr fmul fmulp fimul fdiv fdivp fdivr fdivrp fidiv fidivr fsqrt")},
}

// LogicClass is a class of instructions of DefectLogic.
type LogicClass struct {
	Name, Doc string
	mnemonics []string
}

// LogicClasses lists them.
func LogicClasses() []LogicClass { return logicClasses }

func words(s string) []string { return strings.Fields(s) }

func sseNames() (names []string) {
	for _, op := range words("add sub mul div sqrt") {
		for _, t := range words("ps pd ss sd") {
			names = append(names, op+t)
		}
	}
	return names
}

func logicClass(name string) *LogicClass {
	for i := range logicClasses {
		if logicClasses[i].Name == name {
			return &logicClasses[i]
		}
	}
	return nil
}

// destination is where an instruction's result goes, in the notation of the opcode table.
type destination struct {
	class string // of logicClasses, or ""
	dest  string // first operand code
	pops  bool   // the x87 stack
}

// destinations is the class and destination of each form.
var destinations = func() []destination {
	ds := make([]destination, len(x86.Forms()))
	for i, f := range x86.Forms() {
		name, operands, _ := strings.Cut(f.Syntax, " ")
		ds[i].dest, _, _ = strings.Cut(operands, ",")
		for _, c := range logicClasses {
			for _, m := range c.mnemonics {
				if m == name {
					ds[i].class = c.Name
				}
			}
		}
		switch ds[i].class {
		case "x87":
			ds[i].pops = strings.HasSuffix(name, "p")
		case "mul", "div":
			if !strings.Contains(operands, ",") {
				ds[i].dest = "rAX" // and the upper half in DX, which stays right
			}
		}
	}
	return ds
}()

// calculated is called when an instruction has retired.
func (d *Defects) calculated(id uint64, c *x86.CPU, in *x86.Inst) {
	f := d.find(id)
	if f == nil || c.ID != f.CPU {
		return
	}
	to := destinations[in.Form]
	if to.class != f.Class || f.Class == "load" && !in.IsMem || !f.privilege(c) {
		return
	}
	if f.Class == "load" && (to.dest == "" || to.dest[0] != 'G') {
		return
	}
	if !d.strikes(f) {
		return
	}
	d.tell(f, c.InstRIP, "a wrong result")
	spoil(c, in, to, f.Mask)
	d.spend(id)
}

// privilege reports whether the defect concerns what runs now.
func (f *Defect) privilege(c *x86.CPU) bool {
	if c.CPL == 3 {
		return f.By&(ByUserFetch) != 0 || f.By == 0
	}
	return f.By&ByKernelFetch != 0 || f.By == 0
}

// spoil flips bits of the result of the instruction that has just retired.
func spoil(c *x86.CPU, in *x86.Inst, to destination, mask []byte) {
	var m8 [8]byte
	copy(m8[:], mask)
	m := binary.LittleEndian.Uint64(m8[:])
	if to.class == "cmp" {
		c.Materialise()
		c.RFLAGS ^= m & x86.FlagsArith
		return
	}
	if to.class == "x87" {
		st := 0
		if to.dest == "STi" {
			st = int(in.RM & 7)
		}
		if to.pops {
			st--
		}
		for i := range min(len(mask), 10) {
			c.FX[32+16*(st&7)+i] ^= mask[i]
		}
		return
	}
	size := int(in.OpSize)
	var v uint64
	switch {
	case to.dest == "":
		return
	case to.dest[0] == 'V':
		for i := range min(len(mask), 16) {
			c.FX[160+16*int(in.Reg)+i] ^= mask[i]
		}
		return
	case to.dest[0] == 'E' && in.IsMem:
		if strings.HasSuffix(to.dest, "b") {
			size = 1
		}
		pa, ok := c.Translate(c.AddrW(in, size))
		b := make([]byte, size)
		if !ok || !c.RAM.ReadAt(b, pa) {
			return
		}
		b = xor(b, m8[:size])
		c.RAM.WriteAt(b, pa)
		var w [8]byte
		copy(w[:], b)
		v = binary.LittleEndian.Uint64(w[:])
	default:
		r := in.Reg
		switch {
		case to.dest[0] == 'E':
			r = in.RM
		case to.dest == "AL" || to.dest == "rAX":
			r = x86.RAX
		}
		if strings.HasSuffix(to.dest, "b") || to.dest == "AL" {
			size = 1
		}
		v = c.GetReg(r, size) ^ m
		c.SetReg(r, v, size)
	}
	switch to.class {
	case "add", "logic", "shift":
		if in.Op != x86.OpNOT {
			follow(c, v, size)
		}
	}
}

// follow makes ZF, SF and PF those of a result.
func follow(c *x86.CPU, v uint64, size int) {
	c.Materialise()
	c.RFLAGS &^= x86.FlagZF | x86.FlagSF | x86.FlagPF
	v &= 1<<(8*size-1)<<1 - 1
	if v == 0 {
		c.RFLAGS |= x86.FlagZF
	}
	if v>>(8*size-1) != 0 {
		c.RFLAGS |= x86.FlagSF
	}
	if bits.OnesCount8(uint8(v))%2 == 0 {
		c.RFLAGS |= x86.FlagPF
	}
}

// fetched flips bits of an instruction between memory and decoder.
func (d *Defects) fetched(id uint64, c *x86.CPU, la uint64, code []byte) {
	f := d.find(id)
	if f == nil || c.ID != f.CPU || !d.wouldStrike(f) {
		return
	}
	for i := range f.Mask {
		if at := f.Addr + uint64(i) - la; at < uint64(len(code)) {
			code[at] ^= f.Mask[i]
		}
	}
}

// decoded counts an instruction that was decoded with a wrong byte in it.
func (d *Defects) decoded(id uint64, c *x86.CPU, la uint64, in *x86.Inst) {
	f := d.find(id)
	if f == nil || c.ID != f.CPU || la >= f.Addr+uint64(len(f.Mask)) || f.Addr >= la+uint64(max(in.Len, 1)) {
		return
	}
	if d.strikes(f) {
		d.tell(f, c.InstRIP, "executed wrongly")
		d.spend(id)
	}
}

// wouldStrike is strikes before the occasion is certain. Nothing is drawn for it.
func (d *Defects) wouldStrike(f *Defect) bool {
	n := f.Occasions + 1
	return n > f.Skip && (f.Every <= 1 || (n-f.Skip)%f.Every == 0)
}

// interrupted decides whether an interrupt arrives: a vector at a processor's local APIC, or an input at the 8259s.
func (d *Defects) interrupted(cpu int, vector uint8, level, pic bool) bool {
	for i := range d.Defects {
		f := &d.Defects[i]
		if f.Kind != DefectInterrupt || f.PIC != pic || !pic && f.CPU != cpu || f.Vector != vector || !d.strikes(f) {
			continue
		}
		which := fmt.Sprintf("interrupt %d", vector)
		if pic {
			which = fmt.Sprintf("request of input %d", vector)
		}
		if f.DelayNs == 0 {
			d.tell(f, 0, "%s lost", which)
		} else {
			d.tell(f, 0, "%s late", which)
			d.Late = append(d.Late, late{DueNs: d.m.queue.Now() + f.DelayNs, CPU: cpu, Vector: vector, Level: level, PIC: pic})
		}
		d.spend(f.ID)
		d.arm()
		return false
	}
	return true
}

// maxSkewNs bounds how far virtual time can jump: 146 years.
const maxSkewNs = 1 << 62

// jump makes a clock jump.
func (m *Machine) jump(clock string, deltaNs uint64) error {
	switch clock {
	case ClockTSC:
		m.defects.TSCOffset += deltaNs
		for _, l := range m.lapics {
			l.TSCChanged()
		}
	case ClockTime:
		if int64(deltaNs) < 0 || m.core.SkewNs+deltaNs > maxSkewNs {
			return errBackwards
		}
		m.core.SkewNs += deltaNs
	default:
		return errClock(clock)
	}
	m.attend()
	return nil
}
