package i8042

import (
	"fmt"

	"refault/vmm/dev"
)

// Ports.
const (
	DataPort    = 0x60
	CommandPort = 0x64 // status when read
	SystemPort  = 0x92 // system control port A
	IRQ         = 1
)

// Bits of the status register.
const (
	statusOutputFull = 1 << 0
	statusSystem     = 1 << 2 // self-test passed
	statusCommand    = 1 << 3 // the last write was to the command port
	statusUnlocked   = 1 << 4
)

// Bits of the command byte.
const (
	modeInterrupt = 1 << 0
	modeSystem    = 1 << 2
	modeDisabled  = 1 << 4 // keyboard
	modeTranslate = 1 << 6
)

// Bits of the output port and of system control port A.
const (
	outputNotReset = 1 << 0
	outputA20      = 1 << 1
	outputIRQ1     = 1 << 4

	systemReset = 1 << 0
	systemA20   = 1 << 1
)

// queueMax bounds what the controller holds for the guest: the buffer of a keyboard.
const queueMax = 16

// State is the saved state.
type State struct {
	Version   uint8
	RAM       [32]uint8 // byte 0 is the command byte
	Status    uint8     // statusSystem and statusCommand
	Pending   uint8     // command that waits for its data byte, or 0
	A20       bool
	Queue     []byte // for the guest, the byte in the output buffer first
	Keyboard  uint8  // keyboard command that waits for its data byte, or 0
	LastSent  uint8  // by the keyboard, for RESEND
	ScanSet   uint8
	SystemReg uint8 // what port 92H was written to, but for A20
}

// I8042 is the controller with its keyboard.
type I8042 struct {
	s     State
	irq   dev.Line
	reset func()
}

var _ dev.Device = (*I8042)(nil)

// New returns a controller whose keyboard interrupts through irq. reset is called when the guest resets the machine.
func New(irq dev.Line, reset func()) *I8042 {
	k := &I8042{irq: irq, reset: reset}
	k.Reset()
	return k
}

// Data returns port 60H, Command port 64H and System port 92H.
func (k *I8042) Data() dev.Ports    { return port{k.readData, k.writeData} }
func (k *I8042) Command() dev.Ports { return port{k.status, k.command} }
func (k *I8042) System() dev.Ports  { return port{k.readSystem, k.writeSystem} }

type port struct {
	in  func() uint8
	out func(v uint8)
}

func (p port) In(uint16, int) uint32         { return uint32(p.in()) }
func (p port) Out(_ uint16, _ int, v uint32) { p.out(uint8(v)) }

// update drives the interrupt: a byte waits and the command byte wants to hear of it.
func (k *I8042) update() { k.irq.Set(len(k.s.Queue) > 0 && k.s.RAM[0]&modeInterrupt != 0) }

// put queues bytes for the guest. What does not fit is lost, as in a keyboard.
func (k *I8042) put(b ...uint8) {
	k.s.Queue = append(k.s.Queue, b[:min(len(b), queueMax-len(k.s.Queue))]...)
	k.update()
}

func (k *I8042) readData() uint8 {
	if len(k.s.Queue) == 0 {
		return 0
	}
	b := k.s.Queue[0]
	k.s.Queue = k.s.Queue[1:]
	k.irq.Set(false) // so that the next byte is another edge
	k.update()
	return b
}

func (k *I8042) status() uint8 {
	v := k.s.Status | statusUnlocked
	if len(k.s.Queue) > 0 {
		v |= statusOutputFull
	}
	return v
}

func (k *I8042) command(c uint8) {
	k.s.Status |= statusCommand
	k.s.Pending = 0
	switch {
	case c >= 0x20 && c < 0x40:
		k.put(k.s.RAM[c-0x20])
	case c >= 0x60 && c < 0x80, c >= 0xd1 && c <= 0xd4:
		k.s.Pending = c
	case c >= 0xf0:
		if c&outputNotReset == 0 { // pulse the lines whose bits are zero
			k.reset()
		}
	}
	switch c {
	case 0xa9: // test the auxiliary interface: clock line stuck low
		k.put(1)
	case 0xaa: // self-test
		k.s.Queue = nil
		k.s.Status |= statusSystem
		k.s.RAM[0] |= modeSystem
		k.put(0x55)
	case 0xab: // test the keyboard interface
		k.put(0)
	case 0xad:
		k.s.RAM[0] |= modeDisabled
	case 0xae:
		k.s.RAM[0] &^= modeDisabled
	case 0xc0: // input port: not locked
		k.put(0x80)
	case 0xd0:
		k.put(k.outputPort())
	case 0xdd:
		k.s.A20 = false
	case 0xdf:
		k.s.A20 = true
	}
}

func (k *I8042) outputPort() uint8 {
	v := uint8(outputNotReset)
	if k.s.A20 {
		v |= outputA20
	}
	if len(k.s.Queue) > 0 {
		v |= outputIRQ1
	}
	return v
}

func (k *I8042) writeData(v uint8) {
	k.s.Status &^= statusCommand
	c := k.s.Pending
	k.s.Pending = 0
	switch {
	case c >= 0x60 && c < 0x80:
		k.s.RAM[c-0x60] = v
		k.s.Status = k.s.Status&^statusSystem | k.s.RAM[0]&modeSystem
		k.update()
	case c == 0xd1:
		k.s.A20 = v&outputA20 != 0
		if v&outputNotReset == 0 {
			k.reset()
		}
	case c == 0xd2: // as if the keyboard had sent it
		k.put(v)
	case c == 0xd3: // as if a mouse had: there is none, so it comes back without the mark of one
		k.put(v)
	case c == 0xd4: // for the mouse that is not there: nobody acknowledges
		k.put(0xfe)
	default:
		k.s.RAM[0] &^= modeDisabled // sending enables the interface
		k.keyboard(v)
	}
}

// Answers of the keyboard.
const (
	kbdAck    = 0xfa
	kbdResend = 0xfe
	kbdPassed = 0xaa
)

// keyboard is a byte that the keyboard receives.
func (k *I8042) keyboard(v uint8) {
	if c := k.s.Keyboard; c != 0 && v < 0x80 { // a command instead of the data byte cancels
		k.s.Keyboard = 0
		if c != 0xf0 {
			k.send(kbdAck)
			return
		}
		switch {
		case v == 0:
			k.send(kbdAck, k.s.ScanSet)
		case v <= 3:
			k.s.ScanSet = v
			k.send(kbdAck)
		default:
			k.send(kbdResend)
		}
		return
	}
	k.s.Keyboard = 0
	switch v {
	case 0xed, 0xf0, 0xf3: // indicators, scan code set, typematic rate
		k.s.Keyboard = v
		k.send(kbdAck)
	case 0xee:
		k.send(0xee)
	case 0xf2: // identify
		k.send(kbdAck, 0xab, 0x83)
	case 0xf4, 0xf5, 0xf7, 0xf8, 0xf9, 0xfa: // enable, disable, key types
		k.send(kbdAck)
	case 0xf6:
		k.s.ScanSet = 2
		k.send(kbdAck)
	case 0xfe:
		k.send(k.s.LastSent)
	case 0xff:
		k.s.ScanSet = 2
		k.send(kbdAck, kbdPassed)
	default:
		k.send(kbdResend)
	}
}

// send is what the keyboard sends. The controller translates it to scan code set 1, of
// which only what occurs in an answer matters here.
func (k *I8042) send(b ...uint8) {
	k.s.LastSent = b[len(b)-1]
	if k.s.RAM[0]&modeTranslate != 0 {
		for i, v := range b {
			switch v {
			case 0x83:
				b[i] = 0x41
			case 1:
				b[i] = 0x43
			case 2:
				b[i] = 0x41
			case 3:
				b[i] = 0x3f
			}
		}
	}
	k.put(b...)
}

func (k *I8042) readSystem() uint8 {
	v := k.s.SystemReg
	if k.s.A20 {
		v |= systemA20
	}
	return v
}

func (k *I8042) writeSystem(v uint8) {
	rises := v&^k.s.SystemReg&systemReset != 0
	k.s.SystemReg = v &^ systemA20
	k.s.A20 = v&systemA20 != 0
	if rises {
		k.reset()
	}
}

// Name implements dev.Device.
func (k *I8042) Name() string { return "i8042" }

// Reset implements dev.Device: as firmware leaves it, tested, translating, with A20 open.
func (k *I8042) Reset() {
	k.s = State{Version: 1, Status: statusSystem, A20: true, ScanSet: 2}
	k.s.RAM[0] = modeTranslate | modeSystem | modeInterrupt
	k.update()
}

// Save implements dev.Device.
func (k *I8042) Save() any {
	s := k.s
	s.Queue = append([]byte(nil), s.Queue...)
	return &s
}

// Restore implements dev.Device. It drives no line: the interrupt controllers' states hold the levels.
func (k *I8042) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	if len(s.Queue) > queueMax {
		return fmt.Errorf("%d bytes in the output buffer, of at most %d", len(s.Queue), queueMax)
	}
	k.s = s
	return nil
}
