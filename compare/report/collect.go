package report

import (
	"errors"
	"slices"

	"refault/compare"
	"refault/replay"
	"refault/traces"
	"refault/vmm/x86"
)

// Options of Collect.
type Options struct {
	compare.Options
	// Points is about how many points the propagation curve has; zero is compare.DefaultPoints.
	Points int
}

// Story is all that the page tells.
type Story struct {
	Diff           *compare.Report
	Curve          *compare.Curve // nil where the runs are equal
	Listings       []Listing
	Why            *compare.Explanation // nil where the runs are equal
	Life           []Moment
	Golden, Faulty *traces.Manifest
	// GoldenOutput and FaultyOutput are the steps at which the first line that differs began
	// to come out of each, nil where it did not.
	GoldenOutput, FaultyOutput *uint64
}

// Listing is what both executed around a step.
type Listing struct {
	Title string
	Rows  []Row
}

// Row is one step of a Listing.
type Row struct {
	Step           uint64
	Golden, Faulty []Instruction
	Differ         bool
	Notes          []string // what is so from this instruction on
}

// Instruction is one that was executed.
type Instruction struct {
	CS      uint16
	RIP     uint64
	Symbol  string
	Text    string
	After   string // the exception or interrupt that was delivered before it
	Faulted bool   // it raised an exception and did not retire
}

// Steps of a Listing around the instruction that it is about.
const (
	stepsBefore = 8
	stepsAfter  = 12
)

// Collect compares two recordings and looks at what the page tells.
func Collect(golden, faulty *replay.Player, opt Options) (*Story, error) {
	if opt.Points == 0 {
		opt.Points = compare.DefaultPoints
	}
	s := &Story{Golden: golden.Manifest, Faulty: faulty.Manifest}
	var err error
	if s.Diff, err = compare.Diff(golden, faulty, opt.Options); err != nil || s.Diff.Equal {
		return s, err
	}
	if s.Listings, err = listings(golden, faulty, s.Diff, opt.Symbols); err != nil {
		return nil, err
	}
	if s.Why, err = compare.Because(s.Diff, golden, faulty, opt.Options); err != nil {
		return nil, err
	}
	g, f := watch(golden), watch(faulty)
	defer g.close()
	defer f.close()
	if s.Curve, err = compare.Propagation(golden, faulty, opt.Points, opt.Options); err != nil {
		return nil, err
	}
	if from := s.Curve.FaultStep; len(s.Curve.Points) == 0 && from <= faulty.End() {
		if err := faulty.Seek(from); err != nil {
			return nil, err
		}
	}
	if len(s.Curve.Points) > 0 {
		// The curve ends with the shorter run.
		done := make(chan error, 1)
		go func() { done <- faulty.RunTo(faulty.End()) }()
		if err := errors.Join(golden.RunTo(golden.End()), <-done); err != nil {
			return nil, err
		}
	}
	if o := s.Diff.Output; o != nil {
		s.GoldenOutput = g.line(golden.RecordedConsole(), o.Line)
		s.FaultyOutput = f.line(faulty.RecordedConsole(), o.FaultyLine)
	}
	s.Life = life(s, f, faulty.RecordedConsole())
	return s, nil
}

// healed returns a step by which nothing differed any more, nil if something did to the end.
func (s *Story) healed() *uint64 {
	if s.Diff.Healed == nil || s.Curve == nil {
		return s.Diff.Healed
	}
	// The curve may have looked earlier than the search.
	at := *s.Diff.Healed
	for i := len(s.Curve.Points) - 1; i >= 0 && s.Curve.Points[i].Equal(); i-- {
		at = min(at, s.Curve.Points[i].Step)
	}
	return &at
}

// listings lists what both executed around the places that a diff found.
func listings(golden, faulty *replay.Player, d *compare.Report, symbols compare.Symbols) ([]Listing, error) {
	type place struct {
		step        uint64
		title, note string
	}
	var places []place
	if d.First != nil {
		places = append(places, place{d.First.Step, "The first divergence", "first divergence"})
	}
	if d.Flow != nil {
		places = append(places, place{d.Flow.Step, "Control flow splits", "control flow splits"})
	}
	if d.Privilege != nil {
		places = append(places, place{d.Privilege.Step, "Privilege levels part", "privilege levels part"})
	}
	if d.Memory != nil {
		places = append(places, place{d.Memory.Step, "Memory differs", "memory differs"})
	}
	slices.SortStableFunc(places, func(a, b place) int {
		switch {
		case a.step < b.step:
			return -1
		case a.step > b.step:
			return 1
		}
		return 0
	})
	var all []Listing
	for len(places) > 0 {
		l := Listing{Title: places[0].title}
		at := places[0].step
		from := max(at-min(stepsBefore, at), golden.Start(), faulty.Start())
		to := at + stepsAfter
		if err := errors.Join(golden.Seek(from), faulty.Seek(from)); err != nil {
			return nil, err
		}
		for step := from; step < to && (step < golden.End() || step < faulty.End()); step++ {
			r := Row{Step: step}
			var err error
			if r.Golden, err = stepOnce(golden, symbols); err != nil {
				return nil, err
			}
			if r.Faulty, err = stepOnce(faulty, symbols); err != nil {
				return nil, err
			}
			r.Differ = !slices.Equal(r.Golden, r.Faulty)
			for len(places) > 0 && places[0].step == step {
				r.Notes = append(r.Notes, places[0].note)
				places = places[1:]
			}
			if len(r.Notes) > 0 && !r.Differ {
				r.Notes = append(r.Notes, "the same instruction, with another result")
			}
			l.Rows = append(l.Rows, r)
		}
		if len(places) > 0 && places[0].step == at {
			places = places[1:] // where both runs end: there is nothing to list
			continue
		}
		all = append(all, l)
	}
	return all, nil
}

// stepOnce executes one instruction.
func stepOnce(p *replay.Player, symbols compare.Symbols) (list []Instruction, err error) {
	if p.Machine().Step() >= p.End() {
		return nil, nil
	}
	is, err := p.StepInstruction()
	for _, i := range is {
		x := Instruction{CS: i.CS, RIP: i.RIP, Faulted: i.Faulted}
		x.Text, _ = x86.Disassemble(i.Code, i.Mode, i.RIP, symbols)
		if symbols != nil {
			x.Symbol = symbols(i.RIP)
		}
		if i.Entered >= 0 {
			x.After = x86.VectorName(uint8(i.Entered))
		}
		list = append(list, x)
	}
	return list, err
}
