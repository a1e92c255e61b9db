package fpu

import (
	"encoding/binary"
	"fmt"
)

var le = binary.LittleEndian

// register is a vector register; of an MMX one, the first half.
type register = [16]byte

// vectorCode is a vector instruction taken apart.
type vectorCode struct {
	class  Class
	prefix byte // mandatory: 0, 66, F2 or F3
	wide   bool // REX.W
	opcode opcode
	digit  byte // the register field of ModRM
	imm    byte
}

// opcode is one behind 0F, with 38 or 3A before the last byte if that is there.
type opcode uint16

func parseVector(class Class, code []byte) vectorCode {
	v := vectorCode{class: class}
	if p := code[0]; p == 0x66 || p == 0xf2 || p == 0xf3 {
		v.prefix, code = p, code[1:]
	}
	if code[0] == 0x48 {
		v.wide, code = true, code[1:]
	}
	code = code[1:] // 0F
	v.opcode = opcode(code[0])
	if v.opcode == 0x38 || v.opcode == 0x3a {
		code = code[1:]
		v.opcode = v.opcode<<8 | opcode(code[0])
	}
	v.digit = code[1] >> 3 & 7
	if len(code) > 2 {
		v.imm = code[2]
	}
	return v
}

// size is the number of bytes of an integer operand.
func (v *vectorCode) size() int {
	if v.class&MMX != 0 {
		return 8
	}
	return 16
}

// compileVector makes a vector instruction a function.
func compileVector(class Class, code []byte) func(*Context) {
	v := parseVector(class, code)
	if v.class&Float != 0 {
		return v.compileFloat()
	}
	if f := v.compileInteger(); f != nil {
		return f
	}
	panic(fmt.Sprintf("BUG: no vector instruction: % x", code))
}

// What LAHF calls the flags.
const (
	flagCF = 1 << 0
	flag1  = 1 << 1
	flagPF = 1 << 2
	flagZF = 1 << 6
	flagSF = 1 << 7
)

func (c *Context) setFlags(ah uint16, of bool) {
	c.Flags = (ah | flag1) << 8
	if of {
		c.Flags |= 1
	}
}

// lane returns the w bytes at i of a register; w is 1, 2, 4 or 8, and i a multiple of it.
func lane(r *register, i, w int) uint64 {
	v := le.Uint64(r[i&8:]) >> (8 * (i & 7))
	return v << (64 - 8*w) >> (64 - 8*w)
}

func signedLane(r *register, i, w int) int64 {
	v := le.Uint64(r[i&8:]) >> (8 * (i & 7))
	return int64(v<<(64-8*w)) >> (64 - 8*w)
}

func setLane(r *register, i, w int, v uint64) {
	switch w {
	case 1:
		r[i] = byte(v)
	case 2:
		le.PutUint16(r[i:], uint16(v))
	case 4:
		le.PutUint32(r[i:], uint32(v))
	default:
		le.PutUint64(r[i:], v)
	}
}
