package replay

import (
	"errors"

	"refault/traces"
	"refault/vmm"
)

// Unrecorded is a run that leaves nothing behind.
type Unrecorded struct {
	m   *machine
	opt Options
}

// NewUnrecorded makes the machine of a setup. Of opt, MarkEvery says how often Progress is called.
func NewUnrecorded(s *Setup, in func(m *vmm.Machine) vmm.Inputs, opt Options) (*Unrecorded, error) {
	opt.defaults()
	m, _, err := build(s, false)
	if err != nil {
		return nil, err
	}
	m.SetInputs(in(m.Machine))
	m.Console = opt.Console
	return &Unrecorded{m, opt}, nil
}

// Machine returns the machine.
func (u *Unrecorded) Machine() *vmm.Machine { return u.m.Machine }

// Run runs the machine to its end, or to Options.MaxSteps, or until it is interrupted.
func (u *Unrecorded) Run() (*traces.End, error) {
	for {
		why, err := u.m.Run(min(nextMultiple(u.m.Step(), u.opt.MarkEvery), u.opt.MaxSteps))
		reason := why.String()
		switch {
		case errors.Is(err, vmm.ErrInterrupted):
			reason = ReasonInterrupted
		case err != nil:
			return nil, err
		case u.m.Err() != nil:
			return nil, u.m.Err()
		case why == vmm.Running && u.m.Step() >= u.opt.MaxSteps:
			reason = ReasonMaxSteps
		case why == vmm.Running:
			if u.opt.Progress != nil {
				u.opt.Progress(u.m.Step(), u.m.TimeNs())
			}
			continue
		}
		_, status := u.m.Stopped()
		return &traces.End{Step: u.m.Step(), TimeNs: u.m.TimeNs(), Reason: reason, Status: status}, nil
	}
}

// Close frees the machine.
func (u *Unrecorded) Close() error { return u.m.close() }
