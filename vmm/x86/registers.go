package x86

import (
	"encoding/binary"
	"fmt"
)

// Register is one named architectural register of a processor, for people and
// for tools that look from outside: dumps, comparison, debuggers, injectors.
type Register struct {
	Name string // as the SDM spells it, in lower case
	Size int    // bytes
	// Group is what kind of register it is.
	Group RegisterGroup
	// Aliases are read under another name already: AX of RAX. Registers does not list them.
	get func(c *CPU, b []byte)
	set func(c *CPU, b []byte)
}

// RegisterGroup groups registers for display and for fault models.
type RegisterGroup uint8

const (
	GroupGeneral RegisterGroup = iota
	GroupFlags
	GroupSegment
	GroupControl
	GroupDebug
	GroupMSR
	GroupX87
	GroupSSE
)

// GeneralNames are the names of the general registers and RIP, by their index in State.Regs.
var GeneralNames = [NumRegs]string{
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", RIP: "rip",
}

// SegmentNames are the names of the segment registers, by their index in State.Seg.
var SegmentNames = [NumSegs]string{"es", "cs", "ss", "ds", "fs", "gs", LDTR: "ldtr", TR: "tr"}

var registers = buildRegisters()

var registerByName = func() map[string]*Register {
	m := make(map[string]*Register, len(registers))
	for i := range registers {
		m[registers[i].Name] = &registers[i]
	}
	return m
}()

// Registers lists every register of a processor in a fixed order.
func Registers() []Register { return registers }

// LookupRegister finds a register by name.
func LookupRegister(name string) (*Register, bool) {
	r, ok := registerByName[name]
	return r, ok
}

// Read returns the register's value, little-endian.
func (r *Register) Read(c *CPU) []byte {
	b := make([]byte, r.Size)
	r.get(c, b)
	return b
}

// Write sets the register, as faulty hardware would: without the checks of the
// instruction that writes it. Derived state (translations, mode) follows.
func (r *Register) Write(c *CPU, b []byte) {
	r.set(c, b)
	switch r.Group {
	case GroupFlags, GroupSegment, GroupControl, GroupMSR:
		c.ModeChanged()
		c.FlushTLB()
	case GroupX87, GroupSSE:
		c.cleanFX()
	}
	c.Attention = true
}

func buildRegisters() []Register {
	var rs []Register
	word := func(g RegisterGroup, name string, size int, p func(c *CPU) *uint64) {
		rs = append(rs, Register{Name: name, Size: size, Group: g,
			get: func(c *CPU, b []byte) {
				var w [8]byte
				binary.LittleEndian.PutUint64(w[:], *p(c))
				copy(b, w[:])
			},
			set: func(c *CPU, b []byte) {
				var w [8]byte
				binary.LittleEndian.PutUint64(w[:], *p(c))
				copy(w[:], b)
				*p(c) = binary.LittleEndian.Uint64(w[:])
			}})
	}
	raw := func(g RegisterGroup, name string, size int, at func(c *CPU) int) {
		rs = append(rs, Register{Name: name, Size: size, Group: g,
			get: func(c *CPU, b []byte) { copy(b, c.FX[at(c):]) },
			set: func(c *CPU, b []byte) { copy(c.FX[at(c):at(c)+size], b) }})
	}
	for i, n := range GeneralNames {
		if n != "" {
			word(GroupGeneral, n, 8, func(c *CPU) *uint64 { return &c.Regs[i] })
		}
	}
	word(GroupFlags, "rflags", 8, func(c *CPU) *uint64 { c.Materialise(); return &c.RFLAGS })
	for i, n := range SegmentNames {
		if n == "" {
			continue
		}
		rs = append(rs,
			Register{Name: n, Size: 2, Group: GroupSegment,
				get: func(c *CPU, b []byte) { binary.LittleEndian.PutUint16(b, c.Seg[i].Sel) },
				set: func(c *CPU, b []byte) { c.Seg[i].Sel = binary.LittleEndian.Uint16(b) }})
		word(GroupSegment, n+".base", 8, func(c *CPU) *uint64 { return &c.Seg[i].Base })
		rs = append(rs,
			Register{Name: n + ".limit", Size: 4, Group: GroupSegment,
				get: func(c *CPU, b []byte) { binary.LittleEndian.PutUint32(b, c.Seg[i].Limit) },
				set: func(c *CPU, b []byte) { c.Seg[i].Limit = binary.LittleEndian.Uint32(b) }},
			Register{Name: n + ".attr", Size: 2, Group: GroupSegment,
				get: func(c *CPU, b []byte) { binary.LittleEndian.PutUint16(b, c.Seg[i].Attr) },
				set: func(c *CPU, b []byte) { c.Seg[i].Attr = binary.LittleEndian.Uint16(b) }})
	}
	for _, t := range []struct {
		name string
		p    func(c *CPU) *Table
	}{
		{"gdtr", func(c *CPU) *Table { return &c.GDTR }},
		{"idtr", func(c *CPU) *Table { return &c.IDTR }},
	} {
		word(GroupSegment, t.name+".base", 8, func(c *CPU) *uint64 { return &t.p(c).Base })
		rs = append(rs, Register{Name: t.name + ".limit", Size: 2, Group: GroupSegment,
			get: func(c *CPU, b []byte) { binary.LittleEndian.PutUint16(b, t.p(c).Limit) },
			set: func(c *CPU, b []byte) { t.p(c).Limit = binary.LittleEndian.Uint16(b) }})
	}
	word(GroupControl, "cr0", 8, func(c *CPU) *uint64 { return &c.CR0 })
	word(GroupControl, "cr2", 8, func(c *CPU) *uint64 { return &c.CR2 })
	word(GroupControl, "cr3", 8, func(c *CPU) *uint64 { return &c.CR3 })
	word(GroupControl, "cr4", 8, func(c *CPU) *uint64 { return &c.CR4 })
	word(GroupControl, "xcr0", 8, func(c *CPU) *uint64 { return &c.XCR0 })
	for _, i := range []int{0, 1, 2, 3, 6, 7} {
		word(GroupDebug, fmt.Sprintf("dr%d", i), 8, func(c *CPU) *uint64 { return &c.DR[i] })
	}
	for _, r := range []struct {
		name string
		p    func(c *CPU) *uint64
	}{
		{"efer", func(c *CPU) *uint64 { return &c.EFER }},
		{"star", func(c *CPU) *uint64 { return &c.STAR }},
		{"lstar", func(c *CPU) *uint64 { return &c.LSTAR }},
		{"cstar", func(c *CPU) *uint64 { return &c.CSTAR }},
		{"sfmask", func(c *CPU) *uint64 { return &c.SFMASK }},
		{"kernel_gs_base", func(c *CPU) *uint64 { return &c.KernelGSBase }},
		{"sysenter_cs", func(c *CPU) *uint64 { return &c.SysenterCS }},
		{"sysenter_esp", func(c *CPU) *uint64 { return &c.SysenterESP }},
		{"sysenter_eip", func(c *CPU) *uint64 { return &c.SysenterEIP }},
		{"tsc_aux", func(c *CPU) *uint64 { return &c.TSCAux }},
		{"tsc_adjust", func(c *CPU) *uint64 { return &c.TSCAdjust }},
		{"pat", func(c *CPU) *uint64 { return &c.PAT }},
		{"misc_enable", func(c *CPU) *uint64 { return &c.MiscEnable }},
		{"mtrr_def_type", func(c *CPU) *uint64 { return &c.MTRRDefType }},
		{"spec_ctrl", func(c *CPU) *uint64 { return &c.SpecCtrl }},
		{"debugctl", func(c *CPU) *uint64 { return &c.DebugCtl }},
	} {
		word(GroupMSR, r.name, 8, r.p)
	}
	// The FXSAVE64 image (SDM Vol. 1 10.5.1.1). st0 to st7 are by stack position there.
	for _, f := range []struct {
		name     string
		at, size int
	}{{"fcw", 0, 2}, {"fsw", 2, 2}, {"ftw", 4, 1}, {"fop", 6, 2}, {"fip", 8, 8}, {"fdp", 16, 8}} {
		raw(GroupX87, f.name, f.size, func(*CPU) int { return f.at })
	}
	for i := range 8 {
		raw(GroupX87, fmt.Sprintf("st%d", i), 10, func(*CPU) int { return 32 + 16*i })
	}
	raw(GroupSSE, "mxcsr", 4, func(*CPU) int { return 24 })
	for i := range 16 {
		raw(GroupSSE, fmt.Sprintf("xmm%d", i), 16, func(*CPU) int { return 160 + 16*i })
	}
	return rs
}
