package gdb

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"refault/replay"
	"refault/vmm/x86"
)

// monitorCommand is a command after "monitor".
type monitorCommand struct {
	name, args, doc string
	run             func(s *Server, args []string) (string, error)
}

var monitorCommands []monitorCommand

func init() {
	monitorCommands = []monitorCommand{
		{"info", "", "where the machine is, and what the recording is", (*Server).info},
		{"step", "N", "go to step N; +N and -N are relative. GDB does not notice: type maintenance flush register-cache then, or use starti N (target extended-remote)", (*Server).gotoStep},
		{"console", "[N]", "the last N lines (10) that the guest had said", (*Server).console},
		{"registers", "[NAME...]", "registers by their names in refault", (*Server).registers},
		{"physical", "ADDR LEN", "memory by physical address", (*Server).physical},
		{"translate", "ADDR", "the physical address of a virtual one", (*Server).translate},
		{"disassemble", "[ADDR [N]]", "instructions as the processor would decode them now", (*Server).disassemble},
		{"help", "", "this list", func(*Server, []string) (string, error) { return monitorHelp(), nil }},
	}
}

func monitorHelp() string {
	var b strings.Builder
	for _, c := range monitorCommands {
		fmt.Fprintf(&b, "monitor %-24s %s\n", strings.TrimSpace(c.name+" "+c.args), c.doc)
	}
	return b.String()
}

// monitor carries out a command. A mistake in it is an answer; an error ends the session.
func (s *Server) monitor(text string) (string, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		words = []string{"help"}
	}
	for _, c := range monitorCommands {
		if !strings.HasPrefix(c.name, words[0]) {
			continue
		}
		out, err := c.run(s, words[1:])
		if m := (mistake{}); errors.As(err, &m) {
			return fmt.Sprintf("%s: %v\n", c.name, m.error), nil
		}
		return out, err
	}
	return fmt.Sprintf("no command %q\n%s", words[0], monitorHelp()), nil
}

// mistake is an error of the person, who is told and goes on.
type mistake struct{ error }

func mistaken(format string, args ...any) error { return mistake{fmt.Errorf(format, args...)} }

// number reads a number, or the name of a symbol.
func (s *Server) number(text string) (uint64, error) {
	if n, err := strconv.ParseUint(text, 0, 64); err == nil {
		return n, nil
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 && f < 1<<53 && f == float64(uint64(f)) {
		return uint64(f), nil
	}
	if a, ok := s.cfg.Addr(text); ok {
		return a, nil
	}
	return 0, mistaken("%q is neither a number nor a symbol", text)
}

func (s *Server) info([]string) (string, error) {
	c := s.p.Machine().CPUs[0]
	var b strings.Builder
	fmt.Fprintf(&b, "recording  %s, steps %d to %d\n", s.p.Dir, s.p.Start(), s.p.End())
	fmt.Fprintf(&b, "step       %d", c.Step)
	if s.delivered {
		fmt.Fprintf(&b, ", after the delivery of %s", x86.VectorName(s.vector))
	}
	fmt.Fprintf(&b, "\ntime       %d ns\n", s.p.Machine().TimeNs())
	fmt.Fprintf(&b, "processor  level %d, %d-bit code, %#x %s\n", c.CPL, 8*c.CodeSize(), c.Regs[x86.RIP], s.cfg.Name(c.Regs[x86.RIP]))
	for _, e := range s.p.Events() {
		if e.Fault != nil {
			when := "will strike"
			if e.Step < c.Step {
				when = "struck"
			}
			fmt.Fprintf(&b, "fault      %s at step %d: %s\n", when, e.Step, e.Fault.Spec)
		}
	}
	return b.String(), nil
}

func (s *Server) gotoStep(args []string) (string, error) {
	if len(args) != 1 {
		return "", mistaken("it needs a step")
	}
	text, here := args[0], s.p.Machine().Step()
	n, err := s.number(strings.TrimLeft(text, "+-"))
	if err != nil {
		return "", err
	}
	switch text[0] {
	case '+':
		n += here
	case '-':
		if n > here {
			return "", mistaken("step %d is the first", s.p.Start())
		}
		n = here - n
	}
	if n < s.p.Start() || n > s.p.End() {
		return "", mistaken("the recording has steps %d to %d", s.p.Start(), s.p.End())
	}
	was, err := interrupted(s.goTo(place{step: n}))
	if err != nil {
		return "", err
	}
	s.last = stop{interrupted: was}
	return fmt.Sprintf("at step %d; now type: maintenance flush register-cache\n", s.p.Machine().Step()), nil
}

func (s *Server) console(args []string) (string, error) {
	n := uint64(10)
	if len(args) > 0 {
		var err error
		if n, err = s.number(args[0]); err != nil {
			return "", err
		}
	}
	said := string(s.p.RecordedConsole()[:s.p.Machine().Out()])
	lines := strings.SplitAfter(said, "\n")
	if uint64(len(lines)) > n {
		lines = lines[uint64(len(lines))-n:]
	}
	return strings.TrimRight(strings.ReplaceAll(strings.Join(lines, ""), "\r", ""), "\n") + "\n", nil
}

func (s *Server) registers(args []string) (string, error) {
	var b strings.Builder
	c := s.p.Machine().CPUs[0]
	show := func(r *x86.Register) {
		v := r.Read(c)
		fmt.Fprintf(&b, "%-14s 0x", r.Name)
		for i := len(v) - 1; i >= 0; i-- {
			fmt.Fprintf(&b, "%02x", v[i])
		}
		b.WriteByte('\n')
	}
	for _, name := range args {
		r, ok := x86.LookupRegister(name)
		if !ok {
			return "", mistaken("no register %q", name)
		}
		show(r)
	}
	if len(args) == 0 {
		all := x86.Registers()
		for i := range all {
			show(&all[i])
		}
	}
	return b.String(), nil
}

func (s *Server) physical(args []string) (string, error) {
	if len(args) != 2 {
		return "", mistaken("it needs an address and a length")
	}
	addr, err := s.number(args[0])
	if err != nil {
		return "", err
	}
	n, err := s.number(args[1])
	if err != nil {
		return "", err
	}
	if n > 1<<16 {
		return "", mistaken("%d bytes are too many (at most %d)", n, 1<<16)
	}
	mem := make([]byte, n)
	if !s.p.Machine().RAM.ReadAt(mem, addr) {
		return "", mistaken("physical addresses %#x to %#x are not all RAM", addr, addr+n)
	}
	var b strings.Builder
	for at := 0; at < len(mem); at += 16 {
		fmt.Fprintf(&b, "%#x: % x\n", addr+uint64(at), mem[at:min(at+16, len(mem))])
	}
	return b.String(), nil
}

func (s *Server) translate(args []string) (string, error) {
	if len(args) != 1 {
		return "", mistaken("it needs an address")
	}
	va, err := s.number(args[0])
	if err != nil {
		return "", err
	}
	pa, ok := s.p.Machine().CPUs[0].Translate(va)
	if !ok {
		return "", mistaken("%#x is not mapped", va)
	}
	return fmt.Sprintf("%#x\n", pa), nil
}

func (s *Server) disassemble(args []string) (string, error) {
	c := s.p.Machine().CPUs[0]
	at, n := c.Regs[x86.RIP], uint64(8)
	var err error
	if len(args) > 0 {
		if at, err = s.number(args[0]); err != nil {
			return "", err
		}
	}
	if len(args) > 1 {
		if n, err = s.number(args[1]); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	for range min(n, 1000) {
		code := replay.CodeAt(c, at)
		text, size := x86.Disassemble(code, c.CodeSize(), at, s.cfg.Name)
		fmt.Fprintf(&b, "%016x  %-30s %s", at, hex.EncodeToString(code[:min(size, len(code))]), text)
		if name := s.cfg.Name(at); name != "" {
			fmt.Fprintf(&b, "  <%s>", name)
		}
		b.WriteByte('\n')
		if size == 0 {
			break
		}
		at += uint64(size)
	}
	return b.String(), nil
}
