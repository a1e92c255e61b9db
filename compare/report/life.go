package report

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strings"

	"refault/compare"
	"refault/replay"
	"refault/vmm"
	"refault/vmm/x86"
)

// Moment is something of a fault's life.
type Moment struct {
	Step uint64
	What What
	Text string
	// More is how many moments of the same kind followed that are not listed.
	More int
}

// What a moment is.
type What string

// The stages of a fault's life.
const (
	Planted   What = "planted"
	Met       What = "met"       // by a scrubber, a processor
	Consumed  What = "consumed"  // by a load, a fetch, a bus master
	Reported  What = "reported"  // in a machine-check bank
	Delivered What = "delivered" // as an exception that only a fault raises
	Diverged  What = "diverged"  // the first instruction that made something of it
	Read      What = "read"      // in its bank, by the guest
	Cleared   What = "cleared"   // there
	Gone      What = "gone"
	Wrote     What = "wrote" // to a disk, other than the golden run
	Said      What = "said"  // by the guest
	Ended     What = "ended"
)

// Bounds of what is kept of each kind.
const (
	maxNotices = 12
	maxLines   = 16
)

// witness sees a recording being played, from wherever to wherever, and any part of it
// more than once: what it keeps is by position.
type witness struct {
	p        *replay.Player
	observer *vmm.Observer
	moments  map[Moment]bool
	steps    []outputStep // ascending in byte
	outer    func(b byte)
}

// outputStep is the step at which the bytes of the console from one on came out.
type outputStep struct{ byte, step uint64 }

// maxMoments bounds what a witness keeps.
const maxMoments = 10_000

func watch(p *replay.Player) *witness {
	w := &witness{p: p, moments: map[Moment]bool{}, outer: p.Console}
	m := p.Machine()
	keep := func(x Moment) {
		if len(w.moments) < maxMoments {
			w.moments[x] = true
		}
	}
	w.observer = &vmm.Observer{
		Notice: func(n vmm.Notice) { keep(Moment{Step: n.Step, What: stage(n), Text: n.String()}) },
		Delivered: func(c *x86.CPU, e x86.Exception) {
			if e.Vec == x86.VecMC || e.Vec == x86.VecNMI || e.Vec == x86.VecDF {
				keep(Moment{Step: c.Step, What: Delivered, Text: x86.VectorName(e.Vec) + " delivered to the processor"})
			}
		},
	}
	m.Observe(w.observer)
	p.Console = func(b byte) {
		at := m.Out() - 1
		if n := len(w.steps); n == 0 || at > w.steps[n-1].byte && m.Step() != w.steps[n-1].step {
			w.steps = append(w.steps, outputStep{at, m.Step()})
		}
		if w.outer != nil {
			w.outer(b)
		}
	}
	return w
}

// stage says what a notice is of.
func stage(n vmm.Notice) What {
	first, _, _ := strings.Cut(n.What, " ")
	switch what := What(first); {
	case what == Consumed:
		return Consumed
	case n.Kind == vmm.NoticeBank:
		return what // Reported, Read or Cleared
	case n.What == "overwritten", n.What == "gone":
		return Gone
	}
	return Met
}

func (w *witness) close() {
	w.p.Machine().Unobserve(w.observer)
	w.p.Console = w.outer
}

// line returns the step at which line n of the console, from 1, began to come out; nil if it did not while the witness looked.
func (w *witness) line(console []byte, n int) *uint64 {
	at := 0
	for ; n > 1; n-- {
		i := bytes.IndexByte(console[at:], '\n')
		if i < 0 {
			return nil
		}
		at += i + 1
	}
	if at >= len(console) || len(w.steps) == 0 || uint64(at) < w.steps[0].byte {
		return nil
	}
	i := sort.Search(len(w.steps), func(i int) bool { return w.steps[i].byte > uint64(at) })
	return &w.steps[i-1].step
}

// life puts together what became of the faults.
func life(s *Story, w *witness, console []byte) (all []Moment) {
	d := s.Diff
	for _, i := range d.Injected {
		m := Moment{Step: i.Step, What: Planted, Text: i.Spec}
		if len(i.Was) > 0 {
			m.Text += ", in place of " + hex.EncodeToString(i.Was)
		}
		all = append(all, m)
	}
	seen := map[What][]Moment{}
	for m := range w.moments {
		seen[m.What] = append(seen[m.What], m)
	}
	for _, k := range []What{Met, Consumed, Gone, Reported, Delivered, Read, Cleared} {
		list := seen[k]
		slices.SortFunc(list, byStep)
		if more := len(list) - maxNotices; more > 0 {
			list = list[:maxNotices]
			list[maxNotices-1].More = more
		}
		all = append(all, list...)
	}
	if f := d.First; f != nil {
		text := "first divergent instruction: " + f.Faulty.Text
		if f.Faulty.Symbol != "" {
			text += " in " + f.Faulty.Symbol
		}
		if f.Faulty.After != "" {
			text += ", after " + f.Faulty.After
		}
		all = append(all, Moment{Step: f.Step, What: Diverged, Text: text})
	}
	for i := range d.Disks {
		if w := d.Disks[i].First; w != nil {
			all = append(all, Moment{Step: w.Step(), What: Wrote, Text: d.Disks[i].Name + ": " + w.Summary()})
		}
	}
	if at := s.healed(); at != nil {
		all = append(all, Moment{Step: *at, What: Gone, Text: "nothing differs any more"})
	}
	all = append(all, said(d, w, console)...)
	all = append(all, Moment{Step: d.Faulty.Step, What: Ended, Text: EndText(d.Faulty)})
	slices.SortStableFunc(all, func(a, b Moment) int { return cmp.Compare(a.Step, b.Step) })
	return all
}

func byStep(a, b Moment) int {
	return cmp.Or(cmp.Compare(a.Step, b.Step), cmp.Compare(a.Text, b.Text))
}

// said returns the lines that only the faulty guest said.
func said(d *compare.Report, w *witness, console []byte) (all []Moment) {
	more := 0
	for i := range d.Console.Hunks {
		for _, l := range d.Console.Hunks[i].Lines {
			if l.Kind != '+' {
				continue
			}
			at := w.line(console, l.Faulty)
			if at == nil {
				continue
			}
			if len(all) == maxLines {
				more++
				continue
			}
			all = append(all, Moment{Step: *at, What: Said, Text: l.Text})
		}
	}
	if more > 0 {
		all[len(all)-1].More = more
	}
	return all
}

// EndText says how a run ended.
func EndText(r compare.Run) string {
	switch r.Reason {
	case vmm.DebugExit.String():
		return fmt.Sprintf("debug-exit with status %d", r.Status)
	case vmm.TripleFault.String():
		return "the processor shut down (triple fault)"
	case vmm.Dead.String():
		return "all processors halted and nothing can wake them"
	case replay.ReasonMaxSteps:
		return "still running at the limit of steps"
	}
	return string(bytes.ReplaceAll([]byte(r.Reason), []byte("-"), []byte(" ")))
}
