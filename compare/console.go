package compare

import (
	"bytes"
	"fmt"
	"regexp"
)

// ConsoleDiff is two consoles, aligned by line: a line that only came later, or with
// another time stamp or process number, is the same line.
type ConsoleDiff struct {
	Equal bool `json:"equal"`
	// Added are how many lines only the faulty run has, Removed how many only the golden one.
	Added   int    `json:"added"`
	Removed int    `json:"removed"`
	Hunks   []Hunk `json:"hunks,omitempty"`
}

// Hunk is a stretch of the consoles with differences, and lines that are the same around them.
type Hunk struct {
	GoldenLine int    `json:"golden_line"` // of its first line, from 1
	FaultyLine int    `json:"faulty_line"`
	Lines      []Line `json:"lines"`
}

// Line is one line of a Hunk.
type Line struct {
	// Kind is ' ' for a line of both, '-' for one of the golden run only, '+' for one of the faulty run only.
	Kind byte `json:"-"`
	// Golden and Faulty are the numbers of the line, from 1, or 0.
	Golden int    `json:"golden,omitempty"`
	Faulty int    `json:"faulty,omitempty"`
	Text   string `json:"text"`
}

// OutputDiff is the first difference of the console.
type OutputDiff struct {
	Line       int    `json:"line"`        // of the golden run, from 1: of the line, or where it would be
	FaultyLine int    `json:"faulty_line"` // of the faulty run
	Golden     string `json:"golden"`
	Faulty     string `json:"faulty"`
}

// What of a line is another in every run that took another way: the time stamp that Linux
// puts before it, and numbers of processes in the ways that Linux writes them.
var (
	timestamp = regexp.MustCompile(`(?m)^\[ *\d+\.\d+\] `)
	processID = regexp.MustCompile(`(\b(?:pid|PID|Pid|tgid|process)[ :=]+)\d+|(\b[A-Za-z_][\w.-]*:)\d+(\b[^:.]| |$)|(\w\[)\d+(\])`)
)

func untimed(console []byte) []byte { return timestamp.ReplaceAll(console, nil) }

// key is what two lines have in common that are the same.
func key(line []byte) string {
	line = untimed(bytes.TrimRight(line, "\r"))
	return string(processID.ReplaceAll(line, []byte("$1$2#$3$4$5")))
}

// contextLines is how many lines are shown around a difference.
const contextLines = 3

// Align compares two consoles line by line.
func Align(golden, faulty []byte) (d ConsoleDiff) {
	a, b := splitLines(golden), splitLines(faulty)
	x, y := make([]string, len(a)), make([]string, len(b))
	for i, l := range a {
		x[i] = key(l)
	}
	for i, l := range b {
		y[i] = key(l)
	}
	var h *Hunk
	same := 0 // lines since the last difference
	emit := func(kind byte, i, j int) {
		l := Line{Kind: kind}
		if kind != '+' {
			l.Golden, l.Text = i+1, text(a[i])
		}
		if kind != '-' {
			l.Faulty, l.Text = j+1, text(b[j])
		}
		if kind == ' ' {
			same++
			if h != nil && same <= 2*contextLines {
				h.Lines = append(h.Lines, l)
			}
			return
		}
		if h == nil || same > 2*contextLines {
			if h != nil { // the last one keeps only the lines after it that belong to it
				h.Lines = h.Lines[:len(h.Lines)-contextLines]
			}
			d.Hunks = append(d.Hunks, Hunk{})
			h = &d.Hunks[len(d.Hunks)-1]
			for k := min(contextLines, i, j); k > 0; k-- {
				h.Lines = append(h.Lines, Line{' ', i - k + 1, j - k + 1, text(b[j-k])})
			}
			h.GoldenLine, h.FaultyLine = i+1-len(h.Lines), j+1-len(h.Lines)
		}
		h.Lines = append(h.Lines, l)
		same = 0
		if kind == '+' {
			d.Added++
		} else {
			d.Removed++
		}
	}
	for _, e := range edits(x, y) {
		emit(e.kind, e.i, e.j)
	}
	if h != nil && same > contextLines {
		h.Lines = h.Lines[:len(h.Lines)-(min(same, 2*contextLines)-contextLines)]
	}
	d.Equal = len(d.Hunks) == 0
	return d
}

func splitLines(b []byte) [][]byte {
	l := bytes.Split(b, []byte("\n"))
	if len(l[len(l)-1]) == 0 {
		l = l[:len(l)-1]
	}
	return l
}

func text(line []byte) string {
	return string(bytes.ToValidUTF8(bytes.TrimRight(line, "\r"), []byte("\ufffd")))
}

// first returns the first difference.
func (d *ConsoleDiff) first() *OutputDiff {
	if len(d.Hunks) == 0 {
		return nil
	}
	o := &OutputDiff{}
	h := &d.Hunks[0]
	o.Line, o.FaultyLine = h.GoldenLine, h.FaultyLine
	i := 0
	for ; h.Lines[i].Kind == ' '; i++ {
		o.Line, o.FaultyLine = o.Line+1, o.FaultyLine+1
	}
	for ; i < len(h.Lines) && (o.Golden == "" || o.Faulty == ""); i++ {
		l := &h.Lines[i]
		if l.Kind != '+' && o.Golden == "" {
			o.Golden = l.Text
		}
		if l.Kind != '-' && o.Faulty == "" {
			o.Faulty = l.Text
		}
	}
	return o
}

// Unified returns the hunk in the form that diff -u has.
func (h *Hunk) Unified() string {
	var b bytes.Buffer
	g, f := 0, 0
	for _, l := range h.Lines {
		if l.Kind != '+' {
			g++
		}
		if l.Kind != '-' {
			f++
		}
	}
	fmt.Fprintf(&b, "@@ -%d,%d +%d,%d @@\n", h.GoldenLine, g, h.FaultyLine, f)
	for _, l := range h.Lines {
		fmt.Fprintf(&b, "%c%s\n", l.Kind, l.Text)
	}
	return b.String()
}

// edit is one line of an alignment: of both (' '), of the first only ('-'), of the second only ('+').
// i and j are where it is, or would be, in each.
type edit struct {
	kind byte
	i, j int
}

// maxEdits bounds the differences that edits looks for: beyond them the rest is taken as replaced.
const maxEdits = 2000

// edits aligns two sequences with as few differences as can be (Myers, "An O(ND) Difference
// Algorithm and Its Variations", 1986).
func edits(x, y []string) []edit {
	var es []edit
	head := 0
	for head < len(x) && head < len(y) && x[head] == y[head] {
		es = append(es, edit{' ', head, head})
		head++
	}
	tail := 0
	for tail < len(x)-head && tail < len(y)-head && x[len(x)-1-tail] == y[len(y)-1-tail] {
		tail++
	}
	es = append(es, middle(x[head:len(x)-tail], y[head:len(y)-tail], head)...)
	for k := tail; k > 0; k-- {
		es = append(es, edit{' ', len(x) - k, len(y) - k})
	}
	return es
}

// middle aligns what is left when the equal ends are cut off; base is where it begins.
func middle(x, y []string, base int) []edit {
	n, m := len(x), len(y)
	limit := min(n+m, maxEdits)
	// furthest[d][k+d] is how far along x a path with d differences gets on diagonal k = i - j.
	var furthest [][]int
	done := false
	for d := 0; d <= limit && !done; d++ {
		row := make([]int, 2*d+1)
		for k := -d; k <= d; k += 2 {
			i := 0
			if d > 0 {
				prev := furthest[d-1] // of diagonal k at index k+d-1
				down := k == -d || k != d && prev[k-1+d-1] < prev[k+1+d-1]
				if down {
					i = prev[k+1+d-1]
				} else {
					i = prev[k-1+d-1] + 1
				}
			}
			for i < n && i-k < m && i-k >= 0 && x[i] == y[i-k] {
				i++
			}
			row[k+d] = i
			if i >= n && i-k >= m {
				done = true
				break
			}
		}
		furthest = append(furthest, row)
	}
	if !done {
		var es []edit
		for i := range n {
			es = append(es, edit{'-', base + i, base})
		}
		for j := range m {
			es = append(es, edit{'+', base + n, base + j})
		}
		return es
	}
	// Back from the end.
	var es []edit
	i, j := n, m
	for d := len(furthest) - 1; d >= 0; d-- {
		k := i - j
		var pi, pj int
		if d > 0 {
			prev := furthest[d-1]
			if k == -d || k != d && prev[k-1+d-1] < prev[k+1+d-1] {
				pi = prev[k+1+d-1]
				pj = pi - (k + 1)
			} else {
				pi = prev[k-1+d-1]
				pj = pi - (k - 1)
			}
		}
		for i > pi && j > pj {
			i, j = i-1, j-1
			es = append(es, edit{' ', base + i, base + j})
		}
		switch {
		case d == 0:
		case i > pi:
			i--
			es = append(es, edit{'-', base + i, base + j})
		default:
			j--
			es = append(es, edit{'+', base + i, base + j})
		}
	}
	for a, b := 0, len(es)-1; a < b; a, b = a+1, b-1 {
		es[a], es[b] = es[b], es[a]
	}
	return es
}
