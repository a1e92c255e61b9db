// Package traces is the on-disk vocabulary of a recording: what files it has, how
// they are framed, and the records in them. It is a leaf: it knows nothing of the
// machine.
//
// A recording is a directory:
//
//	FORMAT         one line: name and version of the format
//	manifest.json  what was recorded: machine, kernel, disks, clock, outcome
//	events         the nondeterministic inputs, in order
//	marks          the state-hash timeline
//	pages          the page store (package snapshot)
//	snapshots      one entry a snapshot (package snapshot)
//	console.log    what the guest said, byte for byte
//
// # How is a file framed?
//
// The four binary files begin with a line of plain text that names them and their
// version. Then come blocks, each compressed for itself with zstd: a fixed header
// with the lengths, the number of records, the first and last position in it and a
// checksum over all of that and the compressed bytes. A block is written with one
// write; a recorder that is killed leaves at most one incomplete block at the end,
// and a reader stops before it. A block that is whole and whose checksum is wrong is
// damage, and an error.
package traces
