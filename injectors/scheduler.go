package injectors

import (
	"fmt"
	"strconv"

	"refault/vmm"
	"refault/vmm/x86"
)

// Scheduler stands in front of another Inputs and adds faults to what comes from
// there, each when its trigger says.
//
// # Where exactly?
//
// An event takes effect between two instructions. A trigger that comes before
// something happens (an instruction is executed, a location is read, a disk command
// starts) abandons the instruction, so that the fault is there when it runs; one that
// comes after something takes effect when that instruction has retired. In the first
// instruction of a handler "before" is too early, since the delivery of the
// exception belongs to the same step: the fault then comes behind that instruction.
type Scheduler struct {
	m     *vmm.Machine
	next  vmm.Inputs
	armed []*armed
	ready []*vmm.Fault // resolved, to happen now
	later []emitted    // to happen once their step has come
	err   error

	notices  []vmm.Notice
	observer *vmm.Observer
}

// emitted is a fault that something that was begun makes happen.
type emitted struct {
	step  uint64
	fault *vmm.Fault
}

// emit makes a fault happen behind the instruction that is executing.
func (s *Scheduler) emit(spec string, f *vmm.Fault) {
	f.Spec = spec
	s.later = append(s.later, emitted{s.m.Step() + 1, f})
	for _, c := range s.m.CPUs {
		c.Attention = true
	}
}

func (s *Scheduler) notice(n vmm.Notice) {
	if len(s.notices) < maxNotices {
		s.notices = append(s.notices, n)
	}
}

// maxNotices bounds what is kept of the lives of defects.
const maxNotices = 1000

// armed is a fault whose trigger is being looked for.
type armed struct {
	s     *Scheduler
	f     *Fault
	no    int // its number, from 1
	stage int
	count uint64 // occurrences of the stage
	due   uint64 // the step at which the stage comes; vmm.Never while that is not known
	// since is where the stage before came.
	since, sinceNs uint64
	disarm         func()
	// Of a stage at a symbol of a module: move looks for it where it is now, which is to be done once a module
	// has moved; missing says why it is nowhere.
	move    func() error
	moved   bool
	missing string
	// key tells attempts at one instruction from others: an occurrence counts once in each.
	key      attempt
	happened uint64
	occasion uint64 // occurrences of the last stage that could have been it
	random   uint64
	// Of a stage that draws when it comes: the position that it drew last, and how many it drew.
	next, drawn uint64
}

type attempt struct {
	step      uint64
	delivered bool
	seen      bool
}

// timing says whether what was seen has happened yet.
type timing bool

const (
	before timing = false
	after  timing = true
)

// NewScheduler returns a Scheduler for machine m over inputs next. Draws that no seed is given
// for are made from seed.
func NewScheduler(m *vmm.Machine, next vmm.Inputs, faults []*Fault, seed uint64) *Scheduler {
	s := &Scheduler{m: m, next: next}
	s.observer = &vmm.Observer{Notice: func(n vmm.Notice) {
		if len(s.notices) < maxNotices {
			s.notices = append(s.notices, n)
		}
	}}
	m.Observe(s.observer)
	for i, f := range faults {
		a := &armed{s: s, f: f, no: i + 1, due: vmm.Never, random: seed + uint64(i), since: m.Step(), sinceNs: m.TimeNs()}
		if f.seeded {
			a.random = f.Seed
		}
		s.armed = append(s.armed, a)
		s.fail(a.look())
	}
	return s
}

// Close ends the looking, and leaves the machine as if nobody had looked.
func (s *Scheduler) Close() {
	for _, a := range s.armed {
		a.stop()
	}
	s.m.Unobserve(s.observer)
}

func (s *Scheduler) fail(err error) {
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("at step %d: %w", s.m.Step(), err)
		s.m.Interrupt()
	}
}

// Err returns the error of the first fault that could not be resolved at its trigger.
func (s *Scheduler) Err() error { return s.err }

// Notices returns what became of the faults that stay in the machine, the first of it.
func (s *Scheduler) Notices() []vmm.Notice { return s.notices }

// Waiting is a fault that has not happened, and how near it came.
type Waiting struct {
	Fault *Fault
	Stage Stage
	Count uint64 // occurrences of the stage, of which there had to be more
	// Missing says, of a stage at a symbol of a module, why there was none in the end.
	Missing string
}

func (w Waiting) String() string {
	s := fmt.Sprintf("%s: ", w.Fault)
	if len(w.Fault.Trigger.Stages) > 1 {
		s += "in the stage "
	}
	s += w.Stage.Text
	if _, ok := w.Stage.cond.(position); ok {
		return s + " was not reached"
	}
	s += fmt.Sprintf(" came %d times, of %d", w.Count, w.Stage.n)
	if w.Missing != "" {
		s += ": " + w.Missing
	}
	return s
}

// Waiting returns the faults that have not happened yet.
func (s *Scheduler) Waiting() []Waiting {
	var ws []Waiting
	for _, a := range s.armed {
		if a.happened == 0 {
			ws = append(ws, Waiting{a.f, *a.at(), a.count, a.missing})
		}
	}
	return ws
}

func (a *armed) at() *Stage { return &a.f.Trigger.Stages[a.stage] }

// look begins to look for the current stage.
func (a *armed) look() error {
	a.count, a.due, a.key, a.missing = 0, vmm.Never, attempt{}, ""
	var err error
	a.disarm, err = a.at().cond.arm(a)
	if err != nil {
		return fmt.Errorf("fault %q: %w", a.f, err)
	}
	return nil
}

func (a *armed) stop() {
	if a.disarm != nil {
		a.disarm()
		a.disarm = nil
	}
}

// seen is told of an occurrence, while instruction or boundary c.Step is under way.
func (a *armed) seen(c *x86.CPU, t timing) {
	if a.due != vmm.Never {
		return
	}
	if c == nil {
		c = a.s.m.CPUs[0]
	}
	step := c.Step
	k := attempt{step, c.DeliveredAt == step, true}
	if k == a.key && !c.Delivering {
		return // the instruction was abandoned, or does it twice
	}
	a.key = k
	a.count++
	if a.count < a.at().n {
		return
	}
	c.Attention = true
	a.due = step + 1
	if t == before && !c.Delivering && !k.delivered {
		a.due = step
		c.Abandon()
	}
}

// comes reports whether the current stage has come.
func (a *armed) comes(step, timeNs uint64) bool {
	if p, ok := a.at().cond.(position); ok {
		s, t, ok := p.at(a)
		return ok && (s != vmm.Never && step >= s || t != vmm.Never && timeNs >= t)
	}
	return a.due <= step
}

// advance goes on behind a stage that has come, and reports whether the fault happens.
func (a *armed) advance(step, timeNs uint64) (happens bool, err error) {
	a.since, a.sinceNs = step, timeNs
	if a.stage < len(a.f.Trigger.Stages)-1 {
		a.stop()
		a.stage++
		return false, a.look()
	}
	if _, ok := a.at().cond.(position); ok {
		a.count++
	}
	if g, ok := a.at().cond.(*onGaps); ok {
		g.more(a)
	}
	a.due = vmm.Never
	a.occasion++
	if a.occasion%a.f.Every != 0 || !a.lucky() {
		return false, nil
	}
	a.happened++
	return true, nil
}

// lucky draws.
func (a *armed) lucky() bool {
	if a.f.Chance >= 1 {
		return true
	}
	return float64(splitmix(&a.random)>>11)/(1<<53) < a.f.Chance
}

// splitmix returns the next number of a generator (Steele, Lea, Flood: SplitMix64).
func splitmix(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// over reports whether the fault will not happen again.
func (a *armed) over() bool {
	if a.f.Times != 0 && a.happened >= a.f.Times {
		return true
	}
	p, ok := a.at().cond.(position)
	if !ok {
		return false
	}
	_, _, more := p.at(a)
	return !more
}

// Take implements vmm.Inputs. Faults come before other events of the same position.
func (s *Scheduler) Take(step, timeNs uint64) *vmm.Event {
	for _, a := range s.armed {
		if a.moved {
			s.fail(a.move())
		}
	}
	for again := true; again && len(s.ready) == 0 && s.err == nil; {
		again = false
		for _, a := range s.armed {
			if a.over() || !a.comes(step, timeNs) {
				continue
			}
			again = true
			happens, err := a.advance(step, timeNs)
			s.fail(err)
			if happens {
				s.resolve(a, step)
				break
			}
		}
	}
	for len(s.later) > 0 && s.later[0].step <= step {
		s.ready = append(s.ready, s.later[0].fault)
		s.later = s.later[1:]
	}
	if len(s.ready) > 0 && s.err == nil {
		v := s.ready[0]
		s.ready = s.ready[1:]
		return &vmm.Event{Step: step, TimeNs: timeNs, Kind: vmm.EventFault, Fault: v}
	}
	return s.next.Take(step, timeNs)
}

// resolve turns a fault that happens now into what happens to the machine.
func (s *Scheduler) resolve(a *armed, step uint64) {
	if a.over() {
		a.stop()
	}
	args, err := a.f.drawn(&a.random, s.m)
	var vs []*vmm.Fault
	switch {
	case err != nil:
	case a.f.Kind.Begin != nil:
		err = a.f.Kind.Begin(s, a.f.String(), args)
	default:
		vs, err = a.f.Kind.Resolve(s.m, args)
	}
	if err != nil {
		s.fail(err)
		return
	}
	for _, v := range vs {
		v.Spec = a.f.String()
		if v.Kind == vmm.FaultDisk {
			v.Disk.Random = splitmix(&a.random)
		}
		if v.Defect != nil {
			v.Defect.Random = splitmix(&a.random)
		}
	}
	s.ready = append(s.ready, vs...)
	for _, b := range s.armed {
		o, ok := b.at().cond.(*onFault)
		if !ok || o.id != strconv.Itoa(a.no) && o.id != a.f.ID || b.due != vmm.Never {
			continue
		}
		if b.count++; b.count >= b.at().n {
			b.due = step
		}
	}
}

// Horizon implements vmm.Inputs.
func (s *Scheduler) Horizon(step uint64) uint64 {
	h := s.next.Horizon(step)
	if len(s.later) > 0 {
		h = min(h, max(s.later[0].step, step+1))
	}
	now := s.m.TimeNs()
	for _, a := range s.armed {
		if a.over() {
			continue
		}
		due := a.due
		if p, ok := a.at().cond.(position); ok {
			at, ns, _ := p.at(a)
			if due = at; ns != vmm.Never {
				due = step + max(ns, now+1) - now
			}
		}
		if due != vmm.Never {
			h = min(h, max(due, step+1))
		}
	}
	return h
}

// Idle implements vmm.Inputs.
func (s *Scheduler) Idle(step, timeNs, untilNs uint64) uint64 {
	for _, a := range s.armed {
		if a.over() {
			continue
		}
		if p, ok := a.at().cond.(position); ok {
			if _, ns, _ := p.at(a); ns != vmm.Never && ns > timeNs {
				untilNs = min(untilNs, ns)
			}
		}
	}
	return s.next.Idle(step, timeNs, untilNs)
}
