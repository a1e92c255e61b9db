package compare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"refault/replay"
	"refault/test/recorded"
	"refault/test/tiny"
	"refault/vmm/ksym"
	"refault/vmm/x86"
)

func bisect(t *testing.T, dir, text string, change func(o *BisectOptions)) (*Bisection, *replay.Player) {
	t.Helper()
	syms, err := ksym.Read(tiny.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	q, err := ParsePredicate(text, func(name string) (Location, error) {
		if a, ok := syms.Addr(name); ok {
			return func(*x86.CPU) (uint64, bool) { return a, true }, nil
		}
		return nil, errors.New("no symbol " + name)
	})
	if err != nil {
		t.Fatal(err)
	}
	ps := []*replay.Player{recorded.Open(t, dir), recorded.Open(t, dir)}
	o := BisectOptions{From: ps[0].Start(), To: ps[0].End()}
	if change != nil {
		change(&o)
	}
	r, err := Bisect(t.Context(), ps, q, o)
	if err != nil {
		t.Fatal(err)
	}
	return r, ps[0]
}

// TestBisect checks that each condition holds at the step that is found, and not at the one before.
func TestBisect(t *testing.T) {
	golden := recorded.Golden(t, 20)
	syms, err := ksym.Read(tiny.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	done, ok := syms.Addr("done")
	if !ok {
		t.Fatal("the guest has no symbol done")
	}
	for _, text := range []string{
		"console:tiny", "console:iny\n\\.", "console:\ndone", "console:^t",
		fmt.Sprintf("mem:%#x:4>6", done), "virt:done:4>6", "virt:done:4!=00000000",
		"mem:0x116000:1!=00", "exit:99", "cmd:test $REFAULT_STEP -ge 12345", `cmd:grep -q '"console":".*done'`, "reg:cr3!=0",
	} {
		t.Run(text, func(t *testing.T) {
			r, p := bisect(t, golden, text, nil)
			if !r.Found {
				t.Fatal("not found")
			}
			q, err := ParsePredicate(text, func(name string) (Location, error) {
				a, ok := syms.Addr(name)
				return func(*x86.CPU) (uint64, bool) { return a, ok }, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for step, want := range map[uint64]bool{r.Step - 1: false, r.Step: true} {
				if err := p.Seek(step); err != nil {
					t.Fatal(err)
				}
				if got, err := q.holds(context.Background(), p); got != want || err != nil {
					t.Errorf("at step %d it is %v, %v", step, got, err)
				}
			}
			if r.Made == nil || r.Made.Text == "" {
				t.Errorf("no instruction: %+v", r)
			}
			if r.Tried > 60 {
				t.Errorf("evaluated %d times", r.Tried)
			}
		})
	}
}

func TestBisectOfWhatComesAndGoes(t *testing.T) {
	golden := recorded.Golden(t, 20)
	syms, _ := ksym.Read(tiny.Kernel)
	ready, _ := syms.Addr("ready") // set by each disk interrupt, cleared by the next command
	text := fmt.Sprintf("mem:%#x:1==01", ready)
	exact := func(o *BisectOptions) { o.Exact = true }
	r, p := bisect(t, golden, text, exact)
	if !r.Found {
		t.Fatal("not found")
	}
	// By looking at every step.
	q := recorded.Open(t, golden)
	if err := q.Seek(0); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	for b[0] == 0 {
		if err := q.RunTo(q.Machine().Step() + 1); err != nil {
			t.Fatal(err)
		}
		q.Machine().RAM.ReadAt(b, ready)
	}
	if r.Step != q.Machine().Step() {
		t.Errorf("found step %d, it is so first at step %d", r.Step, q.Machine().Step())
	}
	// In a later part.
	later, _ := bisect(t, golden, text, func(o *BisectOptions) { o.Exact, o.From = true, p.End()/2 })
	if !later.Found || later.Step < p.End()/2 {
		t.Errorf("from step %d on: %+v", p.End()/2, later)
	}
}

func TestBisectNever(t *testing.T) {
	golden := recorded.Golden(t, 6)
	for _, text := range []string{"console:panic", "mem:0x3ff000:1!=00", "exit:1", "virt:0xf0000000:1==00", "cmd:false"} {
		if r, _ := bisect(t, golden, text, nil); r.Found {
			t.Errorf("%s: %+v", text, r)
		}
	}
	if r, _ := bisect(t, golden, "mem:0x3ff000:1!=00", func(o *BisectOptions) { o.Exact = true }); r.Found {
		t.Errorf("%+v", r)
	}
	if r, _ := bisect(t, golden, "console:done", func(o *BisectOptions) { o.To = 1000 }); r.Found {
		t.Errorf("%+v", r)
	}
	if r, _ := bisect(t, golden, "cmd:true", nil); !r.Found || r.Step != 0 || r.Made != nil {
		t.Errorf("%+v", r)
	}
}

func TestBisectFindsTheFault(t *testing.T) {
	golden := recorded.Golden(t, 12)
	faulty := inject(t, golden, "mem:addr=0x3ff000,bit=0@step:123456")
	for _, exact := range []bool{false, true} {
		r, _ := bisect(t, faulty, "mem:0x3ff000:1==01", func(o *BisectOptions) { o.Exact = exact })
		if !r.Found || r.Step != 123_457 { // the fault strikes at the step, and is there after the next instruction
			t.Errorf("exact %v: %+v", exact, r)
		}
	}
}

func TestBadPredicates(t *testing.T) {
	for text, want := range map[string]string{
		"": "KIND:CONDITION", "nonsense": "KIND:CONDITION", "foo:bar": `no kind "foo"`, "console:(": "missing closing", "mem:1": "none of ==", "mem:0x10==00": "not ADDR:LEN",
		"mem:0x10:0==": "not a length", "mem:x:1==00": "not an address", "virt:nosuch:1==00": "no symbol nosuch", "mem:0x10:2==00": "not 2 bytes", "mem:0x10:9<1": "up to 8 bytes",
		"mem:0x10:1==zz": "not 1 bytes", "reg:nix==1": `no register "nix"`, "reg:rax==x": "not a number", "reg:cs==0x12345": "16 bits", "reg:xmm0==1": "16 bytes", "reg:rax": "none of ==",
		"exit:x": "not a status", "mem:0x10:4<x": "number",
	} {
		_, err := ParsePredicate(text, func(string) (Location, error) { return nil, errors.New("no symbol nosuch") })
		if !errors.Is(err, ErrPredicate) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	golden := recorded.Golden(t, 3)
	ps := []*replay.Player{recorded.Open(t, golden)}
	for text, want := range map[string]string{"mem:0xffffffff:4==00000000": "outside RAM", "cmd:nosuchcommand": "nosuchcommand"} {
		q, err := ParsePredicate(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = Bisect(t.Context(), ps, q, BisectOptions{To: ps[0].End()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParsePredicate(f *testing.F) {
	for _, s := range []string{"console:a", "mem:0x10:4==00000000", "virt:jiffies:8>5", "reg:rax!=1", "exit:3", "cmd:true"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if q, err := ParsePredicate(s, nil); (q == nil) != (err != nil) || err != nil && !errors.Is(err, ErrPredicate) {
			t.Errorf("%v, %v", q, err)
		}
	})
}
