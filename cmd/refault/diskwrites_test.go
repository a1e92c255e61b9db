package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"refault/compare"
	"refault/replay"
	"refault/test/guest"
	"refault/vmm"
	"refault/vmm/dev/disk"
)

// diskWrite is a write by DMA.
type diskWrite struct {
	step, lba, pa uint64 // pa: of its first byte
	sectors       int
}

// dmaWrites plays a recording and lists what was written to its disk.
func dmaWrites(t *testing.T, rec string) (all []diskWrite) {
	t.Helper()
	p, err := replay.Open(rec)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	m := p.Machine()
	var pa uint64
	fresh := true
	m.Observe(&vmm.Observer{
		DMA: func(at uint64, n int, write bool) {
			if !write && n >= disk.SectorSize && fresh {
				pa, fresh = at, false
			}
		},
		Wrote: func(_ int, lba uint64, b []byte) {
			all = append(all, diskWrite{m.Step(), lba, pa, len(b) / disk.SectorSize})
			fresh = true
		},
	})
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestDebianDiskWrites: Debian writes files, and what goes wrong on the way to the disk is found on the
// disk: a bit of the page cache, and a write that a drive loses.
func TestDebianDiskWrites(t *testing.T) {
	img := guest.ForTest(t)
	dir := t.TempDir()
	golden := filepath.Join(dir, "golden.rec")
	must(t, "record", "-o", golden, "--kernel", img.Kernel, "--initrd", img.Initrd, "--disk", img.Disk, "--append", guest.Stress+":files", "--input", "none")
	writes := dmaWrites(t, golden)
	total := 0
	for _, w := range writes {
		total += w.sectors
	}
	if len(writes) < 10 || total < 2048 {
		t.Fatalf("%d writes of %d sectors", len(writes), total)
	}
	// The first large one is of the file's content.
	var data diskWrite
	for _, w := range writes {
		if w.sectors >= 64 {
			data = w
			break
		}
	}
	last := writes[len(writes)-1]
	t.Logf("%d writes of %d sectors; content %+v; last %+v", len(writes), total, data, last)

	flip := faulty(t, dir, golden, "flip", fmt.Sprintf("mem:addr=%#x,bit=5@step:%d", data.pa+0x234, data.step-20_000))
	_, out, _ := refault(t, "diff", golden, flip)
	for _, want := range []string{fmt.Sprintf("first at LBA %d, 1 sector, from byte 52 on", data.lba+1), fmt.Sprintf("by a write at step %d of ", data.step), fmt.Sprintf(" sectors from LBA %d on\n", data.lba), "with other content"} {
		if !strings.Contains(out, want) {
			t.Errorf("diff does not say %q:\n%s", want, out)
		}
	}
	out = must(t, "explain", golden, flip)
	for _, want := range []string{fmt.Sprintf("origin        the fault itself, in [%#x]", data.pa+0x230), fmt.Sprintf("the wrong byte was written to disk0, sector %d, byte 52", data.lba+1)} {
		if !strings.Contains(out, want) {
			t.Errorf("explain does not say %q:\n%s", want, out)
		}
	}
	lost := faulty(t, dir, golden, "lost", fmt.Sprintf("ata:error=dropped,lba=%d,count=%d,times=1@step:%d", last.lba, last.sectors, last.step-1_000_000))
	_, out, _ = refault(t, "diff", golden, lost)
	if !regexp.MustCompile(`disk0 +differs in the end; \d+ sectors? not written\n  first at LBA `+fmt.Sprint(last.lba)+", ").MatchString(out) || !strings.Contains(out, "outcome       "+string(compare.SDC)) {
		t.Errorf("diff:\n%s", out)
	}
}
