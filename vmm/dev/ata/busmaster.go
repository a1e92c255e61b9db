package ata

import (
	"encoding/binary"
	"errors"

	"refault/vmm/dev/pci"
)

// Bus-master registers of a channel, and their bits (SFF-8038i, 3).
const (
	bmCommand = 0
	bmStatus  = 2
	bmTable   = 4 // four bytes

	bmStart   = 1 << 0
	bmToHost  = 1 << 3 // RWCON: the drive is read, memory is written
	bmActive  = 1 << 0
	bmError   = 1 << 1
	bmIntr    = 1 << 2
	bmCapable = 3 << 5 // drives can do DMA: a note by the guest to itself

	prdLast = 1 << 31
)

// busMaster is the DMA engine of one channel.
type busMaster struct{ BusMasterState }

// BusMasterState is the saved state of a channel's bus master.
type BusMasterState struct {
	Command uint8
	Status  uint8
	Table   uint32 // the PRD table's address, as the guest set it
	Next    uint32 // address of the next descriptor
	Addr    uint32 // where the current region goes on
	Left    uint32 // bytes left in the current region
	Last    bool   // the current region is the last
}

func (s *BusMasterState) check() error {
	if s.Left > 0x10000 || s.Command&^(bmStart|bmToHost) != 0 || s.Status&^(bmActive|bmError|bmIntr|bmCapable) != 0 {
		return errors.New("impossible state of the bus master")
	}
	return nil
}

// busMasterPorts is the range that BAR 4 decodes: eight ports a channel.
type busMasterPorts struct{ c *Controller }

// In implements dev.Ports.
func (p busMasterPorts) In(port uint16, size int) uint32 {
	p.c.touched()
	var v uint32
	for i := range size {
		off := int(port) + i
		b := uint8(0xff)
		if off < numBusMasterPorts {
			b = p.c.channels[off>>3].bm.read(off & 7)
		}
		v |= uint32(b) << (8 * i)
	}
	return v
}

// Out implements dev.Ports.
func (p busMasterPorts) Out(port uint16, size int, v uint32) {
	p.c.touched()
	for i := range size {
		if off := int(port) + i; off < numBusMasterPorts {
			p.c.channels[off>>3].writeBusMaster(off&7, uint8(v>>(8*i)))
		}
	}
}

func (b *busMaster) read(reg int) uint8 {
	switch reg {
	case bmCommand:
		return b.Command
	case bmStatus:
		return b.Status
	case bmTable, bmTable + 1, bmTable + 2, bmTable + 3:
		return uint8(b.Table >> (8 * (reg - bmTable)))
	}
	return 0
}

func (ch *channel) writeBusMaster(reg int, v uint8) {
	b := &ch.bm
	switch reg {
	case bmCommand:
		started := v&^b.Command&bmStart != 0
		b.Command = v & (bmStart | bmToHost)
		if v&bmStart == 0 {
			b.Status &^= bmActive
		}
		if started {
			b.Status |= bmActive
			b.Next, b.Left, b.Last = b.Table, 0, false
			ch.transfer()
		}
	case bmStatus:
		b.Status = b.Status&^(v&(bmError|bmIntr))&^bmCapable | v&bmCapable
	case bmTable, bmTable + 1, bmTable + 2, bmTable + 3:
		shift := 8 * (reg - bmTable)
		b.Table = (b.Table&^(0xff<<shift) | uint32(v)<<shift) &^ 3
	}
}

// transfer moves data between the selected drive and memory for as long as the
// drive, the bus master and the PRD table let it.
func (ch *channel) transfer() {
	b, d := &ch.bm, ch.drives[ch.selected]
	if d == nil || ch.c.pci.Command()&pci.CommandMaster == 0 {
		return
	}
	for d.phase == phaseDMA && b.Status&bmActive != 0 && (b.Command&bmToHost != 0) == !d.writes() {
		p := d.dmaWindow()
		if p == nil {
			continue // the command is over, well or not
		}
		if b.Left == 0 && !ch.nextRegion() {
			return
		}
		p = p[:min(len(p), int(b.Left))]
		ok := false
		if d.writes() {
			ok = ch.c.mem.ReadAt(p, uint64(b.Addr))
		} else {
			ok = ch.c.mem.WriteAt(p, uint64(b.Addr))
		}
		if !ok {
			b.fail()
			return
		}
		b.Addr += uint32(len(p))
		b.Left -= uint32(len(p))
		if b.Left == 0 && b.Last {
			b.Status &^= bmActive
		}
		d.dmaMoved(len(p))
	}
}

// nextRegion fetches the next physical region descriptor.
func (ch *channel) nextRegion() bool {
	b := &ch.bm
	var prd [8]byte
	if !ch.c.mem.ReadAt(prd[:], uint64(b.Next)) {
		b.fail()
		return false
	}
	b.Next += uint32(len(prd))
	b.Addr = binary.LittleEndian.Uint32(prd[:]) &^ 1
	count := binary.LittleEndian.Uint32(prd[4:])
	b.Left = count & 0xfffe
	if b.Left == 0 {
		b.Left = 0x10000
	}
	b.Last = count&prdLast != 0
	return true
}

// fail ends the transfer as when no target answers: the drive is left waiting.
func (b *busMaster) fail() {
	b.Status = b.Status&^bmActive | bmError
	b.Left = 0
}
