package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"refault/compare"
	"refault/injectors"
	"refault/replay"
	"refault/vmm"
)

type injectFlags struct {
	optionFlags
	out, plan     string
	faults        []string
	expect        []string
	maxSteps      uint64
	console, json bool
}

var injectVerb = verb{
	name:    "inject",
	summary: "play a recording with hardware faults, and record what becomes of it",
	long: `A fault is KIND:key=value,...@TRIGGER; refault faults lists the kinds. The faulty run begins
at the last snapshot before the first fault. It is a recording like any other: the faults are in its
own log, so it replays without the injector. A run that does not end is stopped at --max-steps.
With --expect the outcome is told too, as refault diff tells it, and decides the status.`,
	example: `refault inject boot.rec -o srao.rec --fault mce:type=srao,addr=0xbaec000@step:812345678
refault inject boot.rec -o unc.rec --fault ata:error=unc,lba=2344@step:8e8 --fault reg:name=rax,bit=17@time:1.5s`,
	args: "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		i := new(injectFlags)
		f.StringVarP(&i.out, "output", "o", "", "directory of the faulty recording; it must not exist")
		f.StringArrayVar(&i.faults, "fault", nil, "a fault; more than one is possible")
		f.StringVar(&i.plan, "plan", "", "a YAML file of faults")
		i.optionFlags.add(f)
		f.Var(stepFlag{v: &i.maxSteps}, "max-steps", "stop after so many instructions (default: twice the golden run's, and 1e9)")
		expectFlag(f, &i.expect)
		f.BoolVar(&i.console, "console", false, "show what the guest says")
		f.BoolVar(&i.json, "json", false, "tell the result as JSON")
		return i
	},
	run: runInject,
}

// noticesShown is how many lines the life of the faults takes at most.
const noticesShown = 20

func runInject(ctx context.Context, a *app, c *call) (int, error) {
	i := c.flags.(*injectFlags)
	if i.out == "" {
		return 0, usagef("-o is missing: where the faulty recording goes")
	}
	expect, err := parseOutcomes(c, i.expect)
	if err != nil {
		return 0, err
	}
	var faults []*injectors.Fault
	for _, text := range i.faults {
		f, err := injectors.Parse(text)
		if err != nil {
			return 0, err
		}
		faults = append(faults, f)
	}
	if i.plan != "" {
		planned, err := injectors.ReadPlan(i.plan)
		if err != nil {
			return 0, err
		}
		faults = append(faults, planned...)
	}
	if len(faults) == 0 {
		return 0, usagef("--fault is missing, or --plan")
	}
	p, err := a.open(c.args[0])
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if err := bind(faults, a.names(ctx, p)); err != nil {
		return 0, err
	}
	prog := newProgress(a.err, "injecting")
	opt := replay.Options{MarkEvery: i.markEvery, SnapshotEvery: i.snapshotEvery, MaxSteps: i.maxSteps}
	flush := func() {}
	if i.console {
		opt.Console, flush = guestOutput(a.out, false)
	} else {
		opt.Progress = func(step, _ uint64) { prog.at(step, p.End()) }
	}
	inj, err := injectors.Inject(p, i.out, faults, opt)
	if err != nil {
		return 0, err
	}
	undo := withCancel(ctx, inj.Interrupt)
	end, err := inj.Run()
	undo()
	flush()
	prog.done()
	waiting, notices := inj.Waiting(), inj.Notices()
	if e := inj.Close(); err == nil {
		err = e
	}
	if errors.Is(err, injectors.ErrSpec) || errors.Is(err, vmm.ErrTarget) {
		// The fault cannot be, which only its trigger's position could tell: nothing has been recorded that golden does not have.
		err = errors.Join(err, os.RemoveAll(i.out))
	}
	if err != nil {
		return 0, err
	}
	var never []string
	for _, w := range waiting {
		never = append(never, w.String())
	}
	var outcome compare.Outcome
	var why string
	if len(expect) > 0 {
		f, err := a.open(i.out)
		if err != nil {
			return 0, err
		}
		outcome, why = compare.Classify(p, f)
		if err := f.Close(); err != nil {
			return 0, err
		}
	}
	if i.json {
		if err := writeJSON(a.out, struct {
			Recording string       `json:"recording"`
			Step      uint64       `json:"step"`
			TimeNs    uint64       `json:"time_ns"`
			Reason    string       `json:"reason"`
			Status    uint32       `json:"status"`
			Never     []string     `json:"never_triggered,omitempty"`
			Notices   []vmm.Notice `json:"notices,omitempty"`

			Outcome compare.Outcome `json:"outcome,omitempty"`
			Why     string          `json:"why,omitempty"`
		}{i.out, end.Step, end.TimeNs, end.Reason, end.Status, never, notices, outcome, why}); err != nil {
			return 0, err
		}
	} else {
		for _, n := range notices[:min(len(notices), noticesShown)] {
			fmt.Fprintf(a.err, "refault: step %d: %s\n", n.Step, n)
		}
		if more := len(notices) - noticesShown; more > 0 {
			fmt.Fprintf(a.err, "refault: and so on, at least %d times more\n", more)
		}
		fmt.Fprintf(a.err, "refault: recorded %s: %s steps; ended: %s\n", i.out, grouped(end.Step), endText(end.Reason, end.Status))
		if outcome != "" {
			fmt.Fprintf(a.err, "refault: outcome %s: %s\n", outcome, why)
		}
	}
	if len(never) > 0 {
		return 0, fmt.Errorf("the run ended at step %d, %s, before a trigger came (%s); %s holds what happened without it",
			end.Step, seconds(end.TimeNs), strings.Join(never, "; "), i.out)
	}
	if len(expect) > 0 && !slices.Contains(expect, outcome) {
		return statusDifferent, nil
	}
	return statusDone, nil
}

// bind resolves the symbols, modules and processes that faults name, in the recorded guest, of which no more is read than they need.
func bind(faults []*injectors.Fault, n *names) error {
	needsGuest := func(f *injectors.Fault) bool { return f.NeedsGuest(nil) }
	var s injectors.Symbols
	if slices.ContainsFunc(faults, needsGuest) || slices.ContainsFunc(faults, (*injectors.Fault).Symbolic) {
		var err error
		if s, err = n.scope(); err != nil {
			return err
		}
	}
	for _, f := range faults {
		if s != nil && f.NeedsGuest(s) {
			k, err := n.kernel()
			if err != nil {
				return err
			}
			if g := k.guest(); g != nil {
				f.SetGuest(g)
			}
			if _, err := k.linux(); err != nil && needsGuest(f) {
				return fmt.Errorf("fault %q: %w", f, err)
			}
		}
		if err := f.Bind(s); err != nil {
			return err
		}
	}
	return nil
}
