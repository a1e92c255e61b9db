package compare

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Explanation tells how a fault came to be seen.
type Explanation struct {
	Report *Report `json:"diff"`
	// Target is what the chain leads to: "output", "control flow" or "state".
	Target string `json:"target"`
	// Links carried the wrong value from the fault to the target, in that order.
	Links []Link `json:"links"`
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
	// From are the wrong values that it made that of, and Also those that differed too and were not the reason.
	From []string `json:"from"`
	// Device: no processor wrote it, or it was read from a device.
	Device string `json:"device,omitempty"`
}

// Frame is a call, or an exception or interrupt.
type Frame struct {
	Step   uint64 `json:"step"`
	Entry  uint64 `json:"entry"`
	Symbol string `json:"symbol,omitempty"`
	// By is what entered it, where that was no call.
	By string `json:"by,omitempty"`
}

// Bounds of an explanation.
const (
	maxLinks     = 64
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
	opt    Options
	e      *Explanation
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
	e := &Explanation{Report: r, Links: []Link{}}
	if r.First == nil {
		e.Note = "nothing came of the fault"
		return e, nil
	}
	s := &slicer{pair: &pair{g: golden, f: faulty, end: min(golden.End(), faulty.End()), progress: opt.Progress}, opt: opt, e: e}
	s.tg, s.tf = replay.NewTimeline(golden), replay.NewTimeline(faulty)
	defer s.tg.Close()
	defer s.tf.Close()
	steps, _ := strikes(golden, faulty)
	if len(steps) == 0 {
		steps = []uint64{lastEqual(golden, faulty)}
	}
	s.start = max(steps[0], golden.Start(), faulty.Start())
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
	slices.Reverse(e.Links)
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

// goTo puts both machines at a step; at the fault's, after it struck.
func (s *slicer) goTo(step uint64) error {
	s.tg.Leave()
	s.tf.Leave()
	done := make(chan error, 1)
	go func() { done <- s.tf.Goto(step) }()
	if err := errors.Join(s.tg.Goto(step), <-done); err != nil {
		return err
	}
	if step == s.start {
		return errors.Join(s.g.Accept(), s.f.Accept())
	}
	return nil
}

// explain picks the target and follows it back.
func (s *slicer) explain() error {
	r, e := s.e.Report, s.e
	out := e.OutputStep
	switch {
	case out != 0 && out <= s.end && (r.Flow == nil || r.Flow.Step >= out):
		e.Target = "output"
		return s.follow(place{register: "rax"}, out)
	case r.Flow != nil:
		e.Target = "control flow"
		return s.link(place{register: "rip"}, r.Flow.Step)
	}
	e.Target = "state"
	switch {
	case len(r.First.Words) > 0:
		off, _ := s.f.Machine().RAM.Offset(r.First.Words[0].Addr)
		return s.link(place{off: off, last: 7}, r.First.Step)
	case len(r.First.Registers) > 0:
		return s.link(place{register: r.First.Registers[0].Name}, r.First.Step)
	}
	e.Origin, e.Note = "the device "+r.First.Devices[0], "the difference is in a device"
	return nil
}

// follow finds what made a place wrong before step t, and goes on from there.
func (s *slicer) follow(l place, t uint64) error {
	if len(s.e.Links) >= maxLinks {
		s.e.Note = fmt.Sprintf("the chain is longer than %d links", maxLinks)
		return nil
	}
	w, device, found, err := s.lastWrite(l, t)
	if err != nil {
		return err
	}
	switch {
	case !found && s.isOwn(l):
		s.e.Origin, s.e.Complete = "the fault itself, in "+s.name(l), true
		return nil
	case !found:
		s.e.Note = fmt.Sprintf("%s was wrong for more than %d steps", s.name(l), maxLookback)
		return nil
	case device:
		if err := s.goTo(w); err != nil {
			return err
		}
		s.fromDevice(w, l)
		return nil
	}
	return s.link(l, w)
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
func (s *slicer) lastWrite(l place, t uint64) (w uint64, device, found bool, err error) {
	if l.register != "" {
		w, found, err = s.lastChange(l, t)
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
		err = s.f.RunTo(upTo)
		m.Unwatch(watch)
		if found || err != nil {
			return w, device, found, err
		}
		upTo = begin
	}
	return 0, false, false, nil
}

// lastChange finds the last instruction before step t after which a register was not what it was, in either run.
func (s *slicer) lastChange(l place, t uint64) (w uint64, found bool, err error) {
	for n := uint64(256); ; n *= 16 {
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
		if found || from == s.start || n >= maxLookback {
			return w, found, nil
		}
	}
}

// link describes the instruction at step w, which made a place wrong, and follows what it made that of.
func (s *slicer) link(l place, w uint64) error {
	if err := s.goTo(w); err != nil {
		return err
	}
	candidates, err := s.inputs(l)
	if err != nil {
		return err
	}
	causes, err := s.causes(l, candidates)
	if err != nil {
		return err
	}
	if err := s.goTo(w); err != nil {
		return err
	}
	is, err := s.f.StepInstruction()
	if err != nil {
		return err
	}
	if err := s.g.RunTo(w + 1); err != nil {
		return err
	}
	g, f := s.value(l)
	k := Link{Step: w, Faulty: executed(is, s.opt.Symbols), Place: s.name(l), Golden: Hex([]byte(g)), Value: Hex([]byte(f)), From: []string{}}
	if l.register == "" && s.opt.Owner != nil {
		k.Owner = s.opt.Owner(s.f.Machine(), s.f.Machine().RAM.Addr(l.off))
	}
	for _, c := range causes {
		k.From = append(k.From, s.name(c))
	}
	s.e.Links = append(s.e.Links, k)
	if len(causes) == 0 {
		s.fromDevice(w, l)
		return nil
	}
	return s.follow(causes[0], w)
}

// fromDevice ends the chain in whatever device differs.
func (s *slicer) fromDevice(w uint64, l place) {
	var names []string
	direct := false
	s.devices(func(i int, name string) {
		names = append(names, name)
		direct = direct || s.own.devices[i]
	})
	if len(names) == 0 {
		s.e.Note = fmt.Sprintf("what made %s wrong at step %d cannot be told", s.name(l), w)
		return
	}
	s.e.Origin = fmt.Sprintf("a device, at step %d: what differs is %s", w, names)
	if n := len(s.e.Links); n > 0 {
		s.e.Links[n-1].Device = names[0]
	}
	s.e.Complete = direct
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

// causes tries each candidate alone in the golden machine: those after which the result is not golden are the reasons.
func (s *slicer) causes(l place, candidates []place) (found []place, err error) {
	if len(candidates) < 2 {
		return candidates, nil
	}
	m := s.g.Machine()
	try := func(c *place) (string, error) {
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
		_, err := m.Run(m.Step() + 1)
		v, _ := s.value(l)
		return v, errors.Join(ignoreStop(err), s.g.Rollback(back))
	}
	was, err := try(nil)
	if err != nil {
		return nil, err
	}
	for i := range candidates {
		v, err := try(&candidates[i])
		if err != nil {
			return nil, err
		}
		if v != was {
			found = append(found, candidates[i])
		}
	}
	if len(found) == 0 { // only together, or from a device
		for _, c := range candidates {
			if c.register == "" {
				found = append(found, c)
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
