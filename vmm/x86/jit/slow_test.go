//go:build linux && amd64

package jit

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"refault/vmm/x86"
)

// generateFault makes a program whose last instruction accesses memory that it may not, or only just may.
func generateFault(seed uint64, forms []uint16) *program {
	p := generate(seed, forms)
	g := gen{rand.New(rand.NewPCG(seed, 18))}
	p.code = nil
	constant := func(r uint8, v uint64) {
		p.code = binary.LittleEndian.AppendUint64(append(p.code, 0x48|r>>3, 0xb8|r&7), v)
	}
	var b []byte
	var in x86.Inst
	for stack := g.IntN(4) == 0; ; { // a quarter of them push and pop
		b = g.instruction(forms)
		if x86.Decode(b, 8, &in); stack {
			if _, _, ok := stackAccess(&guestInst{Inst: in}); ok {
				break
			}
		} else if in.IsMem && in.Base < x86.RegZero {
			break
		}
	}
	const readOnly, end, below = dataAt + 0x2000, dataAt + 0x3000, stackAt&^0xfff - 0x1000
	if in.IsMem && in.Base != x86.RSP {
		constant(in.Base, g.pick(readOnly, readOnly+0x800, end, end+0x100, dataAt, aliasAt, deviceAt, 1<<47, ^uint64(1<<47))+uint64(g.IntN(24))-12)
	}
	if in.Index < x86.RegZero && in.Index != in.Base {
		constant(in.Index, uint64(g.IntN(16)-8))
	}
	constant(x86.RSP, g.pick(stackAt, below, below+8, below+4, below-0x100, end, readOnly+8, 1<<47, 1<<47+8))
	p.code = append(append(p.code, b...), bytes.Repeat([]byte{0xf4}, 40)...)
	return p
}

// TestRandomFaults runs instructions that fault, which the engine finds out before the interpreter does.
func TestRandomFaults(t *testing.T) {
	forms := testForms()
	lockstep(t, func(seed uint64) *program { return generateFault(seed, forms) }, 10, 10)
}
