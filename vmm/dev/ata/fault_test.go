package ata

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"refault/vmm/dev/disk"
)

func (b *bench) fault(f Fault) {
	b.t.Helper()
	if f.Ops == 0 {
		f.Ops = f.Kind.DefaultOps()
	}
	if err := b.drive().AddFault(f); err != nil {
		b.t.Fatal(err)
	}
}

// dma runs a READ DMA or WRITE DMA (EXT where ext) of n sectors at 0x10000 and returns the status.
func (b *bench) dma(write, ext bool, lba uint64, n int) uint8 {
	b.t.Helper()
	b.prds(!write, region{0x10000, uint32(n * disk.SectorSize)})
	op := map[[2]bool]uint8{{false, false}: 0xc8, {true, false}: 0xca, {false, true}: 0x25, {true, true}: 0x35}[[2]bool{write, ext}]
	if ext {
		b.issue48(op, lba, uint16(n))
	} else {
		b.issue28(op, lba, uint8(n))
	}
	b.startDMA()
	b.wait()
	s := b.in(regStatus)
	b.stopDMA()
	return s
}

func (b *bench) fill(v byte, n int) []byte {
	p := bytes.Repeat([]byte{v}, n*disk.SectorSize)
	b.ram.WriteAt(p, 0x10000)
	return p
}

func TestUNCInTheMiddleOfADMARead(t *testing.T) {
	for _, ext := range []bool{false, true} {
		b := newBench(t)
		b.fault(Fault{ID: 1, Kind: FaultUNC, LBA: 1005, Count: 2})
		b.fill(0xee, 8)
		b.prds(true, region{0x10000, 0x1000})
		if ext {
			b.issue48(0x25, 1000, 8)
		} else {
			b.issue28(0xc8, 1000, 8)
		}
		b.startDMA()
		b.wait()
		if !b.irq[0] {
			t.Fatal("no interrupt")
		}
		b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmIntr|bmActive)
		b.want("status", b.in(regStatus), statusReady|statusERR)
		b.want("error", b.in(regError), errorUNC)
		if ext {
			if got := b.lba48(); got != 1005 {
				t.Errorf("failed at %d, want 1005", got)
			}
		} else if got := b.lba28(); got != 1005 {
			t.Errorf("failed at %d, want 1005", got)
		}
		if !bytes.Equal(b.memory(0x10000, 5*512), b.sectors(1000, 5)) {
			t.Error("the sectors before the bad one did not move")
		}
		if !bytes.Equal(b.memory(0x10000+5*512, 3*512), bytes.Repeat([]byte{0xee}, 3*512)) {
			t.Error("data moved from the bad sector on")
		}
		b.stopDMA()
		// Others are readable, and so is the drive's mind.
		b.want("behind", b.dma(false, ext, 1007, 8), statusReady)
		b.want("before", b.dma(false, ext, 1000, 5), statusReady)
		b.want("second bad one", b.dma(false, ext, 1006, 1), statusReady|statusERR)
		if f := b.drive().Faults(); len(f) != 1 || f[0].Hits != 2 {
			t.Errorf("faults %+v, want one with two hits", f)
		}
	}
}

func TestUNCHighAddressInDeviceRegister(t *testing.T) {
	b := newBench(t)
	b.c.channels[1].drives[0] = nil
	img := sparse(1 << 28)
	d := b.attach(1, 0, img)
	if err := d.AddFault(Fault{ID: 1, Kind: FaultUNC, Ops: OpRead, LBA: 0xabcdef1, Count: 1}); err != nil {
		t.Fatal(err)
	}
	p := b.c.CommandPorts(1)
	for reg, v := range map[uint16]uint32{regDevice: 0xea, regCount: 4, regLBALow: 0xee, regLBAMid: 0xde, regLBAHigh: 0xbc} {
		p.Out(reg, 1, v)
	}
	p.Out(regStatus, 1, 0x40)
	b.step()
	b.want("device", uint8(p.In(regDevice, 1)), 0xea)
	b.want("LBA low", uint8(p.In(regLBALow, 1)), 0xf1)
	b.want("error", uint8(p.In(regError, 1)), errorUNC)
}

// sparse is an image of zeros of any size.
type sparse int64

func (s sparse) Size() int64 { return int64(s) * disk.SectorSize }
func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	return len(p), nil
}

func TestUNCInPIO(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultUNC, LBA: 12, Count: 1})
	b.issue28(0x20, 10, 4)
	if !bytes.Equal(b.pioRead(2*512), b.sectors(10, 2)) {
		t.Error("the blocks before the bad one")
	}
	b.wait()
	b.want("status", b.in(regStatus), statusReady|statusERR)
	if got := b.lba28(); got != 12 {
		t.Errorf("failed at %d", got)
	}
	b.issue28(0x41, 0, 20)
	b.wait()
	b.want("verify", b.in(regStatus), statusReady|statusERR)
}

func TestRemainingAndUntilRewritten(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultUNC, LBA: 10, Count: 1, Remaining: 2})
	b.fault(Fault{ID: 2, Kind: FaultUNC, LBA: 100, Count: 10, UntilRewritten: true})
	for i, want := range []uint8{statusReady | statusERR, statusReady | statusERR, statusReady} {
		if got := b.dma(false, false, 10, 1); got != want {
			t.Errorf("read %d: status %#x, want %#x", i, got, want)
		}
	}
	b.want("not yet rewritten", b.dma(false, false, 105, 1), statusReady|statusERR)
	b.fill(1, 2)
	b.want("writing", b.dma(true, false, 104, 2), statusReady)
	b.want("rewritten", b.dma(false, false, 104, 2), statusReady)
	b.want("before", b.dma(false, false, 103, 1), statusReady|statusERR)
	b.want("behind", b.dma(false, false, 106, 1), statusReady|statusERR)
	if f := b.drive().Faults(); len(f) != 2 || f[0].LBA != 100 || f[0].Count != 4 || f[1].LBA != 106 || f[1].Count != 4 || f[0].ID != 2 || f[1].ID != 2 {
		t.Errorf("faults %+v", f)
	}
	if !b.drive().RemoveFault(2) || b.drive().RemoveFault(2) {
		t.Error("removing")
	}
	b.want("removed", b.dma(false, false, 100, 10), statusReady)
}

func TestAFaultThatIsNotReachedDoesNotCount(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultUNC, LBA: 10, Count: 1})
	b.fault(Fault{ID: 2, Kind: FaultUNC, LBA: 12, Count: 1, Remaining: 1})
	b.want("status", b.dma(false, false, 8, 8), statusReady|statusERR)
	if got := b.lba28(); got != 10 {
		t.Errorf("failed at %d, want the first bad sector", got)
	}
	if f := b.drive().Faults(); len(f) != 2 || f[0].Hits != 1 || f[1].Hits != 0 {
		t.Errorf("faults %+v", f)
	}
}

func TestErrorsByKind(t *testing.T) {
	for _, c := range []struct {
		kind   FaultKind
		write  bool
		status uint8
		err    uint8
		moved  int // sectors, of 4 with a fault on the third
	}{
		{FaultUNC, false, statusERR, errorUNC, 2},
		{FaultIDNF, false, statusERR, errorIDNF, 2},
		{FaultIDNF, true, statusERR, errorIDNF, 2},
		{FaultICRC, false, statusERR, errorICRC | errorABRT, 2},
		{FaultICRC, true, statusERR, errorICRC | errorABRT, 2},
		{FaultABRT, false, statusERR, errorABRT, 0},
		{FaultABRT, true, statusERR, errorABRT, 0},
		{FaultDF, false, statusERR | statusDF, errorABRT, 0},
		{FaultDF, true, statusERR | statusDF, errorABRT, 0},
	} {
		b := newBench(t)
		b.fault(Fault{ID: 1, Kind: c.kind, LBA: 22, Count: 1})
		old := b.fill(0x77, 4)
		got := b.dma(c.write, true, 20, 4)
		if got != statusReady|c.status {
			t.Errorf("%v: status %#x", c.kind, got)
		}
		b.want(c.kind.String()+": error", b.in(regError), c.err)
		n := c.moved * 512
		if c.write {
			if disk := b.read(20, 4); !bytes.Equal(disk[:n], old[:n]) || !bytes.Equal(disk[n:], b.sectors(20, 4)[n:]) {
				t.Errorf("%v: the disk holds other than %d sectors written", c.kind, c.moved)
			}
		} else if m := b.memory(0x10000, 2048); !bytes.Equal(m[:n], b.sectors(20, 4)[:n]) || !bytes.Equal(m[n:], old[n:]) {
			t.Errorf("%v: memory holds other than %d sectors read", c.kind, c.moved)
		}
		// DF and ERR do not outlive the command.
		b.want(c.kind.String()+": next", b.dma(false, true, 0, 1), statusReady)
	}
}

func TestICRCNeedsUDMA(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultICRC, LBA: 0, Count: benchSectors})
	b.issue28(0x20, 0, 1)
	b.pioRead(512)
	b.out(regError, 3)
	b.issue28(0xef, 0, 0x22) // multiword DMA mode 2
	b.wait()
	b.want("multiword DMA", b.dma(false, false, 0, 1), statusReady)
	b.out(regError, 3)
	b.issue28(0xef, 0, 0x42)
	b.wait()
	b.want("UDMA", b.dma(false, false, 0, 1), statusReady|statusERR)
}

func TestTimeoutLastsUntilReset(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultTimeout, LBA: 5, Count: 1, Remaining: 1})
	b.prds(true, region{0x10000, 0x200})
	b.issue28(0xc8, 5, 1)
	b.startDMA()
	if b.step() {
		t.Error("a timer runs")
	}
	b.want("status", b.altStatus(), statusBSY)
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmActive)
	b.issue28(0xec, 0, 0)
	if b.step() {
		t.Error("a hung drive took a command")
	}
	b.control(controlSRST)
	b.control(0)
	b.wait()
	b.stopDMA()
	b.want("after the reset", b.dma(false, false, 5, 1), statusReady)
}

func TestFaultsOfCommandsWithoutSectors(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultABRT, Ops: OpFlush, LBA: 0, Count: 1})
	b.fault(Fault{ID: 2, Kind: FaultTimeout, Ops: OpOther, LBA: 7, Count: 1})
	b.issue28(0xea, 0, 0)
	b.wait()
	b.want("flush", b.in(regStatus), statusReady|statusERR)
	b.want("read", b.dma(false, false, 0, 8), statusReady)
	b.issue28(0xec, 0, 0)
	b.want("identify", b.altStatus(), statusBSY)
	if b.step() {
		t.Error("IDENTIFY DEVICE did not hang")
	}
}

func TestSlow(t *testing.T) {
	b := newBench(t)
	start := b.now
	b.dma(false, false, 50, 1)
	normal := b.now - start
	b.fault(Fault{ID: 1, Kind: FaultSlow, LBA: 50, Count: 1, ExtraNs: 7_000_000_000})
	start = b.now
	b.want("status", b.dma(false, false, 50, 1), statusReady)
	if got := b.now - start - normal; got != 7_000_000_000 {
		t.Errorf("%d ns longer", got)
	}
}

func TestWrongDataOnRead(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultWrong, LBA: 61, Count: 2, Offset: 510, Mask: []byte{0x80, 0x01}})
	b.want("status", b.dma(false, false, 60, 4), statusReady)
	want := bytes.Clone(b.sectors(60, 4))
	for _, s := range []int{1, 2} {
		want[s*512+510] ^= 0x80
		want[s*512+511] ^= 0x01
	}
	if !bytes.Equal(b.memory(0x10000, 2048), want) {
		t.Error("memory is not the disk with the mask applied")
	}
	if !bytes.Equal(b.read(60, 4), b.sectors(60, 4)) {
		t.Error("the disk changed")
	}
}

func TestWritesThatGoWrong(t *testing.T) {
	const lba, n = 200, 4
	for _, c := range []struct {
		name  string
		fault Fault
		want  func(b *bench, data []byte) (at int, want []byte)
	}{
		{"dropped", Fault{Kind: FaultDropped, LBA: lba + 1, Count: 2}, func(b *bench, data []byte) (int, []byte) {
			return lba, append(append(bytes.Clone(data[:512]), b.sectors(lba+1, 2)...), data[:512]...)
		}},
		{"torn at a sector", Fault{Kind: FaultTorn, LBA: lba, Count: 100, Bytes: 1024}, func(b *bench, data []byte) (int, []byte) {
			return lba, append(bytes.Clone(data[:1024]), b.sectors(lba+2, 2)...)
		}},
		{"torn in a sector", Fault{Kind: FaultTorn, LBA: lba, Count: 100, Bytes: 1000}, func(b *bench, data []byte) (int, []byte) {
			return lba, append(bytes.Clone(data[:1000]), b.sectors(lba, 4)[1000:]...)
		}},
		{"torn at once", Fault{Kind: FaultTorn, LBA: lba, Count: 100}, func(b *bench, data []byte) (int, []byte) {
			return lba, b.sectors(lba, 4)
		}},
		{"torn too late", Fault{Kind: FaultTorn, LBA: lba, Count: 100, Bytes: 2048}, func(b *bench, data []byte) (int, []byte) {
			return lba, data
		}},
		{"misdirected", Fault{Kind: FaultMisdirected, LBA: lba + 2, Count: 50, Target: 3000}, func(b *bench, data []byte) (int, []byte) {
			if !bytes.Equal(b.read(lba, 4), append(bytes.Clone(data[:1024]), b.sectors(lba+2, 2)...)) {
				b.t.Error("misdirected: the sectors that should have been written")
			}
			return 2999, append(append(bytes.Clone(b.sectors(2999, 1)), data[:1024]...), b.sectors(3002, 1)...)
		}},
		{"wrong", Fault{Kind: FaultWrong, Ops: OpWrite, LBA: lba + 3, Count: 1, Mask: []byte{0xff}}, func(b *bench, data []byte) (int, []byte) {
			want := bytes.Clone(data)
			want[3*512] ^= 0xff
			return lba, want
		}},
	} {
		b := newBench(t)
		c.fault.ID = 1
		b.fault(c.fault)
		data := b.fill(0x3c, n)
		b.want(c.name+": status", b.dma(true, true, lba, n), statusReady)
		at, want := c.want(b, data)
		if !bytes.Equal(b.read(at, len(want)/512), want) {
			t.Errorf("%s: the disk holds other data", c.name)
		}
		if !bytes.Equal(b.memory(0x10000, n*512), data) {
			t.Errorf("%s: memory changed", c.name)
		}
	}
}

func TestMisdirectedRead(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultMisdirected, Ops: OpRead, LBA: 31, Count: 1, Target: 2000})
	b.want("status", b.dma(false, false, 30, 3), statusReady)
	want := append(append(bytes.Clone(b.sectors(30, 1)), b.sectors(2000, 1)...), b.sectors(32, 1)...)
	if !bytes.Equal(b.memory(0x10000, 3*512), want) {
		t.Error("wrong data")
	}
}

func TestTornCountsFromTheCommandsFirstByteInPIOToo(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultTorn, LBA: 0, Count: benchSectors, Bytes: 700})
	p := bytes.Repeat([]byte{9}, 3*512)
	b.issue28(0x30, 40, 3)
	b.pioWrite(p)
	b.wait()
	if !bytes.Equal(b.read(40, 3), append(p[:700:700], b.sectors(40, 3)[700:]...)) {
		t.Error("wrong data")
	}
}

func TestFaultsThatCannotBe(t *testing.T) {
	ok := Fault{ID: 1, Kind: FaultUNC, Ops: OpRead, LBA: 0, Count: 1}
	for name, spoil := range map[string]func(*Fault){
		"kind":                 func(f *Fault) { f.Kind = 0 },
		"unknown kind":         func(f *Fault) { f.Kind = numFaultKinds },
		"no commands":          func(f *Fault) { f.Ops = 0 },
		"UNC of a flush":       func(f *Fault) { f.Ops = OpFlush },
		"dropped read":         func(f *Fault) { f.Kind = FaultDropped },
		"no sectors":           func(f *Fault) { f.Count = 0 },
		"beyond the end":       func(f *Fault) { f.LBA = benchSectors },
		"across the end":       func(f *Fault) { f.Count = benchSectors + 1 },
		"wraps around":         func(f *Fault) { f.LBA, f.Count = 5, ^uint64(0) },
		"no delay":             func(f *Fault) { f.Kind = FaultSlow },
		"endless delay":        func(f *Fault) { f.Kind, f.ExtraNs = FaultSlow, ^uint64(0) },
		"no mask":              func(f *Fault) { f.Kind = FaultWrong },
		"empty mask":           func(f *Fault) { f.Kind, f.Mask = FaultWrong, make([]byte, 3) },
		"mask across sectors":  func(f *Fault) { f.Kind, f.Mask, f.Offset = FaultWrong, []byte{1, 1}, 511 },
		"target beyond":        func(f *Fault) { f.Kind, f.Target = FaultMisdirected, benchSectors },
		"target across":        func(f *Fault) { f.Kind, f.Target, f.Count = FaultMisdirected, benchSectors-1, 2 },
		"mask offset far away": func(f *Fault) { f.Kind, f.Mask, f.Offset = FaultWrong, []byte{1}, 1<<31 },
	} {
		f := ok
		spoil(&f)
		if err := newBench(t).drive().AddFault(f); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	b := newBench(t)
	b.fault(ok)
	if err := b.drive().AddFault(ok); err == nil || !strings.Contains(err.Error(), "1") {
		t.Errorf("the same twice: %v", err)
	}
}

func TestKindNames(t *testing.T) {
	names := FaultKinds()
	if len(names) != int(numFaultKinds)-1 {
		t.Errorf("%d names", len(names))
	}
	for _, name := range names {
		k, ok := ParseFaultKind(name)
		if !ok || k.String() != name || k.DefaultOps() == 0 || k.DefaultOps()&^faultKinds[k].ops != 0 {
			t.Errorf("%q: %v, %v, %#x", name, k, ok, k.DefaultOps())
		}
	}
	if _, ok := ParseFaultKind("flood"); ok {
		t.Error("flood is a kind of disk fault")
	}
}

func TestFaultEveryNth(t *testing.T) {
	b := newBench(t)
	b.fault(Fault{ID: 1, Kind: FaultUNC, Ops: OpRead, LBA: 7, Count: 1, Every: 3})
	for i := 1; i <= 7; i++ {
		want := uint8(statusReady)
		if i%3 == 0 {
			want |= statusERR
		}
		b.want(fmt.Sprint("read ", i), b.dma(false, false, 7, 1), want)
	}
	b.want("another sector", b.dma(false, false, 8, 1), statusReady)
	if f := b.drive().Faults()[0]; f.Occasions != 7 || f.Hits != 2 {
		t.Errorf("%d occasions, %d hits", f.Occasions, f.Hits)
	}
}

func TestFaultByChance(t *testing.T) {
	hits := func(seed uint64) (s string) {
		b := newBench(t)
		b.fault(Fault{ID: 1, Kind: FaultUNC, Ops: OpRead, LBA: 7, Count: 1, Chance: 1 << 30, Random: seed})
		for range 40 {
			s += fmt.Sprint(b.dma(false, false, 7, 1) & statusERR)
		}
		return s
	}
	a := hits(1)
	if a != hits(1) || a == hits(2) {
		t.Error("the draws are not those of the seed")
	}
	if n := strings.Count(a, "1"); n < 3 || n > 18 {
		t.Errorf("%d of 40 with a chance of a quarter", n)
	}
}
