package replay

import (
	"refault/vmm"
	"refault/vmm/x86"
)

// Instruction is one instruction as a processor executed it.
type Instruction struct {
	Step uint64 // how many instructions had retired when it began
	CS   uint16
	RIP  uint64
	Mode int    // default size of its code segment in bytes: 2, 4, 8
	CPL  uint8  // privilege level
	Code []byte // as it stood in memory, and at most that long
	// Entered is the vector of the exception or interrupt that was delivered right before it, or -1.
	Entered int
	// Faulted: it raised an exception and did not retire. What follows is the handler, at the same step.
	Faulted bool
}

// StepInstruction plays until one more instruction has retired. It returns that one,
// after those that faulted before it. At the end of the recording it returns none.
func (p *Player) StepInstruction() ([]Instruction, error) {
	var seen []Instruction
	m := p.m.Machine
	next := m.CPUs[0].Regs[x86.RIP]
	m.Trace(func(c *x86.CPU, in *x86.Inst) {
		if n := len(seen); n > 0 {
			seen[n-1].Faulted = true
		}
		entered := -1
		if len(seen) > 0 || c.InstRIP != next {
			entered = int(c.Exc.Vec)
		}
		code := CodeAt(c, c.InstRIP)
		seen = append(seen, Instruction{Step: c.Step, Entered: entered, CS: c.Seg[x86.CS].Sel, RIP: c.InstRIP, Mode: c.CodeSize(), CPL: uint8(c.CPL), Code: code[:min(len(code), max(int(in.Len), 1))]})
	})
	defer m.Trace(nil)
	if p.m.Step() == p.End() {
		return nil, nil
	}
	err := p.RunTo(p.m.Step() + 1)
	return seen, err
}

// CodeAt returns up to 15 bytes of instructions at an offset into the code segment,
// fewer where they are not in memory. It changes nothing in the machine.
func CodeAt(c *x86.CPU, rip uint64) []byte {
	la := rip
	if c.CodeSize() != 8 {
		la = (la + c.Seg[x86.CS].Base) & 0xffffffff
	}
	b := make([]byte, 15)
	return b[:ReadVirtual(c, b, la)]
}

// ReadVirtual reads memory at a linear address through the processor's own tables,
// without touching them, and returns how many bytes could be read.
func ReadVirtual(c *x86.CPU, b []byte, la uint64) (n int) {
	for n < len(b) {
		at := la + uint64(n)
		pa, ok := c.Translate(at)
		if !ok {
			break
		}
		chunk := b[n:min(len(b), n+int(0x1000-at&0xfff))]
		if !c.RAM.ReadAt(chunk, pa) {
			break
		}
		n += len(chunk)
	}
	return n
}

// OutputStep returns the step at which byte n of the console came out, or vmm.Never
// where the recording has no such byte.
func (p *Player) OutputStep(n uint64) (uint64, error) {
	steps, err := p.OutputSteps([]uint64{n})
	return steps[0], err
}

// OutputSteps is OutputStep of many bytes, ascending. Each stretch between two marks that has any of
// them is played once, and the others not at all. After an error those that were found are good.
func (p *Player) OutputSteps(bytes []uint64) ([]uint64, error) {
	steps := make([]uint64, len(bytes))
	for i := range steps {
		steps[i] = vmm.Never
	}
	outer := p.Console
	defer func() { p.Console = outer }()
	for next := 0; next < len(bytes) && bytes[next] < uint64(len(p.console)); {
		first := next
		from, to := p.Start(), p.End()
		for i := range p.marks {
			if p.marks[i].ConsoleBytes > bytes[first] {
				to = p.marks[i].Step
				break
			}
			from = max(from, p.marks[i].Step)
		}
		p.Console = outer
		if err := p.Seek(from); err != nil {
			return steps, err
		}
		p.Console = func(byte) {
			for ; next < len(bytes) && p.m.Out() == bytes[next]+1; next++ {
				steps[next] = p.m.Step()
			}
		}
		if err := p.RunTo(to); err != nil {
			return steps, err
		}
		if next == first {
			next++ // it did not come, which RunTo would have called a divergence
		}
	}
	return steps, nil
}
