package compare

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"refault/replay"
	"refault/test/recorded"
	"refault/test/tiny"
	"refault/vmm"
	"refault/vmm/dev/disk"
)

// seen is a write as it is seen while a recording plays.
type seen struct {
	step, lba uint64
	data      []byte
}

// allWrites plays a recording and lists what is written to its disk, a sector each.
func allWrites(t *testing.T, dir string) (all []seen) {
	t.Helper()
	p := recorded.Open(t, dir)
	m := p.Machine()
	m.Observe(&vmm.Observer{Wrote: func(_ int, lba uint64, b []byte) {
		for ; len(b) > 0; b, lba = b[disk.SectorSize:], lba+1 {
			all = append(all, seen{m.Step(), lba, slices.Clone(b[:disk.SectorSize])})
		}
	}})
	if err := p.Seek(p.Start()); err != nil {
		t.Fatal(err)
	}
	if err := p.RunTo(p.End()); err != nil {
		t.Fatal(err)
	}
	return all
}

// The tiny guest writes a sector in each round: number 128 and those after it.
func TestDiskWrites(t *testing.T) {
	golden := recorded.Golden(t, 12)
	writes := allWrites(t, golden)
	if len(writes) != 12 || writes[5].lba != 133 {
		t.Fatalf("the guest wrote %d sectors, the sixth is number %d", len(writes), writes[5].lba)
	}
	const shown = 16
	w := writes[5]
	for _, c := range []struct {
		name, fault string
		outcome     Outcome
		want        DiskDiff
		first       WriteDiff
	}{
		{"lost", "ata:error=dropped,lba=133@step:50000", SDC, DiskDiff{Missing: 1},
			WriteDiff{Kind: WriteMissing, LBA: 133, Sectors: 1, Golden: &Write{w.step, 133, 1}, GoldenBytes: hex.EncodeToString(w.data[:shown])}},
		{"torn", "ata:error=torn,lba=133,bytes=101@step:50000", SDC, DiskDiff{Changed: 1},
			WriteDiff{Kind: WriteChanged, LBA: 133, Sectors: 1, Golden: &Write{w.step, 133, 1}, Faulty: &Write{w.step, 133, 1}, Byte: 101,
				GoldenBytes: hex.EncodeToString(w.data[101 : 101+shown]), FaultyBytes: hex.EncodeToString(tiny.Disk()[133*disk.SectorSize+101:][:shown])}},
		{"misdirected", "ata:error=misdirected,lba=133,target=250@step:50000", SDC, DiskDiff{Missing: 1, Added: 1},
			WriteDiff{Kind: WriteMisdirected, LBA: 133, Sectors: 1, Golden: &Write{w.step, 133, 1}, Faulty: &Write{w.step, 250, 1},
				GoldenBytes: hex.EncodeToString(w.data[:shown]), FaultyBytes: hex.EncodeToString(w.data[:shown])}},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty := inject(t, golden, c.fault)
			r := diff(t, golden, faulty)
			d := r.Disks[0]
			if d.Equal || d.Same() || d.Changed != c.want.Changed || d.Missing != c.want.Missing || d.Added != c.want.Added || d.Moved != 0 || d.Note != "" {
				t.Errorf("%+v, want %+v", d, c.want)
			}
			if d.First == nil || fmt.Sprintf("%+v %+v", d.First.Golden, d.First.Faulty) != fmt.Sprintf("%+v %+v", c.first.Golden, c.first.Faulty) {
				t.Fatalf("first %+v, golden %+v, faulty %+v", d.First, d.First.Golden, d.First.Faulty)
			}
			got := *d.First
			got.Golden, got.Faulty, c.first.Golden, c.first.Faulty = nil, nil, nil, nil
			if got != c.first {
				t.Errorf("first %+v, want %+v", got, c.first)
			}
			if r.Outcome != c.outcome || r.Output != nil {
				t.Errorf("outcome %s: %s; output %+v", r.Outcome, r.Why, r.Output)
			}
		})
	}
}

// A bit that flips in the buffer of a write, before it is written, is found on the disk, wherever the marks are.
func TestDiskWriteOfAFlippedBit(t *testing.T) {
	golden := recorded.Golden(t, 12)
	p := recorded.Open(t, golden)
	w := allWrites(t, golden)[7]
	// The guest's buffer is at 0x116000. It halts until the sector that it reads has come; 500
	// instructions before the write the buffer has its content.
	r := diff(t, golden, inject(t, golden, fmt.Sprintf("mem:addr=0x116123,bit=4@step:%d", w.step-200)))
	d := r.Disks[0]
	if r.Outcome != SDC || d.Changed != 1 || d.Missing+d.Added+d.Moved != 0 || d.First == nil || d.First.LBA != w.lba || d.First.Byte != 0x123 || d.First.Golden.Step != w.step {
		t.Errorf("outcome %s: %s; %+v, first %+v of %d steps", r.Outcome, r.Why, d, d.First, p.End())
	}
	golden16, _ := hex.DecodeString(d.First.GoldenBytes)
	faulty16, _ := hex.DecodeString(d.First.FaultyBytes)
	if golden16[0] != w.data[0x123] || faulty16[0] != w.data[0x123]^1<<4 || !slices.Equal(golden16[1:], faulty16[1:]) {
		t.Errorf("bytes %x and %x", golden16, faulty16)
	}
}

// What only comes later is the same.
func TestDiskWritesThatComeLater(t *testing.T) {
	golden := recorded.Golden(t, 12)
	r := diff(t, golden, inject(t, golden, "ata:error=slow,lba=133,ops=write,by=300us@step:50000"))
	d := r.Disks[0]
	if d.First != nil && d.First.Kind == WriteMoved || d.Moved != 0 || d.Missing+d.Added != 0 {
		t.Errorf("%+v, %+v", d, d.First)
	}
}

// match against what is plainly so: the pairs are equal and as many as can be, and without those that
// moved they ascend.
func TestMatchOfRandomWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var g, f []sector
		for range r.IntN(30) {
			g = append(g, sector{content: content{lba: r.Uint64N(6)}})
		}
		for range r.IntN(30) {
			f = append(f, sector{content: content{lba: r.Uint64N(6)}})
		}
		if r.IntN(3) == 0 {
			f = slices.Clone(g)
			for range r.IntN(3) {
				if len(f) > 1 {
					i, k := r.IntN(len(f)), r.IntN(len(f))
					f[i], f[k] = f[k], f[i]
				}
			}
		}
		m := match(g, f)
		count := map[uint64][2]int{}
		for _, s := range g {
			c := count[s.lba]
			count[s.lba] = [2]int{c[0] + 1, c[1]}
		}
		for _, s := range f {
			c := count[s.lba]
			count[s.lba] = [2]int{c[0], c[1] + 1}
		}
		want := 0
		for _, c := range count {
			want += min(c[0], c[1])
		}
		pairs, last := 0, none
		for i, k := range m.of {
			switch {
			case k == none:
				continue
			case k == moved:
				k = m.pair[i]
			case k <= last:
				t.Fatalf("the order is not the same: %v", m.of)
			default:
				last = k
			}
			pairs++
			if g[i].content != f[k].content || m.back[k] != i {
				t.Fatalf("%d is no pair of %d", i, k)
			}
		}
		if pairs != want {
			t.Fatalf("%d pairs, want %d: %v and %v", pairs, want, g, f)
		}
		if slices.Equal(g, f) && slices.ContainsFunc(m.of, func(k int) bool { return k < 0 }) {
			t.Fatalf("equal, and yet %v", m.of)
		}
	}
}

// A recording that was forked where the other has no mark is compared from there.
func TestDiskWritesOfForksBetweenMarks(t *testing.T) {
	golden := recorded.Golden(t, 12)
	w := allWrites(t, golden)
	p := recorded.Open(t, golden)
	if err := p.Seek(w[4].step + 1000); err != nil { // a write is between it and the mark before
		t.Fatal(err)
	}
	if _, err := p.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	faulty := inject(t, golden, fmt.Sprintf("reg:name=r9,bit=5@step:%d", w[4].step+2000))
	f := recorded.Open(t, faulty)
	if f.Start() != w[4].step+1000 {
		t.Fatalf("it begins at step %d", f.Start())
	}
	for _, x := range []*replay.Player{p, f} {
		if got := writtenInAll(x); got.Sectors != 12 || got != writtenInAll(p) {
			t.Errorf("%s: %+v, want %+v", x.Dir, got, writtenInAll(p))
		}
	}
	if r := diff(t, golden, faulty); !r.Disks[0].Same() || r.Outcome != Latent {
		t.Errorf("%+v, outcome %s: %s", r.Disks[0], r.Outcome, r.Why)
	}
	if err := f.Verify(); err != nil {
		t.Error(err)
	}
}
