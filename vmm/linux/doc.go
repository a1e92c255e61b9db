// Package linux reads what a Linux guest knows of itself from its memory: which
// processes there are, which one runs, and where its page tables are. It is for tools
// that look from outside, changes nothing, and trusts nothing that it reads.
//
// # How does it know the layout of the kernel's structures?
//
// From the kernel's own type information, the BTF section that distributions' kernels
// carry (Documentation/bpf/btf.rst in the kernel's tree), and from its symbols. Where
// either is missing, the guest is not understood, and New says so.
//
// # Is it right at any step?
//
// The list of processes is read in the middle of whatever the kernel is doing to it,
// under no lock. So what does not look like a process ends the walk.
package linux
