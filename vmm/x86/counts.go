package x86

// Counts says how much went beyond the fast paths of memory. They are counted on the slow paths only,
// and are of the host: no part of the processor's state.
type Counts struct {
	SlowAccesses uint64 // loads and stores that the TLB did not grant: all of the following, and those across pages
	Misses       uint64 // translations that the TLB did not hold
	Noted        uint64 // stores to pages of tables or of code
	Beside       uint64 // accesses beside what is watched, on the same page
	Devices      uint64 // accesses to devices
	FetchMisses  uint64 // pages of instructions that the TLB did not hold

	Flushes      uint64 // times that all translations were forgotten
	RangeFlushes uint64 // … those of a range, because a table that is not of the last level changed
	PageFlushes  uint64 // … that of a page, because its entry changed
	Roots        uint64 // changes of CR3 between different tables
}
