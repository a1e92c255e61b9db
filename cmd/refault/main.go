// Command refault boots an unmodified x86-64 operating system, records the run,
// replays it bit for bit, injects hardware faults into a replay at an exact
// instruction, and tells where and how the faulty run departs from the golden one.
//
// One file a verb; each is a row of the table in this file. Exit statuses: 0 done
// (verify: equal; diff: no difference), 1 different, 2 could not.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// Exit statuses.
const (
	statusDone      = 0
	statusDifferent = 1
	statusCouldNot  = 2
)

// verb is one command.
type verb struct {
	name    string
	args    string // what follows the flags
	summary string
	long    string
	example string
	run     func(ctx context.Context, a *app, c *call) (status int, err error)
	flags   func(f *pflag.FlagSet) any
	minArgs int
	maxArgs int
	passive bool // it executes no instruction of a guest
}

// call is a verb with its arguments.
type call struct {
	*verb
	flags any // what verb.flags returned
	set   *pflag.FlagSet
	args  []string
}

// app is the world around a verb.
type app struct {
	in       *os.File // nil: nobody can type
	out, err io.Writer
	engine   string // what executes instructions; "": the best that there is
}

var verbs []*verb

func init() { // the demo calls the others, so the table cannot be a plain variable
	verbs = []*verb{
		&runVerb, &recordVerb, &replayVerb, &verifyVerb, &injectVerb, &campaignVerb, &diffVerb, &propagationVerb, &reportVerb, &explainVerb, &bisectVerb, &infoVerb, &logVerb,
		&snapshotVerb, &dumpVerb, &traceVerb, &profileVerb, &symbolsVerb, &gdbVerb, &faultsVerb, &demoVerb, &versionVerb,
	}
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	signal.Ignore(unix.SIGXFSZ) // a limit on the size of files is an error of the write
	signals := []os.Signal{os.Interrupt, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) { // nohup
		signals = append(signals, unix.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	status := a.main(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

// main runs one command line and returns its exit status.
func (a *app) main(ctx context.Context, args []string) (status int) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(a.err, "refault: internal error: %v; please report it with the command line and this trace\n%s", r, debug.Stack())
			status = statusCouldNot
		}
	}()
	status, err := a.dispatch(ctx, args)
	if err != nil {
		fmt.Fprintf(a.err, "refault: %s\n", oneLine(err))
		return statusCouldNot
	}
	return status
}

// oneLine joins the lines of errors that were joined.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (a *app) dispatch(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		a.usage(a.err)
		return statusCouldNot, nil
	}
	switch args[0] {
	case "-h", "--help", "help":
		if len(args) > 1 && args[0] == "help" {
			return a.dispatch(ctx, []string{args[1], "--help"})
		}
		a.usage(a.out)
		return statusDone, nil
	case "--version":
		args = append([]string{"version"}, args[1:]...)
	}
	for _, v := range verbs {
		if v.name == args[0] {
			return a.call(ctx, v, args[1:])
		}
	}
	return 0, fmt.Errorf("no command %q; the commands are %s", args[0], verbNames())
}

func verbNames() string {
	var names []string
	for _, v := range verbs {
		names = append(names, v.name)
	}
	return strings.Join(names, ", ")
}

func (a *app) call(ctx context.Context, v *verb, args []string) (int, error) {
	c := &call{verb: v, set: pflag.NewFlagSet(v.name, pflag.ContinueOnError)}
	c.set.SortFlags = false
	c.set.Usage = func() {}
	if v.flags != nil {
		c.flags = v.flags(c.set)
	}
	if !v.passive {
		c.set.StringVar(&a.engine, "engine", a.engine, "what executes instructions: interp, jit (default: jit where the host can)")
	}
	err := c.set.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		a.help(c)
		return statusDone, nil
	}
	c.args = c.set.Args()
	switch {
	case err != nil:
		err = usageError{err}
	case len(c.args) < v.minArgs:
		err = usagef("it needs %s", v.args)
	case len(c.args) > v.maxArgs:
		err = usagef("%q is one argument too many", c.args[v.maxArgs])
	}
	status := statusCouldNot
	if err == nil {
		status, err = v.run(ctx, a, c)
	}
	if u := (usageError{}); errors.As(err, &u) {
		return status, fmt.Errorf("%s: %w (see refault %s --help)", v.name, u.error, v.name)
	}
	return status, err
}

func (a *app) usage(w io.Writer) {
	fmt.Fprint(w, "refault records a virtual machine, replays it bit for bit, breaks its hardware at an exact\ninstruction, and tells what that changed.\n\nUsage: refault COMMAND [FLAGS] [ARGUMENTS]\n\n")
	for _, v := range verbs {
		fmt.Fprintf(w, "  %-11s %s\n", v.name, v.summary)
	}
	fmt.Fprint(w, "\nrefault COMMAND --help tells more of each. Start with: refault demo\nExit status: 0 done (verify, diff: equal), 1 different, 2 could not.\n")
}

func (a *app) help(c *call) {
	fmt.Fprintf(a.out, "%s: %s\n\nUsage: refault %s\n", c.name, c.summary, strings.TrimSpace(c.name+" [FLAGS] "+c.verb.args))
	if c.long != "" {
		fmt.Fprintf(a.out, "\n%s\n", strings.TrimSpace(c.long))
	}
	if c.set.HasFlags() {
		fmt.Fprintf(a.out, "\nFlags:\n%s", c.set.FlagUsagesWrapped(100))
	}
	fmt.Fprintf(a.out, "\nExample:\n%s\n", indent(strings.TrimSpace(c.example)))
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

// shown is a path as a person would write it: relative to where they are, if it is below.
func shown(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}
