#include "textflag.h"

// func call(code, ctx uintptr)
TEXT ·call(SB), NOSPLIT, $8-16
	MOVQ code+0(FP), AX
	MOVQ ctx+8(FP), DI
	CALL AX
	RET
