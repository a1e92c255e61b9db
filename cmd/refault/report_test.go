package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReportVerb(t *testing.T) {
	g, f := goldenAndFaulty(t, "reg:name=rcx,bit=1@step:200001")
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one.html"), filepath.Join(dir, "two.html")
	must(t, "report", g, f, "-o", one, "--points", "16")
	must(t, "report", g, f, "-o", two, "--points", "16", "--engine", "interp")
	a, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(two)
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Error("two pages of the same recordings have different bytes")
	}
	for _, want := range []string{"<!DOCTYPE html>", "reg:name=rcx,bit=1@step:200001", "First divergences", "prefers-color-scheme", "</html>"} {
		if !strings.Contains(string(a), want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if out := must(t, "report", g, f, "-o", "-", "--points", "16"); out != string(a) {
		t.Error("-o - writes another page")
	}
	if out := must(t, "report", g, g, "-o", "-"); !strings.Contains(out, "equal, to the last bit") {
		t.Error("the page of equal runs does not say so")
	}
}

func TestReportErrors(t *testing.T) {
	g, f := goldenAndFaulty(t, "mem:addr=0x3f0000,bit=1@step:200000")
	dir := t.TempDir()
	for _, c := range []struct {
		want string
		args []string
	}{
		{"-o is missing", []string{g, f}},
		{"it needs GOLDEN FAULTY", []string{g, "-o", "x"}},
		{"is a directory", []string{g, f, "-o", dir}},
		{"no such file", []string{g, f, "-o", filepath.Join(dir, "no", "x.html")}},
		{"not a directory", []string{g, f, "-o", filepath.Join(f, "FORMAT", "x.html")}},
		{"--points is 0", []string{g, f, "-o", "-", "--points", "0"}},
		{"no such file", []string{g, f + "x", "-o", "-"}},
	} {
		status, out, err := refault(t, append([]string{"report"}, c.args...)...)
		if status != statusCouldNot || out != "" || strings.Count(err, "\n") != 1 || !strings.Contains(err, c.want) {
			t.Errorf("%q: status %d: %s%s", c.args, status, out, err)
		}
	}
}
