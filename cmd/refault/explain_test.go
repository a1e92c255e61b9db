package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestExplainVerb(t *testing.T) {
	dir, rec := golden(t)
	mce := faulty(t, dir, rec, "mce", "mce:type=srao,addr=0x200000@step:250000")
	out := must(t, "explain", rec, mce)
	for _, want := range []string{"origin        the fault itself, in mc_pending", "control flow split", "#MC, handled at", "<machine_check>", "said (step "} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	var e struct {
		Complete bool `json:"complete"`
		Links    []struct {
			Step uint64 `json:"step"`
			From []struct {
				Place string `json:"place"`
				Kind  string `json:"dependence"`
			} `json:"from"`
		} `json:"links"`
	}
	if err := json.Unmarshal([]byte(must(t, "explain", rec, mce, "--json")), &e); err != nil || !e.Complete || len(e.Links) != 1 || e.Links[0].Step != 250_000 || e.Links[0].From[0].Kind != "control" {
		t.Errorf("%+v, %v", e, err)
	}
	latent := faulty(t, dir, rec, "latent", "mem:addr=0x3ff000,bit=1@step:300001")
	if out := must(t, "explain", rec, latent); !strings.Contains(out, "nothing came of it") {
		t.Errorf("%s", out)
	}
	// A fault whose effect goes through more instructions than a chain has.
	long := faulty(t, dir, rec, "long", "reg:name=rcx,bit=1@step:150001")
	if status, out, err := refault(t, "explain", rec, long); status == statusCouldNot || !strings.Contains(out, "outcome") {
		t.Errorf("status %d: %s%s", status, out, err)
	}
	mustFail(t, "none.rec", "explain", rec, filepath.Join(dir, "none.rec"))
	mustFail(t, "it needs GOLDEN FAULTY", "explain", rec)
}
