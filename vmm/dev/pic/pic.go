package pic

import (
	"fmt"

	"refault/vmm/dev"
)

// cascade is the input of the first controller that the second hangs on.
const cascade = 2

// State is the saved state of both controllers.
type State struct {
	Version uint8
	Chip    [2]Chip
}

// Chip is the state of one 8259A.
type Chip struct {
	Lines, IMR, ISR     uint8
	Edges               uint8 // inputs that rose, and have neither fallen nor been acknowledged since
	ELCR                uint8 // inputs that are level-triggered
	Base                uint8 // vector of input 0
	Priority            uint8 // input with the highest priority
	InitStep            uint8 // which ICW comes next, 0 when initialised
	ICW4, Single        bool
	ReadISR, Poll       bool
	AutoEOI, RotateAEOI bool
	SpecialMask, Nested bool
	Unseen              uint8 // inputs that are asserted, and the controller takes no notice
	Glitch              bool  // there was a request, and it has gone away
}

// PIC is the pair; the second hangs on input 2 of the first.
type PIC struct {
	State
	intr dev.Line

	// Filter, if set, is asked whether the controller notices that input n is asserted. If not, it does not before the
	// input is asserted once more, or Arrive is called.
	Filter func(n int) bool
}

// New returns a pair that drives intr.
func New(intr dev.Line) *PIC {
	p := &PIC{intr: intr}
	p.Reset()
	return p
}

// Name implements dev.Device.
func (p *PIC) Name() string { return "pic" }

// Reset implements dev.Device.
func (p *PIC) Reset() {
	lines := [2]uint8{p.Chip[0].Lines, p.Chip[1].Lines}
	unseen := [2]uint8{p.Chip[0].Unseen, p.Chip[1].Unseen}
	p.State = State{Version: 1}
	for i := range p.Chip {
		p.Chip[i].Lines, p.Chip[i].Unseen = lines[i], unseen[i]
		p.Chip[i].IMR = 0xff
	}
	p.update()
}

// Save implements dev.Device.
func (p *PIC) Save() any { s := p.State; return &s }

// Restore implements dev.Device.
func (p *PIC) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("version %d, this program reads 1", s.Version)
	}
	for i := range s.Chip {
		if c := &s.Chip[i]; c.Priority > 7 || c.InitStep > 4 || c.Base&7 != 0 {
			return fmt.Errorf("controller %d with priority %d, base %#x, initialisation step %d", i, c.Priority, c.Base, c.InitStep)
		}
	}
	p.State = s
	return nil
}

// Line returns input n, 0 to 15.
func (p *PIC) Line(n int) dev.Line {
	return dev.LineFunc(func(level bool) { p.set(n, level) })
}

func (p *PIC) set(n int, level bool) {
	c, bit := &p.Chip[n>>3], uint8(1)<<(n&7)
	switch {
	case !level:
		c.Unseen &^= bit
	case c.Unseen&bit != 0:
		return
	case c.Lines&bit == 0 && p.Filter != nil && !p.Filter(n):
		c.Unseen |= bit
		return
	}
	c.set(uint8(n&7), level)
	p.update()
}

// Arrive makes the controller notice input n, whatever Filter said: late, that is. An edge counts even if the input is
// not asserted any more.
func (p *PIC) Arrive(n int) {
	c, bit := &p.Chip[n>>3], uint8(1)<<(n&7)
	if c.Unseen&bit != 0 {
		c.Unseen &^= bit
		c.set(uint8(n&7), true)
	} else if c.ELCR&bit == 0 {
		c.Edges |= bit
	}
	p.update()
}

// Disturb makes a request of input n that no device makes. On input 7 of either controller, or on one that is
// level-triggered, it has gone away before it is acknowledged.
func (p *PIC) Disturb(n int) {
	c, bit := &p.Chip[n>>3], uint8(1)<<(n&7)
	if n&7 == 7 || c.ELCR&bit != 0 {
		c.Glitch = true
	} else {
		c.Edges |= bit
	}
	p.update()
}

// Open reports whether input n may interrupt: its controller is initialised, and does not mask it. For what Disturb
// does to input 7 it is enough that not all are masked.
func (p *PIC) Open(n int, disturb bool) bool {
	c := &p.Chip[n>>3]
	masked := c.IMR>>(n&7)&1 != 0
	if disturb && n&7 == 7 {
		masked = c.IMR == 0xff
	}
	return c.InitStep == 0 && c.Base != 0 && !masked && (n < 8 || p.Open(cascade, false))
}

func (c *Chip) set(n uint8, level bool) {
	bit := uint8(1) << n
	if !level {
		c.Lines &^= bit
		c.Edges &^= bit // an input has to stay high until it is acknowledged
		return
	}
	c.Edges |= bit &^ c.Lines
	c.Lines |= bit
}

// irr is the interrupt request register.
func (c *Chip) irr() uint8 { return c.Edges&^c.ELCR | c.Lines&c.ELCR }

// rank returns how far input n is from the highest priority.
func (c *Chip) rank(n uint8) uint8 { return (n - c.Priority) & 7 }

// highest returns the input of the highest priority among those in set, and 8 for none.
func (c *Chip) highest(set uint8) uint8 {
	for i := range uint8(8) {
		if n := (c.Priority + i) & 7; set>>n&1 != 0 {
			return n
		}
	}
	return 8
}

// request returns the input that asks for service now, or 8.
func (c *Chip) request() uint8 {
	n := c.highest(c.irr() &^ c.IMR)
	if n == 8 {
		return 8
	}
	isr := c.ISR
	if c.SpecialMask {
		isr &^= c.IMR
	}
	if c.Nested && n == cascade {
		isr &^= 1 << cascade // the other controller may have something more urgent
	}
	if s := c.highest(isr); s != 8 && c.rank(s) <= c.rank(n) {
		return 8
	}
	return n
}

// asks reports whether a controller's output is asserted.
func (c *Chip) asks() bool { return c.request() != 8 || c.Glitch && c.IMR != 0xff }

func (p *PIC) update() {
	p.Chip[0].set(cascade, p.Chip[1].asks())
	p.intr.Set(p.Pending())
}

// Pending reports whether the pair asks for an interrupt.
func (p *PIC) Pending() bool { return p.Chip[0].asks() }

// Ack is the interrupt acknowledge cycle: it returns the vector, a spurious one if nothing asks any more.
func (p *PIC) Ack() uint8 {
	c := &p.Chip[0]
	n := c.request()
	if n == 8 {
		c.Glitch = false
		p.update()
		return c.Base | 7
	}
	c.acknowledge(n)
	v := c.Base | n
	if n == cascade {
		s := &p.Chip[1]
		m := s.request()
		if m == 8 {
			m = 7 // no bit is set in service
			s.Glitch = false
		} else {
			s.acknowledge(m)
		}
		v = s.Base | m
		c.set(cascade, false) // if there is more, it is another edge
	}
	p.update()
	return v
}

func (c *Chip) acknowledge(n uint8) {
	bit := uint8(1) << n
	if c.AutoEOI {
		if c.RotateAEOI {
			c.Priority = (n + 1) & 7
		}
	} else {
		c.ISR |= bit
	}
	c.Edges &^= bit
}

// Ports returns the ports of controller i (0: 20H, 1: A0H).
func (p *PIC) Ports(i int) dev.Ports { return ports{p, i} }

type ports struct {
	p *PIC
	i int
}

func (r ports) In(port uint16, _ int) uint32 {
	c := &r.p.Chip[r.i]
	if c.Poll {
		c.Poll = false
		n := c.request()
		if n == 8 {
			c.Glitch = false
			r.p.update()
			return 0
		}
		c.acknowledge(n)
		if r.i == 1 {
			r.p.Chip[0].set(cascade, false)
		}
		r.p.update()
		return 0x80 | uint32(n)
	}
	if port == 1 {
		return uint32(c.IMR)
	}
	if c.ReadISR {
		return uint32(c.ISR)
	}
	return uint32(c.irr())
}

func (r ports) Out(port uint16, _ int, v32 uint32) {
	c, v := &r.p.Chip[r.i], uint8(v32)
	switch {
	case port == 0 && v&0x10 != 0: // ICW1
		*c = Chip{Lines: c.Lines, Unseen: c.Unseen, ELCR: c.ELCR, InitStep: 2, ICW4: v&1 != 0, Single: v&2 != 0, Base: c.Base}
	case port == 0 && v&8 != 0: // OCW3
		if v&0x40 != 0 {
			c.SpecialMask = v&0x20 != 0
		}
		c.Poll = v&4 != 0
		if v&2 != 0 {
			c.ReadISR = v&1 != 0
		}
	case port == 0: // OCW2
		c.endOfInterrupt(v)
	case c.InitStep == 2:
		c.Base = v & 0xf8
		c.InitStep = 3
		if c.Single {
			c.lastICW()
		}
	case c.InitStep == 3: // the cascade is wired
		c.lastICW()
	case c.InitStep == 4:
		c.AutoEOI = v&2 != 0
		c.Nested = v&0x10 != 0
		c.InitStep = 0
	default:
		c.IMR = v
	}
	r.p.update()
}

// lastICW expects ICW4, or nothing more.
func (c *Chip) lastICW() {
	c.InitStep = 0
	if c.ICW4 {
		c.InitStep = 4
	}
}

func (c *Chip) endOfInterrupt(v uint8) {
	n := v & 7
	switch v >> 5 {
	case 0:
		c.RotateAEOI = false
	case 4:
		c.RotateAEOI = true
	case 1, 5:
		isr := c.ISR
		if c.SpecialMask {
			isr &^= c.IMR
		}
		if n = c.highest(isr); n == 8 {
			return
		}
		c.ISR &^= 1 << n
		if v>>5 == 5 {
			c.Priority = (n + 1) & 7
		}
	case 3, 7:
		c.ISR &^= 1 << n
		if v>>5 == 7 {
			c.Priority = (n + 1) & 7
		}
	case 6:
		c.Priority = (n + 1) & 7
	}
}

// ELCR returns the edge/level registers (4D0H, 4D1H).
func (p *PIC) ELCR() dev.Ports { return elcr{p} }

type elcr struct{ p *PIC }

func (e elcr) In(port uint16, _ int) uint32 { return uint32(e.p.Chip[port&1].ELCR) }

func (e elcr) Out(port uint16, _ int, v uint32) {
	fixed := [2]uint8{0x07, 0x21} // timer, keyboard, cascade; RTC, coprocessor: always edge
	e.p.Chip[port&1].ELCR = uint8(v) &^ fixed[port&1]
	e.p.update()
}
