//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// sight is something that an observer saw.
type sight struct {
	step, la uint64
	what     byte
	code     [15]byte // the bytes, and what was made of them
}

// looker looks at instructions.
type looker struct {
	c    *x86.CPU
	seen []sight
	// abandon, where it is not zero, is which of its visits an instruction is abandoned in.
	abandon, visits int
}

func (l *looker) look(spans []x86.Span) {
	if spans == nil {
		l.c.SetObserver(nil)
		return
	}
	see := func(what byte, la uint64, code []byte) {
		s := sight{step: l.c.Step, la: la, what: what}
		copy(s.code[:], code)
		l.seen = append(l.seen, s)
	}
	l.c.SetObserver(&x86.Observer{
		Code:    spans,
		Fetched: func(la uint64, code []byte) { see('f', la, code) },
		Before: func(la uint64, in *x86.Inst) {
			see('b', la, []byte{in.Len})
			if l.visits++; l.visits == l.abandon {
				l.c.Attention = true
				l.c.Abandon()
			}
		},
		After: func(in *x86.Inst) { see('a', l.c.Regs[x86.RIP], []byte{in.Len}) },
	})
}

// TestObservedInstructions looks at instructions of random programs, at others as time goes
// by, by both addresses of their page: both engines show the same, and go the same way.
func TestObservedInstructions(t *testing.T) {
	forms := testForms()
	a, b := newRig(t, false), newRig(t, true)
	la, lb := &looker{c: a.c}, &looker{c: b.c}
	const limit = 400
	saw := 0
	for i := range min(*lockCases, 3000) {
		seed := *lockSeed + uint64(i)
		p := generate(seed, forms)
		r := rand.New(rand.NewPCG(seed, 5))
		a.prepare(p)
		b.prepare(p)
		starts := p.starts()
		for n := uint64(0); n < limit && a.c.Activity == x86.Active; {
			var spans []x86.Span
			for range r.IntN(4) {
				at := codeAt + starts[r.IntN(len(starts))]
				if r.IntN(4) == 0 {
					at++ // in the middle, most often
				}
				if r.IntN(8) == 0 {
					at += aliasAt - codeAt
				}
				spans = append(spans, x86.Span{First: at, Last: at + uint64(r.IntN(8)*r.IntN(2))})
			}
			abandon := r.IntN(6)
			for _, l := range []*looker{la, lb} {
				l.seen, l.visits, l.abandon = l.seen[:0], 0, abandon
				l.look(spans)
			}
			k := 1 + uint64(r.IntN(60))
			a.run(k)
			b.run(k)
			n += k
			if d := differs(a, b); d != "" {
				t.Fatalf("seed %d, observing %#x: within %d steps\n%s%s", seed, spans, n, d, p.list())
			}
			if !slices.Equal(la.seen, lb.seen) {
				t.Fatalf("seed %d, observing %#x: within %d steps, the translator shows\n%x, want\n%x\n%s", seed, spans, n, lb.seen, la.seen, p.list())
			}
			saw += len(la.seen)
		}
		b.c.Step = a.c.Step
	}
	la.look(nil)
	lb.look(nil)
	s := &b.jit.Stats
	t.Logf("saw %d; %d blocks, %d exits for what is observed", saw, s.Blocks, s.Interpreted[ReasonObserved].Times)
	if saw == 0 || s.Interpreted[ReasonObserved].Times == 0 {
		t.Error("nothing was observed")
	}
}

// starts returns where the instructions of a program begin.
func (p *program) starts() (all []uint64) {
	for at := 0; at < len(p.code); {
		var in x86.Inst
		if x86.Decode(p.code[at:], 8, &in) != x86.DecodeOK {
			break
		}
		if in.Op != x86.OpHLT && in.Op != x86.OpNOP {
			all = append(all, uint64(at))
		}
		at += int(in.Len)
	}
	return append(all, uint64(len(p.code)-1))
}

// TestObservedAddressInALoop arms an address in a loop, one that is never reached, and one of an alias: only the
// first costs anything, each time, and it is seen each time.
func TestObservedAddressInALoop(t *testing.T) {
	p := &program{flags: x86.Flag1, code: []byte{
		0xb9, 100, 0, 0, 0, // mov ecx, 100
		0x48, 0x83, 0xc0, 1, // 1: add rax, 1
		0x48, 0x83, 0xc3, 2, // add rbx, 2
		0x48, 0x01, 0xc2, // add rdx, rax
		0xff, 0xc9, // dec ecx
		0x75, 0xf1, // jnz 1b
		0xf4,
	}}
	for _, c := range []struct {
		name string
		at   uint64
		want int
	}{
		{"reached", codeAt + 9, 100}, {"beginning", codeAt + 5, 100}, {"never reached", codeAt + 10, 0},
		{"alias", aliasAt + 9, 0}, {"behind", codeAt + 20, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, true)
			l := &looker{c: r.c}
			r.prepare(p)
			r.run(0)
			l.look([]x86.Span{{First: c.at, Last: c.at}})
			r.run(1000)
			got := 0
			for _, s := range l.seen {
				if s.what == 'b' {
					got++
				}
			}
			if got != c.want || r.c.Regs[x86.RAX] != 100 {
				t.Errorf("seen %d times in %d iterations, want %d", got, r.c.Regs[x86.RAX], c.want)
			}
			if n := r.jit.Stats.Interpreted[ReasonObserved].Insts; n != uint64(c.want) {
				t.Errorf("%d instructions were interpreted for it", n)
			}
			all := uint64(0)
			for _, i := range r.jit.Stats.Interpreted {
				all += i.Insts
			}
			if all > uint64(c.want)+10 {
				t.Errorf("%d instructions were interpreted in all", all)
			}
		})
	}
}

// TestAbandonInShadow abandons the instruction behind STI or MOV SS: it is as far from interrupts as it was.
func TestAbandonInShadow(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   []byte
		flags  uint64
		shadow uint8
	}{
		{"STI", []byte{0x90, 0xfb, 0x48, 0x8b, 0x07, 0x90, 0xf4}, 0, x86.ShadowSTI},
		{"STI with IF set", []byte{0x90, 0xfb, 0x48, 0x8b, 0x07, 0x90, 0xf4}, x86.FlagIF, 0},
		{"MOV SS", []byte{0x90, 0x8e, 0xd3, 0x48, 0x8b, 0x07, 0x90, 0xf4}, 0, x86.ShadowMOVSS},
		{"none", []byte{0x90, 0xfb, 0x90, 0x48, 0x8b, 0x07, 0x90, 0xf4}, 0, 0},
	} {
		for _, code := range []bool{true, false} {
			for _, translate := range []bool{true, false} {
				r := newRig(t, translate)
				r.c.InterruptPending = func() bool { return false }
				r.prepare(&program{code: c.code, flags: x86.Flag1 | c.flags})
				r.c.Regs[x86.RDI], r.c.Regs[x86.RBX] = dataAt, 16
				at := codeAt + uint64(len(c.code)-5)
				abandoned := false
				abandon := func() {
					if !abandoned {
						abandoned = true
						r.c.Abandon()
					}
				}
				o := &x86.Observer{Data: []x86.Span{{First: dataAt, Last: dataAt + 7}}, Access: func(uint64, int, x86.Access) { abandon() }}
				if code {
					o = &x86.Observer{Code: []x86.Span{{First: at, Last: at}}, Before: func(uint64, *x86.Inst) { abandon() }}
				}
				r.c.SetObserver(o)
				for !abandoned {
					r.c.Attention = false
					r.e.Run(r.c.Step + 100)
				}
				if r.c.Regs[x86.RIP] != at || r.c.Shadow != c.shadow || !r.c.Attention {
					t.Errorf("%s, observing code %v, translator %v: at %#x with shadow %d, attention %v; want %#x, %d", c.name, code, translate,
						r.c.Regs[x86.RIP], r.c.Shadow, r.c.Attention, at, c.shadow)
				}
				r.run(2)
				if r.c.Shadow != 0 {
					t.Errorf("%s, observing code %v, translator %v: the shadow does not end", c.name, code, translate)
				}
			}
		}
	}
}

// TestObservedSystemCalls makes system calls 0 to 49 and ^0, and looks at some of them: only those cost anything.
func TestObservedSystemCalls(t *testing.T) {
	p := &program{user: true, flags: x86.Flag1, code: []byte{
		0x31, 0xdb, // xor ebx, ebx
		0x48, 0x89, 0xd8, // 1: mov rax, rbx
		0x0f, 0x05, // syscall
		0xff, 0xc3, // inc ebx
		0x83, 0xfb, 50, // cmp ebx, 50
		0x75, 0xf4, // jnz 1b
		0x48, 0x83, 0xc8, 0xff, // or rax, -1
		0x0f, 0x05, // syscall
		0xeb, 0xfe, // jmp .
	}}
	const handler = 0x100 // mov edi, eax; sysretq
	p.code = append(p.code, make([]byte, handler-len(p.code))...)
	p.code = append(p.code, 0x89, 0xc7, 0x48, 0x0f, 0x07)
	for _, c := range []struct {
		name string
		span *x86.Span
		want int
	}{{"none", nil, 0}, {"never made", &x86.Span{First: 50, Last: 1 << 40}, 0}, {"some", &x86.Span{First: 7, Last: 9}, 3},
		{"the first", &x86.Span{}, 1}, {"the last", &x86.Span{First: ^uint64(0), Last: ^uint64(0)}, 1}, {"all", &x86.Span{Last: ^uint64(0)}, 51}} {
		t.Run(c.name, func(t *testing.T) {
			var seen [2][]sight
			a, b := newRig(t, false), newRig(t, true)
			for i, r := range []*rig{a, b} {
				r.prepare(p)
				r.c.InterruptPending = func() bool { return false }
				r.c.STAR, r.c.LSTAR, r.c.SFMASK = 8<<32|0x10<<48, codeAt+handler, x86.FlagAC|x86.FlagTF|x86.FlagIF
				if c.span != nil {
					r.c.SystemCalls = *c.span
					r.c.SystemCall = func() { seen[i] = append(seen[i], sight{step: r.c.Step, la: r.c.Regs[x86.RAX]}) }
				}
				r.run(1000)
			}
			if d := differs(a, b); d != "" {
				t.Error(d)
			}
			if !slices.Equal(seen[0], seen[1]) || len(seen[0]) != c.want {
				t.Errorf("saw %d, with the translator %d; want %d\n%x\n%x", len(seen[0]), len(seen[1]), c.want, seen[0], seen[1])
			}
			if n := b.jit.Stats.Slow; n > uint64(c.want)+10 {
				t.Errorf("%d exits for %d calls that are looked at", n, c.want)
			}
		})
	}
}

// TestLookedAccesses looks at accesses of random programs to a few bytes, by linear address and in RAM, elsewhere as time
// goes by: both engines show the same, and go the same way.
func TestLookedAccesses(t *testing.T) {
	forms := testForms()
	a, b := newRig(t, false), newRig(t, true)
	const limit = 400
	saw := 0
	for i := range min(*lockCases, 3000) {
		seed := *lockSeed + uint64(i)
		p := generate(seed, forms)
		r := rand.New(rand.NewPCG(seed, 6))
		a.prepare(p)
		b.prepare(p)
		for n := uint64(0); n < limit && a.c.Activity == x86.Active; {
			linear, ram := x86.Span{First: dataAt + uint64(r.IntN(0x2000))}, x86.Span{First: dataAt + uint64(r.IntN(0x2000))}
			linear.Last, ram.Last = linear.First+uint64(r.IntN(40)), ram.First+uint64(r.IntN(40))
			if r.IntN(3) == 0 {
				linear.First, linear.Last = stackAt-uint64(r.IntN(80)), stackAt
			}
			which, abandon := r.IntN(4), r.IntN(8)
			var seen [2][]sight
			for k, c := range []*x86.CPU{a.c, b.c} {
				visits := 0
				see := func(what byte, at uint64, n int, kind x86.Access, s x86.Span) {
					if kind == x86.Fetch || !s.Overlaps(at, at+uint64(n)-1) {
						return
					}
					seen[k] = append(seen[k], sight{step: c.Step, la: at, what: what, code: [15]byte{byte(n), byte(kind)}})
					if visits++; visits == abandon && kind != x86.Write {
						c.Abandon()
					}
				}
				c.SetObserver(nil)
				if which&1 != 0 {
					c.SetObserver(&x86.Observer{Data: []x86.Span{linear}, Access: func(va uint64, n int, kind x86.Access) { see('l', va, n, kind, linear) }})
				}
				for page := range c.RAM.Pages() {
					c.RAM.ClearFlags(uint64(page)<<12, mem.Watched)
				}
				c.Watch = nil
				if which&2 != 0 {
					c.RAM.SetFlags(ram.First, mem.Watched)
					c.RAM.SetFlags(ram.Last, mem.Watched)
					c.WatchHull = ram
					c.Watch = func(off uint64, n int, kind x86.Access) { see('w', off, n, kind, ram) }
					c.FlushTLB()
				}
			}
			k := 1 + uint64(r.IntN(60))
			a.run(k)
			b.run(k)
			n += k
			if d := differs(a, b); d != "" {
				t.Fatalf("seed %d, looking at %#x (%d): within %d steps\n%s%s", seed, []x86.Span{linear, ram}, which, n, d, p.list())
			}
			if !slices.Equal(seen[0], seen[1]) {
				t.Fatalf("seed %d, looking at %#x (%d): within %d steps, the translator shows\n%x, want\n%x\n%s", seed, []x86.Span{linear, ram}, which, n, seen[1], seen[0], p.list())
			}
			saw += len(seen[0])
		}
		b.c.Step = a.c.Step
	}
	for _, c := range []*x86.CPU{a.c, b.c} {
		c.SetObserver(nil)
		c.Watch = nil
	}
	t.Logf("saw %d; beside that %d, in the interpreter %d", saw, b.c.Counts.Beside, a.c.Counts.Beside)
	if saw == 0 || b.c.Counts.Beside == 0 {
		t.Error("nothing was looked at")
	}
}

// TestAccessesBesideWhatIsWatched reads and writes a page in a loop in all the ways in which an address is looked up, with
// something watched on it: only the accesses to that leave generated code, each time.
func TestAccessesBesideWhatIsWatched(t *testing.T) {
	p := &program{flags: x86.Flag1, code: []byte{
		0xb9, 200, 0, 0, 0, // mov ecx, 200
		0x48, 0x8b, 0x07, // 1: mov rax, [rdi]
		0x48, 0x01, 0x47, 0x08, // add [rdi+8], rax
		0x4a, 0x8b, 0x54, 0x0f, 0x40, // mov rdx, [rdi+r9+0x40]
		0x48, 0x89, 0x14, 0x25, 0x80, 0x00, 0x03, 0x00, // mov [0x30080], rdx
		0x65, 0x8a, 0x04, 0x25, 0x10, 0, 0, 0, // mov al, gs:[0x10]
		0x0f, 0x10, 0x47, 0x20, // movups xmm0, [rdi+0x20]
		0xff, 0xc9, // dec ecx
		0x75, 0xdc, // jnz 1b
		0xf4,
	}}
	binary.LittleEndian.PutUint32(p.fx[24:], 0x1f80)
	for _, c := range []struct {
		name string
		span x86.Span
		want int // accesses, each one at least once: an instruction that reads and writes asks first whether it may
	}{
		{"nothing of it", x86.Span{First: dataAt + 0x800, Last: dataAt + 0x807}, 0},
		{"the first", x86.Span{First: dataAt, Last: dataAt}, 200},
		{"the second, read and written", x86.Span{First: dataAt + 12, Last: dataAt + 12}, 400},
		{"the index", x86.Span{First: dataAt + 0x4f, Last: dataAt + 0x4f}, 200},
		{"the constant", x86.Span{First: dataAt + 0x87, Last: dataAt + 0x87}, 200},
		{"the end of the vector", x86.Span{First: dataAt + 0x2f, Last: dataAt + 0x2f}, 200},
		{"before all", x86.Span{First: dataAt - 1, Last: dataAt - 1}, 0},
	} {
		for _, linear := range []bool{true, false} {
			r := newRig(t, true)
			r.prepare(p)
			r.c.Regs[x86.RDI], r.c.Regs[x86.R9] = dataAt, 8
			r.c.Seg[x86.GS].Base = dataAt + 0x100
			seen := 0
			see := func(at uint64, n int, _ x86.Access) {
				if c.span.Overlaps(at, at+uint64(n)-1) {
					seen++
				}
			}
			if linear {
				r.c.SetObserver(&x86.Observer{Data: []x86.Span{c.span}, Access: see})
			} else {
				r.c.Watch, r.c.WatchHull = see, c.span
				r.c.RAM.SetFlags(c.span.First, mem.Watched)
				r.c.RAM.SetFlags(dataAt, mem.Watched)
				r.c.FlushTLB()
			}
			r.run(3000)
			if seen < c.want || seen > 2*c.want {
				t.Errorf("%s, linear %v: seen %d times, want %d", c.name, linear, seen, c.want)
			}
			if n := int(r.jit.Stats.Slow); n > seen+30 {
				t.Errorf("%s, linear %v: %d exits", c.name, linear, n)
			}
		}
	}
}

// TestLookedFrames looks at the words of a stack frame that IRET pops, each of which was pushed before.
func TestLookedFrames(t *testing.T) {
	p := &program{flags: x86.Flag1, code: []byte{
		0xb9, 100, 0, 0, 0, // mov ecx, 100
		0x48, 0x89, 0xe0, // 1: mov rax, rsp
		0x6a, 0x10, // push 16
		0x50,       // push rax
		0x6a, 0x02, // push 2
		0x6a, 0x08, // push 8
		0x48, 0x8d, 0x15, 3, 0, 0, 0, // lea rdx, [2f]
		0x52,       // push rdx
		0x48, 0xcf, // iretq
		0xff, 0xc9, // 2: dec ecx
		0x75, 0xe8, // jnz 1b
		0xf4,
	}}
	for word := range uint64(6) {
		var seen [2][]sight
		a, b := newRig(t, false), newRig(t, true)
		for i, r := range []*rig{a, b} {
			r.prepare(p)
			r.c.InterruptPending = func() bool { return false }
			r.c.Regs[x86.RSP] = stackAt
			span := x86.Span{First: stackAt - 8*word - 1, Last: stackAt - 8*word - 1}
			r.c.SetObserver(&x86.Observer{Data: []x86.Span{span}, Access: func(va uint64, n int, kind x86.Access) {
				if span.Overlaps(va, va+uint64(n)-1) {
					seen[i] = append(seen[i], sight{step: r.c.Step, la: va, code: [15]byte{byte(n), byte(kind)}})
				}
			}})
			r.run(2000)
		}
		if d := differs(a, b); d != "" {
			t.Errorf("word %d: %s", word, d)
		}
		if !slices.Equal(seen[0], seen[1]) || word < 5 && len(seen[0]) < 200 {
			t.Errorf("word %d: %d accesses seen, with the translator %d", word, len(seen[0]), len(seen[1]))
		}
	}
}
