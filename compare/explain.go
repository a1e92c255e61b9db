package compare

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Explanation tells how a fault came to be seen.
type Explanation struct {
	Report *Report `json:"diff"`
	// Target is what the chain leads to: "output", "disk write", "control flow" or "state".
	Target string `json:"target"`
	// Disk and Write are the disk write that it leads to.
	Disk  string     `json:"disk,omitempty"`
	Write *WriteDiff `json:"write,omitempty"`
	// Links carried the wrong value from the fault to the target, in that order: the main chain.
	Links []Link `json:"links"`
	// Joins made what else the main chain was made of, and each other, in the order of their steps.
	Joins []Link `json:"joins"`
	// Origin is where the first link's wrong value came from: a fault's own target, or a device.
	Origin string `json:"origin"`
	// Complete: the chain reaches the fault. Otherwise Note says why not.
	Complete bool   `json:"complete"`
	Note     string `json:"note,omitempty"`
	// OutputStep is the step of the faulty run at which the first byte that differs came out.
	OutputStep uint64 `json:"output_step,omitempty"`
	// Path is the calls that led from where control flow split to that byte: each entered after the split and not left before.
	Path []Frame `json:"path,omitempty"`
}

// Link is an instruction that made something wrong of something wrong.
type Link struct {
	Step   uint64   `json:"step"`
	Faulty Executed `json:"instruction"`
	// Place is what it wrote: a register, or memory by physical address. Golden and GoldenValue are what the golden run has there.
	Place  string `json:"place"`
	Golden string `json:"golden_value"`
	Value  string `json:"faulty_value"`
	Owner  string `json:"owner,omitempty"`
	// From are the wrong values that it made that of.
	From []Cause `json:"from"`
	// Device: no processor wrote it, or it was read from a device.
	Device string `json:"device,omitempty"`

	// Where nothing that a processor read was the reason: what it comes from, and whether the fault struck that.
	origin string
	direct bool
}

// Cause is a wrong value that an instruction made something wrong of.
type Cause struct {
	Place string     `json:"place"`
	Kind  Dependence `json:"dependence"`
	// Step is of the link that made it wrong; nil where none did, and then Origin says where it comes from, or
	// why that was not followed.
	Step   *uint64 `json:"made_at_step,omitempty"`
	Origin string  `json:"origin,omitempty"`

	place place
	link  *Link
	fault bool // it is the fault's own
}

// Dependence says how a value depends on another.
type Dependence string

const (
	Data    Dependence = "data"    // it is calculated of it
	Address Dependence = "address" // it is loaded from, or stored to, another place
	Control Dependence = "control" // another instruction comes next
)

// Frame is a call, or an exception or interrupt.
type Frame struct {
	Step   uint64 `json:"step"`
	Entry  uint64 `json:"entry"`
	Symbol string `json:"symbol,omitempty"`
	// By is what entered it, where that was no call.
	By string `json:"by,omitempty"`
}

// Origins: what the faults changed, and the beginning of those that say why there is none.
const (
	ownOrigin   = "the fault itself"
	notFollowed = "not followed: "
)

// Bounds of an explanation.
const (
	maxLinks     = 400        // of the first chain
	maxJoins     = 32         // besides
	maxJoinSteps = 1 << 16    // for which a register of these is followed back
	maxReplay    = 1 << 30    // steps that are played for these
	firstReach   = 256        // steps for which any register is followed back
	maxPathSteps = 30_000_000 // from the split to the output, for Path
	maxLookback  = 1 << 22    // steps for which a register is followed back
)

// place is a register, or those bytes of an aligned word of memory that are wrong.
type place struct {
	register    string // empty: memory
	off         uint64 // of the word, into RAM
	first, last uint64 // of the bytes, from off
}

// wrongBytes makes a place of a word that differs.
func (s *slicer) wrongBytes(off uint64) (l place, differs bool) {
	l = place{off: off}
	g, f := s.value(l)
	for i := range uint64(8) {
		if g[i] != f[i] {
			if !differs {
				l.first = i
			}
			l.last, differs = i, true
		}
	}
	return l, differs
}

func (l place) text(r *mem.RAM) string {
	if l.register != "" {
		return l.register
	}
	return fmt.Sprintf("[%#x]", r.Addr(l.off))
}

// slicer follows a wrong value back.
type slicer struct {
	*pair
	tg, tf *replay.Timeline
	start  uint64 // of the first fault
	// strikes are the steps of all faults.
	strikes []uint64
	opt     Options
	e       *Explanation
	target  *Link          // what all others lead to
	links   map[node]*Link // all that were found
	later   []pending      // causes that are to be followed
	joins   int            // links of those
	played  uint64         // steps, for them
}

// node is what an instruction made.
type node struct {
	register string
	off      uint64
	step     uint64
}

// pending is a cause of a link that has not been followed yet.
type pending struct {
	link  *Link
	cause int
}

// Explain compares two runs and follows what differs first, or the first difference of the
// output, back to the fault: instruction by instruction, through registers, memory and devices.
//
// What a value was made of is found by trying: in the golden machine each input that is
// wrong is made wrong alone, and the instruction executed; those after which the
// result is not the golden one are the reasons.
func Explain(golden, faulty *replay.Player, opt Options) (*Explanation, error) {
	r, err := Diff(golden, faulty, opt)
	if err != nil {
		return nil, err
	}
	return Because(r, golden, faulty, opt)
}

// Because is Explain of what Diff has found.
func Because(r *Report, golden, faulty *replay.Player, opt Options) (*Explanation, error) {
	e := &Explanation{Report: r, Links: []Link{}, Joins: []Link{}}
	if r.First == nil {
		e.Note = "nothing came of the fault"
		return e, nil
	}
	s := &slicer{pair: &pair{g: golden, f: faulty, end: min(golden.End(), faulty.End()), progress: opt.Progress}, opt: opt, e: e, links: map[node]*Link{}}
	s.tg, s.tf = replay.NewTimeline(golden), replay.NewTimeline(faulty)
	defer s.tg.Close()
	defer s.tf.Close()
	steps, _ := strikes(golden, faulty)
	if len(steps) == 0 {
		equal, _ := lastEqual(golden, faulty)
		steps = []uint64{equal}
	}
	s.start = max(steps[0], golden.Start(), faulty.Start())
	s.strikes = append(steps, s.start)
	if err := s.goTo(s.start); err != nil {
		return nil, err
	}
	if err := s.strike(); err != nil {
		return nil, err
	}
	if err := s.outputStep(); err != nil {
		return nil, err
	}
	if err := s.explain(); err != nil {
		return nil, err
	}
	return e, s.path()
}

// outputStep finds the step at which the faulty run says the first byte that the golden one does not.
func (s *slicer) outputStep() error {
	if s.e.Report.Output == nil {
		return nil
	}
	a, b := s.g.RecordedConsole(), s.f.RecordedConsole()
	// From the beginning of the first line that differs, not from a time stamp.
	line := s.e.Report.Output.FaultyLine
	at := 0
	for ; line > 1 && at < len(b); line-- {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			break
		}
		at += i + 1
	}
	if at == len(b) { // what differs is that it ends
		return nil
	}
	if g := s.e.Report.Output.Golden; g != "" {
		_, f := s.lineAt(a, s.e.Report.Output.Line), s.lineAt(b, s.e.Report.Output.FaultyLine)
		golden, skip := untimed([]byte(g)), len(f)-len(untimed(f))
		f = f[skip:]
		i := 0
		for i < len(golden) && i < len(f) && golden[i] == f[i] {
			i++
		}
		at += skip + i
	}
	step, err := s.f.OutputStep(uint64(min(at, len(b)-1)))
	if step != vmm.Never {
		s.e.OutputStep = step
	}
	return err
}

func (s *slicer) lineAt(console []byte, n int) []byte {
	l := splitLines(console)
	if n < 1 || n > len(l) {
		return nil
	}
	return l[n-1]
}

// goTo puts both machines at a step; at a fault's, after it struck.
func (s *slicer) goTo(step uint64) error {
	if err := s.before(step); err != nil || !slices.Contains(s.strikes, step) {
		return err
	}
	return errors.Join(s.g.Accept(), s.f.Accept())
}

// before puts both machines at a step, before anything happens there.
func (s *slicer) before(step uint64) error {
	s.tg.Leave()
	s.tf.Leave()
	done := make(chan error, 1)
	go func() { done <- s.tf.Goto(step) }()
	return errors.Join(s.tg.Goto(step), <-done)
}

// struck reports whether a fault, and no instruction, changed a place at a step.
func (s *slicer) struck(l place, step uint64) (bool, error) {
	if step == s.start || !slices.Contains(s.strikes, step) {
		return false, nil
	}
	if err := s.before(step); err != nil {
		return false, err
	}
	_, was := s.value(l)
	err := s.f.Accept()
	_, is := s.value(l)
	return is != was, err
}

// explain picks the target and follows it back.
func (s *slicer) explain() error {
	r, e := s.e.Report, s.e
	out := e.OutputStep
	var err error
	w, name := s.firstWrite()
	switch {
	case w != nil:
		e.Target, e.Write, e.Disk = "disk write", w, name
		err = s.followWrite(w, name)
	case out != 0 && out <= s.end && (r.Flow == nil || r.Flow.Step >= out):
		e.Target = "output"
		s.target = &Link{Step: out, From: []Cause{{Place: "rax", Kind: Data, place: place{register: "rax"}}}}
		err = s.follow(s.target, 0, false)
	case r.Flow != nil:
		e.Target = "control flow"
		s.target, err = s.link(place{register: "rip"}, r.Flow.Step, false)
	case len(r.First.Words) > 0:
		e.Target = "state"
		off, _ := s.f.Machine().RAM.Offset(r.First.Words[0].Addr)
		s.target, err = s.link(place{off: off, last: 7}, r.First.Step, false)
	case len(r.First.Registers) > 0:
		e.Target = "state"
		s.target, err = s.link(place{register: r.First.Registers[0].Name}, r.First.Step, false)
	default:
		e.Target = "state"
		e.Origin, e.Note = "the device "+r.First.Devices[0], "the difference is in a device"
	}
	s.played = 0
	for len(s.later) > 0 && err == nil {
		next := s.later[0]
		s.later = s.later[1:]
		err = s.follow(next.link, next.cause, true)
	}
	if s.target != nil {
		s.mainChain()
	}
	return err
}

// follow finds what made a cause of a link wrong, and goes on from there. join is set for all but the first
// chain, which is followed to its end before the others.
func (s *slicer) follow(k *Link, n int, join bool) error {
	c := &k.From[n]
	if x := len(s.links); !join && x >= maxLinks || join && (s.joins >= maxJoins || s.played > maxReplay) {
		c.Origin = notFollowed + fmt.Sprintf("the chain is longer than %d links", maxLinks)
		if join {
			c.Origin = notFollowed + "there are too many"
		}
		return nil
	}
	lookback := uint64(maxLookback)
	if join {
		lookback = maxJoinSteps
	}
	// Right before the instruction that used it, or at the step of the one that changed it?
	struck, err := s.struck(c.place, k.Step)
	if err != nil {
		return err
	}
	var w uint64
	var device, found bool
	if !struck {
		if w, device, found, err = s.lastWrite(c.place, k.Step, lookback); err != nil {
			return err
		}
	}
	if found {
		if struck, err = s.struck(c.place, w); err != nil {
			return err
		}
	}
	switch {
	case struck, !found && s.isOwn(c.place) && (c.place.register == "" || k.Step-s.start <= s.reach(lookback)):
		c.Origin, c.fault = ownOrigin, true
		return nil
	case !found:
		c.Origin = fmt.Sprintf(notFollowed+"%s was wrong for more than %d steps", c.Place, lookback)
		return nil
	case device:
		if err := s.goTo(w); err != nil {
			return err
		}
		k.Device, c.Origin, c.fault = s.fromDevice(w, c.place)
		return nil
	}
	at := node{c.place.register, c.place.off, w}
	if c.link = s.links[at]; c.link == nil {
		if join {
			s.joins++
		}
		c.link, err = s.link(c.place, w, join)
	}
	c.Step = &w
	return err
}

// mainChain finds the chain that leads from the target back to the fault, by the first cause of each link that
// does, and puts the other links beside it.
func (s *slicer) mainChain() {
	// reaches says of the links whether a chain to the fault begins there. Each is older than what it is a cause of.
	reaches := map[*Link]int{} // 1: yes, 2: no
	var walk func(k *Link) bool
	walk = func(k *Link) bool {
		if reaches[k] == 0 {
			reaches[k] = 2
			if k.direct {
				reaches[k] = 1
			}
			for i := range k.From {
				if c := &k.From[i]; c.fault || c.link != nil && walk(c.link) {
					reaches[k] = 1
				}
			}
		}
		return reaches[k] == 1
	}
	e := s.e
	e.Complete = walk(s.target)
	main := map[*Link]bool{}
	end := func(place, origin string) {
		switch {
		case strings.HasPrefix(origin, notFollowed):
			e.Note = strings.TrimPrefix(origin, notFollowed)
		case origin == ownOrigin:
			e.Origin = origin + ", in " + place
		default:
			e.Origin = origin
		}
	}
	for k := s.target; k != nil; {
		if main[k] = true; k.Place != "" {
			e.Links = append(e.Links, *k)
		}
		if len(k.From) == 0 {
			end(k.Place, k.origin)
			break
		}
		c := &k.From[0]
		for i := range k.From {
			if x := &k.From[i]; x.fault || x.link != nil && walk(x.link) {
				c = x
				break
			}
		}
		if k = c.link; k == nil {
			end(c.Place, c.Origin)
		}
	}
	slices.Reverse(e.Links)
	for _, k := range s.links {
		if !main[k] {
			e.Joins = append(e.Joins, *k)
		}
	}
	slices.SortFunc(e.Joins, func(a, b Link) int { return cmp.Or(cmp.Compare(a.Step, b.Step), cmp.Compare(a.Place, b.Place)) })
}

func (s *slicer) name(l place) string { return l.text(s.f.Machine().RAM) }

func (s *slicer) isOwn(l place) bool {
	if l.register != "" {
		_, ok := s.own.registers[l.register]
		return ok
	}
	_, ok := s.own.words[l.off]
	return ok
}

// value returns what a place holds in both.
func (s *slicer) value(l place) (g, f string) {
	if l.register == "" {
		a, b := s.g.Machine().RAM.Data()[l.off:], s.f.Machine().RAM.Data()[l.off:]
		return string(a[:8]), string(b[:8])
	}
	return registerValue(s.g.Machine().CPUs[0], l.register), registerValue(s.f.Machine().CPUs[0], l.register)
}

func registerValue(c *x86.CPU, name string) string {
	if r, ok := x86.LookupRegister(name); ok {
		return string(r.Read(c))
	}
	for _, h := range hidden {
		if h.name == name {
			return string(binary.LittleEndian.AppendUint64(nil, h.get(c.State)))
		}
	}
	return ""
}

// lastWrite finds the last instruction before step t that wrote a place, in the faulty run; not found
// where the fault struck after that. device: a bus master wrote it.
func (s *slicer) lastWrite(l place, t, lookback uint64) (w uint64, device, found bool, err error) {
	if l.register != "" {
		w, found, err = s.lastChange(l, t, lookback)
		return w, false, found, err
	}
	for upTo := t; upTo > s.start; {
		s.tf.Leave()
		if err := s.tf.Before(upTo); err != nil {
			return 0, false, false, err
		}
		if s.f.Machine().Step() <= s.start {
			if err := s.tf.Goto(s.start); err != nil {
				return 0, false, false, err
			}
			if err := s.f.Accept(); err != nil {
				return 0, false, false, err
			}
		}
		begin := s.f.Machine().Step()
		m := s.f.Machine()
		watch, err := m.Watch(m.RAM.Addr(l.off+l.first), l.last-l.first+1, func(t *vmm.Touch) {
			if t.Kind == x86.Write {
				w, device, found = m.Step(), t.DMA(), true
			}
		})
		if err != nil {
			return 0, false, false, err
		}
		s.played += upTo - begin
		err = s.f.RunTo(upTo)
		m.Unwatch(watch)
		if found || err != nil {
			return w, device, found, err
		}
		upTo = begin
	}
	return 0, false, false, nil
}

// reach is how many steps lastChange looks back for a lookback: it grows by a factor.
func (s *slicer) reach(lookback uint64) uint64 {
	n := uint64(firstReach)
	for n < lookback {
		n *= 16
	}
	return n
}

// lastChange finds the last instruction before step t after which a register was not what it was, in either run.
func (s *slicer) lastChange(l place, t, lookback uint64) (w uint64, found bool, err error) {
	for n := uint64(firstReach); ; n *= 16 {
		from := s.start
		if t-s.start > n {
			from = t - n
		}
		if err := s.goTo(from); err != nil {
			return 0, false, err
		}
		g, f := s.value(l)
		for at := from; at < t; at++ {
			if err := errors.Join(s.g.RunTo(at+1), s.f.RunTo(at+1)); err != nil {
				return 0, false, err
			}
			if a, b := s.value(l); a != g || b != f {
				g, f, w, found = a, b, at, true
			}
		}
		if found || from == s.start || n >= s.reach(lookback) {
			return w, found, nil
		}
	}
}

// link describes the instruction at step w, which made a place wrong, and follows what it made that of: the
// first cause at once where this is the first chain, all others later.
func (s *slicer) link(l place, w uint64, join bool) (*Link, error) {
	k := &Link{Step: w, Place: s.name(l), From: []Cause{}}
	s.links[node{l.register, l.off, w}] = k
	if err := s.goTo(w); err != nil {
		return nil, err
	}
	candidates, err := s.inputs(l)
	if err != nil {
		return nil, err
	}
	if k.From, err = s.causes(l, candidates); err != nil {
		return nil, err
	}
	if err := s.goTo(w); err != nil {
		return nil, err
	}
	is, err := s.f.StepInstruction()
	if err != nil {
		return nil, err
	}
	if err := s.g.RunTo(w + 1); err != nil {
		return nil, err
	}
	g, f := s.value(l)
	k.Faulty, k.Golden, k.Value = executed(is, s.opt.Symbols), Hex([]byte(g)), Hex([]byte(f))
	if l.register == "" && s.opt.Owner != nil {
		k.Owner = s.opt.Owner(s.f.Machine(), s.f.Machine().RAM.Addr(l.off))
	}
	if len(k.From) == 0 {
		k.Device, k.origin, k.direct = s.fromDevice(w, l)
		return k, nil
	}
	first := 0
	if !join {
		first = 1
		if err := s.follow(k, 0, false); err != nil {
			return nil, err
		}
	}
	for i := first; i < len(k.From); i++ {
		s.later = append(s.later, pending{k, i})
	}
	return k, nil
}

// fromDevice says what device made a place wrong at step w, and whether that is what the fault struck.
func (s *slicer) fromDevice(w uint64, l place) (device, origin string, direct bool) {
	var names []string
	s.devices(func(i int, name string) {
		names = append(names, name)
		direct = direct || s.own.devices[i]
	})
	if len(names) == 0 {
		return "", fmt.Sprintf(notFollowed+"what made %s wrong at step %d cannot be told", s.name(l), w), false
	}
	return names[0], fmt.Sprintf("a device, at step %d: what differs is %s", w, names), direct
}

// inputs lists what is wrong before the next instruction and may be an input to it: registers, and the memory that it reads.
func (s *slicer) inputs(l place) (all []place, err error) {
	m := s.f.Machine()
	var reads []uint64
	o := &vmm.Observer{Data: vmm.Everywhere, Access: func(c *x86.CPU, va uint64, n int, kind x86.Access) {
		for at := va &^ 7; at < va+uint64(n); at += 8 {
			if pa, ok := c.Translate(at); ok && kind == x86.Read {
				if off, ok := m.RAM.Offset(pa); ok && !slices.Contains(reads, off) {
					reads = append(reads, off)
				}
			}
		}
	}}
	c := s.f.Checkpoint()
	m.Observe(o)
	_, err = m.Run(m.Step() + 1)
	m.Unobserve(o)
	err = errors.Join(ignoreStop(err), s.f.Rollback(c))
	s.f.Release(c)
	if err != nil {
		return nil, err
	}
	for _, off := range reads {
		if x, differs := s.wrongBytes(off); differs {
			all = append(all, x)
		}
	}
	s.registers(func(name string, _, _ []byte) { all = append(all, place{register: name}) })
	return all, nil
}

// ignoreStop drops the error of a run that was tried out: it is the way of another machine, and the recording knows nothing of it.
func ignoreStop(err error) error {
	if errors.Is(err, vmm.ErrInterrupted) || errors.Is(err, vmm.ErrPaused) {
		return nil
	}
	return err
}

// causes tries each candidate alone in the golden machine: those after which the result is not golden are the
// reasons. One that makes the instruction access other memory is so by an address.
func (s *slicer) causes(l place, candidates []place) (found []Cause, err error) {
	m := s.g.Machine()
	type effect struct {
		value    string
		accesses []vmm.Span
	}
	try := func(c *place) (e effect, err error) {
		back := s.g.Checkpoint()
		defer s.g.Release(back)
		if c != nil {
			_, f := s.value(*c)
			switch r, ok := x86.LookupRegister(c.register); {
			case ok:
				r.Write(m.CPUs[0], []byte(f))
			case c.register == "":
				m.RAM.WriteAt([]byte(f), m.RAM.Addr(c.off))
			case c.register == "mc_pending":
				m.CPUs[0].MCPending = true
				m.CPUs[0].Attention = true
			}
		}
		o := &vmm.Observer{Data: vmm.Everywhere, Access: func(_ *x86.CPU, va uint64, n int, _ x86.Access) {
			e.accesses = append(e.accesses, vmm.Span{First: va, Last: va + uint64(n) - 1})
		}}
		m.Observe(o)
		_, err = m.Run(m.Step() + 1)
		m.Unobserve(o)
		e.value, _ = s.value(l)
		return e, errors.Join(ignoreStop(err), s.g.Rollback(back))
	}
	was, err := try(nil)
	if err != nil {
		return nil, err
	}
	// What can be a part of an address: general registers, bases, the root of the page tables.
	addresses := func(c place) bool {
		_, ok := x86.LookupRegister(c.register)
		return ok && c.register != "rflags" && c.register != "rip"
	}
	add := func(c place, kind Dependence) {
		found = append(found, Cause{Place: s.name(c), Kind: kind, place: c})
	}
	for i := range candidates {
		e, err := try(&candidates[i])
		if err != nil {
			return nil, err
		}
		switch {
		case e.value == was.value:
		case !slices.Equal(e.accesses, was.accesses) && addresses(candidates[i]):
			add(candidates[i], Address)
		case l.register == "rip" || candidates[i].register == "rip":
			add(candidates[i], Control)
		default:
			add(candidates[i], Data)
		}
	}
	if len(found) == 0 { // only together, or from a device
		for _, c := range candidates {
			if c.register == "" || len(candidates) == 1 {
				add(c, Data)
			}
		}
	}
	return found, nil
}

// path finds the calls that led from the split of control flow to the output.
func (s *slicer) path() error {
	r, out := s.e.Report, s.e.OutputStep
	if r.Flow == nil || out == 0 || out <= r.Flow.Step {
		return nil
	}
	if out-r.Flow.Step > maxPathSteps {
		s.e.Note = fmt.Sprintf("the output comes %d steps after control flow split, too far to follow the calls", out-r.Flow.Step)
		return nil
	}
	s.tf.Leave()
	if err := s.tf.Goto(r.Flow.Step); err != nil {
		return err
	}
	type frame struct {
		Frame
		sp uint64
	}
	var frames []frame
	var by string // what is to be noted when the next instruction is seen
	m := s.f.Machine()
	// A frame is over when the stack pointer is above it; far away is another stack.
	const stackBytes = 64 << 10
	near := func(f *frame, sp uint64) bool { return f.sp-sp < stackBytes || sp-f.sp < stackBytes }
	o := &vmm.Observer{Delivered: func(_ *x86.CPU, e x86.Exception) { by = x86.VectorName(e.Vec) }}
	m.Observe(o)
	m.Trace(func(c *x86.CPU, in *x86.Inst) {
		sp := c.Regs[x86.RSP]
		if by != "" {
			f := frame{Frame{Step: c.Step, Entry: c.InstRIP, By: by}, sp}
			if by == "call" {
				f.By = ""
			}
			frames, by = append(frames, f), ""
		}
		switch in.Op {
		case x86.OpCALL:
			by = "call"
		case x86.OpSYSCALL:
			by = "system call"
		case x86.OpRET, x86.OpIRET, x86.OpRETF:
			for n := len(frames); n > 0 && near(&frames[n-1], sp) && frames[n-1].sp <= sp; n-- {
				frames = frames[:n-1]
			}
		}
	})
	err := s.f.RunTo(min(out+1, s.f.End()))
	m.Trace(nil)
	m.Unobserve(o)
	if err != nil {
		return err
	}
	sp := m.CPUs[0].Regs[x86.RSP]
	for i := range frames {
		if f := &frames[i]; near(f, sp) || f.By != "" {
			if s.opt.Symbols != nil {
				f.Symbol = s.opt.Symbols(f.Entry)
			}
			s.e.Path = append(s.e.Path, f.Frame)
		}
	}
	return nil
}
