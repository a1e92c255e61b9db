package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"refault/replay"
	"refault/vmm"
)

type snapshotFlags struct {
	at   uint64
	json bool
}

var snapshotVerb = verb{
	name:    "snapshot",
	summary: "list the snapshots of a recording, or take one more",
	long: `A snapshot is where a replay can start. Those of the recorder come at a cadence; take adds
one at any step, so that what follows is near. It changes nothing of the run.`,
	example: "refault snapshot list boot.rec\nrefault snapshot take boot.rec --at 812345678",
	args:    "list|take RECORDING", minArgs: 2, maxArgs: 2,
	flags: func(f *pflag.FlagSet) any {
		s := &snapshotFlags{at: vmm.Never}
		f.Var(stepFlag{&s.at, true}, "at", "step at which to take it")
		f.BoolVar(&s.json, "json", false, "tell the result as JSON")
		return s
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		s := c.flags.(*snapshotFlags)
		take := c.args[0] == "take"
		if !take && c.args[0] != "list" {
			return 0, usagef("%q: it can be list or take", c.args[0])
		}
		if take && !c.set.Changed("at") {
			return 0, usagef("--at is missing: the step at which to take the snapshot")
		}
		p, err := a.open(c.args[1])
		if err != nil {
			return 0, err
		}
		defer p.Close()
		defer withCancel(ctx, p.Interrupt)()
		if take {
			if s.at == vmm.Never {
				s.at = p.End()
			}
			if err := p.Seek(s.at); err != nil {
				return 0, err
			}
			added, err := p.TakeSnapshot()
			if err != nil {
				return 0, err
			}
			if !added && !s.json {
				fmt.Fprintf(a.err, "refault: %s has a snapshot at step %d already\n", c.args[1], s.at)
			}
		}
		return statusDone, listSnapshots(a, p, s.json)
	},
}

func listSnapshots(a *app, p *replay.Player, asJSON bool) error {
	type row struct {
		Step         uint64 `json:"step"`
		TimeNs       uint64 `json:"time_ns"`
		Full         bool   `json:"full"`
		Pages        int    `json:"pages"`
		ConsoleBytes uint64 `json:"console_bytes"`
	}
	rows := []row{}
	for i := range p.Snapshots().Steps() {
		e, err := p.Snapshots().Entry(i)
		if err != nil {
			return err
		}
		rows = append(rows, row{e.Step, e.TimeNs, e.Full, len(e.Numbers), e.ConsoleBytes})
	}
	if asJSON {
		return writeJSON(a.out, rows)
	}
	fmt.Fprintf(a.out, "%14s  %14s  %8s  %s\n", "step", "virtual time", "pages", "")
	for _, r := range rows {
		kind := "incremental"
		if r.Full {
			kind = "full"
		}
		fmt.Fprintf(a.out, "%14d  %14s  %8d  %s\n", r.Step, seconds(r.TimeNs), r.Pages, kind)
	}
	return nil
}
