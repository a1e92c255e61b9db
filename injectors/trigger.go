package injectors

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"refault/vmm"
	"refault/vmm/dev/ata"
	"refault/vmm/linux"
	"refault/vmm/x86"
)

// Trigger says when a fault happens: when the last of its stages comes. A stage is
// looked for from the moment when the one before it came, the first from the beginning.
type Trigger struct {
	Stages []Stage
	text   string
}

func (t Trigger) String() string { return t.text }

// Stage is one condition, and which of its occurrences counts.
type Stage struct {
	Text string
	kind *TriggerKind
	cond condition
	n    uint64 // the n-th occurrence
}

// TriggerKind is a kind of condition.
type TriggerKind struct {
	Name   string `json:"name"`
	Syntax string `json:"syntax"`
	Doc    string `json:"doc"`
	parse  func(arg string) (condition, error)
}

// condition is what a stage looks for.
type condition interface {
	// bind resolves symbols.
	bind(s Symbols) error
	// arm starts to look, and returns what ends that; each occurrence is told to a.
	arm(a *armed) (disarm func(), err error)
}

// position is a condition that is a position, which needs nobody to look for it.
type position interface {
	// at returns the step and the virtual time at which it comes; one of them is vmm.Never. last is
	// where it came before; ok is false when it does not come any more.
	at(a *armed) (step, timeNs uint64, ok bool)
}

// triggerKinds is the table of all kinds of trigger.
var triggerKinds []*TriggerKind

func init() {
	triggerKinds = []*TriggerKind{
		{"step", "step:N[/PERIOD]", "when N instructions have retired; and then every PERIOD", parseStep},
		{"time", "time:T[/PERIOD]", "at virtual time T, as 1.5s or 200ms; and then every PERIOD", parseTime},
		{"exec", "exec:WHERE[,cr3=N|,pid=N|,comm=NAME][#n]", "before the n-th execution of the instruction at WHERE, a virtual address or symbol", parseExec},
		{"read", "read:WHERE[/BYTES][,cr3=N|,pid=N|,comm=NAME][#n]", "before the n-th read of a location", parseAccess(false, x86.Read)},
		{"write", "write:WHERE[/BYTES][,cr3=N|,pid=N|,comm=NAME][#n]", "after the n-th write to a location", parseAccess(false, x86.Write)},
		{"access", "access:WHERE[/BYTES][,cr3=N|,pid=N|,comm=NAME][#n]", "at the n-th read or write of a location", parseAccess(true, 0)},
		{"console", "console:REGEXP[#n]", "when the guest has said, within one line, what a regular expression matches", parseConsole},
		{"io", "io:LBA[+SECTORS][,drive=N][#n]", "before the n-th disk command that touches sectors", parseIO(ata.OpRead | ata.OpWrite)},
		{"ioread", "ioread:LBA[+SECTORS][,drive=N][#n]", "before the n-th that reads them", parseIO(ata.OpRead)},
		{"iowrite", "iowrite:LBA[+SECTORS][,drive=N][#n]", "before the n-th that writes them", parseIO(ata.OpWrite)},
		{"vector", "vector:V[#n]", "at the n-th delivery of exception or interrupt V (a number or a name as pf, mc)", parseVector},
		{"syscall", "syscall:[N][#n]", "at the n-th system call of that number (or name, on x86-64 Linux)", parseSyscall},
		{"after", "after:FAULT[#n]", "when another fault has happened for the n-th time: its id=, or its number from 1", parseAfter},
		{"gaps", "gaps:DISTRIBUTION", "after gaps that are drawn, in instructions or times: exp/MEAN, weibull/SHAPE/SCALE, gamma/SHAPE/SCALE, lognormal/MEDIAN/SIGMA, file/PATH", parseGaps},
		{"+", "+N or +T", "N instructions, or a time, after the stage before it", parseRelative},
	}
}

// TriggerKinds lists the kinds of trigger.
func TriggerKinds() []*TriggerKind { return triggerKinds }

var occurrence = regexp.MustCompile(`#([0-9]+)$`)

// parseTrigger reads what follows the first @ of a fault's description.
func parseTrigger(text string) (Trigger, error) {
	t := Trigger{text: text}
	for _, s := range strings.Split(text, "@") {
		st, err := parseStage(s)
		if err != nil {
			return t, err
		}
		if len(t.Stages) == 0 && st.kind.Name == "+" {
			return t, fmt.Errorf("trigger %s needs another before it, as in exec:panic@%s", s, s)
		}
		t.Stages = append(t.Stages, *st)
	}
	return t, nil
}

func parseStage(s string) (*Stage, error) {
	name, arg, found := strings.Cut(s, ":")
	if strings.HasPrefix(s, "+") {
		name, arg, found = "+", s[1:], true
	}
	for _, k := range triggerKinds {
		if k.Name != name {
			continue
		}
		if !found {
			return nil, fmt.Errorf("trigger %q: write %s", s, k.Syntax)
		}
		st := &Stage{Text: s, kind: k, n: 1}
		if m := occurrence.FindStringSubmatch(arg); m != nil && strings.Contains(k.Syntax, "#n") {
			n, err := strconv.ParseUint(m[1], 10, 64)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("trigger %q: occurrences count from 1", s)
			}
			st.n, arg = n, strings.TrimSuffix(arg, m[0])
		}
		var err error
		if st.cond, err = k.parse(arg); err != nil {
			return nil, fmt.Errorf("trigger %s: %w", name, err)
		}
		return st, nil
	}
	var names []string
	for _, k := range triggerKinds {
		names = append(names, k.Name)
	}
	return nil, fmt.Errorf("no trigger %q%s; the triggers are %s", name, didYouMean(name, names), strings.Join(names, ", "))
}

// Positions.

type atStep struct{ first, period uint64 }

func parseStep(arg string) (condition, error) {
	first, period, repeats := strings.Cut(arg, "/")
	c := new(atStep)
	var err error
	if c.first, err = ParseUint(first); err == nil && repeats {
		if c.period, err = ParseUint(period); err == nil && c.period == 0 {
			err = fmt.Errorf("a period of 0")
		}
	}
	return c, err
}

func (c *atStep) bind(Symbols) error         { return nil }
func (c *atStep) arm(*armed) (func(), error) { return nil, nil }
func (c *atStep) at(a *armed) (uint64, uint64, bool) {
	if a.count == 0 {
		return c.first, vmm.Never, true
	}
	return c.first + a.count*c.period, vmm.Never, c.period != 0
}

type atTime struct{ firstNs, periodNs uint64 }

func parseNs(s string) (uint64, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a time; write for example 1.5s or 200ms", s)
	}
	return uint64(d), nil
}

func parseTime(arg string) (condition, error) {
	first, period, repeats := strings.Cut(arg, "/")
	c := new(atTime)
	var err error
	if c.firstNs, err = parseNs(first); err == nil && repeats {
		if c.periodNs, err = parseNs(period); err == nil && c.periodNs == 0 {
			err = fmt.Errorf("a period of 0")
		}
	}
	return c, err
}

func (c *atTime) bind(Symbols) error         { return nil }
func (c *atTime) arm(*armed) (func(), error) { return nil, nil }
func (c *atTime) at(a *armed) (uint64, uint64, bool) {
	if a.count == 0 {
		return vmm.Never, c.firstNs, true
	}
	return vmm.Never, c.firstNs + a.count*c.periodNs, c.periodNs != 0
}

type relative struct {
	steps, ns uint64
	timed     bool
}

func parseRelative(arg string) (condition, error) {
	if n, err := ParseUint(arg); err == nil {
		return &relative{steps: n}, nil
	}
	ns, err := parseNs(arg)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a number of instructions nor a time", arg)
	}
	return &relative{ns: ns, timed: true}, nil
}

func (c *relative) bind(Symbols) error         { return nil }
func (c *relative) arm(*armed) (func(), error) { return nil, nil }
func (c *relative) at(a *armed) (uint64, uint64, bool) {
	if c.timed {
		return vmm.Never, a.sinceNs + c.ns, a.count == 0
	}
	return a.since + c.steps, vmm.Never, a.count == 0
}

// Locations.

// where is a location: physical, or virtual by number or symbol.
type where struct {
	Expr
	physical bool
	bytes    uint64
	cr3      uint64
	pid      uint64
	comm     string
	any      bool // of all address spaces
	guest    Guest
	place    *linux.Place // of a symbol of a module, where that is loaded
}

func (w *where) location() *where { return w }
func (w *where) needsGuest() bool { return w.pid != 0 || w.comm != "" }

func parseWhere(arg string, access bool) (where, error) {
	w := where{bytes: 1, any: true}
	arg, options, found := strings.Cut(arg, ",")
	if found {
		k, v, _ := strings.Cut(options, "=")
		n, err := ParseUint(v)
		switch {
		case k == "comm" && v != "":
			w.comm = v
		case k == "pid" && err == nil && n != 0:
			w.pid = n
		case k == "cr3" && err == nil:
			w.cr3 = n &^ 0xfff
		default:
			return w, fmt.Errorf("%q is not an option; cr3=N, pid=N and comm=NAME are", options)
		}
		w.any = false
	}
	if access {
		if p, ok := strings.CutPrefix(arg, "phys:"); ok {
			arg, w.physical = p, true
		}
		arg = strings.TrimPrefix(arg, "virt:")
		if a, n, ok := strings.Cut(arg, "/"); ok {
			v, err := ParseUint(n)
			if err != nil || v == 0 || v > 1<<30 {
				return w, fmt.Errorf("%q is not a number of bytes", n)
			}
			arg, w.bytes = a, v
		}
	}
	var err error
	if w.Expr, err = ParseExpr(arg); err == nil && w.physical && w.Symbol != "" {
		err = fmt.Errorf("symbol %s has a virtual address; leave phys: away", w.Symbol)
	}
	return w, err
}

func (w *where) in(c *x86.CPU) bool {
	switch {
	case w.any:
		return true
	case w.guest != nil && w.needsGuest():
		p, ok := w.guest.Current(c)
		return ok && (w.pid != 0 && uint64(p.PID) == w.pid || w.comm != "" && p.Name == w.comm)
	}
	return c.CR3&^0xfff&^(1<<63) == w.cr3
}

// bind resolves the symbol.
func (w *where) bind(s Symbols) error {
	if w.needsGuest() && w.guest == nil {
		return errors.New("options pid and comm need a Linux kernel with symbols and type information (BTF)")
	}
	return w.Expr.Bind(s, w.guest)
}

// here reports whether what is at the location is still what was named: the memory of a module that has gone
// may be another's.
func (w *where) here(c *x86.CPU) bool { return w.Module == "" || w.guest.Holds(c, w.place) }

// follow looks with the observer that look makes for the location. The symbol of a module it looks for
// where that is, from the moment when the kernel starts the module.
func (w *where) follow(a *armed, look func() *vmm.Observer) (func(), error) {
	m := a.s.m
	var at *vmm.Observer
	if w.Module == "" {
		at = look()
		m.Observe(at)
		return func() { m.Unobserve(at) }, nil
	}
	start, _ := w.guest.ModuleStart()
	ob := &vmm.Observer{Code: vmm.Span{First: start, Last: start}, Before: func(c *x86.CPU, _ uint64, _ *x86.Inst) {
		a.moved, c.Attention = true, true // behind this instruction it is looked for
	}}
	leave := func() {
		if at != nil {
			m.Unobserve(at)
			at = nil
		}
	}
	a.move = func() (err error) {
		leave()
		var wrong bool
		if w.place, a.missing, wrong = w.Locate(m.CPUs[0], w.guest); w.place != nil {
			at = look()
			m.Observe(at)
		} else if wrong && a.moved {
			err = fmt.Errorf("fault %q: %s: %w", a.f, a.missing, ErrSpec)
		}
		a.moved = false
		return err
	}
	m.Observe(ob)
	return func() {
		leave()
		m.Unobserve(ob)
		a.move, a.moved = nil, false
	}, a.move()
}

type onExec struct{ where }

func parseExec(arg string) (condition, error) {
	w, err := parseWhere(arg, false)
	return &onExec{w}, err
}

func (o *onExec) arm(a *armed) (func(), error) {
	return o.follow(a, func() *vmm.Observer {
		return &vmm.Observer{Code: vmm.Span{First: o.Addr, Last: o.Addr}, Before: func(c *x86.CPU, _ uint64, _ *x86.Inst) {
			if o.in(c) && o.here(c) {
				a.seen(c, before)
			}
		}}
	})
}

type onAccess struct {
	where
	either bool
	kind   x86.Access
}

func parseAccess(either bool, kind x86.Access) func(string) (condition, error) {
	return func(arg string) (condition, error) {
		w, err := parseWhere(arg, true)
		return &onAccess{w, either, kind}, err
	}
}

func (o *onAccess) arm(a *armed) (func(), error) {
	m := a.s.m
	see := func(c *x86.CPU, kind x86.Access) {
		if kind == x86.Fetch || !o.either && (kind == x86.Write) != (o.kind == x86.Write) {
			return
		}
		if kind == x86.Write || c == nil {
			a.seen(c, after)
		} else {
			a.seen(c, before)
		}
	}
	if !o.physical {
		return o.follow(a, func() *vmm.Observer {
			return &vmm.Observer{Data: vmm.Span{First: o.Addr, Last: o.Addr + o.bytes - 1}, Access: func(c *x86.CPU, _ uint64, _ int, kind x86.Access) {
				if o.in(c) && o.here(c) {
					see(c, kind)
				}
			}}
		})
	}
	w, err := m.Watch(o.Addr, o.bytes, func(t *vmm.Touch) {
		if t.DMA() || o.in(t.CPU) {
			see(t.CPU, t.Kind)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrSpec)
	}
	return func() { m.Unwatch(w) }, nil
}

// What the guest does.

type onConsole struct{ re *regexp.Regexp }

func parseConsole(arg string) (condition, error) {
	if arg == "" {
		return nil, fmt.Errorf("no regular expression")
	}
	re, err := regexp.Compile(arg)
	if err != nil {
		return nil, fmt.Errorf("%q is no regular expression: %w", arg, err)
	}
	return &onConsole{re}, nil
}

func (o *onConsole) bind(Symbols) error { return nil }
func (o *onConsole) arm(a *armed) (func(), error) {
	const lineMax = 4096
	var line []byte
	matched := false // once a line
	ob := &vmm.Observer{Output: func(b byte) {
		if b == '\n' || len(line) == lineMax {
			line, matched = line[:0], false
			return
		}
		line = append(line, b)
		if !matched && o.re.Match(line) {
			matched = true
			a.seen(a.s.m.CPUs[0], after)
		}
	}}
	a.s.m.Observe(ob)
	return func() { a.s.m.Unobserve(ob) }, nil
}

type onIO struct {
	ops        ata.Ops
	lba, count uint64
	drive      int
}

func parseIO(ops ata.Ops) func(string) (condition, error) {
	return func(arg string) (condition, error) {
		o := &onIO{ops: ops, count: 1}
		arg, options, found := strings.Cut(arg, ",")
		if found {
			v, ok := strings.CutPrefix(options, "drive=")
			n, err := ParseUint(v)
			if !ok || err != nil || n > 3 {
				return nil, fmt.Errorf("%q is not an option; drive=0 to drive=3 are", options)
			}
			o.drive = int(n)
		}
		first, count, found := strings.Cut(arg, "+")
		var err error
		if o.lba, err = ParseUint(first); err == nil && found {
			o.count, err = ParseUint(count)
		}
		return o, err
	}
}

func (o *onIO) bind(Symbols) error { return nil }
func (o *onIO) arm(a *armed) (func(), error) {
	if _, err := a.s.m.Drive(o.drive); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrSpec)
	}
	ob := &vmm.Observer{Command: func(drive int, ops ata.Ops, lba, count uint64) {
		if drive == o.drive && ops&o.ops != 0 && lba < o.lba+o.count && o.lba < lba+count {
			a.seen(a.s.m.CPUs[0], before)
		}
	}}
	a.s.m.Observe(ob)
	return func() { a.s.m.Unobserve(ob) }, nil
}

type onVector struct{ vec uint8 }

// vectorNames are the mnemonics of SDM Vol. 3A table 6-1.
var vectorNames = map[string]uint8{
	"de": x86.VecDE, "db": x86.VecDB, "nmi": x86.VecNMI, "bp": x86.VecBP, "of": x86.VecOF, "br": x86.VecBR, "ud": x86.VecUD, "nm": x86.VecNM,
	"df": x86.VecDF, "ts": x86.VecTS, "np": x86.VecNP, "ss": x86.VecSS, "gp": x86.VecGP, "pf": x86.VecPF, "mf": x86.VecMF, "ac": x86.VecAC,
	"mc": x86.VecMC, "xm": x86.VecXM,
}

func parseVector(arg string) (condition, error) {
	if v, ok := vectorNames[strings.TrimPrefix(strings.ToLower(arg), "#")]; ok {
		return &onVector{v}, nil
	}
	n, err := ParseUint(arg)
	if err != nil || n > 255 {
		return nil, fmt.Errorf("%q is no vector: 0 to 255, or a name as pf, gp, mc", arg)
	}
	return &onVector{uint8(n)}, nil
}

func (o *onVector) bind(Symbols) error { return nil }
func (o *onVector) arm(a *armed) (func(), error) {
	ob := &vmm.Observer{Delivered: func(c *x86.CPU, e x86.Exception) {
		if e.Vec == o.vec {
			a.seen(c, after)
		}
	}}
	a.s.m.Observe(ob)
	return func() { a.s.m.Unobserve(ob) }, nil
}

type onSyscall struct{ numbers vmm.Span }

func parseSyscall(arg string) (condition, error) {
	if arg == "" {
		return &onSyscall{vmm.Everywhere}, nil
	}
	if nr, ok := syscallNumber(arg); ok {
		return &onSyscall{vmm.Span{First: nr, Last: nr}}, nil
	}
	n, err := ParseUint(arg)
	if err != nil {
		return nil, fmt.Errorf("no system call %q%s; numbers work too", arg, didYouMean(arg, syscallNames[:]))
	}
	return &onSyscall{vmm.Span{First: n, Last: n}}, nil
}

func (o *onSyscall) bind(Symbols) error { return nil }
func (o *onSyscall) arm(a *armed) (func(), error) {
	ob := &vmm.Observer{Calls: o.numbers, SystemCall: func(c *x86.CPU) { a.seen(c, after) }}
	a.s.m.Observe(ob)
	return func() { a.s.m.Unobserve(ob) }, nil
}

type onFault struct{ id string }

func parseAfter(arg string) (condition, error) {
	if arg == "" {
		return nil, fmt.Errorf("no fault named")
	}
	return &onFault{arg}, nil
}

func (o *onFault) bind(Symbols) error         { return nil }
func (o *onFault) arm(*armed) (func(), error) { return nil, nil }
