package pit

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/devtest"
)

// rig is a timer on a clock that tests move.
type rig struct {
	*PIT
	clk *devtest.Clock
	irq devtest.Line
}

func newRig() *rig {
	r := &rig{clk: devtest.NewClock()}
	r.PIT = New(r.clk.Queue, &r.irq)
	return r
}

// to moves time to the middle of input clock n.
func (r *rig) to(n uint64) { r.clk.Advance(nsOf(n) + 400 - r.clk.NowNs) }

// tick moves on by n input clocks.
func (r *rig) tick(n uint64) { r.to(r.clock() + n) }

func (r *rig) mode(ch, mode int) { r.Out(3, 1, uint32(ch<<6|0x30|mode<<1)) }

func (r *rig) load(ch int, n int) {
	r.Out(uint16(ch), 1, uint32(n&0xff))
	r.Out(uint16(ch), 1, uint32(n>>8&0xff))
}

func (r *rig) read(ch int) int {
	lo := r.In(uint16(ch), 1)
	return int(lo | r.In(uint16(ch), 1)<<8)
}

func (r *rig) gate2(on bool) {
	v := uint32(0)
	if on {
		v = 1
	}
	r.Port61().Out(0, 1, v)
}

func (r *rig) out2() bool { return r.Port61().In(0, 1)&0x20 != 0 }

// wave returns channel 2's output and count at each of the next n clocks.
func (r *rig) wave(n int) string {
	var s []string
	for range n {
		r.tick(1)
		level := "-"
		if r.out2() {
			level = "+"
		}
		s = append(s, fmt.Sprintf("%s%x", level, r.read(2)))
	}
	return strings.Join(s, " ")
}

// TestModes draws what the data sheet's figures 15 to 20 draw: the output and the
// counting element at each clock after the count was written.
func TestModes(t *testing.T) {
	type act struct {
		do   func(r *rig)
		want string
	}
	load := func(n int) func(r *rig) { return func(r *rig) { r.load(2, n) } }
	gate := func(on bool) func(r *rig) { return func(r *rig) { r.gate2(on) } }
	for _, x := range []struct {
		name string
		mode int
		gate bool
		acts []act
	}{
		{"mode 0", 0, true, []act{{load(4), "-4 -3 -2 -1 +0 +ffff +fffe"}, {load(2), "-2 -1 +0 +ffff"}}},
		{"mode 0, gate", 0, true, []act{{load(3), "-3 -2"}, {gate(false), "-2 -2 -2"}, {gate(true), "-1 +0 +ffff"}}},
		{"mode 0, written while the gate is low", 0, false, []act{{load(2), "-2 -2"}, {gate(true), "-1 +0"}}},
		{"mode 1", 1, false, []act{{load(3), "+0 +0"}, {gate(true), "-3 -2 -1 +0 +ffff"}, {gate(false), "+fffe"}, {gate(true), "-3 -2"},
			{gate(false), "-1"}, {gate(true), "-3 -2 -1 +0"}}},
		{"mode 1, new count", 1, false, []act{{load(2), "+0"}, {gate(true), "-2 -1"}, {load(4), "+0 +ffff"}, {gate(false), "+fffe"}, {gate(true), "-4 -3"}}},
		{"mode 2", 2, true, []act{{load(3), "+3 +2 -1 +3 +2 -1 +3"}}},
		{"mode 2, gate", 2, true, []act{{load(3), "+3 +2"}, {gate(false), "+2 +2"}, {gate(true), "+3 +2 -1 +3"}}},
		{"mode 2, new count", 2, true, []act{{load(4), "+4 +3"}, {load(3), "+2 -1 +3 +2 -1 +3"}}},
		{"mode 2, new count and trigger", 2, true, []act{{load(4), "+4 +3"}, {load(3), "+2"}, {gate(false), "+2"}, {gate(true), "+3 +2 -1"}}},
		{"mode 3, even", 3, true, []act{{load(4), "+4 +2 -4 -2 +4 +2 -4"}}},
		{"mode 3, odd", 3, true, []act{{load(5), "+4 +2 +0 -4 -2 +4 +2 +0 -4"}}},
		{"mode 3, gate", 3, true, []act{{load(4), "+4 +2 -4"}, {gate(false), "+4"}, {gate(true), "+4 +2 -4"}}},
		{"mode 3, new count in the high half", 3, true, []act{{load(6), "+6 +4"}, {load(4), "+2 -4 -2 +4 +2 -4"}}},
		{"mode 3, new count in the low half", 3, true, []act{{load(6), "+6 +4 +2 -6"}, {load(4), "-4 -2 +4 +2 -4 -2"}}},
		{"mode 4", 4, true, []act{{load(3), "+3 +2 +1 -0 +ffff +fffe"}, {load(2), "+2 +1 -0 +ffff"}}},
		{"mode 4, gate", 4, true, []act{{load(3), "+3 +2"}, {gate(false), "+2 +2"}, {gate(true), "+1 -0 +ffff"}}},
		{"mode 5", 5, false, []act{{load(3), "+0 +0"}, {gate(true), "+3 +2 +1 -0 +ffff"}, {gate(false), "+fffe"}, {gate(true), "+3 +2"}}},
		{"mode 6 is 2", 6, true, []act{{load(2), "+2 -1 +2"}}},
		{"mode 7 is 3", 7, true, []act{{load(2), "+2 -2 +2"}}},
		{"the largest count is 0", 0, true, []act{{load(0), "-0 -ffff -fffe"}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig()
			r.tick(10)
			r.gate2(x.gate)
			r.mode(2, x.mode)
			if r.out2() != (x.mode != 0) {
				t.Errorf("output %v after the control word", r.out2())
			}
			for _, a := range x.acts {
				a.do(r)
				if got := r.wave(len(strings.Fields(a.want))); got != a.want {
					t.Errorf("got  %s\nwant %s", got, a.want)
				}
			}
		})
	}
}

func TestBCD(t *testing.T) {
	r := newRig()
	r.gate2(true)
	for _, x := range []struct {
		mode, load int
		want       string
	}{
		{0, 0x1001, "-1001 -1000 -999"},
		{0, 0x0002, "-2 -1 +0 +9999 +9998"},
		{0, 0x0000, "-0 -9999 -9998"},
		{2, 0x0010, "+10 +9 +8"},
		{3, 0x0020, "+20 +18 +16"},
	} {
		r.Out(3, 1, uint32(0xb1|x.mode<<1))
		r.load(2, x.load)
		if got := r.wave(len(strings.Fields(x.want))); got != x.want {
			t.Errorf("mode %d, count %x: got %s, want %s", x.mode, x.load, got, x.want)
		}
	}
}

// TestInterrupts: channel 0 interrupts at the rising edges of its output, at the clock at which they are.
func TestInterrupts(t *testing.T) {
	for _, x := range []struct {
		mode, count int
		at          []uint64 // clocks after the write
	}{
		{0, 10, []uint64{11}},
		{2, 10, []uint64{11, 21, 31}},
		{3, 10, []uint64{11, 21, 31}},
		{3, 7, []uint64{8, 15, 22, 29}},
		{4, 10, []uint64{12}},
		{1, 10, nil}, // the gate never rises
		{5, 10, nil},
	} {
		r := newRig()
		r.tick(5)
		r.mode(0, x.mode)
		r.load(0, x.count)
		r.irq.Take()
		start, next := r.clock(), 0
		for r.clock() < start+31 {
			r.tick(1)
			want := 0
			if next < len(x.at) && r.clock() == start+x.at[next] {
				want = 1
				next++
			}
			if got := r.irq.Take(); got != want {
				t.Errorf("mode %d, count %d: %d interrupts at clock %d", x.mode, x.count, got, r.clock()-start)
			}
		}
	}
}

// TestLineLevel: the line follows the output of modes 0 and 3, and what is written to the timer.
func TestLineLevel(t *testing.T) {
	r := newRig()
	r.mode(0, 0)
	if r.irq.Level {
		t.Error("mode 0: high after the control word")
	}
	r.load(0, 3)
	r.tick(4)
	if !r.irq.Level {
		t.Error("mode 0: low at the end")
	}
	r.Out(0, 1, 5) // the first byte lowers it
	if r.irq.Level {
		t.Error("mode 0: high after the first byte of a new count")
	}
	r.tick(100)
	if r.irq.Level || r.clk.Queue.Next() != dev.Never {
		t.Error("half a count counts")
	}
	r.mode(0, 3)
	if !r.irq.Level {
		t.Error("mode 3: low after the control word")
	}
	r.load(0, 4)
	r.tick(3)
	if r.irq.Level {
		t.Error("mode 3: high in the second half")
	}
	r.tick(2)
	if !r.irq.Level {
		t.Error("mode 3: low in the next period")
	}
}

func TestAccess(t *testing.T) {
	r := newRig()
	r.gate2(true)
	r.Out(3, 1, 0x90) // channel 2, low byte, mode 0
	r.Out(2, 1, 0x34)
	r.tick(1)
	if a, b := r.In(2, 1), r.In(2, 1); a != 0x34 || b != 0x34 {
		t.Errorf("low byte: %#x, %#x", a, b)
	}
	r.Out(3, 1, 0xa0) // high byte
	r.Out(2, 1, 0x12)
	r.tick(1)
	if a, b := r.In(2, 1), r.In(2, 1); a != 0x12 || b != 0x12 {
		t.Errorf("high byte: %#x, %#x", a, b)
	}
	r.tick(1)
	if a := r.In(2, 1); a != 0x11 {
		t.Errorf("high byte after a borrow: %#x", a)
	}
	if got := r.In(3, 1); got != 0xff {
		t.Errorf("the control word reads %#x", got)
	}
}

func TestLatch(t *testing.T) {
	r := newRig()
	r.gate2(true)
	r.mode(2, 0)
	r.load(2, 0x1234)
	r.tick(1)
	r.Out(3, 1, 0x80)
	r.tick(0x100)
	r.Out(3, 1, 0x80) // the second is ignored
	if got := r.read(2); got != 0x1234 {
		t.Errorf("latched %#x", got)
	}
	if got := r.read(2); got != 0x1134 {
		t.Errorf("then %#x", got)
	}
	// A latch stays across other channels, and a control word ends it.
	r.Out(3, 1, 0x80)
	r.mode(0, 2)
	r.tick(4)
	if got := r.read(2); got != 0x1134 {
		t.Errorf("latched %#x", got)
	}
	r.Out(3, 1, 0x80)
	r.In(2, 1)
	r.mode(2, 0)
	r.load(2, 0x5678)
	r.tick(1)
	if got := r.read(2); got != 0x5678 {
		t.Errorf("after a control word %#x", got)
	}
}

func TestReadBack(t *testing.T) {
	r := newRig()
	r.gate2(true)
	status := func(ch int) int {
		r.Out(3, 1, uint32(0xe0|2<<ch)) // status alone
		return int(r.In(uint16(ch), 1))
	}
	r.mode(2, 4)
	if got := status(2); got != 0xf8 { // output high, null count, two bytes, mode 4
		t.Errorf("status %#x after the control word", got)
	}
	r.load(2, 3)
	if got := status(2); got != 0xf8 {
		t.Errorf("status %#x before the count is loaded", got)
	}
	r.tick(1)
	if got := status(2); got != 0xb8 {
		t.Errorf("status %#x", got)
	}
	r.tick(3)
	if got := status(2); got != 0x38 {
		t.Errorf("status %#x at the strobe", got)
	}
	// A new count of mode 2 is not loaded before the cycle ends.
	r.mode(2, 6)
	r.load(2, 4)
	r.tick(2)
	r.load(2, 8)
	if got := status(2); got != 0xfc {
		t.Errorf("status %#x with a count that waits: the mode reads as it was written", got)
	}
	r.tick(3)
	if got := status(2); got != 0xbc {
		t.Errorf("status %#x", got)
	}
	// Both: the status comes first, and neither is latched twice.
	r.mode(0, 2)
	r.load(0, 0x4321)
	r.tick(1)
	r.Out(3, 1, 0xc6) // channels 0 and 1, count and status
	r.tick(7)
	r.mode(1, 0)
	r.Out(3, 1, 0xc2)
	if got := r.In(0, 1); got != 0xb4 {
		t.Errorf("status %#x", got)
	}
	if got := r.read(0); got != 0x4321 {
		t.Errorf("count %#x", got)
	}
	if got := r.read(0); got != 0x4321-7 {
		t.Errorf("then %#x", got)
	}
	r.Out(3, 1, 0xd2) // count alone of channel 0
	if got := r.read(0); got != 0x4321-7 {
		t.Errorf("count %#x", got)
	}
}

func TestPort61(t *testing.T) {
	r := newRig()
	p := r.Port61()
	p.Out(0, 1, 0xff)
	if got := p.In(0, 1); got&0xcf != 0x0f {
		t.Errorf("%#x", got)
	}
	toggles, was := 0, p.In(0, 1)&0x10
	for range 1000 {
		r.clk.Advance(1000)
		if v := p.In(0, 1) & 0x10; v != was {
			toggles, was = toggles+1, v
		}
	}
	if toggles < 60 || toggles > 70 { // one in 15.085 µs
		t.Errorf("%d refresh toggles in a millisecond", toggles)
	}
}

// TestFrequency: the periods do not drift.
func TestFrequency(t *testing.T) {
	r := newRig()
	r.mode(0, 2)
	r.load(0, 11932) // 100 Hz
	r.irq.Take()
	r.clk.Advance(100e9)
	if got := r.irq.Take(); got != 9999 {
		t.Errorf("%d interrupts in 100 seconds", got)
	}
}

func bench() *devtest.Bench {
	r := newRig()
	ports := r.Port61()
	return &devtest.Bench{Clock: r.clk, Devices: []dev.Device{r.PIT}, Lines: []*devtest.Line{&r.irq}, Step: func(x *rand.Rand) any {
		switch x.IntN(8) {
		case 0:
			r.clk.Advance(uint64(x.IntN(3000)))
		case 1:
			r.clk.Advance(x.Uint64N(1e8))
		case 2:
			r.Out(3, 1, x.Uint32N(256))
		case 3, 4:
			r.Out(uint16(x.IntN(3)), 1, x.Uint32N(256))
		case 5:
			ports.Out(0, 1, x.Uint32N(256))
		case 6:
			return ports.In(0, 1)
		default:
			return r.In(uint16(x.IntN(4)), 1)
		}
		return nil
	}}
}

func TestSaveRestore(t *testing.T) { devtest.SaveRestore(t, bench) }

func FuzzRestore(f *testing.F) {
	f.Add(dev.Encode(newRig().PIT), []byte{3, 0x34, 0, 1, 0, 0}, uint64(1e9))
	f.Fuzz(func(t *testing.T, state, accesses []byte, nowNs uint64) {
		r := newRig()
		r.clk.NowNs = nowNs
		if dev.Decode(r.PIT, state) != nil {
			return
		}
		for len(accesses) >= 2 {
			switch a, v := accesses[0], uint32(accesses[1]); {
			case a < 4:
				r.Out(uint16(a), 1, v)
			case a < 8:
				r.In(uint16(a&3), 1)
			case a == 8:
				r.Port61().Out(0, 1, v)
			case a == 9:
				r.Port61().In(0, 1)
			default:
				r.clk.NowNs += uint64(v) * 1000
				r.clk.Queue.Run()
			}
			accesses = accesses[2:]
		}
		dev.Encode(r.PIT)
	})
}
