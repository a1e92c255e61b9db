package vmm

import (
	"errors"
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

// Interrupt makes Run return at the next position, with the machine intact. It is
// safe to call from another goroutine.
func (m *Machine) Interrupt() { m.interrupted.Store(true) }

// position is where and when something can come through the door.
type position struct{ step, timeNs uint64 }

func (m *Machine) position() position { return position{m.Step(), m.core.now()} }

// arrived reports whether the machine is as it came to its position: nothing was done
// at this boundary yet, and no exception was delivered, which retires nothing. An event
// that came after that would be put before it when it is replayed.
func (m *Machine) arrived() bool {
	c := m.CPUs[0]
	return !(m.acted && m.at == m.position()) && (c.Activity != x86.Active || c.DeliveredAt != c.Step)
}

// Pause makes Run return ErrPaused before anything else happens, be that between an
// exception and its handler. Unlike where Interrupt stops, that need not be a position:
// it is for an observer's functions, which call it to look at the machine and go on.
func (m *Machine) Pause() {
	m.paused = true
	m.attend()
}

// Entered must be called after the machine's state was set from outside.
func (m *Machine) Entered() { m.acted, m.deliveries = false, 0 }

// Run runs until exactly step instructions have retired, or the machine stops
// for good, or Interrupt was called. It stops before events, timers and
// interrupts at step are looked at, so stopping changes nothing. An error of the
// host (a disk image that cannot be read) ends the run too.
func (m *Machine) Run(step uint64) (StopReason, error) {
	c := m.CPUs[0]
	m.paused = false
	for c.Step < step && m.core.Stop == Running && !m.paused {
		if m.arrived() && m.interrupted.Swap(false) {
			return Running, ErrInterrupted
		}
		if err := m.boundary(c); err != nil {
			return m.core.Stop, err
		}
		if m.core.Stop != Running || m.paused {
			break
		}
		if m.livelocked(c) {
			m.stop(Dead)
			break
		}
		if c.Activity != x86.Active {
			m.idle(c, Never)
			continue
		}
		until := min(step, m.inputs.Horizon(c.Step))
		if len(m.defects.Defects) > 0 {
			until = min(until, max(m.defects.until(), c.Step+1))
		}
		if next := m.queue.Next(); next != dev.Never {
			until = min(until, c.Step+max(next, m.core.now())-m.core.now())
		}
		c.Attention = false
		if until > c.Step {
			m.execute(until)
		}
	}
	if m.paused {
		m.paused = false
		return m.core.Stop, errors.Join(ErrPaused, m.Err())
	}
	return m.core.Stop, m.Err()
}

// deliveriesMax is how many exceptions may follow one another without an instruction
// retiring. More than a few happen only where the first instruction of a handler faults
// on a stack that does not run out, and then they never end.
const deliveriesMax = 1 << 20

// livelocked reports whether the processor delivers exceptions without end. It is called
// at each boundary.
func (m *Machine) livelocked(c *x86.CPU) bool {
	if c.DeliveredAt != c.Step {
		m.deliveries = 0
		return false
	}
	m.deliveries++
	return m.deliveries > deliveriesMax
}

func (m *Machine) execute(until uint64) {
	// What looks at every instruction hangs on the interpreter. Pages of data that are
	// observed are in no TLB, and blocks end before observed addresses of instructions, so that the
	// translator leaves those to it by itself.
	before := m.CPUs[0].Step
	if m.engine == EngineJIT && !m.observesAll && m.interp.Trace == nil {
		m.jit.Run(until)
		m.executedByJIT += m.CPUs[0].Step - before
	} else {
		m.interp.Run(until)
	}
	m.executed += m.CPUs[0].Step - before
}

// Accept makes the events happen that Inputs has for the machine's position, and
// nothing else of what Run does there first. Run goes on as if it had done that itself.
func (m *Machine) Accept() error {
	if !m.arrived() {
		return nil
	}
	for {
		e := m.inputs.Take(m.Step(), m.core.now())
		if e == nil {
			return nil
		}
		if err := m.Apply(e); err != nil {
			return err
		}
	}
}

// boundary does what happens between two instructions.
func (m *Machine) boundary(c *x86.CPU) error {
	if err := m.Accept(); err != nil {
		return err
	}
	if at := m.position(); at != m.at {
		m.at, m.acted = at, false
	}
	broken, fed := m.defects.boundary(c.Step), m.feed()
	if broken || fed || m.queue.Next() <= m.core.now() {
		m.acted = true
	}
	m.queue.Run()
	if err := m.Err(); err != nil {
		return err
	}
	// Until nothing is delivered: a boundary that is looked at once more finds nothing new.
	for delivered := true; delivered; {
		delivered = c.ServiceEvents(m.lapics[c.ID])
	}
	if c.Activity == x86.Shutdown {
		m.stop(TripleFault)
	}
	return nil
}

// idle skips virtual time while nothing executes, but not beyond limitNs.
func (m *Machine) idle(c *x86.CPU, limitNs uint64) {
	now := m.core.now()
	next := m.queue.Next()
	if next <= now {
		return
	}
	if c.Activity == x86.Halted && c.Flags()&x86.FlagIF == 0 && !c.NMIPending && !m.wakesMasked(c) {
		// Only an NMI, a machine check or a reset could end this, and no timer brings one.
		next = Never
	}
	// So too where timers go on, and none of them gets through to the processor.
	if c.Step != m.idleStep || now < m.idleSinceNs {
		m.idleStep, m.idleSinceNs = c.Step, now
	}
	if now-m.idleSinceNs >= idleMaxNs {
		m.stop(Dead)
		return
	}
	next = min(next, limitNs)
	wake := m.inputs.Idle(c.Step, now, next)
	switch {
	case wake == Never:
		if m.interrupted.Load() {
			return
		}
		m.stop(Dead)
	case wake < now || wake > next:
		panic(fmt.Sprintf("BUG: Idle(%d, %d) returned %d", now, next, wake))
	default:
		m.core.SkewNs += wake - now
	}
}

// idleMaxNs is how long timers may go off, one after the other, without an instruction
// retiring: an hour, which nobody waits for whose interrupts are not masked for good.
const idleMaxNs = 3600 * 1_000_000_000

// wakesMasked reports whether something other than a maskable interrupt may wake a processor that halted with interrupts off.
func (m *Machine) wakesMasked(c *x86.CPU) bool {
	return c.MCPending || m.ioapic.Nonmaskable() || m.lapics[c.ID].Nonmaskable()
}

// feed gives the UART what was typed, as far as it has room, and reports whether it gave any.
func (m *Machine) feed() bool {
	n := 0
	for n < len(m.core.Typed) && m.uart.CanReceive() {
		m.uart.Receive(m.core.Typed[n])
		n++
	}
	if n > 0 {
		m.core.Typed = append(m.core.Typed[:0], m.core.Typed[n:]...)
	}
	return n > 0
}

// RunIdle lets a machine whose processors are halted go on, without an instruction
// retiring, to virtual time timeNs, and stops before events, timers and interrupts
// at that time are looked at. It brings a machine to where Run left another when
// Interrupt was called.
func (m *Machine) RunIdle(timeNs uint64) error {
	c := m.CPUs[0]
	for m.core.Stop == Running && m.core.now() < timeNs {
		if m.interrupted.Swap(false) {
			return ErrInterrupted
		}
		if err := m.boundary(c); err != nil {
			return err
		}
		if m.core.Stop != Running || c.Activity == x86.Active {
			return nil
		}
		m.idle(c, timeNs)
	}
	return nil
}

// RunOut lets a machine stop that is about to, without an instruction retiring and
// no later than at virtual time timeNs.
func (m *Machine) RunOut(timeNs uint64) error {
	if err := m.RunIdle(timeNs); err != nil || m.core.Stop != Running {
		return err
	}
	c := m.CPUs[0]
	if c.Activity == x86.Active {
		// An instruction that does not retire may still be the end: its faults find no way to be delivered.
		_, err := m.Run(c.Step + 1)
		return err
	}
	if err := m.boundary(c); err != nil {
		return err
	}
	if m.core.Stop == Running && c.Activity != x86.Active && m.core.now() <= timeNs {
		m.idle(c, Never) // where nothing can wake it, it is dead
	}
	return nil
}
