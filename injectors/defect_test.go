package injectors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/x86"
)

// lives plays a faulty recording and returns what its defects did.
func (o *outcome) lives(t *testing.T) (all []vmm.Notice) {
	t.Helper()
	ob := &vmm.Observer{Notice: func(n vmm.Notice) {
		if n.Kind != vmm.NoticeBank {
			all = append(all, n)
		}
	}}
	if err := o.Seek(o.Start()); err != nil {
		t.Fatal(err)
	}
	o.Machine().Observe(ob)
	defer o.Machine().Unobserve(ob)
	if err := o.RunTo(o.End()); err != nil {
		t.Fatal(err)
	}
	return all
}

func whats(ns []vmm.Notice) (s []string) {
	for _, n := range ns {
		s = append(s, n.What)
	}
	if len(s) > 10 {
		return append(s[:10], "…")
	}
	return s
}

// Each of the ways in which poison is noticed. The tiny guest says M in its machine-check
// handler, clears bank 9, and tries again what it was doing.
func TestPoison(t *testing.T) {
	const soon = "@step:100000"
	for _, tt := range []struct {
		name, spec string
		what       []string
		machine    int // machine checks
		status     uint64
	}{
		{"load", "poison:addr=$ticks,size=4,bank=9,times=1,by=kernel-load+kernel-fetch" + soon, []string{"consumed by a load of the kernel"}, 1, 0xbd80000000000134},
		{"load, twice", "poison:addr=$ticks,size=4,bank=9,times=2,by=kernel-load" + soon, []string{"consumed by a load of the kernel", "consumed by a load of the kernel"}, 2, 0xbd80000000000134},
		{"fetch", "poison:addr=$sources,size=2,bank=9,times=1" + soon, []string{"consumed by a fetch of kernel code"}, 1, 0xbd80000000000150},
		{"walk", "poison:addr=0x115000,size=page,bank=9,times=1" + soon, []string{"consumed by a page walk"}, 1, 0xbd80000000000134},
		{"overwritten", "poison:addr=0x116000,size=4,bank=9" + soon, []string{"overwritten"}, 0, 0},
		{"another byte of the line", "poison:addr=$ticks,size=1,bank=9,times=1,by=kernel-load" + soon, []string{"consumed by a load of the kernel"}, 1, 0xbd80000000000134},
		{"scrubber", "poison:addr=0x300000,bank=9,times=1,by=scrubber,scrub=4e9" + soon, []string{"found by the scrubber"}, 1, 0xbd000000000000c0},
		{"write-back", "poison:addr=0x300000,bank=9,times=1,by=writeback,writeback=100us" + soon, []string{"found in the displacement of its line"}, 1, 0xbd0000000000017a},
		{"nobody looks", "poison:addr=0x300000,bank=9" + soon, nil, 0, 0},
		{"somebody else looks", "poison:addr=$ticks,size=4,bank=9,by=user-load+dma+user-fetch" + soon, []string{"overwritten"}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := inject(t, tt.spec)
			if n := strings.Count(o.said(), "M"); n != tt.machine {
				t.Errorf("%d machine checks, want %d; console %q", n, tt.machine, o.said())
			}
			if o.reason != vmm.DebugExit.String() {
				t.Errorf("ended: %s", o.reason)
			}
			ns := o.lives(t)
			if got := strings.Join(whats(ns), "; "); got != strings.Join(tt.what, "; ") {
				t.Errorf("lives %q, want %q", got, tt.what)
			}
			if tt.machine == 0 {
				return
			}
			// The bank holds the error from there on, until the handler clears it.
			if err := o.Seek(ns[0].Step + 1); err != nil {
				t.Fatal(err)
			}
			m := o.Machine()
			status, _, _ := m.ReadBank(0, 9)
			if status != tt.status {
				t.Errorf("IA32_MC9_STATUS %#x, want %#x", status, tt.status)
			}
			if ns[0].RIP != 0 {
				var ret [4]byte
				if n := readLinear(m.CPUs[0], ret[:], m.CPUs[0].Regs[x86.RSP]+32); n != 4 {
					t.Fatal("no stack")
				}
				if got := uint64(binary.LittleEndian.Uint32(ret[:])); got != ns[0].RIP {
					t.Errorf("#MC pushed RIP %#x, consumed at %#x", got, ns[0].RIP)
				}
			}
		})
	}
}

func readLinear(c *x86.CPU, b []byte, la uint64) int {
	pa, ok := c.Translate(la)
	if !ok || !c.RAM.ReadAt(b, pa) {
		return 0
	}
	return len(b)
}

func TestPoisonInTheHandlersStackShutsDown(t *testing.T) {
	// The stack: consumed by the first POP or RET, whose machine check consumes it again.
	o := inject(t, "poison:addr=0x11e000,size=page,bank=9@step:100000")
	if o.reason != vmm.TripleFault.String() {
		t.Errorf("ended: %s, lives %q", o.reason, whats(o.lives(t)))
	}
}

func TestStuckMemory(t *testing.T) {
	// The low bit of the count of rounds: it never becomes odd, so the guest never comes to the end of them.
	o := inject(t, "mem:addr=$done,bit=0,op=clear,stuck=yes@step:100000")
	if o.reason != "max-steps" {
		t.Errorf("ended: %s; console %q", o.reason, o.said())
	}
	// And for a while only.
	o = inject(t, "mem:addr=$done,bit=0,op=clear,stuck=yes,for=300000@step:100000")
	if o.reason != vmm.DebugExit.String() {
		t.Errorf("ended: %s; console %q", o.reason, o.said())
	}
	if got := whats(o.lives(t)); len(got) != 1 || got[0] != "gone" {
		t.Errorf("lives %q", got)
	}
}

func TestMemoryOperations(t *testing.T) {
	for _, tt := range []struct {
		keys string
		want string
	}{
		{"data=aabbcc,op=write", "\xaa\xbb\xcc\x00"},
		{"bit=0+9+23", "\x01\x02\x80\x00"},
		{"bit=5,op=set", "\x20\x00\x00\x00"},
		{"mask=0xff00ff,op=clear", "\x00\x00\x00\x00"},
		{"mask=0xff00ff", "\xff\x00\xff\x00"},
		{"vaddr", ""},
	} {
		spec := "mem:addr=0x300000," + tt.keys + "@step:300000"
		if tt.keys == "vaddr" {
			spec, tt.want = "mem:vaddr=0x300000,data=01020304@step:300000", "\x01\x02\x03\x04"
		}
		o := inject(t, spec)
		if err := o.Seek(300_001); err != nil {
			t.Fatal(err)
		}
		var b [4]byte
		o.Machine().RAM.ReadAt(b[:], 0x300000)
		if string(b[:]) != tt.want {
			t.Errorf("%s: memory %x, want %x", spec, b, tt.want)
		}
	}
}

func TestRegisters(t *testing.T) {
	for _, name := range []string{"rax", "rflags", "xmm3", "st0", "mxcsr", "cr2", "lstar", "fs.base", "gdtr.base"} {
		o := inject(t, "reg:name="+name+",bit=7@step:123456")
		if o.faults[0].Fault.Old == nil {
			t.Errorf("%s: the event does not say what it replaced", name)
		}
		if err := o.Seek(123_456); err != nil {
			t.Fatal(err)
		}
		if err := o.Machine().Apply(o.faults[0]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// EBX, stuck at a bit: whoever writes it finds the bit set behind the instruction.
	o := inject(t, "reg:name=rbx,bit=30,op=set,stuck=yes,for=100000@step:100000")
	for _, step := range []uint64{100_001, 150_000, 199_999} {
		if err := o.Seek(step); err != nil {
			t.Fatal(err)
		}
		if o.Machine().CPUs[0].Regs[x86.RBX]>>30&1 == 0 {
			t.Errorf("step %d: the bit is not stuck", step)
		}
	}
}

func TestLogic(t *testing.T) {
	g := golden(t)
	for _, unit := range []string{"add", "logic", "shift", "mul", "lea", "load", "sse", "x87", "cmp"} {
		spec := "alu:unit=" + unit + ",bit=2,skip=3@step:400000"
		o := inject(t, spec)
		ns := o.lives(t)
		if len(ns) != 1 || ns[0].What != "a wrong result" {
			t.Errorf("%s: lives %q", spec, whats(ns))
			continue
		}
		// Behind the instruction, and only there, something differs.
		for _, after := range []uint64{0, 1} {
			for _, p := range []*replay.Player{g, o.Player} {
				if err := p.Seek(ns[0].Step - 1 + after); err != nil {
					t.Fatal(err)
				}
			}
			a, b := g.Machine(), o.Machine()
			same := *a.CPUs[0].State == *b.CPUs[0].State && bytes.Equal(a.RAM.Data(), b.RAM.Data())
			if same != (after == 0) {
				t.Errorf("%s: equal %v at step %d", spec, same, ns[0].Step-1+after)
			}
		}
	}
	if o := inject(t, "alu:unit=add,bit=0,every=1000,times=5@step:400000"); len(o.lives(t)) != 5 {
		t.Errorf("five times: %q", whats(o.lives(t)))
	}
	if o := inject(t, "alu:unit=add,bit=0,level=user,times=0@step:400000"); len(o.lives(t)) != 0 {
		t.Errorf("in user code, of which there is none: %q", whats(o.lives(t)))
	}
}

func TestOpcode(t *testing.T) {
	// RDTSC, 0F 31, becomes 0F 30, WRMSR, which a guest without a handler for #GP cannot survive; memory is not
	// changed. So too where the second byte is named.
	for _, spec := range []string{"opcode:vaddr=$sources,bit=8@step:100000", fmt.Sprintf("opcode:vaddr=%#x,bit=0@step:100000", tinySources+1)} {
		o := inject(t, spec)
		if !strings.Contains(o.said(), "X") {
			t.Errorf("%s: console %q", spec, o.said())
		}
		if got := whats(o.lives(t)); len(got) != 1 || got[0] != "executed wrongly" {
			t.Errorf("%s: lives %q", spec, got)
		}
		var b [2]byte
		o.Machine().RAM.ReadAt(b[:], tinySources)
		if b != [2]byte{0x0f, 0x31} {
			t.Errorf("%s: memory holds % x", spec, b)
		}
	}
	// CALL-free: INC DWORD PTR becomes DEC at the fifth round only.
	o := inject(t, "opcode:vaddr=$round,bit=0,skip=1000@step:100000")
	if len(o.lives(t)) != 0 {
		t.Error("a thousand occasions were not to pass")
	}
}

func TestInterrupts(t *testing.T) {
	// The tiny guest takes its interrupts from the PIC, so that only spurious ones reach it through its local
	// APIC; the vector has a handler.
	o := inject(t, "irq:do=spurious,vector=0x20,times=3@step:100000/50000")
	if len(o.faults) != 3 {
		t.Errorf("%d faults", len(o.faults))
	}
}

// TestBus: accesses to the serial port and to the disk get no answer, or their data flips.
func TestBus(t *testing.T) {
	g := (&outcome{Player: golden(t)}).said()
	o := inject(t, "bus:port=0x3f8,ops=write,times=3@step:100000")
	if got := o.said(); len(got) != len(g)-3 || strings.Join(whats(o.lives(t)), "; ") != strings.TrimSuffix(strings.Repeat("1-byte write of port 0x3f8 timed out; ", 3), "; ") {
		t.Errorf("console %q, without it %q; lives %q", got, g, whats(o.lives(t)))
	}
	o = inject(t, "bus:port=0x3f0,len=16,ops=write,do=flip,bit=69,skip=1,times=2@step:100000")
	differ := 0
	for i, c := range []byte(o.said()[:min(len(g), len(o.said()))]) {
		if c != g[i] {
			if c^g[i] != 1<<5 {
				t.Errorf("byte %d is %q, without it %q", i, c, g[i])
			}
			differ++
		}
	}
	if differ != 2 || len(o.said()) != len(g) {
		t.Errorf("%d bytes differ: %q, without it %q", differ, o.said(), g)
	}
	// The status register of the disk, which the guest reads when it has interrupted.
	o = inject(t, "bus:port=0x1f7,ops=read,times=1@step:100000")
	if got := strings.Join(whats(o.lives(t)), "; "); got != "1-byte read of port 0x1f7 timed out" {
		t.Errorf("lives %q", got)
	}
	if o.said() == g && o.End() == golden(t).End() {
		t.Error("the guest did not notice")
	}
}

// vectors plays a recording and counts the interrupts that the processor takes, by vector.
func (o *outcome) vectors(t *testing.T) (n [256]int) {
	t.Helper()
	ob := &vmm.Observer{Delivered: func(_ *x86.CPU, e x86.Exception) {
		if e.Ext {
			n[e.Vec]++
		}
	}}
	if err := o.Seek(o.Start()); err != nil {
		t.Fatal(err)
	}
	o.Machine().Observe(ob)
	defer o.Machine().Unobserve(ob)
	if err := o.RunTo(o.End()); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInterruptsOfThePIC: requests get lost and late at the 8259s, and come though nobody made them.
func TestInterruptsOfThePIC(t *testing.T) {
	for _, c := range []struct {
		spec    string
		lives   string // of the defect
		vector  uint8
		from    int // so many more come by vector
		to      int
		endures bool // the guest gets to its end
	}{
		{"irq:do=lose,pic=pit,times=5@step:100000", strings.Repeat("request of input 0 lost; ", 5), 0x20, -8, 2, true},
		{"irq:do=delay,pic=0,by=30us,times=3@step:100000", strings.Repeat("request of input 0 late; ", 3), 0x20, -3, 3, true},
		{"irq:do=spurious,pic=pit,times=40@step:100000/5000", "", 0x20, 20, 60, true},
		{"irq:do=spurious,pic=7,times=3@step:100000/50000", "", 0x27, 3, 3, true},
		// Of the disk, of which the guest polls for nothing: it waits for ever, and ticks.
		{"irq:do=lose,pic=ata0,times=1@step:100000", "request of input 14 lost; ", 0x2e, -100, -1, false},
		{"irq:do=delay,pic=ata0,by=1ms,times=1@step:100000", "request of input 14 late; ", 0x2e, 0, 0, true},
	} {
		before := (&outcome{Player: golden(t)}).vectors(t)
		o := inject(t, c.spec)
		after := o.vectors(t)
		if n := after[c.vector] - before[c.vector]; n < c.from || n > c.to {
			t.Errorf("%s: %d more interrupts %#x, want %d to %d", c.spec, n, c.vector, c.from, c.to)
		}
		if got := strings.Join(append(whats(o.lives(t)), ""), "; "); got != c.lives {
			t.Errorf("%s: lives %q, want %q", c.spec, got, c.lives)
		}
		if end := strings.Contains(o.said(), "done"); end != c.endures {
			t.Errorf("%s: ended %v: %q", c.spec, end, o.said())
		}
	}
}

func TestClock(t *testing.T) {
	o := inject(t, "clock:by=5ms@step:300000")
	p := golden(t)
	for _, q := range []interface {
		Seek(uint64) error
	}{o, p} {
		if err := q.Seek(300_001); err != nil {
			t.Fatal(err)
		}
	}
	a, b := o.Machine(), p.Machine()
	if d := a.TSC() - b.TSC(); d != 5_000_000 {
		t.Errorf("the time-stamp counter jumped by %d", d)
	}
	if a.TimeNs() != b.TimeNs() {
		t.Errorf("virtual time is %d, was %d", a.TimeNs(), b.TimeNs())
	}
	o = inject(t, "clock:of=time,by=5ms@step:300000")
	if err := o.Seek(300_001); err != nil {
		t.Fatal(err)
	}
	if d := o.Machine().TimeNs() - b.TimeNs(); d != 5_000_000 {
		t.Errorf("virtual time jumped by %d", d)
	}
}

func TestBadFaults(t *testing.T) {
	for spec, want := range map[string]string{
		"poison:addr=0x300000,size=3x":       "neither line, page nor a number",
		"poison:addr=0x300000,by=nobody":     "nobody is called",
		"poison:addr=0x300000,by=scrubber":   "needs key scrub",
		"poison:addr=0x300000,by=writeback":  "needs key writeback",
		"poison:addr=0x300000,grain=3":       "not a power of two",
		"poison:addr=0x300000,bank=20":       "bank 20 of 20",
		"poison:addr=0xfffffffff":            "outside RAM",
		"poison:vaddr=0x900000":              "not mapped",
		"mem:addr=0x1000":                    "give one of bit, mask and data",
		"mem:addr=0x1000,bit=3,mask=4":       "give one of bit, mask and data",
		"mem:addr=0x1000,data=zz":            "in hexadecimal",
		"mem:addr=0x1000,bit=x":              "not a whole number",
		"mem:addr=0x1000,bit=99999":          "beyond",
		"mem:addr=0x1000,mask=0":             "names no bit",
		"mem:bit=0":                          "one of addr and vaddr",
		"mem:addr=0x1000,bit=0,for=5":        "goes with stuck=yes",
		"reg:name=raxx,bit=0":                "did you mean rax?",
		"reg:name=rax,bit=64":                "has 64 bits",
		"reg:name=rax,bit=0,cpu=1":           "processor 1 of 1",
		"alu:unit=add":                       "give one of bit",
		"alu:bit=200":                        "no result has",
		"opcode:bit=200":                     "up to 15 bytes",
		"opcode:bit=0,p=0.5":                 "key p is not possible",
		"irq:do=lose":                        "give one of vector, line, pic and source",
		"bus:len=4":                          "one of port and addr",
		"bus:port=5,addr=0xfec00000":         "one of port and addr",
		"bus:port=0xffff,len=2":              "there is nothing from 0x10000 on",
		"bus:addr=0x1000":                    "is in RAM",
		"bus:port=0x1f0,bit=3":               "go with do=flip",
		"bus:port=0x1f0,do=flip":             "give one of bit, mask and data",
		"bus:port=0x1f0,do=flip,bit=8":       "give key len",
		"irq:do=lose,pic=2":                  "the second controller",
		"irq:do=lose,pic=16":                 "inputs 0 to 15",
		"irq:do=lose,pic=timer":              "one of pit, keyboard",
		"irq:do=lose,line=com2":              "one of pit, keyboard",
		"irq:do=lose,pic=rtc":                "takes no interrupts from input 8",
		"irq:do=spurious,pic=7,vector=33":    "give one of",
		"irq:do=lose,vector=3":               "16 to 255",
		"irq:do=delay,vector=33":             "needs key by",
		"irq:do=lose,line=24":                "has not set that interrupt up",
		"clock:of=time,by=-5ms":              "cannot jump by",
		"mem:vaddr=0x1000,bit=0,pid=5":       "need a Linux kernel",
		"mem:vaddr=0x1000,bit=0,pid=5,cr3=6": "give one of cr3, pid and comm",
		"pte:vaddr=0x1000,bit=0":             "not in 64-bit mode",
	} {
		inj, err := Inject(golden(t), t.TempDir()+"/f", parseAll(t, []string{spec + "@step:300000"}), often, tinyDisk())
		if err == nil {
			_, err = inj.Run()
			inj.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want %q", spec, err, want)
		}
	}
}

// What the literature calls error consumption: does anybody read the wrong value, or is it overwritten?
func TestTrackedFlips(t *testing.T) {
	for spec, want := range map[string]string{
		"mem:addr=$ticks,bit=30,track=yes@step:100000":    "consumed by a load of the kernel",
		"mem:addr=0x116000,bit=3,track=yes@step:100000":   "overwritten",
		"mem:addr=0x300000,bit=3,track=yes@step:100000":   "",
		"mem:addr=0x300003,data=ff00ff,track=yes@step:99": "",
	} {
		o := inject(t, spec)
		got := strings.Join(whats(o.lives(t)), "; ")
		if got != want {
			t.Errorf("%s: %q, want %q", spec, got, want)
		}
		// It is only looked at: the run is that of the flip alone.
		if plain := inject(t, strings.Replace(spec, ",track=yes", "", 1)); plain.said() != o.said() || plain.End() != o.End() {
			t.Errorf("%s: another run than without", spec)
		}
	}
}
