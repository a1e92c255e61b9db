// Package replay records the runs of a machine and runs recordings again.
//
//	record.go   Recorder: runs a machine and writes its recording
//	live.go     the live world behind the machine's door: console, clock
//	open.go     Open: what of a recording can be played
//	play.go     Player: a recording as a timeline: seek, run, verify, checkpoints
//	trace.go    a Player one instruction at a time
//	fork.go     a new recording that shares an old one's past
//	setup.go    from a user's description to a machine, and to a manifest
//	state.go    hashes of a machine's state, and divergence
//	events.go   events in the log and back
//	written.go  what is written to disks, summed up for the marks
//
// # What makes a replay equal?
//
// The machine is a function of its state and of its events. The Recorder writes
// down every event with its position; the Player gives them back at the same
// positions. Marks, the hashes of the whole state every so many steps and of what was written
// to the disks in between, and the console's bytes are compared while a recording plays, and the first that differs
// ends it with a Divergence. Verify plays all of it and compares the snapshots too.
//
// # When is a file written?
//
// At each mark, in this order: events, console, marks. So whatever a mark vouches for
// is on disk before the mark is, and a recording whose recorder was killed plays up
// to its last mark. The mark itself is written by the goroutine that hashes the state for it, while the
// machine goes on (snapshot.Writer.Hash), and so a few milliseconds later, and at most a few marks; the first, without which
// nothing could be played, before the machine starts. Snapshots are written when they are ready; one that is not there
// only makes the way to a step longer. The manifest's end comes last.
//
// # What is a recording without an end?
//
// One that ends at its last mark: of a recorder that is at work, that was killed, or that
// had no more room on its disk; or that was copied in part. Complete tells. After an
// error of the host the Recorder writes nothing more, and removes what cannot be played.
//
// # Where does a run end that ends while nothing executes?
//
// The last mark says why the run ended. A machine that is halted can still go on at
// its last step, in virtual time alone; the Player lets it, up to the mark's time, before it
// compares (Machine.RunIdle, Machine.RunOut).
//
// # How are files of the host trusted?
//
// Disk images, kernel and initrd are named by size and SHA-256. A regular file whose size
// and ctime are what they were is taken to be untouched; every other is hashed again. What
// changed is an error that names both hashes (ErrChanged), never a divergence.
// A recorder hashes them while the kernel is unpacked, and a run that is not recorded
// hashes nothing.
package replay
