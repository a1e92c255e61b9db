package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"refault/compare"
)

// goldenAndFaulty records the tiny guest, and again with a fault.
func goldenAndFaulty(t *testing.T, fault string) (g, f string) {
	t.Helper()
	dir, g := golden(t)
	f = filepath.Join(dir, "faulty.rec")
	must(t, "inject", g, "-o", f, "--max-steps", "2e6", "--fault", fault)
	return g, f
}

func TestPropagationVerb(t *testing.T) {
	g, f := goldenAndFaulty(t, "reg:name=rcx,bit=1@step:200001")
	var c compare.Curve
	if err := json.Unmarshal([]byte(must(t, "propagation", g, f, "--points", "20", "--json")), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Points) < 15 || c.FaultStep != 200_001 || c.Points[0].Registers != 1 || c.SplitStep == nil {
		t.Errorf("%+v", c)
	}
	rows, err := csv.NewReader(strings.NewReader(must(t, "propagation", g, f, "--points", "20", "--csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(c.Points)+1 || strings.Join(rows[0], ",") != "step,steps_after_fault,registers,words,pages,devices,sectors,same_place" {
		t.Fatalf("%d rows for %d points: %q", len(rows), len(c.Points), rows[0])
	}
	for i, p := range c.Points {
		if r := rows[i+1]; r[0] != strconv.FormatUint(p.Step, 10) || r[3] != strconv.Itoa(p.Words) || r[7] != strconv.FormatBool(p.SamePlace) {
			t.Errorf("row %q, point %+v", r, p)
		}
	}
	text := must(t, "propagation", g, f, "--points", "20")
	if strings.Count(text, "control flow has split") != 1 || !strings.Contains(text, "+"+grouped(c.EndStep-c.FaultStep)) || !strings.Contains(text, "█") {
		t.Errorf("%s", text)
	}
	if n := strings.Count(text, "\n"); n < len(c.Points)+len(compare.Series) {
		t.Errorf("%d lines for %d points:\n%s", n, len(c.Points), text)
	}
	// Nothing at all differs.
	if text := must(t, "propagation", g, g); !strings.Contains(text, "never split") || strings.Contains(text, "█") {
		t.Errorf("%s", text)
	}
}

func TestSparkline(t *testing.T) {
	words := func(p *compare.Point) int { return p.Words }
	c := &compare.Curve{}
	if got := sparkline(c, words); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	for _, n := range []int{0, 1, 10, 100, 1000} {
		c.Points = append(c.Points, compare.Point{Words: n})
	}
	if got := sparkline(c, words); got != ".▁▃▅█" {
		t.Errorf("%q", got)
	}
	// Of many points, each character is the highest of its own, and none is lost.
	c.Points = make([]compare.Point, 1000)
	c.Points[999].Words, c.Points[500].Words = 5, 1
	if got := []rune(sparkline(c, words)); len(got) != sparkWidth || got[sparkWidth-1] != '█' || got[32] == '.' || got[31] != '.' {
		t.Errorf("%q", string(got))
	}
}

func TestExpect(t *testing.T) {
	g, f := goldenAndFaulty(t, "mem:addr=0x3f0000,bit=1@step:200000")
	for _, c := range []struct {
		expect string
		status int
	}{{"latent", statusDone}, {"masked", statusDifferent}, {"masked,latent", statusDone}, {"sdc,crash", statusDifferent}} {
		if status, out, err := refault(t, "diff", g, f, "--expect", c.expect); status != c.status || !strings.Contains(out, "outcome       latent") || err != "" {
			t.Errorf("--expect %s: status %d: %s%s", c.expect, status, out, err)
		}
		if status, out, _ := refault(t, "diff", g, f, "--json", "--expect", c.expect); status != c.status || !strings.Contains(out, `"outcome": "latent"`) {
			t.Errorf("--expect %s --json: status %d: %s", c.expect, status, out)
		}
	}
	if status, out, _ := refault(t, "diff", g, g, "--expect", "sdc"); status != statusDifferent || !strings.Contains(out, "equal") {
		t.Errorf("equal runs: status %d: %s", status, out)
	}
	for _, unknown := range []string{"fine", "masked,fine", ""} {
		status, out, err := refault(t, "diff", g, f, "--expect="+unknown)
		if status != statusCouldNot || out != "" || strings.Count(err, "\n") != 1 || !strings.Contains(err, strconv.Quote(strings.TrimPrefix(unknown, "masked,"))) || !strings.Contains(err, "masked, corrected, latent, recovered, hang, crash, sdc") {
			t.Errorf("--expect %s: status %d: %s%s", unknown, status, out, err)
		}
	}
}

func TestInjectExpects(t *testing.T) {
	dir, g := golden(t)
	const fault = "mem:addr=0x3f0000,bit=1@step:200000"
	for i, c := range []struct {
		expect string
		status int
	}{{"latent", statusDone}, {"masked,latent", statusDone}, {"crash", statusDifferent}} {
		out := filepath.Join(dir, strconv.Itoa(i)+".rec")
		if status, _, err := refault(t, "inject", g, "-o", out, "--fault", fault, "--expect", c.expect); status != c.status || !strings.Contains(err, "outcome latent: ") {
			t.Errorf("--expect %s: status %d: %s", c.expect, status, err)
		}
		if status, j, _ := refault(t, "inject", g, "-o", out+"2", "--fault", fault, "--json", "--expect", c.expect); status != c.status || !strings.Contains(j, `"outcome": "latent"`) {
			t.Errorf("--expect %s --json: status %d: %s", c.expect, status, j)
		}
	}
	out := filepath.Join(dir, "never.rec")
	if status, _, err := refault(t, "inject", g, "-o", out, "--fault", fault, "--expect", "fine"); status != statusCouldNot || !strings.Contains(err, `no outcome "fine"`) {
		t.Errorf("status %d: %s", status, err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("something was recorded before the mistake was seen")
	}
	// A trigger that never came is no outcome of the fault.
	if status, _, err := refault(t, "inject", g, "-o", out, "--fault", "mem:addr=0x3f0000,bit=1@step:5e9", "--expect", "masked"); status != statusCouldNot {
		t.Errorf("a trigger that never came: status %d: %s", status, err)
	}
}

func TestPropagationErrors(t *testing.T) {
	g, _ := goldenAndFaulty(t, "mem:addr=0x3f0000,bit=1@step:200000")
	dir, flags := guestFiles(t)
	other := filepath.Join(dir, "other.rec")
	must(t, append([]string{"record", "-o", other, "-q", "--max-steps", "1000"}, append(flags, "--memory", "8M")...)...)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"it needs GOLDEN FAULTY", []string{g}},
		{"--points is 1", []string{g, g, "--points", "1"}},
		{"--points is -3", []string{g, g, "--points=-3"}},
		{"--points is 100001", []string{g, g, "--points=100001"}},
		{"exclude each other", []string{g, g, "--json", "--csv"}},
		{"no such file", []string{g, g + "x"}},
		{"no such file", []string{g + "x", g}},
		{"different machines", []string{g, other}},
	} {
		status, out, err := refault(t, append([]string{"propagation"}, c.args...)...)
		if status != statusCouldNot || out != "" || strings.Count(err, "\n") != 1 || !strings.Contains(err, c.want) {
			t.Errorf("%q: status %d: %s%s", c.args, status, out, err)
		}
	}
}
