package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/spf13/pflag"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/x86"
)

type logFlags struct {
	console, life, json bool
	match               string
}

var logVerb = verb{
	name:    "log",
	summary: "list the events of a recording, or the lines of its console with their steps",
	long: `Without flags: every input that came from outside, at its step. With --console: every
line that the guest said, at the step of its last byte, found by playing the recording. With
--life, what became of the faults as well: when each was met, when it was reported and how, and
when the guest read that and cleared it; also found by playing.`,
	example: "refault log srao.rec\nrefault log boot.rec --console --match 'hello:'",
	args:    "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		l := new(logFlags)
		f.BoolVar(&l.console, "console", false, "list the lines of the console")
		f.BoolVar(&l.life, "life", false, "list what became of faults, too")
		f.StringVar(&l.match, "match", "", "only lines that match this regular expression")
		f.BoolVar(&l.json, "json", false, "one JSON object a line")
		return l
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		l := c.flags.(*logFlags)
		re, err := regexp.Compile(l.match)
		if err != nil {
			return 0, usagef("--match: %w", err)
		}
		p, err := a.open(c.args[0])
		if err != nil {
			return 0, err
		}
		defer p.Close()
		defer withCancel(ctx, p.Interrupt)()
		enc := json.NewEncoder(a.out)
		if l.console {
			if l.life {
				return 0, usagef("--console and --life: choose one")
			}
			return statusDone, consoleLines(a, p, l.json, re, enc)
		}
		entry := func(step, timeNs uint64, kind, text string) error {
			if !re.MatchString(text) {
				return nil
			}
			if l.json {
				return enc.Encode(struct {
					Step   uint64 `json:"step"`
					TimeNs uint64 `json:"time_ns"`
					Kind   string `json:"kind"`
					Text   string `json:"text"`
				}{step, timeNs, kind, text})
			}
			_, err := fmt.Fprintf(a.out, "%14d  %-8s %s\n", step, kind, text)
			return err
		}
		events := p.Events()
		upTo := func(step uint64) (err error) {
			for ; err == nil && len(events) > 0 && events[0].Step <= step; events = events[1:] {
				e := events[0]
				err = entry(e.Step, e.TimeNs, e.Kind.String(), eventText(e))
			}
			return err
		}
		if l.life {
			if err := life(p, func(step, timeNs uint64, text string) error {
				return errors.Join(upTo(step), entry(step, timeNs, "life", text))
			}); err != nil {
				return 0, err
			}
		}
		return statusDone, upTo(vmm.Never)
	},
}

// life plays a recording from its first fault on, and tells what becomes of the faults.
func life(p *replay.Player, tell func(step, timeNs uint64, text string) error) (err error) {
	first := uint64(vmm.Never)
	for _, e := range p.Events() {
		if e.Kind == vmm.EventFault {
			first = min(first, e.Step)
		}
	}
	if first == vmm.Never {
		return nil
	}
	if err := p.Seek(first); err != nil {
		return err
	}
	m := p.Machine()
	o := &vmm.Observer{
		Notice: func(n vmm.Notice) { err = errors.Join(err, tell(n.Step, n.TimeNs, n.String())) },
		Delivered: func(c *x86.CPU, e x86.Exception) {
			if e.Vec == x86.VecMC || e.Vec == x86.VecNMI || e.Vec == x86.VecDF {
				err = errors.Join(err, tell(c.Step, m.TimeNs(), x86.VectorName(e.Vec)+" delivered"))
			}
		},
	}
	m.Observe(o)
	defer m.Unobserve(o)
	return errors.Join(p.RunTo(p.End()), err)
}

// consoleLines lists the matching lines of the console.
func consoleLines(a *app, p *replay.Player, asJSON bool, re *regexp.Regexp, enc *json.Encoder) error {
	prog := newProgress(a.err, "playing")
	defer prog.done()
	if isTerminal(a.err) && !isTerminal(a.out) {
		p.Progress = prog.at
	}
	type line struct {
		Step uint64 `json:"step"`
		Line int    `json:"line"`
		Text string `json:"text"`
	}
	var lines []line
	var last []uint64 // the last byte of each
	at := 0
	for n, b := range bytes.SplitAfter(p.RecordedConsole(), []byte("\n")) {
		at += len(b)
		if text := bytes.TrimRight(b, "\r\n"); len(b) > 0 && re.Match(text) {
			lines = append(lines, line{vmm.Never, n + 1, string(text)})
			last = append(last, uint64(at-1))
		}
	}
	steps, failed := p.OutputSteps(last)
	for i, l := range lines {
		if l.Step = steps[i]; l.Step == vmm.Never {
			continue // what failed, failed before it
		}
		var err error
		if asJSON {
			err = enc.Encode(l)
		} else {
			_, err = fmt.Fprintf(a.out, "%14d  %s\n", l.Step, l.Text)
		}
		if err != nil {
			return err
		}
	}
	return failed
}
