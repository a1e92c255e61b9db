package x86

// System operations.
const (
	OpHLT Op = opSystemBase + iota
	OpCLI
	OpSTI
	OpPUSHF
	OpPOPF
	OpINT
	OpINT3
	OpINT1
	OpINTO
	OpIRET
	OpIN
	OpOUT
	OpINS
	OpOUTS
	OpRDTSC
	OpRDTSCP
	OpRDPMC
	OpCPUID
	OpRDMSR
	OpWRMSR
	OpMOVFromCR
	OpMOVToCR
	OpMOVFromDR
	OpMOVToDR
	OpCLTS
	OpLMSW
	OpSMSW
	OpSGDT
	OpSIDT
	OpLGDT
	OpLIDT
	OpSLDT
	OpSTR
	OpLLDT
	OpLTR
	OpVERR
	OpVERW
	OpLAR
	OpLSL
	OpARPL
	OpINVLPG
	OpINVPCID
	OpINVD
	OpCLFLUSH
	OpMOVFromSeg
	OpMOVToSeg
	OpPUSHSeg
	OpPOPSeg
	OpLoadFar
	OpJMPF
	OpCALLF
	OpRETF
	OpSYSCALL
	OpSYSRET
	OpSYSENTER
	OpSYSEXIT
	OpSWAPGS
	OpCLAC
	OpSTAC
	OpRDFSBASE
	OpRDGSBASE
	OpWRFSBASE
	OpWRGSBASE
	OpRDRAND
	OpRDSEED
	OpXGETBV
	OpXSETBV
)

// formsSystem is the system part of the opcode table (SDM Vol. 1 5.20, Vol. 2D appendix A).
var formsSystem = []Form{
	{"F4", "hlt", OpHLT, Priv | EndBlock},
	{"FA", "cli", OpCLI, 0},
	{"FB", "sti", OpSTI, EndBlock},
	{"9C", "pushf", OpPUSHF, Def64},
	{"9D", "popf", OpPOPF, Def64 | EndBlock},
	{"CC", "int3", OpINT3, EndBlock},
	{"CD", "int Ib", OpINT, EndBlock},
	{"CE", "into", OpINTO, No64 | EndBlock},
	{"F1", "int1", OpINT1, EndBlock},
	{"CF", "iret", OpIRET, EndBlock},
	{"E4", "in AL,Ib", OpIN, 0},
	{"E5", "in eAX,Ib", OpIN, 0},
	{"EC", "in AL,DX", OpIN, 0},
	{"ED", "in eAX,DX", OpIN, 0},
	{"E6", "out Ib,AL", OpOUT, 0},
	{"E7", "out Ib,eAX", OpOUT, 0},
	{"EE", "out DX,AL", OpOUT, 0},
	{"EF", "out DX,eAX", OpOUT, 0},
	{"6C", "ins Yb,DX", OpINS, RepOK},
	{"6D", "ins Yz,DX", OpINS, RepOK},
	{"6E", "outs DX,Xb", OpOUTS, RepOK},
	{"6F", "outs DX,Xz", OpOUTS, RepOK},
	{"0F 31", "rdtsc", OpRDTSC, 0},
	{"0F 01 =F9", "rdtscp", OpRDTSCP, 0},
	{"0F 33", "rdpmc", OpRDPMC, 0},
	{"0F A2", "cpuid", OpCPUID, 0},
	{"0F 32", "rdmsr", OpRDMSR, Priv},
	{"0F 30", "wrmsr", OpWRMSR, Priv | EndBlock},
	{"0F 20 /r:R", "mov Ry,Cy", OpMOVFromCR, Force64},
	{"0F 22 /r:R", "mov Cy,Ry", OpMOVToCR, Force64 | EndBlock},
	{"0F 21 /r:R", "mov Ry,Dy", OpMOVFromDR, Force64},
	{"0F 23 /r:R", "mov Dy,Ry", OpMOVToDR, Force64 | EndBlock},
	{"0F 06", "clts", OpCLTS, Priv},
	{"0F 01 /6", "lmsw Ew", OpLMSW, Priv | EndBlock},
	{"0F 01 /4", "smsw Ev", OpSMSW, 0},
	{"0F 01 /0:m", "sgdt Ms", OpSGDT, 0},
	{"0F 01 /1:m", "sidt Ms", OpSIDT, 0},
	{"0F 01 /2:m", "lgdt Ms", OpLGDT, Priv},
	{"0F 01 /3:m", "lidt Ms", OpLIDT, Priv},
	{"0F 00 /0", "sldt Ev", OpSLDT, 0},
	{"0F 00 /1", "str Ev", OpSTR, 0},
	{"0F 00 /2", "lldt Ew", OpLLDT, Priv},
	{"0F 00 /3", "ltr Ew", OpLTR, Priv},
	{"0F 00 /4", "verr Ew", OpVERR, 0},
	{"0F 00 /5", "verw Ew", OpVERW, 0},
	{"0F 02 /r", "lar Gv,Ew", OpLAR, 0},
	{"0F 03 /r", "lsl Gv,Ew", OpLSL, 0},
	{"63 /r", "arpl Ew,Gw", OpARPL, No64},
	{"0F 01 /7:m", "invlpg Mb", OpINVLPG, Priv | EndBlock},
	{"66 0F 38 82 /r:m", "invpcid Gy,Mx", OpINVPCID, Priv | EndBlock},
	{"0F 08", "invd", OpINVD, Priv},
	{"0F 09", "wbinvd", OpINVD, Priv},
	{"NP 0F AE /7:m", "clflush Mb", OpCLFLUSH, 0},
	{"8C /r", "mov Ev,Sw", OpMOVFromSeg, 0},
	{"8E /r", "mov Sw,Ew", OpMOVToSeg, EndBlock},
	{"06", "push ES", OpPUSHSeg, No64},
	{"0E", "push CS", OpPUSHSeg, No64},
	{"16", "push SS", OpPUSHSeg, No64},
	{"1E", "push DS", OpPUSHSeg, No64},
	{"0F A0", "push FS", OpPUSHSeg, Def64},
	{"0F A8", "push GS", OpPUSHSeg, Def64},
	{"07", "pop ES", OpPOPSeg, No64 | EndBlock},
	{"17", "pop SS", OpPOPSeg, No64 | EndBlock},
	{"1F", "pop DS", OpPOPSeg, No64 | EndBlock},
	{"0F A1", "pop FS", OpPOPSeg, Def64 | EndBlock},
	{"0F A9", "pop GS", OpPOPSeg, Def64 | EndBlock},
	{"C4 /r:m", "les Gv,Mp", OpLoadFar, No64 | EndBlock},
	{"C5 /r:m", "lds Gv,Mp", OpLoadFar, No64 | EndBlock},
	{"0F B2 /r:m", "lss Gv,Mp", OpLoadFar, EndBlock},
	{"0F B4 /r:m", "lfs Gv,Mp", OpLoadFar, EndBlock},
	{"0F B5 /r:m", "lgs Gv,Mp", OpLoadFar, EndBlock},
	{"EA", "jmpf Ap", OpJMPF, No64 | EndBlock},
	{"9A", "callf Ap", OpCALLF, No64 | EndBlock},
	{"FF /5:m", "jmpf Mp", OpJMPF, EndBlock},
	{"FF /3:m", "callf Mp", OpCALLF, EndBlock},
	{"CA", "retf Iw", OpRETF, EndBlock},
	{"CB", "retf", OpRETF, EndBlock},
	{"0F 05", "syscall", OpSYSCALL, Only64 | EndBlock},
	{"0F 07", "sysret", OpSYSRET, Only64 | Priv | EndBlock},
	{"0F 34", "sysenter", OpSYSENTER, EndBlock},
	{"0F 35", "sysexit", OpSYSEXIT, Priv | EndBlock},
	{"0F 01 =F8", "swapgs", OpSWAPGS, Only64 | Priv},
	{"NP 0F 01 =CA", "clac", OpCLAC, 0},
	{"NP 0F 01 =CB", "stac", OpSTAC, 0},
	{"F3 0F AE /0:r", "rdfsbase Ry", OpRDFSBASE, Only64},
	{"F3 0F AE /1:r", "rdgsbase Ry", OpRDGSBASE, Only64},
	{"F3 0F AE /2:r", "wrfsbase Ry", OpWRFSBASE, Only64},
	{"F3 0F AE /3:r", "wrgsbase Ry", OpWRGSBASE, Only64},
	{"0F C7 /6:r", "rdrand Rv", OpRDRAND, NoRep},
	{"0F C7 /7:r", "rdseed Rv", OpRDSEED, NoRep},
	{"NP 0F 01 =D0", "xgetbv", OpXGETBV, 0},
	{"NP 0F 01 =D1", "xsetbv", OpXSETBV, Priv | EndBlock},
}
