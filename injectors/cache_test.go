package injectors

import (
	"fmt"
	"strings"
	"testing"

	"refault/test/recorded"
	"refault/test/tiny"
	"refault/vmm"
)

// story injects a flip into a cache and returns what the injector told of it, and the run.
func story(t *testing.T, keys string) (string, *outcome) {
	t.Helper()
	o := inject(t, "cache:"+keys+"@step:100000")
	var s []string
	for _, n := range o.notices {
		if n.Kind == vmm.DefectCache {
			s = append(s, n.What)
		}
	}
	return strings.Join(s, "; "), o
}

// offsetOf is the offset in a direct-mapped cache of some size of the line that holds an address of the tiny guest.
func offsetOf(size uint64, symbol string, plus uint64) uint64 {
	return (tiny.Symbol(symbol) + plus) % size
}

func TestCache(t *testing.T) {
	// One way as large as the guest's memory: each address has its own place, and nothing is ever displaced.
	const all = "size=4194304,ways=1,warm=100000,"
	at := func(symbol string, plus uint64) string {
		return fmt.Sprintf("offset=%d,", offsetOf(4<<20, symbol, plus))
	}
	golden := strings.ReplaceAll(string(golden(t).RecordedConsole()), "\r\n", "\n")
	for _, tt := range []struct {
		name, keys string
		story      string
		same       bool
	}{
		{"empty line", all + "offset=4190208", "hit an empty line", true},
		{"dirty, parity", all + at("done", 0) + "bank=9,bit=3", "hit a dirty line, uncorrectable", false},
		{"dirty, ECC, one bit", all + at("done", 0) + "bit=3,protect=ecc", "hit a dirty line, correctable; corrected on use", true},
		{"dirty, ECC, two bits", all + at("done", 0) + "bank=9,bit=3+4,protect=ecc", "hit a dirty line, uncorrectable", false},
		{"dirty, nothing", all + at("acc", 6) + "bit=3,protect=none", "hit a dirty line, unnoticed", false},
		{"dirty, parity, two bits of a byte", all + at("acc", 6) + "bit=3+4", "hit a dirty line, unnoticed", false},
		{"clean, parity", all + at("sources", 1) + "bit=0", "hit a clean line, uncorrectable; found in a clean line, which is fetched again", true},
		{"clean, nothing", all + at("sources", 1) + "bit=0,protect=none", "hit a clean line, unnoticed", false},
		{"scrubber in time", all + at("sources", 1) + "bit=0,scrub=10us", "hit a clean line, uncorrectable; found by the scrubber in time", true},
		// A small cache, in which nothing stays for long.
		{"displaced", "size=512,ways=2,warm=100001,offset=0,bit=0,protect=ecc", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, o := story(t, tt.keys)
			if tt.story != "" && !strings.HasPrefix(got, tt.story) || got == "" {
				t.Errorf("%s: %q, want %q", tt.keys, got, tt.story)
			}
			if same := o.said() == golden; same != tt.same {
				t.Errorf("%s (%s): console %q", tt.keys, got, o.said()[:min(len(o.said()), 200)])
			}
		})
	}
	for keys, want := range map[string]string{
		"offset=99999999":    "is beyond",
		"size=1000,offset=0": "do not make a cache",
		"ways=0,offset=0":    "do not make a cache",
		"offset=0,bank=20":   "bank 20 of 20",
		"offset=63,bit=8":    "beyond the line",
		"offset=0,bit=x":     "not a whole number",
	} {
		inj, err := Inject(recorded.Open(t, goldenDir), t.TempDir()+"/f", parseAll(t, []string{"cache:" + keys + "@step:1000"}), often, tinyDisk())
		if err == nil {
			_, err = inj.Run()
			inj.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", keys, err, want)
		}
	}
}

// A flip in a clean line that nothing protects is gone when the line is: what was calculated with it stays.
func TestCacheForgets(t *testing.T) {
	seen := map[string]int{}
	for slot := range 8 {
		got, _ := story(t, fmt.Sprintf("size=4096,ways=4,warm=100000,offset=%d,bit=0,protect=none", 512*slot+8))
		parts := strings.Split(got, "; ")
		seen[parts[len(parts)-1]]++
	}
	if seen["gone with its clean line"]+seen["written back"]+seen["in a line that is dirty now"] < 6 {
		t.Errorf("%v", seen)
	}
}
