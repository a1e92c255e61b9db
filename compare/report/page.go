package report

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"math/bits"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"refault/compare"
	"refault/traces"
)

//go:embed page.html
var source string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"grouped": grouped, "hex16": func(v uint64) string { return fmt.Sprintf("%016x", v) },
	"hex": func(v uint64) string { return fmt.Sprintf("%#x", v) }, "since": since, "chainEnd": chainEnd, "bits": differentBits, "wordBits": wordBits,
	"hexBytes": func(b []byte) string { return hex.EncodeToString(b) },
}).Parse(source))

// Write writes the page. The same story makes the same bytes.
func Write(w io.Writer, s *Story) error {
	var b bytes.Buffer // a page or none
	if err := page.Execute(&b, s.view()); err != nil {
		return fmt.Errorf("the report: %w", err)
	}
	_, err := io.WriteString(w, visible(b.String()))
	return err
}

// view is what the template sees.
type view struct {
	*Story
	Title, Outcome, Grade, Headline string
	Lede                            []string
	Tiles                           []tile
	Overview, CloseUp, Propagation  *Drawing
	Console                         []consoleLine
	ConsoleMore                     int
	Chain                           []chainRow
	Manifests                       []manifestRow
	Base                            uint64 // of the steps after the fault
}

type tile struct{ Name, Value, Note string }

type consoleLine struct {
	Class, Sign    string
	Golden, Faulty string // numbers
	Text           string
}

// chainRow is a link of the chain from the fault to what was seen; one without an instruction stands for those left out.
type chainRow struct {
	*compare.Link
	Class   string
	Skipped int
}

type manifestRow struct {
	Name, Golden, Faulty string
	Differ               bool
}

func (s *Story) view() *view {
	v := &view{Story: s, Title: filepath.Base(s.Diff.Faulty.Dir) + " against " + filepath.Base(s.Diff.Golden.Dir),
		Outcome: string(s.Diff.Outcome), Grade: s.grade(), Headline: headline(s.Diff), Overview: s.overview(), CloseUp: s.closeUp(), Propagation: s.propagation()}
	if s.Curve != nil {
		v.Base = s.Curve.FaultStep
	}
	if s.Diff.Equal {
		v.Outcome = "equal"
	}
	v.Lede, v.Tiles = s.lede(), s.tiles()
	v.Console, v.ConsoleMore = console(s.Diff.Console.Hunks)
	v.Chain, v.Manifests = chain(s.Why), manifests(s)
	return v
}

// grade is how grave the outcome is.
func (s *Story) grade() string {
	if s.Diff.Equal {
		return "good"
	}
	switch s.Diff.Outcome {
	case compare.Masked, compare.Corrected:
		return "good"
	case compare.Latent, compare.Recovered:
		return "fair"
	}
	return "bad"
}

func headline(d *compare.Report) string {
	if d.Equal {
		return "The runs are equal, to the last bit."
	}
	subject := "The fault"
	if len(d.Injected) > 1 {
		subject = "The faults"
	} else if len(d.Injected) == 0 {
		subject = "What differs between the runs"
	}
	switch d.Outcome {
	case compare.Masked:
		return subject + " left no trace: the outputs and the final state are equal."
	case compare.Latent:
		return subject + " changed the final state, and no output."
	case compare.SDC:
		return subject + " changed the output, and the guest noticed nothing: silent data corruption."
	case compare.Corrected:
		return subject + " was noticed and logged, and the guest carried on."
	case compare.Recovered:
		return subject + " was noticed, and the guest gave up a part and carried on."
	case compare.Crash:
		return subject + " brought the guest down."
	}
	return subject + " kept the guest from coming to its end."
}

// since writes a distance in steps.
func since(step, base uint64) string {
	if step < base {
		return "−" + grouped(base-step)
	}
	return "+" + grouped(step-base)
}

// lede tells the story in a few sentences.
func (s *Story) lede() (l []string) {
	d := s.Diff
	if d.Equal {
		return []string{fmt.Sprintf("Both took %s steps and ended the same way: %s.", grouped(d.Golden.Step), EndText(d.Golden))}
	}
	for i, f := range d.Injected {
		if i == 3 {
			l = append(l, fmt.Sprintf("So did %d more.", len(d.Injected)-i))
			break
		}
		l = append(l, fmt.Sprintf("%s struck at step %s.", f.Spec, grouped(f.Step)))
	}
	switch f := d.First; {
	case f != nil:
		where := ""
		if f.Golden.Symbol != "" {
			where = " in " + f.Golden.Symbol
		}
		did := "executed " + f.Faulty.Text
		if f.Faulty.After != "" {
			did = "took " + f.Faulty.After
		}
		when := "At that very step"
		if n := f.Step - s.Curve.FaultStep; n > 0 || len(d.Injected) == 0 {
			when = "At step " + grouped(f.Step) + ", " + grouped(n) + " steps later,"
			if len(d.Injected) == 0 {
				when = "At step " + grouped(f.Step)
			}
		}
		if f.Golden.RIP == f.Faulty.RIP && f.Golden.Text == f.Faulty.Text && f.Faulty.After == f.Golden.After {
			after := ""
			if f.Faulty.After != "" {
				after = ", after " + f.Faulty.After + ","
			}
			l = append(l, fmt.Sprintf("%s %s%s%s was the first instruction with another result.", when, f.Golden.Text, where, after))
		} else {
			l = append(l, fmt.Sprintf("%s, where the golden run executed %s%s, the faulty one %s.", strings.TrimSuffix(when, ","), f.Golden.Text, where, did))
		}
	case d.Healed != nil:
		at := *s.healed()
		l = append(l, fmt.Sprintf("What it had changed was gone by step %s, %s steps later, and nothing had come of it.", grouped(at), grouped(at-s.Curve.FaultStep)))
	default:
		l = append(l, "Nothing ever came of it.")
	}
	why := strings.TrimSuffix(d.Why, ".")
	return append(l, strings.ToUpper(why[:1])+why[1:]+".")
}

func (s *Story) tiles() (t []tile) {
	d := s.Diff
	if s.Curve == nil {
		return nil
	}
	base := s.Curve.FaultStep
	later := func(name string, step *uint64, none string) {
		if step == nil {
			t = append(t, tile{name, none, ""})
			return
		}
		t = append(t, tile{name, since(*step, base), "at step " + grouped(*step)})
	}
	if len(d.Injected) > 0 {
		t = append(t, tile{"fault", grouped(base), "the step at which it struck"})
	}
	switch {
	case d.First != nil:
		later("first divergence", &d.First.Step, "")
	case d.Healed != nil:
		later("nothing differs any more", s.healed(), "")
	default:
		t = append(t, tile{"first divergence", "none", "nothing came of it"})
	}
	later("control flow splits", s.splitStep(), "never")
	if d.Output == nil {
		t = append(t, tile{"first line that differs", "none", "the outputs are equal"})
	} else {
		later("first line that differs", s.FaultyOutput, "line "+strconv.Itoa(d.Output.FaultyLine))
	}
	most, at := 0, uint64(0)
	for i := range s.Curve.Points {
		if p := &s.Curve.Points[i]; p.Words > most {
			most, at = p.Words, p.After
		}
	}
	if most == 0 {
		t = append(t, tile{"words of memory", "0", "differed at any time"})
	} else {
		t = append(t, tile{"words of memory", grouped(uint64(most)), "differed at the most, " + since(at, 0) + " steps"})
	}
	return t
}

// splitStep is the step of the instruction after which the runs were at different places.
func (s *Story) splitStep() *uint64 {
	if f := s.Diff.Flow; f != nil {
		return &f.Step
	}
	if c := s.Curve.SplitStep; c != nil {
		at := *c - 1
		return &at
	}
	return nil
}

// visible shows what would control a terminal, the direction of text, or nothing at all by
// something that can be seen. It is for the whole page: no text of it can be forgotten.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case r < 0x20:
			return 0x2400 + r // its picture
		case r == 0x7f:
			return 0x2421
		case r == 0xad, unicode.Is(unicode.Cc, r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r),
			unicode.Is(unicode.Co, r), !unicode.IsPrint(r) && !unicode.IsSpace(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// differentBits names the bits in which two hexadecimal numbers of one width differ, if they are few.
func differentBits(a, b string) string {
	x, err1 := hex.DecodeString(strings.TrimPrefix(a, "0x"))
	y, err2 := hex.DecodeString(strings.TrimPrefix(b, "0x"))
	if err1 != nil || err2 != nil || len(x) != len(y) {
		return ""
	}
	var list []string
	for i := len(x) - 1; i >= 0; i-- {
		for d := x[i] ^ y[i]; d != 0; d &= d - 1 {
			list = append(list, strconv.Itoa(8*(len(x)-1-i)+bits.TrailingZeros8(d)))
		}
	}
	return bitList(list)
}

func wordBits(a, b uint64) string {
	var list []string
	for d := a ^ b; d != 0; d &= d - 1 {
		list = append(list, strconv.Itoa(bits.TrailingZeros64(d)))
	}
	return bitList(list)
}

func bitList(list []string) string {
	const few = 4
	switch {
	case len(list) == 1:
		return "bit " + list[0]
	case len(list) <= few:
		return "bits " + strings.Join(list, ", ")
	}
	return strconv.Itoa(len(list)) + " bits"
}

// Bounds of the console: lines in all, and of those that only one run has in a row.
const (
	consoleMax = 600
	runMax     = 60
	runEnds    = 20
)

// console lists the lines of the hunks, and how many there are not room for.
func console(hunks []compare.Hunk) (all []consoleLine, more int) {
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	class := map[byte]string{' ': "same", '-': "only-golden", '+': "only-faulty"}
	for i := range hunks {
		lines := hunks[i].Lines
		all = append(all, consoleLine{Class: "hunk", Text: fmt.Sprintf("from line %d of the golden run, line %d of the faulty one", hunks[i].GoldenLine, hunks[i].FaultyLine)})
		for at := 0; at < len(lines); {
			end := at + 1
			for end < len(lines) && lines[end].Kind == lines[at].Kind {
				end++
			}
			for k := at; k < end; k++ {
				if skip := end - at - 2*runEnds; k == at+runEnds && end-at > runMax {
					all = append(all, consoleLine{Class: "hunk", Text: fmt.Sprintf("… %d lines …", skip)})
					k += skip
				}
				l := &lines[k]
				all = append(all, consoleLine{class[l.Kind], string(rune(l.Kind)), number(l.Golden), number(l.Faulty), l.Text})
			}
			at = end
		}
	}
	if len(all) > consoleMax {
		return all[:consoleMax], len(all) - consoleMax
	}
	return all, 0
}

// Bounds of the chain: rows in all, and those at either end where there are more.
const (
	chainMax  = 80
	chainEnds = 30
)

// chain lists the links by step, those of the main chain and those that lead into it.
func chain(e *compare.Explanation) (rows []chainRow) {
	if e == nil {
		return nil
	}
	for i := range e.Links {
		rows = append(rows, chainRow{Link: &e.Links[i], Class: "link"})
	}
	for i := range e.Joins {
		rows = append(rows, chainRow{Link: &e.Joins[i], Class: "join"})
	}
	slices.SortStableFunc(rows, func(a, b chainRow) int { return cmp.Compare(a.Step, b.Step) })
	if n := len(rows); n > chainMax {
		left := append(slices.Clone(rows[:chainEnds]), chainRow{Class: "hunk", Skipped: n - 2*chainEnds})
		return append(left, rows[n-chainEnds:]...)
	}
	return rows
}

// chainEnd says what the chain led to.
func chainEnd(e *compare.Explanation) string {
	switch r := e.Report; e.Target {
	case "output":
		return "At step " + grouped(e.OutputStep) + " the wrong byte was put out."
	case "disk write":
		return fmt.Sprintf("At step %s the wrong byte was written to %s, sector %d, byte %d.", grouped(e.Write.Faulty.Step), e.Disk, e.Write.LBA, e.Write.Byte)
	case "control flow":
		where := func(at uint64, symbol string) string {
			if symbol != "" {
				return symbol
			}
			return fmt.Sprintf("%#x", at)
		}
		return fmt.Sprintf("At step %s control flow split: to %s, in the golden run to %s.", grouped(r.Flow.Step), where(r.Flow.FaultyRIP, r.Flow.FaultyAt), where(r.Flow.GoldenRIP, r.Flow.GoldenAt))
	case "state":
		return "It stayed in the machine’s state."
	}
	return ""
}

// manifests puts what was recorded side by side.
func manifests(s *Story) (rows []manifestRow) {
	row := func(name, g, f string) {
		if g != "" || f != "" {
			rows = append(rows, manifestRow{name, g, f, g != f})
		}
	}
	g, f := s.Golden, s.Faulty
	both := func(name string, of func(m *traces.Manifest) string) { row(name, of(g), of(f)) }
	file := func(x *traces.File) string {
		if x == nil {
			return ""
		}
		path := x.Path
		if path == "" {
			path = "built in"
		}
		return fmt.Sprintf("%s, %s bytes, SHA-256 %s", path, grouped(uint64(x.Size)), x.SHA256)
	}
	row("recording", s.Diff.Golden.Dir, s.Diff.Faulty.Dir)
	both("recorded by", func(m *traces.Manifest) string { return m.Product })
	both("machine", func(m *traces.Manifest) string { return m.Machine })
	both("processor", func(m *traces.Manifest) string { return fmt.Sprintf("%d × %s", m.CPUs, m.CPUModel) })
	both("memory", func(m *traces.Manifest) string { return grouped(m.MemoryBytes) + " bytes" })
	both("kernel", func(m *traces.Manifest) string { return file(m.Kernel) })
	both("initrd", func(m *traces.Manifest) string { return file(m.Initrd) })
	for i := range max(len(g.Disks), len(f.Disks)) {
		both(fmt.Sprintf("disk %d", i), func(m *traces.Manifest) string {
			if i >= len(m.Disks) {
				return ""
			}
			return file(&m.Disks[i])
		})
	}
	both("command line", func(m *traces.Manifest) string { return m.CommandLine })
	both("clock", func(m *traces.Manifest) string { return m.Clock })
	both("seed", func(m *traces.Manifest) string { return strconv.FormatUint(m.Seed, 10) })
	both("injected from", func(m *traces.Manifest) string { return m.Parent })
	both("faults", func(m *traces.Manifest) string { return strings.Join(m.Faults, " ") })
	length := func(r compare.Run) string {
		return fmt.Sprintf("%s steps, %d.%06d s of virtual time", grouped(r.Step), r.TimeNs/1e9, r.TimeNs%1e9/1e3)
	}
	row("length", length(s.Diff.Golden), length(s.Diff.Faulty))
	row("end", EndText(s.Diff.Golden), EndText(s.Diff.Faulty))
	return rows
}
