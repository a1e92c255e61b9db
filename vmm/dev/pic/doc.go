// Package pic is the pair of 8259A interrupt controllers of a PC (Intel 8259A
// data sheet), with the edge/level registers of the PIIX in place of ICW1's bit.
//
// # Where do spurious interrupts come from?
//
// An input has to stay asserted until it is acknowledged, edge-triggered or not: a
// request that goes away was none. If the processor has begun its acknowledge cycle
// by then, it gets vector 7 of the controller, and no bit in service; of the second
// controller, with the cascade's bit in service in the first. The local APIC here
// acknowledges in the instant at which it sees the request, so that this happens only
// where software makes it, by poll commands and masks in between, or where a fault does (Disturb).
package pic
