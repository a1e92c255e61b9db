package x86

import "encoding/binary"

// The FXSAVE64 image in State.FX (SDM Vol. 1 10.5.1).
const (
	fxFCW   = 0
	fxFSW   = 2
	fxFTW   = 4
	fxFOP   = 6
	fxFIP   = 8
	fxFDP   = 16
	fxMXCSR = 24
	fxMask  = 28
	fxST    = 32
	fxXMM   = 160

	// MXCSRMask are the bits of MXCSR that can be set.
	MXCSRMask = 0xffff
)

// XMM returns vector register r, to be read or written in place.
func (c *CPU) XMM(r uint8) *[16]byte {
	return (*[16]byte)(c.FX[fxXMM+16*int(r&15):])
}

// CheckSSE raises what an SSE instruction raises when the operating system has not enabled it (SDM Vol. 2A 2.4).
func (c *CPU) CheckSSE() {
	if c.CR0&(CR0EM|CR0TS) == 0 && c.CR4&CR4OSFXSR != 0 {
		return
	}
	if c.CR0&CR0EM != 0 || c.CR4&CR4OSFXSR == 0 {
		c.Raise(VecUD)
	}
	c.Raise(VecNM)
}

// CheckMMX raises what an MMX instruction raises before it begins.
func (c *CPU) CheckMMX() {
	if c.CR0&CR0EM != 0 {
		c.Raise(VecUD)
	}
	if c.CR0&CR0TS != 0 {
		c.Raise(VecNM)
	}
	c.CheckX87Error()
}

// CheckX87 raises what an x87 instruction raises when the unit is not there to be used.
func (c *CPU) CheckX87() {
	if c.CR0&(CR0EM|CR0TS) != 0 {
		c.Raise(VecNM)
	}
}

// CheckX87Error raises #MF for an unmasked error that a waiting instruction finds pending.
// Where CR0.NE is clear, it is an interrupt from outside instead (SDM Vol. 1, "MS-DOS
// Compatibility Sub-mode"): FERR# is asserted, and unless IGNNE# is, the processor stops in
// front of the instruction until it is interrupted.
func (c *CPU) CheckX87Error() {
	switch {
	case c.FX[fxFSW]&0x80 == 0:
		c.IGNNE = false
	case c.CR0&CR0NE != 0:
		c.Raise(VecMF)
	case !c.IGNNE:
		if c.FERR != nil {
			c.FERR()
		}
		c.Activity = Halted
		c.Abandon()
	}
}

// IgnoreX87Errors asserts IGNNE#, as a PC does from the acknowledgement of an error until that is cleared.
func (c *CPU) IgnoreX87Errors() { c.IGNNE = c.FX[fxFSW]&0x80 != 0 }

// MXCSR returns the SSE control and status register.
func (c *CPU) MXCSR() uint32 { return binary.LittleEndian.Uint32(c.FX[fxMXCSR:]) }

// SetMXCSR sets it. Preconditions: no bit outside MXCSRMask.
func (c *CPU) SetMXCSR(v uint32) { binary.LittleEndian.PutUint32(c.FX[fxMXCSR:], v) }

func (c *CPU) fsw() uint16 { return binary.LittleEndian.Uint16(c.FX[fxFSW:]) }

// mmOffset is where MMX register r lies: MMX registers are physical, the image is by stack position.
func (c *CPU) mmOffset(r uint8) int {
	top := uint8(c.fsw() >> 11 & 7)
	return fxST + 16*int((r-top)&7)
}

// MM returns MMX register r.
func (c *CPU) MM(r uint8) uint64 { return binary.LittleEndian.Uint64(c.FX[c.mmOffset(r):]) }

// SetMM sets MMX register r; the exponent above it becomes all ones (SDM Vol. 1 9.6.2). TouchMMX comes before.
func (c *CPU) SetMM(r uint8, v uint64) {
	at := c.mmOffset(r)
	binary.LittleEndian.PutUint64(c.FX[at:], v)
	c.FX[at+8], c.FX[at+9] = 0xff, 0xff
}

// TouchMMX is what every MMX instruction but EMMS does to the x87 state: the stack top
// becomes zero and all registers valid (SDM Vol. 1 9.5.1).
func (c *CPU) TouchMMX() {
	top := int(c.fsw() >> 11 & 7)
	if top != 0 {
		// Physical register r was at position r-top; now it is at r.
		var st [128]byte
		copy(st[:], c.FX[fxST:fxST+128])
		for r := range 8 {
			copy(c.FX[fxST+16*r:fxST+16*r+16], st[16*((r-top)&7):])
		}
		c.FX[fxFSW+1] &^= 0x38
	}
	c.FX[fxFTW] = 0xff
}

// EmptyX87 marks all x87 registers empty, as EMMS does; the stack top becomes zero too (SDM Vol. 1 table 9-3).
func (c *CPU) EmptyX87() {
	c.TouchMMX()
	c.FX[fxFTW] = 0
}

// CleanX87 makes an FXSAVE image's x87 part what a processor can hold: what no
// instruction can read back, the padding of the registers, is clear, and the summary bits
// of the status word follow from its exceptions and the control word.
func CleanX87(img *[512]byte) {
	le := binary.LittleEndian
	img[fxFTW+1] = 0
	for i := range 8 {
		clear(img[fxST+16*i+10 : fxST+16*i+16])
	}
	fsw := le.Uint16(img[fxFSW:])
	if fsw&0x3f&^(le.Uint16(img[fxFCW:])) != 0 {
		fsw |= 0x8080
	} else {
		fsw &^= 0x8080
	}
	le.PutUint16(img[fxFSW:], fsw)
	le.PutUint16(img[fxFCW:], le.Uint16(img[fxFCW:])&0x1f3f|0x40) // the other bits are reserved, bit 6 reads as one
}

// cleanFX must be called after FX was set from outside: the host's unit would not load
// anything that a processor cannot hold, and a fault there is none of the guest's.
func (c *CPU) cleanFX() {
	CleanX87(&c.FX)
	c.SetMXCSR(c.MXCSR() & MXCSRMask)
}
