package gdb

import (
	"errors"

	"refault/vmm"
	"refault/vmm/x86"
)

// place is where the machine stands.
type place struct {
	step uint64
	// delivered: at this step an exception or interrupt has been delivered, and the
	// processor stands before its handler's first instruction.
	delivered bool
}

func (p place) before(q place) bool {
	return p.step < q.step || p.step == q.step && !p.delivered && q.delivered
}

// watchKind is a kind of watchpoint, by the digit of its Z packet.
type watchKind byte

const (
	watchWrite  watchKind = '2'
	watchRead   watchKind = '3'
	watchAccess watchKind = '4'
)

var watchNames = map[watchKind]string{watchWrite: "watch", watchRead: "rwatch", watchAccess: "awatch"}

// watchpoint is a range of virtual addresses that is watched.
type watchpoint struct {
	kind watchKind
	addr uint64
	len  uint64
}

func (w watchpoint) sees(kind x86.Access) bool {
	return w.kind == watchAccess || (kind == x86.Write) == (w.kind == watchWrite)
}

// hit is a breakpoint or watchpoint that came.
type hit struct {
	at    place       // before the instruction that it is about
	watch *watchpoint // nil: a breakpoint
	pc    uint64      // of a breakpoint
	hard  bool
}

// target is where a hit stops the machine: before an instruction; going forward, after an access.
func (h *hit) target(forward bool) place {
	if h.watch != nil && forward {
		return place{step: h.at.step + 1}
	}
	if h.watch != nil {
		return place{step: h.at.step}
	}
	return h.at
}

// stop says why the machine stopped.
type stop struct {
	hit         *hit
	begin, end  bool // of the recording
	interrupted bool
}

// hooks attaches observers for all breakpoints and watchpoints, which call found, and
// returns what takes them away. With leaving, a breakpoint right where the machine stands does not count.
func (s *Server) hooks(leaving bool, found func(h hit)) (detach func()) {
	m := s.p.Machine()
	var all []*vmm.Observer
	here, pc := s.place(), linear(m.CPUs[0])
	at := func(c *x86.CPU) place { return place{c.Step, c.DeliveredAt == c.Step} }
	for addr, b := range s.breaks {
		all = append(all, &vmm.Observer{Code: vmm.Span{First: addr, Last: addr}, Before: func(c *x86.CPU, la uint64, _ *x86.Inst) {
			p := at(c)
			if leaving && p == here && la == pc {
				return
			}
			found(hit{at: p, pc: la, hard: b.hard > 0 && b.soft == 0})
		}})
	}
	for i := range s.watches {
		w := s.watches[i]
		all = append(all, &vmm.Observer{Data: vmm.Span{First: w.addr, Last: w.addr + w.len - 1}, Access: func(c *x86.CPU, _ uint64, _ int, kind x86.Access) {
			if w.sees(kind) {
				found(hit{at: place{step: c.Step}, watch: &w})
			}
		}})
	}
	for _, o := range all {
		m.Observe(o)
	}
	return func() {
		for _, o := range all {
			m.Unobserve(o)
		}
	}
}

// linear returns the linear address of the next instruction.
func linear(c *x86.CPU) uint64 {
	if c.CodeSize() == 8 {
		return c.Regs[x86.RIP]
	}
	return (c.Regs[x86.RIP] + c.Seg[x86.CS].Base) & 0xffffffff
}

func (s *Server) place() place { return place{s.p.Machine().Step(), s.delivered} }

// interrupted takes an interruption, or a pause that was asked for, out of an error.
func interrupted(err error) (bool, error) {
	if errors.Is(err, vmm.ErrInterrupted) {
		return true, nil
	}
	return false, err
}

// forward goes on to the next breakpoint or watchpoint.
func (s *Server) forward() (stop, error) {
	var first *hit
	detach := s.hooks(true, func(h hit) {
		if first == nil {
			first = &h
			s.p.Machine().Pause()
		}
	})
	err := s.leave()
	if err == nil && first == nil {
		err = s.tl.Forward(s.p.End())
	}
	detach()
	s.delivered = false
	if first != nil && (err == nil || errors.Is(err, vmm.ErrPaused)) {
		return stop{hit: first}, s.goTo(first.target(true))
	}
	was, err := interrupted(err)
	return stop{interrupted: was, end: !was}, err
}

// leave executes the first instruction of a handler that the machine stands before: a
// place between two steps, where no checkpoint may be.
func (s *Server) leave() error {
	if !s.delivered {
		return nil
	}
	s.delivered = false
	err := s.p.RunTo(min(s.p.Machine().Step()+1, s.p.End()))
	if errors.Is(err, vmm.ErrPaused) {
		return nil
	}
	return err
}

// stepOne executes one instruction, or delivers one exception or interrupt.
func (s *Server) stepOne() (stop, error) {
	at := s.place()
	if at.step >= s.p.End() {
		return stop{end: true}, nil
	}
	var first *hit // of a watchpoint
	detach := s.hooks(true, func(h hit) {
		if h.watch != nil && first == nil {
			first = &h
		}
	})
	err := s.deliver(!at.delivered)
	detach()
	was, err := interrupted(err)
	return stop{hit: first, interrupted: was}, err
}

// deliver runs one instruction; if an exception or interrupt is delivered first, and
// pause is set, it stops before the first instruction of the handler.
func (s *Server) deliver(pause bool) error {
	m := s.p.Machine()
	came := false
	o := &vmm.Observer{
		Code:      vmm.Everywhere,
		Delivered: func(_ *x86.CPU, e x86.Exception) { came, s.vector = true, e.Vec },
		Before: func(c *x86.CPU, _ uint64, _ *x86.Inst) {
			if came {
				m.Pause()
				c.Abandon() // delivery has left no interrupt shadow that this could lose
			}
		},
	}
	if pause {
		m.Observe(o)
		defer m.Unobserve(o)
	}
	s.delivered = false
	err := s.p.RunTo(m.Step() + 1)
	if errors.Is(err, vmm.ErrPaused) {
		s.delivered = came
		return nil
	}
	return err
}

// goTo goes to a place.
func (s *Server) goTo(at place) error {
	s.delivered = false
	s.tl.Leave()
	if err := s.tl.Goto(min(at.step, s.p.End())); err != nil {
		return err
	}
	if !at.delivered {
		return nil
	}
	return s.deliver(true)
}

// backOne goes one instruction, or one delivery, back.
func (s *Server) backOne() (stop, error) {
	at := s.place()
	if at.delivered {
		return stop{}, s.goTo(place{step: at.step})
	}
	if at.step <= s.p.Start() {
		return stop{begin: true}, nil
	}
	err := s.goTo(place{step: at.step - 1, delivered: true})
	if err == nil && !s.delivered { // nothing is delivered there, and it has come here again
		err = s.goTo(place{step: at.step - 1})
	}
	was, err := interrupted(err)
	return stop{interrupted: was}, err
}

// backward goes back to the last breakpoint or watchpoint before.
func (s *Server) backward() (stop, error) {
	end := s.place()
	for upTo := end; ; {
		if upTo.step <= s.p.Start() && !upTo.delivered {
			return stop{begin: true}, s.goTo(place{step: s.p.Start()})
		}
		from := upTo.step
		if upTo.delivered {
			from++
		}
		s.delivered = false
		if err := s.tl.Before(from); err != nil {
			return stop{}, err
		}
		begin := s.p.Machine().Step()
		last, err := s.lastHit(upTo)
		if err != nil {
			was, err := interrupted(err)
			return stop{interrupted: was}, err
		}
		if last != nil {
			return stop{hit: last}, s.goTo(last.target(false))
		}
		upTo = place{step: begin}
	}
}

// lastHit plays to a place and returns the last hit on the way, the place where it begins included.
func (s *Server) lastHit(to place) (last *hit, err error) {
	detach := s.hooks(false, func(h hit) {
		if h.target(false).before(to) {
			last = &h
		}
	})
	end := to.step
	if to.delivered {
		end++
	}
	err = s.p.RunTo(min(end, s.p.End()))
	detach()
	return last, err
}
