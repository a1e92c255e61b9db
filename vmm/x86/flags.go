package x86

import "math/bits"

// Lazy flags. Most instructions set all six arithmetic flags, and most of those
// are never read. So arithmetic stores its result and the vector of carries out
// of every bit, from which each flag follows by one formula whatever the
// operation was: ZF and SF and PF from the result, CF and OF and AF from the
// carries. Whoever sets flags otherwise (POPF, shifts) materialises first.

// carries returns FlagAux for a carry vector of an operation on size bytes: bit i is the carry out of bit i.
func carries(v uint64, size int) uint64 { return v<<(uint(64-8*size)&63) | v&8 }

func signExtend(v uint64, size int) uint64 {
	n := uint(64-8*size) & 63
	return uint64(int64(v<<n) >> n)
}

func (c *CPU) setLazy(res, aux uint64) {
	c.FlagRes, c.FlagAux, c.FlagsLazy = res, aux, 1
}

// Materialise makes the arithmetic flags in RFLAGS valid.
func (c *CPU) Materialise() {
	if c.FlagsLazy == 0 {
		return
	}
	c.RFLAGS = c.RFLAGS&^FlagsArith | c.arith()
	c.FlagsLazy = 0
	c.FlagRes, c.FlagAux = 0, 0
}

func (c *CPU) arith() uint64 {
	f := c.FlagAux>>63 | (c.FlagAux>>63^c.FlagAux>>62&1)<<11 | c.FlagAux>>3&1<<4 | c.FlagRes>>63<<7
	if c.FlagRes == 0 {
		f |= FlagZF
	}
	if bits.OnesCount8(uint8(c.FlagRes))&1 == 0 {
		f |= FlagPF
	}
	return f
}

// Flags returns RFLAGS with valid arithmetic flags.
func (c *CPU) Flags() uint64 {
	c.Materialise()
	return c.RFLAGS
}

// SetArith sets the six arithmetic flags to those of f and leaves the others.
func (c *CPU) SetArith(f uint64) {
	c.RFLAGS = c.RFLAGS&^FlagsArith | f&FlagsArith
	c.FlagsLazy = 0
}

// SetFlagsAdd sets the flags of res = a + b (+ carry), truncated to size bytes.
func (c *CPU) SetFlagsAdd(a, b, res uint64, size int) {
	c.setLazy(signExtend(res, size), carries(a&b|(a|b)&^res, size))
}

// SetFlagsSub sets the flags of res = a - b (- borrow), truncated to size bytes.
func (c *CPU) SetFlagsSub(a, b, res uint64, size int) {
	c.setLazy(signExtend(res, size), carries(^a&b|(^a|b)&res, size))
}

// SetFlagsLogic sets the flags of a logical operation with result res of size bytes: CF, OF and (by our definition) AF are cleared.
func (c *CPU) SetFlagsLogic(res uint64, size int) {
	c.setLazy(signExtend(res, size), 0)
}

// CF returns the carry flag as 0 or 1.
func (c *CPU) CF() uint64 {
	if c.FlagsLazy != 0 {
		return c.FlagAux >> 63
	}
	return c.RFLAGS & FlagCF
}

// Cond evaluates condition code cc (SDM Vol. 2, appendix B.1.4): the low four bits of Jcc, SETcc and CMOVcc.
func (c *CPU) Cond(cc uint8) bool {
	var v bool
	if c.FlagsLazy != 0 {
		of := (c.FlagAux ^ c.FlagAux<<1) >> 63
		switch cc >> 1 & 7 {
		case 0:
			v = of != 0
		case 1:
			v = c.FlagAux>>63 != 0
		case 2:
			v = c.FlagRes == 0
		case 3:
			v = c.FlagAux>>63 != 0 || c.FlagRes == 0
		case 4:
			v = c.FlagRes>>63 != 0
		case 5:
			v = bits.OnesCount8(uint8(c.FlagRes))&1 == 0
		case 6:
			v = c.FlagRes>>63 != of
		case 7:
			v = c.FlagRes>>63 != of || c.FlagRes == 0
		}
	} else {
		f := c.RFLAGS
		sfNEof := f>>7&1 != f>>11&1
		switch cc >> 1 & 7 {
		case 0:
			v = f&FlagOF != 0
		case 1:
			v = f&FlagCF != 0
		case 2:
			v = f&FlagZF != 0
		case 3:
			v = f&(FlagCF|FlagZF) != 0
		case 4:
			v = f&FlagSF != 0
		case 5:
			v = f&FlagPF != 0
		case 6:
			v = sfNEof
		case 7:
			v = sfNEof || f&FlagZF != 0
		}
	}
	return v != (cc&1 != 0)
}

// KeepCF sets the carry flag to cf (0 or 1) after the flags of an operation that does not touch it.
func (c *CPU) KeepCF(cf uint64) {
	// Flipping the carry out of the top bit would flip OF with it, so both top carries flip.
	if c.FlagAux>>63 != cf {
		c.FlagAux ^= 3 << 62
	}
}
