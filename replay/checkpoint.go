package replay

import (
	"bytes"
	"errors"
	"fmt"
	"sort"

	"refault/snapshot"
	"refault/vmm/dev/disk"
	"refault/vmm/mem"
)

// Checkpoint is a position of a Player that it can go back to quickly. It is held
// in memory, and keeps of each page what it was before its first write since then:
// taking one and going back to it cost what was written in between, whatever the
// size of memory.
//
// Checkpoints are a stack: going back to one ends those that were taken after it.
type Checkpoint struct {
	entry    snapshot.Entry
	event    int
	compared int
	live     bool
	pages    map[int32][]byte // before their first write after this checkpoint and before the next
	disks    []overlay
}

// overlay is what was written to a disk. Checkpoints between which nothing was, share it.
type overlay struct {
	name     string
	hash     [16]byte
	clusters []cluster
}

type cluster struct {
	index uint64
	data  []byte
}

func (p *Player) disks() (all []*disk.Disk) {
	for _, d := range p.m.Devices() {
		if d, ok := d.(*disk.Disk); ok {
			all = append(all, d)
		}
	}
	return all
}

// overlays returns what was written to the disks.
func (p *Player) overlays() (all []overlay) {
	for i, d := range p.disks() {
		o := overlay{name: d.Name(), hash: d.Hash()}
		if n := len(p.held); n > 0 && p.held[n-1].disks[i].hash == o.hash {
			o.clusters = p.held[n-1].disks[i].clusters
		} else {
			d.Each(func(index uint64, data []byte) { o.clusters = append(o.clusters, cluster{index, bytes.Clone(data)}) })
		}
		all = append(all, o)
	}
	return all
}

// putOverlays makes the disks what they were.
func (p *Player) putOverlays(all []overlay) error {
	for i, d := range p.disks() {
		if d.Hash() == all[i].hash {
			continue
		}
		d.Clear()
		for _, c := range all[i].clusters {
			if err := d.SetCluster(c.index, c.data); err != nil {
				return err
			}
		}
	}
	return nil
}

// Step returns the position of the checkpoint.
func (c *Checkpoint) Step() uint64 { return c.entry.Step }

// Checkpoint remembers the current position.
func (p *Player) Checkpoint() *Checkpoint {
	p.track.collect() // so that the next write of each page is seen
	c := &Checkpoint{entry: p.track.entry(), event: p.script.next, compared: p.compared, live: p.live,
		pages: map[int32][]byte{}, disks: p.overlays()}
	p.held = append(p.held, c)
	p.m.RAM.OnDirty = p.keep
	return c
}

// keep saves a page that is about to be written.
func (p *Player) keep(page int) {
	top := p.held[len(p.held)-1]
	if _, ok := top.pages[int32(page)]; !ok {
		top.pages[int32(page)] = append(make([]byte, 0, mem.PageSize), p.m.RAM.Page(page)...)
	}
}

// position returns where a checkpoint is in the stack.
func (p *Player) position(c *Checkpoint) int {
	for i := len(p.held) - 1; i >= 0; i-- {
		if p.held[i] == c {
			return i
		}
	}
	panic(fmt.Sprintf("BUG: the checkpoint of step %d was given up", c.Step()))
}

// Rollback goes back to a checkpoint, which stays good.
func (p *Player) Rollback(c *Checkpoint) error {
	i := p.position(c)
	// The oldest copy of a page is what it held at c.
	for _, later := range p.held[i+1:] {
		c.take(later)
	}
	clear(p.held[i+1:])
	p.held = p.held[:i+1]
	p.live = false
	ram := p.m.RAM
	p.track.collect()
	ram.OnDirty = nil
	for n, old := range c.pages {
		p.putPage(int(n), old)
	}
	clear(c.pages)
	p.track.collect()
	ram.OnDirty = p.keep
	if err := errors.Join(p.putOverlays(c.disks), restoreDevices(p.m.Machine, &c.entry)); err != nil {
		return err
	}
	p.enter(c.event, c.compared)
	p.live = c.live
	return nil
}

// take adds the pages of a later checkpoint that c has not got.
func (c *Checkpoint) take(later *Checkpoint) {
	for n, old := range later.pages {
		if _, ok := c.pages[n]; !ok {
			c.pages[n] = old
		}
	}
}

// Release gives a checkpoint up, and stays where it is. Those before and after it stay good.
func (p *Player) Release(c *Checkpoint) {
	i := p.position(c)
	if i > 0 {
		p.held[i-1].take(c)
	}
	p.held = append(p.held[:i], p.held[i+1:]...)
	if len(p.held) == 0 {
		p.m.RAM.OnDirty = nil
	}
	c.pages = nil
}

// Memory returns the hash of memory at the current position, with the hash of each page.
func (p *Player) Memory() *snapshot.MemHash {
	p.track.collect()
	return p.track.hash
}

// Accept makes what was recorded at the current step happen, and nothing more: no
// interrupt is delivered and no instruction executed. While the machine is halted
// time passes first, until what was recorded comes.
func (p *Player) Accept() error {
	at := p.m.Step()
	for s := p.script; s.next < len(s.events) && s.events[s.next].Step == at; {
		if err := p.m.Accept(); err != nil {
			return err
		}
		if s.next == len(s.events) || s.events[s.next].Step != at {
			break
		}
		next := s.next
		if err := p.m.RunIdle(s.events[next].TimeNs); err != nil {
			return err
		}
		if s.next == next && p.m.TimeNs() < s.events[next].TimeNs {
			break // an interrupt woke it first
		}
	}
	return nil
}

// Adopt puts p where q is. It is for two recordings that share their past: what q had
// to play to get there, p need not. Preconditions: the machines are equal up to here.
func (p *Player) Adopt(q *Player) error {
	p.live = false
	have, want := p.Memory(), q.Memory()
	ram := p.m.RAM
	for n := range ram.Pages() {
		if have.PageHash(n) != want.PageHash(n) {
			p.putPage(n, q.m.RAM.Page(n))
		}
	}
	p.track.collect()
	e := q.track.entry()
	if err := errors.Join(p.putOverlays(q.overlays()), restoreDevices(p.m.Machine, &e)); err != nil {
		return err
	}
	p.settle(&e)
	return p.RunTo(e.Step) // which compares the mark that may be here
}

// settle notes that the machine was put where a snapshot is: what comes next are the first event and the first mark there.
func (p *Player) settle(e *snapshot.Entry) {
	p.enter(sort.Search(len(p.script.events), func(k int) bool { return p.script.events[k].Step >= e.Step }),
		sort.Search(len(p.marks), func(k int) bool {
			return p.marks[k].Step > e.Step || p.marks[k].Step == e.Step && p.marks[k].TimeNs >= e.TimeNs
		}))
}
