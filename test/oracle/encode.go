//go:build linux && amd64

package oracle

import (
	"strconv"
	"strings"

	"refault/vmm/x86"
)

// encoding is a form's Enc, taken apart.
type encoding struct {
	prefix byte // mandatory: 0x66, 0xf2, 0xf3; 'N' for none allowed; 0 where it does not matter
	opcode []byte
	plus   bool // a register in the low bits of the opcode
	modrm  bool
	digit  int // -1 without
	exact  int // a whole ModRM byte, or -1
	mod    byte
}

func parseEncoding(f x86.Form) encoding {
	e := encoding{digit: -1, exact: -1}
	for i, tok := range strings.Fields(f.Enc) {
		switch {
		case tok == "NP":
			e.prefix = 'N'
		case tok == "+r":
			e.plus = true
		case tok[0] == '/':
			e.modrm = true
			what, mod, _ := strings.Cut(tok[1:], ":")
			if what != "r" {
				e.digit = int(what[0] - '0')
			}
			if mod != "" {
				e.mod = mod[0]
			}
		case tok[0] == '=':
			v, _ := strconv.ParseUint(tok[1:], 16, 8)
			e.modrm, e.exact = true, int(v)
		default:
			v, _ := strconv.ParseUint(tok, 16, 8)
			if b := byte(v); i == 0 && (b == 0x66 || b == 0xf2 || b == 0xf3) {
				e.prefix = b
			} else {
				e.opcode = append(e.opcode, b)
			}
		}
	}
	return e
}

// sized reports whether a form has an operand whose size follows the operand size.
func sized(form uint16) bool {
	for _, o := range x86.FormOperands(form) {
		switch o.Size {
		case 'v', 'z', 'y':
			return true
		}
	}
	return false
}

// repMeans reports opcodes that F2 or F3 make another instruction of, on some processors.
func repMeans(opcode []byte) bool {
	if b := opcode[0]; b == 0x90 || b == 0xe0 || b == 0xe1 { // LOOPNE and LOOPE too: AMD processors heed them
		return true
	}
	if opcode[0] != 0x0f || len(opcode) != 2 {
		return false
	}
	switch b := opcode[1]; b {
	case 0x00, 0x01, 0x09, 0x0d, 0xae, 0xb8, 0xbc, 0xbd, 0xc7:
		return true
	default:
		return b>>4 == 1
	}
}

// encode makes bytes for a form: random prefixes, registers, addressing and immediates. modrm is where the
// ModRM byte is, or -1. Bytes beyond the instruction follow.
func (s source) encode(form uint16, mode int) (code []byte, modrm int) {
	f := x86.Forms()[form]
	e := parseEncoding(f)
	var legacy []byte
	general := f.Attr&(x86.IsFPU|x86.IsMMX|x86.IsSSE) == 0
	if general {
		if e.prefix == 0 && s.chance(25) || e.prefix > 'N' && e.prefix != 0x66 && sized(form) && s.chance(25) {
			legacy = append(legacy, 0x66)
		}
	}
	if s.chance(12) {
		legacy = append(legacy, 0x67)
	}
	if s.chance(4) {
		// FS is the Go runtime's. The base of GS is zero.
		over := [...]byte{0x2e, 0x36, 0x3e, 0x26, 0x65}
		legacy = append(legacy, over[s.IntN(len(over))])
	}
	mem := s.chance(60)
	switch {
	case f.Attr&x86.LockOK != 0 && s.chance(20), s.chance(1):
		legacy = append(legacy, 0xf0)
	}
	if f.Attr&x86.RepOK != 0 && s.chance(60) {
		legacy = append(legacy, byte(0xf2+s.IntN(2)))
	}
	if general && e.prefix == 0 && f.Attr&x86.RepOK == 0 && !repMeans(e.opcode) && s.chance(3) {
		legacy = append(legacy, byte(0xf2+s.IntN(2))) // of no effect
	}
	s.Shuffle(len(legacy), func(i, j int) { legacy[i], legacy[j] = legacy[j], legacy[i] })
	if e.prefix == 0x66 || e.prefix == 0xf2 || e.prefix == 0xf3 {
		at := s.IntN(len(legacy) + 1)
		legacy = append(legacy[:at], append([]byte{e.prefix}, legacy[at:]...)...)
	}
	if mode == 8 && len(legacy) > 0 && s.chance(2) {
		legacy = append([]byte{0x40 | byte(s.IntN(16))}, legacy...) // of no effect
	}
	code = append(code, legacy...)
	if mode == 8 {
		switch {
		case f.Attr&x86.RexWOnly != 0:
			code = append(code, 0x48|byte(s.IntN(8)))
		case s.chance(60):
			code = append(code, 0x40|byte(s.IntN(16)))
		}
	}
	code = append(code, e.opcode...)
	if e.plus {
		code[len(code)-1] += byte(s.IntN(8))
	}
	modrm = -1
	if e.modrm {
		modrm = len(code)
		b := byte(s.IntN(256))
		switch {
		case e.mod == 'm' || e.mod == 0 && mem:
			b = b&0x3f | byte(s.IntN(3))<<6
		case e.mod == 'r' || e.mod == 0:
			b |= 0xc0
		}
		if e.digit >= 0 {
			b = b&^0x38 | byte(e.digit)<<3
		}
		if e.exact >= 0 {
			b = byte(e.exact)
		}
		code = append(code, b)
	}
	for range 2 {
		v := s.integer()
		for i := range 8 {
			code = append(code, byte(v>>(8*i)))
		}
	}
	return code, modrm
}
