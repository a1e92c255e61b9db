package ata

import "refault/vmm/dev"

// Registers of the command block. Reading and writing differ for two of them.
const (
	regData    = 0
	regError   = 1 // Features when written
	regCount   = 2
	regLBALow  = 3
	regLBAMid  = 4
	regLBAHigh = 5
	regDevice  = 6
	regStatus  = 7 // Command when written
)

// Bits of the Device register.
const (
	deviceUnit = 1 << 4
	deviceLBA  = 1 << 6
)

// Bits of the Device Control register.
const (
	controlNIEN = 1 << 1
	controlSRST = 1 << 2
	controlHOB  = 1 << 7
)

// floating is what an 8-bit register of a channel without drives reads as: pulled up, but for bit 7.
const floating = 0x7f

// channel is one ATA bus with up to two drives.
type channel struct {
	c        *Controller
	index    int
	line     dev.Line
	drives   [2]*Drive
	selected int
	control  uint8
	bm       busMaster
	level    bool // of line: a function of the drives' and the channel's state
}

type commandPorts struct{ *channel }

type controlPorts struct{ *channel }

// In implements dev.Ports.
func (p commandPorts) In(port uint16, size int) uint32 {
	p.c.touched()
	if !p.c.decodes(p.index) {
		return ones(size)
	}
	if port == regData {
		return p.readData(size)
	}
	var v uint32
	for i := range size {
		b := uint8(0xff)
		if int(port)+i < NumCommandPorts {
			b = p.read(int(port) + i)
		}
		v |= uint32(b) << (8 * i)
	}
	return v
}

// Out implements dev.Ports.
func (p commandPorts) Out(port uint16, size int, v uint32) {
	p.c.touched()
	if !p.c.decodes(p.index) {
		return
	}
	if port == regData {
		p.writeData(size, v)
		return
	}
	for i := 0; i < size && int(port)+i < NumCommandPorts; i++ {
		p.write(int(port)+i, uint8(v>>(8*i)))
	}
}

// In implements dev.Ports: the Alternate Status register.
func (p controlPorts) In(port uint16, size int) uint32 {
	p.c.touched()
	if port != 0 || !p.c.decodes(p.index) {
		return ones(size)
	}
	return ones(size)&^0xff | uint32(p.status())
}

// Out implements dev.Ports: the Device Control register.
func (p controlPorts) Out(port uint16, size int, v uint32) {
	p.c.touched()
	if port != 0 || !p.c.decodes(p.index) {
		return
	}
	was := p.control
	p.control = uint8(v)
	for _, d := range p.drives {
		switch {
		case d == nil:
		case p.control&controlSRST != 0:
			d.holdReset()
		case was&controlSRST != 0:
			d.releaseReset()
		}
	}
	if p.control&controlSRST != 0 {
		p.selected = 0
	}
	p.update()
}

func ones(size int) uint32 { return uint32(1<<(8*size) - 1) }

// responder returns the drive whose registers are read: the selected one, or the
// other one where the selected one is absent.
func (ch *channel) responder() *Drive {
	if d := ch.drives[ch.selected]; d != nil {
		return d
	}
	return ch.drives[1-ch.selected]
}

// status returns the Status register without the effects of reading it.
func (ch *channel) status() uint8 {
	switch d := ch.drives[ch.selected]; {
	case d != nil:
		return d.status
	case ch.responder() != nil:
		return 0
	}
	return floating
}

func (ch *channel) read(reg int) uint8 {
	if reg == regStatus {
		v := ch.status()
		if d := ch.drives[ch.selected]; d != nil && d.intrq {
			d.intrq = false
			ch.update()
		}
		return v
	}
	d := ch.responder()
	if d == nil {
		return floating
	}
	return d.regs.read(reg, ch.control&controlHOB != 0)
}

// write writes a register of the command block. Both drives hear of it; the
// Command register is for the selected one.
func (ch *channel) write(reg int, v uint8) {
	if reg == regStatus {
		if d := ch.drives[ch.selected]; d != nil {
			d.announce(v)
		}
		ch.command(v)
		return
	}
	ch.control &^= controlHOB
	for _, d := range ch.drives {
		if d != nil && d.status&statusBSY == 0 {
			d.regs.write(reg, v)
		}
	}
	if reg == regDevice {
		ch.selected = int(v / deviceUnit & 1)
		ch.update()
		ch.transfer()
	}
}

func (ch *channel) command(op uint8) {
	ch.control &^= controlHOB
	if op == opExecuteDiagnostic {
		// Both drives run it, whichever is selected.
		for _, d := range ch.drives {
			if d != nil {
				d.start(op)
			}
		}
		return
	}
	if d := ch.drives[ch.selected]; d != nil {
		d.start(op)
	}
}

func (ch *channel) readData(size int) uint32 {
	d := ch.drives[ch.selected]
	if d == nil {
		if ch.responder() == nil {
			return ones(size)&^0xff | floating
		}
		return 0
	}
	return d.readData(size)
}

func (ch *channel) writeData(size int, v uint32) {
	if d := ch.drives[ch.selected]; d != nil {
		d.writeData(size, v)
	}
}

// interrupt returns the level that the channel's interrupt line should have.
func (ch *channel) interrupt() bool {
	d := ch.drives[ch.selected]
	return d != nil && d.intrq && ch.control&controlNIEN == 0
}

// update drives the interrupt line. The bus master notes its rising edge.
func (ch *channel) update() {
	level := ch.interrupt()
	if level == ch.level {
		return
	}
	ch.level = level
	if level {
		ch.bm.Status |= bmIntr
	}
	if ch.line != nil {
		ch.line.Set(level)
	}
}
