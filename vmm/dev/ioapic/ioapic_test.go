package ioapic

import (
	"math/rand/v2"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/devtest"
	"refault/vmm/dev/lapic"
)

type rig struct {
	*IOAPIC
	t    testing.TB
	sent []lapic.Message
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t}
	r.IOAPIC = New(r)
	return r
}

// Deliver implements Sink.
func (r *rig) Deliver(m lapic.Message) { r.sent = append(r.sent, m) }

func (r *rig) reg(i int) uint32 {
	r.Write(0, 4, uint64(i))
	return uint32(r.Read(0x10, 4))
}

func (r *rig) setRegister(i int, v uint32) {
	r.Write(0, 4, uint64(i))
	r.Write(0x10, 4, uint64(v))
}

func (r *rig) entry(n int, v uint64) {
	r.setRegister(0x11+2*n, uint32(v>>32))
	r.setRegister(0x10+2*n, uint32(v))
}

// want checks how many messages were sent since it was called last.
func (r *rig) want(what string, n int) {
	r.t.Helper()
	if len(r.sent) != n {
		r.t.Errorf("%s: %d messages, want %d", what, len(r.sent), n)
	}
	r.sent = nil
}

const (
	level  = entryLevel
	masked = EntryMask
)

func TestRegisters(t *testing.T) {
	r := newRig(t)
	if got := r.reg(1); got != 0x00170020 {
		t.Errorf("version %#x", got)
	}
	r.setRegister(0, 0xffffffff)
	if got := r.reg(0); got != 0x0f000000 {
		t.Errorf("id %#x", got)
	}
	if got := r.reg(2); got != 0x0f000000 {
		t.Errorf("arbitration id %#x", got)
	}
	r.setRegister(1, 0)
	for _, i := range []int{3, 0xf, 0x40, 0xff} {
		r.setRegister(i, 0xffffffff)
		if got := r.reg(i); got != 0 {
			t.Errorf("register %#x is %#x", i, got)
		}
	}
	for n := range NumPins {
		if lo, hi := r.reg(0x10+2*n), r.reg(0x11+2*n); lo != masked || hi != 0 {
			t.Errorf("entry %d is %#x %#x at reset", n, hi, lo)
		}
		r.entry(n, 0xffffffff_ffffffff)
		if lo, hi := r.reg(0x10+2*n), r.reg(0x11+2*n); lo != 0x1afff || hi != 0xff000000 {
			t.Errorf("entry %d is %#x %#x: status bits are read-only", n, hi, lo)
		}
	}
	if got := r.Read(0, 4); got != 0x11+2*(NumPins-1) {
		t.Errorf("index %#x", got)
	}
	if r.Read(0x20, 4) != 0 || r.Read(0x40, 4) != 0 {
		t.Error("registers that are not there")
	}
	r.want("no message", 0)
}

func TestMessage(t *testing.T) {
	r := newRig(t)
	for _, x := range []struct {
		entry uint64
		want  lapic.Message
	}{
		{0x05<<56 | 0x41, lapic.Message{Vector: 0x41, Dest: 5}},
		{0xff<<56 | 1<<11 | 1<<8 | 0x42, lapic.Message{Vector: 0x42, Dest: 0xff, Logical: true, Mode: lapic.ModeLowest}},
		{level | 0x43, lapic.Message{Vector: 0x43, Level: true}},
		{1<<13 | level | 0x44, lapic.Message{Vector: 0x44, Level: true}}, // polarity is of wires
		{lapic.ModeNMI << 8, lapic.Message{Mode: lapic.ModeNMI}},
		{level | lapic.ModeExtINT<<8, lapic.Message{Mode: lapic.ModeExtINT}},
	} {
		r.Line(3).Set(false)
		r.entry(3, x.entry)
		r.Line(3).Set(true)
		if len(r.sent) != 1 || r.sent[0] != x.want {
			t.Errorf("entry %#x sent %+v, want %+v", x.entry, r.sent, x.want)
		}
		r.sent = nil
		r.entry(3, masked)
	}
}

func TestEdge(t *testing.T) {
	r := newRig(t)
	l := r.Line(4)
	r.entry(4, 0x30)
	l.Set(true)
	l.Set(true)
	r.want("one edge", 1)
	l.Set(false)
	r.want("falling", 0)
	l.Set(true)
	r.want("the next, without an end of the first", 1)
	if r.reg(0x18)&entryRemote != 0 {
		t.Error("remote IRR of an edge")
	}
	r.entry(4, masked|0x30)
	l.Set(false)
	l.Set(true)
	r.entry(4, 0x30)
	r.want("an edge while it is masked is lost", 0)
	l.Set(false)
	l.Set(true)
	r.want("edge", 1)
	r.Line(5).Set(true)
	r.want("another input", 0)
}

func TestLevel(t *testing.T) {
	r := newRig(t)
	l := r.Line(20)
	remote := func() bool { return r.reg(0x10+40)&entryRemote != 0 }
	r.entry(20, level|0x31)
	l.Set(true)
	l.Set(true)
	r.want("once", 1)
	if !remote() {
		t.Error("no remote IRR")
	}
	l.Set(false)
	l.Set(true)
	r.want("not before it is ended", 0)
	r.EOI(0x32)
	r.want("of another vector", 0)
	r.EOI(0x31)
	r.want("still asserted", 1)
	l.Set(false)
	r.EOI(0x31)
	r.want("over", 0)
	if remote() {
		t.Error("remote IRR after the end")
	}
	// Masked.
	r.entry(20, masked|level|0x31)
	l.Set(true)
	r.want("masked", 0)
	r.entry(20, level|0x31)
	r.want("unmasked", 1)
	r.entry(20, masked|level|0x31)
	r.EOI(0x31)
	if remote() {
		t.Error("remote IRR of a masked entry after its end")
	}
	r.want("masked", 0)
	r.entry(20, level|0x31)
	r.want("unmasked", 1)
	r.entry(20, level|0x31)
	r.want("written again in service", 0)
	// The way to end it without EOI.
	r.entry(20, masked|0x31)
	if remote() {
		t.Error("remote IRR of an edge-triggered entry")
	}
	r.entry(20, level|0x31)
	r.want("level again", 1)
	// The register.
	r.Write(0x40, 4, 0x31)
	r.want("EOI register", 1)
	// Inputs that share a vector are ended together.
	r.entry(21, level|0x31)
	r.Line(21).Set(true)
	r.want("the other", 1)
	l.Set(false)
	r.EOI(0x31)
	r.want("the one that is still asserted", 1)
	// A message that is no interrupt is an edge.
	r.entry(21, level|lapic.ModeNMI<<8)
	r.Line(21).Set(false)
	r.Line(21).Set(true)
	r.Line(21).Set(false)
	r.Line(21).Set(true)
	r.want("NMI", 2)
}

func TestReset(t *testing.T) {
	r := newRig(t)
	r.entry(7, level|0x31)
	r.Line(7).Set(true)
	r.want("level", 1)
	r.Reset()
	if got := r.reg(0x1e); got != masked {
		t.Errorf("entry %#x", got)
	}
	r.entry(7, level|0x31)
	r.want("lines are not the controller's to reset", 1)
}

func bench() *devtest.Bench {
	r := newRig(nil)
	return &devtest.Bench{Clock: devtest.NewClock(), Devices: []dev.Device{r.IOAPIC}, Step: func(x *rand.Rand) any {
		r.sent = nil
		switch x.IntN(6) {
		case 0, 1:
			r.Line(x.IntN(NumPins)).Set(x.IntN(2) == 0)
		case 2:
			r.entry(x.IntN(NumPins), x.Uint64()&^(0xf0<<0|x.Uint64N(2)<<16))
		case 3:
			r.EOI(uint8(x.IntN(16)))
		case 4:
			r.Write(0, 4, x.Uint64N(0x50))
		default:
			return r.Read(0x10, 4)
		}
		return r.sent
	}}
}

func TestSaveRestore(t *testing.T) { devtest.SaveRestore(t, bench) }

func FuzzRestore(f *testing.F) {
	f.Add(dev.Encode(newRig(f).IOAPIC), []byte{0, 0x10, 16, 0x31, 64, 1})
	f.Fuzz(func(t *testing.T, state, accesses []byte) {
		r := newRig(t)
		if dev.Decode(r.IOAPIC, state) != nil {
			return
		}
		for ; len(accesses) >= 2; accesses = accesses[2:] {
			a, v := accesses[0], uint64(accesses[1])
			switch a >> 6 {
			case 0:
				r.Write(uint64(a&0x30), 4, v<<8|v)
			case 1:
				r.Line(int(a % NumPins)).Set(v&1 != 0)
			case 2:
				r.EOI(uint8(v))
			default:
				r.Read(uint64(a&0x30), 4)
			}
		}
		dev.Encode(r.IOAPIC)
	})
}
