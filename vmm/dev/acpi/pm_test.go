package acpi

import (
	"bytes"
	"testing"

	"refault/vmm/dev"
)

type pmBench struct {
	now   uint64
	queue *dev.Queue
	pm    *PM
	sci   bool
	off   int
}

func newPMBench() *pmBench {
	b := new(pmBench)
	b.queue = dev.NewQueue(func() uint64 { return b.now })
	b.pm = NewPM(PMConfig{Queue: b.queue, SCI: dev.LineFunc(func(level bool) { b.sci = level }), PowerOff: func() { b.off++ }})
	return b
}

func TestPowerOff(t *testing.T) {
	b := newPMBench()
	if b.pm.In(portPM1Control, 2) != pm1SCIEnable {
		t.Error("not in ACPI mode")
	}
	b.pm.Out(portPM1Control, 2, sleepTypeS5<<10)
	b.pm.Out(portPM1Control, 2, 1<<10|pm1SleepEnable)
	if b.off != 0 {
		t.Error("powered off without being told to")
	}
	b.pm.Out(portPM1Control, 2, sleepTypeS5<<10|pm1SleepEnable)
	if b.off != 1 {
		t.Error("not powered off")
	}
	if v := b.pm.In(portPM1Control, 2); v&pm1SleepEnable != 0 || v&pm1SCIEnable == 0 {
		t.Errorf("control reads %#x", v)
	}
	b.pm.Out(portPM1Control, 1, 0)
	if v := b.pm.In(portPM1Control, 2); v != sleepTypeS5<<10|pm1SCIEnable {
		t.Errorf("a write of the low byte made it %#x", v)
	}
	b.pm.Out(portPM1Control+1, 1, (sleepTypeS5<<10|pm1SleepEnable)>>8)
	if b.off != 2 {
		t.Error("not powered off by a write of the high byte")
	}
}

func TestTimerCountsVirtualTime(t *testing.T) {
	b := newPMBench()
	for _, c := range []struct {
		ns   uint64
		want uint32
	}{
		{0, 0}, {279, 0}, {280, 1}, {1_000_000_000, timerHz}, {3600_000_000_000, 3600 * timerHz & 0xffffffff},
		{1 << 62, 761884592},
	} {
		b.now = c.ns
		if got := b.pm.In(portTimer, 4); got != c.want {
			t.Errorf("at %d ns: %d, want %d", c.ns, got, c.want)
		}
	}
	b.now = 5_000_000_000
	v := b.pm.In(portTimer, 4)
	if w := b.pm.In(portTimer, 2) | b.pm.In(portTimer+2, 2)<<16; w != v {
		t.Errorf("by words %#x, whole %#x", w, v)
	}
	if w := b.pm.In(portTimer, 1) | b.pm.In(portTimer+1, 1)<<8; w != v&0xffff {
		t.Errorf("by bytes %#x, whole %#x", w, v)
	}
}

func TestTimerStatus(t *testing.T) {
	const toggle = 1 << 31
	b := newPMBench()
	at := ticksNs(toggle)
	b.now = at - 1
	if b.pm.In(portPM1Status, 2) != 0 || b.pm.In(portTimer, 4) != toggle-1 {
		t.Error("too early")
	}
	b.now = at
	if b.pm.In(portPM1Status, 2) != pm1Timer || b.pm.In(portTimer, 4) != toggle {
		t.Error("status bit not set when the highest bit changed")
	}
	if b.sci || b.queue.Next() != dev.Never {
		t.Error("an interrupt, or an event for one, that nobody asked for")
	}
	b.pm.Out(portPM1Enable, 2, pm1Timer)
	if !b.sci {
		t.Error("no SCI when enabled afterwards")
	}
	b.pm.Out(portPM1Status, 2, pm1Timer)
	if b.sci || b.pm.In(portPM1Status, 2) != 0 {
		t.Error("not cleared by writing one")
	}
	b.now = b.queue.Next()
	if b.now != ticksNs(2*toggle) {
		t.Errorf("the next event is at %d", b.now)
	}
	b.queue.Run()
	if !b.sci || b.queue.Next() != ticksNs(3*toggle) {
		t.Error("no SCI at the event, or no event after it")
	}
}

func TestPowerButtonAndGPE(t *testing.T) {
	b := newPMBench()
	b.pm.PressPowerButton()
	if b.sci {
		t.Error("SCI in spite of the enable register")
	}
	b.pm.Out(portPM1Enable, 2, 0xffff)
	if !b.sci || b.pm.In(portPM1Enable, 2) != pm1Enables {
		t.Errorf("SCI %v, enable register %#x", b.sci, b.pm.In(portPM1Enable, 2))
	}
	b.pm.Out(portPM1Status+1, 1, pm1PowerButton>>8)
	if b.sci {
		t.Error("not acknowledged")
	}
	b.pm.RaiseGPE(9)
	b.pm.Out(portGPEEnable+1, 1, 2)
	if !b.sci || b.pm.In(portGPEStatus, 2) != 1<<9 {
		t.Error("no SCI for a GPE")
	}
	b.pm.Out(portGPEStatus, 4, 1<<9|0xff<<16)
	if b.sci || b.pm.In(portGPEEnable, 2) != 0xff {
		t.Error("GPE not acknowledged")
	}
}

func TestPMSaveRestore(t *testing.T) {
	run := func(b *pmBench) {
		b.now += 700_000_000_000
		b.queue.Run()
		b.pm.Out(portGPEEnable, 2, 4)
		b.pm.RaiseGPE(2)
	}
	a, c := newPMBench(), newPMBench()
	a.pm.Out(portPM1Enable, 2, pm1Timer|pm1PowerButton)
	a.pm.Out(portPM1Control, 2, 3<<10)
	run(a)
	a.pm.PressPowerButton()
	c.now = a.now
	if err := dev.Decode(c.pm, dev.Encode(a.pm)); err != nil {
		t.Fatal(err)
	}
	if err := dev.Decode(c.queue, dev.Encode(a.queue)); err != nil {
		t.Fatal(err)
	}
	run(a)
	run(c)
	if !bytes.Equal(dev.Encode(a.pm), dev.Encode(c.pm)) || !bytes.Equal(dev.Encode(a.queue), dev.Encode(c.queue)) || a.sci != c.sci {
		t.Error("the restored one went another way")
	}
}

func FuzzPM(f *testing.F) {
	f.Add([]byte{0, 4, 0xff, 0xff, 1, 8, 0, 0}, []byte{})
	f.Add([]byte{2, 2, 1, 1}, dev.Encode(newPMBench().pm))
	f.Fuzz(func(t *testing.T, accesses, state []byte) {
		b := newPMBench()
		if len(state) > 0 && dev.Decode(b.pm, state) != nil {
			return
		}
		for ; len(accesses) >= 4; accesses = accesses[4:] {
			size := 1 << (accesses[0] & 3 % 3)
			port := uint16(accesses[1]) % NumPMPorts
			if accesses[0]&4 != 0 {
				b.pm.In(port, size)
			} else {
				b.pm.Out(port, size, uint32(accesses[2])<<8*uint32(accesses[3]))
			}
			if b.queue.Next() != dev.Never {
				b.now = max(b.now, b.queue.Next())
				b.queue.Run()
			}
		}
	})
}
