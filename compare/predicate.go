package compare

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"refault/replay"
	"refault/vmm"
	"refault/vmm/x86"
)

// ErrPredicate is wrapped by every error that a predicate's text can have.
var ErrPredicate = errors.New("bad predicate")

// Predicate is a condition on a machine's state at a step.
type Predicate struct {
	text string
	// holds evaluates it where the player stands.
	holds func(ctx context.Context, p *replay.Player) (bool, error)
	// watch, if set, makes touched be called when something may have changed the answer, which is then so after the instruction.
	watch func(p *replay.Player, touched func()) (undo func(), err error)
	// step, if set, tells the answer from the recording itself.
	step func(p *replay.Player, from uint64) (step uint64, found bool, err error)
}

func (q *Predicate) String() string { return q.text }

// Predicates tells what ParsePredicate takes.
const Predicates = `console:REGEXP         the guest has said something that matches
mem:ADDR:LEN==HEX      LEN bytes at a physical address are these, the first byte first
virt:ADDR:LEN==HEX     the same at a virtual address, or a symbol: of the kernel, or MODULE:SYMBOL while
                       that module is loaded
reg:NAME==VALUE        a register has this value
exit:STATUS            the guest has ended the run with this status
cmd:COMMAND            a shell command ends with status 0, given the state as JSON
Instead of == there may be !=, and for numbers < and >.`

// Location is where a symbol is. That of a module is not always there, and not always at the same place.
type Location func(c *x86.CPU) (addr uint64, ok bool)

// ParsePredicate reads a predicate. symbol finds a symbol; it may be nil.
func ParsePredicate(text string, symbol func(name string) (Location, error)) (*Predicate, error) {
	kind, arg, found := strings.Cut(text, ":")
	bad := func(format string, args ...any) (*Predicate, error) {
		return nil, fmt.Errorf("predicate %q: %s: %w", text, fmt.Sprintf(format, args...), ErrPredicate)
	}
	if !found || arg == "" {
		return bad("it is not KIND:CONDITION with a kind of console, mem, virt, reg, exit, cmd")
	}
	q := &Predicate{text: text}
	switch kind {
	case "console":
		re, err := regexp.Compile(arg)
		if err != nil {
			return bad("%v", err)
		}
		q.console(re)
	case "mem", "virt":
		if err := q.memory(kind == "virt", arg, symbol); err != nil {
			return bad("%v", err)
		}
	case "reg":
		if err := q.register(arg); err != nil {
			return bad("%v", err)
		}
	case "exit":
		n, err := strconv.ParseUint(arg, 0, 32)
		if err != nil {
			return bad("%q is not a status", arg)
		}
		q.holds = func(_ context.Context, p *replay.Player) (bool, error) {
			why, status := p.Machine().Stopped()
			return why != vmm.Running && uint64(status) == n, nil
		}
	case "cmd":
		q.holds = func(ctx context.Context, p *replay.Player) (bool, error) { return command(ctx, arg, p) }
	default:
		return bad("no kind %q; the kinds are console, mem, virt, reg, exit, cmd", kind)
	}
	return q, nil
}

// console makes a predicate of a regular expression. What was said stays said, so the
// recorded console tells where, and one replay of an interval when.
func (q *Predicate) console(re *regexp.Regexp) {
	q.holds = func(_ context.Context, p *replay.Player) (bool, error) {
		return re.Match(p.RecordedConsole()[:p.Machine().Out()]), nil
	}
	q.step = func(p *replay.Player, from uint64) (uint64, bool, error) {
		at := re.FindIndex(p.RecordedConsole())
		if at == nil {
			return 0, false, nil
		}
		if at[1] == 0 {
			return p.Start(), true, nil
		}
		// The shortest beginning of the console that matches.
		lo, hi := at[0], at[1]
		for lo < hi {
			if mid := (lo + hi) / 2; re.Match(p.RecordedConsole()[:mid]) {
				hi = mid
			} else {
				lo = mid + 1
			}
		}
		step, err := p.OutputStep(uint64(hi - 1))
		if err != nil || step == vmm.Never { // said before the recording begins
			return from, err == nil, err
		}
		return max(step+1, from), true, nil // the byte is out after that instruction
	}
}

// condition splits "LEFT OP RIGHT".
func condition(arg string) (left, op, right string, err error) {
	for _, op := range []string{"==", "!=", "<", ">"} {
		if left, right, ok := strings.Cut(arg, op); ok {
			return strings.TrimSpace(left), op, strings.TrimSpace(right), nil
		}
	}
	return "", "", "", fmt.Errorf("%q has none of ==, !=, <, >", arg)
}

// maxMemory bounds in bytes what a predicate looks at.
const maxMemory = 1 << 20

func (q *Predicate) memory(virtual bool, arg string, symbol func(string) (Location, error)) error {
	left, op, right, err := condition(arg)
	if err != nil {
		return err
	}
	i := strings.LastIndexByte(left, ':')
	if i < 0 {
		return fmt.Errorf("%q is not ADDR:LEN", left)
	}
	n, err := strconv.ParseUint(left[i+1:], 0, 64)
	if err != nil || n == 0 || n > maxMemory {
		return fmt.Errorf("%q is not a length from 1 to %d", left[i+1:], maxMemory)
	}
	var location Location
	addr, err := strconv.ParseUint(left[:i], 0, 64)
	if err != nil {
		switch {
		case !virtual:
			return fmt.Errorf("%q is not an address; symbols are for virt", left[:i])
		case symbol == nil:
			return fmt.Errorf("%q is not an address", left[:i])
		}
		if location, err = symbol(left[:i]); err != nil {
			return err
		}
	}
	var want []byte
	var number uint64
	if op == "==" || op == "!=" {
		if want, err = hex.DecodeString(strings.TrimPrefix(right, "0x")); err != nil || uint64(len(want)) != n {
			return fmt.Errorf("%q is not %d bytes in hexadecimal, the first byte first", right, n)
		}
	} else if number, err = strconv.ParseUint(right, 0, 64); err != nil || n > 8 {
		return fmt.Errorf("%s compares a number with up to 8 bytes", op)
	}
	read := func(p *replay.Player) ([]byte, bool) {
		b := make([]byte, n)
		if virtual {
			c, at, ok := p.Machine().CPUs[0], addr, true
			if location != nil {
				at, ok = location(c)
			}
			return b, ok && replay.ReadVirtual(c, b, at) == len(b)
		}
		return b, p.Machine().RAM.ReadAt(b, addr)
	}
	q.holds = func(_ context.Context, p *replay.Player) (bool, error) {
		b, ok := read(p)
		if !ok && !virtual {
			return false, fmt.Errorf("predicate %q: physical address %#x, %d bytes: outside RAM: %w", q.text, addr, n, ErrPredicate)
		}
		if !ok {
			return false, nil // not mapped now
		}
		return compares(b, op, want, number), nil
	}
	if virtual {
		return nil // another mapping changes it as well as a write does
	}
	q.watch = func(p *replay.Player, touched func()) (func(), error) {
		m := p.Machine()
		w, err := m.Watch(addr, n, func(t *vmm.Touch) {
			if t.Kind == x86.Write {
				touched()
			}
		})
		if err != nil {
			return nil, fmt.Errorf("predicate %q: %w", q.text, err)
		}
		return func() { m.Unwatch(w) }, nil
	}
	return nil
}

// compares reports whether b is to want as op says, or, with < and >, the little-endian number in b to number.
func compares(b []byte, op string, want []byte, number uint64) bool {
	switch op {
	case "==":
		return bytes.Equal(b, want)
	case "!=":
		return !bytes.Equal(b, want)
	}
	var v uint64
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	if op == "<" {
		return v < number
	}
	return v > number
}

func (q *Predicate) register(arg string) error {
	left, op, right, err := condition(arg)
	if err != nil {
		return err
	}
	r, ok := x86.LookupRegister(left)
	if !ok {
		return fmt.Errorf("no register %q", left)
	}
	var want []byte // big-endian, as numbers are written
	var number uint64
	if r.Size <= 8 {
		if number, err = strconv.ParseUint(right, 0, 64); err != nil {
			return fmt.Errorf("%q is not a number", right)
		}
		for i := r.Size - 1; i >= 0; i-- {
			want = append(want, byte(number>>(8*i)))
		}
		if r.Size < 8 && number>>(8*r.Size) != 0 {
			return fmt.Errorf("%s has %d bits", r.Name, 8*r.Size)
		}
	} else if want, err = hex.DecodeString(strings.TrimPrefix(right, "0x")); err != nil || len(want) != r.Size || op == "<" || op == ">" {
		return fmt.Errorf("%s is compared by == or != with %d bytes in hexadecimal", r.Name, r.Size)
	}
	slices.Reverse(want)
	q.holds = func(_ context.Context, p *replay.Player) (bool, error) {
		b := r.Read(p.Machine().CPUs[0])
		return compares(b, op, want, number), nil
	}
	return nil
}

// Dump is a machine's state as a command gets it.
type Dump struct {
	Recording string            `json:"recording"`
	Step      uint64            `json:"step"`
	TimeNs    uint64            `json:"time_ns"`
	Registers map[string]string `json:"registers"`
	Console   string            `json:"console"` // all that the guest has said
	Stopped   string            `json:"stopped"`
}

// NewDump describes the state where a player stands.
func NewDump(p *replay.Player) *Dump {
	m := p.Machine()
	d := &Dump{Recording: p.Dir, Step: m.Step(), TimeNs: m.TimeNs(), Registers: map[string]string{}, Console: string(p.RecordedConsole()[:m.Out()])}
	why, _ := m.Stopped()
	d.Stopped = why.String()
	for _, r := range x86.Registers() {
		d.Registers[r.Name] = Hex(r.Read(m.CPUs[0]))
	}
	return d
}

// command runs a shell command with the state on its standard input.
func command(ctx context.Context, text string, p *replay.Player) (bool, error) {
	in, err := json.Marshal(NewDump(p))
	if err != nil {
		return false, err
	}
	c := exec.CommandContext(ctx, "sh", "-c", text)
	c.Env = append(os.Environ(), fmt.Sprintf("REFAULT_STEP=%d", p.Machine().Step()), "REFAULT_RECORDING="+p.Dir)
	var said bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &said, &said
	err = c.Run()
	var x *exec.ExitError
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.As(err, &x) && x.ExitCode() > 0 && x.ExitCode() < 125:
		return false, nil
	}
	// 125 to 127 are of commands that could not be run, as in git bisect.
	return false, fmt.Errorf("the command %q at step %d: %v: %.200s", text, p.Machine().Step(), err, strings.TrimSpace(said.String()))
}
