// Package rtc is the real-time clock and CMOS memory of a PC (Motorola MC146818A
// data sheet), with the century in byte 32H and memory sizes where PC firmware leaves them.
//
// # Where does the time come from?
//
// From a constant, the Unix time at power-on, which is in the recording, and from virtual
// time. The clock is not ticked: its registers are worked out when somebody reads
// them, and an event is queued only for an interrupt that is enabled.
//
// # How long does an update take?
//
// None: the registers change at the second's boundary. UIP is set during the 244 µs
// before it, so that a guest that reads after seeing UIP clear never sees a second change.
//
// # What does SET stop?
//
// The transfer of the time into the registers, which keep what the guest writes;
// clearing it starts the clock from there, at the phase of the divider chain.
// Resetting the divider chain stops the phase too, and the first update comes half
// a second after it is released, which is what guests that set the clock count on.
//
// The day of the week is derived from the date. Daylight saving (DSE) and the square wave do
// not exist, as on every chipset's clock.
package rtc
