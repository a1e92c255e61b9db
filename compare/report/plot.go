package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"refault/compare"
)

// Drawing is an SVG, in units that are pixels at its full width.
type Drawing struct {
	Width, Height int
	About         string // for who cannot see it
	Rects         []Rect
	Paths         []Path
	Dots          []Dot
	Texts         []Text
}

// Rect, Path, Dot and Text are what a Drawing is made of; their coordinates are written as SVG wants them.
type (
	Rect struct{ Class, X, Y, Width, Height string }
	Path struct{ Class, D string }
	Dot  struct{ Class, X, Y, Title string }
	Text struct{ Class, X, Y, Anchor, Text string }
)

func px(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

func (d *Drawing) rect(class string, x, y, w, h float64) {
	d.Rects = append(d.Rects, Rect{class, px(x), px(y), px(w), px(h)})
}

func (d *Drawing) line(class string, x1, y1, x2, y2 float64) {
	d.Paths = append(d.Paths, Path{class, "M" + px(x1) + " " + px(y1) + "L" + px(x2) + " " + px(y2)})
}

func (d *Drawing) text(class, anchor string, x, y float64, text string) {
	d.Texts = append(d.Texts, Text{class, px(x), px(y), anchor, text})
}

func (d *Drawing) dot(class string, x, y float64, title string) {
	d.Dots = append(d.Dots, Dot{class, px(x), px(y), title})
}

// axis maps values to coordinates.
type axis struct {
	from, to float64 // coordinates of 0 and of max
	max      uint64
	log      bool // of the value plus one: zero is on the axis
}

func (a *axis) at(v uint64) float64 {
	x, top := float64(v), float64(a.max)
	if a.log {
		x, top = math.Log10(x+1), math.Log10(top+1)
	}
	if top == 0 {
		return a.from
	}
	return a.from + (a.to-a.from)*x/top
}

// ticks returns round values on the axis.
func (a *axis) ticks() (t []uint64) {
	if a.log {
		t = []uint64{0}
		for v := uint64(1); v <= a.max; v *= 10 {
			t = append(t, v)
			if v > math.MaxUint64/10 {
				break
			}
		}
		return t
	}
	step := uint64(1)
	for _, by := 0, []uint64{2, 5, 10}; ; {
		base := step
		for _, m := range by {
			if a.max/step <= 5 {
				break
			}
			step = base * m
		}
		if a.max/step <= 5 {
			break
		}
	}
	for v := uint64(0); v <= a.max; v += step {
		t = append(t, v)
	}
	return t
}

// short writes a round number: 10 k, 200 M.
func short(v uint64) string {
	for _, u := range []struct {
		unit   uint64
		suffix string
	}{{1e18, " E"}, {1e15, " P"}, {1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}} {
		if v >= u.unit {
			return strconv.FormatFloat(float64(v)/float64(u.unit), 'f', -1, 64) + u.suffix
		}
	}
	return strconv.FormatUint(v, 10)
}

// grouped writes a number in groups of three digits, that stay on one line.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, d := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteRune('\u202f') // narrow, no break
		}
		b.WriteRune(d)
	}
	return b.String()
}

const (
	width   = 960
	perRune = 7.2 // the width of a character of these texts, generously
)

// beside puts a text next to a point, on the side where there is room for it.
func (d *Drawing) beside(class string, x, y float64, text string) {
	if x+12+perRune*float64(len([]rune(text))) > width {
		d.text(class, "end", x-10, y, text)
		return
	}
	d.text(class, "start", x+10, y, text)
}

// overview draws both runs, from power-on to their ends.
func (s *Story) overview() *Drawing {
	g, f := s.Diff.Golden, s.Diff.Faulty
	d := &Drawing{Width: width, Height: 178, About: "both runs from power-on to their ends, in steps"}
	const top, lane, apart = 40.0, 14.0, 56.0
	x := axis{from: 70, to: width - 24, max: max(g.Step, f.Step, 1)}
	bottom := top + apart + lane + 28
	for _, t := range x.ticks() {
		d.line("grid", x.at(t), top-8, x.at(t), bottom)
		d.text("tick", "middle", x.at(t), bottom+16, short(t))
	}
	d.text("tick", "end", width-24, bottom+34, "steps since power-on")
	d.text("name", "end", 60, top+11, "golden")
	d.text("name", "end", 60, top+apart+11, "faulty")
	d.rect("golden", x.from, top, max(x.at(g.Step)-x.from, 2), lane)
	begin := x.from
	if len(s.Diff.Injected) > 0 {
		at := s.Diff.Injected[0].Step
		begin = x.at(at)
		d.line("fork", begin, top+lane/2, begin, top+apart+lane/2)
		text, y := "fault at "+grouped(at), top+lane+apart/2-10
		if begin < width/2 {
			d.text("note", "start", begin+8, y, text)
		} else {
			d.text("note", "end", begin-8, y, text)
		}
		for _, i := range s.Diff.Injected {
			d.dot("fault", x.at(min(i.Step, x.max)), top+lane/2, i.Spec+", at step "+grouped(i.Step))
		}
	}
	d.rect("faulty "+s.grade(), begin, top+apart, max(x.at(f.Step)-begin, 3), lane)
	end := func(y, text float64, class string, r compare.Run) {
		name := "ends at " + grouped(r.Step) + ", " + EndText(r)
		d.dot(class, x.at(r.Step), y+lane/2, name)
		d.beside("note", x.at(r.Step), text, name)
	}
	end(top, top-8, "golden", g)
	end(top+apart, top+apart+lane+16, "faulty "+s.grade(), f)
	return d
}

// event is a row of the close-up.
type event struct {
	step        uint64
	name, class string
}

// closeUp draws what happened from the fault on, on a logarithmic scale.
func (s *Story) closeUp() *Drawing {
	if s.Curve == nil {
		return nil
	}
	base, d := s.Curve.FaultStep, s.Diff
	var rows []event
	add := func(step *uint64, name, class string) {
		if step != nil && *step >= base {
			rows = append(rows, event{*step, name, class})
		}
	}
	const maxFaults = 4
	for i, x := range d.Injected {
		if i == maxFaults {
			break
		}
		name := "fault"
		if len(d.Injected) > 1 {
			name += " " + strconv.Itoa(i+1)
		}
		add(&x.Step, name, "fault")
	}
	first := func(what What, name string) {
		for i := range s.Life {
			if s.Life[i].What == what {
				add(&s.Life[i].Step, name, "fault")
				return
			}
		}
	}
	first(Met, "fault met")
	first(Consumed, "fault consumed")
	first(Delivered, "exception delivered")
	if x := d.First; x != nil {
		add(&x.Step, "first divergence", "faulty "+s.grade())
	}
	if x := d.Flow; x != nil {
		add(&x.Step, "control flow splits", "faulty "+s.grade())
	}
	if x := d.Privilege; x != nil {
		add(&x.Step, "privilege parts", "faulty "+s.grade())
	}
	if x := d.Memory; x != nil {
		add(&x.Step, "memory differs", "faulty "+s.grade())
	}
	add(s.healed(), "nothing differs any more", "golden")
	add(s.FaultyOutput, "first other line, faulty", "faulty "+s.grade())
	add(s.GoldenOutput, "first other line, golden", "golden")
	add(&d.Faulty.Step, "faulty run ends", "faulty "+s.grade())
	add(&d.Golden.Step, "golden run ends", "golden")
	slices.SortStableFunc(rows, func(a, b event) int { return cmp.Compare(a.step, b.step) })

	const top, row = 14.0, 24.0
	bottom := top + row*float64(len(rows))
	v := &Drawing{Width: width, Height: int(bottom) + 48, About: "what happened after the fault, by the number of steps since then, on a logarithmic scale"}
	x := axis{from: 190, to: width - 40, log: true, max: max(rows[len(rows)-1].step-base, 1)}
	for _, t := range x.ticks() {
		v.line("grid", x.at(t), top-6, x.at(t), bottom)
		v.text("tick", "middle", x.at(t), bottom+16, short(t))
	}
	v.text("tick", "end", width-40, bottom+34, "steps since the fault, logarithmic")
	for i, e := range rows {
		y := top + row*float64(i) + row/2
		v.text("name", "end", 176, y+4, e.name)
		v.line("row", x.from, y, x.at(e.step-base), y)
		v.dot(e.class, x.at(e.step-base), y, e.name+": step "+grouped(e.step))
		v.beside("value", x.at(e.step-base), y+4, "+"+grouped(e.step-base))
	}
	return v
}

// propagation draws the propagation curve.
func (s *Story) propagation() *Drawing {
	if s.Curve == nil || len(s.Curve.Points) == 0 {
		return nil
	}
	points := s.Curve.Points
	most := 1
	for i := range points {
		for _, l := range compare.Series {
			most = max(most, l.Of(&points[i]))
		}
	}
	const top, bottom, right = 58.0, 340.0, width - 110.0
	d := &Drawing{Width: width, Height: 384, About: "how much differs between the runs, by the number of steps since the fault, both logarithmic"}
	x := axis{from: 60, to: right, log: true, max: max(points[len(points)-1].After, 1)}
	y := axis{from: bottom, to: top, log: true, max: uint64(most)}
	if split := s.Curve.SplitStep; split != nil {
		at := x.at(*split - s.Curve.FaultStep)
		d.rect("after", at, top, right-at, bottom-top)
		d.line("mark", at, top-42, at, bottom)
		d.mark(at, top-32, "control flow has split")
	}
	for _, t := range x.ticks() {
		d.line("grid", x.at(t), top, x.at(t), bottom)
		d.text("tick", "middle", x.at(t), bottom+16, short(t))
	}
	d.text("tick", "end", right, bottom+34, "steps since the fault, logarithmic")
	for _, t := range y.ticks() {
		d.line("grid", x.from, y.at(t), right, y.at(t))
		d.text("tick", "end", x.from-8, y.at(t)+4, short(t))
	}
	if o := s.FaultyOutput; o != nil && *o >= s.Curve.FaultStep && *o <= s.Curve.EndStep {
		at := x.at(*o - s.Curve.FaultStep)
		d.line("mark dashed", at, top-20, at, bottom)
		d.mark(at, top-10, "first line that differs")
	}
	type label struct {
		y    float64
		name string
		n    int
	}
	var labels []label
	for _, l := range compare.Series {
		var path strings.Builder
		any := false
		for i := range points {
			n := l.Of(&points[i])
			any = any || n > 0
			px, py := x.at(points[i].After), y.at(uint64(n))
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], px, py)
		}
		if !any {
			continue
		}
		d.Paths = append(d.Paths, Path{"curve " + l.Name, path.String()})
		last := math.Inf(-1)
		for i := range points {
			n := l.Of(&points[i])
			if at := x.at(points[i].After); at-last < 8 && i+1 < len(points) {
				continue // they would be a band
			} else {
				last = at
			}
			d.dot("point "+l.Name, x.at(points[i].After), y.at(uint64(n)), fmt.Sprintf("%s %s, %s steps after the fault", grouped(uint64(n)), l.Name, grouped(points[i].After)))
		}
		n := l.Of(&points[len(points)-1])
		labels = append(labels, label{y.at(uint64(n)), l.Name, n})
	}
	// Names at the ends of the lines, moved apart where they would cover each other.
	slices.SortStableFunc(labels, func(a, b label) int { return cmp.Compare(a.y, b.y) })
	const high = 16.0
	for i := range labels {
		if i > 0 {
			labels[i].y = max(labels[i].y, labels[i-1].y+high)
		}
	}
	for i := len(labels) - 1; i >= 0; i-- {
		limit := bottom + 4
		if i+1 < len(labels) {
			limit = labels[i+1].y - high
		}
		labels[i].y = min(labels[i].y, limit)
		d.rect("key "+labels[i].name, right+10, labels[i].y-5, 10, 10)
		d.text("value", "start", right+26, labels[i].y+4, labels[i].name)
	}
	return d
}

// mark labels a vertical line on the side where there is room.
func (d *Drawing) mark(x, y float64, text string) {
	if x+6+perRune*float64(len(text)) < width {
		d.text("note", "start", x+6, y, text)
	} else {
		d.text("note", "end", x-6, y, text)
	}
}
