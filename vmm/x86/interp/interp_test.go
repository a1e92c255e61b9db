package interp

import (
	"testing"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// bareBus is a bus with nothing on it.
type bareBus struct {
	ports map[uint16]uint32
}

func (b *bareBus) ReadMMIO(*x86.CPU, uint64, int) uint64     { return 0xffffffffffffffff }
func (b *bareBus) WriteMMIO(*x86.CPU, uint64, int, uint64)   {}
func (b *bareBus) In(_ *x86.CPU, p uint16, _ int) uint32     { return b.ports[p] }
func (b *bareBus) Out(_ *x86.CPU, p uint16, _ int, v uint32) { b.ports[p] = v }
func (b *bareBus) ReadMSR(*x86.CPU, uint32) (uint64, bool)   { return 0, false }
func (b *bareBus) WriteMSR(*x86.CPU, uint32, uint64) bool    { return false }
func (b *bareBus) ReadCR8(*x86.CPU) uint64                   { return 0 }
func (b *bareBus) WriteCR8(*x86.CPU, uint64)                 {}
func (b *bareBus) TSC(c *x86.CPU) uint64                     { return c.Step }
func (b *bareBus) Random(*x86.CPU) uint64                    { return 4 }

// rig is a processor in 64-bit mode at privilege level 0, with the first 4 MiB mapped one to one.
type rig struct {
	c *x86.CPU
	e *Engine
}

const (
	codeAt  = 0x10000
	stackAt = 0x20000
	dataAt  = 0x30000
)

func newRig(t testing.TB) *rig {
	t.Helper()
	ram, err := mem.New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x86.NewCPU(0, ram, &bareBus{ports: map[uint16]uint32{}})
	if err != nil {
		t.Fatal(err)
	}
	ram.OnWrite = c.NoteWrite
	t.Cleanup(func() { c.Close(); ram.Close() })
	put := func(pa, v uint64) {
		var b [8]byte
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
		ram.WriteAt(b[:], pa)
	}
	put(0x1000, 0x2007)
	put(0x2000, 0x3007)
	for i := range uint64(2) {
		put(0x3000+8*i, i<<21|0x87)
	}
	c.CR0 = x86.CR0PE | x86.CR0PG | x86.CR0WP | x86.CR0ET
	c.CR4 = x86.CR4PAE | x86.CR4OSFXSR
	c.EFER = x86.EFERLME | x86.EFERLMA
	c.CR3 = 0x1000
	c.Seg[x86.CS].Attr |= x86.SegL
	c.Regs[x86.RIP] = codeAt
	c.Regs[x86.RSP] = stackAt
	c.ModeChanged()
	c.FlushTLB()
	return &rig{c, New(c)}
}

// run loads code and executes n instructions.
func (r *rig) run(t testing.TB, n uint64, code ...byte) {
	t.Helper()
	r.c.RAM.WriteAt(code, codeAt)
	r.c.Regs[x86.RIP] = codeAt
	for end := r.c.Step + n; r.c.Step < end; {
		r.c.Attention = false
		r.e.Run(end)
		if r.c.Activity != x86.Active {
			t.Fatalf("activity %d at step %d, exception %+v", r.c.Activity, r.c.Step, r.c.Exc)
		}
	}
}

func TestEveryFormHasAHandlerAndEveryHandlerAForm(t *testing.T) {
	var used [x86.NumOps]bool
	for _, f := range x86.Forms() {
		used[f.Op] = true
		if selectors[f.Op] == nil {
			t.Errorf("%q (%s) has no handler", f.Syntax, f.Enc)
		}
	}
	for op, s := range selectors {
		if s != nil && !used[op] {
			t.Errorf("operation %#x has a handler and no form", op)
		}
	}
}

func TestLoopCountsEveryInstruction(t *testing.T) {
	r := newRig(t)
	// mov ecx, 1000; xor eax, eax; l: add rax, rcx; dec ecx; jnz l
	r.run(t, 2+3*1000, 0xb9, 0xe8, 3, 0, 0, 0x31, 0xc0, 0x48, 0x01, 0xc8, 0xff, 0xc9, 0x75, 0xf9)
	if got := r.c.Regs[x86.RAX]; got != 500500 {
		t.Errorf("rax = %d, want 500500", got)
	}
	if got := r.c.Regs[x86.RIP]; got != codeAt+14 {
		t.Errorf("rip = %#x", got)
	}
}

func TestStopsInTheMiddleOfAStringInstruction(t *testing.T) {
	r := newRig(t)
	r.c.Regs[x86.RCX], r.c.Regs[x86.RDI], r.c.Regs[x86.RAX] = 1000, dataAt, 0xab
	r.run(t, 300, 0xf3, 0xaa) // rep stosb
	if r.c.Regs[x86.RCX] != 700 || r.c.Regs[x86.RDI] != dataAt+300 || r.c.Regs[x86.RIP] != codeAt {
		t.Errorf("rcx %d, rdi %#x, rip %#x", r.c.Regs[x86.RCX], r.c.Regs[x86.RDI], r.c.Regs[x86.RIP])
	}
	r.run(t, 700, 0xf3, 0xaa)
	if r.c.Regs[x86.RCX] != 0 || r.c.Regs[x86.RIP] != codeAt+2 {
		t.Errorf("rcx %d, rip %#x", r.c.Regs[x86.RCX], r.c.Regs[x86.RIP])
	}
}

func TestStoreIntoTheRunningBlockTakesEffectAtOnce(t *testing.T) {
	r := newRig(t)
	// mov byte [rip+1], 0x42 ; mov al, 0 (becomes mov al, 0x42)
	r.run(t, 2, 0xc6, 0x05, 1, 0, 0, 0, 0x42, 0xb0, 0)
	if got := r.c.Regs[x86.RAX] & 0xff; got != 0x42 {
		t.Errorf("al = %#x, want 0x42", got)
	}
}

func TestTableChangeTakesEffectAtOnce(t *testing.T) {
	r := newRig(t)
	c := r.c
	// Map dataAt's 2 MiB through a table of 4 KiB pages, then change one entry by a store.
	for i := range uint64(512) {
		c.Store64(0x4000+8*i, i<<12|7)
	}
	c.Store64(0x3000, 0x4007)
	c.Store64(dataAt, 1)
	c.Store64(dataAt+0x1000, 2)
	c.Regs[x86.RBX], c.Regs[x86.RDI] = dataAt, 0x4000+8*(dataAt>>12)
	c.Regs[x86.RDX] = (dataAt + 0x1000) | 7
	// mov rax,[rbx]; mov [rdi],rdx; mov rcx,[rbx]
	r.run(t, 3, 0x48, 0x8b, 0x03, 0x48, 0x89, 0x17, 0x48, 0x8b, 0x0b)
	if c.Regs[x86.RAX] != 1 || c.Regs[x86.RCX] != 2 {
		t.Errorf("before %d, after %d; want 1, 2", c.Regs[x86.RAX], c.Regs[x86.RCX])
	}
}

func BenchmarkLoop(b *testing.B) {
	r := newRig(b)
	// l: add rax,[rbx]; mov [rbx+8],rax; lea rdx,[rax+rcx]; cmp rdx,rax; je l; dec rcx; jmp l
	code := []byte{0x48, 0x03, 0x03, 0x48, 0x89, 0x43, 8, 0x48, 0x8d, 0x14, 0x08, 0x48, 0x39, 0xc2, 0x74, 0xf0, 0x48, 0xff, 0xc9, 0xeb, 0xeb}
	r.c.Regs[x86.RBX] = dataAt
	b.ResetTimer()
	r.run(b, uint64(b.N), code...)
}
