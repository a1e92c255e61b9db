package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"refault/compare"
	"refault/injectors"
	"refault/replay"
	"refault/test/recorded"
	"refault/test/tiny"
	"refault/traces"
	"refault/vmm"
)

// Faults of the tiny guest, by what becomes of them.
var faults = []struct{ name, spec, outcome string }{
	{"masked", "reg:name=rflags,bit=6@step:200100", "masked"},
	{"latent", "mem:addr=0x3f0000,bit=1@step:200000", "latent"},
	{"sdc", "reg:name=rcx,bit=1@step:200001", ""},
	{"crash", "reg:name=rsp,bit=40@step:250000", ""},
	{"torn", "ata:error=torn,lba=133,bytes=101@step:50000", "sdc"},
	{"many", "mem:addr=0x3f0000,bit=1@step:200000 mem:addr=0x3f0000,bit=1@step:250000", ""},
}

// inject records what golden does with faults, and returns what became of those that stay in the machine.
func inject(t testing.TB, golden, faulty, specs string) []vmm.Notice {
	t.Helper()
	var list []*injectors.Fault
	for _, s := range strings.Fields(specs) {
		f, err := injectors.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
	}
	g := recorded.Open(t, golden)
	i, err := injectors.Inject(g, faulty, list, replay.Options{SnapshotEvery: 200_000, MaxSteps: 2 * g.End()}, tiny.Disk())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Run(); err != nil {
		t.Fatal(err)
	}
	notices := i.Notices()
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	return notices
}

func symbols(addr uint64) string { return fmt.Sprintf("near_%x", addr>>8) }

func collect(t testing.TB, golden, faulty string) *Story {
	t.Helper()
	s, err := Collect(recorded.Open(t, golden), recorded.Open(t, faulty), Options{Points: 24, Options: compare.Options{Symbols: symbols}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pageOf(t testing.TB, s *Story) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// forbidden are elements and attributes by which a page would load or execute something.
var (
	forbiddenElements   = regexp.MustCompile(`^(script|link|img|image|iframe|frame|object|embed|form|base|audio|video|source|foreignObject|use|a)$`)
	forbiddenAttributes = regexp.MustCompile(`^(src|srcset|href|on.*|style|action|data|background|poster)$`)
	forbiddenStyle      = regexp.MustCompile(`(?i)url\s*\(|@import|@font-face|expression`)
	notNumbers          = regexp.MustCompile(`NaN|Inf\b`)
)

// structure parses a page strictly, checks that it loads nothing, and returns its elements with the names of their attributes.
func structure(t testing.TB, page string) (elements []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	ids := map[string]bool{}
	inStyle := false
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			inStyle = tok.Name.Local == "style"
			if forbiddenElements.MatchString(tok.Name.Local) {
				t.Errorf("it has an element %s", tok.Name.Local)
			}
			e := tok.Name.Local
			for _, a := range tok.Attr {
				if forbiddenAttributes.MatchString(a.Name.Local) || a.Name.Space != "" {
					t.Errorf("%s has an attribute %s", tok.Name.Local, a.Name.Local)
				}
				if a.Name.Local == "id" {
					if ids[a.Value] {
						t.Errorf("two elements have id %s", a.Value)
					}
					ids[a.Value] = true
				}
				if tok.Name.Local != "title" && notNumbers.MatchString(a.Value) && a.Name.Local != "aria-label" {
					t.Errorf("%s %s=%q", tok.Name.Local, a.Name.Local, a.Value)
				}
				e += " " + a.Name.Local
			}
			elements = append(elements, e)
		case xml.CharData:
			if inStyle && forbiddenStyle.Match(tok) {
				t.Errorf("the style loads something: %s", forbiddenStyle.Find(tok))
			}
		case xml.EndElement:
			inStyle = false
		}
	}
	if !strings.Contains(page, `content="default-src &#39;none&#39;`) && !strings.Contains(page, `content="default-src 'none'; style-src 'unsafe-inline'"`) {
		t.Error("it has no Content-Security-Policy")
	}
	return elements
}

// TestPages makes a page of each outcome.
func TestPages(t *testing.T) {
	dir := t.TempDir()
	golden := recorded.Golden(t, 12)
	for _, c := range faults {
		t.Run(c.name, func(t *testing.T) {
			faulty := filepath.Join(dir, c.name+".rec")
			inject(t, golden, faulty, c.spec)
			s := collect(t, golden, faulty)
			page := pageOf(t, s)
			structure(t, page)
			if c.outcome != "" && string(s.Diff.Outcome) != c.outcome {
				t.Errorf("outcome %s, want %s", s.Diff.Outcome, c.outcome)
			}
			for _, want := range []string{string(s.Diff.Outcome), grouped(s.Diff.Golden.Step), "planted", "Propagation", "The recordings", s.Golden.CommandLine} {
				if !strings.Contains(page, want) {
					t.Errorf("the page does not say %q", want)
				}
			}
			for i, k := range s.Why.Links {
				if i >= chainEnds && i < len(s.Why.Links)-chainEnds {
					continue // it may be left out
				}
				for _, want := range []string{`<section id="chain">`, grouped(k.Step), k.Value, k.Golden, k.Place} {
					if !strings.Contains(page, want) {
						t.Errorf("of the chain the page does not say %q", want)
					}
				}
			}
			if d := s.Diff.Disks[0]; d.First != nil {
				for _, want := range []string{"disk0: " + d.Summary(), d.First.Summary(), d.First.GoldenBytes, d.First.FaultyBytes, grouped(d.First.Golden.Step)} {
					if !strings.Contains(page, want) {
						t.Errorf("of the disk the page does not say %q", want)
					}
				}
			} else if c.name == "torn" {
				t.Error("no first write differs")
			}
			for _, spec := range strings.Fields(c.spec) {
				if !strings.Contains(page, spec) {
					t.Errorf("the page does not say %q", spec)
				}
			}
			// The listing has the divergent instruction, of both, and equal ones before it.
			if first := s.Diff.First; first != nil {
				rows := s.Listings[0].Rows
				i := slices.IndexFunc(rows, func(r Row) bool { return r.Step == first.Step })
				if i < 1 || !slices.Contains(rows[i].Notes, "first divergence") {
					t.Fatalf("no row of step %d: %+v", first.Step, rows)
				}
				g, f := rows[i].Golden[len(rows[i].Golden)-1], rows[i].Faulty[len(rows[i].Faulty)-1]
				if g.RIP != first.Golden.RIP || f.RIP != first.Faulty.RIP || g.Text != first.Golden.Text {
					t.Errorf("row %+v, first divergence %+v", rows[i], first)
				}
				for _, r := range rows[:i] {
					if r.Differ {
						t.Errorf("step %d differs before the first divergence at %d", r.Step, first.Step)
					}
				}
			} else if len(s.Listings) > 0 {
				t.Errorf("listings of no divergence: %+v", s.Listings)
			}
			for i := 1; i < len(s.Life); i++ {
				if s.Life[i].Step < s.Life[i-1].Step {
					t.Errorf("the fault's life goes back: %+v", s.Life)
				}
			}
			// Once more, and from what was opened anew: the same bytes.
			if again := pageOf(t, collect(t, golden, faulty)); again != page {
				t.Error("the second page has other bytes")
			}
		})
	}
	t.Run("equal", func(t *testing.T) {
		page := pageOf(t, collect(t, golden, golden))
		structure(t, page)
		if !strings.Contains(page, "equal, to the last bit") || strings.Contains(page, `id="propagation"`) {
			t.Error("the page does not say that the runs are equal")
		}
	})
	t.Run("unrelated", func(t *testing.T) {
		if _, err := Collect(recorded.Open(t, golden), recorded.Open(t, filepath.Join(dir, "sdc.rec")), Options{Points: 1}); !errors.Is(err, compare.ErrPoints) {
			t.Errorf("%v", err)
		}
	})
}

// TestLife: the page tells of a fault that stays in the machine what was told when it was
// injected, however often the machine went back and forth in between.
func TestLife(t *testing.T) {
	dir := t.TempDir()
	golden := recorded.Golden(t, 12)
	for i, c := range []struct {
		spec string
		want []What
	}{
		{fmt.Sprintf("poison:addr=%#x,size=4,bank=9,times=2,by=kernel-load@step:100000", tiny.Symbol("ticks")), []What{Planted, Consumed, Reported, Delivered, Diverged, Said, Ended}},
		{"poison:addr=0x116000,size=4,bank=9@step:100000", []What{Planted, Gone, Ended}},
		{"poison:addr=0x300000,bank=9,times=1,by=scrubber,scrub=4e9@step:100000", []What{Planted, Met, Reported, Delivered, Diverged, Ended}},
	} {
		t.Run(c.spec, func(t *testing.T) {
			faulty := filepath.Join(dir, fmt.Sprintf("life%d.rec", i))
			notices := inject(t, golden, faulty, c.spec)
			s := collect(t, golden, faulty)
			var got, want []string
			for _, m := range s.Life {
				switch m.What {
				case Met, Consumed, Gone, Reported, Read, Cleared:
					if !strings.HasPrefix(m.Text, "nothing") {
						got = append(got, fmt.Sprintf("%d %s", m.Step, m.Text))
					}
				}
			}
			for _, n := range notices {
				want = append(want, fmt.Sprintf("%d %s", n.Step, n))
			}
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("the page tells of %q, when it was injected it was %q", got, want)
			}
			var life []What
			for _, m := range s.Life {
				if n := len(life); n == 0 || life[n-1] != m.What {
					life = append(life, m.What)
				}
			}
			for _, w := range c.want {
				if !slices.Contains(life, w) {
					t.Errorf("nothing was %s: %+v", w, s.Life)
				}
			}
			structure(t, pageOf(t, s))
		})
	}
}

// evil is what a guest, or whoever named a file, could try.
var evil = []string{
	`</td></tr></table><script>document.title="evil"</script>`, `"><img src=x onerror="document.title='evil'">`, `' onmouseover='x`,
	`<svg onload=alert(1)>`, `]]></style><style>*{display:none}`, `{{.Diff}}{{template "drawing" .}}`, "<!-- --!>", "&lt;&amp;&#60;script&#62;", `javascript:alert(1)`,
	"\x1b[31mred\x1b[0m\x07\b", "nul\x00nul", "\u202egnp.exe", "a\u2028b\u2029c\u200bd\ufeff", "\xff\xfe", "\U000e0041\ufffe\uffff", "</title></svg>",
}

// story is a made-up one whose every text comes from text.
func story(text func() string) *Story {
	at := func(v uint64) *uint64 { return &v }
	run := compare.Run{Dir: text(), Step: 3_000_000_000, Reason: text()}
	ex := compare.Executed{RIP: 0xffff, Symbol: text(), Code: []byte{0x90}, Text: text(), After: text()}
	in := []Instruction{{RIP: 1, Symbol: text(), Text: text(), After: text(), Faulted: true}}
	d := &compare.Report{
		Injected: []compare.InjectedFault{{Step: 1_000_000, Spec: text(), Was: []byte{1}}, {Step: 2_000_000, Spec: text()}},
		First: &compare.Divergence{Step: 1_000_100, Golden: ex, Faulty: ex, Registers: []compare.RegisterDiff{{Name: text(), Golden: text(), Faulty: text()}},
			Words: []compare.WordDiff{{Addr: 5, Golden: 1, Faulty: 2, Owner: text()}}, Devices: []string{text(), text()}},
		Flow:    &compare.Split{Step: 1_000_100, Golden: ex, Faulty: ex, GoldenAt: text(), FaultyAt: text()},
		Outcome: compare.Crash, Why: "x" + text(), Golden: run, Faulty: run, Output: &compare.OutputDiff{Line: 1, FaultyLine: 1, Golden: text(), Faulty: text()},
		Disks: []compare.DiskDiff{{Name: text(), Missing: 1, Note: text(), First: &compare.WriteDiff{Kind: compare.WriteMissing, LBA: 7, Sectors: 1,
			Golden: &compare.Write{Step: 1_200_000, LBA: 7, Sectors: 1}, GoldenBytes: text()}}},
	}
	h := compare.Hunk{GoldenLine: 1, FaultyLine: 1}
	for i := range 20 {
		h.Lines = append(h.Lines, compare.Line{Kind: " -+"[i%3], Golden: i, Faulty: i, Text: text()})
	}
	d.Console = compare.ConsoleDiff{Added: 6, Removed: 6, Hunks: []compare.Hunk{h}}
	s := &Story{Diff: d, GoldenOutput: at(1_500_000), FaultyOutput: at(1_400_000), Listings: []Listing{{Title: text(), Rows: []Row{{Step: 1, Golden: in, Faulty: in, Notes: []string{text()}}}}},
		Curve: &compare.Curve{FaultStep: 1_000_000, EndStep: 3_000_000_000, SplitStep: at(1_000_101)}}
	for i := range 30 {
		s.Curve.Points = append(s.Curve.Points, compare.Point{Step: 1_000_000 + 1<<i, After: 1 << i, Registers: i, Words: i * i * i, Pages: i / 2, Devices: 1, Sectors: i / 9, DeviceNames: []string{text()}})
	}
	for _, w := range []What{Planted, Met, Consumed, Reported, Delivered, Read, Cleared, Diverged, Gone, Wrote, Said, Ended} {
		s.Life = append(s.Life, Moment{Step: 1_000_000, What: w, Text: text(), More: 1})
	}
	link := compare.Link{Step: 1_000_050, Faulty: ex, Place: text(), Golden: text(), Value: text(), Owner: text(), Device: text(),
		From: []compare.Cause{{Place: text(), Kind: compare.Address, Step: at(1_000_020)}, {Place: text(), Kind: compare.Control, Origin: text()}}}
	s.Why = &compare.Explanation{Report: d, Target: "control flow", Links: slices.Repeat([]compare.Link{link}, 90), Joins: []compare.Link{link}, Origin: text(), Note: text(),
		Path: []compare.Frame{{Step: 1_000_200, Symbol: text(), By: text()}, {Step: 1_000_300, Entry: 7}}}
	manifest := func() *traces.Manifest {
		f := traces.File{Path: text(), Size: 1, SHA256: text()}
		return &traces.Manifest{Product: text(), Machine: text(), CPUModel: text(), Kernel: &f, Initrd: &f, Disks: []traces.File{f}, CommandLine: text(), Clock: text(), Parent: text(), Faults: []string{text()}}
	}
	s.Golden, s.Faulty = manifest(), manifest()
	return s
}

// TestHostileText: whatever the texts are, the page has the elements and attributes that it has with harmless ones.
func TestHostileText(t *testing.T) {
	n := 0
	want := structure(t, pageOf(t, story(func() string { n++; return fmt.Sprintf("text %d", n) })))
	for i := range evil {
		n = i
		page := pageOf(t, story(func() string { n++; return fmt.Sprintf("%s.%d", evil[n%len(evil)], n) }))
		if got := structure(t, page); !slices.Equal(got, want) {
			for k := range min(len(got), len(want)) {
				if got[k] != want[k] {
					t.Errorf("from text %d on: element %d is %q, want %q", i, k, got[k], want[k])
					break
				}
			}
		}
		for _, r := range page {
			if r < 0x20 && r != '\n' || r >= 0x7f && r < 0xa0 || strings.ContainsRune("\u202e\u2028\u2029\u200b\ufeff\ufffe\uffff\U000e0041", r) {
				t.Errorf("from text %d on, it has a %U", i, r)
			}
		}
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, µ, 漢字, 🙂": "plain text, µ, 漢字, 🙂", "\x1b[1m": "␛[1m", "a\x00b\x7f": "a␀b␡", "\u202eabc": "\ufffdabc", "a\tb\n": "a b\n",
		"\u0085": "\ufffd", "non\u00a0break": "non\u00a0break", "1\u202f000": "1\u202f000", "\xff": "\ufffd",
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		a    axis
		want string
	}{
		{axis{max: 1, log: true}, "[0 1]"}, {axis{max: 0, log: true}, "[0]"}, {axis{max: 1000, log: true}, "[0 1 10 100 1000]"},
		{axis{max: ^uint64(0), log: true}, "[0 1 10 100 1000 10000 100000 1000000 10000000 100000000 1000000000 10000000000 100000000000 1000000000000 10000000000000 100000000000000 1000000000000000 10000000000000000 100000000000000000 1000000000000000000 10000000000000000000]"},
		{axis{max: 3}, "[0 1 2 3]"}, {axis{max: 60}, "[0 20 40 60]"}, {axis{max: 2945986472}, "[0 500000000 1000000000 1500000000 2000000000 2500000000]"},
	} {
		if got := fmt.Sprint(c.a.ticks()); got != c.want {
			t.Errorf("%+v: %s, want %s", c.a, got, c.want)
		}
	}
	for v, want := range map[uint64]string{0: "0", 999: "999", 1000: "1 k", 2_500_000: "2.5 M", 10_000_000_000: "10 G"} {
		if got := short(v); got != want {
			t.Errorf("%d: %s, want %s", v, got, want)
		}
	}
}

// TestNamesOfLinesDoNotCoverEachOther: lines that end at one height have their names above each other.
func TestNamesOfLinesDoNotCoverEachOther(t *testing.T) {
	for _, n := range []int{0, 1, 5, 100_000} {
		s := story(func() string { return "x" })
		for i := range s.Curve.Points {
			p := &s.Curve.Points[i]
			p.Registers, p.Words, p.Pages, p.Devices, p.Sectors = n+1-i%2, n, n, n, n
		}
		var at []float64
		for _, x := range s.propagation().Texts {
			if x.Class == "value" {
				var y float64
				fmt.Sscan(x.Y, &y)
				at = append(at, y)
			}
		}
		if want := 5; n > 0 && len(at) != want {
			t.Errorf("%d names, want %d", len(at), want)
		}
		for i := 1; i < len(at); i++ {
			if at[i]-at[i-1] < 15 && at[i-1]-at[i] < 15 {
				t.Errorf("with %d: names at %v", n, at)
			}
		}
		for _, y := range at {
			if y < 40 || y > 360 {
				t.Errorf("with %d: a name at %v", n, y)
			}
		}
	}
}

func TestConsoleIsBounded(t *testing.T) {
	h := compare.Hunk{}
	for i := range 5000 {
		h.Lines = append(h.Lines, compare.Line{Kind: '-', Golden: i + 1, Text: fmt.Sprint(i)})
	}
	all, more := console([]compare.Hunk{h})
	if len(all) != 2*runEnds+2 || more != 0 || all[runEnds+1].Text != fmt.Sprintf("… %d lines …", 5000-2*runEnds) || all[len(all)-1].Text != "4999" || all[runEnds+2].Text != fmt.Sprint(5000-runEnds) {
		t.Errorf("%d lines: %+v", len(all), all)
	}
	for i := range h.Lines {
		h.Lines[i].Kind = "-+"[i%2]
	}
	if all, more := console([]compare.Hunk{h}); len(all) != consoleMax || more != 5001-consoleMax {
		t.Errorf("%d lines, %d more", len(all), more)
	}
}

func TestDifferentBits(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"0x00", "0x80", "bit 7"}, {"0x0000", "0x8001", "bits 0, 15"}, {"0xffff", "0x0000", "16 bits"}, {"0x0", "0x1", ""}, {"", "x", ""},
	} {
		if got := differentBits(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %q, want %q", c.a, c.b, got, c.want)
		}
	}
}
