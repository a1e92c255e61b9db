// Package snapshot stores what a machine is at a position: the state of every
// device, and every page of its memory.
//
// Pages go to a store that is addressed by content: a page that was stored before,
// in whatever snapshot, costs a number, and a page of zeros costs nothing. A
// snapshot lists only the pages that changed since the one before it; every so
// often one lists all, so that a restore walks a short chain.
package snapshot
