package i8042

import (
	"math/rand/v2"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/devtest"
)

type bench struct {
	*I8042
	t      *testing.T
	irq    devtest.Line
	resets int
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t}
	b.I8042 = New(&b.irq, func() { b.resets++ })
	return b
}

func (b *bench) stat() uint32   { return b.Command().In(0, 1) }
func (b *bench) cmd(v uint32)   { b.Command().Out(0, 1, v) }
func (b *bench) data(v uint32)  { b.Data().Out(0, 1, v) }
func (b *bench) readable() bool { return b.stat()&statusOutputFull != 0 }
func (b *bench) want(v ...uint32) {
	b.t.Helper()
	for _, v := range v {
		if !b.readable() {
			b.t.Errorf("nothing to read, want %#x", v)
		} else if got := b.Data().In(0, 1); got != v {
			b.t.Errorf("read %#x, want %#x", got, v)
		}
	}
	if b.readable() {
		b.t.Errorf("more to read: %#x", b.Data().In(0, 1))
	}
}

// TestProbe does what Linux's i8042 driver does to find the controller and its
// ports, and what atkbd does with the keyboard.
func TestProbe(t *testing.T) {
	b := newBench(t)
	if b.readable() {
		t.Error("flush finds something")
	}
	b.cmd(0xaa)
	b.want(0x55)
	b.cmd(0x20)
	ctr := b.Data().In(0, 1)
	if ctr&modeTranslate == 0 {
		t.Errorf("command byte %#x: no translation", ctr)
	}
	if b.stat()&statusUnlocked == 0 {
		t.Error("keylock active")
	}
	ctr = ctr&^modeInterrupt | modeDisabled
	b.cmd(0x60)
	b.data(ctr)
	b.cmd(0x20)
	b.want(ctr)
	b.cmd(0xd3) // is there a mouse? It comes back, but not from one
	b.data(0x5a)
	if b.stat()&(1<<5) != 0 {
		t.Error("loop-back from an auxiliary device")
	}
	b.want(0x5a)
	b.cmd(0xa9)
	b.want(1)
	b.cmd(0x60)
	b.data(ctr&^modeDisabled | modeInterrupt)
	b.irq.Take()

	b.data(0xf2)
	if n := b.irq.Take(); n != 1 {
		t.Errorf("%d interrupts for the first of three bytes", n)
	}
	b.want(0xfa, 0xab, 0x41)
	if n := b.irq.Take(); n != 2 || b.irq.Level {
		t.Errorf("%d interrupts for the next two, line %v", n, b.irq.Level)
	}
	for _, c := range [][2]uint32{{0xed, 0}, {0xf3, 0x20}} {
		b.data(c[0])
		b.want(0xfa)
		b.data(c[1])
		b.want(0xfa)
	}
	b.data(0xf4)
	b.want(0xfa)
	b.data(0xff)
	b.want(0xfa, 0xaa)
}

func TestKeyboard(t *testing.T) {
	b := newBench(t)
	b.cmd(0x60)
	b.data(0) // no translation, no interrupts
	b.data(0xf2)
	b.want(0xfa, 0xab, 0x83)
	b.data(0xf0)
	b.want(0xfa)
	b.data(3)
	b.want(0xfa)
	b.data(0xf0)
	b.want(0xfa)
	b.data(0)
	b.want(0xfa, 3)
	b.data(0xfe)
	b.want(3)
	b.data(0xf0)
	b.want(0xfa)
	b.data(9)
	b.want(0xfe)
	b.data(0xf0)
	b.want(0xfa)
	b.data(0xf6) // a command cancels the one that waits
	b.want(0xfa)
	b.data(0xf0)
	b.data(0)
	b.want(0xfa, 0xfa, 2)
	b.data(0xee)
	b.want(0xee)
	b.data(0x12)
	b.want(0xfe)
	if b.irq.Rises != 0 {
		t.Error("interrupts that nobody enabled")
	}
	for range 2 * queueMax {
		b.data(0xee)
	}
	for range queueMax {
		b.Data().In(0, 1)
	}
	b.want()
}

func TestController(t *testing.T) {
	b := newBench(t)
	b.cmd(0xab)
	b.want(0)
	b.cmd(0xc0)
	b.want(0x80)
	b.cmd(0x65)
	if b.stat()&statusCommand == 0 {
		t.Error("the status does not tell a command from data")
	}
	b.data(0x77)
	if b.stat()&statusCommand != 0 {
		t.Error("the status does not tell data from a command")
	}
	b.cmd(0x25)
	b.want(0x77)
	b.cmd(0xd2)
	b.data(0x1c)
	b.want(0x1c)
	b.cmd(0xd4)
	b.data(0xff)
	b.want(0xfe)
	b.cmd(0xad)
	b.cmd(0x20)
	b.want(modeTranslate | modeSystem | modeInterrupt | modeDisabled)
	b.cmd(0xae)
	b.cmd(0x20)
	b.want(modeTranslate | modeSystem | modeInterrupt)
	b.data(0xf2)
	b.cmd(0xaa) // a self-test empties the buffer
	b.want(0x55)
}

func TestResets(t *testing.T) {
	b := newBench(t)
	check := func(what string, want int) {
		t.Helper()
		if b.resets != want {
			t.Errorf("%s: %d resets, want %d", what, b.resets, want)
		}
	}
	b.cmd(0xff)
	b.cmd(0xf1)
	check("pulses of other lines", 0)
	b.cmd(0xfe)
	check("FEH", 1)
	b.cmd(0xd1)
	b.data(0xdf)
	check("output port with the reset line high", 1)
	b.cmd(0xd1)
	b.data(0xde)
	check("output port with the reset line low", 2)
	b.System().Out(0, 1, 2)
	check("A20 by port 92H", 2)
	b.System().Out(0, 1, 3)
	b.System().Out(0, 1, 3)
	check("port 92H, bit 0 rises", 3)
}

func TestA20(t *testing.T) {
	b := newBench(t)
	gate := func() (bits [2]bool) {
		b.cmd(0xd0)
		return [2]bool{b.Data().In(0, 1)&outputA20 != 0, b.System().In(0, 1)&systemA20 != 0}
	}
	for _, c := range []struct {
		set  func()
		want bool
	}{
		{func() {}, true},
		{func() { b.cmd(0xdd) }, false},
		{func() { b.cmd(0xdf) }, true},
		{func() { b.System().Out(0, 1, 0) }, false},
		{func() { b.cmd(0xd1); b.data(0xdf) }, true},
		{func() { b.cmd(0xd1); b.data(0xdd) }, false},
		{func() { b.System().Out(0, 1, 2) }, true},
	} {
		c.set()
		if g := gate(); g != [2]bool{c.want, c.want} {
			t.Errorf("A20 reads %v, want %v", g, c.want)
		}
	}
}

func randomStep(b *bench) func(r *rand.Rand) any {
	interesting := []uint32{0x20, 0x60, 0x61, 0xa9, 0xaa, 0xad, 0xae, 0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xdd, 0xdf, 0xfe, 0xed, 0xf0, 0xf2, 0xff, 0, 1, 2, 3}
	return func(r *rand.Rand) any {
		v := interesting[r.IntN(len(interesting))]
		switch r.IntN(5) {
		case 0:
			b.cmd(v)
		case 1:
			b.data(v)
		case 2:
			b.System().Out(0, 1, r.Uint32()&3)
		case 3:
			return b.Data().In(0, 1)
		}
		return [3]uint32{b.stat(), b.System().In(0, 1), uint32(b.irq.Rises)}
	}
}

func TestSaveRestore(t *testing.T) {
	devtest.SaveRestore(t, func() *devtest.Bench {
		b := newBench(t)
		return &devtest.Bench{Clock: devtest.NewClock(), Devices: []dev.Device{b.I8042}, Lines: []*devtest.Line{&b.irq}, Step: randomStep(b)}
	})
	for _, bad := range []State{{Version: 2}, {Version: 1, Queue: make([]byte, queueMax+1)}} {
		if newBench(t).Restore(func(p any) error { *p.(*State) = bad; return nil }) == nil {
			t.Errorf("version %d with %d bytes accepted", bad.Version, len(bad.Queue))
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add(dev.Encode(New(dev.LineFunc(func(bool) {}), nil)), []byte{0, 0xaa, 1, 0xf2, 2, 0})
	f.Fuzz(func(t *testing.T, state, accesses []byte) {
		b := newBench(t)
		if dev.Decode(b.I8042, state) != nil {
			return
		}
		for ; len(accesses) >= 2; accesses = accesses[2:] {
			switch v := uint32(accesses[1]); accesses[0] % 4 {
			case 0:
				b.cmd(v)
			case 1:
				b.data(v)
			case 2:
				b.Data().In(0, 1)
			case 3:
				b.stat()
			}
		}
	})
}
