package interp

import (
	"encoding/binary"
	"testing"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Real mode and 32-bit protected mode without IA-32e: interrupts, gates, stacks and paging (SDM Vol. 3A chapters
// 3 to 6 and 20), which user code on a 64-bit kernel cannot show on a processor.

type legacyRig struct {
	*rig
	t testing.TB
}

// Memory of a legacy rig; segments are flat but where a test makes others.
const (
	legGDT     = 0x5000
	legIDT     = 0x6000
	legTSS     = 0x7000
	legLDT     = 0x7800
	legHandler = 0x8000 // 16 bytes a vector
	legStack0  = 0xa000
	legCode    = 0x10000
	legStack   = 0x21000
	legData    = 0x30000

	legKCode, legKData, legUCode, legUData, legTSSSel, legSpare, legSpare2, legLDTSel = 0x08, 0x10, 0x1b, 0x23, 0x28, 0x30, 0x38, 0x40
)

func newLegacyRig(t testing.TB) *legacyRig {
	ram, err := mem.New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x86.NewCPU(0, ram, &bareBus{ports: map[uint16]uint32{}})
	if err != nil {
		t.Fatal(err)
	}
	ram.OnWrite = c.NoteWrite
	t.Cleanup(func() { c.Close(); ram.Close() })
	return &legacyRig{&rig{c, New(c)}, t}
}

func (r *legacyRig) put(pa, v uint64, n int) {
	r.c.RAM.WriteAt(binary.LittleEndian.AppendUint64(nil, v)[:n], pa)
}

func (r *legacyRig) get(pa uint64, n int) uint64 {
	var b [8]byte
	r.c.RAM.ReadAt(b[:n], pa)
	return binary.LittleEndian.Uint64(b[:])
}

func (r *legacyRig) descriptor(sel uint64, base, limit uint64, attr uint64) {
	r.put(legGDT+sel&^7, limit&0xffff|base&0xffffff<<16|(attr&0xff)<<40|(limit>>16&15|attr>>8&0xf0)<<48|base>>24<<56, 8)
}

const (
	flat32 = 0xc000 // G and D/B
	dpl3   = 0x60
)

// protected puts the processor in protected mode, ring 0, with GDT, IDT and a 32-bit TSS.
func (r *legacyRig) protected() {
	c := r.c
	r.put(legGDT, 0, 8)
	r.descriptor(legKCode, 0, 0xfffff, flat32|0x9b)
	r.descriptor(legKData, 0, 0xfffff, flat32|0x93)
	r.descriptor(legUCode, 0, 0xfffff, flat32|0x9b|dpl3)
	r.descriptor(legUData, 0, 0xfffff, flat32|0x93|dpl3)
	r.descriptor(legTSSSel, legTSS, 0x67, 0x89)
	r.put(legTSS+4, legStack0, 4)
	r.put(legTSS+8, legKData, 2)
	for v := range uint64(256) {
		r.gate(v, 0x8e)
	}
	c.GDTR = x86.Table{Base: legGDT, Limit: 0x4f}
	c.IDTR = x86.Table{Base: legIDT, Limit: 0x7ff}
	c.CR0 |= x86.CR0PE | x86.CR0NE
	c.RFLAGS = x86.Flag1
	r.segments(legKCode, legKData)
	c.LoadTR(legTSSSel)
}

func (r *legacyRig) gate(vec, attr uint64) {
	h := legHandler + 16*vec
	r.put(legIDT+8*vec, h&0xffff|legKCode<<16|attr<<40|h>>16<<48, 8)
}

func (r *legacyRig) segments(code, data uint16) {
	c := r.c
	seg := func(sel uint16) x86.Segment {
		d := r.get(legGDT+uint64(sel&^7), 8)
		limit := uint32(d&0xffff | d>>32&0xf0000)
		if d>>55&1 != 0 {
			limit = limit<<12 | 0xfff
		}
		return x86.Segment{Sel: sel, Base: d>>16&0xffffff | d>>56<<24, Limit: limit, Attr: uint16(d >> 40 & 0xf0ff)}
	}
	c.Seg[x86.CS] = seg(code)
	for _, s := range []int{x86.SS, x86.DS, x86.ES} {
		c.Seg[s] = seg(data)
	}
	c.Seg[x86.FS], c.Seg[x86.GS] = x86.Segment{}, x86.Segment{}
	c.CPL = uint8(code & 3)
	c.ModeChanged()
	c.FlushTLB()
}

// start makes code the next instruction.
func (r *legacyRig) start(rip uint64, code ...byte) {
	r.c.RAM.WriteAt(code, r.c.Seg[x86.CS].Base+rip)
	r.c.Regs[x86.RIP] = rip
}

func (r *legacyRig) user(code ...byte) {
	r.segments(legUCode, legUData)
	r.c.Regs[x86.RSP] = legStack
	r.start(legCode, code...)
}

func (r *legacyRig) kernel(code ...byte) {
	r.segments(legKCode, legKData)
	r.c.Regs[x86.RSP] = legStack
	r.start(legCode, code...)
}

func (r *legacyRig) step(n uint64) {
	c := r.c
	for end := c.Step + n; c.Step < end && c.Activity == x86.Active && r.vector() < 0; {
		c.Attention = false
		r.e.Run(end)
	}
}

// fault executes one instruction, which raises an exception; none of the handler.
func (r *legacyRig) fault() {
	r.c.Attention = false
	r.e.Run(r.c.Step + 1)
}

// vector is that of the exception whose handler comes next, or -1.
func (r *legacyRig) vector() int {
	rip := r.c.Regs[x86.RIP]
	if r.c.CPL != 0 || r.c.Seg[x86.CS].Sel != legKCode || rip < legHandler || rip >= legHandler+0x1000 {
		return -1
	}
	return int(rip-legHandler) / 16
}

// want checks the exception, its error code (-1 for none) and where it points after the start of the code.
func (r *legacyRig) want(vec, err, after int) {
	r.t.Helper()
	if got := r.vector(); got != vec {
		r.t.Fatalf("vector %d, want %d (cpl %d, cs:rip %#x:%#x, activity %d)", got, vec, r.c.CPL, r.c.Seg[x86.CS].Sel, r.c.Regs[x86.RIP], r.c.Activity)
	}
	sp := r.c.Regs[x86.RSP]
	if err >= 0 {
		if got := r.get(sp, 4); got != uint64(err) {
			r.t.Errorf("error code %#x, want %#x", got, err)
		}
		sp += 4
	}
	if got := int(r.get(sp, 4)) - legCode; got != after {
		r.t.Errorf("rip start%+d, want %+d", got, after)
	}
}

func (r *legacyRig) wantRegs(what string, regs map[int]uint64) {
	r.t.Helper()
	for i, v := range regs {
		if got := r.c.Regs[i]; got != v {
			r.t.Errorf("%s: %s %#x, want %#x", what, x86.GeneralNames[i], got, v)
		}
	}
}

func TestRealMode(t *testing.T) {
	start := func(t *testing.T, code ...byte) *legacyRig {
		r := newLegacyRig(t)
		c := r.c
		for s := range c.Seg[:x86.GS+1] {
			c.Seg[s].Base, c.Seg[s].Sel = 0, 0
		}
		c.Seg[x86.CS].Sel, c.Seg[x86.CS].Base = 0x100, 0x1000
		c.Seg[x86.SS].Sel, c.Seg[x86.SS].Base = 0x200, 0x2000
		c.IDTR = x86.Table{Limit: 0x3ff}
		c.Regs[x86.RSP] = 0x100
		c.ModeChanged()
		r.start(0x10, code...)
		return r
	}
	t.Run("interrupt and return", func(t *testing.T) {
		r := start(t, 0xcd, 0x21, 0x90)
		r.put(0x21*4, 0x0300_0050, 4) // 0300:0050
		r.put(0x3050, 0xcf, 1)
		r.c.RFLAGS = x86.Flag1 | x86.FlagIF | x86.FlagCF
		r.step(1)
		r.wantRegs("in the handler", map[int]uint64{x86.RIP: 0x50, x86.RSP: 0xfa})
		if r.c.Seg[x86.CS].Sel != 0x300 || r.c.Seg[x86.CS].Base != 0x3000 || r.c.RFLAGS&x86.FlagIF != 0 {
			t.Errorf("cs %+v, flags %#x", r.c.Seg[x86.CS], r.c.RFLAGS)
		}
		if got := r.get(0x20fa, 6); got != 0x0203<<32|0x0100<<16|0x12 {
			t.Errorf("pushed %#x", got)
		}
		r.step(1)
		r.wantRegs("after IRET", map[int]uint64{x86.RIP: 0x12, x86.RSP: 0x100})
		if r.c.Seg[x86.CS].Base != 0x1000 || r.c.RFLAGS != x86.Flag1|x86.FlagIF|x86.FlagCF {
			t.Errorf("cs %+v, flags %#x", r.c.Seg[x86.CS], r.c.RFLAGS)
		}
	})
	t.Run("division error points at the instruction and pushes no error code", func(t *testing.T) {
		r := start(t, 0xf6, 0xf3)
		r.put(0, 0x0300_0000, 4)
		r.fault()
		r.wantRegs("in the handler", map[int]uint64{x86.RIP: 0, x86.RSP: 0xfa})
		if got := r.get(0x20fa, 2); got != 0x10 {
			t.Errorf("ip pushed %#x", got)
		}
	})
	t.Run("stack pointer wraps", func(t *testing.T) {
		r := start(t, 0x50)
		r.c.Regs[x86.RSP], r.c.Regs[x86.RAX] = 0x12340000, 0xabcd
		r.step(1)
		r.wantRegs("push", map[int]uint64{x86.RSP: 0x1234fffe})
		if got := r.get(0x2000+0xfffe, 2); got != 0xabcd {
			t.Errorf("pushed %#x", got)
		}
	})
	t.Run("operand across the segment's end", func(t *testing.T) {
		r := start(t, 0x8b, 0x07) // mov ax,[bx]
		r.put(13*4, 0x0300_0000, 4)
		r.c.Regs[x86.RBX] = 0xffff
		r.fault()
		r.wantRegs("#GP", map[int]uint64{x86.RIP: 0, x86.RSP: 0xfa})
	})
	t.Run("far call and return", func(t *testing.T) {
		r := start(t, 0x9a, 0x34, 0x12, 0x00, 0x03)
		r.put(0x3000+0x1234, 0x0004ca, 3) // retf 4
		r.step(1)
		r.wantRegs("call", map[int]uint64{x86.RIP: 0x1234, x86.RSP: 0xfc})
		r.step(1)
		r.wantRegs("return", map[int]uint64{x86.RIP: 0x15, x86.RSP: 0x104})
	})
	t.Run("into protected mode and back", func(t *testing.T) {
		r := start(t,
			0x0f, 0x20, 0xc0, // mov eax,cr0
			0x66, 0x83, 0xc8, 0x01, // or eax,1
			0x0f, 0x22, 0xc0, // mov cr0,eax
			0x66, 0xea, 0x00, 0x00, 0x01, 0x00, legKCode, 0x00, // jmp far 8:10000
		)
		c := r.c
		r.descriptor(legKCode, 0, 0xfffff, flat32|0x9b)
		r.descriptor(legKData, 0, 0xfffff, flat32|0x93)
		r.descriptor(legSpare, 0x1000, 0xffff, 0x9b) // 16-bit code where the real-mode code is
		c.GDTR = x86.Table{Base: legGDT, Limit: 0x4f}
		c.RAM.WriteAt([]byte{
			0xb8, legKData, 0, 0, 0, // mov eax,10
			0x8e, 0xd8, // mov ds,eax
			0xc7, 0x05, 0x00, 0x00, 0x20, 0x00, 0x78, 0x56, 0x34, 0x12, // mov dword [200000],12345678
			0xea, 0x80, 0, 0, 0, legSpare, 0, // jmp far 30:80
		}, legCode)
		c.RAM.WriteAt([]byte{
			0x0f, 0x20, 0xc0, // mov eax,cr0
			0x24, 0xfe, // and al,fe
			0x0f, 0x22, 0xc0, // mov cr0,eax
			0xea, 0x90, 0x00, 0x00, 0x01, // jmp far 0100:0090
		}, 0x1080)
		c.RAM.WriteAt([]byte{0x67, 0x8b, 0x1d, 0x00, 0x00, 0x20, 0x00}, 0x1090) // mov bx,[00200000]: DS keeps its limit
		r.step(4 + 4 + 4 + 1)
		r.wantRegs("at the end", map[int]uint64{x86.RIP: 0x97, x86.RBX: 0x5678})
		if r.c.ProtectedMode() || c.Seg[x86.CS].Base != 0x1000 {
			t.Errorf("cr0 %#x, cs %+v", c.CR0, c.Seg[x86.CS])
		}
	})
	t.Run("16-bit addresses wrap, and SS goes with BP", func(t *testing.T) {
		r := start(t, 0x8b, 0x42, 0x10) // mov ax,[bp+si+10h]
		r.c.Regs[x86.RBP], r.c.Regs[x86.RSI] = 0xfff0, 0x20
		r.put(0x2020, 0x1111, 2)
		r.step(1)
		r.wantRegs("mov", map[int]uint64{x86.RAX: 0x1111})
	})
	t.Run("jump out of 64 KiB", func(t *testing.T) {
		r := start(t, 0x66, 0xe9, 0x00, 0x00, 0x01, 0x00) // jmp dword +10000h
		r.put(13*4, 0x0300_0000, 4)
		r.fault()
		r.wantRegs("#GP", map[int]uint64{x86.RIP: 0, x86.RSP: 0xfa})
	})
	t.Run("LOOP counts CX", func(t *testing.T) {
		r := start(t, 0xe2, 0xfe)
		r.c.Regs[x86.RCX] = 0x10003
		r.step(3)
		r.wantRegs("loop", map[int]uint64{x86.RIP: 0x12, x86.RCX: 0x10000})
	})
}

func TestProtectedModeInterrupts(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	c := r.c
	r.user(0xcd, 0x40)
	r.gate(0x40, 0xee)
	c.RFLAGS = x86.Flag1 | x86.FlagIF
	r.step(1)
	r.want(0x40, -1, 2)
	r.wantRegs("from ring 3", map[int]uint64{x86.RSP: legStack0 - 20})
	sp := c.Regs[x86.RSP]
	for i, v := range []uint64{legCode + 2, legUCode, x86.Flag1 | x86.FlagIF, legStack, legUData} {
		if got := r.get(sp+4*uint64(i), 4); got != v {
			t.Errorf("frame[%d] = %#x, want %#x", i, got, v)
		}
	}
	if c.Seg[x86.SS].Sel != legKData || c.RFLAGS&x86.FlagIF != 0 {
		t.Errorf("ss %#x, flags %#x", c.Seg[x86.SS].Sel, c.RFLAGS)
	}
	// And back.
	r.put(legHandler+16*0x40, 0xcf, 1)
	c.Attention = false
	r.e.Run(c.Step + 1)
	r.wantRegs("after IRET", map[int]uint64{x86.RIP: legCode + 2, x86.RSP: legStack})
	if c.CPL != 3 || c.Seg[x86.SS].Sel != legUData || c.RFLAGS != x86.Flag1|x86.FlagIF {
		t.Errorf("cpl %d, ss %#x, flags %#x", c.CPL, c.Seg[x86.SS].Sel, c.RFLAGS)
	}

	// Within ring 0 the stack stays. A 16-bit gate pushes words.
	r.kernel(0xcd, 0x40)
	r.step(1)
	r.want(0x40, -1, 2)
	r.wantRegs("from ring 0", map[int]uint64{x86.RSP: legStack - 12})
	r.gate(0x40, 0x86)
	r.kernel(0xcd, 0x40)
	r.step(1)
	r.wantRegs("16-bit gate", map[int]uint64{x86.RSP: legStack - 6, x86.RIP: legHandler + 16*0x40})
	if got := r.get(legStack-6, 6); got != (c.RFLAGS|x86.FlagIF)&^x86.FlagIF<<32|legKCode<<16|(legCode+2)&0xffff {
		t.Errorf("pushed %#x", got)
	}

	// Errors of delivery.
	r.gate(0x40, 0x8e)
	r.user(0xcd, 0x40)
	r.step(1)
	r.want(x86.VecGP, 0x40<<3|2, 0)
	r.gate(0x40, 0x6e)
	r.user(0xcd, 0x40)
	r.step(1)
	r.want(x86.VecNP, 0x40<<3|2, 0)
	r.gate(0x40, 0xec) // a call gate
	r.user(0xcd, 0x40)
	r.step(1)
	r.want(x86.VecGP, 0x40<<3|2, 0)
	r.gate(0x40, 0xee)
	r.put(legIDT+8*0x40+2, legSpare, 2)
	for _, x := range []struct {
		attr     uint64
		vec, err int
	}{
		{0x93, x86.VecGP, legSpare}, // data
		{0x9b | dpl3, 0x40, -1},     // code of ring 3: no change of privilege
		{0x1b, x86.VecNP, legSpare}, // not present
		{0x9f, 0x40, -1},            // conforming: CPL stays
	} {
		r.descriptor(legSpare, 0, 0xfffff, flat32|x.attr)
		r.user(0xcd, 0x40)
		r.step(1)
		if x.vec == 0x40 {
			if c.CPL != 3 || c.Regs[x86.RIP] != legHandler+16*0x40 {
				t.Errorf("attributes %#x: cpl %d, rip %#x", x.attr, c.CPL, c.Regs[x86.RIP])
			}
			continue
		}
		r.want(x.vec, x.err, 0)
	}
}

func TestStackOfTheTSS(t *testing.T) {
	for _, x := range []struct {
		name     string
		set      func(r *legacyRig)
		vec, err int
	}{
		{"null", func(r *legacyRig) { r.put(legTSS+8, 0, 2) }, x86.VecTS, 0},
		{"wrong RPL", func(r *legacyRig) { r.put(legTSS+8, legKData|3, 2) }, x86.VecTS, legKData},
		{"wrong DPL", func(r *legacyRig) { r.put(legTSS+8, legUData&^3, 2) }, x86.VecTS, legUData &^ 3},
		{"beyond the table", func(r *legacyRig) { r.put(legTSS+8, 0x100, 2) }, x86.VecTS, 0x100},
		{"code", func(r *legacyRig) { r.put(legTSS+8, legKCode, 2) }, x86.VecTS, legKCode},
		{"not present", func(r *legacyRig) {
			r.descriptor(legSpare, 0, 0xfffff, flat32|0x13)
			r.put(legTSS+8, legSpare, 2)
		}, x86.VecSS, legSpare},
		{"too small", func(r *legacyRig) {
			r.descriptor(legSpare, 0, 8, 0x93|0x4000)
			r.put(legTSS+8, legSpare, 2)
		}, x86.VecSS, legSpare},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newLegacyRig(t)
			r.protected()
			// The handlers of the errors run in ring 3, so that they need no stack from the TSS.
			r.descriptor(legSpare2, 0, 0xfffff, flat32|0x9f)
			for v := range uint64(32) {
				r.put(legIDT+8*v+2, legSpare2, 2)
			}
			r.gate(0x40, 0xee)
			x.set(r)
			r.user(0xcd, 0x40)
			r.step(1)
			c := r.c
			if c.CPL != 3 || int(c.Regs[x86.RIP]-legHandler)/16 != x.vec {
				t.Fatalf("cpl %d, rip %#x, activity %d; want vector %d", c.CPL, c.Regs[x86.RIP], c.Activity, x.vec)
			}
			if got := r.get(c.Regs[x86.RSP], 4); got != uint64(x.err) {
				t.Errorf("error code %#x, want %#x", got, x.err)
			}
			if got := r.get(c.Regs[x86.RSP]+4, 4); got != legCode {
				t.Errorf("rip %#x", got)
			}
		})
	}
}

func TestCallGates(t *testing.T) {
	gate := func(r *legacyRig, sel, off uint64, attr, count uint64) {
		r.put(legGDT+legSpare, off&0xffff|sel<<16|count<<32|attr<<40|off>>16<<48, 8)
	}
	call := []byte{0x9a, 0xff, 0xff, 0xff, 0xff, legSpare | 3, 0} // the offset does not count
	t.Run("to ring 0 with parameters, and back", func(t *testing.T) {
		r := newLegacyRig(t)
		r.protected()
		c := r.c
		gate(r, legKCode, 0x9000, 0xec, 2)
		r.put(0x9000, 0x0008ca, 3) // retf 8
		r.user(call...)
		c.Regs[x86.RSP] = legStack - 8
		r.put(legStack-8, 0x11111111, 4)
		r.put(legStack-4, 0x22222222, 4)
		r.step(1)
		r.wantRegs("in the gate's code", map[int]uint64{x86.RIP: 0x9000, x86.RSP: legStack0 - 24})
		for i, v := range []uint64{legCode + 7, legUCode, 0x11111111, 0x22222222, legStack - 8, legUData} {
			if got := r.get(legStack0-24+4*uint64(i), 4); got != v {
				t.Errorf("stack[%d] = %#x, want %#x", i, got, v)
			}
		}
		if c.CPL != 0 || c.Seg[x86.CS].Sel != legKCode || c.Seg[x86.SS].Sel != legKData {
			t.Errorf("cpl %d, cs %#x, ss %#x", c.CPL, c.Seg[x86.CS].Sel, c.Seg[x86.SS].Sel)
		}
		r.step(1)
		r.wantRegs("after the return", map[int]uint64{x86.RIP: legCode + 7, x86.RSP: legStack})
		if c.CPL != 3 || c.Seg[x86.SS].Sel != legUData {
			t.Errorf("cpl %d, ss %#x", c.CPL, c.Seg[x86.SS].Sel)
		}
	})
	for _, x := range []struct {
		name     string
		set      func(r *legacyRig)
		vec, err int
	}{
		{"privilege of the gate", func(r *legacyRig) { gate(r, legKCode, 0x9000, 0x8c, 0) }, x86.VecGP, legSpare},
		{"not present", func(r *legacyRig) { gate(r, legKCode, 0x9000, 0x6c, 0) }, x86.VecNP, legSpare},
		{"to data", func(r *legacyRig) { gate(r, legKData, 0x9000, 0xec, 0) }, x86.VecGP, legKData},
		{"to null", func(r *legacyRig) { gate(r, 0, 0x9000, 0xec, 0) }, x86.VecGP, 0},
		{"beyond the segment", func(r *legacyRig) {
			r.descriptor(legSpare2, 0, 0xfff, 0x4000|0x9b)
			gate(r, legSpare2, 0x9000, 0xec, 0)
		}, x86.VecGP, 0},
		{"no gate at all", func(r *legacyRig) { r.descriptor(legSpare, 0, 0, 0xe2) }, x86.VecGP, legSpare},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newLegacyRig(t)
			r.protected()
			x.set(r)
			r.user(call...)
			r.step(1)
			r.want(x.vec, x.err, 0)
		})
	}
}

func TestProtectedModeSegments(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	// A jump beyond the limit, and falling off its end.
	r.descriptor(legSpare, 0, legCode+3, 0x4000|0x9b)
	r.segments(legSpare, legKData)
	r.c.Regs[x86.RSP] = legStack
	r.start(legCode, 0xeb, 0x7f)
	r.step(1)
	r.want(x86.VecGP, 0, 0)
	r.segments(legSpare, legKData)
	r.c.Regs[x86.RSP] = legStack
	r.start(legCode, 0x90, 0x90, 0x90, 0x90, 0x90)
	r.step(5)
	r.want(x86.VecGP, 0, 4)
	r.segments(legSpare, legKData)
	r.start(legCode, 0x90, 0x90, 0xb8, 1, 2, 3, 4) // the immediate is beyond
	r.step(3)
	r.want(x86.VecGP, 0, 2)

	// An LDT.
	r.descriptor(legLDTSel, legLDT, 0xf, 0x82)
	r.put(legLDT+8, 0x00cf93000000ffff|0x10<<32, 8)
	r.kernel(0x0f, 0x00, 0xd0, 0x8e, 0xdb, 0xa1, 0, 0, 0, 0) // lldt ax; mov ds,ebx; mov eax,[0]
	r.c.Regs[x86.RAX], r.c.Regs[x86.RBX] = legLDTSel, 0xc
	r.put(0x100000, 0xabcdef, 4)
	r.put(legLDT+8, 0x00cf93100000ffff, 8) // base 100000H
	r.step(3)
	r.wantRegs("through the LDT", map[int]uint64{x86.RAX: 0xabcdef})
	r.kernel(0x8e, 0xdb)
	r.c.Regs[x86.RBX] = 0x14 // beyond its limit
	r.step(1)
	r.want(x86.VecGP, 0x14, 0)

	// A stack with 16-bit SP in 32-bit code.
	r.descriptor(legSpare, 0x20000, 0xffff, 0x93)
	r.kernel(0x8e, 0xd3, 0x50, 0x50)
	r.c.Regs[x86.RBX], r.c.Regs[x86.RAX] = legSpare, 0x12345678
	r.c.Regs[x86.RSP] = 0xabcd0004
	r.step(3)
	r.wantRegs("pushed", map[int]uint64{x86.RSP: 0xabcdfffc})
	if got := r.get(0x2fffc, 4); got != 0x12345678 {
		t.Errorf("pushed %#x", got)
	}
	// Where the push does not fit, neither does the frame of #SS, nor that of #DF.
	r.kernel(0x8e, 0xd3, 0x50)
	r.c.Regs[x86.RSP] = 0xabcd0002
	r.step(1)
	r.fault()
	if r.c.Activity != x86.Shutdown {
		t.Errorf("rsp %#x, activity %d", r.c.Regs[x86.RSP], r.c.Activity)
	}
}

func TestLegacyPaging(t *testing.T) {
	const p, w, u, ps = 1, 2, 4, 0x80
	const pd, pt = 0x100000, 0x101000
	two := func(t *testing.T) *legacyRig {
		r := newLegacyRig(t)
		r.protected()
		r.put(pd, pt|p|w|u, 4)
		for i := range uint64(1024) {
			r.put(pt+4*i, i<<12|p|w|u, 4)
		}
		r.c.WriteCR(3, pd)
		r.c.WriteCR(0, r.c.CR0|x86.CR0PG|x86.CR0WP)
		return r
	}
	load := []byte{0x8b, 0x03} // mov eax,[ebx]
	t.Run("two levels", func(t *testing.T) {
		r := two(t)
		r.put(pt+4*0x300, legData|p|w|u, 4)
		r.put(legData+8, 0x1234, 4)
		r.c.Regs[x86.RBX] = 0x300008
		r.user(load...)
		r.step(1)
		r.wantRegs("mov", map[int]uint64{x86.RAX: 0x1234})
		if got := r.get(pt+4*0x300, 4) & 0x60; got != 0x20 {
			t.Errorf("accessed and dirty: %#x", got)
		}
		r.put(pt+4*0x300, legData|w|u, 4)
		r.user(load...)
		r.step(1)
		r.want(x86.VecPF, 4, 0)
		if r.c.CR2 != 0x300008 {
			t.Errorf("CR2 %#x", r.c.CR2)
		}
	})
	t.Run("4 MiB pages", func(t *testing.T) {
		r := two(t)
		r.put(pd+4, p|w|u|ps, 4)
		r.put(legData, 0x5678, 4)
		r.c.Regs[x86.RBX] = 1<<22 + legData
		r.c.WriteCR(4, r.c.CR4|x86.CR4PSE)
		r.user(load...)
		r.step(1)
		r.wantRegs("mov", map[int]uint64{x86.RAX: 0x5678})
		r.put(pd+4, p|w|u|ps|1<<21, 4) // reserved
		r.user(load...)
		r.step(1)
		r.want(x86.VecPF, 0xd, 0)
		r.put(pd+4, p|w|u|ps|1<<13, 4) // bit 32 of the address: nothing is there
		r.user(load...)
		r.step(1)
		r.wantRegs("mov", map[int]uint64{x86.RAX: 0xffffffff})
	})
	t.Run("PAE", func(t *testing.T) {
		r := newLegacyRig(t)
		r.protected()
		const pdpt = 0x102020 // aligned to 32 bytes is enough
		r.put(pdpt, pd|p, 8)
		r.put(pd, p|w|u|ps, 8)
		r.put(pd+8, pt|p|w|u, 8)
		r.put(pt, legData|p|w|u, 8)
		r.put(legData, 0x9abc, 4)
		r.c.WriteCR(4, r.c.CR4|x86.CR4PAE)
		r.c.WriteCR(3, pdpt)
		r.c.WriteCR(0, r.c.CR0|x86.CR0PG|x86.CR0WP)
		r.c.Regs[x86.RBX] = 0x200000
		r.user(load...)
		r.step(1)
		r.wantRegs("mov", map[int]uint64{x86.RAX: 0x9abc})
		r.put(pt, legData|p|w|u|1<<52, 8) // reserved in PAE paging
		r.user(load...)
		r.step(1)
		r.want(x86.VecPF, 0xd, 0)
		// The pointers are registers: a change in memory counts from the next load of CR3.
		r.put(pt, legData|p|w|u, 8)
		r.put(pdpt, 0, 8)
		r.user(load...)
		r.step(1)
		r.wantRegs("mov", map[int]uint64{x86.RAX: 0x9abc})
		r.put(pdpt, pd|p|w, 8) // a reserved bit
		r.kernel(0x0f, 0x22, 0xd8)
		r.c.Regs[x86.RAX] = pdpt
		r.step(1)
		r.want(x86.VecGP, 0, 0)
	})
}

// TestCodeSegmentLimit: code that was decoded where the segment was larger still ends where the segment does.
func TestCodeSegmentLimit(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	r.kernel(0x40, 0x41, 0x42) // inc eax; inc ecx; inc edx
	r.step(3)
	r.kernel(0x40, 0x41, 0x42)
	r.c.Seg[x86.CS].Limit = legCode + 1
	r.step(4)
	r.want(x86.VecGP, 0, 2)
	r.wantRegs("two of three", map[int]uint64{x86.RAX: 2, x86.RCX: 2, x86.RDX: 0x50655})
}
