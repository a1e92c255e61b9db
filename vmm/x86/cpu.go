package x86

import (
	"errors"
	"fmt"

	"refault/vmm/mem"
	"refault/vmm/x86/fpu"
)

// Bus is what a processor is attached to: everything that is not its own state and not RAM.
type Bus interface {
	// ReadMMIO and WriteMMIO access physical addresses that are not RAM; size is 1, 2, 4 or 8
	// bytes and the access does not cross a naturally aligned 8 bytes.
	ReadMMIO(c *CPU, pa uint64, size int) uint64
	WriteMMIO(c *CPU, pa uint64, size int, v uint64)
	// In and Out access I/O ports; size is 1, 2 or 4 bytes.
	In(c *CPU, port uint16, size int) uint32
	Out(c *CPU, port uint16, size int, v uint32)
	// ReadMSR and WriteMSR access model-specific registers that live outside the
	// core: local APIC, machine-check banks. ok is false for #GP.
	ReadMSR(c *CPU, msr uint32) (v uint64, ok bool)
	WriteMSR(c *CPU, msr uint32, v uint64) (ok bool)
	// CR8 is the local APIC's task priority.
	ReadCR8(c *CPU) uint64
	WriteCR8(c *CPU, v uint64)
	// TSC returns the time-stamp counter, without IA32_TSC_ADJUST.
	TSC(c *CPU) uint64
	// Random returns the next 64 bits of the machine's seeded generator (RDRAND, RDSEED).
	Random(c *CPU) uint64
}

// CPU is one processor: its state, and its view of memory and of the rest of
// the machine. Its methods implement the architecture; engines drive them.
type CPU struct {
	*State
	ID  int
	RAM *mem.RAM
	Bus Bus
	// FPU executes floating-point and vector instructions; it holds no guest state between them.
	FPU *fpu.Unit

	// Until is the step at which the engine's current Run must stop: the bound for REP.
	Until uint64
	// Attention is set when something happened after which the machine must look at
	// interrupts, events or the processor's activity before the next instruction.
	Attention bool
	// InstRIP is the address of the instruction that is executing: where a fault points.
	InstRIP uint64
	// Exc is the exception that is being raised or was delivered last.
	Exc Exception

	// InterruptPending reports whether a maskable interrupt waits for the processor to allow it. Where it is nil, an
	// engine must assume so. What it says changes only while Attention is set.
	InterruptPending func() bool
	// CodeWritten is called before bytes of a page flagged mem.Code change. Engines set it.
	CodeWritten func(off uint64, n int)
	// CodeFlushed is called when the translation of linear addresses first to last, as addresses of
	// instructions, may have changed. Engines set it.
	CodeFlushed func(first, last uint64)
	// SpaceChanged, if set, is called in place of CodeFlushed when another root of tables is in use, and the lower half is
	// that of another address space: what an engine knew of it when it was called with old equal to what is new now, is true
	// again, as far as it was not told otherwise before that call. What has not had a name yet is unknown.
	SpaceChanged func(old, new uint64)
	// FetchChanged is called when the privilege or the segment of instruction fetches may have changed. Engines set it.
	FetchChanged func()
	// Watch is called before an access to a page flagged mem.Watched. off is an offset into RAM. Loads and stores that
	// touch nothing in WatchHull it need not hear of.
	Watch     func(off uint64, n int, kind Access)
	WatchHull Span
	// Delivered is called when an exception or interrupt has been delivered.
	Delivered func(e Exception)
	// FERR is called when an x87 instruction finds an error that CR0.NE leaves to an interrupt.
	FERR func()
	// SystemCall is called before SYSCALL or SYSENTER changes anything, where RAX is in SystemCalls.
	SystemCall  func()
	SystemCalls Span
	// Delivering is set while an exception or interrupt is delivered, and DeliveredAt is the step at which that was done last.
	Delivering  bool
	DeliveredAt uint64

	// Counts is of the host.
	Counts Counts

	area *area
	mmu  mmu

	// switched is set once the task that an exception, a far transfer or IRET switches to is the running one.
	switched bool
	// stackError is the error code of a #SS while the stack of another privilege level is being filled: its selector.
	stackError uint32
	observer   *Observer
	dataHull   Span // of observer.Data
}

// Access is a kind of memory access.
type Access uint8

const (
	Read Access = iota
	Write
	Fetch
	// Walk is the processor's own reading of its page tables.
	Walk
)

var accessNames = [...]string{Read: "read", Write: "write", Fetch: "fetch", Walk: "walk"}

func (a Access) String() string { return accessNames[a] }

// Exception is an exception or interrupt to be delivered.
type Exception struct {
	Vec     uint8
	HasErr  bool
	Err     uint32
	Soft    bool   // INT n, INT3, INTO: RIP is already past the instruction, and gates' DPL is checked
	Ext     bool   // external interrupt
	Address uint64 // #PF: the linear address

	nonCanonical bool // #GP for Address, or #SS if the access was to the stack
	abandoned    bool // no exception at all, see Abandon
}

// guestFault unwinds a handler that raised an exception; engines recover it.
type guestFault struct{}

var fault = &guestFault{}

// IsFault reports whether a recovered panic value is a guest exception (in CPU.Exc) rather than a bug.
func IsFault(r any) bool { return r == any(fault) }

// Raise raises an exception without error code. It does not return.
func (c *CPU) Raise(vec uint8) {
	c.Exc = Exception{Vec: vec}
	panic(fault)
}

// RaiseErr raises an exception with error code. It does not return.
func (c *CPU) RaiseErr(vec uint8, code uint32) {
	c.Exc = Exception{Vec: vec, HasErr: true, Err: code}
	panic(fault)
}

// NewCPU returns processor id in the state that RESET leaves (SDM Vol. 3A 9.1.1).
func NewCPU(id int, ram *mem.RAM, bus Bus) (*CPU, error) {
	a, err := newArea()
	if err != nil {
		return nil, fmt.Errorf("processor %d: %w", id, err)
	}
	c := &CPU{State: &a.state, ID: id, RAM: ram, Bus: bus, area: a}
	c.mmu.init(&a.tlbs)
	c.mmu.grants = make([]granters, ram.Pages())
	c.DeliveredAt, c.dataHull = never, nowhere
	if c.FPU, err = fpu.New(); err != nil {
		return nil, errors.Join(fmt.Errorf("processor %d: %w", id, err), freeArea(a))
	}
	c.Reset()
	return c, nil
}

// Close frees what NewCPU mapped.
func (c *CPU) Close() error {
	err := errors.Join(c.FPU.Close(), freeArea(c.area))
	c.State, c.mmu.tlbs, c.area = nil, nil, nil
	return err
}

// Reset puts the processor in the state that RESET leaves (SDM Vol. 3A 9.1.1, table 9-1). Step keeps counting.
func (c *CPU) Reset() {
	step := c.Step
	*c.State = State{Step: step}
	c.Regs[RIP] = 0xfff0
	c.Regs[RDX] = cpuSignature
	c.RFLAGS = Flag1
	data := Segment{Limit: 0xffff, Attr: SegPresent | SegS | SegTypeWritable | SegTypeAccessed}
	for _, s := range []int{ES, SS, DS, FS, GS} {
		c.Seg[s] = data
	}
	c.Seg[CS] = Segment{Sel: 0xf000, Base: 0xffff0000, Limit: 0xffff, Attr: SegPresent | SegS | SegTypeCode | SegTypeWritable | SegTypeAccessed}
	c.Seg[LDTR] = Segment{Limit: 0xffff, Attr: SegPresent | 2}
	c.Seg[TR] = Segment{Limit: 0xffff, Attr: SegPresent | 11}
	c.GDTR.Limit, c.IDTR.Limit = 0xffff, 0xffff
	c.CR0 = CR0CD | CR0NW | CR0ET
	c.DR[6], c.DR[7] = 0xffff0ff0, 0x400
	c.XCR0 = 1
	c.PAT = 0x0007040600070406
	c.MiscEnable = 1           // fast strings
	c.FX[0], c.FX[1] = 0x40, 0 // FCW
	c.FX[24], c.FX[25] = 0x80, 0x1f
	c.ModeChanged()
	c.FlushTLB()
}

// Name implements dev.Device.
func (c *CPU) Name() string { return fmt.Sprintf("cpu%d", c.ID) }

// Save implements dev.Device. The lazy flags are materialised first.
func (c *CPU) Save() any {
	c.Materialise()
	s := *c.State
	return &s
}

// Restore implements dev.Device.
func (c *CPU) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	s.Regs[RegZero] = 0
	s.Seg[SegFlat] = Segment{}
	*c.State = s
	c.cleanFX()
	c.CPL &= 3
	c.Activity = min(c.Activity, WaitSIPI)
	c.DeliveredAt = never
	c.ModeChanged()
	c.FlushTLB()
	return nil
}

// CodeSize returns the default operand size of the current code segment in bytes: 2, 4 or 8.
func (c *CPU) CodeSize() int {
	switch {
	case c.EFER&EFERLMA != 0 && c.Seg[CS].Attr&SegL != 0:
		return 8
	case c.Seg[CS].Attr&SegDB != 0:
		return 4
	}
	return 2
}

// ModeChanged must be called after CPL, CR0, CR4, EFER, RFLAGS.AC or CS changed.
func (c *CPU) ModeChanged() { c.mmu.select_(c) }
