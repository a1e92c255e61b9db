package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// faulty injects a fault into the tiny guest's run.
func faulty(t *testing.T, dir, rec, name, fault string) string {
	t.Helper()
	out := filepath.Join(dir, name+".rec")
	must(t, "inject", rec, "-o", out, "--fault", fault)
	return out
}

// mustFail runs a command line that has to end with status 2 and one line that says why.
func mustFail(t *testing.T, want string, args ...string) {
	t.Helper()
	status, out, err := refault(t, args...)
	if status != statusCouldNot || out != "" || !strings.Contains(err, want) || strings.Count(err, "\n") != 1 {
		t.Errorf("refault %s: status %d, %q, %q; want %q", strings.Join(args, " "), status, out, err, want)
	}
}

func TestBisectVerb(t *testing.T) {
	dir, rec := golden(t)
	flip := faulty(t, dir, rec, "flip", "reg:name=rip,bit=22@step:300001")
	if out := must(t, "bisect", rec, "--when", "console:tiny"); !strings.Contains(out, "holds from step ") || !strings.Contains(out, "out dx, al") {
		t.Errorf("%s", out)
	}
	var r struct {
		Found bool   `json:"found"`
		Step  uint64 `json:"step"`
	}
	if err := json.Unmarshal([]byte(must(t, "bisect", rec, "--when", "virt:done:4>3", "--json")), &r); err != nil || !r.Found || r.Step < 100_000 {
		t.Errorf("%+v, %v", r, err)
	}
	if status, out, _ := refault(t, "bisect", rec, "--when", "console:panic"); status != statusDifferent || !strings.Contains(out, "does not hold") {
		t.Errorf("status %d: %s", status, out)
	}
	if out := must(t, "bisect", rec, flip); !strings.Contains(out, "at step 300001") {
		t.Errorf("%s", out)
	}
	mustFail(t, "--when is missing", "bisect", rec)
	mustFail(t, "no kind", "bisect", rec, "--when", "foo:bar")
	mustFail(t, `unknown symbol doen; near it are`, "bisect", rec, "--when", "virt:doen:4>3")
	mustFail(t, "has steps 0 to", "bisect", rec, "--when", "console:x", "--to", "1e15")
	mustFail(t, "has steps 0 to", "bisect", rec, "--when", "console:x", "--from", "1000", "--to", "10")
	mustFail(t, "only mem", "bisect", rec, "--when", "reg:rax==1", "--exact")
	mustFail(t, "first difference", "bisect", rec, flip, "--when", "console:x")
	mustFail(t, "none.rec", "bisect", filepath.Join(dir, "none.rec"), "--when", "console:x")
}

func TestDiffOfDiskWrites(t *testing.T) {
	dir, rec := golden(t)
	lost := faulty(t, dir, rec, "lost", "ata:error=dropped,lba=133@step:50000")
	status, out, _ := refault(t, "diff", rec, lost)
	for _, want := range []string{"disk0         differs in the end; 1 sector not written\n  first at LBA 133, 1 sector, which the faulty run did not write\n  golden      ",
		" of 1 sector from LBA 133 on\n  faulty      not written\n", "outcome       sdc: what was written to the disks differs"} {
		if status != statusDifferent || !strings.Contains(out, want) {
			t.Errorf("status %d; it does not say %q:\n%s", status, want, out)
		}
	}
	var r struct {
		Disks []struct {
			Equal   bool `json:"equal"`
			Missing int  `json:"missing_sectors"`
			First   struct {
				Kind   string `json:"kind"`
				LBA    uint64 `json:"lba"`
				Golden *struct {
					Step uint64 `json:"step"`
				} `json:"golden"`
				Faulty *struct{} `json:"faulty"`
			} `json:"first"`
		} `json:"disks"`
	}
	_, out, _ = refault(t, "diff", "--json", rec, lost)
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Disks) != 1 || r.Disks[0].Equal || r.Disks[0].Missing != 1 ||
		r.Disks[0].First.Kind != "missing" || r.Disks[0].First.LBA != 133 || r.Disks[0].First.Golden.Step == 0 || r.Disks[0].First.Faulty != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if status, out, _ := refault(t, "inject", rec, "-o", filepath.Join(dir, "again.rec"), "--fault", "ata:error=dropped,lba=133@step:50000", "--expect", "sdc"); status != statusDone {
		t.Errorf("--expect sdc: status %d: %s", status, out)
	}
}
