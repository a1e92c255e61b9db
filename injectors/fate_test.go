package injectors

import "testing"

// TestFate: what became of faults in memory, as the trials of a campaign tell it.
func TestFate(t *testing.T) {
	p := golden(t)
	if err := p.Seek(100_000); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		specs []string
		want  Fate
	}{
		{[]string{"mem:addr=$ticks,bit=30,track=yes@step:100000"}, Consumed},
		{[]string{"mem:addr=0x116000,bit=3,track=yes@step:100000"}, Overwritten},
		{[]string{"mem:addr=0x300000,bit=3,track=yes@step:100000"}, Untouched},
		{[]string{"mem:addr=0x300000,bit=3,track=yes@step:100000", "mem:addr=0x116000,bit=3,track=yes@step:100000"}, Overwritten},
		{[]string{"poison:addr=0x116000,size=4,bank=9@step:100000"}, Overwritten},
		{[]string{"poison:addr=$ticks,size=4,bank=9,times=1,by=kernel-load@step:100000"}, Consumed},
		{[]string{"mem:addr=0x300000,bit=3@step:100000"}, ""},
		{[]string{"reg:name=rax,bit=3@step:100000"}, ""},
	} {
		faults := parseAll(t, c.specs)
		trial, err := Try(p, faults, 300_000)
		if err != nil {
			t.Fatalf("%q: %v", c.specs, err)
		}
		if got := trial.Fate(faults); got != c.want {
			t.Errorf("%q: %q, want %q", c.specs, got, c.want)
		}
	}
}
