package vmm

import (
	"bytes"
	"testing"

	"refault/vmm/dev/ioapic"
	"refault/vmm/dev/lapic"
	"refault/vmm/x86"
)

// What a PC's parts do together, seen from code in real mode.

func outb(port uint16, v uint8) []byte {
	return []byte{0xba, byte(port), byte(port >> 8), 0xb0, v, 0xee}
}

func outw(port, v uint16) []byte {
	return []byte{0xba, byte(port), byte(port >> 8), 0xb8, byte(v), byte(v >> 8), 0xef}
}

func asm(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Instructions.
var (
	cli, sti, hlt = []byte{0xfa}, []byte{0xfb}, []byte{0xf4}
)

// picInit initialises both 8259As: vectors 20H and 28H, nothing masked.
var picInit = asm(outb(0x20, 0x11), outb(0x21, 0x20), outb(0x21, 4), outb(0x21, 1),
	outb(0xa0, 0x11), outb(0xa1, 0x28), outb(0xa1, 2), outb(0xa1, 1), outb(0x21, 0), outb(0xa1, 0))

// handler puts code at 0:at, where vector vec leads, and gives the machine a stack.
func (m *Machine) handler(vec int, at uint16, code ...byte) {
	m.RAM.WriteAt([]byte{byte(at), byte(at >> 8), 0, 0}, uint64(4*vec))
	m.RAM.WriteAt(code, uint64(at))
	m.CPUs[0].Regs[x86.RSP] = 0x7000
}

func wantStop(t *testing.T, m *Machine, want StopReason, status uint32) {
	t.Helper()
	got, err := m.Run(m.Step() + 100_000)
	if _, s := m.Stopped(); err != nil || got != want || s != status {
		t.Errorf("%v with status %d, %v; want %v with %d", got, s, err, want, status)
	}
}

func TestResets(t *testing.T) {
	for _, x := range []struct {
		name string
		code []byte
		want StopReason
	}{
		{"CF9, hard", asm(outb(0xcf9, 2), outb(0xcf9, 6)), Reset},
		{"CF9, soft", outb(0xcf9, 4), Reset},
		{"CF9, only the kind", outb(0xcf9, 2), Running},
		{"i8042, command", outb(0x64, 0xfe), Reset},
		{"i8042, output port", asm(outb(0x64, 0xd1), outb(0x60, 0)), Reset},
		{"port 92", outb(0x92, 3), Reset},
		{"port 92, A20 only", outb(0x92, 2), Running},
		{"ACPI S5", outw(0x604, 0x3400), PowerOff},
	} {
		m := machineWith(t, append(x.code, 0xeb, 0xfe)...)
		if got, err := m.Run(1000); err != nil || got != x.want {
			t.Errorf("%s: %v, %v; want %v", x.name, got, err, x.want)
		}
	}
	// An INIT of the only processor.
	m := machineWith(t, 0xeb, 0xfe)
	m.lapics[0].Write(0x300, 4, 0x44500) // to itself, assert
	wantStop(t, m, Reset, 0)
	// A machine check that nobody wants to hear of.
	m = machineWith(t, 0xeb, 0xfe)
	m.CPUs[0].MCPending = true
	wantStop(t, m, TripleFault, 0)
}

// TestPowerButton: the event of a person becomes an interrupt of the guest.
func TestPowerButton(t *testing.T) {
	code := asm(picInit, outw(0x602, 0x100), sti, []byte{0xeb, 0xfe})
	m := machineWith(t, code...)
	m.handler(0x29, 0x7e00, 0xba, 0x00, 0x06, 0xed, 0x88, 0xe0, 0xe6, 0xf4) // mov dx,600h; in ax,dx; mov al,ah; out f4h,al
	if _, err := m.Run(1000); err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(&Event{Kind: EventPower}); err != nil {
		t.Fatal(err)
	}
	wantStop(t, m, DebugExit, 1<<1|1)
}

// TestTimerInterrupt: channel 0 through the 8259A and LINT0, for ever, and through the I/O APIC's input 2.
func TestTimerInterrupt(t *testing.T) {
	code := asm(picInit, outb(0x43, 0x34), outb(0x40, 0xa9), outb(0x40, 0x04), // 1000 Hz
		sti, hlt, []byte{0xeb, 0xfd})
	m := machineWith(t, code...)
	m.handler(0x20, 0x7e00, 0x43, 0xb0, 0x20, 0xe6, 0x20, 0x80, 0xfb, 100, 0x74, 0x01, 0xcf, 0x88, 0xd8, 0xe6, 0xf4)
	// inc bx; mov al,20h; out 20h,al; cmp bl,100; je +1; iret; mov al,bl; out f4h,al
	wantStop(t, m, DebugExit, 201)
	if ms := m.TimeNs() / 1e6; ms < 99 || ms > 101 {
		t.Errorf("100 interrupts of 1000 Hz took %d ms", ms)
	}
}

// TestNMI: one at a time, from one to IRET; and a timer's NMI wakes a processor that has its interrupts off.
func TestNMI(t *testing.T) {
	m := machineWith(t, 0xeb, 0xfe)
	m.handler(2, 0x7e00, 0x43, 0x90, 0xcf) // inc bx; nop; iret
	c := m.CPUs[0]
	c.Regs[x86.RBX] = 0
	c.NMIPending = true
	run := func(n uint64, bx uint64) {
		t.Helper()
		if _, err := m.Run(m.Step() + n); err != nil || c.Regs[x86.RBX] != bx {
			t.Errorf("%v; %d NMIs, want %d", err, c.Regs[x86.RBX], bx)
		}
	}
	run(1, 1)
	c.NMIPending = true
	run(2, 1) // to the end of the first
	if c.NMIBlocked || !c.NMIPending {
		t.Errorf("blocked %v, pending %v after IRET", c.NMIBlocked, c.NMIPending)
	}
	run(1, 2)

	for _, x := range []struct {
		name string
		set  func(m *Machine)
	}{
		{"I/O APIC", func(m *Machine) {
			m.ioapic.Write(0, 4, 0x14)
			m.ioapic.Write(0x10, 4, lapic.ModeNMI<<8)
		}},
		{"LINT0", func(m *Machine) {
			m.lapics[0].Write(0xf0, 4, 0x1ff)
			m.lapics[0].Write(0x350, 4, lapic.ModeNMI<<8)
		}},
	} {
		m := machineWith(t, asm(picInit, outb(0x43, 0x30), outb(0x40, 100), outb(0x40, 0), cli, hlt)...)
		m.handler(2, 0x7e00, 0xb0, 7, 0xe6, 0xf4)
		x.set(m)
		if got, err := m.Run(100_000); got != DebugExit || err != nil {
			t.Errorf("%s: %v, %v", x.name, got, err)
		}
	}
	if (&ioapic.IOAPIC{}).Nonmaskable() {
		t.Error("an I/O APIC without entries sends NMIs")
	}
}

// TestNothingThere: ports and addresses without a device read as ones and swallow writes; wide accesses are split.
func TestNothingThere(t *testing.T) {
	m := machineWith(t, 0xf4)
	b, c := m.bus, m.CPUs[0]
	for _, size := range []int{1, 2, 4} {
		ones := uint32(1<<(8*size) - 1)
		for _, port := range []uint16{0x80, 0x2f8, 0x5000, 0xffff} {
			b.Out(c, port, size, 0)
			if got := b.In(c, port, size); got != ones {
				t.Errorf("port %#x, %d bytes: %#x", port, size, got)
			}
		}
	}
	for _, size := range []int{1, 2, 4, 8} {
		for _, pa := range []uint64{0xa0000, 0xbfff8, 0xd0000000, 0xfed00000, 0xfee01000, 0xfffffff0, 1 << 38} {
			b.WriteMMIO(c, pa, size, 0)
			if got := b.ReadMMIO(c, pa, size); got != 1<<(8*size)-1 {
				t.Errorf("address %#x, %d bytes: %#x", pa, size, got)
			}
		}
	}
	// Port 61H has a neighbour that is not there.
	if got := b.In(c, 0x61, 2); got>>8 != 0xff || got&0xcf != 0 {
		t.Errorf("ports 61 and 62: %#x", got)
	}
	// A device of byte registers takes a word as two bytes.
	b.Out(c, 0x20, 2, 0xab<<8|0x0b)
	if got := b.In(c, 0x21, 1); got != 0xab {
		t.Errorf("mask %#x after a word to 20H", got)
	}
	b.Out(c, 0x70, 2, 0x5a<<8|0x40)
	b.Out(c, 0x70, 1, 0x40)
	if got := b.In(c, 0x71, 1); got != 0x5a {
		t.Errorf("CMOS %#x after a word to 70H", got)
	}
	// Address line 20 is never masked.
	b.Out(c, 0x92, 1, 0)
	if got := b.In(c, 0x92, 1); got&2 != 0 {
		t.Errorf("port 92H %#x", got)
	}
	m.RAM.WriteAt([]byte{1}, 0x1234)
	m.RAM.WriteAt([]byte{2}, 0x101234)
	if got := c.Load8(0x101234); got != 2 {
		t.Errorf("%d with A20 off", got)
	}
}

// TestConfigurationSpace: PCI's mechanism 1, as seen through the ports.
func TestConfigurationSpace(t *testing.T) {
	m := machineWith(t, 0xf4)
	b, c := m.bus, m.CPUs[0]
	at := func(dev, fn, reg uint32) { b.Out(c, 0xcf8, 4, 1<<31|dev<<11|fn<<8|reg&^3) }
	at(0, 0, 0)
	if got := b.In(c, 0xcfc, 4); got != 0x12378086 {
		t.Errorf("host bridge %#x", got)
	}
	if lo, hi, b1 := b.In(c, 0xcfc, 2), b.In(c, 0xcfe, 2), b.In(c, 0xcfd, 1); lo != 0x8086 || hi != 0x1237 || b1 != 0x80 {
		t.Errorf("parts %#x %#x %#x", lo, hi, b1)
	}
	at(1, 1, 8)
	if got := b.In(c, 0xcfe, 2); got != 0x0101 {
		t.Errorf("class of the IDE controller %#x", got)
	}
	at(9, 0, 0)
	if got := b.In(c, 0xcfc, 4); got != 0xffffffff {
		t.Errorf("a device that is not there: %#x", got)
	}
	b.Out(c, 0xcf8, 4, 0)
	if got := b.In(c, 0xcfc, 4); got != 0xffffffff {
		t.Errorf("disabled: %#x", got)
	}
}

// TestCoprocessorError: with CR0.NE clear, an x87 error is interrupt 13, and the instruction that found it comes again.
func TestCoprocessorError(t *testing.T) {
	divide := []byte{0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9} // fld1; fldz; fdivp
	m := machineWith(t, asm(picInit, []byte{
		0xdb, 0xe3, // fninit
		0xc7, 0x06, 0x00, 0x05, 0x7b, 0x03, // mov word [500h],37bh: division by zero is not masked
		0xd9, 0x2e, 0x00, 0x05}, // fldcw [500h]
		sti, divide, []byte{0x41, 0x9b, 0x42}, divide, []byte{0x9b, 0x42, 0x88, 0xd0}, outb(0xf4, 0))...) // inc cx; fwait; inc dx
	m.handler(0x2d, 0x7e00,
		0x43,       // inc bx
		0xe6, 0xf0, // out f0h,al
		0x9b,       // fwait: ignored
		0xdb, 0xe2, // fnclex
		0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0xcf)
	c := m.CPUs[0]
	for _, r := range []int{x86.RBX, x86.RCX, x86.RDX} {
		c.Regs[r] = 0
	}
	c.CR0 &^= x86.CR0NE
	wantStop(t, m, DebugExit, 1)
	if c.Regs[x86.RBX] != 2 || c.Regs[x86.RCX] != 1 {
		t.Errorf("%d interrupts; the instructions before ran %d times", c.Regs[x86.RBX], c.Regs[x86.RCX])
	}
	// Without interrupts it waits for ever.
	m = machineWith(t, asm([]byte{0xdb, 0xe3, 0xc7, 0x06, 0x00, 0x05, 0x7b, 0x03, 0xd9, 0x2e, 0x00, 0x05}, cli, divide, []byte{0x9b, 0xf4})...)
	wantStop(t, m, Dead, 0)
	if rip := m.CPUs[0].Regs[x86.RIP]; rip != 0x7c00+12+1+6 {
		t.Errorf("stopped at %#x", rip)
	}
}
