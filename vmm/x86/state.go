package x86

import "strconv"

// Indices into State.Regs. The 16 general registers have their hardware encoding.
const (
	RAX = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
	RegZero // always zero: the base or index of an address that has none
	RIP     // while an instruction executes, the address of the next one: what RIP-relative operands need
	NumRegs
)

// Indices into State.Seg. The first six have their hardware encoding.
const (
	ES = iota
	CS
	SS
	DS
	FS
	GS
	SegFlat // base zero, no checks: ES, CS, SS and DS in 64-bit mode
	LDTR
	TR
	NumSegs
)

// Attribute bits of a segment: bytes 5 and 6 of its descriptor without the
// limit (SDM Vol. 3A 3.4.5), the layout that VMX calls access rights.
const (
	SegType    = 0x000f
	SegS       = 1 << 4 // code or data, as opposed to system
	SegDPL     = 3 << 5
	SegPresent = 1 << 7
	SegAVL     = 1 << 12
	SegL       = 1 << 13 // 64-bit code
	SegDB      = 1 << 14 // 32-bit code or stack
	SegG       = 1 << 15

	SegDPLShift     = 5
	SegTypeAccessed = 1 << 0
	SegTypeWritable = 1 << 1 // data; for code: readable
	SegTypeExpand   = 1 << 2 // data: expand-down; for code: conforming
	SegTypeCode     = 1 << 3
)

// Segment is a segment register with its hidden part.
type Segment struct {
	Base  uint64
	Limit uint32 // in bytes, granularity applied
	Sel   uint16
	Attr  uint16 // without SegPresent the register is unusable (null)
}

// DPL returns the descriptor privilege level.
func (s *Segment) DPL() uint8 { return uint8(s.Attr&SegDPL) >> SegDPLShift }

// Table is GDTR or IDTR.
type Table struct {
	Base  uint64
	Limit uint16
}

// RFLAGS bits (SDM Vol. 1 3.4.3).
const (
	FlagCF   = 1 << 0
	Flag1    = 1 << 1 // reads as one
	FlagPF   = 1 << 2
	FlagAF   = 1 << 4
	FlagZF   = 1 << 6
	FlagSF   = 1 << 7
	FlagTF   = 1 << 8
	FlagIF   = 1 << 9
	FlagDF   = 1 << 10
	FlagOF   = 1 << 11
	FlagIOPL = 3 << 12
	FlagNT   = 1 << 14
	FlagRF   = 1 << 16
	FlagVM   = 1 << 17
	FlagAC   = 1 << 18
	FlagVIF  = 1 << 19
	FlagVIP  = 1 << 20
	FlagID   = 1 << 21

	// FlagsArith are the flags that arithmetic sets.
	FlagsArith = FlagCF | FlagPF | FlagAF | FlagZF | FlagSF | FlagOF
)

// Control register bits (SDM Vol. 3A 2.5).
const (
	CR0PE = 1 << 0
	CR0MP = 1 << 1
	CR0EM = 1 << 2
	CR0TS = 1 << 3
	CR0ET = 1 << 4
	CR0NE = 1 << 5
	CR0WP = 1 << 16
	CR0AM = 1 << 18
	CR0NW = 1 << 29
	CR0CD = 1 << 30
	CR0PG = 1 << 31

	CR4VME        = 1 << 0
	CR4PVI        = 1 << 1
	CR4TSD        = 1 << 2
	CR4DE         = 1 << 3
	CR4PSE        = 1 << 4
	CR4PAE        = 1 << 5
	CR4MCE        = 1 << 6
	CR4PGE        = 1 << 7
	CR4PCE        = 1 << 8
	CR4OSFXSR     = 1 << 9
	CR4OSXMMEXCPT = 1 << 10
	CR4UMIP       = 1 << 11
	CR4FSGSBASE   = 1 << 16
	CR4PCIDE      = 1 << 17
	CR4OSXSAVE    = 1 << 18
	CR4SMEP       = 1 << 20
	CR4SMAP       = 1 << 21

	EFERSCE = 1 << 0
	EFERLME = 1 << 8
	EFERLMA = 1 << 10
	EFERNXE = 1 << 11
)

// Exception vectors (SDM Vol. 3A 6.3.1).
const (
	VecDE  = 0
	VecDB  = 1
	VecNMI = 2
	VecBP  = 3
	VecOF  = 4
	VecBR  = 5
	VecUD  = 6
	VecNM  = 7
	VecDF  = 8
	VecTS  = 10
	VecNP  = 11
	VecSS  = 12
	VecGP  = 13
	VecPF  = 14
	VecMF  = 16
	VecAC  = 17
	VecMC  = 18
	VecXM  = 19
)

var vectorNames = [...]string{
	VecDE: "#DE", VecDB: "#DB", VecNMI: "NMI", VecBP: "#BP", VecOF: "#OF", VecBR: "#BR", VecUD: "#UD", VecNM: "#NM", VecDF: "#DF",
	VecTS: "#TS", VecNP: "#NP", VecSS: "#SS", VecGP: "#GP", VecPF: "#PF", VecMF: "#MF", VecAC: "#AC", VecMC: "#MC", VecXM: "#XM",
}

// VectorName returns what an exception or interrupt vector is called: #PF, NMI, INT 32.
func VectorName(vec uint8) string {
	if int(vec) < len(vectorNames) && vectorNames[vec] != "" {
		return vectorNames[vec]
	}
	return "INT " + strconv.Itoa(int(vec))
}

// Activity is what a processor is doing (SDM Vol. 3C 24.4.2).
type Activity uint8

const (
	Active Activity = iota
	Halted
	Shutdown // after a triple fault or a nested machine check
	WaitSIPI
)

// Interrupt shadows (SDM Vol. 3C 24.4.2, "Interruptibility State").
const (
	ShadowSTI   = 1 << 0
	ShadowMOVSS = 1 << 1
)

// State is a processor's architectural state. It lives outside the Go heap, at
// fixed offsets and without Go pointers, so that generated code can use it. All
// of it is saved and hashed, except the lazy flags, which are materialised first.
type State struct {
	Regs [NumRegs]uint64
	// RFLAGS holds all flags; its FlagsArith are valid only while FlagsLazy is zero.
	RFLAGS uint64

	// While FlagsLazy is one, the arithmetic flags follow from a result and the
	// carries that made it; see SetFlagsAdd and friends.
	FlagRes   uint64 `msgpack:"-"` // result, sign-extended to 64 bits
	FlagAux   uint64 `msgpack:"-"` // bit 63: CF; bit 63 xor bit 62: OF; bit 3: AF
	FlagsLazy uint8  `msgpack:"-"`

	CPL      uint8
	Activity Activity
	Shadow   uint8 // ShadowSTI, ShadowMOVSS: for the next instruction only
	// NMIBlocked from the delivery of an NMI until the next IRET.
	NMIBlocked bool
	NMIPending bool
	// MCPending: a machine check waits to be delivered at the next boundary.
	MCPending bool
	// IGNNE: x87 errors are ignored while CR0.NE is clear.
	IGNNE bool

	Step uint64 // instructions retired since power-on, over all processors

	Seg  [NumSegs]Segment
	GDTR Table
	IDTR Table

	CR0, CR2, CR3, CR4, XCR0 uint64
	DR                       [8]uint64
	EFER                     uint64
	STAR, LSTAR, CSTAR       uint64
	SFMASK, KernelGSBase     uint64
	SysenterCS               uint64
	SysenterESP, SysenterEIP uint64
	TSCAux, TSCAdjust        uint64
	PAT, MiscEnable          uint64
	MTRRDefType              uint64
	MTRRFixed                [11]uint64
	MTRRVar                  [16]uint64 // base and mask of eight ranges
	SpecCtrl, DebugCtl       uint64
	PDPTE                    [4]uint64 // loaded with CR3 in PAE paging (SDM Vol. 3A 4.4.1)
	// PendingDebug holds the DR6 bits of a debug trap that is due after the current instruction.
	PendingDebug uint64

	// FX is the x87, MMX and SSE state, in the layout of FXSAVE64 (SDM Vol. 1 10.5.1).
	FX [512]byte
}
