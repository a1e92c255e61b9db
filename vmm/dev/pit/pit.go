// Package pit is the 8254 interval timer of a PC and the system control port 61H
// that gates its third channel (Intel 8254 data sheet).
//
// Counters are not ticked: what a counter reads follows from virtual time and the
// time at which it was loaded. Only channel 0, whose output is an interrupt, has a timer.
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
	Mode, Access uint8
	BCD, Gate    bool
	Reload       uint32 // 1 to 65536 (or 10000)
	Loaded       bool
	StartNs      uint64
	WriteLow     uint8
	WriteHalf    bool // the low byte has been written
	ReadHalf     bool // the low byte has been read
	Latched      bool
	Latch        uint16
	StatusValid  bool
	Status       uint8
}

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
		p.Channel[i] = Channel{Access: 3, Reload: 65536, Gate: i < 2}
	}
	p.timer.Stop()
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
		if c.Reload == 0 || c.Reload > 65536 || c.Mode > 5 {
			return fmt.Errorf("a counter in mode %d with reload value %d", c.Mode, c.Reload)
		}
	}
	p.State = s
	return nil
}

// ticks returns how many input clocks fit ns, and nsOf its inverse, rounded up.
func ticks(ns uint64) uint64 {
	hi, lo := bits.Mul64(ns, Hz)
	q, _ := bits.Div64(hi, lo, 1e9)
	return q
}

func nsOf(ticks uint64) uint64 {
	hi, lo := bits.Mul64(ticks, 1e9)
	lo, c := bits.Add64(lo, Hz-1, 0)
	q, _ := bits.Div64(hi+c, lo, Hz)
	return q
}

func (p *PIT) elapsed(c *Channel) uint64 { return ticks(p.q.Now() - c.StartNs) }

// count returns what the counter reads now.
func (p *PIT) count(c *Channel) uint16 {
	if !c.Loaded {
		return uint16(c.Reload)
	}
	n := p.elapsed(c)
	r := uint64(c.Reload)
	switch c.Mode {
	case 2:
		return uint16(r - n%r)
	case 3:
		return uint16(r - n*2%r&^1)
	}
	return uint16(r - n)
}

// output returns the level of the counter's output.
func (p *PIT) output(c *Channel) bool {
	if !c.Loaded {
		return c.Mode != 0
	}
	n, r := p.elapsed(c), uint64(c.Reload)
	switch c.Mode {
	case 0, 1:
		return n >= r
	case 2:
		return n%r != r-1
	case 3:
		return n%r < (r+1)/2
	}
	return n != r
}

// arm sets channel 0's timer for its next rising edge.
func (p *PIT) arm() {
	c := &p.Channel[0]
	if !c.Loaded {
		p.timer.Stop()
		return
	}
	n, r := p.elapsed(c), uint64(c.Reload)
	switch c.Mode {
	case 2, 3:
		p.timer.Set(c.StartNs + nsOf((n/r+1)*r))
	default:
		if n < r {
			p.timer.Set(c.StartNs + nsOf(r))
		} else {
			p.timer.Stop()
		}
	}
}

func (p *PIT) expire() {
	dev.Pulse(p.irq)
	p.arm()
}

func (p *PIT) load(i int, v uint32) {
	c := &p.Channel[i]
	if c.BCD {
		v = v&15 + v>>4&15*10 + v>>8&15*100 + v>>12&15*1000
		if v == 0 {
			v = 10000
		}
	}
	if v == 0 {
		v = 65536
	}
	c.Reload, c.Loaded, c.StartNs = v, true, p.q.Now()
	if i == 0 {
		p.irq.Set(false)
		p.arm()
	}
}

// In implements dev.Ports, for ports 40H to 43H.
func (p *PIT) In(port uint16, _ int) uint32 {
	if port == 3 {
		return 0xff
	}
	c := &p.Channel[port]
	if c.StatusValid {
		c.StatusValid = false
		return uint32(c.Status)
	}
	v := c.Latch
	if !c.Latched {
		v = p.count(c)
		if c.BCD {
			v = v%10 | v/10%10<<4 | v/100%10<<8 | v/1000%10<<12
		}
	}
	switch c.Access {
	case 1:
		c.Latched = false
		return uint32(v & 0xff)
	case 2:
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
	v := uint8(v32)
	if port < 3 {
		c := &p.Channel[port]
		switch {
		case c.Access == 1:
			p.load(int(port), uint32(v))
		case c.Access == 2:
			p.load(int(port), uint32(v)<<8)
		case !c.WriteHalf:
			c.WriteLow, c.WriteHalf = v, true
			if c.Mode == 0 {
				c.Loaded = false // the first byte stops the count
			}
		default:
			c.WriteHalf = false
			p.load(int(port), uint32(v)<<8|uint32(c.WriteLow))
		}
		return
	}
	if v>>6 == 3 { // read back
		for i := range p.Channel {
			if v>>(i+1)&1 == 0 {
				continue
			}
			c := &p.Channel[i]
			if v&0x20 == 0 {
				p.latch(c)
			}
			if v&0x10 == 0 && !c.StatusValid {
				c.Status = c.Access<<4 | c.Mode<<1
				if c.BCD {
					c.Status |= 1
				}
				if !c.Loaded {
					c.Status |= 0x40
				}
				if p.output(c) {
					c.Status |= 0x80
				}
				c.StatusValid = true
			}
		}
		return
	}
	c := &p.Channel[v>>6]
	if v>>4&3 == 0 {
		p.latch(c)
		return
	}
	mode := v >> 1 & 7
	if mode > 5 {
		mode -= 4
	}
	*c = Channel{Mode: mode, Access: v >> 4 & 3, BCD: v&1 != 0, Gate: c.Gate, Reload: 65536}
	if v>>6 == 0 {
		p.timer.Stop()
	}
}

func (p *PIT) latch(c *Channel) {
	if c.Latched {
		return
	}
	c.Latch, c.Latched = p.count(c), true
	if c.BCD {
		v := c.Latch
		c.Latch = v%10 | v/10%10<<4 | v/100%10<<8 | v/1000%10<<12
	}
}

// Port61 returns the system control port.
func (p *PIT) Port61() dev.Ports { return port61{p} }

type port61 struct{ p *PIT }

func (r port61) In(uint16, int) uint32 {
	p := r.p
	v := uint32(p.State.Port61 & 0x0f)
	if ticks(p.q.Now())/18&1 != 0 { // refresh toggles every 15 µs
		v |= 0x10
	}
	if p.output(&p.Channel[2]) {
		v |= 0x20
	}
	return v
}

func (r port61) Out(_ uint16, _ int, v uint32) {
	p := r.p
	p.State.Port61 = uint8(v) & 0x0f
	c := &p.Channel[2]
	gate := v&1 != 0
	if gate && !c.Gate && c.Loaded {
		c.StartNs = p.q.Now() // a rising gate starts the count anew
	}
	c.Gate = gate
}
