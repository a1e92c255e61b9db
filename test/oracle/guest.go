//go:build linux && amd64

package oracle

import (
	"encoding/binary"
	"errors"
	"fmt"

	"refault/vmm/mem"
	"refault/vmm/x86"
	"refault/vmm/x86/interp"
	"refault/vmm/x86/jit"
)

// engine is the interpreter or the translator.
type engine interface{ Run(until uint64) }

// guest executes instructions on an engine: ring 3, paging, the processor's view of memory.
type guest struct {
	c        *x86.CPU
	e        engine
	in       *interp.Engine
	jit      *jit.Engine // or nil
	ram      *mem.RAM
	mem      []byte // the mapped span
	template x86.State
}

// Physical memory of the guest, and the supervisor's view of it.
const (
	paPML4, paPDPT, paPD, paPT        = 0x1000, 0x2000, 0x3000, 0x4000
	paPDPTHigh, paPDHigh              = 0x5000, 0x6000
	paGDT, paIDT, paTSS, paSP         = 0x8000, 0x9000, 0xa000, 0xf000
	paHandlers                        = 0x10000 // 16 bytes for each vector, never executed
	paSpan                            = 0x20000
	high                       uint64 = 0xffff800000000000
)

// Selectors of Linux, amd64.
const (
	selKernelCS = 0x10
	selUser32   = 0x23
	selUserDS   = 0x2b
	selUserCS   = 0x33
	selTSS      = 0x40
)

var gdt = [...]uint64{1: 0x00cf9b000000ffff, 2: 0x00af9b000000ffff, 3: 0x00cf93000000ffff,
	4: 0x00cffb000000ffff, 5: 0x00cff3000000ffff, 6: 0x00affb000000ffff}

func newGuest(translate bool) (*guest, error) {
	ram, err := mem.New(1 << 20)
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	c, err := x86.NewCPU(0, ram, noBus{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guest: %w", err), ram.Close())
	}
	ram.OnWrite = c.NoteWrite
	g := &guest{c: c, ram: ram, mem: ram.Data()[paSpan:][:spanSize]}
	put := func(pa, v uint64) { binary.LittleEndian.PutUint64(ram.Data()[pa:], v) }
	const p, w, u, ps, nx = 1, 2, 4, 1 << 7, 1 << 63
	put(paPML4, paPDPT|p|w|u)
	put(paPDPT, paPD|p|w|u)
	put(paPD+base>>21%512*8, paPT|p|w|u)
	for _, m := range mappings {
		for at := m.addr; at < m.addr+m.size; at += pageSize {
			e := at - base + paSpan | p | u
			if m.write {
				e |= w
			}
			if !m.exec {
				e |= nx
			}
			put(paPT+at>>12%512*8, e)
		}
	}
	put(paPML4+256*8, paPDPTHigh|p|w)
	put(paPDPTHigh, paPDHigh|p|w)
	put(paPDHigh, ps|p|w)
	for i, d := range gdt {
		put(paGDT+8*uint64(i), d)
	}
	tss := high + paTSS
	put(paGDT+selTSS, 0x67|tss&0xffffff<<16|0x8b<<40|tss>>24&0xff<<56)
	put(paGDT+selTSS+8, tss>>32)
	put(paTSS+4, high+paSP)
	ram.Data()[paTSS+102] = 0x68 // no I/O permission bit map
	for v := range uint64(256) {
		dpl := uint64(0)
		if v == x86.VecBP || v == x86.VecOF {
			dpl = 3
		}
		h := high + paHandlers + 16*v
		put(paIDT+16*v, h&0xffff|selKernelCS<<16|(0x8e|dpl<<5)<<40|h>>16&0xffff<<48)
		put(paIDT+16*v+8, h>>32)
	}

	c.CR0 = x86.CR0PE | x86.CR0MP | x86.CR0ET | x86.CR0NE | x86.CR0WP | x86.CR0AM | x86.CR0PG
	c.CR3 = paPML4
	c.CR4 = x86.CR4PAE | x86.CR4PGE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4OSXSAVE | x86.CR4FSGSBASE | x86.CR4UMIP | x86.CR4SMEP | x86.CR4SMAP
	c.EFER = x86.EFERSCE | x86.EFERLME | x86.EFERLMA | x86.EFERNXE
	c.XCR0 = 3
	c.GDTR = x86.Table{Base: high + paGDT, Limit: 0x7f}
	c.IDTR = x86.Table{Base: high + paIDT, Limit: 0xfff}
	c.Seg[x86.TR] = x86.Segment{Base: tss, Limit: 0x67, Sel: selTSS, Attr: x86.SegPresent | 11}
	for _, s := range []int{x86.ES, x86.DS, x86.FS, x86.GS, x86.LDTR} {
		c.Seg[s] = x86.Segment{}
	}
	c.Seg[x86.CS] = segment(selUserCS)
	c.Seg[x86.SS] = segment(selUserDS)
	c.CPL = 3
	c.ModeChanged()
	c.FlushTLB()
	g.template = *c.State
	in := interp.New(c)
	g.in, g.e = in, in
	if translate {
		if g.jit, err = jit.New(c, in); err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.e = g.jit
	}
	return g, nil
}

// segment is what loading sel makes of the descriptor.
func segment(sel uint16) x86.Segment {
	d := gdt[sel>>3]
	return x86.Segment{Sel: sel, Limit: 0xffffffff, Attr: uint16(d >> 40 & 0xf0ff)}
}

func (g *guest) close() error {
	var err error
	if g.jit != nil {
		err = g.jit.Close()
	}
	return errors.Join(err, g.c.Close(), g.ram.Close())
}

// at returns n bytes at a user address.
func (g *guest) at(addr uint64, n int) []byte { return g.mem[addr-base:][:n:n] }

// setCode writes code, and tells the engine.
func (g *guest) setCode(addr uint64, code []byte) { g.ram.WriteAt(code, addr-base+paSpan) }

// noInstruction ends a block: it cannot be decoded in 64-bit code, so the translator makes a block of what is before.
const noInstruction = 0x06

// run executes the instruction of a case, and the one before it if it has one, or until one raises an exception.
// A REP instruction is run to its end, a chunk of iterations at a time.
func (g *guest) run(t *testCase) (out state) {
	in := &t.state
	c := g.c
	step := c.Step
	*c.State = g.template
	c.Step = step
	c.Regs = [x86.NumRegs]uint64{}
	copy(c.Regs[:], in.Regs[:])
	c.Regs[x86.RIP] = in.RIP
	c.RFLAGS = in.RFLAGS
	c.FX = in.FX
	if t.mode != 8 {
		c.Seg[x86.CS] = segment(selUser32)
		c.Seg[x86.DS], c.Seg[x86.ES] = segment(selUserDS), segment(selUserDS)
	}
	c.ModeChanged()
	g.in.Trace = nil
	if t.careful {
		g.in.Trace = func(*x86.Inst) {}
	}

	chunk := func() uint64 { return max(1, min(t.chunk, c.Regs[x86.RCX]&t.in.AddrMask)) }
	until := c.Step + chunk()
	if in.RIP != t.at {
		until++ // both in one go, so that the second finds the flags as the first leaves them
	}
	for n := 0; (c.Regs[x86.RIP] == t.at || c.Regs[x86.RIP] == in.RIP) && c.CPL == 3 && n < 1<<16; n++ {
		c.Attention = false
		g.e.Run(until)
		until = c.Step + chunk()
	}
	return g.state()
}

// fetch goes on where run ended, with an instruction that cannot be fetched.
func (g *guest) fetch() state {
	g.c.Attention = false
	g.e.Run(g.c.Step + 1)
	return g.state()
}

func (g *guest) state() (out state) {
	c := g.c
	out.RIP, out.RFLAGS, out.FX = c.Regs[x86.RIP], c.Flags(), c.FX
	copy(out.Regs[:], c.Regs[:])
	if c.CPL != 3 {
		g.readFault(&out)
	}
	return out
}

// readFault takes the state at the exception from the stack of its handler.
func (g *guest) readFault(out *state) {
	c := g.c
	vec := (out.RIP - high - paHandlers) / 16
	if vec > 255 {
		panic(fmt.Sprintf("BUG: supervisor at %#x, activity %d", out.RIP, c.Activity))
	}
	out.Fault = fault{Raised: true, Vec: uint8(vec)}
	sp := c.Regs[x86.RSP] - high
	pop := func() uint64 { sp += 8; return binary.LittleEndian.Uint64(g.ram.Data()[sp-8:]) }
	switch vec {
	case x86.VecDF, x86.VecTS, x86.VecNP, x86.VecSS, x86.VecGP, x86.VecPF, x86.VecAC:
		out.Fault.Err = uint32(pop())
	}
	if vec == x86.VecPF {
		out.Fault.CR2 = c.CR2
	}
	out.RIP = pop()
	pop() // CS
	out.RFLAGS = pop()
	out.Regs[x86.RSP] = pop()
}

// noBus has nothing on it: user code does not reach devices.
type noBus struct{}

func (noBus) ReadMMIO(*x86.CPU, uint64, int) uint64   { return ^uint64(0) }
func (noBus) WriteMMIO(*x86.CPU, uint64, int, uint64) {}
func (noBus) In(*x86.CPU, uint16, int) uint32         { return ^uint32(0) }
func (noBus) Out(*x86.CPU, uint16, int, uint32)       {}
func (noBus) ReadMSR(*x86.CPU, uint32) (uint64, bool) { return 0, false }
func (noBus) WriteMSR(*x86.CPU, uint32, uint64) bool  { return false }
func (noBus) ReadCR8(*x86.CPU) uint64                 { return 0 }
func (noBus) WriteCR8(*x86.CPU, uint64)               {}
func (noBus) TSC(c *x86.CPU) uint64                   { return c.Step }
func (noBus) Random(*x86.CPU) uint64                  { return 4 }
