// Package pci is the machine's conventional PCI bus: configuration mechanism #1
// (PCI Local Bus Specification 3.0, 3.2.2.3.2), configuration spaces with base
// address registers, the two bridges that a PC of the 440FX family has, and the
// routing of INTA# to INTD#.
//
// # What is on the bus?
//
//	00:00.0  8086:1237  82441FX host bridge
//	00:01.0  8086:7110  82371AB (PIIX4) ISA bridge: interrupt routing, reset control
//	00:01.1  …          IDE, added by the machine (package ata), and whatever else is added
//
// # Who programs the devices?
//
// Nobody but the guest: kernels are entered without firmware. So a reset leaves
// what firmware would have: base addresses assigned, decoding and bus mastering
// on, PIRQs routed. A guest that assigns everything anew may.
//
// # How does a BAR become reachable?
//
// The bus maps nothing. Ports and addresses that belong to no fixed device are
// looked up here (PortsAt, RegistersAt), where the guest's latest word on BARs
// and the command registers is. So there is no mapping to undo, nothing to
// rebuild on restore, and a guest that lays a BAR over a fixed device loses the
// BAR, not the device. OnRemap tells a machine that keeps the answers.
//
// # How are interrupts routed?
//
// As on a PC with an I/O APIC: pin p of device d drives PIRQ (p+d-1) mod 4, counted from
// INTA# = 0; each PIRQ drives I/O APIC input 16 + its number, and, where the ISA
// bridge's PIRQRC register says so, one of the 8259 inputs as well. The _PRT in package
// acpi tells the same.
package pci
