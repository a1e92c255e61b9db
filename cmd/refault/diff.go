package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"refault/compare"
	"refault/replay"
)

type diffFlags struct {
	expect []string
	json   bool
}

var diffVerb = verb{
	name:    "diff",
	summary: "tell how a faulty run departs from the golden one",
	long: `Both recordings are played side by side to the first instruction after which the
processors differ; their consoles are compared by line, time stamps aside, and what they wrote
to their disks sector by sector; and the outcome is classified: masked, latent, sdc, corrected, recovered, crash or hang.
Status 0: no difference. Status 1: there is one. With --expect it is the outcome that counts.`,
	example: "refault diff boot.rec srao.rec\nrefault diff boot.rec srao.rec --expect recovered,corrected",
	args:    "GOLDEN FAULTY", minArgs: 2, maxArgs: 2,
	flags: func(f *pflag.FlagSet) any {
		d := new(diffFlags)
		expectFlag(f, &d.expect)
		f.BoolVar(&d.json, "json", false, "tell the result as JSON")
		return d
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		flags := c.flags.(*diffFlags)
		expect, err := parseOutcomes(c, flags.expect)
		if err != nil {
			return 0, err
		}
		r, err := diffOf(ctx, a, c.args[0], c.args[1])
		if err != nil {
			return 0, err
		}
		status := statusDifferent
		switch {
		case len(expect) > 0:
			if slices.Contains(expect, r.Outcome) {
				status = statusDone
			}
		case r.Equal:
			status = statusDone
		}
		if flags.json {
			return status, writeJSON(a.out, r)
		}
		printReport(a.out, r)
		return status, nil
	},
}

// pairOf opens a golden and a faulty recording. undo closes them.
func pairOf(ctx context.Context, a *app, golden, faulty string) (g, f *replay.Player, undo func(), err error) {
	if g, err = a.open(golden); err != nil {
		return nil, nil, nil, err
	}
	if f, err = a.open(faulty); err != nil {
		return nil, nil, nil, errors.Join(err, g.Close())
	}
	stop := withCancel(ctx, func() { g.Interrupt(); f.Interrupt() })
	return g, f, func() {
		stop()
		g.Close()
		f.Close()
	}, nil
}

// diffOf compares two recordings.
func diffOf(ctx context.Context, a *app, golden, faulty string) (*compare.Report, error) {
	g, f, undo, err := pairOf(ctx, a, golden, faulty)
	if err != nil {
		return nil, err
	}
	defer undo()
	prog := newProgress(a.err, "comparing")
	defer prog.done()
	opt := compareOptions(g, f)
	opt.Progress = prog.at
	return compare.Diff(g, f, opt)
}

func expectFlag(f *pflag.FlagSet, names *[]string) {
	f.StringSliceVar(names, "expect", nil, "outcomes that are as they should be: with them the status is 0, with any other 1")
}

// parseOutcomes reads the names that --expect gave.
func parseOutcomes(c *call, names []string) (outcomes []compare.Outcome, err error) {
	if c.set.Changed("expect") && len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		o := compare.Outcome(strings.TrimSpace(name))
		if !slices.Contains(compare.Outcomes(), o) {
			var known []string
			for _, k := range compare.Outcomes() {
				known = append(known, string(k))
			}
			return nil, usagef("--expect: no outcome %q; the outcomes are %s", name, strings.Join(known, ", "))
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

func printReport(w io.Writer, r *compare.Report) {
	if r.Equal {
		fmt.Fprintf(w, "equal: %s steps, ended: %s\n", grouped(r.Golden.Step), endText(r.Golden.Reason, r.Golden.Status))
		return
	}
	for _, i := range r.Injected {
		fmt.Fprintf(w, "fault         %s, at step %d\n", i.Spec, i.Step)
	}
	switch d := r.First; {
	case d != nil:
		printDivergence(w, d)
		printConsequences(w, r)
	case r.Healed != nil:
		fmt.Fprintf(w, "divergence    none: what the fault had changed was gone by step %d, and nothing had come of it\n", *r.Healed)
	default:
		fmt.Fprintln(w, "divergence    none: nothing ever came of the fault")
	}
	if d := r.First; d != nil && d.Step > r.SureTo || d == nil && r.SureTo < min(r.Golden.Step, r.Faulty.Step) {
		fmt.Fprintf(w, "              one that came and went after step %d would not have been seen\n", r.SureTo)
	}
	if o := r.Output; o == nil {
		fmt.Fprintln(w, "output        equal")
	} else {
		fmt.Fprintf(w, "output        differs from line %d on: %d lines more, %d fewer\n", o.Line, r.Console.Added, r.Console.Removed)
		for _, line := range excerpt(r.Console.Hunks, 24) {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
	for i := range r.Disks {
		printDisk(w, &r.Disks[i])
	}
	fmt.Fprintf(w, "end           step %d, %s; golden step %d, %s\n", r.Faulty.Step, endText(r.Faulty.Reason, r.Faulty.Status), r.Golden.Step, endText(r.Golden.Reason, r.Golden.Status))
	fmt.Fprintf(w, "outcome       %s: %s\n", r.Outcome, r.Why)
}

func printDisk(w io.Writer, d *compare.DiskDiff) {
	fmt.Fprintf(w, "%-13s %s\n", d.Name, d.Summary())
	if x := d.First; x != nil {
		fmt.Fprintf(w, "  %s\n  golden      %s\n  faulty      %s\n", x.Summary(), writeText(x.Golden, x.GoldenBytes), writeText(x.Faulty, x.FaultyBytes))
	}
	if d.Note != "" {
		fmt.Fprintf(w, "  %s\n", d.Note)
	}
}

func writeText(x *compare.Write, data string) string {
	if x == nil {
		return "not written"
	}
	return fmt.Sprintf("%s, by a write at step %d of %s from LBA %d on", data, x.Step, compare.Sectors(x.Sectors), x.LBA)
}

// excerpt is the beginning of the hunks, in at most n lines. Of many lines that are
// missing, or new, in a row it has the first and the last few.
func excerpt(hunks []compare.Hunk, n int) (lines []string) {
	const ends = 4
	for i := range hunks {
		all := strings.Split(strings.TrimSuffix(hunks[i].Unified(), "\n"), "\n")
		for at := 0; at < len(all); {
			end := at + 1
			for end < len(all) && all[end][0] == all[at][0] && all[at][0] != ' ' {
				end++
			}
			if run := all[at:end]; len(run) > 2*ends+1 {
				lines = append(lines, run[:ends]...)
				lines = append(lines, fmt.Sprintf("%c... %d lines ...", run[0][0], len(run)-2*ends))
				lines = append(lines, run[len(run)-ends:]...)
			} else {
				lines = append(lines, run...)
			}
			at = end
		}
	}
	if len(lines) > n {
		lines = append(lines[:n], fmt.Sprintf("and %d lines more", len(lines)-n))
	}
	return lines
}

func printDivergence(w io.Writer, d *compare.Divergence) {
	fmt.Fprintf(w, "divergence    at step %d\n  golden      %s\n  faulty      %s\n", d.Step, executedText(&d.Golden), executedText(&d.Faulty))
	const shown = 12
	for i, x := range d.Registers {
		if i == shown {
			fmt.Fprintf(w, "  and %d more registers\n", len(d.Registers)-shown)
			break
		}
		fmt.Fprintf(w, "  %-11s %s, golden %s\n", x.Name, x.Faulty, x.Golden)
	}
	for i := range d.Words {
		if i == shown {
			fmt.Fprintf(w, "  and more words of memory\n")
			break
		}
		fmt.Fprintf(w, "  %s\n", wordText(&d.Words[i]))
	}
	for _, name := range d.Devices {
		fmt.Fprintf(w, "  %-11s differs\n", name)
	}
}

func wordText(x *compare.WordDiff) string {
	s := fmt.Sprintf("%-11s %#x, golden %#x", fmt.Sprintf("%#x", x.Addr), x.Faulty, x.Golden)
	if x.Owner != "" {
		s += "  (" + x.Owner + ")"
	}
	return s
}

func printConsequences(w io.Writer, r *compare.Report) {
	within := fmt.Sprintf("the same for the next %s steps", grouped(r.Searched))
	split := func(what string, s *compare.Split, side func(s *compare.Split) (golden, faulty string)) {
		if s == nil {
			fmt.Fprintf(w, "%-13s %s\n", what, within)
			return
		}
		g, f := side(s)
		fmt.Fprintf(w, "%-13s at step %d, %s\n  golden      %s\n  faulty      %s\n", what, s.Step, executedText(&s.Faulty), g, f)
	}
	split("control flow", r.Flow, func(s *compare.Split) (string, string) {
		return "goes to " + addressText(s.GoldenRIP, s.GoldenAt), "goes to " + addressText(s.FaultyRIP, s.FaultyAt)
	})
	split("privilege", r.Privilege, func(s *compare.Split) (string, string) {
		return fmt.Sprintf("is at level %d", s.GoldenCPL), fmt.Sprintf("is at level %d", s.FaultyCPL)
	})
	if m := r.Memory; m == nil {
		fmt.Fprintf(w, "memory        %s\n", within)
	} else {
		fmt.Fprintf(w, "memory        at step %d, %s\n  %s\n", m.Step, executedText(&m.Faulty), wordText(&m.WordDiff))
	}
}

func addressText(addr uint64, symbol string) string {
	s := fmt.Sprintf("%016x", addr)
	if symbol != "" {
		s += " <" + symbol + ">"
	}
	return s
}

func executedText(e *compare.Executed) string {
	at := fmt.Sprintf("%04x:%016x", e.CS, e.RIP)
	if e.Symbol != "" {
		at += " <" + e.Symbol + ">"
	}
	at = fmt.Sprintf("%s  %x  %s", at, e.Code, e.Text)
	if e.After != "" {
		at += "  (after " + e.After + ")"
	}
	return at
}
