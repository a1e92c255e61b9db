package x86

import "encoding/binary"

// Control registers and what depends on them (SDM Vol. 3A 2.5, Vol. 2B MOV—Move to/from Control Registers).

const (
	cr0Known = CR0PE | CR0MP | CR0EM | CR0TS | CR0ET | CR0NE | CR0WP | CR0AM | CR0NW | CR0CD | CR0PG
	cr4Known = CR4DE | CR4TSD | CR4PSE | CR4PAE | CR4MCE | CR4PGE | CR4PCE | CR4OSFXSR | CR4OSXMMEXCPT |
		CR4UMIP | CR4FSGSBASE | CR4PCIDE | CR4OSXSAVE | CR4SMEP | CR4SMAP
)

// ReadCR executes MOV from CRn.
func (c *CPU) ReadCR(n uint8) uint64 {
	c.checkCR(n)
	switch n {
	case 0:
		return c.CR0
	case 2:
		return c.CR2
	case 3:
		return c.CR3
	case 4:
		return c.CR4
	}
	return c.Bus.ReadCR8(c)
}

// checkCR raises #UD for a control register that does not exist, and then #GP unless CPL is 0.
func (c *CPU) checkCR(n uint8) {
	switch n {
	case 0, 2, 3, 4, 8:
	default:
		c.Raise(VecUD)
	}
	if c.CPL != 0 {
		c.RaiseErr(VecGP, 0)
	}
}

// WriteCR executes MOV to CRn.
func (c *CPU) WriteCR(n uint8, v uint64) {
	c.checkCR(n)
	switch n {
	case 0:
		c.writeCR0(v)
	case 2:
		c.CR2 = v
	case 3:
		c.writeCR3(v)
	case 4:
		c.writeCR4(v)
	case 8:
		if v&^15 != 0 {
			c.RaiseErr(VecGP, 0)
		}
		c.Bus.WriteCR8(c, v)
	}
	c.Attention = true
}

func (c *CPU) writeCR0(v uint64) {
	gp := func(bad bool) {
		if bad {
			c.RaiseErr(VecGP, 0)
		}
	}
	gp(v>>32 != 0)
	v = v&cr0Known | CR0ET
	gp(v&CR0PG != 0 && v&CR0PE == 0)
	gp(v&CR0NW != 0 && v&CR0CD == 0)
	gp(v&CR0PG == 0 && c.CR4&CR4PCIDE != 0)
	efer := c.EFER
	if c.CR0&CR0PG == 0 && v&CR0PG != 0 && c.EFER&EFERLME != 0 {
		gp(c.CR4&CR4PAE == 0 || c.Seg[CS].Attr&SegL != 0)
		efer |= EFERLMA
	}
	if c.CR0&CR0PG != 0 && v&CR0PG == 0 {
		gp(c.LongMode() && c.CodeSize() == 8)
		efer &^= EFERLMA
	}
	if v&CR0PG != 0 && efer&EFERLMA == 0 && c.CR4&CR4PAE != 0 && (c.CR0^v)&(CR0PG|CR0CD|CR0NW) != 0 {
		c.loadPDPTE(c.CR3)
	}
	changed := c.CR0 ^ v
	c.CR0, c.EFER = v, efer
	c.ModeChanged()
	if changed&(CR0PG|CR0WP|CR0PE) != 0 {
		c.FlushTLB()
	}
}

func (c *CPU) writeCR3(v uint64) {
	noFlush := uint64(0)
	if c.CR4&CR4PCIDE != 0 {
		noFlush = 1 << 63 // the TLB is coherent: nothing depends on it
	}
	v &^= noFlush
	if c.LongMode() {
		if v>>physBits != 0 {
			c.RaiseErr(VecGP, 0)
		}
	} else {
		v &= 0xffffffff
		if c.CR0&CR0PG != 0 && c.CR4&CR4PAE != 0 {
			c.loadPDPTE(v)
		}
	}
	c.SetCR3(v)
}

// loadPDPTE loads the four page-directory-pointer registers of PAE paging (SDM Vol. 3A 4.4.1).
func (c *CPU) loadPDPTE(cr3 uint64) {
	var e [4]uint64
	for i := range e {
		off, ok := c.RAM.Offset(cr3&0xffffffe0 + uint64(8*i))
		if ok {
			e[i] = binary.LittleEndian.Uint64(c.RAM.Data()[off:])
		}
		if e[i]&pteP != 0 && e[i]&(pteRsv|pteRsvPAE|pteNX|0x1e6) != 0 {
			c.RaiseErr(VecGP, 0)
		}
	}
	c.PDPTE = e
}

func (c *CPU) writeCR4(v uint64) {
	gp := func(bad bool) {
		if bad {
			c.RaiseErr(VecGP, 0)
		}
	}
	gp(v&^cr4Known != 0)
	gp(c.LongMode() && v&CR4PAE == 0)
	gp(v&CR4PCIDE != 0 && c.CR4&CR4PCIDE == 0 && (!c.LongMode() || c.CR3&0xfff != 0))
	changed := c.CR4 ^ v
	const paging = CR4PSE | CR4PAE | CR4PGE | CR4PCIDE | CR4SMEP | CR4SMAP
	if c.CR0&CR0PG != 0 && !c.LongMode() && v&CR4PAE != 0 && changed&(CR4PAE|CR4PGE|CR4PSE|CR4SMEP) != 0 {
		c.loadPDPTE(c.CR3)
	}
	c.CR4 = v
	c.ModeChanged()
	if changed&paging != 0 {
		c.FlushTLB()
	}
}

// LoadMSW executes LMSW: PE, MP, EM and TS, and PE cannot be cleared.
func (c *CPU) LoadMSW(v uint64) { c.writeCR0(c.CR0&^0xe | c.CR0&CR0PE | v&0xf) }
