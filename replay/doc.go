// Package replay records the runs of a machine and runs recordings again.
//
//	record.go   Recorder: runs a machine and writes its recording
//	live.go     the live world behind the machine's door: console, clock
//	play.go     Player: a recording as a timeline: seek, run, verify
//	fork.go     a new recording that shares an old one's past
//	setup.go    from a user's description to a machine, and to a manifest
//
// # What makes a replay equal?
//
// The machine is a function of its state and of its events. The Recorder writes
// down every event with its position; the Player gives them back at the same
// positions. Marks, the hashes of the whole state every so many steps, and the
// console's bytes are compared while a recording plays, and the first that differs
// ends it with a Divergence.
//
// # When is a file written?
//
// At each mark, in this order: events, console, marks. So whatever a mark vouches for
// is on disk before the mark is, and a recording whose recorder was killed plays up
// to its last mark.
package replay
