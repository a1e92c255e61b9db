// Package faults holds what a stock Debian guest says of each kind of fault, from real
// runs: table.md, which go test ./test/faults -run Table -update makes anew. Without
// -update, a few of its rows are made and compared. Debian takes the interrupts of devices from the I/O APIC; the rows
// about the 8259s are of one that was told not to (noapic).
package faults
