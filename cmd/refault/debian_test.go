package main

import (
	"debug/elf"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"refault/test/guest"
)

// TestDebian is the main job, end to end, on Debian's kernel: what its own log says of
// each fault, where each run diverges, and that every recording replays.
func TestDebian(t *testing.T) {
	img := guest.ForTest(t)
	dir := t.TempDir()
	out := must(t, "demo", "--dir", dir, "--kernel", img.Kernel, "--initrd", img.Initrd, "--disk", img.Disk, "--append", guest.Demo)
	at := 0
	for _, want := range []string{
		guest.SaysReady, guest.SaysHello, guest.SaysBlockmap, guest.SaysCat + "0", guest.SaysHelloEnd + "0", guest.SaysDone,
		": equal: ",
		"4. Where to aim", guest.SaysHello, guest.SaysBlockmap,

		"5. Inject", "recovery action for dirty LRU page: Recovered", "Killing hello", guest.SaysHelloEnd + "135 (SIGBUS)",
		"<asm_exc_machine_check>", "the kernel's stack of hello (process ", "outcome       recovered", ": equal: ", ": equal: ",

		"6. Inject", "Uncorrected hardware memory error in user-access", "Machine Check Exception: 7 Bank 9: bd80000000000134",
		"Sending SIGBUS to hello", "dirty LRU page: Recovered", guest.SaysHelloEnd + "135 (SIGBUS)",
		"<asm_exc_machine_check>", "outcome       recovered", ": equal: ", ": equal: ",

		"7. Inject", "failed command: READ DMA", "{ UNC }", "I/O error, dev sda", "failed command: READ DMA", "cat: read error: Input/output error", guest.SaysCat + "1",
		"(the page cache of ", "outcome       recovered", ": equal: ", ": equal: ",
	} {
		i := strings.Index(out[at:], want)
		if i < 0 {
			t.Fatalf("the demonstration does not say %q after byte %d:\n%s", want, at, out)
		}
		at += i + len(want)
	}

	// What one engine recorded, the other verifies. The faulty runs go on from a late snapshot.
	rec := func(name string) string { return filepath.Join(dir, name+".rec") }
	for _, name := range []string{"srao", "srar"} {
		must(t, "verify", "--engine", "interp", rec(name))
	}
	// A step in the middle is the same place whichever snapshot it is reached from, and on either engine.
	const middle = "1234567891"
	regs := must(t, "dump", rec("golden"), "--at", middle, "regs")
	must(t, "snapshot", "take", rec("golden"), "--at", "1234000000")
	if got := must(t, "dump", rec("golden"), "--engine", "interp", "--at", middle, "regs"); got != regs {
		t.Errorf("step %s is another place from another snapshot:\n%s\n%s", middle, regs, got)
	}
	// The kernel's own symbols name its code.
	if out := must(t, "dump", rec("golden"), "--at", middle, "disasm", "memory_failure", "3"); !strings.Contains(out, "<memory_failure>") {
		t.Errorf("disasm memory_failure:\n%s", out)
	}
	// Each fault on a page: what the guest said is there with its step, and what differs with its owner.
	for name, want := range map[string][]string{
		"srao": {"#MC delivered", "asm_exc_machine_check", "recovery action for dirty LRU page: Recovered", "exit status 135 (SIGBUS)"},
		"srar": {"#MC delivered", "Sending SIGBUS to hello", "exit status 135 (SIGBUS)"},
		"unc":  {"{ UNC }", "cat: read error: Input/output error", "control flow has split"},
	} {
		page := must(t, "report", rec("golden"), rec(name), "-o", "-", "--points", "16")
		for _, w := range append(want, "planted", "first divergence", ">recovered<") {
			if !strings.Contains(page, w) {
				t.Errorf("the page of %s does not say %q", name, w)
			}
		}
	}
	// Modules are named by what the guest's memory says of them.
	explained := must(t, "explain", rec("golden"), rec("unc"))
	m := regexp.MustCompile(`step (\d+)  0010:([0-9a-f]{16}) <libata:(ata_\w+)\+0x[0-9a-f]+>  `).FindStringSubmatch(explained)
	if m == nil {
		t.Fatalf("no place in libata:\n%s", explained)
	}
	step, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	to := strconv.FormatUint(step+5, 10)
	for _, args := range [][]string{{"trace", rec("golden"), "--from", m[1], "--to", to}, {"dump", rec("golden"), "--at", m[1], "disasm", "0x" + m[2], "3"},
		{"profile", rec("golden"), "--from", m[1], "--to", to, "--every", "1"}, {"report", rec("golden"), rec("unc"), "-o", "-", "--points", "2"}} {
		if out := must(t, args...); !strings.Contains(out, "libata:"+m[3]) {
			t.Errorf("refault %v does not name libata:%s:\n%.2000s", args, m[3], out)
		}
	}
	if out := must(t, "dump", rec("golden"), "--at", m[1], "disasm", m[3], "2"); !strings.Contains(out, "<libata:"+m[3]+">") {
		t.Errorf("disasm %s:\n%s", m[3], out)
	}
	elfFile := filepath.Join(dir, "kernel.sym")
	must(t, "symbols", rec("golden"), "--at", m[1], "-o", elfFile)
	f, err := elf.Open(elfFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := f.Section(".modules")
	syms, err := f.Symbols()
	if at, _ := strconv.ParseUint(m[2], 16, 64); err != nil || in == nil || at < in.Addr || at >= in.Addr+in.Size || !slices.ContainsFunc(syms, func(s elf.Symbol) bool {
		return s.Name == m[3] && at >= s.Value && at < s.Value+s.Size && f.Sections[s.Section] == in
	}) {
		t.Errorf("no symbol of %s at %s: section %+v, %v", m[3], m[2], in, err)
	}
	var diff struct {
		Outcome string `json:"outcome"`
	}
	status, j, _ := refault(t, "diff", "--json", rec("srao"), rec("unc"))
	if err := json.Unmarshal([]byte(j), &diff); status != statusDifferent || err != nil || diff.Outcome == "" {
		t.Errorf("diff of two faulty runs: status %d, %v\n%s", status, err, j)
	}
}
