//go:build linux && amd64

package oracle

import (
	"math"

	"refault/vmm/x86"
)

// undefinedFlags returns the flags that the manual leaves undefined after an instruction (SDM Vol. 2, "Flags
// Affected" of each), and what ours are by our own definition.
func undefinedFlags(c *testCase) (mask, ours uint64) {
	const (
		cf, pf, af, zf, sf, of = x86.FlagCF, x86.FlagPF, x86.FlagAF, x86.FlagZF, x86.FlagSF, x86.FlagOF
	)
	in := &c.in
	width := uint64(in.OpSize) * 8
	switch in.Op {
	case x86.OpAND, x86.OpOR, x86.OpXOR, x86.OpTEST:
		return af, 0
	case x86.OpSHL, x86.OpSAL, x86.OpSHR, x86.OpSAR:
		n := c.count()
		switch {
		case n == 0:
			return 0, 0
		case n >= width && in.Op != x86.OpSAR:
			mask = cf
			ours = shiftedOut(c, n, width)
		}
		if n > 1 {
			mask |= of
		}
		return mask | af, ours
	case x86.OpROL, x86.OpROR, x86.OpRCL, x86.OpRCR:
		if c.count() > 1 {
			return of, 0
		}
	case x86.OpSHLD, x86.OpSHRD:
		n := c.count()
		switch {
		case n == 0:
			return 0, 0
		case n > width:
			return x86.FlagsArith, anything
		case n > 1:
			return af | of, 0
		}
		return af, 0
	case x86.OpMUL, x86.OpIMUL1, x86.OpIMUL2, x86.OpIMUL3:
		return sf | zf | af | pf, 0
	case x86.OpDIV, x86.OpIDIV:
		return x86.FlagsArith, 0
	case x86.OpBT, x86.OpBTS, x86.OpBTR, x86.OpBTC:
		// Unchanged, as all processors have it: a translator then needs no code for it.
		m := uint64(of | sf | af | pf)
		if c.before != nil {
			return m, anything
		}
		return m, c.state.RFLAGS & m
	case x86.OpBSF, x86.OpBSR:
		return cf | of | sf | af | pf, 0
	case x86.OpDAA, x86.OpDAS:
		return of, 0
	case x86.OpAAA, x86.OpAAS:
		return of | sf | zf | pf, 0
	case x86.OpAAM, x86.OpAAD:
		return of | af | cf, 0
	}
	return 0, 0
}

// anything as a definition means that ours is not checked.
const anything = ^uint64(0)

// count is the masked count of a shift.
func (c *testCase) count() uint64 {
	ops := x86.FormOperands(c.form)
	n := c.in.Imm
	switch ops[len(ops)-1].Kind {
	case 'c':
		n = c.state.Regs[x86.RCX]
	case '1':
		n = 1
	}
	if c.in.OpSize == 8 {
		return n & 63
	}
	return n & 31
}

// shiftedOut: a bit string of zeros follows the operand, so the last bit out of it is zero, unless it is the operand's own.
func shiftedOut(*testCase, uint64, uint64) uint64 { return anything }

// undefinedResult reports instructions whose result, not only flags, is undefined.
func undefinedResult(c *testCase) bool {
	switch c.in.Op {
	case x86.OpSHLD, x86.OpSHRD:
		return c.count() > uint64(c.in.OpSize)*8
	case x86.OpBSWAP:
		return c.in.OpSize == 2
	case x86.OpX87Soft:
		x, ok := extendedFloat(c.state.FX[32:42])
		if !ok {
			return false
		}
		a, _ := x.Float64()
		switch c.in.ModRM {
		case 0xf0: // F2XM1 takes from -1 to 1
			return math.Abs(a) > 1
		case 0xf9: // FYL2XP1
			return a < math.Sqrt2/2-1 || a > math.Sqrt2-1
		}
	}
	return false
}
