// Package acpi is the machine's ACPI hardware and the tables that describe the
// machine to the guest (ACPI Specification 3.0b, which every x86-64 kernel reads).
//
//	pm.go      fixed hardware: PM1 event and control blocks, PM timer, one GPE block (4.7)
//	tables.go  RSDP, RSDT, XSDT, FADT, FACS, MADT (5.2)
//	dsdt.go    what the DSDT says, in terms of aml.go
//	aml.go     a small assembler for AML (17.2) and resource descriptors (6.4)
//
// # Why is there no SMI command port?
//
// The machine is always in ACPI mode: nothing else would handle the events. With
// SMI_CMD zero and SCI_EN set, a guest does not even try to change that.
//
// # Why does the PM timer need no event?
//
// It is a function of virtual time, computed when it is read. Its status bit is set
// when the timer's highest bit changes, every ten minutes; that too is found when somebody looks,
// and an event is queued only while the guest has asked for the interrupt. So an
// idle machine with nothing to wait for shows as one.
//
// # Why are there no interrupt link devices?
//
// The _PRT names interrupt inputs directly, one set for the I/O APIC and one for
// the 8259s (which PICs the guest uses it says through _PIC). The routing registers
// of the ISA bridge hold the latter after a reset, so the guest has nothing to program.
package acpi
