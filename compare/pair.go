package compare

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math/bits"
	"slices"

	"refault/replay"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// pair is two machines side by side: the golden and the faulty run at one step.
type pair struct {
	g, f     *replay.Player
	progress func(step, end uint64)
	end      uint64 // of the shorter run
	own      own
}

// own is what the faults changed by themselves, and nobody has made anything of
// yet: what differs right after they struck. It shrinks as the differences are overwritten.
type own struct {
	registers map[string][2]string // name: the golden and the faulty bytes
	words     map[uint64][2]uint64 // by offset into RAM
	devices   map[int]bool         // by index in Machine.Devices
}

func (o *own) clone() own {
	return own{maps.Clone(o.registers), maps.Clone(o.words), maps.Clone(o.devices)}
}

// hidden is processor state that is no register. Together with x86.Registers it is all of x86.State.
var hidden = hiddenState()

type hiddenField struct {
	name string
	get  func(s *x86.State) uint64
}

func hiddenState() []hiddenField {
	b := func(v bool) uint64 {
		if v {
			return 1
		}
		return 0
	}
	h := []hiddenField{
		{"cpl", func(s *x86.State) uint64 { return uint64(s.CPL) }},
		{"activity", func(s *x86.State) uint64 { return uint64(s.Activity) }},
		{"interrupt_shadow", func(s *x86.State) uint64 { return uint64(s.Shadow) }},
		{"nmi_blocked", func(s *x86.State) uint64 { return b(s.NMIBlocked) }},
		{"nmi_pending", func(s *x86.State) uint64 { return b(s.NMIPending) }},
		{"mc_pending", func(s *x86.State) uint64 { return b(s.MCPending) }},
		{"pending_debug", func(s *x86.State) uint64 { return s.PendingDebug }},
	}
	for i := range 4 {
		h = append(h, hiddenField{"pdpte" + string(rune('0'+i)), func(s *x86.State) uint64 { return s.PDPTE[i] }})
	}
	for i := range 11 {
		h = append(h, hiddenField{"mtrr_fixed" + string(rune('a'+i)), func(s *x86.State) uint64 { return s.MTRRFixed[i] }})
	}
	for i := range 16 {
		h = append(h, hiddenField{"mtrr_var" + string(rune('a'+i)), func(s *x86.State) uint64 { return s.MTRRVar[i] }})
	}
	return h
}

// both does the same to both players, at the same time.
func (p *pair) both(do func(*replay.Player) error) error {
	done := make(chan error, 1)
	go func() { done <- do(p.f) }()
	return errors.Join(do(p.g), <-done)
}

func (p *pair) seek(step uint64) error {
	return p.both(func(x *replay.Player) error { return x.Seek(step) })
}

// together is seek to a step up to which the runs share their past, if shared; then one replay serves both.
func (p *pair) together(step uint64, shared bool) error {
	if equal, any := lastEqual(p.g, p.f); shared && any && equal >= lastMark(p.f, step) {
		if err := p.g.Seek(step); err != nil {
			return err
		}
		return p.f.Adopt(p.g)
	}
	return p.seek(step)
}

// lastMark returns the position of the last mark at or before a step.
func lastMark(p *replay.Player, step uint64) (at uint64) {
	for _, m := range p.Marks() {
		if m.Step > step {
			break
		}
		at = m.Step
	}
	return at
}

func (p *pair) runTo(step uint64) error {
	if step-p.step() < 10_000 { // less than it costs to wake the other thread
		return errors.Join(p.g.RunTo(step), p.f.RunTo(step))
	}
	err := p.both(func(x *replay.Player) error { return x.RunTo(step) })
	if p.progress != nil {
		p.progress(step, p.end)
	}
	return err
}

func (p *pair) step() uint64 { return p.g.Machine().Step() }

// checkpoint is a position of both.
type checkpoint struct {
	g, f *replay.Checkpoint
	own  own
}

func (p *pair) checkpoint() checkpoint {
	return checkpoint{p.g.Checkpoint(), p.f.Checkpoint(), p.own.clone()}
}

func (p *pair) rollback(c checkpoint) error {
	p.own = c.own.clone()
	return errors.Join(p.g.Rollback(c.g), p.f.Rollback(c.f))
}

func (p *pair) release(c checkpoint) {
	p.g.Release(c.g)
	p.f.Release(c.f)
}

// sameCPU reports whether all of both processors' state is equal.
func (p *pair) sameCPU() bool {
	a, b := p.g.Machine().CPUs, p.f.Machine().CPUs
	for i := range a {
		if !sameState(a[i], b[i]) {
			return false
		}
	}
	return true
}

func sameState(a, b *x86.CPU) bool {
	a.Materialise()
	b.Materialise()
	x, y := *a.State, *b.State
	// What is left over from lazy flags is no state.
	x.FlagRes, x.FlagAux, x.FlagsLazy = 0, 0, 0
	y.FlagRes, y.FlagAux, y.FlagsLazy = 0, 0, 0
	return x == y
}

// registers calls visit for every register, and hidden state, that differs.
func (p *pair) registers(visit func(name string, g, f []byte)) {
	if p.sameCPU() {
		return
	}
	g, f := p.g.Machine().CPUs[0], p.f.Machine().CPUs[0]
	for _, r := range x86.Registers() {
		if a, b := r.Read(g), r.Read(f); !bytes.Equal(a, b) {
			visit(r.Name, a, b)
		}
	}
	for _, h := range hidden {
		if a, b := h.get(g.State), h.get(f.State); a != b {
			visit(h.name, binary.LittleEndian.AppendUint64(nil, a), binary.LittleEndian.AppendUint64(nil, b))
		}
	}
}

// pages calls visit for every page of memory that differs, until it returns false.
func (p *pair) pages(visit func(n int) bool) {
	g, f := p.g.Memory(), p.f.Memory()
	if g.Sum() == f.Sum() {
		return
	}
	for n := range p.g.Machine().RAM.Pages() {
		if g.PageHash(n) != f.PageHash(n) && !visit(n) {
			return
		}
	}
}

// words calls visit for every aligned 8 bytes of memory that differ, by offset into RAM, until it returns false.
func (p *pair) words(visit func(off, g, f uint64) bool) {
	p.pages(func(n int) bool {
		a, b := p.g.Machine().RAM.Page(n), p.f.Machine().RAM.Page(n)
		for i := 0; i < mem.PageSize; i += 8 {
			x, y := binary.LittleEndian.Uint64(a[i:]), binary.LittleEndian.Uint64(b[i:])
			if x != y && !visit(uint64(n)<<mem.PageShift+uint64(i), x, y) {
				return false
			}
		}
		return true
	})
}

// devices calls visit for every device that differs, processors aside.
func (p *pair) devices(visit func(i int, name string)) {
	a, b := p.g.Machine().Devices(), p.f.Machine().Devices()
	for i := range a {
		if _, cpu := a[i].(*x86.CPU); !cpu && !bytes.Equal(state(a[i]), state(b[i])) {
			visit(i, a[i].Name())
		}
	}
}

func state(d dev.Device) []byte {
	if h, ok := d.(dev.Hasher); ok {
		s := h.Hash()
		return s[:]
	}
	return dev.Encode(d)
}

// strike makes the faults at this step happen in both, and takes what they changed as their own.
func (p *pair) strike() error {
	if err := errors.Join(p.g.Accept(), p.f.Accept()); err != nil {
		return err
	}
	p.own = own{map[string][2]string{}, map[uint64][2]uint64{}, map[int]bool{}}
	p.registers(func(name string, g, f []byte) { p.own.registers[name] = [2]string{string(g), string(f)} })
	p.words(func(off, g, f uint64) bool {
		p.own.words[off] = [2]uint64{g, f}
		return true
	})
	p.devices(func(i int, _ string) { p.own.devices[i] = true })
	return nil
}

// beyond reports whether anything differs beyond what the faults changed by
// themselves: somebody has made something of it. What of their own is no longer different is theirs no more.
func (p *pair) beyond() bool {
	return p.beyondCPU() || p.beyondMemory() || p.beyondDevices()
}

func (p *pair) beyondCPU() (more bool) {
	left := map[string][2]string{}
	p.registers(func(name string, g, f []byte) {
		if now := [2]string{string(g), string(f)}; p.own.registers[name] != now {
			more = true
		} else {
			left[name] = now
		}
	})
	if !more {
		p.own.registers = left
	}
	return more
}

func (p *pair) beyondMemory() (more bool) {
	left := map[uint64][2]uint64{}
	p.words(func(off, g, f uint64) bool {
		if now := [2]uint64{g, f}; p.own.words[off] != now {
			more = true
			return false
		}
		left[off] = [2]uint64{g, f}
		return true
	})
	if !more {
		p.own.words = left
	}
	return more
}

func (p *pair) beyondDevices() (more bool) {
	left := map[int]bool{}
	p.devices(func(i int, name string) {
		if p.own.devices[i] {
			left[i] = true
		} else {
			more = true
		}
	})
	if !more {
		p.own.devices = left
	}
	return more
}

// Sizes of the search, in steps.
const (
	closely   = 4096       // chunks in which every single instruction is looked at
	firstLook = 1 << 16    // then chunks that double
	lastLook  = 10_000_000 // up to this
	finer     = 16         // a chunk in which the answer lies is divided by this
)

// question is what a search looks for.
type question struct {
	// now reports whether the answer has come, between two instructions.
	now func() bool
	// quickly, if set, is a part of now that costs little: where few steps are left it is asked after each of them.
	quickly func() bool
}

// first runs both to the first step, at most to, after which q is answered, and
// leaves them before the instruction that answers it; if none does, they are at to,
// or where nothing at all differs any more. q.quickly is asked after each of the
// first close instructions. What is so for less than a chunk of steps and then is not any
// more can escape, except there and in the chunk in which the answer is found.
func (p *pair) first(to, close uint64, q question) (found bool, err error) {
	size, start := uint64(firstLook), p.step()
	for p.step() < to {
		near := p.step()-start < close
		if near {
			size = closely
		}
		c := p.checkpoint()
		next := min(to, p.step()+size)
		if found, err = p.within(c, next, q); found || err != nil {
			p.release(c)
			return found, err
		}
		p.release(c)
		if p.identical() {
			return false, nil
		}
		if near {
			size = firstLook
		} else {
			size = min(2*size, lastLook)
		}
	}
	return false, nil
}

// within runs both from checkpoint c, where they are, to step hi, and answers q as first does.
func (p *pair) within(c checkpoint, hi uint64, q question) (found bool, err error) {
	lo := p.step()
	if hi-lo <= closely && q.quickly != nil {
		for at := lo; at < hi; at++ {
			if err := p.runTo(at + 1); err != nil {
				return false, err
			}
			if q.quickly() {
				if err := p.rollback(c); err != nil {
					return false, err
				}
				return true, p.runTo(at)
			}
		}
	} else if err := p.runTo(hi); err != nil {
		return false, err
	}
	if !q.now() {
		return false, nil
	}
	if err := p.rollback(c); err != nil || hi-lo == 1 {
		return true, err
	}
	for size := (hi - lo + finer - 1) / finer; p.step() < hi; {
		d := p.checkpoint()
		found, err := p.within(d, min(hi, p.step()+size), q)
		p.release(d)
		if found || err != nil {
			return found, err
		}
	}
	panic("BUG: what was so after a chunk of steps was not when it ran again")
}

// identical reports whether nothing differs at all: then nothing ever will, unless another fault strikes.
func (p *pair) identical() bool {
	same := p.sameCPU() && p.g.Memory().Sum() == p.f.Memory().Sum()
	if same {
		p.devices(func(int, string) { same = false })
	}
	return same
}

// quiet returns the last common mark up to step to at which nothing differs but what
// differs now. Both are at a position where beyond reported false.
func (p *pair) quiet(to uint64) uint64 {
	x, y := p.g.Marks(), p.f.Marks()
	var at uint64
	want := minus(p.g.Memory().Sum(), p.f.Memory().Sum())
	if len(p.own.registers) > 0 {
		return 0
	}
	for i := range min(len(x), len(y)) {
		if x[i].Step != y[i].Step || x[i].Step > to {
			break
		}
		if x[i].Step <= p.step() {
			continue
		}
		same := x[i].ConsoleBytes == y[i].ConsoleBytes && x[i].TimeNs == y[i].TimeNs &&
			minus(x[i].Memory, y[i].Memory) == want
		for k := range x[i].Devices {
			same = same && (x[i].Devices[k] == y[i].Devices[k] || p.own.devices[k])
		}
		if !same {
			break
		}
		at = x[i].Step
	}
	return at
}

// minus is the difference of two memories' hashes, which are sums over the pages: it stays
// what it is while the pages that differ are not written.
func minus(a, b traces.Hash) (d [2]uint64) {
	var borrow uint64
	for i := range d {
		d[i], borrow = bits.Sub64(binary.LittleEndian.Uint64(a[8*i:]), binary.LittleEndian.Uint64(b[8*i:]), borrow)
	}
	return d
}

// strikes returns the steps at which the faulty run has events that the golden one has not, ascending, and its faults among them.
func strikes(golden, faulty *replay.Player) (steps []uint64, faults []*vmm.Event) {
	key := func(e *vmm.Event) string {
		s := string(e.Data)
		if e.Fault != nil {
			s = e.Fault.Spec
		}
		return string(binary.LittleEndian.AppendUint64(nil, e.Step)) + string(binary.LittleEndian.AppendUint64(nil, e.DeltaNs)) + string(rune(e.Kind)) + s
	}
	have := map[string]int{}
	for _, e := range golden.Events() {
		have[key(e)]++
	}
	for _, e := range faulty.Events() {
		k := key(e)
		if have[k]--; have[k] >= 0 {
			continue
		}
		steps = append(steps, e.Step)
		if e.Kind == vmm.EventFault {
			faults = append(faults, e)
		}
	}
	return slices.Compact(steps), faults
}

// begins returns the steps at which to begin to compare two recordings whose strikes are at
// steps: there, or without any at their last equal position, and never before both begin.
func begins(golden, faulty *replay.Player, steps []uint64) []uint64 {
	if len(steps) == 0 {
		equal, _ := lastEqual(golden, faulty)
		steps = []uint64{equal}
	}
	first := max(golden.Start(), faulty.Start())
	for i := range steps {
		steps[i] = max(steps[i], first)
	}
	return slices.Compact(steps)
}
