package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"refault/test/tiny"
)

// hasJIT: the translator runs here.
const hasJIT = runtime.GOOS == "linux" && runtime.GOARCH == "amd64"

// refault runs a command line as a person would, with nobody at the keyboard.
func refault(t *testing.T, args ...string) (status int, out, err string) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{out: &o, err: &e}
	status = a.main(context.Background(), args)
	return status, o.String(), e.String()
}

// must runs a command line that has to end with status 0.
func must(t *testing.T, args ...string) string {
	t.Helper()
	status, out, err := refault(t, args...)
	if status != statusDone {
		t.Fatalf("refault %s: status %d: %s%s", strings.Join(args, " "), status, out, err)
	}
	return out
}

// guestFiles writes the tiny guest's files, and returns the flags of its machine.
func guestFiles(t *testing.T) (dir string, flags []string) {
	t.Helper()
	dir = t.TempDir()
	kernel, disk := filepath.Join(dir, "tiny.elf"), filepath.Join(dir, "disk.img")
	for name, b := range map[string][]byte{kernel: tiny.Kernel, disk: tiny.Disk()} {
		if err := os.WriteFile(name, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir, []string{"--kernel", kernel, "--disk", disk, "--memory", "4M", "--append", "20"}
}

// golden records the tiny guest.
func golden(t *testing.T) (dir, rec string) {
	t.Helper()
	dir, flags := guestFiles(t)
	rec = filepath.Join(dir, "golden.rec")
	must(t, append([]string{"record", "-o", rec, "-q", "--mark-every", "1e5", "--snapshot-every", "2e5"}, flags...)...)
	return dir, rec
}

// TestVerbs runs every verb on a real recording.
func TestVerbs(t *testing.T) {
	dir, rec := golden(t)
	var info struct {
		Complete bool     `json:"complete"`
		Steps    uint64   `json:"steps"`
		Snaps    []uint64 `json:"snapshot_steps"`
	}
	if err := json.Unmarshal([]byte(must(t, "info", rec, "--json")), &info); err != nil {
		t.Fatal(err)
	}
	if !info.Complete || info.Steps < 500_000 || len(info.Snaps) < 3 {
		t.Fatalf("info: %+v", info)
	}
	if out := must(t, "info", rec); !strings.Contains(out, "debug-exit with status 99") {
		t.Errorf("info does not tell the end:\n%s", out)
	}
	for _, engine := range []string{"interp", "jit"} {
		if engine == "jit" && !hasJIT {
			continue
		}
		if out := must(t, "verify", rec, "--engine", engine); !strings.Contains(out, "equal") {
			t.Errorf("verify --engine %s: %s", engine, out)
		}
	}
	console, err := os.ReadFile(filepath.Join(rec, "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	if out := must(t, "replay", rec, "--console"); out != string(console) {
		t.Errorf("replay --console differs from what was recorded:\n%s", out)
	}

	// A step of the console's last line is where a replay has said just that.
	lines := strings.Fields(must(t, "log", rec, "--console", "--match", "done"))
	if len(lines) < 2 {
		t.Fatalf("log --console: %q", lines)
	}
	if out := must(t, "replay", rec, "--console", "--to", lines[0]); strings.HasSuffix(out, "done\n") {
		t.Errorf("at step %s the line has been ended already: %q", lines[0], out)
	}

	must(t, "snapshot", "take", rec, "--at", "333333")
	if out := must(t, "snapshot", "list", rec); !strings.Contains(out, "333333") {
		t.Errorf("snapshot list: %s", out)
	}
	if out := must(t, "verify", rec); !strings.Contains(out, "equal") {
		t.Errorf("verify after snapshot take: %s", out)
	}
	regs := must(t, "dump", rec, "--at", "333333", "regs")
	if !strings.Contains(regs, "rip ") || regs != must(t, "dump", rec, "--at", "333_333", "regs") {
		t.Errorf("dump regs: %s", regs)
	}
	if out := must(t, "dump", rec, "--at", "end", "mem", "0x100000", "32"); strings.Count(out, "\n") != 2 {
		t.Errorf("dump mem: %s", out)
	}
	trace := must(t, "trace", rec, "--from", "333333", "--to", "333343")
	if n := strings.Count(trace, "\n"); n < 10 || !strings.Contains(trace, "333342") || strings.Contains(trace, "333343") {
		t.Errorf("trace has %d lines:\n%s", n, trace)
	}
	if out := must(t, "dump", rec, "--at", "333333", "disasm"); !strings.Contains(trace, strings.Fields(out)[2]) {
		t.Errorf("dump disasm does not begin where the trace does:\n%s", out)
	}

	faulty := filepath.Join(dir, "faulty.rec")
	must(t, "inject", rec, "-o", faulty, "--fault", "reg:name=rax,bit=3@step:333333")
	if out := must(t, "log", faulty); !strings.Contains(out, "reg:name=rax,bit=3@step:333333") {
		t.Errorf("log of the faulty run: %s", out)
	}
	for range 2 {
		must(t, "verify", faulty)
	}
	checked := filepath.Join(dir, "checked.rec")
	must(t, "inject", rec, "-o", checked, "--fault", "mce:type=srao,addr=0x1000,bank=9@step:333333")
	life := strings.Split(must(t, "log", checked, "--life"), "\n")
	if len(life) < 3 || !strings.Contains(life[0], "mce:type=srao") || !strings.Contains(life[1], "bank 9: reported") {
		t.Errorf("log --life: %q", life)
	}
	if out := must(t, "log", rec, "--life"); out != "" {
		t.Errorf("log --life of a run without faults: %s", out)
	}
	status, out, _ := refault(t, "diff", rec, faulty)
	if status != statusDifferent || !strings.Contains(out, "outcome") {
		t.Errorf("diff: status %d\n%s", status, out)
	}
	if out := must(t, "diff", rec, rec); !strings.HasPrefix(out, "equal") {
		t.Errorf("diff with itself: %s", out)
	}
	if fates := must(t, "campaign", rec, "--at", "200000", "--steps", "50000", "--count", "5", "--fault", "mem:addr={0x300000..0x300fff},bit=3,track=yes@step:200000"); !strings.Contains(fates, "5 of them in memory\n  untouched        5  100.0 %") {
		t.Errorf("campaign in memory that nobody uses:\n%s", fates)
	}
	never := []string{"campaign", rec, "--at", "200000", "--steps", "50000", "--count", "2", "--fault", "reg:name=rax,bit={0..63}@vector:mc"}
	if out := must(t, never...); strings.Count(out, "@vector:mc  (did not happen)\n") != 2 ||
		!strings.Contains(out, "in 2 of them a fault did not happen, because its trigger did not come; the first: reg:name=rax,") {
		t.Errorf("campaign whose faults do not happen:\n%s", out)
	}
	if out := must(t, append(never, "--json")...); strings.Count(out, `"never_triggered":["reg:name=rax,`) != 2 {
		t.Errorf("campaign whose faults do not happen:\n%s", out)
	}
	trials := must(t, "campaign", rec, "--at", "200000", "--steps", "50000", "--count", "20", "--fault", "reg:name={rax|rbx|rsp},bit={0..31}@step:{200000..240000}")
	if strings.Count(trials, "@step:2") != 20 || !strings.Contains(trials, "20 trials") || !strings.Contains(trials, "confidence") {
		t.Errorf("campaign:\n%s", trials)
	}
	must(t, "faults")
	must(t, "faults", "--json")
	must(t, "version")
}

func TestHelp(t *testing.T) {
	status, out, _ := refault(t, "--help")
	if status != statusDone {
		t.Errorf("--help: status %d", status)
	}
	for _, v := range verbs {
		if !strings.Contains(out, "  "+v.name+" ") {
			t.Errorf("--help does not list %s", v.name)
		}
		help := must(t, v.name, "--help")
		if !strings.Contains(help, "Example:\n  refault "+v.name) {
			t.Errorf("%s --help has no example:\n%s", v.name, help)
		}
	}
	if status, _, err := refault(t); status != statusCouldNot || !strings.Contains(err, "Usage") {
		t.Errorf("no arguments: status %d, %q", status, err)
	}
}

// TestMistakes: one line, which says what is wrong and where, and status 2.
func TestMistakes(t *testing.T) {
	dir, rec := golden(t)
	_, flags := guestFiles(t)
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("this is not a kernel\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	newRec := filepath.Join(dir, "new.rec")
	other := filepath.Join(dir, "other.rec")
	must(t, append(append([]string{"record", "-o", other, "-q"}, flags...), "--memory", "8M")...)
	machine := func(more ...string) []string {
		return append(append([]string{"record", "-o", newRec}, flags...), more...)
	}
	inject := func(fault string) []string { return []string{"inject", rec, "-o", newRec, "--fault", fault} }
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"frobnicate"}, `no command "frobnicate"`},
		{[]string{"verify"}, "it needs RECORDING"},
		{[]string{"verify", rec, "more"}, `"more" is one argument too many`},
		{[]string{"verify", "--frobnicate", rec}, "unknown flag: --frobnicate"},
		{[]string{"verify", filepath.Join(dir, "none.rec")}, "no such file or directory"},
		{[]string{"verify", dir}, "not a recording"},
		{[]string{"verify", text}, "not a"},

		{[]string{"record", "-o", newRec}, "--kernel is missing"},
		{append([]string{"record"}, flags...), "-o is missing"},
		{[]string{"record", "-o", rec, "--kernel", text}, "text"},
		{append([]string{"record", "-o", rec}, flags...), "exists"},
		{machine("--kernel", text), "not a kernel"},
		{machine("--kernel", filepath.Join(dir, "none")), "no such file"},
		{machine("--initrd", filepath.Join(dir, "none")), "no such file"},
		{machine("--disk", filepath.Join(dir, "none")), "no such file"},
		{machine("--disk", dir), "disk"},
		{machine("--memory", "0"), "memory"},
		{machine("--memory", "many"), `"many" is not a size`},
		{machine("--memory", "1000000G"), "memory"},
		{machine("--memory", "99999999999999999999G"), "not a size"},
		{machine("--clock", "sundial"), `--clock is "sundial"`},
		{machine("--engine", "steam"), `"steam"`},
		{machine("--stats=pie"), `--stats is "pie"; it can be table or json`},
		{[]string{"verify", rec, "--stats=pie"}, `--stats is "pie"`},
		{machine("--engine", "interp", "--perf-map"), "makes no code"},
		{[]string{"replay", rec, "--engine", "interp", "--perf-map"}, "makes no code"},
		{[]string{"verify", rec, "--engine", "steam"}, `"steam"`},
		{machine("--rtc", "yesterday"), `"yesterday" is not a time`},
		{machine("--max-steps", "few"), "is not a whole number"},
		{machine("--input", filepath.Join(dir, "none")), "no such file"},
		{machine("--disk", text, "--disk", text, "--disk", text, "--disk", text), "up to 4"},

		{[]string{"replay", rec, "--to", "9e12"}, "beyond the recording"},
		{[]string{"dump", rec, "regs"}, "--at is missing"},
		{[]string{"dump", rec, "--at", "9e12", "regs"}, "beyond the recording"},
		{[]string{"dump", rec, "--at", "5", "flux"}, `"flux" cannot be shown`},
		{[]string{"dump", rec, "--at", "5", "mem", "0xf0000000000", "16"}, "outside RAM"},
		{[]string{"dump", rec, "--at", "5", "mem", "0", "1e15"}, "more than a dump shows"},
		{[]string{"dump", rec, "--at", "5", "mem", "nosuchsymbol", "16"}, "nosuchsymbol"},
		{[]string{"dump", rec, "--at", "333333", "translate", "0x30000000"}, "not mapped"},
		{[]string{"trace", rec}, "--from and --to"},
		{[]string{"trace", rec, "--from", "10", "--to", "5"}, "before"},
		{[]string{"trace", rec, "--from", "10", "--to", "9e12"}, "beyond the recording"},
		{[]string{"profile"}, "it needs RECORDING"},
		{[]string{"profile", rec, "--every", "0"}, "--every is 0"},
		{[]string{"profile", rec, "--every", "often"}, "is not a whole number"},
		{[]string{"profile", rec, "--top", "-1"}, "--top is -1"},
		{[]string{"profile", rec, "--from", "10", "--to", "10"}, "does not come after"},
		{[]string{"profile", rec, "--from", "9e12"}, "beyond the recording"},
		{[]string{"profile", rec, "--to", "9e12"}, "beyond the recording"},
		{[]string{"profile", rec, "-o", filepath.Join(dir, "none", "p")}, "no such file"},
		{[]string{"profile", rec, "-o", dir}, "is no file"},
		{[]string{"profile", text}, "not a"},
		{[]string{"snapshot", "eat", rec}, `"eat"`},
		{[]string{"snapshot", "take", rec}, "--at is missing"},
		{[]string{"log", rec, "--match", "("}, "--match"},
		{[]string{"log", rec, "--life", "--console"}, "choose one"},
		{[]string{"diff", rec, other}, "different machines"},
		{[]string{"diff", rec, filepath.Join(dir, "none.rec")}, "no such file"},

		{[]string{"inject", rec, "-o", newRec}, "--fault is missing"},
		{[]string{"inject", rec, "--fault", "reg:name=rax,bit=1@step:5"}, "-o is missing"},
		{[]string{"inject", rec, "-o", rec, "--fault", "reg:name=rax,bit=1@step:5"}, "exists"},
		{inject("reg:name=rax,bit=1"), "no trigger"},
		{[]string{"campaign", rec}, "--fault is missing"},
		{[]string{"campaign", rec, "--fault", "reg:name=rax,bit={9..3}@step:5"}, "3 comes before 9"},
		{[]string{"campaign", rec, "--fault", "reg:name=rax,bit=1@step:5", "--count", "0"}, "--count is 0"},
		{[]string{"campaign", rec, "--fault", "reg:name=rax,bit=1@step:5", "--steps", "0"}, "--steps is 0"},
		{[]string{"campaign", rec, "--fault", "reg:name=rax,bit=1@step:5", "--at", "9e12"}, "beyond the recording"},
		{[]string{"campaign", rec, "--fault", "reg:name=rax,bit=1@step:5", "--at", "100"}, "before the trial's first"},
		{inject("gremlin:size=3@step:5"), `no kind "gremlin"; the kinds are mce`},
		{inject("mem:addr=0,bot=3@step:5"), `no key "bot" (did you mean bit?); its keys are addr`},
		{inject("mem:addr=0xf0000000000,bit=3@step:5"), "outside RAM"},
		{inject("reg:name=rax,bit=1@step:9e12"), "beyond the recording"},
		{inject("reg:name=rax,bit=1@noon"), `no trigger "noon"`},
		{inject("reg:name=rzx,bit=1@step:5"), "rzx"},
		{inject("reg:name=rax,bit=64@step:5"), "64"},
		{inject("ata:error=unc,lba=99999@step:5"), "99999"},
	} {
		status, out, err := refault(t, tt.args...)
		name := strings.ReplaceAll(strings.Join(tt.args, " "), dir, "")
		if status != statusCouldNot || out != "" {
			t.Errorf("%s: status %d, output %q", name, status, out)
		}
		if !strings.Contains(err, tt.want) || strings.Count(err, "\n") != 1 || !strings.HasPrefix(err, "refault: ") {
			t.Errorf("%s:\n got %q\nwant one line with %q", name, err, tt.want)
		}
		if _, e := os.Stat(newRec); e == nil {
			t.Errorf("%s: left a recording behind", name)
			os.RemoveAll(newRec)
		}
	}
}

// TestDemo: the demonstration on the guest in the program, from the recording to the faulty runs' replays.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	out := must(t, "demo", "--dir", dir)
	at := 0
	for _, want := range []string{
		"2. Record", "\nguest: done", "3. Replay", "equal: ", "4. Where to aim", " hello: task 1 ", " blockmap: ",
		"5. Inject", "  | guest: recovered: page 0x400000 offlined", "outcome       recovered", "equal: ", "equal: ",
		"6. Inject", "  | guest: hello: exit status 135", "outcome       recovered", "equal: ", "equal: ",
		"7. Inject", "{ UNC }", "  | guest: cat: exit status 1", "outcome       recovered", "equal: ", "equal: ",
	} {
		i := strings.Index(out[at:], want)
		if i < 0 {
			t.Fatalf("does not say %q after byte %d:\n%s", want, at, out)
		}
		at += i + len(want)
	}
	must(t, "demo", "--dir", dir) // again, over the recordings of the first time
	if status, _, msg := refault(t, "demo", "--dir", dir, "--disk", filepath.Join(dir, "guest.img")); status != statusCouldNot || !strings.Contains(msg, "--kernel") {
		t.Errorf("a disk without a kernel: status %d, %s", status, msg)
	}
}

// TestChangedFiles: what a recording depends on is named where it changed, and said what it was.
func TestChangedFiles(t *testing.T) {
	dir, rec := golden(t)
	for _, name := range []string{"tiny.elf", "disk.img"} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(b)
		changed[len(b)-1] ^= 1
		if err := os.WriteFile(path, changed, 0o666); err != nil {
			t.Fatal(err)
		}
		status, _, msg := refault(t, "verify", rec)
		if status != statusCouldNot || !strings.Contains(msg, name) || strings.Count(msg, "SHA-256") != 2 || !strings.Contains(msg, "changed since") {
			t.Errorf("%s changed: status %d, %s", name, status, msg)
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		must(t, "verify", rec) // the same bytes again, at another time
	}
}

// TestInterrupted: a recording that was stopped is whole, and says so.
func TestInterrupted(t *testing.T) {
	dir, flags := guestFiles(t)
	flags[len(flags)-1] = "4000000000"
	rec := filepath.Join(dir, "r.rec")
	ctx, cancel := context.WithCancel(context.Background())
	var o, e bytes.Buffer
	a := &app{out: &o, err: &e}
	done := make(chan int)
	go func() {
		done <- a.main(ctx, append([]string{"record", "-o", rec, "-q", "--mark-every", "1e6"}, flags...))
	}()
	for { // until it has begun
		if st, err := os.Stat(filepath.Join(rec, "marks")); err == nil && st.Size() > 500 {
			break
		}
	}
	cancel()
	if status := <-done; status != statusDone || !strings.Contains(e.String(), "interrupted") {
		t.Fatalf("status %d, %s", status, e.String())
	}
	must(t, "verify", rec)
}
