package compare

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"refault/replay"
	"refault/vmm"
)

// Bisection is what Bisect found.
type Bisection struct {
	Recording string `json:"recording"`
	Predicate string `json:"predicate"`
	Found     bool   `json:"found"`
	// Step is the first at which the predicate holds; it did not at the step before, unless this is the first of all.
	Step uint64 `json:"step"`
	// Made is the instruction after which it holds.
	Made *Executed `json:"instruction,omitempty"`
	// Tried is how often the predicate was evaluated.
	Tried uint64 `json:"evaluations"`
}

// BisectOptions of Bisect.
type BisectOptions struct {
	From, To uint64 // the steps to look at
	// Exact looks at every change from From on, where the predicate allows that. Otherwise it is
	// taken for something that holds from some step on and not before.
	Exact    bool
	Symbols  Symbols
	Progress func(step, end uint64)
}

// bisection is a Bisect at work: some players of one recording.
type bisection struct {
	q     *Predicate
	ts    []*replay.Timeline
	opt   BisectOptions
	tried atomic.Uint64
}

// Bisect finds the first step of a recording at which q holds. Each player is of that
// recording and does a part of the work, at the same time.
func Bisect(ctx context.Context, players []*replay.Player, q *Predicate, opt BisectOptions) (*Bisection, error) {
	b := &bisection{q: q, opt: opt}
	for _, p := range players {
		t := replay.NewTimeline(p)
		defer t.Close()
		b.ts = append(b.ts, t)
	}
	r := &Bisection{Recording: players[0].Dir, Predicate: q.text}
	var err error
	if q.step != nil {
		r.Step, r.Found, err = q.step(players[0], opt.From)
		r.Found = r.Found && r.Step <= opt.To
	} else {
		r.Step, r.Found, err = b.search(ctx)
	}
	if err == nil && r.Found && r.Step > opt.From && r.Step < opt.To {
		// What came of an event takes effect when the step is left.
		b.ts[0].Leave()
		var holds bool
		if holds, err = b.at(ctx, b.ts[0], r.Step); err == nil && !holds {
			r.Step++
		}
	}
	r.Tried = b.tried.Load()
	if err != nil || !r.Found || r.Step <= opt.From {
		return r, err
	}
	p := players[0]
	b.ts[0].Leave()
	if err := b.ts[0].Goto(r.Step - 1); err != nil {
		return r, err
	}
	is, err := p.StepInstruction()
	if err != nil {
		return r, err
	}
	e := executed(is, opt.Symbols)
	r.Made = &e
	return r, nil
}

// at evaluates the predicate at a step.
func (b *bisection) at(ctx context.Context, t *replay.Timeline, step uint64) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := t.Goto(step); err != nil {
		return false, err
	}
	b.tried.Add(1)
	if b.opt.Progress != nil {
		b.opt.Progress(step, b.opt.To)
	}
	return b.q.holds(ctx, t.P)
}

// each evaluates the predicate at several steps, one a player, at the same time.
func (b *bisection) each(ctx context.Context, steps []uint64) ([]bool, error) {
	holds, errs := make([]bool, len(steps)), make([]error, len(steps))
	var wg sync.WaitGroup
	for i := range steps[1:] {
		wg.Go(func() { holds[i+1], errs[i+1] = b.at(ctx, b.ts[i+1], steps[i+1]) })
	}
	holds[0], errs[0] = b.at(ctx, b.ts[0], steps[0])
	wg.Wait()
	return holds, errors.Join(errs...)
}

// search divides the steps in which the answer lies by the number of players and one, again and again.
func (b *bisection) search(ctx context.Context) (uint64, bool, error) {
	lo, hi := b.opt.From, b.opt.To // it holds at hi and not at lo
	if b.opt.Exact {
		if b.q.watch == nil {
			return 0, false, fmt.Errorf("predicate %q: only mem can be looked at exactly: %w", b.q.text, ErrPredicate)
		}
		return b.watched(ctx, lo, hi)
	}
	ends, err := b.each(ctx, []uint64{lo, hi}[:min(2, len(b.ts))])
	if err == nil && len(ends) == 1 {
		var end bool
		end, err = b.at(ctx, b.ts[0], hi)
		ends = append(ends, end)
	}
	switch {
	case err != nil:
		return 0, false, err
	case ends[0]:
		return lo, true, nil
	case !ends[1]:
		return 0, false, nil
	}
	for hi-lo > 1 {
		inner := b.inner(lo, hi)
		if len(inner) == 0 && b.q.watch != nil {
			return b.scan(ctx, b.ts[0], lo, hi) // one pass, and every change is seen
		}
		if len(inner) == 0 {
			inner = spread(lo, hi, len(b.ts))
		}
		holds, err := b.each(ctx, inner)
		if err != nil {
			return 0, false, err
		}
		for i, h := range holds {
			if h {
				hi = inner[i]
				break
			}
			lo = inner[i]
		}
	}
	return hi, true, nil
}

// inner spreads places between lo and hi that cost no playing: snapshots.
func (b *bisection) inner(lo, hi uint64) []uint64 {
	all := b.ts[0].P.Snapshots().Steps()
	i := sort.Search(len(all), func(i int) bool { return all[i] > lo })
	k := sort.Search(len(all), func(i int) bool { return all[i] >= hi })
	if i >= k {
		return nil
	}
	all = all[i:k]
	n := min(len(b.ts), len(all))
	var steps []uint64
	for j := range n {
		steps = append(steps, all[(j+1)*len(all)/(n+1)])
	}
	return compactUint64(steps)
}

// spread returns n steps between lo and hi, at even distances.
func spread(lo, hi uint64, n int) []uint64 {
	var steps []uint64
	for j := range uint64(n) {
		steps = append(steps, lo+(hi-lo)/uint64(n+1)*(j+1)+(hi-lo)%uint64(n+1)*(j+1)/uint64(n+1))
	}
	steps = compactUint64(steps)
	if steps[0] == lo {
		steps = steps[1:]
	}
	return steps
}

func compactUint64(s []uint64) []uint64 {
	out := s[:0]
	for i, v := range s {
		if i == 0 || v != s[i-1] {
			out = append(out, v)
		}
	}
	return out
}

// scan plays from lo to hi and evaluates the predicate at lo and whenever something may have changed it.
func (b *bisection) scan(ctx context.Context, t *replay.Timeline, lo, hi uint64) (uint64, bool, error) {
	if h, err := b.at(ctx, t, lo); h || err != nil {
		return lo, h, err
	}
	m := t.P.Machine()
	undo, err := b.q.watch(t.P, m.Pause)
	if err != nil {
		return 0, false, err
	}
	defer undo()
	for begin := lo; ; {
		if err := ctx.Err(); err != nil {
			return 0, false, err
		}
		err := t.P.RunTo(min(hi, begin+strideSteps))
		begin = m.Step()
		if err != nil && !errors.Is(err, vmm.ErrPaused) {
			return 0, false, err
		}
		b.tried.Add(1)
		if h, err := b.q.holds(ctx, t.P); h || err != nil {
			return m.Step(), h, err
		}
		if b.opt.Progress != nil {
			b.opt.Progress(m.Step(), hi)
		}
		if err == nil && m.Step() >= hi {
			return 0, false, nil
		}
	}
}

// strideSteps is how far a scan plays between two looks at whether it was interrupted.
const strideSteps = 20_000_000

// watched scans all of lo to hi, each player a part of it.
func (b *bisection) watched(ctx context.Context, lo, hi uint64) (uint64, bool, error) {
	n := uint64(len(b.ts))
	found, steps, errs := make([]bool, n), make([]uint64, n), make([]error, n)
	ctxs, stop := make([]context.Context, n), make([]context.CancelFunc, n)
	for i := range ctxs {
		ctxs[i], stop[i] = context.WithCancel(ctx)
		defer stop[i]()
	}
	var wg sync.WaitGroup
	for i := range n {
		from, to := lo+(hi-lo)/n*i, lo+(hi-lo)/n*(i+1)
		if i == n-1 {
			to = hi
		}
		wg.Go(func() {
			steps[i], found[i], errs[i] = b.scan(ctxs[i], b.ts[i], from, to)
			if found[i] {
				for k := i + 1; k < n; k++ {
					stop[k]() // what comes later is not the first
				}
			}
		})
	}
	wg.Wait()
	for i := range n {
		if found[i] || errs[i] != nil {
			return steps[i], found[i], errs[i]
		}
	}
	return 0, false, nil
}
