package injectors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"refault/test/tiny"
	"refault/vmm/ksym"
	"refault/vmm/linux"
	"refault/vmm/x86"
)

var tinyScatter = tiny.Symbol("scatter")

// reloaded is a Guest which says that the tiny guest has a module "moves" with one symbol, "work": in its first 8
// rounds what is called scatter there, in 8 more sources, and then none. In round 4 the memory is another's.
type reloaded struct{ Guest }

func (reloaded) round(c *x86.CPU) uint32 {
	var b [4]byte
	c.RAM.ReadAt(b[:], tinyDone)
	return binary.LittleEndian.Uint32(b[:])
}

func (r reloaded) Modules(c *x86.CPU) []linux.Module {
	if r.round(c) >= 16 {
		return nil
	}
	return []linux.Module{{Name: "moves"}}
}

func (r reloaded) Find(c *x86.CPU, module, symbol string) []linux.Place {
	switch {
	case len(r.Modules(c)) == 0 || module != "moves" || symbol != "work":
		return nil
	case r.round(c) < 8:
		return []linux.Place{{Addr: tinyScatter}}
	}
	return []linux.Place{{Addr: tinySources}}
}

func (r reloaded) Holds(c *x86.CPU, p *linux.Place) bool {
	at := r.Find(c, "moves", "work")
	return r.round(c) != 4 && len(at) > 0 && at[0].Addr == p.Addr
}

// ModuleSymbols has none in the first round: the module is still being loaded.
func (r reloaded) ModuleSymbols(c *x86.CPU, _ *linux.Module) []ksym.Symbol {
	if r.round(c) == 0 {
		return nil
	}
	return []ksym.Symbol{{Name: "work"}}
}

// ModuleStart is where a round begins.
func (reloaded) ModuleStart() (uint64, bool) { return tinyRound, true }

func bound(t *testing.T, spec string) *Fault {
	t.Helper()
	f := parseAll(t, []string{spec})[0]
	f.SetGuest(reloaded{})
	if err := f.Bind(nil); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestModuleMoves: a trigger follows the symbol of a module from place to place, and takes nothing else for it.
func TestModuleMoves(t *testing.T) {
	steps := func(f *Fault) (at []uint64) {
		t.Helper()
		for _, e := range injectFaults(t, f).faults {
			at = append(at, e.Step)
		}
		return at
	}
	each := func(addr uint64) []uint64 {
		return steps(parseAll(t, []string{fmt.Sprintf("%s,times=0@exec:%#x", flip, addr)})[0])
	}
	scatter, sources := each(tinyScatter), each(tinySources)
	if len(scatter) != tinyRounds || len(sources) != tinyRounds {
		t.Fatalf("%d and %d times in %d rounds", len(scatter), len(sources), tinyRounds)
	}
	want := slices.Concat(scatter[:4], scatter[5:8], sources[8:16])
	if got := steps(bound(t, flip+",times=0@exec:moves:work")); !slices.Equal(got, want) {
		t.Errorf("at %d, want %d", got, want)
	}
	// A stage that begins in the middle finds it where it is by then.
	if got := steps(bound(t, fmt.Sprintf("%s@step:%d@exec:moves:work", flip, sources[9]+1))); len(got) != 1 || got[0] != sources[10] {
		t.Errorf("at %d, want %d", got, sources[10])
	}
	// What a key names is where it is when the fault happens.
	var b [1]byte
	p := golden(t)
	if err := p.Seek(scatter[2]); err != nil {
		t.Fatal(err)
	}
	p.Machine().RAM.ReadAt(b[:], tinyScatter)
	o := injectFaults(t, bound(t, fmt.Sprintf("mem:vaddr=moves:work,bit=0,op=set@step:%d", scatter[2])))
	if f := o.faults[0].Fault; f.Addr != tinyScatter || f.Old[0] != b[0] {
		t.Errorf("fault %+v, want at %#x, which is %#x", f, tinyScatter, b[0])
	}
	for spec, want := range map[string]string{
		flip + "@exec:other:work":                                              "came 0 times, of 1: module other is not loaded",
		fmt.Sprintf("%s@step:%d@read:moves:work", flip, sources[20]):           "came 0 times, of 1: module moves is not loaded",
		fmt.Sprintf("%s@step:%d@exec:moves:works", flip, sources[15]+1):        "came 0 times, of 1: module moves is not loaded",
		fmt.Sprintf("%s,times=0@step:%d@exec:moves:work#20", flip, scatter[1]): "came 14 times, of 20: module moves is not loaded",
	} {
		if o := injectFaults(t, bound(t, spec)); len(o.waiting) != 1 || !strings.HasSuffix(o.waiting[0].String(), want) {
			t.Errorf("%s: %v, want %s", spec, o.waiting, want)
		}
	}
	for spec, want := range map[string]string{
		flip + "@exec:moves:wrok":                                        "module moves has no symbol wrok; near it are work",
		fmt.Sprintf("mem:vaddr=other:work,bit=0@step:%d", scatter[2]):    "key vaddr: module other is not loaded",
		fmt.Sprintf("mem:vaddr=moves:work,bit=0@step:%d", sources[16]):   "key vaddr: module moves is not loaded",
		fmt.Sprintf("mem:vaddr=moves:wrok+4,bit=0@step:%d", sources[10]): "key vaddr: module moves has no symbol wrok",
	} {
		inj, err := Inject(golden(t), t.TempDir()+"/f", []*Fault{bound(t, spec)}, often, tiny.Disk())
		if err != nil {
			t.Fatal(err)
		}
		_, err = inj.Run()
		inj.Close()
		if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", spec, err, want)
			continue
		}
		var at uint64
		if _, err := fmt.Sscanf(err.Error(), "at step %d:", &at); err != nil || at < scatter[0] {
			t.Errorf("%s: at step %d, before the module was loaded", spec, at)
		}
	}
}
