package ata

import (
	"encoding/binary"

	"refault/vmm/dev/disk"
)

const (
	// multipleMax is the largest block, in sectors, of READ and WRITE MULTIPLE.
	multipleMax = 16
	// dmaSectorsMax bounds the buffer between disk and memory.
	dmaSectorsMax = 128
)

// writes tells whether the command under way moves data to the drive.
func (d *Drive) writes() bool { return d.cmd.ops&OpWrite != 0 }

// block returns the number of sectors in a PIO block of the command under way.
func (d *Drive) block() uint32 {
	if d.cmd.many {
		return max(uint32(d.multiple), 1)
	}
	return 1
}

// present gives the guest a PIO block to read.
func (d *Drive) present(b []byte) {
	d.buf, d.pos = b, 0
	d.phase = phasePIOIn
	d.status |= statusDRQ
	d.intrq = true
	d.ch.update()
}

// pioInBlock reads the next block from the disk.
func (d *Drive) pioInBlock() {
	n := min(d.left, d.block())
	if at, e := d.firstError(d.lba, n); e != 0 {
		d.fail(e, at)
		return
	}
	b := make([]byte, n*disk.SectorSize)
	if d.load(b) {
		d.present(b)
	}
}

// pioOutBlock takes the block that the guest has filled, if it has, and asks for the next.
func (d *Drive) pioOutBlock() {
	first := d.buf == nil
	if !first && !d.store() {
		return
	}
	if d.left == 0 {
		d.finish()
		return
	}
	d.buf, d.pos = make([]byte, min(d.left, d.block())*disk.SectorSize), 0
	d.phase = phasePIOOut
	d.status |= statusDRQ
	if !first {
		d.intrq = true
		d.ch.update()
	}
}

// readData is a read of the Data register.
func (d *Drive) readData(size int) uint32 {
	if d.phase != phasePIOIn {
		return ones(size)
	}
	var v [4]byte
	d.pos += copy(v[:size], d.buf[d.pos:])
	if d.pos == len(d.buf) {
		d.buf, d.pos = nil, 0
		d.status &^= statusDRQ
		if d.left > 0 {
			d.busy(uint64(min(d.left, d.block())) * d.params.SectorNs)
		} else {
			d.drop()
			d.phase = phaseIdle
		}
	}
	return binary.LittleEndian.Uint32(v[:])
}

// writeData is a write to the Data register.
func (d *Drive) writeData(size int, v uint32) {
	if d.phase != phasePIOOut {
		return
	}
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	d.pos += copy(d.buf[d.pos:], b[:size])
	if d.pos == len(d.buf) {
		d.busy(uint64(len(d.buf)/disk.SectorSize) * d.params.SectorNs)
	}
}

// dmaWindow returns what the bus master moves next: bytes to take from, or to
// put bytes into. It returns nil when the command has ended.
func (d *Drive) dmaWindow() []byte {
	if d.pos < len(d.buf) {
		return d.buf[d.pos:]
	}
	if d.left == 0 {
		d.finish()
		return nil
	}
	n := min(d.left, dmaSectorsMax)
	if d.writes() {
		d.buf, d.pos = make([]byte, n*disk.SectorSize), 0
		return d.buf
	}
	at, e := d.firstError(d.lba, n)
	if e != 0 {
		if n = uint32(at - d.lba); n == 0 {
			d.fail(e, at)
			return nil
		}
	}
	b := make([]byte, n*disk.SectorSize)
	if !d.load(b) {
		return nil
	}
	d.buf, d.pos = b, 0
	return b
}

// dmaMoved tells that the bus master moved n bytes of the window.
func (d *Drive) dmaMoved(n int) {
	d.pos += n
	if d.pos < len(d.buf) {
		return
	}
	if d.writes() && !d.store() {
		return
	}
	d.buf, d.pos = nil, 0
	if d.left == 0 {
		d.finish()
	}
}

// load fills b from the disk and moves lba on. Preconditions: no sector of it fails.
func (d *Drive) load(b []byte) bool {
	d.power = powerActive
	n := uint32(len(b) / disk.SectorSize)
	if err := d.disk.ReadSectors(b, d.lba); err != nil {
		d.hostFailed()
		return false
	}
	if len(d.plan) > 0 && !d.spoilRead(b) {
		d.hostFailed()
		return false
	}
	d.lba += uint64(n)
	d.left -= n
	d.moved += n
	return true
}

// store writes the buffer to the disk, up to the first sector that fails, and moves
// lba on. It reports false when the command has ended with an error.
func (d *Drive) store() bool {
	d.power = powerActive
	b := d.buf
	n := uint32(len(b) / disk.SectorSize)
	at, e := d.firstError(d.lba, n)
	if e != 0 {
		b = b[:(at-d.lba)*disk.SectorSize]
	}
	if err := d.write(b); err != nil {
		d.hostFailed()
		return false
	}
	if e != 0 {
		d.fail(e, at)
		return false
	}
	d.lba += uint64(n)
	d.left -= n
	d.moved += n
	return true
}
