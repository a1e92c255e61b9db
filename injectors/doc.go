// Package injectors turns the description of a hardware fault into the fault.
// It has the three parts of an error-injection framework on a virtual machine
// monitor: a front end that describes faults (Parse), a Scheduler that decides
// when each happens, and injectors, one file a kind, that act.
//
// # What is a fault?
//
// A kind, a target and a behaviour, which are the kind's keys, and a trigger:
//
//	KIND:key=value,…@TRIGGER
//	mce:type=srao,addr=0xbaec000@step:812345678
//	ata:error=unc,lba=2344@step:0
//	mem:addr=0x1000,bit=3@step:5e8
//	reg:name=rax,bit=17@time:1.5s
//
// The text is the same in a flag, in a plan and in the log.
//
// A trigger may be a sequence of stages, each looked for once the one before it came:
//
//	mem:vaddr=jiffies,bit=3@console:^hello@exec:__x64_sys_read#2@+100
//
// TriggerKinds lists them; what a stage looks for is seen by hooks of the machine that
// are on only while it is looked for (vmm.Observer, vmm.Watch). The scheduler says
// where exactly the fault then takes effect.
//
// # Where is a symbol?
//
// Those of the kernel are where its file says. A symbol of a module (MODULE:SYMBOL) is where the guest's memory
// says, at the moment when that counts: a stage of a trigger looks when it begins, and again whenever the
// kernel is about to start a module, whose code has not run by then (Expr.Locate, linux.Kernel.Find). A name
// without a module, of none of the kernel's symbols, gets the module that has it at the recording's end, so
// that a mistake in it is found before anything runs.
//
// # How often does it happen?
//
// Keys that every kind has say so: times, every and p. Of a fault that is done in an
// instant (a bit flips) they count the occurrences of the last stage. Of one that stays
// in the machine (a bad sector) they count what it does there, and the trigger plants it once.
//
// Keys can be drawn (addr=~ram, bit=~uniform:0..7), and the stage gaps comes at random:
// process.go. Draws come from a generator that the recording's seed starts, or key seed.
// A plan says in YAML what flags say: plan.go.
//
// # What stays when the injector has gone?
//
// The events. A fault that is done in an instant is one event, with what it replaced. One
// that stays is planted by an event, as a vmm.Defect or as a fault of a drive, and what
// becomes of it then is the machine's own doing, in a replay too. What a model decides
// that lives here (cache.go) is events again.
//
// # How is a kind added?
//
// One file with one Kind value, and its name in the table in kinds.go. The kind's
// Resolve turns the keys into a vmm.Fault, which needs nothing but the machine to
// happen. What was resolved is what the faulty run logs, so that run replays
// without this package.
package injectors
