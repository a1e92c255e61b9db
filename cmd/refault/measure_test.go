package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"refault/test/guest/bare"
	"refault/test/tiny"
	"refault/vmm"
)

// bareFiles writes the files of the guest that has 64-bit code and tasks, and returns the flags of its machine.
func bareFiles(t *testing.T) (dir string, flags []string) {
	t.Helper()
	dir = t.TempDir()
	kernel, disk := filepath.Join(dir, "bare.elf"), filepath.Join(dir, "bare.img")
	for name, b := range map[string][]byte{kernel: bare.Kernel, disk: bare.Disk()} {
		if err := os.WriteFile(name, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir, []string{"--kernel", kernel, "--disk", disk, "--memory", "8M", "--append", "rounds=1"}
}

// bareRecording records it.
func bareRecording(t *testing.T) (dir, rec string) {
	t.Helper()
	dir, flags := bareFiles(t)
	rec = filepath.Join(dir, "bare.rec")
	must(t, append([]string{"record", "-o", rec, "-q", "--mark-every", "1e6"}, flags...)...)
	return dir, rec
}

// statsOf runs a command line with --stats=json and returns what it tells.
func statsOf(t *testing.T, args ...string) *vmm.Stats {
	t.Helper()
	status, _, err := refault(t, append(args, "--stats=json")...)
	if status != statusDone {
		t.Fatalf("refault %s: status %d: %s", strings.Join(args, " "), status, err)
	}
	// What the verb says about its end comes first.
	s := new(vmm.Stats)
	if e := json.Unmarshal([]byte(err[strings.Index(err, "{\n"):]), s); e != nil {
		t.Fatalf("%v in %s", e, err)
	}
	return s
}

// TestStats: every instruction is counted once, for the engine that executed it.
func TestStats(t *testing.T) {
	dir, rec := bareRecording(t)
	var info struct {
		Steps uint64 `json:"steps"`
	}
	if err := json.Unmarshal([]byte(must(t, "info", rec, "--json")), &info); err != nil {
		t.Fatal(err)
	}
	_, machine := bareFiles(t)
	for _, verb := range [][]string{
		append([]string{"run"}, machine...),
		append([]string{"record", "-o", filepath.Join(dir, "again.rec"), "-q"}, machine...),
		{"replay", rec},
		{"verify", rec},
	} {
		for _, engine := range []string{"interp", "jit"} {
			if engine == "jit" && !hasJIT {
				continue
			}
			os.RemoveAll(filepath.Join(dir, "again.rec"))
			s := statsOf(t, append(verb, "--engine", engine)...)
			n := &s.Instructions
			if string(s.Engine) != engine || n.Total != info.Steps || n.Translated+n.Interpreted != n.Total {
				t.Errorf("%s --engine %s: %+v of %d steps", verb[0], engine, s, info.Steps)
			}
			if engine == "interp" {
				if n.Translated != 0 || s.Translation.Blocks != 0 || len(s.Exits) != 0 {
					t.Errorf("%s: the interpreter translated: %+v", verb[0], s)
				}
				continue
			}
			if n.Translated == 0 || n.Interpreted == 0 || s.Translation.Blocks == 0 || s.Translation.CodeBytes < s.Translation.Blocks || s.Memory.TLBMisses == 0 {
				t.Errorf("%s: nothing counted: %+v", verb[0], s)
			}
			var left uint64
			for _, i := range s.Interpreter {
				left += i.Instructions
			}
			if left != n.Interpreted {
				t.Errorf("%s: %d instructions were interpreted, and there are reasons for %d", verb[0], n.Interpreted, left)
			}
			for _, list := range [][]vmm.Count{s.Exits, s.Fallbacks} {
				sum, last := 0.0, ^uint64(0)
				for _, c := range list {
					if c.Count == 0 || c.Count > last {
						t.Errorf("%s: %v is out of order", verb[0], list)
					}
					sum, last = sum+c.Share, c.Count
				}
				if sum < 0.999 || sum > 1.001 {
					t.Errorf("%s: shares add up to %v: %v", verb[0], sum, list)
				}
			}
		}
	}

	status, _, table := refault(t, "verify", rec, "--stats")
	if status != statusDone || !regexp.MustCompile(`(?m)^  all +`+regexp.QuoteMeta(grouped(info.Steps))+`$`).MatchString(table) {
		t.Errorf("verify --stats: status %d\n%s", status, table)
	}
	for _, verb := range [][]string{{"verify", rec}, append([]string{"record", "-o", filepath.Join(dir, "json.rec")}, machine...)} {
		var result struct {
			Stats *vmm.Stats `json:"stats"`
		}
		if err := json.Unmarshal([]byte(must(t, append(verb, "--json", "--stats")...)), &result); err != nil || result.Stats == nil || result.Stats.Instructions.Total != info.Steps {
			t.Errorf("%s --json --stats: %v, %+v", verb[0], err, result.Stats)
		}
	}
	if out := must(t, "verify", rec, "--json"); strings.Contains(out, "stats") {
		t.Errorf("verify --json without --stats: %s", out)
	}
}

// TestPerfMap: each line names a piece of code, no two pieces overlap, and the names are the kernel's.
func TestPerfMap(t *testing.T) {
	if !hasJIT {
		t.Skip("there is no translator for this host")
	}
	_, rec := bareRecording(t)
	path := perfMapPath(os.Getpid())
	os.Remove(path)
	t.Cleanup(func() { os.Remove(path) })
	must(t, "verify", rec)
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a map that nobody asked for")
	}
	_, machine := bareFiles(t)
	for _, verb := range [][]string{{"verify", rec}, append([]string{"run"}, machine...)} {
		must(t, append(verb, "--perf-map")...)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var end uint64
		names := map[string]bool{}
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			var addr, size uint64
			var name string
			if _, err := fmt.Sscanf(line, "%x %x %s", &addr, &size, &name); err != nil || addr < end || size == 0 {
				t.Fatalf("%s: line %q after address %#x: %v", verb[0], line, end, err)
			}
			end = addr + size
			if strings.HasSuffix(line, " [block]") {
				names[name[:min(len(name), len("guest:0x7f00"))]] = true
			}
		}
		// The kernel and the task. This kernel's file has no symbols.
		if !names["guest:0x1004"] || !names["guest:0x7f00"] {
			t.Errorf("%s: no block of the kernel, or of its task:\n%s", verb[0], b)
		}
	}
	os.Remove(path)
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	if status, _, msg := refault(t, "verify", rec, "--perf-map"); status != statusCouldNot || !strings.HasPrefix(msg, "refault: --perf-map: ") {
		t.Errorf("the map would go through somebody's link: status %d, %s", status, msg)
	}
}

// TestPerfMapSymbols: blocks are named by the kernel's symbols, and names that are out of date are not kept.
func TestPerfMapSymbols(t *testing.T) {
	k, err := parseKernel(tiny.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "map")
	p, err := newPerfMap(path, k.symbols.Name)
	if err != nil {
		t.Fatal(err)
	}
	at := tiny.Symbol("timer")
	m := p.codeMap()
	m.Common(0x1000, 0x100)
	m.Block(0x1100, 0x20, at)
	m.Flushed()
	m.Block(0x1100, 0x40, at+4)
	m.Block(0x1140, 0x10, 0x7f0000001000)
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const want = "1000 100 refault:between blocks\n1100 40 guest:timer+0x4 [block]\n1140 10 guest:0x7f0000001000 [block]\n"
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
