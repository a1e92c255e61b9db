package acpi

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Config says what the tables describe.
type Config struct {
	CPUs       int    // their local APIC identifiers count from zero
	LAPIC      uint32 // physical address
	IOAPIC     uint32 // physical address
	IOAPICID   uint8
	Keyboard   bool  // there is an 8042
	RTCCentury uint8 // CMOS register that holds the century, 0 for none
}

const (
	cpusMax = 255

	signatureRSDP = "RSD PTR "
	oemID         = "RFAULT"
	oemTableID    = "REFAULT "
	creatorID     = "RFLT"

	resetPort  = 0xcf9
	resetValue = 6 // hard reset, on a change of bit 2
)

// Tables returns the tables for physical address base, below 4 GiB and a multiple of 64.
// The RSDP comes first, so with a base from E0000H on the guest finds it by searching.
func Tables(base uint32, cfg Config) []byte {
	if base%64 != 0 || cfg.CPUs < 1 || cfg.CPUs > cpusMax {
		panic(fmt.Sprintf("BUG: ACPI tables at %#x for %d CPUs", base, cfg.CPUs))
	}
	b := make([]byte, 64) // the RSDP's place
	add := func(table []byte) (addr uint32) {
		b = append(b, make([]byte, -len(b)&63)...)
		addr = base + uint32(len(b))
		b = append(b, table...)
		return addr
	}
	facs := add(facs())
	dsdt := add(table("DSDT", 2, dsdt(cfg)))
	tables := []uint32{add(fadt(cfg, facs, dsdt)), add(madt(cfg))}
	var narrow, wide []byte
	for _, a := range tables {
		narrow = binary.LittleEndian.AppendUint32(narrow, a)
		wide = binary.LittleEndian.AppendUint64(wide, uint64(a))
	}
	rsdt := add(table("RSDT", 1, narrow))
	xsdt := add(table("XSDT", 1, wide))
	copy(b, rsdp(rsdt, xsdt))
	return b
}

// rsdp returns the Root System Description Pointer (5.2.5.3).
func rsdp(rsdt, xsdt uint32) []byte {
	b := make([]byte, 36)
	copy(b, signatureRSDP)
	copy(b[9:], oemID)
	b[15] = 2
	binary.LittleEndian.PutUint32(b[16:], rsdt)
	binary.LittleEndian.PutUint32(b[20:], uint32(len(b)))
	binary.LittleEndian.PutUint64(b[24:], uint64(xsdt))
	b[8] = -sum(b[:20])
	b[32] = -sum(b)
	return b
}

// table puts a header (5.2.6) before a table's body.
func table(signature string, revision byte, body []byte) []byte {
	b := make([]byte, 36, 36+len(body))
	copy(b, signature)
	binary.LittleEndian.PutUint32(b[4:], uint32(36+len(body)))
	b[8] = revision
	copy(b[10:], oemID)
	copy(b[16:], oemTableID)
	binary.LittleEndian.PutUint32(b[24:], 1)
	copy(b[28:], creatorID)
	binary.LittleEndian.PutUint32(b[32:], 1)
	b = append(b, body...)
	b[9] = -sum(b)
	return b
}

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

// facs returns the Firmware ACPI Control Structure (5.2.10).
func facs() []byte {
	b := make([]byte, 64)
	copy(b, "FACS")
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	b[32] = 1
	return b
}

// Bits of the FADT's flags, and of IAPC_BOOT_ARCH.
const (
	fadtWBINVD        = 1 << 0
	fadtC1            = 1 << 2
	fadtNoSleepButton = 1 << 5
	fadtNoRTCWake     = 1 << 6
	fadtTimer32       = 1 << 8
	fadtResetRegister = 1 << 10

	bootLegacyDevices = 1 << 0
	bootKeyboard      = 1 << 1
	bootNoVGA         = 1 << 2
)

// fadt returns the Fixed ACPI Description Table, revision 4 (5.2.9). Offsets are those of the specification.
func fadt(cfg Config, facs, dsdt uint32) []byte {
	b := make([]byte, 244)
	put16 := func(off int, v uint16) { binary.LittleEndian.PutUint16(b[off:], v) }
	put32 := func(off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }
	// block describes a register block twice: as a port, and as a generic address (5.2.3.1).
	block := func(off, lenOff, extOff int, port uint16, size, access byte) {
		put32(off, PMBase+uint32(port))
		b[lenOff] = size
		copy(b[extOff:], ioAddress(PMBase+port, size, access))
	}
	put32(36, facs)
	put32(40, dsdt)
	b[45] = 4 // enterprise server
	put16(46, SCI)
	block(56, 88, 148, portPM1Status, 4, 2)
	block(64, 89, 172, portPM1Control, 2, 2)
	block(76, 91, 208, portTimer, 4, 3)
	block(80, 92, 220, portGPEStatus, 4, 1)
	put16(96, 0x0fff) // no C2
	put16(98, 0x0fff) // no C3
	b[108] = cfg.RTCCentury
	boot := uint16(bootLegacyDevices | bootNoVGA)
	if cfg.Keyboard {
		boot |= bootKeyboard
	}
	put16(109, boot)
	put32(112, fadtWBINVD|fadtC1|fadtNoSleepButton|fadtNoRTCWake|fadtTimer32|fadtResetRegister)
	copy(b[116:], ioAddress(resetPort, 1, 1))
	b[128] = resetValue
	binary.LittleEndian.PutUint64(b[140:], uint64(dsdt))
	return table("FACP", 4, b[36:])
}

// ioAddress returns a generic address structure for a port of size bytes, accessed in units of 1 (byte) to 3 (dword).
func ioAddress(port uint16, size, access byte) []byte {
	return binary.LittleEndian.AppendUint64([]byte{1, 8 * size, 0, access}, uint64(port))
}

// Polarity and trigger mode in MPS INTI flags (5.2.11.8).
const intiActiveHighLevel = 1 | 3<<2

// madt returns the Multiple APIC Description Table (5.2.11).
func madt(cfg Config) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, cfg.LAPIC)
	b = le.AppendUint32(b, 1) // there are 8259s too
	for i := range cfg.CPUs {
		b = append(b, 0, 8, byte(i), byte(i))
		b = le.AppendUint32(b, 1)
	}
	b = append(b, 1, 12, cfg.IOAPICID, 0)
	b = le.AppendUint32(b, cfg.IOAPIC)
	b = le.AppendUint32(b, 0)
	override := func(source byte, gsi uint32, flags uint16) {
		b = append(b, 2, 10, 0, source)
		b = le.AppendUint32(b, gsi)
		b = le.AppendUint16(b, flags)
	}
	override(0, 2, 0) // the PIT
	override(SCI, SCI, intiActiveHighLevel)
	b = append(b, 4, 6, 0xff, 0, 0, 1) // NMI at LINT1 of every local APIC
	return table("APIC", 2, slices.Clip(b))
}
