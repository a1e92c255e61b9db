package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"refault/compare"
)

type propagationFlags struct {
	points    int
	json, csv bool
}

var propagationVerb = verb{
	name:    "propagation",
	summary: "measure how a fault spreads: what differs from the golden run, as a function of step",
	long: `Counts the registers, words of 8 bytes and pages of memory, devices, and disk sectors that
differ, at steps that are close together after the fault and then farther and farther apart, and
evenly up to the end of the shorter run. Both recordings are played side by side, once.`,
	example: "refault propagation boot.rec srao.rec --points 40\nrefault propagation boot.rec srao.rec --csv > srao.csv",
	args:    "GOLDEN FAULTY", minArgs: 2, maxArgs: 2,
	flags: func(f *pflag.FlagSet) any {
		p := new(propagationFlags)
		f.IntVar(&p.points, "points", compare.DefaultPoints, "about how many steps to look at")
		f.BoolVar(&p.json, "json", false, "tell the result as JSON")
		f.BoolVar(&p.csv, "csv", false, "tell the result as comma-separated values")
		return p
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		f := c.flags.(*propagationFlags)
		switch {
		case f.json && f.csv:
			return 0, usagef("--json and --csv exclude each other")
		case f.points < compare.MinPoints || f.points > compare.MaxPoints:
			return 0, usagef("--points is %d; it is from %d to %d", f.points, compare.MinPoints, compare.MaxPoints)
		}
		golden, faulty, done, err := pairOf(ctx, a, c.args[0], c.args[1])
		if err != nil {
			return 0, err
		}
		defer done()
		prog := newProgress(a.err, "measuring")
		curve, err := compare.Propagation(golden, faulty, f.points, compare.Options{Progress: prog.at})
		prog.done()
		switch {
		case err != nil:
			return 0, err
		case f.json:
			return statusDone, writeJSON(a.out, curve)
		case f.csv:
			return statusDone, writeCurve(a.out, curve)
		}
		printCurve(a.out, curve)
		return statusDone, nil
	},
}

func writeCurve(w io.Writer, c *compare.Curve) error {
	out := csv.NewWriter(w)
	head := []string{"step", "steps_after_fault"}
	for _, s := range compare.Series {
		head = append(head, s.Name)
	}
	out.Write(append(head, "same_place"))
	for i := range c.Points {
		p := &c.Points[i]
		row := []string{strconv.FormatUint(p.Step, 10), strconv.FormatUint(p.After, 10)}
		for _, s := range compare.Series {
			row = append(row, strconv.Itoa(s.Of(p)))
		}
		out.Write(append(row, strconv.FormatBool(p.SamePlace)))
	}
	out.Flush()
	return out.Error()
}

func printCurve(w io.Writer, c *compare.Curve) {
	if len(c.Points) == 0 {
		fmt.Fprintf(w, "nothing to compare: the fault struck at step %d, and the shorter run ended at step %d\n", c.FaultStep, c.EndStep)
		return
	}
	fmt.Fprintf(w, "%14s %14s", "step", "after fault")
	for _, s := range compare.Series {
		fmt.Fprintf(w, " %9s", s.Name)
	}
	fmt.Fprintln(w)
	split := false
	for i := range c.Points {
		p := &c.Points[i]
		if c.SplitStep != nil && p.Step >= *c.SplitStep && !split {
			split = true
			fmt.Fprintf(w, "%14s -- control flow has split: from here on equal steps are not equal places --\n", grouped(*c.SplitStep))
		}
		fmt.Fprintf(w, "%14s %14s", grouped(p.Step), "+"+grouped(p.After))
		for _, s := range compare.Series {
			fmt.Fprintf(w, " %9s", grouped(uint64(s.Of(p))))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	for _, s := range compare.Series {
		fmt.Fprintf(w, "%-9s  %s  at most %s\n", s.Name, sparkline(c, s.Of), grouped(uint64(most(c, s.Of))))
	}
	if c.SplitStep == nil {
		fmt.Fprintln(w, "control flow never split: equal steps are equal places throughout")
	}
}

func most(c *compare.Curve, of func(*compare.Point) int) (most int) {
	for i := range c.Points {
		most = max(most, of(&c.Points[i]))
	}
	return most
}

// sparkWidth is the greatest length of a sparkline.
const sparkWidth = 64

// sparkline draws a series, each point one character, its height by the logarithm of the count.
func sparkline(c *compare.Curve, of func(*compare.Point) int) string {
	const bars = "▁▂▃▄▅▆▇█"
	all := []rune(bars)
	top := math.Log1p(float64(most(c, of)))
	n := min(len(c.Points), sparkWidth)
	var b strings.Builder
	for i := range n {
		// Of points that share a character, the highest.
		v := 0
		for k := i * len(c.Points) / n; k < (i+1)*len(c.Points)/n; k++ {
			v = max(v, of(&c.Points[k]))
		}
		if v == 0 {
			b.WriteByte('.')
			continue
		}
		b.WriteRune(all[int(math.Log1p(float64(v))/top*float64(len(all)-1))])
	}
	return b.String()
}
