package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// escape begins a command to refault itself on a raw console: Ctrl-A, as in screen and QEMU.
const escape = 'a' & 0x1f

// guestOutput returns a function that passes the guest's bytes on, and one that flushes.
// Somebody who types wants to see each byte at once; else a line is soon enough.
func guestOutput(w io.Writer, typing bool) (put func(b byte), flush func()) {
	buf := bufio.NewWriter(w)
	eager := typing || isTerminal(w)
	return func(b byte) {
		buf.WriteByte(b)
		if eager || b == '\n' {
			buf.Flush()
		}
	}, func() { buf.Flush() }
}

// typing tells whether guestInput will find somebody who types.
func (a *app) typing(from string) bool { return from == "-" || from == "" && isTerminal(a.in) }

// guestInput opens what the guest's console reads: "-" standard input, "none" nothing,
// a file, or "" standard input if that is a terminal. quit is called when the
// person leaves. restore undoes what was done to the terminal.
func (a *app) guestInput(from string, quit func()) (input <-chan []byte, restore func(), err error) {
	restore = func() {}
	var r io.Reader
	switch {
	case from == "none" || from == "" && !isTerminal(a.in):
		return nil, restore, nil
	case from == "-" && a.in == nil:
		return nil, nil, usagef("--input=-: there is no standard input")
	case from == "-" || from == "":
		r = a.in
	default:
		f, err := os.Open(from)
		if err != nil {
			return nil, nil, fmt.Errorf("--input: %w", err)
		}
		r, restore = f, func() { f.Close() }
	}
	raw := r == a.in && isTerminal(a.in)
	if raw {
		fd := int(a.in.Fd())
		old, err := term.MakeRaw(fd)
		if err != nil {
			return nil, nil, fmt.Errorf("the terminal: %w", err)
		}
		restore = func() { term.Restore(fd, old) }
	}
	ch := make(chan []byte)
	go func() {
		defer close(ch)
		keys := keyboard{raw: raw, quit: quit}
		for {
			b := make([]byte, 256)
			n, err := r.Read(b)
			if b = keys.filter(b[:n]); len(b) > 0 {
				ch <- b
			}
			if err != nil {
				return
			}
		}
	}()
	return ch, restore, nil
}

// keyboard takes refault's own commands out of what is typed.
type keyboard struct {
	raw     bool
	escaped bool
	quit    func()
}

func (k *keyboard) filter(b []byte) []byte {
	if !k.raw {
		return b
	}
	out := b[:0]
	for _, c := range b {
		switch {
		case k.escaped && c == 'x':
			k.escaped = false
			k.quit()
		case k.escaped && c == escape: // twice: the key itself
			k.escaped = false
			out = append(out, c)
		case k.escaped:
			k.escaped = false
		case c == escape:
			k.escaped = true
		default:
			out = append(out, c)
		}
	}
	return out
}

// withCancel calls stop when ctx ends. The returned function undoes that.
func withCancel(ctx context.Context, stop func()) func() {
	undo := context.AfterFunc(ctx, stop)
	return func() { undo() }
}
