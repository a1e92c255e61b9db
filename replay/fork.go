package replay

import (
	"errors"
	"fmt"

	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev/disk"
)

// Fork starts a new recording in directory dir of what happens when recording
// parent goes another way at or after step from. It begins at the parent's last
// snapshot at or before from, and holds all that it needs. wrap puts something
// between the machine and the parent's events.
func Fork(parent *Player, dir string, from uint64, wrap func(m *vmm.Machine, next vmm.Inputs) vmm.Inputs, faults []string, opt Options, images ...disk.Image) (*Recorder, error) {
	if from > parent.End() {
		return nil, fmt.Errorf("step %d: the recording %s ends at step %d: %w", from, parent.Dir, parent.End(), ErrBeyond)
	}
	i := max(parent.snaps.Before(from), 0)
	written, err := parent.writtenBefore(parent.snaps.Steps()[i])
	if err == nil {
		err = parent.restore(i)
	}
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", parent.Dir, err)
	}
	man := *parent.Manifest
	m, err := reopen(&man, images)
	if err != nil {
		return nil, err
	}
	src := parent.m.Machine
	if err := m.SetEngine(src.Engine()); err != nil {
		return nil, errors.Join(err, m.close())
	}
	hash := parent.Memory()
	for n := range src.RAM.Pages() {
		if hash.PageHash(n) != [2]uint64{} { // not zeros
			p := src.RAM.Page(n)
			m.RAM.NoteWrite(uint64(n)<<12, len(p))
			copy(m.RAM.Page(n), p)
		}
	}
	for _, d := range disks(src) {
		d.Each(func(n uint64, data []byte) { err = errors.Join(err, setCluster(m.Machine, d.Name(), n, data)) })
	}
	e := parent.track.entry()
	if err := errors.Join(err, restoreDevices(m.Machine, &e)); err != nil {
		return nil, errors.Join(err, m.close())
	}
	man.Product, man.End = "refault "+Version, nil
	man.Parent, man.Faults = parent.Dir, append(append([]string(nil), man.Faults...), faults...)
	if opt.MarkEvery == 0 {
		opt.MarkEvery = parent.Manifest.MarkEvery // the marks of both can be compared
	}
	r, err := newRecorder(dir, m, &man, opt)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	s := &script{events: parent.script.events}
	s.seek(m.Step())
	r.start(wrap(m.Machine, s))
	if err := r.past(parent, s.next); err != nil {
		return nil, r.abandon(err)
	}
	if err := r.begin(written); err != nil {
		return nil, r.abandon(err)
	}
	return r, nil
}

// writtenBefore returns what was written to the disks before a step, since the last mark before it.
func (p *Player) writtenBefore(step uint64) (traces.Written, error) {
	from := p.Start()
	for i := range p.marks {
		switch at := p.marks[i].Step; {
		case at == step:
			return p.marks[i].Written, nil
		case at > step:
			if err := p.Seek(from); err != nil {
				return traces.Written{}, err
			}
			err := p.RunTo(step)
			return p.track.writes.Take(), err
		}
		from = max(from, p.marks[i].Step)
	}
	return traces.Written{}, nil
}

// past copies what the parent logged before the fork: events, marks and console output.
func (r *Recorder) past(parent *Player, events int) error {
	step := r.m.Step()
	for _, e := range parent.script.events[:events] {
		r.pending = e
		r.log()
	}
	for i := range parent.marks {
		if parent.marks[i].Step < step {
			if err := r.marks.Add(parent.marks[i].Step, &parent.marks[i]); err != nil {
				return err
			}
		}
	}
	out := r.m.Out()
	if out > uint64(len(parent.console)) {
		return fmt.Errorf("%s is shorter than its snapshots say: %w", traces.FileConsole, traces.ErrDamaged)
	}
	r.say(parent.console[:out])
	return r.err
}
