package compare

import (
	"encoding/binary"
	"fmt"
	"strings"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/ksym"
	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Linux finds out from a Linux guest's own tables what memory belongs to. Of another guest it knows the stack at most.
type Linux struct {
	syms *ksym.Table
	btf  *ksym.BTF
}

// NewLinux returns a Linux for a kernel with symbols and, or nil, descriptions of its structures.
func NewLinux(syms *ksym.Table, btf *ksym.BTF) *Linux { return &Linux{syms, btf} }

// Owner says what the physical address pa belongs to: a symbol of the kernel, a mapping
// of a process, a stack of the kernel, a file in the page cache; or "" where that cannot be told.
func (l *Linux) Owner(m *vmm.Machine, pa uint64) string {
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
	if s := l.fileCache(c, pa); s != "" {
		return s
	}
	return l.anyProcess(c, pa)
}

// image names a symbol of the kernel's own image.
func (l *Linux) image(c *x86.CPU, pa uint64) string {
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

// fileCache names the file that a page of the page cache holds a part of.
func (l *Linux) fileCache(c *x86.CPU, pa uint64) string {
	vmemmap, ok := l.syms.Addr("vmemmap_base")
	if !ok {
		return ""
	}
	offset := func(structure, member string) (off uint64) {
		var found bool
		off, found = l.btf.Offset(structure, member)
		ok = ok && found
		return off
	}
	mapping, index, host := offset("page", "mapping"), offset("page", "index"), offset("address_space", "host")
	dentries, alias, name := offset("inode", "i_dentry"), offset("dentry", "d_u"), offset("dentry", "d_name")
	follow := func(va uint64) (v uint64) {
		if ok {
			v, ok = read64(c, va)
			ok = ok && v != 0
		}
		return v
	}
	const pageStructBytes = 64
	page := follow(vmemmap) + pa>>mem.PageShift*pageStructBytes
	space := follow(page + mapping)
	if space&3 != 0 { // anonymous memory, or none of anybody
		return ""
	}
	dentry := follow(follow(space+host)+dentries) - alias
	text := follow(dentry + name + 8) // struct qstr: hash and length, then the name
	var b [64]byte
	if !ok || replay.ReadVirtual(c, b[:], text) == 0 {
		return ""
	}
	at, _ := read64(c, page+index)
	file, _, _ := strings.Cut(string(b[:]), "\x00")
	return fmt.Sprintf("the page cache of %s, byte %d", strings.ToValidUTF8(file, "?"), at<<mem.PageShift+pa%mem.PageSize)
}

// read64 reads the guest's memory at a virtual address of the kernel.
func read64(c *x86.CPU, va uint64) (uint64, bool) {
	var b [8]byte
	ok := replay.ReadVirtual(c, b[:], va) == 8
	return binary.LittleEndian.Uint64(b[:]), ok
}

// current returns the address of the process's task_struct that the processor executes.
func (l *Linux) current(c *x86.CPU) (task uint64, ok bool) {
	at, ok := l.syms.Addr("current_task")
	if !ok {
		at, ok = l.syms.Addr("pcpu_hot") // from Linux 6.2 on its first member
	}
	gs := c.Seg[x86.GS].Base
	if gs>>63 == 0 { // the process's own
		gs = c.KernelGSBase
	}
	if !ok || gs>>63 == 0 {
		return 0, false
	}
	return read64(c, gs+at)
}

// process describes a process by its task_struct.
func (l *Linux) process(c *x86.CPU, task uint64) string {
	comm, ok := l.btf.Offset("task_struct", "comm")
	pid, ok2 := l.btf.Offset("task_struct", "pid")
	var name [16]byte
	if !ok || !ok2 || replay.ReadVirtual(c, name[:], task+comm) < len(name) {
		return ""
	}
	id, _ := read64(c, task+pid)
	text, _, _ := strings.Cut(string(name[:]), "\x00")
	return fmt.Sprintf("%s (process %d)", strings.ToValidUTF8(text, "?"), uint32(id))
}

func (l *Linux) withProcess(c *x86.CPU, what string) string {
	if task, ok := l.current(c); ok {
		if p := l.process(c, task); p != "" {
			return what + " of " + p
		}
	}
	return what
}

// anyProcess looks for a process that has pa mapped, among all.
func (l *Linux) anyProcess(c *x86.CPU, pa uint64) string {
	first, ok := l.syms.Addr("init_task")
	base, ok2 := l.syms.Addr("page_offset_base")
	tasks, ok3 := l.btf.Offset("task_struct", "tasks")
	mm, ok4 := l.btf.Offset("task_struct", "mm")
	pgd, ok5 := l.btf.Offset("mm_struct", "pgd")
	if !ok || !ok2 || !ok3 || !ok4 || !ok5 {
		return ""
	}
	direct, ok := read64(c, base)
	if !ok || pa>>52 != 0 {
		return ""
	}
	const most = 1 << 16 // of a list that may be broken: the guest's memory is what the fault made of it
	next, ok := read64(c, first+tasks)
	for range most {
		task := next - tasks
		if !ok || task == first {
			break
		}
		if a, ok := read64(c, task+mm); ok && a != 0 {
			if root, ok := read64(c, a+pgd); ok && root >= direct {
				if va, ok := mappedAt(c, root-direct, pa); ok {
					return fmt.Sprintf("mapped at %#x of %s", va, l.process(c, task))
				}
			}
		}
		next, ok = read64(c, task+tasks)
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
