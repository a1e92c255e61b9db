//go:build linux && amd64

package oracle

import (
	"testing"

	"refault/vmm/x86"
)

// beyond lists what processors may have and our model does not claim, so that it raises #UD in ours: by opcode
// map, mandatory prefix (anyPrefix: whatever it is) and opcode, a digit in ModRM or -1, and memory ('m'), register ('r') or either (0).
var beyond = []struct {
	what   string
	m      int
	prefix int
	opcode byte
	digit  int
	mod    byte
}{
	{"SVM and VMX", 1, anyPrefix, 0x01, 3, 'r'}, {"VMX", 1, anyPrefix, 0x01, 0, 'r'},
	{"MONITOR, CLAC and ENCLS", 1, anyPrefix, 0x01, 1, 'r'}, {"XGETBV and friends", 1, anyPrefix, 0x01, 2, 'r'},
	{"protection keys, SERIALIZE, user interrupts", 1, anyPrefix, 0x01, 5, 'r'}, {"shadow stacks", 1, 0xf3, 0x01, 5, 0},
	{"MONITORX, CLZERO, RDPRU, INVLPGB", 1, anyPrefix, 0x01, 7, 'r'},
	{"WBNOINVD", 1, 0xf3, 0x09, -1, 0}, {"GETSEC", 1, 0, 0x37, -1, 0},
	{"SSE4A", 1, 0x66, 0x78, -1, 0}, {"SSE4A", 1, 0x66, 0x79, -1, 0}, {"SSE4A", 1, 0xf2, 0x78, -1, 0}, {"SSE4A", 1, 0xf2, 0x79, -1, 0},
	{"SSE4A", 1, 0xf2, 0x2b, -1, 'm'}, {"SSE4A", 1, 0xf3, 0x2b, -1, 'm'},
	{"XSAVEOPT", 1, 0, 0xae, 6, 'm'}, {"CLWB", 1, 0x66, 0xae, 6, 'm'}, {"CLFLUSHOPT", 1, 0x66, 0xae, 7, 'm'}, {"PTWRITE", 1, 0xf3, 0xae, 4, 0},
	{"TPAUSE and UMWAIT", 1, anyPrefix, 0xae, 6, 'r'}, {"CLRSSBSY", 1, 0xf3, 0xae, 6, 'm'}, {"INCSSP", 1, 0xf3, 0xae, 5, 'r'},
	{"XRSTORS", 1, 0, 0xc7, 3, 'm'}, {"XSAVEC", 1, 0, 0xc7, 4, 'm'}, {"XSAVES", 1, 0, 0xc7, 5, 'm'}, {"VMX", 1, anyPrefix, 0xc7, 6, 'm'}, {"VMX", 1, anyPrefix, 0xc7, 7, 'm'},
	{"user interrupts", 1, 0xf3, 0xc7, 6, 'r'}, {"RDPID", 1, 0xf3, 0xc7, 7, 'r'},
	{"SHA", 2, 0, 0xc8, -1, 0}, {"SHA", 2, 0, 0xc9, -1, 0}, {"SHA", 2, 0, 0xca, -1, 0}, {"SHA", 2, 0, 0xcb, -1, 0}, {"SHA", 2, 0, 0xcc, -1, 0}, {"SHA", 2, 0, 0xcd, -1, 0}, {"SHA", 3, 0, 0xcc, -1, 0},
	{"GFNI", 2, 0x66, 0xcf, -1, 0}, {"GFNI", 3, 0x66, 0xce, -1, 0}, {"GFNI", 3, 0x66, 0xcf, -1, 0},
	{"AES", 2, 0x66, 0xdb, -1, 0}, {"AES", 2, 0x66, 0xdc, -1, 0}, {"AES", 2, 0x66, 0xdd, -1, 0}, {"AES", 2, 0x66, 0xde, -1, 0}, {"AES", 2, 0x66, 0xdf, -1, 0}, {"AES", 3, 0x66, 0xdf, -1, 0},
	{"key locker", 2, 0xf3, 0xd8, -1, 0}, {"key locker", 2, 0xf3, 0xdc, -1, 0}, {"key locker", 2, 0xf3, 0xdd, -1, 0}, {"key locker", 2, 0xf3, 0xde, -1, 0}, {"key locker", 2, 0xf3, 0xdf, -1, 0},
	{"key locker", 2, 0xf3, 0xfa, -1, 0}, {"key locker", 2, 0xf3, 0xfb, -1, 0},
	{"PCLMULQDQ", 3, 0x66, 0x44, -1, 0},
	{"MOVBE", 2, 0, 0xf0, -1, 'm'}, {"MOVBE", 2, 0, 0xf1, -1, 'm'}, {"MOVBE", 2, 0x66, 0xf0, -1, 'm'}, {"MOVBE", 2, 0x66, 0xf1, -1, 'm'},
	{"ADX", 2, 0x66, 0xf6, -1, 0}, {"ADX", 2, 0xf3, 0xf6, -1, 0}, {"shadow stacks", 2, 0, 0xf6, -1, 0}, {"shadow stacks", 2, 0x66, 0xf5, -1, 0},
	{"MOVDIRI", 2, 0, 0xf9, -1, 'm'}, {"MOVDIR64B", 2, 0x66, 0xf8, -1, 'm'}, {"ENQCMD", 2, 0xf2, 0xf8, -1, 0}, {"ENQCMDS", 2, 0xf3, 0xf8, -1, 0},
	{"VMX", 2, 0x66, 0x80, -1, 0}, {"VMX", 2, 0x66, 0x81, -1, 0}, {"AADD and friends", 2, anyPrefix, 0xfc, -1, 0},
	{"HRESET", 3, 0xf3, 0xf0, -1, 0},
	{"XBEGIN", 0, anyPrefix, 0xc7, 7, 'r'}, {"XABORT", 0, anyPrefix, 0xc6, 7, 'r'}, {"XOP", 0, anyPrefix, 0x8f, -1, 0},
}

const anyPrefix = -1

// named returns what beyond calls an encoding, or nothing.
func named(m int, prefix, opcode, modrm byte) string {
	for _, b := range beyond {
		isMem := modrm>>6 != 3
		if b.m == m && (b.prefix == anyPrefix || byte(b.prefix) == prefix) && b.opcode == opcode &&
			(b.digit < 0 || byte(b.digit) == modrm>>3&7) && (b.mod == 0 || isMem == (b.mod == 'm')) {
			return b.what
		}
	}
	return ""
}

// Every opcode in every map, with every mandatory prefix and digit: where ours raises #UD, the processor does,
// unless it is something that the model does not claim. (What ours executes, the other tests compare.)
func TestInvalidInstructionsAreInvalid(t *testing.T) {
	b, err := newBench(false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	tried := 0
	for m, escape := range [][]byte{{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}} {
		for opcode := range 256 {
			if m == 0 && notAnOpcode(byte(opcode)) || m == 1 && (opcode == 0x38 || opcode == 0x3a) {
				continue
			}
			for _, prefix := range []byte{0, 0x66, 0xf3, 0xf2} {
				for modrm := range 256 {
					// Memory at [RAX], and a register, or each where the whole ModRM byte is an opcode.
					whole := m == 0 && opcode&0xf8 == 0xd8 || m == 1 && opcode == 1
					if mod := modrm >> 6; mod == 1 || mod == 2 || modrm&7 != 0 && (mod == 0 || !whole) {
						continue
					}
					var code []byte
					if prefix != 0 {
						code = append(code, prefix)
					}
					code = append(append(code, escape...), byte(opcode), byte(modrm))
					for len(code) < 15 {
						code = append(code, 0x90)
					}
					var in x86.Inst
					if x86.Decode(code, 8, &in) != x86.DecodeUD || named(m, prefix, byte(opcode), byte(modrm)) != "" {
						continue
					}
					tried++
					if f := b.fault(8, code); !f.Raised || f.Vec != x86.VecUD {
						t.Errorf("% x: ours raises #UD, the processor %v", code[:len(code)-11], f)
					}
				}
			}
		}
	}
	t.Logf("%d encodings", tried)
}

// notAnOpcode reports prefixes, and what begins another encoding.
func notAnOpcode(b byte) bool {
	switch b {
	case 0x0f, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0xc4, 0xc5, 0x62:
		return true
	}
	return b&0xf0 == 0x40
}
