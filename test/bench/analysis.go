package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	hot, err := b.symbol(ctx, rec("golden"), hotFunction)
	if err != nil {
		return err
	}
	if err := b.long(ctx, dir, row); err != nil {
		return err
	}
	clock, err := b.symbol(ctx, rec("golden"), "jiffies")
	if err != nil {
		return err
	}
	for _, t := range []struct {
		what, trigger string
		target        float64
	}{
		// Padding before the function: nothing executes it, and all of the page does little else than to execute.
		{"an execution, on the busiest page of the kernel", fmt.Sprintf("exec:%#x", hot-1), 1.05},
		{"a read beside the kernel's clock, on the same page", fmt.Sprintf("read:%#x#1000000000", clock^0x800), 1.05},
		{"a system call", "syscall:9999", 1.05},
		{"a vector", "vector:0x99", 1.05},
		{"a line of the console", "console:never said", 1.05},
		{"a disk command", "io:16777216", 1.05},
	} {
		ratio, err := b.armed(ctx, rec("golden"), dir, steps, t.trigger)
		if err != nil {
			return err
		}
		row("a trigger that never comes, armed / not armed: "+t.what, ratio, t.target, "")
	}
	return w.Flush()
}

// hotFunction is where a boot spends most of its instructions: in checking the signatures of modules.
const hotFunction = "mpihelp_submul_1"

// symbol returns the address of a symbol of a recording's kernel.
func (b *bench) symbol(ctx context.Context, rec, name string) (uint64, error) {
	j, err := exec.CommandContext(ctx, b.refault, "symbols", "--json", rec, name).Output()
	if err != nil {
		return 0, fmt.Errorf("refault symbols: %w", err)
	}
	var found []struct {
		Addr uint64 `json:"addr"`
	}
	if err := json.Unmarshal(j, &found); err != nil || len(found) != 1 {
		return 0, fmt.Errorf("refault symbols %s says %q: %w", name, j, err)
	}
	return found[0].Addr, nil
}

// long times diff on runs of more than 10^10 steps.
func (b *bench) long(ctx context.Context, dir string, row func(what string, is, most float64, unit string)) error {
	golden := filepath.Join(dir, "long.rec")
	work := slices.Repeat([]string{"sha256"}, 9)
	if _, status, err := b.timeOf(ctx, "record", "-o", golden, "--kernel", b.image.Kernel, "--initrd", b.image.Initrd, "--disk", b.image.Disk,
		"--append", guest.Bench(work...), "--memory", memory, "--input", "none"); err != nil || status != 0 {
		return errors.Join(fmt.Errorf("record: status %d", status), err)
	}
	steps, err := b.steps(ctx, golden)
	if err != nil {
		return err
	}
	if steps < 1e10 {
		return fmt.Errorf("the long run has %d steps only", steps)
	}
	late := steps / 10 * 9
	for i, f := range []struct{ what, fault string }{
		{"late, noticed at once", fmt.Sprintf("reg:name=rip,bit=40@step:%d", late)},
		{"late, noticed some time later", fmt.Sprintf("mem:vaddr=jiffies,bit=40@step:%d", late)},
		{"early, never noticed", "mem:addr=0x10,bit=0@step:1e9"}, // of the first page nothing is used
	} {
		faulty := filepath.Join(dir, fmt.Sprintf("long%d.rec", i))
		if _, status, err := b.timeOf(ctx, "inject", golden, "-o", faulty, "--max-steps", strconv.FormatUint(steps+1e9, 10), "--fault", f.fault); err != nil || status != 0 {
			return errors.Join(fmt.Errorf("inject %s: status %d", f.fault, status), err)
		}
		s, status, err := b.timeOf(ctx, "diff", golden, faulty)
		if err != nil || status != 1 {
			return errors.Join(fmt.Errorf("diff of %s: status %d", f.fault, status), err)
		}
		row(fmt.Sprintf("diff of %.1f·10⁹ steps, a fault %s", float64(steps)/1e9, f.what), s, 10, " s")
	}
	return nil
}

// armed compares a run in which a trigger is looked for that does not come with one in which nothing is.
func (b *bench) armed(ctx context.Context, golden, dir string, steps uint64, never string) (float64, error) {
	var ratios []float64
	for range max(b.rounds, 3) {
		var s [2]float64
		for k, trigger := range []string{never, "step:0"} {
			var err error
			out := filepath.Join(dir, "armed.rec")
			if err := os.RemoveAll(out); err != nil {
				return 0, err
			}
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
