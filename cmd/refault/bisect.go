package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"refault/compare"
	"refault/replay"
	"refault/vmm"
)

type bisectFlags struct {
	when        string
	from, to    uint64
	exact, json bool
}

var bisectVerb = verb{
	name:    "bisect",
	summary: "find the first step at which something is so",
	long: `Of one recording: the first step at which the condition --when holds, found by replaying
O(log n) intervals from snapshots. It is taken for something that holds from some step on and
not before; with --exact, every change of a mem condition is looked at. Conditions:
` + compare.Predicates + `
A command gets {"step", "time_ns", "registers", "console", ...} on its standard input, and
REFAULT_STEP and REFAULT_RECORDING in its environment, for refault dump.
Of two recordings: the first step at which they differ, as diff finds it.
Status 0: found. Status 1: it never holds, or they never differ.`,
	example: `refault bisect boot.rec --when 'console:EXT4-fs .sda.: mounted'
refault bisect srao.rec --when 'mem:0x29d5000:4!=00000000'
refault bisect boot.rec --when 'cmd:jq -e ".registers.cr3 != \"0x0000000000000000\""'
refault bisect boot.rec srao.rec`,
	args: "RECORDING | GOLDEN FAULTY", minArgs: 1, maxArgs: 2,
	flags: func(f *pflag.FlagSet) any {
		b := &bisectFlags{to: vmm.Never}
		f.StringVar(&b.when, "when", "", "the condition")
		f.Var(stepFlag{v: &b.from}, "from", "first step to look at (default: the beginning)")
		f.Var(stepFlag{&b.to, true}, "to", "last step to look at (default: the end)")
		f.BoolVar(&b.exact, "exact", false, "look at every change from --from on")
		f.BoolVar(&b.json, "json", false, "tell the result as JSON")
		return b
	},
	run: runBisect,
}

// bisectPlayers is how many machines work at the same time.
const bisectPlayers = 2

func runBisect(ctx context.Context, a *app, c *call) (int, error) {
	b := c.flags.(*bisectFlags)
	switch {
	case len(c.args) == 2 && (b.when != "" || b.exact || c.set.Changed("from") || c.set.Changed("to")):
		return 0, usagef("of two recordings the first difference is found; --when, --from, --to and --exact are for one")
	case len(c.args) == 2:
		return bisectTwo(ctx, a, c, b.json)
	case b.when == "":
		return 0, usagef("--when is missing: the condition")
	}
	var ps []*replay.Player
	for range bisectPlayers {
		p, err := a.open(c.args[0])
		if err != nil {
			return 0, err
		}
		defer p.Close()
		defer withCancel(ctx, p.Interrupt)()
		ps = append(ps, p)
	}
	p := ps[0]
	names := a.names(ctx, p)
	q, err := compare.ParsePredicate(b.when, names.location)
	if err != nil {
		return 0, err
	}
	if b.to == vmm.Never {
		b.to = p.End()
	}
	b.from = max(b.from, p.Start())
	if b.from > b.to || b.to > p.End() {
		return 0, fmt.Errorf("steps %d to %d: the recording %s has steps %d to %d: %w", b.from, b.to, p.Dir, p.Start(), p.End(), replay.ErrBeyond)
	}
	prog := newProgress(a.err, "bisecting")
	r, err := compare.Bisect(ctx, ps, q, compare.BisectOptions{From: b.from, To: b.to, Exact: b.exact, Symbols: names.nameOf(p.Machine()), Progress: prog.at})
	prog.done()
	if err != nil {
		return 0, err
	}
	status := statusDone
	if !r.Found {
		status = statusDifferent
	}
	if b.json {
		return status, writeJSON(a.out, r)
	}
	printBisection(a.out, r, b)
	return status, nil
}

func printBisection(w io.Writer, r *compare.Bisection, b *bisectFlags) {
	switch {
	case !r.Found:
		fmt.Fprintf(w, "%s does not hold from step %d to step %d\n", r.Predicate, b.from, b.to)
	case r.Made == nil:
		fmt.Fprintf(w, "%s holds at step %d already, the first that was looked at\n", r.Predicate, r.Step)
	default:
		fmt.Fprintf(w, "%s holds from step %d on, after\n  %s\n(evaluated %d times)\n", r.Predicate, r.Step, executedText(r.Made), r.Tried)
	}
}

// bisectTwo finds the first difference of two runs.
func bisectTwo(ctx context.Context, a *app, c *call, asJSON bool) (int, error) {
	r, err := diffOf(ctx, a, c.args[0], c.args[1])
	if err != nil {
		return 0, err
	}
	status := statusDone
	if r.First == nil {
		status = statusDifferent
	}
	if asJSON {
		return status, writeJSON(a.out, r.First)
	}
	if r.First == nil {
		fmt.Fprintln(a.out, "they never differ, but for what faults changed by themselves")
	} else {
		printDivergence(a.out, r.First)
	}
	return status, nil
}
