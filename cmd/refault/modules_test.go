package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"refault/test/guest"
	"refault/vmm/boot"
)

// TestModuleSymbols: on Debian, whose drivers are modules, a trigger comes at the symbol of a module that
// is loaded much later, where the module then is, and at code that only starts it; and the other verbs
// take and give the names of modules too.
func TestModuleSymbols(t *testing.T) {
	img := guest.ForTest(t)
	dir := t.TempDir()
	golden, n := filepath.Join(dir, "golden.rec"), 0
	// Each verb reads the kernel's symbols, which is faster where nothing has to be unpacked.
	packed, err := os.ReadFile(img.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	vmlinux, err := boot.Vmlinux(packed)
	if err != nil {
		t.Fatal(err)
	}
	kernel := filepath.Join(dir, "vmlinux")
	if err := os.WriteFile(kernel, vmlinux, 0o666); err != nil {
		t.Fatal(err)
	}
	// libata is loaded after some 1.7e9 steps, ext4 after 2.2e9.
	const end = "2.4e9"
	must(t, "record", "-o", golden, "-q", "--kernel", kernel, "--initrd", img.Initrd, "--disk", img.Disk, "--append", guest.Demo, "--input", "none", "--max-steps", end)
	const flip = "mem:addr=0x500,bit=0@" // of what nobody reads
	// first returns the step at which a trigger comes.
	first := func(when string) string {
		t.Helper()
		rec := filepath.Join(dir, fmt.Sprintf("%d.rec", n))
		n++
		must(t, "inject", golden, "-o", rec, "--fault", flip+when, "--max-steps", "1.85e9")
		var event struct {
			Step uint64
			Kind string
		}
		if err := json.Unmarshal([]byte(must(t, "log", rec, "--json")), &event); err != nil || event.Kind != "fault" {
			t.Fatalf("%s: %+v, %v", when, event, err)
		}
		return fmt.Sprint(event.Step)
	}
	// executes returns the address of the next instruction at a step, which has to be the first of a function.
	executes := func(step, name string) string {
		t.Helper()
		text := must(t, "dump", golden, "--at", step, "disasm")
		line, _, _ := strings.Cut(text, "\n")
		if !strings.HasSuffix(line, " <"+name+">") {
			t.Errorf("at step %s, %s is not executed, but %s", step, name, line)
		}
		addr, _, _ := strings.Cut(line, " ")
		return "0x" + addr
	}

	loaded := first("exec:libata:ata_qc_complete")
	at := executes(loaded, "libata:ata_qc_complete")
	// Nobody knows the address beforehand; now that we do, it is seen that nothing came before. By its name
	// alone it is the same.
	for _, when := range []string{"exec:" + at, "step:5e8@exec:ata_qc_complete"} {
		if got := first(when); got != loaded {
			t.Errorf("%s came at step %s, not %s", when, got, loaded)
		}
	}
	// The first port gets its number from a word that is not there before.
	var b struct {
		Step        uint64
		Instruction struct{ Symbol string }
	}
	found := must(t, "bisect", golden, "--json", "--when", "virt:ata_print_id:4>0")
	if err := json.Unmarshal([]byte(found), &b); err != nil || !strings.HasPrefix(b.Instruction.Symbol, "libata:ata_host_register+") {
		t.Errorf("%s: %v", found, err)
	}
	if got := first("write:libata:ata_print_id/4"); got != fmt.Sprint(b.Step) {
		t.Errorf("a word of a module is written at step %s, not %d", got, b.Step)
	}
	// What starts a module is in memory for no longer than that takes. The kernel names modules with an underscore.
	executes(first("exec:crc64-rocksoft:crc64_rocksoft_mod_init"), "crc64_rocksoft:crc64_rocksoft_mod_init")

	out := filepath.Join(dir, "none.rec")
	fails := func(fault, want string) {
		t.Helper()
		status, _, msg := refault(t, "inject", golden, "-o", out, "--fault", fault, "--max-steps", end)
		if status != statusCouldNot || !strings.Contains(msg, want) {
			t.Errorf("%s: status %d, %s; want %q", fault, status, msg, want)
		}
		os.RemoveAll(out)
	}
	fails(flip+"step:2.39e9@exec:crc64_rocksoft:init_module", "came 0 times, of 1: module crc64_rocksoft has no symbol init_module")
	fails(flip+"exec:nosuch:init_module", "came 0 times, of 1: module nosuch is not loaded")
	fails(flip+"exec:libata:ata_qc_complet", "module libata has no symbol ata_qc_complet; near it are ata_qc_complete")
	fails("mem:vaddr=ata_qc_complete,bit=0@step:5e8", "key vaddr: module libata is not loaded")
	mustFail(t, "unknown symbol ata_qc_complet; near it are ata_qc_complete, __ata_qc_complete, atapi_qc_complete; one of a module that is not loaded is MODULE:SYMBOL",
		"inject", golden, "-o", out, "--fault", flip+"exec:ata_qc_complet")
	mustFail(t, "module libata has no symbol ata_print_ids where the recording ends", "bisect", golden, "--when", "virt:libata:ata_print_ids:4>0")
	mustFail(t, "symbol __this_module is in the modules ", "inject", golden, "-o", out, "--fault", flip+"exec:__this_module")
	mustFail(t, "module libata is not loaded at step 500000000", "dump", golden, "--at", "5e8", "virt", "libata:ata_qc_complete", "1")

	must(t, "inject", golden, "-o", out, "--fault", "mem:vaddr=ata_qc_complete+2,bit=0@step:2.39e9", "--max-steps", end)
	code := strings.Fields(must(t, "dump", golden, "--at", "2.39e9", "virt", "libata:ata_qc_complete+2", "1"))[1]
	if log := must(t, "log", out); !strings.Contains(log, "(was "+code+")") {
		t.Errorf("no fault in what was %s:\n%s", code, log)
	}

	if !hasJIT {
		return
	}
	path := perfMapPath(os.Getpid())
	t.Cleanup(func() { os.Remove(path) })
	must(t, "replay", golden, "--perf-map", "--to", loaded)
	names, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(names), " guest:libata:ata_") || !strings.Contains(string(names), " guest:do_init_module") {
		t.Errorf("no block of libata in %d bytes, %v", len(names), err)
	}
}
