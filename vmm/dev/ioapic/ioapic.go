package ioapic

import (
	"fmt"

	"refault/vmm/dev"
	"refault/vmm/dev/lapic"
)

// NumPins is the number of inputs.
const NumPins = 24

// WindowBytes is the size of the register window.
const WindowBytes = 0x1000

// Entry bits.
const (
	entryRemote = 1 << 14
	entryLevel  = 1 << 15
	// EntryMask keeps the input from sending.
	EntryMask = 1 << 16
)

// State is the saved state.
type State struct {
	Version uint8
	ID      uint32
	Select  uint8
	Lines   uint32 // which inputs are asserted
	Entry   [NumPins]uint64
}

// Sink takes interrupt messages. *lapic.Hub implements it.
type Sink interface {
	Deliver(m lapic.Message)
}

// IOAPIC is the controller.
type IOAPIC struct {
	State
	sink Sink
}

// New returns a controller that sends to sink.
func New(sink Sink) *IOAPIC {
	a := &IOAPIC{sink: sink}
	a.Reset()
	return a
}

// Name implements dev.Device.
func (a *IOAPIC) Name() string { return "ioapic" }

// Reset implements dev.Device.
func (a *IOAPIC) Reset() {
	a.State = State{Version: 1, Lines: a.Lines}
	for i := range a.Entry {
		a.Entry[i] = EntryMask
	}
}

// Save implements dev.Device.
func (a *IOAPIC) Save() any { s := a.State; return &s }

// Restore implements dev.Device.
func (a *IOAPIC) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("version %d, this program reads 1", s.Version)
	}
	a.State = s
	return nil
}

// Line returns input n.
func (a *IOAPIC) Line(n int) dev.Line {
	return dev.LineFunc(func(level bool) { a.set(n, level) })
}

func (a *IOAPIC) set(n int, level bool) {
	was := a.Lines>>n&1 != 0
	if level {
		a.Lines |= 1 << n
	} else {
		a.Lines &^= 1 << n
	}
	if e := a.Entry[n]; levelTriggered(e) {
		a.service(n)
	} else if level && !was && e&EntryMask == 0 {
		a.send(n)
	}
}

// levelTriggered reports whether an entry sends again and again. Other messages than
// interrupts are edges, even if the entry says otherwise.
func levelTriggered(e uint64) bool {
	mode := e >> 8 & 7
	return e&entryLevel != 0 && (mode == lapic.ModeFixed || mode == lapic.ModeLowest)
}

// service sends the message of a level-triggered input that is asserted and not being served.
func (a *IOAPIC) service(n int) {
	e := &a.Entry[n]
	if !levelTriggered(*e) || *e&(EntryMask|entryRemote) != 0 || a.Lines>>n&1 == 0 {
		return
	}
	*e |= entryRemote
	a.send(n)
}

func (a *IOAPIC) send(n int) {
	e := a.Entry[n]
	a.sink.Deliver(lapic.Message{
		Vector: uint8(e), Mode: uint8(e >> 8 & 7), Logical: e&(1<<11) != 0, Level: levelTriggered(e), Dest: uint32(e >> 56),
	})
}

// EOI ends a level-triggered interrupt: an input that is still asserted interrupts again.
func (a *IOAPIC) EOI(vector uint8) {
	for n := range a.Entry {
		if e := &a.Entry[n]; *e&entryLevel != 0 && uint8(*e) == vector && *e&entryRemote != 0 {
			*e &^= entryRemote
			a.service(n)
		}
	}
}

// Nonmaskable reports whether any input sends what a processor takes that has its interrupts off.
func (a *IOAPIC) Nonmaskable() bool {
	for _, e := range a.Entry {
		switch e >> 8 & 7 {
		case lapic.ModeSMI, lapic.ModeNMI, lapic.ModeINIT:
			if e&EntryMask == 0 {
				return true
			}
		}
	}
	return false
}

// Read implements dev.Registers.
func (a *IOAPIC) Read(off uint64, _ int) uint64 {
	switch off {
	case 0:
		return uint64(a.Select)
	case 0x10:
		return uint64(a.reg())
	}
	return 0
}

func (a *IOAPIC) reg() uint32 {
	switch r := a.Select; {
	case r == 0 || r == 2:
		return a.ID
	case r == 1:
		return 0x20 | (NumPins-1)<<16
	case r >= 0x10 && r < 0x10+2*NumPins:
		return uint32(a.Entry[(r-0x10)/2] >> (32 * (r & 1)))
	}
	return 0
}

// Write implements dev.Registers.
func (a *IOAPIC) Write(off uint64, _ int, v uint64) {
	switch off {
	case 0:
		a.Select = uint8(v)
	case 0x10:
		a.setReg(uint32(v))
	case 0x40:
		a.EOI(uint8(v))
	}
}

func (a *IOAPIC) setReg(v uint32) {
	r := a.Select
	if r == 0 {
		a.ID = v & 0x0f000000
		return
	}
	if r < 0x10 || r >= 0x10+2*NumPins {
		return
	}
	n := int(r-0x10) / 2
	e := &a.Entry[n]
	if r&1 != 0 {
		*e = *e&0xffffffff | uint64(v&0xff000000)<<32
		return
	}
	const readOnly = entryRemote | 1<<12
	*e = *e&^0xffffffff | *e&readOnly | uint64(v)&^readOnly&0x1ffff
	if !levelTriggered(*e) {
		*e &^= entryRemote
	}
	a.service(n)
}
