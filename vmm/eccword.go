package vmm

import (
	"encoding/binary"

	"refault/vmm/dev/mca"
	"refault/vmm/ecc"
	"refault/vmm/x86"
)

// A word of memory under SEC-DED ECC of which cells have flipped. Reads of its line,
// stores (which fetch the line into the cache first) and the patrol scrubber pass it
// through the decoder, which decides what becomes of it: corrected, written back and
// reported; uncorrectable, which is poison; or good, and silently wrong. Wrong cells
// add up: a second flip in the same word is one error with two bits.

const (
	eccLine  = 64
	eccBytes = 9 // of Defect.Mask: data, then check bits

	mcacodCorrectedRead  = 0x009f
	mcacodCorrectedScrub = 0x00cf
)

// verdict is what the decoder finds in the word.
func (f *Defect) verdict() (ecc.Verdict, int) {
	return ecc.Judge(ecc.Encode(binary.LittleEndian.Uint64(f.Mask)) ^ f.Mask[8])
}

// plantECC flips the cells that f names. It reports whether they joined wrong ones of the same word.
func (d *Defects) plantECC(f *Defect) (joined bool) {
	b := make([]byte, 8)
	d.m.RAM.ReadAt(b, f.Addr)
	d.write(xor(b, f.Mask[:8]), f.Addr)
	for i := range d.Defects {
		o := &d.Defects[i]
		if o.Kind != DefectECC || o.Addr != f.Addr || o == f {
			continue
		}
		for k := range o.Mask {
			o.Mask[k] ^= f.Mask[k]
		}
		o.Bad = []byte{0xff}
		o.Corrected = false
		if v, _ := o.verdict(); v == ecc.Good && binary.LittleEndian.Uint64(o.Mask) == 0 {
			d.remove(o.ID) // the second flip took the first one back
		}
		return true
	}
	return false
}

// eccTouched is told of an access to the line of the word.
func (d *Defects) eccTouched(id uint64, t *Touch) {
	f := d.find(id)
	if f == nil || d.forcing {
		return
	}
	overlaps := t.Addr < f.Addr+8 && f.Addr < t.Addr+uint64(t.Len)
	whole := t.Addr <= f.Addr && f.Addr+8 <= t.Addr+uint64(t.Len)
	rip := uint64(0)
	if t.CPU != nil {
		rip = t.CPU.InstRIP
	}
	if t.DMA() && !overlaps {
		return // of a bus master's transfer only what it moves is read
	}
	v, bit := f.verdict()
	if t.Kind == x86.Write && t.DMA() && whole {
		d.tell(f, rip, "overwritten")
		d.removeUnlessHeld(f)
		return
	}
	switch {
	case v == ecc.Corrected:
		d.correct(f, bit, mcacodCorrectedRead, rip, "")
		if t.Kind == x86.Fetch {
			t.CPU.Abandon() // it was decoded from what is corrected now
		}
		if f = d.find(id); f != nil && t.Kind == x86.Write && overlaps {
			f.Corrected = true // what is stored is right, as far as the decoder is asked
		}
	case t.Kind == x86.Write && overlaps:
		if v == ecc.Uncorrectable {
			first := max(t.Addr, f.Addr) - f.Addr
			last := min(t.Addr+uint64(t.Len), f.Addr+8) - f.Addr
			for i := first; i < last; i++ {
				f.Bad[0] &^= 1 << i
			}
			if f.Bad[0] != 0 {
				return
			}
		}
		d.tell(f, rip, "overwritten")
		d.remove(id)
	case t.Kind == x86.Write:
	case v == ecc.Uncorrectable:
		d.consume(f, t, 0)
	case overlaps:
		f.Strikes++
		if f.Strikes == 1 {
			d.tell(f, rip, "read, wrong, and unnoticed")
		}
	}
}

// correct does what the memory controller does with an error that it takes for one of one bit.
func (d *Defects) correct(f *Defect, bit int, code uint64, rip uint64, by string) {
	wrong := 0
	for _, b := range f.Mask {
		for ; b != 0; b &= b - 1 {
			wrong++
		}
	}
	if !f.Corrected && bit < ecc.DataBits {
		m := make([]byte, 8)
		m[bit/8] = 1 << (bit % 8)
		b := make([]byte, 8)
		d.m.RAM.ReadAt(b, f.Addr)
		d.write(xor(b, m), f.Addr)
	}
	what := "corrected"
	if wrong > 1 {
		what = "taken for one wrong bit and made worse"
	}
	d.tell(f, rip, "%s%s", what, by)
	f.Strikes++
	f.Corrected = true
	bank := bankMemory
	if f.Bank >= 0 {
		bank = f.Bank
	}
	rec := mca.Record{Status: mca.StatusVAL | mca.StatusEN | mca.StatusADDRV | mca.StatusMISCV | code, Addr: f.Addr, Misc: miscPhysical | 3}
	cpu := d.m.CPUs[f.CPU]
	d.removeUnlessHeld(f)
	d.m.report(cpu, bank, rec)
}

// removeUnlessHeld takes an error away whose cells are good again, or as the decoder wrote them.
func (d *Defects) removeUnlessHeld(f *Defect) {
	if !f.Hold {
		d.remove(f.ID)
	}
}

// eccScrubbed is the scrubber's passing the word.
func (d *Defects) eccScrubbed(f *Defect) {
	v, bit := f.verdict()
	switch v {
	case ecc.Corrected:
		d.correct(f, bit, mcacodCorrectedScrub, 0, " by the scrubber")
	case ecc.Uncorrectable:
		d.tell(f, 0, "found by the scrubber")
		d.reportPoison(f, 0, bankMemory, mca.Record{Status: poisonStatus | mca.StatusS | mcacodScrub, McgStatus: mca.McgRIPV})
	}
}
