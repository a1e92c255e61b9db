// Package ata is the machine's IDE controller (the IDE function of the 82371AB,
// PIIX4) and the ATA-8 disk drives on its two channels.
//
//	controller.go  the PCI function: legacy ports, the bus-master registers' BAR
//	busmaster.go   the bus master: walks PRD tables (SFF-8038i; 82371AB datasheet, 2.6)
//	channel.go     task file, device control, device selection, interrupt line (ATA/ATAPI-7 volume 2)
//	drive.go       one drive: phases, timing, completion, reset
//	command.go     the table of commands (ATA8-ACS, clause 7) and those that move no data
//	transfer.go    PIO and DMA data transfer
//	identify.go    IDENTIFY DEVICE
//	fault.go       faults: what can go wrong, on which sectors, for how long
//
// # When does data move?
//
// All at once, when the command completes in virtual time: a command sets BSY
// and a timer; when it fires, sectors move between the disk (package disk) and
// guest memory, or a PIO block becomes ready. The latency is a function of the command
// and of nothing else. So the guest sees a drive that takes time, and the host's disk is never waited for at
// any other point.
//
// # What does a drive do that waits for the bus master?
//
// It raises DRQ and stays. That happens when the guest starts the bus master late,
// when the PRD table is shorter than the command (the bus master then goes
// inactive without an interrupt, as SFF-8038i says), or when bus mastering is off.
// The transfer continues, to the byte, when the bus master is started again.
//
// # Does an absent drive delay the guest?
//
// No. Where the other drive of the channel exists, it answers for the absent one as ATA/ATAPI-7 has it:
// registers read as its own, Status as zero. A channel without drives reads 7FH, since
// bit 7 (BSY) is pulled down. Kernels decide on both at the first look.
//
// # How are faults part of the machine?
//
// A drive holds a list of plain Fault records. AddFault puts one there; it takes
// effect for commands that start later. The list, and what it has planned for the
// command under way, are in the drive's State: an injected fault is an event of the recording,
// and a snapshot behind it must carry it.
package ata
