package x86

// Handler executes one decoded instruction. RIP already names the next
// instruction. A handler raises an exception with CPU.Raise before it changes
// anything that the architecture keeps on a fault, and does not return then.
type Handler func(c *CPU, in *Inst)

// Inst is a decoded instruction.
type Inst struct {
	Fn   Handler // set by the engine
	Op   Op
	Form uint16 // index of the row of the opcode table that it was decoded by

	Len      uint8 // bytes, 1 to 15
	OpSize   uint8 // effective operand size in bytes: 1, 2, 4, 8; 16 for vector operands
	AddrSize uint8 // effective address size in bytes: 2, 4, 8
	Mode     uint8 // code size in which it was decoded, in bytes: 2, 4, 8
	Prefix   uint8 // PrefixLock and friends
	Rex      uint8 // the REX prefix, or zero

	ModRM uint8
	IsMem bool  // the r/m operand is in memory
	Reg   uint8 // ModRM.reg with REX.R, or the register in the opcode with REX.B
	RM    uint8 // ModRM.rm with REX.B; a register if !IsMem
	// For byte operands, Reg and RM carry HighByte where they mean AH, CH, DH, BH.
	Base   uint8 // register of the address, or RegZero, or RIP
	Index  uint8 // register of the address, or RegZero
	Scale  uint8 // shift of the index: 0 to 3
	Seg    uint8 // segment of the memory operand; SegFlat where base and checks are none
	Stack  bool  // the memory operand is in the stack segment: a bad address raises #SS
	Opcode uint8 // last opcode byte

	AddrMask uint64 // what the address size keeps of an offset
	Disp     uint64 // sign-extended displacement; for moffs, the offset
	Imm      uint64 // immediate, extended as the instruction wants it
	Imm2     uint64 // second immediate: ENTER, far pointers' selector
}

// HighByte marks the number of a byte register as bits 15:8 of registers 0 to 3.
const HighByte = 0x20

// Prefixes that a handler may care for.
const (
	PrefixLock  = 1 << 0
	PrefixRep   = 1 << 1 // F3
	PrefixRepne = 1 << 2 // F2
	PrefixData  = 1 << 3 // 66
	PrefixAddr  = 1 << 4 // 67
)
