package x86_test

import (
	"encoding/hex"
	"testing"

	"refault/vmm/x86"
)

func TestDisassemble(t *testing.T) {
	symbol := func(a uint64) string {
		if a == 0xffffffff81000100 {
			return "start_kernel"
		}
		return ""
	}
	for _, tt := range []struct {
		code string
		mode int
		want string
		n    int
	}{
		{"90", 8, "nop", 1},
		{"4889e5", 8, "mov rbp, rsp", 3},
		{"8b4508", 4, "mov eax, dword ptr [ebp+0x8]", 3},
		{"89d8", 2, "mov ax, bx", 2},
		{"e8fb000000", 8, "call 0xffffffff81000100 <start_kernel>", 5},
		{"488b05f9000000", 8, "mov rax, qword ptr [rip+0xf9] <start_kernel>", 7},
		{"f3a4", 8, "rep movsb byte ptr [rdi], byte ptr [rsi]", 2},
		{"0fc7f0", 8, "rdrand eax", 3},
		{"0f01cb", 8, "stac", 3}, // the library does not know it
		{"f30f1efa", 8, "", 4},
		{"0f0b", 8, "ud2", 2},
		{"0f04", 8, "(bad) 0f", 1},
		{"48", 8, "(cut off) 48", 1},
		{"", 8, "(unmapped)", 0},
		{"666666666666666666666666666666666690", 8, "(too long) 66 66 66 66 66 66 66 66 66 66 66 66 66 66 66", 15},
	} {
		code, err := hex.DecodeString(tt.code)
		if err != nil {
			t.Fatal(err)
		}
		got, n := x86.Disassemble(code, tt.mode, 0xffffffff81000000, symbol)
		if tt.want != "" && got != tt.want || n != tt.n {
			t.Errorf("%s: %q, %d bytes; want %q, %d", tt.code, got, n, tt.want, tt.n)
		}
	}
}

func FuzzDisassemble(f *testing.F) {
	f.Add([]byte{0x0f, 0xc7, 0xf0}, 8)
	f.Fuzz(func(t *testing.T, code []byte, mode int) {
		mode = []int{2, 4, 8}[uint(mode)%3]
		text, n := x86.Disassemble(code, mode, 0, nil)
		if text == "" || n > len(code) || n == 0 && len(code) > 0 {
			t.Errorf("% x: %q, %d", code, text, n)
		}
	})
}
