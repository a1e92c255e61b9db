package rtc

import (
	"math/rand/v2"
	"testing"
	"time"

	"refault/vmm/dev"
	"refault/vmm/dev/devtest"
)

const start = 1_600_000_000 // 2020-09-13, a Sunday, 12:26:40

type bench struct {
	*devtest.Clock
	*RTC
	irq devtest.Line
}

func newBench(startUnix int64) *bench {
	b := &bench{Clock: devtest.NewClock()}
	b.RTC = New(b.Clock.Queue, &b.irq, startUnix, 3<<30, 5<<30)
	return b
}

func (b *bench) get(reg uint32) uint32 {
	b.Out(0, 1, reg)
	return b.In(1, 1)
}

func (b *bench) set(reg, v uint32) {
	b.Out(0, 1, reg)
	b.Out(1, 1, v)
}

// clock reads the time registers, in BCD and 24-hour mode.
func (b *bench) clock() (c [8]uint32) {
	for i, r := range []uint32{regCentury, regYear, regMonth, regDay, regWeekday, regHour, regMinute, regSecond} {
		c[i] = b.get(r)
	}
	return c
}

func TestCalendarAgainstTheLibrary(t *testing.T) {
	for n := int64(-800_000); n < 2_000_000; n += 17 {
		want := time.Unix(n*secondsPerDay, 0).UTC()
		y, m, d := date(n)
		if y != int64(want.Year()) || m != int64(want.Month()) || d != int64(want.Day()) {
			t.Fatalf("day %d: %d-%d-%d, want %s", n, y, m, d, want)
		}
		if got := dayNumber(y, m, d); got != n {
			t.Fatalf("%d-%d-%d is day %d, want %d", y, m, d, got, n)
		}
	}
	for _, c := range [][3]int64{{2020, 13, 45}, {2019, 0, 0}, {2023, 2, 29}, {2000, 25, 1}, {2000, -13, 1}} {
		want := time.Date(int(c[0]), time.Month(c[1]), int(c[2]), 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay
		if got := dayNumber(c[0], c[1], c[2]); got != want {
			t.Errorf("%v is day %d, want %d", c, got, want)
		}
	}
}

func TestTimePasses(t *testing.T) {
	b := newBench(start)
	if c := b.clock(); c != [8]uint32{0x20, 0x20, 9, 0x13, 1, 0x12, 0x26, 0x40} {
		t.Errorf("at power-on: %x", c)
	}
	b.Advance(20*secondNs - 1)
	if b.get(regSecond) != 0x59 {
		t.Errorf("second %x before the boundary", b.get(regSecond))
	}
	b.Advance(1)
	if b.get(regSecond) != 0 || b.get(regMinute) != 0x27 {
		t.Errorf("%x:%x at the boundary", b.get(regMinute), b.get(regSecond))
	}
	b = newBench(time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC).Unix())
	b.Advance(secondNs)
	if c := b.clock(); c != [8]uint32{0x20, 0, 1, 1, 7, 0, 0, 0} {
		t.Errorf("the year 2000 begins at %x", c)
	}
	if b.In(0, 1) != 0xff {
		t.Error("the index can be read")
	}
}

// TestUIP: a guest that waits for UIP to fall, or reads while it is clear, sees one second only.
func TestUIP(t *testing.T) {
	b := newBench(start)
	b.Advance(secondNs - uipNs - 1)
	if b.get(regA) != 0x26 {
		t.Errorf("register A %#x", b.get(regA))
	}
	b.Advance(1)
	if b.get(regA) != 0xa6 || b.get(regSecond) != 0x40 {
		t.Error("UIP not set before the update")
	}
	b.Advance(uipNs)
	if b.get(regA) != 0x26 || b.get(regSecond) != 0x41 {
		t.Error("UIP set after the update")
	}
	b.set(regB, bSET|b24)
	b.Advance(secondNs - uipNs)
	if b.get(regA)&aUIP != 0 {
		t.Error("UIP while SET")
	}
}

// TestLinuxSetsTheClock goes the way of mc146818_set_time.
func TestLinuxSetsTheClock(t *testing.T) {
	b := newBench(start)
	b.Advance(12345)
	control, freq := b.get(regB), b.get(regA)
	b.set(regB, control|bSET)
	b.set(regA, freq&^aDivider|0x70)
	for r, v := range map[uint32]uint32{regYear: 0x31, regMonth: 7, regDay: 4, regHour: 0x23, regMinute: 0x59, regSecond: 0x58, regCentury: 0x20} {
		b.set(r, v)
	}
	b.Advance(7 * secondNs)
	b.set(regB, control)
	b.set(regA, freq)
	if b.get(regSecond) != 0x58 {
		t.Errorf("second %x after setting", b.get(regSecond))
	}
	b.Advance(secondNs/2 - 1)
	if b.get(regSecond) != 0x58 {
		t.Error("the first update came too early")
	}
	b.Advance(1)
	if b.get(regSecond) != 0x59 {
		t.Error("the first update did not come after half a second")
	}
	b.Advance(secondNs)
	if c := b.clock(); c != [8]uint32{0x20, 0x31, 7, 5, 7, 0, 0, 0} {
		t.Errorf("then %x", c)
	}
}

func TestSetWithoutStopping(t *testing.T) {
	b := newBench(start)
	b.Advance(300_000_000)
	b.set(regMinute, 0)
	b.Advance(700_000_000)
	if c := b.clock(); c != [8]uint32{0x20, 0x20, 9, 0x13, 1, 0x12, 0, 0x41} {
		t.Errorf("%x", c)
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct {
		mode, hour uint32
		h          int
	}{
		{b24, 0x00, 0}, {b24, 0x13, 13}, {b24 | bBinary, 13, 13}, {0, 0x12, 0}, {0, 0x01, 1}, {0, 0x92, 12}, {0, 0x81, 13}, {0, 0x91, 23}, {bBinary, 0x8b, 23}, {bBinary, 12, 0},
	} {
		b := newBench(int64(c.h)*3600 + 59*60)
		b.set(regB, c.mode)
		if got := b.get(regHour); got != c.hour {
			t.Errorf("mode %x: %d h reads %#x, want %#x", c.mode, c.h, got, c.hour)
		}
		b.set(regHour, c.hour) // and back
		if got := b.get(regHour); got != c.hour {
			t.Errorf("mode %x: %#x written, %#x read", c.mode, c.hour, got)
		}
		want := uint32(0x59)
		if c.mode&bBinary != 0 {
			want = 59
		}
		if got := b.get(regMinute); got != want {
			t.Errorf("mode %x: minute %#x", c.mode, got)
		}
	}
}

func TestPeriodic(t *testing.T) {
	for rate, cycles := range map[uint32]uint64{1: 128, 2: 256, 3: 4, 6: 32, 15: 16384} {
		b := newBench(start)
		b.Advance(777_777)
		b.set(regA, aDivider32K|rate)
		b.get(regC)
		b.set(regB, b24|bPIE)
		n := 0
		for end := b.NowNs + secondNs; ; n++ {
			next := b.Clock.Queue.Next()
			if next > end {
				break
			}
			b.Advance(next - b.NowNs)
			if !b.irq.Level || b.Clock.Queue.Next() != dev.Never {
				t.Fatalf("rate %d: no interrupt, or another one before it was read", rate)
			}
			if v := b.get(regC); v&(cIRQF|bPIE) != cIRQF|bPIE || b.irq.Level {
				t.Fatalf("rate %d: register C %#x", rate, v)
			}
		}
		if n != int(crystalHz/cycles) {
			t.Errorf("rate %d: %d interrupts in a second, want %d", rate, n, crystalHz/cycles)
		}
	}
	b := newBench(start)
	b.set(regA, aDivider32K)
	b.set(regB, b24|bPIE)
	if b.Clock.Queue.Next() != dev.Never {
		t.Error("rate 0 has a period")
	}
}

func TestUpdateAndAlarmInterrupts(t *testing.T) {
	b := newBench(start)
	b.Advance(400_000_000)
	b.get(regC)
	b.set(regB, b24|bUIE)
	b.Advance(599_999_999)
	if b.irq.Level {
		t.Error("update interrupt too early")
	}
	b.Advance(1)
	if !b.irq.Level || b.get(regC) != cIRQF|bUIE|bPIE || b.get(regC) != 0 {
		t.Error("no update interrupt, or register C not cleared")
	}
	b.set(regB, b24|bAIE)
	b.set(regHourAlarm, 0x13)
	b.set(regMinuteAlarm, 0xc0)
	b.set(regSecondAlarm, 0x05)
	if at := b.Clock.Queue.Next(); at != (33*60+20+5)*secondNs {
		t.Errorf("alarm at %d", at)
	}
	b.Advance(3600 * secondNs)
	if v := b.get(regC); v&(cIRQF|bAIE) != cIRQF|bAIE {
		t.Errorf("register C %#x after the alarm", v)
	}
	b.set(regMinuteAlarm, 0x77) // never
	if b.Clock.Queue.Next() != dev.Never {
		t.Error("an alarm that cannot match is queued")
	}
	b.set(regB, b24)
	b.set(regHourAlarm, 0xff)
	b.set(regMinuteAlarm, 0xff)
	b.set(regSecondAlarm, 0xff)
	b.get(regC)
	b.Advance(secondNs)
	if v := b.get(regC); v != bAIE|bUIE|bPIE || b.irq.Level {
		t.Errorf("flags without enables: %#x, irq %v", v, b.irq.Level)
	}
	b.set(regB, b24|bSET|bUIE)
	if b.get(regB) != b24|bSET {
		t.Error("SET does not clear UIE")
	}
}

func TestMemoryAndNMIMask(t *testing.T) {
	b := newBench(start)
	if kb := b.get(0x15) | b.get(0x16)<<8; kb != 640 {
		t.Errorf("base memory %d KiB", kb)
	}
	if v := b.get(0x34) | b.get(0x35)<<8; v != (3<<30-16<<20)>>16 {
		t.Errorf("memory above 16 MiB: %#x", v)
	}
	if v := b.get(0x5b) | b.get(0x5c)<<8 | b.get(0x5d)<<16; v != 5<<30>>16 {
		t.Errorf("memory above 4 GiB: %#x", v)
	}
	b.set(0x40|indexNMI, 0x5a)
	if !b.NMIMasked() || b.get(0x40) != 0x5a || b.NMIMasked() {
		t.Error("index bit 7 is not the NMI mask")
	}
	b.Out(0, 2, 0x41|0xa5<<8)
	if b.get(0x41) != 0xa5 {
		t.Error("a word to the index port does not write the data port")
	}
	b.set(regC, 0xff)
	b.set(regD, 0)
	if b.get(regC) != 0 || b.get(regD) != dVRT {
		t.Error("registers C and D can be written")
	}
}

func randomStep(b *bench) func(r *rand.Rand) any {
	return func(r *rand.Rand) any {
		reg := uint32(r.IntN(14))
		switch r.IntN(4) {
		case 0:
			b.set(reg, r.Uint32())
		case 1:
			b.Advance(r.Uint64N(1 << r.IntN(34)))
		case 2:
			b.set(regB, bEnables&r.Uint32()|b24)
		}
		return b.get(reg)
	}
}

func TestSaveRestore(t *testing.T) {
	devtest.SaveRestore(t, func() *devtest.Bench {
		b := newBench(start)
		return &devtest.Bench{Clock: b.Clock, Devices: []dev.Device{b.RTC}, Lines: []*devtest.Line{&b.irq}, Step: randomStep(b)}
	})
	if newBench(0).Restore(func(p any) error { p.(*State).Version = 2; return nil }) == nil {
		t.Error("a later version accepted")
	}
}

func FuzzRestore(f *testing.F) {
	b := newBench(start)
	b.set(regB, bEnables)
	f.Add(dev.Encode(b.RTC), uint64(5*secondNs), []byte{0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, state []byte, nowNs uint64, accesses []byte) {
		b := newBench(start)
		b.NowNs = nowNs >> 1
		if dev.Decode(b.RTC, state) != nil {
			return
		}
		for ; len(accesses) >= 2; accesses = accesses[2:] {
			b.set(uint32(accesses[0])&0x3f, uint32(accesses[1]))
			b.get(uint32(accesses[0] & 0x3f))
			if next := b.Clock.Queue.Next(); next != dev.Never && next > b.NowNs {
				b.Advance(next - b.NowNs)
			}
		}
	})
}
