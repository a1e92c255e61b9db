// Package linux reads what a Linux guest knows of itself from its memory: which
// processes there are, which one runs, where its page tables are, which file a page of
// memory is of, and which modules are loaded, with their symbols. It is for tools
// that look from outside, changes nothing, and trusts nothing that it reads.
//
// # How does it know the layout of the kernel's structures?
//
// From the kernel's own type information, the BTF section that distributions' kernels
// carry (Documentation/bpf/btf.rst in the kernel's tree), and from its symbols. Where
// either is missing, the guest is not understood, and New says so.
//
// # Where are the symbols of modules?
//
// Each module has its symbol table in memory, for the kernel's backtraces: the list
// of modules leads to it. It is read at the moment when a name is asked for, because modules
// come and go, and so does the code that only initialises them; only the tables are kept,
// for as long as their module has them in the same place. A module's memory is two parts until Linux 6.3 and an
// array of them since; the tests read kernels of both sorts.
//
// # Is it right at any step?
//
// The list of processes is read in the middle of whatever the kernel is doing to it,
// under no lock. So what does not look like a process ends the walk.
package linux
