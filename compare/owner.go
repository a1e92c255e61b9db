package compare

import (
	"encoding/binary"
	"fmt"

	"refault/vmm"
	"refault/vmm/ksym"
	"refault/vmm/linux"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Owners tells what memory of a guest belongs to, from the guest's own tables.
type Owners struct {
	syms *ksym.Table
	os   *linux.Kernel
	// modules names what is in modules; nil like os.
	modules *linux.Names
}

// NewOwners returns an Owners for a kernel with symbols and, or nil, with what is known of it as a Linux.
func NewOwners(syms *ksym.Table, os *linux.Kernel) *Owners {
	l := &Owners{syms: syms, os: os}
	if os != nil {
		l.modules = linux.NewNames(os)
	}
	return l
}

// Owner says what the physical address pa belongs to: a symbol of the kernel, a mapping
// of a process, a stack of the kernel, a file in the page cache; or "" where that cannot be told.
func (l *Owners) Owner(m *vmm.Machine, pa uint64) string {
	c := m.CPUs[0]
	if s := l.image(c, pa); s != "" {
		return s
	}
	if c.CPL == 0 {
		if stack, ok := c.Translate(c.Regs[x86.RSP]); ok && stack>>mem.PageShift == pa>>mem.PageShift {
			return l.withProcess(c, "the kernel's stack")
		}
	}
	if va, ok := mappedAt(c, c.CR3, pa); ok {
		return l.withProcess(c, fmt.Sprintf("mapped at %#x", va))
	}
	return l.elsewhere(c, pa)
}

// image names a symbol of the kernel's own image.
func (l *Owners) image(c *x86.CPU, pa uint64) string {
	first, ok := l.syms.Addr("_text")
	last, ok2 := l.syms.Addr("_end")
	base, ok3 := c.Translate(first)
	if !ok || !ok2 || !ok3 || pa < base || pa-base >= last-first {
		return ""
	}
	// What the kernel gave back of its image, gaps and initialisation, belongs to anybody.
	for _, gap := range [][2]string{{"_etext", "__start_rodata"}, {"__end_rodata", "_sdata"}, {"__init_begin", "__init_end"}} {
		from, ok := l.syms.Addr(gap[0])
		to, ok2 := l.syms.Addr(gap[1])
		if at := first + pa - base; ok && ok2 && at >= from && at < to {
			return ""
		}
	}
	return l.syms.Name(first + pa - base)
}

func (l *Owners) withProcess(c *x86.CPU, what string) string {
	if l.os == nil {
		return what
	}
	if p, ok := l.os.Current(c); ok {
		return fmt.Sprintf("%s of %s (process %d)", what, p.Name, p.PID)
	}
	return what
}

// elsewhere looks for a file in the page cache, and for a process that has pa mapped.
func (l *Owners) elsewhere(c *x86.CPU, pa uint64) string {
	if l.os == nil {
		return ""
	}
	if va, ok := l.modules.Holding(c, pa); ok {
		return l.modules.Name(c, va)
	}
	if name, at, ok := l.os.File(c, pa); ok {
		return fmt.Sprintf("the page cache of %s, byte %d", name, at)
	}
	for _, p := range l.os.Processes(c) {
		if p.CR3 == 0 {
			continue
		}
		if va, ok := mappedAt(c, p.CR3, pa); ok {
			return fmt.Sprintf("mapped at %#x of %s (process %d)", va, p.Name, p.PID)
		}
	}
	return ""
}

// mappedAt looks in the lower half of page tables, the process's own, for the page of a physical address.
func mappedAt(c *x86.CPU, cr3, pa uint64) (va uint64, ok bool) {
	if c.EFER&x86.EFERLMA == 0 {
		return 0, false
	}
	const present, large, frame = 1, 1 << 7, (1<<40 - 1) &^ 0xfff
	tables := 1 << 16 // at most: what the fault made of them may be endless
	var walk func(table, va uint64, level uint) (uint64, bool)
	walk = func(table, va uint64, level uint) (uint64, bool) {
		var t [mem.PageSize]byte
		if tables--; tables < 0 || !c.RAM.ReadAt(t[:], table&frame) {
			return 0, false
		}
		shift := uint(mem.PageShift) + 9*(level-1)
		n := 512
		if level == 4 {
			n = 256
		}
		for i := range n {
			e := binary.LittleEndian.Uint64(t[8*i:])
			at := va + uint64(i)<<shift
			switch {
			case e&present == 0:
			case level == 1 || level < 4 && e&large != 0:
				if first := e & frame &^ (1<<shift - 1); pa >= first && pa-first < 1<<shift {
					return at + pa - first, true
				}
			default:
				if v, ok := walk(e, at, level-1); ok {
					return v, true
				}
			}
		}
		return 0, false
	}
	return walk(cr3, 0, 4)
}
