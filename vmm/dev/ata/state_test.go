package ata

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/disk"
)

// devices returns all whose state together is the bench's, memory apart.
func (b *bench) devices() []dev.Device {
	all := []dev.Device{b.queue, b.c}
	for _, d := range b.c.Drives() {
		all = append(all, d, d.Disk())
	}
	return all
}

type saved struct {
	now     uint64
	irq     [2]bool
	ram     []byte
	devices [][]byte
}

func (b *bench) save() saved {
	s := saved{now: b.now, irq: b.irq, ram: bytes.Clone(b.ram.Data())}
	for _, d := range b.devices() {
		s.devices = append(s.devices, dev.Encode(d))
	}
	return s
}

func (b *bench) restore(s saved) {
	b.t.Helper()
	b.now, b.irq = s.now, s.irq
	copy(b.ram.Data(), s.ram)
	for i, d := range b.devices() {
		if err := dev.Decode(d, s.devices[i]); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (s saved) equal(o saved) bool {
	for i := range s.devices {
		if !bytes.Equal(s.devices[i], o.devices[i]) {
			return false
		}
	}
	return s.now == o.now && s.irq == o.irq && bytes.Equal(s.ram, o.ram)
}

// script is a guest that does all kinds of things, cut into small steps.
func (b *bench) script() (steps []func()) {
	do := func(f func()) { steps = append(steps, f) }
	tick := func() {
		for range 3 {
			do(func() { b.now += 20_000; b.queue.Run() })
		}
		do(func() { b.step() })
	}
	do(func() { b.issue28(opIdentify, 0, 0) })
	tick()
	for range 4 {
		do(func() {
			for range 64 {
				b.c.CommandPorts(0).In(regData, 2)
			}
		})
	}
	do(func() { b.in(regStatus) })
	do(func() { b.fault(Fault{ID: 1, Kind: FaultUNC, LBA: 30, Count: 4, UntilRewritten: true}) })
	do(func() { b.fault(Fault{ID: 2, Kind: FaultTorn, LBA: 30, Count: 4, Bytes: 1500}) })
	do(func() { b.prds(true, region{0x10000, 0x300}, region{0x20000, 0x100}) })
	do(func() { b.issue28(0xc8, 28, 3) })
	do(b.startDMA)
	tick()
	do(b.stopDMA)
	do(func() { b.prds(true, region{0x30000, 0x1000}) }) // where it goes on
	do(b.startDMA)
	do(func() { b.in(regStatus) })
	do(b.stopDMA)
	do(func() { b.fault(Fault{ID: 3, Kind: FaultSlow, LBA: 28, Count: 9, Ops: OpWrite, ExtraNs: 100_000}) })
	do(func() { b.prds(false, region{0x10000, 0x900}) })
	do(func() { b.issue48(0x35, 28, 5) })
	tick()
	do(b.startDMA) // late, and too short
	do(b.stopDMA)
	do(func() { b.prds(false, region{0x10000, 0x100}) })
	do(b.startDMA)
	tick()
	do(func() { b.in(regStatus) })
	do(b.stopDMA)
	do(func() { b.issue28(0xc6, 0, 2) })
	tick()
	do(func() { b.in(regStatus) })
	do(func() { b.issue28(0xc5, 100, 3) })
	for i := range 9 {
		tick()
		do(func() {
			for j := range 128 {
				b.c.CommandPorts(0).Out(regData, 2, uint32(i*j))
			}
		})
	}
	do(func() { b.control(controlNIEN) })
	do(func() { b.issue28(0xe0, 0, 0) })
	tick()
	do(func() { b.control(controlNIEN | controlSRST) })
	do(func() { b.control(0) })
	tick()
	do(func() { b.fault(Fault{ID: 4, Kind: FaultTimeout, LBA: 0, Count: 1, Remaining: 1}) })
	do(func() { b.issue28(0x20, 0, 1) })
	tick()
	do(func() { b.control(controlSRST) })
	do(func() { b.control(0) })
	tick()
	do(func() { b.out(regDevice, 0xb0) })
	do(func() { b.out(regStatus, opExecuteDiagnostic) })
	tick()
	do(func() { b.in(regStatus) })
	return steps
}

func twoDrives(t testing.TB) *bench {
	b := newBench(t)
	b.attach(0, 1, make(disk.Bytes, 64*disk.SectorSize))
	return b
}

func TestSaveRestoreAnywhere(t *testing.T) {
	golden := twoDrives(t)
	var at []saved
	for _, step := range golden.script() {
		at = append(at, golden.save())
		step()
	}
	end := golden.save()
	b := twoDrives(t)
	steps := b.script()
	for i, s := range at {
		b.restore(s)
		if !b.save().equal(s) {
			t.Fatalf("step %d: what was restored is not what was saved", i)
		}
		for _, step := range steps[i:] {
			step()
		}
		if !b.save().equal(end) {
			t.Fatalf("restored at step %d of %d: another end", i, len(steps))
		}
	}
}

func TestResetIsPowerOn(t *testing.T) {
	a, b := twoDrives(t), twoDrives(t)
	steps := a.script()
	for _, step := range steps[:len(steps)/2] {
		step()
	}
	for _, d := range a.devices() {
		d.Reset()
	}
	for _, d := range a.c.Drives() {
		d.Disk().Clear() // what is on a disk outlives a reset, as its faults do
		for _, f := range d.Faults() {
			d.RemoveFault(f.ID)
		}
	}
	a.now = b.now
	copy(a.ram.Data(), b.ram.Data())
	if !a.save().equal(b.save()) {
		t.Error("after a reset the state is not that of a new machine")
	}
}

// guest drives the registers as random bytes tell.
func (b *bench) guest(p []byte) {
	for ; len(p) >= 4; p = p[4:] {
		what, reg, v := p[0], uint16(p[1]), uint32(p[2])|uint32(p[3])<<8
		size := 1 << (what >> 6 % 3)
		switch what & 15 {
		case 0, 1, 2:
			b.c.CommandPorts(int(what>>4&1)).Out(reg%8, size, v)
		case 3, 4:
			b.c.CommandPorts(int(what>>4&1)).In(reg%8, size)
		case 5:
			b.c.ControlPorts(int(what>>4&1)).Out(reg%2, size, v)
		case 6:
			b.c.ControlPorts(0).In(reg%2, size)
		case 7, 8:
			busMasterPorts{b.c}.Out(reg%16, size, v)
		case 9:
			busMasterPorts{b.c}.In(reg%16, size)
		case 10, 11:
			b.step()
		case 12:
			b.issue28(uint8(reg), uint64(v), uint8(what>>4))
		case 13: // a PRD
			b.ram.WriteAt([]byte{p[1], p[2], p[3], what, p[3], p[2], 0, p[1]}, uint64(reg)*8)
		case 14:
			for range 300 {
				b.c.CommandPorts(0).In(regData, 4)
				b.c.CommandPorts(0).Out(regData, 4, v)
			}
		case 15:
			kind := FaultKind(what>>4) % (numFaultKinds + 1)
			_ = b.drive().AddFault(Fault{ID: uint64(v), Kind: kind, Ops: Ops(p[2] & 15), LBA: uint64(p[3]), Count: uint64(reg),
				ExtraNs: uint64(v), Mask: p[1:2], Bytes: uint64(v), Target: uint64(v), Remaining: v & 3, UntilRewritten: v&4 != 0})
		}
	}
}

func TestRandomGuests(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		p := make([]byte, 4*400)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		a, b := twoDrives(t), twoDrives(t)
		a.guest(p[:800])
		b.restore(a.save())
		a.guest(p[800:])
		b.guest(p[800:])
		if !a.save().equal(b.save()) {
			t.Fatal("the restored machine went another way")
		}
	}
}

func FuzzGuest(f *testing.F) {
	f.Add([]byte{0x0c, 0xec, 0, 0, 10, 0, 0, 0, 14, 0, 0, 0})
	f.Add([]byte{0x0c, 0xc8, 0, 0, 8, 0, 9, 0, 10, 0, 0, 0, 13, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 4*2000 {
			return
		}
		b := twoDrives(t)
		b.guest(p)
		c := twoDrives(t)
		c.restore(b.save())
	})
}

func FuzzRestore(f *testing.F) {
	b := twoDrives(f)
	for i, step := range b.script() {
		step()
		if i%5 == 0 {
			f.Add(dev.Encode(b.c), dev.Encode(b.drive()), []byte{10, 0, 0, 0, 14, 0, 0, 0, 7, 0, 9, 0, 10, 0, 0, 0})
		}
	}
	f.Fuzz(func(t *testing.T, controller, drive, guest []byte) {
		if len(guest) > 4*500 {
			return
		}
		b := twoDrives(t)
		if dev.Decode(b.c, controller) != nil || dev.Decode(b.drive(), drive) != nil {
			return
		}
		b.guest(guest)
		c := twoDrives(t)
		c.restore(b.save())
	})
}
