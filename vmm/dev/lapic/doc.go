// Package lapic is the local APIC of a processor (SDM Vol. 3A chapter 10): xAPIC
// registers in memory, x2APIC registers as MSRs, and the timer in its three modes.
//
//	lapic.go      state, reset, interrupts on their way into the processor
//	hub.go        messages between the APICs of a machine, and from the I/O APIC
//	timer.go      one-shot, periodic and TSC-deadline timer
//	registers.go  the registers, in both of their forms
//
// # When does a message arrive?
//
// At the step at which it was sent. The APICs of a machine share a Hub and nothing
// on it is delayed, so delivery status always reads as idle.
//
// # How does the 8259A get through?
//
// Its INTR is LINT0. It reaches the processor when the APIC is globally disabled, or
// when LVT LINT0 is unmasked and in ExtINT mode. It also does while the APIC is
// disabled by software, where the manual has all of the LVT masked: firmware would have left
// the boot processor in virtual wire mode (MultiProcessor Specification 3.6.2.2), and there is
// none here to do that.
//
// # How fast is the timer?
//
// It counts the core crystal clock that CPUID leaf 15H tells, 25 MHz, divided as the divide
// configuration register says (10.5.4). Nothing is ticked: the count
// follows from virtual time, and a queue event stands for each expiry only.
//
// # What does TSC-deadline mode compare with?
//
// The time-stamp counter that the guest reads: virtual time plus IA32_TSC_ADJUST.
//
// # What is not there?
//
// LINT0 and LINT1 in level-triggered fixed mode (remote IRR), which nothing has used since
// the I/O APIC; the arbitration of the APIC bus; performance and thermal interrupts, whose LVT entries
// can be written but have no source.
package lapic
