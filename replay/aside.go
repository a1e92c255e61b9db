package replay

import (
	"errors"

	"refault/traces"
	"refault/vmm"
)

// Aside leaves the recording at the current position: do runs the machine as it likes,
// with what wrap puts in front of the recorded inputs, and the guest's output goes to
// console. Then the Player is back where it was. It costs what was written in between.
func (p *Player) Aside(wrap func(m *vmm.Machine, next vmm.Inputs) vmm.Inputs, console func(b byte), do func(m *vmm.Machine) error) error {
	c := p.Checkpoint()
	m := p.m.Machine
	m.SetInputs(wrap(m, p.script))
	m.Console = console
	err := do(m)
	m.SetInputs(p.script)
	m.Console = p.output
	err = errors.Join(err, p.Rollback(c))
	p.Release(c)
	return err
}

// Mark returns the hash of the whole state at the current position.
func (p *Player) Mark() traces.Mark { return p.track.mark() }
