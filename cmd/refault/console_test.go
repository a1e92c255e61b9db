package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: what a person types into and what the program sees.
func terminal(t *testing.T) (person, tty *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	return person, tty
}

// screen collects what a program writes, from any goroutine.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// waitFor waits until the screen shows a text, the dots of the guest's progress aside; it
// fails the test when that takes far too long.
func (s *screen) waitFor(t *testing.T, text string) {
	t.Helper()
	for begin := time.Now(); !strings.Contains(strings.ReplaceAll(s.String(), ".", ""), text); time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("the screen never showed %q:\n%s", text, s)
		}
	}
}

// TestTypedSession: what a person types at a raw terminal is recorded, with either
// clock, and replays without the person.
func TestTypedSession(t *testing.T) {
	for _, clock := range []string{"virtual", "host"} {
		t.Run(clock, func(t *testing.T) {
			person, tty := terminal(t)
			before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			dir, flags := guestFiles(t)
			flags[len(flags)-1] = "4000000000"
			rec := filepath.Join(dir, "typed.rec")
			out, msgs := new(screen), new(screen)
			a := &app{in: tty, out: out, err: msgs}
			done := make(chan int)
			go func() {
				done <- a.main(context.Background(), append([]string{"record", "-o", rec, "--clock", clock}, flags...))
			}()
			out.waitFor(t, "tiny")                    // it listens
			for _, c := range "hello\x01\x01 world" { // Ctrl-A twice types it once
				fmt.Fprintf(person, "%c", c)
			}
			out.waitFor(t, "HELLO\x01\x00WORLD")
			fmt.Fprint(person, "\x01x")
			if status := <-done; status != statusDone || !strings.Contains(msgs.String(), "interrupted") {
				t.Fatalf("status %d: %s", status, msgs)
			}
			after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			if *before != *after {
				t.Error("the terminal is not what it was")
			}
			must(t, "verify", rec)
			if log := must(t, "log", rec); !strings.Contains(log, "console") || clock == "host" && !strings.Contains(log, "clock") {
				t.Errorf("the log has no events of the session:\n%s", log)
			}
			if got := must(t, "replay", rec, "--console"); got != out.String() {
				t.Errorf("the replay says %q, the session said %q", got, out)
			}
		})
	}
}

func TestKeyboard(t *testing.T) {
	for _, tt := range []struct {
		typed string
		want  string
		quit  bool
	}{
		{"abc", "abc", false},
		{"\x01x", "", true},
		{"a\x01\x01b", "a\x01b", false},
		{"a\x01yb", "ab", false},
		{"\x03\x04", "\x03\x04", false}, // Ctrl-C and Ctrl-D are the guest's
	} {
		for cut := range len(tt.typed) + 1 { // in two chunks
			quit := false
			k := keyboard{raw: true, quit: func() { quit = true }}
			got := slices.Concat(k.filter([]byte(tt.typed[:cut])), k.filter([]byte(tt.typed[cut:])))
			if string(got) != tt.want || quit != tt.quit {
				t.Errorf("%q cut at %d: %q, quit %v", tt.typed, cut, got, quit)
			}
		}
	}
}
