package pci

import (
	"bytes"
	"testing"

	"refault/vmm/dev"
)

type ram [16]uint8

func (r *ram) In(port uint16, size int) uint32      { return uint32(r[port]) }
func (r *ram) Out(port uint16, size int, v uint32)  { r[port] = uint8(v) }
func (r *ram) Read(off uint64, size int) uint64     { return uint64(off) }
func (r *ram) Write(off uint64, size int, v uint64) {}

type bench struct {
	*Bus
	gsi    [PIRQs]bool
	isa    [16]bool
	resets int
	remaps int
	nic    *Config
	ports  ram
}

func line(b *bool) dev.Line { return dev.LineFunc(func(level bool) { *b = level }) }

// newBench returns a bus with two functions that interrupt: 00:03.0 by INTA#, 00:04.1 by INTC#.
func newBench() *bench {
	b := new(bench)
	cfg := BusConfig{Reset: func() { b.resets++ }, OnRemap: func() { b.remaps++ }}
	for i := range b.gsi {
		cfg.GSI[i] = line(&b.gsi[i])
	}
	for i := range b.isa {
		cfg.ISA[i] = line(&b.isa[i])
	}
	b.Bus = NewBus(cfg)
	b.nic = NewConfig(ID{Vendor: 0x1234, Device: 0x5678, Class: 0x020000, Pin: 1})
	b.nic.PortBAR(0, 0xc100, 16, &b.ports)
	b.nic.RegisterBAR(1, 0xd0000000, 0x20000, &b.ports)
	b.nic.SetInitialCommand(CommandIO | CommandMemory)
	b.Add(Addr(3, 0), b.nic)
	other := NewConfig(ID{Vendor: 0x1234, Device: 0x5679, Pin: 3})
	other.PortBAR(5, 0xc200, 4, &b.ports)
	b.Add(Addr(4, 1), other)
	b.Add(Addr(4, 0), NewConfig(ID{Vendor: 0x1234, Device: 0x567a}))
	return b
}

func (b *bench) at(a DevFn, reg int) { b.Out(0, 4, 1<<31|uint32(a)<<8|uint32(reg&^3)) }

func (b *bench) read(a DevFn, reg, size int) uint32 {
	b.at(a, reg)
	return b.In(uint16(4+reg&3), size)
}

func (b *bench) write(a DevFn, reg, size int, v uint32) {
	b.at(a, reg)
	b.Out(uint16(4+reg&3), size, v)
}

func TestBridgesAreFound(t *testing.T) {
	b := newBench()
	for _, c := range []struct {
		a         DevFn
		reg, size int
		want      uint32
	}{
		{Addr(0, 0), 0, 4, 0x12378086},
		{Addr(0, 0), 8, 4, 0x06000002},
		{Addr(0, 0), RegHeaderType, 1, 0},
		{Addr(1, 0), 0, 4, 0x71108086},
		{Addr(1, 0), RegDeviceID, 2, 0x7110},
		{Addr(1, 0), 1, 1, 0x80},
		{Addr(3, 0), RegInterruptPin, 1, 1},
		{Addr(4, 0), RegHeaderType, 1, 0x80},
		{Addr(4, 1), RegHeaderType, 1, 0},
		{Addr(4, 2), 0, 4, 0xffffffff},
		{Addr(31, 7), 0, 2, 0xffff},
	} {
		if got := b.read(c.a, c.reg, c.size); got != c.want {
			t.Errorf("%v register %#x: %#x, want %#x", c.a, c.reg, got, c.want)
		}
	}
	b.Out(0, 4, 1<<31|1<<16)
	if got := b.In(4, 4); got != 0xffffffff {
		t.Errorf("a function on bus 1: %#x", got)
	}
	b.Out(0, 4, 0)
	if got := b.In(4, 4); got != 0xffffffff {
		t.Errorf("with configuration access off: %#x", got)
	}
}

func TestAddressRegister(t *testing.T) {
	b := newBench()
	b.Out(0, 4, 0xffffffff)
	if got := b.In(0, 4); got != 0x80fffffc {
		t.Errorf("address register %#x", got)
	}
	// Only dwords reach it; CF9H is the reset control register.
	b.Out(0, 2, 0)
	b.Out(3, 1, 0)
	if got := b.In(0, 4); got != 0x80fffffc {
		t.Errorf("address register after byte and word writes %#x", got)
	}
	if b.In(0, 1) != 0xff || b.In(2, 2) != 0xffff {
		t.Error("bytes of the address register can be read")
	}
	// Accesses that leave the data register, and the space.
	b.at(Addr(0, 0), 0)
	if got := b.In(6, 4); got != 0xffffffff {
		t.Errorf("a dword at CFEH: %#x", got)
	}
	b.Out(6, 4, 0)
	b.Out(7, 2, 0)
}

func TestResetControl(t *testing.T) {
	b := newBench()
	b.Out(1, 1, 2)
	if b.resets != 0 {
		t.Error("reset without RCPU")
	}
	b.Out(1, 1, 6)
	b.Out(1, 1, 6)
	if b.resets != 1 || b.In(1, 1) != 6 {
		t.Errorf("%d resets, register %#x", b.resets, b.In(1, 1))
	}
	b.Out(1, 1, 0)
	b.Out(1, 1, 0xff)
	if b.resets != 2 || b.In(1, 1) != 6 {
		t.Errorf("%d resets, register %#x", b.resets, b.In(1, 1))
	}
}

func TestReadOnlyAndClearedByOne(t *testing.T) {
	b := newBench()
	for reg := 0; reg < configSize; reg += 4 {
		b.write(Addr(3, 0), reg, 4, 0xffffffff)
	}
	for _, c := range []struct {
		reg  int
		want uint32
	}{
		{0, 0x56781234}, {8, 0x02000000}, {RegCommand, 0x00000547}, {RegBAR0 + 8, 0}, {RegSubVendorID, 0},
		{RegInterruptLine, 0x000001ff}, {0x40, 0},
	} {
		if got := b.read(Addr(3, 0), c.reg, 4); got != c.want {
			t.Errorf("register %#x = %#x, want %#x", c.reg, got, c.want)
		}
	}
	b.nic.SetStatus(0x2000, 0)
	b.write(Addr(3, 0), RegCommand, 2, 3)
	if b.nic.Read16(RegStatus) != 0x2000 {
		t.Error("a write of the command register cleared the status")
	}
	b.write(Addr(3, 0), RegStatus, 2, 0x2000)
	if b.nic.Read16(RegStatus) != 0 {
		t.Error("an error bit is not cleared by writing one")
	}
}

func TestBARs(t *testing.T) {
	b := newBench()
	nic := Addr(3, 0)
	if p, off := b.PortsAt(0xc10f); p == nil || off != 15 {
		t.Error("not at its first place")
	}
	if p, _ := b.PortsAt(0xc110); p != nil {
		t.Error("a port too far")
	}
	if r, off := b.RegistersAt(0xd001ffff); r == nil || off != 0x1ffff {
		t.Error("memory not at its first place")
	}
	if r, _ := b.RegistersAt(0xd0020000); r != nil {
		t.Error("memory too far")
	}
	b.write(nic, RegBAR0, 4, 0xffffffff)
	if got := b.read(nic, RegBAR0, 4); got != 0xfff1 {
		t.Errorf("size of the ports reads %#x", got)
	}
	b.write(nic, RegBAR0+4, 4, 0xffffffff)
	if got := b.read(nic, RegBAR0+4, 4); got != 0xfffe0000 {
		t.Errorf("size of the memory reads %#x", got)
	}
	b.write(nic, RegBAR0, 4, 0x1237)
	b.write(nic, RegBAR0+4, 4, 0xe0000000)
	if p, off := b.PortsAt(0x1234); p == nil || off != 4 {
		t.Error("not where the guest put it")
	}
	if r, off := b.RegistersAt(0xe0000010); r == nil || off != 0x10 {
		t.Error("memory not where the guest put it")
	}
	if p, _ := b.PortsAt(0xc100); p != nil {
		t.Error("still where it was")
	}
	remaps := b.remaps
	b.write(nic, RegCommand, 2, CommandMemory)
	if p, _ := b.PortsAt(0x1234); p != nil || b.remaps == remaps {
		t.Error("decoded in spite of the command register")
	}
	b.write(nic, RegCommand, 2, CommandIO)
	if r, _ := b.RegistersAt(0xe0000010); r != nil {
		t.Error("memory decoded in spite of the command register")
	}
	b.write(nic, RegBAR0, 4, 0)
	if p, _ := b.PortsAt(0); p != nil {
		t.Error("a BAR that is not assigned decodes port 0")
	}
}

func TestInterruptRouting(t *testing.T) {
	b := newBench()
	// 00:03.0 INTA# is PIRQ (0+3-1)%4 = 2, 00:04.1 INTC# is (2+4-1)%4 = 1.
	nic, other := b.Line(Addr(3, 0)), b.Line(Addr(4, 1))
	nic.Set(true)
	if b.gsi != [4]bool{2: true} || !b.isa[10] || b.isa[11] {
		t.Errorf("INTA# of 00:03.0: GSIs %v, ISA %v", b.gsi, b.isa)
	}
	if b.read(Addr(3, 0), RegStatus, 2)&StatusInterrupt == 0 {
		t.Error("the status register does not show it")
	}
	other.Set(true)
	if b.gsi != [4]bool{1: true, 2: true} || !b.isa[10] || !b.isa[11] {
		t.Errorf("and INTC# of 00:04.1: GSIs %v, ISA %v", b.gsi, b.isa)
	}
	b.write(Addr(1, 0), regPIRQRC, 4, 0x800a0580)
	if b.isa[11] || !b.isa[5] || !b.isa[10] {
		t.Errorf("after routing PIRQB to 5: ISA %v", b.isa)
	}
	b.write(Addr(1, 0), regPIRQRC+2, 1, 5)
	if b.isa[10] || !b.isa[5] {
		t.Errorf("both at 5: ISA %v", b.isa)
	}
	nic.Set(false)
	if !b.isa[5] || b.gsi != [4]bool{1: true} {
		t.Error("the other no longer interrupts")
	}
	other.Set(false)
	if b.isa[5] {
		t.Error("nobody interrupts, but the line is high")
	}
	b.write(Addr(3, 0), RegCommand, 2, CommandInterruptDisable)
	nic.Set(true)
	if b.gsi != [4]bool{} || b.read(Addr(3, 0), RegStatus, 2)&StatusInterrupt == 0 {
		t.Error("interrupt disable: line or status")
	}
	b.write(Addr(3, 0), RegCommand, 2, 0)
	if b.gsi != [4]bool{2: true} {
		t.Error("the pending interrupt does not come when it is allowed")
	}
	b.Reset()
	if b.gsi != [4]bool{} || b.isa != [16]bool{} || b.nic.Command() != CommandIO|CommandMemory {
		t.Error("reset")
	}
}

func TestSaveRestore(t *testing.T) {
	a, b := newBench(), newBench()
	a.write(Addr(3, 0), RegBAR0, 4, 0x4000)
	a.Line(Addr(3, 0)).Set(true)
	a.write(Addr(1, 0), regPIRQRC+2, 1, 7)
	a.Out(1, 1, 2)
	if err := dev.Decode(b, dev.Encode(a)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dev.Encode(a), dev.Encode(b)) {
		t.Error("the restored state differs")
	}
	if p, _ := b.PortsAt(0x4001); p == nil {
		t.Error("the restored BAR does not decode")
	}
	b.isa[7] = true // as the restored interrupt controller has it
	b.Line(Addr(3, 0)).Set(false)
	if b.isa[7] {
		t.Error("the restored line cannot be lowered")
	}
	b.Line(Addr(3, 0)).Set(true)
	if !bytes.Equal(dev.Encode(a), dev.Encode(b)) {
		t.Error("the restored bus went another way")
	}
}

func TestRestoreRefusesWhatCannotBe(t *testing.T) {
	for name, spoil := range map[string]func(*State){
		"version":          func(s *State) { s.Version = 2 },
		"function lacking": func(s *State) { s.Functions = s.Functions[:3] },
		"another function": func(s *State) { s.Functions[2].Addr++ },
		"one more":         func(s *State) { s.Functions = append(s.Functions, s.Functions[0]) },
		"another device":   func(s *State) { s.Functions[1].Config[RegDeviceID] ^= 1 },
		"short space":      func(s *State) { s.Functions[1].Config = s.Functions[1].Config[:64] },
		"no such pin":      func(s *State) { s.Functions[0].Interrupt = true },
	} {
		s := newBench().Save().(*State)
		spoil(s)
		if err := newBench().Restore(func(v any) error { *v.(*State) = *s; return nil }); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzBus(f *testing.F) {
	f.Add([]byte{0, 0, 0x80, 0, 0x10, 4, 0xff}, []byte{})
	f.Add([]byte{1, 2, 3, 4, 5}, dev.Encode(newBench()))
	f.Fuzz(func(t *testing.T, accesses, state []byte) {
		b := newBench()
		if len(state) > 0 && dev.Decode(b, state) != nil {
			return
		}
		for ; len(accesses) >= 6; accesses = accesses[6:] {
			a := accesses
			size := 1 << (a[0] & 3 % 3)
			b.Out(0, 4, uint32(a[1])<<24|1<<31|uint32(a[2])<<8|uint32(a[3]))
			port := uint16(a[4] % 8)
			switch a[0] >> 6 {
			case 0:
				b.In(port, size)
			case 1:
				b.Line(Addr(3, 0)).Set(a[5]&1 != 0)
			default:
				b.Out(port, size, uint32(a[5])*0x01010101)
			}
			b.PortsAt(uint16(a[5]) << 8)
			b.RegistersAt(uint64(a[5]) << 24)
		}
		c := newBench()
		if err := dev.Decode(c, dev.Encode(b)); err != nil || !bytes.Equal(dev.Encode(b), dev.Encode(c)) {
			t.Errorf("the state does not survive: %v", err)
		}
	})
}
