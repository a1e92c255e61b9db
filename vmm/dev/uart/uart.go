// Package uart is a 16550A serial port (National Semiconductor PC16550D data sheet).
//
// Transmission takes no time: a byte that is written is out, and the holding
// register is empty again at once. Baud rates are accepted and remembered. So a
// guest that polls never waits, and one that uses the interrupt gets it at the
// next boundary; a console costs nothing and depends on no clock.
package uart

import (
	"fmt"

	"refault/vmm/dev"
)

// NumPorts is the size of the register window.
const NumPorts = 8

const fifoSize = 16

// Interrupt enable bits.
const (
	ierRX   = 1 << 0
	ierTHRE = 1 << 1
	ierLine = 1 << 2
	ierMSR  = 1 << 3
)

// Line status bits.
const (
	lsrDR   = 1 << 0
	lsrOE   = 1 << 1
	lsrTHRE = 1 << 5
	lsrTEMT = 1 << 6
)

// Modem control bits.
const (
	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOut1 = 1 << 2
	mcrOut2 = 1 << 3 // gates the interrupt line on a PC
	mcrLoop = 1 << 4
)

// State is the saved state of a UART.
type State struct {
	Version                      uint8
	IER, FCR, LCR, MCR, LSR, MSR uint8
	SCR, DLL, DLM                uint8
	THREPending                  bool // the transmitter-empty interrupt has not been read or served
	FIFO                         []byte
}

// UART is one port.
type UART struct {
	State
	name string
	irq  dev.Line
	out  func(b byte)
}

// New returns a port that sends to out and interrupts through irq.
func New(name string, irq dev.Line, out func(b byte)) *UART {
	u := &UART{name: name, irq: irq, out: out}
	u.Reset()
	return u
}

// Name implements dev.Device.
func (u *UART) Name() string { return u.name }

// Reset implements dev.Device.
func (u *UART) Reset() {
	u.State = State{Version: 1, LSR: lsrTHRE | lsrTEMT, MSR: 0xb0, DLL: 1} // CTS, DSR, DCD: somebody is there
	u.update()
}

// Save implements dev.Device.
func (u *UART) Save() any {
	s := u.State
	s.FIFO = append([]byte(nil), s.FIFO...)
	return &s
}

// Restore implements dev.Device.
func (u *UART) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 || len(s.FIFO) > fifoSize {
		return fmt.Errorf("version %d with %d bytes received; this program reads version 1 with up to %d", s.Version, len(s.FIFO), fifoSize)
	}
	u.State = s
	return nil
}

func (u *UART) capacity() int {
	if u.FCR&1 != 0 {
		return fifoSize
	}
	return 1
}

// CanReceive reports whether a byte that arrives now finds room.
func (u *UART) CanReceive() bool { return len(u.FIFO) < u.capacity() && u.MCR&mcrLoop == 0 }

// Receive takes a byte from the line.
func (u *UART) Receive(b byte) {
	if u.MCR&mcrLoop == 0 {
		u.receive(b)
	}
}

func (u *UART) receive(b byte) {
	if len(u.FIFO) >= u.capacity() {
		u.LSR |= lsrOE
	} else {
		u.FIFO = append(u.FIFO, b)
		u.LSR |= lsrDR
	}
	u.update()
}

// interrupt returns IIR's identification: the highest pending interrupt, or 1 for none.
func (u *UART) interrupt() uint8 {
	switch {
	case u.IER&ierLine != 0 && u.LSR&lsrOE != 0:
		return 6
	case u.IER&ierRX != 0 && len(u.FIFO) >= u.trigger():
		return 4
	case u.IER&ierRX != 0 && len(u.FIFO) > 0:
		return 12 // character timeout: at once, since nothing more is on the way
	case u.IER&ierTHRE != 0 && u.THREPending:
		return 2
	case u.IER&ierMSR != 0 && u.MSR&0x0f != 0:
		return 0
	}
	return 1
}

func (u *UART) trigger() int {
	if u.FCR&1 == 0 {
		return 1
	}
	return [4]int{1, 4, 8, 14}[u.FCR>>6]
}

func (u *UART) update() {
	u.irq.Set(u.interrupt() != 1 && u.MCR&mcrOut2 != 0 && u.MCR&mcrLoop == 0)
}

// modemStatus returns MSR; in loopback the outputs come back as inputs.
func (u *UART) modemStatus() uint8 {
	if u.MCR&mcrLoop == 0 {
		return u.MSR
	}
	m := u.MCR
	return u.MSR&0x0f | m&mcrRTS<<3 | m&mcrDTR<<5 | m&mcrOut1<<4 | m&mcrOut2<<4
}

// In implements dev.Ports.
func (u *UART) In(port uint16, _ int) uint32 {
	switch port {
	case 0:
		if u.LCR&0x80 != 0 {
			return uint32(u.DLL)
		}
		if len(u.FIFO) == 0 {
			return 0
		}
		b := u.FIFO[0]
		u.FIFO = append(u.FIFO[:0], u.FIFO[1:]...)
		if len(u.FIFO) == 0 {
			u.LSR &^= lsrDR
		}
		u.update()
		return uint32(b)
	case 1:
		if u.LCR&0x80 != 0 {
			return uint32(u.DLM)
		}
		return uint32(u.IER)
	case 2:
		v := u.interrupt()
		if v == 2 {
			u.THREPending = false // reading IIR acknowledges it
			u.update()
		}
		if u.FCR&1 != 0 {
			v |= 0xc0
		}
		return uint32(v)
	case 3:
		return uint32(u.LCR)
	case 4:
		return uint32(u.MCR)
	case 5:
		v := u.LSR
		u.LSR &^= lsrOE
		u.update()
		return uint32(v)
	case 6:
		v := u.modemStatus()
		u.MSR &^= 0x0f
		u.update()
		return uint32(v)
	}
	return uint32(u.SCR)
}

// Out implements dev.Ports.
func (u *UART) Out(port uint16, _ int, v32 uint32) {
	v := uint8(v32)
	switch port {
	case 0:
		if u.LCR&0x80 != 0 {
			u.DLL = v
			return
		}
		if u.MCR&mcrLoop != 0 {
			u.receive(v)
		} else {
			u.out(v)
		}
		u.THREPending = true
	case 1:
		if u.LCR&0x80 != 0 {
			u.DLM = v
			return
		}
		if v&ierTHRE != 0 && u.IER&ierTHRE == 0 {
			u.THREPending = true // enabling it while the register is empty raises it
		}
		u.IER = v & 0x0f
	case 2:
		if (v^u.FCR)&1 != 0 || v&2 != 0 {
			u.FIFO = nil
			u.LSR &^= lsrDR
		}
		u.FCR = v & 0xc9
	case 3:
		u.LCR = v
	case 4:
		u.MCR = v & 0x1f
	case 7:
		u.SCR = v
	}
	u.update()
}
