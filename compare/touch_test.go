package compare

import (
	"fmt"
	"testing"

	"refault/test/recorded"
	"refault/test/tiny"
)

// plainly finds the first divergence by comparing registers and memory after each instruction, and whether
// nothing differed but the fault's own again at the end.
func plainly(t *testing.T, golden, faulty string, at uint64) (step uint64, found, healed bool) {
	t.Helper()
	p := &pair{g: recorded.Open(t, golden), f: recorded.Open(t, faulty)}
	if err := p.together(at, true); err != nil {
		t.Fatal(err)
	}
	if err := p.strike(); err != nil {
		t.Fatal(err)
	}
	own := p.own.clone()
	end := min(p.g.End(), p.f.End())
	for p.step() < end {
		step = p.step()
		if err := p.runTo(step + 1); err != nil {
			t.Fatal(err)
		}
		if p.beyondCPU() || p.beyondMemory() {
			found = true
			break
		}
	}
	if found {
		if err := p.runTo(min(end, step+firstLook)); err != nil {
			t.Fatal(err)
		}
		p.own = own
		healed = !p.beyond()
	}
	return step, found, healed
}

// TestNothingEscapes: the first divergence after a flip in memory is the one that is seen when every instruction is
// looked at, also where what came of it was gone before the end of a chunk of steps.
func TestNothingEscapes(t *testing.T) {
	golden := recorded.Golden(t, 3)
	end := recorded.Open(t, golden).End()
	gone := 0
	for i, fault := range []string{
		"mem:addr=0x115000,bit=5",                            // the accessed bit of a page-table entry
		"mem:addr=0x115040,bit=6",                            // a dirty bit
		"mem:addr=0x115080,bit=9",                            // one that means nothing
		"mem:addr=0x112000,bit=10",                           // of a directory that every access goes through
		"mem:addr=0x114ff8,bit=9", "mem:addr=0x116010,bit=5", // the disk's buffer
		"mem:addr=0x210000,bit=5", "mem:addr=0x2ff000,bit=7", // what the guest scribbles on
		fmt.Sprintf("mem:addr=%#x,bit=1", tiny.Symbol("done")+2),        // a counter
		fmt.Sprintf("mem:addr=%#x,bit=3", tiny.Symbol("ticks")),         // of interrupts
		fmt.Sprintf("mem:addr=%#x,bit=6", tiny.Symbol("status")),        // of the disk
		fmt.Sprintf("mem:addr=%#x,bit=5", tiny.Symbol("wait_disk")+1),   // code
		fmt.Sprintf("mem:addr=%#x,bit=2", tiny.Symbol("machine_check")), // code that does not run
		fmt.Sprintf("mem:addr=%#x,bit=2", tiny.Symbol("disk")+6),        // a port's number, of which 16 bits count: EDX is wrong for a few instructions
		"mem:addr=0x11eff0,bit=3",                                       // the stack
	} {
		at := uint64(60_000 + 1777*i)
		t.Run(fault, func(t *testing.T) {
			faulty := inject(t, golden, fmt.Sprintf("%s@step:%d", fault, at))
			r := diff(t, golden, faulty)
			step, found, healed := plainly(t, golden, faulty, at)
			switch {
			case !found && r.First != nil:
				t.Errorf("diverges at step %d, %+v; looking at every instruction it does not", r.First.Step, r.First)
			case found && (r.First == nil || r.First.Step != step):
				t.Errorf("looking at every instruction it diverges at step %d; found was %+v", step, r.First)
			case found && r.SureTo != step:
				t.Errorf("sure up to step %d, the divergence is at %d", r.SureTo, step)
			case !found && r.SureTo < end:
				t.Errorf("sure up to step %d of %d", r.SureTo, end)
			}
			t.Logf("at %d: %v, healed %v; sure to %d", step, found, healed, r.SureTo)
			if healed {
				gone++
			}
		})
	}
	if gone == 0 {
		t.Error("none of the divergences was gone soon: the test shows nothing")
	}
}

// TestDrivesAreWatched: of a drive that has a fault, the first divergence is what is seen when all is compared after
// every instruction.
func TestDrivesAreWatched(t *testing.T) {
	golden := recorded.Golden(t, 8)
	w := allWrites(t, golden)[5]
	at := w.step - 4000
	for _, fault := range []string{"ata:error=unc,lba=35", "ata:error=wrong,lba=35,mask=0x20", "ata:error=dropped,lba=133", "ata:error=slow,lba=35,by=100us", "ata:error=unc,lba=200"} {
		faulty := inject(t, golden, fmt.Sprintf("%s@step:%d", fault, at))
		r := diff(t, golden, faulty)
		p := &pair{g: recorded.Open(t, golden), f: recorded.Open(t, faulty)}
		if err := p.together(at, true); err != nil {
			t.Fatal(err)
		}
		if err := p.strike(); err != nil {
			t.Fatal(err)
		}
		step, found := at, false
		for ; step < at+8000 && !found; step++ {
			if err := p.runTo(step + 1); err != nil {
				t.Fatal(err)
			}
			found = p.beyond()
		}
		switch {
		case found && (r.First == nil || r.First.Step != step-1 || r.SureTo != step-1):
			t.Errorf("%s: looking at everything it diverges at step %d; found was %+v, sure to %d", fault, step-1, r.First, r.SureTo)
		case !found && (r.First != nil || r.SureTo != min(p.g.End(), p.f.End())):
			t.Errorf("%s: it does not diverge; found was %+v, sure to %d", fault, r.First, r.SureTo)
		}
	}
}
