package vmm

import (
	"fmt"

	"refault/vmm/dev"
	"refault/vmm/x86"
)

// Step returns the machine's position.
func (m *Machine) Step() uint64 { return m.CPUs[0].Step }

// TimeNs returns virtual time in nanoseconds since power-on.
func (m *Machine) TimeNs() uint64 { return m.core.now() }

// Stopped returns why the machine stopped for good, and the status that the
// guest wrote where the reason is DebugExit; Running if it has not.
func (m *Machine) Stopped() (StopReason, uint32) { return m.core.Stop, m.core.Status }

// stop ends the run at the current boundary.
func (m *Machine) stop(why StopReason) {
	if m.core.Stop == Running {
		m.core.Stop = why
	}
	for _, c := range m.CPUs {
		c.Attention = true
	}
}

// Interrupt makes Run return at the next boundary where it may, with the
// machine intact. It is safe to call from another goroutine.
func (m *Machine) Interrupt() { m.interrupted.Store(true) }

// Run runs until exactly step instructions have retired, or the machine stops
// for good, or Interrupt was called. It stops before events, timers and
// interrupts at step are looked at, so stopping changes nothing.
func (m *Machine) Run(step uint64) (StopReason, error) {
	c := m.CPUs[0]
	for c.Step < step && m.core.Stop == Running {
		if m.interrupted.Swap(false) {
			return Running, ErrInterrupted
		}
		if err := m.boundary(c); err != nil {
			return m.core.Stop, err
		}
		if m.core.Stop != Running {
			break
		}
		if c.Activity != x86.Active {
			if err := m.idle(c); err != nil {
				return m.core.Stop, err
			}
			continue
		}
		until := min(step, m.inputs.Horizon(c.Step))
		if next := m.queue.Next(); next != dev.Never {
			until = min(until, c.Step+max(next, m.core.now())-m.core.now())
		}
		c.Attention = false
		if until > c.Step {
			m.engine.Run(until)
		}
	}
	return m.core.Stop, nil
}

// boundary does what happens between two instructions.
func (m *Machine) boundary(c *x86.CPU) error {
	for {
		e := m.inputs.Take(c.Step, m.core.now())
		if e == nil {
			break
		}
		if err := m.Apply(e); err != nil {
			return err
		}
	}
	m.feed()
	m.queue.Run()
	c.ServiceEvents(m.lapics[c.ID])
	if c.Activity == x86.Shutdown {
		m.stop(TripleFault)
	}
	return nil
}

// idle skips virtual time while nothing executes.
func (m *Machine) idle(c *x86.CPU) error {
	now := m.core.now()
	next := m.queue.Next()
	if next <= now {
		return nil
	}
	if c.Activity == x86.Halted && c.Flags()&x86.FlagIF == 0 && !c.NMIPending && !m.wakesMasked(c) {
		// Only an NMI, a machine check or a reset could end this, and none will come.
		next = Never
	}
	wake := m.inputs.Idle(c.Step, now, next)
	switch {
	case wake == Never:
		if m.interrupted.Load() {
			return nil
		}
		m.stop(Dead)
	case wake < now || wake > next:
		panic(fmt.Sprintf("BUG: Idle(%d, %d) returned %d", now, next, wake))
	default:
		m.core.SkewNs += wake - now
	}
	return nil
}

// wakesMasked reports whether something other than a maskable interrupt may wake a processor that halted with interrupts off.
func (m *Machine) wakesMasked(c *x86.CPU) bool { return c.MCPending }

// feed gives the UART what was typed, as far as it has room.
func (m *Machine) feed() {
	n := 0
	for n < len(m.core.Typed) && m.uart.CanReceive() {
		m.uart.Receive(m.core.Typed[n])
		n++
	}
	if n > 0 {
		m.core.Typed = append(m.core.Typed[:0], m.core.Typed[n:]...)
	}
}

// RunIdle lets a machine whose processors are halted go on until virtual time
// reaches timeNs, or an instruction would retire, or it stops for good.
func (m *Machine) RunIdle(timeNs uint64) error {
	c := m.CPUs[0]
	for m.core.Stop == Running && c.Activity != x86.Active && m.core.now() < timeNs {
		if err := m.boundary(c); err != nil {
			return err
		}
		if m.core.Stop != Running || c.Activity == x86.Active {
			return nil
		}
		if err := m.idle(c); err != nil {
			return err
		}
	}
	return nil
}
