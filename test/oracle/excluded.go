package oracle

import "refault/vmm/x86"

// excluded are the operations that cannot be compared, with the reason.
var excluded = map[x86.Op]string{
	x86.OpCPUID: "the processor model is ours", x86.OpRDTSC: "the clock is ours", x86.OpRDTSCP: "the clock is ours",
	x86.OpRDRAND: "random", x86.OpRDSEED: "random", x86.OpXGETBV: "the processor has more state components",
	x86.OpSYSCALL: "a system call", x86.OpSYSENTER: "a system call, or #UD on AMD processors",
	x86.OpRDFSBASE: "FS is the Go runtime's", x86.OpWRFSBASE: "FS is the Go runtime's", x86.OpWRGSBASE: "would change this thread",
	x86.OpMOVToSeg: "would change this thread", x86.OpPOPSeg: "would change this thread", x86.OpLoadFar: "would change this thread",
	x86.OpSGDT: "Linux emulates it", x86.OpSIDT: "Linux emulates it", x86.OpSLDT: "Linux emulates it", x86.OpSTR: "Linux emulates it", x86.OpSMSW: "Linux emulates it",
	x86.OpINT1:    "hypervisors deliver it in their own ways",
	x86.OpX87Soft: "an approximation",
	x86.OpRDPMC:   "depends on what the host's kernel allows",
	x86.OpIRET:    "far transfer", x86.OpJMPF: "far transfer", x86.OpCALLF: "far transfer", x86.OpRETF: "far transfer",
	x86.OpLAR: "depends on the kernel's descriptors", x86.OpLSL: "depends on the kernel's descriptors", x86.OpVERR: "depends on the kernel's descriptors", x86.OpVERW: "depends on the kernel's descriptors",
}
