//go:build linux && amd64

package jit

import "refault/vmm/x86"

// flagClass says how the flags that an instruction of the host left become the
// guest's: which of them are right already, and what to do about the others.
type flagClass uint8

const (
	flagsAll    flagClass = iota // all right
	flagsMul                     // CF and OF; the others are cleared
	flagsShift1                  // all but AF, which is cleared
	flagsShiftN                  // all but AF and OF, which are cleared
	flagsRotN                    // all but OF, which is cleared
	flagsScan                    // ZF; the others are cleared
	flagsOrder                   // ZF, PF and CF; the others are cleared
)

const (
	fCF = 1 << iota
	fPF
	fAF
	fZF
	fSF
	fOF
	fAll = 1<<iota - 1
)

var classExact = [...]uint8{flagsAll: fAll, flagsMul: fCF | fOF, flagsShift1: fAll &^ fAF, flagsShiftN: fAll &^ (fAF | fOF), flagsRotN: fAll &^ fOF, flagsScan: fZF, flagsOrder: fZF | fPF | fCF}

// condFlags are the flags that each pair of condition codes reads.
var condFlags = [8]uint8{fOF, fCF, fZF, fCF | fZF, fSF, fPF, fSF | fOF, fSF | fOF | fZF}

// flagState says where the guest's arithmetic flags are: in the host's register, in
// memory, in both; or nowhere, but to be had again by translator.again, from
// registers that have not changed since. In none of these only while they are dead.
type flagState struct {
	host, mem, again bool
	class            flagClass
}

// againKind says how flags are computed once more.
type againKind uint8

const (
	againCmp  againKind = iota // cmp a, b
	againTest                  // test a, b: also after an operation whose result a is, when all that counts is the result
	againAdd                   // a is the sum of something and b
	againSub                   // a is the difference of something and b
	againMul                   // the product of what was kept and b
	againShl                   // what was kept, shifted by imm
	againShr
	againSar
)

// again is what makes the flags of an instruction once more, from registers a and b of the guest, or a and
// imm. What does not leave what it works on is kept in the scratch area before (keepSource).
type again struct {
	kind againKind
	size int
	a, b uint8 // b is x86.RegZero for an immediate
	imm  int32
	regs uint16 // that it needs
}

// saveFlags makes the guest's flags valid in memory.
func (t *translator) saveFlags() {
	if t.fl.mem {
		return
	}
	t.compute()
	if !t.fl.host {
		panic("BUG: dead flags are needed")
	}
	a := &t.a
	seto := func() { a.bytes(0x0f, 0x90, 0xc0) } // seto al
	const lahf = 0x9f
	only := func(flags, of byte) { // and eax, …
		a.bytes(0x25, of, flags, 0, 0)
	}
	keeps, stored := false, false
	switch t.fl.class {
	case flagsAll:
		a.bytes(lahf)
		seto()
		keeps = true
	case flagsMul:
		a.extm(ins{op: 0x0f90, size: 1}, 0, at(hRSP, offFlags))   // seto
		a.extm(ins{op: 0x0f92, size: 1}, 0, at(hRSP, offFlags+1)) // setc
		keeps, stored = true, true
	case flagsShift1:
		a.bytes(lahf)
		seto()
		only(0xff&^x86.FlagAF, 1)
	case flagsShiftN:
		a.bytes(lahf)
		only(0xff&^x86.FlagAF, 0)
	case flagsRotN:
		a.bytes(lahf, 0xb0, 0) // mov al, 0
		keeps = true
	case flagsScan:
		a.bytes(lahf)
		only(x86.FlagZF, 0)
	case flagsOrder:
		a.bytes(lahf)
		only(x86.FlagZF|x86.FlagPF|x86.FlagCF, 0)
	}
	if !stored {
		a.rm(ins{op: 0x89, size: 2}, hRAX, at(hRSP, offFlags))
	}
	t.fl.mem = true
	t.fl.host = t.fl.host && keeps
}

// compute makes the flags once more where they are nowhere. It may use RAX.
func (t *translator) compute() {
	if t.fl.host || t.fl.mem || !t.fl.again {
		return
	}
	a, d := &t.a, &t.re
	in := func(g uint8) int { // a register that has g
		if hostOf[g] != hNone {
			return hostOf[g]
		}
		a.load(hRAX, home(g))
		return hRAX
	}
	with := func(i ins, r int) { // an instruction of r and b
		if h := hostOf[d.b]; h != hNone {
			a.rr(i, r, h)
		} else {
			a.rm(i, r, home(d.b))
		}
	}
	op := func(n, r int) {
		if d.b == x86.RegZero {
			a.aluImm(n, d.size, r, d.imm)
		} else {
			with(ins{op: uint32(n)<<3 | 2 | wide(d.size), size: d.size}, r)
		}
	}
	t.fl.host, t.fl.class = true, flagsAll
	switch d.kind {
	case againCmp:
		op(7, in(d.a))
	case againTest:
		r, i := in(d.a), ins{op: 0x84 | wide(d.size), size: d.size}
		switch d.b {
		case x86.RegZero:
			a.ext(ins{op: 0xf6 | wide(d.size), size: d.size}, 0, r)
			a.imm(d.imm, d.size)
		case d.a:
			a.rr(i, r, r)
		default:
			with(i, r)
		}
	case againAdd:
		a.mov(hRAX, in(d.a))
		op(5, hRAX)
		op(0, hRAX)
	case againSub:
		a.mov(hRAX, in(d.a))
		op(0, hRAX)
		op(5, hRAX)
	case againMul:
		i := ins{op: 0x0faf, size: d.size}
		a.load(hRAX, t.e.scratchAt(sSource))
		if d.b == d.a {
			a.rr(i, hRAX, hRAX)
		} else {
			with(i, hRAX)
		}
		t.fl.class = flagsMul
	default:
		a.load(hRAX, t.e.scratchAt(sSource))
		a.ext(ins{op: 0xc1, size: d.size}, map[againKind]int{againShl: 4, againShr: 5, againSar: 7}[d.kind], hRAX)
		a.bytes(byte(d.imm))
		if t.fl.class = flagsShiftN; d.imm == 1 {
			t.fl.class = flagsShift1
		}
	}
}

// remember notes how the flags that were just written can be had once more: from
// registers a and b of the guest, or from a and an immediate.
func (t *translator) remember(kind againKind, size int, a uint8, b uint8, immediate bool, imm int32) {
	if (a|b)&x86.HighByte != 0 {
		return
	}
	t.re = again{kind: kind, size: size, a: a, b: x86.RegZero, imm: imm, regs: 1 << a}
	if !immediate {
		t.re.b = b
		t.re.regs |= 1 << b
	}
	t.fl.again = true
}

// keepSource keeps the value in host register r, which the instruction in work is about to change, where nothing
// but exits in the rest of the block may want to know the flags that it makes of it. It reports whether it did.
func (t *translator) keepSource(r int) bool {
	if overwritten, exits := t.fate(t.i); !overwritten || exits != likely {
		return false
	}
	t.a.store(t.e.scratchAt(sSource), r)
	t.e.Stats.Sources++
	return true
}

// rememberSource notes how flags that were just written can be had once more from what keepSource kept: by
// register b, or where that is a by what was kept itself, or by an immediate.
func (t *translator) rememberSource(kind againKind, size int, a, b uint8, imm int32) {
	t.re = again{kind: kind, size: size, a: a, b: b, imm: imm}
	if b != x86.RegZero && b != a {
		t.re.regs = 1 << b
	}
	t.fl.again = true
}

// keepFlags looks at the next instruction: where it changes a register that the
// flags would be computed from, they are saved, unless it writes or nobody wants them.
func (t *translator) keepFlags() {
	if !t.fl.again || t.fl.mem || regsWritten(t.in)&t.re.regs == 0 || writesFlags(t.in) {
		return
	}
	if t.dead(t.i) {
		t.forgetAfter = true // they are good for the instruction's own exit
		return
	}
	if t.fl.host {
		t.fl.again = false // the exit, if there is one, saves them from there
		return
	}
	t.saveFlags()
	t.fl.again = false
}

// writesFlags reports whether an instruction writes all flags, and not before it has done what could fail.
func writesFlags(in *guestInst) bool {
	switch in.Op {
	case x86.OpADD, x86.OpOR, x86.OpADC, x86.OpSBB, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpCMP, x86.OpTEST, x86.OpNEG,
		x86.OpIMUL2, x86.OpIMUL3, x86.OpMUL, x86.OpIMUL1:
		return true
	}
	return false
}

// reload loads the host's flags from memory.
func (t *translator) reload() {
	t.a.rm(ins{op: 0x0fb7, size: 4}, hRAX, at(hRSP, offFlags)) // movzx eax, word
	t.a.bytes(0x04, 0x7f, 0x9e)                                // add al, 127; sahf
}

// hostFlags makes the given flags right in the host's register.
func (t *translator) hostFlags(mask uint8) {
	t.compute()
	if t.fl.host && classExact[t.fl.class]&mask == mask {
		return
	}
	t.saveFlags()
	t.reload()
	t.fl = flagState{host: true, mem: true}
}

// hostCF makes CF right in the host's register, and may leave garbage in the others.
func (t *translator) hostCF() {
	t.compute()
	if t.fl.host && classExact[t.fl.class]&fCF != 0 {
		return
	}
	t.saveFlags()
	t.a.extm(ins{op: 0x0fba, size: 4}, 4, at(hRSP, offFlags)) // bt
	t.a.bytes(8)
	t.fl.host = false
}

// cond makes a condition of the guest one of the host, and returns it.
func (t *translator) cond(cc byte) byte {
	t.compute()
	if t.fl.host && classExact[t.fl.class]&condFlags[cc>>1&7] == condFlags[cc>>1&7] {
		return cc
	}
	t.saveFlags()
	f, neg := offFlags+1, cc&1
	test := func(m memop, bits byte) byte {
		t.a.extm(ins{op: 0xf6, size: 1}, 0, m)
		t.a.bytes(bits)
		t.fl.host = false
		return ccNE ^ neg
	}
	switch cc >> 1 & 7 {
	case 0:
		return test(at(hRSP, offFlags), 1)
	case 1:
		return test(at(hRSP, f), x86.FlagCF)
	case 2:
		return test(at(hRSP, f), x86.FlagZF)
	case 3:
		return test(at(hRSP, f), x86.FlagCF|x86.FlagZF)
	case 4:
		return test(at(hRSP, f), x86.FlagSF)
	case 5:
		return test(at(hRSP, f), x86.FlagPF)
	}
	t.hostFlags(condFlags[cc>>1&7])
	return cc
}

// wrote notes that the last instruction set all of the guest's flags in the host's register.
func (t *translator) wrote(class flagClass) { t.fl = flagState{host: true, class: class} }

// clobbered notes that the host's flags are gone. Preconditions: they are saved, or dead.
func (t *translator) clobbered() { t.fl.host = false }

// dead reports whether all flags are overwritten before anything could see them
// after instruction i: no reader, no instruction that may leave.
func (t *translator) dead(i int) bool {
	overwritten, exits := t.fate(i)
	return overwritten && exits == none
}

// chance says whether something has exits.
type chance uint8

const (
	none   chance = iota
	hardly        // its accesses have windows, but not wide enough
	likely
)

// fate reports whether all flags are overwritten after instruction i, without a reader before but those that
// an exit leads to, and whether there are such exits.
func (t *translator) fate(i int) (overwritten bool, exits chance) {
	for i++; i < len(t.insts) && i < t.i+10; i++ {
		in := &t.insts[i]
		if in.accesses() {
			exits = max(exits, t.exits(i))
		}
		switch in.Op {
		case x86.OpADD, x86.OpOR, x86.OpAND, x86.OpSUB, x86.OpXOR, x86.OpCMP, x86.OpTEST, x86.OpNEG:
			return true, exits
		case x86.OpPOPCNT, x86.OpMUL, x86.OpIMUL1, x86.OpIMUL2, x86.OpIMUL3:
			return in.OpSize >= 4, exits
		case x86.OpMOV, x86.OpNOT, x86.OpNOP:
		case x86.OpJMP:
			if !in.follow {
				return false, exits
			}
		case x86.OpROL, x86.OpROR: // they leave most flags as they are; some the interpreter has to execute
			count := in.Imm & 31
			if in.OpSize < 4 || in.IsMem || x86.FormOperands(in.Form)[1].Kind != 'I' || count == 0 {
				return false, exits
			}
		case x86.OpPUSH, x86.OpPOP:
			exits = max(exits, t.exits(i))
		case x86.OpMOVZX8, x86.OpMOVZX16, x86.OpMOVSX8, x86.OpMOVSX16, x86.OpMOVSXD, x86.OpBSWAP, x86.OpCWD:
			if in.OpSize < 4 {
				return false, exits
			}
		case x86.OpLEA:
			if in.OpSize < 4 || in.AddrSize != 8 {
				return false, exits
			}
		default:
			return false, exits
		}
	}
	return false, exits
}

// exits says whether the accesses of instruction i, which is still to come, have exits.
func (t *translator) exits(i int) chance {
	in := &t.insts[i]
	if t.loop != nil && t.loop.of[i] != noStream {
		return none
	}
	r := in.mem
	if !in.IsMem {
		r = in.stack
	}
	if r == noRef || t.refs[r].size == 0 || in.IsMem && in.stack != noRef {
		return likely
	}
	if t.windowFor(&t.refs[r], t.refs[r].size, t.refs[r].write) != noWindow {
		return none
	}
	for k := range t.windows {
		if w := &t.windows[k]; w.on && w.key == t.refs[r].key {
			return hardly
		}
	}
	return likely
}
