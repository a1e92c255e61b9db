package vmm

import (
	"fmt"

	"refault/vmm/dev"
	"refault/vmm/x86"
)

// bus routes what processors do outside RAM to devices. It implements x86.Bus.
type bus struct {
	m     *Machine
	ports []portRange
	regs  []regRange

	broken bool // some accesses go wrong (DefectBus)
}

type portRange struct {
	base uint32
	size uint32
	dev  dev.Ports
}

type regRange struct {
	base uint64
	size uint64
	dev  dev.Registers
}

// mapPorts attaches a device to ports [base, base+size).
func (b *bus) mapPorts(base, size uint16, d dev.Ports) {
	for _, r := range b.ports {
		if uint32(base) < r.base+r.size && r.base < uint32(base)+uint32(size) {
			panic(fmt.Sprintf("BUG: ports %#x and %#x overlap", base, r.base))
		}
	}
	b.ports = append(b.ports, portRange{base: uint32(base), size: uint32(size), dev: d})
}

// mapRegisters attaches a device to physical addresses [base, base+size).
func (b *bus) mapRegisters(base, size uint64, d dev.Registers) {
	b.regs = append(b.regs, regRange{base, size, d})
}

// port finds the device at an access of size bytes that lies in one range.
func (b *bus) port(port uint16, size int) (dev.Ports, uint16) {
	for i := range b.ports {
		r := &b.ports[i]
		if off := uint32(port) - r.base; off < r.size && off+uint32(size) <= r.size {
			return r.dev, uint16(off)
		}
	}
	return nil, 0
}

// In reads a port. Nothing answers with ones, as on a PC. An access that no one
// device takes whole is made of byte accesses.
func (b *bus) In(c *x86.CPU, port uint16, size int) uint32 {
	c.Attention = true
	if b.broken {
		return uint32(b.m.defects.busRead(c, BusPort, uint64(port), size, func() uint64 { return uint64(b.in(c, port, size)) }))
	}
	return b.in(c, port, size)
}

func (b *bus) in(c *x86.CPU, port uint16, size int) uint32 {
	if d, off := b.port(port, size); d != nil {
		return d.In(off, size)
	}
	if d, off := b.m.pci.PortsAt(port); d != nil {
		return d.In(off, size)
	}
	if size == 1 {
		return 0xff
	}
	var v uint32
	for i := range size {
		v |= b.in(c, port+uint16(i), 1) & 0xff << (8 * i)
	}
	return v
}

// Out writes a port.
func (b *bus) Out(c *x86.CPU, port uint16, size int, v uint32) {
	c.Attention = true
	if b.broken {
		b.m.defects.busWrite(c, BusPort, uint64(port), size, uint64(v), func(v uint64) { b.out(c, port, size, uint32(v)) })
		return
	}
	b.out(c, port, size, v)
}

func (b *bus) out(c *x86.CPU, port uint16, size int, v uint32) {
	if d, off := b.port(port, size); d != nil {
		d.Out(off, size, v)
		return
	}
	if d, off := b.m.pci.PortsAt(port); d != nil {
		d.Out(off, size, v)
		return
	}
	if size == 1 {
		return
	}
	for i := range size {
		b.out(c, port+uint16(i), 1, v>>(8*i)&0xff)
	}
}

// ReadMMIO reads a device's registers. Where there is none, reads give ones.
func (b *bus) ReadMMIO(c *x86.CPU, pa uint64, size int) uint64 {
	c.Attention = true
	if b.broken {
		return b.m.defects.busRead(c, BusMemory, pa, size, func() uint64 { return b.readMMIO(c, pa, size) })
	}
	return b.readMMIO(c, pa, size)
}

func (b *bus) readMMIO(c *x86.CPU, pa uint64, size int) uint64 {
	if l := b.m.lapics[c.ID]; l.Decodes(pa) {
		return l.Read(pa&0xfff, size)
	}
	for i := range b.regs {
		if r := &b.regs[i]; pa-r.base < r.size {
			return r.dev.Read(pa-r.base, size)
		}
	}
	if d, off := b.m.pci.RegistersAt(pa); d != nil {
		return d.Read(off, size)
	}
	return 1<<(8*size) - 1
}

// WriteMMIO writes a device's registers.
func (b *bus) WriteMMIO(c *x86.CPU, pa uint64, size int, v uint64) {
	c.Attention = true
	if b.broken {
		b.m.defects.busWrite(c, BusMemory, pa, size, v, func(v uint64) { b.writeMMIO(c, pa, size, v) })
		return
	}
	b.writeMMIO(c, pa, size, v)
}

func (b *bus) writeMMIO(c *x86.CPU, pa uint64, size int, v uint64) {
	if l := b.m.lapics[c.ID]; l.Decodes(pa) {
		l.Write(pa&0xfff, size, v)
		return
	}
	for i := range b.regs {
		if r := &b.regs[i]; pa-r.base < r.size {
			r.dev.Write(pa-r.base, size, v)
			return
		}
	}
	if d, off := b.m.pci.RegistersAt(pa); d != nil {
		d.Write(off, size, v)
	}
}

// ReadMSR reads a register of the local APIC or of a machine-check bank.
func (b *bus) ReadMSR(c *x86.CPU, msr uint32) (uint64, bool) {
	if v, handled, ok := b.m.lapics[c.ID].ReadMSR(msr); handled {
		return v, ok
	}
	b.m.bankRead(c, msr)
	v, handled, ok := b.m.mcas[c.ID].ReadMSR(msr)
	return v, handled && ok
}

// WriteMSR writes a register of the local APIC or of a machine-check bank.
func (b *bus) WriteMSR(c *x86.CPU, msr uint32, v uint64) bool {
	c.Attention = true
	if handled, ok := b.m.lapics[c.ID].WriteMSR(msr, v); handled {
		return ok
	}
	b.m.bankWritten(c, msr, v)
	handled, ok := b.m.mcas[c.ID].WriteMSR(msr, v)
	return handled && ok
}

// ReadCR8 reads the task priority of the processor's local APIC.
func (b *bus) ReadCR8(c *x86.CPU) uint64 { return uint64(b.m.lapics[c.ID].CR8()) }

// WriteCR8 sets it.
func (b *bus) WriteCR8(c *x86.CPU, v uint64) {
	c.Attention = true
	b.m.lapics[c.ID].SetCR8(uint8(v))
}

// TSC returns the time-stamp counter: virtual time in nanoseconds, and the jumps of a broken one.
func (b *bus) TSC(*x86.CPU) uint64 { return b.m.core.now() + b.m.defects.TSCOffset }

// Random returns the next number of the seeded generator.
func (b *bus) Random(*x86.CPU) uint64 { return b.m.core.random() }
