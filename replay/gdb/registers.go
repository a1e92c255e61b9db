package gdb

import (
	"encoding/binary"
	"fmt"
	"strings"

	"refault/vmm/x86"
)

// register is one register as GDB numbers them: in the order of target.xml.
type register struct {
	name    string
	size    int // bytes
	typ     string
	feature string
	get     func(c *x86.CPU, b []byte)
}

const (
	featureCore     = "org.gnu.gdb.i386.core"
	featureSSE      = "org.gnu.gdb.i386.sse"
	featureSegments = "org.gnu.gdb.i386.segments"
	featureSystem   = "org.refault.system"
)

var registers = gdbRegisters()

func gdbRegisters() []register {
	var rs []register
	named := func(feature, gdbName, ours, typ string, size int) {
		r, ok := x86.LookupRegister(ours)
		if !ok {
			panic("BUG: no register " + ours)
		}
		rs = append(rs, register{gdbName, size, typ, feature, func(c *x86.CPU, b []byte) { copy(b, r.Read(c)) }})
	}
	same := func(feature, typ string, size int, names ...string) {
		for _, n := range names {
			named(feature, n, n, typ, size)
		}
	}
	same(featureCore, "int64", 8, "rax", "rbx", "rcx", "rdx", "rsi", "rdi")
	same(featureCore, "data_ptr", 8, "rbp", "rsp")
	same(featureCore, "int64", 8, "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
	same(featureCore, "code_ptr", 8, "rip")
	named(featureCore, "eflags", "rflags", "i386_eflags", 4)
	same(featureCore, "int32", 4, "cs", "ss", "ds", "es", "fs", "gs")
	for i := range 8 {
		named(featureCore, fmt.Sprintf("st%d", i), fmt.Sprintf("st%d", i), "i387_ext", 10)
	}
	named(featureCore, "fctrl", "fcw", "int", 4)
	named(featureCore, "fstat", "fsw", "int", 4)
	rs = append(rs, register{"ftag", 4, "int", featureCore, fullTag})
	half := func(name, ours string, at int) {
		r, _ := x86.LookupRegister(ours)
		rs = append(rs, register{name, 4, "int", featureCore, func(c *x86.CPU, b []byte) { copy(b, r.Read(c)[at:at+4]) }})
	}
	half("fiseg", "fip", 4)
	half("fioff", "fip", 0)
	half("foseg", "fdp", 4)
	half("fooff", "fdp", 0)
	named(featureCore, "fop", "fop", "int", 4)
	for i := range 16 {
		named(featureSSE, fmt.Sprintf("xmm%d", i), fmt.Sprintf("xmm%d", i), "vec128", 16)
	}
	same(featureSSE, "int", 4, "mxcsr")
	named(featureSegments, "fs_base", "fs.base", "int64", 8)
	named(featureSegments, "gs_base", "gs.base", "int64", 8)
	named(featureSystem, "k_gs_base", "kernel_gs_base", "int64", 8)
	same(featureSystem, "int64", 8, "cr0", "cr2", "cr3", "cr4", "efer")
	rs = append(rs, register{"step", 8, "uint64", featureSystem, func(c *x86.CPU, b []byte) { binary.LittleEndian.PutUint64(b, c.Step) }})
	return rs
}

// fullTag makes the x87 tag word, two bits a register, of the abridged one of FXSAVE
// (SDM Vol. 1 8.1.7 and 10.5.1.1).
func fullTag(c *x86.CPU, b []byte) {
	top := int(c.FX[3] >> 3 & 7)
	var tag uint32
	for i := range 8 { // physical register
		kind := uint32(3) // empty
		if c.FX[4]>>i&1 != 0 {
			st := c.FX[32+16*((i-top)&7):]
			mantissa := binary.LittleEndian.Uint64(st)
			exp := binary.LittleEndian.Uint16(st[8:]) & 0x7fff
			switch {
			case exp == 0 && mantissa == 0:
				kind = 1 // zero
			case exp == 0 || exp == 0x7fff || mantissa>>63 == 0:
				kind = 2 // special
			default:
				kind = 0
			}
		}
		tag |= kind << (2 * i)
	}
	binary.LittleEndian.PutUint32(b, tag)
}

// targetXML describes the registers (GDB manual, appendix G).
func targetXML() string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>i386:x86-64</architecture>`)
	feature := ""
	for i, r := range registers {
		if r.feature != feature {
			if feature != "" {
				b.WriteString("</feature>")
			}
			feature = r.feature
			fmt.Fprintf(&b, `<feature name="%s">`, feature)
			switch feature {
			case featureCore:
				b.WriteString(eflagsType())
			case featureSSE:
				b.WriteString(`<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>` +
					`<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>` +
					`<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>` +
					`<field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>`)
			}
		}
		fmt.Fprintf(&b, `<reg name="%s" bitsize="%d" type="%s" regnum="%d"/>`, r.name, 8*r.size, r.typ, i)
	}
	b.WriteString("</feature></target>")
	return b.String()
}

func eflagsType() string {
	var b strings.Builder
	b.WriteString(`<flags id="i386_eflags" size="4">`)
	for _, f := range []struct {
		name string
		bit  int
	}{{"CF", 0}, {"", 1}, {"PF", 2}, {"AF", 4}, {"ZF", 6}, {"SF", 7}, {"TF", 8}, {"IF", 9}, {"DF", 10}, {"OF", 11}, {"NT", 14}, {"RF", 16}, {"VM", 17}, {"AC", 18}, {"VIF", 19}, {"VIP", 20}, {"ID", 21}} {
		fmt.Fprintf(&b, `<field name="%s" start="%d" end="%d"/>`, f.name, f.bit, f.bit)
	}
	b.WriteString("</flags>")
	return b.String()
}
