package lapic

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/devtest"
)

// bench is a machine of several local APICs.
type bench struct {
	*devtest.Clock
	t      *testing.T
	hub    *Hub
	apics  []*LAPIC
	log    []string // what processors were asked
	eois   []uint8
	acks   int
	adjust uint64
}

type processor struct {
	b *bench
	n int
}

func (p processor) note(what string) { p.b.log = append(p.b.log, fmt.Sprintf("%d:%s", p.n, what)) }
func (p processor) NMI()             { p.note("NMI") }
func (p processor) INIT()            { p.note("INIT") }
func (p processor) SIPI(v uint8)     { p.note(fmt.Sprintf("SIPI %#x", v)) }
func (p processor) SMI()             { p.note("SMI") }

func newBench(t *testing.T, n int) *bench {
	b := &bench{Clock: devtest.NewClock(), t: t, hub: new(Hub)}
	b.hub.EOI = func(v uint8) { b.eois = append(b.eois, v) }
	for i := range n {
		b.apics = append(b.apics, New(Config{ID: i, Hub: b.hub, Queue: b.Clock.Queue, CPU: processor{b, i},
			AckPIC: func() uint8 { b.acks++; return 0x30 }, TSCAdjust: func() uint64 { return b.adjust }}))
	}
	return b
}

// enable switches all APICs on, as Linux does in xAPIC mode: spurious vector FFH, flat model.
func (b *bench) enable() *bench {
	for i, l := range b.apics {
		l.Write(regDFR<<4, 4, 0xffffffff)
		l.Write(regLDR<<4, 4, 1<<(24+i))
		l.Write(regSVR<<4, 4, svrEnable|0xff)
	}
	return b
}

func (b *bench) enableX2() *bench {
	b.enable()
	for _, l := range b.apics {
		b.wrmsr(l, msrAPICBase, l.Base|baseX2, true)
	}
	return b
}

func (b *bench) wrmsr(l *LAPIC, msr uint32, v uint64, want bool) {
	b.t.Helper()
	if handled, ok := l.WriteMSR(msr, v); !handled || ok != want {
		b.t.Errorf("WRMSR %#x, %#x: handled %v, ok %v; want ok %v", msr, v, handled, ok, want)
	}
}

func (b *bench) rdmsr(l *LAPIC, msr uint32) uint64 {
	b.t.Helper()
	v, handled, ok := l.ReadMSR(msr)
	if !handled || !ok {
		b.t.Errorf("RDMSR %#x: handled %v, ok %v", msr, handled, ok)
	}
	return v
}

// want checks that an APIC delivers these vectors, ending each before the next.
func (b *bench) want(l *LAPIC, vectors ...uint8) {
	b.t.Helper()
	var got []uint8
	for l.Pending() && len(got) < 20 {
		got = append(got, l.Acknowledge())
		l.Write(regEOI<<4, 4, 0)
	}
	if !slices.Equal(got, vectors) {
		b.t.Errorf("lapic%d delivers %#x, want %#x", l.id, got, vectors)
	}
}

func (b *bench) wantLog(want ...string) {
	b.t.Helper()
	if !slices.Equal(b.log, want) {
		b.t.Errorf("processors were asked %v, want %v", b.log, want)
	}
	b.log = nil
}

func TestRegistersAtPowerOn(t *testing.T) {
	b := newBench(t, 2)
	for _, c := range []struct {
		l    int
		reg  uint64
		want uint64
	}{
		{0, regID, 0}, {1, regID, 1 << 24}, {0, regVersion, 0x01060014}, {0, regTPR, 0}, {0, regDFR, 0xffffffff}, {0, regLDR, 0},
		{0, regSVR, 0xff}, {0, regLVTTimer, LVTMasked}, {0, regCMCI, LVTMasked}, {0, regLINT0, LVTMasked}, {1, regLVTError, LVTMasked},
		{0, regICR, 0}, {0, regCurrent, 0}, {0, regRRD, 0},
	} {
		if v := b.apics[c.l].Read(c.reg<<4, 4); v != c.want {
			t.Errorf("lapic%d: register %#x reads %#x, want %#x", c.l, c.reg, v, c.want)
		}
	}
	if v := b.rdmsr(b.apics[0], msrAPICBase); v != 0xfee00900 {
		t.Errorf("IA32_APIC_BASE of the boot processor: %#x", v)
	}
	if v := b.rdmsr(b.apics[1], msrAPICBase); v != 0xfee00800 {
		t.Errorf("IA32_APIC_BASE of the other: %#x", v)
	}
	if l := b.apics[0]; !l.Decodes(0xfee00000) || !l.Decodes(0xfee00fff) || l.Decodes(0xfee01000) || l.Decodes(0xfedfffff) {
		t.Error("decodes other addresses than its page")
	}
}

func TestPriorities(t *testing.T) {
	b := newBench(t, 1).enable()
	l := b.apics[0]
	send := func(v uint8) { b.hub.Deliver(Message{Vector: v}) }
	send(0x31)
	send(0x52)
	send(0x51)
	if v := l.Acknowledge(); v != 0x52 {
		t.Errorf("the first is %#x, want 52", v)
	}
	if l.Pending() || l.Read(regPPR<<4, 4) != 0x50 {
		t.Errorf("51H interrupts 52H; PPR %#x", l.Read(regPPR<<4, 4))
	}
	send(0x60)
	if !l.Pending() || l.Acknowledge() != 0x60 {
		t.Error("60H does not interrupt 52H")
	}
	l.Write(regEOI<<4, 4, 0)
	if l.Pending() {
		t.Error("EOI ended the lower one")
	}
	l.Write(regEOI<<4, 4, 0)
	l.SetCR8(5)
	if l.Read(regTPR<<4, 4) != 0x50 || l.Pending() {
		t.Error("CR8 5 lets 51H through")
	}
	l.Write(regTPR<<4, 4, 0x4f)
	if l.CR8() != 4 || l.Read(regPPR<<4, 4) != 0x4f {
		t.Errorf("CR8 %d, PPR %#x", l.CR8(), l.Read(regPPR<<4, 4))
	}
	b.want(l, 0x51)
	l.SetCR8(0)
	b.want(l, 0x31)
	l.Write(regEOI<<4, 4, 0) // with nothing in service: nothing
	if len(b.eois) != 0 {
		t.Errorf("EOI of edge-triggered interrupts was broadcast: %#x", b.eois)
	}
	if v := l.Acknowledge(); v != 0xff {
		t.Errorf("nothing pending: %#x, want the spurious vector", v)
	}
}

func TestLevelTriggeredEOI(t *testing.T) {
	b := newBench(t, 1).enable()
	l := b.apics[0]
	b.hub.Deliver(Message{Vector: 0x41, Level: true})
	if l.Read((regTMR+2)<<4, 4) != 2 || l.Read((regIRR+2)<<4, 4) != 2 {
		t.Error("TMR or IRR not set")
	}
	b.want(l, 0x41)
	if !slices.Equal(b.eois, []uint8{0x41}) {
		t.Errorf("broadcast %#x", b.eois)
	}
	b.eois = nil
	l.Write(regSVR<<4, 4, svrEnable|svrNoEOI|0xff)
	b.hub.Deliver(Message{Vector: 0x41, Level: true})
	b.want(l, 0x41)
	l.Write(regSVR<<4, 4, svrEnable|0xff)
	b.hub.Deliver(Message{Vector: 0x41})
	b.want(l, 0x41)
	if len(b.eois) != 0 {
		t.Errorf("broadcast %#x though suppressed, or edge-triggered", b.eois)
	}
}

func TestDestinations(t *testing.T) {
	for _, c := range []struct {
		name string
		x2   bool
		dfr  uint64
		ldr  [4]uint64
		m    Message
		want []int
	}{
		{name: "physical", m: Message{Dest: 2}, want: []int{2}},
		{name: "physical, nobody", m: Message{Dest: 9}},
		{name: "physical, all", m: Message{Dest: 0xff}, want: []int{0, 1, 2, 3}},
		{name: "flat", m: Message{Dest: 0xa, Logical: true}, want: []int{1, 3}},
		{name: "flat, all", m: Message{Dest: 0xff, Logical: true}, want: []int{0, 1, 2, 3}},
		{name: "flat, none", m: Message{Dest: 0xf0, Logical: true}},
		{name: "lowest of two", m: Message{Dest: 0xa, Logical: true, Mode: ModeLowest}, want: []int{3}},
		{name: "cluster", dfr: 0x0fffffff, ldr: [4]uint64{0x11, 0x12, 0x21, 0x24}, m: Message{Dest: 0x25, Logical: true}, want: []int{2, 3}},
		{name: "all clusters", dfr: 0x0fffffff, ldr: [4]uint64{0x11, 0x12, 0x21, 0x24}, m: Message{Dest: 0xf1, Logical: true}, want: []int{0, 2}},
		{name: "x2 physical", x2: true, m: Message{Dest: 3}, want: []int{3}},
		{name: "x2 physical, all in eight bits", x2: true, m: Message{Dest: 0xff}, want: []int{0, 1, 2, 3}},
		{name: "x2 logical", x2: true, m: Message{Dest: 0x5, Logical: true}, want: []int{0, 2}},
		{name: "x2 logical, another cluster", x2: true, m: Message{Dest: 1<<16 | 5, Logical: true}},
		{name: "x2 logical, all", x2: true, m: Message{Dest: broadcast, Logical: true}, want: []int{0, 1, 2, 3}},
	} {
		b := newBench(t, 4).enable()
		for i, l := range b.apics {
			if c.dfr != 0 {
				l.Write(regDFR<<4, 4, c.dfr)
				l.Write(regLDR<<4, 4, c.ldr[i]<<24)
			}
			l.SetCR8(uint8(7 - i)) // the last is the least busy
		}
		if c.x2 {
			b.enableX2()
		}
		c.m.Vector = 0x99
		b.hub.Deliver(c.m)
		var got []int
		for i, l := range b.apics {
			if l.Pending() {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: reached %v, want %v", c.name, got, c.want)
		}
	}
}

func TestIPIs(t *testing.T) {
	b := newBench(t, 3).enable()
	icr := func(from int, dest, v uint64) {
		b.apics[from].Write(regICRHigh<<4, 4, dest<<24)
		b.apics[from].Write(regICR<<4, 4, v)
	}
	icr(0, 1, 0xfd)
	b.want(b.apics[1], 0xfd)
	icr(1, 0, toSelf<<18|0x45)
	b.want(b.apics[0])
	b.want(b.apics[1], 0x45)
	icr(2, 0, toOthers<<18|0x46)
	b.want(b.apics[2])
	b.want(b.apics[0], 0x46)
	b.want(b.apics[1], 0x46)
	icr(2, 0, toAll<<18|0x47)
	for _, l := range b.apics {
		b.want(l, 0x47)
	}
	icr(0, 2, icrLogical|ModeFixed<<8|0x48) // the second in the flat model
	b.want(b.apics[1], 0x48)
	icr(0, 1, ModeNMI<<8)
	icr(0, 1, ModeSMI<<8)
	b.wantLog("1:NMI", "1:SMI")

	// How Linux starts a processor.
	icr(0, 2, icrLevel|icrAssert|ModeINIT<<8)
	icr(0, 2, icrLevel|ModeINIT<<8)
	icr(0, 2, ModeSIPI<<8|0x9a)
	b.wantLog("2:INIT", "2:SIPI 0x9a")
	if l := b.apics[2]; l.Read(regSVR<<4, 4) != 0xff || l.Read(regID<<4, 4) != 2<<24 {
		t.Error("INIT did not reset the APIC, or changed its identifier")
	}
	icr(0, 2, 0x50)
	b.want(b.apics[2]) // disabled by software since
	icr(0, 2, ModeNMI<<8)
	b.wantLog("2:NMI")
	if v := b.apics[0].Read(regICR<<4, 4); v != ModeNMI<<8 {
		t.Errorf("ICR reads %#x", v)
	}
	icr(0, 0, ModeExtINT<<8)
	icr(0, 0, 3<<8)
	if b.apics[0].Pending() || len(b.log) != 0 {
		t.Error("a reserved delivery mode did something")
	}
}

func TestErrors(t *testing.T) {
	b := newBench(t, 1).enable()
	l := b.apics[0]
	esr := func() uint64 {
		l.Write(regESR<<4, 4, 0)
		return l.Read(regESR<<4, 4)
	}
	l.Write(regLVTError<<4, 4, 0xfe)
	b.hub.Deliver(Message{Vector: 15})
	b.want(l, 0xfe)
	l.Write(regICR<<4, 4, toSelf<<18|3)
	b.want(l, 0xfe)
	l.Read(0x3f<<4, 4)
	l.Write(0x04<<4, 4, 1)
	b.want(l, 0xfe)
	if l.Read(regESR<<4, 4) != 0 {
		t.Error("ESR shows errors before it is written")
	}
	if v := esr(); v != esrReceiveVector|esrSendVector|esrRegister {
		t.Errorf("ESR %#x", v)
	}
	if v := esr(); v != 0 {
		t.Errorf("ESR %#x after it was written twice", v)
	}
	l.Write(regLVTError<<4, 4, 2) // an error in delivering errors
	b.hub.Deliver(Message{Vector: 1})
	if v := esr(); v != esrReceiveVector || l.Pending() {
		t.Errorf("ESR %#x", v)
	}
}

func TestLVT(t *testing.T) {
	b := newBench(t, 1)
	l := b.apics[0]
	l.Write(regCMCI<<4, 4, 0xf7)
	if v := l.Read(regCMCI<<4, 4); v != LVTMasked|0xf7 {
		t.Errorf("LVT CMCI %#x while disabled, want it masked", v)
	}
	b.enable()
	for reg, want := range map[uint64]uint64{
		regLVTTimer: 0x700ff, regCMCI: 0x107ff, regLINT0: 0x1a7ff, regLINT1: 0x1a7ff,
		regLVTError: 0x100ff, regPerf: 0x107ff, regThermal: 0x107ff,
	} {
		l.Write(reg<<4, 4, 0xffffffff)
		if v := l.Read(reg<<4, 4); v != want {
			t.Errorf("register %#x holds %#x, want %#x", reg, v, want)
		}
	}
	if l.TriggerCMCI() || l.Pending() {
		t.Error("CMCI while masked")
	}
	l.Write(regCMCI<<4, 4, 0xf7)
	if !l.TriggerCMCI() {
		t.Error("no CMCI")
	}
	b.want(l, 0xf7)
	l.Write(regCMCI<<4, 4, ModeSMI<<8)
	l.TriggerCMCI()
	l.Write(regLINT1<<4, 4, ModeNMI<<8)
	l.SetLINT1(true)
	l.SetLINT1(true)
	l.SetLINT1(false)
	b.wantLog("0:SMI", "0:NMI")
	l.Write(regSVR<<4, 4, 0xff)
	if l.Read(regLINT1<<4, 4) != LVTMasked|ModeNMI<<8 {
		t.Error("disabling by software did not mask the LVT")
	}
	l.Write(regSVR<<4, 4, svrEnable|0xff)
	if l.Read(regLINT1<<4, 4) != LVTMasked|ModeNMI<<8 || l.TriggerCMCI() {
		t.Error("enabling unmasked the LVT")
	}
}

func TestExtINT(t *testing.T) {
	b := newBench(t, 1)
	l := b.apics[0]
	check := func(what string, want bool) {
		t.Helper()
		if l.Pending() != want {
			t.Errorf("%s: pending %v", what, l.Pending())
		}
	}
	l.SetExtINT(true)
	check("disabled by software", true)
	if l.Acknowledge() != 0x30 || b.acks != 1 {
		t.Error("the 8259A was not acknowledged")
	}
	b.enable()
	check("masked", false)
	l.Write(regLINT0<<4, 4, ModeExtINT<<8)
	check("LINT0 in ExtINT mode", true)
	l.Write(regLINT0<<4, 4, LVTMasked|ModeExtINT<<8)
	check("masked again", false)
	l.Write(regLINT0<<4, 4, ModeExtINT<<8)
	b.hub.Deliver(Message{Vector: 0xec})
	if v := l.Acknowledge(); v != 0xec {
		t.Errorf("%#x, want the fixed one first", v)
	}
	l.SetExtINT(false)
	check("lowered", false)
	b.hub.Deliver(Message{Mode: ModeExtINT})
	check("by message", true)
	if l.Acknowledge() != 0x30 {
		t.Error("by message: not acknowledged")
	}
	check("after it", false)

	// Virtual wire through a fixed vector, which Linux tries when all else fails.
	l.Write(regLINT0<<4, 4, 0x30)
	l.Write(regEOI<<4, 4, 0)
	l.SetExtINT(true)
	b.want(l, 0x30)
	l.SetExtINT(true)
	b.want(l)

	b.wrmsr(l, msrAPICBase, 0xfee00100, true)
	check("globally disabled", true)
	l.SetLINT1(true)
	b.wantLog("0:NMI")
}

func TestTimer(t *testing.T) {
	const ms = 1_000_000
	b := newBench(t, 1).enable()
	l := b.apics[0]
	count := func() uint64 { return l.Read(regCurrent<<4, 4) }
	l.Write(regDivide<<4, 4, 3) // by 16
	l.Write(regLVTTimer<<4, 4, 0xec)
	b.Advance(777)
	l.Write(regInitial<<4, 4, 1000)
	if count() != 1000 {
		t.Errorf("count %d at the start", count())
	}
	b.Advance(16*TickNs - 1)
	if count() != 1000 {
		t.Errorf("count %d before the first", count())
	}
	b.Advance(1)
	if count() != 999 {
		t.Errorf("count %d after the first", count())
	}
	b.Advance(998 * 16 * TickNs)
	b.want(l)
	b.Advance(16 * TickNs)
	b.want(l, 0xec)
	b.Advance(5 * ms)
	if b.want(l); count() != 0 || b.Clock.Queue.Next() != dev.Never {
		t.Error("one-shot went on")
	}

	l.Write(regLVTTimer<<4, 4, timerPeriodic<<lvtModeShift|0xec)
	if b.Clock.Queue.Next() != dev.Never {
		t.Error("a timer that had ended runs again when its mode changes")
	}
	l.Write(regDivide<<4, 4, 0xb) // by 1
	l.Write(regInitial<<4, 4, 25_000)
	for range 5 {
		b.Advance(ms - 1)
		b.want(l)
		b.Advance(1)
		b.want(l, 0xec)
		if count() != 25_000 {
			t.Errorf("count %d at the start of a period", count())
		}
	}
	b.Advance(ms / 4)
	l.Write(regDivide<<4, 4, 0) // by 2: three quarters are left
	if count() != 18_750 {
		t.Errorf("count %d after another divisor", count())
	}
	b.Advance(ms/4*6 - 1)
	b.want(l)
	b.Advance(1)
	b.want(l, 0xec)
	b.Advance(2 * ms / 4)
	l.Write(regLVTTimer<<4, 4, 0xec) // one-shot: ends with this period
	b.Advance(2*ms/4*3 - 1)
	b.want(l)
	b.Advance(1)
	b.want(l, 0xec)
	if b.Clock.Queue.Next() != dev.Never {
		t.Error("went on as one-shot")
	}
	l.Write(regInitial<<4, 4, 5)
	l.Write(regInitial<<4, 4, 0)
	if b.Clock.Queue.Next() != dev.Never {
		t.Error("an initial count of zero does not stop")
	}
	for code, div := range [16]uint64{0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1} {
		if div == 0 {
			continue
		}
		l.Write(regDivide<<4, 4, uint64(code))
		l.Write(regInitial<<4, 4, 0xffffffff)
		if at := b.Clock.Queue.Next() - b.NowNs; at != 0xffffffff*div*TickNs {
			t.Errorf("divide configuration %d: expires after %d", code, at)
		}
	}
}

func TestTSCDeadline(t *testing.T) {
	b := newBench(t, 1).enable()
	l := b.apics[0]
	b.Advance(1000)
	b.wrmsr(l, msrTSCDeadline, 5000, true)
	if b.rdmsr(l, msrTSCDeadline) != 0 || b.Clock.Queue.Next() != dev.Never {
		t.Error("a deadline in another mode counts")
	}
	l.Write(regLVTTimer<<4, 4, timerDeadline<<lvtModeShift|0xec)
	l.Write(regInitial<<4, 4, 100)
	if l.Read(regInitial<<4, 4) != 0 || b.Clock.Queue.Next() != dev.Never {
		t.Error("an initial count in TSC-deadline mode counts")
	}
	b.wrmsr(l, msrTSCDeadline, 5000, true)
	b.Advance(3999)
	b.want(l)
	b.Advance(1)
	b.want(l, 0xec)
	if b.rdmsr(l, msrTSCDeadline) != 0 {
		t.Error("the deadline remains")
	}
	b.wrmsr(l, msrTSCDeadline, 1, true) // long past
	b.Advance(0)
	b.want(l, 0xec)
	b.wrmsr(l, msrTSCDeadline, 9000, true)
	b.wrmsr(l, msrTSCDeadline, 0, true)
	b.Advance(10_000)
	b.want(l)

	b.adjust = 1 << 40
	b.wrmsr(l, msrTSCDeadline, 1<<40+20_000, true)
	b.Advance(20_000 - b.NowNs - 1)
	b.want(l)
	b.Advance(1)
	b.want(l, 0xec)
	b.wrmsr(l, msrTSCDeadline, 1<<40+30_000, true)
	b.adjust -= 500
	l.TSCChanged()
	b.Advance(30_000 - b.NowNs)
	b.want(l)
	b.adjust -= 500 // nobody tells
	b.Advance(500)
	b.want(l)
	b.Advance(500)
	b.want(l, 0xec)
	b.adjust = ^uint64(0) // one behind
	b.wrmsr(l, msrTSCDeadline, ^uint64(0), true)
	if b.Clock.Queue.Next() < 1<<63 {
		t.Errorf("the last deadline there is comes at %d", b.Clock.Queue.Next())
	}
	l.Write(regLVTTimer<<4, 4, 0xec)
	if b.rdmsr(l, msrTSCDeadline) != 0 || b.Clock.Queue.Next() != dev.Never {
		t.Error("leaving the mode does not disarm")
	}
	l.Write(regInitial<<4, 4, 100)
	l.Write(regLVTTimer<<4, 4, timerDeadline<<lvtModeShift|LVTMasked|0xec)
	if b.Clock.Queue.Next() != dev.Never {
		t.Error("entering the mode does not disarm")
	}
	b.wrmsr(l, msrTSCDeadline, 1, true)
	b.Advance(0)
	if b.want(l); b.rdmsr(l, msrTSCDeadline) != 0 {
		t.Error("masked: the deadline remains")
	}
}

func TestX2APIC(t *testing.T) {
	b := newBench(t, 2).enable()
	l := b.apics[1]
	if v, handled, ok := l.ReadMSR(msrX2APIC + regID); !handled || ok {
		t.Errorf("x2APIC register %#x readable in xAPIC mode", v)
	}
	b.wrmsr(l, msrX2APIC+regEOI, 0, false)
	b.enableX2()
	if l.Decodes(0xfee00000) {
		t.Error("still in memory")
	}
	for reg, want := range map[uint32]uint64{regID: 1, regLDR: 2, regVersion: 0x01060014, regSVR: 0x1ff} {
		if v := b.rdmsr(l, msrX2APIC+reg); v != want {
			t.Errorf("register %#x reads %#x, want %#x", reg, v, want)
		}
	}
	for _, reg := range []uint32{regDFR, regICRHigh, regEOI, regSelfIPI, regAPR, regRRD, 0, 0x3a, 0xff} {
		if _, handled, ok := l.ReadMSR(msrX2APIC + reg); !handled || ok {
			t.Errorf("register %#x can be read", reg)
		}
	}
	for _, c := range []struct {
		reg uint32
		v   uint64
		ok  bool
	}{
		{regID, 1, false}, {regVersion, 0, false}, {regLDR, 0, false}, {regPPR, 0, false}, {regISR, 0, false}, {regCurrent, 0, false},
		{regDFR, 0, false}, {regICRHigh, 0, false}, {0, 0, false},
		{regTPR, 0x20, true}, {regTPR, 0x100, false}, {regTPR, 0, true},
		{regEOI, 0, true}, {regEOI, 1, false}, {regESR, 0, true}, {regESR, 1, false},
		{regSVR, 0x1ff, true}, {regSVR, 0x5ff, false},
		{regLINT0, LVTMasked | lvtPending | lvtRemoteIRR | 0x30, true}, {regLINT0, 1 << 17, false}, {regLVTTimer, lvtLevel, false},
		{regInitial, 1 << 32, false}, {regDivide, 4, false}, {regDivide, 0xb, true},
		{regSelfIPI, 0x100, false}, {regICR, 1 << 16, false},
	} {
		b.wrmsr(l, msrX2APIC+c.reg, c.v, c.ok)
	}
	b.wrmsr(l, msrX2APIC+regSelfIPI, 0x77, true)
	if v := l.Acknowledge(); v != 0x77 {
		t.Errorf("self IPI delivers %#x", v)
	}
	b.wrmsr(l, msrX2APIC+regEOI, 0, true)
	b.wrmsr(l, msrX2APIC+regSelfIPI, 7, true)
	b.wrmsr(l, msrX2APIC+regESR, 0, true)
	if v := b.rdmsr(l, msrX2APIC+regESR); v != esrSendVector {
		t.Errorf("ESR %#x", v)
	}
	b.wrmsr(l, msrX2APIC+regICR, 0<<32|0x66, true)
	if b.rdmsr(l, msrX2APIC+regICR) != 0x66 || !b.apics[0].Pending() || b.apics[0].Acknowledge() != 0x66 {
		t.Error("no IPI by a write of 64 bits")
	}
	if _, handled, _ := l.ReadMSR(msrX2APIC + numX2APIC); handled {
		t.Error("answers for the MSR after its range")
	}
}

// TestBaseTransitions holds IA32_APIC_BASE to SDM Vol. 3A figure 10-27.
func TestBaseTransitions(t *testing.T) {
	const address, off, x1, bad, x2 = 0xfee00000, 0, baseEnable, baseX2, baseEnable | baseX2
	for _, c := range []struct {
		path []uint64
		ok   bool // of the last
	}{
		{[]uint64{x1}, true}, {[]uint64{x2}, true}, {[]uint64{off}, true}, {[]uint64{bad}, false},
		{[]uint64{x2, x2}, true}, {[]uint64{x2, x1}, false}, {[]uint64{x2, off}, true}, {[]uint64{x2, bad}, false},
		{[]uint64{off, x2}, false}, {[]uint64{off, x1}, true}, {[]uint64{off, off}, true}, {[]uint64{off, bad}, false},
		{[]uint64{x2, off, x1}, true},
		{[]uint64{x1 | 1}, false}, {[]uint64{x1 | 1<<9}, false}, {[]uint64{x1 | 1<<40}, false}, {[]uint64{x1 | 1<<36}, true},
	} {
		b := newBench(t, 1).enable()
		for i, v := range c.path {
			b.wrmsr(b.apics[0], msrAPICBase, address|baseBSP|v, i < len(c.path)-1 || c.ok)
		}
	}
	b := newBench(t, 1).enable()
	l := b.apics[0]
	b.hub.Deliver(Message{Vector: 0x40})
	b.wrmsr(l, msrAPICBase, 0xfee00000|baseBSP, true)
	b.hub.Deliver(Message{Vector: 0x41})
	b.wrmsr(l, msrAPICBase, 0x12345000|baseEnable, true)
	if l.Pending() || l.Read(regSVR<<4, 4) != 0xff {
		t.Error("disabling globally does not reset")
	}
	if !l.Decodes(0x12345080) || l.Decodes(0xfee00080) {
		t.Error("the page did not move")
	}
}

func TestAccessesBesideTheRegisters(t *testing.T) {
	b := newBench(t, 2).enable()
	l := b.apics[1]
	if l.Read(regID<<4+3, 1) != 1 || l.Read(regID<<4+4, 4) != 0 {
		t.Error("bytes of a register")
	}
	l.Write(regTPR<<4+4, 4, 0xff)
	if l.Read(regTPR<<4, 4) != 0 {
		t.Error("a write beside a register wrote it")
	}
	l.Write(regID<<4, 4, 0)
	l.Write(regISR<<4, 4, ^uint64(0))
	if l.Read(regID<<4, 4) != 1<<24 || l.Read(regISR<<4, 4) != 0 {
		t.Error("read-only registers can be written")
	}
}

func randomStep(b *bench) func(r *rand.Rand) any {
	regs := []uint32{regTPR, regEOI, regSVR, regESR, regCMCI, regICR, regICRHigh, regLVTTimer, regLINT0, regLVTError, regInitial, regDivide}
	return func(r *rand.Rand) any {
		l := b.apics[r.IntN(len(b.apics))]
		reg, v := regs[r.IntN(len(regs))], r.Uint64()
		switch r.IntN(9) {
		case 0:
			b.Advance(r.Uint64N(1 << r.IntN(20)))
		case 1:
			l.Write(uint64(reg)<<4, 4, v)
		case 2:
			l.Write(regSVR<<4, 4, svrEnable|v)
		case 3:
			l.Write(regLVTTimer<<4, 4, v&(3<<lvtModeShift)|0xec)
			l.Write(regInitial<<4, 4, v>>54)
		case 4:
			l.WriteMSR(msrTSCDeadline, b.NowNs+v>>50)
		case 5:
			b.hub.Deliver(Message{Vector: uint8(v), Level: v&256 != 0, Mode: uint8(v >> 9 & 7), Logical: v&(1<<12) != 0, Dest: uint32(v >> 13 & 3)})
		case 6:
			l.SetExtINT(v&1 != 0)
		case 7:
			l.WriteMSR(msrX2APIC+reg, v>>r.IntN(64))
			l.WriteMSR(msrAPICBase, l.Base^v&baseX2)
		}
		var seen []any
		if l.Pending() && v>>63 != 0 {
			seen = append(seen, l.Acknowledge())
		}
		x, _ := l.read(reg)
		seen = append(seen, x, l.currentCount(), b.log, b.eois, b.acks)
		b.log, b.eois, b.acks = nil, nil, 0
		return seen
	}
}

func TestSaveRestore(t *testing.T) {
	devtest.SaveRestore(t, func() *devtest.Bench {
		b := newBench(t, 2)
		return &devtest.Bench{Clock: b.Clock, Devices: []dev.Device{b.apics[0], b.apics[1]}, Step: randomStep(b)}
	})
	for _, bad := range []State{{Version: 2}, {Version: 1, Running: true}} {
		if newBench(t, 1).apics[0].Restore(func(p any) error { *p.(*State) = bad; return nil }) == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

func FuzzRestore(f *testing.F) {
	b := newBench(&testing.T{}, 1).enable()
	b.apics[0].Write(regLVTTimer<<4, 4, timerPeriodic<<lvtModeShift|0xec)
	b.apics[0].Write(regInitial<<4, 4, 1000)
	f.Add(dev.Encode(b.apics[0]), []byte{1, 2, 3}, uint64(5))
	f.Fuzz(func(t *testing.T, state, accesses []byte, nowNs uint64) {
		b := newBench(t, 1)
		b.NowNs = nowNs >> 1
		l := b.apics[0]
		if dev.Decode(l, state) != nil {
			return
		}
		l.TSCChanged()
		for ; len(accesses) >= 3; accesses = accesses[3:] {
			reg, v := uint64(accesses[1]), uint64(accesses[2])*0x01010101
			l.Write(reg<<4, 4, v)
			l.Read(reg<<4, 4)
			l.WriteMSR(msrX2APIC+uint32(reg), v)
			l.WriteMSR(msrTSCDeadline, v)
			if l.Pending() {
				l.Acknowledge()
			}
			if next := b.Clock.Queue.Next(); next != dev.Never && next > b.NowNs {
				b.Advance(next - b.NowNs)
			}
		}
	})
}
