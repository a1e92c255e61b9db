//go:build linux && amd64

package oracle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"refault/vmm/x86"
)

// difference is one thing that the two left differently.
type difference struct {
	what              string
	before, want, got string
}

// result is how a case ended.
type result int

const (
	equal result = iota
	equalFault
	different
	skipped // it cannot be run on the processor
)

// bench runs cases on both.
type bench struct {
	p   *processor
	g   *guest
	amd bool
	// noBase: RDGSBASE is not enabled.
	noBase bool
	// only has the attributes of the forms that are compared; zero: all are.
	only x86.Attr
}

// newBench returns a bench for the interpreter, or for the translator.
func newBench(translate bool) (*bench, error) {
	g, err := newGuest(translate)
	if err != nil {
		return nil, err
	}
	p, err := newProcessor()
	if err != nil {
		g.close()
		return nil, err
	}
	return &bench{p: p, g: g, amd: amd()}, nil
}

func (b *bench) close() error {
	err := b.p.close()
	if e := b.g.close(); err == nil {
		err = e
	}
	return err
}

// run runs a case on both and compares. Why says why it was skipped.
func (b *bench) run(c *testCase) (r result, diffs []difference, why string) {
	for _, m := range c.mem {
		copy(b.g.at(m.addr, len(m.data)), m.data)
		copy(b.p.at(m.addr, len(m.data)), m.data)
	}
	code := append(append([]byte(nil), c.before...), c.code...)
	code = append(code, b.p.pad(0, c.pads[0], c.mode)...)
	b.g.setCode(c.state.RIP, code)
	if b.g.jit != nil && c.mode == 8 {
		b.g.setCode(c.pads[0], []byte{noInstruction})
	}
	copy(b.p.at(c.state.RIP, len(code)), code)
	for i, at := range c.pads[1:] {
		pad := b.p.pad(i+1, at, c.mode)
		b.g.setCode(at, pad)
		copy(b.p.at(at, len(pad)), pad)
	}

	got := b.g.run(c)
	if to := got.RIP; !got.Fault.Raised && to-dataAddr < contextAddr-dataAddr { // memory that is not executable, or none
		got = b.g.fetch()
	}
	why = unsafeOn(c, &got)
	if why == "" {
		why = vendorDiffers(c, b.amd)
	}
	if why != "" {
		b.resync()
		return skipped, nil, why
	}
	want := b.p.run(&c.state, c.mode)
	diffs = compareStates(c, &want, &got)
	normalise(c, b.p.at)
	normalise(c, b.g.at)
	for _, m := range mappings {
		if !m.write {
			continue
		}
		w, g := b.p.at(m.addr, int(m.size)), b.g.at(m.addr, int(m.size))
		if !bytes.Equal(w, g) {
			if !want.Fault.Raised || !partial(c.in.Op) {
				diffs = append(diffs, compareMemory(c, m.addr, w, g)...)
			}
			copy(g, w)
		}
	}
	switch {
	case len(diffs) > 0:
		return different, diffs, ""
	case want.Fault.Raised:
		return equalFault, nil, ""
	}
	return equal, nil, ""
}

// resync makes the processor's memory that of the interpreter.
func (b *bench) resync() {
	for _, m := range mappings {
		if m.write {
			copy(b.p.at(m.addr, int(m.size)), b.g.at(m.addr, int(m.size)))
		}
	}
}

// unsafeOn says why the processor must not run a case, after the interpreter has: it would reach memory of this
// program. An address that nothing can be mapped at is no reason.
func unsafeOn(c *testCase, got *state) string {
	if got.Fault.Raised && got.Fault.Vec == x86.VecPF {
		a := got.Fault.CR2
		if a < 0x10000 || a >= base && a < contextAddr || a >= contextAddr+pageSize && a < base+reserved || a>>47 != 0 {
			return ""
		}
		return "reaches memory of the test"
	}
	if !got.Fault.Raised && !slices.Contains(c.pads[:], got.RIP) {
		return "branches to where no landing pad is"
	}
	if got.RFLAGS&(x86.FlagTF|x86.FlagNT|x86.FlagAC) != 0 {
		return "sets flags that this program cannot run with"
	}
	if undefinedResult(c) {
		return "undefined result"
	}
	return ""
}

func compareStates(c *testCase, want, got *state) (diffs []difference) {
	diff := func(what string, format string, before, want, got any) {
		diffs = append(diffs, difference{what, fmt.Sprintf(format, before), fmt.Sprintf(format, want), fmt.Sprintf(format, got)})
	}
	in := &c.state
	wf, gf := want.Fault, got.Fault
	if wf.Raised && gf.Raised && wf.Vec == gf.Vec {
		if wf.Vec == x86.VecPF && wf.CR2>>47 != 0 {
			wf.Err |= 1 // Linux says so of every address that is not the user's
			gf.Err |= 1
		}
		if n := uint64(c.operandSize()); n > 16 && wf.CR2-c.target < n && gf.CR2-c.target < n {
			wf.CR2, wf.Err = gf.CR2, gf.Err // where an operand of many parts is touched first is the processor's business
		}
	}
	if partial(c.in.Op) && wf.Raised && gf.Raised && (wf.Vec == x86.VecPF || gf.Vec == x86.VecPF) {
		return nil
	}
	if wf != gf {
		diff("exception", "%v", "", wf, gf)
	}
	if want.Fault.Raised && partial(c.in.Op) {
		return diffs
	}
	for i := range want.Regs {
		w, g := want.Regs[i], got.Regs[i]
		if c.in.Op == x86.OpLAR && i == int(c.in.Reg) {
			w, g = w&^0xf0000, g&^0xf0000 // undefined
		}
		if c.mode != 8 && i < 8 {
			w, g = w&0xffffffff, g&0xffffffff // the rest is undefined in 32-bit code
		}
		if w != g {
			diff(x86.GeneralNames[i], "%016x", in.Regs[i], w, g)
		}
	}
	if want.RIP != got.RIP {
		diff("rip", "%x", in.RIP, want.RIP, got.RIP)
	}
	const flags = userFlags | x86.FlagID | x86.FlagNT | x86.FlagAC
	var undefined, ours uint64
	if !want.Fault.Raised {
		undefined, ours = undefinedFlags(c)
	}
	if c.logical {
		undefined |= x86.FlagAF // of the instruction before
		ours = anything
	}
	if compareUnordered(c, want) {
		undefined, ours = x86.FlagsArith, anything
	}
	if w, g := want.RFLAGS&flags&^undefined, got.RFLAGS&flags&^undefined; w != g {
		diff("rflags", "%s", flagNames(in.RFLAGS&flags), flagNames(w), flagNames(g))
	}
	if ours != anything && got.RFLAGS&undefined != ours&undefined {
		diff("rflags that are undefined, by our definition", "%s", flagNames(in.RFLAGS&flags), flagNames(ours&undefined), flagNames(got.RFLAGS&undefined))
	}
	if want.FX != got.FX && !faultDiffers(c, want, got) {
		le := binary.LittleEndian
		for _, f := range []struct {
			name     string
			at, size int
		}{{"fcw", 0, 2}, {"fsw", 2, 2}, {"ftw", 4, 1}, {"mxcsr", 24, 4}} {
			if w, g := want.FX[f.at:][:f.size], got.FX[f.at:][:f.size]; !bytes.Equal(w, g) {
				if f.name == "mxcsr" && inexactDiffers(c, want, got) || f.name == "fsw" && (codesDiffer(c, want, got) || roundingDiffers(c, want, got)) {
					continue
				}
				var b [3][4]byte
				copy(b[0][:], in.FX[f.at:][:f.size])
				copy(b[1][:], w)
				copy(b[2][:], g)
				diff(f.name, "%04x", le.Uint32(b[0][:]), le.Uint32(b[1][:]), le.Uint32(b[2][:]))
			}
		}
		for i := range 8 {
			if w, g := want.FX[32+16*i:][:10], got.FX[32+16*i:][:10]; !bytes.Equal(w, g) {
				if c.in.Op == x86.OpX87Soft && i < 2 && c.transcends(w, g) {
					continue
				}
				diff(fmt.Sprintf("st%d", i), "%s", bigEndian(in.FX[32+16*i:][:10]), bigEndian(w), bigEndian(g))
			}
		}
		for i := range 16 {
			if w, g := want.FX[160+16*i:][:16], got.FX[160+16*i:][:16]; !bytes.Equal(w, g) {
				if c.in.Op == x86.OpVectorApprox && approximates(w, g) {
					continue
				}
				diff(fmt.Sprintf("xmm%d", i), "%s", bigEndian(in.FX[160+16*i:][:16]), bigEndian(w), bigEndian(g))
			}
		}
	}
	return diffs
}

func compareMemory(c *testCase, addr uint64, want, got []byte) (diffs []difference) {
	for i := 0; i < len(want); i += 8 {
		w, g := want[i:i+8], got[i:i+8]
		if !bytes.Equal(w, g) {
			at := addr + uint64(i)
			diffs = append(diffs, difference{fmt.Sprintf("memory %#x", at), bigEndian(c.memory(at, 8)), bigEndian(w), bigEndian(g)})
		}
	}
	return diffs
}

// memory is what a case put into memory at addr, as far as it did.
func (c *testCase) memory(addr uint64, n int) []byte {
	b := make([]byte, n)
	for _, m := range c.mem {
		for i := range b {
			if at := addr + uint64(i) - m.addr; at < uint64(len(m.data)) {
				b[i] = m.data[at]
			}
		}
	}
	return b
}

func bigEndian(b []byte) string {
	var s strings.Builder
	for i := len(b) - 1; i >= 0; i-- {
		fmt.Fprintf(&s, "%02x", b[i])
	}
	return s.String()
}

func flagNames(f uint64) string {
	var names []string
	for _, x := range []struct {
		bit  uint64
		name string
	}{{x86.FlagCF, "CF"}, {x86.FlagPF, "PF"}, {x86.FlagAF, "AF"}, {x86.FlagZF, "ZF"}, {x86.FlagSF, "SF"}, {x86.FlagTF, "TF"}, {x86.FlagIF, "IF"},
		{x86.FlagDF, "DF"}, {x86.FlagOF, "OF"}, {x86.FlagNT, "NT"}, {x86.FlagAC, "AC"}, {x86.FlagID, "ID"}} {
		if f&x.bit != 0 {
			names = append(names, x.name)
		}
	}
	return "[" + strings.Join(names, " ") + "]"
}

func (f fault) String() string {
	if !f.Raised {
		return "none"
	}
	names := map[uint8]string{x86.VecDE: "#DE", x86.VecDB: "#DB", x86.VecBP: "#BP", x86.VecOF: "#OF", x86.VecBR: "#BR", x86.VecUD: "#UD", x86.VecNM: "#NM",
		x86.VecSS: "#SS", x86.VecGP: "#GP", x86.VecPF: "#PF", x86.VecMF: "#MF", x86.VecAC: "#AC", x86.VecXM: "#XM", x86.VecNP: "#NP"}
	n, ok := names[f.Vec]
	if !ok {
		n = fmt.Sprintf("vector %d", f.Vec)
	}
	s := fmt.Sprintf("%s(%#x)", n, f.Err)
	if f.Vec == x86.VecPF {
		s += fmt.Sprintf(" at %#x", f.CR2)
	}
	return s
}

// report describes a case that differs.
func (c *testCase) report(diffs []difference) string {
	var b strings.Builder
	f := x86.Forms()[c.form]
	show := func(code []byte, at uint64) string {
		text, _ := x86.Disassemble(code, c.mode, at, nil)
		return fmt.Sprintf("% x  %s", code, text)
	}
	fmt.Fprintf(&b, "%s (%s), %d-bit code: %s\n", f.Syntax, f.Enc, 8*c.mode, show(c.code, c.at))
	if c.before != nil {
		fmt.Fprintf(&b, "  after: %s\n", show(c.before, c.state.RIP))
	}
	fmt.Fprintf(&b, "  again: -oracle.run='^%s$' -oracle.case=%d\n", formName(c.form), c.seed)
	fmt.Fprintf(&b, "  operand size %d, address size %d", c.in.OpSize, c.in.AddrSize)
	if c.in.IsMem {
		fmt.Fprintf(&b, ", memory operand at %#x: %s", c.target, bigEndian(c.memory(c.target, 16)))
	}
	fmt.Fprintf(&b, "\n ")
	for i, v := range c.state.Regs {
		if c.reads(uint8(i)) {
			fmt.Fprintf(&b, " %s=%x", x86.GeneralNames[i], v)
		}
	}
	fmt.Fprintf(&b, " flags=%s", flagNames(c.state.RFLAGS&userFlags))
	if f.Attr&(x86.IsSSE|x86.IsMMX|x86.IsFPU) != 0 {
		le := binary.LittleEndian
		fmt.Fprintf(&b, " mxcsr=%04x fcw=%04x fsw=%04x ftw=%02x", le.Uint32(c.state.FX[24:]), le.Uint16(c.state.FX[:]), le.Uint16(c.state.FX[2:]), c.state.FX[4])
		if f.Attr&x86.IsSSE != 0 {
			fmt.Fprintf(&b, "\n  reg=%s rm=%s", bigEndian(c.state.FX[160+16*int(c.in.Reg&15):][:16]), bigEndian(c.state.FX[160+16*int(c.in.RM&15):][:16]))
		}
		if f.Attr&x86.IsFPU != 0 {
			fmt.Fprintf(&b, "\n  st0=%s st(%d)=%s", bigEndian(c.state.FX[32:42]), c.in.RM&7, bigEndian(c.state.FX[32+16*int(c.in.RM&7):][:10]))
		}
	}
	b.WriteByte('\n')
	for _, d := range diffs {
		fmt.Fprintf(&b, "  %s: before %s, processor %s, ours %s\n", d.what, d.before, d.want, d.got)
	}
	return b.String()
}

// reads reports whether a register is likely to matter to a case.
func (c *testCase) reads(r uint8) bool {
	in := &c.in
	if in.IsMem && (in.Base == r || in.Index == r) || !in.IsMem && in.RM&15 == r || in.Reg&15 == r {
		return true
	}
	switch r {
	case x86.RAX, x86.RCX, x86.RDX:
		return true
	case x86.RSP, x86.RBP:
		return usesStack(in.Op)
	case x86.RSI, x86.RDI:
		return x86.Forms()[c.form].Attr&x86.RepOK != 0
	}
	return false
}

// formName names a form for -oracle.run: its encoding and syntax, without spaces.
func formName(form uint16) string {
	f := x86.Forms()[form]
	return strings.NewReplacer(" ", "_", "/", "", ":", "", "+", "", "=", "").Replace(f.Enc + "_" + f.Syntax)
}

// fault executes code of a mode on the processor, with all registers pointing to data, and returns the exception that it raised.
func (b *bench) fault(mode int, code []byte) fault {
	c := &testCase{mode: mode, at: codeAddr + 0x400}
	end := c.at + uint64(len(code))
	st := &c.state
	st.RIP, st.RFLAGS = c.at, x86.Flag1|x86.FlagIF
	for i := range st.Regs {
		st.Regs[i] = dataAddr + 0x1000
	}
	st.FX[0], st.FX[1] = 0x7f, 3
	st.FX[24], st.FX[25] = 0x80, 0x1f
	code = append(append([]byte(nil), code...), b.p.pad(0, end, mode)...)
	copy(b.p.at(c.at, len(code)), code)
	return b.p.run(st, mode).Fault
}
