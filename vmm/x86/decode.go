package x86

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// DecodeStatus says how decoding ended.
type DecodeStatus uint8

const (
	// DecodeOK: the instruction is whole.
	DecodeOK DecodeStatus = iota
	// DecodeMore: it goes on beyond the bytes given.
	DecodeMore
	// DecodeUD: the bytes are no instruction: #UD.
	DecodeUD
	// DecodeTooLong: more than 15 bytes: #GP(0).
	DecodeTooLong
)

// maxInstLen is the longest instruction (SDM Vol. 2A 2.3.11).
const maxInstLen = 15

// Operand is one operand of a form, in the notation of SDM Vol. 2D appendix A.2.
type Operand struct {
	Kind byte // 'E', 'G', 'I', …; 'Z' register in the opcode; 'a' accumulator; 'c' CL; 'x' DX; '1'; 't' ST0; 'i' STi; 'r' a segment register by name
	Size byte // 'b', 'w', 'd', 'q', 'v', 'z', 'y', 'p', 's', 'x', …; zero without one
	Sext bool // an immediate byte that is sign-extended
	Fix  uint8
}

type row struct {
	*Form
	index    uint16
	prefix   byte // mandatory: 0 for none, 'N' for NP, 0x66, 0xf2, 0xf3
	opMap    uint8
	modrm    bool
	digit    int8 // -1 without
	exact    int16
	mod      byte // 0, 'm', 'r'
	operands []Operand
	mnemonic string
}

// dispatch holds the rows by opcode map (one byte, 0F, 0F 38, 0F 3A) and opcode.
type dispatch [4][256][]*row

var (
	allForms = concat(formsInteger, formsSystem, formsVector, formsX87)
	rows     = make([]row, len(allForms))
	table    = buildDispatch()
)

// Forms is the opcode table. Inst.Form indexes it.
func Forms() []Form { return allForms }

// FormOperands returns the operands of the form with an index.
func FormOperands(i uint16) []Operand { return rows[i].operands }

// OpcodeMap returns the opcode map of the form with an index: 0 for one byte, 1 for 0F, 2 for 0F 38, 3 for 0F 3A.
func OpcodeMap(i uint16) int { return int(rows[i].opMap) }

func concat(lists ...[]Form) (all []Form) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func buildDispatch() *dispatch {
	t := new(dispatch)
	for i := range allForms {
		r := &rows[i]
		*r = parseRow(&allForms[i], uint16(i))
		m, op, plus := r.opcode()
		r.opMap = uint8(m)
		for k := range plus {
			t[m][op+k] = append(t[m][op+k], r)
		}
	}
	return t
}

// opcode returns the map, the last opcode byte and how many opcodes the row takes.
func (r *row) opcode() (m int, op int, n int) {
	n = 1
	for _, tok := range strings.Fields(r.Enc) {
		switch {
		case tok == "NP" || strings.HasPrefix(tok, "/") || strings.HasPrefix(tok, "="):
			continue
		case tok == "+r":
			n = 8
			continue
		}
		v, err := strconv.ParseUint(tok, 16, 8)
		if err != nil {
			panic("BUG: encoding " + r.Enc)
		}
		switch {
		case m == 0 && op == 0 && v == 0x0f:
			m = 1
		case m == 1 && op == 0 && v == 0x38 && r.long():
			m = 2
		case m == 1 && op == 0 && v == 0x3a && r.long():
			m = 3
		case r.prefix != 0 && r.prefix != 'N' && byte(v) == r.prefix && m == 0 && op == 0:
		default:
			op = int(v)
		}
	}
	return m, op, n
}

// long reports whether the encoding has an opcode byte after 0F 38 or 0F 3A.
func (r *row) long() bool {
	return strings.Contains(r.Enc, "0F 38 ") && !strings.HasPrefix(after(r.Enc, "0F 38 "), "/") ||
		strings.Contains(r.Enc, "0F 3A ") && !strings.HasPrefix(after(r.Enc, "0F 3A "), "/")
}

func after(s, sep string) string { _, a, _ := strings.Cut(s, sep); return a }

func parseRow(f *Form, index uint16) row {
	r := row{Form: f, index: index, digit: -1, exact: -1}
	for i, tok := range strings.Fields(f.Enc) {
		switch {
		case tok == "NP":
			r.prefix = 'N'
		case i == 0 && (tok == "66" || tok == "F2" || tok == "F3"):
			v, _ := strconv.ParseUint(tok, 16, 8)
			r.prefix = byte(v)
		case tok[0] == '/':
			r.modrm = true
			what, mod, _ := strings.Cut(tok[1:], ":")
			if what != "r" {
				r.digit = int8(what[0] - '0')
			}
			if mod != "" {
				r.mod = mod[0]
			}
		case tok[0] == '=':
			v, err := strconv.ParseUint(tok[1:], 16, 8)
			if err != nil {
				panic("BUG: encoding " + f.Enc)
			}
			r.modrm, r.exact = true, int16(v)
		}
	}
	var ops string
	r.mnemonic, ops, _ = strings.Cut(f.Syntax, " ")
	if ops != "" {
		for _, s := range strings.Split(ops, ",") {
			r.operands = append(r.operands, parseOperand(s, f))
		}
	}
	return r
}

func parseOperand(s string, f *Form) Operand {
	fixed := map[string]Operand{
		"AL": {Kind: 'a', Size: 'b'}, "rAX": {Kind: 'a', Size: 'v'}, "eAX": {Kind: 'a', Size: 'z'}, "CL": {Kind: 'c', Size: 'b'},
		"DX": {Kind: 'x', Size: 'w'}, "1": {Kind: '1'}, "ST0": {Kind: 't'}, "STi": {Kind: 'i'}, "Zb": {Kind: 'Z', Size: 'b'}, "Zv": {Kind: 'Z', Size: 'v'},
		"ES": {Kind: 'r', Fix: ES}, "CS": {Kind: 'r', Fix: CS}, "SS": {Kind: 'r', Fix: SS}, "DS": {Kind: 'r', Fix: DS},
		"FS": {Kind: 'r', Fix: FS}, "GS": {Kind: 'r', Fix: GS}, "XMM0": {Kind: '0'}, "AX": {Kind: 'a', Size: 'w'},
	}
	if o, ok := fixed[s]; ok {
		return o
	}
	if s == "" || !strings.ContainsRune("ACDEGIJMNOPQRSUVWXY", rune(s[0])) {
		panic(fmt.Sprintf("BUG: operand %q of %q", s, f.Syntax))
	}
	o := Operand{Kind: s[0]}
	if len(s) > 1 {
		o.Size = s[1]
	}
	if len(s) > 2 {
		switch {
		case s[0] == 'I' && s[2] == 's':
			o.Sext = true
		default:
			o.Size = s[1] // two-letter sizes (ps, pd, dq, …) matter to the handler only
		}
	}
	return o
}

// Decode decodes the instruction at the beginning of code, in a code segment
// whose default size is mode bytes (2, 4, 8). Only Fn is left to the engine.
func Decode(code []byte, mode int, in *Inst) DecodeStatus {
	st := decode(code, mode, in)
	if st == DecodeMore && len(code) >= maxInstLen {
		return DecodeTooLong
	}
	return st
}

func decode(code []byte, mode int, in *Inst) DecodeStatus {
	if len(code) > maxInstLen {
		code = code[:maxInstLen]
	}
	*in = Inst{Mode: uint8(mode), Base: RegZero, Index: RegZero}
	seg := -1
	var rep byte
	n := 0
prefixes:
	for ; ; n++ {
		if n == len(code) {
			return DecodeMore
		}
		b := code[n]
		switch b {
		case 0xf0:
			in.Prefix |= PrefixLock
		case 0xf2, 0xf3:
			rep = b
		case 0x66:
			in.Prefix |= PrefixData
		case 0x67:
			in.Prefix |= PrefixAddr
		case 0x2e, 0x36, 0x3e, 0x26:
			if mode != 8 {
				seg = int(b >> 3 & 3)
			}
		case 0x64, 0x65:
			seg = FS + int(b&1)
		default:
			if mode == 8 && b&0xf0 == 0x40 {
				in.Rex = b
				continue
			}
			break prefixes
		}
		in.Rex = 0 // REX counts only right before the opcode
	}
	switch rep {
	case 0xf2:
		in.Prefix |= PrefixRepne
	case 0xf3:
		in.Prefix |= PrefixRep
	}

	m := 0
	op := code[n]
	n++
	if op == 0x0f {
		if n == len(code) {
			return DecodeMore
		}
		m, op = 1, code[n]
		n++
		if op == 0x38 || op == 0x3a {
			m = 2 + int(op>>1&1)
			if n == len(code) {
				return DecodeMore
			}
			op = code[n]
			n++
		}
	}
	in.Opcode = op
	cands := table[m][op]
	if len(cands) == 0 {
		return DecodeUD
	}
	if cands[0].modrm {
		if n == len(code) {
			return DecodeMore
		}
		in.ModRM = code[n]
	}
	r := in.choose(cands, mode, rep)
	if r == nil {
		return DecodeUD
	}
	in.Form, in.Op = r.index, r.Op

	// Sizes.
	data := in.Prefix&PrefixData != 0 && r.prefix != 0x66
	switch mode {
	case 8:
		in.AddrSize, in.OpSize = 8, 4
		if in.Prefix&PrefixAddr != 0 {
			in.AddrSize = 4
		}
		switch {
		case in.Rex&8 != 0 || r.Attr&Force64 != 0:
			in.OpSize = 8
		case data:
			in.OpSize = 2
		case r.Attr&Def64 != 0:
			in.OpSize = 8
		}
	default:
		in.AddrSize, in.OpSize = uint8(mode), uint8(mode)
		if in.Prefix&PrefixAddr != 0 {
			in.AddrSize ^= 6
		}
		if data {
			in.OpSize ^= 6
		}
	}
	in.AddrMask = 1<<(8*in.AddrSize-1)<<1 - 1

	// ModRM, SIB, displacement.
	defSeg := DS
	if r.modrm {
		n++
		reg, rm, mod := in.ModRM>>3&7, in.ModRM&7, in.ModRM>>6
		in.Reg = reg | in.Rex&4<<1
		in.RM = rm | in.Rex&1<<3
		in.IsMem = mod != 3 && r.mod != 'R'
		if in.IsMem {
			var k int
			var ok bool
			if in.AddrSize == 2 {
				k, defSeg, ok = in.address16(code[n:], mod, rm)
			} else {
				k, defSeg, ok = in.address(code[n:], mod, rm)
			}
			if !ok {
				return DecodeMore
			}
			n += k
		}
	} else {
		in.Reg = op&7 | in.Rex&1<<3
		in.RM = in.Reg
	}
	in.setSegment(seg, defSeg, mode)

	// Operands: byte registers and immediates.
	imm := 0
	for i, o := range r.operands {
		if o.Size == 'b' {
			switch o.Kind {
			case 'a', 'X', 'Y':
				in.OpSize = 1
			case 'E', 'G', 'Z':
				if i == 0 {
					in.OpSize = 1
				}
			}
			if in.Rex == 0 && r.Op < opVectorBase {
				switch o.Kind {
				case 'G', 'Z':
					in.Reg = highByte(in.Reg)
				case 'E':
					if !in.IsMem {
						in.RM = highByte(in.RM)
					}
				}
			}
		}
		k := immSize(o, in)
		if k == 0 {
			continue
		}
		if len(code)-n < k {
			return DecodeMore
		}
		v := readImm(code[n:], k)
		n += k
		switch {
		case o.Kind == 'O':
			in.Disp = v
			in.IsMem = true
		case o.Kind == 'A':
			in.Imm, in.Imm2 = v&(1<<(8*(k-2))-1), v>>(8*(k-2))
		case imm == 1:
			in.Imm2 = v
		default:
			if o.Kind == 'J' || o.Sext || o.Size == 'z' {
				v = signExtend(v, k)
			}
			in.Imm = v
			imm++
		}
	}
	if in.Prefix&PrefixLock != 0 && (r.Attr&LockOK == 0 || !in.IsMem) {
		return DecodeUD
	}
	in.Len = uint8(n)
	return DecodeOK
}

// choose picks the row that the bytes mean.
func (in *Inst) choose(cands []*row, mode int, rep byte) *row {
	want := byte('N')
	if rep != 0 {
		want = rep
	} else if in.Prefix&PrefixData != 0 {
		want = 0x66
	}
	var plain *row
	for _, r := range cands {
		if r.Attr&No64 != 0 && mode == 8 || r.Attr&Only64 != 0 && mode != 8 ||
			r.digit >= 0 && byte(r.digit) != in.ModRM>>3&7 || r.exact >= 0 && byte(r.exact) != in.ModRM ||
			r.mod == 'm' && in.ModRM>>6 == 3 || r.mod == 'r' && in.ModRM>>6 != 3 ||
			r.Attr&RexWOnly != 0 && in.Rex&8 == 0 || r.Attr&NoRep != 0 && rep != 0 ||
			r.Op == OpNOP && in.Opcode == 0x90 && in.Rex&1 != 0 { // PAUSE with REX.B exchanges R8
			continue
		}
		if r.prefix == want {
			return r
		}
		// A row that wants no prefix serves all, unless a row says otherwise; an exact ModRM and REX.W rows come first.
		if r.prefix == 0 && (plain == nil || plain.exact < 0 && r.exact >= 0 || r.Attr&RexWOnly != 0) {
			plain = r
		}
	}
	return plain
}

func highByte(r uint8) uint8 {
	if r >= 4 && r < 8 {
		return r - 4 | HighByte
	}
	return r
}

// address16 decodes 16-bit addressing (SDM Vol. 2A table 2-1).
func (in *Inst) address16(code []byte, mod, rm uint8) (n, seg int, ok bool) {
	base := [8]uint8{RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX}
	index := [8]uint8{RSI, RDI, RSI, RDI, RegZero, RegZero, RegZero, RegZero}
	in.Base, in.Index = base[rm], index[rm]
	seg = DS
	switch mod {
	case 0:
		if rm == 6 {
			in.Base = RegZero
			n = 2
		}
	case 1:
		n = 1
	case 2:
		n = 2
	}
	if in.Base == RBP {
		seg, in.Stack = SS, true
	}
	if len(code) < n {
		return 0, 0, false
	}
	if n > 0 {
		in.Disp = signExtend(readImm(code, n), n)
	}
	return n, seg, true
}

// address decodes 32- and 64-bit addressing (SDM Vol. 2A tables 2-2 and 2-3).
func (in *Inst) address(code []byte, mod, rm uint8) (n, seg int, ok bool) {
	seg = DS
	disp := [3]int{0, 1, 4}[mod]
	switch {
	case rm == 4:
		if len(code) == 0 {
			return 0, 0, false
		}
		sib := code[0]
		n = 1
		in.Scale = sib >> 6
		if i := sib>>3&7 | in.Rex&2<<2; i != RSP {
			in.Index = i
		}
		b := sib & 7
		if b == 5 && mod == 0 {
			disp = 4
		} else {
			in.Base = b | in.Rex&1<<3
		}
	case rm == 5 && mod == 0:
		disp = 4
		if in.Mode == 8 {
			in.Base = RIP
		}
	default:
		in.Base = rm | in.Rex&1<<3
	}
	if in.Base == RSP || in.Base == RBP {
		seg, in.Stack = SS, true
	}
	if len(code) < n+disp {
		return 0, 0, false
	}
	if disp > 0 {
		in.Disp = signExtend(readImm(code[n:], disp), disp)
	}
	return n + disp, seg, true
}

func (in *Inst) setSegment(override, def, mode int) {
	switch {
	case override >= 0:
		in.Seg = uint8(override)
		in.Stack = override == SS
	case mode == 8:
		in.Seg = SegFlat
	default:
		in.Seg = uint8(def)
	}
}

// immSize returns how many bytes of immediate an operand has.
func immSize(o Operand, in *Inst) int {
	switch o.Kind {
	case 'I', 'J':
		switch o.Size {
		case 'b':
			return 1
		case 'w':
			return 2
		case 'z':
			return min(int(in.OpSize), 4)
		case 'v':
			return int(in.OpSize)
		}
	case 'O':
		return int(in.AddrSize)
	case 'A':
		return int(in.OpSize) + 2
	}
	return 0
}

func readImm(b []byte, n int) (v uint64) {
	switch n {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 8:
		return binary.LittleEndian.Uint64(b)
	}
	for i := range n {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}
