package injectors

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"refault/replay"
)

// Campaign is many trials from one position of a golden run, each with faults drawn
// anew. The same seed draws the same faults, whatever runs them in which order.
type Campaign struct {
	At, Steps uint64 // where each trial begins, and how long it lasts
	Faults    []*Template
	Count     int
	Seed      uint64
	// Bind resolves the names in the faults of a trial (Fault.SetGuest, Fault.Bind), and may be called by
	// several trials at once; nil: there are no names.
	Bind func(faults []*Fault) error
}

// Draw returns the faults of trial i.
func (c *Campaign) Draw(i int) ([]*Fault, error) {
	r := rand.New(rand.NewPCG(c.Seed, uint64(i)))
	var fs []*Fault
	for _, t := range c.Faults {
		f, err := Parse(t.Draw(r))
		if err != nil {
			return nil, err
		}
		fs = append(fs, f)
	}
	if c.Bind == nil {
		return fs, nil
	}
	return fs, c.Bind(fs)
}

// Run runs the trials on players of one recording, in parallel. done is called for each
// with the golden run's own trial to compare it with, one call at a time and in any
// order. The first error ends the campaign.
func (c *Campaign) Run(ctx context.Context, players []*replay.Player, done func(i int, faults []*Fault, golden, t *Trial) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	go func() {
		defer close(next)
		for i := range c.Count {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range players {
		wg.Go(func() {
			if err := c.work(ctx, p, next, func(i int, fs []*Fault, golden, t *Trial) error {
				mu.Lock()
				defer mu.Unlock()
				return done(i, fs, golden, t)
			}); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// work runs the trials that come from next on one player.
func (c *Campaign) work(ctx context.Context, p *replay.Player, next <-chan int, done func(int, []*Fault, *Trial, *Trial) error) error {
	defer context.AfterFunc(ctx, p.Interrupt)()
	if err := p.Seek(c.At); err != nil {
		return err
	}
	golden, err := Try(p, nil, c.Steps)
	if err != nil {
		return err
	}
	for i := range next {
		fs, err := c.Draw(i)
		if err != nil {
			return err
		}
		t, err := Try(p, fs, c.Steps)
		if err == nil {
			err = done(i, fs, golden, t)
		}
		if err != nil {
			return fmt.Errorf("trial %d: %w", i, err)
		}
	}
	return nil
}
