// Package mem is the guest's physical memory: RAM outside the Go heap, and one
// flag byte a page.
//
// RAM is one contiguous mapping. The guest sees it in two pieces, as on a PC: up
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
// not go through a TLB (device DMA, injectors, loaders) use WriteAt or
// Overwrite, which tell the same parties.
//
// # Why no memfd, and no large pages?
//
// A machine touches hundreds of megabytes, most of them once. The first touch of a page takes 2.4 µs in a memfd, and 1.4 µs
// in anonymous memory: 2 % of a boot. A memfd could be mapped a second time, as a copy-on-write clone; but whoever
// goes back to an earlier state restores the pages that were written since, which costs less than writing to a clone.
// Large pages (MADV_HUGEPAGE) are worth 2 % of a boot more, and cost a campaign as much, whose machines touch a page here
// and there, and a tenth more memory; so the host decides.
package mem
