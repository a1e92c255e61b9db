package replay

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"refault/snapshot"
	"refault/test/tiny"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev"
	"refault/vmm/dev/ata"
	"refault/vmm/x86"
)

// hostile is a Player whose devices are given states that no recorder wrote. A
// checksum is no signature: a file can be whole and say anything.
type hostile struct {
	*Player
	at    int // snapshot
	steps uint64
	// happened counts the faults that happened.
	happened int
}

func newHostile(t testing.TB) *hostile {
	p := openPlayer(t, record(t, 8, Options{MarkEvery: 100_000, SnapshotEvery: 50_000}))
	p.m.Console = nil // it will not say what was recorded
	return &hostile{Player: p, at: 3, steps: 3000}
}

// try gives device i the state b and lets the machine run on. Whatever comes of it,
// the host must not notice.
func (h *hostile) try(t testing.TB, i int, b []byte, what string) {
	t.Helper()
	m := h.m.Machine
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%s: state of %s: %v", what, m.Devices()[i].Name(), r)
			h.broken(t)
		}
	}()
	if err := h.restore(h.at); err != nil {
		t.Fatal(err)
	}
	if err := dev.Decode(m.Devices()[i], b); err != nil {
		return
	}
	if m.Step() > 1<<62 {
		return // it would have to run to the end of the count
	}
	m.SetInputs(&script{})
	// A processor that can be woken by nothing, beside a timer that runs, is no error: it can be interrupted.
	defer time.AfterFunc(20*time.Millisecond, m.Interrupt).Stop()
	if _, err := m.Run(m.Step() + h.steps); err != nil && !errors.Is(err, vmm.ErrInterrupted) && m.Err() == nil {
		t.Errorf("%s: state of %s: %v", what, m.Devices()[i].Name(), err)
	}
	for _, d := range m.Devices() {
		hashDevice(d)()
	}
}

// broken takes another machine, since this one stopped in the middle of something.
func (h *hostile) broken(t testing.TB) {
	h.Player = openPlayer(t, h.Dir)
	h.m.Console = nil
}

// variants calls f with copies of v in which one leaf is another.
func variants(v any, path string, f func(v any, what string)) {
	number := func(n any) { f(n, fmt.Sprintf("%s = %v", path, n)) }
	switch x := v.(type) {
	case []any:
		for i := range x {
			variants(x[i], fmt.Sprintf("%s[%d]", path, i), func(e any, what string) {
				c := append([]any(nil), x...)
				c[i] = e
				f(c, what)
			})
			if i == 40 {
				break // the rest is the same again
			}
		}
		if len(x) > 0 {
			f(x[:len(x)-1], path+", one less")
			f(append(append([]any(nil), x...), x[len(x)-1]), path+", one more")
			f([]any{}, path+", none")
		}
	case []byte:
		f(append(bytes.Clone(x), 0xff), path+", a byte more")
		f(bytes.Repeat([]byte{0xff}, len(x)), path+", all ones")
		f(bytes.Repeat([]byte{0xff}, 100_000), path+", many bytes")
		if len(x) > 0 {
			f(x[:len(x)-1], path+", a byte less")
			f([]byte{}, path+", no bytes")
			f([]byte(nil), path+", nil")
		}
	case string:
		f(x+"x", path+", longer")
		f("", path+", empty")
	case bool:
		f(!x, path+" toggled")
	case nil:
		f([]byte{1, 2, 3}, path+", bytes")
		f([]any{}, path+", array")
	default:
		for _, n := range []uint64{0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 513, 4095, 4096, 65535, 1 << 31, math.MaxUint32, 1 << 40, 1 << 63, math.MaxUint64} {
			number(n)
		}
		number(int64(-1))
		number(int64(math.MinInt64))
		if n, ok := toUint(x); ok {
			number(n + 1)
			number(n ^ 0x80)
		}
	}
}

func toUint(v any) (uint64, bool) {
	switch x := v.(type) {
	case int8:
		return uint64(x), true
	case uint8:
		return uint64(x), true
	case uint16:
		return uint64(x), true
	case uint32:
		return uint64(x), true
	case uint64:
		return x, true
	}
	return 0, false
}

func TestHostileDeviceStates(t *testing.T) {
	h := newHostile(t)
	if err := h.restore(h.at); err != nil {
		t.Fatal(err)
	}
	var states [][]byte
	for _, d := range h.m.Devices() {
		states = append(states, dev.Encode(d))
	}
	for i, b := range states {
		t.Run(h.m.Devices()[i].Name(), func(t *testing.T) {
			var v any
			if err := msgpack.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
			n := 0
			variants(v, "", func(v any, what string) {
				n++
				if n%9 != 0 || testing.Short() && n%27 != 0 { // the rest is for FuzzDeviceState
					return
				}
				enc, err := msgpack.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				h.try(t, i, enc, what)
			})
			t.Logf("%d states", n)
		})
	}
}

func FuzzDeviceState(f *testing.F) {
	h := newHostile(f)
	if err := h.restore(h.at); err != nil {
		f.Fatal(err)
	}
	for i, d := range h.m.Devices() {
		f.Add(i, dev.Encode(d))
	}
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		h.try(t, int(uint(i)%uint(len(h.m.Devices()))), b, "fuzzed")
	})
}

// FuzzEvent decodes events and makes them happen.
func FuzzEvent(f *testing.F) {
	h := newHostile(f)
	for _, e := range []*vmm.Event{
		{Kind: vmm.EventConsole, Data: []byte("x")}, {Kind: vmm.EventClock, DeltaNs: 1000}, {Kind: vmm.EventPower},
		{Kind: vmm.EventFault, Fault: &vmm.Fault{Kind: vmm.FaultMemory, Addr: 0x1000, Mask: []byte{1}}},
		{Kind: vmm.EventFault, Fault: &vmm.Fault{Kind: vmm.FaultRegister, Register: "rax", Mask: []byte{1}}},
		{Kind: vmm.EventFault, Fault: &vmm.Fault{Kind: vmm.FaultMCE, Bank: 9, Status: 1 << 63}},
		{Kind: vmm.EventFault, Fault: &vmm.Fault{Kind: vmm.FaultDisk}},
	} {
		x, err := toTrace(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(x.Kind, x.Data, x.DeltaNs)
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte, delta uint64) {
		if err := h.restore(h.at); err != nil {
			t.Fatal(err)
		}
		m := h.m.Machine
		e, err := fromTrace(&traces.Event{Step: m.Step(), TimeNs: m.TimeNs(), Kind: kind, Data: data, DeltaNs: delta})
		if err != nil {
			if !errors.Is(err, traces.ErrDamaged) {
				t.Error(err)
			}
			return
		}
		if e.DeltaNs > 1<<34 {
			return // its timers would fire for long
		}
		m.SetInputs(&script{events: []*vmm.Event{e}})
		m.Run(m.Step() + 2000)
	})
}

func TestHostileFloatingPointState(t *testing.T) {
	h := newHostile(t)
	h.steps = 60_000 // more than a round of the guest
	for _, r := range [][2]int{{24, 28}, {0, 32}, {24, 512}, {0, 512}} {
		if err := h.restore(h.at); err != nil {
			t.Fatal(err)
		}
		c := h.m.CPUs[0]
		for i := r[0]; i < r[1]; i++ {
			c.FX[i] = 0xff
		}
		h.try(t, 0, dev.Encode(c), fmt.Sprintf("bytes %d to %d of FX all ones", r[0], r[1]))
	}
}

// TestFlippedRegisterBits flips bits of every register, every seventh of all, as a fault may, and lets the guest run on.
func TestFlippedRegisterBits(t *testing.T) {
	h := newHostile(t)
	m := h.m.Machine
	n := 0
	for _, r := range x86.Registers() {
		for bit := range 8 * r.Size {
			if n++; n%7 != 0 && r.Name != "mxcsr" && r.Name != "fcw" || testing.Short() && n%21 != 0 {
				continue
			}
			if err := h.restore(h.at); err != nil {
				t.Fatal(err)
			}
			f := &vmm.Fault{Kind: vmm.FaultRegister, Register: r.Name, Mask: make([]byte, bit/8+1)}
			f.Mask[bit/8] = 1 << (bit % 8)
			func() {
				defer func() {
					if p := recover(); p != nil {
						t.Errorf("%s, bit %d: %v", r.Name, bit, p)
						h.broken(t)
						h.m.Console = nil
						m = h.m.Machine
					}
				}()
				if err := m.Inject(f); err != nil {
					t.Errorf("%s, bit %d: %v", r.Name, bit, err)
					return
				}
				m.SetInputs(&script{})
				steps := uint64(1500)
				if r.Group == x86.GroupSSE && r.Name == "mxcsr" || r.Group == x86.GroupControl || r.Group == x86.GroupX87 {
					steps = 60_000
				}
				defer time.AfterFunc(20*time.Millisecond, m.Interrupt).Stop()
				m.Run(m.Step() + steps)
			}()
		}
	}
	t.Logf("%d bits", n)
}

// rewrite replaces the records of a file of blocks by others, with checksums that are right.
func rewrite[T any](t *testing.T, dir, name string, change func(all []T) []T) string {
	t.Helper()
	all, err := readAll[T](dir, name)
	if err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(t.TempDir(), name)
	b, err := traces.CreateBlocks(tmp)
	if err != nil {
		t.Fatal(err)
	}
	w := traces.NewRecordWriter[T](b)
	all = change(all)
	for i := range all {
		if err := w.Add(0, &all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(tmp)
	if err != nil {
		t.Fatal(err)
	}
	return withFile(t, dir, name, content)
}

// TestHostileLog plays logs that no recorder wrote. None may be equal, and none may hang:
// what runs for ever can be interrupted.
func TestHostileLog(t *testing.T) {
	dir := record(t, 3, Options{MarkEvery: 20_000, SnapshotEvery: 50_000})
	last := func(f func(m *traces.Mark)) func([]traces.Mark) []traces.Mark {
		return func(all []traces.Mark) []traces.Mark {
			f(&all[len(all)-1])
			return all
		}
	}
	event := func(f func(e *traces.Event)) func([]traces.Event) []traces.Event {
		return func(all []traces.Event) []traces.Event {
			f(&all[0])
			return all
		}
	}
	for name, bad := range map[string]string{
		"step":          rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.Step = 1 << 62 })),
		"step, a bit":   rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.Step++ })),
		"time":          rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.TimeNs++ })),
		"interrupted":   rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.End, m.TimeNs, m.Step = ReasonInterrupted, 1<<63, m.Step-5 })),
		"no end":        rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.End, m.Step = "", m.Step+100 })),
		"dead":          rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.End, m.TimeNs, m.Step = "dead", 1<<63, m.Step-5 })),
		"memory":        rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.Memory[3]++ })),
		"device":        rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.Devices[3][4]++ })),
		"device less":   rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.Devices = m.Devices[1:] })),
		"console":       rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.ConsoleHash++ })),
		"console less":  rewrite(t, dir, traces.FileMarks, last(func(m *traces.Mark) { m.ConsoleBytes-- })),
		"mark twice":    rewrite(t, dir, traces.FileMarks, func(all []traces.Mark) []traces.Mark { return append(all, all[len(all)-1]) }),
		"marks swapped": rewrite(t, dir, traces.FileMarks, func(all []traces.Mark) []traces.Mark { all[1], all[2] = all[2], all[1]; return all }),
		"event late":    rewrite(t, dir, traces.FileEvents, event(func(e *traces.Event) { e.Step += 5000 })),
		"event in time": rewrite(t, dir, traces.FileEvents, event(func(e *traces.Event) { e.TimeNs += 1000 })),
		"event never":   rewrite(t, dir, traces.FileEvents, event(func(e *traces.Event) { e.Step = 1 << 60 })),
		"other event":   rewrite(t, dir, traces.FileEvents, event(func(e *traces.Event) { e.Data = []byte("q") })),
		"other kind":    rewrite(t, dir, traces.FileEvents, event(func(e *traces.Event) { e.Kind = 77 })),
		"clock":         rewrite(t, dir, traces.FileEvents, event(func(e *traces.Event) { e.Kind, e.DeltaNs = uint8(vmm.EventClock), 1<<63 })),
		"power":         rewrite(t, dir, traces.FileEvents, event(func(e *traces.Event) { e.Kind = uint8(vmm.EventPower) })),
		"no fault":      rewrite(t, dir, traces.FileEvents, event(func(e *traces.Event) { e.Kind, e.Data = uint8(vmm.EventFault), nil })),
		"events less":   rewrite(t, dir, traces.FileEvents, func(all []traces.Event) []traces.Event { return all[1:] }),
		"entry":         rewrite(t, dir, traces.FileSnapshots, func(all []snapshot.Entry) []snapshot.Entry { return all[1:] }),
	} {
		p, err := Open(bad, tiny.Disk())
		if err == nil {
			stop := time.AfterFunc(500*time.Millisecond, p.Interrupt)
			if err = p.Verify(); err == nil && p.Complete() {
				t.Errorf("%s: equal", name)
			}
			stop.Stop()
			p.Close()
		}
		t.Logf("%s: %v", name, err)
	}
}

func TestRecordingCanBePlayedWhileItIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "growing.rec")
	opt := Options{MarkEvery: 20_000, SnapshotEvery: 30_000}
	seen := 0
	opt.Progress = func(step, _ uint64) {
		if step%100_000 != 0 || step == 0 {
			return
		}
		end, complete, err := play(t, dir)
		if errors.Is(err, traces.ErrEmpty) {
			return // the first snapshot is on its way
		}
		// This mark is being made, and so may be a few before it.
		if err != nil || complete || end > step || end%opt.MarkEvery != 0 || end+10*opt.MarkEvery < step {
			t.Errorf("at step %d: it ends at step %d, complete %v: %v", step, end, complete, err)
		}
		seen++
	}
	r, err := NewRecorder(dir, tinySetup(20), scripted(typing), opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if end, complete, err := play(t, dir); err != nil || !complete || seen < 3 {
		t.Errorf("at the end, step %d: complete %v, %v; played %d times before", end, complete, err, seen)
	}
}

// TestHostileFaults makes faults happen that nobody asked for: each field of each kind takes extreme values.
func TestHostileFaults(t *testing.T) {
	h := newHostile(t)
	bases := []vmm.Fault{
		{Kind: vmm.FaultMCE, Bank: 9, Status: 0xbd000000000000c0, MCGStatus: 5, Addr: 0x200000, Misc: 0x8c},
		{Kind: vmm.FaultMemory, Addr: 0x210000, Mask: []byte{1, 2}},
		{Kind: vmm.FaultRegister, Register: "rcx", Mask: []byte{0, 1}},
		{Kind: vmm.FaultInterrupt, Vector: 0x21},
		{Kind: vmm.FaultClock, Clock: vmm.ClockTSC, DeltaNs: 1000},
		{Kind: vmm.FaultClock, Clock: vmm.ClockTime, DeltaNs: 1000},
	}
	for k := ata.FaultKind(1); k.DefaultOps() != 0; k++ {
		bases = append(bases, vmm.Fault{Kind: vmm.FaultDisk, Disk: ata.Fault{ID: 1, Kind: k, Ops: k.DefaultOps(), Count: 256, Mask: []byte{1}, Bytes: 100, Target: 7}})
	}
	for k := vmm.DefectKind(1); k <= vmm.DefectECC; k++ {
		bases = append(bases, vmm.Fault{Kind: vmm.FaultDefect, Defect: &vmm.Defect{ID: 1, Kind: k, Addr: 0x200000, Bad: []byte{0xff}, Grain: 64, By: 0xffff, Mask: []byte{1}, Value: []byte{1}, Register: "rax", Class: "add", Vector: 0x20}})
	}
	// Where the guest executes code and reads data, so that the defects are met.
	for _, at := range []uint64{0x100100, 0x400000} {
		for k := vmm.DefectKind(1); k <= vmm.DefectECC; k++ {
			bases = append(bases, vmm.Fault{Kind: vmm.FaultDefect, Defect: &vmm.Defect{ID: 1, Kind: k, Addr: at, Bad: bytes.Repeat([]byte{0xff}, 512), Grain: 4096, By: 0xffff, Mask: []byte{1}, Value: []byte{1}}})
		}
	}
	n, tried := 0, 0
	for i := range bases {
		x, err := toTrace(&vmm.Event{Kind: vmm.EventFault, Fault: &bases[i]})
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := msgpack.Unmarshal(x.Data, &v); err != nil {
			t.Fatal(err)
		}
		one := func(v any, what string) {
			n++
			if n%11 != 0 || testing.Short() && n%22 != 0 {
				return
			}
			enc, err := msgpack.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			tried++
			h.fault(t, enc, fmt.Sprintf("fault %d, %s", i, what))
		}
		variants(v, "", one)
	}
	t.Logf("%d faults, %d tried, %d happened", n, tried, h.happened)
	if h.happened < tried/4 {
		t.Errorf("of %d faults only %d happened", tried, h.happened)
	}
}

// fault makes a fault happen and lets the machine run on.
func (h *hostile) fault(t testing.TB, enc []byte, what string) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%s: %v\n%s", what, r, debug.Stack())
			h.broken(t)
		}
	}()
	if err := h.restore(h.at); err != nil {
		t.Fatal(err)
	}
	m := h.m.Machine
	e, err := fromTrace(&traces.Event{Step: m.Step(), TimeNs: m.TimeNs(), Kind: uint8(vmm.EventFault), Data: enc})
	if err != nil {
		return
	}
	m.SetInputs(&script{events: []*vmm.Event{e}})
	defer time.AfterFunc(20*time.Millisecond, m.Interrupt).Stop()
	if _, err := m.Run(m.Step() + 4000); err == nil {
		h.happened++
	}
	for i, d := range m.Devices() {
		if err := dev.Decode(d, dev.Encode(d)); err != nil {
			t.Errorf("%s: %s does not take back its state: %v", what, m.Devices()[i].Name(), err)
		}
	}
}
