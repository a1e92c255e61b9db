package ata

import (
	"fmt"

	"refault/vmm/dev"
	"refault/vmm/dev/disk"
	"refault/vmm/dev/pci"
)

// Legacy resources of the two channels. The machine maps them; they do not move.
const (
	PrimaryCommand   = 0x1f0 // NumCommandPorts ports
	PrimaryControl   = 0x3f6 // one port
	PrimaryIRQ       = 14
	SecondaryCommand = 0x170
	SecondaryControl = 0x376
	SecondaryIRQ     = 15

	NumCommandPorts = 8

	// BusMasterPort is where a reset leaves the bus-master registers (BAR 4).
	BusMasterPort     = 0xc000
	numBusMasterPorts = 16
)

// Registers of the IDE function's configuration space (82371AB datasheet, 5.1).
const (
	regIDETIM   = 0x40 // one word a channel
	regSIDETIM  = 0x44
	regUDMACTL  = 0x48
	regUDMATIM  = 0x4a
	idetimIDE   = 1 << 15 // decode the channel's ports
	busMasterNo = 4       // BAR
)

// Config is what a Controller is attached to.
type Config struct {
	Queue  *dev.Queue
	Memory dev.Memory
	IRQ    [2]dev.Line // of the two channels
	// Touched, if set, is called before anything happens that a drive has a part in: an access to the
	// ports of a channel or its bus master, a write to the configuration, a drive's timer.
	Touched func()
}

// Controller is the IDE controller.
type Controller struct {
	mem      dev.Memory
	queue    *dev.Queue
	pci      *pci.Config
	channels [2]channel
	touched  func()
}

// ControllerState is the saved state of a Controller.
type ControllerState struct {
	Version  uint8
	Channels [2]ChannelState
}

// ChannelState is the saved state of a channel.
type ChannelState struct {
	Selected  uint8
	Control   uint8
	BusMaster BusMasterState
}

// New returns a controller without drives.
func New(cfg Config) *Controller {
	c := &Controller{mem: cfg.Memory, queue: cfg.Queue, touched: cfg.Touched}
	if c.touched == nil {
		c.touched = func() {}
	}
	c.pci = pci.NewConfig(pci.ID{Vendor: 0x8086, Device: 0x7111, Class: 0x010180, Revision: 1})
	c.pci.PortBAR(busMasterNo, BusMasterPort, numBusMasterPorts, busMasterPorts{c})
	c.pci.SetInitialCommand(pci.CommandIO | pci.CommandMaster)
	for i := range c.channels {
		c.pci.Define16(regIDETIM+2*i, idetimIDE, 0xffff)
		c.channels[i] = channel{c: c, index: i, line: cfg.IRQ[i]}
	}
	c.pci.Define8(regSIDETIM, 0, 0xff)
	c.pci.Define8(regUDMACTL, 0, 0x0f)
	c.pci.Define16(regUDMATIM, 0, 0x3333)
	c.pci.OnWrite = func(off, size int) {
		c.touched()
		for i := range c.channels { // bus mastering may have been turned on
			c.channels[i].transfer()
		}
	}
	return c
}

// PCI returns the configuration space, to be added to the bus.
func (c *Controller) PCI() *pci.Config { return c.pci }

// Attach puts a drive with the content of d on a channel (0 or 1) as unit 0 (master) or
// 1 (slave). It is done when the machine is composed.
func (c *Controller) Attach(channel, unit int, d *disk.Disk, p Params) *Drive {
	ch := &c.channels[channel]
	if ch.drives[unit] != nil {
		panic(fmt.Sprintf("BUG: two drives at ata%d.%d", channel, unit))
	}
	dr := newDrive(ch, unit, d, p)
	ch.drives[unit] = dr
	return dr
}

// Drives returns the drives in order of channel and unit.
func (c *Controller) Drives() []*Drive {
	var all []*Drive
	for i := range c.channels {
		for _, d := range c.channels[i].drives {
			if d != nil {
				all = append(all, d)
			}
		}
	}
	return all
}

// CommandPorts returns the command block of a channel.
func (c *Controller) CommandPorts(channel int) dev.Ports { return commandPorts{&c.channels[channel]} }

// ControlPorts returns the control block of a channel: one port.
func (c *Controller) ControlPorts(channel int) dev.Ports { return controlPorts{&c.channels[channel]} }

// decodes tells whether the function answers at a channel's ports.
func (c *Controller) decodes(channel int) bool {
	return c.pci.Command()&pci.CommandIO != 0 && c.pci.Read16(regIDETIM+2*channel)&idetimIDE != 0
}

// Name implements dev.Device.
func (c *Controller) Name() string { return "ide0" }

// Reset implements dev.Device. The drives and the configuration space are reset apart from it.
func (c *Controller) Reset() {
	for i := range c.channels {
		ch := &c.channels[i]
		ch.selected, ch.control, ch.bm = 0, 0, busMaster{}
		ch.level = false
		if ch.line != nil {
			ch.line.Set(false)
		}
	}
}

// Save implements dev.Device.
func (c *Controller) Save() any {
	s := &ControllerState{Version: 1}
	for i := range c.channels {
		ch := &c.channels[i]
		s.Channels[i] = ChannelState{Selected: uint8(ch.selected), Control: ch.control, BusMaster: ch.bm.BusMasterState}
	}
	return s
}

// Restore implements dev.Device. It drives no line: the interrupt controllers' states hold the levels.
func (c *Controller) Restore(decode func(any) error) error {
	var s ControllerState
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	for i := range c.channels {
		ch := &c.channels[i]
		t := s.Channels[i]
		if err := t.BusMaster.check(); err != nil {
			return fmt.Errorf("channel %d: %w", i, err)
		}
		ch.selected, ch.control, ch.bm = int(t.Selected&1), t.Control, busMaster{t.BusMaster}
		ch.level = ch.interrupt()
	}
	return nil
}
