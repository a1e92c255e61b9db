package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"refault/test/guest"
)

// timed notes how long a competitor took for something.
func (b *bench) timed(competitor, what string, d time.Duration) {
	if b.times[competitor] == nil {
		b.times[competitor] = map[string][][]float64{}
	}
	if b.times[competitor][what] == nil {
		b.times[competitor][what] = make([][]float64, b.rounds)
	}
	round := &b.times[competitor][what][b.round]
	*round = append(*round, d.Seconds())
}

// guest runs a program that runs the guest, and times what its console says.
func (b *bench) guest(ctx context.Context, competitor, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	var last time.Time
	var work string
	done := false
	for lines.Scan() {
		now, l := time.Now(), strings.TrimSpace(lines.Text())
		switch {
		case strings.HasPrefix(l, guest.SaysReady):
			b.timed(competitor, boot, now.Sub(begin))
		case strings.HasPrefix(l, guest.SaysBench):
			work, last = strings.TrimPrefix(l, guest.SaysBench), now
		case strings.HasPrefix(l, guest.SaysBenchEnd):
			if l != guest.SaysBenchEnd+"0" {
				return fmt.Errorf("%s failed in the guest: %s", work, l)
			}
			b.timed(competitor, work, now.Sub(last))
		case strings.HasPrefix(l, guest.SaysDone):
			done = true
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	if !done {
		return fmt.Errorf("%s: the guest did not say %q\n%s", strings.Join(cmd.Args, " "), guest.SaysDone, stderr.Bytes())
	}
	b.timed(competitor, whole, time.Since(begin))
	return nil
}

// whole is the whole run, from the start of the program to its end.
const whole = "the whole run"

// native runs the same programs on the host.
func (b *bench) native(ctx context.Context, competitor string) error {
	for _, w := range b.works {
		begin := time.Now()
		if out, err := exec.CommandContext(ctx, filepath.Join(b.image.Programs, "bench"), w).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", w, err, out)
		}
		b.timed(competitor, w, time.Since(begin))
	}
	return nil
}
