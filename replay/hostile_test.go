package replay

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"refault/traces"
	"refault/vmm"
	"refault/vmm/dev"
	"refault/vmm/x86"
)

// hostile is a Player whose devices are given states that no recorder wrote. A
// checksum is no signature: a file can be whole and say anything.
type hostile struct {
	*Player
	at    int // snapshot
	steps uint64
}

func newHostile(t testing.TB) *hostile {
	p := openPlayer(t, record(t, 8, Options{MarkEvery: 100_000, SnapshotEvery: 50_000}))
	p.m.Console = nil // it will not say what was recorded
	return &hostile{p, 3, 3000}
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
		hashDevice(d)
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
				if n%5 != 0 || testing.Short() && n%25 != 0 { // the rest is for FuzzDeviceState
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

// TestFlippedRegisterBits flips every bit of every register, as a fault may, and lets the guest run on.
func TestFlippedRegisterBits(t *testing.T) {
	h := newHostile(t)
	m := h.m.Machine
	n := 0
	for _, r := range x86.Registers() {
		for bit := range 8 * r.Size {
			if n++; n%23 != 0 && (testing.Short() || r.Size > 8) && r.Name != "mxcsr" {
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
