package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"refault/injectors"
	"refault/replay/gdb"
	"refault/vmm"
)

type gdbFlags struct {
	at     uint64
	listen string
}

var gdbVerb = verb{
	name:    "gdb",
	summary: "let GDB look at a recording, forward and back",
	long: `A server for GDB's remote protocol: registers, memory by virtual address, breakpoints,
watchpoints, stepi and continue, reverse-stepi and reverse-continue. Kernel symbols are sent
to GDB by themselves. Nothing can be changed: this is what happened.
With "target extended-remote", "starti N" goes to step N. "monitor help" in GDB lists more.
--listen is [HOST]:PORT (without HOST, this computer only), or stdio, for
  (gdb) target remote | refault gdb boot.rec --listen stdio`,
	example: "refault gdb boot.rec --at 812345678\ngdb -ex 'target extended-remote :1234' -ex 'break memory_failure' -ex continue",
	args:    "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		g := new(gdbFlags)
		f.Var(stepFlag{&g.at, true}, "at", "step to begin at, or end (default: the beginning)")
		f.StringVar(&g.listen, "listen", ":1234", "where GDB connects: [HOST]:PORT, or stdio")
		return g
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		g := c.flags.(*gdbFlags)
		var conn *gdb.Conn
		host, port, err := net.SplitHostPort(g.listen)
		switch {
		case g.listen == "stdio" && a.in == nil:
			return 0, usagef("--listen=stdio: there is no standard input")
		case g.listen == "stdio":
			conn = gdb.NewConn(struct {
				io.Reader
				io.Writer
			}{a.in, a.out})
		case err != nil:
			return 0, usagef("--listen: %q is neither [HOST]:PORT nor stdio", g.listen)
		case host == "":
			host = "localhost"
		}
		p, err := a.open(c.args[0])
		if err != nil {
			return 0, err
		}
		defer p.Close()
		defer withCancel(ctx, p.Interrupt)()
		switch {
		case !c.set.Changed("at"):
			g.at = p.Start()
		case g.at == vmm.Never:
			g.at = p.End()
		}
		prog := newProgress(a.err, "seeking")
		p.Progress = func(step, _ uint64) { prog.at(step, g.at) }
		err = p.Seek(g.at)
		prog.done()
		p.Progress = nil
		if err != nil {
			return 0, err
		}
		cfg := gdb.Config{Player: p}
		names := a.names(ctx, p)
		if k, err := names.kernel(); err == nil && k.symbols != nil {
			cfg.Symbols, cfg.Name = k.withModules(p.Machine()).ELF(), k.nameOf(p.Machine())
			cfg.Addr = func(name string) (uint64, bool) {
				addr, err := names.address(p.Machine(), name)
				return addr, err == nil
			}
		}
		s := gdb.New(cfg)
		defer s.Close()
		if conn != nil {
			return statusDone, s.Serve(conn)
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			return 0, fmt.Errorf("--listen: %w", err)
		}
		defer l.Close()
		fmt.Fprintf(a.err, "refault: %s is at step %d; in gdb: target remote %s\n", c.args[0], g.at, dialable(l.Addr()))
		return serveGDB(ctx, a, l, s)
	},
}

// serveGDB serves one connection after the other until ctx ends.
func serveGDB(ctx context.Context, a *app, l net.Listener, s *gdb.Server) (int, error) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return statusDone, nil
		}
		if err != nil {
			return 0, fmt.Errorf("waiting for gdb: %w", err)
		}
		undo := context.AfterFunc(ctx, func() { conn.Close() })
		err = s.Serve(gdb.NewConn(conn))
		undo()
		conn.Close()
		if ctx.Err() != nil {
			return statusDone, nil
		}
		// A connection that breaks, or somebody who speaks another protocol, is no reason to go.
		var n net.Error
		if err != nil && !errors.Is(err, gdb.ErrProtocol) && !errors.As(err, &n) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
			return 0, err
		}
		if err != nil {
			fmt.Fprintf(a.err, "refault: gdb: %s\n", oneLine(err))
		}
	}
}

// dialable writes an address as GDB takes it.
func dialable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		host = ""
	}
	return net.JoinHostPort(host, port)
}

type symbolsFlags struct {
	at   uint64
	out  string
	json bool
}

var symbolsVerb = verb{
	name:    "symbols",
	summary: "write the kernel's symbols as an ELF file, or list them",
	long: `The symbols of a recording's kernel, from its own kallsyms, or its symbol table where it
has one; with --at those of modules too, as the guest has them in its memory. With -o, as a file that debuggers read: gdb -ex 'symbol-file kernel.sym'.`,
	example: "refault symbols boot.rec -o kernel.sym --at 2e9\nrefault symbols boot.rec memory_failure",
	args:    "RECORDING [NAME...]", minArgs: 1, maxArgs: 1 << 10,
	flags: func(f *pflag.FlagSet) any {
		s := &symbolsFlags{at: vmm.Never}
		f.Var(stepFlag{&s.at, true}, "at", "with those of the modules that are loaded at this step")
		f.StringVarP(&s.out, "output", "o", "", "write an ELF file")
		f.BoolVar(&s.json, "json", false, "tell the result as JSON")
		return s
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		s := c.flags.(*symbolsFlags)
		p, err := a.open(c.args[0])
		if err != nil {
			return 0, err
		}
		defer p.Close()
		names := a.names(ctx, p)
		k, err := names.kernel()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.args[0], err)
		}
		t := k.symbols
		if t == nil {
			return 0, fmt.Errorf("%s: its kernel has no symbols", c.args[0])
		}
		if c.set.Changed("at") {
			if s.at == vmm.Never {
				s.at = p.End()
			}
			defer withCancel(ctx, p.Interrupt)()
			if err := p.Seek(s.at); err != nil {
				return 0, err
			}
			t = k.withModules(p.Machine())
		}
		if s.out != "" {
			if len(c.args) > 1 {
				return 0, usagef("-o writes all symbols; %q is one argument too many", c.args[1])
			}
			if err := os.WriteFile(s.out, t.ELF(), 0o666); err != nil {
				return 0, err
			}
			fmt.Fprintf(a.err, "refault: wrote %d symbols to %s\n", t.Len(), s.out)
			return statusDone, nil
		}
		type row struct {
			Addr uint64 `json:"addr"`
			Name string `json:"name"`
		}
		rows := []row{}
		if len(c.args) == 1 {
			for _, x := range t.Symbols() {
				rows = append(rows, row{x.Addr, x.Name})
			}
		}
		for _, name := range c.args[1:] {
			if _, err := injectors.ParseUint(name); err == nil {
				return 0, fmt.Errorf("%q is a number, not the name of a symbol", name)
			}
			addr, err := names.address(p.Machine(), name)
			if err != nil {
				return 0, err
			}
			rows = append(rows, row{addr, name})
		}
		if s.json {
			return statusDone, writeJSON(a.out, rows)
		}
		var b strings.Builder
		for _, r := range rows {
			fmt.Fprintf(&b, "%016x %s\n", r.Addr, r.Name)
		}
		_, err = io.WriteString(a.out, b.String())
		return statusDone, err
	},
}
