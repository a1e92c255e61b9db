//go:build linux && amd64

package jit

import (
	"encoding/binary"

	"refault/vmm/x86"
)

// The x87 unit, and the MMX registers, which are its own. Its registers are the guest's once
// an instruction of the run needed them, like the vector registers; a byte in the frame says
// so. Loading them is FXRSTOR of the State's image, storing them FXSAVE and FNINIT, which leaves
// the unit as Go expects it.
//
// # Why does no exception of the host's unit ever come?
//
// The registers are loaded only while the guest masks all exceptions, and an FLDCW that unmasks one
// is left to the interpreter; so none can become pending, FSW.ES stays clear, and FDP, which
// only an unmasked exception sets, stays what it is.
//
// # Where do FIP and FOP come from?
//
// Those of the host's unit are of no use. Each instruction that sets them notes a number, unless the
// next one is sure to, and when generated code was left the number becomes an address and an opcode.

// x87Area is the part of the tables that is about the x87 unit.
type x87Area struct {
	image [512]byte // what FXSAVE stores, on the way to the State
	ok    uint32    // x87 and MMX instructions raise nothing by themselves
}

const x87AreaOK = 512

// x87Inst is what an instruction sets FIP and FOP to.
type x87Inst struct {
	rip uint64
	fop uint16
}

// Offsets into the image of FXSAVE64.
const (
	fxFCW = 0
	fxFSW = 2
	fxFTW = 4
	fxFOP = 6
	fxFIP = 8
	fxCSR = 24
	fxST  = 32
	fxXMM = 160

	fcwMasks = 0x3f
)

// x87OK reports whether x87 and MMX instructions raise nothing by themselves, and have no effect but on the unit.
func (e *Engine) x87OK() bool {
	c := e.c
	fcw, fsw := binary.LittleEndian.Uint16(c.FX[fxFCW:]), binary.LittleEndian.Uint16(c.FX[fxFSW:])
	return c.CR0&(x86.CR0EM|x86.CR0TS) == 0 && fcw&fcwMasks == fcwMasks && fsw&0x80 == 0 && !c.IGNNE
}

// setPointers makes FIP and FOP those of the instruction with a number.
func (e *Engine) setPointers(id uint32) {
	in := &e.x87Insts[id-1]
	binary.LittleEndian.PutUint16(e.c.FX[fxFOP:], in.fop)
	binary.LittleEndian.PutUint64(e.c.FX[fxFIP:], in.rip)
}

// x87At is a field of the x87 unit's area.
func (e *Engine) x87At(field int32) memop {
	return at(hRSP, int32(e.layout.Engine)-bias+offX87Area+field)
}

// emitLoadX87 emits the common code that loads the x87 unit, like the one for the vector registers.
func (e *Engine) emitLoadX87(a *asm, refused *label) {
	e.loadX87 = len(a.b)
	a.aluImmMem(7, 4, e.x87At(x87AreaOK), 0)
	a.jcc(ccE, refused)
	// The image has the vector registers and MXCSR too.
	load := newLabel()
	a.aluImmMem(7, 1, at(hRSP, offXMM), 0)
	a.jcc(ccE, load)
	storeVectors(a)
	a.bind(load)
	a.extm(ins{op: 0x0fae, size: 8}, 1, at(hRSP, offFX)) // fxrstor64
	a.storeImm8(at(hRSP, offX87), 1)
	a.bytes(0x41, 0xff, 0xe3) // jmp r11
}

// emitStoreX87 emits what stores the x87 unit if it is loaded. It uses RAX and XMM0.
func (e *Engine) emitStoreX87(a *asm) {
	done := newLabel()
	a.aluImmMem(7, 1, at(hRSP, offX87), 0)
	a.jcc(ccE, done)
	a.extm(ins{op: 0x0fae, size: 8}, 0, e.x87At(0)) // fxsave64
	a.bytes(0xdb, 0xe3)                             // fninit
	a.rm(ins{op: 0x0fb7, size: 4}, hRAX, e.x87At(fxFSW))
	a.rm(ins{op: 0x89, size: 2}, hRAX, at(hRSP, offFX+fxFSW))
	a.rm(ins{op: 0x0fb6, size: 4}, hRAX, e.x87At(fxFTW))
	a.rm(ins{op: 0x88, size: 1}, hRAX, at(hRSP, offFX+fxFTW))
	for st := int32(fxST); st < fxXMM; st += 16 {
		a.rm(ins{op: 0x0f10, size: 4}, 0, e.x87At(st)) // movups
		a.rm(ins{op: 0x0f11, size: 4}, 0, at(hRSP, offFX+st))
	}
	a.bind(done)
}

// storeVectors emits what stores the vector registers and MXCSR.
func storeVectors(a *asm) {
	for i := range 16 {
		a.rm(ins{op: 0x0f11, size: 4}, i, at(hRSP, offFX+fxXMM+16*int32(i))) // movups
	}
	a.extm(ins{op: 0x0fae, size: 4}, 3, at(hRSP, offFX+fxCSR)) // stmxcsr
}

// emitX87 translates x87 instructions: most stay what they are.
func (t *translator) emitX87() bool {
	a, in := &t.a, t.in
	size, store, _ := x87Access(&in.Inst)
	operand := func() (memop, bool) { return t.guest(in, size, store, false) }
	if in.IsMem && !simpleAddress(in) {
		return false
	}
	switch in.Op {
	case x86.OpX87, x86.OpX87Store, x86.OpX87Flags:
		if in.Opcode == 0xdf && in.IsMem && in.ModRM>>3&7 == 4 { // FBLD, which the interpreter computes
			return false
		}
		t.needX87()
		if remainder(&in.Inst) {
			t.needOneStep()
		}
		if in.IsMem {
			m, ok := operand()
			if !ok {
				return false
			}
			t.noteX87()
			a.extm(ins{op: uint32(in.Opcode), size: 4}, int(in.ModRM>>3&7), m)
			return true
		}
		moves := in.Op == x86.OpX87Flags && in.ModRM < 0xe0 // FCMOVcc
		if moves {
			t.hostFlags([4]uint8{fCF, fZF, fCF | fZF, fPF}[in.ModRM>>3&3])
		}
		t.noteX87()
		a.bytes(in.Opcode, in.ModRM)
		if in.Op == x86.OpX87Flags && !moves {
			t.wrote(flagsOrder)
		}
	case x86.OpFLDCW:
		t.needX87()
		t.saveFlags()
		m, ok := operand()
		if !ok {
			return false
		}
		slow := t.slowExit()
		a.rm(ins{op: 0x0fb7, size: 4}, hRAX, m)
		a.mov32(hR10, hRAX)
		a.ext(ins{op: 0xf7, size: 4}, 2, hR10) // not
		a.ext(ins{op: 0xf7, size: 4}, 0, hR10) // test
		a.imm32(fcwMasks)
		a.jcc(ccNE, slow)
		a.aluImm(4, 4, hRAX, 0x1f3f)
		a.aluImm(1, 4, hRAX, 0x40)
		a.rm(ins{op: 0x89, size: 2}, hRAX, at(hRSP, offFX+fxFCW))
		a.extm(ins{op: 0xd9, size: 4}, 5, at(hRSP, offFX+fxFCW))
		t.clobbered()
	case x86.OpFNSTCW: // the State's is always valid
		if !t.x87 {
			t.saveFlags()
			slow := t.slowExit()
			a.aluImmMem(7, 4, t.e.x87At(x87AreaOK), 0)
			a.jcc(ccE, slow)
			t.clobbered()
		}
		m, ok := operand()
		if !ok {
			return false
		}
		a.rm(ins{op: 0x0fb7, size: 4}, hRAX, at(hRSP, offFX+fxFCW))
		a.rm(ins{op: 0x89, size: 2}, hRAX, m)
	case x86.OpFNSTSW:
		t.needX87()
		if in.IsMem {
			m, ok := operand()
			if !ok {
				return false
			}
			a.extm(ins{op: 0xdd, size: 4}, 7, m)
			return true
		}
		a.bytes(0xdf, 0xe0)
		r, w := t.dst(x86.RAX, 2, hR10)
		a.rr(ins{op: 0x8b, size: 2}, r, hRAX)
		t.bring(w)
	case x86.OpFWAIT:
		t.needX87()
	case x86.OpEMMS:
		t.needX87()
		a.bytes(0x0f, 0x77)
	default:
		return false
	}
	return true
}

// remainder reports whether an instruction is FPREM or FPREM1.
func remainder(in *x86.Inst) bool {
	return in.Opcode == 0xd9 && (in.ModRM == 0xf5 || in.ModRM == 0xf8)
}

// needOneStep leaves a remainder to the interpreter unless it is computed in one step: the exponents differ by
// less than 64. How far a step gets otherwise, processors decide differently.
func (t *translator) needOneStep() {
	a := &t.a
	t.saveFlags()
	slow := t.slowExit()
	a.extm(ins{op: 0x0fae, size: 8}, 0, t.e.x87At(0)) // fxsave64
	exponent := func(r int, st int32) {
		a.rm(ins{op: 0x0fb7, size: 4}, r, t.e.x87At(fxST+16*st+8))
		a.aluImm(4, 4, r, 0x7fff)
	}
	exponent(hRAX, 0)
	exponent(hR10, 1)
	a.jcc(ccE, slow) // denormal: less than it seems
	a.rr(ins{op: 0x2b, size: 4}, hRAX, hR10)
	a.aluImm(7, 4, hRAX, 64)
	a.jcc(ccGE, slow)
	t.clobbered()
}

// noteX87 notes that the instruction in work sets FIP and FOP, unless the next one is sure to.
func (t *translator) noteX87() {
	if t.i+1 < len(t.insts) {
		if in := &t.insts[t.i+1].Inst; !in.IsMem && (in.Op == x86.OpX87 || in.Op == x86.OpX87Flags) && !remainder(in) {
			return
		}
	}
	e, in := t.e, t.in
	e.x87Insts = append(e.x87Insts, x87Inst{t.next - uint64(in.Len), uint16(in.Opcode&7)<<8 | uint16(in.ModRM)})
	t.a.storeImm32(at(hRSP, offX87ID), int32(len(e.x87Insts)))
}

// x87Access returns the size of an x87 instruction's memory operand and whether it is written.
// ok is false for other instructions, and for those that access more than an operand.
func x87Access(in *x86.Inst) (size int, write, ok bool) {
	switch in.Op {
	case x86.OpX87, x86.OpX87Store, x86.OpFLDCW, x86.OpFNSTCW, x86.OpFNSTSW:
	default:
		return 0, false, false
	}
	if !in.IsMem {
		return 0, false, false
	}
	size = 10
	if o := x86.FormOperands(in.Form)[0]; o.Size != 't' {
		size = in.VectorSize(o)
	}
	return size, in.Op == x86.OpX87Store || in.Op == x86.OpFNSTCW || in.Op == x86.OpFNSTSW, true
}
