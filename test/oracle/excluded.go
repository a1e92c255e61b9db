//go:build linux && amd64

package oracle

import (
	"strings"

	"refault/vmm/x86"
)

// excluded are the operations that cannot be compared, with the reason.
var excluded = map[x86.Op]string{
	x86.OpCPUID: "the processor model is ours", x86.OpRDTSC: "the clock is ours", x86.OpRDTSCP: "the clock is ours",
	x86.OpRDRAND: "random", x86.OpRDSEED: "random", x86.OpXGETBV: "the processor has more state components",
	x86.OpSYSCALL: "a system call", x86.OpSYSENTER: "a system call, or #UD on AMD processors",
	x86.OpRDFSBASE: "FS is the Go runtime's", x86.OpWRFSBASE: "FS is the Go runtime's", x86.OpWRGSBASE: "would change this thread",
	x86.OpSGDT: "Linux emulates it", x86.OpSIDT: "Linux emulates it", x86.OpSLDT: "Linux emulates it", x86.OpSTR: "Linux emulates it", x86.OpSMSW: "Linux emulates it",
	x86.OpINT1:  "hypervisors deliver it in their own ways",
	x86.OpRDPMC: "depends on what the host's kernel allows",
}

// excludedForm says why a form is not compared, or nothing.
func excludedForm(form uint16) string {
	f := x86.Forms()[form]
	if f.Op == x86.OpLoadFar || f.Op == x86.OpPOPSeg {
		if strings.Contains(f.Syntax, "FS") || strings.Contains(f.Syntax, "GS") || strings.HasPrefix(f.Syntax, "lfs") || strings.HasPrefix(f.Syntax, "lgs") {
			return "would change this thread"
		}
	}
	return excluded[f.Op]
}
