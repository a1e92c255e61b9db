package linux

import (
	"bytes"
	"fmt"

	"refault/vmm/x86"
)

// Symbols are the names of the kernel's addresses. *ksym.Table implements it.
type Symbols interface {
	Addr(name string) (addr uint64, ok bool)
}

// Kernel is what is known of a guest's kernel.
type Kernel struct {
	initTask    uint64 // address of the first process
	currentTask uint64 // offset of the pointer to the running one, in the processor's own data

	tasks, pid, tgid, comm, mm, pgd uint64 // offsets of members

	cache   *pageCache    // or nil
	modules *moduleLayout // or nil
}

// New finds out what it needs to know of a kernel in an ELF file.
func New(kernel []byte, s Symbols) (*Kernel, error) {
	b, err := section(kernel)
	if err != nil {
		return nil, err
	}
	t, err := parseBTF(b)
	if err != nil {
		return nil, err
	}
	k := new(Kernel)
	for _, x := range []struct {
		to   *uint64
		name string
	}{{&k.initTask, "init_task"}, {&k.currentTask, "current_task"}} {
		addr, ok := s.Addr(x.name)
		if !ok && x.name == "current_task" {
			addr, ok = s.Addr("pcpu_hot") // since Linux 6.2, the first member of a structure
		}
		if !ok {
			return nil, fmt.Errorf("the kernel has no symbol %s: %w", x.name, ErrNotUnderstood)
		}
		*x.to = addr
	}
	for _, x := range []struct {
		to           *uint64
		name, member string
	}{{&k.tasks, "task_struct", "tasks"}, {&k.pid, "task_struct", "pid"}, {&k.tgid, "task_struct", "tgid"}, {&k.comm, "task_struct", "comm"},
		{&k.mm, "task_struct", "mm"}, {&k.pgd, "mm_struct", "pgd"}} {
		if *x.to, err = t.member(x.name, x.member); err != nil {
			return nil, err
		}
	}
	k.cache, k.modules = newPageCache(t, s), newModuleLayout(t, s)
	return k, nil
}

// Process is a process of the guest: a thread group.
type Process struct {
	PID  uint32
	Name string // what the kernel calls comm: up to 15 bytes
	// CR3 is the physical address of the root of its page tables; zero for a kernel thread, which has none.
	CR3 uint64
}

// maxProcesses bounds a walk: what is read may be a circle.
const maxProcesses = 1 << 16

// Processes lists the processes, in the order of the kernel's own list.
func (k *Kernel) Processes(c *x86.CPU) (all []Process) {
	for task := k.initTask; len(all) < maxProcesses; {
		p, ok := k.process(c, task)
		if !ok {
			break
		}
		all = append(all, p)
		next, ok := load(c, task+k.tasks, 8)
		if !ok || next-k.tasks == k.initTask {
			break
		}
		task = next - k.tasks
	}
	return all
}

// Current returns the process that a processor executes, or whose system call or interruption it serves.
func (k *Kernel) Current(c *x86.CPU) (p Process, ok bool) {
	if !c.LongMode() {
		return p, false
	}
	// The kernel's GS base is the active one in the kernel, but for the few instructions around SWAPGS.
	for _, base := range []uint64{c.Seg[x86.GS].Base, c.KernelGSBase} {
		if base>>63 == 0 {
			continue
		}
		if task, ok := load(c, base+k.currentTask, 8); ok && task>>63 != 0 {
			return k.process(c, task)
		}
	}
	return p, false
}

// process reads a task_struct.
func (k *Kernel) process(c *x86.CPU, task uint64) (p Process, ok bool) {
	pid, ok1 := load(c, task+k.tgid, 4)
	mm, ok2 := load(c, task+k.mm, 8)
	name := make([]byte, 16)
	if !ok1 || !ok2 || pid > 1<<22 || !read(c, task+k.comm, name) {
		return p, false
	}
	name, _, terminated := bytes.Cut(name, []byte{0})
	if !terminated {
		return p, false
	}
	p = Process{PID: uint32(pid), Name: string(name)}
	if mm != 0 {
		pgd, ok1 := load(c, mm+k.pgd, 8)
		pa, ok2 := c.Translate(pgd)
		if !ok1 || !ok2 {
			return p, false
		}
		p.CR3 = pa &^ 0xfff
	}
	return p, true
}

func load(c *x86.CPU, va uint64, n int) (v uint64, ok bool) {
	var b [8]byte
	ok = read(c, va, b[:n])
	return le.Uint64(b[:]), ok
}

// read reads memory at a linear address of the kernel, whatever the privilege.
func read(c *x86.CPU, va uint64, p []byte) bool {
	for len(p) > 0 {
		pa, ok := c.Translate(va)
		n := min(len(p), int(0x1000-va&0xfff))
		if !ok || !c.RAM.ReadAt(p[:n], pa) {
			return false
		}
		p, va = p[n:], va+uint64(n)
	}
	return true
}
