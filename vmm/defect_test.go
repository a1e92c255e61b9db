package vmm

import (
	"bytes"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"refault/test/tiny"
	"refault/vmm/dev"
	"refault/vmm/dev/disk"
)

func tinyMachine(t testing.TB) *Machine {
	t.Helper()
	d, err := disk.New("disk0", tiny.Disk())
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{MemoryBytes: tiny.MemoryBytes, Disks: []*disk.Disk{d}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if err := m.Boot(tiny.Kernel, nil, "tiny 20"); err != nil {
		t.Fatal(err)
	}
	return m
}

// breakages is a defect of each kind.
var breakages = []Defect{
	{Kind: DefectPoison, Addr: 0x101000, Bad: []byte{0xff}, Grain: 64, By: ByDMA, Bank: -1},
	{Kind: DefectPoison, Addr: 0x300000, Bad: []byte{0xff, 1}, Grain: 1, By: ByAll, Bank: 9, ScrubBytesPerS: 1e9, Remaining: 3},
	{Kind: DefectStuck, Addr: 0x101010, Mask: []byte{0x10}, Value: []byte{0}},
	{Kind: DefectRegister, Register: "rbp", Mask: []byte{1, 0, 0, 0, 0, 0, 0, 0}, Value: make([]byte, 8), UntilStep: 150_000},
	{Kind: DefectFetch, Addr: tiny.Symbol("float"), Mask: []byte{0, 0, 1}, Every: 3, Remaining: 2},
	{Kind: DefectLogic, Class: "add", Mask: []byte{1}, Skip: 100, Every: 1000, Chance: 1 << 31},
	{Kind: DefectInterrupt, Vector: 0x40, DelayNs: 1000, Every: 2},
	{Kind: DefectInterrupt, Vector: 0, PIC: true, DelayNs: 50_000, Skip: 2},
	{Kind: DefectBus, Class: BusPort, Addr: 0x1f0, Grain: 8, By: ByBusRead, Mask: []byte{0, 0, 4}, Skip: 3, Remaining: 2},
	{Kind: DefectECC, Addr: 0x101000, Mask: []byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, Bad: []byte{0xff}, Grain: 64, By: ByAll, Bank: -1, Hold: true},
}

// A machine that is broken in every way is the same after its state has been saved and restored.
func TestBrokenMachineIsRestored(t *testing.T) {
	m := tinyMachine(t)
	if _, err := m.Run(100_000); err != nil {
		t.Fatal(err)
	}
	for i := range breakages {
		if err := m.Inject(&Fault{Kind: FaultDefect, Defect: &breakages[i]}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if _, err := m.Run(m.Step() + 12_345); err != nil {
			t.Fatal(err)
		}
		n := tinyMachine(t)
		for page := range m.RAM.Pages() {
			n.RAM.NoteWrite(uint64(page)<<12, 4096)
			copy(n.RAM.Page(page), m.RAM.Page(page))
		}
		for i, d := range m.Devices() {
			if err := dev.Decode(n.Devices()[i], dev.Encode(d)); err != nil {
				t.Fatal(err)
			}
		}
		n.Entered()
		to := m.Step() + 50_000
		if _, err := n.Run(to); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Run(to); err != nil {
			t.Fatal(err)
		}
		for i, d := range m.Devices() {
			if !bytes.Equal(dev.Encode(d), dev.Encode(n.Devices()[i])) {
				t.Fatalf("%s differs at step %d", d.Name(), to)
			}
		}
		if !bytes.Equal(m.RAM.Data(), n.RAM.Data()) {
			t.Fatalf("memory differs at step %d", to)
		}
	}
}

// A fault comes out of a recording, which may have come from anywhere.
func FuzzInject(f *testing.F) {
	encode := func(v *Fault) []byte {
		var b bytes.Buffer
		e := msgpack.NewEncoder(&b)
		e.UseArrayEncodedStructs(true)
		if err := e.Encode(v); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	for i := range breakages {
		f.Add(encode(&Fault{Kind: FaultDefect, Defect: &breakages[i]}))
	}
	f.Add(encode(&Fault{Kind: FaultClock, Clock: ClockTime, DeltaNs: 1 << 61}))
	f.Add(encode(&Fault{Kind: FaultRegister, Register: "cr3", Mask: []byte{0, 0, 1}}))
	f.Add(encode(&Fault{Kind: FaultMCE, Status: 1 << 63, Bank: 3, Count: 1 << 30}))
	m := tinyMachine(f)
	if _, err := m.Run(60_000); err != nil {
		f.Fatal(err)
	}
	var states [][]byte
	for _, d := range m.Devices() {
		states = append(states, dev.Encode(d))
	}
	ram := bytes.Clone(m.RAM.Data())
	f.Fuzz(func(t *testing.T, b []byte) {
		var v Fault
		if len(b) > 1<<16 || msgpack.Unmarshal(b, &v) != nil {
			return
		}
		for page := range m.RAM.Pages() {
			if old := ram[page<<12 : (page+1)<<12]; !bytes.Equal(m.RAM.Page(page), old) {
				m.RAM.NoteWrite(uint64(page)<<12, 4096)
				copy(m.RAM.Page(page), old)
			}
		}
		for i, d := range m.Devices() {
			if err := dev.Decode(d, states[i]); err != nil {
				t.Fatal(err)
			}
		}
		m.Entered()
		if m.Inject(&v) == nil {
			m.Run(70_000)
		}
	})
}
