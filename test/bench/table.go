package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"refault/test/guest"
)

// target is what a row has to reach: over's time divided by under's.
type target struct {
	what        string
	over, under string // competitors
	atLeast     float64
	atMost      float64
}

var targets = []target{
	{what: boot, over: peerRecord, under: record, atLeast: 4},
	{what: "sort", over: peerRecord, under: record, atLeast: 4},
	{what: "sort", over: record, under: native, atMost: 1.5},
	{what: "sha256", over: peerRecord, under: record, atLeast: 4},
	{what: "sha256", over: record, under: native, atMost: 1.5},
	{what: "matrix", over: peerRecord, under: record, atLeast: 30},
	{what: "matrix", over: record, under: native, atMost: 2},
	{what: "extended", over: record, under: native, atMost: 2},
	{what: "memwalk", over: record, under: native, atMost: 1.5},
	{what: "syscalls", over: peerRecord, under: record, atLeast: 4},
	{what: "pipes", over: peerRecord, under: record, atLeast: 4},
	{what: "fork", over: peerRecord, under: record, atLeast: 4},
	{what: whole, over: replay, under: record, atMost: 1},
	{what: whole, over: peerReplay, under: replay, atLeast: 5},
	{what: whole, over: record, under: plainRun, atMost: 1.03},
}

// median returns the median of the ratios of two competitors; ok is false where one has not run. Those that ran equally often
// in a round are compared run by run.
func (b *bench) median(t *target) (ratio float64, ok bool) {
	over, under := b.times[t.over][t.what], b.times[t.under][t.what]
	if over == nil || under == nil {
		return 0, false
	}
	var ratios []float64
	for round := range over {
		o, u := over[round], under[round]
		if len(o) != len(u) {
			o, u = []float64{middle(o)}, []float64{middle(u)}
		}
		for i := range o {
			ratios = append(ratios, o[i]/u[i])
		}
	}
	return middle(ratios), true
}

// medianOf returns the median of all times of a competitor for something.
func (b *bench) medianOf(competitor, what string) float64 {
	return middle(slices.Concat(b.times[competitor][what]...))
}

func middle(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func (b *bench) print(out io.Writer) {
	fmt.Fprintf(out, "Seconds, medians of %d rounds\n\n", b.rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	names := []string{native, plainRun, record, replay, peerRun, peerRecord, peerReplay}
	fmt.Fprint(w, "|\t")
	for _, n := range names {
		fmt.Fprintf(w, "| %s\t", n)
	}
	fmt.Fprint(w, "|\n")
	for _, what := range append(append([]string{boot}, b.works...), whole) {
		fmt.Fprintf(w, "| %s\t", what)
		for _, n := range names {
			if b.times[n][what] != nil {
				fmt.Fprintf(w, "| %.3f\t", b.medianOf(n, what))
			} else {
				fmt.Fprint(w, "| –\t")
			}
		}
		fmt.Fprint(w, "|\n")
	}
	w.Flush()

	fmt.Fprint(out, "\nRatios, medians of those of runs of one round\n\n")
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "| what\t| ratio\t| is\t| target\t|\t|\n")
	for _, t := range targets {
		r, ok := b.median(&t)
		if !ok {
			continue
		}
		want, met := fmt.Sprintf("at least %g", t.atLeast), r >= t.atLeast
		if t.atMost != 0 {
			want, met = fmt.Sprintf("at most %g", t.atMost), r <= t.atMost
		}
		fmt.Fprintf(w, "| %s\t| %s / %s\t| %.2f\t| %s\t| %s\t|\n", t.what, t.over, t.under, r, want, reached(met))
	}
	w.Flush()
}

// recording tells what the last recording cost, and what it costs to go into it.
func (b *bench) recording(ctx context.Context, out io.Writer) error {
	info, err := b.info(ctx, b.rec)
	if err != nil {
		return err
	}
	var total int64
	for _, n := range info.Bytes {
		total += n
	}
	millions := float64(info.Steps) / 1e6
	fmt.Fprintf(out, "\nThe recording: %.0f million instructions, %.1f MB in all, %.5f bytes of events per 1000 instructions;\n", millions, float64(total)/1e6, info.Log)
	fmt.Fprintf(out, "%d snapshots, %.2f MB each with its pages; %.0f million instructions a second recorded, %.0f replayed.\n",
		len(info.Snapshots), float64(info.Bytes["pages"]+info.Bytes["snapshots"])/1e6/float64(len(info.Snapshots)),
		millions/b.medianOf(record, whole), millions/b.medianOf(replay, whole))
	if err := b.interpreter(ctx, out); err != nil {
		return err
	}
	if err := b.campaign(ctx, out, info.Snapshots[len(info.Snapshots)/2]); err != nil {
		return err
	}
	at := strconv.FormatUint(info.Snapshots[len(info.Snapshots)-1], 10)
	begin := time.Now()
	if err := exec.CommandContext(ctx, b.refault, "replay", b.rec, "--to", at).Run(); err != nil {
		return fmt.Errorf("refault replay --to %s: %w", at, err)
	}
	fmt.Fprintf(out, "Opening it and restoring the last snapshot, as a whole program: %.2f s.\n", time.Since(begin).Seconds())
	return nil
}

// recordingInfo is what refault info tells.
type recordingInfo struct {
	Steps     uint64           `json:"steps"`
	Snapshots []uint64         `json:"snapshot_steps"`
	Bytes     map[string]int64 `json:"file_bytes"`
	Log       float64          `json:"event_bytes_per_1000_steps"`
}

func (b *bench) info(ctx context.Context, rec string) (*recordingInfo, error) {
	j, err := exec.CommandContext(ctx, b.refault, "info", "--json", rec).Output()
	if err != nil {
		return nil, fmt.Errorf("refault info: %w", err)
	}
	info := new(recordingInfo)
	return info, json.Unmarshal(j, info)
}

func (b *bench) steps(ctx context.Context, rec string) (uint64, error) {
	info, err := b.info(ctx, rec)
	if err != nil {
		return 0, err
	}
	return info.Steps, nil
}

// interpreter tells how fast the specification is, on a boot.
func (b *bench) interpreter(ctx context.Context, out io.Writer) error {
	const atLeast, bootAtMost = 60, 40
	cmd := exec.CommandContext(ctx, b.refault, "run", "--engine", "interp", "--kernel", b.image.Kernel, "--initrd", b.image.Initrd, "--disk", b.image.Disk,
		"--append", guest.PowerOff, "--memory", memory, "--input", "none")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("refault run --engine interp: %w\n%s", err, stderr.Bytes())
	}
	s := time.Since(begin).Seconds()
	var steps uint64
	if _, err := fmt.Sscanf(stderr.String(), "refault: ended at step %d:", &steps); err != nil {
		return fmt.Errorf("refault run --engine interp says %q: %w", stderr.String(), err)
	}
	mips := float64(steps) / 1e6 / s
	fmt.Fprintf(out, "The interpreter: %.0f million instructions a second on a boot, target %d: %s; %.1f s for the boot, target at most %d: %s.\n",
		mips, atLeast, reached(mips >= atLeast), s, bootAtMost, reached(s <= bootAtMost))
	return nil
}

func reached(yes bool) string {
	if yes {
		return "reached"
	}
	return "SHORT"
}

// campaign tells what a trial of 10^7 steps takes, by the difference of two campaigns.
func (b *bench) campaign(ctx context.Context, out io.Writer, at uint64) error {
	const few, many, steps, targetMs = 10, 210, 10_000_000, 20
	var times []float64
	for _, n := range []int{few, few, many} { // the first fills the host's caches
		begin := time.Now()
		fault := fmt.Sprintf("reg:name={rax|rcx|rdx|rsi|rdi},bit={0..63}@step:{%d..%d}", at, at+steps-1)
		if err := exec.CommandContext(ctx, b.refault, "campaign", b.rec, "--at", strconv.FormatUint(at, 10), "--steps", strconv.Itoa(steps),
			"--count", strconv.Itoa(n), "--fault", fault).Run(); err != nil {
			return fmt.Errorf("refault campaign: %w", err)
		}
		times = append(times, time.Since(begin).Seconds())
	}
	ms := (times[2] - times[1]) / (many - few) * 1000
	fmt.Fprintf(out, "A trial of 10^7 instructions in a campaign: %.1f ms, target at most %d: %s.\n", ms, targetMs, reached(ms <= targetMs))
	return nil
}
