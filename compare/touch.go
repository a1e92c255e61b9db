package compare

import (
	"errors"
	"maps"
	"math/bits"
	"slices"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/dev/ata"
	"refault/vmm/dev/disk"
	"refault/vmm/mem"
)

// Bounds of the search by touches.
const (
	maxOwnWords  = 4096       // that are watched
	maxTouches   = 20_000     // after which nothing differed but what had before
	touchWindow  = 50_000_000 // steps from checkpoint to checkpoint
	maxNeighbour = 20_000_000 // accesses to the pages of the words, each of which takes its time
)

// touchable reports whether the runs differ in nothing but the faults' own, of which it is seen when it is made use
// of: few words of memory, and drives with their disks.
func (p *pair) touchable() bool {
	for i := range p.own.devices {
		switch p.f.Machine().Devices()[i].(type) {
		case *ata.Drive, *disk.Disk:
		default:
			return false
		}
	}
	return len(p.own.registers) == 0 && len(p.own.words) <= maxOwnWords
}

// nothingLeft reports whether nothing of the faults' own is left that could be touched.
func (p *pair) nothingLeft() bool { return len(p.own.words)+len(p.own.devices) == 0 }

// toucher looks for what touches what the faults changed.
type toucher struct {
	*pair
	watches []*vmm.Watch
	drives  *vmm.Observer
	// at is how many instructions had retired before the one that touched it, vmm.Never if none has.
	at                  uint64
	touches, neighbours int
}

// byTouch looks for the first step, at most to, after which anything differs beyond the words of memory and the drives
// that the faults changed, and leaves both before it. Nothing is missed: two machines that differ
// in these alone do the same until one of the bytes is read, or a drive does something, so it is enough to play the
// faulty run, and to compare the two after each instruction that touches them. sure is false where that
// was given up, and both are somewhere on the way.
func (p *pair) byTouch(to uint64) (found, sure bool, err error) {
	t := &toucher{pair: p}
	m := p.f.Machine()
	for !found && err == nil && m.Step() < to && !p.nothingLeft() {
		if t.touches > maxTouches || t.neighbours > maxNeighbour {
			return false, false, p.g.Seek(m.Step())
		}
		found, err = t.window(min(to, m.Step()+touchWindow))
		if p.progress != nil {
			p.progress(m.Step(), p.end)
		}
	}
	if found || err != nil {
		return found, true, err
	}
	return false, true, p.g.Seek(m.Step()) // it had nothing to do up to here
}

// window is byTouch for a window of steps. Where nothing is found, the golden run is where the last touch was.
func (t *toucher) window(to uint64) (found bool, err error) {
	f := t.f.Checkpoint()
	defer t.f.Release(f)
	var g *replay.Checkpoint
	defer func() {
		if g != nil {
			t.g.Release(g)
		}
	}()
	if err := t.watch(); err != nil {
		return false, err
	}
	defer t.unwatch()
	for t.f.Machine().Step() < to && t.touches <= maxTouches && t.neighbours <= maxNeighbour {
		t.at = vmm.Never
		err := t.f.RunTo(to)
		switch {
		case t.at == vmm.Never:
			return false, err
		case err != nil && !errors.Is(err, vmm.ErrPaused):
			return false, err
		}
		t.touches++
		if g == nil {
			if err := t.g.Seek(t.at); err != nil {
				return false, err
			}
			g = t.g.Checkpoint()
		}
		// What it touches besides, until it has retired, does not matter.
		at, after := t.at, min(t.at+1, t.end)
		if err := errors.Join(t.f.RunTo(after), t.g.RunTo(after)); err != nil && !errors.Is(err, vmm.ErrPaused) {
			return false, err
		}
		before := len(t.own.words) + len(t.own.devices)
		if t.beyond() {
			t.unwatch()
			return true, errors.Join(t.f.Rollback(f), t.g.Rollback(g), t.f.RunTo(at), t.g.RunTo(at))
		}
		switch {
		case t.nothingLeft():
			return false, nil
		case len(t.own.words)+len(t.own.devices) != before:
			t.unwatch()
			if err := t.watch(); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// watch looks at what touches a byte that differs in the faulty run, be it a processor, its page walks or a bus master,
// and at what drives have a part in.
func (t *toucher) watch() error {
	m := t.f.Machine()
	touch := func() {
		if t.at == vmm.Never {
			t.at = m.Step()
			m.Pause()
		}
	}
	if len(t.own.devices) > 0 {
		t.drives = &vmm.Observer{Drives: touch}
		m.Observe(t.drives)
	}
	pages := map[uint64][]place{}
	for off, w := range t.own.words {
		d := w[0] ^ w[1]
		l := place{off: off, first: uint64(bits.TrailingZeros64(d)) / 8, last: 7 - uint64(bits.LeadingZeros64(d))/8}
		pages[off>>mem.PageShift] = append(pages[off>>mem.PageShift], l)
	}
	for _, n := range slices.Sorted(maps.Keys(pages)) {
		list := pages[n]
		w, err := m.Watch(m.RAM.Addr(n<<mem.PageShift), mem.PageSize, func(x *vmm.Touch) {
			t.neighbours++
			off, _ := m.RAM.Offset(x.Addr)
			for _, l := range list {
				if off <= l.off+l.last && l.off+l.first < off+uint64(x.Len) {
					touch()
				}
			}
		})
		if err != nil {
			return err
		}
		t.watches = append(t.watches, w)
	}
	return nil
}

func (t *toucher) unwatch() {
	for _, w := range t.watches {
		t.f.Machine().Unwatch(w)
	}
	t.watches = nil
	if t.drives != nil {
		t.f.Machine().Unobserve(t.drives)
		t.drives = nil
	}
}
