package ata

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/disk"
	"refault/vmm/mem"
)

// bench is a controller with memory and a clock, driven at the level of its registers.
type bench struct {
	t     testing.TB
	now   uint64
	queue *dev.Queue
	ram   *mem.RAM
	c     *Controller
	irq   [2]bool
	edges [2]int
	img   disk.Bytes
}

const benchSectors = 4096

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, img: make(disk.Bytes, benchSectors*disk.SectorSize)}
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(b.img); i += 8 {
		binary.LittleEndian.PutUint64(b.img[i:], r.Uint64())
	}
	ram, err := mem.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ram.Close() })
	b.ram = ram
	b.queue = dev.NewQueue(func() uint64 { return b.now })
	line := func(i int) dev.Line {
		return dev.LineFunc(func(level bool) {
			if level && !b.irq[i] {
				b.edges[i]++
			}
			b.irq[i] = level
		})
	}
	b.c = New(Config{Queue: b.queue, Memory: ram, IRQ: [2]dev.Line{line(0), line(1)}})
	b.attach(0, 0, b.img)
	return b
}

func (b *bench) attach(channel, unit int, img disk.Image) *Drive {
	b.t.Helper()
	d, err := disk.New("disk0", img)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.c.Attach(channel, unit, d, Params{})
}

func (b *bench) drive() *Drive { return b.c.channels[0].drives[0] }

// Register access on the primary channel.

func (b *bench) out(reg uint16, v uint8) { b.c.CommandPorts(0).Out(reg, 1, uint32(v)) }
func (b *bench) in(reg uint16) uint8     { return uint8(b.c.CommandPorts(0).In(reg, 1)) }
func (b *bench) control(v uint8)         { b.c.ControlPorts(0).Out(0, 1, uint32(v)) }
func (b *bench) altStatus() uint8        { return uint8(b.c.ControlPorts(0).In(0, 1)) }
func (b *bench) bmOut(reg uint16, size int, v uint32) {
	p, off := b.c.pci.PortsAt(BusMasterPort + reg)
	p.Out(off, size, v)
}
func (b *bench) bmIn(reg uint16, size int) uint32 {
	p, off := b.c.pci.PortsAt(BusMasterPort + reg)
	return p.In(off, size)
}

// step lets time pass until the next timer.
func (b *bench) step() bool {
	if b.queue.Next() == dev.Never {
		return false
	}
	b.now = max(b.now, b.queue.Next())
	b.queue.Run()
	return true
}

// wait lets time pass until BSY is clear.
func (b *bench) wait() {
	b.t.Helper()
	for b.altStatus()&statusBSY != 0 {
		if !b.step() {
			b.t.Fatal("BSY is set and no timer is")
		}
	}
}

// issue28 and issue48 write a command with its parameters.
func (b *bench) issue28(op uint8, lba uint64, count uint8) {
	b.out(regDevice, 0xe0|uint8(lba>>24)&15)
	b.out(regCount, count)
	b.out(regLBALow, uint8(lba))
	b.out(regLBAMid, uint8(lba>>8))
	b.out(regLBAHigh, uint8(lba>>16))
	b.out(regStatus, op)
}

func (b *bench) issue48(op uint8, lba uint64, count uint16) {
	b.out(regDevice, 0xe0)
	b.out(regCount, uint8(count>>8))
	b.out(regLBALow, uint8(lba>>24))
	b.out(regLBAMid, uint8(lba>>32))
	b.out(regLBAHigh, uint8(lba>>40))
	b.out(regCount, uint8(count))
	b.out(regLBALow, uint8(lba))
	b.out(regLBAMid, uint8(lba>>8))
	b.out(regLBAHigh, uint8(lba>>16))
	b.out(regStatus, op)
}

// lba28 reads back the 28-bit address, but for its highest four bits.
func (b *bench) lba28() uint64 {
	return uint64(b.in(regLBALow)) | uint64(b.in(regLBAMid))<<8 | uint64(b.in(regLBAHigh))<<16
}

// lba48 reads back the 48-bit address.
func (b *bench) lba48() uint64 {
	low := b.lba28()
	b.control(controlHOB)
	defer b.control(0)
	return low | uint64(b.in(regLBALow))<<24 | uint64(b.in(regLBAMid))<<32 | uint64(b.in(regLBAHigh))<<40
}

// pioRead reads n bytes through the Data register, a block at a time.
func (b *bench) pioRead(n int) []byte {
	b.t.Helper()
	var got []byte
	for len(got) < n {
		b.wait()
		if s := b.in(regStatus); s&statusDRQ == 0 {
			b.t.Fatalf("status %#x after %d bytes", s, len(got))
		}
		for b.altStatus()&statusDRQ != 0 {
			got = binary.LittleEndian.AppendUint16(got, uint16(b.c.CommandPorts(0).In(regData, 2)))
		}
	}
	return got
}

func (b *bench) pioWrite(p []byte) {
	b.t.Helper()
	for len(p) > 0 {
		b.wait()
		if s := b.in(regStatus); s&statusDRQ == 0 {
			b.t.Fatalf("status %#x with %d bytes to go", s, len(p))
		}
		for b.altStatus()&statusDRQ != 0 && len(p) > 0 {
			b.c.CommandPorts(0).Out(regData, 2, uint32(binary.LittleEndian.Uint16(p)))
			p = p[2:]
		}
	}
}

type region struct {
	addr, size uint32
}

// prds writes a PRD table at 0x1000 and programs the bus master.
func (b *bench) prds(toHost bool, regions ...region) {
	b.t.Helper()
	var table []byte
	for i, r := range regions {
		size := r.size & 0xffff
		if i == len(regions)-1 {
			size |= prdLast
		}
		table = binary.LittleEndian.AppendUint32(table, r.addr)
		table = binary.LittleEndian.AppendUint32(table, size)
	}
	if !b.ram.WriteAt(table, 0x1000) {
		b.t.Fatal("no RAM for the PRD table")
	}
	b.bmOut(bmTable, 4, 0x1000)
	b.bmOut(bmStatus, 1, b.bmIn(bmStatus, 1)|bmError|bmIntr)
	v := uint32(0)
	if toHost {
		v = bmToHost
	}
	b.bmOut(bmCommand, 1, v)
}

func (b *bench) startDMA() { b.bmOut(bmCommand, 1, b.bmIn(bmCommand, 1)|bmStart) }
func (b *bench) stopDMA()  { b.bmOut(bmCommand, 1, b.bmIn(bmCommand, 1)&^bmStart) }

func (b *bench) memory(addr uint64, n int) []byte {
	b.t.Helper()
	p := make([]byte, n)
	if !b.ram.ReadAt(p, addr) {
		b.t.Fatalf("no RAM at %#x", addr)
	}
	return p
}

func (b *bench) sectors(lba, n int) []byte {
	return b.img[lba*disk.SectorSize : (lba+n)*disk.SectorSize]
}

func (b *bench) read(lba, n int) []byte {
	b.t.Helper()
	p := make([]byte, n*disk.SectorSize)
	if err := b.drive().disk.ReadSectors(p, uint64(lba)); err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bench) want(what string, got, want uint8) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s = %#02x, want %#02x", what, got, want)
	}
}

func TestIdentify(t *testing.T) {
	b := newBench(t)
	b.issue28(opIdentify, 0, 0)
	b.want("status at once", b.altStatus()&statusBSY, statusBSY)
	b.wait()
	if !b.irq[0] {
		t.Error("no interrupt with the data")
	}
	p := b.pioRead(512)
	b.want("status", b.in(regStatus), statusReady)
	if b.irq[0] {
		t.Error("reading Status did not acknowledge the interrupt")
	}
	word := func(i int) uint16 { return binary.LittleEndian.Uint16(p[2*i:]) }
	text := func(i, n int) string {
		var s []byte
		for ; n > 0; i, n = i+1, n-1 {
			s = append(s, uint8(word(i)>>8), uint8(word(i)))
		}
		return strings.TrimRight(string(s), " ")
	}
	if got := text(27, 20); got != "Refault Virtual Disk" {
		t.Errorf("model %q", got)
	}
	if got := text(10, 10); got != "RF00000000" {
		t.Errorf("serial %q", got)
	}
	if n := uint32(word(60)) | uint32(word(61))<<16; n != benchSectors {
		t.Errorf("%d sectors by LBA28", n)
	}
	if n := uint32(word(100)) | uint32(word(101))<<16; n != benchSectors {
		t.Errorf("%d sectors by LBA48", n)
	}
	if word(83)&(1<<10) == 0 || word(88)&0x3f != 0x3f || word(88)>>8 != 1<<2 || word(93)&(1<<13) == 0 {
		t.Errorf("LBA48, UDMA modes or cable missing: %#x %#x %#x", word(83), word(88), word(93))
	}
	sum := uint8(0)
	for _, v := range p {
		sum += v
	}
	if sum != 0 || p[510] != 0xa5 {
		t.Errorf("checksum %#x, signature %#x", sum, p[510])
	}
}

func TestIdentifyShowsSettings(t *testing.T) {
	b := newBench(t)
	features := func(sub, count uint8) uint8 {
		b.out(regError, sub)
		b.issue28(0xef, 0, count)
		b.wait()
		return b.in(regStatus)
	}
	b.want("write cache off", features(0x82, 0), statusReady)
	b.want("MWDMA2", features(0x03, 0x22), statusReady)
	b.want("PIO4", features(0x03, 0x0c), statusReady)
	b.want("UDMA6, which there is none", features(0x03, 0x46), statusReady|statusERR)
	b.want("error", b.in(regError), errorABRT)
	b.want("no such feature", features(0x99, 0), statusReady|statusERR)
	b.issue28(0xc6, 0, 8)
	b.wait()
	b.issue28(opIdentify, 0, 0)
	p := b.pioRead(512)
	word := func(i int) uint16 { return binary.LittleEndian.Uint16(p[2*i:]) }
	if word(85)&(1<<5) != 0 || word(63)>>8 != 1<<2 || word(88)>>8 != 0 || word(59) != 0x108 {
		t.Errorf("words 85, 63, 88, 59: %#x %#x %#x %#x", word(85), word(63), word(88), word(59))
	}
}

func TestPIORead(t *testing.T) {
	b := newBench(t)
	b.issue28(0x20, 100, 3)
	got := b.pioRead(3 * 512)
	if !bytes.Equal(got, b.sectors(100, 3)) {
		t.Error("wrong data")
	}
	if b.edges[0] != 3 {
		t.Errorf("%d interrupts for three blocks", b.edges[0])
	}
	b.want("status", b.in(regStatus), statusReady)

	// 32-bit and 8-bit data access, and a block of READ MULTIPLE.
	b.issue28(0xc6, 0, 4)
	b.wait()
	b.issue48(0x29, 200, 6)
	edges := b.edges[0]
	var data []byte
	for len(data) < 6*512 {
		b.wait()
		b.in(regStatus)
		for b.altStatus()&statusDRQ != 0 {
			if len(data)%512 < 256 {
				data = binary.LittleEndian.AppendUint32(data, b.c.CommandPorts(0).In(regData, 4))
			} else {
				data = append(data, b.in(regData))
			}
		}
	}
	if !bytes.Equal(data, b.sectors(200, 6)) {
		t.Error("READ MULTIPLE EXT: wrong data")
	}
	if n := b.edges[0] - edges; n != 2 {
		t.Errorf("READ MULTIPLE: %d interrupts for blocks of 4 and 2", n)
	}
}

func TestPIOWrite(t *testing.T) {
	b := newBench(t)
	p := bytes.Repeat([]byte("refault "), 3*64)
	b.issue28(0x30, 50, 3)
	b.pioWrite(p)
	b.wait()
	b.want("status", b.in(regStatus), statusReady)
	if b.edges[0] != 3 {
		t.Errorf("%d interrupts, want two for blocks and one for the end", b.edges[0])
	}
	if !bytes.Equal(b.read(50, 3), p) || !bytes.Equal(b.read(49, 1), b.sectors(49, 1)) || !bytes.Equal(b.read(53, 1), b.sectors(53, 1)) {
		t.Error("the disk does not hold what was written, or more")
	}
}

func TestDMARead(t *testing.T) {
	b := newBench(t)
	// Regions that cross pages and are no multiple of a sector.
	b.prds(true, region{0x10ff0, 0x320}, region{0x20000, 0xe0}, region{0x2fe00, 0x400})
	b.issue28(0xc8, 7, 4)
	b.startDMA()
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmActive)
	b.wait()
	if !b.irq[0] {
		t.Fatal("no interrupt")
	}
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmIntr)
	b.want("status", b.in(regStatus), statusReady)
	b.stopDMA()
	got := append(b.memory(0x10ff0, 0x320), b.memory(0x20000, 0xe0)...)
	got = append(got, b.memory(0x2fe00, 0x400)...)
	if !bytes.Equal(got, b.sectors(7, 4)) {
		t.Error("wrong data")
	}
}

func TestDMALargeLBA48(t *testing.T) {
	b := newBench(t)
	// 64 KiB is coded as zero.
	var rs []region
	for i := range uint32(8) {
		rs = append(rs, region{0x10000 + i<<16, 0x10000})
	}
	b.prds(true, rs...)
	b.issue48(0x25, 1000, 1024)
	b.startDMA()
	b.wait()
	b.want("status", b.in(regStatus), statusReady)
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmIntr)
	if !bytes.Equal(b.memory(0x10000, 1024*512), b.sectors(1000, 1024)) {
		t.Error("wrong data")
	}
	// And back, elsewhere.
	b.prds(false, rs...)
	b.issue48(0x35, 3000, 1024)
	b.startDMA()
	b.wait()
	b.want("status", b.in(regStatus), statusReady)
	if !bytes.Equal(b.read(3000, 1024), b.sectors(1000, 1024)) {
		t.Error("wrong data on the disk")
	}
}

func TestDMACountZeroIs65536Sectors(t *testing.T) {
	b := newBench(t)
	b.issue48(0x25, 0, 0)
	b.wait()
	b.want("status", b.in(regStatus), statusReady|statusERR)
	b.want("error", b.in(regError), errorIDNF)
}

func TestDMATableLongerThanTheCommand(t *testing.T) {
	b := newBench(t)
	b.prds(true, region{0x10000, 0x1000})
	b.issue28(0xc8, 0, 2)
	b.startDMA()
	b.wait()
	// Interrupt and still active: the drive was content with less (SFF-8038i, 3.1).
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmIntr|bmActive)
	b.stopDMA()
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmIntr)
}

func TestDMATableShorterThanTheCommand(t *testing.T) {
	b := newBench(t)
	b.prds(true, region{0x10000, 0x300})
	b.issue28(0xc8, 0, 2)
	b.startDMA()
	for b.step() {
	}
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), 0)
	b.want("status", b.altStatus(), statusReady|statusDRQ)
	if b.irq[0] {
		t.Error("an interrupt for a transfer that is not over")
	}
	// The drive goes on where it was.
	b.stopDMA()
	b.prds(true, region{0x20000, 0x100})
	b.startDMA()
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmIntr)
	if got := append(b.memory(0x10000, 0x300), b.memory(0x20000, 0x100)...); !bytes.Equal(got, b.sectors(0, 2)) {
		t.Error("wrong data")
	}
}

func TestDMAStartedLate(t *testing.T) {
	b := newBench(t)
	b.prds(false, region{0x10000, 0x200})
	b.ram.WriteAt(bytes.Repeat([]byte{0x5a}, 512), 0x10000)
	b.issue28(0xca, 9, 1)
	for b.step() {
	}
	b.want("status", b.altStatus(), statusReady|statusDRQ)
	b.startDMA()
	b.want("bus master", uint8(b.bmIn(bmStatus, 1)), bmIntr)
	if !bytes.Equal(b.read(9, 1), b.memory(0x10000, 512)) {
		t.Error("wrong data")
	}
}

func TestDMAInTheWrongDirectionOrWithoutMasteringWaits(t *testing.T) {
	b := newBench(t)
	b.prds(false, region{0x10000, 0x200})
	b.issue28(0xc8, 0, 1)
	b.startDMA()
	for b.step() {
	}
	b.want("status", b.altStatus(), statusReady|statusDRQ)
	b.control(controlSRST)
	b.control(0)
	b.wait()
	b.stopDMA()

	b.c.pci.SetInitialCommand(1)
	b.prds(true, region{0x10000, 0x200})
	b.issue28(0xc8, 0, 1)
	b.startDMA()
	for b.step() {
	}
	b.want("status without mastering", b.altStatus(), statusReady|statusDRQ)
	b.c.pci.SetInitialCommand(5)
	b.c.pci.OnWrite(4, 2)
	b.want("status", b.in(regStatus), statusReady)
}

func TestDMAOutsideRAM(t *testing.T) {
	for name, rs := range map[string][]region{
		"region":    {{0xfee00000, 0x200}},
		"half":      {{1<<20 - 0x100, 0x200}},
		"wraps":     {{0xffffff00, 0x200}},
		"VGA":       {{0xa0000, 0x200}},
		"all of it": {{0x10000, 0x200}, {0x80000000, 0x200}},
	} {
		b := newBench(t)
		b.prds(true, rs...)
		b.issue28(0xc8, 0, 2)
		b.startDMA()
		for b.step() {
		}
		b.want(name+": bus master", uint8(b.bmIn(bmStatus, 1)), bmError)
		if b.irq[0] {
			t.Errorf("%s: interrupt", name)
		}
	}
	b := newBench(t)
	b.bmOut(bmTable, 4, 0x7ffffff0)
	b.bmOut(bmCommand, 1, bmToHost)
	b.issue28(0xc8, 0, 2)
	b.startDMA()
	for b.step() {
	}
	b.want("table: bus master", uint8(b.bmIn(bmStatus, 1)), bmError)
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		name    string
		op      uint8
		lba     uint64
		count   uint16
		err     uint8
		is48bit bool
	}{
		{"last", 0x20, benchSectors - 1, 1, 0, false},
		{"behind the last", 0x20, benchSectors, 1, errorIDNF, false},
		{"across the end", 0x20, benchSectors - 1, 2, errorIDNF, false},
		{"256 sectors", 0x20, benchSectors - 255, 0, errorIDNF, false},
		{"48-bit last", 0x24, benchSectors - 1, 1, 0, true},
		{"48-bit far", 0x24, 1 << 47, 1, errorIDNF, true},
		{"verify last", 0x40, benchSectors - 1, 1, 0, false},
		{"verify behind", 0x42, benchSectors, 1, errorIDNF, true},
		{"multiple not set", 0xc4, 0, 1, errorABRT, false},
	} {
		b := newBench(t)
		if c.is48bit {
			b.issue48(c.op, c.lba, c.count)
		} else {
			b.issue28(c.op, c.lba, uint8(c.count))
		}
		b.wait()
		b.want(c.name+": error", b.in(regError), c.err)
		if got := b.in(regStatus)&statusERR != 0; got != (c.err != 0) {
			t.Errorf("%s: ERR %v", c.name, got)
		}
	}
}

func TestCHS(t *testing.T) {
	b := newBench(t)
	read := func(cyl uint16, head, sector uint8) []byte {
		b.out(regDevice, 0xa0|head)
		b.out(regCount, 1)
		b.out(regLBALow, sector)
		b.out(regLBAMid, uint8(cyl))
		b.out(regLBAHigh, uint8(cyl>>8))
		b.out(regStatus, 0x20)
		b.wait()
		if b.altStatus()&statusERR != 0 {
			return nil
		}
		return b.pioRead(512)
	}
	if !bytes.Equal(read(1, 2, 3), b.sectors((1*16+2)*63+2, 1)) {
		t.Error("default translation")
	}
	if read(0, 0, 0) != nil || read(0, 0, 64) != nil || read(60000, 0, 1) != nil {
		t.Error("an address that there is not was read")
	}
	// INITIALIZE DEVICE PARAMETERS: 4 heads, 17 sectors.
	b.out(regDevice, 0xa3)
	b.out(regCount, 17)
	b.out(regStatus, 0x91)
	b.wait()
	if !bytes.Equal(read(5, 3, 17), b.sectors((5*4+3)*17+16, 1)) {
		t.Error("the translation that was set")
	}
	if read(0, 4, 1) != nil {
		t.Error("head 4 of 4 was read")
	}
	b.out(regCount, 0)
	b.out(regStatus, 0x91)
	b.wait()
	b.want("no sectors a track", b.in(regError), errorABRT)
}

func TestCommandsThatMoveNothing(t *testing.T) {
	b := newBench(t)
	for _, op := range []uint8{0xe7, 0xea, 0x70, 0x10, 0xe1, 0x41} {
		b.issue28(op, 0, 1)
		if b.irq[0] {
			t.Errorf("command %#x: interrupt at once", op)
		}
		b.wait()
		if !b.irq[0] {
			t.Errorf("command %#x: no interrupt", op)
		}
		b.want("status", b.in(regStatus), statusReady)
	}
	b.issue28(0xe5, 0, 0)
	b.wait()
	b.want("power mode", b.in(regCount), powerActive)
	b.issue28(0xe0, 0, 0)
	b.wait()
	b.issue28(0xe5, 0, 7)
	b.wait()
	b.want("power mode", b.in(regCount), powerStandby)
	b.issue28(0xf8, 0, 0)
	b.wait()
	if got := b.lba28(); got != benchSectors-1 {
		t.Errorf("READ NATIVE MAX ADDRESS: %d", got)
	}
	b.issue48(0x27, 0, 0)
	b.wait()
	if got := b.lba48(); got != benchSectors-1 {
		t.Errorf("READ NATIVE MAX ADDRESS EXT: %d", got)
	}
	for _, op := range []uint8{0x00, 0x08, 0xa0, 0xa1, 0xb0, 0xf1, 0xff} {
		b.issue28(op, 0, 0)
		b.wait()
		b.want("status", b.in(regStatus), statusReady|statusERR)
		b.want("error", b.in(regError), errorABRT)
	}
	// SLEEP ends with a reset only.
	b.issue28(0xe6, 0, 0)
	b.wait()
	edges := b.edges[0]
	b.issue28(0xec, 0, 0)
	for b.step() {
	}
	if b.edges[0] != edges {
		t.Error("a sleeping drive answered")
	}
	b.control(controlSRST)
	b.control(0)
	b.wait()
	b.issue28(0xec, 0, 0)
	b.pioRead(512)
}

func TestInterruptDisabled(t *testing.T) {
	b := newBench(t)
	b.control(controlNIEN)
	b.issue28(0xe7, 0, 0)
	b.wait()
	if b.irq[0] || b.bmIn(bmStatus, 1) != 0 {
		t.Error("interrupt in spite of nIEN")
	}
	b.control(0)
	if !b.irq[0] {
		t.Error("a pending interrupt did not come when it was allowed")
	}
}

func TestAbsentDrives(t *testing.T) {
	b := newBench(t)
	// Slave of a master: registers are the master's, the status is zero.
	b.out(regDevice, 0xb0)
	b.want("slave's status", b.in(regStatus), 0)
	b.want("slave's alternate status", b.altStatus(), 0)
	b.out(regCount, 0x55)
	b.want("slave's count", b.in(regCount), 0x55)
	b.out(regStatus, opIdentify)
	if b.step() || b.irq[0] {
		t.Error("a command to an absent drive does something")
	}
	// Nothing at all.
	p := b.c.CommandPorts(1)
	p.Out(regCount, 1, 0x55)
	b.want("empty channel's count", uint8(p.In(regCount, 1)), floating)
	b.want("empty channel's status", uint8(p.In(regStatus, 1)), floating)
	b.want("empty channel's alternate status", uint8(b.c.ControlPorts(1).In(0, 1)), floating)
	p.Out(regStatus, 1, opIdentify)
	p.Out(regStatus, 1, opExecuteDiagnostic)
	p.Out(regData, 2, 1)
	p.In(regData, 2)
}

func TestMasterAndSlave(t *testing.T) {
	b := newBench(t)
	b.attach(0, 1, make(disk.Bytes, 100*512))
	b.issue28(0xf8, 0, 0)
	b.out(regDevice, 0xf0)
	b.want("slave while the master is busy", b.in(regStatus), statusReady)
	b.out(regStatus, 0xf8)
	for b.step() {
	}
	if got := b.lba28(); got != 99 {
		t.Errorf("slave: last sector %d", got)
	}
	b.in(regStatus)
	if b.irq[0] {
		t.Error("interrupt of the slave not acknowledged")
	}
	b.out(regDevice, 0xe0)
	if !b.irq[0] {
		t.Error("the master's interrupt is not seen when the master is selected")
	}
	if got := b.lba28(); got != benchSectors-1 {
		t.Errorf("master: last sector %d", got)
	}
	b.out(regDevice, 0xf0)
	b.out(regStatus, opExecuteDiagnostic)
	b.wait()
	b.want("diagnostic", b.in(regError), diagnosticPassed)
	b.want("device after the diagnostic", b.in(regDevice), 0)
	b.want("slave's IDENTIFY", func() uint8 {
		b.out(regDevice, 0xb0)
		b.out(regStatus, opIdentify)
		p := b.pioRead(512)
		return p[100*2]
	}(), 100)
}

func TestSoftwareResetWhileBusy(t *testing.T) {
	b := newBench(t)
	b.prds(true, region{0x10000, 0x200})
	b.issue28(0xc8, 5, 1)
	b.startDMA()
	b.control(controlSRST)
	b.want("status in reset", b.altStatus(), statusBSY)
	if b.queue.Next() != dev.Never {
		t.Error("the command's timer runs on")
	}
	b.control(0)
	b.want("status after reset", b.altStatus(), statusBSY)
	b.wait()
	b.want("status", b.in(regStatus), statusReady)
	b.want("error", b.in(regError), diagnosticPassed)
	b.want("count", b.in(regCount), 1)
	b.want("LBA low", b.in(regLBALow), 1)
	b.want("LBA mid", b.in(regLBAMid), 0)
	if b.edges[0] != 0 {
		t.Error("a reset interrupts")
	}
	if !bytes.Equal(b.memory(0x10000, 512), make([]byte, 512)) {
		t.Error("the aborted command moved data")
	}
	b.stopDMA()
}

func TestCommandWhileBusyIsIgnored(t *testing.T) {
	b := newBench(t)
	b.issue28(0xf8, 0, 0)
	b.issue28(0x20, 77, 9)
	for b.step() {
	}
	if got := b.lba28(); got != benchSectors-1 || b.altStatus() != statusReady {
		t.Errorf("last sector %d, status %#x", got, b.altStatus())
	}
}

func TestLatencyIsAFunctionOfTheCommand(t *testing.T) {
	b := newBench(t)
	p := b.drive().params
	for _, c := range []struct {
		op    uint8
		count uint8
		ns    uint64
	}{
		{0x20, 4, p.CommandNs + p.SectorNs}, // to the first block
		{0x40, 4, p.CommandNs + 4*p.SectorNs},
		{0xc8, 4, p.CommandNs + 4*p.SectorNs},
		{0xe7, 0, p.CommandNs + p.FlushNs},
		{0xec, 0, p.CommandNs},
		{0x30, 1, readyNs},
	} {
		b.control(controlSRST)
		b.control(0)
		b.wait()
		start := b.now
		b.issue28(c.op, 0, c.count)
		b.wait()
		if got := b.now - start; got != c.ns {
			t.Errorf("command %#x: %d ns, want %d", c.op, got, c.ns)
		}
	}
}
