package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func parseProfile(t *testing.T, path string) (p *profile.Profile, raw []byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = profile.ParseData(raw); err != nil {
		t.Fatal(err)
	}
	return p, raw
}

// TestProfile: samples at exact steps, the same from both engines, in a file that pprof opens.
func TestProfile(t *testing.T) {
	dir, rec := bareRecording(t)
	var info struct {
		Steps uint64 `json:"steps"`
	}
	if err := json.Unmarshal([]byte(must(t, "info", rec, "--json")), &info); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "p.pb.gz")
	var first []byte
	for _, engine := range []string{"interp", "jit"} {
		if engine == "jit" && !hasJIT {
			continue
		}
		must(t, "profile", rec, "--engine", engine, "--every", "1009", "-o", out)
		_, raw := parseProfile(t, out)
		if first != nil && !bytes.Equal(raw, first) {
			t.Errorf("%s: another profile", engine)
		}
		first = raw
	}

	p, _ := parseProfile(t, out)
	want := int64((info.Steps + 1008) / 1009)
	var n, user, insts int64
	for _, s := range p.Sample {
		n, insts = n+s.Value[0], insts+s.Value[1]
		if s.Label["privilege"][0] == userCode {
			user += s.Value[0]
			if a := s.Location[0].Address; a < 0x7f0000200000 || a >= 0x7f0000203000 {
				t.Errorf("a sample of the task at %#x", a)
			}
			if name := s.Location[0].Line[0].Function.Name; name != fmt.Sprintf("cr3:%s:%#x", s.Label["cr3"][0], s.Location[0].Address) {
				t.Errorf("the task's code is called %s", name)
			}
		}
	}
	// The task's round is most of what this guest does.
	if n != want || insts != want*1009 || user < n/2 || user == n || p.Period != 1009 {
		t.Errorf("%d samples of %d, %d instructions, %d in the task", n, want, insts, user)
	}
	if _, err := exec.LookPath("go"); err == nil {
		top, err := exec.Command("go", "tool", "pprof", "-top", out).CombinedOutput()
		if err != nil || !strings.Contains(string(top), "cr3:0x") || !strings.Contains(string(top), "Type: instructions") {
			t.Errorf("go tool pprof -top: %v\n%s", err, top)
		}
	}
	if l, _ := filepath.Glob(filepath.Join(dir, "*.part")); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}

	var report profileReport
	if err := json.Unmarshal([]byte(must(t, "profile", rec, "--every", "1009", "--top", "0", "--json")), &report); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for i, f := range report.Functions {
		sum += f.Samples
		if i > 0 && f.Samples > report.Functions[i-1].Samples {
			t.Errorf("row %d is out of order", i)
		}
	}
	if report.Samples != want || sum != want || report.User != user || report.Kernel != want-user || report.To != info.Steps {
		t.Errorf("the report has %+v, want %d samples, %d in the task", report, want, user)
	}
	if text := must(t, "profile", rec, "--every", "1009", "--top", "1"); strings.Count(text, "\n") != 4 || !strings.Contains(text, report.Functions[0].Function+"\n") {
		t.Errorf("profile --top 1:\n%s", text)
	}
}

// TestProfilePlace: a sample is the place of its step, and has the kernel's name for it.
func TestProfilePlace(t *testing.T) {
	dir, rec := golden(t)
	out := filepath.Join(dir, "p.pb.gz")
	for _, step := range []uint64{333_333, 600_001} {
		must(t, "profile", rec, "--from", fmt.Sprint(step), "--to", fmt.Sprint(step+1), "--every", "1e15", "-o", out)
		p, _ := parseProfile(t, out)
		if len(p.Sample) != 1 || p.Sample[0].Value[0] != 1 || p.Sample[0].Value[1] != 1 {
			t.Fatalf("step %d: %v", step, p.Sample)
		}
		l := p.Sample[0].Location[0]
		trace := must(t, "trace", rec, "--from", fmt.Sprint(step), "--to", fmt.Sprint(step+1), "--json")
		var at struct {
			RIP    uint64 `json:"rip"`
			Symbol string `json:"symbol"`
		}
		if err := json.Unmarshal([]byte(trace), &at); err != nil {
			t.Fatal(err)
		}
		if name, _, _ := strings.Cut(at.Symbol, "+"); l.Address != at.RIP || l.Line[0].Function.Name != name || name == "" {
			t.Errorf("step %d: profiled at %#x in %s; the trace has %s", step, l.Address, l.Line[0].Function.Name, trace)
		}
	}
}
