package compare

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"refault/test/recorded"
	"refault/test/tiny"
	"refault/vmm"
	"refault/vmm/ksym"
	"refault/vmm/x86"
)

func explain(t *testing.T, golden, faulty string) *Explanation {
	t.Helper()
	syms, err := ksym.Read(tiny.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Explain(recorded.Open(t, golden), recorded.Open(t, faulty), Options{Symbols: syms.Name})
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range e.Links {
		t.Logf("step %d: %s: %s of %v %s: %s, golden %s", k.Step, k.Faulty.Text, k.Place, k.From, k.Device, k.Value, k.Golden)
		if k.Value == k.Golden {
			t.Errorf("link %d carries no wrong value", i)
		}
		if i > 0 && (k.Step <= e.Links[i-1].Step || !slices.ContainsFunc(k.From, func(c Cause) bool { return c.Place == e.Links[i-1].Place && *c.Step == e.Links[i-1].Step })) {
			t.Errorf("link %d does not follow from the one before", i)
		}
	}
	return e
}

func TestExplainFromOutputToTheFlippedBit(t *testing.T) {
	golden := recorded.Golden(t, 6)
	syms, _ := ksym.Read(tiny.Kernel)
	state, ok := syms.Addr("state")
	if !ok {
		t.Fatal("the guest has no symbol state")
	}
	// The checksum is printed after the last line of dots. It flips right before.
	p := recorded.Open(t, golden)
	n := bytes.LastIndexByte(bytes.TrimSuffix(p.RecordedConsole(), []byte("\ndone\n")), '\n')
	at, err := p.OutputStep(uint64(n))
	if err != nil {
		t.Fatal(err)
	}
	e := explain(t, golden, inject(t, golden, fmt.Sprintf("mem:addr=%#x,bit=30@step:%d", state, at)))
	if e.Target != "output" || !e.Complete || len(e.Links) < 4 || !strings.Contains(e.Origin, fmt.Sprintf("[%#x]", state&^7)) {
		t.Fatalf("%+v", e)
	}
	first, last := e.Links[0], e.Links[len(e.Links)-1]
	if first.From[0].Place != fmt.Sprintf("[%#x]", state&^7) || last.Place != "rax" || last.Step >= e.OutputStep ||
		!slices.ContainsFunc(e.Links, func(k Link) bool {
			return strings.HasPrefix(k.Faulty.Text, "mov al, byte ptr [eax+") && k.From[0].Kind == Address
		}) {
		t.Errorf("first %+v, last %+v, output at step %d", first, last, e.OutputStep)
	}
}

func TestExplainOfControlFlow(t *testing.T) {
	golden := recorded.Golden(t, 12)
	e := explain(t, golden, inject(t, golden, "reg:name=rip,bit=22@step:300001"))
	if e.Target != "control flow" || !e.Complete || len(e.Path) == 0 || e.Path[0].By != "#PF" {
		t.Errorf("instruction pointer: %+v", e)
	}
	e = explain(t, golden, inject(t, golden, "mce:type=srao,addr=0x200000@step:250000"))
	if e.Target != "control flow" || !e.Complete || e.Origin != "the fault itself, in mc_pending" || len(e.Path) == 0 || e.Path[0].By != "#MC" || !strings.HasPrefix(e.Path[0].Symbol, "machine_check") {
		t.Errorf("machine check: %+v", e)
	}
	e = explain(t, golden, inject(t, golden, "ata:error=unc,lba=35@step:100000"))
	if e.Target != "control flow" || !e.Complete || len(e.Links) < 3 || e.Links[0].Device == "" || e.OutputStep == 0 {
		t.Errorf("unreadable sector: %+v", e)
	}
}

// lastAt returns the last step before another at which a recording executes an address.
func lastAt(t *testing.T, dir string, at, before uint64) (last uint64) {
	t.Helper()
	p := recorded.Open(t, dir)
	p.Machine().Observe(&vmm.Observer{Code: vmm.Span{First: at, Last: at}, Before: func(c *x86.CPU, la uint64, _ *x86.Inst) {
		if la == at && c.Step < before {
			last = c.Step
		}
	}})
	if err := errors.Join(p.Seek(p.Start()), p.RunTo(p.End())); err != nil || last == 0 {
		t.Fatalf("%#x is not executed: %v", at, err)
	}
	return last
}

// A value that is shifted and combined with itself: both ways lead back to the fault, and meet again.
func TestExplainJoins(t *testing.T) {
	golden := recorded.Golden(t, 6)
	// The last time that the guest does this to the value that ends in the checksum: mov edx, eax; shl edx, 5; xor eax, edx.
	last := lastAt(t, golden, tiny.Symbol("scatter")+0x71, vmm.Never)
	e := explain(t, golden, inject(t, golden, fmt.Sprintf("reg:name=rax,bit=3@step:%d", last)))
	if e.Target != "disk write" || !e.Complete || len(e.Joins) == 0 || e.Origin != "the fault itself, in rax" {
		t.Fatalf("target %s, complete %v, origin %s, note %s, joins %+v", e.Target, e.Complete, e.Origin, e.Note, e.Joins)
	}
	made := map[string]int{} // by place and step: how many links are made of it
	kinds := map[Dependence]bool{}
	all := append(slices.Clone(e.Links), e.Joins...)
	for _, k := range all {
		for _, c := range k.From {
			kinds[c.Kind] = true
			switch {
			case c.Step == nil && c.Origin == "":
				t.Errorf("step %d: %s comes from nowhere", k.Step, c.Place)
			case c.Step == nil:
				made[c.Origin]++
			case !slices.ContainsFunc(all, func(x Link) bool { return x.Step == *c.Step && x.Place == c.Place }):
				t.Errorf("step %d: no link made %s at step %d", k.Step, c.Place, *c.Step)
			default:
				made[fmt.Sprint(c.Place, *c.Step)]++
			}
		}
	}
	shared := 0
	for _, n := range made {
		if n > 1 {
			shared++
		}
	}
	if shared == 0 || !kinds[Data] || kinds[Control] {
		t.Errorf("%d values are used twice, kinds %v: %+v", shared, kinds, e.Joins)
	}
	for i := range e.Joins {
		if i > 0 && e.Joins[i].Step < e.Joins[i-1].Step {
			t.Error("the joins are out of order")
		}
	}
}

// A byte that is wrong on the disk is followed through the guest's buffer, whoever was wrong.
func TestExplainOfADiskWrite(t *testing.T) {
	golden := recorded.Golden(t, 12)
	w := allWrites(t, golden)[7]
	e := explain(t, golden, inject(t, golden, fmt.Sprintf("mem:addr=0x116123,bit=4@step:%d", w.step-200)))
	if e.Target != "disk write" || !e.Complete || e.Origin != "the fault itself, in [0x116120]" || len(e.Links) != 0 || e.Disk != "disk0" || e.Write.LBA != w.lba || e.Write.Byte != 0x123 {
		t.Errorf("a bit of the buffer: target %s, complete %v, origin %q, note %q, links %+v", e.Target, e.Complete, e.Origin, e.Note, e.Links)
	}
	// The guest puts its checksum at the buffer's begin before that: mov eax, [state]; mov [BUF], eax.
	last := lastAt(t, golden, tiny.Symbol("transfer")+0x44, w.step)
	e = explain(t, golden, inject(t, golden, fmt.Sprintf("mem:addr=%#x,bit=30@step:%d", tiny.Symbol("state"), last)))
	if e.Target != "disk write" || !e.Complete || len(e.Links) < 2 || !strings.Contains(e.Origin, fmt.Sprintf("[%#x]", tiny.Symbol("state"))) || e.Links[len(e.Links)-1].Place != "[0x116000]" {
		t.Errorf("the checksum: target %s, complete %v, origin %q, note %q, links %+v", e.Target, e.Complete, e.Origin, e.Note, e.Links)
	}
	e = explain(t, golden, inject(t, golden, "ata:error=torn,lba=133,bytes=101@step:50000"))
	if e.Target != "disk write" || !e.Complete || !strings.Contains(e.Origin, "ata0.0") || len(e.Links) != 0 {
		t.Errorf("the drive: target %s, complete %v, origin %q, note %q", e.Target, e.Complete, e.Origin, e.Note)
	}
}

// The second of two faults is the one that is seen.
func TestExplainOfTheSecondFault(t *testing.T) {
	golden := recorded.Golden(t, 6)
	e := explain(t, golden, inject(t, golden, "mem:addr=0x3ff000,bit=5@step:100000", "mem:vaddr=0x1003a9,bit=1@step:120000", "reg:name=rip,bit=22@step:200001"))
	if e.Target != "control flow" || !e.Complete || e.Origin != "the fault itself, in rip" {
		t.Errorf("target %s, complete %v, origin %q, note %q", e.Target, e.Complete, e.Origin, e.Note)
	}
}

func TestExplainOfNothing(t *testing.T) {
	golden := recorded.Golden(t, 6)
	if e := explain(t, golden, inject(t, golden, "mem:addr=0x3ff000,bit=5@step:123456")); len(e.Links) != 0 || e.Note == "" {
		t.Errorf("%+v", e)
	}
	// Wrong, and for ever on: the chain is cut off.
	e := explain(t, golden, inject(t, golden, "reg:name=rcx,bit=1@step:150001"))
	if e.Report.First == nil || e.Complete && e.Origin == "" || !e.Complete && e.Note == "" {
		t.Errorf("%+v", e)
	}
}
