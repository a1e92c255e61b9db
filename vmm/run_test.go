package vmm

import (
	"testing"

	"refault/vmm/x86"
)

// machineWith returns a machine in real mode whose next instructions are code, at 0:7c00.
func machineWith(t *testing.T, code ...byte) *Machine {
	t.Helper()
	m, err := New(Config{MemoryBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	const at = 0x7c00
	m.RAM.WriteAt(code, at)
	c := m.CPUs[0]
	c.Seg[x86.CS].Sel, c.Seg[x86.CS].Base = 0, 0
	c.Regs[x86.RIP] = at
	c.ModeChanged()
	return m
}

// TestRunEnds: how a guest that goes nowhere ends.
func TestRunEnds(t *testing.T) {
	const (
		cli, sti, hlt = 0xfa, 0xfb, 0xf4
	)
	timer := []byte{
		0xb0, 0x34, 0xe6, 0x43, // mov al, 34h; out 43h, al: counter 0 periodic
		0xb0, 0xff, 0xe6, 0x40, 0xe6, 0x40, // mov al, ffh; out 40h, al; out 40h, al
		0xe6, 0x21, // out 21h, al: all interrupts masked
	}
	for _, tt := range []struct {
		name string
		code []byte
		want StopReason
	}{
		{"halted with interrupts off", []byte{cli, hlt}, Dead},
		{"halted, and nothing is on", []byte{sti, hlt}, Dead},
		{"halted, and the timer is masked", append(timer, sti, hlt), Dead},
		{"no handler at all", []byte{0x0f, 0x01, 0x1e, 0, 0, 0x0f, 0x0b}, TripleFault}, // lidt [0]: limit 0; ud2
		{"debug exit", []byte{0xb0, 1, 0xe6, 0xf4}, DebugExit},
		{"reset by the keyboard controller", []byte{0xb0, 0xfe, 0xe6, 0x64}, Reset},
	} {
		m := machineWith(t, tt.code...)
		if got, err := m.Run(1e6); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
		if m.Step() > 100 {
			t.Errorf("%s: %d steps", tt.name, m.Step())
		}
	}
}

// TestLivelock: an exception handler that faults before its first instruction, on a stack that does not run out.
func TestLivelock(t *testing.T) {
	for _, e := range []Engine{EngineInterp, EngineAuto} {
		m := machineWith(t, 0x0f, 0x0b) // ud2, whose handler is at 0:7c00 too
		if err := m.SetEngine(e); err != nil {
			t.Fatal(err)
		}
		m.CPUs[0].Seg[x86.SS].Base = 0x200000 // where SP wraps around and harms nothing
		m.RAM.WriteAt([]byte{0, 0x7c, 0, 0}, 6*4)
		if got, err := m.Run(1e6); err != nil || got != Dead || m.Step() != 0 {
			t.Errorf("%v at step %d, %v; want %v at step 0", got, m.Step(), err, Dead)
		}
	}
}

// TestRunExact: Run stops at the step it was given, and a guest that loops with interrupts off is no error.
func TestRunExact(t *testing.T) {
	m := machineWith(t, 0xfa, 0xeb, 0xfe) // cli; jmp $
	for _, step := range []uint64{1, 2, 3, 1000, 1001, 100_000} {
		if why, err := m.Run(step); why != Running || err != nil || m.Step() != step {
			t.Errorf("Run(%d): %v, %v, at step %d", step, why, err, m.Step())
		}
	}
}
