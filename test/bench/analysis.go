package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"refault/test/guest"
)

// analysis times what is done with recordings, as whole programs: the demonstration's.
func (b *bench) analysis(ctx context.Context, out io.Writer) error {
	dir := filepath.Join(b.dir, "demo")
	if _, _, err := b.timeOf(ctx, "demo", "--dir", dir, "--kernel", b.image.Kernel, "--initrd", b.image.Initrd, "--disk", b.image.Disk, "--append", guest.Demo); err != nil {
		return err
	}
	rec := func(name string) string { return filepath.Join(dir, name+".rec") }
	steps, err := b.steps(ctx, rec("golden"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nOn recordings of %.2f thousand million steps, as whole programs\n\n", float64(steps)/1e9)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "| what\t| is\t| target\t|\t|\n")
	row := func(what string, is, most float64, unit string) {
		fmt.Fprintf(w, "| %s\t| %.2f%s\t| at most %.3g%s\t| %s\t|\n", what, is, unit, most, unit, reached(is <= most))
	}
	for _, name := range []string{"srao", "srar", "unc"} {
		s, status, err := b.timeOf(ctx, "diff", rec("golden"), rec(name))
		if err != nil || status != 1 {
			return errors.Join(fmt.Errorf("diff of %s: status %d", name, status), err)
		}
		row("diff, first divergence of "+name, s, 2*float64(steps)/1e9, " s") // 2 s for 10^9 steps
	}
	for _, name := range []string{"srao", "srar", "unc"} {
		s, _, err := b.timeOf(ctx, "explain", rec("golden"), rec(name))
		if err != nil {
			return err
		}
		row("explain "+name, s, 30, " s")
	}
	ratio, err := b.armed(ctx, rec("golden"), dir, steps)
	if err != nil {
		return err
	}
	row("a trigger that never comes, armed / not armed", ratio, 1.05, "")
	return w.Flush()
}

// armed compares a run in which an execution of panic is looked for with one in which nothing is.
func (b *bench) armed(ctx context.Context, golden, dir string, steps uint64) (float64, error) {
	var ratios []float64
	for i := range max(b.rounds, 3) {
		var s [2]float64
		for k, trigger := range []string{"exec:panic", "step:0"} {
			var err error
			out := filepath.Join(dir, fmt.Sprintf("armed%d-%d.rec", i, k))
			// Of the first page nothing is used. A trigger that does not come is status 2, which says so.
			if s[k], _, err = b.timeOf(ctx, "inject", golden, "-o", out, "--max-steps", strconv.FormatUint(steps, 10), "--fault", "mem:addr=0x10,bit=0@"+trigger); err != nil {
				return 0, err
			}
		}
		ratios = append(ratios, s[0]/s[1])
	}
	return middle(ratios), nil
}

// timeOf runs refault and returns its seconds and its status. It is an error only if it could not be run.
func (b *bench) timeOf(ctx context.Context, args ...string) (seconds float64, status int, err error) {
	cmd := exec.CommandContext(ctx, b.refault, args...)
	begin := time.Now()
	_, err = cmd.Output()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.Exited() {
		err = nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("refault %s: %w", args[0], err)
	}
	return time.Since(begin).Seconds(), cmd.ProcessState.ExitCode(), nil
}
