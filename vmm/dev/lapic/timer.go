package lapic

import "refault/vmm/dev"

// TickNs is the period of the timer's input clock in nanoseconds: that of the core
// crystal, which CPUID leaf 15H gives as 25 MHz.
const TickNs = 40

// Timer modes (SDM Vol. 3A 10.5.4).
const (
	timerOneShot  = 0
	timerPeriodic = 1
	timerDeadline = 2
)

func (l *LAPIC) timerMode() uint32 { return l.LVT[LVTTimer] >> lvtModeShift & 3 }

// countNs returns how long the timer takes to count down by one.
func (l *LAPIC) countNs() uint64 {
	return TickNs * [8]uint64{2, 4, 8, 16, 32, 64, 128, 1}[l.Divide&3|l.Divide>>1&4]
}

// currentCount returns the current count register.
func (l *LAPIC) currentCount() uint32 {
	if !l.Running {
		return 0
	}
	n := (l.q.Now() - l.StartNs) / l.countNs()
	if l.timerMode() == timerPeriodic {
		n %= uint64(l.Initial)
	}
	if n >= uint64(l.Initial) {
		return 0
	}
	return l.Initial - uint32(n)
}

// setInitial writes the initial count register, which starts the timer.
func (l *LAPIC) setInitial(v uint32) {
	if l.timerMode() == timerDeadline {
		return
	}
	l.Initial = v
	l.StartNs, l.Running = l.q.Now(), v != 0
	l.armTimer()
}

// setDivide writes the divide configuration register. The count goes on from where it is.
func (l *LAPIC) setDivide(v uint32) {
	count := l.currentCount()
	l.Divide = v & divideBits
	if l.Running {
		l.StartNs = l.q.Now() - uint64(l.Initial-count)*l.countNs()
		l.armTimer()
	}
}

// setTimerMode is called after LVT timer was written, with the mode and the count that
// there were. Changing between counting and TSC-deadline mode disarms the timer;
// changing between one-shot and periodic does not.
func (l *LAPIC) setTimerMode(old, count uint32) {
	mode := l.timerMode()
	if mode == old {
		return
	}
	if mode == timerDeadline || old == timerDeadline {
		l.DeadlineTSC, l.Running, l.Initial = 0, false, 0
	} else if l.Running { // this period goes on, not the one in which the count began
		l.StartNs = l.q.Now() - uint64(l.Initial-count)*l.countNs()
	}
	l.armTimer()
}

// setDeadline writes IA32_TSC_DEADLINE. Zero disarms; a time that has passed fires at once.
func (l *LAPIC) setDeadline(v uint64) {
	if l.timerMode() == timerDeadline {
		l.DeadlineTSC = v
		l.armTimer()
	}
}

// TSCChanged must be called after the processor's IA32_TSC_ADJUST changed.
func (l *LAPIC) TSCChanged() { l.armTimer() }

// armTimer sets the queue's timer for the next expiry.
func (l *LAPIC) armTimer() {
	now := l.q.Now()
	switch {
	case l.timerMode() == timerDeadline && l.DeadlineTSC != 0:
		tsc := now + l.tscAdjust()
		wait := max(l.DeadlineTSC, tsc) - tsc
		l.timer.Set(now + min(wait, dev.Never-now))
	case l.Running:
		period := uint64(l.Initial) * l.countNs()
		elapsed := now - l.StartNs
		if l.timerMode() == timerPeriodic {
			elapsed %= period
		}
		l.timer.Set(now + period - min(elapsed, period))
	default:
		l.timer.Stop()
	}
}

// expire is called at the time for which armTimer set the timer.
func (l *LAPIC) expire() {
	switch l.timerMode() {
	case timerDeadline:
		if l.q.Now()+l.tscAdjust() < l.DeadlineTSC { // the counter was set back
			l.armTimer()
			return
		}
		l.DeadlineTSC = 0
	case timerPeriodic:
		l.armTimer()
	default:
		l.Running = false
	}
	l.local(LVTTimer)
}
