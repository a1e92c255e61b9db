//go:build linux && amd64

package oracle

import (
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"regexp"
	"slices"
	"sort"
	"testing"
	"time"

	"refault/vmm/x86"
	"refault/vmm/x86/fpu"
)

var (
	seedFlag     = flag.Uint64("oracle.seed", 1, "seed of the generated instructions")
	casesFlag    = flag.Int("oracle.n", 100, "cases of each form")
	durationFlag = flag.Duration("oracle.duration", 0, "go on with other seeds for this long; REFAULT_SOAK sets it too")
	runFlag      = flag.String("oracle.run", "", "regular expression that picks forms by name")
	caseFlag     = flag.Uint64("oracle.case", 0, "run the case of this seed only")
	listFlag     = flag.Bool("oracle.v", false, "print how often each form was compared")
)

// maxReports bounds the failures reported of one form.
const maxReports = 3

// tally counts what became of the cases of a form.
type tally struct {
	tried, equal, faults, skipped, failed int
	why                                   map[string]int
}

func TestInterpreterAgainstTheProcessor(t *testing.T) {
	againstTheProcessor(t, newTestBench(t, false), []int{8, 4})
}

// The translator is for 64-bit code only.
func TestTranslatorAgainstTheProcessor(t *testing.T) {
	b := newTestBench(t, true)
	againstTheProcessor(t, b, []int{8})
	if *runFlag == "" && *caseFlag == 0 && b.g.jit.Stats.Enters == 0 {
		t.Error("no generated code was entered")
	}
}

// The interpreter as it is where it cannot have the host's unit execute floating-point and vector instructions.
func TestSoftwareAgainstTheProcessor(t *testing.T) {
	b := newTestBench(t, false)
	if err := b.g.c.FPU.Close(); err != nil {
		t.Fatal(err)
	}
	b.g.c.FPU = fpu.NewSoftware()
	b.only = x86.IsFPU | x86.IsMMX | x86.IsSSE
	againstTheProcessor(t, b, []int{8})
}

func newTestBench(t *testing.T, translate bool) *bench {
	t.Helper()
	if m := missing(); m != "" {
		t.Skipf("this processor has no %s", m)
	}
	b, err := newBench(translate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func againstTheProcessor(t *testing.T, b *bench, modes []int) {
	if f := b.fault(8, []byte{0xf3, 0x0f, 0xae, 0xc8}); f.Raised { // rdgsbase eax
		t.Log("RDGSBASE is not compared: the host's kernel has not enabled it")
		b.noBase = true
	}
	if f := b.fault(4, []byte{0x90}); f.Raised {
		t.Log("32-bit code is not compared: the host's kernel has no segment for it")
		modes = []int{8}
	}
	pick, err := regexp.Compile(*runFlag)
	if err != nil {
		t.Fatal(err)
	}
	tallies := make(map[uint16]*tally)
	duration := *durationFlag
	if v := os.Getenv("REFAULT_SOAK"); v != "" && duration == 0 {
		if duration, err = time.ParseDuration(v); err != nil {
			t.Fatalf("REFAULT_SOAK: %v", err)
		}
	}
	end := time.Now().Add(duration)
	for seed := *seedFlag; ; seed++ {
		for form := range x86.Forms() {
			form := uint16(form)
			if excludedForm(form) != "" || b.noBase && x86.Forms()[form].Op == x86.OpRDGSBASE || !pick.MatchString(formName(form)) {
				continue
			}
			if b.only != 0 && x86.Forms()[form].Attr&b.only == 0 {
				continue
			}
			if tallies[form] == nil {
				tallies[form] = &tally{why: map[string]int{}}
			}
			for _, mode := range modes {
				b.runForm(t, form, mode, seed, tallies[form])
			}
		}
		if t.Failed() || !time.Now().Before(end) {
			break
		}
	}
	summarise(t, tallies)
}

// caseSeed derives the seed of the i-th case of a form; nothing but its arguments goes into it.
func caseSeed(seed uint64, form uint16, mode, i int) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, seed, formName(form), mode, i)
	return h.Sum64() | 1
}

func (b *bench) runForm(t *testing.T, form uint16, mode int, seed uint64, n *tally) {
	if a := x86.Forms()[form].Attr; mode == 8 && a&x86.No64 != 0 || mode != 8 && a&x86.Only64 != 0 {
		return
	}
	for i := range *casesFlag {
		s := caseSeed(seed, form, mode, i)
		if *caseFlag != 0 {
			s = *caseFlag
		}
		c, ok := generate(form, mode, s)
		n.tried++
		if !ok {
			continue
		}
		switch r, diffs, why := b.run(c); r {
		case equal:
			n.equal++
		case equalFault:
			n.faults++
		case skipped:
			n.skipped++
			n.why[why]++
		case different:
			if n.failed++; n.failed <= maxReports {
				small, diffs := b.shrink(c, diffs)
				t.Error(small.report(diffs))
			}
		}
		if *caseFlag != 0 {
			break
		}
	}
}

func summarise(t *testing.T, tallies map[uint16]*tally) {
	total := tally{why: map[string]int{}}
	var never []string
	for form := range x86.Forms() {
		form := uint16(form)
		n := tallies[form]
		if n == nil {
			continue
		}
		total.tried += n.tried
		total.equal += n.equal
		total.faults += n.faults
		total.skipped += n.skipped
		for why, k := range n.why {
			total.why[why] += k
		}
		total.failed += n.failed
		if *listFlag {
			t.Logf("%-40s %5d tried %5d equal %5d equal exceptions %5d skipped %v %5d different", formName(form), n.tried, n.equal, n.faults, n.skipped, n.why, n.failed)
		}
		if n.tried > 0 && n.equal+n.faults == 0 {
			never = append(never, formName(form))
		}
	}
	t.Logf("%d cases: %d equal, %d equal exceptions, %d not run on the processor, %d different", total.tried, total.equal, total.faults, total.skipped, total.failed)
	for _, why := range slices.Sorted(maps.Keys(total.why)) {
		t.Logf("%7d not run: %s", total.why[why], why)
	}
	sort.Strings(never)
	for _, n := range never {
		if *caseFlag == 0 {
			t.Errorf("form never compared: %s", n)
		}
	}
}
