// Package disk is the storage behind a drive: a raw image that is only ever
// read, and an overlay in memory that holds what the guest has written.
//
// The drive (package ata) decides when a sector moves and what may go wrong on
// the way; this package only remembers bytes.
//
// # Why is the image never written?
//
// A recording names its image by the hash of its content. If the guest's writes
// reached the image, the second replay would start from another disk.
//
// # What is the overlay's state?
//
// The clusters (4 KiB) whose content differs from the image, and nothing else. A
// cluster that the guest wrote but that equals the image again is dropped the
// next time the state is looked at. So two runs whose disks read the same have
// equal states, whatever they wrote on the way: a lost write that was made good
// later leaves no trace, which is what an experiment has to be able to say.
//
// # What does a mark cost?
//
// The overlay's hash is a sum, modulo 2^128, of a keyed hash of each cluster. A
// write only notes the cluster; Hash takes the cluster's old term out and puts the
// new one in. When nothing was written since the last mark, a mark costs nothing.
//
// # What if the host cannot read the image?
//
// Then the machine must stop: what the guest would see next is not a function of the
// recording any more. The first such error sticks and Err returns it; the machine
// looks after every round of the event queue.
package disk
