package injectors

import (
	"slices"
	"strings"
)

// Fate is what became of a fault in memory before anybody could tell its consequences: what
// the literature calls error consumption.
type Fate string

const (
	// Consumed: somebody read what was wrong.
	Consumed Fate = "consumed"
	// Overwritten: it was written first.
	Overwritten Fate = "overwritten"
	// Untouched: neither, as long as the trial lasted.
	Untouched Fate = "untouched"
)

// Fates lists all fates.
func Fates() []Fate { return []Fate{Consumed, Overwritten, Untouched} }

// Tracked reports whether a fault's fate is told: its kind is one whose faults wait in memory, or it asks for that.
func (f *Fault) Tracked() bool {
	switch f.Kind {
	case &poisonKind:
		return true
	case &memKind:
		return f.Args.Text("track") == "yes"
	}
	return false
}

// Fate returns what became of the faults of a trial in memory, the worst where there are several, or nothing where that was not
// looked at.
func (t *Trial) Fate(faults []*Fault) Fate {
	if !slices.ContainsFunc(faults, (*Fault).Tracked) {
		return ""
	}
	fate := Untouched
	for _, n := range t.Notices {
		switch {
		case strings.HasPrefix(n.What, string(Consumed)):
			return Consumed
		case n.What == string(Overwritten):
			fate = Overwritten
		}
	}
	return fate
}
