package interp

import (
	"testing"

	"refault/vmm/x86"
)

// Hardware task switching (SDM Vol. 3A, "Task Management").

const (
	taskTSS   = 0x7100 // of the other task
	taskCode  = 0x12000
	taskStack = 0x24000
	taskSel   = legSpare
	taskGate  = legSpare2
)

// task is a TSS as a test wants it.
type task struct {
	wide              bool
	ip, flags, sp     uint64
	cs, ss, ds, fs    uint64
	ldt, cr3          uint64
	trap              bool
	attr, limit, link uint64
}

func kernelTask() task {
	return task{wide: true, ip: taskCode, flags: x86.Flag1, sp: taskStack, cs: legKCode, ss: legKData, ds: legKData, attr: 0x89, limit: 0x67}
}

// makeTask lays out a TSS at taskTSS with the descriptor taskSel. General registers hold 11111110H and so on.
func (r *legacyRig) makeTask(t task) {
	r.descriptor(taskSel, taskTSS, t.limit, t.attr)
	for i := range uint64(0x68) {
		r.put(taskTSS+i, 0, 1)
	}
	r.put(taskTSS, t.link, 2)
	if !t.wide {
		r.put(taskTSS+14, t.ip, 2)
		r.put(taskTSS+16, t.flags, 2)
		for i := range uint64(8) {
			r.put(taskTSS+18+2*i, 0x1110+i, 2)
		}
		r.put(taskTSS+26, t.sp, 2)
		for i, s := range []uint64{t.ds, t.cs, t.ss, t.ds, t.ldt} {
			r.put(taskTSS+34+2*uint64(i), s, 2)
		}
		return
	}
	r.put(taskTSS+28, t.cr3, 4)
	r.put(taskTSS+32, t.ip, 4)
	r.put(taskTSS+36, t.flags, 4)
	for i := range uint64(8) {
		r.put(taskTSS+40+4*i, 0x11111110+i, 4)
	}
	r.put(taskTSS+56, t.sp, 4)
	for i, s := range []uint64{t.ds, t.cs, t.ss, t.ds, t.fs, t.fs, t.ldt} {
		r.put(taskTSS+72+4*uint64(i), s, 4)
	}
	if t.trap {
		r.put(taskTSS+100, 1, 2)
	}
}

func (r *legacyRig) busy(sel uint64) bool { return r.get(legGDT+sel&^7+5, 1)&2 != 0 }

// taskRig is a legacy rig in protected mode with two tasks, a task gate in the GDT and one in the IDT, vector 40H.
func taskRig(t testing.TB, other task) *legacyRig {
	r := newLegacyRig(t)
	r.protected()
	r.makeTask(other)
	r.put(legGDT+taskGate, taskSel<<16|0x85<<40, 8)
	r.put(legIDT+8*0x40, taskSel<<16|0xe5<<40, 8)
	return r
}

var (
	jmpTask  = []byte{0xea, 0, 0, 0, 0, taskSel, 0}
	jmpGate  = []byte{0xea, 0, 0, 0, 0, taskGate, 0}
	callTask = []byte{0x9a, 0, 0, 0, 0, taskSel, 0}
	callGate = []byte{0x9a, 0, 0, 0, 0, taskGate, 0}
	intTask  = []byte{0xcd, 0x40}
)

func TestTaskSwitch(t *testing.T) {
	for _, x := range []struct {
		name string
		code []byte
		nest bool
	}{
		{"JMP to a TSS", jmpTask, false},
		{"JMP to a task gate", jmpGate, false},
		{"CALL of a TSS", callTask, true},
		{"CALL of a task gate", callGate, true},
		{"INT through a task gate", intTask, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := taskRig(t, kernelTask())
			c := r.c
			r.kernel(x.code...)
			for i := range uint64(8) {
				c.Regs[i] = 0x22220000 + i
			}
			c.RFLAGS = x86.Flag1 | x86.FlagCF | x86.FlagIOPL
			c.DR[7] = 0x4ff
			c.Regs[x86.RSP] = legStack
			old := uint64(legCode + len(x.code))
			r.step(1)
			want := map[int]uint64{x86.RIP: taskCode, x86.RSP: taskStack}
			for i := range 8 {
				if i != x86.RSP {
					want[i] = 0x11111110 + uint64(i)
				}
			}
			r.wantRegs("in the new task", want)
			flags := uint64(x86.Flag1)
			if x.nest {
				flags |= x86.FlagNT
			}
			if c.RFLAGS != flags {
				t.Errorf("flags %#x, want %#x", c.RFLAGS, flags)
			}
			if c.Seg[x86.TR].Sel != taskSel || c.Seg[x86.TR].Base != taskTSS || c.Seg[x86.TR].Attr&15 != 11 {
				t.Errorf("tr %+v", c.Seg[x86.TR])
			}
			if c.CR0&x86.CR0TS == 0 {
				t.Error("CR0.TS is clear")
			}
			if c.DR[7] != 0x4aa {
				t.Errorf("dr7 %#x: local breakpoints stay", c.DR[7])
			}
			if !r.busy(taskSel) || r.busy(legTSSSel) != x.nest {
				t.Errorf("busy: new %v, old %v", r.busy(taskSel), r.busy(legTSSSel))
			}
			link := uint64(0)
			if x.nest {
				link = legTSSSel
			}
			if got := r.get(taskTSS, 2); got != link {
				t.Errorf("link %#x, want %#x", got, link)
			}
			if got := r.get(legTSS+32, 4); got != old {
				t.Errorf("saved eip %#x, want %#x", got, old)
			}
			if got := r.get(legTSS+36, 4); got != x86.Flag1|x86.FlagCF|x86.FlagIOPL {
				t.Errorf("saved eflags %#x", got)
			}
			for i := range uint64(8) {
				v := 0x22220000 + i
				if i == x86.RSP {
					v = legStack
				}
				if got := r.get(legTSS+40+4*i, 4); got != v {
					t.Errorf("saved %s %#x, want %#x", x86.GeneralNames[i], got, v)
				}
			}
			if got := r.get(legTSS+76, 2); got != legKCode {
				t.Errorf("saved cs %#x", got)
			}
			if got := r.get(legTSS+8, 2); got != legKData {
				t.Errorf("ss0 is now %#x", got)
			}
			if !x.nest {
				return
			}
			// And back, by IRET.
			r.put(taskCode, 0xcf, 1)
			r.step(1)
			r.wantRegs("after IRET", map[int]uint64{x86.RIP: old, x86.RSP: legStack, x86.RAX: 0x22220000})
			if c.RFLAGS != x86.Flag1|x86.FlagCF|x86.FlagIOPL {
				t.Errorf("flags %#x after IRET", c.RFLAGS)
			}
			if r.busy(taskSel) || !r.busy(legTSSSel) || c.Seg[x86.TR].Sel != legTSSSel {
				t.Errorf("after IRET: busy %v, %v, tr %#x", r.busy(taskSel), r.busy(legTSSSel), c.Seg[x86.TR].Sel)
			}
			if got := r.get(taskTSS+36, 4); got != x86.Flag1 {
				t.Errorf("flags %#x in the TSS that IRET left", got)
			}
			if got := r.get(taskTSS+32, 4); got != taskCode+1 {
				t.Errorf("eip %#x in the TSS that IRET left", got)
			}
		})
	}
}

func TestTaskSwitch16(t *testing.T) {
	k := kernelTask()
	k.wide, k.attr, k.limit, k.ip, k.sp = false, 0x81, 0x2b, 0x2000, 0x4000
	r := taskRig(t, k)
	c := r.c
	r.kernel(callTask...)
	r.step(1)
	r.wantRegs("in the 16-bit task", map[int]uint64{x86.RIP: 0x2000, x86.RSP: 0xffff4000, x86.RAX: 0xffff1110, x86.RDI: 0xffff1117})
	if c.RFLAGS != x86.Flag1|x86.FlagNT || c.Seg[x86.TR].Attr&15 != 3 || c.Seg[x86.FS].Attr != 0 {
		t.Errorf("flags %#x, tr %+v, fs %+v", c.RFLAGS, c.Seg[x86.TR], c.Seg[x86.FS])
	}
	c.Regs[x86.RAX] = 0x12345678
	r.put(0x2000, 0xcf, 1)
	r.step(1)
	r.wantRegs("back in the 32-bit task", map[int]uint64{x86.RIP: legCode + 7, x86.RSP: legStack})
	if got := r.get(taskTSS+14, 2); got != 0x2001 {
		t.Errorf("saved ip %#x", got)
	}
	if got := r.get(taskTSS+18, 4); got != 0x1111_5678 {
		t.Errorf("saved ax and cx %#x", got)
	}
}

// TestTaskSwitchRefused: what is wrong with the new task's TSS is the old task's exception, and changes nothing.
func TestTaskSwitchRefused(t *testing.T) {
	for _, x := range []struct {
		name     string
		code     []byte
		user     bool
		set      func(r *legacyRig)
		vec, err int
	}{
		{"busy", jmpTask, false, func(r *legacyRig) { r.put(legGDT+taskSel+5, 0x8b, 1) }, x86.VecGP, taskSel},
		{"absent", jmpTask, false, func(r *legacyRig) { r.put(legGDT+taskSel+5, 0x09, 1) }, x86.VecNP, taskSel},
		{"too small", jmpTask, false, func(r *legacyRig) { r.put(legGDT+taskSel, 0x66, 2) }, x86.VecTS, taskSel},
		{"16 bits, too small", jmpTask, false, func(r *legacyRig) {
			r.put(legGDT+taskSel+5, 0x81, 1)
			r.put(legGDT+taskSel, 0x2a, 2)
		}, x86.VecTS, taskSel},
		{"no privilege", jmpTask, true, func(r *legacyRig) {}, x86.VecGP, taskSel},
		{"RPL", []byte{0xea, 0, 0, 0, 0, taskSel | 3, 0}, false, func(r *legacyRig) {}, x86.VecGP, taskSel},
		{"gate without privilege", callGate, true, func(r *legacyRig) {}, x86.VecGP, taskGate},
		{"gate absent", callGate, false, func(r *legacyRig) { r.put(legGDT+taskGate+5, 0x05, 1) }, x86.VecNP, taskGate},
		{"gate to no TSS", callGate, false, func(r *legacyRig) { r.put(legGDT+taskGate+2, legKData, 2) }, x86.VecGP, legKData},
		{"gate into the LDT", callGate, false, func(r *legacyRig) { r.put(legGDT+taskGate+2, taskSel|4, 2) }, x86.VecGP, taskSel | 4},
		{"gate beyond the GDT", callGate, false, func(r *legacyRig) { r.put(legGDT+taskGate+2, 0x100, 2) }, x86.VecGP, 0x100},
		{"gate to a busy TSS", callGate, false, func(r *legacyRig) { r.put(legGDT+taskSel+5, 0x8b, 1) }, x86.VecGP, taskSel},
		{"INT, gate without privilege", intTask, true, func(r *legacyRig) { r.put(legIDT+8*0x40+5, 0x85, 1) }, x86.VecGP, 0x40<<3 | 2},
		{"INT, gate absent", intTask, true, func(r *legacyRig) { r.put(legIDT+8*0x40+5, 0x65, 1) }, x86.VecNP, 0x40<<3 | 2},
		{"INT to a busy TSS", intTask, true, func(r *legacyRig) { r.put(legGDT+taskSel+5, 0x8b, 1) }, x86.VecGP, taskSel},
		{"exception to a busy TSS", []byte{0x0f, 0x0b}, false, func(r *legacyRig) {
			r.put(legIDT+8*x86.VecUD, taskSel<<16|0x85<<40, 8)
			r.put(legGDT+taskSel+5, 0x8b, 1)
		}, x86.VecGP, taskSel | 1},
		{"IRET to nothing", []byte{0xcf}, false, func(r *legacyRig) { r.c.RFLAGS |= x86.FlagNT }, x86.VecTS, 0},
		{"IRET to a TSS that is not busy", []byte{0xcf}, false, func(r *legacyRig) {
			r.c.RFLAGS |= x86.FlagNT
			r.put(legTSS, taskSel, 2)
		}, x86.VecTS, taskSel},
		{"IRET into the LDT", []byte{0xcf}, false, func(r *legacyRig) {
			r.c.RFLAGS |= x86.FlagNT
			r.put(legTSS, taskSel|4, 2)
		}, x86.VecTS, taskSel | 4},
		{"IRET to an absent TSS", []byte{0xcf}, false, func(r *legacyRig) {
			r.c.RFLAGS |= x86.FlagNT
			r.put(legTSS, taskSel, 2)
			r.put(legGDT+taskSel+5, 0x0b, 1)
		}, x86.VecNP, taskSel},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := taskRig(t, kernelTask())
			if x.user {
				r.user(x.code...)
			} else {
				r.kernel(x.code...)
			}
			x.set(r)
			r.fault()
			r.want(x.vec, x.err, 0)
			if r.c.Seg[x86.TR].Sel != legTSSSel || !r.busy(legTSSSel) || r.c.CR0&x86.CR0TS != 0 {
				t.Errorf("tr %#x, busy %v, cr0 %#x", r.c.Seg[x86.TR].Sel, r.busy(legTSSSel), r.c.CR0)
			}
		})
	}
}

// TestTaskSwitchBadState: what is wrong with the new task's registers is the new task's exception.
func TestTaskSwitchBadState(t *testing.T) {
	for _, x := range []struct {
		name     string
		set      func(r *legacyRig, k *task)
		vec, err int
	}{
		{"LDT beyond the GDT", func(_ *legacyRig, k *task) { k.ldt = 0x100 }, x86.VecTS, 0x100},
		{"LDT in the LDT", func(_ *legacyRig, k *task) { k.ldt = legLDTSel | 4 }, x86.VecTS, legLDTSel | 4},
		{"LDT that is none", func(_ *legacyRig, k *task) { k.ldt = legKData }, x86.VecTS, legKData},
		{"LDT absent", func(r *legacyRig, k *task) { r.descriptor(legLDTSel, legLDT, 0xff, 0x02); k.ldt = legLDTSel }, x86.VecTS, legLDTSel},
		{"CS null", func(_ *legacyRig, k *task) { k.cs = 0 }, x86.VecTS, 0},
		{"CS data", func(_ *legacyRig, k *task) { k.cs = legKData }, x86.VecTS, legKData},
		{"CS of another privilege", func(_ *legacyRig, k *task) { k.cs = legUCode &^ 3 }, x86.VecTS, legUCode &^ 3},
		{"CS absent", func(r *legacyRig, k *task) { r.descriptor(legLDTSel, 0, 0xfffff, flat32|0x1b); k.cs = legLDTSel }, x86.VecNP, legLDTSel},
		{"SS null", func(_ *legacyRig, k *task) { k.ss = 0 }, x86.VecTS, 0},
		{"SS code", func(_ *legacyRig, k *task) { k.ss = legKCode }, x86.VecTS, legKCode},
		{"SS of another privilege", func(_ *legacyRig, k *task) { k.ss = legUData &^ 3 }, x86.VecTS, legUData &^ 3},
		{"SS read-only", func(r *legacyRig, k *task) { r.descriptor(legLDTSel, 0, 0xfffff, flat32|0x91); k.ss = legLDTSel }, x86.VecTS, legLDTSel},
		{"SS absent", func(r *legacyRig, k *task) { r.descriptor(legLDTSel, 0, 0xfffff, flat32|0x13); k.ss = legLDTSel }, x86.VecSS, legLDTSel},
		{"DS a TSS", func(_ *legacyRig, k *task) { k.ds = legTSSSel }, x86.VecTS, legTSSSel},
		{"DS execute-only", func(r *legacyRig, k *task) { r.descriptor(legLDTSel, 0, 0xfffff, flat32|0x99); k.ds = legLDTSel }, x86.VecTS, legLDTSel},
		{"DS, RPL above DPL", func(_ *legacyRig, k *task) { k.ds = legKData | 3 }, x86.VecTS, legKData},
		{"DS absent", func(r *legacyRig, k *task) { r.descriptor(legLDTSel, 0, 0xfffff, flat32|0x13); k.ds = legLDTSel }, x86.VecNP, legLDTSel},
		{"FS beyond the table", func(_ *legacyRig, k *task) { k.fs = 0x100 }, x86.VecTS, 0x100},
		{"EIP beyond CS", func(r *legacyRig, k *task) { r.descriptor(legLDTSel, 0, 0xff, 0x409b); k.cs = legLDTSel }, x86.VecGP, 0},
	} {
		for how, code := range map[string][]byte{"JMP": jmpTask, "INT": intTask} {
			t.Run(x.name+", "+how, func(t *testing.T) {
				// The handler is a task too, since the new one may have no stack.
				r := taskRig(t, kernelTask())
				r.c.GDTR.Limit = 0x57
				const handlerTSS, handlerSel = 0x7300, 0x50
				r.descriptor(handlerSel, handlerTSS, 0x67, 0x89)
				r.put(legIDT+8*uint64(x.vec), handlerSel<<16|0x85<<40, 8)
				r.put(handlerTSS+32, 0x15000, 4)
				r.put(handlerTSS+36, x86.Flag1, 4)
				r.put(handlerTSS+56, 0x26000, 4)
				r.put(handlerTSS+76, legKCode, 2)
				r.put(handlerTSS+80, legKData, 2)
				k := kernelTask()
				x.set(r, &k)
				r.makeTask(k)
				r.kernel(code...)
				r.fault()
				c := r.c
				if c.Regs[x86.RIP] != 0x15000 || c.Seg[x86.TR].Sel != handlerSel {
					t.Fatalf("cs:rip %#x:%#x, tr %#x, activity %d", c.Seg[x86.CS].Sel, c.Regs[x86.RIP], c.Seg[x86.TR].Sel, c.Activity)
				}
				if got := r.get(c.Regs[x86.RSP], 4); c.Regs[x86.RSP] != 0x26000-4 || got != uint64(x.err) {
					t.Errorf("rsp %#x, error code %#x, want %#x", c.Regs[x86.RSP], got, x.err)
				}
				if got := r.get(handlerTSS, 2); got != taskSel {
					t.Errorf("handler's link is %#x, not the new task", got)
				}
				if got := r.get(taskTSS+32, 4); got != taskCode {
					t.Errorf("exception at eip %#x of the new task", got)
				}
				if got := r.get(taskTSS+76, 2); got != k.cs {
					t.Errorf("cs %#x of the new task, want %#x", got, k.cs)
				}
				if !r.busy(taskSel) || r.busy(legTSSSel) != (how == "INT") {
					t.Errorf("busy: new %v, old %v", r.busy(taskSel), r.busy(legTSSSel))
				}
			})
		}
	}
}

// TestTaskSwitchUser: a task of ring 3 with an LDT and with paging of its own.
func TestTaskSwitchUser(t *testing.T) {
	r := taskRig(t, kernelTask())
	c := r.c
	const tables1, tables2 = 0x100000, 0x102000
	for i, dir := range []uint64{tables1, tables2} {
		r.put(dir, dir+0x1000|7, 4)
		for p := range uint64(256) {
			r.put(dir+0x1000+4*p, p<<12|7, 4)
		}
		r.put(dir+0x1000+4*0x50, uint64(0x50+i)<<12|7, 4) // 50000 is 51000 in the second
	}
	r.put(0x50000, 0x1111, 4)
	r.put(0x51000, 0x2222, 4)
	c.CR3, c.CR0 = tables1, c.CR0|x86.CR0PG
	r.descriptor(legLDTSel, legLDT, 0x0f, 0x82)
	r.put(legLDT+8, r.get(legGDT+legUData&^7, 8), 8)
	k := kernelTask()
	k.cs, k.ss, k.ds, k.ldt, k.cr3, k.flags = legUCode, legUData, 8|4|3, legLDTSel, tables2, x86.Flag1|x86.FlagIF
	r.makeTask(k)
	r.kernel(jmpTask...)
	r.put(taskCode, 0x50000<<8|0xa1, 5) // mov eax,[50000]
	r.step(2)
	r.wantRegs("user task", map[int]uint64{x86.RIP: taskCode + 5, x86.RAX: 0x2222})
	if c.CPL != 3 || c.CR3 != tables2 || c.Seg[x86.LDTR].Base != legLDT || c.Seg[x86.DS].Sel != 15 {
		t.Errorf("cpl %d, cr3 %#x, ldtr %+v, ds %+v", c.CPL, c.CR3, c.Seg[x86.LDTR], c.Seg[x86.DS])
	}

	// A page of the TSS that is absent is the old task's page fault.
	r = taskRig(t, kernelTask())
	c = r.c
	r.put(tables1, tables1+0x1000|7, 4)
	for p := range uint64(256) {
		r.put(tables1+0x1000+4*p, p<<12|7, 4)
	}
	c.CR3, c.CR0 = tables1, c.CR0|x86.CR0PG
	const far = 0x60fc0 // its last bytes are on the next page
	r.descriptor(taskSel, far, 0x67, 0x89)
	r.put(tables1+0x1000+4*0x61, 0, 4)
	r.kernel(callTask...)
	r.fault()
	r.want(x86.VecPF, 0, 0)
	if c.CR2 != far+0x67 || c.Seg[x86.TR].Sel != legTSSSel || r.busy(taskSel) {
		t.Errorf("cr2 %#x, tr %#x, busy %v", c.CR2, c.Seg[x86.TR].Sel, r.busy(taskSel))
	}
}

// TestTaskTrap: the T bit of a TSS traps before the first instruction of its task.
func TestTaskTrap(t *testing.T) {
	k := kernelTask()
	k.trap = true
	r := taskRig(t, k)
	r.kernel(jmpTask...)
	r.step(1)
	if !r.c.ServiceEvents(nil) {
		t.Fatal("no trap")
	}
	if r.vector() != x86.VecDB || r.c.DR[6]&0xe00f != 1<<15 || r.get(r.c.Regs[x86.RSP], 4) != taskCode {
		t.Errorf("vector %d, dr6 %#x, eip %#x", r.vector(), r.c.DR[6], r.get(r.c.Regs[x86.RSP], 4))
	}
}

// TestDoubleFaultTask: a task gate is how a kernel survives a stack that is none.
func TestDoubleFaultTask(t *testing.T) {
	k := kernelTask()
	r := taskRig(t, k)
	r.put(legIDT+8*x86.VecDF, taskSel<<16|0x85<<40, 8)
	r.descriptor(legLDTSel, 0, 0xff, 0x4093)
	r.kernel(0x0f, 0x0b)
	r.c.Seg[x86.SS].Limit = 0xff
	r.fault()
	c := r.c
	if c.Regs[x86.RIP] != taskCode || c.Regs[x86.RSP] != taskStack-4 || r.get(taskStack-4, 4) != 0 || c.Activity != x86.Active {
		t.Fatalf("rip %#x, rsp %#x, activity %d", c.Regs[x86.RIP], c.Regs[x86.RSP], c.Activity)
	}
	if r.get(taskTSS, 2) != legTSSSel || c.RFLAGS&x86.FlagNT == 0 {
		t.Errorf("link %#x, flags %#x", r.get(taskTSS, 2), c.RFLAGS)
	}
	if got := r.get(legTSS+32, 4); got != legCode {
		t.Errorf("saved eip %#x", got)
	}
}

// TestNoTasksInLongMode: what switches tasks elsewhere is a general protection exception there.
func TestNoTasksInLongMode(t *testing.T) {
	farCall := func(sel uint64) func(r *systemRig) {
		return func(r *systemRig) {
			r.put(kernData, 0)
			r.put(kernData+4, sel)
			r.kernel(0xff, 0x1b) // call far [rbx]
			r.c.Regs[x86.RBX] = kernData
		}
	}
	for _, x := range []struct {
		name string
		set  func(r *systemRig)
		vec  int
		err  uint64
	}{
		{"CALL of a TSS", farCall(selTSS), x86.VecGP, selTSS},
		{"CALL of a TSS that is not busy", func(r *systemRig) {
			farCall(selTSS)(r)
			r.put(sysGDT+selTSS, 0x67|sysTSS<<16|0x89<<40)
		}, x86.VecGP, selTSS},
		{"CALL of a task gate", func(r *systemRig) {
			farCall(selSpare)(r)
			r.put(sysGDT+selSpare, selTSS<<16|0x85<<40)
		}, x86.VecGP, selSpare},
		{"INT through a task gate", func(r *systemRig) {
			r.kernel(0xcd, 0x40)
			r.gate(0x40, 0x8500, 0)
		}, x86.VecGP, 0x40<<3 | 2},
		{"exception through a task gate", func(r *systemRig) {
			r.kernel(0x0f, 0x0b)
			r.gate(x86.VecUD, 0x8500, 0)
		}, x86.VecGP, x86.VecUD<<3 | 3},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newSystemRig(t)
			x.set(r)
			r.step(1)
			r.want(x.vec, x.err, 0)
		})
	}
	// LTR does not take a 16-bit TSS either, and IRET clears VM.
	r := newSystemRig(t)
	r.put(sysGDT+selTSS, 0x67|sysTSS<<16|0x81<<40)
	r.kernel(0x0f, 0x00, 0xd8) // ltr ax
	r.c.Regs[x86.RAX] = selTSS
	r.step(1)
	r.want(x86.VecGP, selTSS, 0)
	r.kernel(0x48, 0xcf)
	for i, v := range []uint64{kernCode + 2, selKCode, x86.FlagVM | x86.FlagVIF | 2, kernStack, selKData} {
		r.put(kernStack-0x100+8*uint64(i), v)
	}
	r.c.Regs[x86.RSP] = kernStack - 0x100
	r.wantNone(1)
	if r.c.RFLAGS != x86.Flag1|x86.FlagVIF {
		t.Errorf("flags %#x after IRET", r.c.RFLAGS)
	}
	r.put(kernStack-8, x86.FlagVIF|x86.FlagVIP|2)
	r.kernel(0x9d) // popf
	r.c.RFLAGS |= x86.FlagVIF
	r.c.Regs[x86.RSP] = kernStack - 8
	r.wantNone(1)
	if r.c.RFLAGS != x86.Flag1 {
		t.Errorf("flags %#x after POPF", r.c.RFLAGS)
	}
}

// TestSysenterFromVM86 leaves the mode.
func TestSysenterFromVM86(t *testing.T) {
	r := newLegacyRig(t)
	r.protected()
	r.enterVM86(0, 0x0f, 0x34)
	c := r.c
	c.SysenterCS, c.SysenterESP, c.SysenterEIP = legKCode, legStack0, taskCode
	r.step(1)
	r.wantRegs("entered", map[int]uint64{x86.RIP: taskCode, x86.RSP: legStack0})
	if c.CPL != 0 || c.RFLAGS != x86.Flag1 || c.Seg[x86.CS].Sel != legKCode {
		t.Errorf("cpl %d, flags %#x, cs %#x", c.CPL, c.RFLAGS, c.Seg[x86.CS].Sel)
	}
}

// FuzzLegacySystem executes anything with tables and TSSs that say anything. The guest may do what it likes to itself.
func FuzzLegacySystem(f *testing.F) {
	r := taskRig(f, kernelTask())
	tables := make([]byte, 0x80)
	tss := make([]byte, 0x68)
	r.c.RAM.ReadAt(tables, legGDT)
	r.c.RAM.ReadAt(tss, taskTSS)
	for _, code := range [][]byte{jmpTask, callGate, intTask, {0xcf}, {0x0f, 0x0b}} {
		f.Add(code, tables, tss, uint8(0x85), uint32(0))
		f.Add(code, tables, tss, uint8(0xe5), uint32(x86.FlagNT))
		f.Add(code, tables, tss, uint8(0xee), uint32(x86.FlagVM))
	}
	f.Fuzz(func(t *testing.T, code, gdt, tss []byte, gate uint8, flags uint32) {
		c := r.c
		c.Reset()
		r.protected()
		r.makeTask(kernelTask())
		c.RAM.WriteAt(gdt[:min(len(gdt), 0x80)], legGDT)
		c.RAM.WriteAt(tss[:min(len(tss), 0x68)], taskTSS)
		for v := range uint64(0x42) {
			r.put(legIDT+8*v, taskSel<<16|uint64(gate)<<40, 8)
		}
		r.put(legTSS, taskSel, 2)
		r.kernel(code[:min(len(code), 0x100)]...)
		c.RFLAGS = uint64(flags)&0x3f7fd5 | x86.Flag1
		if c.RFLAGS&x86.FlagVM != 0 {
			c.CPL = 3
		}
		c.ModeChanged()
		end := c.Step + 200
		for range 400 { // deliveries retire nothing
			if c.Step >= end || c.Activity != x86.Active {
				break
			}
			c.Attention = false
			r.e.Run(end)
			c.ServiceEvents(noInterrupts{})
		}
		if c.CPL > 3 || c.RFLAGS&x86.FlagVM != 0 && c.CPL != 3 {
			t.Errorf("cpl %d, flags %#x", c.CPL, c.RFLAGS)
		}
	})
}

// TestTaskFlags: TF and RF of a TSS are the new task's own.
func TestTaskFlags(t *testing.T) {
	for name, code := range map[string][]byte{"JMP": jmpTask, "INT": intTask} {
		k := kernelTask()
		k.flags = x86.Flag1 | x86.FlagTF | x86.FlagRF
		r := taskRig(t, k)
		c := r.c
		r.kernel(code...)
		r.put(taskCode, 0x90, 1)
		c.RFLAGS |= x86.FlagRF
		r.step(1)
		if c.Regs[x86.RIP] != taskCode || c.RFLAGS&x86.FlagRF == 0 || c.PendingDebug != 0 {
			t.Errorf("%s: rip %#x, flags %#x, pending %#x", name, c.Regs[x86.RIP], c.RFLAGS, c.PendingDebug)
		}
		if got := r.get(legTSS+36, 4); got&x86.FlagRF != 0 && name == "JMP" {
			t.Errorf("%s: flags %#x of the old task: the instruction is complete", name, got)
		}
		r.step(1)
		if c.Regs[x86.RIP] != taskCode+1 || !c.ServiceEvents(nil) || r.vector() != x86.VecDB || c.DR[6]&(1<<14) == 0 {
			t.Errorf("%s: rip %#x, dr6 %#x: no single step after the first instruction", name, c.Regs[x86.RIP], c.DR[6])
		}
	}
}
