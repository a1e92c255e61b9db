package x86

// Op names an operation, whatever the form of its operands. Each file of the
// opcode table declares its operations from a base of its own.
type Op uint16

const (
	opIntegerBase Op = 0x001 // optab_integer.go
	opSystemBase  Op = 0x200 // optab_system.go
	opVectorBase  Op = 0x400 // optab_vector.go: MMX, SSE
	opX87Base     Op = 0x700 // optab_x87.go
	// NumOps is larger than every Op.
	NumOps = 0x900
)

// Form is one row of the opcode table: one encoding of one instruction.
// Decoder, disassembler and the tests against the processor all derive from it.
//
// Enc is the SDM's notation (Vol. 2A 3.1.1.1): an optional mandatory prefix (NP,
// 66, F3, F2), the opcode bytes, then
//
//	/r        a ModRM byte with a register operand
//	/0 … /7   a ModRM byte whose reg field extends the opcode
//	=C8       a whole ModRM byte that extends the opcode
//	+r        a register in the low three bits of the opcode
//
// and, after /r or a digit, ":m" or ":r" where the r/m operand must be memory or
// must be a register. Immediates follow from the operands.
//
// Syntax is the mnemonic and its operands in the notation of SDM Vol. 2D appendix
// A.2, for example "add Ev,Iz". Further operand codes: "1" (the constant), "AL",
// "rAX", "CL", "DX" (fixed registers), "Zb" and "Zv" (register in the opcode), "ST0"
// and "STi".
type Form struct {
	Enc    string
	Syntax string
	Op     Op
	Attr   Attr
}

// Attr qualifies a form.
type Attr uint16

const (
	LockOK   Attr = 1 << iota // LOCK allowed with a memory destination
	No64                      // #UD in 64-bit mode
	Only64                    // #UD outside it
	Def64                     // operand size is 64 bits in 64-bit mode unless 66 makes it 16
	Force64                   // operand size is always 64 bits in 64-bit mode
	Priv                      // #GP(0) unless CPL is 0
	EndBlock                  // ends a basic block: control transfer, or changes how what follows is decoded
	RexWOnly                  // this row only with REX.W (a row without it serves the rest)
	RepOK                     // REP/REPE/REPNE are meant (string instructions)
	IsFPU                     // checks CR0.EM and CR0.TS (#NM) and pending x87 errors
	IsMMX                     // checks CR0.EM (#UD), CR0.TS (#NM), pending x87 errors
	IsSSE                     // checks CR0.EM, CR4.OSFXSR (#UD), CR0.TS (#NM)
	NoRep                     // another instruction, if any, with F2 or F3
	Align16                   // a 16-byte memory operand must be aligned (#GP)
)
