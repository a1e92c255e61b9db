package injectors

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"refault/test/recorded"
	"refault/test/tiny"
	"refault/vmm/ecc"
)

// bitsThat returns n data bits, the first of them high, of which the decoder thinks what is asked for.
func bitsThat(t *testing.T, n int, want ecc.Verdict) string {
	t.Helper()
	var pick func(from int, data uint64, bits []string) string
	pick = func(from int, data uint64, bits []string) string {
		if len(bits) == n {
			if v, _ := ecc.Judge(ecc.Encode(data)); v == want {
				return strings.Join(bits, "+")
			}
			return ""
		}
		for b := from; b >= 0; b-- {
			if s := pick(b-1, data|1<<b, append(slices.Clone(bits), fmt.Sprint(b))); s != "" {
				return s
			}
		}
		return ""
	}
	s := pick(51, 0, nil)
	if s == "" {
		t.Fatalf("no %d bits are %v", n, want)
	}
	return s
}

func TestECC(t *testing.T) {
	acc := fmt.Sprintf("ecc:addr=%#x,bank=9,bit=", tiny.Symbol("acc"))
	const spare = "ecc:addr=0x300000,bank=9,bit="
	golden := strings.ReplaceAll(string(golden(t).RecordedConsole()), "\r\n", "\n")
	const at = "@step:100000"
	for _, tt := range []struct {
		name   string
		specs  []string
		what   string // the first notice
		same   bool   // the guest ends as ever
		checks bool
	}{
		{"one bit", []string{acc + "51" + at}, "corrected", true, false},
		{"a check bit", []string{acc + "70" + at}, "corrected", true, false},
		{"two bits", []string{acc + "51+3" + at}, "consumed by a load of the kernel", false, true},
		{"three bits, miscorrected", []string{acc + bitsThat(t, 3, ecc.Corrected) + at}, "taken for one wrong bit and made worse", false, false},
		{"three bits, detected", []string{acc + bitsThat(t, 3, ecc.Uncorrectable) + at}, "consumed by a load of the kernel", false, true},
		{"four bits, unnoticed", []string{acc + bitsThat(t, 4, ecc.Good) + at}, "read, wrong, and unnoticed", false, false},
		{"scrubber, one bit", []string{spare + "5,scrub=4e9" + at}, "corrected by the scrubber", true, false},
		{"scrubber, two bits", []string{spare + "5+6,scrub=4e9" + at}, "found by the scrubber", false, true},
		{"two flips, one by one", []string{spare + "5,scrub=4e9" + at, spare + "6,scrub=4e9" + at + "@+10"}, "found by the scrubber", false, true},
		{"two flips, scrubbed in between", []string{spare + "5,scrub=4e9" + at, spare + "6,scrub=4e9" + at + "@+5ms"}, "corrected by the scrubber", true, false},
		{"flipped back", []string{spare + "5,scrub=4e9" + at, spare + "5,scrub=4e9" + at + "@+10"}, "", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := inject(t, tt.specs...)
			got := append(whats(o.lives(t)), "")[0]
			if got != tt.what {
				t.Errorf("%q: lives %q, want %q", tt.specs, whats(o.lives(t)), tt.what)
			}
			if same := o.said() == golden; same != tt.same {
				t.Errorf("%q: console %q", tt.specs, o.said())
			}
			if strings.Contains(o.said(), "M") != tt.checks {
				t.Errorf("%q: console %q", tt.specs, o.said()[:min(len(o.said()), 100)])
			}
		})
	}
	t.Run("held", func(t *testing.T) {
		o := inject(t, acc+"51,hold=yes"+at)
		if n := len(o.lives(t)); n < 10 || o.said() != golden {
			t.Errorf("corrected %d times, console %q", n, o.said())
		}
		if err := o.Seek(o.End()); err != nil {
			t.Fatal(err)
		}
		if status, addr, _ := o.Machine().ReadBank(0, 9); status>>38&0x7fff < 10 || status&0xffff != 0x9f || addr != tiny.Symbol("acc")&^7 {
			t.Errorf("bank: status %#x, address %#x", status, addr)
		}
	})
	for spec, want := range map[string]string{"ecc:addr=0x300000,bit=72": "bits 0 to 71", "ecc:addr=0x300000,bit=3+3": "there twice", "ecc:addr=0x300000,bit=3,bank=99": "bank 99 of 20"} {
		inj, err := Inject(recorded.Open(t, goldenDir), t.TempDir()+"/f", parseAll(t, []string{spec + at}), often, tinyDisk())
		if err == nil {
			_, err = inj.Run()
			inj.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", spec, err, want)
		}
	}
}
