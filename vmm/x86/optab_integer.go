package x86

// Integer operations.
const (
	OpADD Op = opIntegerBase + iota // the eight ALU operations, in the order of their encoding
	OpOR
	OpADC
	OpSBB
	OpAND
	OpSUB
	OpXOR
	OpCMP
	OpTEST
	OpROL // the eight shifts, in the order of their encoding
	OpROR
	OpRCL
	OpRCR
	OpSHL
	OpSHR
	OpSAL
	OpSAR
	OpINC
	OpDEC
	OpNOT
	OpNEG
	OpMUL
	OpIMUL1
	OpIMUL2
	OpIMUL3
	OpDIV
	OpIDIV
	OpSHLD
	OpSHRD
	OpBT // the four bit tests, in the order of their encoding
	OpBTS
	OpBTR
	OpBTC
	OpBSF
	OpBSR
	OpBSWAP
	OpPOPCNT
	OpCRC32
	OpMOV
	OpMOVZX8
	OpMOVZX16
	OpMOVSX8
	OpMOVSX16
	OpMOVSXD
	OpLEA
	OpXCHG
	OpXADD
	OpCMPXCHG
	OpCMPXCHG8B
	OpCMPXCHG16B
	OpPUSH
	OpPOP
	OpPUSHA
	OpPOPA
	OpENTER
	OpLEAVE
	OpJCC
	OpJMP
	OpCALL
	OpRET
	OpLOOPNE
	OpLOOPE
	OpLOOP
	OpJCXZ
	OpSETCC
	OpCMOVCC
	OpCBW
	OpCWD
	OpDAA
	OpDAS
	OpAAA
	OpAAS
	OpAAM
	OpAAD
	OpLAHF
	OpSAHF
	OpCLC
	OpSTC
	OpCMC
	OpCLD
	OpSTD
	OpXLAT
	OpBOUND
	OpMOVS
	OpCMPS
	OpSTOS
	OpLODS
	OpSCAS
	OpNOP
	OpFENCE
	OpUD
	OpMOVNTI
	OpBound // end of the integer operations
)

// formsInteger is the general-purpose part of the opcode table (SDM Vol. 2D appendix A, Vol. 1 5.1).
var formsInteger = concat(aluForms(), shiftForms(), condForms(), []Form{
	{"84 /r", "test Eb,Gb", OpTEST, 0},
	{"85 /r", "test Ev,Gv", OpTEST, 0},
	{"A8", "test AL,Ib", OpTEST, 0},
	{"A9", "test rAX,Iz", OpTEST, 0},
	{"F6 /0", "test Eb,Ib", OpTEST, 0},
	{"F6 /1", "test Eb,Ib", OpTEST, 0},
	{"F7 /0", "test Ev,Iz", OpTEST, 0},
	{"F7 /1", "test Ev,Iz", OpTEST, 0},
	{"F6 /2", "not Eb", OpNOT, LockOK},
	{"F7 /2", "not Ev", OpNOT, LockOK},
	{"F6 /3", "neg Eb", OpNEG, LockOK},
	{"F7 /3", "neg Ev", OpNEG, LockOK},
	{"F6 /4", "mul Eb", OpMUL, 0},
	{"F7 /4", "mul Ev", OpMUL, 0},
	{"F6 /5", "imul Eb", OpIMUL1, 0},
	{"F7 /5", "imul Ev", OpIMUL1, 0},
	{"F6 /6", "div Eb", OpDIV, 0},
	{"F7 /6", "div Ev", OpDIV, 0},
	{"F6 /7", "idiv Eb", OpIDIV, 0},
	{"F7 /7", "idiv Ev", OpIDIV, 0},
	{"0F AF /r", "imul Gv,Ev", OpIMUL2, 0},
	{"69 /r", "imul Gv,Ev,Iz", OpIMUL3, 0},
	{"6B /r", "imul Gv,Ev,Ibs", OpIMUL3, 0},
	{"FE /0", "inc Eb", OpINC, LockOK},
	{"FF /0", "inc Ev", OpINC, LockOK},
	{"FE /1", "dec Eb", OpDEC, LockOK},
	{"FF /1", "dec Ev", OpDEC, LockOK},
	{"40 +r", "inc Zv", OpINC, No64},
	{"48 +r", "dec Zv", OpDEC, No64},

	{"0F A4 /r", "shld Ev,Gv,Ib", OpSHLD, 0},
	{"0F A5 /r", "shld Ev,Gv,CL", OpSHLD, 0},
	{"0F AC /r", "shrd Ev,Gv,Ib", OpSHRD, 0},
	{"0F AD /r", "shrd Ev,Gv,CL", OpSHRD, 0},
	{"0F A3 /r", "bt Ev,Gv", OpBT, 0},
	{"0F AB /r", "bts Ev,Gv", OpBTS, LockOK},
	{"0F B3 /r", "btr Ev,Gv", OpBTR, LockOK},
	{"0F BB /r", "btc Ev,Gv", OpBTC, LockOK},
	{"0F BA /4", "bt Ev,Ib", OpBT, 0},
	{"0F BA /5", "bts Ev,Ib", OpBTS, LockOK},
	{"0F BA /6", "btr Ev,Ib", OpBTR, LockOK},
	{"0F BA /7", "btc Ev,Ib", OpBTC, LockOK},
	{"0F BC /r", "bsf Gv,Ev", OpBSF, 0},
	{"0F BD /r", "bsr Gv,Ev", OpBSR, 0},
	{"0F C8 +r", "bswap Zv", OpBSWAP, 0},
	{"F3 0F B8 /r", "popcnt Gv,Ev", OpPOPCNT, 0},
	{"F2 0F 38 F0 /r", "crc32 Gy,Eb", OpCRC32, 0},
	{"F2 0F 38 F1 /r", "crc32 Gy,Ev", OpCRC32, 0},

	{"88 /r", "mov Eb,Gb", OpMOV, 0},
	{"89 /r", "mov Ev,Gv", OpMOV, 0},
	{"8A /r", "mov Gb,Eb", OpMOV, 0},
	{"8B /r", "mov Gv,Ev", OpMOV, 0},
	{"A0", "mov AL,Ob", OpMOV, 0},
	{"A1", "mov rAX,Ov", OpMOV, 0},
	{"A2", "mov Ob,AL", OpMOV, 0},
	{"A3", "mov Ov,rAX", OpMOV, 0},
	{"B0 +r", "mov Zb,Ib", OpMOV, 0},
	{"B8 +r", "mov Zv,Iv", OpMOV, 0},
	{"C6 /0", "mov Eb,Ib", OpMOV, 0},
	{"C7 /0", "mov Ev,Iz", OpMOV, 0},
	{"NP 0F C3 /r:m", "movnti My,Gy", OpMOVNTI, 0},
	{"0F B6 /r", "movzx Gv,Eb", OpMOVZX8, 0},
	{"0F B7 /r", "movzx Gv,Ew", OpMOVZX16, 0},
	{"0F BE /r", "movsx Gv,Eb", OpMOVSX8, 0},
	{"0F BF /r", "movsx Gv,Ew", OpMOVSX16, 0},
	{"63 /r", "movsxd Gv,Ed", OpMOVSXD, Only64},
	{"8D /r:m", "lea Gv,M", OpLEA, 0},
	{"86 /r", "xchg Eb,Gb", OpXCHG, LockOK},
	{"87 /r", "xchg Ev,Gv", OpXCHG, LockOK},
	{"90 +r", "xchg Zv,rAX", OpXCHG, 0},
	{"0F C0 /r", "xadd Eb,Gb", OpXADD, LockOK},
	{"0F C1 /r", "xadd Ev,Gv", OpXADD, LockOK},
	{"0F B0 /r", "cmpxchg Eb,Gb", OpCMPXCHG, LockOK},
	{"0F B1 /r", "cmpxchg Ev,Gv", OpCMPXCHG, LockOK},
	{"0F C7 /1:m", "cmpxchg8b Mq", OpCMPXCHG8B, LockOK},
	{"0F C7 /1:m", "cmpxchg16b Mx", OpCMPXCHG16B, LockOK | RexWOnly},

	{"50 +r", "push Zv", OpPUSH, Def64},
	{"58 +r", "pop Zv", OpPOP, Def64},
	{"FF /6", "push Ev", OpPUSH, Def64},
	{"8F /0", "pop Ev", OpPOP, Def64},
	{"68", "push Iz", OpPUSH, Def64},
	{"6A", "push Ibs", OpPUSH, Def64},
	{"60", "pusha", OpPUSHA, No64},
	{"61", "popa", OpPOPA, No64},
	{"C8", "enter Iw,Ib", OpENTER, Def64},
	{"C9", "leave", OpLEAVE, Def64},

	{"E8", "call Jz", OpCALL, Force64 | EndBlock},
	{"FF /2", "call Ev", OpCALL, Force64 | EndBlock},
	{"E9", "jmp Jz", OpJMP, Force64 | EndBlock},
	{"EB", "jmp Jb", OpJMP, Force64 | EndBlock},
	{"FF /4", "jmp Ev", OpJMP, Force64 | EndBlock},
	{"C2", "ret Iw", OpRET, Force64 | EndBlock},
	{"C3", "ret", OpRET, Force64 | EndBlock},
	{"E0", "loopne Jb", OpLOOPNE, Force64 | EndBlock},
	{"E1", "loope Jb", OpLOOPE, Force64 | EndBlock},
	{"E2", "loop Jb", OpLOOP, Force64 | EndBlock},
	{"E3", "jcxz Jb", OpJCXZ, Force64 | EndBlock},

	{"98", "cbw", OpCBW, 0},
	{"99", "cwd", OpCWD, 0},
	{"27", "daa", OpDAA, No64},
	{"2F", "das", OpDAS, No64},
	{"37", "aaa", OpAAA, No64},
	{"3F", "aas", OpAAS, No64},
	{"D4", "aam Ib", OpAAM, No64},
	{"D5", "aad Ib", OpAAD, No64},
	{"9E", "sahf", OpSAHF, 0},
	{"9F", "lahf", OpLAHF, 0},
	{"F5", "cmc", OpCMC, 0},
	{"F8", "clc", OpCLC, 0},
	{"F9", "stc", OpSTC, 0},
	{"FC", "cld", OpCLD, 0},
	{"FD", "std", OpSTD, 0},
	{"D7", "xlat Xb", OpXLAT, 0},
	{"62 /r:m", "bound Gv,Ma", OpBOUND, No64},

	{"A4", "movs Yb,Xb", OpMOVS, RepOK},
	{"A5", "movs Yv,Xv", OpMOVS, RepOK},
	{"A6", "cmps Xb,Yb", OpCMPS, RepOK},
	{"A7", "cmps Xv,Yv", OpCMPS, RepOK},
	{"AA", "stos Yb,AL", OpSTOS, RepOK},
	{"AB", "stos Yv,rAX", OpSTOS, RepOK},
	{"AC", "lods AL,Xb", OpLODS, RepOK},
	{"AD", "lods rAX,Xv", OpLODS, RepOK},
	{"AE", "scas AL,Yb", OpSCAS, RepOK},
	{"AF", "scas rAX,Yv", OpSCAS, RepOK},

	{"F3 90", "pause", OpNOP, 0},
	{"0F 0D /r", "prefetchw Ev", OpNOP, 0},
	{"0F 18 /r", "prefetch Ev", OpNOP, 0},
	{"0F 19 /r", "nop Ev", OpNOP, 0},
	{"0F 1A /r", "nop Ev", OpNOP, 0},
	{"0F 1B /r", "nop Ev", OpNOP, 0},
	{"0F 1C /r", "nop Ev", OpNOP, 0},
	{"0F 1D /r", "nop Ev", OpNOP, 0},
	{"0F 1E /r", "nop Ev", OpNOP, 0},
	{"0F 1F /r", "nop Ev", OpNOP, 0},
	{"NP 0F AE /5:r", "lfence", OpFENCE, 0},
	{"NP 0F AE /6:r", "mfence", OpFENCE, 0},
	{"NP 0F AE /7:r", "sfence", OpFENCE, 0},
	{"0F B9 /r", "ud1 Gv,Ev", OpUD, EndBlock},
	{"0F FF /r", "ud0 Gv,Ev", OpUD, EndBlock},
	{"0F 0B", "ud2", OpUD, EndBlock},
})

func hex2(v int) string {
	const digits = "0123456789ABCDEF"
	return string([]byte{digits[v>>4], digits[v&15]})
}

func aluForms() (f []Form) {
	for i, name := range []string{"add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"} {
		op := OpADD + Op(i)
		lock := Attr(LockOK)
		if op == OpCMP {
			lock = 0
		}
		d := " /" + string(rune('0'+i))
		f = append(f,
			Form{hex2(8*i) + " /r", name + " Eb,Gb", op, lock},
			Form{hex2(8*i+1) + " /r", name + " Ev,Gv", op, lock},
			Form{hex2(8*i+2) + " /r", name + " Gb,Eb", op, 0},
			Form{hex2(8*i+3) + " /r", name + " Gv,Ev", op, 0},
			Form{hex2(8*i + 4), name + " AL,Ib", op, 0},
			Form{hex2(8*i + 5), name + " rAX,Iz", op, 0},
			Form{"80" + d, name + " Eb,Ib", op, lock},
			Form{"81" + d, name + " Ev,Iz", op, lock},
			Form{"82" + d, name + " Eb,Ib", op, lock | No64},
			Form{"83" + d, name + " Ev,Ibs", op, lock})
	}
	return f
}

func shiftForms() (f []Form) {
	for i, name := range []string{"rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"} {
		op := OpROL + Op(i)
		d := " /" + string(rune('0'+i))
		f = append(f,
			Form{"C0" + d, name + " Eb,Ib", op, 0},
			Form{"C1" + d, name + " Ev,Ib", op, 0},
			Form{"D0" + d, name + " Eb,1", op, 0},
			Form{"D1" + d, name + " Ev,1", op, 0},
			Form{"D2" + d, name + " Eb,CL", op, 0},
			Form{"D3" + d, name + " Ev,CL", op, 0})
	}
	return f
}

// CondNames are the suffixes of the condition codes (SDM Vol. 2D appendix B.1.4).
var CondNames = [16]string{"o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"}

func condForms() (f []Form) {
	for i, cc := range CondNames {
		f = append(f,
			Form{hex2(0x70 + i), "j" + cc + " Jb", OpJCC, Force64 | EndBlock},
			Form{"0F " + hex2(0x80+i), "j" + cc + " Jz", OpJCC, Force64 | EndBlock},
			Form{"0F " + hex2(0x90+i) + " /r", "set" + cc + " Eb", OpSETCC, 0},
			Form{"0F " + hex2(0x40+i) + " /r", "cmov" + cc + " Gv,Ev", OpCMOVCC, 0})
	}
	return f
}
