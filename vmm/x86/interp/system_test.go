package interp

import (
	"encoding/binary"
	"fmt"
	"testing"

	"refault/vmm/x86"
)

// What user code cannot show on a processor (test/oracle does the rest): exceptions and their error
// codes, descriptor and page checks, debug traps, against the rules of SDM Vol. 3A.

// Memory of a system rig: identity-mapped 4 KiB pages of user and supervisor, all writable, all executable.
const (
	sysPT      = 0x4000
	sysGDT     = 0x5000
	sysIDT     = 0x6000
	sysTSS     = 0x7000
	sysHandler = 0x8000 // 16 bytes a vector
	sysStack0  = 0xa000 // grows down
	sysIST1    = 0xc000
	userCode   = 0x10000
	userStack  = 0x21000
	userData   = 0x30000
	kernCode   = 0x50000 // supervisor pages: 0x40000 to 0x7ffff, and all below userCode
	kernStack  = 0x61000
	kernData   = 0x70000
	unmapped   = 0x100000

	selKCode, selKData, selUCode32, selUData, selUCode, selTSS = 0x08, 0x10, 0x1b, 0x23, 0x2b, 0x40
	selSpare                                                   = 0x30 // a descriptor for the test
)

type systemRig struct {
	*rig
	t testing.TB
}

func newSystemRig(t testing.TB) *systemRig {
	r := &systemRig{newRig(t), t}
	c := r.c
	r.put(0x1000, 0x2007)
	r.put(0x2000, 0x3007)
	r.put(0x3000, sysPT|7)
	for page := range uint64(unmapped >> 12) {
		r.page(page<<12, 3)
	}
	for page := uint64(userCode); page < 0x40000; page += 0x1000 {
		r.page(page, 7)
	}
	for i, d := range []uint64{1: 0x00af9b000000ffff, 2: 0x00cf93000000ffff, 3: 0x00cffb000000ffff, 4: 0x00cff3000000ffff, 5: 0x00affb000000ffff} {
		r.put(sysGDT+8*uint64(i), d)
	}
	r.put(sysGDT+selTSS, 0x67|sysTSS<<16|0x89<<40)
	r.put(sysGDT+selTSS+8, 0)
	r.put(sysTSS+4, sysStack0)
	r.put(sysTSS+36, sysIST1)
	c.RAM.WriteAt([]byte{0x68, 0}, sysTSS+102)
	for v := range uint64(256) {
		r.gate(v, 0x8e00, 0)
	}
	r.gate(x86.VecBP, 0xee00, 0)
	c.GDTR = x86.Table{Base: sysGDT, Limit: 0x4f}
	c.IDTR = x86.Table{Base: sysIDT, Limit: 0xfff}
	c.CR0 |= x86.CR0NE | x86.CR0AM | x86.CR0MP
	c.CR4 |= x86.CR4OSXMMEXCPT | x86.CR4DE | x86.CR4FSGSBASE
	c.EFER |= x86.EFERNXE | x86.EFERSCE
	c.LoadTR(selTSS)
	c.FlushTLB()
	return r
}

func (r *systemRig) put(pa, v uint64) {
	r.c.RAM.WriteAt(binary.LittleEndian.AppendUint64(nil, v), pa)
}

func (r *systemRig) get(pa uint64) uint64 {
	var b [8]byte
	r.c.RAM.ReadAt(b[:], pa)
	return binary.LittleEndian.Uint64(b[:])
}

// page maps the page at va to itself with an entry's low bits, through memory as a kernel would.
func (r *systemRig) page(va, bits uint64) { r.put(sysPT+va>>12*8, va|bits) }

func (r *systemRig) pte(va uint64) uint64 { return r.get(sysPT + va>>12*8) }

// gate makes an IDT entry with attributes attr (type and DPL in the upper byte) and IST ist.
func (r *systemRig) gate(vec, attr, ist uint64) {
	r.put(sysIDT+16*vec, (sysHandler+16*vec)&0xffff|selKCode<<16|(attr|ist)<<32)
	r.put(sysIDT+16*vec+8, 0)
}

// user makes the next instruction code at ring 3; kernel does at ring 0.
func (r *systemRig) user(code ...byte)   { r.at(userCode, 3, selUCode, selUData, userStack, code) }
func (r *systemRig) kernel(code ...byte) { r.at(kernCode, 0, selKCode, selKData, kernStack, code) }

func (r *systemRig) at(rip uint64, cpl uint8, cs, ss uint16, sp uint64, code []byte) {
	c := r.c
	c.RAM.WriteAt(code, rip)
	seg := func(sel uint16) x86.Segment {
		d := r.get(sysGDT + uint64(sel&^7))
		return x86.Segment{Sel: sel, Limit: 0xffffffff, Attr: uint16(d >> 40 & 0xf0ff)}
	}
	c.Seg[x86.CS], c.Seg[x86.SS] = seg(cs), seg(ss)
	c.CPL = cpl
	c.Regs[x86.RIP], c.Regs[x86.RSP] = rip, sp
	c.RFLAGS = x86.Flag1 | x86.FlagIF
	c.ModeChanged()
}

// step executes n instructions, or fewer if an exception is delivered, with the boundaries of a machine in between.
func (r *systemRig) step(n uint64) {
	c := r.c
	for end := c.Step + n; c.Step < end && c.Activity == x86.Active && !r.handling(); {
		c.Attention = false
		r.e.Run(end)
		if !r.handling() {
			c.ServiceEvents(noInterrupts{})
		}
	}
}

type noInterrupts struct{}

func (noInterrupts) Pending() bool      { return false }
func (noInterrupts) Acknowledge() uint8 { panic("nothing pending") }

func (r *systemRig) handling() bool {
	rip := r.c.Regs[x86.RIP]
	return r.c.CPL == 0 && rip >= sysHandler && rip < sysHandler+0x1000
}

// trapFrame is what an exception pushed.
type trapFrame struct {
	vec                     int
	err                     uint64
	rip, cs, flags, rsp, ss uint64
}

var hasErrorCode = map[int]bool{8: true, 10: true, 11: true, 12: true, 13: true, 14: true, 17: true}

func (r *systemRig) frame() (f trapFrame) {
	r.t.Helper()
	if !r.handling() {
		r.t.Fatalf("no exception: CPL %d, rip %#x, activity %d", r.c.CPL, r.c.Regs[x86.RIP], r.c.Activity)
	}
	f.vec = int(r.c.Regs[x86.RIP]-sysHandler) / 16
	sp := r.c.Regs[x86.RSP]
	if hasErrorCode[f.vec] {
		f.err = r.get(sp)
		sp += 8
	}
	f.rip, f.cs, f.flags, f.rsp, f.ss = r.get(sp), r.get(sp+8), r.get(sp+16), r.get(sp+24), r.get(sp+32)
	return f
}

// want checks vector and error code, and that the exception points after bytes of code.
func (r *systemRig) want(vec int, err uint64, after uint64) trapFrame {
	r.t.Helper()
	f := r.frame()
	start := uint64(userCode)
	if f.cs&3 == 0 {
		start = kernCode
	}
	if f.vec != vec || f.err != err || f.rip != start+after {
		r.t.Errorf("vector %d, error code %#x, rip start%+d; want %d, %#x, %+d", f.vec, f.err, int64(f.rip-start), vec, err, after)
	}
	return f
}

func (r *systemRig) wantNone(n uint64) {
	r.t.Helper()
	end := r.c.Step + n
	r.step(n)
	if r.handling() || r.c.Step != end {
		r.t.Fatalf("exception %+v", r.frame())
	}
}

// movRead is mov al,[rbx]; movWrite is mov [rbx],al.
var (
	movRead  = []byte{0x8a, 0x03}
	movWrite = []byte{0x88, 0x03}
)

func TestPageFaultErrorCodes(t *testing.T) {
	const p, w, u, nx = 1, 2, 4, 1 << 63
	tests := []struct {
		name   string
		bits   uint64 // of the page's entry
		user   bool
		code   []byte
		setup  func(c *x86.CPU)
		flags  uint64
		err    uint64
		faults bool
	}{
		{name: "user reads a page that is not there", user: true, code: movRead, err: 4, faults: true},
		{name: "user writes one", user: true, code: movWrite, err: 6, faults: true},
		{name: "user writes a read-only page", bits: p | u, user: true, code: movWrite, err: 7, faults: true},
		{name: "user reads a read-only page", bits: p | u, user: true, code: movRead},
		{name: "user reads a supervisor page", bits: p | w, user: true, code: movRead, err: 5, faults: true},
		{name: "supervisor reads a page that is not there", code: movRead, err: 0, faults: true},
		{name: "supervisor writes a read-only page", bits: p, code: movWrite, err: 3, faults: true},
		{name: "supervisor writes a read-only page with WP clear", bits: p, code: movWrite, setup: func(c *x86.CPU) { c.WriteCR(0, c.CR0&^x86.CR0WP) }},
		{name: "SMAP", bits: p | w | u, code: movRead, setup: func(c *x86.CPU) { c.WriteCR(4, c.CR4|x86.CR4SMAP) }, err: 1, faults: true},
		{name: "SMAP, write", bits: p | w | u, code: movWrite, setup: func(c *x86.CPU) { c.WriteCR(4, c.CR4|x86.CR4SMAP) }, err: 3, faults: true},
		{name: "SMAP with AC", bits: p | w | u, code: movWrite, flags: x86.FlagAC, setup: func(c *x86.CPU) { c.WriteCR(4, c.CR4|x86.CR4SMAP) }},
		{name: "reserved bit", bits: p | w | u | 1<<45, user: true, code: movRead, err: 0xd, faults: true},
		{name: "reserved bit, write by the supervisor", bits: p | w | 1<<51, code: movWrite, err: 0xb, faults: true},
		{name: "ignored bit", bits: p | w | u | 1<<55, user: true, code: movRead},
		{name: "no-execute page, read", bits: p | w | u | nx, user: true, code: movRead},
		{name: "no-execute bit without NXE", bits: p | w | u | nx, user: true, code: movRead, err: 0xd, faults: true,
			setup: func(c *x86.CPU) { c.WriteMSR(x86.MSREFER, c.EFER&^x86.EFERNXE) }},
		{name: "user jumps to a no-execute page", bits: p | w | u | nx, user: true, code: []byte{0xff, 0xe3}, err: 0x15, faults: true},
		{name: "user jumps to a page that is not there", user: true, code: []byte{0xff, 0xe3}, err: 0x14, faults: true},
		{name: "user jumps to a supervisor page", bits: p, user: true, code: []byte{0xff, 0xe3}, err: 0x15, faults: true},
		{name: "SMEP", bits: p | w | u, code: []byte{0xff, 0xe3}, setup: func(c *x86.CPU) { c.WriteCR(4, c.CR4|x86.CR4SMEP) }, err: 0x11, faults: true},
		{name: "supervisor jumps to a user page without SMEP", bits: p | w | u, code: []byte{0xff, 0xe3}},
	}
	for _, x := range tests {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			const va = userData + 0x123
			r.page(userData, x.bits)
			r.put(va, 0x90)
			if x.user {
				r.user(x.code...)
			} else {
				r.kernel(x.code...)
			}
			if x.setup != nil {
				x.setup(r.c)
			}
			r.c.RFLAGS |= x.flags
			r.c.ModeChanged()
			r.c.Regs[x86.RBX] = va
			if !x.faults {
				r.wantNone(1)
				return
			}
			jump := x.code[0] == 0xff
			if jump {
				r.step(2)
			} else {
				r.step(1)
			}
			f := r.frame()
			wantRIP := uint64(userCode)
			switch {
			case jump:
				wantRIP = va
			case !x.user:
				wantRIP = kernCode
			}
			if f.vec != x86.VecPF || f.err != x.err || r.c.CR2 != va || f.rip != wantRIP {
				t.Errorf("vector %d, error code %#x, CR2 %#x, rip %#x; want #PF(%#x) at %#x, rip %#x", f.vec, f.err, r.c.CR2, f.rip, x.err, va, wantRIP)
			}
			if f.flags&x86.FlagRF == 0 {
				t.Error("RF is clear in the flags that a fault pushed")
			}
		})
	}
}

func TestStoreAcrossPagesFaultsWhole(t *testing.T) {
	r := newSystemRig(t)
	r.page(userData+0x1000, 5)
	r.put(userData+0xff8, 0)
	r.user(0x48, 0x89, 0x03) // mov [rbx],rax
	r.c.Regs[x86.RBX], r.c.Regs[x86.RAX] = userData+0xffc, ^uint64(0)
	r.step(1)
	r.want(x86.VecPF, 7, 0)
	if r.c.CR2 != userData+0x1000 {
		t.Errorf("CR2 %#x", r.c.CR2)
	}
	if v := r.get(userData + 0xff8); v != 0 {
		t.Errorf("%#x was stored", v)
	}
}

func TestAccessedAndDirtyBits(t *testing.T) {
	const a, d = 1 << 5, 1 << 6
	r := newSystemRig(t)
	r.c.Regs[x86.RBX] = userData
	if r.pte(userData)&(a|d) != 0 {
		t.Fatal("set before any access")
	}
	r.user(movRead...)
	r.wantNone(1)
	if got := r.pte(userData) & (a | d); got != a {
		t.Errorf("after a read: %#x", got)
	}
	r.user(movWrite...)
	r.wantNone(1)
	if got := r.pte(userData) & (a | d); got != a|d {
		t.Errorf("after a write: %#x", got)
	}
	// Cleared by a store, without INVLPG: coherent, so set again by the next access.
	r.page(userData, 7)
	r.user(movWrite...)
	r.wantNone(1)
	if got := r.pte(userData) & (a | d); got != a|d {
		t.Errorf("after clearing and another write: %#x", got)
	}
	// A write that faults marks nothing.
	r.page(userData, 5)
	r.user(movWrite...)
	r.step(1)
	r.want(x86.VecPF, 7, 0)
	if got := r.pte(userData) & (a | d); got != 0 {
		t.Errorf("after a fault: %#x", got)
	}
}

func TestNonCanonicalAddresses(t *testing.T) {
	const bad = 1 << 47
	for _, x := range []struct {
		name string
		code []byte
		set  func(c *x86.CPU)
		vec  int
	}{
		{"read", movRead, func(c *x86.CPU) { c.Regs[x86.RBX] = bad }, x86.VecGP},
		{"read through RBP", []byte{0x8a, 0x45, 0}, func(c *x86.CPU) { c.Regs[x86.RBP] = bad }, x86.VecSS},
		{"read through RSP", []byte{0x8a, 0x04, 0x24}, func(c *x86.CPU) { c.Regs[x86.RSP] = bad }, x86.VecSS},
		{"read through RBP and FS", []byte{0x64, 0x8a, 0x45, 0}, func(c *x86.CPU) { c.Regs[x86.RBP] = bad }, x86.VecGP},
		{"push", []byte{0x50}, func(c *x86.CPU) { c.Regs[x86.RSP] = bad + 8 }, x86.VecSS},
		{"pop", []byte{0x58}, func(c *x86.CPU) { c.Regs[x86.RSP] = bad }, x86.VecSS},
		{"push of memory", []byte{0xff, 0x33}, func(c *x86.CPU) { c.Regs[x86.RBX] = bad }, x86.VecGP},
		{"push of memory to nowhere", []byte{0xff, 0x33}, func(c *x86.CPU) { c.Regs[x86.RBX], c.Regs[x86.RSP] = userData, bad+8 }, x86.VecSS},
		{"call", []byte{0xe8, 0, 0, 0, 0}, func(c *x86.CPU) { c.Regs[x86.RSP] = bad + 8 }, x86.VecSS},
		{"ret", []byte{0xc3}, func(c *x86.CPU) { c.Regs[x86.RSP] = bad }, x86.VecSS},
		{"jump", []byte{0xff, 0xe3}, func(c *x86.CPU) { c.Regs[x86.RBX] = bad }, x86.VecGP},
		{"string", []byte{0xa4}, func(c *x86.CPU) { c.Regs[x86.RSI], c.Regs[x86.RDI] = userData, bad }, x86.VecGP},
		{"leave", []byte{0xc9}, func(c *x86.CPU) { c.Regs[x86.RBP] = bad }, x86.VecSS},
		{"across the border", []byte{0x48, 0x8b, 0x03}, func(c *x86.CPU) { c.Regs[x86.RBX] = bad - 4 }, x86.VecPF}, // the lower half is not mapped
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			r.user(x.code...)
			x.set(r.c)
			before := r.c.Regs
			r.step(1)
			f := r.frame()
			if f.vec == x86.VecPF && x.vec == x86.VecPF {
				return
			}
			r.want(x.vec, 0, 0)
			before[x86.RSP], before[x86.RIP] = r.c.Regs[x86.RSP], r.c.Regs[x86.RIP]
			if before != r.c.Regs {
				t.Errorf("registers changed: %x, before %x", r.c.Regs, before)
			}
		})
	}
}

func TestExceptionFrame(t *testing.T) {
	r := newSystemRig(t)
	r.user(0x0f, 0x0b) // ud2
	r.c.Regs[x86.RSP] = userStack - 3
	r.c.RFLAGS |= x86.FlagTF | x86.FlagNT | x86.FlagDF | x86.FlagAC
	r.step(1)
	f := r.want(x86.VecUD, 0, 0)
	const flags = x86.Flag1 | x86.FlagIF | x86.FlagTF | x86.FlagNT | x86.FlagDF | x86.FlagAC
	if f.cs != selUCode || f.ss != selUData || f.rsp != userStack-3 || f.flags != flags|x86.FlagRF {
		t.Errorf("frame %+v", f)
	}
	c := r.c
	if c.Regs[x86.RSP] != sysStack0-40 || c.Seg[x86.SS].Sel != 0 || c.Seg[x86.CS].Sel != selKCode || c.CPL != 0 {
		t.Errorf("rsp %#x, ss %#x, cs %#x, cpl %d", c.Regs[x86.RSP], c.Seg[x86.SS].Sel, c.Seg[x86.CS].Sel, c.CPL)
	}
	if got := c.RFLAGS & (flags | x86.FlagRF); got != x86.Flag1|x86.FlagDF|x86.FlagAC {
		t.Errorf("flags %#x in the handler", got)
	}

	// From ring 0 the stack stays, aligned, with SS unchanged; an IST switches it all the same.
	r.kernel(0x0f, 0x0b)
	r.c.Regs[x86.RSP] = kernStack - 5
	r.step(1)
	f = r.want(x86.VecUD, 0, 0)
	if c.Regs[x86.RSP] != (kernStack-5)&^15-40 || f.rsp != kernStack-5 || c.Seg[x86.SS].Sel != selKData {
		t.Errorf("rsp %#x, ss %#x, frame %+v", c.Regs[x86.RSP], c.Seg[x86.SS].Sel, f)
	}
	r.gate(x86.VecUD, 0x8e00, 1)
	r.kernel(0x0f, 0x0b)
	r.step(1)
	r.want(x86.VecUD, 0, 0)
	if c.Regs[x86.RSP] != sysIST1-40 {
		t.Errorf("rsp %#x with an IST", c.Regs[x86.RSP])
	}

	// A trap gate leaves IF.
	r.gate(x86.VecUD, 0x8f00, 0)
	r.user(0x0f, 0x0b)
	r.step(1)
	r.want(x86.VecUD, 0, 0)
	if c.RFLAGS&x86.FlagIF == 0 {
		t.Error("a trap gate cleared IF")
	}
}

func TestSoftwareInterrupts(t *testing.T) {
	r := newSystemRig(t)
	r.user(0xcc)
	r.step(1)
	f := r.want(x86.VecBP, 0, 1)
	if f.flags&x86.FlagRF != 0 {
		t.Error("RF set by a trap")
	}
	r.user(0xcd, 0x30) // the gate's DPL is 0
	r.step(1)
	r.want(x86.VecGP, 0x30<<3|2, 0)
	r.kernel(0xcd, 0x30)
	r.step(1)
	r.want(0x30, 0, 2)
	r.gate(0x30, 0x6e00, 0) // not present
	r.user(0xcd, 0x30)
	r.step(1)
	r.want(x86.VecNP, 0x30<<3|2, 0)
	r.c.IDTR.Limit = 0x2ff
	r.user(0xcd, 0x30)
	r.step(1)
	r.want(x86.VecGP, 0x30<<3|2, 0)
	r.gate(0x2f, 0xec00, 0) // a call gate
	r.user(0xcd, 0x2f)
	r.step(1)
	r.want(x86.VecGP, 0x2f<<3|2, 0)
}

func TestFaultsOfDelivery(t *testing.T) {
	t.Run("not present gate of a benign exception", func(t *testing.T) {
		r := newSystemRig(t)
		r.gate(x86.VecUD, 0x0e00, 0)
		r.user(0x0f, 0x0b)
		r.step(1)
		r.want(x86.VecNP, x86.VecUD<<3|2|1, 0)
	})
	t.Run("contributory after contributory", func(t *testing.T) {
		r := newSystemRig(t)
		r.gate(x86.VecDE, 0x0e00, 0)
		r.user(0xf6, 0xf3) // div bl
		r.c.Regs[x86.RBX] = 0
		r.step(1)
		r.want(x86.VecDF, 0, 0)
	})
	t.Run("page fault whose handler's stack faults", func(t *testing.T) {
		r := newSystemRig(t)
		r.put(sysTSS+4, unmapped+0x1000)
		r.gate(x86.VecDF, 0x8e00, 1)
		r.user(movRead...)
		r.c.Regs[x86.RBX] = unmapped + 0x5000
		r.step(1)
		r.want(x86.VecDF, 0, 0)
		if r.c.CR2 != unmapped+0x1000-8 {
			t.Errorf("CR2 %#x: that of the second fault is wanted", r.c.CR2)
		}
	})
	t.Run("general protection, then page fault", func(t *testing.T) {
		r := newSystemRig(t)
		r.page(sysGDT, 0)
		r.user(0xf4) // hlt
		r.step(1)
		if r.c.Activity != x86.Shutdown {
			t.Errorf("activity %d; without a GDT nothing can be delivered", r.c.Activity)
		}
	})
	t.Run("stack pointer of the TSS not canonical", func(t *testing.T) {
		r := newSystemRig(t)
		r.put(sysTSS+4, 1<<47)
		r.gate(x86.VecSS, 0x8e00, 1)
		r.user(0x0f, 0x0b)
		r.step(1)
		r.want(x86.VecSS, 1, 0)
	})
	t.Run("TSS too short", func(t *testing.T) {
		r := newSystemRig(t)
		r.c.Seg[x86.TR].Limit = 8
		r.user(0x0f, 0x0b)
		r.step(1)
		if r.c.Activity != x86.Shutdown {
			t.Errorf("activity %d", r.c.Activity)
		}
	})
	t.Run("kernel stack not canonical", func(t *testing.T) {
		r := newSystemRig(t)
		r.gate(x86.VecSS, 0x8e00, 1)
		r.kernel(0x0f, 0x0b)
		r.c.Regs[x86.RSP] = 1<<47 + 0x100
		r.step(1)
		r.want(x86.VecSS, 1, 0)
	})
	t.Run("triple", func(t *testing.T) {
		r := newSystemRig(t)
		r.c.IDTR.Limit = 0
		r.user(0x0f, 0x0b)
		r.step(1)
		if r.c.Activity != x86.Shutdown {
			t.Errorf("activity %d", r.c.Activity)
		}
	})
}

func TestDeviceNotAvailable(t *testing.T) {
	fld1, addps, paddb, fwait := []byte{0xd9, 0xe8}, []byte{0x0f, 0x58, 0xc1}, []byte{0x0f, 0xfc, 0xc1}, []byte{0x9b}
	for _, x := range []struct {
		name     string
		code     []byte
		cr0, cr4 uint64 // bits to change
		vec      int    // -1 for none
	}{
		{"x87", fld1, 0, 0, -1},
		{"x87 with TS", fld1, x86.CR0TS, 0, x86.VecNM},
		{"x87 with EM", fld1, x86.CR0EM, 0, x86.VecNM},
		{"SSE", addps, 0, 0, -1},
		{"SSE with TS", addps, x86.CR0TS, 0, x86.VecNM},
		{"SSE with EM", addps, x86.CR0EM, 0, x86.VecUD},
		{"SSE with EM and TS", addps, x86.CR0EM | x86.CR0TS, 0, x86.VecUD},
		{"SSE without OSFXSR", addps, 0, x86.CR4OSFXSR, x86.VecUD},
		{"MMX with TS", paddb, x86.CR0TS, 0, x86.VecNM},
		{"MMX with EM", paddb, x86.CR0EM, 0, x86.VecUD},
		{"MMX without OSFXSR", paddb, 0, x86.CR4OSFXSR, -1},
		{"FWAIT with TS and MP", fwait, x86.CR0TS, 0, x86.VecNM},
		{"FWAIT with TS without MP", fwait, x86.CR0TS | x86.CR0MP, 0, -1},
		{"FXSAVE with TS", []byte{0x0f, 0xae, 0x03}, x86.CR0TS, 0, x86.VecNM},
		{"PAUSE", []byte{0xf3, 0x90}, x86.CR0EM | x86.CR0TS, x86.CR4OSFXSR, -1},
		{"CRC32", []byte{0xf2, 0x0f, 0x38, 0xf0, 0xc0}, x86.CR0EM | x86.CR0TS, x86.CR4OSFXSR, -1},
		{"XSAVE without OSXSAVE", []byte{0x0f, 0xae, 0x23}, 0, 0, x86.VecUD},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			r.c.CR0 ^= x.cr0
			r.c.CR4 ^= x.cr4
			r.user(x.code...)
			r.c.Regs[x86.RBX] = userData
			if x.vec < 0 {
				r.wantNone(1)
				return
			}
			r.step(1)
			r.want(x.vec, 0, 0)
		})
	}
}

func TestFloatingPointErrors(t *testing.T) {
	r := newSystemRig(t)
	r.user(0x0f, 0x5e, 0xc1) // divps xmm0,xmm1: 0/0
	r.c.SetMXCSR(0x1f00)
	r.step(1)
	r.want(x86.VecXM, 0, 0)
	r.c.CR4 &^= x86.CR4OSXMMEXCPT
	r.user(0x0f, 0x5e, 0xc1)
	r.step(1)
	r.want(x86.VecUD, 0, 0)

	// The error of an x87 instruction comes with the next waiting one.
	r.user(0xd9, 0xee, 0xd8, 0xf0, 0xdb, 0xe2, 0xd9, 0xee) // fldz; fdiv st,st; fnclex; fldz
	r.c.FX[0] = 0x7e                                       // invalid operation unmasked
	r.wantNone(4)
	r.user(0xd9, 0xee, 0xd8, 0xf0, 0xdf, 0xe0, 0x9b) // fldz; fdiv; fnstsw ax; fwait
	r.step(4)
	r.want(x86.VecMF, 0, 6)
	if r.c.Regs[x86.RAX]&0x8081 != 0x8081 {
		t.Errorf("status word %#x", r.c.Regs[x86.RAX])
	}
}

func TestAlignmentCheck(t *testing.T) {
	r := newSystemRig(t)
	code := []byte{0x8b, 0x03} // mov eax,[rbx]
	r.c.Regs[x86.RBX] = userData + 2
	r.user(code...)
	r.wantNone(1)
	r.user(code...)
	r.c.RFLAGS |= x86.FlagAC
	r.c.ModeChanged()
	r.step(1)
	r.want(x86.VecAC, 0, 0)
	r.kernel(code...)
	r.c.RFLAGS |= x86.FlagAC
	r.c.ModeChanged()
	r.wantNone(1)
	r.c.WriteCR(0, r.c.CR0&^x86.CR0AM)
	r.user(code...)
	r.c.RFLAGS |= x86.FlagAC
	r.c.ModeChanged()
	r.wantNone(1)
}

func TestInvalidInstructions(t *testing.T) {
	for _, x := range []struct {
		name string
		code []byte
		vec  int
	}{
		{"LOCK without memory", []byte{0xf0, 0x01, 0xc0}, x86.VecUD},
		{"LOCK MOV", []byte{0xf0, 0x89, 0x03}, x86.VecUD},
		{"LOCK CMP", []byte{0xf0, 0x39, 0x03}, x86.VecUD},
		{"16 bytes", []byte{0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90}, x86.VecGP},
		{"PUSH ES", []byte{0x06}, x86.VecUD},
		{"AAA", []byte{0x37}, x86.VecUD},
		{"LES", []byte{0xc4, 0x03}, x86.VecUD},
		{"VEX", []byte{0xc5, 0xf8, 0x77}, x86.VecUD},
		{"EVEX", []byte{0x62, 0xf1, 0x7c, 0x48, 0x10, 0x03}, x86.VecUD},
		{"MOVBE, not claimed", []byte{0x0f, 0x38, 0xf0, 0x03}, x86.VecUD},
		{"ADCX, not claimed", []byte{0x66, 0x0f, 0x38, 0xf6, 0xc3}, x86.VecUD},
		{"AESENC, not claimed", []byte{0x66, 0x0f, 0x38, 0xdc, 0xc1}, x86.VecUD},
		{"PCLMULQDQ, not claimed", []byte{0x66, 0x0f, 0x3a, 0x44, 0xc1, 0}, x86.VecUD},
		{"SHA1NEXTE, not claimed", []byte{0x0f, 0x38, 0xc8, 0xc1}, x86.VecUD},
		{"CLFLUSHOPT, not claimed", []byte{0x66, 0x0f, 0xae, 0x3b}, x86.VecUD},
		{"CLWB, not claimed", []byte{0x66, 0x0f, 0xae, 0x33}, x86.VecUD},
		{"RDPID, not claimed", []byte{0xf3, 0x0f, 0xc7, 0xf8}, x86.VecUD},
		{"MONITOR, not claimed", []byte{0x0f, 0x01, 0xc8}, x86.VecUD},
		{"VMCALL, not claimed", []byte{0x0f, 0x01, 0xc1}, x86.VecUD},
		{"XSAVEOPT, not claimed", []byte{0x0f, 0xae, 0x33}, x86.VecUD},
		{"MOV CS", []byte{0x8e, 0xcb}, x86.VecUD},
		{"MOV segment 6", []byte{0x8e, 0xf3}, x86.VecUD},
		{"CLAC in user mode", []byte{0x0f, 0x01, 0xca}, x86.VecUD},
		{"HLT in user mode", []byte{0xf4}, x86.VecGP},
		{"CLI in user mode", []byte{0xfa}, x86.VecGP},
		{"IN in user mode", []byte{0xe4, 0x60}, x86.VecGP},
		{"RDMSR in user mode", []byte{0x0f, 0x32}, x86.VecGP},
		{"MOV CR5", []byte{0x0f, 0x20, 0xe8}, x86.VecUD},
		{"MOV CR0 in user mode", []byte{0x0f, 0x20, 0xc0}, x86.VecGP},
		{"MOV DR4 with DE", []byte{0x0f, 0x21, 0xe0}, x86.VecUD},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			r.user(x.code...)
			r.c.Regs[x86.RBX] = userData
			r.step(1)
			r.want(x.vec, 0, 0)
		})
	}
}

func TestFeatureControlledInstructions(t *testing.T) {
	sgdt, rdtsc := []byte{0x0f, 0x01, 0x03}, []byte{0x0f, 0x31}
	r := newSystemRig(t)
	r.c.Regs[x86.RBX] = userData
	r.user(sgdt...)
	r.wantNone(1)
	if got := r.get(userData); got&0xffff != 0x4f || got>>16 != sysGDT {
		t.Errorf("SGDT stored %#x", got)
	}
	r.c.CR4 |= x86.CR4UMIP
	r.user(sgdt...)
	r.step(1)
	r.want(x86.VecGP, 0, 0)
	r.kernel(sgdt...)
	r.wantNone(1)
	r.user(rdtsc...)
	r.wantNone(1)
	r.c.CR4 |= x86.CR4TSD
	r.user(rdtsc...)
	r.step(1)
	r.want(x86.VecGP, 0, 0)
	r.user(0xf3, 0x0f, 0xae, 0xc0) // rdfsbase eax
	r.wantNone(1)
	r.c.CR4 &^= x86.CR4FSGSBASE
	r.user(0xf3, 0x0f, 0xae, 0xc0)
	r.step(1)
	r.want(x86.VecUD, 0, 0)
}

func TestPortPermission(t *testing.T) {
	r := newSystemRig(t)
	bus := r.c.Bus.(*bareBus)
	bus.ports[0x70] = 0x12345678
	in := []byte{0xed} // in eax,dx
	r.c.Regs[x86.RDX] = 0x70
	r.c.Seg[x86.TR].Limit = 0x67 + 0x11 // a map of ports 0 to 7fH, and the byte of ones behind it
	for i := range uint64(0x20) {
		r.put(sysTSS+0x68+8*i, 0)
	}
	r.user(in...)
	r.wantNone(1)
	if r.c.Regs[x86.RAX] != 0x12345678 {
		t.Errorf("read %#x", r.c.Regs[x86.RAX])
	}
	r.put(sysTSS+0x68+8, 1<<(0x73-0x40)) // one of the four
	r.user(in...)
	r.step(1)
	r.want(x86.VecGP, 0, 0)
	r.c.Regs[x86.RDX] = 0x200 // beyond the limit
	r.user(in...)
	r.step(1)
	r.want(x86.VecGP, 0, 0)
	r.user(in...)
	r.c.RFLAGS |= x86.FlagIOPL
	r.wantNone(1)
}

func TestSingleStep(t *testing.T) {
	const bs = 1 << 14
	t.Run("trap after each instruction", func(t *testing.T) {
		r := newSystemRig(t)
		r.user(0x90, 0x90)
		r.c.RFLAGS |= x86.FlagTF
		r.step(2)
		f := r.want(x86.VecDB, 0, 1)
		if r.c.DR[6]&bs == 0 || f.flags&x86.FlagTF == 0 || r.c.RFLAGS&x86.FlagTF != 0 {
			t.Errorf("DR6 %#x, flags pushed %#x, in the handler %#x", r.c.DR[6], f.flags, r.c.RFLAGS)
		}
	})
	t.Run("set by POPF, effective one instruction later", func(t *testing.T) {
		r := newSystemRig(t)
		r.user(0x9d, 0x90, 0x90)
		r.put(userStack, x86.FlagTF|2)
		r.step(3)
		r.want(x86.VecDB, 0, 2)
	})
	t.Run("a fault comes alone", func(t *testing.T) {
		r := newSystemRig(t)
		r.user(0x0f, 0x0b)
		r.c.RFLAGS |= x86.FlagTF
		r.step(1)
		r.want(x86.VecUD, 0, 0)
		r.c.Attention = false
		r.c.ServiceEvents(noInterrupts{})
		r.want(x86.VecUD, 0, 0)
	})
	t.Run("not after INT3", func(t *testing.T) {
		r := newSystemRig(t)
		r.user(0xcc)
		r.c.RFLAGS |= x86.FlagTF
		r.step(1)
		r.c.ServiceEvents(noInterrupts{})
		r.want(x86.VecBP, 0, 1)
	})
	t.Run("not after SYSCALL that masks TF", func(t *testing.T) {
		r := newSystemRig(t)
		r.c.LSTAR, r.c.SFMASK, r.c.STAR = kernCode, x86.FlagTF|x86.FlagIF, selKCode<<32
		r.c.RAM.WriteAt([]byte{0x90, 0x90}, kernCode)
		r.user(0x0f, 0x05)
		r.c.RFLAGS |= x86.FlagTF
		r.wantNone(2)
		if r.c.Regs[x86.R11]&x86.FlagTF == 0 {
			t.Error("R11 has no TF")
		}
	})
	t.Run("SYSRET to TF traps at once", func(t *testing.T) {
		r := newSystemRig(t)
		r.c.STAR = (selUCode32 &^ 3) << 48
		r.c.RAM.WriteAt([]byte{0x90}, userCode)
		r.kernel(0x48, 0x0f, 0x07)
		r.c.Regs[x86.RCX], r.c.Regs[x86.R11] = userCode, x86.FlagTF|2
		r.step(2)
		r.want(x86.VecDB, 0, 0)
	})
	t.Run("after each iteration", func(t *testing.T) {
		r := newSystemRig(t)
		r.user(0xf3, 0xaa)
		r.c.Regs[x86.RCX], r.c.Regs[x86.RDI] = 3, userData
		r.c.RFLAGS |= x86.FlagTF
		r.step(1)
		r.want(x86.VecDB, 0, 0)
		if r.c.Regs[x86.RCX] != 2 {
			t.Errorf("rcx %d", r.c.Regs[x86.RCX])
		}
	})
	t.Run("not between MOV SS and the next", func(t *testing.T) {
		r := newSystemRig(t)
		r.user(0x8e, 0xd3, 0x90, 0x90) // mov ss,ebx
		r.c.Regs[x86.RBX] = selUData
		r.c.RFLAGS |= x86.FlagTF
		r.step(3)
		r.want(x86.VecDB, 0, 3)
	})
}

func TestBreakpoints(t *testing.T) {
	const (
		l0 = 1
		// Kind and length of breakpoint 0.
		exec, write, io, readWrite = 0 << 16, 1 << 16, 2 << 16, 3 << 16
		len1, len2, len8, len4     = 0 << 18, 1 << 18, 2 << 18, 3 << 18
	)
	set := func(r *systemRig, addr, ctl uint64) {
		r.c.DR[0], r.c.DR[7] = addr, ctl|l0|1<<10
		r.c.ModeChanged()
	}
	t.Run("instruction: a fault, once", func(t *testing.T) {
		r := newSystemRig(t)
		r.user(0x90, 0x90, 0x90)
		set(r, userCode+1, exec|len1)
		r.step(3)
		f := r.want(x86.VecDB, 0, 1)
		if r.c.DR[6]&15 != 1 {
			t.Errorf("DR6 %#x", r.c.DR[6])
		}
		if f.flags&x86.FlagRF != 0 {
			t.Error("RF is set in the flags that an instruction breakpoint pushed")
		}
		// The handler sets RF and returns.
		r.c.RAM.WriteAt([]byte{0x48, 0xcf}, sysHandler+16*x86.VecDB)
		sp := r.c.Regs[x86.RSP]
		r.put(sp+16, f.flags|x86.FlagRF)
		r.c.Attention = false
		r.e.Run(r.c.Step + 1)
		if r.c.RFLAGS&x86.FlagRF == 0 {
			t.Fatal("IRET did not load RF")
		}
		r.wantNone(2)
		if r.c.RFLAGS&x86.FlagRF != 0 {
			t.Error("RF outlived the instruction")
		}
	})
	t.Run("instruction: string instruction in pieces", func(t *testing.T) {
		r := newSystemRig(t)
		r.user(0xf3, 0xaa, 0x90)
		r.c.Regs[x86.RCX], r.c.Regs[x86.RDI] = 5, userData
		set(r, userCode, exec|len1)
		r.c.RFLAGS |= x86.FlagRF
		r.wantNone(2) // stops in the middle
		r.wantNone(3)
		if r.c.Regs[x86.RIP] != userCode+2 || r.c.RFLAGS&x86.FlagRF != 0 {
			t.Errorf("rip %#x, flags %#x", r.c.Regs[x86.RIP], r.c.RFLAGS)
		}
	})
	for _, x := range []struct {
		name string
		ctl  uint64
		addr uint64
		code []byte
		hit  bool
	}{
		{"write, written", write | len4, userData, movWrite, true},
		{"write, read", write | len4, userData, movRead, false},
		{"write, next to it", write | len4, userData + 4, movWrite, false},
		{"write, low bits of the address do not count", write | len8, userData + 5, movWrite, true},
		{"write, one byte of four", write | len1, userData + 3, []byte{0x89, 0x03}, true},
		{"read or write, read", readWrite | len1, userData, movRead, true},
		{"read or write, fetched", readWrite | len1, userCode, movRead, false},
		{"port", io | len1, 0x80, []byte{0xe6, 0x80}, true},
		{"other port", io | len1, 0x81, []byte{0xe6, 0x80}, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			r.user(append(x.code, 0x90)...)
			r.c.RFLAGS |= x86.FlagIOPL
			r.c.Regs[x86.RBX] = userData
			set(r, x.addr, x.ctl)
			if !x.hit {
				r.wantNone(2)
				return
			}
			r.step(2)
			r.want(x86.VecDB, 0, 2)
			if r.c.DR[6]&15 != 1 {
				t.Errorf("DR6 %#x", r.c.DR[6])
			}
		})
	}
	t.Run("not by an instruction that faults", func(t *testing.T) {
		r := newSystemRig(t)
		r.page(userData+0x1000, 0)
		r.user(0xa4) // movsb
		r.c.Regs[x86.RSI], r.c.Regs[x86.RDI] = userData, userData+0x1000
		set(r, userData, readWrite|len1)
		r.step(1)
		r.want(x86.VecPF, 6, 0)
		r.c.ServiceEvents(noInterrupts{})
		r.want(x86.VecPF, 6, 0)
	})
	t.Run("general detect", func(t *testing.T) {
		r := newSystemRig(t)
		r.kernel(0x0f, 0x21, 0xc0) // mov rax,dr0
		r.c.DR[7] = 1<<13 | 1<<10
		r.step(1)
		r.want(x86.VecDB, 0, 0)
		if r.c.DR[6]&(1<<13) == 0 || r.c.DR[7]&(1<<13) != 0 {
			t.Errorf("DR6 %#x, DR7 %#x", r.c.DR[6], r.c.DR[7])
		}
	})
}

// oneInterrupt has vector 0x40 pending.
type oneInterrupt struct{}

func (oneInterrupt) Pending() bool      { return true }
func (oneInterrupt) Acknowledge() uint8 { return 0x40 }

func TestInterruptShadow(t *testing.T) {
	for _, x := range []struct {
		name  string
		code  []byte
		flags uint64
		after []uint64 // instructions after which an interrupt is taken, or not yet
		taken []bool
	}{
		{"STI", []byte{0xfb, 0x90, 0x90}, 0, []uint64{1, 2}, []bool{false, true}},
		{"STI with IF set", []byte{0xfb, 0x90, 0x90}, x86.FlagIF, []uint64{0, 1}, []bool{true, true}},
		{"MOV SS", []byte{0x8e, 0xd3, 0x90, 0x90}, x86.FlagIF, []uint64{1, 2}, []bool{false, true}},
		{"CLI", []byte{0xfa, 0x90}, x86.FlagIF, []uint64{1}, []bool{false}},
	} {
		t.Run(x.name, func(t *testing.T) {
			for i, n := range x.after {
				r := newSystemRig(t)
				r.kernel(x.code...)
				r.c.Regs[x86.RBX] = selKData
				r.c.RFLAGS = x86.Flag1 | x.flags
				r.c.ModeChanged()
				for range n {
					r.c.Attention = false
					r.e.Run(r.c.Step + 1)
				}
				r.c.ServiceEvents(oneInterrupt{})
				if r.handling() != x.taken[i] {
					t.Errorf("after %d: taken %v", n, r.handling())
				}
			}
		})
	}
}

func TestSegmentLoads(t *testing.T) {
	const present, dpl3, code, data = 0x80, 0x60, 0x1b, 0x13 // readable code, writable data
	for _, x := range []struct {
		name string
		d    uint64 // bytes 5 of the spare descriptor
		sel  uint64
		ss   bool
		vec  int // -1 for none
		err  uint64
	}{
		{"data", present | dpl3 | data, selSpare | 3, false, -1, 0},
		{"data with a lower DPL", present | data, selSpare | 3, false, x86.VecGP, selSpare},
		{"data with DPL below RPL", present | data | 0x40, selSpare | 3, false, x86.VecGP, selSpare},
		{"readable code", present | dpl3 | code, selSpare | 3, false, -1, 0},
		{"execute-only code", present | dpl3 | 0x19, selSpare | 3, false, x86.VecGP, selSpare},
		{"conforming code of ring 0", present | 0x1f, selSpare | 3, false, -1, 0},
		{"system", present | dpl3 | 2, selSpare | 3, false, x86.VecGP, selSpare},
		{"not present", dpl3 | data, selSpare | 3, false, x86.VecNP, selSpare},
		{"null", 0, 3, false, -1, 0},
		{"beyond the table", 0, 0x1000, false, x86.VecGP, 0x1000},
		{"in an LDT that is not there", 0, 0xc, false, x86.VecGP, 0xc},
		{"stack", present | dpl3 | data, selSpare | 3, true, -1, 0},
		{"stack, wrong RPL", present | dpl3 | data, selSpare, true, x86.VecGP, selSpare},
		{"stack, read-only", present | dpl3 | 0x11, selSpare | 3, true, x86.VecGP, selSpare},
		{"stack, code", present | dpl3 | code, selSpare | 3, true, x86.VecGP, selSpare},
		{"stack, not present", dpl3 | data, selSpare | 3, true, x86.VecSS, selSpare},
		{"stack, null", 0, 3, true, x86.VecGP, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			r.put(sysGDT+selSpare, 0x00cf00000000ffff|x.d<<40)
			op := byte(0xdb) // mov ds,ebx
			if x.ss {
				op = 0xd3
			}
			r.user(0x8e, op)
			r.c.Regs[x86.RBX] = x.sel
			if x.vec < 0 {
				r.wantNone(1)
				seg := x86.DS
				if x.ss {
					seg = x86.SS
				}
				if got := r.c.Seg[seg].Sel; got != uint16(x.sel) {
					t.Errorf("selector %#x", got)
				}
				if x.sel&^3 == selSpare && r.get(sysGDT+selSpare)>>40&1 == 0 {
					t.Error("the accessed bit is clear")
				}
				return
			}
			r.step(1)
			r.want(x.vec, x.err, 0)
		})
	}
}

func TestIret(t *testing.T) {
	frame := func(r *systemRig, v ...uint64) {
		for i, v := range v {
			r.put(kernStack-0x100+8*uint64(i), v)
		}
		r.c.Regs[x86.RSP] = kernStack - 0x100
	}
	t.Run("to ring 3", func(t *testing.T) {
		r := newSystemRig(t)
		r.kernel(0x48, 0xcf)
		r.c.LoadSegment(x86.DS, selKData)
		r.c.LoadSegment(x86.ES, selUData)
		frame(r, userCode, selUCode, x86.FlagIF|x86.FlagIOPL|x86.FlagID|2, userStack, selUData)
		r.step(1)
		c := r.c
		if c.CPL != 3 || c.Regs[x86.RIP] != userCode || c.Regs[x86.RSP] != userStack || c.Seg[x86.SS].Sel != selUData {
			t.Errorf("cpl %d, rip %#x, rsp %#x, ss %#x", c.CPL, c.Regs[x86.RIP], c.Regs[x86.RSP], c.Seg[x86.SS].Sel)
		}
		if c.RFLAGS != x86.FlagIF|x86.FlagIOPL|x86.FlagID|2 {
			t.Errorf("flags %#x", c.RFLAGS)
		}
		if c.Seg[x86.DS].Sel != 0 || c.Seg[x86.ES].Sel != selUData {
			t.Errorf("ds %#x, es %#x: what ring 3 must not see becomes null", c.Seg[x86.DS].Sel, c.Seg[x86.ES].Sel)
		}
	})
	for _, x := range []struct {
		name  string
		frame []uint64
		flags uint64
		vec   int
		err   uint64
	}{
		{"not canonical", []uint64{1 << 47, selUCode, 2, userStack, selUData}, 0, x86.VecGP, 0},
		{"null CS", []uint64{userCode, 3, 2, userStack, selUData}, 0, x86.VecGP, 0},
		{"data as CS", []uint64{userCode, selUData, 2, userStack, selUData}, 0, x86.VecGP, selUData &^ 3},
		{"RPL is not DPL", []uint64{userCode, selUCode &^ 3, 2, userStack, selUData}, 0, x86.VecGP, selUCode &^ 3},
		{"null SS for ring 3", []uint64{userCode, selUCode, 2, userStack, 3}, 0, x86.VecGP, 0},
		{"SS of ring 0", []uint64{userCode, selUCode, 2, userStack, selKData | 3}, 0, x86.VecGP, selKData},
		{"NT", []uint64{userCode, selUCode, 2, userStack, selUData}, x86.FlagNT, x86.VecGP, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			r.kernel(0x48, 0xcf)
			frame(r, x.frame...)
			r.c.RFLAGS |= x.flags
			r.step(1)
			r.want(x.vec, x.err, 0)
		})
	}
}

func TestControlRegisters(t *testing.T) {
	movCR := func(n byte) []byte { return []byte{0x0f, 0x22, 0xc0 | n<<3} } // mov crn,rax
	for _, x := range []struct {
		name  string
		n     byte
		value func(c *x86.CPU) uint64
		gp    bool
	}{
		{"CR0 PG without PE", 0, func(c *x86.CPU) uint64 { return c.CR0 &^ x86.CR0PE }, true},
		{"CR0 NW without CD", 0, func(c *x86.CPU) uint64 { return c.CR0 | x86.CR0NW }, true},
		{"CR0 upper half", 0, func(c *x86.CPU) uint64 { return c.CR0 | 1<<32 }, true},
		{"CR0 PG cleared in 64-bit mode", 0, func(c *x86.CPU) uint64 { return c.CR0 &^ x86.CR0PG }, true},
		{"CR0 TS", 0, func(c *x86.CPU) uint64 { return c.CR0 | x86.CR0TS }, false},
		{"CR3 reserved", 3, func(c *x86.CPU) uint64 { return c.CR3 | 1<<45 }, true},
		{"CR3 bit 63 without PCIDE", 3, func(c *x86.CPU) uint64 { return c.CR3 | 1<<63 }, true},
		{"CR4 reserved", 4, func(c *x86.CPU) uint64 { return c.CR4 | 1<<30 }, true},
		{"CR4 PKE, not claimed", 4, func(c *x86.CPU) uint64 { return c.CR4 | 1<<22 }, true},
		{"CR4 PAE cleared in IA-32e mode", 4, func(c *x86.CPU) uint64 { return c.CR4 &^ x86.CR4PAE }, true},
		{"CR4 PCIDE", 4, func(c *x86.CPU) uint64 { return c.CR4 | x86.CR4PCIDE }, false},
		{"CR4 PCIDE with a PCID in CR3", 4, func(c *x86.CPU) uint64 { c.CR3 |= 1; return c.CR4 | x86.CR4PCIDE }, true},
		{"CR8 reserved", 8, func(*x86.CPU) uint64 { return 16 }, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			code := movCR(x.n & 7)
			if x.n == 8 {
				code = append([]byte{0x44}, code...)
			}
			r.kernel(code...)
			r.c.Regs[x86.RAX] = x.value(r.c)
			if !x.gp {
				r.wantNone(1)
				return
			}
			r.step(1)
			r.want(x86.VecGP, 0, 0)
		})
	}
	r := newSystemRig(t)
	r.kernel(movCR(3)...)
	r.c.WriteCR(4, r.c.CR4|x86.CR4PCIDE)
	r.c.Regs[x86.RAX] = r.c.CR3 | 1<<63 | 5
	r.wantNone(1)
	if r.c.CR3 != 0x1005 {
		t.Errorf("CR3 %#x: bit 63 is not stored", r.c.CR3)
	}
}

func TestModelSpecificRegisters(t *testing.T) {
	for _, x := range []struct {
		msr uint32
		v   uint64
		gp  bool
	}{
		{x86.MSREFER, x86.EFERSCE | x86.EFERLME | x86.EFERLMA | x86.EFERNXE, false},
		{x86.MSREFER, x86.EFERSCE, true}, // LME cannot change with paging on
		{x86.MSREFER, x86.EFERLME | 1<<12, true},
		{x86.MSRLSTAR, 1 << 47, true},
		{x86.MSRLSTAR, 0xffff800000000000, false},
		{x86.MSRGSBase, 1 << 63, true},
		{x86.MSRPAT, 0x0007040600070406, false},
		{x86.MSRPAT, 2, true},
		{x86.MSRArchCap, 0, true},
		{0x12345, 0, true},
	} {
		t.Run(fmt.Sprintf("%#x=%#x", x.msr, x.v), func(t *testing.T) {
			r := newSystemRig(t)
			r.kernel(0x0f, 0x30)
			r.c.Regs[x86.RCX], r.c.Regs[x86.RAX], r.c.Regs[x86.RDX] = uint64(x.msr), x.v&0xffffffff, x.v>>32
			if !x.gp {
				r.wantNone(1)
				return
			}
			r.step(1)
			r.want(x86.VecGP, 0, 0)
		})
	}
}

func TestSyscallAndSysret(t *testing.T) {
	r := newSystemRig(t)
	c := r.c
	c.STAR, c.LSTAR, c.SFMASK = selKCode<<32|(selUCode32&^3)<<48, kernCode, x86.FlagIF|x86.FlagDF
	r.user(0x0f, 0x05)
	c.RFLAGS |= x86.FlagDF | x86.FlagCF
	r.wantNone(1)
	if c.CPL != 0 || c.Regs[x86.RIP] != kernCode || c.Regs[x86.RCX] != userCode+2 || c.Regs[x86.R11] != x86.FlagIF|x86.FlagDF|x86.FlagCF|2 ||
		c.RFLAGS != x86.FlagCF|2 || c.Regs[x86.RSP] != userStack || c.Seg[x86.SS].Sel != selKData {
		t.Errorf("cpl %d, rip %#x, rcx %#x, r11 %#x, flags %#x", c.CPL, c.Regs[x86.RIP], c.Regs[x86.RCX], c.Regs[x86.R11], c.RFLAGS)
	}
	c.RAM.WriteAt([]byte{0x48, 0x0f, 0x07}, kernCode)
	r.wantNone(1)
	if c.CPL != 3 || c.Regs[x86.RIP] != userCode+2 || c.Seg[x86.CS].Sel != selUCode || c.Seg[x86.SS].Sel != selUData || c.RFLAGS != x86.FlagIF|x86.FlagDF|x86.FlagCF|2 {
		t.Errorf("cpl %d, rip %#x, cs %#x, ss %#x, flags %#x", c.CPL, c.Regs[x86.RIP], c.Seg[x86.CS].Sel, c.Seg[x86.SS].Sel, c.RFLAGS)
	}
	// A return to nowhere faults in ring 0.
	r.kernel(0x48, 0x0f, 0x07)
	c.Regs[x86.RCX] = 1 << 47
	r.step(1)
	f := r.want(x86.VecGP, 0, 0)
	if f.cs != selKCode {
		t.Errorf("cs %#x", f.cs)
	}
	c.EFER &^= x86.EFERSCE
	r.user(0x0f, 0x05)
	r.step(1)
	r.want(x86.VecUD, 0, 0)
}

func TestCompatibilityModeLimits(t *testing.T) {
	r := newSystemRig(t)
	// A 64 KiB data segment at 0x20000 that grows up, then one that grows down from 0xffff to 0x1000.
	const up, down = 0x00, 0x04
	for _, x := range []struct {
		name   string
		expand uint64
		limit  uint64
		off    uint64
		vec    int
	}{
		{"last double word", up, 0xffff, 0xfffc, -1},
		{"across the limit", up, 0xffff, 0xfffd, x86.VecGP},
		{"beyond", up, 0xffff, 0x10000, x86.VecGP},
		{"expand-down, first", down, 0xfff, 0x1000, -1},
		{"expand-down, below", down, 0xfff, 0xffd, x86.VecGP},
		{"expand-down, above 64 KiB", down, 0xfff, 0xfffe, x86.VecGP},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := r
			r.t = t
			r.put(sysGDT+selSpare, x.limit|0x20000<<16|(0xf3|x.expand)<<40)
			r.at(userCode, 3, selUCode32, selUData, userStack, []byte{0x8b, 0x03}) // mov eax,[ebx]
			r.c.LoadSegment(x86.DS, selSpare|3)
			r.c.Regs[x86.RBX] = x.off
			if x.vec < 0 {
				r.wantNone(1)
				return
			}
			r.step(1)
			r.want(x.vec, 0, 0)
		})
	}
	// A null segment, and the stack segment's own vector.
	r.t = t
	r.at(userCode, 3, selUCode32, selUData, userStack, []byte{0x8b, 0x03})
	r.c.LoadSegment(x86.DS, 0)
	r.step(1)
	r.want(x86.VecGP, 0, 0)
	r.put(sysGDT+selSpare, 0xffff|0x20000<<16|0xf3<<40)
	r.at(userCode, 3, selUCode32, selSpare|3, 0x20000, []byte{0x50})
	r.c.Seg[x86.SS].Limit = 0xffff
	r.c.Seg[x86.SS].Attr |= x86.SegDB
	r.step(1)
	r.want(x86.VecSS, 0, 0)
}
