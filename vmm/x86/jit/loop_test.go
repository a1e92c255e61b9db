//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// loopRegs are what the addresses of a random loop are made of.
var loopRegs = [...]uint8{x86.RBX, x86.RSI, x86.RDI, x86.R8, x86.R9, x86.R10, x86.R13}

// generateLoop makes a program that is a loop through memory, with what can happen there: ends of
// pages, pages that may not be written or are not there, code, devices, ways out in the middle.
func generateLoop(seed uint64, forms []uint16) *program {
	g := gen{rand.New(rand.NewPCG(seed, 23))}
	p := generate(seed, forms)
	p.code = nil
	p.flags &^= x86.FlagTF
	protected := uint16(1<<x86.RCX | 1<<x86.RSP)
	for _, r := range loopRegs {
		protected |= 1 << r
		p.regs[r] = dataAt + uint64(g.IntN(0x2800))&^g.pick(0, 3, 7, 15, 15)
	}
	p.regs[x86.RDX] = uint64(g.IntN(64))
	p.regs[x86.RCX] = uint64(1 + g.IntN(400))
	switch g.IntN(10) {
	case 0:
		p.regs[x86.RDI] = aliasAt
	case 1:
		p.regs[x86.RDI] = codeAt + 0x1000 - uint64(g.IntN(0x100))
	case 2:
		p.regs[x86.RSI] = deviceAt
	case 3:
		p.regs[x86.RCX] = 1 << 63
	}
	wild := g.IntN(5) == 0 // registers of addresses may change in any way
	var middle []int       // where the loop may be entered
	for range 1 + g.IntN(6) {
		middle = append(middle, len(p.code))
		for {
			b := g.instruction(forms)
			var in x86.Inst
			x86.Decode(b, 8, &in)
			gi := guestInst{Inst: in, attr: x86.Forms()[in.Form].Attr}
			if gi.attr&x86.EndBlock != 0 && in.Op != x86.OpJCC || endsBlock(in.Op) {
				continue
			}
			if in.Op == x86.OpJCC {
				if g.IntN(4) == 0 { // a way out, never back into the loop
					p.code = append(p.code, 0x0f, 0x80|byte(g.IntN(16)))
					p.code = binary.LittleEndian.AppendUint32(p.code, 300)
				}
				continue
			}
			if in.IsMem && in.Op != x86.OpLEA && !affine(&in) || !wild && regsWritten(&gi)&protected != 0 && g.IntN(20) != 0 {
				continue
			}
			p.code = append(p.code, b...)
			break
		}
		if g.IntN(6) == 0 { // RDX goes anywhere
			p.code = append(p.code, 0x48, 0x69, 0xd2) // imul rdx, rdx, …
			p.code = binary.LittleEndian.AppendUint32(p.code, 0x41c64e6d)
			p.code = append(p.code, 0x48, 0x83, 0xc2, 0x39, 0x81, 0xe2) // add rdx, …; and edx, …
			p.code = binary.LittleEndian.AppendUint32(p.code, uint32(g.pick(0x38, 0x1f8, 0xff0, 0x17ff, 0x3fff)))
		}
		if g.IntN(2) == 0 {
			r := loopRegs[g.IntN(len(loopRegs))]
			if g.IntN(4) == 0 {
				r = x86.RDX
			}
			step := byte(g.pick(1, 2, 4, 8, 8, 16, 16, 24, 0xff, 0xf8, 0xf0, 0x70, 0))
			p.code = append(p.code, 0x48|r>>3, 0x83, 0xc0|byte(g.IntN(2)*5<<3)|r&7, step) // add or sub
		}
	}
	var back byte
	switch g.IntN(4) {
	case 0:
		p.code = append(p.code, 0x48, 0xff, 0xc9) // dec rcx
		back = byte(g.pick(0x85, 0x8f))
	case 1:
		p.code = append(p.code, 0x48, 0x83, 0xe9, 1) // sub rcx, 1
		back = byte(g.pick(0x85, 0x83, 0x8d))
	case 2:
		p.code = append(p.code, 0x48, 0x81, 0xf8|loopRegs[1]) // cmp rsi, …
		p.code = binary.LittleEndian.AppendUint32(p.code, uint32(p.regs[x86.RSI]+g.pick(64, 800, 0x1000, 1<<64-256)))
		back = byte(g.pick(0x85, 0x82, 0x87))
	default:
		p.code = append(p.code, 0x48, 0xff, 0xc9, 0x0f, 0x84) // dec rcx; jz out
		p.code = append(binary.LittleEndian.AppendUint32(p.code, 100), 0xe9)
		p.code = binary.LittleEndian.AppendUint32(p.code, uint32(-len(p.code)-4))
	}
	if back != 0 {
		p.code = append(p.code, 0x0f, back)
		p.code = binary.LittleEndian.AppendUint32(p.code, uint32(-len(p.code)-4))
	}
	if g.IntN(3) == 0 {
		p.code = append(binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(middle[g.IntN(len(middle))])), p.code...)
	}
	for range 600 {
		p.code = append(p.code, 0xf4)
	}
	return p
}

// TestLoopBehindABranch enters a loop in its middle, so that the block there ends with a branch out of the loop, and begins
// behind it.
func TestLoopBehindABranch(t *testing.T) {
	r := newPair(t)
	p := generate(1, testForms())
	p.user, p.flags, p.limit, p.stride = true, x86.Flag1, 3000, 900
	p.regs[x86.RAX], p.regs[x86.RCX], p.regs[x86.RDI] = 0, 500, dataAt+8
	p.code = []byte{
		0xeb, 0x08, // jmp middle
		0x48, 0xff, 0xc0, // top: inc rax
		0x48, 0x39, 0xc8, // cmp rax, rcx
		0x74, 0x0a, // je out
		0x48, 0x03, 0x14, 0xc7, // middle: add rdx, [rdi+rax*8]
		0x4d, 0x85, 0xc9, // test r9, r9
		0x7f, 0xef, // jg top
		0xf4,             // hlt
		0xf4, 0xf4, 0xf4, // out
	}
	p.regs[x86.R9] = 1
	for p.seed = range 20 { // other strides
		if n, d := r.differ(p); d != "" {
			t.Fatalf("within %d steps\n%s", n, d)
		}
	}
	s := &r.jit.jit.Stats
	if n := r.jit.c.Regs[x86.RAX]; n < 490 {
		t.Errorf("%d iterations", n)
	}
	if s.Loops == 0 {
		t.Error("no loop has a second body")
	}
}

// affine reports whether a memory operand is one of those that a loop can follow.
func affine(in *x86.Inst) bool {
	if in.Seg != x86.SegFlat || in.AddrSize != 8 {
		return false
	}
	good := func(g uint8) bool {
		for _, r := range loopRegs {
			if r == g {
				return true
			}
		}
		return g == x86.RIP
	}
	return good(in.Base) && (in.Index == x86.RegZero || in.Index == x86.RDX)
}

// TestRandomLoops runs random loops on both engines.
func TestRandomLoops(t *testing.T) {
	forms := testForms()
	s := lockstep(t, func(seed uint64) *program { return generateLoop(seed, forms) }, 3000, 40, 500, 3000)
	if t.Logf("%d loops with a second body", s.Loops); s.Loops < uint64(*lockCases)/10 {
		t.Errorf("%d of %d loops have a second body", s.Loops, *lockCases)
	}
	if t.Logf("%d of them look something up in each iteration", s.LookingLoops); s.LookingLoops < s.Loops/100 {
		t.Errorf("%d of %d loops look something up in each iteration", s.LookingLoops, s.Loops)
	}
}

// TestMiddleOfALoop begins in the middle of a loop, where the block must not become a loop of its own unless a branch leads there.
func TestMiddleOfALoop(t *testing.T) {
	r := newRig(t, true)
	p := generate(1, testForms())
	p.user, p.flags = true, x86.Flag1
	p.code = []byte{
		0xb9, 100, 0, 0, 0, // mov ecx, 100
		0x48, 0xff, 0xc0, // top: inc rax
		0x48, 0x83, 0xc3, 2, // middle: add rbx, 2
		0xff, 0xc9, // dec ecx
		0x75, 0xf5, // jnz top
		0xf4,
	}
	p.regs[x86.RAX], p.regs[x86.RBX] = 0, 0
	const top, middle = codeAt + 5, codeAt + 8
	r.prepare(p)
	r.run(2)
	r.run(20)
	known := func(at uint64) *block { return r.jit.known(at, at, x86.ViewUser, false) }
	b := known(middle)
	if b == nil || !b.straight || b.n != 3 {
		t.Fatalf("the block in the middle is %+v", b)
	}
	if h := known(top); h == nil || h.straight || h.n != 4 || r.jit.Stats.Loops != 1 {
		t.Errorf("the loop is %+v, of %d", h, r.jit.Stats.Loops)
	}
	if c := r.jit.find(middle, false); c == nil || c.straight || c.n != 4 || !b.dead || known(middle) != c {
		t.Errorf("where a branch leads there, the block is %+v", c)
	}
	r.run(1000)
	if a, b := r.c.Regs[x86.RAX], r.c.Regs[x86.RBX]; a != 100 || b != 200 {
		t.Errorf("counted %d and %d", a, b)
	}
}
