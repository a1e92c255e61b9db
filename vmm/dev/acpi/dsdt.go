package acpi

import (
	"fmt"
	"slices"

	"refault/vmm/dev/pci"
)

const (
	// PCIMemoryFirst and PCIMemoryLast bound the memory in which the guest may place BARs.
	PCIMemoryFirst = 0xc0000000
	PCIMemoryLast  = 0xfebfffff
)

// dsdt returns the AML of the DSDT.
func dsdt(cfg Config) []byte {
	legacy := func(name, id string, uid uint32, descriptors ...[]byte) []byte {
		return device(name, define("_HID", eisaID(id)), define("_UID", integer(uid)), define("_CRS", resources(descriptors...)))
	}
	isa := [][]byte{
		define("_ADR", integer(1<<16)),
		legacy("PIC", "PNP0000", 0, ioPorts(0x20, 2), ioPorts(0xa0, 2), ioPorts(0x4d0, 2), irq(2)),
		legacy("TMR", "PNP0100", 0, ioPorts(0x40, 4), irq(0)),
		legacy("RTC", "PNP0B00", 0, ioPorts(0x70, 2), irq(8)),
		legacy("SPKR", "PNP0800", 0, ioPorts(0x61, 1)),
		legacy("COM1", "PNP0501", 1, ioPorts(0x3f8, 8), irq(4)),
	}
	if cfg.Keyboard {
		isa = append(isa, legacy("KBD", "PNP0303", 0, ioPorts(0x60, 1), ioPorts(0x64, 1), irq(1)))
	}
	bridge := device("PCI0",
		define("_HID", eisaID("PNP0A03")),
		define("_UID", integer(0)),
		define("_BBN", integer(0)),
		define("_CRS", resources(
			window16(spaceBus, 0, 0, 0xff),
			ioPorts(pci.Port, pci.NumPorts),
			window16(spaceIO, 3, 0, pci.Port-1),
			window16(spaceIO, 3, pci.Port+pci.NumPorts, 0xffff),
			window32(spaceMemory, 1, PCIMemoryFirst, PCIMemoryLast),
		)),
		define("PRTA", routing(func(pirq int) uint32 { return pci.FirstGSI + uint32(pirq) })),
		define("PRTP", routing(func(pirq int) uint32 { return uint32(pci.InitialIRQ(pirq)) })),
		method("_PRT", 0,
			ifTrue(path(`\PICM`), returnValue(path("PRTA"))),
			returnValue(path("PRTP"))),
		device("ISA", isa...),
	)
	system := [][]byte{
		bridge,
		// What is decoded and belongs to no device of its own: fixed hardware and the debug exit.
		legacy("MBRD", "PNP0C02", 0, ioPorts(PMBase, NumPMPorts), ioPorts(0xf4, 4)),
	}
	for i := range cfg.CPUs {
		system = append(system, device(fmt.Sprintf("C%03X", i), define("_HID", text("ACPI0007")), define("_UID", integer(uint32(i)))))
	}
	return slices.Concat(
		define(`\_S5`, packageOf(integer(sleepTypeS5), integer(sleepTypeS5), integer(0), integer(0))),
		define(`\PICM`, integer(0)),
		method(`\_PIC`, 1, store(op(amlArg0), path(`\PICM`))),
		scope(`\_SB`, system...),
	)
}

// routing returns a _PRT: for each device number and pin the interrupt input.
func routing(input func(pirq int) uint32) []byte {
	var entries [][]byte
	for slot := uint32(1); slot < pci.Slots; slot++ {
		for pin := uint8(1); pin <= 4; pin++ {
			entries = append(entries, packageOf(
				integer(slot<<16|0xffff), integer(uint32(pin-1)), integer(0), integer(input(pci.PIRQ(uint8(slot), pin)))))
		}
	}
	return packageOf(entries...)
}
