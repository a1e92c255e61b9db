package vmm

import "fmt"

// core is the state of the machine that is in no device: time, randomness,
// what was typed but not yet accepted, and what came out of the console.
type core struct {
	coreState
	step func() uint64
}

// coreState is the saved state of core.
type coreState struct {
	Version uint8
	SkewNs  uint64
	Random  uint64 // state of the generator behind RDRAND (splitmix64)
	Typed   []byte // console input that the UART had no room for
	Stop    StopReason
	Status  uint32 // of DebugExit
	// Output so far: its length in bytes and a running FNV-1a hash, so that the
	// state hash covers what the machine said and not only what it is.
	OutBytes uint64
	OutHash  uint64
}

const fnvOffset, fnvPrime = 14695981039346656037, 1099511628211

func (c *core) Name() string { return "machine" }

func (c *core) Reset() {
	c.coreState = coreState{Version: 1, Random: c.Random, OutHash: fnvOffset}
}

func (c *core) Save() any {
	s := c.coreState
	s.Typed = append([]byte(nil), s.Typed...)
	return &s
}

func (c *core) Restore(decode func(any) error) error {
	var s coreState
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("version %d, this program reads 1", s.Version)
	}
	c.coreState = s
	return nil
}

// now returns virtual time in nanoseconds.
func (c *core) now() uint64 { return c.step() + c.SkewNs }

// random returns the next 64 bits of the seeded generator.
func (c *core) random() uint64 {
	c.Random += 0x9e3779b97f4a7c15
	z := c.Random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// said notes a byte of output.
func (c *core) said(b byte) {
	c.OutBytes++
	c.OutHash = (c.OutHash ^ uint64(b)) * fnvPrime
}
