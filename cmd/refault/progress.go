package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress shows how far long work has come: a bar on a terminal, a plain line every so often elsewhere.
type progress struct {
	w     io.Writer
	tty   bool
	what  string
	begin time.Time
	first uint64 // step at begin
	next  time.Time
	drawn bool
}

// plainEvery is the time between two lines where there is no terminal.
const plainEvery = 5 * time.Second

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func newProgress(w io.Writer, what string) *progress {
	now := time.Now()
	p := &progress{w: w, tty: isTerminal(w), what: what, begin: now, next: now}
	if !p.tty {
		p.next = now.Add(plainEvery)
	}
	return p
}

// at says that the work is at step, of end steps if end is not zero.
func (p *progress) at(step, end uint64) { p.show(step, end, "step", 1e6, " M/s") }

// count says that n of end things are done.
func (p *progress) count(n, end uint64, thing string) { p.show(n, end, thing, 1, "/s") }

func (p *progress) show(step, end uint64, thing string, unit float64, speedUnit string) {
	now := time.Now()
	if p.first == 0 {
		p.first, p.begin = step, now
	}
	if now.Before(p.next) {
		return
	}
	speed := ""
	if d := now.Sub(p.begin).Seconds(); d > 0.2 && step > p.first {
		speed = fmt.Sprintf("  %.0f%s", float64(step-p.first)/d/unit, speedUnit)
	}
	done := fmt.Sprintf("%s %s", thing, grouped(step))
	if end != 0 {
		done = fmt.Sprintf("%s %s of %s", thing, grouped(step), grouped(end))
	}
	if !p.tty {
		p.next = now.Add(plainEvery)
		fmt.Fprintf(p.w, "%s: %s%s\n", p.what, done, speed)
		return
	}
	p.next, p.drawn = now.Add(100*time.Millisecond), true
	bar := ""
	if end != 0 {
		const width = 30
		n := int(min(step, end) * width / end)
		bar = "[" + strings.Repeat("=", n) + strings.Repeat(" ", width-n) + "] "
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s %s%s%s", p.what, bar, done, speed)
}

// done takes the bar away.
func (p *progress) done() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}
