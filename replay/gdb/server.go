package gdb

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"refault/replay"
)

// Config says what a Server serves.
type Config struct {
	Player *replay.Player
	// Symbols is an ELF file with the kernel's symbols, or nil.
	Symbols []byte
	// Name names an address, or returns "".
	Name func(addr uint64) string
	// Addr returns the address of a symbol.
	Addr func(name string) (uint64, bool)
}

// Server lets one GDB after the other look at a recording.
type Server struct {
	p   *replay.Player
	cfg Config
	tl  *replay.Timeline

	delivered bool // see place
	vector    uint8
	breaks    map[uint64]*breakpoint
	watches   []watchpoint
	last      stop
	l         *Conn
	moving    atomic.Bool
	extended  bool // the session stays when the target is killed
}

// breakpoint counts how often a breakpoint was inserted, by its kind.
type breakpoint struct{ soft, hard int }

// New returns a Server that stands where its Player stands.
func New(cfg Config) *Server {
	if cfg.Name == nil {
		cfg.Name = func(uint64) string { return "" }
	}
	if cfg.Addr == nil {
		cfg.Addr = func(string) (uint64, bool) { return 0, false }
	}
	return &Server{p: cfg.Player, cfg: cfg, tl: replay.NewTimeline(cfg.Player), breaks: map[uint64]*breakpoint{}}
}

// Close frees what the Server holds of its Player.
func (s *Server) Close() { s.tl.Close() }

// errDone ends a session: GDB detached or killed the target.
var errDone = errors.New("the session is over")

// Serve talks with one GDB until it leaves. The error is that of the connection, of the
// protocol, or of the recording.
func (s *Server) Serve(conn *Conn) error {
	s.l = conn
	interrupt := func() {
		if s.moving.Load() {
			s.p.Interrupt()
		}
	}
	conn.interrupt.Store(&interrupt)
	defer conn.close()
	s.breaks, s.watches, s.extended = map[uint64]*breakpoint{}, nil, false
	for p := range s.l.packet {
		answer, err := s.packet(string(p))
		switch {
		case errors.Is(err, errDone):
			if answer != "" {
				return s.l.send([]byte(answer))
			}
			return nil
		case err != nil:
			s.l.send([]byte("E.errtext." + oneLine(err)))
			return err
		}
		if err := s.l.send([]byte(answer)); err != nil {
			return err
		}
	}
	return s.l.err
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Answers that need no words.
const (
	ok          = "OK"
	unsupported = ""
	refused     = "E01" // bad arguments, or a change of what has happened
	unmapped    = "E0e" // EFAULT
)

// packet carries out one packet. An error ends the session.
func (s *Server) packet(p string) (string, error) {
	if p == "" {
		return unsupported, nil
	}
	arg := p[1:]
	switch p[0] {
	case '?':
		return s.stopReply(), nil
	case 'g':
		return s.readAll(), nil
	case 'p':
		return s.readOne(arg), nil
	case 'm':
		return s.readMemory(arg), nil
	case 'G', 'P', 'M', 'X':
		return refused, nil
	case 'Z', 'z':
		return s.point(p[0] == 'Z', arg), nil
	case 'c':
		return s.resume('c', arg)
	case 's':
		return s.resume('s', arg)
	case 'C', 'S':
		return s.resume(p[0]|0x20, "")
	case 'b':
		switch arg {
		case "s":
			return s.move(s.backOne)
		case "c":
			return s.move(s.backward)
		}
		return unsupported, nil
	case 'v':
		return s.verbose(arg)
	case 'q', 'Q':
		return s.query(p)
	case 'H', 'T':
		return ok, nil
	case '!':
		s.extended = true
		return ok, nil
	case 'D':
		return ok, errDone
	case 'k':
		return "", errDone
	}
	return unsupported, nil
}

// stopReply tells why the machine stands where it stands.
func (s *Server) stopReply() string {
	const trap, interrupt = "05", "02"
	t := &s.last
	switch {
	case t.interrupted:
		return "T" + interrupt + "thread:1;"
	case t.hit != nil && t.hit.watch != nil:
		return fmt.Sprintf("T%s%s:%x;thread:1;", trap, watchNames[t.hit.watch.kind], t.hit.watch.addr)
	case t.hit != nil && t.hit.hard:
		return "T" + trap + "hwbreak:;thread:1;"
	case t.hit != nil:
		return "T" + trap + "swbreak:;thread:1;"
	case t.begin:
		return "T" + trap + "replaylog:begin;thread:1;"
	case t.end:
		return "T" + trap + "replaylog:end;thread:1;"
	}
	return "T" + trap + "thread:1;"
}

func (s *Server) resume(how byte, addr string) (string, error) {
	if addr != "" {
		return refused, nil // to go on elsewhere would be another run
	}
	if how == 's' {
		return s.move(s.stepOne)
	}
	return s.move(s.forward)
}

// move moves the machine and tells where it stopped.
func (s *Server) move(by func() (stop, error)) (string, error) {
	s.moving.Store(true)
	t, err := by()
	s.moving.Store(false)
	if err != nil {
		return "", err
	}
	s.last = t
	return s.stopReply(), nil
}

func (s *Server) readAll() string {
	c := s.p.Machine().CPUs[0]
	var b []byte
	for _, r := range registers {
		v := make([]byte, r.size)
		r.get(c, v)
		b = append(b, v...)
	}
	return hex.EncodeToString(b)
}

func (s *Server) readOne(arg string) string {
	n, err := strconv.ParseUint(arg, 16, 16)
	if err != nil || n >= uint64(len(registers)) {
		return refused
	}
	v := make([]byte, registers[n].size)
	registers[n].get(s.p.Machine().CPUs[0], v)
	return hex.EncodeToString(v)
}

// numbers reads hexadecimal numbers between commas.
func numbers(arg string, n int) ([]uint64, bool) {
	parts := strings.Split(arg, ",")
	if len(parts) != n {
		return nil, false
	}
	v := make([]uint64, n)
	for i, p := range parts {
		var err error
		if v[i], err = strconv.ParseUint(p, 16, 64); err != nil {
			return nil, false
		}
	}
	return v, true
}

func (s *Server) readMemory(arg string) string {
	v, good := numbers(arg, 2)
	if !good {
		return refused
	}
	b := make([]byte, min(v[1], maxPacket/2-8))
	n := replay.ReadVirtual(s.p.Machine().CPUs[0], b, v[0])
	if n == 0 && len(b) > 0 {
		return unmapped
	}
	return hex.EncodeToString(b[:n])
}

// point inserts or removes a breakpoint or watchpoint.
func (s *Server) point(insert bool, arg string) string {
	if arg == "" {
		return unsupported
	}
	kind, rest, _ := strings.Cut(arg, ",")
	rest, _, _ = strings.Cut(rest, ";") // conditions are GDB's own business
	v, good := numbers(rest, 2)
	if !good {
		return refused
	}
	switch kind {
	case "0", "1":
		b := s.breaks[v[0]]
		if b == nil {
			b = &breakpoint{}
		}
		n := &b.soft
		if kind == "1" {
			n = &b.hard
		}
		switch {
		case insert:
			*n++
			s.breaks[v[0]] = b
		case *n > 0:
			*n--
		}
		if b.soft+b.hard == 0 {
			delete(s.breaks, v[0])
		}
		return ok
	case "2", "3", "4":
		w := watchpoint{watchKind(kind[0]), v[0], v[1]}
		if w.len == 0 || w.addr+w.len-1 < w.addr {
			return refused
		}
		if insert {
			s.watches = append(s.watches, w)
			return ok
		}
		for i := range s.watches {
			if s.watches[i] == w {
				s.watches = append(s.watches[:i], s.watches[i+1:]...)
				break
			}
		}
		return ok
	}
	return unsupported
}

// verbose carries out the packets that begin with v.
func (s *Server) verbose(arg string) (string, error) {
	name, rest, _ := strings.Cut(arg, ";")
	switch {
	case arg == "Cont?":
		return "vCont;c;C;s;S", nil
	case name == "Cont" && rest != "":
		return s.resume(rest[0]|0x20, "")
	case strings.HasPrefix(arg, "File:"):
		return s.file(arg[len("File:"):]), nil
	case name == "Kill":
		// In extended mode vRun follows, or GDB hangs up.
		if s.extended {
			return ok, nil
		}
		return ok, errDone
	case name == "Run": // "run STEP" goes to that step
		parts := strings.Split(rest, ";")
		to := s.p.Start()
		if len(parts) > 1 && parts[1] != "" {
			text, _ := hex.DecodeString(parts[1])
			n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 0, 64)
			if err != nil || n < s.p.Start() || n > s.p.End() {
				return fmt.Sprintf("E.errtext.the recording has steps %d to %d", s.p.Start(), s.p.End()), nil
			}
			to = n
		}
		return s.move(func() (stop, error) {
			was, err := interrupted(s.goTo(place{step: to}))
			return stop{interrupted: was}, err
		})
	}
	return unsupported, nil
}

// query carries out general queries.
func (s *Server) query(p string) (string, error) {
	name, arg, _ := strings.Cut(p, ":")
	switch {
	case name == "qSupported":
		return fmt.Sprintf("PacketSize=%x;QStartNoAckMode+;vContSupported+;ReverseStep+;ReverseContinue+;swbreak+;hwbreak+;"+
			"qXfer:features:read+;qXfer:exec-file:read+;error-message+", maxPacket), nil
	case p == "QStartNoAckMode":
		s.l.quiet()
		return ok, nil
	case name == "qXfer":
		return s.transfer(arg), nil
	case p == "qC":
		return "QC1", nil
	case p == "qfThreadInfo":
		return "m1", nil
	case p == "qsThreadInfo":
		return "l", nil
	case strings.HasPrefix(p, "qThreadExtraInfo,"):
		return hex.EncodeToString([]byte(fmt.Sprintf("processor 0, step %d", s.p.Machine().Step()))), nil
	case strings.HasPrefix(p, "qAttached"):
		return "1", nil
	case strings.HasPrefix(p, "qRcmd,"):
		text, err := hex.DecodeString(p[len("qRcmd,"):])
		if err != nil {
			return refused, nil
		}
		out, err := s.monitor(string(text))
		if err != nil {
			return "", err
		}
		// What is too long for one packet goes before the answer, as console output.
		for len(out) > maxPacket/2-8 {
			if err := s.l.send([]byte("O" + hex.EncodeToString([]byte(out[:maxPacket/2-8])))); err != nil {
				return "", err
			}
			out = out[maxPacket/2-8:]
		}
		if out == "" {
			return ok, nil
		}
		return hex.EncodeToString([]byte(out)), nil
	}
	return unsupported, nil
}

// transfer reads a part of an object: the description of the registers, the name of the symbol file.
func (s *Server) transfer(arg string) string {
	parts := strings.Split(arg, ":") // object, read, annex, offset,length
	if len(parts) != 4 || parts[1] != "read" {
		return unsupported
	}
	v, good := numbers(parts[3], 2)
	if !good {
		return refused
	}
	var object string
	switch {
	case parts[0] == "features" && parts[2] == "target.xml":
		object = targetXML()
	case parts[0] == "exec-file" && s.cfg.Symbols != nil:
		object = symbolFile
	default:
		return "E00"
	}
	if v[0] >= uint64(len(object)) {
		return "l"
	}
	object = object[v[0]:]
	if n := min(v[1], maxPacket/2); uint64(len(object)) > n {
		return "m" + object[:n]
	}
	return "l" + object
}
