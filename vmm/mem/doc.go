// Package mem is the guest's physical memory: RAM held in a memfd outside the
// Go heap, one flag byte a page, and copy-on-write clones.
//
// RAM is one contiguous file. The guest sees it in two pieces, as on a PC: up
// to LowMax from address zero, and the rest from 4 GiB, so that the APICs and
// PCI can live in the hole between. Translation between the two happens on the
// TLB-miss path only.
//
// # Who has to hear of a write?
//
// Four parties may care about a page: the hash timeline and the snapshots
// (Dirty), the decoded-code cache (Code), the TLB (Table: a page that a page
// walk has read) and whoever set a watchpoint or planted poison (Watched). A
// fast-path TLB entry grants writes only to pages where nobody needs to hear of
// it; everything else takes the slow path and calls NoteWrite. Writers that do
// not go through a TLB (device DMA, injectors, loaders) use WriteAt, which
// tells the same parties.
package mem
