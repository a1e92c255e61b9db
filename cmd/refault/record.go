package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/pflag"

	"refault/replay"
	"refault/vmm"
)

type recordFlags struct {
	machineFlags
	optionFlags
	measureFlags
	out         string
	quiet, json bool
}

// optionFlags say how a recording is made.
type optionFlags struct{ markEvery, snapshotEvery uint64 }

func (o *optionFlags) add(f *pflag.FlagSet) {
	o.snapshotEvery = replay.DefaultSnapshotEvery
	f.Var(stepFlag{v: &o.markEvery}, "mark-every", "steps between state-hash marks (default: 100000000, or the parent's)")
	f.Var(stepFlag{v: &o.snapshotEvery}, "snapshot-every", "steps between snapshots; 0: only the first")
}

var recordVerb = verb{
	name:    "record",
	summary: "boot a machine and record the run",
	long: `The recording is a directory. It holds what the machine was (its files by hash), every
input that came from outside, hashes of the whole state, snapshots, and the console's output.
The guest's console is standard output; on a terminal it reads the keyboard: Ctrl-A x leaves.`,
	example: `refault record -o boot.rec --kernel vmlinuz --initrd initrd.cpio --append console=ttyS0 --disk disk.img`,
	flags: func(f *pflag.FlagSet) any {
		r := new(recordFlags)
		f.StringVarP(&r.out, "output", "o", "", "directory of the recording; it must not exist")
		r.machineFlags.add(f)
		r.optionFlags.add(f)
		r.measureFlags.add(f)
		f.BoolVarP(&r.quiet, "quiet", "q", false, "show progress in place of the console")
		f.BoolVar(&r.json, "json", false, "tell the result as JSON")
		return r
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		r := c.flags.(*recordFlags)
		s, err := r.setup(a.engine)
		if err != nil {
			return 0, err
		}
		if r.out == "" {
			return 0, usagef("-o is missing: where the recording goes")
		}
		opt := replay.Options{MarkEvery: r.markEvery, SnapshotEvery: r.snapshotEvery, MaxSteps: r.maxSteps}
		put, flush := guestOutput(a.out, a.typing(r.input))
		prog := newProgress(a.err, "recording")
		if r.quiet || r.json {
			opt.Progress = func(step, _ uint64) { prog.at(step, r.maxSteps) }
		} else {
			opt.Console = put
		}
		end, err := a.live(ctx, &r.machineFlags, &r.measureFlags, func(in inputs) (liveRun, error) { return replay.NewRecorder(r.out, s, in, opt) })
		flush()
		prog.done()
		if err != nil {
			return 0, err
		}
		if r.json {
			return statusDone, json.NewEncoder(a.out).Encode(struct {
				Recording string     `json:"recording"`
				Step      uint64     `json:"step"`
				TimeNs    uint64     `json:"time_ns"`
				Reason    string     `json:"reason"`
				Status    uint32     `json:"status"`
				Stats     *vmm.Stats `json:"stats,omitempty"`
			}{r.out, end.Step, end.TimeNs, end.Reason, end.Status, r.result})
		}
		fmt.Fprintf(a.err, "refault: recorded %s: %s steps, %s of virtual time; ended: %s\n", r.out, grouped(end.Step), seconds(end.TimeNs), endText(end.Reason, end.Status))
		return statusDone, r.print(a.err)
	},
}
