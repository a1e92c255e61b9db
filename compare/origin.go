package compare

import (
	"fmt"

	"refault/vmm"
	"refault/vmm/dev/disk"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// firstWrite returns the first sector that was written with other content, and on which disk, if that is what
// is seen first: before control flow splits, and before anything else is said.
func (s *slicer) firstWrite() (w *WriteDiff, name string) {
	r := s.e.Report
	for i := range r.Disks {
		x := r.Disks[i].First
		if x == nil || x.Kind != WriteChanged || x.Golden.Step != x.Faulty.Step || x.Faulty.Step > s.end ||
			r.Flow != nil && r.Flow.Step < x.Faulty.Step || s.e.OutputStep != 0 && s.e.OutputStep < x.Faulty.Step {
			continue
		}
		if w == nil || x.Faulty.Step < w.Faulty.Step {
			w, name = x, r.Disks[i].Name
		}
	}
	return w, name
}

// followWrite follows the first wrong byte of a sector back: to where it was in memory when the drive, or the
// instruction that handed it over, took it from there.
func (s *slicer) followWrite(w *WriteDiff, name string) error {
	drive := int(name[len("disk")] - '0')
	l, step, err := s.handedOver(w, drive)
	if err != nil {
		return err
	}
	s.target = &Link{Step: step}
	if l == nil {
		s.target.origin = notFollowed + fmt.Sprintf("how the guest handed sector %d to the drive cannot be told", w.LBA)
		return nil
	}
	if err := s.goTo(step); err != nil {
		return err
	}
	if g, f := s.value(*l); g == f {
		// What the guest handed over was right.
		s.target.Device, s.target.origin, s.target.direct = s.fromDevice(step, *l)
		return nil
	}
	if l.register == "" {
		*l, _ = s.wrongBytes(l.off)
	}
	s.target.From = []Cause{{Place: s.name(*l), Kind: Data, place: *l}}
	return s.follow(s.target, 0, false)
}

// handedOver finds the memory, or the register, of which the faulty guest handed a byte of a sector to a
// drive, and the step at which it did; nil where that cannot be told.
func (s *slicer) handedOver(w *WriteDiff, drive int) (l *place, step uint64, err error) {
	const longest = 1 << 20 // steps that a guest takes to hand over a block by itself
	at := w.Faulty.Step
	s.tf.Leave()
	if err := s.tf.Goto(max(s.f.Start(), at-min(at, longest))); err != nil {
		return nil, 0, err
	}
	m := s.f.Machine()
	// What a bus master read since the last write, but for its own tables, and what
	// instructions wrote to the drives' data ports.
	type piece struct {
		place
		step uint64
		n    int
	}
	var read, out []piece
	o := &vmm.Observer{
		DMA: func(pa uint64, n int, write bool) {
			if off, ok := m.RAM.Offset(pa); ok && !write && n != 8 {
				read = append(read, piece{place{off: off}, m.Step(), n})
			}
		},
		Wrote: func(d int, lba uint64, b []byte) {
			first := int64(w.LBA-lba)*disk.SectorSize + int64(w.Byte)
			if m.Step() == at && d == drive && first >= 0 && first < int64(len(b)) && l == nil {
				for _, all := range [][]piece{read, out} {
					// The last of them are the block, whole.
					n := len(b)
					i := len(all)
					for i > 0 && n > 0 {
						i--
						n -= all[i].n
					}
					if n != 0 {
						continue
					}
					for k := first; i < len(all); i++ {
						if p := &all[i]; k < int64(p.n) {
							l, step = &p.place, p.step
							if l.register == "" {
								l.off = (l.off + uint64(k)) &^ 7
							}
							break
						}
						k -= int64(all[i].n)
					}
					break
				}
			}
			read, out = nil, nil
		},
	}
	m.Observe(o)
	m.Trace(func(c *x86.CPU, in *x86.Inst) {
		if in.Op != x86.OpOUT && in.Op != x86.OpOUTS {
			return
		}
		port := c.Regs[x86.RDX] & 0xffff
		if in.Op == x86.OpOUT && (in.Opcode == 0xe6 || in.Opcode == 0xe7) {
			port = in.Imm & 0xff
		}
		if port != 0x1f0 && port != 0x170 {
			return
		}
		p := piece{place{register: "rax"}, c.Step, int(in.OpSize)}
		if in.Op == x86.OpOUTS {
			va := c.Regs[x86.RSI] & in.AddrMask
			if in.Mode != 8 {
				va += c.Seg[x86.DS].Base
			}
			pa, ok := c.Translate(va)
			off, ok2 := m.RAM.Offset(pa)
			if p.place = (place{off: off}); !ok || !ok2 || va%mem.PageSize+uint64(p.n) > mem.PageSize {
				return
			}
		}
		out = append(out, p)
	})
	err = s.f.RunTo(min(at+1, s.f.End()))
	m.Trace(nil)
	m.Unobserve(o)
	return l, step, err
}
