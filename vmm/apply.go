package vmm

import (
	"errors"
	"fmt"

	"refault/vmm/dev/mca"
	"refault/vmm/x86"
)

// ErrInterrupted is returned by Run after Interrupt.
var ErrInterrupted = errors.New("interrupted")

// ErrPaused is returned by Run after Pause.
var ErrPaused = errors.New("paused")

var errBackwards = fmt.Errorf("time cannot go backwards, and not on for ever: %w", ErrTarget)

func errClock(name string) error { return fmt.Errorf("clock %q: %w", name, ErrTarget) }

// ErrTarget reports a fault whose target this machine does not have.
var ErrTarget = errors.New("no such target in this machine")

// ErrEngine reports the name of no engine.
var ErrEngine = errors.New("unknown engine (there are interp and jit)")

// Apply makes an event happen now. The error wraps ErrTarget where a fault's target does not exist.
func (m *Machine) Apply(e *Event) error {
	switch e.Kind {
	case EventConsole:
		m.core.Typed = append(m.core.Typed, e.Data...)
	case EventClock:
		m.core.SkewNs += e.DeltaNs
	case EventPower:
		if len(e.Data) == 0 {
			m.pm.PressPowerButton()
		} else {
			m.stop(PulledPlug)
		}
	case EventFault:
		if e.Fault == nil {
			return fmt.Errorf("fault event at step %d without a fault: %w", e.Step, ErrTarget)
		}
		return m.Inject(e.Fault)
	default:
		return fmt.Errorf("event of unknown kind %d at step %d", e.Kind, e.Step)
	}
	return nil
}

// Inject makes a fault happen now, and fills in what it replaced.
func (m *Machine) Inject(f *Fault) error {
	if f.CPU < 0 || f.CPU >= len(m.CPUs) {
		return fmt.Errorf("processor %d of %d: %w", f.CPU, len(m.CPUs), ErrTarget)
	}
	c := m.CPUs[f.CPU]
	switch f.Kind {
	case FaultMCE:
		return m.injectMCE(c, f)
	case FaultMemory:
		f.Old = make([]byte, len(f.Mask))
		if len(f.Mask) == 0 || !m.RAM.ReadAt(f.Old, f.Addr) {
			return fmt.Errorf("physical address %#x, %d bytes: outside RAM: %w", f.Addr, len(f.Mask), ErrTarget)
		}
		m.defects.write(xor(f.Old, f.Mask), f.Addr)
		m.defects.patch = true // if it hit stuck bits
	case FaultRegister:
		r, ok := x86.LookupRegister(f.Register)
		if !ok || len(f.Mask) > r.Size {
			return fmt.Errorf("register %q, %d bytes: %w", f.Register, len(f.Mask), ErrTarget)
		}
		f.Old = r.Read(c)
		r.Write(c, xor(f.Old, f.Mask))
	case FaultDisk:
		d, err := m.Drive(f.Drive)
		if err != nil {
			return err
		}
		return d.AddFault(f.Disk)
	case FaultDefect:
		if f.Defect == nil {
			return fmt.Errorf("a defect that is none: %w", ErrTarget)
		}
		return m.defects.plant(f.Defect)
	case FaultInterrupt:
		if f.PIC {
			if !picInput(f.Vector) {
				return fmt.Errorf("input %d of the 8259s: %w", f.Vector, ErrTarget)
			}
			m.pic.Disturb(int(f.Vector))
			c.Attention = true
			break
		}
		if f.Vector < 16 {
			return fmt.Errorf("interrupt vector %d: %w", f.Vector, ErrTarget)
		}
		m.lapics[f.CPU].Accept(f.Vector, false)
		c.Attention = true
	case FaultClock:
		return m.jump(f.Clock, f.DeltaNs)
	default:
		return fmt.Errorf("fault kind %d: %w", f.Kind, ErrTarget)
	}
	return nil
}

// xor returns a copy of old with mask applied to its beginning.
func xor(old, mask []byte) []byte {
	b := append([]byte(nil), old...)
	for i := range mask {
		b[i] ^= mask[i]
	}
	return b
}

// injectMCE reports an error in a machine-check bank, and raises what it calls for.
func (m *Machine) injectMCE(c *x86.CPU, f *Fault) error {
	if int(f.Bank) >= mca.NumBanks {
		return fmt.Errorf("machine-check bank %d of %d: %w", f.Bank, mca.NumBanks, ErrTarget)
	}
	rec := mca.Record{Status: f.Status, Addr: f.Addr, Misc: f.Misc, McgStatus: f.MCGStatus}
	for range min(max(f.Count, 1), 1<<15) {
		if f.Silent {
			m.mcas[f.CPU].Report(int(f.Bank), rec)
			m.reported(c, int(f.Bank), "without a signal")
		} else {
			m.report(c, int(f.Bank), rec)
		}
	}
	return nil
}
