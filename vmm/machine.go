package vmm

import (
	"errors"
	"fmt"
	"sync/atomic"

	"refault/vmm/boot"
	"refault/vmm/dev"
	"refault/vmm/dev/acpi"
	"refault/vmm/dev/ata"
	"refault/vmm/dev/debugexit"
	"refault/vmm/dev/disk"
	"refault/vmm/dev/i8042"
	"refault/vmm/dev/ioapic"
	"refault/vmm/dev/lapic"
	"refault/vmm/dev/mca"
	"refault/vmm/dev/pci"
	"refault/vmm/dev/pic"
	"refault/vmm/dev/pit"
	"refault/vmm/dev/rtc"
	"refault/vmm/dev/uart"
	"refault/vmm/mem"
	"refault/vmm/x86"
	"refault/vmm/x86/interp"
	"refault/vmm/x86/jit"
)

// Model names the machine in recordings: another model is another machine, and
// its snapshots do not fit.
const Model = "refault-pc-1"

// Config says what a machine is made of. The same Config makes the same machine.
type Config struct {
	MemoryBytes uint64
	Disks       []*disk.Disk // at most four: primary and secondary, master and slave
	Seed        uint64
	// RTCStartUnix is what the real-time clock says at power-on.
	RTCStartUnix int64
	// Engine executes the instructions. It changes nothing that the guest or a recording could tell.
	Engine Engine
}

// Engine names what executes instructions.
type Engine string

const (
	// EngineAuto is the translator where the host can, and otherwise the interpreter.
	EngineAuto Engine = ""
	// EngineInterp is the interpreter: the specification, for any host.
	EngineInterp Engine = "interp"
	// EngineJIT is the translator, for linux/amd64.
	EngineJIT Engine = "jit"
)

// Machine is one virtual machine. It is not safe for concurrent use, except for Interrupt.
type Machine struct {
	RAM  *mem.RAM
	CPUs []*x86.CPU
	// Console receives every byte that the guest writes to its serial console. It must not change the machine.
	Console func(b byte)

	core   core
	queue  *dev.Queue
	bus    *bus
	lapics []*lapic.LAPIC
	mcas   []*mca.MCA
	ioapic *ioapic.IOAPIC
	pci    *pci.Bus
	pm     *acpi.PM
	uart   *uart.UART
	pic    *pic.PIC
	drives []*ata.Drive
	interp *interp.Engine
	jit    *jit.Engine // nil until it is wanted
	engine Engine
	inputs Inputs

	// When the processor last went idle; the machine's state implies it.
	idleStep, idleSinceNs uint64
	deliveries            int // of exceptions since an instruction retired

	defects   *Defects
	watches   watches
	observers []*Observer
	// observesAll: one of them looks at instructions wherever they are.
	observesAll bool
	dma         bool // a bus master accesses memory

	// How many instructions retired since the machine was made, and of them under the translator; for Stats.
	executed, executedByJIT uint64

	devices     []dev.Device
	interrupted atomic.Bool
	paused      bool
	// Where the last boundary was, and whether anything was done there; of the host, not of the machine.
	at    position
	acted bool
}

// Physical addresses of the machine.
const (
	lapicBase    = 0xfee00000
	ioapicBase   = 0xfec00000
	acpiTables   = 0xe0000
	centuryIndex = 0x32
)

// New builds a machine in its power-on state, with nothing in memory.
func New(cfg Config) (*Machine, error) {
	if len(cfg.Disks) > 4 {
		return nil, fmt.Errorf("%d disks; an IDE controller takes up to 4", len(cfg.Disks))
	}
	ram, err := mem.New(cfg.MemoryBytes)
	if err != nil {
		return nil, err
	}
	m := &Machine{RAM: ram, inputs: noInputs{}}
	m.core.step = func() uint64 { return m.CPUs[0].Step }
	m.core.Random = cfg.Seed
	m.core.Reset()
	m.queue = dev.NewQueue(m.core.now)
	m.bus = &bus{m: m}

	c, err := x86.NewCPU(0, ram, m.bus)
	if err != nil {
		return nil, errors.Join(err, ram.Close())
	}
	m.CPUs = []*x86.CPU{c}
	ram.OnWrite = func(off uint64, n int, flags mem.Flags) {
		for _, c := range m.CPUs {
			c.NoteWrite(off, n, flags)
		}
	}
	m.interp = interp.New(c)
	if err := m.SetEngine(cfg.Engine); err != nil {
		return nil, errors.Join(err, c.Close(), ram.Close())
	}
	m.compose(cfg)
	return m, nil
}

// compose builds the platform. The order of devices is the order of their states in
// snapshots and hashes, and the order of timers that fall due together.
func (m *Machine) compose(cfg Config) {
	b := m.bus
	hub := &lapic.Hub{}
	for i, c := range m.CPUs {
		l := lapic.New(lapic.Config{ID: i, Hub: hub, Queue: m.queue, CPU: processor{m, c},
			AckPIC: func() uint8 { return m.pic.Ack() }, TSCAdjust: func() uint64 { return c.TSCAdjust + m.defects.TSCOffset }})
		m.lapics = append(m.lapics, l)
		c.InterruptPending = l.Pending
		m.mcas = append(m.mcas, mca.New(i))
	}
	m.pic = pic.New(dev.LineFunc(func(level bool) {
		m.lapics[0].SetExtINT(level)
		m.attend()
	}))
	io := ioapic.New(hub)
	m.ioapic = io
	hub.EOI = io.EOI

	// An ISA interrupt goes to the PIC and to the I/O APIC: input 0 of the one is input 2 of the other.
	isa := func(n int) dev.Line {
		pin := n
		if n == 0 {
			pin = 2
		}
		p, a := m.pic.Line(n), io.Line(pin)
		return dev.LineFunc(func(level bool) {
			p.Set(level)
			a.Set(level)
			m.attend()
		})
	}
	var pciISA [16]dev.Line
	for _, n := range []int{10, 11} { // what the firmware tables route PIRQs to
		pciISA[n] = m.pic.Line(n)
	}
	var gsi [pci.PIRQs]dev.Line
	for i := range gsi {
		gsi[i] = dev.LineFunc(func(level bool) {
			io.Line(16 + i).Set(level)
			m.attend()
		})
	}
	reset := func() { m.stop(Reset) }
	m.pci = pci.NewBus(pci.BusConfig{GSI: gsi, ISA: pciISA, Reset: reset})

	timer := pit.New(m.queue, isa(0))
	m.uart = uart.New("uart0", isa(4), m.output)
	clock := rtc.New(m.queue, isa(8), cfg.RTCStartUnix, m.RAM.LowSize(), m.RAM.HighSize())
	kbd := i8042.New(isa(1), reset)
	exit := debugexit.New(func(status uint32) {
		m.core.Status = status
		m.stop(DebugExit)
	})
	m.pm = acpi.NewPM(acpi.PMConfig{Queue: m.queue, SCI: isa(9), PowerOff: func() { m.stop(PowerOff) }})
	ide := ata.New(ata.Config{Queue: m.queue, Memory: busMaster{m}, IRQ: [2]dev.Line{isa(14), isa(15)}, Touched: m.observeDrives})
	for i, d := range cfg.Disks {
		drive := ide.Attach(i/2, i%2, d, ata.Params{})
		drive.Starting = func(ops ata.Ops, lba, count uint64) { m.observeCommand(i, ops, lba, count) }
		drive.Wrote = func(lba uint64, b []byte) { m.observeWrite(i, lba, b) }
		m.drives = append(m.drives, drive)
	}
	m.pci.Add(pci.Addr(1, 1), ide.PCI())

	b.mapPorts(0x20, 2, dev.ByteWide(m.pic.Ports(0)))
	b.mapPorts(0xa0, 2, dev.ByteWide(m.pic.Ports(1)))
	b.mapPorts(0x4d0, 2, dev.ByteWide(m.pic.ELCR()))
	b.mapPorts(0x40, 4, dev.ByteWide(timer))
	b.mapPorts(0x61, 1, timer.Port61())
	b.mapPorts(0x60, 1, kbd.Data())
	b.mapPorts(0x64, 1, kbd.Command())
	b.mapPorts(0x92, 1, kbd.System())
	b.mapPorts(0x70, 2, dev.ByteWide(clock))
	b.mapPorts(0x3f8, uart.NumPorts, m.uart)
	b.mapPorts(0x1f0, 8, ide.CommandPorts(0))
	b.mapPorts(0x3f6, 1, ide.ControlPorts(0))
	b.mapPorts(0x170, 8, ide.CommandPorts(1))
	b.mapPorts(0x376, 1, ide.ControlPorts(1))
	b.mapPorts(acpi.PMBase, acpi.NumPMPorts, m.pm)
	b.mapPorts(0xcf8, 8, m.pci)
	b.mapPorts(0xf4, 4, exit)
	ferr := isa(13)
	m.CPUs[0].FERR = func() { ferr.Set(true) }
	b.mapPorts(0xf0, 1, coprocessor{m.CPUs[0], ferr})
	b.mapRegisters(ioapicBase, ioapic.WindowBytes, io)

	m.defects = newDefects(m)
	for i, c := range m.CPUs {
		m.devices = append(m.devices, c, m.lapics[i], m.mcas[i])
	}
	m.devices = append(m.devices, &m.core, m.queue, m.pic, io, timer, clock, kbd, m.uart, exit, m.pm, m.pci, ide)
	for _, d := range m.drives {
		m.devices = append(m.devices, d, d.Disk())
	}
	m.devices = append(m.devices, m.defects)
}

// attend makes the engine stop after the current instruction, since an interrupt line may have changed.
func (m *Machine) attend() {
	for _, c := range m.CPUs {
		c.Attention = true
	}
}

// processor is what a local APIC does to its processor besides interrupts.
type processor struct {
	m *Machine
	c *x86.CPU
}

func (p processor) NMI()       { p.c.NMIPending, p.c.Attention = true, true }
func (p processor) INIT()      { p.m.stop(Reset) } // of the only processor
func (p processor) SIPI(uint8) {}
func (p processor) SMI()       {}

// coprocessor is port F0H: writing it acknowledges an error of the x87 unit.
type coprocessor struct {
	c   *x86.CPU
	irq dev.Line
}

func (coprocessor) In(uint16, int) uint32 { return 0xff }

func (p coprocessor) Out(uint16, int, uint32) {
	p.irq.Set(false)
	p.c.IgnoreX87Errors()
}

func (m *Machine) output(b byte) {
	m.core.said(b)
	m.observeOutput(b)
	if m.Console != nil {
		m.Console(b)
	}
}

// noInputs is a machine to which nothing happens.
type noInputs struct{}

func (noInputs) Take(uint64, uint64) *Event            { return nil }
func (noInputs) Horizon(uint64) uint64                 { return Never }
func (noInputs) Idle(_, _ uint64, until uint64) uint64 { return until }

// SetInputs puts somebody behind the door.
func (m *Machine) SetInputs(in Inputs) {
	m.inputs = in
	m.Entered()
}

// Boot loads a kernel and puts processor 0 at its first instruction.
func (m *Machine) Boot(kernel, initrd []byte, commandLine string) error {
	tables := acpi.Tables(acpiTables, acpi.Config{CPUs: len(m.CPUs), LAPIC: lapicBase, IOAPIC: ioapicBase, Keyboard: true, RTCCentury: centuryIndex})
	e, err := boot.Load(m.RAM, boot.Config{Kernel: kernel, Initrd: initrd, CommandLine: commandLine,
		Firmware: []boot.Blob{{Addr: acpiTables, Bytes: tables}}, RSDP: acpiTables})
	if err != nil {
		return err
	}
	// As the firmware's tables have it: the SCI and what PCI's interrupts are routed to are level-triggered.
	m.pic.ELCR().Out(1, 1, 1<<(acpi.SCI-8)|1<<(10-8)|1<<(11-8))
	c := m.CPUs[0]
	c.GDTR = x86.Table{Base: e.GDTBase, Limit: e.GDTLimit}
	c.IDTR = x86.Table{}
	const data = x86.SegPresent | x86.SegS | x86.SegTypeWritable | x86.SegTypeAccessed | x86.SegG | x86.SegDB
	for _, s := range []int{x86.ES, x86.SS, x86.DS, x86.FS, x86.GS} {
		c.Seg[s] = x86.Segment{Sel: e.DS, Limit: 0xffffffff, Attr: data}
	}
	code := x86.Segment{Sel: e.CS, Limit: 0xffffffff, Attr: data&^x86.SegDB | x86.SegTypeCode}
	c.CR0 = x86.CR0PE | x86.CR0ET | x86.CR0NE
	if e.Mode == boot.Long64 {
		code.Attr |= x86.SegL
		c.CR0 |= x86.CR0PG
		c.CR4 = x86.CR4PAE
		c.CR3 = e.CR3
		c.EFER = x86.EFERLME | x86.EFERLMA
	} else {
		code.Attr |= x86.SegDB
	}
	c.Seg[x86.CS] = code
	c.Regs[x86.RIP], c.Regs[x86.RSP] = e.RIP, e.RSP
	c.Regs[x86.RAX], c.Regs[x86.RBX], c.Regs[x86.RSI], c.Regs[x86.RDX] = e.RAX, e.RBX, e.RSI, 0
	c.ModeChanged()
	c.FlushTLB()
	return nil
}

// Close frees the machine's memory. The disks are the caller's.
func (m *Machine) Close() error {
	var errs []error
	if m.jit != nil {
		errs = append(errs, m.jit.Close())
	}
	for _, c := range m.CPUs {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, m.RAM.Close())...)
}

// Devices returns everything that has state besides RAM, in the order in which it is saved and hashed.
func (m *Machine) Devices() []dev.Device { return m.devices }

// Drive returns drive i, in the order of Config.Disks.
func (m *Machine) Drive(i int) (*ata.Drive, error) {
	if i < 0 || i >= len(m.drives) {
		return nil, fmt.Errorf("drive %d of %d: %w", i, len(m.drives), ErrTarget)
	}
	return m.drives[i], nil
}

// Trace makes f be called before each instruction, on the engine's slow path; nil takes the fast path again.
func (m *Machine) Trace(f func(c *x86.CPU, in *x86.Inst)) {
	if f == nil {
		m.interp.Trace = nil
		return
	}
	m.interp.Trace = func(in *x86.Inst) { f(m.CPUs[0], in) }
}

// Out returns how many bytes the guest has written to its console.
func (m *Machine) Out() uint64 { return m.core.OutBytes }

// SetEngine changes the engine, at any step. The machine stays what it is.
func (m *Machine) SetEngine(e Engine) (err error) {
	switch e {
	case EngineInterp:
	case EngineAuto, EngineJIT:
		if m.jit == nil {
			m.jit, err = jit.New(m.CPUs[0], m.interp)
		}
		switch {
		case err == nil:
			e = EngineJIT
		case e == EngineAuto && errors.Is(err, jit.ErrHost):
			e = EngineInterp
		default:
			return fmt.Errorf("engine %s: %w", e, err)
		}
	default:
		return fmt.Errorf("engine %q: %w", e, ErrEngine)
	}
	m.engine = e
	return nil
}

// Engine returns the engine.
func (m *Machine) Engine() Engine { return m.engine }

// JIT returns the translator, or nil where there has been no use for it.
func (m *Machine) JIT() *jit.Engine { return m.jit }

// Err returns the error of the host that stopped the machine from being what it is (a
// disk image that could not be read), or nil.
func (m *Machine) Err() error {
	for _, d := range m.drives {
		if err := d.Disk().Err(); err != nil {
			return err
		}
	}
	return nil
}

// ForgetDirty must be called after the dirty flags of pages of RAM were cleared.
func (m *Machine) ForgetDirty(pages []uint32) {
	for _, c := range m.CPUs {
		c.RevokeWrites(pages)
	}
}
