//go:build linux && amd64

package jit

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"refault/vmm/x86"
)

// windowKey is what an address is made of: base+index<<scale, of which one may be x86.RegZero.
type windowKey struct{ base, index, scale uint8 }

// operand makes an instruction with opcode op (0x0f.. in two bytes), whose memory operand has a key. size is that
// of its operands, reg its other one.
func (k windowKey) operand(op uint32, size int, reg uint8, disp int32) (b []byte) {
	if size == 2 {
		b = append(b, 0x66)
	}
	rex := 0x40 | reg>>3<<2
	if size == 8 {
		rex |= 8
	}
	sib := k.scale << 6
	if k.index == x86.RegZero {
		sib |= 4 << 3
	} else {
		rex |= k.index >> 3 << 1
		sib |= k.index & 7 << 3
	}
	modrm := byte(0x84 | reg&7<<3)
	if k.base == x86.RegZero {
		modrm &^= 0x80
		sib |= 5
	} else {
		rex |= k.base >> 3
		sib |= k.base & 7
	}
	b = append(b, rex)
	if op > 0xff {
		b = append(b, 0x0f)
	}
	return binary.LittleEndian.AppendUint32(append(b, byte(op), modrm, sib), uint32(disp))
}

// generateWindows makes a program whose accesses share a few keys, of all kinds of registers, which seldom
// change; with what can happen to a window: ends of pages, pages that may not be written or are not
// there, code, devices, instructions that the interpreter executes, branches.
func generateWindows(seed uint64, forms []uint16) *program {
	g := gen{rand.New(rand.NewPCG(seed, 31))}
	p := generate(seed, forms)
	p.code = nil
	p.flags &^= x86.FlagTF
	if p.regs[x86.RSP] = stackAt; g.IntN(4) == 0 {
		p.regs[x86.RSP] = stackAt&^0xfff + uint64(8*g.IntN(8))
	}
	var keys []windowKey
	var disps []int32 // where the key's accesses begin
	inKeys := uint16(1 << x86.RSP)
	for range 1 + g.IntN(3) {
		k := windowKey{uint8(g.IntN(16)), x86.RegZero, 0}
		if g.IntN(8) == 0 {
			k.base = x86.RSP
		}
		at, disp := dataAt+uint64(g.IntN(0x2800))&^g.pick(0, 3, 7), int32(0)
		switch g.IntN(8) {
		case 0:
			at = dataAt + g.pick(0x1000, 0x2000, 0x3000) - uint64(g.IntN(24))
		case 1:
			at = g.pick(aliasAt+uint64(g.IntN(0x200)), deviceAt+uint64(8*g.IntN(8)))
		}
		if g.IntN(3) != 0 {
			for k.index = uint8(g.IntN(16)); k.index == x86.RSP; {
				k.index = uint8(g.IntN(16))
			}
			k.scale = uint8(g.IntN(4))
			if inKeys&(1<<k.index) == 0 {
				p.regs[k.index] = uint64(g.IntN(40) - 8)
			}
			if g.IntN(6) == 0 {
				k.base = x86.RegZero
			}
		}
		switch {
		case k.base == x86.RegZero:
			disp = int32(at - p.regs[k.index]<<k.scale)
		case k.base == x86.RSP:
		case inKeys&(1<<k.base) == 0 && k.base != k.index:
			p.regs[k.base] = at
			if k.index != x86.RegZero {
				p.regs[k.base] -= p.regs[k.index] << k.scale
			}
		case k.index == x86.RegZero:
		default:
			k.index, k.scale = x86.RegZero, 0 // two keys with a register in common, which is an address
		}
		for _, r := range [...]uint8{k.base, k.index} {
			if r < 16 {
				inKeys |= 1 << r
			}
		}
		keys, disps = append(keys, k), append(disps, disp)
	}
	other := func() uint8 { // a register that makes no address, mostly
		r := uint8(g.IntN(16))
		for r == x86.RSP || inKeys&(1<<r) != 0 && g.IntN(30) != 0 {
			r = uint8(g.IntN(16))
		}
		return r
	}
	rr := func(op byte, reg, rm uint8) {
		p.code = append(p.code, 0x40|byte(g.IntN(2)<<3)|reg>>3<<2|rm>>3, op, 0xc0|reg&7<<3|rm&7)
	}
	for range 6 + g.IntN(30) {
		switch g.IntN(14) {
		default:
			i := g.IntN(len(keys))
			size := int(g.pick(2, 4, 4, 8, 8))
			disp := disps[i] + int32(g.pick(0, 0, 0, 4, 8, uint64(g.IntN(24)), uint64(g.IntN(600))))
			op := uint32(g.pick(0x8b, 0x8b, 0x8b, 0x89, 0x89, 0x89, 0x03, 0x01, 0x31, 0x39, 0x3b, 0x85, 0x87, 0x88, 0x8a, 0x13, 0x11,
				0xfb6, 0xfbe, 0xfb7, 0xfaf, 0xf44, 0xf4c, 0xf93, 0xfc1, 0xfb1, 0xfbc, 0xf10, 0xf11, 0xfa3, 0xfab))
			p.code = append(p.code, keys[i].operand(op, size, other(), disp)...)
		case 0: // without a register operand
			i := g.IntN(len(keys))
			op, digit := uint32(0xff), uint8(g.IntN(2)) // inc, dec
			if g.IntN(2) == 0 {
				op, digit = 0xd1, uint8(g.pick(4, 5, 7)) // shifts by one
			}
			p.code = append(p.code, keys[i].operand(op, int(g.pick(4, 8)), digit, disps[i])...)
		case 1: // operations between registers
			if g.IntN(3) == 0 {
				r := other()
				p.code = append(p.code, windowKey{other(), other(), uint8(g.IntN(4))}.operand(0x8d, 8, r, int32(g.IntN(16)))...) // lea
				break
			}
			rr(byte(g.pick(0x01, 0x29, 0x31, 0x39, 0x85, 0x8b)), other(), other())
		case 2: // shifts and products
			r := other()
			digit := byte(g.pick(0, 1, 4, 5, 7))
			switch g.IntN(4) {
			case 0:
				p.code = append(p.code, 0x48|r>>3, 0xd3, 0xc0|digit<<3|r&7)
			case 1:
				p.code = append(p.code, 0x48|r>>3, 0xc1, 0xc0|digit<<3|r&7, byte(g.IntN(64)))
			default:
				s := other()
				p.code = append(p.code, 0x48|r>>3<<2|s>>3, 0x0f, 0xaf, 0xc0|r&7<<3|s&7)
			}
		case 3: // the stack
			r := other()
			p.code = append(p.code, 0x40|r>>3, byte(g.pick(0x50, 0x50, 0x58))|r&7)
		case 4: // an address changes, or is in another register too
			i := g.IntN(len(keys))
			switch r := other(); {
			case len(keys) < 6 && g.IntN(3) == 0:
				by := int32(g.pick(0, 0, 4, 8, 16))
				p.code = append(p.code, keys[i].operand(0x8d, 8, r, disps[i]+by)...) // lea
				keys, disps = append(keys, windowKey{r, x86.RegZero, 0}), append(disps, -by)
			case keys[i].base < 16 && keys[i].base != x86.RSP && g.IntN(3) == 0:
				op := byte(g.pick(0x8b, 0x8b, 0x03, 0x2b)) // mov, add, sub
				p.code = append(p.code, 0x48|keys[i].base>>3<<2|r>>3, op, 0xc0|keys[i].base&7<<3|r&7)
			case g.IntN(2) == 0:
				r := keys[i].base
				if r >= 16 || g.IntN(3) == 0 && keys[i].index < 16 {
					r = keys[i].index
				}
				if g.IntN(4) == 0 && r != x86.RSP && r != keys[i].base {
					p.code = append(p.code, 0x40|r>>3, 0x58|r&7) // pop
					break
				}
				p.code = append(p.code, 0x48|r>>3, 0x83, 0xc0|byte(g.IntN(2)*5<<3)|r&7, byte(g.pick(1, 4, 8, 8, 16, 0xf8, 0)))
			}
		case 5: // a branch
			b := g.instruction(forms)
			if g.IntN(2) == 0 {
				b = []byte{0x70 | byte(g.IntN(16)), byte(g.IntN(12))}
				switch g.IntN(3) {
				case 0:
					b[0] = 0xeb // jmp
				case 1:
					b[1] = -byte(g.IntN(min(len(p.code), 100) + 1))
				}
			}
			p.code = append(p.code, b...)
		}
	}
	if g.IntN(2) == 0 {
		p.code = binary.LittleEndian.AppendUint32(append(p.code, 0xe9), uint32(-len(p.code)-5))
	}
	for range 600 {
		p.code = append(p.code, 0xf4)
	}
	return p
}

// TestRandomWindows runs random programs with windows on both engines.
func TestRandomWindows(t *testing.T) {
	forms := testForms()
	s := lockstep(t, func(seed uint64) *program { return generateWindows(seed, forms) }, 400, 5, 40, 400)
	if t.Logf("%d windows by an address, %d by an addend", s.AddressWindows, s.AddendWindows); s.AddressWindows < uint64(*lockCases) {
		t.Errorf("%d windows by an address in %d programs", s.AddressWindows, *lockCases)
	}
}

// TestWindowOverPageTables changes where a window's page lies, while the window is open.
func TestWindowOverPageTables(t *testing.T) {
	r := newPair(t)
	p := generate(1, testForms())
	p.user, p.flags, p.limit, p.stride = false, x86.Flag1, 60, 60
	p.regs[x86.R13], p.regs[x86.RCX] = dataAt, 8
	p.regs[x86.RDI], p.regs[x86.RSI], p.regs[x86.RBX] = stackAt, 0x4000+dataAt>>12*8, dataAt+0x1007
	p.code = []byte{
		0x31, 0xd2, // xor edx, edx
		0x49, 0x8b, 0x44, 0xcd, 0x00, // again: mov rax, [r13+rcx*8]
		0x48, 0x89, 0x1f, // mov [rdi], rbx
		0x4d, 0x8b, 0x44, 0xcd, 0x08, // mov r8, [r13+rcx*8+8]
		0xff, 0xc2, // inc edx
		0x83, 0xfa, 0x03, // cmp edx, 3
		0x48, 0x0f, 0x44, 0xfe, // cmove rdi, rsi
		0x83, 0xfa, 0x05, // cmp edx, 5
		0x75, 0xe5, // jne again
		0xf4, 0xf4, 0xf4, 0xf4,
	}
	for p.seed = range 20 { // other strides
		if n, d := r.differ(p); d != "" {
			t.Fatalf("within %d steps\n%s", n, d)
		}
	}
	if r.jit.jit.Stats.AddressWindows == 0 {
		t.Error("no window")
	}
}

// lookUps counts the look-ups in the block at the beginning of code: each makes the offset of an entry.
func lookUps(t *testing.T, code []byte) int {
	t.Helper()
	r := newRig(t, true)
	p := generate(1, testForms())
	p.user, p.code = true, append(code, 0xf4)
	r.prepare(p)
	b := r.jit.translate(codeAt, codeAt, x86.ViewUser, false, false)
	if b == nil || r.jit.Stats.Insts < 2 {
		t.Fatal("not translated")
	}
	return bytes.Count(r.jit.mem.rw[b.entry:r.jit.mem.used], []byte{0x41, 0xc1, 0xeb, tlbShift})
}

// TestLookUps asserts how often blocks look pages up.
func TestLookUps(t *testing.T) {
	swap := []byte{
		0x49, 0x0f, 0xaf, 0xca, // imul rcx, r10
		0x8b, 0x3c, 0x86, // mov edi, [rsi+rax*4]
		0x4c, 0x01, 0xc9, // add rcx, r9
		0x48, 0x89, 0xca, // mov rdx, rcx
		0x48, 0xc1, 0xea, 0x20, // shr rdx, 32
		0x48, 0x0f, 0xaf, 0xd0, // imul rdx, rax
		0x48, 0xc1, 0xea, 0x20, // shr rdx, 32
		0x48, 0x8d, 0x14, 0x96, // lea rdx, [rsi+rdx*4]
		0x44, 0x8b, 0x02, // mov r8d, [rdx]
		0x44, 0x89, 0x04, 0x86, // mov [rsi+rax*4], r8d
		0x89, 0x3a, // mov [rdx], edi
		0x48, 0x83, 0xe8, 0x01, // sub rax, 1
	}
	for _, c := range []struct {
		name string
		code []byte
		want int
	}{
		{"two elements are swapped", append(swap, 0x75, 0x80), 2}, // jne to somewhere else
		// And again by the second body: for the stream before it, and in each of two copies.
		{"two elements are swapped in a loop", append(slices.Clone(swap), 0x75, byte(-len(swap)-2)), 5},
		{"a structure at a register of the State", []byte{
			0x49, 0x8b, 0x45, 0x00, // mov rax, [r13]
			0x49, 0x8b, 0x4d, 0x08, // mov rcx, [r13+8]
			0x49, 0x89, 0x4d, 0x10, // mov [r13+16], rcx
		}, 1},
		{"the key changes by a constant", []byte{
			0x43, 0x8b, 0x04, 0x9a, // mov eax, [r10+r11*4]
			0x43, 0x8b, 0x4c, 0x9a, 0x04, // mov ecx, [r10+r11*4+4]
			0x49, 0xff, 0xc3, // inc r11
			0x43, 0x89, 0x0c, 0x9a, // mov [r10+r11*4], ecx
			0x43, 0x03, 0x04, 0x9a, // add eax, [r10+r11*4]
		}, 1},
		{"the key changes", []byte{
			0x43, 0x8b, 0x04, 0x9a, // mov eax, [r10+r11*4]
			0x43, 0x8b, 0x4c, 0x9a, 0x04, // mov ecx, [r10+r11*4+4]
			0x4d, 0x8b, 0x1b, // mov r11, [r11]
			0x43, 0x89, 0x0c, 0x9a, // mov [r10+r11*4], ecx
			0x43, 0x03, 0x04, 0x9a, // add eax, [r10+r11*4]
		}, 3},
		{"two children in a heap", []byte{
			0x48, 0x8d, 0x44, 0x36, 0x01, // lea rax, [rsi+rsi+1]
			0x4c, 0x8d, 0x46, 0x01, // lea r8, [rsi+1]
			0x4c, 0x8d, 0x0c, 0x87, // lea r9, [rdi+rax*4]
			0x41, 0x8b, 0x09, // mov ecx, [r9]
			0x4e, 0x8d, 0x04, 0xc7, // lea r8, [rdi+r8*8]
			0x45, 0x8b, 0x18, // mov r11d, [r8]
		}, 1},
		{"behind a jump", []byte{
			0x8b, 0x06, // mov eax, [rsi]
			0xeb, 0x01, // jmp over
			0xcc,
			0x8b, 0x4e, 0x04, // over: mov ecx, [rsi+4]
		}, 1},
		{"a copy of the stack's pointer", []byte{
			0x53,             // push rbx
			0x48, 0x89, 0xe0, // mov rax, rsp
			0x8b, 0x48, 0x08, // mov ecx, [rax+8]
			0x49, 0x89, 0xe5, // mov r13, rsp
			0x41, 0x8b, 0x4d, 0x00, // mov ecx, [r13], an address in the frame
			0x41, 0x8b, 0x4d, 0x04, // mov ecx, [r13+4]
		}, 2},
		{"other scales, other keys", []byte{
			0x8b, 0x04, 0x8e, // mov eax, [rsi+rcx*4]
			0x8b, 0x14, 0xce, // mov edx, [rsi+rcx*8]
			0x8b, 0x16, // mov edx, [rsi]
		}, 3},
		{"push, pop, push", []byte{
			0x53, 0x5d, 0x55, // push rbx; pop rbp; push rbp
			0x48, 0x8b, 0x44, 0x24, 0x08, // mov rax, [rsp+8]
			0x48, 0x8b, 0x4c, 0xcc, 0x08, // mov rcx, [rsp+rcx*8+8], another key
		}, 2},
	} {
		if n := lookUps(t, c.code); n != c.want {
			t.Errorf("%s: %d look-ups, want %d", c.name, n, c.want)
		}
	}
}
