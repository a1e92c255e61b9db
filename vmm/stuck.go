package vmm

import (
	"refault/vmm/x86"
)

// Bits that are stuck: in memory they are put right, or rather wrong, before anybody
// reads them and behind the instruction that wrote them; in a register, behind every instruction.

// force sets the bits of a stuck cell.
func (d *Defects) force(f *Defect) {
	b := make([]byte, len(f.Mask))
	d.m.RAM.ReadAt(b, f.Addr)
	changed := false
	for i, m := range f.Mask {
		v := b[i]&^m | f.Value[i]&m
		changed = changed || v != b[i]
		b[i] = v
	}
	if changed {
		d.write(b, f.Addr)
	}
}

// stuckTouched is told of an access to a stuck cell.
func (d *Defects) stuckTouched(id uint64, t *Touch) {
	f := d.find(id)
	if f == nil || d.forcing {
		return
	}
	if t.Kind != x86.Write {
		if d.patch {
			d.force(f)
		}
		return
	}
	d.patch = true
	d.m.attend()
}

// registerWritten forces the bits of a register, behind each instruction.
func (d *Defects) registerWritten(id uint64, c *x86.CPU) {
	if f := d.find(id); f != nil && c.ID == f.CPU {
		d.forceRegister(f)
	}
}

func (d *Defects) forceRegister(f *Defect) {
	c := d.m.CPUs[f.CPU]
	r, _ := x86.LookupRegister(f.Register)
	b := r.Read(c)
	changed := false
	for i, m := range f.Mask {
		v := b[i]&^m | f.Value[i]&m
		changed = changed || v != b[i]
		b[i] = v
	}
	if changed && d.strikes(f) {
		r.Write(c, b)
		d.spend(f.ID)
	}
}

// write changes cells of RAM, which is no access by anybody.
func (d *Defects) write(b []byte, pa uint64) {
	d.forcing = true
	d.m.RAM.WriteAt(b, pa)
	d.forcing = false
}
