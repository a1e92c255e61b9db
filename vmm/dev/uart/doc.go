// Package uart is a 16550A serial port (National Semiconductor PC16550D data
// sheet): the guest's console.
//
// # Why is transmission instantaneous?
//
// A byte leaves at the instruction that writes it, so THRE and TEMT always read
// as one. A baud-timed transmitter would make a boot log of 60 kB cost five
// seconds of virtual time, most of it polling. The interrupts are those of a transmitter
// that is infinitely fast: writing THR clears the THRE interrupt and raises it
// again, and so does setting ETBEI while the holding register is empty (which
// Linux tests for, and uses to start each transmission).
//
// # When does the receiver interrupt?
//
// At the FIFO's trigger level, and for characters below it at once, by the
// character timeout (8.4 of the data sheet): what the machine has to give it gives
// between two instructions, so nothing more is on the way and there is nothing to wait four
// character times for. While the FIFO is full the machine keeps the rest, so nothing
// is overrun on the way in.
//
// # Why is the interrupt not gated by OUT2?
//
// On a PC's card OUT2 enables the interrupt driver. Kernels that were only ever
// run in emulators do not know (xv6 clears MCR and waits for interrupts), and no kernel relies
// on OUT2 to keep an interrupt away that it has enabled in IER.
//
// # What is at the other end?
//
// A terminal that is always connected and ready: CTS, DSR and DCD are asserted.
package uart
