package main

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGDB lets the real GDB look at a recording.
func TestGDB(t *testing.T) {
	gdb, err := exec.LookPath("gdb")
	if err != nil {
		t.Skip("gdb is not installed: apt-get install gdb")
	}
	dir, rec := golden(t)
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	a := &app{out: io.Discard, err: w}
	done := make(chan int, 1)
	go func() {
		done <- a.main(ctx, []string{"gdb", rec, "--listen", ":0", "--at", "123456"})
		w.Close()
	}()
	said := bufio.NewReader(r)
	line, err := said.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, said)
	m := regexp.MustCompile(`is at step 123456; in gdb: target remote (\S+)\n`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("it says %q", line)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(`
set pagination off
set confirm off
target remote `+m[1]+`
printf "at %lu\n", $step
stepi
stepi
printf "stepped %lu\n", $step
reverse-stepi
printf "back %lu\n", $step
watch *(int*)$sp
delete
break *$rip
stepi
continue
printf "again %lu\n", $step
reverse-continue
printf "before %lu\n", $step
x/i $rip
p $xmm0.v2_double[0]
p $st0
p $eflags
monitor step 5000
maintenance flush register-cache
printf "monitor %lu\n", $step
delete
reverse-continue
printf "first %lu\n", $step
monitor step 123456
detach
target extended-remote `+m[1]+`
printf "extended %lu\n", $step
starti 6000
printf "started %lu\n", $step
stepi
printf "and %lu\n", $step
starti 7000
printf "anew %lu\n", $step
break *$rip
run 6990
printf "ran %lu\n", $step
starti 123456
detach
`), 0o666); err != nil {
		t.Fatal(err)
	}
	// Twice: one GDB after the other.
	for range 2 {
		out, err := exec.Command(gdb, "-nx", "-batch", "-x", script).CombinedOutput()
		if err != nil {
			t.Errorf("gdb: %v", err)
		}
		for _, want := range []string{"stepped 12345", "again ", "before 12345", "=> 0x", "monitor 5000", "No more reverse-execution history", "first 0\n",
			"extended 123456\n", "started 6000\n", "and 6001\n", "anew 7000\n", "ran "} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("gdb does not say %q", want)
			}
		}
		for _, bad := range []string{"rror", "imeout", "nvalid"} {
			if bytes.Contains(out, []byte(bad)) {
				t.Errorf("gdb says %q", bad)
			}
		}
		if t.Failed() {
			t.Fatalf("gdb said:\n%s", out)
		}
	}
	cancel()
	if status := <-done; status != statusDone {
		t.Errorf("the server ended with status %d", status)
	}
}

func TestSymbols(t *testing.T) {
	dir, rec := golden(t)
	file := filepath.Join(dir, "kernel.sym")
	must(t, "symbols", rec, "-o", file)
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var start uint64
	for _, s := range syms {
		if s.Name == "_start" {
			start = s.Value
			if f.Sections[s.Section].Name != ".text" || elf.ST_TYPE(s.Info) != elf.STT_FUNC {
				t.Errorf("_start is %+v", s)
			}
		}
	}
	if out := must(t, "symbols", rec, "_start"); start == 0 || out != fmt.Sprintf("%016x _start\n", start) {
		t.Errorf("the file has _start at %#x; the list says %q", start, out)
	}
	if all := must(t, "symbols", rec, "--at", "100000"); all != must(t, "symbols", rec) {
		t.Error("a guest that is no Linux has modules")
	}
	if n := strings.Count(must(t, "symbols", rec), "\n"); n != len(syms) {
		t.Errorf("%d symbols in the list, %d in the file", n, len(syms))
	}
}

func TestGDBAndSymbolsOfBadInput(t *testing.T) {
	dir, rec := golden(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"gdb", filepath.Join(dir, "none.rec")}, "none.rec"},
		{[]string{"gdb", rec, "--listen", "nonsense"}, "neither [HOST]:PORT nor stdio"},
		{[]string{"gdb", rec, "--listen", "stdio"}, "no standard input"},
		{[]string{"gdb", rec, "--listen", ":0", "--at", "1e15"}, "has steps 0 to"},
		{[]string{"gdb", rec, "--listen", "256.256.256.256:1"}, "--listen"},
		{[]string{"symbols", rec, "_strat"}, "unknown symbol _strat; near it are"},
		{[]string{"symbols", rec, "0x10"}, "is a number"},
		{[]string{"symbols", rec, "--at", "1e15"}, "has steps 0 to"},
		{[]string{"symbols", dir}, "not a recording"},
	} {
		status, _, err := refault(t, c.args...)
		if status != statusCouldNot || !strings.Contains(err, c.want) || strings.Count(err, "\n") != 1 {
			t.Errorf("refault %s: status %d, %q; want %q", fmt.Sprint(c.args), status, err, c.want)
		}
	}
}
