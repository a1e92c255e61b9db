//go:build linux

#include "textflag.h"

// func enter(code, ctx uintptr)
//
// Jumps into generated code, which returns to the caller. It keeps RSP and RBP in
// the context; everything else may be clobbered, which is what ABI0 allows.
TEXT ·enter(SB), NOSPLIT|NOFRAME, $0-16
	MOVQ code+0(FP), R11
	MOVQ ctx+8(FP), R10
	JMP  R11
