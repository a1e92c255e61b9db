package ata

import (
	"encoding/binary"
	"strings"

	"refault/vmm/dev/disk"
)

const (
	identifyWords = 256
	// lba28Max is the number of sectors that 28-bit commands can reach.
	lba28Max = 1<<28 - 1
)

// identity fills what IDENTIFY DEVICE says that never changes (ATA8-ACS, 7.16).
func (d *Drive) identity() {
	w := &d.ident
	heads, spt, cylinders := d.defaultGeometry()
	w[0] = 1 << 6 // ATA, not removable
	w[1], w[3], w[6] = cylinders, uint16(heads), uint16(spt)
	putString(w[10:20], d.params.Serial)
	putString(w[23:27], d.params.Firmware)
	putString(w[27:47], d.params.Model)
	w[47] = 0x8000 | multipleMax
	w[48] = 1 << 14
	w[49] = 1<<13 | 1<<11 | 1<<10 | 1<<9 | 1<<8 // standby timer, IORDY and its disabling, LBA, DMA
	w[50] = 1 << 14
	w[51] = 2 << 8             // PIO mode 2 without IORDY
	w[53] = 1<<2 | 1<<1 | 1<<0 // words 88, 64 to 70 and 54 to 58 are valid
	sectors := d.disk.Sectors()
	putSectors(w[60:62], min(sectors, lba28Max))
	w[64] = 1<<(pioModeMax-2) - 1 // PIO modes 3 and 4
	w[65], w[66], w[67], w[68] = 120, 120, 120, 120
	w[80] = 0x1f0                              // ATA/ATAPI-4 to ATA8-ACS
	w[82] = 1<<6 | 1<<5 | 1<<3                 // look-ahead, write cache, power management
	w[83] = 1<<14 | 1<<13 | 1<<12 | 1<<10      // FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses
	w[84] = 1<<14 | 1<<6                       // the FUA EXT writes
	w[86], w[87] = w[83]&^(1<<14), w[84]       // enabled too
	w[93] = 1<<14 | 1<<13 | 1<<3 | 1<<1 | 1<<0 // 80-wire cable, device 0 passed, jumper
	if d.unit == 1 {
		w[93] = 1<<14 | 1<<13 | 1<<11 | 1<<9 | 1<<8
	}
	putSectors(w[100:104], sectors)
	w[106] = 1 << 14 // one logical sector a physical one
	w[217] = 1       // does not rotate
}

// identify is IDENTIFY DEVICE.
func (d *Drive) identify() {
	w := d.ident
	w[54], w[55], w[56] = d.cylinders, uint16(d.heads), uint16(d.spt)
	putSectors(w[57:59], uint64(d.cylinders)*uint64(d.heads)*uint64(d.spt))
	w[59] = 1<<8 | uint16(d.multiple)
	if d.multiple == 0 {
		w[59] = 0
	}
	w[63] = 1<<(multiwordModeMax+1) - 1
	w[88] = 1<<(udmaModeMax+1) - 1
	selected := uint16(1) << (d.transfer&7 + 8)
	if d.transfer&transferUDMA != 0 {
		w[88] |= selected
	} else {
		w[63] |= selected
	}
	w[85] = 1 << 3
	if d.writeCache {
		w[85] |= 1 << 5
	}
	if d.lookAhead {
		w[85] |= 1 << 6
	}
	b := make([]byte, disk.SectorSize)
	for i, v := range w {
		binary.LittleEndian.PutUint16(b[2*i:], v)
	}
	b[510] = 0xa5
	for _, v := range b[:511] {
		b[511] -= v
	}
	d.present(b)
}

// putString stores text as ATA has it: padded with spaces, two characters a word, the first in the high byte.
func putString(w []uint16, s string) {
	s += strings.Repeat(" ", 2*len(w))
	for i := range w {
		w[i] = uint16(s[2*i])<<8 | uint16(s[2*i+1])
	}
}

func putSectors(w []uint16, n uint64) {
	for i := range w {
		w[i] = uint16(n >> (16 * i))
	}
}
