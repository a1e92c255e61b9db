//go:build linux && amd64

package jit

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"refault/vmm/mem"
	"refault/vmm/x86"
	"refault/vmm/x86/interp"
)

var (
	lockCases = flag.Int("jit.cases", 1500, "random programs")
	lockSeed  = flag.Uint64("jit.seed", 1, "seed of the first random program")
)

// nothing is a bus with nothing on it; time is the step.
type nothing struct{}

func (nothing) ReadMMIO(*x86.CPU, uint64, int) uint64   { return 0x5a5a5a5a5a5a5a5a }
func (nothing) WriteMMIO(*x86.CPU, uint64, int, uint64) {}
func (nothing) In(_ *x86.CPU, p uint16, _ int) uint32   { return uint32(p) }
func (nothing) Out(*x86.CPU, uint16, int, uint32)       {}
func (nothing) ReadMSR(*x86.CPU, uint32) (uint64, bool) { return 0, false }
func (nothing) WriteMSR(*x86.CPU, uint32, uint64) bool  { return false }
func (nothing) ReadCR8(*x86.CPU) uint64                 { return 0 }
func (nothing) WriteCR8(*x86.CPU, uint64)               {}
func (nothing) TSC(c *x86.CPU) uint64                   { return c.Step }
func (nothing) Random(*x86.CPU) uint64                  { return 4 }

// The address space of a test: code on two pages, data on pages with different
// permissions between unmapped ones, the code once more as data, a device.
const (
	codeAt    = 0x10000
	stackAt   = 0x20800
	dataAt    = 0x30000 // two pages; then one that is read-only, one that is unmapped
	aliasAt   = 0x35000 // the first page of code
	deviceAt  = 0x36000
	dataBytes = 0x3000
	trapAt    = 0x1f000
	idtAt     = 0x6000
	gdtAt     = 0x7000
	tssAt     = 0x7800
	ramBytes  = 1 << 20
)

type runner interface{ Run(until uint64) }

// rig is a processor that is about to execute a program.
type rig struct {
	c   *x86.CPU
	e   runner
	jit *Engine
}

func newRig(t testing.TB, translate bool) *rig {
	t.Helper()
	ram, err := mem.New(ramBytes)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x86.NewCPU(0, ram, nothing{})
	if err != nil {
		t.Fatal(err)
	}
	ram.OnWrite = c.NoteWrite
	c.InterruptPending = func() bool { return false }
	r := &rig{c: c}
	in := interp.New(c)
	r.e = in
	if translate {
		if r.jit, err = New(c, in); err != nil {
			t.Fatal(err)
		}
		r.e = r.jit
	}
	t.Cleanup(func() {
		if r.jit != nil {
			r.jit.Close()
		}
		c.Close()
		ram.Close()
	})
	return r
}

// prepare puts the processor before the first instruction of p.
func (r *rig) prepare(p *program) {
	c := r.c
	c.RAM.WriteAt(make([]byte, ramBytes-0x60000), 0)
	put := func(pa, v uint64) { c.RAM.WriteAt(binary.LittleEndian.AppendUint64(nil, v), pa) }
	put(0x1000, 0x2007)
	put(0x2000, 0x3007)
	put(0x3000, 0x4007)
	for _, m := range []struct{ va, pa, bits uint64 }{
		{codeAt, codeAt, 7}, {codeAt + 0x1000, codeAt + 0x1000, 7}, {trapAt, trapAt, 5}, {stackAt &^ 0xfff, stackAt &^ 0xfff, 7},
		{stackAt&^0xfff - 0x1000, stackAt&^0xfff - 0x1000, 7}, {dataAt, dataAt, 7}, {dataAt + 0x1000, dataAt + 0x1000, 7},
		{dataAt + 0x2000, dataAt + 0x2000, 5}, {aliasAt, codeAt, 7}, {deviceAt, 0xa0000, 7}, {0x4000, 0x4000, 7},
		{gdtAt, gdtAt, 7}, {idtAt, idtAt, 7},
	} {
		put(0x4000+m.va>>12*8, m.pa|m.bits)
	}
	for vec := range uint64(256) {
		put(idtAt+16*vec, trapAt&0xffff|8<<16|0x8e<<40|trapAt>>16<<48)
	}
	if p.flat { // as kernels have them
		put(gdtAt+8, flatDescriptor(flatCode))
		put(gdtAt+16, flatDescriptor(flatData))
		put(gdtAt+0x18, flatDescriptor(flatCode|x86.SegDPL))
		put(gdtAt+0x20, flatDescriptor(flatData|x86.SegDPL))
	} else {
		put(gdtAt+8, 0x00209b0000000000)
		put(gdtAt+16, 0x0000930000000000)
		put(gdtAt+0x18, 0x0020fb0000000000)
		put(gdtAt+0x20, 0x0000f30000000000)
	}
	put(tssAt+4, stackAt&^0xfff+0xff0)
	c.RAM.WriteAt([]byte{0xf4}, trapAt)
	c.RAM.WriteAt(p.code, codeAt)
	c.RAM.WriteAt(p.data, dataAt)

	step := c.Step
	c.Reset()
	c.Step = step
	c.CR0 = (x86.CR0PE | x86.CR0PG | x86.CR0WP | x86.CR0ET | x86.CR0NE) ^ p.cr0
	c.CR4 = x86.CR4PAE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4FSGSBASE ^ p.cr4
	c.EFER = x86.EFERLME | x86.EFERLMA | x86.EFERSCE
	c.CR3 = 0x1000
	c.GDTR, c.IDTR = x86.Table{Base: gdtAt, Limit: 0x2f}, x86.Table{Base: idtAt, Limit: 0xfff}
	c.Seg[x86.TR] = x86.Segment{Sel: 0x28, Base: tssAt, Limit: 103, Attr: x86.SegPresent | 11}
	code := x86.Segment{Sel: 8, Attr: x86.SegPresent | x86.SegS | x86.SegTypeCode | x86.SegTypeWritable | x86.SegTypeAccessed | x86.SegL}
	data := x86.Segment{Sel: 16, Attr: x86.SegPresent | x86.SegS | x86.SegTypeWritable | x86.SegTypeAccessed}
	if p.user {
		c.CPL = 3
		code.Sel, data.Sel = 0x1b, 0x23
		code.Attr |= x86.SegDPL
		data.Attr |= x86.SegDPL
	}
	c.Seg[x86.CS], c.Seg[x86.SS] = code, data
	c.Seg[x86.FS].Base, c.Seg[x86.GS].Base = dataAt+0x100, dataAt+0xff8
	copy(c.Regs[:16], p.regs[:])
	c.Regs[x86.RSP] = p.regs[x86.RSP]
	c.RFLAGS = p.flags
	copy(c.FX[:], p.fx[:])
	x86.CleanX87(&c.FX)
	c.IGNNE = p.ignne
	if p.xcr0 != 0 {
		c.XCR0 = p.xcr0
	}
	c.Regs[x86.RIP] = codeAt
	c.ModeChanged()
	c.FlushTLB()
	// The first page of code is known, so that the first visit can be translated.
	c.FetchPage(codeAt)
}

// run executes n instructions or until the program traps.
func (r *rig) run(n uint64) {
	for end := r.c.Step + n; r.c.Step < end && r.c.Activity == x86.Active; {
		r.c.Attention = false
		if r.c.PendingDebug != 0 {
			r.c.ServiceEvents(nil)
			continue
		}
		r.e.Run(end)
	}
	r.c.Materialise()
}

// program is a random one, with where it starts from.
type program struct {
	seed   uint64
	limit  uint64 // steps
	stride int    // steps at a time, at the most
	code   []byte
	data   []byte
	regs   [16]uint64
	flags  uint64
	fx     [512]byte
	cr0    uint64 // bits that are not as usual
	cr4    uint64 // likewise
	xcr0   uint64 // if it is not as after a reset
	ignne  bool
	user   bool
	flat   bool // the descriptors of segments
}

type gen struct {
	*rand.Rand
}

func (g gen) pick(v ...uint64) uint64 { return v[g.IntN(len(v))] }

// value is a number that is interesting as an operand or as an address.
func (g gen) value() uint64 {
	switch g.IntN(8) {
	case 0:
		return g.pick(0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1<<63-1, 1<<63, 1<<64-1)
	case 1:
		return g.Uint64()
	case 2:
		return uint64(g.IntN(64))
	case 3:
		return dataAt + g.pick(0xff0, 0xff8, 0xffc, 0xffe, 0xfff, 0x1ff8, 0x1ffd, 0x1fff, 0x2ff9)
	case 4:
		return g.pick(aliasAt+uint64(g.IntN(200)), deviceAt+uint64(g.IntN(64))*8)
	}
	return dataAt + uint64(g.IntN(0x2000))&^g.pick(0, 7, 15)
}

// forms are the rows of the opcode table that a program may have.
func testForms() (all []uint16) {
	for i, f := range x86.Forms() {
		if f.Attr&x86.No64 != 0 {
			continue
		}
		switch f.Op {
		case x86.OpPUSHF, x86.OpPOPF, x86.OpCLI, x86.OpSWAPGS, x86.OpRDTSC, x86.OpRDTSCP, x86.OpCPUID, x86.OpSTAC, x86.OpCLAC,
			x86.OpRDGSBASE, x86.OpRDFSBASE, x86.OpSYSCALL, x86.OpINT3:
		case x86.OpFXSAVE, x86.OpFXRSTOR, x86.OpXSAVE, x86.OpXRSTOR, x86.OpUD:
			continue
		default:
			if f.Op >= x86.OpHLT && f.Op < x86.OpVector {
				continue
			}
		}
		all = append(all, uint16(i))
	}
	return all
}

// encode makes one instruction of a form with random operands.
func (g gen) encode(form uint16) []byte {
	f := x86.Forms()[form]
	var b []byte
	var enc []byte
	modrm, fixed := -1, false
	rm := byte('e')
	for _, tok := range strings.Fields(f.Enc) {
		switch {
		case tok == "NP" || tok == "+r":
		case tok[0] == '/':
			what, mod, _ := strings.Cut(tok[1:], ":")
			modrm = g.IntN(256)
			if what != "r" {
				modrm = modrm&^0x38 | int(what[0]-'0')<<3
			}
			if mod != "" {
				rm = mod[0]
			}
		case tok[0] == '=':
			fmt.Sscanf(tok[1:], "%X", &modrm)
			fixed = true
		default:
			var v byte
			fmt.Sscanf(tok, "%X", &v)
			enc = append(enc, v)
		}
	}
	if strings.Contains(f.Enc, "+r") {
		enc[len(enc)-1] |= byte(g.IntN(8))
	}
	if f.Attr&x86.RepOK != 0 {
		if g.IntN(2) == 0 {
			b = append(b, byte(0xf2+g.IntN(2)))
		}
	}
	if g.IntN(6) == 0 {
		b = append(b, 0x66)
	}
	if g.IntN(12) == 0 {
		b = append(b, byte(0x64+g.IntN(2)))
	}
	if f.Attr&x86.LockOK != 0 && g.IntN(6) == 0 {
		b = append(b, 0xf0)
	}
	if g.IntN(40) == 0 {
		b = append(b, 0x67)
	}
	for len(enc) > 1 && (enc[0] == 0x66 || enc[0] == 0xf2 || enc[0] == 0xf3) {
		b = append(b, enc[0])
		enc = enc[1:]
	}
	if g.IntN(2) == 0 {
		b = append(b, 0x40|byte(g.IntN(16)))
	} else if g.IntN(2) == 0 {
		b = append(b, 0x48)
	}
	b = append(b, enc...)
	if modrm >= 0 {
		if !fixed {
			mod := modrm >> 6
			if rm == 'm' && mod == 3 {
				mod = g.IntN(3)
			}
			if rm == 'r' {
				mod = 3
			}
			modrm = modrm&0x3f | mod<<6
		}
		b = append(b, byte(modrm))
		if modrm>>6 != 3 {
			if modrm&7 == 4 {
				b = append(b, byte(g.IntN(256)))
			}
			// Displacements are small, or an absolute address in the data.
			switch {
			case modrm>>6 == 1:
				b = append(b, byte(g.IntN(32)-8))
			case modrm>>6 == 2:
				b = binary.LittleEndian.AppendUint32(b, uint32(g.IntN(0x100)-16))
			case modrm&7 == 5:
				b = binary.LittleEndian.AppendUint32(b, uint32(dataAt-codeAt-0x100+g.IntN(0x2100)))
			case modrm&7 == 4 && b[len(b)-1]&7 == 5:
				b = binary.LittleEndian.AppendUint32(b, uint32(dataAt+g.IntN(0x2000)))
			}
		}
	}
	return b
}

// instruction makes a random instruction, with its immediates. Branches go a little way.
func (g gen) instruction(forms []uint16) []byte {
	for {
		form := forms[g.IntN(len(forms))]
		b := g.encode(form)
		var in x86.Inst
		// Immediates: as many random bytes as make it decode.
		for n := 0; n <= 12; n++ {
			st := x86.Decode(b, 8, &in)
			if st == x86.DecodeOK {
				break
			}
			if st != x86.DecodeMore {
				n = 13
				break
			}
			b = append(b, byte(g.Uint32()))
			if g.IntN(3) == 0 {
				b[len(b)-1] = 0
			}
		}
		if x86.Decode(b, 8, &in) != x86.DecodeOK || int(in.Len) != len(b) {
			continue
		}
		if ops := x86.FormOperands(in.Form); len(ops) > 0 && ops[0].Kind == 'J' {
			d := uint32(g.IntN(24))
			if ops[0].Size == 'b' {
				b[len(b)-1] = byte(d)
			} else {
				binary.LittleEndian.PutUint32(b[len(b)-4:], d)
			}
		}
		return b
	}
}

// transfer makes a transfer of control at address at to what follows it.
func (g gen) transfer(at uint32, user bool) []byte {
	le := binary.LittleEndian
	switch g.IntN(5) {
	case 4:
		cs, ss := byte(0x1b), byte(0x23)
		if !user && g.IntN(3) != 0 {
			cs, ss = 8, byte(g.pick(0, 0x10))
		}
		if g.IntN(20) == 0 {
			ss ^= 1 << g.IntN(7)
		}
		return []byte{0x6a, ss, // push ss
			0x48, 0x8d, 0x44, 0x24, 8, 0x50, // lea rax, [rsp+8]; push rax
			0x9c, 0x6a, cs, // pushf; push cs
			0x48, 0x8d, 0x05, 3, 0, 0, 0, 0x50, // lea rax, [rip+3]; push rax
			0x48, 0xcf} // iretq
	case 0: // call
		return []byte{0xe8, 0, 0, 0, 0}
	case 1: // push imm32; ret
		return append(le.AppendUint32([]byte{0x68}, at+6), 0xc3)
	case 2: // mov eax, imm32; jmp rax
		return append(le.AppendUint32([]byte{0xb8}, at+7), 0xff, 0xe0)
	}
	// mov ecx, imm32; call rcx
	return append(le.AppendUint32([]byte{0xb9}, at+7), 0xff, 0xd1)
}

func generate(seed uint64, forms []uint16) *program {
	g := gen{rand.New(rand.NewPCG(seed, 17))}
	p := &program{seed: seed, user: g.IntN(3) == 0, flat: g.IntN(4) != 0}
	for i := range p.regs {
		p.regs[i] = g.value()
	}
	p.regs[x86.RSP] = g.pick(stackAt, stackAt, stackAt, stackAt&^0xfff+8, stackAt&^0xfff+4)
	p.flags = x86.Flag1 | g.Uint64()&x86.FlagsArith
	if g.IntN(20) == 0 {
		p.flags |= x86.FlagDF
	}
	if g.IntN(40) == 0 {
		p.flags |= x86.FlagTF
	}
	for i := range p.fx {
		p.fx[i] = byte(g.Uint32())
	}
	for i := range 16 { // half of the vectors are numbers
		if g.IntN(2) == 0 {
			binary.LittleEndian.PutUint64(p.fx[160+16*i:], uint64(g.IntN(1000))<<48)
		}
	}
	clear(p.fx[:32])
	p.fx[0], p.fx[1] = 0x7f, 3
	binary.LittleEndian.PutUint32(p.fx[24:], uint32(g.pick(0x1f80, 0x1f80, 0x1f80, 0x1f80, 0x1fa1, 0x9fc0, 0x7f80, 0x1d80)))
	p.data = make([]byte, dataBytes)
	for i := range p.data {
		p.data[i] = byte(g.Uint32())
	}
	for i := 0; i < len(p.data); i += 64 {
		binary.LittleEndian.PutUint64(p.data[i:], g.value())
	}
	n := 4 + g.IntN(40)
	if g.IntN(8) == 0 { // begin just before the end of a page
		for len(p.code) < 0x1000-30 {
			p.code = append(p.code, 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0)
		}
	}
	start := len(p.code)
	for range n {
		b := g.instruction(forms)
		var in x86.Inst
		x86.Decode(b, 8, &in)
		constant := func(r uint8, v uint64) {
			p.code = binary.LittleEndian.AppendUint64(append(p.code, 0x48|r>>3, 0xb8|r&7), v)
		}
		if in.IsMem && g.IntN(10) != 0 { // most addresses are good
			if in.Base < x86.RegZero && in.Base != x86.RSP {
				constant(in.Base, dataAt+uint64(16+g.IntN(0x1f00))&^g.pick(0, 0, 7, 15, 15))
			}
			if in.Index < x86.RegZero && in.Index != in.Base {
				constant(in.Index, uint64(g.IntN(32)-8))
			}
		} else if f := x86.Forms()[in.Form]; f.Attr&x86.RepOK != 0 && g.IntN(10) != 0 {
			constant(x86.RSI, g.value())
			constant(x86.RDI, dataAt+uint64(g.IntN(0x1f00)))
			constant(x86.RCX, uint64(max(0, g.IntN(48)-8)))
		}
		if g.IntN(6) == 0 {
			p.code = append(p.code, 0x48|byte(g.IntN(8)), byte(g.IntN(8)*8+1), 0xc0|byte(g.IntN(64))&^0x20) // flags that may be computed again
			p.code = append(p.code, g.transfer(uint32(codeAt+len(p.code)), p.user)...)
		}
		if g.IntN(8) == 0 {
			r := g.IntN(16)
			if r != x86.RSP {
				b = binary.LittleEndian.AppendUint64([]byte{0x48 | byte(r>>3), 0xb8 | byte(r&7)}, g.value())
			}
		}
		p.code = append(p.code, b...)
	}
	if g.IntN(2) == 0 && len(p.code)-start < 0x400 { // once more
		d := start - len(p.code) - 5
		p.code = binary.LittleEndian.AppendUint32(append(p.code, 0xe9), uint32(int32(d)))
	}
	for range 40 {
		p.code = append(p.code, 0xf4)
	}
	return p
}

func (p *program) list() string {
	var s strings.Builder
	for at := 0; at < len(p.code); {
		var in x86.Inst
		if x86.Decode(p.code[at:], 8, &in) != x86.DecodeOK {
			break
		}
		if in.Op != x86.OpHLT && in.Op != x86.OpNOP && p.code[at] != 0x90 {
			fmt.Fprintf(&s, "  %#x: % x\t%s\n", codeAt+at, p.code[at:at+int(in.Len)], x86.Forms()[in.Form].Syntax)
		}
		at += int(in.Len)
	}
	return s.String()
}

// differs says how two processors and their memories differ, or nothing.
func differs(a, b *rig) string {
	x, y := *a.c.State, *b.c.State
	x.FlagRes, x.FlagAux, y.FlagRes, y.FlagAux = 0, 0, 0, 0
	if x == y && bytes.Equal(a.c.RAM.Data(), b.c.RAM.Data()) {
		return ""
	}
	var s strings.Builder
	for _, r := range x86.Registers() {
		if p, q := r.Read(a.c), r.Read(b.c); !bytes.Equal(p, q) {
			fmt.Fprintf(&s, "  %s: %x, want %x\n", r.Name, q, p)
		}
	}
	if x.Step != y.Step {
		fmt.Fprintf(&s, "  step %d, want %d\n", y.Step, x.Step)
	}
	p, q := a.c.RAM.Data(), b.c.RAM.Data()
	for i := range p {
		if p[i] != q[i] {
			fmt.Fprintf(&s, "  memory %#x: %#x, want %#x\n", i, q[i], p[i])
			break
		}
	}
	if s.Len() == 0 {
		return fmt.Sprintf("  state: %+v, want %+v", y, x)
	}
	return s.String()
}

// TestRandomPrograms runs random programs on both engines.
func TestRandomPrograms(t *testing.T) {
	forms := testForms()
	lockstep(t, func(seed uint64) *program { return generate(seed, forms) }, 400, 5, 40, 400)
}

// lockstep runs random programs on both engines, limit steps of each at the most, in strides
// of up to one of the given numbers of steps. What fails is shrunk and kept, for TestKeptPrograms.
func lockstep(t *testing.T, make func(seed uint64) *program, limit uint64, strides ...int) *Stats {
	r := newPair(t)
	failed := 0
	for i := range *lockCases {
		p := make(*lockSeed + uint64(i))
		p.limit, p.stride = limit, strides[rand.New(rand.NewPCG(p.seed, 3)).IntN(len(strides))]
		if n, d := r.differ(p); d != "" {
			t.Errorf("seed %d (user %v): within %d steps\n%s%s", p.seed, p.user, n, d, r.explain(t, p))
			if failed++; failed == 3 {
				t.FailNow()
			}
		}
	}
	s := &r.jit.jit.Stats
	t.Logf("%d steps, %d blocks, %d instructions; %d exits to the interpreter", r.interp.c.Step, s.Blocks, s.Insts, s.Slow)
	return s
}

// pair is both engines.
type pair struct{ interp, jit *rig }

func newPair(t testing.TB) *pair { return &pair{newRig(t, false), newRig(t, true)} }

// differ runs a program on both engines, and returns after how many steps they were found to differ, and how.
func (r *pair) differ(p *program) (within uint64, difference string) {
	a, b := r.interp, r.jit
	a.prepare(p)
	b.prepare(p)
	stride := rand.New(rand.NewPCG(p.seed, 4))
	for n := uint64(0); n < p.limit && a.c.Activity == x86.Active; {
		k := 1 + uint64(stride.IntN(p.stride))
		a.run(k)
		b.run(k)
		n += k
		if d := differs(a, b); d != "" {
			b.c.Step = a.c.Step
			return n, d
		}
	}
	return 0, ""
}

// explain finds the least of a program that fails, keeps it, and says where it goes wrong.
func (r *pair) explain(t *testing.T, p *program) string {
	alone := newPair(t)
	if _, d := alone.differ(p); d == "" {
		return " but not when run alone\n"
	}
	p = alone.shrink(p)
	n, _ := alone.differ(p)
	return " shrunk and kept in " + p.keep(t) + "\n" + p.firstDifference(t, n) + p.list()
}

// firstDifference finds the first step after which the engines differ.
func (p *program) firstDifference(t *testing.T, within uint64) string {
	for n := uint64(1); n <= within; n++ {
		a, b := newRig(t, false), newRig(t, true)
		a.prepare(p)
		b.prepare(p)
		a.run(n - 1)
		rip := a.c.Regs[x86.RIP]
		a.run(1)
		b.run(n)
		if d := differs(a, b); d != "" {
			return fmt.Sprintf(" first at step %d, after the instruction at %#x:\n%s", n, rip, d)
		}
	}
	return " but not when run alone\n"
}
