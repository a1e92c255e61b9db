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
	StartNs         uint64 // when the count began, which may be before power-on (and wraps)
	Running         bool   // and Initial is not zero
	DeadlineTSC     uint64
	ExtINT          bool // the 8259A's INTR, at LINT0
	ExtINTMessage   bool // an ExtINT message that has not been acknowledged
	LINT1           bool
}

// Config is what a local APIC is made of.
type Config struct {
	ID    int
	Hub   *Hub
	Queue *dev.Queue
	CPU   Processor
	// AckPIC acknowledges the interrupt of the 8259A and returns its vector.
	AckPIC func() uint8
	// TSCAdjust returns how far the processor's time-stamp counter is ahead of virtual time.
	TSCAdjust func() uint64
}

// LAPIC is one local APIC.
type LAPIC struct {
	State
	// Filter, if set, is asked whether an interrupt arrives that was sent to this APIC.
	Filter    func(vector uint8, level bool) bool
	id        uint32
	hub       *Hub
	q         *dev.Queue
	timer     *dev.Timer
	cpu       Processor
	ackPIC    func() uint8
	tscAdjust func() uint64
}

var (
	_ dev.Device    = (*LAPIC)(nil)
	_ dev.Registers = (*LAPIC)(nil)
)

// New returns a local APIC and adds it to its hub.
func New(cfg Config) *LAPIC {
	l := &LAPIC{id: uint32(cfg.ID), hub: cfg.Hub, q: cfg.Queue, cpu: cfg.CPU, ackPIC: cfg.AckPIC, tscAdjust: cfg.TSCAdjust}
	l.timer = cfg.Queue.NewTimer(l.Name(), l.expire)
	cfg.Hub.apics = append(cfg.Hub.apics, l)
	l.Reset()
	return l
}

// Name implements dev.Device.
func (l *LAPIC) Name() string { return fmt.Sprintf("lapic%d", l.id) }

// Reset implements dev.Device (SDM Vol. 3A 10.4.7.1).
func (l *LAPIC) Reset() {
	l.Base = defaultBase | baseEnable
	if l.id == 0 {
		l.Base |= baseBSP
	}
	l.softReset()
}

// softReset is what INIT does, which leaves the base and the levels of the lines alone.
func (l *LAPIC) softReset() {
	l.State = State{Version: 1, Base: l.Base, DFR: 0xffffffff, SVR: 0xff, ExtINT: l.ExtINT, LINT1: l.LINT1}
	for i := range l.LVT {
		l.LVT[i] = LVTMasked
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
	if s.Running && s.Initial == 0 {
		return fmt.Errorf("the timer counts from zero")
	}
	l.State = s
	return nil
}

func (l *LAPIC) enabled() bool         { return l.Base&baseEnable != 0 }
func (l *LAPIC) softwareEnabled() bool { return l.SVR&svrEnable != 0 }
func (l *LAPIC) x2() bool              { return l.Base&(baseEnable|baseX2) == baseEnable|baseX2 }

// highest returns the highest vector in a set, or -1.
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

// ppr returns the processor priority (10.8.3.1).
func (l *LAPIC) ppr() uint8 {
	if isr := uint8(max(highest(&l.ISR), 0)); isr>>4 > l.TPR>>4 {
		return isr & 0xf0
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

// extINT reports whether an interrupt of the 8259A reaches the processor.
func (l *LAPIC) extINT() bool {
	if l.ExtINTMessage {
		return true
	}
	return l.ExtINT && l.TakesExtINT()
}

// TakesExtINT reports whether the processor hears of the 8259A's INTR.
func (l *LAPIC) TakesExtINT() bool {
	if !l.enabled() || !l.softwareEnabled() {
		return true
	}
	e := l.LVT[LVTLINT0]
	return e&LVTMasked == 0 && e>>8&7 == ModeExtINT
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
		l.ExtINTMessage = false
		return l.ackPIC()
	}
	return uint8(l.SVR) // spurious (10.9)
}

// SetExtINT is the level of LINT0, the line from the 8259A.
func (l *LAPIC) SetExtINT(level bool) {
	rises := level && !l.ExtINT
	l.ExtINT = level
	if rises && l.LVT[LVTLINT0]>>8&7 != ModeExtINT {
		l.local(LVTLINT0)
	}
}

// SetLINT1 is the level of LINT1, which a PC uses for NMI. While the APIC is globally disabled it is the NMI pin.
func (l *LAPIC) SetLINT1(level bool) {
	rises := level && !l.LINT1
	l.LINT1 = level
	if !rises {
		return
	}
	if !l.enabled() {
		l.cpu.NMI()
		return
	}
	l.local(LVTLINT1)
}

// Nonmaskable reports whether LINT0, the line from the 8259A, brings what a processor takes
// that has its interrupts off: a way to have the timer as a watchdog.
func (l *LAPIC) Nonmaskable() bool {
	e := l.LVT[LVTLINT0]
	switch e >> 8 & 7 {
	case ModeSMI, ModeNMI, ModeINIT:
		return e&LVTMasked == 0 && l.enabled() && l.softwareEnabled()
	}
	return false
}

// TriggerCMCI signals a corrected machine check; false means that it is masked.
func (l *LAPIC) TriggerCMCI() bool { return l.local(LVTCMCI) }

// local delivers what a local vector table entry says; false means that it is masked.
func (l *LAPIC) local(n int) bool {
	e := l.LVT[n]
	if e&LVTMasked != 0 || !l.enabled() || !l.softwareEnabled() {
		return false
	}
	mode := e >> 8 & 7
	if n == LVTTimer || n == LVTError {
		mode = ModeFixed
	}
	switch mode {
	case ModeFixed:
		l.accept(uint8(e), false)
	case ModeNMI:
		l.cpu.NMI()
	case ModeSMI:
		l.cpu.SMI()
	case ModeINIT:
		l.softReset()
		l.cpu.INIT()
	}
	return true
}

// accept takes a fixed interrupt.
func (l *LAPIC) accept(v uint8, level bool) {
	if v < 16 {
		l.raiseError(esrReceiveVector)
		return
	}
	if l.Filter != nil && !l.Filter(v, level) {
		return
	}
	l.Accept(v, level)
}

// Accept accepts an interrupt, whatever Filter says of it.
func (l *LAPIC) Accept(v uint8, level bool) {
	put(&l.IRR, v, true)
	put(&l.TMR, v, level)
}

// raiseError notes an error, for the next write of ESR to show. An error vector that is
// itself illegal ends here, since its error has been noted.
func (l *LAPIC) raiseError(bit uint32) {
	if l.ESRPending&bit == 0 {
		l.ESRPending |= bit
		l.local(LVTError)
	}
}

// eoi ends the interrupt with the highest priority.
func (l *LAPIC) eoi() {
	v := highest(&l.ISR)
	if v < 0 {
		return
	}
	put(&l.ISR, uint8(v), false)
	if test(&l.TMR, uint8(v)) && l.SVR&svrNoEOI == 0 && l.hub.EOI != nil {
		l.hub.EOI(uint8(v))
	}
}

// CR8 returns the task priority class.
func (l *LAPIC) CR8() uint8 { return l.TPR >> 4 }

// SetCR8 sets the task priority class.
func (l *LAPIC) SetCR8(v uint8) { l.TPR = v << 4 }
