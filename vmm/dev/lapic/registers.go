package lapic

// MSRs.
const (
	msrAPICBase    = 0x1b
	msrTSCDeadline = 0x6e0
	msrX2APIC      = 0x800
	numX2APIC      = 0x100
)

// Bits of IA32_APIC_BASE.
const (
	baseBSP    = 1 << 8
	baseX2     = 1 << 10
	baseEnable = 1 << 11

	baseAddress = 1<<40 - 1<<12 // CPUID tells 40 physical address bits
	defaultBase = 0xfee00000
)

// Registers, by number: the offset of the xAPIC register divided by 16, which is
// also the distance of the x2APIC's MSR from the first.
const (
	regID       = 0x02
	regVersion  = 0x03
	regTPR      = 0x08
	regAPR      = 0x09
	regPPR      = 0x0a
	regEOI      = 0x0b
	regRRD      = 0x0c
	regLDR      = 0x0d
	regDFR      = 0x0e
	regSVR      = 0x0f
	regISR      = 0x10 // 8 registers
	regTMR      = 0x18
	regIRR      = 0x20
	regESR      = 0x28
	regCMCI     = 0x2f
	regICR      = 0x30
	regICRHigh  = 0x31
	regLVTTimer = 0x32
	regThermal  = 0x33
	regPerf     = 0x34
	regLINT0    = 0x35
	regLINT1    = 0x36
	regLVTError = 0x37
	regInitial  = 0x38
	regCurrent  = 0x39
	regDivide   = 0x3e
	regSelfIPI  = 0x3f
)

// version is that of an integrated APIC, which can suppress the broadcast of EOIs.
const version = 0x14 | (numLVT-1)<<16 | 1<<24

// Bits of registers.
const (
	svrEnable   = 1 << 8
	svrNoEOI    = 1 << 12 // suppress EOI broadcasts
	svrWrites   = 0x13ff
	divideBits  = 0x0b
	dfrReserved = 0x0fffffff

	lvtVector    = 0xff
	lvtDelivery  = 7 << 8
	lvtPending   = 1 << 12
	lvtPolarity  = 1 << 13
	lvtRemoteIRR = 1 << 14
	lvtLevel     = 1 << 15
	LVTMasked    = 1 << 16
	lvtModeShift = 17

	icrLogical  = 1 << 11
	icrPending  = 1 << 12
	icrAssert   = 1 << 14
	icrLevel    = 1 << 15
	icrReserved = 1<<12 | 1<<13 | 3<<16 | 0xfff<<20 // of an x2APIC

	esrSendVector    = 1 << 5
	esrReceiveVector = 1 << 6
	esrRegister      = 1 << 7
)

// lvtWrites has the bits of each LVT entry that can be written.
var lvtWrites = [numLVT]uint32{
	LVTTimer:   lvtVector | LVTMasked | 3<<lvtModeShift,
	LVTCMCI:    lvtVector | LVTMasked | lvtDelivery,
	LVTLINT0:   lvtVector | LVTMasked | lvtDelivery | lvtPolarity | lvtLevel,
	LVTLINT1:   lvtVector | LVTMasked | lvtDelivery | lvtPolarity | lvtLevel,
	LVTError:   lvtVector | LVTMasked,
	LVTPerf:    lvtVector | LVTMasked | lvtDelivery,
	LVTThermal: lvtVector | LVTMasked | lvtDelivery,
}

// lvtIndex returns which entry of the local vector table a register is, or -1.
func lvtIndex(reg uint32) int {
	switch reg {
	case regCMCI:
		return LVTCMCI
	case regLVTTimer:
		return LVTTimer
	case regThermal:
		return LVTThermal
	case regPerf:
		return LVTPerf
	case regLINT0:
		return LVTLINT0
	case regLINT1:
		return LVTLINT1
	case regLVTError:
		return LVTError
	}
	return -1
}

// Decodes reports whether physical address pa is a register of this APIC.
func (l *LAPIC) Decodes(pa uint64) bool {
	return l.enabled() && !l.x2() && pa&^0xfff == l.Base&baseAddress
}

// x2LDR returns the logical identifier of an x2APIC (10.12.10.2).
func (l *LAPIC) x2LDR() uint32 { return l.id>>4<<16 | 1<<(l.id&15) }

// read reads a register that has 32 bits in both forms, or is in memory only; ok is false where there is none.
func (l *LAPIC) read(reg uint32) (v uint32, ok bool) {
	switch {
	case reg >= regISR && reg < regISR+8:
		return l.ISR[reg-regISR], true
	case reg >= regTMR && reg < regTMR+8:
		return l.TMR[reg-regTMR], true
	case reg >= regIRR && reg < regIRR+8:
		return l.IRR[reg-regIRR], true
	}
	if i := lvtIndex(reg); i >= 0 {
		return l.LVT[i], true
	}
	switch reg {
	case regID:
		if l.x2() {
			return l.id, true
		}
		return l.id << 24, true
	case regVersion:
		return version, true
	case regTPR:
		return uint32(l.TPR), true
	case regPPR:
		return uint32(l.ppr()), true
	case regAPR, regEOI, regRRD:
		return 0, !l.x2()
	case regLDR:
		if l.x2() {
			return l.x2LDR(), true
		}
		return l.LDR, true
	case regDFR:
		return l.DFR, !l.x2()
	case regSVR:
		return l.SVR, true
	case regESR:
		return l.ESR, true
	case regICR:
		return uint32(l.ICR), true
	case regICRHigh:
		return uint32(l.ICR >> 32), !l.x2()
	case regInitial:
		return l.Initial, true
	case regCurrent:
		return l.currentCount(), true
	case regDivide:
		return l.Divide, true
	}
	return 0, false
}

// write writes a register; it reports false where there is none.
func (l *LAPIC) write(reg uint32, v uint32) bool {
	if i := lvtIndex(reg); i >= 0 {
		l.writeLVT(i, v)
		return true
	}
	switch reg {
	case regTPR:
		l.TPR = uint8(v)
	case regEOI:
		l.eoi()
	case regLDR:
		l.LDR = v & 0xff000000
	case regDFR:
		l.DFR = v | dfrReserved
	case regSVR:
		l.SVR = v & svrWrites
		if v&svrEnable == 0 { // disabling masks all of the LVT (10.4.7.2)
			for i := range l.LVT {
				l.LVT[i] |= LVTMasked
			}
		}
	case regESR:
		l.ESR, l.ESRPending = l.ESRPending, 0
	case regICR:
		l.ICR = l.ICR&^0xffffffff | uint64(v&^icrPending)
		l.send()
	case regICRHigh:
		l.ICR = l.ICR&0xffffffff | uint64(v&0xff000000)<<32
	case regInitial:
		l.setInitial(v)
	case regDivide:
		l.setDivide(v)
	case regID, regVersion, regAPR, regPPR, regRRD, regCurrent:
		// read-only
	default:
		return reg >= regISR && reg < regIRR+8
	}
	return true
}

func (l *LAPIC) writeLVT(i int, v uint32) {
	if !l.softwareEnabled() {
		v |= LVTMasked
	}
	mode, count := l.timerMode(), l.currentCount()
	l.LVT[i] = v & lvtWrites[i]
	if i == LVTTimer {
		l.setTimerMode(mode, count)
	}
}

// Read implements dev.Registers for the xAPIC's page. Registers are the first four bytes
// of sixteen; an access to the others, which is undefined, reads as zero.
func (l *LAPIC) Read(off uint64, _ int) uint64 {
	if off&0xf > 3 {
		return 0
	}
	v, ok := l.read(uint32(off >> 4))
	if !ok {
		l.raiseError(esrRegister)
	}
	return uint64(v >> (8 * (off & 3)))
}

// Write implements dev.Registers.
func (l *LAPIC) Write(off uint64, _ int, v uint64) {
	if off&0xf != 0 {
		return
	}
	if !l.write(uint32(off>>4), uint32(v)) {
		l.raiseError(esrRegister)
	}
}

// ReadMSR reads a register of the APIC. handled is false where the MSR is not one; ok is false for #GP.
func (l *LAPIC) ReadMSR(msr uint32) (v uint64, handled, ok bool) {
	switch {
	case msr == msrAPICBase:
		return l.Base, true, true
	case msr == msrTSCDeadline:
		return l.DeadlineTSC, true, true
	case msr-msrX2APIC >= numX2APIC:
		return 0, false, false
	case !l.x2():
		return 0, true, false
	case msr == msrX2APIC+regICR:
		return l.ICR, true, true
	}
	r, ok := l.read(msr - msrX2APIC)
	return uint64(r), true, ok
}

// WriteMSR writes a register of the APIC. handled is false where the MSR is not one; ok is false for #GP.
func (l *LAPIC) WriteMSR(msr uint32, v uint64) (handled, ok bool) {
	switch {
	case msr == msrAPICBase:
		return true, l.writeBase(v)
	case msr == msrTSCDeadline:
		l.setDeadline(v)
		return true, true
	case msr-msrX2APIC >= numX2APIC:
		return false, false
	case !l.x2():
		return true, false
	}
	return true, l.writeX2(msr-msrX2APIC, v)
}

// writeX2 writes a register of an x2APIC, where setting a reserved bit and writing to a
// register that is read-only raise #GP (10.12.1.2, 10.12.1.3).
func (l *LAPIC) writeX2(reg uint32, v uint64) bool {
	writable := uint64(0)
	switch reg {
	case regICR:
		if v&icrReserved != 0 {
			return false
		}
		l.ICR = v
		l.send()
		return true
	case regSelfIPI:
		if v > 0xff {
			return false
		}
		if v < 16 {
			l.raiseError(esrSendVector)
		} else if l.softwareEnabled() {
			l.accept(uint8(v), false)
		}
		return true
	case regEOI, regESR:
		// zero only
	case regTPR:
		writable = 0xff
	case regSVR:
		writable = svrWrites
	case regInitial:
		writable = 0xffffffff
	case regDivide:
		writable = divideBits
	default:
		i := lvtIndex(reg)
		if i < 0 {
			return false
		}
		writable = uint64(lvtWrites[i]) | lvtPending // which is read-only, not reserved
		if i == LVTLINT0 || i == LVTLINT1 {
			writable |= lvtRemoteIRR
		}
	}
	return v&^writable == 0 && l.write(reg, uint32(v))
}

// writeBase writes IA32_APIC_BASE (10.4.4, and the transitions of 10.12.5).
func (l *LAPIC) writeBase(v uint64) bool {
	const enables = baseEnable | baseX2
	if v&^(baseAddress|enables|baseBSP) != 0 {
		return false
	}
	was, now := l.Base&enables, v&enables
	if now == baseX2 || was == enables && now == baseEnable || was == 0 && now == enables {
		return false
	}
	l.Base = v
	if now == 0 && was != 0 {
		l.softReset()
	}
	if now == enables && was == baseEnable {
		l.ICR &= 0xffffffff
	}
	return true
}
