package pit

import (
	"fmt"
	"math/bits"

	"refault/vmm/dev"
)

// Hz is the input clock.
const Hz = 1193182

// State is the saved state of the timer.
type State struct {
	Version uint8
	Channel [3]Channel
	Port61  uint8
}

// Channel is the state of one counter.
type Channel struct {
	Control uint8 // the low six bits of the last control word
	Gate    bool

	// The counting element: clock Start is, or will be, the one at which it was loaded with Count.
	Loaded bool
	Count  uint32 // 1 to 65536, or 10000 in BCD
	Start  uint64
	// Stopped: it does not count, Held clocks after it was loaded.
	Stopped bool
	Held    uint64
	// Next, if not zero, is a count that waits for clock When, or for a trigger.
	Next uint32
	When uint64

	WriteLow    uint8
	WriteHalf   bool // the low byte has been written
	ReadHalf    bool // the low byte has been read
	Latched     bool
	Latch       uint16
	StatusValid bool
	Status      uint8
}

// Bits of the control word.
const (
	controlBCD   = 1 << 0
	accessLow    = 1
	accessHigh   = 2
	controlMask  = 0x3f
	statusNull   = 0x40
	statusOutput = 0x80
)

// mode is 0 to 5; there are two ways to write modes 2 and 3.
func (c *Channel) mode() uint8 {
	m := c.Control >> 1 & 7
	if m > 5 {
		m -= 4
	}
	return m
}

func (c *Channel) access() uint8 { return c.Control >> 4 & 3 }

// PIT is the timer.
type PIT struct {
	State
	q     *dev.Queue
	irq   dev.Line
	timer *dev.Timer
}

// New returns a timer whose channel 0 drives irq.
func New(q *dev.Queue, irq dev.Line) *PIT {
	p := &PIT{q: q, irq: irq}
	p.timer = q.NewTimer("pit", p.expire)
	p.Reset()
	return p
}

// Name implements dev.Device.
func (p *PIT) Name() string { return "pit" }

// Reset implements dev.Device.
func (p *PIT) Reset() {
	p.State = State{Version: 1}
	for i := range p.Channel {
		// Undefined at power-on. Mode 2 with a count to come: an output that is high and does nothing.
		p.Channel[i] = Channel{Control: 0x34, Count: 65536, Gate: i < 2}
	}
	p.timer.Stop()
	p.irq.Set(true)
}

// Save implements dev.Device.
func (p *PIT) Save() any { s := p.State; return &s }

// Restore implements dev.Device.
func (p *PIT) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("version %d, this program reads 1", s.Version)
	}
	for _, c := range s.Channel {
		if c.Count == 0 || c.Count > 65536 || c.Next > 65536 || c.Control&^controlMask != 0 || c.access() == 0 {
			return fmt.Errorf("a counter with control word %#x and counts %d and %d", c.Control, c.Count, c.Next)
		}
	}
	p.State = s
	return nil
}

// ticks returns how many input clocks fit ns.
func ticks(ns uint64) uint64 {
	hi, lo := bits.Mul64(ns, Hz)
	q, _ := bits.Div64(hi, lo, 1e9)
	return q
}

// nsOf returns the first nanosecond of an input clock, or Never where time does not reach it.
func nsOf(clock uint64) uint64 {
	hi, lo := bits.Mul64(clock, 1e9)
	lo, c := bits.Add64(lo, Hz-1, 0)
	if hi+c >= Hz {
		return dev.Never
	}
	q, _ := bits.Div64(hi+c, lo, Hz)
	return q
}

func (p *PIT) clock() uint64 { return ticks(p.q.Now()) }

// counted returns how many clocks the counter has counted since it was loaded.
func (c *Channel) counted(now uint64) uint64 {
	switch {
	case c.Stopped:
		return c.Held
	case now < c.Start:
		return 0
	}
	return now - c.Start
}

// settle loads a count that has waited for the end of a cycle which is over.
func (c *Channel) settle(now uint64) {
	if c.Next == 0 || c.Stopped || now < c.When {
		return
	}
	switch c.mode() {
	case 2:
		c.Start = c.When
	case 3:
		high := c.squareHigh(c.When - c.Start)
		c.Start = c.When
		if !high { // the new count begins with its low half
			c.Start -= uint64(c.Next+1) / 2
		}
	default:
		return // it waits for a trigger
	}
	c.Count, c.Next = c.Next, 0
}

// squareHigh is the output of mode 3 after n clocks: an odd count is high for one clock more than it is low.
func (c *Channel) squareHigh(n uint64) bool { return n%uint64(c.Count) < uint64(c.Count+1)/2 }

// cycleEnd returns the clock at which the current cycle of mode 2 or half of mode 3 ends.
func (c *Channel) cycleEnd(now uint64) uint64 {
	if now < c.Start {
		now = c.Start
	}
	n, r := now-c.Start, uint64(c.Count)
	whole := c.Start + (n/r+1)*r
	if half := (r + 1) / 2; c.mode() == 3 && n%r < half && half < r {
		return whole - r + half
	}
	return whole
}

// value returns what the counter reads.
func (c *Channel) value(now uint64) uint16 {
	c.settle(now)
	n, r := uint64(0), uint64(c.Count)
	if c.Loaded {
		n = c.counted(now)
	}
	// Below zero it goes on with the largest number that it can show.
	base := uint64(65536)
	if c.Control&controlBCD != 0 {
		base = 10000
	}
	v := (r%base + base - n%base) % base
	switch c.mode() {
	case 2:
		v = (r - n%r) % base
	case 3:
		at := n % r
		if !c.squareHigh(n) {
			at -= (r + 1) / 2
		}
		v = (r&^1 - 2*at) % base
	}
	if c.Control&controlBCD != 0 {
		v = v%10 | v/10%10<<4 | v/100%10<<8 | v/1000%10<<12
	}
	return uint16(v)
}

// output returns the level of the counter's output.
func (c *Channel) output(now uint64) bool {
	c.settle(now)
	if !c.Loaded {
		return c.mode() != 0
	}
	n, r := c.counted(now), uint64(c.Count)
	switch c.mode() {
	case 0, 1:
		return n >= r
	case 2:
		return c.Stopped || n%r != r-1 || now < c.Start
	case 3:
		return c.Stopped || c.squareHigh(n)
	}
	return n != r
}

// edge returns the clock of the next edge of the output that has to be told of.
func (c *Channel) edge(now uint64) (clock uint64, ok bool) {
	c.settle(now)
	if !c.Loaded || c.Stopped {
		return 0, false
	}
	n, r := c.counted(now), uint64(c.Count)
	switch c.mode() {
	case 0, 1:
		return c.Start + r, n < r
	case 2, 3:
		return c.cycleEnd(now), true
	}
	return c.Start + r + 1, n <= r
}

// arm sets channel 0's timer.
func (p *PIT) arm() {
	if clock, ok := p.Channel[0].edge(p.clock()); ok {
		p.timer.Set(nsOf(clock))
	} else {
		p.timer.Stop()
	}
}

func (p *PIT) expire() {
	if c := &p.Channel[0]; c.output(p.clock()) {
		p.irq.Set(false) // the low clock before it
		p.irq.Set(true)
	} else {
		p.irq.Set(false)
	}
	p.arm()
}

// changed follows whatever software does to channel i.
func (p *PIT) changed(i int) {
	if i == 0 {
		p.irq.Set(p.Channel[0].output(p.clock()))
		p.arm()
	}
}

// write gives a counter a new count.
func (c *Channel) write(v uint32, now uint64) {
	if c.Control&controlBCD != 0 {
		v = v&15 + v>>4&15*10 + v>>8&15*100 + v>>12&15*1000
		if v == 0 {
			v = 10000
		}
	}
	if v == 0 {
		v = 65536
	}
	c.settle(now)
	switch m := c.mode(); {
	case m == 1 || m == 5:
		c.Next, c.When = v, 0
	case (m == 2 || m == 3) && c.Loaded && (c.Stopped || now >= c.Start):
		c.Next, c.When = v, 0
		if !c.Stopped {
			c.When = c.cycleEnd(now)
		}
	default:
		c.Loaded, c.Count, c.Start, c.Next = true, v, now+1, 0
		c.Stopped, c.Held = !c.Gate, 0
	}
}

// setGate is the counter's gate input.
func (c *Channel) setGate(on bool, now uint64) {
	if on == c.Gate {
		return
	}
	c.settle(now)
	c.Gate = on
	m := c.mode()
	switch {
	case m == 1 || m == 5:
		if on && (c.Next != 0 || c.Loaded) {
			c.trigger(now)
		}
	case !c.Loaded:
	case !on:
		c.Held, c.Stopped = c.counted(now), true
	case m == 2 || m == 3:
		c.trigger(now)
	default:
		c.Start, c.Stopped = now-min(c.Held, now), false
	}
}

// trigger begins the count anew.
func (c *Channel) trigger(now uint64) {
	if c.Next != 0 {
		c.Count, c.Next = c.Next, 0
	}
	c.Loaded, c.Stopped, c.Start = true, false, now+1
}

// In implements dev.Ports, for ports 40H to 43H.
func (p *PIT) In(port uint16, _ int) uint32 {
	if port > 2 {
		return 0xff
	}
	c := &p.Channel[port]
	if c.StatusValid {
		c.StatusValid = false
		return uint32(c.Status)
	}
	v := c.Latch
	if !c.Latched {
		v = c.value(p.clock())
	}
	switch c.access() {
	case accessLow:
		c.Latched = false
		return uint32(v & 0xff)
	case accessHigh:
		c.Latched = false
		return uint32(v >> 8)
	}
	if c.ReadHalf {
		c.ReadHalf, c.Latched = false, false
		return uint32(v >> 8)
	}
	c.ReadHalf = true
	return uint32(v & 0xff)
}

// Out implements dev.Ports.
func (p *PIT) Out(port uint16, _ int, v32 uint32) {
	v, now := uint8(v32), p.clock()
	if port < 3 {
		p.writeCount(int(port), v, now)
		return
	}
	i := int(v >> 6)
	switch {
	case i == 3:
		p.readBack(v, now)
	case v>>4&3 == 0:
		p.Channel[i].latch(now)
	default:
		c := &p.Channel[i]
		*c = Channel{Control: v & controlMask, Gate: c.Gate, Count: 65536}
		p.changed(i)
	}
}

func (p *PIT) writeCount(i int, v uint8, now uint64) {
	c := &p.Channel[i]
	switch c.access() {
	case accessLow:
		c.write(uint32(v), now)
	case accessHigh:
		c.write(uint32(v)<<8, now)
	default:
		if !c.WriteHalf {
			c.WriteLow, c.WriteHalf = v, true
			if c.mode() == 0 {
				c.Loaded = false // the first byte stops the count, and lowers the output
			}
			break
		}
		c.WriteHalf = false
		c.write(uint32(v)<<8|uint32(c.WriteLow), now)
	}
	p.changed(i)
}

// readBack executes the read-back command: it latches counts and statuses.
func (p *PIT) readBack(v uint8, now uint64) {
	for i := range p.Channel {
		if v>>(i+1)&1 == 0 {
			continue
		}
		c := &p.Channel[i]
		if v&0x20 == 0 {
			c.latch(now)
		}
		if v&0x10 == 0 && !c.StatusValid {
			c.StatusValid, c.Status = true, c.Control
			if c.output(now) {
				c.Status |= statusOutput
			}
			if !c.Loaded || c.Next != 0 || !c.Stopped && now < c.Start {
				c.Status |= statusNull
			}
		}
	}
}

func (c *Channel) latch(now uint64) {
	if !c.Latched {
		c.Latch, c.Latched = c.value(now), true
	}
}

// Port61 returns the system control port.
func (p *PIT) Port61() dev.Ports { return port61{p} }

type port61 struct{ p *PIT }

func (r port61) In(uint16, int) uint32 {
	p := r.p
	v := uint32(p.State.Port61 & 0x0f)
	if p.clock()/18&1 != 0 { // refresh toggles every 15 µs
		v |= 0x10
	}
	if p.Channel[2].output(p.clock()) {
		v |= 0x20
	}
	return v
}

func (r port61) Out(_ uint16, _ int, v uint32) {
	p := r.p
	p.State.Port61 = uint8(v) & 0x0f
	p.Channel[2].setGate(v&1 != 0, p.clock())
}
