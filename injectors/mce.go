package injectors

import (
	"fmt"
	"strings"

	"refault/vmm"
	"refault/vmm/dev/mca"
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
	mciTESShift   = 53 // threshold-based error status: 1 green, 2 yellow
	mciMSCODShift = 16 // model-specific error code
)

// IA32_MCG_STATUS bits (SDM Vol. 3B 15.3.1.2).
const (
	mcgRIPV = 1 << 0
	mcgEIPV = 1 << 1
	mcgMCIP = 1 << 2
)

// mceModes are the address modes of IA32_MCi_MISC bits 8:6 (SDM Vol. 3B 15.3.2.4).
var mceModes = []struct {
	name string
	bits uint64
}{{"segment", 0}, {"linear", 1}, {"physical", 2}, {"memory", 3}, {"generic", 7}}

// mceCodes are error codes by name: the simple ones of SDM Vol. 3B 15.9.1, and examples of each class of compound ones of 15.9.2.
var mceCodes = []struct {
	name string
	code uint64
}{
	{"unclassified", 0x0001}, {"microcode-parity", 0x0002}, {"external", 0x0003}, {"frc", 0x0004}, {"internal-parity", 0x0005},
	{"smm-access", 0x0006}, {"internal-timer", 0x0400}, {"io", 0x0e0b},
	{"cache", 0x0009}, {"tlb", 0x0019}, {"memory", 0x008f}, {"memory-read", 0x009f}, {"memory-write", 0x00af}, {"memory-address", 0x00bf},
	{"scrub", 0x00cf}, {"l1-data-read", 0x0135}, {"l1-data-load", 0x0134}, {"l1-fetch", 0x0150}, {"l2-evict", 0x0179}, {"l3-writeback", 0x017a},
	{"l3-prefetch", 0x016a}, {"bus", 0x0e0f}, {"bus-timeout", 0x0f0f},
}

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

func mceModeNames() (names []string) {
	for _, m := range mceModes {
		names = append(names, m.name)
	}
	return names
}

func mceCodeNames() (names []string) {
	for _, c := range mceCodes {
		names = append(names, c.name)
	}
	return names
}

// maxCorrected is what the corrected error count of a bank can hold.
const maxCorrected = 1<<15 - 1

var mceKind = Kind{
	Name:   "mce",
	Doc:    "a machine-check bank reports an error",
	Sees:   "#MC (vector 18); CMCI, or what a poll finds, for corrected errors and UCNA; shutdown if one is being handled",
	Source: "SDM Vol. 3B chapter 15",
	Keys: concat([]Key{
		{Name: "type", Doc: "class of the error", Default: "srao", Values: mceTypeNames()},
	}, placeKeys, []Key{
		{Name: "bank", Doc: "number of the bank", Default: "9"},
		cpuKey,
		{Name: "code", Doc: "MCACOD, by number or name (default: the class's): " + strings.Join(mceCodeNames(), ", "), Text: true},
		{Name: "mscod", Doc: "model-specific error code, bits 31:16 of the status"},
		{Name: "mode", Doc: "address mode in IA32_MCi_MISC", Default: "physical", Values: mceModeNames()},
		{Name: "lsb", Doc: "lowest valid bit of the address, in IA32_MCi_MISC", Default: "12"},
		{Name: "over", Doc: "yes: OVER is set, as if another error had been there", Default: "no", Values: []string{"yes", "no"}},
		{Name: "count", Doc: "so many errors at once (type=corrected)", Default: "1"},
		{Name: "health", Doc: "threshold-based error status (type=corrected)", Values: []string{"green", "yellow"}},
		{Name: "signal", Doc: "none: no CMCI, so that a poll has to find it (corrected, ucna)", Default: "yes", Values: []string{"yes", "none"}},
		{Name: "ripv", Doc: "no: the interrupted program cannot be resumed", Default: "yes", Values: []string{"yes", "no"}},
		{Name: "status", Doc: "IA32_MCi_STATUS (type=raw; otherwise bits to add)"},
		{Name: "mcgstatus", Doc: "IA32_MCG_STATUS (type=raw; otherwise in place of the class's)"},
		{Name: "misc", Doc: "IA32_MCi_MISC, in place of mode and lsb"},
	}),
	Resolve: resolveMCE,
}

func resolveMCE(m *vmm.Machine, a Args) ([]*vmm.Fault, error) {
	bad := func(format string, args ...any) ([]*vmm.Fault, error) {
		return nil, fmt.Errorf("mce: %s: %w", fmt.Sprintf(format, args...), ErrSpec)
	}
	n, err := cpu(m, a, "mce")
	if err != nil {
		return nil, err
	}
	f := &vmm.Fault{Kind: vmm.FaultMCE, CPU: n, Bank: uint8(min(a.Uint("bank"), 255)), Misc: a.Uint("misc"), Silent: a.Text("signal") == "none"}
	if f.Bank >= mca.NumBanks {
		return bad("bank %s; there are %d, from 0", a.Text("bank"), mca.NumBanks)
	}
	kind := a.Text("type")
	if !a.Has("misc") {
		if a.Uint("lsb") > 63 {
			return bad("lsb=%s; an address has bits 0 to 63", a.Text("lsb"))
		}
		f.Misc = mceMode(a.Text("mode"))<<6 | a.Uint("lsb")
	}
	if kind == "raw" {
		f.Status, f.MCGStatus = a.Uint("status"), a.Uint("mcgstatus")
		if f.Status&mciValid == 0 {
			return bad("type=raw needs a status with the valid bit (bit 63)")
		}
	} else if why := classify(f, a, kind); why != "" {
		return bad("%s", why)
	}
	if f.Silent && f.Status&mciUC != 0 && f.Status&(mciS|mciPCC) != 0 {
		return bad("signal=none is for errors that raise no #MC: corrected and ucna")
	}
	if f.Count = uint32(min(a.Uint("count"), 1<<31)); f.Count == 0 || f.Count > maxCorrected || f.Count > 1 && f.Status&mciUC != 0 {
		return bad("count=%s; 1 to %d corrected errors can come at once", a.Text("count"), maxCorrected)
	}
	switch {
	case a.Has("addr") || a.Has("vaddr"):
		if f.Addr, err = place(m, a, "mce"); err != nil {
			return nil, err
		}
		if _, ok := m.RAM.Offset(f.Addr); !ok && kind != "raw" && a.Text("mode") == "physical" {
			return nil, outsideRAM(m, "mce", f.Addr)
		}
	case f.Status&mciAddrV != 0:
		return bad("type=%s needs key addr or vaddr", kind)
	}
	return one(f), nil
}

// classify sets what the bank says of a class of errors, with what the keys change about it. It returns what is wrong with them.
func classify(f *vmm.Fault, a Args, kind string) string {
	for _, t := range mceTypes {
		if t.name == kind {
			f.Status, f.MCGStatus = t.status, t.mcgStatus
		}
	}
	if a.Has("code") {
		code, err := ParseUint(a.Text("code"))
		for _, c := range mceCodes {
			if c.name == a.Text("code") {
				code, err = c.code, nil
			}
		}
		if err != nil || code > 0xffff {
			return fmt.Sprintf("code=%s is neither a number of 16 bits nor a name%s", a.Text("code"), didYouMean(a.Text("code"), mceCodeNames()))
		}
		f.Status = f.Status&^0xffff | code
	}
	if a.Uint("mscod") > 0xffff {
		return "mscod has 16 bits"
	}
	f.Status |= a.Uint("mscod")<<mciMSCODShift | a.Uint("status")
	if a.Text("over") == "yes" {
		f.Status |= mciOver
	}
	if h := a.Text("health"); h != "" {
		if kind != "corrected" {
			return "key health is for type=corrected"
		}
		f.Status |= map[string]uint64{"green": 1, "yellow": 2}[h] << mciTESShift
	}
	if a.Has("mcgstatus") {
		f.MCGStatus = a.Uint("mcgstatus")
	}
	if a.Text("ripv") == "no" {
		f.MCGStatus &^= mcgRIPV
	}
	return ""
}

func mceMode(name string) uint64 {
	for _, m := range mceModes {
		if m.name == name {
			return m.bits
		}
	}
	return 0
}

func outsideRAM(m *vmm.Machine, kind string, addr uint64) error {
	s := fmt.Sprintf("%s: physical address %#x is outside RAM, which is 0 to %#x without a0000 to bffff", kind, addr, m.RAM.LowSize()-1)
	if h := m.RAM.HighSize(); h > 0 {
		s += fmt.Sprintf(" and 0x100000000 to %#x", uint64(1<<32)+h-1)
	}
	return fmt.Errorf("%s: %w", strings.TrimSpace(s), ErrSpec)
}
