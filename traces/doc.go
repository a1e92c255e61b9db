// Package traces is the on-disk vocabulary of a recording: what files it has, how
// they are framed, and the records in them. It is a leaf: it knows nothing of the
// machine.
//
//	manifest.go  FORMAT and manifest.json; the lock
//	block.go     files of blocks
//	record.go    records in blocks: events and marks
//
// What follows is the whole of format 1, so that a reader can be written without this
// package. Numbers in headers are little-endian.
//
// # The directory
//
//	FORMAT         one line: name and version of the format
//	manifest.json  what was recorded: machine, kernel, disks, clock, outcome
//	events         the nondeterministic inputs, in order
//	marks          the state-hash timeline
//	pages          the page store (package snapshot)
//	snapshots      one entry a snapshot (package snapshot)
//	console.log    what the guest said, byte for byte
//
// FORMAT is "refault recording N\n", N the version in decimal. A reader that does not
// know version N reads nothing else. A program that writes to a recording holds an
// exclusive flock(2) on FORMAT.
//
// manifest.json is one JSON object, the fields of Manifest. Its checksum is the
// XXH3-64 hash, as 16 hexadecimal digits, of the same object in compact form (the
// fields in Manifest's order, those marked omitempty left out when empty), with
// "checksum" empty and without "path" and "ctime_ns" of every file, so that these may be
// edited when files move. It is written to manifest.json.incomplete and renamed.
//
// # Files of blocks
//
// events, marks, pages and snapshots begin with a line of text, "refault NAME N\n", NAME
// the file's name and N the format's version. Blocks follow without gaps:
//
//	 0  4  magic: the bytes "RFB1"
//	 4  4  length of the content, at most 64 MiB
//	 8  4  length of the content as it is stored, at most 65 MiB
//	12  4  number of records in the content
//	16  8  position of the first record
//	24  8  position of the last
//	32  8  XXH3-64 of bytes 0 to 31 and of the stored content
//	40  4  the low half of the XXH3-64 of bytes 0 to 39
//	44  …  the content, as one Zstandard frame (RFC 8878)
//
// A position is a step; in pages it is the number of a page. Each block stands for
// itself. It is appended with one write, so a recorder that is killed leaves at most
// one incomplete block at the end of each file, and a reader stops before it. A block
// that is whole and whose checksums are wrong is damage.
//
// # Records
//
// The content of blocks of events, marks and snapshots is that many MessagePack values,
// one after the other. A structure is an array of exactly its fields, in order: one more
// or less is another format. Maps with 16- and 32-bit headers and extension types do not
// occur, and nothing nests deeper than 32.
//
// Events, in the order in which they took effect (type Event):
//
//	[step, time in ns, kind, data, delta in ns, text]
//
//	kind 1  data was typed at the console
//	kind 2  virtual time jumped forward by delta
//	kind 3  data empty: the power button; otherwise the plug was pulled
//	kind 4  a fault: data is a MessagePack value, type vmm.Fault, and text is how it was asked for
//
// Marks (type Mark), by step:
//
//	[step, time in ns, hash of memory, [hash of each device …], bytes of console.log, XXH3-64 of these, number of events,
//	 [sectors written, sum of their hashes, XXH3-64 of these], end]
//
// Hashes are 16 bytes. That of memory is the sum over its pages, modulo 2^128 and
// little-endian, of the XXH3-128 hash of the page's 4096 bytes with the page's number
// plus one as the seed; a page of zeros counts nothing. Page n is bytes 4096n and
// following of RAM, which begins at physical address zero and goes on at 4 GiB where it
// is larger than 3 GiB. Those of the devices come in the order of the manifest: the
// XXH3-128 hash, low half first, of the device's state as a snapshot has it; or for a disk,
// high half first, the sum, modulo 2^128, of the XXH3-128 hashes of the 4 KiB clusters that
// differ from its image, each with its number as the seed. What was written to the disks is
// told from the mark before on, or from the beginning: how many sectors, the sum, modulo 2^128 and low half
// first, of their hashes, and the hash of these, 16 bytes each, in the order in which they
// were written. The hash of a sector is the XXH3-128 hash, low half first, of its 512 bytes, with
// its number plus the disk's (from zero) times 2^56 as the seed. end is empty but in the last
// mark of a run that was ended: the reason, as in the manifest. A mark is taken before
// anything that happens at its step; one with an end is taken after.
//
// What a mark vouches for, so many events and console bytes, is written before the mark. So
// a recording ends with its last mark, or with the last for which the other files
// hold as much as it says.
//
// The content of a block of pages is that many pages of 4096 bytes. They are numbered from
// 1 in the order of the file. Number 0 is the page of zeros, which is not stored.
//
// Snapshots (type snapshot.Entry), one a block:
//
//	[step, time in ns, bytes of console.log, full, pages in the store,
//	 [[device, state] …], [page …], [its number in the store …], [[disk, [cluster …], [its number …]] …]]
//
// A snapshot that is not full lists what changed since the one before it in the file;
// a full one lists all pages of memory that are not zero and all clusters that differ
// from the disk's image. A cluster with number 2^32-1 is as in the image. The states of
// devices belong to the machine that the manifest names, and are empty for disks. Where
// the store holds fewer pages than a snapshot says, that snapshot and those after
// it in the file are not there. Snapshots that were taken later stand at the end of the
// file, out of order and full.
//
// # Why is damage an error, and a missing end none?
//
// A missing end is what a killed recorder and an interrupted copy leave, and all that
// is before it is good. A wrong checksum says that the medium lies, and then nothing
// that it says should be believed without being asked for.
package traces
