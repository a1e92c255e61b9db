//go:build linux && amd64

package jit

import (
	"testing"

	"refault/vmm/x86"
)

// TestWritesBesideCode writes to a page with two loops: what was not made from the bytes that change stays, unless
// the page is written so often that it seems to become something else.
func TestWritesBesideCode(t *testing.T) {
	const second, beside = 0x100, 0x800
	code := make([]byte, 0x200)
	copy(code, "\x48\xff\xc0\xeb\xfb")          // inc rax; jmp back
	copy(code[second:], "\x48\xff\xc3\xeb\xfb") // inc rbx; jmp back
	rigs := []*rig{newRig(t, false), newRig(t, true)}
	s := &rigs[1].jit.Stats
	for _, g := range rigs {
		g.prepare(&program{code: code})
	}
	step := func(what string, at uint64, writes int, write string, translates bool) {
		t.Helper()
		before := s.Blocks
		for _, g := range rigs {
			for range writes {
				g.c.RAM.WriteAt([]byte(write), codeAt+at)
			}
			for _, to := range []uint64{codeAt, codeAt + second} {
				g.c.Regs[x86.RIP] = to
				g.run(100)
			}
		}
		if d := differs(rigs[0], rigs[1]); d != "" {
			t.Fatalf("%s: %s", what, d)
		}
		if (s.Blocks != before) != translates {
			t.Errorf("%s: %d blocks translated", what, s.Blocks-before)
		}
	}
	step("at first", beside, 1, "\x01", true)
	step("nothing written", beside, 0, "", false)
	step("written beside both", beside, 1, "\x02", false)
	step("written behind one", 5, 1, "\x90", false)
	step("written before one", second-1, 1, "\x90", false)
	step("written into one", second+2, 1, "\xc1", true) // inc rcx
	step("a run of bytes that ends in one", second-8, 1, "\x90\x90\x90\x90\x90\x90\x90\x90\x48", true)
	step("written beside, as often as may be", beside, writesMax, "\x03", false)
	step("once more", beside, 1, "\x04", true)
	step("written beside, more often at once", beside, writesMax+1, "\x05", true)
	if got := rigs[1].c.Regs[x86.RCX]; got == 0 {
		t.Error("RCX was not counted")
	}
}
