//go:build linux && amd64

package jit

import (
	"debug/elf"
	"os"
	"testing"

	"refault/vmm/mem"
	"refault/vmm/x86"
	"refault/vmm/x86/interp"
)

// BenchmarkTranslate translates the code of this test, block by block.
func BenchmarkTranslate(b *testing.B) {
	name, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	f, err := elf.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	text, err := f.Section(".text").Data()
	if err != nil {
		b.Fatal(err)
	}
	text = text[:min(len(text), 2<<20)]
	ram, err := mem.New(16 << 20)
	if err != nil {
		b.Fatal(err)
	}
	defer ram.Close()
	c, err := x86.NewCPU(0, ram, nothing{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	e, err := New(c, interp.New(c))
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	const at = 1 << 20
	ram.WriteAt(text, at)
	for b.Loop() {
		e.flush()
		for pos := 0; pos < len(text); {
			if t := e.translate(at+uint64(pos), at+uint64(pos), x86.ViewSuper, false, false); t != nil {
				pos += int(t.size)
			} else {
				pos++
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(e.Stats.Insts), "ns/inst")
	b.ReportMetric(float64(e.Stats.CodeBytes)/float64(e.Stats.Insts), "B/inst")
}
