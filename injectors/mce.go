package injectors

import (
	"fmt"
	"strings"

	"refault/vmm"
)

// IA32_MCi_STATUS bits (SDM Vol. 3B 15.3.2.2).
const (
	mciValid = 1 << 63
	mciOver  = 1 << 62
	mciUC    = 1 << 61
	mciEN    = 1 << 60
	mciMiscV = 1 << 59
	mciAddrV = 1 << 58
	mciPCC   = 1 << 57
	mciS     = 1 << 56
	mciAR    = 1 << 55

	mciCountShift = 38 // corrected error count
)

// IA32_MCG_STATUS bits (SDM Vol. 3B 15.3.1.2).
const (
	mcgRIPV = 1 << 0
	mcgEIPV = 1 << 1
	mcgMCIP = 1 << 2
)

// mciMiscPage: a physical address, valid from bit 12 on (SDM Vol. 3B 15.3.2.4).
const mciMiscPage = "0x8c" // 2<<6 | 12

// mceType is a class of machine check: what the bank and IA32_MCG_STATUS say.
type mceType struct {
	name      string
	status    uint64
	mcgStatus uint64 // without MCIP: no exception is raised, at most a CMCI
}

// mceTypes are the classes of SDM Vol. 3B 15.6.3, with the compound error codes of 15.9.2 and 15.9.3.
var mceTypes = []mceType{
	{"corrected", mciValid | mciEN | mciMiscV | mciAddrV | 1<<mciCountShift | 0x00c0, 0},
	{"ucna", mciValid | mciUC | mciEN | mciMiscV | mciAddrV | 0x00c0, 0},
	{"srao", mciValid | mciUC | mciEN | mciMiscV | mciAddrV | mciS | 0x00c0, mcgRIPV | mcgMCIP},                   // memory scrubbing
	{"srao-wb", mciValid | mciUC | mciEN | mciMiscV | mciAddrV | mciS | 0x017a, mcgRIPV | mcgMCIP},                // L3 explicit write-back
	{"srar", mciValid | mciUC | mciEN | mciMiscV | mciAddrV | mciS | mciAR | 0x0134, mcgRIPV | mcgEIPV | mcgMCIP}, // data load
	{"srar-fetch", mciValid | mciUC | mciEN | mciMiscV | mciAddrV | mciS | mciAR | 0x0150, mcgRIPV | mcgEIPV | mcgMCIP},
	{"fatal", mciValid | mciUC | mciEN | mciMiscV | mciAddrV | mciPCC | mciS | 0x0135, mcgRIPV | mcgMCIP},
}

func mceTypeNames() []string {
	var names []string
	for _, t := range mceTypes {
		names = append(names, t.name)
	}
	return append(names, "raw")
}

var mceKind = Kind{
	Name:   "mce",
	Doc:    "a machine-check bank reports an error in memory",
	Sees:   "#MC (vector 18), or CMCI or nothing for corrected errors and UCNA",
	Source: "SDM Vol. 3B chapter 15",
	Keys: []Key{
		{Name: "type", Doc: "class of the error", Default: "srao", Values: mceTypeNames()},
		{Name: "addr", Doc: "physical address in IA32_MCi_ADDR"},
		{Name: "bank", Doc: "number of the bank", Default: "9"},
		{Name: "cpu", Doc: "processor that takes it", Default: "0"},
		{Name: "status", Doc: "IA32_MCi_STATUS (type=raw; otherwise bits to add)"},
		{Name: "mcgstatus", Doc: "IA32_MCG_STATUS (type=raw); with MCIP, bit 2, an exception is raised"},
		{Name: "misc", Doc: "IA32_MCi_MISC", Default: mciMiscPage},
	},
	Resolve: resolveMCE,
}

func resolveMCE(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
	f := &vmm.Fault{
		Kind: vmm.FaultMCE,
		CPU:  int(a.Uint("cpu")),
		Bank: uint8(min(a.Uint("bank"), 255)),
		Addr: a.Uint("addr"),
		Misc: a.Uint("misc"),
	}
	if name := a.Text("type"); name == "raw" {
		f.Status, f.MCGStatus = a.Uint("status"), a.Uint("mcgstatus")
		if f.Status&mciValid == 0 {
			return nil, fmt.Errorf("mce: type=raw needs a status with the valid bit (bit 63): %w", ErrSpec)
		}
	} else {
		for _, t := range mceTypes {
			if t.name == name {
				f.Status, f.MCGStatus = t.status|a.Uint("status"), t.mcgStatus
			}
		}
	}
	if f.Status&mciAddrV != 0 {
		if !a.Has("addr") {
			return nil, fmt.Errorf("mce: type=%s needs key addr: %w", a.Text("type"), ErrSpec)
		}
		if _, ok := m.RAM.Offset(f.Addr); !ok && a.Text("type") != "raw" {
			return nil, outsideRAM(m, "mce", f.Addr)
		}
	}
	return one(f), nil
}

func outsideRAM(m *vmm.Machine, kind string, addr uint64) error {
	s := fmt.Sprintf("%s: physical address %#x is outside RAM, which is 0 to %#x without a0000 to bffff", kind, addr, m.RAM.LowSize()-1)
	if h := m.RAM.HighSize(); h > 0 {
		s += fmt.Sprintf(" and 0x100000000 to %#x", uint64(1<<32)+h-1)
	}
	return fmt.Errorf("%s: %w", strings.TrimSpace(s), ErrSpec)
}
