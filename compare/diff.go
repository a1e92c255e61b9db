package compare

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/dev"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Report is what Diff found.
type Report struct {
	Equal bool `json:"equal"`
	// Injected are the faults of the faulty run, as they happened.
	Injected []InjectedFault `json:"injected"`
	// First is the first divergent instruction, nil where the processor's path never differed.
	First *Divergence `json:"first_divergence,omitempty"`
	// Output is the first line of the console that differs, nil where none does.
	Output  *OutputDiff `json:"output,omitempty"`
	Outcome Outcome     `json:"outcome"`
	Why     string      `json:"why"`
	Golden  Run         `json:"golden"`
	Faulty  Run         `json:"faulty"`
}

// Run is how a run ended.
type Run struct {
	Dir    string `json:"recording"`
	Step   uint64 `json:"step"`
	Reason string `json:"reason"`
}

// InjectedFault is a fault as it happened.
type InjectedFault struct {
	Step uint64 `json:"step"`
	Spec string `json:"spec"`
}

// Divergence is the first divergent instruction: what each processor executed from
// the last equal state, and how the states differ after it.
type Divergence struct {
	// Step is how many instructions had retired before it, in both runs.
	Step   uint64   `json:"step"`
	Golden Executed `json:"golden"`
	Faulty Executed `json:"faulty"`
	// Registers that differ after it.
	Registers []RegisterDiff `json:"registers"`
	// Pages of memory that differ after it, by physical address, and at most 16.
	Pages []uint64 `json:"pages,omitempty"`
}

// Executed is an instruction that a processor executed.
type Executed struct {
	CS     uint16 `json:"cs"`
	RIP    uint64 `json:"rip"`
	Symbol string `json:"symbol,omitempty"`
	Code   []byte `json:"code"`
	Text   string `json:"text"`
}

// RegisterDiff is a register that differs, as hexadecimal numbers.
type RegisterDiff struct {
	Name   string `json:"name"`
	Golden string `json:"golden"`
	Faulty string `json:"faulty"`
}

// OutputDiff is the first difference of the console.
type OutputDiff struct {
	Line   int    `json:"line"` // from 1
	Golden string `json:"golden"`
	Faulty string `json:"faulty"`
}

// Symbols names addresses; nil names none.
type Symbols func(addr uint64) string

// chunks of the search, in steps, from coarse to fine. In the last, every instruction is compared.
var chunks = []uint64{50_000_000, 1_000_000, 20_000, 1}

// ErrUnrelated reports two recordings that are not of one machine.
var ErrUnrelated = errors.New("the recordings are of different machines")

// Diff compares a faulty run with the golden run that it was forked from. progress may be nil.
func Diff(golden, faulty *replay.Player, symbols Symbols, progress func(step, end uint64)) (*Report, error) {
	if err := related(golden, faulty); err != nil {
		return nil, err
	}
	r := &Report{Golden: runOf(golden), Faulty: runOf(faulty)}
	r.Outcome, r.Why = Classify(golden, faulty)
	r.Output = firstLine(golden.RecordedConsole(), faulty.RecordedConsole())
	start := uint64(vmm.Never)
	for _, e := range faulty.Events() {
		if e.Kind == vmm.EventFault {
			r.Injected = append(r.Injected, InjectedFault{e.Step, e.Fault.Spec})
			start = min(start, e.Step)
		}
	}
	r.Equal = len(r.Injected) == 0 && r.Output == nil && equalEnd(golden, faulty)
	if r.Equal {
		return r, nil
	}
	if start == vmm.Never {
		start = firstMark(golden, faulty)
	}
	start = max(start, golden.Start(), faulty.Start())
	if start > golden.End() || start > faulty.End() {
		return r, nil
	}
	p := &pair{g: golden, f: faulty, symbols: symbols, progress: progress}
	var err error
	r.First, err = p.find(start)
	return r, err
}

func runOf(p *replay.Player) Run {
	r := Run{Dir: p.Dir, Step: p.End(), Reason: "cut off"}
	if p.Manifest.End != nil {
		r.Reason = p.Manifest.End.Reason
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

// firstMark returns the position of the last common mark that is equal.
func firstMark(a, b *replay.Player) (step uint64) {
	x, y := a.Marks(), b.Marks()
	for i := range min(len(x), len(y)) {
		if x[i].Step != y[i].Step || x[i].Memory != y[i].Memory || !slices.Equal(x[i].Devices, y[i].Devices) {
			break
		}
		step = x[i].Step
	}
	return step
}

// firstLine returns the first line that differs, time stamps aside.
func firstLine(g, f []byte) *OutputDiff {
	a, b := bytes.Split(untimed(g), []byte("\n")), bytes.Split(untimed(f), []byte("\n"))
	line := func(l [][]byte, i int) string {
		if i < len(l) {
			return string(bytes.TrimRight(l[i], "\r"))
		}
		return ""
	}
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || !bytes.Equal(a[i], b[i]) {
			return &OutputDiff{i + 1, line(a, i), line(b, i)}
		}
	}
	return nil
}

// pair is two machines side by side.
type pair struct {
	g, f     *replay.Player
	symbols  Symbols
	progress func(step, end uint64)
}

// find returns the first instruction at or after start after which the processors differ.
func (p *pair) find(start uint64) (*Divergence, error) {
	at := p.skip(start)
	end := min(p.g.End(), p.f.End())
	if err := p.both(func(x *replay.Player) error { return x.Seek(at) }); err != nil {
		return nil, err
	}
	for _, chunk := range chunks {
		if chunk == 1 {
			return p.lockstep(at, end)
		}
		for differ := false; !differ; {
			if at == end {
				return nil, nil // to the end, and never different
			}
			gc, fc := p.g.Checkpoint(), p.f.Checkpoint()
			next := min(at+chunk, end)
			if err := p.both(func(x *replay.Player) error { return x.RunTo(next) }); err != nil {
				return nil, err
			}
			if p.progress != nil {
				p.progress(next, end)
			}
			if differ = p.differ(); !differ {
				at = next
				continue
			}
			if err := errors.Join(p.g.Rollback(gc), p.f.Rollback(fc)); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// skip returns the last common mark before which nothing but the broken hardware
// itself differs; or start, if that is later.
func (p *pair) skip(start uint64) uint64 {
	x, y := p.g.Marks(), p.f.Marks()
	for i := range min(len(x), len(y)) {
		if x[i].Step != y[i].Step || x[i].Memory != y[i].Memory || x[i].ConsoleBytes != y[i].ConsoleBytes {
			break
		}
		same := true
		for k := range x[i].Devices {
			same = same && (x[i].Devices[k] == y[i].Devices[k] || hardware(p.g.Manifest.Devices[k]))
		}
		if !same {
			break
		}
		start = max(start, x[i].Step)
	}
	return start
}

// both does the same to both players, at the same time.
func (p *pair) both(f func(*replay.Player) error) error {
	done := make(chan error, 1)
	go func() { done <- f(p.f) }()
	return errors.Join(f(p.g), <-done)
}

// differ reports whether anything differs that is not the fault itself: the
// processors, what the guest said, or a device that is not the broken one.
func (p *pair) differ() bool {
	a, b := p.g.Machine().Devices(), p.f.Machine().Devices()
	for i := range a {
		if hardware(a[i].Name()) {
			continue
		}
		if !bytes.Equal(state(a[i]), state(b[i])) {
			return true
		}
	}
	return false
}

func state(d dev.Device) []byte {
	if h, ok := d.(dev.Hasher); ok {
		s := h.Hash()
		return s[:]
	}
	return dev.Encode(d)
}

// lockstep runs both machines an instruction at a time from a position where they are equal.
func (p *pair) lockstep(at, end uint64) (*Divergence, error) {
	for ; at < end; at++ {
		g, err := p.g.StepInstruction()
		if err != nil {
			return nil, err
		}
		f, err := p.f.StepInstruction()
		if err != nil {
			return nil, err
		}
		regs := differences(p.g.Machine().CPUs[0], p.f.Machine().CPUs[0])
		if len(regs) == 0 {
			continue
		}
		return &Divergence{
			Step: at, Golden: p.executed(g), Faulty: p.executed(f), Registers: regs,
			Pages: pages(p.g.Machine().RAM, p.f.Machine().RAM),
		}, nil
	}
	return nil, nil
}

// executed describes the instruction that retired, which is the last of its step.
func (p *pair) executed(is []replay.Instruction) Executed {
	if len(is) == 0 {
		return Executed{Text: "(nothing)"}
	}
	i := is[len(is)-1]
	e := Executed{CS: i.CS, RIP: i.RIP, Code: i.Code}
	if p.symbols != nil {
		e.Symbol = p.symbols(i.RIP)
	}
	e.Text, _ = x86.Disassemble(i.Code, i.Mode, i.RIP, p.symbols)
	return e
}

// differences lists the registers that differ.
func differences(g, f *x86.CPU) (d []RegisterDiff) {
	for _, r := range x86.Registers() {
		a, b := r.Read(g), r.Read(f)
		if !bytes.Equal(a, b) {
			d = append(d, RegisterDiff{r.Name, Hex(a), Hex(b)})
		}
	}
	return d
}

// Hex writes a little-endian value as a hexadecimal number.
func Hex(b []byte) string {
	r := slices.Clone(b)
	slices.Reverse(r)
	return fmt.Sprintf("%#x", r)
}

// maxPages bounds how many differing pages a report lists.
const maxPages = 16

// pages lists the pages of memory that differ, by physical address.
func pages(a, b *mem.RAM) (addrs []uint64) {
	for n := range a.Pages() {
		if !bytes.Equal(a.Page(n), b.Page(n)) {
			if addrs = append(addrs, a.Addr(uint64(n)*mem.PageSize)); len(addrs) == maxPages {
				break
			}
		}
	}
	return addrs
}
