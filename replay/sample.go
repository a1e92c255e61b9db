package replay

import "fmt"

// Sample is where a processor was at a step.
type Sample struct {
	Step uint64
	RIP  uint64 // linear address of the next instruction
	CPL  uint8  // privilege level
	CR3  uint64 // root of the address space
}

// rootMask is the part of CR3 that says where the root is: without PCID and caching.
const rootMask = 1<<52 - 1<<12

// Sample plays from a step to another one, and calls visit at every so many steps, beginning with
// the first. Interrupts that are due at a sample's step have not been delivered yet. The same recording gives the same samples, whatever the engine and the host.
func (p *Player) Sample(from, to, every uint64, visit func(Sample)) error {
	if every == 0 || from > to {
		panic("BUG: no samples to take")
	}
	if to > p.End() {
		return fmt.Errorf("step %d: the recording %s has steps %d to %d: %w", to, p.Dir, p.Start(), p.End(), ErrBeyond)
	}
	if err := p.Seek(from); err != nil {
		return err
	}
	for at := from; at < to; {
		c := p.m.CPUs[0]
		visit(Sample{Step: at, RIP: c.LinearRIP(), CPL: uint8(c.CPL), CR3: c.CR3 & rootMask})
		if to-at <= every {
			break
		}
		at += every
		if err := p.RunTo(at); err != nil {
			return err
		}
	}
	return nil
}
