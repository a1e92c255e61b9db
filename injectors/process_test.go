package injectors

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"refault/vmm"
)

// The gaps of each distribution have its mean and variance.
func TestDistributions(t *testing.T) {
	for _, tt := range []struct {
		text           string
		mean, variance float64
	}{
		{"exp/1000", 1000, 1000 * 1000},
		{"weibull/1/1000", 1000, 1000 * 1000},
		{"weibull/2/1000", 1000 * math.Gamma(1.5), 1e6 * (1 - math.Gamma(1.5)*math.Gamma(1.5))},
		{"weibull/0.7/1ms", 1e6 * math.Gamma(1+1/0.7), 1e12 * (math.Gamma(1+2/0.7) - math.Pow(math.Gamma(1+1/0.7), 2))},
		{"gamma/2/1000", 2000, 2e6},
		{"gamma/0.5/1000", 500, 0.5e6},
		{"lognormal/1000/0.5", 1000 * math.Exp(0.125), 1e6 * (math.Exp(0.25) - 1) * math.Exp(0.25)},
	} {
		c, err := parseGaps(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		const n = 200_000
		state := uint64(1)
		var sum, squares float64
		for i := range uint64(n) {
			g, ok := c.(*onGaps).draw(&state, i)
			if !ok || g < 0 {
				t.Fatalf("%s: gap %v", tt.text, g)
			}
			sum += g
			squares += g * g
		}
		mean := sum / n
		variance := squares/n - mean*mean
		if math.Abs(mean/tt.mean-1) > 0.02 || math.Abs(variance/tt.variance-1) > 0.06 {
			t.Errorf("%s: mean %.0f, variance %.0f, want %.0f, %.0f", tt.text, mean, variance, tt.mean, tt.variance)
		}
	}
}

func TestGaps(t *testing.T) {
	o := inject(t, flip+",times=0,seed=3@gaps:exp/20000")
	p := inject(t, flip+",times=0,seed=3@gaps:exp/20000")
	if n := len(o.faults); n < 25 || n > 90 || len(p.faults) != n {
		t.Fatalf("%d and %d faults in about 1.03 million steps", n, len(p.faults))
	}
	for i := range o.faults {
		if o.faults[i].Step != p.faults[i].Step {
			t.Errorf("fault %d is at step %d, and with the same seed at %d", i, o.faults[i].Step, p.faults[i].Step)
		}
	}
	path := filepath.Join(t.TempDir(), "gaps")
	if err := os.WriteFile(path, []byte("# of the field\n1000\n500\n\n2e4 # the last\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	q := inject(t, flip+",times=0@step:1000@gaps:file/"+path)
	var steps []uint64
	for _, e := range q.faults {
		steps = append(steps, e.Step)
	}
	if fmt.Sprint(steps) != "[2000 2500 22500]" {
		t.Errorf("gaps of a file: at steps %d", steps)
	}
	if r := inject(t, flip+",times=3@gaps:weibull/0.7/200us"); len(r.faults) != 3 {
		t.Errorf("in time: %d faults", len(r.faults))
	}
}

func TestDraws(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addresses")
	if err := os.WriteFile(path, []byte("0x300000\n0x300100\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	draws := func(value string) (all []*vmm.Event) {
		t.Helper()
		return inject(t, "mem:addr="+value+",bit=~uniform:0..7,times=12,seed=9@step:1000000/100").faults
	}
	seen := map[uint64]bool{}
	for _, e := range draws("~uniform:0x300000..0x3fffff") {
		if e.Fault.Addr < 0x300000 || e.Fault.Addr > 0x3fffff {
			t.Errorf("uniform: %#x", e.Fault.Addr)
		}
		seen[e.Fault.Addr] = true
	}
	if len(seen) < 10 {
		t.Errorf("12 draws gave %d addresses", len(seen))
	}
	for _, e := range draws("~cluster:0x380000..64") {
		if d := int64(e.Fault.Addr) - 0x380000; d < -400 || d > 400 {
			t.Errorf("cluster: %d from its centre", d)
		}
	}
	for _, e := range draws("~file:" + path) {
		if e.Fault.Addr != 0x300000 && e.Fault.Addr != 0x300100 {
			t.Errorf("file: %#x", e.Fault.Addr)
		}
	}
	for _, e := range draws("~one:0x300000|0x300008") {
		if e.Fault.Addr|8 != 0x300008 {
			t.Errorf("one: %#x", e.Fault.Addr)
		}
	}
	// 2 KiB rows in 8 banks.
	for part, mask := range map[string]uint64{"row": ^uint64(2047), "column": 1<<14 - 1, "bank": 7 << 11} {
		f, err := Parse("mem:addr=~dram:" + part + "/colbits=11/bankbits=3,bit=0,seed=1@step:1")
		if err != nil {
			t.Fatal(err)
		}
		m := golden(t).Machine()
		state := uint64(5)
		same, values := map[uint64]bool{}, map[uint64]bool{}
		for range 50 {
			a, err := f.drawn(&state, m)
			if err != nil {
				t.Fatal(err)
			}
			same[a.Uint("addr")&mask], values[a.Uint("addr")] = true, true
		}
		if len(same) != 1 || len(values) < 20 {
			t.Errorf("%s: %d of them, %d addresses", part, len(same), len(values))
		}
	}
}

// The rate of faults depends on how often a page is used.
func TestRatePerAccess(t *testing.T) {
	o := inject(t, "mem:addr=0x300000,bit=0,times=0,p=0.01,seed=4@access:phys:0x200000/4096")
	if n := len(o.faults); n < 2 || n > 60 {
		t.Errorf("%d faults", n)
	}
}

const plan = `
seed: 42
faults:
  - kind: mem            # a flip
    addr: 0x300000
    bit: ~uniform:0..7
    times: 3
    at: step:1000/1000
  - kind: mem
    addr: 0x300010
    bit: 1
    id: second
    at: ["step:5000", "+77"]
  - fault: mem:addr=0x300020,bit=0@after:second@+5
`

func TestPlan(t *testing.T) {
	fs, err := ParsePlan("plan.yaml", []byte(plan))
	if err != nil {
		t.Fatal(err)
	}
	var specs []string
	for _, f := range fs {
		specs = append(specs, f.String())
	}
	want := []string{"mem:addr=0x300000,bit=~uniform:0..7,times=3@step:1000/1000", "mem:addr=0x300010,bit=1,id=second@step:5000@+77", "mem:addr=0x300020,bit=0@after:second@+5"}
	if fmt.Sprint(specs) != fmt.Sprint(want) {
		t.Errorf("the plan says %q", specs)
	}
	o := inject(t, specs...)
	if len(o.faults) != 5 || o.faults[4].Step != 5082 {
		t.Errorf("%d faults, the last at %d", len(o.faults), o.faults[len(o.faults)-1].Step)
	}
	for text, want := range map[string]string{
		"":                                     "a plan is a mapping",
		"faults: 5":                            "faults is a list",
		"seed: x\nfaults: []":                  "seed:",
		"sede: 5":                              "did you mean seed?",
		"faults: []":                           "no faults",
		"faults:\n  - 5":                       "a fault is a mapping",
		"faults:\n  - {kind: mem}":             "no key at",
		"faults:\n  - {at: 'step:5'}":          "no key kind",
		"faults:\n  - {kind: mem, at: {a: b}}": "no plain value",
		"faults:\n  - {kind: mem, addr: '5,6', at: 'step:1'}":           "no comma",
		"faults:\n  - {kind: mem, adr: 5, at: 'step:1'}":                "did you mean addr?",
		"faults:\n  - {kind: mem, addr: 5, bit: 0, at: 'stp:1'}":        "plan.yaml:2: fault",
		"faults:\n  - {fault: 'mem:addr=5,bit=0@step:1', at: 'step:1'}": "no other keys",
		"faults:\n  - {kind: mem, at: [[1]]}":                           "a list of triggers",
		"a: [":                                                          "plan.yaml:",
	} {
		_, err := ParsePlan("plan.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	if _, err := ReadPlan(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a plan that is not there")
	}
	for spec, want := range map[string]string{
		flip + "@gaps:exp":                                "takes 1 parameters",
		flip + "@gaps:exq/5":                              "did you mean exp?",
		flip + "@gaps:exp/0ms":                            "neither a number of instructions nor a time",
		flip + "@gaps:weibull/-1/5":                       "not a positive number",
		"mem:addr=~nothing,bit=0@step:5":                  "nothing that can be drawn",
		"mem:addr=~uniform:9..3,bit=0@step:5":             "ends before it begins",
		"mem:addr=~uniform:9,bit=0@step:5":                "needs two numbers",
		"mem:addr=~dram:chip,bit=0@step:5":                "a row, a column or a bank",
		"mem:addr=~dram:row/colbits=99,bit=0@step:5":      "is no option",
		"mem:addr=0x100,bit=0,times=~uniform:1..5@step:5": "cannot be drawn",
		"mem:addr=~file:/nonexistent,bit=0@step:5":        "no such file",
	} {
		if _, err := Parse(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", spec, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{flip + "@step:5", "poison:vaddr=a+5,by=dma+walk@console:x#2@+5ms", "mem:addr=~one:1|2,bit=3+4@gaps:gamma/2/5ms", "ata:error=unc@io:5+3,drive=1#7"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "file") {
			return // which it would open
		}
		if x, err := Parse(s); err == nil {
			if x.String() != s {
				t.Errorf("%q reads back as %q", s, x)
			}
			x.Bind(nil)
		}
	})
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(plan))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !strings.Contains(string(b), "file") {
			ParsePlan("plan", b)
		}
	})
}
