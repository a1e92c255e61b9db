package pic

import (
	"math/rand/v2"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/devtest"
)

type rig struct {
	*PIC
	t    testing.TB
	intr devtest.Line
}

// newRig returns a pair as a PC initialises it: vectors 20H and 28H, nothing masked.
func newRig(t testing.TB) *rig {
	r := &rig{t: t}
	r.PIC = New(&r.intr)
	r.init(0x01)
	return r
}

func (r *rig) out(chip, port int, v uint32) { r.Ports(chip).Out(uint16(port), 1, v) }
func (r *rig) in(chip, port int) uint32     { return r.Ports(chip).In(uint16(port), 1) }
func (r *rig) set(n int, level bool)        { r.Line(n).Set(level) }
func (r *rig) pulse(n int)                  { r.set(n, false); r.set(n, true) }
func (r *rig) ocw2(chip int, v uint32)      { r.out(chip, 0, v) }
func (r *rig) mask(chip int, v uint32)      { r.out(chip, 1, v) }
func (r *rig) level(v uint32)               { r.ELCR().Out(0, 1, v&0xff); r.ELCR().Out(1, 1, v>>8) }
func (r *rig) registers(chip int) (irr, isr uint32) {
	r.out(chip, 0, 0x0a)
	irr = r.in(chip, 0)
	r.out(chip, 0, 0x0b)
	return irr, r.in(chip, 0)
}

// init writes ICW1 to ICW4 to both.
func (r *rig) init(icw4 uint32) {
	for i, x := range [][]uint32{{0x20, 0x04}, {0x28, 0x02}} {
		r.out(i, 0, 0x11)
		r.out(i, 1, x[0])
		r.out(i, 1, x[1])
		r.out(i, 1, icw4)
	}
}

// want acknowledges interrupts and checks their vectors; -1 is no interrupt.
func (r *rig) want(what string, vectors ...int) {
	r.t.Helper()
	for _, v := range vectors {
		got := -1
		if r.intr.Level {
			got = int(r.Ack())
		}
		if got != v {
			r.t.Errorf("%s: vector %#x, want %#x", what, got, v)
		}
	}
}

const (
	eoi         = 0x20
	eoiSpecific = 0x60
	rotateEOI   = 0xa0
	rotateSpec  = 0xe0
	setPriority = 0xc0
	rotateAEOI  = 0x80
	smm         = 0x68
	smmOff      = 0x48
	poll        = 0x0c
)

func TestFullyNested(t *testing.T) {
	r := newRig(t)
	r.set(5, true)
	r.set(3, true)
	r.want("the higher of two, then nothing while it is served", 0x23, -1)
	r.set(1, true)
	r.want("a higher one interrupts", 0x21, -1)
	if irr, isr := r.registers(0); irr != 1<<5 || isr != 1<<1|1<<3 {
		t.Errorf("irr %#x, isr %#x", irr, isr)
	}
	r.ocw2(0, eoi)
	r.want("back in 3", -1)
	r.ocw2(0, eoi)
	r.want("3 is done", 0x25, -1)
	r.ocw2(0, eoiSpecific|5)
	if _, isr := r.registers(0); isr != 0 || r.intr.Level {
		t.Errorf("isr %#x, int %v", isr, r.intr.Level)
	}
	r.ocw2(0, eoi) // of nothing
	r.want("no edge", -1)
}

func TestCascade(t *testing.T) {
	r := newRig(t)
	r.set(14, true)
	r.set(8, true)
	r.want("two of the second controller", 0x28, -1)
	r.set(3, true)
	r.set(1, true)
	r.want("1 is higher than 2, 3 is not", 0x21, -1)
	r.ocw2(0, eoi)
	r.ocw2(1, eoi)
	r.want("the first controller still serves 2", -1)
	r.ocw2(0, eoi)
	r.want("14 comes before 3", 0x2e, -1)
	r.ocw2(1, eoi)
	r.ocw2(0, eoi)
	r.want("3", 0x23, -1)
	// In service in the second: a higher one there is held back by the first.
	r = newRig(t)
	r.set(12, true)
	r.want("12", 0x2c)
	r.set(9, true)
	r.want("9 while 12 is served", -1)
	r.ocw2(1, eoi)
	r.ocw2(0, eoi)
	r.want("9 after it", 0x29, -1)
	// Special fully nested mode lets it through.
	r.init(0x11)
	r.set(9, false)
	r.set(12, false)
	r.set(12, true)
	r.want("12", 0x2c)
	r.set(13, true)
	r.want("a lower one", -1)
	r.set(9, true)
	r.want("a higher one", 0x29, -1)
	if _, isr := r.registers(1); isr != 1<<1|1<<4 {
		t.Errorf("isr %#x", isr)
	}
}

func TestMask(t *testing.T) {
	r := newRig(t)
	r.mask(0, 1<<3)
	r.set(3, true)
	r.want("masked", -1)
	if irr, _ := r.registers(0); irr != 1<<3 || r.in(0, 1) != 1<<3 {
		t.Errorf("irr %#x, imr %#x", irr, r.in(0, 1))
	}
	r.mask(0, 0)
	r.want("the edge is remembered", 0x23)
	r.mask(0, 1<<3)
	r.set(4, true)
	r.want("masked in service still holds back", -1)
	r.mask(1, 1<<7)
	r.set(15, true)
	r.want("masked in the second", -1)
	r.mask(0, 1<<2)
	r.mask(1, 0)
	r.ocw2(0, eoi)
	r.want("4, since the cascade is masked", 0x24)
}

func TestDisturb(t *testing.T) {
	r := newRig(t)
	r.Disturb(5)
	r.want("a request that nobody made, once", 0x25, -1)
	if _, isr := r.registers(0); isr != 1<<5 {
		t.Errorf("isr %#x", isr)
	}
	r.ocw2(0, eoi)
	r.want("once", -1)
	r.Disturb(7)
	r.want("one that went away", 0x27, -1)
	if irr, isr := r.registers(0); irr != 0 || isr != 0 {
		t.Errorf("irr %#x, isr %#x", irr, isr)
	}
	r.Disturb(15)
	r.want("one that went away from the second", 0x2f, -1)
	if irr, isr := r.registers(0); irr != 0 || isr != 1<<cascade {
		t.Errorf("irr %#x, isr %#x", irr, isr)
	}
	if irr, isr := r.registers(1); irr != 0 || isr != 0 {
		t.Errorf("of the second: irr %#x, isr %#x", irr, isr)
	}
	r.ocw2(0, eoi)
	r.set(9, true)
	r.Disturb(15)
	r.want("a real one comes first", 0x29)
	r.ocw2(1, eoi)
	r.ocw2(0, eoi)
	r.want("then the other", 0x2f, -1)
	r.ocw2(0, eoi)
	r.level(1 << 11)
	r.Disturb(11)
	r.want("level-triggered", 0x2f, -1)
}

func TestUnseenInputs(t *testing.T) {
	for _, level := range []bool{false, true} {
		r := newRig(t)
		if level {
			r.level(1 << 3)
		}
		asked, notice := 0, false
		r.Filter = func(n int) bool {
			asked++
			return n != 3 || notice
		}
		r.set(3, true)
		r.set(3, true)
		r.want("lost", -1)
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		r.set(3, false)
		r.set(4, true)
		r.want("another", 0x24)
		r.ocw2(0, eoi)
		r.set(3, true)
		r.want("lost again", -1)
		r.Arrive(3)
		r.want("late", 0x23)
		r.set(3, false)
		r.ocw2(0, eoi)
		r.want("once", -1)
		notice = true
		r.set(3, true)
		r.want("the next", 0x23)
		r.set(3, false)
		r.ocw2(0, eoi)
		r.Arrive(3)
		if want := 0x23; level {
			r.want("late, and not there any more", -1)
		} else {
			r.want("late, and short", want, -1)
		}
	}
}

func TestSpecialMask(t *testing.T) {
	r := newRig(t)
	r.set(3, true)
	r.want("3", 0x23)
	r.out(0, 0, smm)
	r.mask(0, 1<<3)
	r.set(6, true)
	r.want("all but 3", 0x26)
	r.ocw2(0, eoi) // of 6: what is masked is not ended so
	if _, isr := r.registers(0); isr != 1<<3 {
		t.Errorf("isr %#x", isr)
	}
	r.out(0, 0, 0x28) // SMM without ESMM
	r.set(7, true)
	r.want("nothing changed", 0x27)
	r.ocw2(0, eoi)
	r.pulse(7)
	r.out(0, 0, smmOff)
	r.want("held back by 3", -1)
	r.ocw2(0, eoi)
	r.want("and not any more", 0x27)
}

func TestRotation(t *testing.T) {
	all := func(r *rig) {
		for n := range 8 {
			if n != cascade {
				r.pulse(n)
			}
		}
	}
	r := newRig(t)
	all(r)
	for _, v := range []int{0x20, 0x21, 0x23} {
		r.want("in turn", v)
		r.ocw2(0, rotateEOI)
	}
	r.pulse(0)
	r.want("0 has had its turn", 0x24)
	r.ocw2(0, rotateEOI)

	r = newRig(t)
	r.ocw2(0, setPriority|4)
	all(r)
	for _, v := range []int{0x25, 0x26, 0x27, 0x20, 0x21, 0x23, 0x24} {
		r.want("4 is the lowest", v)
		r.ocw2(0, eoi)
	}

	r = newRig(t)
	r.set(5, true)
	r.want("5", 0x25)
	r.ocw2(0, rotateSpec|5)
	all(r)
	r.want("5 is the lowest", 0x26)

	r = newRig(t)
	r.ocw2(0, setPriority|6)
	r.ocw2(0, 0x40) // no operation
	all(r)
	r.want("7 is the highest", 0x27)
}

func TestAutomaticEOI(t *testing.T) {
	r := newRig(t)
	r.init(0x03)
	r.set(3, true)
	r.set(5, true)
	r.want("both, without an end", 0x23, 0x25, -1)
	if _, isr := r.registers(0); isr != 0 {
		t.Errorf("isr %#x", isr)
	}
	r.ocw2(0, rotateAEOI)
	for range 2 {
		r.pulse(3)
		r.want("3", 0x23)
	}
	r.pulse(3)
	r.pulse(4)
	r.want("rotated", 0x24, 0x23)
	r.ocw2(0, 0)
	r.pulse(1)
	r.pulse(7)
	r.want("not rotated any more, and 4 the highest as before", 0x27, 0x21)
	// In the second controller: each is an edge to the first.
	r.set(9, true)
	r.set(10, true)
	r.want("two of the second", 0x29, 0x2a, -1)
}

func TestTriggering(t *testing.T) {
	r := newRig(t)
	r.set(3, true)
	r.want("edge", 0x23)
	r.ocw2(0, eoi)
	r.set(3, true)
	r.want("high is no edge", -1)
	r.set(3, false)
	r.set(3, true)
	r.set(3, false)
	if irr, _ := r.registers(0); irr != 0 || r.intr.Level {
		t.Errorf("a request that went away: irr %#x", irr)
	}
	r.level(1 << 5)
	r.set(5, true)
	for range 3 {
		r.want("level", 0x25, -1)
		r.ocw2(0, eoi)
	}
	r.mask(0, 0xff)
	r.set(5, false)
	r.mask(0, 0)
	r.want("the level is gone", -1)
	// An initialisation forgets edges, not levels.
	r.set(5, true)
	r.set(3, true)
	r.init(0x01)
	r.want("after ICW1", 0x25, -1)
	r.ocw2(0, eoi)
	r.set(5, false)
	r.want("3 has to rise anew", -1)

	// Timer, keyboard, cascade, clock and coprocessor are edges for ever.
	r.level(0xffff)
	if a, b := r.ELCR().In(0, 1), r.ELCR().In(1, 1); a != 0xf8 || b != 0xde {
		t.Errorf("ELCR %#x %#x", a, b)
	}
}

func TestSpurious(t *testing.T) {
	r := newRig(t)
	if v := r.Ack(); v != 0x27 {
		t.Errorf("vector %#x of nothing", v)
	}
	if _, isr := r.registers(0); isr != 0 {
		t.Errorf("isr %#x", isr)
	}
	r.set(3, true)
	r.set(3, false)
	if v := r.Ack(); v != 0x27 {
		t.Errorf("vector %#x of a request that went away", v)
	}
	// The first controller was acknowledged by a poll, the second was not and has lost its request.
	r.set(12, true)
	r.out(0, 0, poll)
	if got := r.in(0, 0); got != 0x82 {
		t.Errorf("poll %#x", got)
	}
	r.ocw2(0, eoi)
	r.set(12, false)
	r.out(1, 0, poll)
	if got := r.in(1, 0); got != 0 {
		t.Errorf("poll of the second %#x", got)
	}
	// A cascade input that is asserted by nothing, as between the two halves of an acknowledge cycle.
	r.Chip[0].set(cascade, true)
	if v := r.Ack(); v != 0x2f {
		t.Errorf("vector %#x of a second controller without request", v)
	}
	_, isr0 := r.registers(0)
	_, isr1 := r.registers(1)
	if isr0 != 1<<cascade || isr1 != 0 {
		t.Errorf("isr %#x %#x", isr0, isr1)
	}
}

func TestPoll(t *testing.T) {
	r := newRig(t)
	r.set(6, true)
	r.out(0, 0, poll)
	if got := r.in(0, 0); got != 0x86 {
		t.Errorf("poll %#x", got)
	}
	if _, isr := r.registers(0); isr != 1<<6 || r.intr.Level {
		t.Errorf("isr %#x, int %v: a poll is an acknowledge", isr, r.intr.Level)
	}
	r.out(0, 0, poll)
	if got := r.in(0, 1); got != 0 {
		t.Errorf("poll of nothing %#x", got)
	}
	r.out(0, 0, 0x0f) // the poll wins over the choice of a register, which is remembered
	if got := r.in(0, 0); got != 0 {
		t.Errorf("poll %#x", got)
	}
	if got := r.in(0, 0); got != 1<<6 {
		t.Errorf("isr %#x after it", got)
	}
	r.ocw2(0, eoi)
	r.set(10, true)
	r.out(1, 0, poll)
	if got := r.in(1, 0); got != 0x82 || r.intr.Level {
		t.Errorf("poll of the second %#x, int %v", got, r.intr.Level)
	}
}

func TestInitialisation(t *testing.T) {
	r := newRig(t)
	r.mask(0, 0xa2)
	r.set(3, true)
	r.want("3", 0x23)
	r.ocw2(0, setPriority|2)
	r.out(0, 0, smm)
	r.out(0, 0, 0x0b)
	r.out(0, 0, 0x11) // ICW1
	if got := r.in(0, 1); got != 0 {
		t.Errorf("mask %#x after ICW1", got)
	}
	if got := r.in(0, 0); got != 0 {
		t.Errorf("register %#x after ICW1, want the IRR", got)
	}
	if c := r.Chip[0]; c.Priority != 0 || c.SpecialMask || c.ISR != 0 || c.AutoEOI {
		t.Errorf("%+v after ICW1", c)
	}
	r.out(0, 1, 0x77) // the low bits are the input's
	r.out(0, 1, 0x04)
	r.out(0, 1, 0x01)
	r.mask(0, 0x00)
	r.set(6, true)
	r.want("base 70", 0x76)
	// Without ICW4: all of its modes are off. Alone: there is no ICW3.
	for _, x := range []struct{ icw1, words uint32 }{{0x10, 2}, {0x12, 1}, {0x13, 2}, {0x11, 3}} {
		r.out(0, 0, x.icw1)
		for range x.words {
			r.out(0, 1, 0x08)
		}
		r.mask(0, 0x5a)
		if got := r.in(0, 1); got != 0x5a {
			t.Errorf("ICW1 %#x: the mask is %#x after %d words", x.icw1, got, x.words)
		}
	}
	p := New(&devtest.Line{})
	p.Line(3).Set(true)
	if p.Pending() {
		t.Error("interrupts before anybody initialised it")
	}
}

func bench() *devtest.Bench {
	r := newRig(nil)
	return &devtest.Bench{Clock: devtest.NewClock(), Devices: []dev.Device{r.PIC}, Lines: []*devtest.Line{&r.intr}, Step: func(x *rand.Rand) any {
		switch x.IntN(8) {
		case 0, 1, 2:
			r.set(x.IntN(16), x.IntN(2) == 0)
		case 3:
			if r.intr.Level {
				return r.Ack()
			}
		case 4:
			r.out(x.IntN(2), x.IntN(2), x.Uint32N(256))
		case 5:
			r.ocw2(x.IntN(2), eoi)
		case 6:
			r.ELCR().Out(uint16(x.IntN(2)), 1, x.Uint32N(256))
		default:
			return r.in(x.IntN(2), x.IntN(2))
		}
		return nil
	}}
}

func TestSaveRestore(t *testing.T) { devtest.SaveRestore(t, bench) }

func FuzzRestore(f *testing.F) {
	f.Add(dev.Encode(newRig(f).PIC), []byte{0, 3, 5, 0, 1, 0x20})
	f.Fuzz(func(t *testing.T, state, accesses []byte) {
		r := newRig(t)
		if dev.Decode(r.PIC, state) != nil {
			return
		}
		for ; len(accesses) >= 2; accesses = accesses[2:] {
			a, v := int(accesses[0]), uint32(accesses[1])
			switch a >> 4 & 3 {
			case 0:
				r.set(a&15, v&1 != 0)
			case 1:
				r.out(a>>1&1, a&1, v)
			case 2:
				r.in(a>>1&1, a&1)
			default:
				r.Ack()
			}
		}
		dev.Encode(r.PIC)
	})
}
