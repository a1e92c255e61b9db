package ata

// kind is how a command moves data.
type kind uint8

const (
	noData kind = iota
	pioIn
	pioOut
	dmaIn
	dmaOut
)

// command describes one command of the set.
type command struct {
	name string
	kind kind
	ext  bool // 48-bit address and 16-bit count
	many bool // moves blocks of the SET MULTIPLE MODE size
	// ops says which faults can hit the command. OpRead and OpWrite also say
	// that the registers address sectors.
	ops Ops
	// run completes a command that moves no sectors; nil for those that do.
	run func(*Drive)
}

func (c *command) moves() bool { return c.ops&(OpRead|OpWrite) != 0 }

func (c *command) dma() bool { return c.kind == dmaIn || c.kind == dmaOut }

const (
	opExecuteDiagnostic = 0x90
	opIdentify          = 0xec
)

// noCommand is what an idle drive executes.
var noCommand command

// commands is the command set (ATA8-ACS, 7; the forms without retries and the power
// commands' old codes come from ATA-3). What has no row is aborted, and
// IDENTIFY DEVICE claims none of it.
var commands = [256]command{
	0x20: {name: "READ SECTOR(S)", kind: pioIn, ops: OpRead},
	0x21: {name: "READ SECTOR(S)", kind: pioIn, ops: OpRead},
	0x24: {name: "READ SECTOR(S) EXT", kind: pioIn, ext: true, ops: OpRead},
	0x25: {name: "READ DMA EXT", kind: dmaIn, ext: true, ops: OpRead},
	0x27: {name: "READ NATIVE MAX ADDRESS EXT", ext: true, ops: OpOther, run: (*Drive).readNativeMax},
	0x29: {name: "READ MULTIPLE EXT", kind: pioIn, ext: true, many: true, ops: OpRead},
	0x30: {name: "WRITE SECTOR(S)", kind: pioOut, ops: OpWrite},
	0x31: {name: "WRITE SECTOR(S)", kind: pioOut, ops: OpWrite},
	0x34: {name: "WRITE SECTOR(S) EXT", kind: pioOut, ext: true, ops: OpWrite},
	0x35: {name: "WRITE DMA EXT", kind: dmaOut, ext: true, ops: OpWrite},
	0x39: {name: "WRITE MULTIPLE EXT", kind: pioOut, ext: true, many: true, ops: OpWrite},
	0x3d: {name: "WRITE DMA FUA EXT", kind: dmaOut, ext: true, ops: OpWrite},
	0x40: {name: "READ VERIFY SECTOR(S)", ops: OpRead, run: (*Drive).verify},
	0x41: {name: "READ VERIFY SECTOR(S)", ops: OpRead, run: (*Drive).verify},
	0x42: {name: "READ VERIFY SECTOR(S) EXT", ext: true, ops: OpRead, run: (*Drive).verify},
	0x70: {name: "SEEK", ops: OpOther, run: (*Drive).finish},
	0x91: {name: "INITIALIZE DEVICE PARAMETERS", ops: OpOther, run: (*Drive).initializeParameters},
	0x94: {name: "STANDBY IMMEDIATE", ops: OpOther, run: (*Drive).standby},
	0x95: {name: "IDLE IMMEDIATE", ops: OpOther, run: (*Drive).idle},
	0x96: {name: "STANDBY", ops: OpOther, run: (*Drive).standby},
	0x97: {name: "IDLE", ops: OpOther, run: (*Drive).idle},
	0x98: {name: "CHECK POWER MODE", ops: OpOther, run: (*Drive).checkPower},
	0x99: {name: "SLEEP", ops: OpOther, run: (*Drive).sleep},
	0xc4: {name: "READ MULTIPLE", kind: pioIn, many: true, ops: OpRead},
	0xc5: {name: "WRITE MULTIPLE", kind: pioOut, many: true, ops: OpWrite},
	0xc6: {name: "SET MULTIPLE MODE", ops: OpOther, run: (*Drive).setMultiple},
	0xc8: {name: "READ DMA", kind: dmaIn, ops: OpRead},
	0xc9: {name: "READ DMA", kind: dmaIn, ops: OpRead},
	0xca: {name: "WRITE DMA", kind: dmaOut, ops: OpWrite},
	0xcb: {name: "WRITE DMA", kind: dmaOut, ops: OpWrite},
	0xce: {name: "WRITE MULTIPLE FUA EXT", kind: pioOut, ext: true, many: true, ops: OpWrite},
	0xe0: {name: "STANDBY IMMEDIATE", ops: OpOther, run: (*Drive).standby},
	0xe1: {name: "IDLE IMMEDIATE", ops: OpOther, run: (*Drive).idle},
	0xe2: {name: "STANDBY", ops: OpOther, run: (*Drive).standby},
	0xe3: {name: "IDLE", ops: OpOther, run: (*Drive).idle},
	0xe5: {name: "CHECK POWER MODE", ops: OpOther, run: (*Drive).checkPower},
	0xe6: {name: "SLEEP", ops: OpOther, run: (*Drive).sleep},
	0xe7: {name: "FLUSH CACHE", ops: OpFlush, run: (*Drive).finish},
	0xea: {name: "FLUSH CACHE EXT", ops: OpFlush, run: (*Drive).finish},
	0xec: {name: "IDENTIFY DEVICE", kind: pioIn, ops: OpOther, run: (*Drive).identify},
	0xef: {name: "SET FEATURES", ops: OpOther, run: (*Drive).setFeatures},
	0xf8: {name: "READ NATIVE MAX ADDRESS", ops: OpOther, run: (*Drive).readNativeMax},

	// RECALIBRATE: old kernels send it after an error.
	0x10: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x11: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x12: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x13: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x14: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x15: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x16: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x17: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x18: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x19: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x1a: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x1b: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x1c: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x1d: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x1e: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
	0x1f: {name: "RECALIBRATE", ops: OpOther, run: (*Drive).finish},
}

// Geometry limits of CHS addressing.
const (
	headsMax     = 16
	sptMax       = 63
	cylindersMax = 16383
)

// defaultGeometry returns the CHS translation that the drive reports.
func (d *Drive) defaultGeometry() (heads, spt uint8, cylinders uint16) {
	n := d.disk.Sectors() / (headsMax * sptMax)
	return headsMax, sptMax, uint16(min(max(n, 1), cylindersMax))
}

// address takes the range of sectors that the registers name into lba and left. It
// returns the error when there is no such range on the drive.
func (d *Drive) address(c *command) uint8 {
	lba, count, e := d.sectors(c)
	if e == 0 {
		d.lba, d.left = lba, count
	}
	return e
}

// sectors returns the range of sectors that the registers name, or the error when there is none.
func (d *Drive) sectors(c *command) (lba uint64, count uint32, e uint8) {
	r := &d.regs
	switch {
	case c.many && d.multiple == 0:
		return 0, 0, errorABRT
	case c.ext:
		lba = uint64(r.LBALow[0]) | uint64(r.LBAMid[0])<<8 | uint64(r.LBAHigh[0])<<16 |
			uint64(r.LBALow[1])<<24 | uint64(r.LBAMid[1])<<32 | uint64(r.LBAHigh[1])<<40
		count = uint32(r.Count[0]) | uint32(r.Count[1])<<8
		if count == 0 {
			count = 1 << 16
		}
		if r.Device&deviceLBA == 0 {
			return 0, 0, errorABRT
		}
	default:
		count = uint32(r.Count[0])
		if count == 0 {
			count = 1 << 8
		}
		if r.Device&deviceLBA != 0 {
			lba = uint64(r.LBALow[0]) | uint64(r.LBAMid[0])<<8 | uint64(r.LBAHigh[0])<<16 | uint64(r.Device&15)<<24
			break
		}
		cylinder, head, sector := uint16(r.LBAMid[0])|uint16(r.LBAHigh[0])<<8, r.Device&15, r.LBALow[0]
		if cylinder >= d.cylinders || head >= d.heads || sector == 0 || sector > d.spt {
			return 0, 0, errorIDNF
		}
		lba = (uint64(cylinder)*uint64(d.heads)+uint64(head))*uint64(d.spt) + uint64(sector) - 1
	}
	if n := d.disk.Sectors(); lba >= n || uint64(count) > n-lba {
		return 0, 0, errorIDNF
	}
	return lba, count, 0
}

// setAddress puts a sector's address into the registers, in the form that the command used.
func (d *Drive) setAddress(lba uint64) {
	r := &d.regs
	switch {
	case d.cmd.ext:
		r.LBALow[1], r.LBAMid[1], r.LBAHigh[1] = uint8(lba>>24), uint8(lba>>32), uint8(lba>>40)
	case r.Device&deviceLBA != 0:
		r.Device = r.Device&^15 | uint8(lba>>24)&15
	default:
		track := lba / uint64(d.spt)
		sector := lba%uint64(d.spt) + 1
		cylinder := track / uint64(d.heads)
		r.Device = r.Device&^15 | uint8(track%uint64(d.heads))
		r.LBALow[0], r.LBAMid[0], r.LBAHigh[0] = uint8(sector), uint8(cylinder), uint8(cylinder>>8)
		return
	}
	r.LBALow[0], r.LBAMid[0], r.LBAHigh[0] = uint8(lba), uint8(lba>>8), uint8(lba>>16)
}

func (d *Drive) verify() {
	if at, e := d.firstError(d.lba, d.left); e != 0 {
		d.fail(e, at)
		return
	}
	d.finish()
}

func (d *Drive) readNativeMax() {
	last := d.disk.Sectors() - 1
	if !d.cmd.ext {
		last = min(last, lba28Max-1)
	}
	d.regs.Device |= deviceLBA
	d.setAddress(last)
	d.finish()
}

func (d *Drive) initializeParameters() {
	heads, spt := d.regs.Device&15+1, d.regs.Count[0]
	if spt == 0 || spt > sptMax {
		d.abort()
		return
	}
	n := min(d.disk.Sectors(), cylindersMax*headsMax*sptMax) / (uint64(heads) * uint64(spt))
	d.heads, d.spt, d.cylinders = heads, spt, uint16(min(n, 65535))
	d.finish()
}

func (d *Drive) setMultiple() {
	n := d.regs.Count[0]
	if n > multipleMax || n&(n-1) != 0 {
		d.multiple = 0
		d.abort()
		return
	}
	d.multiple = n
	d.finish()
}

func (d *Drive) standby() {
	d.power = powerStandby
	d.finish()
}

func (d *Drive) idle() {
	d.power = powerActive
	d.finish()
}

func (d *Drive) checkPower() {
	d.regs.Count[0] = d.power
	d.finish()
}

func (d *Drive) sleep() {
	d.finish()
	d.power = powerSleep
}

// Transfer modes, as SET FEATURES and IDENTIFY DEVICE have them.
const (
	transferPIODefault = 0x00
	transferPIO        = 0x08
	transferMultiword  = 0x20
	transferUDMA       = 0x40

	pioModeMax       = 4
	multiwordModeMax = 2
	udmaModeMax      = 5
)

// setFeatures is SET FEATURES: the subcommands that IDENTIFY DEVICE claims.
func (d *Drive) setFeatures() {
	ok := true
	switch d.regs.Features[0] {
	case 0x02:
		d.writeCache = true
	case 0x82:
		d.writeCache = false
	case 0x55:
		d.lookAhead = false
	case 0xaa:
		d.lookAhead = true
	case 0x66:
		d.keepOnReset = true
	case 0xcc:
		d.keepOnReset = false
	case 0x03:
		ok = d.setTransfer(d.regs.Count[0])
	default:
		ok = false
	}
	if !ok {
		d.abort()
		return
	}
	d.finish()
}

// setTransfer selects a transfer mode. PIO and DMA modes are selected apart; PIO
// needs no note, since nothing that the guest can see depends on it.
func (d *Drive) setTransfer(mode uint8) bool {
	n := mode & 7
	switch mode &^ 7 {
	case transferPIODefault:
		return n <= 1
	case transferPIO:
		return n <= pioModeMax
	}
	if !isDMAMode(mode) {
		return false
	}
	d.transfer = mode
	return true
}

// isDMAMode tells whether mode is a DMA mode that the drive has.
func isDMAMode(mode uint8) bool {
	switch n := mode & 7; mode &^ 7 {
	case transferMultiword:
		return n <= multiwordModeMax
	case transferUDMA:
		return n <= udmaModeMax
	}
	return false
}
