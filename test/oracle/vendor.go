//go:build linux && amd64

package oracle

import (
	"encoding/binary"
	"math"
	"math/big"

	"refault/vmm/x86"
)

// Processors differ from each other, and from the model that the interpreter has, an Intel one, in a few
// places. Here is what is not compared because of it.

// cpuid executes CPUID.
func cpuid(leaf, sub uint32) (a, b, c, d uint32)

// amd reports whether this is an AMD processor.
func amd() bool {
	_, b, _, _ := cpuid(0, 0)
	return b == 0x68747541 // "Auth"
}

// missing names an instruction-set extension that our model claims and this processor does not have, or is empty.
func missing() string {
	_, _, c, _ := cpuid(1, 0)
	for _, x := range []struct {
		bit  int
		name string
	}{{0, "SSE3"}, {9, "SSSE3"}, {13, "CMPXCHG16B"}, {19, "SSE4.1"}, {20, "SSE4.2"}, {23, "POPCNT"}, {27, "XSAVE"}} {
		if c>>x.bit&1 == 0 {
			return x.name
		}
	}
	return ""
}

// vendorDiffers says why a case is not run on the processor, or nothing.
func vendorDiffers(c *testCase, isAMD bool) string {
	in := &c.in
	if x86.OpcodeMap(c.form) == 3 && (in.Opcode == 0x40 || in.Opcode == 0x41) && binary.LittleEndian.Uint32(c.state.FX[24:])&0x1f80 != 0x1f80 {
		return "DPPS stops after the step that raises an unmasked exception, ours after the last"
	}
	if in.Op == x86.OpMASKMOV && in.AddrSize == 2 {
		return "where masked bytes fault, processors differ"
	}
	if in.Op == x86.OpMOVToSeg && (in.Reg&7 == x86.FS || in.Reg&7 == x86.GS) {
		return "would change this thread"
	}
	if in.IsMem && in.AddrSize == 2 && c.target+uint64(c.operandSize()) > 1<<16 {
		return "whether an operand wraps around at 64 KiB, processors differ"
	}
	if !isAMD {
		if x86.Forms()[c.form].Attr&x86.IsMMX != 0 && in.Opcode == 0x2a && in.IsMem {
			return "whether CVTPI2PS of memory changes to the MMX registers, processors differ"
		}
		return ""
	}
	switch in.Op {
	case x86.OpJCC, x86.OpJMP, x86.OpCALL, x86.OpRET, x86.OpLOOP, x86.OpLOOPE, x86.OpLOOPNE, x86.OpJCXZ:
		if in.Prefix&x86.PrefixData != 0 && c.mode == 8 {
			return "AMD processors honour 66 on near branches"
		}
	case x86.OpJMPF, x86.OpCALLF, x86.OpLoadFar:
		if in.Rex&8 != 0 {
			return "AMD processors have no far pointers with 64-bit offsets"
		}
	case x86.OpMOVSXD:
		if in.OpSize == 2 && in.IsMem {
			return "AMD processors read four bytes for a MOVSXD of two"
		}
	case x86.OpNOP:
		if in.Opcode == 0x0d && !in.IsMem {
			return "AMD processors have no PREFETCHW of a register"
		}
	}
	return ""
}

// partial reports operations that processors may leave half done when they fault, and whose
// parts they access in an order of their own.
func partial(op x86.Op) bool {
	switch op {
	case x86.OpPUSHA, x86.OpPOPA, x86.OpCALLF, x86.OpRETF, x86.OpIRET:
		return true
	}
	return false
}

// faultDiffers reports whether the state after an exception is not the same on all processors.
func faultDiffers(c *testCase, want, got *state) bool {
	// AMD processors have switched to the MMX registers already when a conversion to one raises #XM, or MASKMOVQ anything.
	attr := x86.Forms()[c.form].Attr
	vec := want.Fault.Vec
	return want.Fault == got.Fault && attr&x86.IsMMX != 0 && (vec == x86.VecXM || c.in.Op == x86.OpMASKMOV)
}

// compareUnordered reports that FCOMI or a relative raised an unmasked exception: Intel's manual has the flags unchanged
// then, AMD processors set them.
func compareUnordered(c *testCase, want *state) bool {
	return c.in.Op == x86.OpX87Flags && want.FX[2]&3&^c.state.FX[0] != 0
}

// approximates reports whether each element of w and g can be an approximation of the same number, with a
// relative error of at most 1.5·2^-12 (SDM Vol. 2B, RCPPS).
func approximates(w, g []byte) bool {
	for i := 0; i < 16; i += 4 {
		wb, gb := binary.LittleEndian.Uint32(w[i:]), binary.LittleEndian.Uint32(g[i:])
		if wb == gb {
			continue
		}
		x, y := math.Float32frombits(wb), math.Float32frombits(gb)
		switch {
		case wb>>31 != gb>>31 || x != x || y != y:
			return false
		case wb<<1>>24 == 0 && gb<<1>>24 <= 1, gb<<1>>24 == 0 && wb<<1>>24 <= 1: // denormal results may be flushed
		case wb<<1>>24 >= 0xfe && gb<<1>>24 >= 0xfe: // about to overflow
		case math.Abs(float64(x)-float64(y)) > 3.0/4096*math.Abs(float64(x)):
			return false
		}
	}
	return true
}

// normalise clears what processors store differently in memory, in both memories alike.
func normalise(c *testCase, at func(addr uint64, n int) []byte) {
	zero := func(from, to int) {
		for i := from; i < to; i++ {
			if a := c.target + uint64(i); mapped(a, 1) {
				at(a, 1)[0] = 0
			}
		}
	}
	switch c.in.Op {
	case x86.OpFXSAVE, x86.OpXSAVE:
		zero(5, 24) // reserved, FOP, FIP, FDP
		zero(28, 32)
		for i := range 8 {
			zero(32+16*i+10, 32+16*i+16)
		}
		if c.in.Op == x86.OpXSAVE {
			zero(512, 520) // which components are in their initial state
		}
	case x86.OpFNSTENV, x86.OpFNSAVE:
		if c.in.OpSize == 2 {
			zero(6, 14)
		} else {
			zero(12, 28)
		}
	}
}

// inexactDiffers reports that MXCSR differs in the inexact flag only, after an unmasked overflow or underflow: see
// runFloat in vmm/x86/interp.
func inexactDiffers(c *testCase, want, got *state) bool {
	const oe, ue, pe = 1 << 3, 1 << 4, 1 << 5
	w, g := binary.LittleEndian.Uint32(want.FX[24:]), binary.LittleEndian.Uint32(got.FX[24:])
	return want.Fault.Vec == x86.VecXM && want.Fault == got.Fault && w^g == pe && (w|g)&(oe|ue)&^(w>>7) != 0
}

// codesDiffer reports that the x87 status word differs in C0, C2 and C3 only, after a comparison that raised an
// unmasked exception: Intel's manual has them unchanged then, AMD processors set them.
func codesDiffer(c *testCase, want, got *state) bool {
	const codes = 1<<8 | 1<<10 | 1<<14
	w, g := binary.LittleEndian.Uint16(want.FX[2:]), binary.LittleEndian.Uint16(got.FX[2:])
	return (w^g)&^codes == 0 && w&3&^binary.LittleEndian.Uint16(c.state.FX[:]) != 0
}

// roundingDiffers reports that only C1 differs after a transcendental: whether the last bit was rounded up; or the
// inexact flag, and what follows from it, which some processors set after an exact result (log2 of a power of two).
func roundingDiffers(c *testCase, want, got *state) bool {
	const c1, ue, pe, summary = 1 << 9, 1 << 4, 1 << 5, 0x8080
	if c.in.Op != x86.OpX87Soft {
		return false
	}
	w, g := binary.LittleEndian.Uint16(want.FX[2:]), binary.LittleEndian.Uint16(got.FX[2:])
	return (w^g)&^c1 == 0 || w&pe != 0 && g&pe == 0 && (w^g)&^(c1|ue|pe|summary) == 0
}

// extendedFloat is the value of a finite number in extended precision; ok is false for others.
func extendedFloat(b []byte) (f *big.Float, ok bool) {
	man, se := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint16(b[8:])
	if se&0x7fff == 0x7fff {
		return nil, false
	}
	f = new(big.Float).SetUint64(man)
	f.SetMantExp(f, max(int(se&0x7fff), 1)-16383-63)
	if se>>15 != 0 {
		f.Neg(f)
	}
	return f, true
}

// transcends reports whether two results of a transcendental are both within its error: an ulp or two (SDM Vol. 1
// 8.3.10), and for the trigonometric ones what the digits of pi in the argument reduction make of the argument.
func (c *testCase) transcends(w, g []byte) bool {
	x, ok := extendedFloat(c.state.FX[32:42])
	a, okA := extendedFloat(w)
	b, okB := extendedFloat(g)
	if !ok || !okA || !okB {
		return false
	}
	abs := func(v *big.Float) *big.Float { return new(big.Float).Abs(v) }
	scaled := func(v *big.Float, e int) *big.Float { return new(big.Float).SetMantExp(v, e) }
	allowed := scaled(abs(a), -61)
	least := new(big.Float).SetMantExp(big.NewFloat(1), -16383-62)
	allowed.Add(allowed, least) // of a denormal, the last bit is more
	switch m := c.in.ModRM; m {
	case 0xf2, 0xfb, 0xfe, 0xff:
		slope := new(big.Float).Mul(a, a)
		slope.Add(slope, big.NewFloat(1))
		allowed.Add(allowed, slope.Mul(slope, scaled(abs(x), -64)))
	}
	return abs(new(big.Float).Sub(a, b)).Cmp(allowed) <= 0
}
