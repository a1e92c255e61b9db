package fpu

import (
	"refault/vmm/x86/fpu/softfloat"
)

// The x87 instructions (SDM Vol. 1 chapter 8, Vol. 2A for each). Exceptions are masked as the control word says: an
// unmasked one has all its effects but the trap.

// Offsets into the FXSAVE image (SDM Vol. 1 10.5.1).
const (
	fxFCW = 0
	fxFSW = 2
	fxFTW = 4
	fxST  = 32
)

// Bits of the status word (SDM Vol. 1 8.1.3).
const (
	fswSF      = 1 << 6
	fswC0      = 1 << 8
	fswC1      = 1 << 9
	fswC2      = 1 << 10
	fswC3      = 1 << 14
	fswCodes   = fswC0 | fswC2 | fswC3
	fswSummary = 1<<7 | 1<<15
)

// x87 is one instruction at work.
type x87 struct {
	c      *Context
	masked softfloat.Flags
	format softfloat.Format // of the results of arithmetic, by the precision control
	env    softfloat.Env
	codes  uint16 // the condition code and SF that were set
}

// run executes an instruction.
func (x *x87) run(c *Context, opcode, modrm byte) {
	fcw := le.Uint16(c.FX[fxFCW:])
	*x = x87{c: c, masked: softfloat.Flags(fcw & 0x3f)}
	x.env = softfloat.Env{Rounding: softfloat.Rounding(fcw >> 10 & 3), X87: true, Wrap: ^x.masked}
	x.format = softfloat.Extended
	switch fcw >> 8 & 3 {
	case 0:
		x.format = x.format.Limited(24)
	case 2:
		x.format = x.format.Limited(53)
	}
	keep := x.execute(opcode, modrm)
	if x.env.RoundedUp {
		x.codes |= fswC1
	}
	fsw := le.Uint16(c.FX[fxFSW:])
	fsw = fsw&^(fswC1|fswCodes) | fsw&keep | x.codes | uint16(x.env.Raised)
	if fsw&0x3f&^fcw != 0 {
		fsw |= fswSummary
	}
	le.PutUint16(c.FX[fxFSW:], fsw)
}

// What an instruction leaves of the condition code.
const (
	all   = fswCodes | fswC1
	butC1 = fswCodes // C1 is set anew
	none  = 0        // all of it is
)

// The register stack.

func (x *x87) top() int { return int(le.Uint16(x.c.FX[fxFSW:]) >> 11 & 7) }

func (x *x87) empty(i int) bool { return x.c.FX[fxFTW]>>((x.top()+i)&7)&1 == 0 }

func (x *x87) setTag(i int, full bool) {
	bit := byte(1) << ((x.top() + i) & 7)
	x.c.FX[fxFTW] &^= bit
	if full {
		x.c.FX[fxFTW] |= bit
	}
}

func (x *x87) bytes(i int) []byte { return x.c.FX[fxST+16*i : fxST+16*i+10] }

func unpackBytes(b []byte) softfloat.Num {
	return softfloat.UnpackExtended(le.Uint64(b), le.Uint16(b[8:]))
}

func packBytes(b []byte, n softfloat.Num) {
	sig, se := softfloat.PackExtended(n)
	le.PutUint64(b, sig)
	le.PutUint16(b[8:], se)
}

func (x *x87) st(i int) softfloat.Num { return unpackBytes(x.bytes(i)) }

// set stores a number that is rounded already.
func (x *x87) set(i int, n softfloat.Num) {
	packBytes(x.bytes(i), n)
	x.setTag(i, true)
}

// rotate changes the stack top by d and keeps what each physical register holds.
func (x *x87) rotate(d int) {
	var st [128]byte
	copy(st[:], x.c.FX[fxST:fxST+128])
	for i := range 8 {
		copy(x.c.FX[fxST+16*i:fxST+16*i+16], st[16*((i+d)&7):])
	}
	fsw := le.Uint16(x.c.FX[fxFSW:])
	le.PutUint16(x.c.FX[fxFSW:], fsw&^(7<<11)|uint16((x.top()+d)&7)<<11)
}

func (x *x87) pop() {
	x.setTag(0, false)
	x.rotate(1)
}

func (x *x87) popN(n int) {
	for range n {
		x.pop()
	}
}

// unmasked reports whether an exception was raised that is one of these and not masked.
func (x *x87) unmasked(f softfloat.Flags) bool { return x.env.Raised&f&^x.masked != 0 }

// stackFault raises an invalid operation: an empty register was read, or a full one would be pushed over. It
// reports whether that is masked.
func (x *x87) stackFault(overflow bool) bool {
	x.env.Raised |= softfloat.Invalid
	x.codes |= fswSF
	if overflow {
		x.codes |= fswC1
	}
	return !x.unmasked(softfloat.Invalid)
}

// push makes n, which is rounded, the new top, if there is room and no invalid operand in the way. (A denormal one is not.)
func (x *x87) push(n softfloat.Num) {
	if !x.empty(7) {
		if !x.stackFault(true) {
			return
		}
		n = softfloat.Indefinite
	}
	if x.unmasked(softfloat.Invalid) {
		return
	}
	x.rotate(-1)
	x.set(0, n)
}

// result rounds n into ST(i) and pops, unless an exception of an operand is in the way.
func (x *x87) result(i int, n softfloat.Num, f softfloat.Format, pops int) {
	if x.unmasked(softfloat.OfOperands) {
		return
	}
	x.set(i, x.env.Round(n, f))
	x.popN(pops)
}

// arithmetic works on ST(0) and b, by the digit of the opcode, into ST(i). Preconditions: no comparison.
func (x *x87) arithmetic(digit byte, b softfloat.Num, i, pops int) {
	a := x.st(0)
	var r softfloat.Num
	switch digit {
	case 0:
		r = x.env.Add(a, b)
	case 1:
		r = x.env.Mul(a, b)
	case 4:
		r = x.env.Sub(a, b)
	case 5:
		r = x.env.Sub(b, a)
	case 6:
		r = x.env.Div(a, b)
	case 7:
		r = x.env.Div(b, a)
	}
	x.result(i, r, x.format, pops)
}

// compare compares ST(0) and b, sets the condition code, and pops.
func (x *x87) compare(b softfloat.Num, signals bool, pops int) {
	x.codes |= x.order(x.env.Compare(x.st(0), b, signals))
	if !x.unmasked(softfloat.OfOperands) {
		x.popN(pops)
	}
}

func (*x87) order(o softfloat.Order) uint16 {
	return [...]uint16{softfloat.Less: fswC0, softfloat.Equal: fswC3, softfloat.Greater: 0, softfloat.Unordered: fswCodes}[o]
}

// binary executes an arithmetic instruction or a comparison of ST(0) and an operand: a register, or in memory.
func (x *x87) binary(digit byte, operand softfloat.Num, missing bool, i, pops int) (keep uint16) {
	comparison := digit == 2 || digit == 3
	if comparison {
		i = 0
		if digit == 3 {
			pops++
		}
	}
	switch {
	case missing || x.empty(0):
		masked := x.stackFault(false)
		if comparison {
			x.codes |= fswCodes
		}
		if masked {
			if !comparison {
				x.set(i, softfloat.Indefinite)
			}
			x.popN(pops)
		}
	case comparison:
		x.compare(operand, true, pops)
	default:
		x.arithmetic(digit, operand, i, pops)
	}
	if comparison {
		return none
	}
	return butC1
}

// memory returns the operand in memory of an opcode: D8, DA, DC and DE have one of their own each, D9, DB, DD and DF share them.
func (x *x87) memory(opcode byte) softfloat.Num {
	src := &x.c.Src
	switch opcode &^ 1 {
	case 0xd8:
		return softfloat.Single.Unpack(lane(src, 0, 4))
	case 0xdc:
		return softfloat.Double.Unpack(lane(src, 0, 8))
	case 0xda:
		return softfloat.Signed(signedLane(src, 0, 4))
	}
	return softfloat.Signed(signedLane(src, 0, 2))
}

// execute does all but the status word, and says what it leaves of the condition code.
func (x *x87) execute(opcode, modrm byte) (keep uint16) {
	digit := modrm >> 3 & 7
	if modrm < 0xc0 {
		if opcode&1 == 0 {
			return x.binary(digit, x.memory(opcode), false, 0, 0)
		}
		return x.move(opcode, digit)
	}
	i := int(modrm & 7)
	st := x.st(i)
	switch opcode {
	case 0xd8:
		return x.binary(digit, st, x.empty(i), 0, 0)
	case 0xdc:
		return x.binary(digit, st, x.empty(i), i, 0)
	case 0xde:
		if digit == 2 { // FCOMP5, an alias
			digit = 3
		} else if digit != 3 {
			return x.binary(digit, st, x.empty(i), i, 1)
		}
		pops := 0
		if modrm == 0xd9 { // FCOMPP
			pops = 1
		}
		return x.binary(digit, st, x.empty(i), 0, pops)
	case 0xd9:
		return x.executeD9(modrm)
	case 0xda, 0xdb:
		if modrm == 0xe9 && opcode == 0xda { // FUCOMPP
			return x.unordered(1, 2)
		}
		if digit >= 5 { // FUCOMI, FCOMI
			return x.compareFlags(i, digit == 6, 0)
		}
		return x.moveIf(i, digit, opcode == 0xdb)
	case 0xdd:
		switch digit {
		case 0: // FFREE
			x.setTag(i, false)
			return butC1
		case 1:
			return x.exchange(i)
		case 2, 3:
			return x.storeRegister(i, int(digit-2))
		}
		return x.unordered(i, int(digit-4)) // FUCOM, FUCOMP
	}
	// DF
	switch digit {
	case 0: // FFREEP
		x.setTag(i, false)
		x.pop()
		return butC1
	case 1:
		return x.exchange(i)
	case 2, 3:
		return x.storeRegister(i, 1)
	}
	return x.compareFlags(i, digit == 6, 1)
}

func (x *x87) executeD9(modrm byte) (keep uint16) {
	i := int(modrm & 7)
	switch {
	case modrm < 0xc8: // FLD
		if x.empty(i) {
			if x.stackFault(false) {
				x.rotate(-1)
				x.set(0, softfloat.Indefinite)
			}
			return butC1
		}
		var b [10]byte
		copy(b[:], x.bytes(i))
		x.pushBytes(b[:])
		return butC1
	case modrm < 0xd0:
		return x.exchange(i)
	case modrm == 0xd0: // FNOP
		return all
	case modrm >= 0xd8 && modrm < 0xe0: // FSTPNCE, an alias
		if !x.empty(0) {
			copy(x.bytes(i), x.bytes(0))
			x.setTag(i, true)
		}
		x.pop()
		return butC1
	case modrm >= 0xe8 && modrm <= 0xee:
		x.pushConstant(modrm)
		return butC1
	}
	switch modrm {
	case 0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff:
		return x.transcendental(modrm)
	case 0xe5:
		x.examine()
		return none
	case 0xf6: // FDECSTP
		x.rotate(-1)
		return butC1
	case 0xf7: // FINCSTP
		x.rotate(1)
		return butC1
	case 0xf4:
		x.extract()
		return butC1
	case 0xf5, 0xf8, 0xfd:
		if x.empty(0) || x.empty(1) {
			if x.stackFault(false) {
				x.set(0, softfloat.Indefinite)
			}
			if modrm != 0xfd {
				return butC1 &^ fswC2
			}
			return butC1
		}
		if modrm == 0xfd {
			x.result(0, x.env.Scale(x.st(0), x.st(1)), softfloat.Extended, 0)
			return butC1
		}
		return x.remainder(modrm == 0xf5)
	}
	if x.empty(0) {
		masked := x.stackFault(false)
		if modrm == 0xe4 {
			x.codes |= fswCodes
			return none
		}
		if masked {
			x.set(0, softfloat.Indefinite)
		}
		return butC1
	}
	switch modrm {
	case 0xe0: // FCHS
		x.bytes(0)[9] ^= 0x80
	case 0xe1: // FABS
		x.bytes(0)[9] &^= 0x80
	case 0xe4: // FTST
		x.compare(softfloat.Num{}, true, 0)
		return none
	case 0xfa: // FSQRT
		x.result(0, x.env.Sqrt(x.st(0)), x.format, 0)
	case 0xfc: // FRNDINT
		r := x.env.RoundInt(x.st(0), false)
		if x.unmasked(softfloat.OfOperands) {
			x.env.Raised &^= softfloat.Inexact
			x.env.RoundedUp = false
		} else {
			x.set(0, r)
		}
	}
	return butC1
}

// Moves.

// pushBytes pushes a number as it is.
func (x *x87) pushBytes(b []byte) {
	if !x.empty(7) {
		if x.stackFault(true) {
			x.rotate(-1)
			x.set(0, softfloat.Indefinite)
		}
		return
	}
	x.rotate(-1)
	copy(x.bytes(0), b)
	x.setTag(0, true)
}

// Constants to more bits than a number has (SDM Vol. 1 8.3.4).
var constants = map[byte]softfloat.Num{
	0xe8: softfloat.One,
	0xe9: {Class: softfloat.Normal, Exp: 1, Sig: 0xd49a784bcd1b8afe, Low: 0x492bf6ff4dafdb4d},  // log2 10
	0xea: {Class: softfloat.Normal, Exp: 0, Sig: 0xb8aa3b295c17f0bb, Low: 0xbe87fed0691d3e89},  // log2 e
	0xeb: {Class: softfloat.Normal, Exp: 1, Sig: 0xc90fdaa22168c234, Low: 0xc4c6628b80dc1cd1},  // pi
	0xec: {Class: softfloat.Normal, Exp: -2, Sig: 0x9a209a84fbcff798, Low: 0x8f8959ac0b7c9178}, // log10 2
	0xed: {Class: softfloat.Normal, Exp: -1, Sig: 0xb17217f7d1cf79ab, Low: 0xc9e3b39803f2f6af}, // ln 2
	0xee: {},
}

func (x *x87) pushConstant(modrm byte) {
	rounding := softfloat.Env{Rounding: x.env.Rounding}
	x.push(rounding.Round(constants[modrm], softfloat.Extended))
}

func (x *x87) exchange(i int) (keep uint16) {
	if x.empty(0) || x.empty(i) {
		if !x.stackFault(false) {
			return butC1
		}
		for _, k := range []int{0, i} {
			if x.empty(k) {
				x.set(k, softfloat.Indefinite)
			}
		}
	}
	var t [10]byte
	copy(t[:], x.bytes(0))
	copy(x.bytes(0), x.bytes(i))
	copy(x.bytes(i), t[:])
	return butC1
}

// storeRegister is FST and FSTP to a register.
func (x *x87) storeRegister(i, pops int) (keep uint16) {
	if x.empty(0) {
		if !x.stackFault(false) {
			return butC1
		}
		x.set(i, softfloat.Indefinite)
	} else {
		copy(x.bytes(i), x.bytes(0))
		x.setTag(i, true)
	}
	x.popN(pops)
	return butC1
}

// moveIf is FCMOVcc.
func (x *x87) moveIf(i int, condition byte, not bool) (keep uint16) {
	if x.empty(0) || x.empty(i) {
		if x.stackFault(false) {
			x.set(0, softfloat.Indefinite)
		}
		return butC1
	}
	mask := [4]uint16{flagCF, flagZF, flagCF | flagZF, flagPF}[condition&3]
	if (x.c.Flags>>8&mask != 0) != not {
		copy(x.bytes(0), x.bytes(i))
	}
	return all
}

// move executes a load or a store: D9, DB, DD, DF.
func (x *x87) move(opcode, digit byte) (keep uint16) {
	c := x.c
	switch {
	case digit == 0 && (opcode == 0xd9 || opcode == 0xdd): // FLD m32, m64
		if !x.empty(7) {
			x.push(softfloat.Indefinite)
			break
		}
		from := softfloat.Single
		v := lane(&c.Src, 0, 4)
		if opcode == 0xdd {
			from, v = softfloat.Double, lane(&c.Src, 0, 8)
		}
		x.push(x.env.Round(x.env.Quieted(from.Unpack(v)), softfloat.Extended))
	case digit == 0: // FILD m32, m16
		w := 4
		if opcode == 0xdf {
			w = 2
		}
		x.push(softfloat.Signed(signedLane(&c.Src, 0, w)))
	case opcode == 0xdf && digit == 5: // FILD m64
		x.push(softfloat.Signed(signedLane(&c.Src, 0, 8)))
	case opcode == 0xdf && digit == 4: // FBLD
		x.push(fromDecimal(c.Src[:10]))
	case opcode == 0xdb && digit == 5: // FLD m80
		x.pushBytes(c.Src[:10])
	case opcode == 0xdb && digit == 7: // FSTP m80
		if x.empty(0) {
			if !x.stackFault(false) {
				return butC1
			}
			packBytes(c.Src[:], softfloat.Indefinite)
		} else {
			copy(c.Src[:10], x.bytes(0))
		}
		x.pop()
	case opcode == 0xdf && digit == 6:
		x.storeDecimal()
	case opcode == 0xd9:
		x.storeFloat(softfloat.Single, 4, int(digit-2))
	case opcode == 0xdd && digit != 1:
		x.storeFloat(softfloat.Double, 8, int(digit-2))
	case opcode == 0xdf && digit == 7: // FISTP m64
		x.storeInteger(8, 1, false)
	case opcode == 0xdd: // FISTTP m64
		x.storeInteger(8, 1, true)
	case opcode == 0xdb:
		x.storeInteger(4, min(1, int(digit&^2)+int(digit&1)), digit == 1)
	default:
		x.storeInteger(2, min(1, int(digit&1)), digit == 1)
	}
	return butC1
}

func (x *x87) storeFloat(f softfloat.Format, w, pops int) {
	r := softfloat.Indefinite
	if x.empty(0) {
		if !x.stackFault(false) {
			return
		}
	} else {
		r = x.env.Quieted(x.st(0))
		x.env.Raised &^= softfloat.DenormalOperand
		if x.unmasked(softfloat.OfOperands) {
			return
		}
		r = x.env.Round(r, f)
		if x.unmasked(softfloat.Overflow | softfloat.Underflow) {
			x.env.Raised &^= softfloat.Inexact
			x.env.RoundedUp = false
			return
		}
	}
	setLane(&x.c.Src, 0, w, f.Pack(r))
	x.popN(pops)
}

func (x *x87) storeInteger(w, pops int, truncate bool) {
	if truncate {
		x.env.Rounding = softfloat.TowardZero
	}
	v, ok := int64(0), false
	if x.empty(0) {
		x.stackFault(false)
	} else {
		v, ok = x.env.ToInt(x.st(0), 8*w)
	}
	if x.unmasked(softfloat.Invalid) {
		return
	}
	if !ok {
		v = -1 << (8*w - 1)
	}
	setLane(&x.c.Src, 0, w, uint64(v))
	x.popN(pops)
}

// fromDecimal returns a packed decimal number. What digits above nine are worth is undefined: here, what they are in
// binary.
func fromDecimal(b []byte) softfloat.Num {
	var v uint64
	for i := 8; i >= 0; i-- {
		v = v*100 + uint64(b[i]>>4)*10 + uint64(b[i]&15)
	}
	return softfloat.Integer(v, b[9]>>7 != 0)
}

// storeDecimal is FBSTP: 18 digits, two in a byte, and a sign (SDM Vol. 1 4.7).
func (x *x87) storeDecimal() {
	const most = 1e18 - 1
	v, ok := int64(0), false
	neg := false
	if x.empty(0) {
		x.stackFault(false)
	} else {
		n := x.st(0)
		neg = n.Neg
		if v, ok = x.env.ToInt(n, 64); ok && (v > most || v < -most) {
			x.env.Raised = softfloat.Invalid
			x.env.RoundedUp = false
			ok = false
		}
	}
	if x.unmasked(softfloat.Invalid) {
		return
	}
	src := &x.c.Src
	if !ok {
		clear(src[:7])
		src[7], src[8], src[9] = 0xc0, 0xff, 0xff
		x.pop()
		return
	}
	v = max(v, -v)
	for i := range 9 {
		src[i] = byte(v%10 | v/10%10<<4)
		v /= 100
	}
	src[9] = 0
	if neg {
		src[9] = 0x80
	}
	x.pop()
}

// Comparisons.

func (x *x87) unordered(i, pops int) (keep uint16) {
	if x.empty(0) || x.empty(i) {
		x.codes |= fswCodes
		if x.stackFault(false) {
			x.popN(pops)
		}
		return none
	}
	x.compare(x.st(i), false, pops)
	return none
}

// compareFlags is FCOMI and its relatives.
func (x *x87) compareFlags(i int, signals bool, pops int) (keep uint16) {
	o := softfloat.Unordered
	keep = all
	if x.empty(0) || x.empty(i) {
		x.stackFault(false)
		keep = butC1
	} else {
		o = x.env.Compare(x.st(0), x.st(i), signals)
	}
	x.c.setFlags(orderFlags(o), false)
	if !x.unmasked(softfloat.OfOperands) {
		x.popN(pops)
	}
	return keep
}

// examine is FXAM.
func (x *x87) examine() {
	n := x.st(0)
	x.codes = [...]uint16{
		softfloat.Zero: fswC3, softfloat.Denormal: fswC3 | fswC2, softfloat.Normal: fswC2, softfloat.Infinite: fswC2 | fswC0,
		softfloat.Quiet: fswC0, softfloat.Signaling: fswC0, softfloat.Unsupported: 0,
	}[n.Class]
	if x.empty(0) {
		x.codes = fswC3 | fswC0
	}
	if n.Neg {
		x.codes |= fswC1
	}
}

// extract is FXTRACT: the exponent into ST(0), and the significand pushed.
func (x *x87) extract() {
	if x.empty(0) || !x.empty(7) {
		if x.stackFault(!x.empty(0)) {
			x.set(0, softfloat.Indefinite)
			x.rotate(-1)
			x.set(0, softfloat.Indefinite)
		}
		return
	}
	exp, sig := x.env.Extract(x.st(0))
	if x.unmasked(softfloat.OfOperands) {
		return
	}
	x.set(0, exp)
	x.rotate(-1)
	x.set(0, sig)
}

// remainder is FPREM and FPREM1.
func (x *x87) remainder(nearest bool) (keep uint16) {
	r, quotient, partial := x.env.Remainder(x.st(0), x.st(1), nearest)
	if x.unmasked(softfloat.OfOperands) {
		return butC1 &^ fswC2
	}
	x.result(0, r, softfloat.Extended, 0)
	x.env.RoundedUp = false
	if x.env.Raised&softfloat.Invalid != 0 || r.NaN() {
		return butC1 &^ fswC2
	}
	if partial {
		x.codes |= fswC2
	}
	for i, code := range []uint16{fswC1, fswC3, fswC0} {
		if quotient>>i&1 != 0 {
			x.codes |= code
		}
	}
	return none
}
