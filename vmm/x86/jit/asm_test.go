//go:build linux && amd64

package jit

import (
	"bytes"
	"testing"
)

func TestAssemblerBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		emit func(a *asm)
		want []byte
	}{
		{"mov rax, r14", func(a *asm) { a.mov(hRAX, hR14) }, []byte{0x49, 0x8b, 0xc6}},
		{"mov r11d, ebp", func(a *asm) { a.mov32(hR11, hRBP) }, []byte{0x44, 0x8b, 0xdd}},
		{"mov rcx, [rsp-120]", func(a *asm) { a.load(hRCX, at(hRSP, -120)) }, []byte{0x48, 0x8b, 0x4c, 0x24, 0x88}},
		{"mov rcx, [rbp]", func(a *asm) { a.load(hRCX, at(hRBP, 0)) }, []byte{0x48, 0x8b, 0x4d, 0}},
		{"mov rcx, [r13+r11]", func(a *asm) { a.load(hRCX, memop{base: hR13, index: hR11}) }, []byte{0x4b, 0x8b, 0x4c, 0x1d, 0}},
		{"mov rcx, [r12]", func(a *asm) { a.load(hRCX, at(hR12, 0)) }, []byte{0x49, 0x8b, 0x0c, 0x24}},
		{"lea rax, [rbx+rcx*8+0x1000]", func(a *asm) {
			a.lea(hRAX, memop{base: hRBX, index: hRCX, scale: 3, disp: 0x1000})
		}, []byte{0x48, 0x8d, 0x84, 0xcb, 0, 0x10, 0, 0}},
		{"lea rax, [rcx*4+16]", func(a *asm) {
			a.lea(hRAX, memop{base: hNone, index: hRCX, scale: 2, disp: 16})
		}, []byte{0x48, 0x8d, 0x04, 0x8d, 16, 0, 0, 0}},
		{"mov [rbx+r11], sil", func(a *asm) {
			a.rm(ins{op: 0x88, size: 1}, hRSI, memop{base: hRBX, index: hR11})
		}, []byte{0x42, 0x88, 0x34, 0x1b}},
		{"mov [rbx], sil", func(a *asm) { a.rm(ins{op: 0x88, size: 1}, hRSI, at(hRBX, 0)) }, []byte{0x40, 0x88, 0x33}},
		{"add cl, dil", func(a *asm) { a.rr(ins{op: 0, size: 1}, hRDI, hRCX) }, []byte{0x40, 0x00, 0xf9}},
		{"add cx, dx", func(a *asm) { a.rr(ins{op: 1, size: 2}, hRDX, hRCX) }, []byte{0x66, 0x01, 0xd1}},
		{"popcnt r8w, r9w", func(a *asm) { a.rr(ins{pre: 0xf3, op: 0x0fb8, size: 2}, hR8, hR9) }, []byte{0x66, 0xf3, 0x45, 0x0f, 0xb8, 0xc1}},
		{"sub r13, 5", func(a *asm) { a.aluImm(5, 8, hR13, 5) }, []byte{0x49, 0x83, 0xed, 5}},
		{"cmp qword [rsp+0x1234], -4096", func(a *asm) { a.aluImmMem(7, 8, at(hRSP, 0x1234), -4096) },
			[]byte{0x48, 0x81, 0xbc, 0x24, 0x34, 0x12, 0, 0, 0, 0xf0, 0xff, 0xff}},
		{"and r11d, 0x7fe0", func(a *asm) { a.aluImm(4, 4, hR11, 0x7fe0) }, []byte{0x41, 0x81, 0xe3, 0xe0, 0x7f, 0, 0}},
		{"mov ecx, 7", func(a *asm) { a.movConst(hRCX, 7) }, []byte{0xb9, 7, 0, 0, 0}},
		{"mov r10, -2", func(a *asm) { a.movConst(hR10, ^uint64(1)) }, []byte{0x49, 0xc7, 0xc2, 0xfe, 0xff, 0xff, 0xff}},
		{"mov r10, imm64", func(a *asm) { a.movConst(hR10, 0x1122334455667788) },
			[]byte{0x49, 0xba, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}},
		{"setz r11b by ext", func(a *asm) { a.opcode(ins{op: 0x0f94, size: 1}, 0, 0, hR11); a.bytes(0xc3) }, []byte{0x41, 0x0f, 0x94, 0xc3}},
		{"jz forwards, jmp back", func(a *asm) {
			l, m := newLabel(), newLabel()
			a.bind(m)
			a.jcc(ccE, l)
			a.jmp(m)
			a.bind(l)
		}, []byte{0x0f, 0x84, 5, 0, 0, 0, 0xe9, 0xf5, 0xff, 0xff, 0xff}},
	} {
		var a asm
		c.emit(&a)
		if !bytes.Equal(a.b, c.want) {
			t.Errorf("%s: % x, want % x", c.name, a.b, c.want)
		}
	}
}
