package ata

import (
	"fmt"

	"refault/vmm/dev"
	"refault/vmm/dev/disk"
)

// Bits of the Status register.
const (
	statusERR  = 1 << 0
	statusDRQ  = 1 << 3
	statusDSC  = 1 << 4
	statusDF   = 1 << 5
	statusDRDY = 1 << 6
	statusBSY  = 1 << 7

	statusReady = statusDRDY | statusDSC
)

// Bits of the Error register.
const (
	errorABRT = 1 << 2
	errorIDNF = 1 << 4
	errorUNC  = 1 << 6
	errorICRC = 1 << 7

	diagnosticPassed = 1
)

// Params are what distinguishes one drive from another. Zero values stand for the defaults.
type Params struct {
	Model    string // at most 40 characters
	Serial   string // at most 20
	Firmware string // at most 8

	CommandNs uint64 // latency of every command
	SectorNs  uint64 // additional latency of every sector that moves
	FlushNs   uint64 // additional latency of a flush
	ResetNs   uint64 // duration of a reset
}

func (p Params) withDefaults(serial string) Params {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	defNs := func(n *uint64, v uint64) {
		if *n == 0 {
			*n = v
		}
	}
	def(&p.Model, "Refault Virtual Disk")
	def(&p.Serial, serial)
	def(&p.Firmware, "1.0")
	defNs(&p.CommandNs, 50_000)
	defNs(&p.SectorNs, 1_000)
	defNs(&p.FlushNs, 500_000)
	defNs(&p.ResetNs, 2_000_000)
	return p
}

// phase is what a drive is doing.
type phase uint8

const (
	phaseIdle   phase = iota
	phaseReset        // SRST is held
	phaseBusy         // the timer is set: it ends the reset or moves the command on
	phasePIOIn        // DRQ: the guest reads the buffer
	phasePIOOut       // DRQ: the guest fills the buffer
	phaseDMA          // DRQ: waits for the bus master
	phaseHung         // BSY until reset
	numPhases
)

// power modes, with the value that CHECK POWER MODE returns.
const (
	powerStandby = 0x00
	powerActive  = 0xff
	powerSleep   = 0x01 // not reported: a sleeping drive answers nothing
)

// Registers is a drive's task file. Those that LBA48 commands use twice keep the
// value written before the current one.
type Registers struct {
	Features, Count, LBALow, LBAMid, LBAHigh [2]uint8 // current, previous
	Device, Error                            uint8
}

func (r *Registers) pair(reg int) *[2]uint8 {
	switch reg {
	case regError:
		return &r.Features
	case regCount:
		return &r.Count
	case regLBALow:
		return &r.LBALow
	case regLBAMid:
		return &r.LBAMid
	case regLBAHigh:
		return &r.LBAHigh
	}
	return nil
}

func (r *Registers) read(reg int, hob bool) uint8 {
	switch reg {
	case regError:
		return r.Error
	case regDevice:
		return r.Device
	}
	p := r.pair(reg)
	if hob {
		return p[1]
	}
	return p[0]
}

func (r *Registers) write(reg int, v uint8) {
	if reg == regDevice {
		r.Device = v
		return
	}
	p := r.pair(reg)
	p[1], p[0] = p[0], v
}

// Drive is one ATA disk drive.
type Drive struct {
	// Starting, if set, is called before a command that moves data starts, when nothing has changed yet.
	Starting func(ops Ops, lba, count uint64)
	// Wrote, if set, is called after sectors from lba on have reached the medium, which may be others, and
	// have another content, than the guest meant. It must not keep b.
	Wrote func(lba uint64, b []byte)

	ch     *channel
	unit   int
	name   string
	disk   *disk.Disk
	params Params
	timer  *dev.Timer
	ident  [identifyWords]uint16 // what does not change

	regs   Registers
	status uint8
	intrq  bool
	phase  phase

	// The command under way.
	op       uint8
	cmd      *command // the row of op, or noCommand
	resetEnd bool     // the timer ends a reset or a diagnostic
	lba      uint64   // the next sector to move between disk and buffer
	left     uint32   // sectors that have not moved yet
	moved    uint32   // sectors that have
	buf      []byte
	pos      int // what the guest or the bus master has taken from buf, or put into it
	plan     []Planned

	// Settings.
	multiple    uint8 // sectors a block of READ and WRITE MULTIPLE, 0 when disabled
	transfer    uint8 // transfer mode, as SET FEATURES sets it: UDMA or multiword DMA
	heads       uint8 // the current CHS translation
	spt         uint8
	cylinders   uint16
	writeCache  bool
	lookAhead   bool
	keepOnReset bool // SET FEATURES 66H: a software reset reverts nothing
	power       uint8

	faults []Fault
}

func newDrive(ch *channel, unit int, d *disk.Disk, p Params) *Drive {
	n := 2*ch.index + unit
	dr := &Drive{ch: ch, unit: unit, name: fmt.Sprintf("ata%d.%d", ch.index, unit), disk: d,
		params: p.withDefaults(fmt.Sprintf("RF%08d", n))}
	dr.timer = ch.c.queue.NewTimer(dr.name, dr.tick)
	dr.identity()
	dr.Reset()
	return dr
}

// Disk returns the drive's content.
func (d *Drive) Disk() *disk.Disk { return d.disk }

// Name implements dev.Device.
func (d *Drive) Name() string { return d.name }

// Reset implements dev.Device: power-on, after the diagnostics. Faults stay: they are the hardware's.
func (d *Drive) Reset() {
	d.timer.Stop()
	d.regs = Registers{}
	d.multiple, d.transfer = 0, transferUDMA|2
	d.writeCache, d.lookAhead, d.keepOnReset = true, true, false
	d.power = powerActive
	d.heads, d.spt, d.cylinders = d.defaultGeometry()
	d.signature()
	d.intrq = false
	d.ch.update()
}

// signature leaves what a reset or a diagnostic leaves in the registers (ATA8-ACS, 6.2... "ATA device").
func (d *Drive) signature() {
	d.drop()
	d.regs = Registers{Count: [2]uint8{1}, LBALow: [2]uint8{1}, Error: diagnosticPassed}
	d.status = statusReady
	d.phase = phaseIdle
}

// drop forgets the command under way.
func (d *Drive) drop() {
	d.op, d.cmd, d.resetEnd = 0, &noCommand, false
	d.lba, d.left, d.moved = 0, 0, 0
	d.buf, d.pos = nil, 0
	d.plan = nil
}

// holdReset is SRST set to one.
func (d *Drive) holdReset() {
	d.drop()
	d.timer.Stop()
	d.phase, d.status, d.intrq = phaseReset, statusBSY, false
}

// releaseReset is SRST set to zero: the reset ends some time later.
func (d *Drive) releaseReset() {
	d.phase, d.resetEnd = phaseBusy, true
	d.timer.Set(d.ch.c.queue.Now() + d.params.ResetNs)
}

// busy makes the drive go on after ns nanoseconds.
func (d *Drive) busy(ns uint64) {
	d.phase, d.status = phaseBusy, d.status&^statusDRQ|statusBSY
	d.timer.Set(d.ch.c.queue.Now() + ns)
}

// announce tells of a command that is about to start and moves data. Nothing has changed yet.
func (d *Drive) announce(op uint8) {
	c := &commands[op]
	if d.Starting == nil || d.status&statusBSY != 0 || d.power == powerSleep || !c.moves() {
		return
	}
	if lba, count, e := d.sectors(c); e == 0 {
		d.Starting(c.ops, lba, uint64(count))
	}
}

// start is a write to the Command register.
func (d *Drive) start(op uint8) {
	if d.status&statusBSY != 0 || d.power == powerSleep {
		return
	}
	d.drop()
	d.op = op
	d.intrq = false
	d.regs.Error = 0
	d.status = statusReady
	d.ch.update()
	if op == opExecuteDiagnostic {
		d.resetEnd = true
		d.busy(d.params.ResetNs)
		return
	}
	c := &commands[op]
	d.cmd = c
	ns := d.params.CommandNs
	if c.moves() {
		if e := d.address(c); e != 0 {
			// The command ends before any data moves.
			d.regs.Error, d.left = e, 0
			d.busy(ns)
			return
		}
		ns += uint64(d.left) * d.params.SectorNs
		switch {
		case c.kind == pioIn:
			ns = d.params.CommandNs + uint64(min(d.left, d.block()))*d.params.SectorNs
		case c.kind == pioOut:
			ns = readyNs // to the first block
		}
	}
	if c.ops&OpFlush != 0 {
		ns += d.params.FlushNs
	}
	d.planFaults(c)
	extra, hang := d.faultsAtStart()
	if hang {
		d.phase, d.status = phaseHung, statusBSY
		return
	}
	d.busy(ns + extra)
}

// readyNs is the time from a command to the request for its first block of data.
const readyNs = 500

// tick is the end of a reset, or the next point of the command under way.
func (d *Drive) tick() {
	d.ch.c.touched()
	if d.resetEnd {
		d.endReset()
		return
	}
	d.status &^= statusBSY
	switch c := d.cmd; {
	case d.regs.Error != 0 || d.status&statusDF != 0:
		d.finish()
	case c.run != nil:
		c.run(d)
	case c.kind == pioIn:
		d.pioInBlock()
	case c.kind == pioOut:
		d.pioOutBlock()
	case c.kind == dmaIn || c.kind == dmaOut:
		d.phase = phaseDMA
		d.status |= statusDRQ
		d.ch.transfer()
	default:
		d.abort()
	}
}

func (d *Drive) endReset() {
	diagnostic := d.op == opExecuteDiagnostic
	if !diagnostic && !d.keepOnReset {
		d.multiple, d.writeCache, d.lookAhead = 0, true, true
	}
	d.power = powerActive
	d.signature()
	if diagnostic && (d.unit == 0 || d.ch.drives[0] == nil) {
		d.ch.selected = d.unit
		d.intrq = true
	}
	d.ch.update()
}

// finish ends the command and asks for an interrupt. What went wrong, if
// anything did, is in the Error register and in the DF bit already.
func (d *Drive) finish() {
	d.status = d.status&statusDF | statusReady
	if d.regs.Error != 0 {
		d.status |= statusERR
	}
	d.drop()
	d.phase = phaseIdle
	d.intrq = true
	d.ch.update()
}

// abort ends the command as one that the drive does not support.
func (d *Drive) abort() {
	d.regs.Error = errorABRT
	d.finish()
}

// fail ends the command with an error at a sector, which the registers then name.
func (d *Drive) fail(e uint8, lba uint64) {
	d.setAddress(lba)
	d.regs.Error = e
	d.finish()
}

// hostFailed ends the command when the host cannot read the image: the machine
// stops for it (disk.Disk.Err), so what the guest sees is of no account.
func (d *Drive) hostFailed() {
	d.status |= statusDF
	d.abort()
}

// DriveState is the saved state of a Drive. The disk and the timer save themselves.
type DriveState struct {
	Version     uint8
	Registers   Registers
	Status      uint8
	Interrupt   bool
	Phase       uint8
	Op          uint8
	ResetEnd    bool
	LBA         uint64
	Left        uint32
	Moved       uint32
	Buffer      []byte
	Pos         int
	Plan        []Planned
	Multiple    uint8
	Transfer    uint8
	Heads       uint8
	Sectors     uint8
	Cylinders   uint16
	WriteCache  bool
	LookAhead   bool
	KeepOnReset bool
	Power       uint8
	Faults      []Fault
}

// Save implements dev.Device.
func (d *Drive) Save() any {
	s := &DriveState{
		Version: 1, Registers: d.regs, Status: d.status, Interrupt: d.intrq, Phase: uint8(d.phase),
		Op: d.op, ResetEnd: d.resetEnd, LBA: d.lba, Left: d.left, Moved: d.moved,
		Buffer: append([]byte(nil), d.buf...), Pos: d.pos,
		Multiple: d.multiple, Transfer: d.transfer, Heads: d.heads, Sectors: d.spt, Cylinders: d.cylinders,
		WriteCache: d.writeCache, LookAhead: d.lookAhead, KeepOnReset: d.keepOnReset, Power: d.power,
		Faults: d.Faults(),
	}
	for _, p := range d.plan {
		p.Fault = p.Fault.clone()
		s.Plan = append(s.Plan, p)
	}
	return s
}

// Restore implements dev.Device.
func (d *Drive) Restore(decode func(any) error) error {
	var s DriveState
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	if err := d.checkState(&s); err != nil {
		return err
	}
	d.regs, d.status, d.intrq, d.phase = s.Registers, s.Status, s.Interrupt, phase(s.Phase)
	d.cmd = &commands[s.Op]
	d.op, d.resetEnd, d.lba, d.left, d.moved = s.Op, s.ResetEnd, s.LBA, s.Left, s.Moved
	d.buf, d.pos, d.plan = s.Buffer, s.Pos, s.Plan
	d.multiple, d.transfer, d.heads, d.spt, d.cylinders = s.Multiple, s.Transfer, s.Heads, s.Sectors, s.Cylinders
	d.writeCache, d.lookAhead, d.keepOnReset, d.power = s.WriteCache, s.LookAhead, s.KeepOnReset, s.Power
	d.faults = s.Faults
	d.ch.level = d.ch.interrupt()
	return nil
}

// checkState tells what in a state from outside no drive can have come to. What
// passes cannot make a later operation panic.
func (d *Drive) checkState(s *DriveState) error {
	bad := func(what string) error { return fmt.Errorf("impossible state of a drive: %s", what) }
	c := &commands[s.Op]
	sectors := d.disk.Sectors()
	busy := s.Status&statusBSY != 0
	drq := s.Status&statusDRQ != 0
	switch p := phase(s.Phase); p {
	case phaseIdle:
		if busy || drq {
			return bad("idle, but the status says otherwise")
		}
	case phaseReset, phaseBusy, phaseHung:
		if !busy || drq {
			return bad("busy, but the status says otherwise")
		}
	case phasePIOIn:
		if busy || !drq || c.kind != pioIn || s.Pos >= len(s.Buffer) {
			return bad("PIO data-in")
		}
	case phasePIOOut:
		if busy || !drq || c.kind != pioOut || s.Pos >= len(s.Buffer) {
			return bad("PIO data-out")
		}
	case phaseDMA:
		if busy || !drq || !c.dma() {
			return bad("DMA")
		}
	default:
		return bad("phase")
	}
	n := len(s.Buffer)
	if s.Pos < 0 || s.Pos > n || n%disk.SectorSize != 0 || n > dmaSectorsMax*disk.SectorSize {
		return bad("buffer")
	}
	if uint64(s.LBA) > sectors || uint64(s.Left) > sectors-s.LBA {
		return bad("sectors beyond the end")
	}
	if c.ops&OpWrite != 0 && uint32(n/disk.SectorSize) > s.Left {
		return bad("more in the buffer than is to be written")
	}
	if m := s.Multiple; m > multipleMax || m&(m-1) != 0 {
		return bad("block size")
	}
	if s.Heads == 0 || s.Heads > headsMax || s.Sectors == 0 || s.Sectors > sptMax {
		return bad("geometry")
	}
	if !isDMAMode(s.Transfer) {
		return bad("transfer mode")
	}
	if len(s.Faults) > faultsMax || len(s.Plan) > faultsMax {
		return bad("too many faults")
	}
	for i := range s.Faults {
		if err := d.checkFault(&s.Faults[i]); err != nil {
			return err
		}
	}
	for i := range s.Plan {
		if err := d.checkFault(&s.Plan[i].Fault); err != nil {
			return err
		}
	}
	return nil
}
