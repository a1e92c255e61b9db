package dev

// Line is an interrupt line. Set may be called with the level it already has.
type Line interface {
	Set(level bool)
}

// LineFunc makes a Line of a function.
type LineFunc func(level bool)

// Set calls f.
func (f LineFunc) Set(level bool) { f(level) }

// Ports is a device's range of I/O ports. port is relative to the base at which
// the machine mapped the device; size is 1, 2 or 4 bytes.
type Ports interface {
	In(port uint16, size int) uint32
	Out(port uint16, size int, v uint32)
}

// ByteWide makes a device whose registers are bytes take wider accesses as a bus with
// eight data lines makes them: byte by byte, the lowest port first.
func ByteWide(p Ports) Ports { return byteWide{p} }

type byteWide struct{ p Ports }

func (b byteWide) In(port uint16, size int) (v uint32) {
	for i := range size {
		v |= b.p.In(port+uint16(i), 1) & 0xff << (8 * i)
	}
	return v
}

func (b byteWide) Out(port uint16, size int, v uint32) {
	for i := range size {
		b.p.Out(port+uint16(i), 1, v>>(8*i)&0xff)
	}
}

// Registers is a device's range of memory-mapped registers. off is relative to
// the base at which the machine mapped the device; size is 1, 2, 4 or 8 bytes.
type Registers interface {
	Read(off uint64, size int) uint64
	Write(off uint64, size int, v uint64)
}

// Memory is guest memory as a bus master sees it. Both report false, having
// moved nothing, where any byte of the range is not RAM. *mem.RAM implements it.
type Memory interface {
	ReadAt(p []byte, pa uint64) bool
	WriteAt(p []byte, pa uint64) bool
}

// Device is what the machine, the snapshots and the hash timeline need of every device.
type Device interface {
	// Name identifies the device in recordings and divergence reports, for example "uart0".
	Name() string
	// Reset puts the device in its power-on state.
	Reset()
	// Save returns a pointer to a plain, versioned struct that holds all of the device's state, and shares nothing with it.
	Save() any
	// Restore sets the device's state from what Save returned; decode fills a struct of that type.
	Restore(decode func(state any) error) error
}

// Hasher is implemented by a Device whose state is too large to be encoded at
// every mark. The state hash covers what Hash returns in place of the encoding;
// equal states have equal hashes, and nothing but the state enters.
type Hasher interface {
	Hash() [16]byte
}
