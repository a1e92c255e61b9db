package injectors

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"refault/test/tiny"
	"refault/vmm"
	"refault/vmm/x86"
)

// flip is a fault that does no harm to the tiny guest: a bit of its memory that it does not use.
const flip = "mem:addr=0x300000,bit=0"

func TestTriggers(t *testing.T) {
	g := golden(t)
	at := func(p interface {
		Seek(uint64) error
		Machine() *vmm.Machine
	}, step uint64) *x86.CPU {
		t.Helper()
		if err := p.Seek(step); err != nil {
			t.Fatal(err)
		}
		return p.Machine().CPUs[0]
	}
	word := func(c *x86.CPU, pa uint64) uint32 {
		var b [4]byte
		if !c.RAM.ReadAt(b[:], pa) {
			t.Fatal("not RAM")
		}
		return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	}
	for _, tt := range []struct {
		when  string
		check func(c *x86.CPU, o *outcome) string
	}{
		{"step:123456", func(c *x86.CPU, _ *outcome) string { return is(c.Step, 123456) }},
		{fmt.Sprintf("exec:%#x", tinySources), func(c *x86.CPU, _ *outcome) string {
			return is(c.Regs[x86.RIP], tinySources) + is(word(c, tinyDone), 0)
		}},
		{fmt.Sprintf("exec:%#x#5", tinySources), func(c *x86.CPU, _ *outcome) string {
			return is(c.Regs[x86.RIP], tinySources) + is(word(c, tinyDone), 4)
		}},
		// The first instruction of a handler: behind it, since its delivery has the same step.
		{fmt.Sprintf("exec:%#x#2", tinyFault), func(c *x86.CPU, _ *outcome) string { return is(c.Regs[x86.RIP], tinyFault+1) }},
		{"vector:pf#3", func(c *x86.CPU, _ *outcome) string { return is(c.Regs[x86.RIP], tinyFault+1) }},
		{"vector:0x20#4", func(c *x86.CPU, _ *outcome) string { return is(c.Regs[x86.RIP], tinyTimer+1) }},
		{fmt.Sprintf("write:phys:%#x/4#7", tinyDone), func(c *x86.CPU, _ *outcome) string { return is(word(c, tinyDone), 7) }},
		{fmt.Sprintf("write:%#x/4#7", tinyDone), func(c *x86.CPU, _ *outcome) string { return is(word(c, tinyDone), 7) }},
		{fmt.Sprintf("read:phys:%#x/4#2", tinyTicks), func(c *x86.CPU, _ *outcome) string { return "" }},
		{fmt.Sprintf("access:%#x#2", tinyTicks), func(c *x86.CPU, _ *outcome) string { return "" }},
		{`console:\.$#2`, func(c *x86.CPU, o *outcome) string {
			return is(strings.Count(string(o.RecordedConsole()[:o.Machine().Out()]), "."), 1) // once a line
		}},
		{"ioread:7#1", func(c *x86.CPU, _ *outcome) string { return is(word(c, tinyDone), 1) + is(c.Regs[x86.RAX]&0xff, 0x20) }},
		{"iowrite:128+2#2", func(c *x86.CPU, _ *outcome) string { return is(word(c, tinyDone), 1) + is(c.Regs[x86.RAX]&0xff, 0x30) }},
		{"io:0+256#4", func(c *x86.CPU, _ *outcome) string { return is(word(c, tinyDone), 1) + is(c.Regs[x86.RAX]&0xff, 0x30) }},
		{"step:100000@+777", func(c *x86.CPU, _ *outcome) string { return is(c.Step, 100777) }},
		{fmt.Sprintf("step:200000@exec:%#x#1", tinySources), func(c *x86.CPU, _ *outcome) string {
			return is(c.Step > 200000, true) + is(c.Regs[x86.RIP], tinySources)
		}},
	} {
		t.Run(tt.when, func(t *testing.T) {
			spec := flip + "@" + tt.when
			o := inject(t, spec)
			if strings.HasPrefix(tt.when, "console:") {
				if len(o.waiting) != 1 || o.waiting[0].Count != 1 {
					t.Errorf("waiting: %v", o.waiting)
				}
				return
			}
			if len(o.faults) != 1 || len(o.waiting) != 0 {
				t.Fatalf("%d faults, waiting %v", len(o.faults), o.waiting)
			}
			if s := tt.check(at(o, o.faults[0].Step), o); s != "" {
				t.Errorf("at step %d: %s", o.faults[0].Step, s)
			}
			if o.said() != strings.ReplaceAll(string(g.RecordedConsole()), "\r\n", "\n") {
				t.Errorf("looking for the trigger changed the run: %q", o.said())
			}
		})
	}
}

func is[T comparable](got, want T) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("got %v, want %v; ", got, want)
}

func TestTriggerThatDoesNotCome(t *testing.T) {
	o := inject(t, flip+fmt.Sprintf("@exec:%#x#1000", tinySources), flip+"@step:1000@vector:mc", flip+"@after:1")
	var got []string
	for _, w := range o.waiting {
		got = append(got, w.String())
	}
	want := []string{fmt.Sprintf("exec:%#x#1000 came 24 times, of 1000", tinySources), "vector:mc came 0 times, of 1", "after:1 came 0 times, of 1"}
	if len(got) != len(want) {
		t.Fatalf("waiting: %q", got)
	}
	for i := range want {
		if !strings.HasSuffix(got[i], want[i]) {
			t.Errorf("waiting: %q, want %q", got[i], want[i])
		}
	}
}

func TestRepetition(t *testing.T) {
	exec := fmt.Sprintf("@exec:%#x", tinySources)
	for _, tt := range []struct {
		specs []string
		want  int
	}{
		{[]string{flip + ",times=3" + exec}, 3},
		{[]string{flip + ",times=0" + exec + "#5"}, 20},
		{[]string{flip + ",times=0,every=4" + exec}, 6},
		{[]string{flip + ",times=5@step:1000/1000"}, 5},
		{[]string{flip + ",times=4@time:1ms/200us"}, 4},
		{[]string{flip + ",id=a,times=2" + exec, flip + "@after:a#2"}, 3},
		{[]string{flip + ",times=2" + exec, flip + "@after:1@+10"}, 3},
	} {
		o := inject(t, tt.specs...)
		if len(o.faults) != tt.want {
			t.Errorf("%q: %d faults, want %d", tt.specs, len(o.faults), tt.want)
		}
	}
	a, b := inject(t, flip+",times=0,p=0.5,seed=1"+exec), inject(t, flip+",times=0,p=0.5,seed=1"+exec)
	if n := len(a.faults); n != len(b.faults) || n < 4 || n > 20 {
		t.Errorf("with p=0.5: %d and %d of 24", n, len(b.faults))
	}
}

func TestBadTriggers(t *testing.T) {
	for spec, want := range map[string]string{
		flip:                              "no trigger; add one",
		flip + "@stp:3":                   `no trigger "stp" (did you mean step?)`,
		flip + "@exec":                    "write exec:WHERE",
		flip + "@exec:1x":                 "not an address",
		flip + "@exec:0x10#0":             "occurrences count from 1",
		flip + "@read:phys:jiffies":       "has a virtual address",
		flip + "@read:0x10/0":             "not a number of bytes",
		flip + "@read:0x10,cr4=3":         "not an option",
		flip + "@console:(":               "no regular expression",
		flip + "@vector:256":              "no vector",
		flip + "@syscall:raed":            "(did you mean read?)",
		flip + "@io:x":                    "not a whole number",
		flip + "@+5":                      "needs another before it",
		flip + "@step:1@+x":               "neither a number of instructions nor a time",
		flip + ",times=2@step:5":          "give a period",
		flip + ",times=2@time:5s":         "give a period",
		flip + ",p=2@step:5":              "a chance above 0",
		flip + ",every=0@step:5":          "counts from 1",
		"mem:adr=5@step:1":                `no key "adr" (did you mean addr?)`,
		"mce:type=sroa@step:1":            "it can be corrected",
		"meme:addr=5@step:1":              "(did you mean mem?)",
		flip + "@step:5/0":                "a period of 0",
		flip + ",id=@step:5":              "has no value",
		"mem:vaddr=a+b,bit=3@step:5":      "not an address",
		"mem:vaddr=jiffies,bit=3@step:5":  "",
		"mem:vaddr=:jiffies,bit=3@step:5": "a symbol of a module is MODULE:SYMBOL",
		flip + "@exec:libata:":            "a symbol of a module is MODULE:SYMBOL",
		flip + "@exec:a-b:c+x":            "not an address",
		flip + "@write:phys:a:b":          "has a virtual address",
		flip + "@exec:5,pid=0":            "is not an option",
	} {
		f, err := Parse(spec)
		if want == "" && err == nil {
			err = f.Bind(nil)
			want = "no symbols"
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want %q", spec, err, want)
		}
	}
	for _, spec := range []string{flip + "@exec:a-b:c+4", "mem:vaddr=a_b:c,bit=0@step:5"} {
		f, err := Parse(spec)
		if err == nil {
			err = f.Bind(nil)
		}
		if want := "a_b:c"; err == nil || !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "need a Linux kernel") {
			t.Errorf("%q: error %v, want %q", spec, err, want)
		}
	}
	for spec, want := range map[string]string{
		flip + "@after:3":                    "no fault has that id=",
		flip + "@step:999999999":             "has steps 0 to",
		flip + "@read:phys:0xffffffff":       "outside RAM",
		flip + "@ioread:5,drive=2":           "drive 2 of 1",
		"mem:addr=0x3fffffff,bit=0@step:100": "",
	} {
		inj, err := Inject(golden(t), t.TempDir()+"/f", parseAll(t, []string{spec}), often, tiny.Disk())
		if want == "" {
			if err != nil {
				t.Fatal(err)
			}
			_, err = inj.Run()
			inj.Close()
			want = "outside RAM"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", spec, err, want)
		}
	}
}
