// Package mca is the machine-check architecture of a processor (SDM Vol. 3B
// chapter 15): the global registers and the error-reporting banks, as MSRs, and
// the rules by which an error that is reported is logged and signalled.
//
// The processor is told what to do by Report's Effect: take #MC, raise the CMCI of
// the local APIC, or shut down. The package itself knows neither.
//
// # What does the model claim?
//
// Twenty banks, software error recovery (MCG_SER_P), corrected machine-check interrupts
// (MCG_CMCI_P) and threshold-based error status (MCG_TES_P). Not MCG_CTL, as on every processor that has SER_P, and
// not local machine checks: there is nothing to tell apart yet. Every bank
// has ADDR, MISC and CTL2 registers.
//
// # What happens to an error that finds its bank occupied?
//
// Tables "Overwrite Rules for Enabled Errors" and "Overwrite Rules for UC, CE,
// and UCR Errors" (15.3.2.2.1 and 15.6.5). In short: the worse class wins the bank (corrected, then
// recoverable, then with the processor context corrupt), an error never
// replaces one of its own class, S and AR of recoverable errors accumulate, and OVER is
// set, except for corrected errors on top of each other: those are counted, and a yellow
// status replaces a green one. Where the manual says "either" we keep the first.
//
// # What is signalled?
//
// An uncorrected error raises #MC if it is enabled (EN, and the bank's CTL is not
// zero) and, when it is recoverable, S is set. A second #MC while MCIP is set is a
// shutdown (15.3.1.2). An uncorrected error with S clear (UCNA, or SRAO found by a
// scrubber that signals so) and a corrected error whose count reaches the threshold of CTL2 raise a CMCI
// where CTL2 enables it. The count goes on; the next CMCI comes after
// software has cleared STATUS (15.5.1).
package mca
