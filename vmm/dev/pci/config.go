package pci

import (
	"encoding/binary"
	"fmt"

	"refault/vmm/dev"
)

// Registers of a type 0 configuration space (PCI 3.0, 6.1).
const (
	RegVendorID      = 0x00
	RegDeviceID      = 0x02
	RegCommand       = 0x04
	RegStatus        = 0x06
	RegRevision      = 0x08
	RegProgIF        = 0x09
	RegSubclass      = 0x0a
	RegClass         = 0x0b
	RegHeaderType    = 0x0e
	RegBAR0          = 0x10
	RegSubVendorID   = 0x2c
	RegSubsystemID   = 0x2e
	RegInterruptLine = 0x3c
	RegInterruptPin  = 0x3d
)

// Bits of the command register.
const (
	CommandIO               = 1 << 0
	CommandMemory           = 1 << 1
	CommandMaster           = 1 << 2
	CommandParity           = 1 << 6
	CommandSERR             = 1 << 8
	CommandInterruptDisable = 1 << 10
)

// StatusInterrupt is set in the status register while the function asserts its pin.
const StatusInterrupt = 1 << 3

// statusErrors are the bits of the status register that are cleared by writing one.
const statusErrors = 0xf900

const configSize = 256

// ID is what identifies a function to software.
type ID struct {
	Vendor, Device       uint16
	Class                uint32 // class, subclass and programming interface, as 0xCCSSPP
	Revision             uint8
	SubVendor, Subsystem uint16
	// Pin is the interrupt pin that the function uses: 1 for INTA# to 4 for INTD#, 0 for none.
	Pin uint8
}

// Config is the configuration space of a function.
type Config struct {
	data     [configSize]byte
	initial  [configSize]byte // after a reset
	writable [configSize]byte
	ones     [configSize]byte // bits cleared by writing one
	bars     [6]bar

	// OnWrite, when set, is called after the guest wrote size bytes at off.
	OnWrite func(off, size int)
}

type bar struct {
	size  uint32 // zero: not there
	ports dev.Ports
	regs  dev.Registers
}

// NewConfig returns the configuration space of a function that decodes nothing yet.
func NewConfig(id ID) *Config {
	c := new(Config)
	c.Define16(RegVendorID, id.Vendor, 0)
	c.Define16(RegDeviceID, id.Device, 0)
	c.Define16(RegCommand, 0, CommandMaster|CommandParity|CommandSERR)
	c.Define8(RegRevision, id.Revision, 0)
	c.Define8(RegProgIF, uint8(id.Class), 0)
	c.Define8(RegSubclass, uint8(id.Class>>8), 0)
	c.Define8(RegClass, uint8(id.Class>>16), 0)
	c.Define16(RegSubVendorID, id.SubVendor, 0)
	c.Define16(RegSubsystemID, id.Subsystem, 0)
	binary.LittleEndian.PutUint16(c.ones[RegStatus:], statusErrors)
	if id.Pin != 0 {
		c.Define8(RegInterruptPin, id.Pin, 0)
		c.Define8(RegInterruptLine, 0, 0xff)
		c.allow(CommandInterruptDisable)
	}
	return c
}

// Define8 sets the reset value of a register and the bits that the guest may change.
func (c *Config) Define8(off int, v, writable uint8) {
	c.initial[off], c.data[off], c.writable[off] = v, v, writable
}

// Define16 is Define8 for two bytes.
func (c *Config) Define16(off int, v, writable uint16) {
	c.Define8(off, uint8(v), uint8(writable))
	c.Define8(off+1, uint8(v>>8), uint8(writable>>8))
}

// Define32 is Define8 for four bytes.
func (c *Config) Define32(off int, v, writable uint32) {
	c.Define16(off, uint16(v), uint16(writable))
	c.Define16(off+2, uint16(v>>16), uint16(writable>>16))
}

// SetInitialCommand sets the command register that a reset leaves.
func (c *Config) SetInitialCommand(v uint16) {
	binary.LittleEndian.PutUint16(c.initial[RegCommand:], v)
	binary.LittleEndian.PutUint16(c.data[RegCommand:], v)
}

// PortBAR makes base address register n decode size ports, assigned to base by a
// reset. The guest can move it within the 64 KiB of ports.
// Preconditions: size is a power of two, from 4 to 256.
func (c *Config) PortBAR(n int, base uint16, size uint16, p dev.Ports) {
	c.bars[n] = bar{size: uint32(size), ports: p}
	c.Define32(RegBAR0+4*n, uint32(base)|1, uint32(-size))
	c.allow(CommandIO)
}

// RegisterBAR makes base address register n decode size bytes of memory,
// assigned to base by a reset. The guest can move it below 4 GiB.
// Preconditions: size is a power of two, at least 16.
func (c *Config) RegisterBAR(n int, base, size uint32, r dev.Registers) {
	c.bars[n] = bar{size: size, regs: r}
	c.Define32(RegBAR0+4*n, base, -size)
	c.allow(CommandMemory)
}

func (c *Config) allow(command uint16) {
	w := binary.LittleEndian.Uint16(c.writable[RegCommand:])
	binary.LittleEndian.PutUint16(c.writable[RegCommand:], w|command)
}

// Command returns the command register.
func (c *Config) Command() uint16 { return c.Read16(RegCommand) }

// Read8 returns a byte of the space.
func (c *Config) Read8(off int) uint8 { return c.data[off] }

// Read16 returns two bytes of the space.
func (c *Config) Read16(off int) uint16 { return binary.LittleEndian.Uint16(c.data[off:]) }

// Read32 returns four bytes of the space.
func (c *Config) Read32(off int) uint32 { return binary.LittleEndian.Uint32(c.data[off:]) }

// SetStatus sets and clears bits of the status register from the device's side.
func (c *Config) SetStatus(set, reset uint16) {
	v := c.Read16(RegStatus)&^reset | set
	binary.LittleEndian.PutUint16(c.data[RegStatus:], v)
}

// read returns what the guest reads. Preconditions: off+size is in the space.
func (c *Config) read(off, size int) uint32 {
	var v uint32
	for i := range size {
		v |= uint32(c.data[off+i]) << (8 * i)
	}
	return v
}

// write is a write by the guest. Preconditions: as for read.
func (c *Config) write(off, size int, v uint32) {
	for i := range size {
		b, w := uint8(v>>(8*i)), c.writable[off+i]
		c.data[off+i] = (c.data[off+i]&^w | b&w) &^ (b & c.ones[off+i])
	}
	if c.OnWrite != nil {
		c.OnWrite(off, size)
	}
}

func (c *Config) reset() { c.data = c.initial }

// restore takes a saved space, which may come from outside: bits that the guest
// cannot have changed must be as they are here.
func (c *Config) restore(b []byte) error {
	if len(b) != configSize {
		return fmt.Errorf("a configuration space of %d bytes", len(b))
	}
	for i, v := range b {
		fixed := ^(c.writable[i] | c.ones[i])
		if i == RegStatus {
			fixed &^= StatusInterrupt
		}
		if (v^c.initial[i])&fixed != 0 {
			return fmt.Errorf("read-only register %#02x holds %#02x instead of %#02x", i, v, c.initial[i])
		}
	}
	copy(c.data[:], b)
	return nil
}

// PortsAt returns the device behind a port that one of the BARs decodes.
func (c *Config) PortsAt(port uint16) (dev.Ports, uint16) {
	if c.Command()&CommandIO == 0 {
		return nil, 0
	}
	for i := range c.bars {
		b := &c.bars[i]
		if b.ports == nil {
			continue
		}
		base := uint16(c.Read32(RegBAR0+4*i) &^ 3)
		if base != 0 && port-base < uint16(b.size) {
			return b.ports, port - base
		}
	}
	return nil, 0
}

// RegistersAt returns the device behind an address that one of the BARs decodes.
func (c *Config) RegistersAt(pa uint64) (dev.Registers, uint64) {
	if c.Command()&CommandMemory == 0 {
		return nil, 0
	}
	for i := range c.bars {
		b := &c.bars[i]
		if b.regs == nil {
			continue
		}
		base := uint64(c.Read32(RegBAR0+4*i) &^ 15)
		if base != 0 && pa-base < uint64(b.size) {
			return b.regs, pa - base
		}
	}
	return nil, 0
}
