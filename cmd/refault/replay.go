package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"refault/replay"
	"refault/vmm"
)

type replayFlags struct {
	to      uint64
	console bool
	measureFlags
}

var replayVerb = verb{
	name:    "replay",
	summary: "play a recording",
	long: `Plays from the beginning, or with --to from the nearest snapshot before that step, and
compares every state-hash mark on the way.`,
	example: "refault replay boot.rec --console\nrefault replay boot.rec --to 812345678",
	args:    "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		r := &replayFlags{to: vmm.Never}
		f.Var(stepFlag{&r.to, true}, "to", "step to stop at (default: the end)")
		f.BoolVar(&r.console, "console", false, "show what the guest says")
		r.measureFlags.add(f)
		return r
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		r := c.flags.(*replayFlags)
		p, err := a.measured(c.args[0], &r.measureFlags)
		if err != nil {
			return 0, err
		}
		defer p.Close()
		to := r.to
		if to == vmm.Never {
			to = p.End()
		}
		flush := func() {}
		prog := newProgress(a.err, "replaying")
		if r.console {
			p.Console, flush = guestOutput(a.out, false)
		} else {
			p.Progress = prog.at
		}
		defer withCancel(ctx, p.Interrupt)()
		if r.to == vmm.Never {
			err = p.Verify()
		} else {
			err = p.Seek(to)
		}
		flush()
		prog.done()
		if e := r.end(p.Machine()); err == nil {
			err = e
		}
		var d *replay.Divergence
		if errors.As(err, &d) {
			fmt.Fprintf(a.out, "%s\n", d)
			return statusDifferent, r.print(a.err)
		}
		if err != nil {
			return 0, err
		}
		if r.to == vmm.Never {
			fmt.Fprintf(a.err, "refault: replayed %s: %s steps, every mark equal\n", c.args[0], grouped(to))
		} else {
			fmt.Fprintf(a.err, "refault: %s is at step %d\n", c.args[0], to)
		}
		return statusDone, r.print(a.err)
	},
}

type verifyFlags struct {
	json bool
	measureFlags
}

var verifyVerb = verb{
	name:    "verify",
	summary: "play a whole recording and compare every hash and every byte of output",
	long: `Status 0: the replay is the recorded run, bit for bit. Status 1: it is not; the first
difference is told. A recording that was cut off is verified up to its last mark.`,
	example: "refault verify boot.rec",
	args:    "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		v := new(verifyFlags)
		f.BoolVar(&v.json, "json", false, "tell the result as JSON")
		v.measureFlags.add(f)
		return v
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		v := c.flags.(*verifyFlags)
		p, err := a.measured(c.args[0], &v.measureFlags)
		if err != nil {
			return 0, err
		}
		defer p.Close()
		prog := newProgress(a.err, "verifying")
		p.Progress = prog.at
		defer withCancel(ctx, p.Interrupt)()
		err = p.Verify()
		prog.done()
		if e := v.end(p.Machine()); err == nil {
			err = e
		}
		var d *replay.Divergence
		if err != nil && !errors.As(err, &d) {
			return 0, err
		}
		status := statusDone
		if d != nil {
			status = statusDifferent
		}
		if v.json {
			return status, writeJSON(a.out, struct {
				Equal      bool               `json:"equal"`
				Complete   bool               `json:"complete"`
				Steps      uint64             `json:"steps"`
				Marks      int                `json:"marks"`
				Divergence *replay.Divergence `json:"divergence,omitempty"`
				Stats      *vmm.Stats         `json:"stats,omitempty"`
			}{d == nil, p.Complete(), p.End(), len(p.Marks()), d, v.result})
		}
		if d != nil {
			fmt.Fprintf(a.out, "%s\n", d)
			return status, v.print(a.err)
		}
		fmt.Fprintf(a.out, "%s: equal: %s steps, %d marks, %s of console\n", c.args[0], grouped(p.End()), len(p.Marks()), about(int64(len(p.RecordedConsole()))))
		if !p.Complete() {
			fmt.Fprintf(a.err, "refault: %s was cut off: its recorder did not reach the end of the run\n", c.args[0])
		}
		return status, v.print(a.err)
	},
}

// jsonFlag is the flags of a verb that has only --json.
func jsonFlag(f *pflag.FlagSet) any { return f.Bool("json", false, "tell the result as JSON") }
