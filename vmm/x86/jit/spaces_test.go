//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// TestSpacesComeBack runs a program of the upper half that calls the same lower addresses in one
// address space after the other, and changes their tables meanwhile, on both engines.
func TestSpacesComeBack(t *testing.T) {
	const (
		count  = 4
		tables = 0x40000 // four pages a space
		upper  = 0x3f000 // a table of the upper half: all of memory
		codes  = 0x50000 // pages with functions
		pages  = 8
		at     = 0x20000
		high   = 0xffff<<48 | 511<<39
	)
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 5))
		var code []byte
		u64 := binary.LittleEndian.AppendUint64
		constant := func(reg byte, v uint64) { code = u64(append(code, 0x48, 0xb8|reg), v) }
		for range 200 {
			space, slot := uint64(r.IntN(count)), uint64(r.IntN(3))
			switch r.IntN(8) {
			case 0: // another page of functions: mov [rdi], rax
				constant(x86.RDI, high+tables+space<<14+3<<12+slot*8)
				constant(x86.RAX, codes+uint64(r.IntN(pages))<<12|3)
				code = append(code, 0x48, 0x89, 0x07)
			case 1: // another function: mov byte [rdi], imm8
				constant(x86.RDI, high+codes+uint64(r.IntN(pages))<<12+7)
				code = append(code, 0xc6, 0x07, byte(r.Uint32()))
			case 2, 3: // mov cr3, rax
				constant(x86.RAX, tables+space<<14)
				code = append(code, 0x0f, 0x22, 0xd8)
			default: // call rax
				constant(x86.RAX, slot<<12)
				code = append(code, 0xff, 0xd0)
			}
		}
		constant(x86.RAX, high+at) // again: jmp rax
		code = append(code, 0xff, 0xe0)

		rigs := []*rig{newRig(t, false), newRig(t, true)}
		for _, g := range rigs {
			g.prepare(&program{})
			c := g.c
			put := func(pa, v uint64) { c.RAM.WriteAt(u64(nil, v), pa) }
			put(upper, 1<<7|3)
			for i := range uint64(count) {
				space := tables + i<<14
				put(space+511*8, upper|3)
				for l := range uint64(3) {
					put(space+l<<12, space+(l+1)<<12|3)
				}
				for slot := range uint64(3) {
					put(space+3<<12+slot*8, codes+(i+slot)<<12|3)
				}
			}
			for i := range uint64(pages) {
				c.RAM.WriteAt([]byte{0x48, 0x6b, 0xdb, 5, 0x48, 0x83, 0xc3, byte(i), 0xc3}, codes+i<<12) // imul rbx, rbx, 5; add rbx, i; ret
			}
			c.RAM.WriteAt(code, at)
			c.CR3 = tables
			c.Regs[x86.RIP], c.Regs[x86.RSP] = high+at, high+0x8000
			c.ModeChanged()
			c.FlushTLB()
		}
		for step := range 60 {
			n := 1 + uint64(r.IntN(400))
			for _, g := range rigs {
				g.run(n)
			}
			if d := differs(rigs[0], rigs[1]); d != "" {
				t.Fatalf("seed %d, run %d: %s", seed, step, d)
			}
			if r.IntN(8) == 0 {
				for _, g := range rigs {
					var pages []uint32
					g.c.RAM.ClearDirty(func(n int) { pages = append(pages, uint32(n)) })
					g.c.RevokeWrites(pages)
				}
			}
		}
		if c := rigs[1].c; c.Activity != x86.Active || c.Regs[x86.RBX] == 0 {
			t.Fatalf("seed %d: the program ended at %#x: activity %v, exception %+v", seed, c.Regs[x86.RIP], c.Activity, c.Exc)
		}
	}
}

// TestJumpToNowhere jumps to where empty slots of the tables of jump targets say that they lead.
func TestJumpToNowhere(t *testing.T) {
	for i := range jumpSlots {
		if rip := noTarget(i); hashRIP(rip)%jumpSlots == uint64(i) || x86.Canonical(rip) {
			t.Fatalf("slot %d may be taken for one that leads to %#x", i, rip)
		}
	}
	for _, rip := range []uint64{noTarget(0), noTarget(1)} {
		for _, jump := range [][]byte{{0xff, 0xe0}, {0xff, 0xd0}, {0x50, 0xc3}} { // jmp rax; call rax; push rax, ret
			p := &program{code: append(binary.LittleEndian.AppendUint64([]byte{0x48, 0xb8}, rip), jump...)}
			p.regs[x86.RSP] = stackAt
			a, b := newRig(t, false), newRig(t, true)
			for _, r := range []*rig{a, b} {
				r.prepare(p)
				r.run(5)
			}
			if d := differs(a, b); d != "" {
				t.Errorf("jump to %#x: %s", rip, d)
			}
		}
	}
}
