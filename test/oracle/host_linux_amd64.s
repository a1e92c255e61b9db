#include "textflag.h"
#include "go_asm.h"

// func enter(ctx *context)
//
// Loads the context's registers and jumps to its entry pad. Control comes back
// through leave, which returns to enter's caller.
TEXT ·enter(SB), NOSPLIT|NOFRAME, $0-8
	MOVQ ctx+0(FP), AX
	MOVQ SP, context_HostSP(AX)
	MOVQ BP, context_HostBP(AX)
	FXSAVE64 context_HostFX(AX)
	FXRSTOR64 context_FX(AX)
	MOVQ $1, CX
	MOVQ CX, context_active(AX)
	MOVQ context_RFLAGS(AX), CX
	PUSHQ CX
	POPFQ
	// No instruction from here on changes flags.
	MOVQ (context_Regs+8)(AX), CX
	MOVQ (context_Regs+16)(AX), DX
	MOVQ (context_Regs+24)(AX), BX
	MOVQ (context_Regs+32)(AX), SP
	MOVQ (context_Regs+40)(AX), BP
	MOVQ (context_Regs+48)(AX), SI
	MOVQ (context_Regs+56)(AX), DI
	MOVQ (context_Regs+64)(AX), R8
	MOVQ (context_Regs+72)(AX), R9
	MOVQ (context_Regs+80)(AX), R10
	MOVQ (context_Regs+88)(AX), R11
	MOVQ (context_Regs+96)(AX), R12
	MOVQ (context_Regs+104)(AX), R13
	MOVQ (context_Regs+112)(AX), R14
	MOVQ (context_Regs+120)(AX), R15
	JMP context_entry(AX)

// leave is jumped to by the landing pads, which have stored RAX and RIP.
TEXT ·leave(SB), NOSPLIT|NOFRAME, $0
	MOVQ $const_contextAddr, AX
	MOVQ CX, (context_Regs+8)(AX)
	MOVQ DX, (context_Regs+16)(AX)
	MOVQ BX, (context_Regs+24)(AX)
	MOVQ SP, (context_Regs+32)(AX)
	MOVQ BP, (context_Regs+40)(AX)
	MOVQ SI, (context_Regs+48)(AX)
	MOVQ DI, (context_Regs+56)(AX)
	MOVQ R8, (context_Regs+64)(AX)
	MOVQ R9, (context_Regs+72)(AX)
	MOVQ R10, (context_Regs+80)(AX)
	MOVQ R11, (context_Regs+88)(AX)
	MOVQ R12, (context_Regs+96)(AX)
	MOVQ R13, (context_Regs+104)(AX)
	MOVQ R14, (context_Regs+112)(AX)
	MOVQ R15, (context_Regs+120)(AX)
	MOVQ context_HostSP(AX), SP
	PUSHFQ
	POPQ CX
	MOVQ CX, context_RFLAGS(AX)
	CLD
	FXSAVE64 context_FX(AX)
	FXRSTOR64 context_HostFX(AX)
	MOVQ context_HostBP(AX), BP
	MOVQ $0, CX
	MOVQ CX, context_active(AX)
	RET

// Offsets in struct ucontext of Linux, amd64.
#define ucRIP 168
#define ucCS 184
#define ucErr 192
#define ucTrap 200
#define ucCR2 216

// handler is the signal handler (C calling convention): a signal that comes while
// an instruction under test executes continues at the fault pad, every other one
// goes to the Go runtime.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVQ $const_contextAddr, AX
	CMPQ context_active(AX), $1
	JNE notOurs
	MOVQ $2, context_active(AX)
	MOVQ ucRIP(DX), CX
	MOVQ CX, context_faultRIP(AX)
	MOVQ ucErr(DX), CX
	MOVQ CX, context_errorCode(AX)
	MOVQ ucTrap(DX), CX
	MOVQ CX, context_trap(AX)
	MOVQ ucCR2(DX), CX
	MOVQ CX, context_cr2(AX)
	MOVQ context_faultPad(AX), CX
	MOVQ CX, ucRIP(DX)
	MOVW $0x33, ucCS(DX)
	RET
notOurs:
	MOVQ context_oldHandler(AX), AX
	JMP AX

// restorer is where a handler returns to: rt_sigreturn.
TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVQ $15, AX
	SYSCALL
	INT $3

// func addresses() (leaveAddr, handlerAddr, restorerAddr uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-24
	LEAQ ·leave(SB), AX
	MOVQ AX, leaveAddr+0(FP)
	LEAQ ·handler(SB), AX
	MOVQ AX, handlerAddr+8(FP)
	LEAQ ·restorer(SB), AX
	MOVQ AX, restorerAddr+16(FP)
	RET

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET
