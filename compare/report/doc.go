// Package report tells how two runs differ as one page of HTML, for people.
//
//	collect.go  what the page tells: compare.Diff, the chain that explains it, the propagation curve, listings, the fault's life
//	life.go     what became of the fault, step by step
//	plot.go     the drawings: axes, lines, labels that do not cover each other
//	page.go     from what was collected to the page
//	page.html   its template, with its style
//
// # Why one file without scripts?
//
// It is attached to a ticket or kept beside a paper, and must be there in ten years: it
// loads nothing, from nowhere. The drawings are SVG inside the page, their numbers are
// also there as tables, and what a pointer shows are plain titles.
//
// # What of it does the guest write?
//
// Console lines, symbols, and nothing else may look like them: html/template escapes them
// for the place where they stand, characters that control a terminal or the direction of
// text are shown as symbols, and a Content-Security-Policy forbids scripts and loads in any case.
//
// # Is it reproducible?
//
// Yes: the same recordings, under the same names, make the same bytes. The page has no date.
package report
