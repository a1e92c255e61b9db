package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"refault/compare"
	"refault/compare/report"
)

type reportFlags struct {
	out    string
	points int
}

var reportVerb = verb{
	name:    "report",
	summary: "tell how a faulty run departs from the golden one, as one page of HTML",
	long: `The page holds the verdict, a timeline of both runs, the fault's life, the propagation
curve, the chain of instructions that carried the wrong value, the instructions around the first divergences side by side, the registers and words of
memory that differ, the aligned consoles, and what was recorded. It is one file that loads nothing.`,
	example: "refault report boot.rec srao.rec -o srao.html",
	args:    "GOLDEN FAULTY", minArgs: 2, maxArgs: 2,
	flags: func(f *pflag.FlagSet) any {
		r := new(reportFlags)
		f.StringVarP(&r.out, "output", "o", "", "the page; - is standard output")
		f.IntVar(&r.points, "points", compare.DefaultPoints, "about how many steps the propagation curve looks at")
		return r
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		f := c.flags.(*reportFlags)
		switch {
		case f.out == "":
			return 0, usagef("-o is missing: where the page goes")
		case f.points < compare.MinPoints || f.points > compare.MaxPoints:
			return 0, usagef("--points is %d; it is from %d to %d", f.points, compare.MinPoints, compare.MaxPoints)
		}
		if err := canHold(f.out); err != nil { // before the work, not after it
			return 0, err
		}
		golden, faulty, done, err := pairOf(ctx, a, c.args[0], c.args[1])
		if err != nil {
			return 0, err
		}
		defer done()
		opt := compareOptions(golden, faulty)
		prog := newProgress(a.err, "comparing")
		opt.Progress = prog.at
		s, err := report.Collect(golden, faulty, report.Options{Points: f.points, Options: opt})
		prog.done()
		if err != nil {
			return 0, err
		}
		if f.out == "-" {
			return statusDone, report.Write(a.out, s)
		}
		var b bytes.Buffer
		if err := report.Write(&b, s); err != nil {
			return 0, err
		}
		if err := os.WriteFile(f.out, b.Bytes(), 0o666); err != nil {
			return 0, err
		}
		fmt.Fprintf(a.err, "refault: wrote %s, %s\n", f.out, about(int64(b.Len())))
		return statusDone, nil
	},
}

// canHold reports why a file cannot be written at path, as far as can be told without writing it.
func canHold(path string) error {
	if path == "-" {
		return nil
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return fmt.Errorf("%s is a directory; -o is the file of the page", path)
	}
	dir := filepath.Dir(path)
	if st, err := os.Stat(dir); err != nil {
		return err
	} else if !st.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	return nil
}
