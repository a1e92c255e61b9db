package jit

// CodeMap hears where generated code lies, so that tools which look at the host's addresses can name it.
type CodeMap struct {
	// Block is called for each block of code when it is made: size bytes at host address addr are the
	// translation of the instructions at rip.
	Block func(addr uintptr, size int, rip uint64)
	// Common is called for the code that all blocks share, once.
	Common func(addr uintptr, size int)
	// Flushed is called when all blocks were dropped; what comes later lies where they lay.
	Flushed func()
}
