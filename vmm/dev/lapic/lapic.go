// Package lapic is the local APIC of a processor (SDM Vol. 3A chapter 10): xAPIC
// registers in memory, x2APIC registers as MSRs, and the timer in its three modes.
//
// The APICs of a machine share a Hub, which carries interrupt messages between
// them and from the I/O APIC. Nothing is delayed: a message is accepted at the
// step at which it was sent.
package lapic

import (
	"fmt"
	"math/bits"

	"refault/vmm/dev"
)

// Local vector table entries, by their order in State.LVT.
const (
	LVTTimer = iota
	LVTCMCI
	LVTLINT0
	LVTLINT1
	LVTError
	LVTPerf
	LVTThermal
	numLVT
)

// MSRs.
const (
	msrAPICBase    = 0x1b
	msrTSCDeadline = 0x6e0
	msrX2APIC      = 0x800
)

// IA32_APIC_BASE bits.
const (
	baseBSP    = 1 << 8
	baseX2     = 1 << 10
	baseEnable = 1 << 11

	defaultBase = 0xfee00000
)

// LVT bits.
const (
	lvtMasked  = 1 << 16
	lvtPending = 1 << 12
	lvtLevel   = 1 << 15
)

// Delivery modes (SDM Vol. 3A 10.6.1).
const (
	ModeFixed  = 0
	ModeLowest = 1
	ModeSMI    = 2
	ModeNMI    = 4
	ModeINIT   = 5
	ModeSIPI   = 6
	ModeExtINT = 7
)

// Message is an interrupt message.
type Message struct {
	Vector  uint8
	Mode    uint8
	Logical bool
	Level   bool // level-triggered
	Dest    uint32
}

// Processor is what a local APIC asks of its processor besides taking interrupts.
type Processor interface {
	NMI()
	INIT()
	SIPI(vector uint8)
	SMI()
}

// State is the saved state of a local APIC.
type State struct {
	Version         uint8
	Base            uint64
	TPR             uint8
	LDR, DFR, SVR   uint32
	ESR, ESRPending uint32
	ICR             uint64
	LVT             [numLVT]uint32
	ISR, TMR, IRR   [8]uint32
	Divide          uint32
	Initial         uint32
	StartNs         uint64 // when the timer was started
	Running         bool
	DeadlineTSC     uint64
	ExtINT          bool // the PIC asks, through LINT0
}

// LAPIC is one local APIC.
type LAPIC struct {
	State
	id    uint32
	hub   *Hub
	q     *dev.Queue
	timer *dev.Timer
	cpu   Processor
	pic   func() uint8 // interrupt acknowledge of the PIC
	tsc   func() uint64
}

// Hub carries messages between the APICs of a machine.
type Hub struct {
	apics []*LAPIC
	// EOI is called when a processor ends a level-triggered interrupt.
	EOI func(vector uint8)
}

// Config is what a local APIC is made of.
type Config struct {
	ID    int
	Hub   *Hub
	Queue *dev.Queue
	CPU   Processor
	// AckPIC acknowledges the interrupt of the PIC and returns its vector.
	AckPIC func() uint8
	// TSCAdjust returns how far the processor's time-stamp counter is ahead of virtual time.
	TSCAdjust func() uint64
}

// New returns a local APIC and adds it to its hub.
func New(cfg Config) *LAPIC {
	l := &LAPIC{id: uint32(cfg.ID), hub: cfg.Hub, q: cfg.Queue, cpu: cfg.CPU, pic: cfg.AckPIC, tsc: cfg.TSCAdjust}
	l.timer = cfg.Queue.NewTimer(l.Name(), l.expire)
	cfg.Hub.apics = append(cfg.Hub.apics, l)
	l.Reset()
	return l
}

// Name implements dev.Device.
func (l *LAPIC) Name() string { return fmt.Sprintf("lapic%d", l.id) }

// Reset implements dev.Device.
func (l *LAPIC) Reset() {
	l.State = State{Version: 1, Base: defaultBase | baseEnable}
	if l.id == 0 {
		l.Base |= baseBSP
	}
	l.softReset()
	// As firmware leaves it: the boot processor takes the PIC's interrupts.
}

// softReset sets what INIT resets too.
func (l *LAPIC) softReset() {
	base := l.Base
	l.State = State{Version: 1, Base: base, DFR: 0xffffffff, SVR: 0xff}
	for i := range l.LVT {
		l.LVT[i] = lvtMasked
	}
	l.timer.Stop()
}

// Save implements dev.Device.
func (l *LAPIC) Save() any { s := l.State; return &s }

// Restore implements dev.Device.
func (l *LAPIC) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("version %d, this program reads 1", s.Version)
	}
	l.State = s
	return nil
}

func (l *LAPIC) enabled() bool { return l.Base&baseEnable != 0 }
func (l *LAPIC) x2() bool      { return l.Base&(baseEnable|baseX2) == baseEnable|baseX2 }

// Decodes reports whether physical address pa is a register of this APIC.
func (l *LAPIC) Decodes(pa uint64) bool {
	return l.enabled() && !l.x2() && pa&^0xfff == l.Base&^0xfff&(1<<40-1)
}

// Interrupts.

func highest(set *[8]uint32) int {
	for i := 7; i >= 0; i-- {
		if set[i] != 0 {
			return 32*i + 31 - bits.LeadingZeros32(set[i])
		}
	}
	return -1
}

func test(set *[8]uint32, v uint8) bool { return set[v>>5]>>(v&31)&1 != 0 }
func put(set *[8]uint32, v uint8, on bool) {
	if on {
		set[v>>5] |= 1 << (v & 31)
	} else {
		set[v>>5] &^= 1 << (v & 31)
	}
}

// ppr is the processor priority.
func (l *LAPIC) ppr() uint8 {
	isr := max(highest(&l.ISR), 0)
	if uint8(isr)>>4 > l.TPR>>4 {
		return uint8(isr) & 0xf0
	}
	return l.TPR
}

// fixed returns the vector that is to be delivered, or -1.
func (l *LAPIC) fixed() int {
	v := highest(&l.IRR)
	if v < 0 || uint8(v)>>4 <= l.ppr()>>4 {
		return -1
	}
	return v
}

// extINT reports whether the PIC's request reaches the processor.
func (l *LAPIC) extINT() bool {
	if !l.ExtINT {
		return false
	}
	if !l.enabled() || l.SVR&0x100 == 0 {
		return true // virtual wire: an APIC that is off lets the PIC through
	}
	e := l.LVT[LVTLINT0]
	return e&lvtMasked == 0 && e>>8&7 == ModeExtINT
}

// Pending reports whether an interrupt waits that the priorities let through.
func (l *LAPIC) Pending() bool { return l.extINT() || l.fixed() >= 0 }

// Acknowledge takes the interrupt that Pending reported and returns its vector.
func (l *LAPIC) Acknowledge() uint8 {
	if v := l.fixed(); v >= 0 {
		put(&l.IRR, uint8(v), false)
		put(&l.ISR, uint8(v), true)
		return uint8(v)
	}
	if l.extINT() {
		return l.pic()
	}
	return uint8(l.SVR)
}

// SetExtINT is the line from the PIC.
func (l *LAPIC) SetExtINT(level bool) {
	was := l.ExtINT
	l.ExtINT = level
	if e := l.LVT[LVTLINT0]; level && !was && l.SVR&0x100 != 0 && e&lvtMasked == 0 && e>>8&7 != ModeExtINT {
		l.local(LVTLINT0)
	}
}

// accept takes a fixed interrupt.
func (l *LAPIC) accept(v uint8, level bool) {
	if v < 16 {
		l.raiseError(1 << 6)
		return
	}
	put(&l.IRR, v, true)
	put(&l.TMR, v, level)
}

// local delivers what a local vector table entry says; false means that it is masked.
func (l *LAPIC) local(n int) bool {
	e := l.LVT[n]
	if e&lvtMasked != 0 || !l.enabled() || l.SVR&0x100 == 0 {
		return false
	}
	switch e >> 8 & 7 {
	case ModeFixed:
		l.accept(uint8(e), false)
	case ModeNMI:
		l.cpu.NMI()
	case ModeSMI:
		l.cpu.SMI()
	case ModeINIT:
		l.cpu.INIT()
	}
	return true
}

// TriggerCMCI signals a corrected machine check; false means that it is masked.
func (l *LAPIC) TriggerCMCI() bool { return l.local(LVTCMCI) }

func (l *LAPIC) raiseError(bit uint32) {
	if l.ESRPending&bit == 0 {
		l.ESRPending |= bit
		l.local(LVTError)
	}
}

// Deliver sends a message to every APIC that it is addressed to.
func (h *Hub) Deliver(m Message) { h.deliver(m, nil, 0) }

// Destination shorthands (SDM Vol. 3A 10.6.1).
const (
	toDest = iota
	toSelf
	toAll
	toOthers
)

func (h *Hub) deliver(m Message, from *LAPIC, shorthand int) {
	var lowest *LAPIC
	for _, l := range h.apics {
		switch shorthand {
		case toSelf:
			if l != from {
				continue
			}
		case toOthers:
			if l == from {
				continue
			}
		case toDest:
			if !l.addressed(m) {
				continue
			}
		}
		if m.Mode == ModeLowest {
			if lowest == nil || l.ppr() < lowest.ppr() {
				lowest = l
			}
			continue
		}
		l.take(m)
	}
	if lowest != nil {
		m.Mode = ModeFixed
		lowest.take(m)
	}
}

func (l *LAPIC) addressed(m Message) bool {
	if !l.enabled() {
		return false
	}
	if !m.Logical {
		return m.Dest == l.id || m.Dest == 0xff && !l.x2() || m.Dest == 0xffffffff
	}
	if l.x2() {
		ldr := l.x2LDR()
		return m.Dest == 0xffffffff || m.Dest>>16 == ldr>>16 && m.Dest&ldr&0xffff != 0
	}
	ldr := l.LDR >> 24
	if l.DFR>>28 == 0xf {
		return m.Dest&ldr&0xff != 0
	}
	return (m.Dest>>4 == ldr>>4 || m.Dest>>4&15 == 15) && m.Dest&ldr&15 != 0
}

func (l *LAPIC) x2LDR() uint32 { return l.id>>4<<16 | 1<<(l.id&15) }

func (l *LAPIC) take(m Message) {
	switch m.Mode {
	case ModeFixed:
		if l.SVR&0x100 != 0 {
			l.accept(m.Vector, m.Level)
		}
	case ModeNMI:
		l.cpu.NMI()
	case ModeINIT:
		l.softReset()
		l.cpu.INIT()
	case ModeSIPI:
		l.cpu.SIPI(m.Vector)
	case ModeSMI:
		l.cpu.SMI()
	case ModeExtINT:
		l.ExtINT = true
	}
}

func (l *LAPIC) eoi() {
	v := highest(&l.ISR)
	if v < 0 {
		return
	}
	put(&l.ISR, uint8(v), false)
	if test(&l.TMR, uint8(v)) && l.SVR&(1<<12) == 0 && l.hub.EOI != nil {
		l.hub.EOI(uint8(v))
	}
}

// The timer.

func (l *LAPIC) divisor() uint64 {
	return [8]uint64{2, 4, 8, 16, 32, 64, 128, 1}[l.Divide&3|l.Divide>>1&4]
}

func (l *LAPIC) timerMode() uint32 { return l.LVT[LVTTimer] >> 17 & 3 }

// currentCount reads the count, which follows from the time of the start: the input clock is 1 GHz.
func (l *LAPIC) currentCount() uint32 {
	if !l.Running || l.Initial == 0 || l.timerMode() == 2 {
		return 0
	}
	n := (l.q.Now() - l.StartNs) / l.divisor()
	if l.timerMode() == 1 {
		return l.Initial - uint32(n%uint64(l.Initial))
	}
	if n >= uint64(l.Initial) {
		return 0
	}
	return l.Initial - uint32(n)
}

func (l *LAPIC) startTimer() {
	l.StartNs, l.Running = l.q.Now(), l.Initial != 0
	l.armTimer()
}

func (l *LAPIC) armTimer() {
	switch {
	case l.timerMode() == 2:
		if l.DeadlineTSC == 0 {
			l.timer.Stop()
			return
		}
		l.timer.Set(l.DeadlineTSC - l.tsc())
	case l.Running:
		period := uint64(l.Initial) * l.divisor()
		next := l.StartNs + period
		if l.timerMode() == 1 {
			next = l.StartNs + ((l.q.Now()-l.StartNs)/period+1)*period
		}
		l.timer.Set(next)
	default:
		l.timer.Stop()
	}
}

func (l *LAPIC) expire() {
	switch l.timerMode() {
	case 2:
		l.DeadlineTSC = 0
	case 1:
		l.armTimer()
	default:
		l.Running = false
	}
	l.local(LVTTimer)
}

// CR8 returns the task priority class.
func (l *LAPIC) CR8() uint8 { return l.TPR >> 4 }

// SetCR8 sets it.
func (l *LAPIC) SetCR8(v uint8) { l.TPR = v << 4 }

// Registers, by number: the offset of the xAPIC register divided by 16.
const (
	regID     = 0x02
	regVer    = 0x03
	regTPR    = 0x08
	regAPR    = 0x09
	regPPR    = 0x0a
	regEOI    = 0x0b
	regLDR    = 0x0d
	regDFR    = 0x0e
	regSVR    = 0x0f
	regISR    = 0x10
	regTMR    = 0x18
	regIRR    = 0x20
	regESR    = 0x28
	regCMCI   = 0x2f
	regICR    = 0x30
	regICR2   = 0x31
	regTimer  = 0x32
	regInit   = 0x38
	regCount  = 0x39
	regDivide = 0x3e
	regSelf   = 0x3f
)

// lvtIndex returns which entry of the local vector table a register is, or -1.
func lvtIndex(reg uint32) int {
	switch reg {
	case regCMCI:
		return LVTCMCI
	case regTimer:
		return LVTTimer
	case 0x33:
		return LVTThermal
	case 0x34:
		return LVTPerf
	case 0x35:
		return LVTLINT0
	case 0x36:
		return LVTLINT1
	case 0x37:
		return LVTError
	}
	return -1
}

func (l *LAPIC) read(reg uint32) (uint32, bool) {
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
	case regVer:
		return 0x14 | (numLVT-1)<<16 | 1<<24, true // with EOI-broadcast suppression
	case regTPR:
		return uint32(l.TPR), true
	case regAPR, regEOI:
		return 0, !l.x2()
	case regPPR:
		return uint32(l.ppr()), true
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
	case regICR2:
		return uint32(l.ICR >> 32), !l.x2()
	case regInit:
		return l.Initial, true
	case regCount:
		return l.currentCount(), true
	case regDivide:
		return l.Divide, true
	}
	return 0, false
}

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
		if l.x2() {
			return false
		}
		l.LDR = v & 0xff000000
	case regDFR:
		if l.x2() {
			return false
		}
		l.DFR = v | 0x0fffffff
	case regSVR:
		l.SVR = v & 0x13ff
		if v&0x100 == 0 { // switched off: everything local is masked
			for i := range l.LVT {
				l.LVT[i] |= lvtMasked
			}
		}
	case regESR:
		l.ESR, l.ESRPending = l.ESRPending, 0
	case regICR:
		l.ICR = l.ICR&^0xffffffff | uint64(v&^lvtPending)
		if !l.x2() {
			l.send()
		}
	case regICR2:
		if l.x2() {
			return false
		}
		l.ICR = l.ICR&0xffffffff | uint64(v)<<32
	case regInit:
		if l.timerMode() == 2 {
			return true // ignored in TSC-deadline mode
		}
		l.Initial = v
		l.startTimer()
	case regDivide:
		l.Divide = v & 0xb
		if l.Running {
			l.armTimer()
		}
	case regID, regVer, regPPR, regCount:
		return !l.x2()
	default:
		return false
	}
	return true
}

func (l *LAPIC) writeLVT(i int, v uint32) {
	mask := uint32(lvtMasked | 0x7ff)
	switch i {
	case LVTTimer:
		mask = lvtMasked | 0xff | 3<<17
	case LVTError:
		mask = lvtMasked | 0xff
	case LVTLINT0, LVTLINT1:
		mask = lvtMasked | lvtLevel | 1<<13 | 0x7ff
	}
	if l.SVR&0x100 == 0 {
		v |= lvtMasked
	}
	old := l.timerMode()
	l.LVT[i] = v & mask
	if i == LVTTimer && old != l.timerMode() {
		l.DeadlineTSC, l.Running = 0, false
		if old == 2 || l.timerMode() == 2 {
			l.Initial = 0
		} else {
			l.Running = l.Initial != 0
		}
		l.armTimer()
	}
}

func (l *LAPIC) send() {
	dest := uint32(l.ICR >> 56)
	if l.x2() {
		dest = uint32(l.ICR >> 32)
	}
	v := uint32(l.ICR)
	m := Message{Vector: uint8(v), Mode: uint8(v >> 8 & 7), Logical: v&(1<<11) != 0, Level: false, Dest: dest}
	if m.Mode == ModeINIT && v&(1<<15) != 0 && v&(1<<14) == 0 {
		return // INIT level de-assert: nothing on processors since the Pentium 4
	}
	l.hub.deliver(m, l, int(v>>18&3))
}

// Read implements dev.Registers for the xAPIC page.
func (l *LAPIC) Read(off uint64, _ int) uint64 {
	if off&0xf != 0 {
		return 0
	}
	v, ok := l.read(uint32(off >> 4))
	if !ok {
		l.raiseError(1 << 7)
	}
	return uint64(v)
}

// Write implements dev.Registers.
func (l *LAPIC) Write(off uint64, _ int, v uint64) {
	if off&0xf != 0 {
		return
	}
	if !l.write(uint32(off>>4), uint32(v)) {
		l.raiseError(1 << 7)
	}
}

// ReadMSR reads a register of the APIC. handled is false where the MSR is not one; ok is false for #GP.
func (l *LAPIC) ReadMSR(msr uint32) (v uint64, handled, ok bool) {
	switch {
	case msr == msrAPICBase:
		return l.Base, true, true
	case msr == msrTSCDeadline:
		return l.DeadlineTSC, true, true
	case msr >= msrX2APIC && msr < msrX2APIC+0x100:
		if !l.x2() {
			return 0, true, false
		}
		reg := msr - msrX2APIC
		switch reg {
		case regICR:
			return l.ICR, true, true
		case regEOI, regSelf, regICR2, regDFR:
			return 0, true, false
		}
		x, ok := l.read(reg)
		return uint64(x), true, ok
	}
	return 0, false, false
}

// WriteMSR writes a register of the APIC.
func (l *LAPIC) WriteMSR(msr uint32, v uint64) (handled, ok bool) {
	switch {
	case msr == msrAPICBase:
		return true, l.writeBase(v)
	case msr == msrTSCDeadline:
		if l.timerMode() == 2 {
			l.DeadlineTSC = v
			l.armTimer()
		}
		return true, true
	case msr >= msrX2APIC && msr < msrX2APIC+0x100:
		if !l.x2() {
			return true, false
		}
		reg := msr - msrX2APIC
		switch reg {
		case regICR:
			l.ICR = v &^ lvtPending
			l.send()
			return true, true
		case regSelf:
			l.accept(uint8(v), false)
			return true, v>>8 == 0
		case regEOI, regESR:
			if v != 0 {
				return true, false
			}
		case regICR2, regDFR:
			return true, false
		}
		if v>>32 != 0 {
			return true, false
		}
		return true, l.write(reg, uint32(v))
	}
	return false, false
}

func (l *LAPIC) writeBase(v uint64) bool {
	const fixed = baseBSP
	if v&^(1<<40-1) != 0 || v&0x2ff != 0 || v&fixed != l.Base&fixed {
		return false
	}
	was, now := l.Base>>10&3, v>>10&3
	// Transitions that SDM Vol. 3A figure 10-27 allows.
	if now == 1 || was == 3 && now == 2 || was == 0 && now == 3 {
		return false
	}
	l.Base = v
	if was != 0 && now == 0 {
		l.softReset()
	}
	if now == 3 && was == 2 {
		l.ICR &= 0xffffffff
	}
	return true
}
