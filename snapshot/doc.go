// Package snapshot stores what a machine is at a position: the state of every
// device, every page of its memory, and what was written to its disks.
//
//	pages.go     Store: the page store
//	writer.go    Writer: takes snapshots while a machine runs, or one more later
//	lend.go      pages that a goroutine reads while the machine goes on
//	snapshot.go  Reader: restores them, or compares them with a machine
//	memhash.go   MemHash: the hash of a memory, kept up to date page by page
//
// The files are described in package traces.
//
// Pages go to a store that is addressed by content: a page that was stored before,
// in whatever snapshot, costs a number, and a page of zeros costs nothing. A
// snapshot lists only the pages that changed since the one before it; every
// sixteenth lists all, so that a restore walks a short chain.
//
// # Can taking a snapshot change the run?
//
// No. Everything slow (reading what changed, SHA-256 to find equal pages, Zstandard, the
// disk) happens in a goroutine while the machine goes on. The machine tells before it
// writes a page, as all who care about its pages want to know (mem.RAM.OnDirty), and the
// page is copied first if the goroutine has not come to it. Which of the two reads a page is
// settled by an atomic exchange, and neither holds a lock. 64 MiB of copies can wait;
// beyond that the machine waits, which it cannot notice. The goroutine allocates room for them beforehand, and it is used again: as garbage
// they made the collector run twice as often, and while that waits for generated
// code to return it sends its thread a signal every few microseconds. The first error of the goroutine
// ends all writing; Err, Sync and Close return it. Copying all that changed while the
// machine stood still cost a quarter of a second at the start of a recording, most of it
// in the host's page faults.
//
// # Who hashes memory for the marks?
//
// The same goroutine, in the same way (Writer.Hash), and before all else: between two pages of
// a snapshot it looks whether something is to be hashed. So a mark costs the machine the list of the
// pages that it wrote; those few that it writes again at once, it hashes itself. A second goroutine would
// compete with the first and the machine's for the second processor. A replay has nothing
// to do beside and hashes in place.
//
// # Why SHA-256 for equal pages, and a faster hash for marks?
//
// Two pages that the store takes for equal become equal, and the guest chooses what is
// in them. A mark only has to notice an accident.
package snapshot
