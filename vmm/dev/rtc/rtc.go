package rtc

import (
	"fmt"
	"math/bits"

	"refault/vmm/dev"
)

// Base is the index port; the data port follows it.
const (
	Base     = 0x70
	NumPorts = 2
	IRQ      = 8
)

// Registers. All others are memory.
const (
	regSecond      = 0x00
	regSecondAlarm = 0x01
	regMinute      = 0x02
	regMinuteAlarm = 0x03
	regHour        = 0x04
	regHourAlarm   = 0x05
	regWeekday     = 0x06
	regDay         = 0x07
	regMonth       = 0x08
	regYear        = 0x09
	regA           = 0x0a
	regB           = 0x0b
	regC           = 0x0c
	regD           = 0x0d
	regCentury     = 0x32
)

// Bits of the registers A to D.
const (
	aUIP         = 1 << 7
	aDivider     = 7 << 4
	aDividerHeld = 6 << 4 // 11X: the divider chain is held in reset
	aDivider32K  = 2 << 4
	aRate        = 15

	bSET       = 1 << 7
	bPIE       = 1 << 6
	bAIE       = 1 << 5
	bUIE       = 1 << 4
	bBinary    = 1 << 2
	b24        = 1 << 1
	bEnables   = bPIE | bAIE | bUIE
	cIRQF      = 1 << 7 // PF, AF and UF have the places of their enables
	dVRT       = 1 << 7
	hourPM     = 1 << 7
	alarmAny   = 0xc0
	indexNMI   = 1 << 7
	numBytes   = 128
	crystalHz  = 32768
	uipNs      = 244_000
	secondNs   = 1_000_000_000
	neverAlarm = -1
)

// State is the saved state.
type State struct {
	Version uint8
	Index   uint8
	CMOS    [numBytes]uint8
	// The clock reads Unix second Unix at virtual time PhaseNs, which may lie before power-on (and wraps).
	Unix    int64
	PhaseNs uint64
	// FlagsNs is the virtual time up to which the flags in register C are complete.
	FlagsNs uint64
}

// RTC is the clock.
type RTC struct {
	s          State
	queue      *dev.Queue
	irq        dev.Line
	timer      *dev.Timer
	start      int64
	memLow     uint64
	memHigh    uint64
	timeInCMOS [8]uint8 // the registers that hold time
}

var _ dev.Device = (*RTC)(nil)

// New returns a clock that shows startUnix (seconds) at power-on. memLow and memHigh
// are the bytes of RAM below and above 4 GiB.
func New(q *dev.Queue, irq dev.Line, startUnix int64, memLow, memHigh uint64) *RTC {
	r := &RTC{queue: q, irq: irq, start: startUnix, memLow: memLow, memHigh: memHigh,
		timeInCMOS: [8]uint8{regSecond, regMinute, regHour, regWeekday, regDay, regMonth, regYear, regCentury}}
	r.timer = q.NewTimer("rtc", r.update)
	r.Reset()
	return r
}

// NMIMasked reports whether the guest has masked NMI by bit 7 of the index port.
func (r *RTC) NMIMasked() bool { return r.s.Index&indexNMI != 0 }

// held reports whether the divider chain is held in reset, stopped whether the registers do not follow the time.
func (r *RTC) held() bool    { return r.s.CMOS[regA]&aDividerHeld == aDividerHeld }
func (r *RTC) stopped() bool { return r.held() || r.s.CMOS[regB]&bSET != 0 }

// phase returns the nanoseconds since the clock read Unix.
func (r *RTC) phase(nowNs uint64) uint64 { return nowNs - r.s.PhaseNs }

// unix returns the time in seconds at virtual time nowNs.
func (r *RTC) unix(nowNs uint64) int64 { return r.s.Unix + int64(r.phase(nowNs)/secondNs) }

// encode puts a number into the form that register B asks for.
func (r *RTC) encode(v int64) uint8 {
	if r.s.CMOS[regB]&bBinary != 0 {
		return uint8(v)
	}
	return uint8(v/10%10<<4 | v%10)
}

func (r *RTC) decode(b uint8) int64 {
	if r.s.CMOS[regB]&bBinary != 0 {
		return int64(b)
	}
	return int64(b>>4)*10 + int64(b&15)
}

func (r *RTC) encodeHour(h int64) uint8 {
	if r.s.CMOS[regB]&b24 != 0 {
		return r.encode(h)
	}
	b := r.encode((h+11)%12 + 1)
	if h >= 12 {
		b |= hourPM
	}
	return b
}

func (r *RTC) decodeHour(b uint8) int64 {
	if r.s.CMOS[regB]&b24 != 0 {
		return r.decode(b)
	}
	h := r.decode(b&^hourPM) % 12
	if b&hourPM != 0 {
		h += 12
	}
	return h
}

// show brings the time registers up to date.
func (r *RTC) show() {
	if r.stopped() {
		return
	}
	t := r.unix(r.queue.Now())
	days := floorDiv(t, secondsPerDay)
	s := t - days*secondsPerDay
	year, month, day := date(days)
	c := &r.s.CMOS
	c[regSecond], c[regMinute], c[regHour] = r.encode(s%60), r.encode(s/60%60), r.encodeHour(s/3600)
	c[regWeekday] = r.encode((days%7+7+4)%7 + 1) // 1970-01-01 was a Thursday, and Sunday is 1
	c[regDay], c[regMonth], c[regYear], c[regCentury] = r.encode(day), r.encode(month), r.encode(year%100), r.encode(year/100%100)
}

// take makes the time registers the time.
func (r *RTC) take() {
	c := &r.s.CMOS
	year := r.decode(c[regCentury])*100 + r.decode(c[regYear])
	days := dayNumber(year, r.decode(c[regMonth]), r.decode(c[regDay]))
	t := days*secondsPerDay + r.decodeHour(c[regHour])*3600 + r.decode(c[regMinute])*60 + r.decode(c[regSecond])
	now := r.queue.Now()
	r.s.PhaseNs = now - r.phase(now)%secondNs
	r.s.Unix = t
}

// periodCycles returns the period of the periodic interrupt in crystal cycles, 0 for none (data sheet, table 5).
func (r *RTC) periodCycles() uint64 {
	rate := r.s.CMOS[regA] & aRate
	switch {
	case rate == 0 || r.held():
		return 0
	case rate <= 2:
		rate += 7
	}
	return 1 << (rate - 1)
}

// cycles returns the crystal's cycles in a phase.
func cycles(ns uint64) uint64 {
	hi, lo := bits.Mul64(ns, crystalHz)
	q, _ := bits.Div64(hi, lo, secondNs)
	return q
}

// cyclesNs returns the first nanosecond of a cycle.
func cyclesNs(n uint64) uint64 {
	hi, lo := bits.Mul64(n, secondNs)
	lo, carry := bits.Add64(lo, crystalHz-1, 0)
	if hi += carry; hi >= crystalHz {
		return dev.Never
	}
	q, _ := bits.Div64(hi, lo, crystalHz)
	return q
}

// nextAlarm returns the first second after t at which the alarm matches, or neverAlarm.
func (r *RTC) nextAlarm(t int64) int64 {
	match := func(reg int, v uint8) bool {
		b := r.s.CMOS[reg]
		return b >= alarmAny || b == v
	}
	for end := t + secondsPerDay; t < end; {
		t++
		s := t - floorDiv(t, secondsPerDay)*secondsPerDay
		switch {
		case !match(regHourAlarm, r.encodeHour(s/3600)):
			t += 3599 - s%3600
		case !match(regMinuteAlarm, r.encode(s/60%60)):
			t += 59 - s%60
		case match(regSecondAlarm, r.encode(s%60)):
			return t
		}
	}
	return neverAlarm
}

// update brings the flags up to date, drives the interrupt, and sees to it that
// it is called again when an interrupt is due.
func (r *RTC) update() {
	now := r.queue.Now()
	c := &r.s.CMOS
	if p := r.periodCycles(); p != 0 && cycles(r.phase(now))/p != cycles(r.phase(r.s.FlagsNs))/p {
		c[regC] |= bPIE
	}
	if !r.stopped() {
		from, to := r.unix(r.s.FlagsNs), r.unix(now)
		if from != to {
			c[regC] |= bUIE
			if a := r.nextAlarm(from); a != neverAlarm && a <= to {
				c[regC] |= bAIE
			}
		}
	}
	r.s.FlagsNs = now
	c[regC] &^= cIRQF
	if c[regB]&c[regC]&bEnables != 0 {
		c[regC] |= cIRQF
		r.timer.Stop() // nothing more to say before register C is read
	} else {
		r.arm(now)
	}
	r.irq.Set(c[regC]&cIRQF != 0)
}

// arm sets the timer for the next interrupt that is enabled.
func (r *RTC) arm(now uint64) {
	next := uint64(dev.Never)
	phase, enables := r.phase(now), r.s.CMOS[regB]&bEnables
	if p := r.periodCycles(); p != 0 && enables&bPIE != 0 {
		if at := cyclesNs((cycles(phase)/p + 1) * p); at > phase {
			next = now + at - phase
		}
	}
	if !r.stopped() && enables&(bUIE|bAIE) != 0 {
		t := r.unix(now)
		at := t + 1
		if enables&bUIE == 0 {
			at = r.nextAlarm(t)
		}
		if at != neverAlarm {
			next = min(next, now+uint64(at-t)*secondNs-phase%secondNs)
		}
	}
	r.timer.Set(next)
}

// In implements dev.Ports.
func (r *RTC) In(port uint16, _ int) uint32 {
	if port == 0 {
		return 0xff // the index cannot be read
	}
	i := r.s.Index &^ indexNMI
	r.update()
	r.show()
	v := r.s.CMOS[i]
	switch i {
	case regA:
		if !r.stopped() && r.phase(r.queue.Now())%secondNs >= secondNs-uipNs {
			v |= aUIP
		}
	case regC:
		r.s.CMOS[regC] = 0
		r.update()
	}
	return uint32(v)
}

// Out implements dev.Ports. A word written to the index port writes both.
func (r *RTC) Out(port uint16, size int, v uint32) {
	if port == 0 {
		r.s.Index = uint8(v)
		if size == 1 {
			return
		}
		v >>= 8
	}
	r.write(r.s.Index&^indexNMI, uint8(v))
}

func (r *RTC) write(i, v uint8) {
	r.update()
	r.show()
	c := &r.s.CMOS
	switch i {
	case regC, regD:
		return
	case regA:
		v &^= aUIP
		was := r.held()
		c[regA] = v
		if was && !r.held() { // the first update comes half a second later
			r.s.PhaseNs = r.queue.Now() - secondNs/2
			r.take()
		}
	case regB:
		was := r.stopped()
		if v&bSET != 0 {
			v &^= bUIE
		}
		c[regB] = v
		if was && !r.stopped() {
			r.take()
		}
	default:
		c[i] = v
		if !r.stopped() && r.isTime(i) {
			r.take()
		}
	}
	r.s.FlagsNs = r.queue.Now() // a clock that is set does not pass the seconds between
	r.update()
}

func (r *RTC) isTime(i uint8) bool {
	for _, t := range r.timeInCMOS {
		if i == t {
			return true
		}
	}
	return false
}

// Name implements dev.Device.
func (r *RTC) Name() string { return "rtc" }

// Reset implements dev.Device: as firmware leaves it, with the time right.
func (r *RTC) Reset() {
	r.s = State{Version: 1, Unix: r.start, FlagsNs: r.queue.Now()}
	c := &r.s.CMOS
	c[regA] = aDivider32K | 6 // 1024 Hz
	c[regB] = b24
	c[regD] = dVRT
	r.memorySizes()
	r.update()
}

// memorySizes fills in what PC firmware leaves for the operating system.
func (r *RTC) memorySizes() {
	c := &r.s.CMOS
	word := func(at int, v uint64) {
		c[at], c[at+1] = uint8(v), uint8(v>>8)
	}
	c[0x14] = 0x02  // equipment: a coprocessor
	word(0x15, 640) // KiB of base memory
	extended := uint64(0)
	if r.memLow > 1<<20 {
		extended = min((r.memLow-1<<20)>>10, 0xffff) // KiB above 1 MiB
	}
	word(0x17, extended)
	word(0x30, extended)
	if r.memLow > 16<<20 {
		word(0x34, min((r.memLow-16<<20)>>16, 0xffff)) // 64 KiB above 16 MiB
	}
	high := r.memHigh >> 16 // 64 KiB above 4 GiB
	c[0x5b], c[0x5c], c[0x5d] = uint8(high), uint8(high>>8), uint8(high>>16)
	var sum uint16
	for _, b := range c[0x10:0x2e] {
		sum += uint16(b)
	}
	c[0x2e], c[0x2f] = uint8(sum>>8), uint8(sum)
}

// Save implements dev.Device.
func (r *RTC) Save() any { s := r.s; return &s }

// Restore implements dev.Device. It drives no line: the interrupt controllers' states hold the levels.
func (r *RTC) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	r.s = s
	return nil
}
