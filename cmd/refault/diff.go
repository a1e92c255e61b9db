package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"refault/compare"
)

var diffVerb = verb{
	name:    "diff",
	summary: "tell how a faulty run departs from the golden one",
	long: `Both recordings are played side by side to the first instruction after which the
processors differ; their consoles are compared by line, time stamps aside; and the outcome is
classified: masked, latent, sdc, corrected, recovered, crash or hang.
Status 0: no difference. Status 1: there is one.`,
	example: "refault diff boot.rec srao.rec",
	args:    "GOLDEN FAULTY", minArgs: 2, maxArgs: 2,
	flags: jsonFlag,
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		g, err := a.open(c.args[0])
		if err != nil {
			return 0, err
		}
		defer g.Close()
		f, err := a.open(c.args[1])
		if err != nil {
			return 0, err
		}
		defer f.Close()
		defer withCancel(ctx, func() { g.Interrupt(); f.Interrupt() })()
		prog := newProgress(a.err, "comparing")
		r, err := compare.Diff(g, f, symbolsOrNot(g.Manifest).Name, prog.at)
		prog.done()
		if err != nil {
			return 0, err
		}
		status := statusDifferent
		if r.Equal {
			status = statusDone
		}
		if *c.flags.(*bool) {
			return status, writeJSON(a.out, r)
		}
		printReport(a.out, r)
		return status, nil
	},
}

func printReport(w io.Writer, r *compare.Report) {
	if r.Equal {
		fmt.Fprintf(w, "equal: %s steps, ended: %s\n", grouped(r.Golden.Step), endText(r.Golden.Reason, 0))
		return
	}
	for _, i := range r.Injected {
		fmt.Fprintf(w, "fault         %s, at step %d\n", i.Spec, i.Step)
	}
	if d := r.First; d == nil {
		fmt.Fprintln(w, "divergence    none: the processor never noticed")
	} else {
		fmt.Fprintf(w, "divergence    at step %d\n", d.Step)
		fmt.Fprintf(w, "  golden      %s\n  faulty      %s\n", executedText(&d.Golden), executedText(&d.Faulty))
		const shown = 12
		for i, x := range d.Registers {
			if i == shown {
				fmt.Fprintf(w, "  and %d more registers\n", len(d.Registers)-shown)
				break
			}
			fmt.Fprintf(w, "  %-11s %s, golden %s\n", x.Name, x.Faulty, x.Golden)
		}
		if len(d.Pages) > 0 {
			var pages []string
			for _, p := range d.Pages {
				pages = append(pages, fmt.Sprintf("%#x", p))
			}
			fmt.Fprintf(w, "  pages       %s\n", strings.Join(pages, " "))
		}
	}
	if o := r.Output; o == nil {
		fmt.Fprintln(w, "output        equal")
	} else {
		fmt.Fprintf(w, "output        differs from line %d on\n  golden      %s\n  faulty      %s\n", o.Line, o.Golden, o.Faulty)
	}
	fmt.Fprintf(w, "end           step %d, %s; golden step %d, %s\n", r.Faulty.Step, endText(r.Faulty.Reason, 0), r.Golden.Step, endText(r.Golden.Reason, 0))
	fmt.Fprintf(w, "outcome       %s: %s\n", r.Outcome, r.Why)
}

func executedText(e *compare.Executed) string {
	at := fmt.Sprintf("%04x:%016x", e.CS, e.RIP)
	if e.Symbol != "" {
		at += " <" + e.Symbol + ">"
	}
	return fmt.Sprintf("%s  %x  %s", at, e.Code, e.Text)
}
