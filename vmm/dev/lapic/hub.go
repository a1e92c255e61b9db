package lapic

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

// broadcast is the destination of all processors, in an x2APIC's terms and in an xAPIC's.
const (
	broadcast      = 0xffffffff
	broadcastXAPIC = 0xff
)

// Message is an interrupt message.
type Message struct {
	Vector  uint8
	Mode    uint8
	Logical bool
	Level   bool // level-triggered
	// Dest has 32 bits in a message of an x2APIC, and 8 in all others.
	Dest uint32
}

// Hub carries messages between the APICs of a machine.
type Hub struct {
	apics []*LAPIC
	// EOI is called when a processor ends a level-triggered interrupt.
	EOI func(vector uint8)
}

// Deliver sends a message from outside the processors (I/O APIC, MSI) to every APIC
// that it is addressed to. Its destination has 8 bits.
func (h *Hub) Deliver(m Message) {
	if !m.Logical && m.Dest == broadcastXAPIC {
		m.Dest = broadcast
	}
	h.deliver(m, nil, toDest)
}

// Destination shorthands (SDM Vol. 3A 10.6.1).
const (
	toDest = iota
	toSelf
	toAll
	toOthers
)

func (h *Hub) deliver(m Message, from *LAPIC, shorthand uint32) {
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
		if !l.enabled() {
			continue
		}
		if m.Mode == ModeLowest {
			if l.softwareEnabled() && (lowest == nil || l.ppr() < lowest.ppr()) {
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

// addressed reports whether a message's destination includes this APIC (10.6.2, 10.12.9, 10.12.10).
func (l *LAPIC) addressed(m Message) bool {
	switch {
	case m.Dest == broadcast:
		return true
	case !m.Logical && l.x2():
		return m.Dest == l.id
	case !m.Logical:
		return m.Dest == l.id || m.Dest == broadcastXAPIC
	case l.x2():
		ldr := l.x2LDR()
		return m.Dest>>16 == ldr>>16 && m.Dest&ldr&0xffff != 0
	case m.Dest > 0xff:
		return false
	}
	ldr := l.LDR >> 24
	if l.DFR>>28 == 0xf { // flat model
		return m.Dest&ldr != 0
	}
	return (m.Dest>>4 == ldr>>4 || m.Dest>>4 == 15) && m.Dest&ldr&15 != 0 // cluster model
}

// take does what a message says that is addressed to this APIC.
func (l *LAPIC) take(m Message) {
	switch m.Mode {
	case ModeFixed:
		if l.softwareEnabled() {
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
		l.ExtINTMessage = true
	}
}

// send sends what the interrupt command register says.
func (l *LAPIC) send() {
	v := uint32(l.ICR)
	m := Message{Vector: uint8(v), Mode: uint8(v >> 8 & 7), Logical: v&icrLogical != 0, Dest: uint32(l.ICR >> 56)}
	if l.x2() {
		m.Dest = uint32(l.ICR >> 32)
	}
	switch m.Mode {
	case ModeFixed, ModeLowest:
		if m.Vector < 16 {
			l.raiseError(esrSendVector)
			return
		}
	case ModeINIT:
		if v&(icrLevel|icrAssert) == icrLevel {
			return // INIT level de-assert: nothing, on processors since the Pentium 4
		}
	case 3, ModeExtINT:
		return // reserved
	}
	l.hub.deliver(m, l, v>>18&3)
}
