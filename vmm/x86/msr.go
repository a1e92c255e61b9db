package x86

// Model-specific registers of the core (SDM Vol. 4, tables 2-2 and 2-20). The rest
// belongs to devices: local APIC and machine-check banks, behind the Bus.
const (
	MSRTSC          = 0x10
	MSRPlatformID   = 0x17
	MSRFeatureCtl   = 0x3a
	MSRTSCAdjust    = 0x3b
	MSRSpecCtrl     = 0x48
	MSRPredCmd      = 0x49
	MSRBIOSSign     = 0x8b
	MSRMTRRCap      = 0xfe
	MSRArchCap      = 0x10a
	MSRFlushCmd     = 0x10b
	MSRSysenterCS   = 0x174
	MSRSysenterESP  = 0x175
	MSRSysenterEIP  = 0x176
	MSRMiscEnable   = 0x1a0
	MSRDebugCtl     = 0x1d9
	MSRMTRRVar      = 0x200 // 16 registers
	MSRMTRRFix64K   = 0x250
	MSRMTRRFix16K   = 0x258 // 2
	MSRMTRRFix4K    = 0x268 // 8
	MSRPAT          = 0x277
	MSRMTRRDefType  = 0x2ff
	MSREFER         = 0xc0000080
	MSRSTAR         = 0xc0000081
	MSRLSTAR        = 0xc0000082
	MSRCSTAR        = 0xc0000083
	MSRSFMASK       = 0xc0000084
	MSRFSBase       = 0xc0000100
	MSRGSBase       = 0xc0000101
	MSRKernelGSBase = 0xc0000102
	MSRTSCAux       = 0xc0000103
)

// archCapabilities says that the known side channels do not apply: RDCL_NO,
// IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
// FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO (SDM Vol. 4, 10AH).
// RRSBA and RSBA are clear. SSB_NO is set.
const archCapabilities = 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<8 | 1<<13 | 1<<14 | 1<<15 | 1<<20 | 1<<24 | 1<<26 | 1<<27 | 1<<62

// ReadMSR executes RDMSR; ok is false for #GP.
func (c *CPU) ReadMSR(msr uint32) (v uint64, ok bool) {
	if p := c.plainMSR(msr); p != nil {
		return *p, true
	}
	switch msr {
	case MSRTSC:
		return c.Bus.TSC(c) + c.TSCAdjust, true
	case MSRPlatformID:
		return 0, true
	case MSRFeatureCtl:
		return 1, true // locked, VMX off
	case MSRBIOSSign:
		return 0x02007006 << 32, true
	case MSRMTRRCap:
		return 8 | 1<<8 | 1<<10, true // eight variable ranges, fixed ranges, WC
	case MSRArchCap:
		return archCapabilities, true
	case MSRFSBase:
		return c.Seg[FS].Base, true
	case MSRGSBase:
		return c.Seg[GS].Base, true
	}
	return c.Bus.ReadMSR(c, msr)
}

// plainMSR returns where a register lives that reads as it was written, or nil.
func (c *CPU) plainMSR(msr uint32) *uint64 {
	switch msr {
	case MSRTSCAdjust:
		return &c.TSCAdjust
	case MSRSpecCtrl:
		return &c.SpecCtrl
	case MSRSysenterCS:
		return &c.SysenterCS
	case MSRSysenterESP:
		return &c.SysenterESP
	case MSRSysenterEIP:
		return &c.SysenterEIP
	case MSRMiscEnable:
		return &c.MiscEnable
	case MSRDebugCtl:
		return &c.DebugCtl
	case MSRMTRRFix64K:
		return &c.MTRRFixed[0]
	case MSRPAT:
		return &c.PAT
	case MSRMTRRDefType:
		return &c.MTRRDefType
	case MSREFER:
		return &c.EFER
	case MSRSTAR:
		return &c.STAR
	case MSRLSTAR:
		return &c.LSTAR
	case MSRCSTAR:
		return &c.CSTAR
	case MSRSFMASK:
		return &c.SFMASK
	case MSRKernelGSBase:
		return &c.KernelGSBase
	case MSRTSCAux:
		return &c.TSCAux
	}
	switch {
	case msr >= MSRMTRRVar && msr < MSRMTRRVar+16:
		return &c.MTRRVar[msr-MSRMTRRVar]
	case msr >= MSRMTRRFix16K && msr < MSRMTRRFix16K+2:
		return &c.MTRRFixed[1+msr-MSRMTRRFix16K]
	case msr >= MSRMTRRFix4K && msr < MSRMTRRFix4K+8:
		return &c.MTRRFixed[3+msr-MSRMTRRFix4K]
	}
	return nil
}

// WriteMSR executes WRMSR; ok is false for #GP.
func (c *CPU) WriteMSR(msr uint32, v uint64) (ok bool) {
	switch msr {
	case MSREFER:
		const known = EFERSCE | EFERLME | EFERLMA | EFERNXE
		if v&^known != 0 || (v^c.EFER)&EFERLME != 0 && c.CR0&CR0PG != 0 {
			return false
		}
		old := c.EFER
		c.EFER = v&^EFERLMA | old&EFERLMA
		if (old^v)&EFERNXE != 0 {
			c.FlushTLB()
		}
		return true
	case MSRTSC:
		c.TSCAdjust = v - c.Bus.TSC(c)
		return true
	case MSRLSTAR, MSRCSTAR, MSRKernelGSBase, MSRSysenterESP, MSRSysenterEIP, MSRFSBase, MSRGSBase:
		if !Canonical(v) {
			return false
		}
	case MSRSFMASK, MSRTSCAux:
		if v>>32 != 0 {
			return false
		}
	case MSRPAT:
		for i := range 8 {
			if t := v >> (8 * i) & 0xff; t > 7 || t == 2 || t == 3 {
				return false
			}
		}
	case MSRMTRRDefType:
		if v&^0xcff != 0 || !memoryType(v&0xff) {
			return false
		}
	case MSRSpecCtrl:
		if v&^(7|1<<10) != 0 { // IBRS, STIBP, SSBD, BHI_DIS_S
			return false
		}
	case MSRPredCmd:
		return v&^1 == 0 // nothing predicts here
	case MSRFlushCmd:
		return v&^1 == 0
	case MSRDebugCtl:
		v &= 3
	case MSRBIOSSign:
		return v == 0
	case MSRMTRRCap, MSRArchCap, MSRPlatformID, MSRFeatureCtl:
		return false
	}
	switch msr {
	case MSRFSBase:
		c.Seg[FS].Base = v
		return true
	case MSRGSBase:
		c.Seg[GS].Base = v
		return true
	}
	if msr >= MSRMTRRVar && msr < MSRMTRRVar+16 {
		if v>>40 != 0 || msr&1 == 0 && !memoryType(v&0xff) {
			return false
		}
	}
	if p := c.plainMSR(msr); p != nil {
		*p = v
		return true
	}
	return c.Bus.WriteMSR(c, msr, v)
}

// memoryType reports whether t is a memory type of the MTRRs.
func memoryType(t uint64) bool { return t == 0 || t == 1 || t >= 4 && t <= 6 }
