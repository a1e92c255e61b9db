package uart

import (
	"fmt"

	"refault/vmm/dev"
)

// NumPorts is the size of the port range.
const NumPorts = 8

// Where a PC has its first serial port.
const (
	COM1    = 0x3f8
	COM1IRQ = 4
)

const (
	fifoSize = 16
)

// Registers. The first two are the divisor latch while LCR.DLAB is set.
const (
	regData = iota // RBR, THR
	regIER
	regIIR // FCR when written
	regLCR
	regMCR
	regLSR
	regMSR
	regSCR
)

// Bits of the registers.
const (
	ierRx     = 1 << 0 // ERBFI
	ierTx     = 1 << 1 // ETBEI
	ierLine   = 1 << 2 // ELSI
	ierModem  = 1 << 3 // EDSSI
	ierWrites = ierRx | ierTx | ierLine | ierModem

	iirNone    = 0x01
	iirModem   = 0x00
	iirTx      = 0x02
	iirRx      = 0x04
	iirLine    = 0x06
	iirTimeout = 0x0c
	iirFIFOs   = 0xc0

	fcrEnable  = 1 << 0
	fcrResetRx = 1 << 1
	fcrTrigger = 3 << 6

	lcrWordLength = 3
	lcrStop       = 1 << 2
	lcrParity     = 1 << 3
	lcrDLAB       = 1 << 7

	mcrDTR    = 1 << 0
	mcrRTS    = 1 << 1
	mcrOUT1   = 1 << 2
	mcrOUT2   = 1 << 3
	mcrLoop   = 1 << 4
	mcrWrites = 0x1f

	lsrData      = 1 << 0
	lsrOverrun   = 1 << 1
	lsrParity    = 1 << 2
	lsrFraming   = 1 << 3
	lsrBreak     = 1 << 4
	lsrTHRE      = 1 << 5
	lsrTEMT      = 1 << 6
	lsrFIFOError = 1 << 7
	lsrCharacter = lsrParity | lsrFraming | lsrBreak // errors that come with a character
	lsrErrors    = lsrOverrun | lsrCharacter

	msrRIFell = 1 << 2 // TERI; the other three deltas are a change of the bit four places up
	msrCTS    = 1 << 4
	msrDSR    = 1 << 5
	msrRI     = 1 << 6
	msrDCD    = 1 << 7
	msrDeltas = 0x0f
)

var triggers = [4]int{1, 4, 8, 14}

// UART is one serial port.
type UART struct {
	name string
	irq  dev.Line
	out  func(b byte)

	divisor       uint16
	ier, lcr, mcr uint8
	fcr           uint8 // fcrEnable and fcrTrigger
	scr           uint8
	msrDelta      uint8
	overrun       bool
	topRead       bool               // the errors of the character at the top have been read
	txPending     bool               // THRE interrupt
	rx            [fifoSize]received // the oldest first
	rxLen         int
}

// received is a character and the LSR bits that came with it.
type received struct{ b, errors uint8 }

// State is the saved state of a UART.
type State struct {
	Version   uint8
	Divisor   uint16
	IER       uint8
	LCR       uint8
	MCR       uint8
	FCR       uint8
	SCR       uint8
	MSRDelta  uint8
	Overrun   bool
	TopRead   bool
	TxPending bool
	Rx        []byte
	RxErrors  []byte
}

// New returns a port that sends to out and interrupts through irq.
func New(name string, irq dev.Line, out func(b byte)) *UART {
	u := &UART{name: name, irq: irq, out: out}
	u.Reset()
	return u
}

// capacity is the number of characters that the receiver holds.
func (u *UART) capacity() int {
	if u.fcr&fcrEnable != 0 {
		return fifoSize
	}
	return 1
}

// CanReceive reports whether Receive would take a byte.
func (u *UART) CanReceive() bool { return u.mcr&mcrLoop == 0 && u.rxLen < u.capacity() }

// Receive is a byte from the other end. It reports false where there is no room, and
// the caller keeps the byte.
func (u *UART) Receive(b byte) bool { return u.receive(received{b: b}) }

// ReceiveBreak is a break condition from the other end: a zero character with the break bit.
func (u *UART) ReceiveBreak() bool { return u.receive(received{errors: lsrBreak}) }

func (u *UART) receive(c received) bool {
	if !u.CanReceive() {
		return false
	}
	u.push(c)
	u.update()
	return true
}

// push puts a character that has arrived into the FIFO.
func (u *UART) push(c received) {
	if u.rxLen == u.capacity() {
		u.overrun = true
		if u.fcr&fcrEnable == 0 {
			u.rx[0] = c // the holding register is overwritten, the FIFO is not
			u.topRead = false
		}
		return
	}
	u.rx[u.rxLen] = c
	u.rxLen++
}

// pop takes the oldest character. An empty receiver repeats what it returned last.
func (u *UART) pop() byte {
	b := u.rx[0].b
	if u.rxLen == 0 {
		return b
	}
	copy(u.rx[:], u.rx[1:u.rxLen])
	u.rxLen--
	u.topRead = false
	if u.rxLen == 0 {
		u.rx[0] = received{b: b}
	}
	return b
}

// clearRx resets the receiver's FIFO.
func (u *UART) clearRx() {
	u.rx[0].errors = 0
	u.rxLen, u.topRead = 0, false
}

// modem returns the modem inputs, in the places that they have in MSR.
func (u *UART) modem() uint8 {
	if u.mcr&mcrLoop == 0 {
		return msrCTS | msrDSR | msrDCD
	}
	var v uint8
	for _, w := range [...]struct{ out, in uint8 }{{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOUT1, msrRI}, {mcrOUT2, msrDCD}} {
		if u.mcr&w.out != 0 {
			v |= w.in
		}
	}
	return v
}

// lsr returns the line status register.
func (u *UART) lsr() uint8 {
	v := uint8(lsrTHRE | lsrTEMT)
	if u.rxLen > 0 {
		v |= lsrData
		if !u.topRead {
			v |= u.rx[0].errors
		}
	}
	if u.overrun {
		v |= lsrOverrun
	}
	if u.fcr&fcrEnable != 0 {
		for i := range u.rxLen {
			if u.rx[i].errors != 0 && (i > 0 || !u.topRead) {
				v |= lsrFIFOError
			}
		}
	}
	return v
}

// source returns the interrupt with the highest priority, as IIR names it.
func (u *UART) source() uint8 {
	switch {
	case u.ier&ierLine != 0 && u.lsr()&lsrErrors != 0:
		return iirLine
	case u.ier&ierRx != 0 && u.rxLen > 0 && (u.fcr&fcrEnable == 0 || u.rxLen >= triggers[u.fcr>>6]):
		return iirRx
	case u.ier&ierRx != 0 && u.rxLen > 0:
		return iirTimeout // at once: nothing more is on the way
	case u.ier&ierTx != 0 && u.txPending:
		return iirTx
	case u.ier&ierModem != 0 && u.msrDelta != 0:
		return iirModem
	}
	return iirNone
}

func (u *UART) update() { u.irq.Set(u.source() != iirNone) }

// In implements dev.Ports.
func (u *UART) In(port uint16, size int) uint32 {
	var v uint32
	for i := range size {
		v |= uint32(u.read(port+uint16(i))) << (8 * i)
	}
	return v
}

// Out implements dev.Ports.
func (u *UART) Out(port uint16, size int, v uint32) {
	for i := range size {
		u.write(port+uint16(i), uint8(v>>(8*i)))
	}
}

func (u *UART) read(port uint16) (v uint8) {
	switch {
	case port == regData && u.lcr&lcrDLAB != 0:
		return uint8(u.divisor)
	case port == regIER && u.lcr&lcrDLAB != 0:
		return uint8(u.divisor >> 8)
	}
	switch port {
	case regData:
		v = u.pop()
	case regIER:
		return u.ier
	case regIIR:
		v = u.source()
		if v == iirTx {
			u.txPending = false
		}
		if u.fcr&fcrEnable != 0 {
			v |= iirFIFOs
		}
	case regLCR:
		return u.lcr
	case regMCR:
		return u.mcr
	case regLSR:
		v = u.lsr()
		u.overrun = false
		u.topRead = u.rxLen > 0
	case regMSR:
		v = u.modem() | u.msrDelta
		u.msrDelta = 0
	case regSCR:
		return u.scr
	default:
		return 0xff
	}
	u.update()
	return v
}

func (u *UART) write(port uint16, v uint8) {
	switch {
	case port == regData && u.lcr&lcrDLAB != 0:
		u.divisor = u.divisor&0xff00 | uint16(v)
		return
	case port == regIER && u.lcr&lcrDLAB != 0:
		u.divisor = u.divisor&0x00ff | uint16(v)<<8
		return
	}
	switch port {
	case regData:
		u.txPending = false
		u.update()
		if u.mcr&mcrLoop != 0 {
			u.push(received{b: v & (0xff >> (3 - u.lcr&lcrWordLength))})
		} else {
			u.out(v)
		}
		u.txPending = true
	case regIER:
		if v&^u.ier&ierTx != 0 {
			u.txPending = true
		}
		u.ier = v & ierWrites
	case regIIR:
		u.writeFCR(v)
	case regLCR:
		u.lcr = v
	case regMCR:
		before := u.modem()
		u.mcr = v & mcrWrites
		after := u.modem()
		u.msrDelta |= (before ^ after) & (msrCTS | msrDSR | msrDCD) >> 4
		if before&^after&msrRI != 0 {
			u.msrDelta |= msrRIFell
		}
	case regSCR:
		u.scr = v
	default:
		return // LSR and MSR are for factory tests only
	}
	u.update()
}

// writeFCR writes the FIFO control register. Its other bits count only if the enable
// bit is written as one; changing that bit clears the FIFOs. The transmitter's is always empty.
func (u *UART) writeFCR(v uint8) {
	if (v^u.fcr)&fcrEnable != 0 || v&(fcrEnable|fcrResetRx) == fcrEnable|fcrResetRx {
		u.clearRx()
	}
	if v&fcrEnable == 0 {
		u.fcr = 0
	} else {
		u.fcr = v & (fcrEnable | fcrTrigger)
	}
}

// Name implements dev.Device.
func (u *UART) Name() string { return u.name }

// Reset implements dev.Device: master reset (data sheet, table III), with the divisor at 115200 baud.
func (u *UART) Reset() {
	*u = UART{name: u.name, irq: u.irq, out: u.out, divisor: 1, txPending: true}
	u.update()
}

// Save implements dev.Device.
func (u *UART) Save() any {
	s := &State{Version: 1, Divisor: u.divisor, IER: u.ier, LCR: u.lcr, MCR: u.mcr, FCR: u.fcr, SCR: u.scr, MSRDelta: u.msrDelta,
		Overrun: u.overrun, TopRead: u.topRead, TxPending: u.txPending}
	for i := range max(u.rxLen, 1) { // an empty receiver still shows its last character
		s.Rx = append(s.Rx, u.rx[i].b)
	}
	for i := range u.rxLen {
		s.RxErrors = append(s.RxErrors, u.rx[i].errors)
	}
	return s
}

// Restore implements dev.Device. It drives no line: the interrupt controllers' states hold the levels.
func (u *UART) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	n := len(s.RxErrors)
	if n > fifoSize || len(s.Rx) != max(n, 1) || n > 1 && s.FCR&fcrEnable == 0 {
		return fmt.Errorf("%d characters with %d statuses in the receiver", len(s.Rx), n)
	}
	*u = UART{name: u.name, irq: u.irq, out: u.out, divisor: s.Divisor, ier: s.IER & ierWrites, lcr: s.LCR, mcr: s.MCR & mcrWrites,
		fcr: s.FCR & (fcrEnable | fcrTrigger), scr: s.SCR, msrDelta: s.MSRDelta & msrDeltas,
		overrun: s.Overrun, topRead: s.TopRead, txPending: s.TxPending, rxLen: n}
	for i, b := range s.Rx {
		u.rx[i].b = b
	}
	for i, e := range s.RxErrors {
		u.rx[i].errors = e & lsrCharacter
	}
	return nil
}
