package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/spf13/pflag"

	"refault/replay"
	"refault/vmm"
)

type logFlags struct {
	console, json bool
	match         string
}

var logVerb = verb{
	name:    "log",
	summary: "list the events of a recording, or the lines of its console with their steps",
	long: `Without flags: every input that came from outside, at its step. With --console: every
line that the guest said, at the step of its last byte, found by playing the recording.`,
	example: "refault log srao.rec\nrefault log boot.rec --console --match 'hello:'",
	args:    "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		l := new(logFlags)
		f.BoolVar(&l.console, "console", false, "list the lines of the console")
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
			return statusDone, consoleLines(a, p, l.json, re, enc)
		}
		for _, e := range p.Events() {
			text := eventText(e)
			if !re.MatchString(text) {
				continue
			}
			if l.json {
				err = enc.Encode(struct {
					Step   uint64 `json:"step"`
					TimeNs uint64 `json:"time_ns"`
					Kind   string `json:"kind"`
					Text   string `json:"text"`
				}{e.Step, e.TimeNs, e.Kind.String(), text})
			} else {
				_, err = fmt.Fprintf(a.out, "%14d  %-8s %s\n", e.Step, e.Kind, text)
			}
			if err != nil {
				return 0, err
			}
		}
		return statusDone, nil
	},
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
