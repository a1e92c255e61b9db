package vmm

import (
	"math"

	"refault/vmm/dev/ata"
)

// Never is a step or a time that does not come.
const Never = math.MaxUint64

// EventKind says what came through the door.
type EventKind uint8

const (
	// EventConsole: Data was typed at the console.
	EventConsole EventKind = iota + 1
	// EventClock: virtual time jumps forward by DeltaNs, to follow the host's clock.
	EventClock
	// EventPower: somebody pressed the power button (Data empty) or pulled the plug.
	EventPower
	// EventFault: Fault happens to the hardware.
	EventFault
)

// Event is one nondeterministic input.
type Event struct {
	Step    uint64
	TimeNs  uint64 // virtual time; matters only while the machine is halted
	Kind    EventKind
	Data    []byte
	DeltaNs uint64
	Fault   *Fault
}

// Inputs is the one door through which everything enters that is not
// determined by the machine's state. The recorder and the replayer stand behind it.
type Inputs interface {
	// Take returns the next event that takes effect at this position, or nil. The
	// machine calls it when it comes to a position, until it returns nil, and not
	// again before step or timeNs have grown.
	Take(step, timeNs uint64) *Event
	// Horizon returns a step, later than step, beyond which the machine does not run before it calls Take again.
	Horizon(step uint64) uint64
	// Idle is called when all processors are halted until virtual time untilNs (or
	// Never). It returns the virtual time, at most untilNs, to which the machine
	// skips before it calls Take again, and which is later than timeNs if there will
	// be something to take; Never with untilNs Never means that nothing will ever wake
	// the machine. It may sleep.
	Idle(step, timeNs, untilNs uint64) uint64
}

// FaultKind names a primitive change to the hardware: what an injected fault
// comes down to, once targets are resolved.
type FaultKind uint8

const (
	// FaultMCE: a machine-check bank reports an error.
	FaultMCE FaultKind = iota + 1
	// FaultMemory: bytes of RAM change.
	FaultMemory
	// FaultRegister: a register changes.
	FaultRegister
	// FaultDisk: a drive behaves wrongly from now on.
	FaultDisk
	// FaultDefect: something breaks and stays broken.
	FaultDefect
	// FaultInterrupt: a local APIC takes an interrupt that nobody sent, or an 8259 sees a request that nobody made.
	FaultInterrupt
	// FaultClock: a clock jumps.
	FaultClock
)

// Clocks that can jump.
const (
	ClockTSC  = "tsc"  // the time-stamp counter
	ClockTime = "time" // virtual time as a whole, which only goes forward
)

// Fault is a resolved fault: it needs nothing but the machine to happen.
type Fault struct {
	Kind FaultKind
	// Spec is the text by which a person asked for it.
	Spec string
	CPU  int

	// FaultMCE: what the bank's registers report (SDM Vol. 3B 15.3.2).
	Bank      uint8
	Status    uint64
	Addr      uint64 // for FaultMemory too: the physical address
	Misc      uint64
	MCGStatus uint64
	Count     uint32 // so many errors at once; zero is one
	Silent    bool   // without a signal: a poll has to find it

	// FaultRegister: the name of a register, as x86.LookupRegister knows it.
	Register string

	// FaultMemory, FaultRegister: an XOR mask, little-endian for a register, and
	// the bytes that it was applied to.
	Mask, Old []byte

	// FaultDisk: which drive, and how it behaves.
	Drive int
	Disk  ata.Fault

	Defect *Defect // FaultDefect
	Vector uint8   // FaultInterrupt: a vector, or
	PIC    bool    // an input of the 8259s

	// FaultClock: which, and by how much. A negative number is its two's complement.
	Clock   string
	DeltaNs uint64
}

// StopReason says why a machine stopped for good.
type StopReason uint8

const (
	// Running: it has not.
	Running StopReason = iota
	// PowerOff: the guest powered off through ACPI.
	PowerOff
	// Reset: the guest asked for a reset; the run ends there.
	Reset
	// TripleFault: a fault in the delivery of a double fault, or a machine check during one, shut the processor down.
	TripleFault
	// DebugExit: the guest wrote to the debug-exit port.
	DebugExit
	// Dead: all processors halted and nothing wakes them, or nothing within an
	// hour of virtual time; or a processor delivers exceptions without end.
	Dead
	// PulledPlug: an EventPower ended the run.
	PulledPlug
)

var stopNames = [...]string{"running", "power-off", "reset", "triple-fault", "debug-exit", "dead", "power-lost"}

func (r StopReason) String() string {
	if int(r) < len(stopNames) {
		return stopNames[r]
	}
	return "unknown"
}

var eventNames = [...]string{EventConsole: "console", EventClock: "clock", EventPower: "power", EventFault: "fault"}

func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return "unknown"
}
