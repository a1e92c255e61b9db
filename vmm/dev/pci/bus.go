package pci

import (
	"fmt"

	"refault/vmm/dev"
)

// PIRQs is the number of interrupt inputs of the ISA bridge, PIRQA# to PIRQD#.
const PIRQs = 4

// Slots is the number of device numbers, from zero, that have their interrupts wired.
const Slots = 8

// FirstGSI is the I/O APIC input of PIRQA#; the others follow.
const FirstGSI = 16

// InitialIRQ returns the 8259 input to which a reset routes a PIRQ.
func InitialIRQ(pirq int) uint8 { return 10 + uint8(pirq)&1 }

// Ports of the bus, relative to Port.
const (
	Port     = 0xcf8 // base of the bus's ports
	NumPorts = 8

	portReset = 1 // RC, the ISA bridge's reset control register
	portData  = 4
)

// Registers of the ISA bridge (82371AB datasheet, 4.1).
const regPIRQRC = 0x60 // four bytes, PIRQRCA to PIRQRCD

// Bits of the reset control register.
const (
	rcHard  = 1 << 1 // SRST: a hard reset rather than INIT
	rcReset = 1 << 2 // RCPU: reset on a change from 0 to 1
)

// BusConfig is what the bus is attached to.
type BusConfig struct {
	// GSI are the I/O APIC inputs of the PIRQs, level-sensitive.
	GSI [PIRQs]dev.Line
	// ISA are the 8259 inputs to which the guest may route PIRQs, level-sensitive
	// and shared: each is one input of a wired OR with whatever else is on it. A
	// nil line is not connected.
	ISA [16]dev.Line
	// Reset is called when the guest asks for a reset through port CF9H.
	Reset func()
	// OnRemap, when set, is called when answers of PortsAt or RegistersAt may have changed.
	OnRemap func()
}

// DevFn is the address of a function on the bus: device number times 8 plus function number.
type DevFn uint8

// Addr returns the address of a function.
func Addr(device, function uint8) DevFn { return DevFn(device<<3 | function&7) }

func (a DevFn) String() string { return fmt.Sprintf("00:%02x.%d", uint8(a)>>3, a&7) }

// Bus is the PCI bus with its two bridges. As a device it holds the
// configuration spaces of all functions; what else a function has, it saves itself.
type Bus struct {
	cfg     BusConfig
	funcs   [256]*Config
	isa     *Config
	address uint32
	reset   uint8
	level   [256]bool // the functions' interrupt pins
	isaHigh uint16    // the ISA lines that are held high
}

// State is the saved state of a Bus.
type State struct {
	Version   uint8
	Address   uint32
	Reset     uint8
	Functions []FunctionState // in ascending order
}

// FunctionState is the saved state of one function.
type FunctionState struct {
	Addr      DevFn
	Interrupt bool
	Config    []byte
}

// NewBus returns a bus that holds the two bridges.
func NewBus(cfg BusConfig) *Bus {
	b := &Bus{cfg: cfg}
	host := NewConfig(ID{Vendor: 0x8086, Device: 0x1237, Class: 0x060000, Revision: 2})
	host.SetInitialCommand(CommandMemory | CommandMaster)
	// The 82441FX's own registers (datasheet, 3.2: PAM, DRB, SMRAM and others) are
	// plain storage: RAM is where the memory map says, whatever they hold.
	for off := 0x50; off < 0x100; off++ {
		host.Define8(off, 0, 0xff)
	}
	b.Add(Addr(0, 0), host)

	b.isa = NewConfig(ID{Vendor: 0x8086, Device: 0x7110, Class: 0x060100, Revision: 2})
	b.isa.SetInitialCommand(CommandIO | CommandMemory | CommandMaster)
	for i := range PIRQs {
		b.isa.Define8(regPIRQRC+i, InitialIRQ(i), 0x8f)
	}
	b.isa.Define16(0x4e, 0x0003, 0xffff) // XBCS: RTC and keyboard decoded
	b.isa.OnWrite = func(off, size int) {
		if off < regPIRQRC+PIRQs && off+size > regPIRQRC {
			b.route()
		}
	}
	b.Add(Addr(1, 0), b.isa)
	return b
}

// Add puts a function on the bus. It is done once, when the machine is composed.
func (b *Bus) Add(addr DevFn, c *Config) {
	if b.funcs[addr] != nil {
		panic("BUG: two functions at " + addr.String())
	}
	if addr>>3 >= Slots && c.Read8(RegInterruptPin) != 0 {
		panic("BUG: no interrupt wiring for " + addr.String())
	}
	b.funcs[addr] = c
	first := b.funcs[addr&^7]
	for fn := DevFn(1); first != nil && fn < 8; fn++ {
		if b.funcs[addr&^7|fn] != nil {
			first.Define8(RegHeaderType, 0x80, 0)
		}
	}
}

// Line returns the interrupt pin of the function at addr, which must have one.
func (b *Bus) Line(addr DevFn) dev.Line {
	if c := b.funcs[addr]; c == nil || c.Read8(RegInterruptPin) == 0 {
		panic("BUG: no interrupt pin at " + addr.String())
	}
	return dev.LineFunc(func(level bool) {
		if b.level[addr] != level {
			b.level[addr] = level
			b.route()
		}
	})
}

// PIRQ returns the interrupt input, 0 for PIRQA#, that pin 1 (INTA#) to 4 of a device drives.
func PIRQ(device, pin uint8) int { return int(pin-1+device-1) % PIRQs }

// lines returns the levels of the PIRQs, and the ISA lines that they hold high.
func (b *Bus) lines() (pirq [PIRQs]bool, isa uint16) {
	for a, c := range b.funcs {
		if c != nil && b.level[a] && c.Command()&CommandInterruptDisable == 0 {
			pirq[PIRQ(uint8(a>>3), c.Read8(RegInterruptPin))] = true
		}
	}
	for i, level := range pirq {
		if rc := b.isa.Read8(regPIRQRC + i); level && rc&0x80 == 0 {
			isa |= 1 << (rc & 15)
		}
	}
	return pirq, isa
}

// route drives the interrupt lines from the pins and the PIRQRC registers.
func (b *Bus) route() {
	for a, c := range b.funcs {
		switch {
		case c == nil:
		case b.level[a]:
			c.SetStatus(StatusInterrupt, 0)
		default:
			c.SetStatus(0, StatusInterrupt)
		}
	}
	pirq, isa := b.lines()
	for i, level := range pirq {
		if l := b.cfg.GSI[i]; l != nil {
			l.Set(level)
		}
	}
	for i, l := range b.cfg.ISA {
		if now := isa >> i & 1; l != nil && now != b.isaHigh>>i&1 {
			l.Set(now != 0)
		}
	}
	b.isaHigh = isa
}

// PortsAt returns the device whose BAR decodes a port, and the port relative to
// the BAR; nil where there is none. Of two BARs that overlap the lower function answers.
func (b *Bus) PortsAt(port uint16) (dev.Ports, uint16) {
	for _, c := range b.funcs {
		if c == nil {
			continue
		}
		if p, off := c.PortsAt(port); p != nil {
			return p, off
		}
	}
	return nil, 0
}

// RegistersAt is PortsAt for memory.
func (b *Bus) RegistersAt(pa uint64) (dev.Registers, uint64) {
	for _, c := range b.funcs {
		if c == nil {
			continue
		}
		if r, off := c.RegistersAt(pa); r != nil {
			return r, off
		}
	}
	return nil, 0
}

// In implements dev.Ports for the ports from Port on.
func (b *Bus) In(port uint16, size int) uint32 {
	switch {
	case port == 0 && size == 4:
		return b.address
	case port == portReset && size == 1:
		return uint32(b.reset)
	case port < portData:
		return ones(size)
	}
	c, off := b.selected(port)
	if c == nil || off+size > configSize || int(port)+size > NumPorts {
		return ones(size)
	}
	return c.read(off, size)
}

// Out implements dev.Ports.
func (b *Bus) Out(port uint16, size int, v uint32) {
	switch {
	case port == 0 && size == 4:
		b.address = v & 0x80fffffc
		return
	case port == portReset && size == 1:
		rising := uint8(v) &^ b.reset & rcReset
		b.reset = uint8(v) & (rcReset | rcHard)
		if rising != 0 && b.cfg.Reset != nil {
			b.cfg.Reset()
		}
		return
	case port < portData:
		return
	}
	c, off := b.selected(port)
	if c == nil || off+size > configSize || int(port)+size > NumPorts {
		return
	}
	c.write(off, size, v)
	if off < RegBAR0+4*len(c.bars) && off+size > RegCommand {
		b.route() // interrupt disable
		if b.cfg.OnRemap != nil {
			b.cfg.OnRemap()
		}
	}
}

// selected returns the space and the offset that a data port stands for.
func (b *Bus) selected(port uint16) (*Config, int) {
	if b.address&0x80ff0000 != 0x80000000 {
		return nil, 0
	}
	return b.funcs[uint8(b.address>>8)], int(b.address&0xfc) + int(port-portData)
}

func ones(size int) uint32 { return uint32(1<<(8*size) - 1) }

// Name implements dev.Device.
func (b *Bus) Name() string { return "pci" }

// Reset implements dev.Device.
func (b *Bus) Reset() {
	b.address, b.reset = 0, 0
	b.level = [256]bool{}
	for _, c := range b.funcs {
		if c != nil {
			c.reset()
		}
	}
	b.route()
	if b.cfg.OnRemap != nil {
		b.cfg.OnRemap()
	}
}

// Save implements dev.Device.
func (b *Bus) Save() any {
	s := &State{Version: 1, Address: b.address, Reset: b.reset}
	for a, c := range b.funcs {
		if c != nil {
			s.Functions = append(s.Functions, FunctionState{Addr: DevFn(a), Interrupt: b.level[a], Config: append([]byte(nil), c.data[:]...)})
		}
	}
	return s
}

// Restore implements dev.Device. It drives no line: the interrupt controllers' states hold the levels.
func (b *Bus) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	i := 0
	for a, c := range b.funcs {
		if c == nil {
			continue
		}
		if i >= len(s.Functions) || s.Functions[i].Addr != DevFn(a) {
			return fmt.Errorf("the state lacks the function at %v", DevFn(a))
		}
		f := s.Functions[i]
		if err := c.restore(f.Config); err != nil {
			return fmt.Errorf("function %v: %w", DevFn(a), err)
		}
		if f.Interrupt && c.Read8(RegInterruptPin) == 0 {
			return fmt.Errorf("function %v asserts an interrupt pin that it does not have", DevFn(a))
		}
		b.level[a] = f.Interrupt
		i++
	}
	if i != len(s.Functions) {
		return fmt.Errorf("the state has a function at %v, this machine has none", s.Functions[i].Addr)
	}
	b.address, b.reset = s.Address&0x80fffffc, s.Reset&(rcReset|rcHard)
	_, b.isaHigh = b.lines()
	if b.cfg.OnRemap != nil {
		b.cfg.OnRemap()
	}
	return nil
}
