package uart

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/devtest"
)

type bench struct {
	*UART
	irq devtest.Line
	out bytes.Buffer
}

func newBench() *bench {
	b := new(bench)
	b.UART = New("uart0", &b.irq, func(c byte) { b.out.WriteByte(c) })
	return b
}

func (b *bench) in(reg uint16) uint32     { return b.In(reg, 1) }
func (b *bench) outb(reg uint16, v uint8) { b.Out(reg, 1, uint32(v)) }

func (b *bench) want(t *testing.T, what string, reg uint16, want uint32) {
	t.Helper()
	if got := b.in(reg); got != want {
		t.Errorf("%s: register %d reads %#x, want %#x", what, reg, got, want)
	}
}

// TestAutoconfig makes the accesses by which Linux's 8250 driver finds out what it has.
func TestAutoconfig(t *testing.T) {
	b := newBench()
	b.outb(regIER, 0)
	b.want(t, "no interrupts enabled", regIER, 0)
	b.outb(regIER, 0x0f)
	b.want(t, "all interrupts enabled", regIER, 0x0f)
	b.outb(regIER, 0)
	b.outb(regMCR, mcrLoop|mcrOUT2|mcrRTS)
	if v := b.in(regMSR) & 0xf0; v != 0x90 {
		t.Errorf("loopback: MSR %#x, want 0x90", v)
	}
	b.outb(regMCR, 0)
	b.outb(regLCR, 0xbf)
	b.outb(regIIR, 0) // EFR of a 16650
	b.outb(regLCR, 0)
	b.outb(regIIR, fcrEnable)
	if v := b.in(regIIR) >> 6; v != 3 {
		t.Errorf("IIR says FIFO state %d, want 3: a 16550A", v)
	}
	b.outb(regLCR, 0x80)
	if b.in(regIIR) == 0 {
		t.Error("looks like an EFR at LCR 80H")
	}
	b.outb(regLCR, 0xbf)
	if b.in(regIIR) == 0 {
		t.Error("looks like an EFR at LCR BFH")
	}
	for _, lcr := range []uint8{0, 0x80} {
		b.outb(regLCR, lcr)
		b.outb(regIIR, fcrEnable|0x20)
		if v := b.in(regIIR) & 0xe0; v != 0xc0 {
			t.Errorf("LCR %#x: IIR %#x, want c0: no 64-byte FIFO", lcr, v)
		}
	}
	b.outb(regLCR, 0)
	b.outb(regIER, 0x40)
	b.want(t, "no XScale's UUE", regIER, 0)
	for _, v := range []uint8{0x55, 0xaa} {
		b.outb(regSCR, v)
		b.want(t, "scratch", regSCR, uint32(v))
	}
}

// TestTHRETests makes the two tests that Linux makes when it opens the port.
func TestTHRETests(t *testing.T) {
	b := newBench()
	b.in(regIIR)
	for i := range 3 {
		b.outb(regIER, ierTx)
		if !b.irq.Level {
			t.Fatalf("round %d: no interrupt when ETBEI is set and THR is empty", i)
		}
		b.want(t, "first", regIIR, iirTx)
		if b.irq.Level {
			t.Error("interrupt after IIR was read")
		}
		b.want(t, "second", regIIR, iirNone)
		b.outb(regIER, ierTx)
		b.want(t, "ETBEI written again as it was", regIIR, iirNone)
		b.outb(regIER, 0)
	}
}

func TestTransmit(t *testing.T) {
	b := newBench()
	b.outb(regIIR, fcrEnable)
	b.outb(regIER, ierTx)
	b.in(regIIR)
	b.irq.Take()
	for _, c := range []byte("refault\r\n") {
		if b.in(regLSR)&(lsrTHRE|lsrTEMT) != lsrTHRE|lsrTEMT {
			t.Fatal("transmitter not empty")
		}
		b.outb(regData, c)
		if b.irq.Take() != 1 {
			t.Errorf("no new interrupt after %q", c)
		}
		b.want(t, "after a byte", regIIR, iirTx|iirFIFOs)
	}
	if b.out.String() != "refault\r\n" {
		t.Errorf("sent %q", b.out.String())
	}
	b.outb(regData, 'x')
	b.irq.Take()
	b.outb(regData, 'y') // the pending interrupt goes and comes: an edge-triggered controller must see it
	if b.irq.Take() != 1 {
		t.Error("no edge between two bytes")
	}
}

func TestDivisorLatch(t *testing.T) {
	b := newBench()
	b.outb(regLCR, lcrDLAB|3)
	b.Out(regData, 2, 0x1234)
	if v := b.In(regData, 2); v != 0x1234 {
		t.Errorf("divisor %#x", v)
	}
	b.outb(regLCR, 3)
	if b.in(regIER) != 0 || b.out.Len() != 0 || b.in(regData) != 0 {
		t.Error("the divisor latch reaches IER or data")
	}
	b.want(t, "LCR", regLCR, 3)
	if v := b.In(NumPorts, 1); v != 0xff {
		t.Errorf("beyond the ports: %#x", v)
	}
}

func TestReceiveWithoutFIFO(t *testing.T) {
	b := newBench()
	b.outb(regIER, ierRx)
	if !b.Receive('a') || b.CanReceive() || b.Receive('b') {
		t.Fatal("holds one byte, and one only")
	}
	if !b.irq.Level || b.in(regIIR) != iirRx || b.in(regLSR) != lsrData|lsrTHRE|lsrTEMT {
		t.Errorf("irq %v, IIR %#x, LSR %#x", b.irq.Level, b.in(regIIR), b.in(regLSR))
	}
	b.want(t, "data", regData, 'a')
	if b.irq.Level || !b.CanReceive() {
		t.Errorf("irq %v, room %v after reading", b.irq.Level, b.CanReceive())
	}
	b.want(t, "data again", regData, 'a')
}

func TestFIFO(t *testing.T) {
	for i, level := range triggers {
		b := newBench()
		b.outb(regLCR, 3)
		b.outb(regIIR, uint8(fcrEnable|i<<6))
		b.outb(regIER, ierRx)
		for n := 1; n <= fifoSize; n++ {
			if !b.Receive(byte(n)) {
				t.Fatalf("byte %d refused", n)
			}
			want := uint32(iirTimeout)
			if n >= level {
				want = iirRx
			}
			if v := b.in(regIIR); !b.irq.Level || v != iirFIFOs|want {
				t.Errorf("trigger %d: irq %v, IIR %#x after %d bytes", level, b.irq.Level, v, n)
			}
		}
		if b.CanReceive() || b.Receive(99) {
			t.Error("a 17th byte accepted")
		}
		for n := 1; n <= fifoSize; n++ {
			b.want(t, "data", regData, uint32(n))
			if b.irq.Level != (n < fifoSize) {
				t.Errorf("trigger %d: irq %v with %d bytes left", level, b.irq.Level, fifoSize-n)
			}
		}
		b.Receive('l')
		b.outb(regIIR, fcrEnable|fcrTrigger|fcrResetRx)
		if b.in(regLSR)&lsrData != 0 || b.irq.Level {
			t.Error("FIFO reset left something")
		}
		b.Receive('m')
		b.outb(regIIR, fcrTrigger) // FIFOs off: cleared, and the trigger is not written
		if b.in(regLSR)&lsrData != 0 || b.in(regIIR) != iirNone {
			t.Error("switching the FIFOs off left something")
		}
	}
}

func TestBreakAndErrors(t *testing.T) {
	b := newBench()
	b.outb(regIIR, fcrEnable)
	b.outb(regIER, ierLine)
	b.Receive('a')
	b.ReceiveBreak()
	if b.irq.Level || b.in(regLSR) != lsrData|lsrTHRE|lsrTEMT|lsrFIFOError {
		t.Errorf("a break behind a good byte: irq %v, LSR %#x", b.irq.Level, b.in(regLSR))
	}
	b.in(regData)
	if !b.irq.Level || b.in(regIIR) != iirFIFOs|iirLine {
		t.Error("no line status interrupt for the break at the top")
	}
	b.want(t, "break", regLSR, lsrData|lsrBreak|lsrTHRE|lsrTEMT|lsrFIFOError)
	b.want(t, "break read", regLSR, lsrData|lsrTHRE|lsrTEMT)
	if b.irq.Level {
		t.Error("interrupt after LSR was read")
	}
	b.want(t, "break's character", regData, 0)
}

func TestLoopback(t *testing.T) {
	b := newBench()
	b.outb(regLCR, 0) // five bits
	b.in(regMSR)
	b.outb(regIER, ierModem)
	b.outb(regMCR, mcrLoop|mcrOUT1)
	b.want(t, "inputs fell", regMSR, msrRI|0x0b)
	b.outb(regMCR, mcrLoop|mcrDTR)
	if !b.irq.Level || b.in(regIIR) != iirModem {
		t.Error("no modem status interrupt")
	}
	b.want(t, "RI fell, DSR rose", regMSR, msrDSR|msrRIFell|0x02)
	if b.irq.Level {
		t.Error("interrupt after MSR was read")
	}
	if b.Receive('x') {
		t.Error("heard the other end in loopback")
	}
	b.outb(regData, 0xff)
	b.outb(regData, 0xe1)
	b.want(t, "overrun", regLSR, lsrData|lsrOverrun|lsrTHRE|lsrTEMT)
	b.want(t, "five bits of the last", regData, 1)
	if b.out.Len() != 0 {
		t.Error("loopback reached the other end")
	}
	b.outb(regMCR, 0)
	if !b.CanReceive() {
		t.Error("deaf after loopback")
	}
}

func TestSaveRestore(t *testing.T) {
	devtest.SaveRestore(t, func() *devtest.Bench {
		b := newBench()
		return &devtest.Bench{Clock: devtest.NewClock(), Devices: []dev.Device{b.UART}, Lines: []*devtest.Line{&b.irq}, Step: func(r *rand.Rand) any {
			b.out.Reset()
			switch r.IntN(4) {
			case 0:
				return b.Receive(byte(r.Uint32()))
			case 1:
				return b.ReceiveBreak()
			case 2:
				b.Out(uint16(r.IntN(NumPorts)), 1+r.IntN(2), r.Uint32())
				return b.out.String()
			}
			return b.In(uint16(r.IntN(NumPorts)), 1)
		}}
	})
}

func TestRestoreRefuses(t *testing.T) {
	for name, s := range map[string]*State{
		"version":             {Version: 2, Rx: []byte{0}},
		"too many":            {Version: 1, FCR: 1, Rx: make([]byte, 17), RxErrors: make([]byte, 17)},
		"lengths differ":      {Version: 1, FCR: 1, Rx: make([]byte, 3), RxErrors: make([]byte, 2)},
		"two without a FIFO":  {Version: 1, Rx: make([]byte, 2), RxErrors: make([]byte, 2)},
		"no last byte at all": {Version: 1},
	} {
		if newBench().Restore(func(p any) error { *p.(*State) = *s; return nil }) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzRestore(f *testing.F) {
	b := newBench()
	b.Receive('x')
	f.Add(dev.Encode(b.UART), []byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, state, accesses []byte) {
		b := newBench()
		if dev.Decode(b.UART, state) != nil {
			return
		}
		for ; len(accesses) >= 3; accesses = accesses[3:] {
			port, v := uint16(accesses[1]%NumPorts), accesses[2]
			switch accesses[0] % 3 {
			case 0:
				b.in(port)
			case 1:
				b.outb(port, v)
			case 2:
				b.Receive(v)
			}
		}
	})
}
