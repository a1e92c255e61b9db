package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"refault/compare"
	"refault/injectors"
	"refault/replay"
	"refault/vmm"
)

type campaignFlags struct {
	faults    []string
	at, steps uint64
	count     int
	seed      uint64
	json      bool
}

var campaignVerb = verb{
	name:    "campaign",
	summary: "try many random faults from one position of a recording, and count what becomes of them",
	long: `Each trial begins at --at, lasts up to --steps instructions, and is compared with what
the golden run did in that time. In a fault, braces stand for what is drawn anew for each trial:
{LO..HI} a number, {A|B|C} a word. The same --seed draws the same faults; each can be given to
refault inject as it is told, to be recorded and looked at. Nothing is recorded here.
A trial in which a trigger did not come is told as such, and counts as what became of the guest.
Of faults in memory (mem with track=yes, poison) it also counts how many were consumed, and
what became of those.`,
	example: `refault campaign boot.rec --at 2172527832 --steps 1e7 --count 200 \
    --fault 'reg:name={rax|rcx|rdx|rsi|rdi},bit={0..63}@step:{2172527832..2182527831}'`,
	args: "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		c := &campaignFlags{steps: 10_000_000}
		f.StringArrayVar(&c.faults, "fault", nil, "a fault, with braces; several happen together in each trial")
		f.Var(stepFlag{v: &c.at}, "at", "step at which each trial begins")
		f.Var(stepFlag{&c.steps, true}, "steps", "how long a trial lasts at the most; end: as long as the rest of the golden run, and half of that more")
		f.IntVar(&c.count, "count", 100, "number of trials")
		f.Uint64Var(&c.seed, "seed", 1, "seed of the draws")
		f.BoolVar(&c.json, "json", false, "one JSON object a trial")
		return c
	},
	run: runCampaign,
}

// trialReport is what is told of a trial.
type trialReport struct {
	Trial   int             `json:"trial"`
	Faults  []string        `json:"faults"`
	Outcome compare.Outcome `json:"outcome"`
	Why     string          `json:"why"`
	Step    uint64          `json:"step"`
	Fate    injectors.Fate  `json:"fate,omitempty"` // of a fault in memory
	// Never are the faults whose trigger did not come, and how near it came.
	Never []string `json:"never_triggered,omitempty"`
}

func runCampaign(ctx context.Context, a *app, c *call) (int, error) {
	f := c.flags.(*campaignFlags)
	switch {
	case len(f.faults) == 0:
		return 0, usagef("--fault is missing")
	case f.count < 1:
		return 0, usagef("--count is %d; there has to be a trial", f.count)
	case f.steps == 0:
		return 0, usagef("--steps is 0; a trial has to last")
	}
	camp := injectors.Campaign{At: f.at, Steps: f.steps, Count: f.count, Seed: f.seed}
	for _, text := range f.faults {
		t, err := injectors.ParseTemplate(text)
		if err != nil {
			return 0, err
		}
		camp.Faults = append(camp.Faults, t)
	}
	var players []*replay.Player
	defer func() {
		for _, p := range players {
			p.Close()
		}
	}()
	for range min(runtime.GOMAXPROCS(0), f.count) {
		p, err := a.open(c.args[0])
		if err != nil {
			return 0, err
		}
		players = append(players, p)
	}
	p := players[0]
	if !c.set.Changed("at") {
		camp.At = p.Start()
	}
	if f.steps == vmm.Never {
		camp.Steps = (p.End() - min(camp.At, p.End())) / 2 * 3
	}
	names := a.names(ctx, p)
	camp.Bind = func(faults []*injectors.Fault) error { return bind(faults, names) }
	reports := make([]trialReport, f.count)
	prog, done := newProgress(a.err, "trying"), 0
	err := camp.Run(ctx, players, func(i int, faults []*injectors.Fault, golden, t *injectors.Trial) error {
		r := &reports[i]
		*r = trialReport{Trial: i, Step: t.Step, Fate: t.Fate(faults)}
		for _, f := range faults {
			r.Faults = append(r.Faults, f.String())
		}
		for _, w := range t.Waiting {
			r.Never = append(r.Never, w.String())
		}
		r.Outcome, r.Why = compare.ClassifyEndings(ending(p, golden), ending(p, t), func() bool {
			return compare.SameState(p.Manifest.Devices, &golden.State, &t.State)
		})
		done++
		prog.count(uint64(done), uint64(f.count), "trial")
		return nil
	})
	prog.done()
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("interrupted after %d of %d trials", done, f.count)
	}
	if err != nil {
		return 0, err
	}
	return statusDone, printCampaign(a, reports, f.json)
}

// ending is what a trial came to. One that was still running is compared at the step where it was left.
func ending(p *replay.Player, t *injectors.Trial) compare.Ending {
	return compare.Ending{Output: t.Output, Step: t.Step, Reason: t.Reason.String(), Status: t.Status,
		Written: t.Written, Disks: compare.DiskHashes(p.Manifest.Devices, &t.State)}
}

func printCampaign(a *app, reports []trialReport, asJSON bool) error {
	counts := map[compare.Outcome]int{}
	enc := json.NewEncoder(a.out)
	for i := range reports {
		r := &reports[i]
		counts[r.Outcome]++
		var err error
		if asJSON {
			err = enc.Encode(r)
		} else {
			text := strings.Join(r.Faults, " ")
			if len(r.Never) > 0 {
				text += "  (did not happen)"
			}
			_, err = fmt.Fprintf(a.out, "%5d  %-9s  %s\n", r.Trial, r.Outcome, text)
		}
		if err != nil {
			return err
		}
	}
	if asJSON {
		return nil
	}
	fmt.Fprintf(a.out, "\n%d trials\n", len(reports))
	for _, o := range compare.Outcomes() {
		share(a.out, string(o), counts[o], len(reports))
	}
	printFates(a.out, reports)
	var never []string
	for i := range reports {
		if n := reports[i].Never; len(n) > 0 {
			never = append(never, n[0])
		}
	}
	if len(never) > 0 {
		fmt.Fprintf(a.out, "in %d of them a fault did not happen, because its trigger did not come; the first: %s\n", len(never), never[0])
	}
	return nil
}

// share prints a line about so many of all trials.
func share(w io.Writer, what string, n, all int) {
	if n > 0 {
		lo, hi := wilson(n, all)
		fmt.Fprintf(w, "  %-11s  %5d  %5.1f %%  (95 %% confidence: %.1f to %.1f %%)\n", what, n, 100*float64(n)/float64(all), 100*lo, 100*hi)
	}
}

// printFates tells how many faults in memory were consumed, and what became of those and of the others.
func printFates(w io.Writer, reports []trialReport) {
	type key struct {
		fate    injectors.Fate
		outcome compare.Outcome
	}
	fates, both, all := map[injectors.Fate]int{}, map[key]int{}, 0
	for i := range reports {
		if r := &reports[i]; r.Fate != "" {
			all++
			fates[r.Fate]++
			both[key{r.Fate, r.Outcome}]++
		}
	}
	if all == 0 {
		return
	}
	fmt.Fprintf(w, "%d of them in memory\n", all)
	for _, f := range injectors.Fates() {
		share(w, string(f), fates[f], all)
		for _, o := range compare.Outcomes() {
			if n := both[key{f, o}]; n > 0 {
				fmt.Fprintf(w, "    %-9s  %5d\n", o, n)
			}
		}
	}
}

// wilson returns the 95 % confidence interval of a proportion (Wilson's score interval).
func wilson(k, n int) (lo, hi float64) {
	const z = 1.959964
	p, m := float64(k)/float64(n), float64(n)
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, mid-half), min(1, mid+half)
}
