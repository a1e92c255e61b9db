package interp

import (
	"testing"

	"refault/vmm/x86"
)

// Virtual-8086 mode (SDM Vol. 3A, "8086 Emulation").

const (
	vmCS, vmSS, vmDS = 0x1000, 0x2000, 0x3000 // real-mode segments of the 8086 program
	vmIP, vmSP       = 0x100, 0x200
)

// enterVM86 runs an IRET to virtual-8086 mode, in front of code.
func (r *legacyRig) enterVM86(iopl uint64, code ...byte) {
	c := r.c
	c.RFLAGS, c.Attention = x86.Flag1, false
	r.kernel(0xcf)
	c.Regs[x86.RSP] = legStack - 36
	for i, v := range []uint64{vmIP, vmCS, x86.Flag1 | x86.FlagVM | x86.FlagIF | iopl<<12, vmSP, vmSS, 0x4000, vmDS, 0x5000, 0x6000} {
		r.put(legStack-36+4*uint64(i), v, 4)
	}
	c.RAM.WriteAt(code, vmCS<<4+vmIP)
	r.step(1)
}

func TestVM86Entry(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	r.enterVM86(0, 0xa1, 0x34, 0x12, 0x26, 0xa3, 0, 0, 0x8e, 0xd8) // mov ax,[1234]; mov es:[0],ax; mov ds,ax
	c := r.c
	r.wantRegs("after IRET", map[int]uint64{x86.RIP: vmIP, x86.RSP: vmSP})
	for s, sel := range map[int]uint16{x86.CS: vmCS, x86.SS: vmSS, x86.DS: vmDS, x86.ES: 0x4000, x86.FS: 0x5000, x86.GS: 0x6000} {
		if g := c.Seg[s]; g.Sel != sel || g.Base != uint64(sel)<<4 || g.Limit != 0xffff || g.Attr != 0xf3 {
			t.Errorf("%s %+v", x86.SegmentNames[s], g)
		}
	}
	if c.CPL != 3 || c.RFLAGS != x86.Flag1|x86.FlagVM|x86.FlagIF || c.ProtectedMode() {
		t.Errorf("cpl %d, flags %#x", c.CPL, c.RFLAGS)
	}
	r.put(vmDS<<4+0x1234, 0xabcd, 2)
	r.step(3)
	if got := r.get(0x40000, 2); got != 0xabcd || c.Seg[x86.DS].Base != 0xabcd0 || c.Seg[x86.DS].DPL() != 3 {
		t.Errorf("stored %#x, ds %+v", got, c.Seg[x86.DS])
	}

	// EIP must be in 64 KiB, and only ring 0 gets there.
	r.kernel(0xcf)
	c.Regs[x86.RSP] = legStack - 36
	r.put(legStack-36, 0x10000, 4)
	r.fault()
	r.want(x86.VecGP, 0, 0)
	r.user(0xcf)
	c.Regs[x86.RSP] = legStack - 36
	for i, v := range []uint64{legCode + 1, legUCode, x86.Flag1 | x86.FlagVM} {
		r.put(legStack-36+4*uint64(i), v, 4)
	}
	r.step(1)
	if c.RFLAGS&x86.FlagVM != 0 || c.Seg[x86.CS].Sel != legUCode {
		t.Errorf("IRET of ring 3: flags %#x, cs %#x", c.RFLAGS, c.Seg[x86.CS].Sel)
	}
}

// TestVM86Sensitive: what a monitor has to see raises #GP(0), some of it only below IOPL 3, and some does not exist.
func TestVM86Sensitive(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	c := r.c
	r.put(legTSS+102, 0x68, 2)
	r.descriptor(legTSSSel, legTSS, 0x68+8, 0x89)
	c.LoadTR(legTSSSel)
	for i := range uint64(9) {
		r.put(legTSS+0x68+i, 0, 1)
	}
	r.put(legTSS+0x68+0x21/8, 1<<(0x21%8), 1) // port 21H is not allowed
	r.gate(0x21, 0xee)
	r.gate(x86.VecBP, 0xee)
	r.gate(x86.VecOF, 0xee)
	const fine = -1
	for _, x := range []struct {
		name           string
		code           []byte
		iopl0, iopl3   int // vector, or fine
		err0, err3     int
		after0, after3 int
	}{
		{name: "CLI", code: []byte{0xfa}, iopl0: x86.VecGP, iopl3: fine},
		{name: "STI", code: []byte{0xfb}, iopl0: x86.VecGP, iopl3: fine},
		{name: "PUSHF", code: []byte{0x9c}, iopl0: x86.VecGP, iopl3: fine},
		{name: "POPF", code: []byte{0x9d}, iopl0: x86.VecGP, iopl3: fine},
		{name: "IRET", code: []byte{0xcf}, iopl0: x86.VecGP, iopl3: fine},
		{name: "INT", code: []byte{0xcd, 0x21}, iopl0: x86.VecGP, iopl3: 0x21, err3: -1, after3: 2},
		{name: "INT3", code: []byte{0xcc}, iopl0: x86.VecBP, iopl3: x86.VecBP, err0: -1, err3: -1, after0: 1, after3: 1},
		{name: "IN of an allowed port", code: []byte{0xe4, 0x20}, iopl0: fine, iopl3: fine},
		{name: "IN of a forbidden port", code: []byte{0xe4, 0x21}, iopl0: x86.VecGP, iopl3: x86.VecGP},
		{name: "OUT beyond the map", code: []byte{0xe6, 0x80}, iopl0: x86.VecGP, iopl3: x86.VecGP},
		{name: "HLT", code: []byte{0xf4}, iopl0: x86.VecGP, iopl3: x86.VecGP},
		{name: "MOV from CR0", code: []byte{0x0f, 0x20, 0xc0}, iopl0: x86.VecGP, iopl3: x86.VecGP},
		{name: "LGDT", code: []byte{0x0f, 0x01, 0x16, 0, 0}, iopl0: x86.VecGP, iopl3: x86.VecGP},
		{name: "CLTS", code: []byte{0x0f, 0x06}, iopl0: x86.VecGP, iopl3: x86.VecGP},
		{name: "LLDT", code: []byte{0x0f, 0x00, 0xd0}, iopl0: x86.VecUD, iopl3: x86.VecUD, err0: -1, err3: -1},
		{name: "LTR", code: []byte{0x0f, 0x00, 0xd8}, iopl0: x86.VecUD, iopl3: x86.VecUD, err0: -1, err3: -1},
		{name: "SLDT", code: []byte{0x0f, 0x00, 0xc0}, iopl0: x86.VecUD, iopl3: x86.VecUD, err0: -1, err3: -1},
		{name: "LAR", code: []byte{0x0f, 0x02, 0xc0}, iopl0: x86.VecUD, iopl3: x86.VecUD, err0: -1, err3: -1},
		{name: "ARPL", code: []byte{0x63, 0xc0}, iopl0: x86.VecUD, iopl3: x86.VecUD, err0: -1, err3: -1},
		{name: "SMSW", code: []byte{0x0f, 0x01, 0xe0}, iopl0: fine, iopl3: fine},
		{name: "far JMP", code: []byte{0xea, 0, 1, 0, 0x10}, iopl0: fine, iopl3: fine},
	} {
		for iopl, want := range map[uint64]int{0: x.iopl0, 3: x.iopl3} {
			r.enterVM86(iopl, x.code...)
			before := c.Step
			r.fault()
			if want == fine {
				if r.vector() >= 0 || c.Step != before+1 || c.RFLAGS&x86.FlagVM == 0 && x.name != "IRET" {
					t.Errorf("%s with IOPL %d: vector %d, flags %#x", x.name, iopl, r.vector(), c.RFLAGS)
				}
				continue
			}
			if got := r.vector(); got != want {
				t.Errorf("%s with IOPL %d: vector %d, want %d", x.name, iopl, got, want)
				continue
			}
			err, after := x.err0, x.after0
			if iopl == 3 {
				err, after = x.err3, x.after3
			}
			sp := c.Regs[x86.RSP]
			if err >= 0 {
				if got := r.get(sp, 4); got != uint64(err) {
					t.Errorf("%s with IOPL %d: error code %#x", x.name, iopl, got)
				}
				sp += 4
			}
			if got := int(r.get(sp, 4)) - vmIP; got != after {
				t.Errorf("%s with IOPL %d: ip start%+d, want %+d", x.name, iopl, got, after)
			}
		}
	}
}

// TestVM86Interrupt: an interrupt leaves the mode with all segments on the stack of ring 0, and IRET comes back.
func TestVM86Interrupt(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	c := r.c
	r.enterVM86(1, 0x90)
	r.c.Deliver(x86.Exception{Vec: 0x50, Ext: true})
	if r.vector() != 0x50 || c.Regs[x86.RSP] != legStack0-36 || c.RFLAGS != x86.Flag1|1<<12 {
		t.Fatalf("vector %d, rsp %#x, flags %#x", r.vector(), c.Regs[x86.RSP], c.RFLAGS)
	}
	for i, v := range []uint64{vmIP, vmCS, x86.Flag1 | x86.FlagVM | x86.FlagIF | 1<<12, vmSP, vmSS, 0x4000, vmDS, 0x5000, 0x6000} {
		if got := r.get(legStack0-36+4*uint64(i), 4); got != v {
			t.Errorf("frame[%d] = %#x, want %#x", i, got, v)
		}
	}
	for _, s := range []int{x86.DS, x86.ES, x86.FS, x86.GS} {
		if c.Seg[s].Sel != 0 || c.Seg[s].Attr&x86.SegPresent != 0 {
			t.Errorf("%s %+v", x86.SegmentNames[s], c.Seg[s])
		}
	}
	r.put(legHandler+16*0x50, 0xcf, 1)
	c.Attention = false
	r.e.Run(c.Step + 1)
	r.wantRegs("back", map[int]uint64{x86.RIP: vmIP, x86.RSP: vmSP})
	if c.RFLAGS&x86.FlagVM == 0 || c.Seg[x86.GS].Sel != 0x6000 || c.CPL != 3 {
		t.Errorf("flags %#x, gs %+v, cpl %d", c.RFLAGS, c.Seg[x86.GS], c.CPL)
	}

	// A handler that is not of ring 0 cannot take it: the error names its code segment.
	for _, attr := range []uint64{0x9b | dpl3, 0x9f} {
		r.descriptor(legSpare, 0, 0xfffff, flat32|attr)
		r.put(legIDT+8*0x50+2, legSpare, 2)
		r.enterVM86(0, 0x90)
		r.c.Deliver(x86.Exception{Vec: 0x50, Ext: true})
		if r.vector() != x86.VecGP || r.get(c.Regs[x86.RSP], 4) != legSpare|1 {
			t.Errorf("code segment %#x: vector %d, error code %#x", attr, r.vector(), r.get(c.Regs[x86.RSP], 4))
		}
	}
}

// TestVM86Flags: with IOPL 3 the program has IF, and never IOPL or VM.
func TestVM86Flags(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	c := r.c
	r.enterVM86(3, 0x9d) // popf
	r.put(vmSS<<4+vmSP, x86.FlagCF, 2)
	r.step(1)
	if c.RFLAGS != x86.Flag1|x86.FlagVM|x86.FlagIOPL|x86.FlagCF {
		t.Errorf("POPF: %#x", c.RFLAGS)
	}
	r.enterVM86(3, 0xcf)
	r.put(vmSS<<4+vmSP, 0x180|0x900<<16|x86.FlagIF<<32, 6)
	r.step(1)
	r.wantRegs("IRET", map[int]uint64{x86.RIP: 0x180, x86.RSP: vmSP + 6})
	if c.RFLAGS != x86.Flag1|x86.FlagVM|x86.FlagIOPL|x86.FlagIF || c.Seg[x86.CS].Base != 0x9000 || c.Seg[x86.CS].DPL() != 3 {
		t.Errorf("IRET: flags %#x, cs %+v", c.RFLAGS, c.Seg[x86.CS])
	}
	r.enterVM86(3, 0x66, 0x9c) // pushfd
	c.RFLAGS |= x86.FlagRF
	r.step(1)
	if got := r.get(vmSS<<4+vmSP-4, 4); got != x86.Flag1|x86.FlagIOPL|x86.FlagIF {
		t.Errorf("PUSHFD: %#x", got)
	}
}

// TestVM86Paging: user pages only.
func TestVM86Paging(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	c := r.c
	const dir = 0x100000
	r.put(dir, dir+0x1000|7, 4)
	for p := range uint64(256) {
		r.put(dir+0x1000+4*p, p<<12|7, 4)
	}
	r.put(dir+0x1000+4*0x30, 0x30000|3, 4) // the data segment is the supervisor's
	c.CR3, c.CR0 = dir, c.CR0|x86.CR0PG
	r.enterVM86(3, 0xa1, 0x34, 0x02)
	r.fault()
	if r.vector() != x86.VecPF || c.CR2 != vmDS<<4+0x234 || r.get(c.Regs[x86.RSP], 4) != 5 {
		t.Errorf("vector %d, cr2 %#x, error code %#x", r.vector(), c.CR2, r.get(c.Regs[x86.RSP], 4))
	}
}

// TestVM86Task: a task switch goes there too, and comes back.
func TestVM86Task(t *testing.T) {
	k := kernelTask()
	k.flags = x86.Flag1 | x86.FlagVM | 3<<12
	k.cs, k.ss, k.ds, k.fs, k.ip, k.sp = vmCS, vmSS, vmDS, 0x5000, vmIP, vmSP
	r := taskRig(t, k)
	c := r.c
	r.descriptor(legSpare2, legTSS, 0x67, 0x89)
	r.kernel(jmpTask...)
	r.step(1)
	if c.CPL != 3 || c.Seg[x86.CS].Base != vmCS<<4 || c.Seg[x86.FS].Base != 0x50000 || c.Regs[x86.RSP] != vmSP || c.RFLAGS&x86.FlagVM == 0 {
		t.Fatalf("cpl %d, cs %+v, fs %+v, flags %#x", c.CPL, c.Seg[x86.CS], c.Seg[x86.FS], c.RFLAGS)
	}
	// Through a task gate, vector 41H, to the first task.
	r.put(legIDT+8*0x41, legTSSSel<<16|0xe5<<40, 8)
	r.put(vmCS<<4+vmIP, 0x41cd, 2)
	r.step(1)
	if c.RFLAGS != x86.Flag1|x86.FlagNT || c.CPL != 0 || c.Regs[x86.RIP] != legCode+7 || c.Seg[x86.CS].Sel != legKCode {
		t.Fatalf("flags %#x, cpl %d, cs:rip %#x:%#x", c.RFLAGS, c.CPL, c.Seg[x86.CS].Sel, c.Regs[x86.RIP])
	}
	if got := r.get(taskTSS+36, 4); got != x86.Flag1|x86.FlagVM|3<<12 {
		t.Errorf("saved flags %#x", got)
	}
	r.put(legCode+7, 0xcf, 1)
	r.step(1)
	r.wantRegs("back", map[int]uint64{x86.RIP: vmIP + 2, x86.RSP: vmSP})
	if c.RFLAGS&x86.FlagVM == 0 || c.Seg[x86.DS].Base != vmDS<<4 {
		t.Errorf("flags %#x, ds %+v", c.RFLAGS, c.Seg[x86.DS])
	}
}
