// Package ioapic is the I/O APIC (Intel 82093AA data sheet, version 20H with an
// EOI register): 24 inputs, each with an entry that says which message it sends.
//
// Inputs are taken as asserted when their line is set, whatever polarity an entry
// has: polarity describes wires, and there are none.
//
// # What becomes of an interrupt while its entry is masked?
//
// An edge is lost. A level is sent when the entry is unmasked, unless the processor has
// not ended the last one yet: that is what the remote IRR bit says. Software that lacks
// an EOI register clears it by making the entry edge-triggered for a moment.
package ioapic
