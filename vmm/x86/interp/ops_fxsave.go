package interp

import "refault/vmm/x86"

// FXSAVE, FXRSTOR, XSAVE and XRSTOR. The state lives in memory as FXSAVE64 lays
// it out, so most of this is copying (SDM Vol. 1 10.5 and 13.7 to 13.8).

func needFX(c *x86.CPU) {
	if c.CR0&(x86.CR0EM|x86.CR0TS) != 0 {
		c.Raise(x86.VecNM)
	}
}

// misaligned raises #GP for an operand that is not aligned, unless its address is not canonical, which comes first here
// (for vector operands it comes second).
func misaligned(c *x86.CPU, va uint64) {
	if c.LongMode() && !x86.Canonical(va) {
		c.ProbeRead(va, 1)
	}
	gp0(c)
}

// fxsaveBytes is how much of the 512 bytes FXSAVE writes and FXRSTOR reads.
const fxsaveBytes = 416

func fxsave(c *x86.CPU, in *x86.Inst) {
	needFX(c)
	va := c.AddrW(in, 512)
	if va&15 != 0 {
		misaligned(c, va)
	}
	n := fxsaveBytes
	if c.CodeSize() != 8 {
		n = 288 // only XMM0 to XMM7
	}
	c.ProbeWrite(va, 8)
	c.ProbeWrite(va+512-8, 8) // all of the area must be there, used or not
	img := c.FX
	le.PutUint32(img[28:], x86.MXCSRMask)
	if in.Rex&8 == 0 {
		// Without REX.W the pointers are 32 bits, with selectors, which are deprecated and read as zero.
		le.PutUint32(img[12:], 0)
		le.PutUint32(img[20:], 0)
	}
	c.StoreBytes(va, img[:n])
}

func fxrstor(c *x86.CPU, in *x86.Inst) {
	needFX(c)
	va := c.AddrR(in, 512)
	if va&15 != 0 {
		misaligned(c, va)
	}
	n := fxsaveBytes
	if c.CodeSize() != 8 {
		n = 288
	}
	img := c.FX
	c.ProbeRead(va, 8)
	c.ProbeRead(va+512-8, 8)
	c.LoadBytes(va, img[:n])
	if le.Uint32(img[24:])&^x86.MXCSRMask != 0 {
		gp0(c)
	}
	le.PutUint32(img[28:], 0)
	if in.Rex&8 == 0 {
		le.PutUint32(img[12:], 0)
		le.PutUint32(img[20:], 0)
	}
	x86.CleanX87(&img)
	c.FX = img
}

func needXSAVE(c *x86.CPU) {
	if c.CR4&x86.CR4OSXSAVE == 0 {
		c.Raise(x86.VecUD)
	}
	if c.CR0&x86.CR0TS != 0 {
		c.Raise(x86.VecNM)
	}
}

func requested(c *x86.CPU) uint64 {
	return (c.Regs[x86.RDX]<<32 | c.Regs[x86.RAX]&0xffffffff) & c.XCR0
}

// Components of XSAVE (SDM Vol. 1 13.1).
const (
	xX87 = 1 << 0
	xSSE = 1 << 1
)

func xsave(c *x86.CPU, in *x86.Inst) {
	needXSAVE(c)
	va := c.AddrW(in, 576)
	if va&63 != 0 {
		misaligned(c, va)
	}
	rfbm := requested(c)
	c.ProbeWrite(va, 8)
	c.ProbeWrite(va+576-8, 8)
	img := c.FX
	if in.Rex&8 == 0 {
		le.PutUint32(img[12:], 0)
		le.PutUint32(img[20:], 0)
	}
	if rfbm&xX87 != 0 {
		c.StoreBytes(va, img[:24])
		c.StoreBytes(va+32, img[32:160])
	}
	if rfbm&xSSE != 0 {
		le.PutUint32(img[28:], x86.MXCSRMask)
		c.StoreBytes(va+24, img[24:32])
		n := 16
		if c.CodeSize() != 8 {
			n = 8
		}
		c.StoreBytes(va+160, img[160:160+16*n])
	}
	bv := c.Load64(va + 512)
	c.Store64(va+512, bv&^rfbm|rfbm&inUse(c))
}

// inUse is XINUSE: the components that are not in their initial configuration.
// Ours are always said to be in use, as the manual allows.
func inUse(*x86.CPU) uint64 { return xX87 | xSSE }

func xrstor(c *x86.CPU, in *x86.Inst) {
	needXSAVE(c)
	va := c.AddrR(in, 576)
	if va&63 != 0 {
		misaligned(c, va)
	}
	c.ProbeRead(va, 8)
	rfbm := requested(c)
	bv, comp := c.Load64(va+512), c.Load64(va+520)
	if bv&^c.XCR0 != 0 || comp != 0 || c.Load64(va+528) != 0 {
		gp0(c)
	}
	img := c.FX
	if rfbm&xSSE != 0 {
		csr := c.Load32(va + 24)
		if csr&^x86.MXCSRMask != 0 {
			gp0(c)
		}
		le.PutUint32(img[24:], csr)
		n := 16
		if c.CodeSize() != 8 {
			n = 8
		}
		if bv&xSSE != 0 {
			c.LoadBytes(va+160, img[160:160+16*n])
		} else {
			clear(img[160 : 160+16*n])
		}
	}
	if rfbm&xX87 != 0 {
		if bv&xX87 != 0 {
			c.LoadBytes(va, img[:24])
			c.LoadBytes(va+32, img[32:160])
			if in.Rex&8 == 0 {
				le.PutUint32(img[12:], 0)
				le.PutUint32(img[20:], 0)
			}
			x86.CleanX87(&img)
		} else {
			clear(img[:24])
			clear(img[32:160])
			le.PutUint16(img[0:], 0x37f)
		}
	}
	c.FX = img
}
