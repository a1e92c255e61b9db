package compare

import (
	"errors"
	"fmt"
	"slices"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/x86"
)

// Report is what Diff found.
type Report struct {
	Equal bool `json:"equal"`
	// Injected are the faults that only the faulty run has, as they happened.
	Injected []InjectedFault `json:"injected"`
	// First is the first divergent instruction: the first after which anything differs
	// beyond what the faults changed by themselves. It is nil where there is none.
	First *Divergence `json:"first_divergence,omitempty"`
	// SureTo is the step up to which every instruction has been accounted for: a difference that appeared before
	// it would be First, however soon it was gone. Beyond it the runs were compared at the ends of chunks of steps, and one
	// that came and went within a chunk would not have been seen.
	SureTo uint64 `json:"sure_to_step"`
	// Healed is the step at which nothing differed any more, where there was one.
	Healed *uint64 `json:"healed_at_step,omitempty"`
	// Flow is where the runs first executed different instructions at one step, Privilege
	// where they first were at different privilege levels; Memory is the first word that
	// differed beyond the faults' own. Each nil where it did not come within Searched steps after First.
	Flow      *Split      `json:"first_control_flow,omitempty"`
	Privilege *Split      `json:"first_privilege,omitempty"`
	Memory    *MemoryDiff `json:"first_memory,omitempty"`
	Searched  uint64      `json:"searched_steps"`
	// Output is the first line of the console that differs, nil where none does.
	Output  *OutputDiff `json:"output,omitempty"`
	Console ConsoleDiff `json:"console"`
	Disks   []DiskDiff  `json:"disks,omitempty"`
	Outcome Outcome     `json:"outcome"`
	Why     string      `json:"why"`
	Golden  Run         `json:"golden"`
	Faulty  Run         `json:"faulty"`
}

// Run is how a run ended.
type Run struct {
	Dir    string `json:"recording"`
	Step   uint64 `json:"step"`
	TimeNs uint64 `json:"time_ns"`
	Reason string `json:"reason"`
	Status uint32 `json:"status,omitempty"`
}

// InjectedFault is a fault as it happened.
type InjectedFault struct {
	Step uint64 `json:"step"`
	Spec string `json:"spec"`
	// Was is what it replaced, where that is known.
	Was []byte `json:"was,omitempty"`
}

// Divergence is the first divergent instruction: what each processor executed from
// the last equal state, and how the states differ after it.
type Divergence struct {
	// Step is how many instructions had retired before it, in both runs.
	Step   uint64   `json:"step"`
	Golden Executed `json:"golden"`
	Faulty Executed `json:"faulty"`
	// Registers that differ after it.
	Registers []RegisterDiff `json:"registers,omitempty"`
	// Words of memory that differ after it, the faults' own aside, and at most 16.
	Words []WordDiff `json:"words,omitempty"`
	// Pages of memory that differ after it, by physical address, and at most 16.
	Pages []uint64 `json:"pages,omitempty"`
	// Devices that differ after it, the faults' own aside.
	Devices []string `json:"devices,omitempty"`
}

// Split is an instruction after which the runs go different ways.
type Split struct {
	Step      uint64   `json:"step"`
	Golden    Executed `json:"golden"`
	Faulty    Executed `json:"faulty"`
	GoldenRIP uint64   `json:"golden_next"`
	FaultyRIP uint64   `json:"faulty_next"`
	GoldenCPL uint8    `json:"golden_cpl"`
	FaultyCPL uint8    `json:"faulty_cpl"`
	// GoldenAt and FaultyAt are the symbols of what comes next.
	GoldenAt string `json:"golden_next_symbol,omitempty"`
	FaultyAt string `json:"faulty_next_symbol,omitempty"`
}

// MemoryDiff is the first difference of memory.
type MemoryDiff struct {
	Step   uint64   `json:"step"`
	Golden Executed `json:"golden"`
	Faulty Executed `json:"faulty"`
	WordDiff
}

// WordDiff is an aligned word of 8 bytes that differs.
type WordDiff struct {
	Addr   uint64 `json:"physical"`
	Golden uint64 `json:"golden_value"`
	Faulty uint64 `json:"faulty_value"`
	// Owner says what the word belongs to, where it can be told.
	Owner string `json:"owner,omitempty"`
}

// Executed is an instruction that a processor executed.
type Executed struct {
	CS     uint16 `json:"cs"`
	RIP    uint64 `json:"rip"`
	Symbol string `json:"symbol,omitempty"`
	Code   []byte `json:"code"`
	Text   string `json:"text"`
	// After names the exception or interrupt that was delivered before it.
	After string `json:"after,omitempty"`
}

// RegisterDiff is a register that differs, as hexadecimal numbers.
type RegisterDiff struct {
	Name   string `json:"name"`
	Golden string `json:"golden"`
	Faulty string `json:"faulty"`
}

// Symbols names addresses; nil names none.
type Symbols func(addr uint64) string

// Options of Diff.
type Options struct {
	Symbols Symbols
	// Owner says what a word of memory, by its physical address, belongs to on a machine; nil says nothing.
	Owner func(m *vmm.Machine, pa uint64) string
	// Progress, if set, is called with the position of the search.
	Progress func(step, end uint64)
}

// ErrUnrelated reports two recordings that are not of one machine.
var ErrUnrelated = errors.New("the recordings are of different machines")

// searchSteps is how far after the first divergence control flow, privilege and memory are looked at.
const searchSteps = 64_000_000

// Diff compares a faulty run with the golden run that it was forked from.
func Diff(golden, faulty *replay.Player, opt Options) (*Report, error) {
	if err := related(golden, faulty); err != nil {
		return nil, err
	}
	r := &Report{Golden: runOf(golden), Faulty: runOf(faulty), Injected: []InjectedFault{}}
	r.Outcome, r.Why = Classify(golden, faulty)
	r.Console = Align(golden.RecordedConsole(), faulty.RecordedConsole())
	r.Output = r.Console.first()
	var err error
	if r.Disks, err = disks(golden, faulty); err != nil {
		return nil, err
	}
	steps, faults := strikes(golden, faulty)
	for _, e := range faults {
		r.Injected = append(r.Injected, InjectedFault{e.Step, e.Fault.Spec, e.Fault.Old})
	}
	r.Equal = len(steps) == 0 && r.Output == nil && equalEnd(golden, faulty) && !slices.ContainsFunc(r.Disks, func(d DiskDiff) bool { return !d.Same() })
	if r.Equal {
		return r, nil
	}
	end := min(golden.End(), faulty.End())
	steps = begins(golden, faulty, steps)
	if steps[0] > end {
		return r, nil
	}
	p := &pair{g: golden, f: faulty, progress: opt.Progress, end: end}
	c := &differ{pair: p, opt: opt, r: r}
	return r, c.run(steps)
}

func runOf(p *replay.Player) Run {
	r := Run{Dir: p.Dir, Step: p.End(), TimeNs: p.Marks()[len(p.Marks())-1].TimeNs, Reason: "cut off"}
	if e := p.Manifest.End; e != nil {
		r.Reason, r.Status = e.Reason, e.Status
	}
	return r
}

// related reports whether two recordings are of one machine.
func related(a, b *replay.Player) error {
	x, y := a.Manifest, b.Manifest
	switch {
	case x.Machine != y.Machine || x.CPUModel != y.CPUModel:
		return fmt.Errorf("%s is of %s with %s, %s of %s with %s: %w", a.Dir, x.Machine, x.CPUModel, b.Dir, y.Machine, y.CPUModel, ErrUnrelated)
	case x.MemoryBytes != y.MemoryBytes:
		return fmt.Errorf("%s has %d bytes of memory, %s %d: %w", a.Dir, x.MemoryBytes, b.Dir, y.MemoryBytes, ErrUnrelated)
	case !slices.Equal(x.Devices, y.Devices):
		return fmt.Errorf("%s and %s have different devices: %w", a.Dir, b.Dir, ErrUnrelated)
	}
	return nil
}

// lastEqual returns the position of the last common mark up to which all are equal. any is false
// where not even the first is: the runs began with other files or another command line.
func lastEqual(a, b *replay.Player) (step uint64, any bool) {
	x, y := a.Marks(), b.Marks()
	for i := range min(len(x), len(y)) {
		if x[i].Step != y[i].Step || x[i].Memory != y[i].Memory || !slices.Equal(x[i].Devices, y[i].Devices) {
			break
		}
		step, any = x[i].Step, true
	}
	return step, any
}

// differ is a Diff at work.
type differ struct {
	*pair
	opt Options
	r   *Report
	// coarseTo is the step up to which what touches memory is not looked for any more: there was too much.
	coarseTo uint64
}

// run finds the first divergence after the first of the faults, and what comes of it.
func (d *differ) run(steps []uint64) error {
	d.r.SureTo = steps[0]
	for i, at := range steps {
		to := d.end
		if i+1 < len(steps) {
			to = min(steps[i+1], d.end)
		}
		if err := d.together(at, i == 0); err != nil {
			return err
		}
		if err := d.strike(); err != nil {
			return err
		}
		found, err := d.diverge(to)
		if err != nil {
			return err
		}
		if found {
			return d.consequences()
		}
		if to = d.step(); d.identical() && i+1 == len(steps) {
			d.r.Healed = &to
		}
	}
	return nil
}

// Steps after a fault that are looked at one by one, where it is not enough to look at what touches what it changed.
const (
	closeAll = 1 << 14 // registers and memory
	closeCPU = 1 << 18 // registers
)

// diverge runs both to the first divergent instruction, and at most to step to.
func (d *differ) diverge(to uint64) (bool, error) {
	start := d.step()
	for d.step() < to && !d.identical() {
		if sure := d.r.SureTo == d.step(); d.touchable() && d.step() >= d.coarseTo {
			found, all, err := d.byTouch(to)
			if sure {
				d.r.SureTo = d.step()
			}
			if found || err != nil {
				return found, err
			}
			if !all {
				d.coarseTo = to
			}
			continue
		}
		if done := d.step() - start; done < closeCPU {
			q, next := question{now: d.beyond, quickly: d.beyondCPU}, start+closeCPU
			if done < closeAll {
				q.quickly, next = func() bool { return d.beyondCPU() || d.beyondMemory() }, start+closeAll
			}
			found, err := d.first(min(to, next), closeCPU, q)
			if done < closeAll && d.r.SureTo == start+done {
				d.r.SureTo = d.step()
			}
			if found || err != nil {
				return found, err
			}
			continue
		}
		q := question{now: d.beyond, quickly: d.beyondCPU}
		if at := d.quiet(to); at > d.step() {
			if err := d.seek(at); err != nil {
				return false, err
			}
			continue
		}
		if found, err := d.first(min(to, d.nextMark()), 0, q); found || err != nil {
			return found, err
		}
	}
	if d.identical() && d.r.SureTo == d.step() {
		d.r.SureTo = to
	}
	return false, nil
}

// consequences describes the divergence that both stand before, and looks for what follows from it.
func (d *differ) consequences() error {
	start := d.checkpoint()
	defer d.release(start)
	g, f, err := d.stepBoth()
	if err != nil {
		return err
	}
	d.r.First = &Divergence{Step: start.g.Step(), Golden: g, Faulty: f}
	d.describe(d.r.First)
	if err := d.rollback(start); err != nil {
		return err
	}

	to := min(d.end, d.step()+searchSteps)
	d.r.Searched = to - d.step()
	flow := func() bool { return d.r.Flow == nil && d.rip(d.g) != d.rip(d.f) }
	privilege := func() bool {
		return d.r.Privilege == nil && d.g.Machine().CPUs[0].CPL != d.f.Machine().CPUs[0].CPL
	}
	memory := func() bool { return d.r.Memory == nil && d.beyondMemory() }
	either := func() bool { return flow() || privilege() }
	if err := d.each(to, question{now: either, quickly: either}, func(at uint64, g, f Executed) bool {
		s := d.split(at, g, f)
		if privilege() {
			d.r.Privilege = s
		}
		if flow() {
			d.r.Flow = s
		}
		return d.r.Flow != nil && d.r.Privilege != nil
	}); err != nil {
		return err
	}
	if err := d.rollback(start); err != nil {
		return err
	}
	return d.each(to, question{now: memory}, func(at uint64, g, f Executed) bool {
		d.r.Memory = d.firstWord(at, g, f)
		return true
	})
}

// each calls visit for each answer to q up to step to, after the instruction that gave it, until it returns true.
func (d *differ) each(to uint64, q question, visit func(at uint64, g, f Executed) bool) error {
	for {
		found, err := d.first(to, closely, q)
		if !found || err != nil {
			return err
		}
		at := d.step()
		g, f, err := d.stepBoth()
		if err != nil || visit(at, g, f) {
			return err
		}
	}
}

func (d *differ) rip(p *replay.Player) uint64 { return p.Machine().CPUs[0].Regs[x86.RIP] }

func (d *differ) split(at uint64, g, f Executed) *Split {
	s := &Split{Step: at, Golden: g, Faulty: f, GoldenRIP: d.rip(d.g), FaultyRIP: d.rip(d.f),
		GoldenCPL: d.g.Machine().CPUs[0].CPL, FaultyCPL: d.f.Machine().CPUs[0].CPL}
	if d.opt.Symbols != nil {
		s.GoldenAt, s.FaultyAt = d.opt.Symbols(s.GoldenRIP), d.opt.Symbols(s.FaultyRIP)
	}
	return s
}

// firstWord describes the first word that differs beyond the faults' own.
func (d *differ) firstWord(at uint64, g, f Executed) *MemoryDiff {
	m := &MemoryDiff{Step: at, Golden: g, Faulty: f}
	if w := d.newWords(1); len(w) > 0 {
		m.WordDiff = w[0]
	}
	return m
}

// stepBoth executes one instruction on both.
func (d *differ) stepBoth() (g, f Executed, err error) {
	a, err := d.g.StepInstruction()
	if err != nil {
		return g, f, err
	}
	b, err := d.f.StepInstruction()
	if err != nil {
		return g, f, err
	}
	return executed(a, d.opt.Symbols), executed(b, d.opt.Symbols), nil
}

// executed describes an instruction that was executed: the first of its step, and
// where that raised an exception, what the exception led to.
func executed(is []replay.Instruction, symbols Symbols) Executed {
	if len(is) == 0 {
		return Executed{Text: "(nothing)"}
	}
	i := is[len(is)-1]
	e := Executed{CS: i.CS, RIP: i.RIP, Code: i.Code}
	for k, x := range is {
		if x.Entered >= 0 {
			if e.After != "" {
				e.After += ", "
			}
			e.After += x86.VectorName(uint8(x.Entered))
			if k > 0 {
				text, _ := x86.Disassemble(is[k-1].Code, is[k-1].Mode, is[k-1].RIP, symbols)
				e.After += " of " + text
			}
		}
	}
	if symbols != nil {
		e.Symbol = symbols(i.RIP)
	}
	e.Text, _ = x86.Disassemble(i.Code, i.Mode, i.RIP, symbols)
	return e
}

// Bounds of what a report lists.
const maxListed = 16

// describe fills in what differs now.
func (d *differ) describe(v *Divergence) {
	d.registers(func(name string, g, f []byte) {
		v.Registers = append(v.Registers, RegisterDiff{name, Hex(g), Hex(f)})
	})
	v.Words = d.newWords(maxListed)
	ram := d.g.Machine().RAM
	d.pages(func(n int) bool {
		v.Pages = append(v.Pages, ram.Addr(uint64(n)<<12))
		return len(v.Pages) < maxListed
	})
	d.devices(func(i int, name string) {
		if !d.own.devices[i] {
			v.Devices = append(v.Devices, name)
		}
	})
}

// newWords lists up to n words that differ beyond the faults' own.
func (d *differ) newWords(n int) (w []WordDiff) {
	m := d.f.Machine()
	d.words(func(off, g, f uint64) bool {
		if d.own.words[off] != [2]uint64{g, f} {
			x := WordDiff{Addr: m.RAM.Addr(off), Golden: g, Faulty: f}
			if d.opt.Owner != nil {
				x.Owner = d.opt.Owner(m, x.Addr)
			}
			w = append(w, x)
		}
		return len(w) < n
	})
	return w
}

// Hex writes a little-endian value as a hexadecimal number.
func Hex(b []byte) string {
	r := slices.Clone(b)
	slices.Reverse(r)
	return fmt.Sprintf("%#x", r)
}

// nextMark returns the position of the first common mark beyond the current step.
func (p *pair) nextMark() uint64 {
	for _, m := range p.g.Marks() {
		if m.Step > p.step() {
			return m.Step
		}
	}
	return p.end
}
