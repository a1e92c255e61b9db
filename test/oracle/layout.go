//go:build linux && amd64

package oracle

// Where things lie, for the processor and for the interpreter alike. All addresses
// are below 2 GiB, so that 32-bit code and absolute displacements reach them.
const (
	base     = 0x10000000
	pageSize = 4096

	codeAddr   = base + 0x1000 // two pages, executable, not writable
	codePages  = 2
	dataAddr   = base + 0x10000 // four pages, writable, then one read-only, then none
	dataPages  = 4
	roAddr     = dataAddr + dataPages*pageSize
	stackAddr  = base + 0x20000 // four pages, writable; none around them
	stackPages = 4
	spanSize   = 0x30000 // of what is mapped, holes included

	contextAddr = base + 0x100000 // the processor's only
	reserved    = 0x200000        // nothing else is mapped in so many bytes from base
)

// mapping is a range of pages and what user code may do with it.
type mapping struct {
	addr, size  uint64
	write, exec bool
}

var mappings = [...]mapping{
	{codeAddr, codePages * pageSize, false, true},
	{dataAddr, dataPages * pageSize, true, false},
	{roAddr, pageSize, false, false},
	{stackAddr, stackPages * pageSize, true, false},
}

// state is what an instruction can change, but for memory.
type state struct {
	Regs   [16]uint64
	RIP    uint64
	RFLAGS uint64
	FX     [512]byte // as FXSAVE64 lays it out
	Fault  fault
}

// fault is the exception that an instruction raised.
type fault struct {
	Raised bool
	Vec    uint8
	Err    uint32
	CR2    uint64 // #PF only
}
