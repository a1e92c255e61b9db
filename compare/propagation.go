package compare

import (
	"fmt"
	"math"
	"slices"

	"refault/replay"
	"refault/vmm/dev/disk"
	"refault/vmm/x86"
)

// Curve tells how far two runs were apart, as a function of step.
type Curve struct {
	// FaultStep is where the first fault struck: the points begin there.
	FaultStep uint64 `json:"fault_step"`
	// EndStep is where the shorter run ended: the points end there.
	EndStep uint64 `json:"end_step"`
	// SplitStep is the first step at which the runs were seen at different places, nil where
	// they never were. From there on equal steps no longer mean equal places: what differs
	// then is not only what the fault changed, but what one of the runs has done already and
	// the other not yet. A detour that both had left again after a chunk of steps is not seen.
	SplitStep *uint64 `json:"control_flow_split_step,omitempty"`
	Points    []Point `json:"points"`
}

// Point is how much of the machines differs at a step.
type Point struct {
	Step uint64 `json:"step"`
	// After is how many steps after the first fault that is.
	After     uint64 `json:"steps_after_fault"`
	Registers int    `json:"registers"`
	Words     int    `json:"words"`   // of 8 bytes of memory
	Pages     int    `json:"pages"`   // of 4 KiB of memory
	Devices   int    `json:"devices"` // processors and the content of disks aside
	Sectors   int    `json:"sectors"` // of 512 bytes of the disks
	// SamePlace: both are about to execute the same address at the same privilege level.
	SamePlace   bool     `json:"same_place"`
	DeviceNames []string `json:"device_names,omitempty"`
}

// Series are the counts of a point, by name.
var Series = []struct {
	Name string
	Of   func(p *Point) int
}{
	{"registers", func(p *Point) int { return p.Registers }},
	{"words", func(p *Point) int { return p.Words }},
	{"pages", func(p *Point) int { return p.Pages }},
	{"devices", func(p *Point) int { return p.Devices }},
	{"sectors", func(p *Point) int { return p.Sectors }},
}

// Equal reports whether nothing differs.
func (p *Point) Equal() bool {
	return p.Registers+p.Words+p.Pages+p.Devices+p.Sectors == 0
}

// Bounds of the number of points.
const (
	DefaultPoints = 64
	MinPoints     = 2
	MaxPoints     = 100_000
)

// ErrPoints reports a number of points that cannot be.
var ErrPoints = fmt.Errorf("the number of points is from %d to %d", MinPoints, MaxPoints)

// Propagation measures how a fault spreads: about n points, half of them at distances from
// the fault that grow by a factor, and half evenly up to the end of the shorter run; one at
// each fault; and from where control flow splits once more some at distances that grow. Both
// runs are played side by side, once.
func Propagation(golden, faulty *replay.Player, n int, opt Options) (*Curve, error) {
	if n < MinPoints || n > MaxPoints {
		return nil, fmt.Errorf("%d points: %w", n, ErrPoints)
	}
	if err := related(golden, faulty); err != nil {
		return nil, err
	}
	c := &Curve{EndStep: min(golden.End(), faulty.End()), Points: []Point{}}
	steps, _ := strikes(golden, faulty)
	steps = begins(golden, faulty, steps)
	c.FaultStep = steps[0]
	if c.FaultStep > c.EndStep {
		return c, nil // it struck when the other run was over
	}
	p := &pair{g: golden, f: faulty, progress: opt.Progress, end: c.EndStep}
	if err := p.together(c.FaultStep, true); err != nil {
		return nil, err
	}
	return c, p.propagate(c, steps, n)
}

func (p *pair) propagate(c *Curve, strikes []uint64, n int) error {
	apart := func() bool { return !p.samePlace() }
	todo := pointsAt(c.FaultStep, c.EndStep, strikes, n)
	for len(todo) > 0 {
		at := todo[0]
		_, fault := slices.BinarySearch(strikes, at)
		if last := len(c.Points) - 1; last >= 0 && c.Points[last].Equal() && p.identical() {
			// Nothing differs, so nothing will until the next fault.
			if !fault {
				q := c.Points[last]
				q.Step, q.After = at, at-c.FaultStep
				c.Points, todo = append(c.Points, q), todo[1:]
				continue
			}
			if err := p.seek(at); err != nil {
				return err
			}
		} else if at > p.step() && c.SplitStep == nil {
			close := uint64(0)
			if at-c.FaultStep <= firstLook {
				close = closely
			}
			split, err := p.first(at, close, question{now: apart, quickly: apart})
			if err != nil {
				return err
			}
			if split {
				first := p.step() + 1 // behind the instruction that they stand before
				c.SplitStep = &first
				if first < at {
					todo = append(growing(first, at-first, n/4), todo...)
					continue
				}
			}
		}
		if err := p.runTo(at); err != nil {
			return err
		}
		if fault {
			if err := p.accept(); err != nil {
				return err
			}
		}
		q, err := p.measure()
		if err != nil {
			return err
		}
		q.After = at - c.FaultStep
		c.Points, todo = append(c.Points, q), todo[1:]
	}
	return nil
}

// pointsAt returns the steps of a curve from first to last: first itself, some at distances that grow by
// a factor, some evenly, and the strikes; ascending, each once.
func pointsAt(first, last uint64, strikes []uint64, n int) []uint64 {
	length := last - first
	at := []uint64{first, last}
	for _, s := range strikes {
		if s <= last {
			at = append(at, s)
		}
	}
	even := max(n/2, 1)
	stride := float64(length) / float64(even)
	for i := 1; i < even; i++ {
		at = append(at, first+uint64(stride*float64(i)))
	}
	// What is left goes to distances up to the stride.
	at = append(at, growing(first, min(uint64(max(stride, 1)), length), max(n-even, 1))...)
	slices.Sort(at)
	return slices.Compact(at)
}

// growing returns step first and up to n more before first+length, at distances from 1 that grow by a factor.
func growing(first, length uint64, n int) []uint64 {
	at := []uint64{first}
	for i := range n {
		if d := uint64(math.Pow(float64(length), float64(i)/float64(n))); d < length {
			at = append(at, first+d)
		}
	}
	return slices.Compact(at)
}

// samePlace reports whether both are about to execute the same address at the same privilege level.
func (p *pair) samePlace() bool {
	a, b := p.g.Machine().CPUs[0], p.f.Machine().CPUs[0]
	return a.Regs[x86.RIP] == b.Regs[x86.RIP] && a.CPL == b.CPL
}

// accept makes the faults at this step happen in both.
func (p *pair) accept() error {
	return p.both(func(x *replay.Player) error { return x.Accept() })
}

// measure counts what differs now.
func (p *pair) measure() (Point, error) {
	q := Point{Step: p.step(), SamePlace: p.samePlace()}
	p.registers(func(string, []byte, []byte) { q.Registers++ })
	page := uint64(math.MaxUint64)
	p.words(func(off, _, _ uint64) bool {
		q.Words++
		if n := off >> 12; n != page {
			page = n
			q.Pages++
		}
		return true
	})
	a, b := p.g.Machine().Devices(), p.f.Machine().Devices()
	var err error
	p.devices(func(i int, name string) {
		d, ok := a[i].(*disk.Disk)
		if !ok {
			q.Devices++
			q.DeviceNames = append(q.DeviceNames, name)
			return
		}
		n, e := differentSectors(d, b[i].(*disk.Disk))
		q.Sectors += n
		if err == nil {
			err = e
		}
	})
	return q, err
}

// differentSectors counts the sectors in which two disks over one image differ.
func differentSectors(a, b *disk.Disk) (n int, err error) {
	written := map[uint64]bool{} // in either, and not the same in both
	note := func(index uint64, _ []byte) { written[index] = true }
	a.Each(note)
	b.Each(note)
	const perCluster = disk.ClusterSize / disk.SectorSize
	var x, y [disk.SectorSize]byte
	for index := range written { // a sum: the order does not matter
		for lba := index * perCluster; lba < min((index+1)*perCluster, a.Sectors(), b.Sectors()); lba++ {
			if err := a.ReadSectors(x[:], lba); err != nil {
				return n, err
			}
			if err := b.ReadSectors(y[:], lba); err != nil {
				return n, err
			}
			if x != y {
				n++
			}
		}
	}
	return n, nil
}
