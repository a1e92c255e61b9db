//go:build linux && amd64

package oracle

import (
	"encoding/binary"

	"refault/vmm/x86"
)

// shrink takes away from a case that differs what it differs without: the instruction before it, flags, registers.
func (b *bench) shrink(c *testCase, diffs []difference) (*testCase, []difference) {
	try := func(change func(c *testCase)) {
		small := *c
		change(&small)
		if small.state == c.state && (small.before == nil) == (c.before == nil) {
			return
		}
		if r, d, _ := b.run(&small); r == different && len(d) <= len(diffs) {
			c, diffs = &small, d
		}
	}
	try(func(c *testCase) {
		c.before, c.logical = nil, false
		c.state.RIP = c.at
	})
	try(func(c *testCase) { c.state.RFLAGS &^= x86.FlagsArith | x86.FlagDF })
	for i := range c.state.Regs {
		try(func(c *testCase) { c.state.Regs[i] = 0 })
	}
	try(func(c *testCase) { binary.LittleEndian.PutUint32(c.state.FX[24:], 0x1f80) })
	try(func(c *testCase) {
		binary.LittleEndian.PutUint16(c.state.FX[0:], 0x37f)
		binary.LittleEndian.PutUint16(c.state.FX[2:], binary.LittleEndian.Uint16(c.state.FX[2:])&0x3800)
	})
	for i := range 16 {
		try(func(c *testCase) { clear(c.state.FX[160+16*i : 176+16*i]) })
	}
	return c, diffs
}
