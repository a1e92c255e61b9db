package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"refault/compare"
)

var explainVerb = verb{
	name:    "explain",
	summary: "tell how a fault came to be seen: the chain of instructions that carried the wrong value",
	long: `From the first wrong output, on the console or a disk, or from where control flow split before it, back to the fault:
each instruction that made something wrong of something wrong, through registers, memory and
devices, in the order in which it happened; and beside that chain what else was wrong and went into it. Where the output is wrong because control flow had
split, the calls that led from there to the output are told too.
Status 0: the chain reaches the fault, or nothing came of it. Status 1: it ends before.`,
	example: "refault explain boot.rec flip.rec",
	args:    "GOLDEN FAULTY", minArgs: 2, maxArgs: 2,
	flags: jsonFlag,
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		g, f, undo, err := pairOf(ctx, a, c.args[0], c.args[1])
		if err != nil {
			return 0, err
		}
		defer undo()
		prog := newProgress(a.err, "explaining")
		opt := compareOptions(g, f)
		opt.Progress = prog.at
		e, err := compare.Explain(g, f, opt)
		prog.done()
		if err != nil {
			return 0, err
		}
		status := statusDone
		if e.Report.First != nil && !e.Complete {
			status = statusDifferent
		}
		if *c.flags.(*bool) {
			return status, writeJSON(a.out, e)
		}
		printExplanation(a.out, e)
		return status, nil
	},
}

func printExplanation(w io.Writer, e *compare.Explanation) {
	r := e.Report
	for _, i := range r.Injected {
		fmt.Fprintf(w, "fault         %s, at step %d\n", i.Spec, i.Step)
	}
	if r.First == nil {
		fmt.Fprintln(w, "nothing came of it")
	} else {
		if e.Origin != "" {
			fmt.Fprintf(w, "origin        %s\n", e.Origin)
		}
		printLinks(w, e.Links, "")
		fmt.Fprintf(w, "so            %s\n", target(e))
		if n := len(e.Joins); n > 0 {
			fmt.Fprintf(w, "besides       %d more that led into it\n", n)
			printLinks(w, e.Joins, "  ")
		}
		for _, f := range e.Path {
			by := "call to"
			if f.By != "" {
				by = f.By + ", handled at"
			}
			fmt.Fprintf(w, "step %d  %s %s\n", f.Step, by, addressText(f.Entry, f.Symbol))
		}
		if o := r.Output; o != nil {
			at := ""
			if e.OutputStep != 0 {
				at = fmt.Sprintf(" (step %d)", e.OutputStep)
			}
			fmt.Fprintf(w, "said%s\n  golden      %s\n  faulty      %s\n", at, o.Golden, o.Faulty)
		}
	}
	if e.Note != "" {
		fmt.Fprintf(w, "note          %s\n", e.Note)
	}
	fmt.Fprintf(w, "outcome       %s: %s\n", r.Outcome, r.Why)
}

// printLinks prints links, and of very many the first and the last.
func printLinks(w io.Writer, links []compare.Link, indent string) {
	const ends = 32
	for i := range links {
		switch skip := len(links) - 2*ends; {
		case skip <= 1 || i < ends || i >= ends+skip:
			printLink(w, &links[i], indent)
		case i == ends:
			fmt.Fprintf(w, "%s... %d more; --json tells all ...\n", indent, skip)
		}
	}
}

// printLink prints a link, and of what it was made: of the step before in the list, where it does not say.
func printLink(w io.Writer, k *compare.Link, indent string) {
	fmt.Fprintf(w, "%sstep %d  %s\n", indent, k.Step, executedText(&k.Faulty))
	var from []string
	for _, c := range k.From {
		s := c.Place
		if c.Kind != compare.Data {
			s = fmt.Sprintf("%s (%s)", s, c.Kind)
		}
		if c.Step != nil {
			s += fmt.Sprintf(" of step %d", *c.Step)
		}
		from = append(from, s)
	}
	if k.Device != "" {
		from = append(from, "a device: "+k.Device)
	}
	fmt.Fprintf(w, "%s  made %s of %s: %s, golden %s\n", indent, k.Place, orNone(strings.Join(from, ", ")), k.Value, k.Golden)
	if k.Owner != "" {
		fmt.Fprintf(w, "%s  which is %s\n", indent, k.Owner)
	}
}

func target(e *compare.Explanation) string {
	switch e.Target {
	case "output":
		return fmt.Sprintf("at step %d the wrong byte was put out", e.OutputStep)
	case "disk write":
		return fmt.Sprintf("at step %d the wrong byte was written to %s, sector %d, byte %d", e.Write.Faulty.Step, e.Disk, e.Write.LBA, e.Write.Byte)
	case "control flow":
		s := e.Report.Flow
		return fmt.Sprintf("at step %d control flow split: to %s, golden to %s", s.Step, addressText(s.FaultyRIP, s.FaultyAt), addressText(s.GoldenRIP, s.GoldenAt))
	}
	return "the state differs"
}
