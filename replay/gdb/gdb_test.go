package gdb

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"refault/test/recorded"
	"refault/vmm"
	"refault/vmm/x86"
)

// client is GDB's side of a connection.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	ack  bool
}

// dial starts a server for a recording at a step, and connects.
func dial(t *testing.T, dir string, step uint64) *client {
	t.Helper()
	p := recorded.Open(t, dir)
	if err := p.Seek(step); err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	s := New(Config{Player: p, Symbols: []byte("symbols $#}* of the kernel"), Addr: func(n string) (uint64, bool) { return 0x100000, n == "start" }})
	served := make(chan error, 1)
	go func() {
		defer theirs.Close()
		defer s.Close()
		served <- s.Serve(NewConn(theirs))
	}()
	c := &client{t: t, conn: ours, in: bufio.NewReader(ours), ack: true}
	t.Cleanup(func() {
		ours.Close()
		if err := <-served; err != nil && !strings.Contains(err.Error(), "closed pipe") {
			t.Error(err)
		}
	})
	return c
}

// ask sends a packet and returns the answer.
func (c *client) ask(p string) string {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.conn, "$%s#%02x", p, checksum([]byte(p))); err != nil {
		c.t.Fatalf("%s: %v", p, err)
	}
	if c.ack {
		if b, err := c.in.ReadByte(); b != '+' {
			c.t.Fatalf("%s: acknowledged with %q, %v", p, b, err)
		}
	}
	if b, err := c.in.ReadByte(); b != '$' {
		c.t.Fatalf("%s: answered with %q, %v", p, b, err)
	}
	raw, err := c.in.ReadBytes('#')
	if err != nil {
		c.t.Fatalf("%s: %v", p, err)
	}
	raw = raw[:len(raw)-1]
	var sum [2]byte
	c.in.Read(sum[:1])
	c.in.Read(sum[1:])
	if want := fmt.Sprintf("%02x", checksum(raw)); string(sum[:]) != want {
		c.t.Fatalf("%s: checksum %s, not %s", p, sum, want)
	}
	if c.ack {
		c.conn.Write([]byte("+"))
	}
	return string(unescape(raw))
}

func (c *client) want(p, answer string) {
	c.t.Helper()
	if got := c.ask(p); got != answer {
		c.t.Errorf("%s: %q, want %q", p, got, answer)
	}
}

func regNumber(name string) int {
	for i, r := range registers {
		if r.name == name {
			return i
		}
	}
	panic("BUG: " + name)
}

func (c *client) register(name string) uint64 {
	c.t.Helper()
	b, err := hex.DecodeString(c.ask(fmt.Sprintf("p%x", regNumber(name))))
	if err != nil {
		c.t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(append(b, make([]byte, 8)...))
}

// executed is one instruction of the reference.
type executed struct {
	step      uint64
	rip       uint64
	delivered bool
	writes    []uint64
}

// history lists what is executed from one step to another, in order, what faults included.
func history(t *testing.T, dir string, from, to uint64) (h []executed) {
	p := recorded.Open(t, dir)
	if err := p.Seek(from); err != nil {
		t.Fatal(err)
	}
	o := &vmm.Observer{
		Code: vmm.Everywhere, Data: vmm.Everywhere,
		Before: func(c *x86.CPU, la uint64, _ *x86.Inst) {
			h = append(h, executed{step: c.Step, rip: la, delivered: c.DeliveredAt == c.Step})
		},
		Access: func(c *x86.CPU, va uint64, n int, kind x86.Access) {
			if kind == x86.Write && len(h) > 0 && h[len(h)-1].step == c.Step {
				h[len(h)-1].writes = append(h[len(h)-1].writes, va)
			}
		},
	}
	p.Machine().Observe(o)
	if err := p.RunTo(to); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestRegistersAndMemory(t *testing.T) {
	dir := recorded.Golden(t, 6)
	const at = 123_456
	ref := recorded.Open(t, dir)
	if err := ref.Seek(at); err != nil {
		t.Fatal(err)
	}
	cpu := ref.Machine().CPUs[0]
	c := dial(t, dir, at)
	c.want("?", "T05thread:1;")
	if got := c.register("rip"); got != cpu.Regs[x86.RIP] {
		t.Errorf("rip is %#x, want %#x", got, cpu.Regs[x86.RIP])
	}
	if got := c.register("step"); got != at {
		t.Errorf("step is %d", got)
	}
	all, one := c.ask("g"), ""
	for i := range registers {
		one += c.ask(fmt.Sprintf("p%x", i))
	}
	if all != one || len(all) != 2*608 {
		t.Errorf("g gives %d digits\n%s\nthe registers one by one\n%s", len(all), all, one)
	}
	ram := make([]byte, 64)
	ref.Machine().RAM.ReadAt(ram, 0x100000)
	c.want("m100000,40", hex.EncodeToString(ram))
	c.want("m100000,0", "")
	c.want("mffffffffff000000,4", unmapped)
	c.want("m100000", refused)
	c.want("m,", refused)
	c.want("mx,4", refused)
	c.want("pffff", refused)
	for _, change := range []string{"P0=0000000000000000", "M100000,1:00", "X100000,1:x", "G00", "c100000", "s100000"} {
		c.want(change, refused)
	}
	c.want("qNothing", "")
	c.want("i", "")
	c.want("", "")
}

func TestFeatures(t *testing.T) {
	c := dial(t, recorded.Golden(t, 6), 1000)
	if s := c.ask("qSupported:multiprocess+"); !strings.Contains(s, "ReverseContinue+") {
		t.Errorf("qSupported: %s", s)
	}
	c.want("QStartNoAckMode", "OK")
	c.ack = false
	var xml string
	for {
		s := c.ask(fmt.Sprintf("qXfer:features:read:target.xml:%x,400", len(xml)))
		xml += s[1:]
		if s[0] == 'l' {
			break
		}
	}
	if xml != targetXML() {
		t.Errorf("target.xml comes as %s", xml)
	}
	c.want("qXfer:features:read:other.xml:0,10", "E00")
	c.want("qXfer:exec-file:read:1:0,100", "l"+symbolFile)
	c.want("vFile:setfs:0", "F0")
	c.want("vFile:open:"+hex.EncodeToString([]byte("/etc/passwd"))+",0,0", "F-1,2")
	c.want("vFile:open:"+hex.EncodeToString([]byte(symbolFile))+",1,0", "F-1,1e")
	c.want("vFile:open:"+hex.EncodeToString([]byte(symbolFile))+",0,1c0", "F3")
	c.want("vFile:pread:3,9,8", "F9;$#}* of t")
	c.want("vFile:pread:3,9,1000", "F0;")
	c.want("vFile:pread:4,9,8", "F-1,9")
	c.want("vFile:close:3", "F0")
	if s := c.ask("vFile:fstat:3"); !strings.HasPrefix(s, "F40;") || len(s) != 4+64 || s[4+35] != 26 {
		t.Errorf("fstat: %q", s)
	}
}

// TestBreakpoints goes through the occurrences of an instruction, of one that faults, and of handlers' first ones, forward and back.
func TestBreakpoints(t *testing.T) {
	dir := recorded.Golden(t, 6)
	const from, to = 20_000, 200_000
	all := history(t, dir, from, to)
	count := map[uint64]int{}
	handler := map[uint64]bool{}
	for _, x := range all {
		count[x.rip]++
		handler[x.rip] = handler[x.rip] || x.delivered
	}
	var plain, entry, faulting uint64
	for i, x := range all {
		switch n := count[x.rip]; {
		case handler[x.rip] && n > 3:
			entry = x.rip
		case n > 3 && n < 12:
			plain = x.rip
		}
		if i+1 < len(all) && all[i+1].step == x.step && !x.delivered {
			faulting = x.rip
		}
	}
	if plain == 0 || entry == 0 || faulting == 0 {
		t.Fatalf("the guest has no such instructions: %#x, %#x, %#x", plain, entry, faulting)
	}
	for name, rip := range map[string]uint64{"often": plain, "handler": entry, "faulting": faulting} {
		t.Run(name, func(t *testing.T) {
			var want []executed
			for _, x := range all {
				if x.rip == rip {
					want = append(want, x)
				}
			}
			if len(want) > 40 {
				want = want[:40]
			}
			c := dial(t, dir, from)
			c.want(fmt.Sprintf("Z0,%x,1", rip), "OK")
			check := func(x executed) {
				t.Helper()
				if r, s := c.register("rip"), c.register("step"); r != rip || s != x.step {
					t.Fatalf("stopped at %#x, step %d; want %#x, step %d", r, s, rip, x.step)
				}
			}
			if want[0].step == from {
				want = want[1:] // it stands there
			}
			for _, x := range want {
				c.want("vCont;c", "T05swbreak:;thread:1;")
				check(x)
			}
			for i := len(want) - 2; i >= 0; i-- {
				c.want("bc", "T05swbreak:;thread:1;")
				check(want[i])
			}
			c.want(fmt.Sprintf("z0,%x,1", rip), "OK")
			c.want("bc", "T05replaylog:begin;thread:1;")
			c.want("bs", "T05replaylog:begin;thread:1;")
			c.want("c", "T05replaylog:end;thread:1;")
			c.want("s", "T05replaylog:end;thread:1;")
			c.want(fmt.Sprintf("Z1,%x,1", rip), "OK")
			if got := c.ask("bc"); got != "T05hwbreak:;thread:1;" {
				t.Errorf("back from the end: %s", got)
			}
		})
	}
}

func TestWatchpoints(t *testing.T) {
	dir := recorded.Golden(t, 6)
	const from, to = 20_000, 150_000
	all := history(t, dir, from, to)
	count, last := map[uint64]int{}, map[uint64]uint64{}
	for _, x := range all {
		for _, va := range x.writes {
			if last[va] != x.step {
				count[va]++
				last[va] = x.step
			}
		}
	}
	var addr uint64
	for va, n := range count {
		if n >= 3 && n < 8 && va > addr {
			addr = va
		}
	}
	var want []uint64
	for _, x := range all {
		for _, va := range x.writes {
			if va <= addr && addr < va+4 && (len(want) == 0 || want[len(want)-1] != x.step) {
				want = append(want, x.step)
			}
		}
	}
	if addr == 0 || len(want) < 3 {
		t.Fatalf("no word that is written some times: %#x, %d", addr, want)
	}
	c := dial(t, dir, from)
	c.want(fmt.Sprintf("Z2,%x,1", addr), "OK")
	stopped := fmt.Sprintf("T05watch:%x;thread:1;", addr)
	for _, step := range want {
		c.want("c", stopped)
		if s := c.register("step"); s != step+1 {
			t.Fatalf("stopped at step %d, written by step %d", s, step)
		}
	}
	for i := len(want) - 1; i >= 0; i-- { // the last is undone first
		c.want("bc", stopped)
		if s := c.register("step"); s != want[i] {
			t.Fatalf("back at step %d, written by step %d", s, want[i])
		}
	}
	c.want("s", stopped)
	c.want("Z2,0,0", refused)
	c.want("Z9,0,1", "")
	c.want("Z0", refused)
}

// TestStepsForwardAndBack steps over interrupts, faults and string instructions and back again.
func TestStepsForwardAndBack(t *testing.T) {
	dir := recorded.Golden(t, 6)
	const from = 30_000
	all := history(t, dir, from, from+45_000)
	// Around the first fault, and around the first interrupt.
	var places []uint64
	for i, x := range all {
		if x.delivered && i > 0 {
			places = append(places, x.step)
		}
	}
	if len(places) < 2 {
		t.Fatal("nothing is delivered in this part")
	}
	for _, at := range []uint64{places[0], places[len(places)-1]} {
		c := dial(t, dir, at-20)
		var seen []string
		for range 60 {
			seen = append(seen, c.ask("g"))
			c.want("vCont;s:1", "T05thread:1;")
		}
		for i := len(seen) - 1; i >= 0; i-- {
			c.want("bs", "T05thread:1;")
			if got := c.ask("g"); got != seen[i] {
				t.Fatalf("%d steps back: %s, forward it was %s", len(seen)-i, got, seen[i])
			}
		}
		// The places are those of the history.
		var want []executed
		for _, x := range all {
			if x.step >= at-20 {
				want = append(want, x)
			}
		}
		k := 0
		for i, g := range seen {
			raw, _ := hex.DecodeString(g)
			switch rip := binary.LittleEndian.Uint64(raw[16*8:]); {
			case rip == want[k].rip:
				k++
			case want[k].delivered: // it stands before what the interrupt came in front of
			default:
				t.Fatalf("stop %d: at %#x, want %#x", i, rip, want[k].rip)
			}
		}
		if k < len(seen)-5 {
			t.Errorf("only %d of %d stops were before an instruction", k, len(seen))
		}
	}
}

func TestMonitor(t *testing.T) {
	c := dial(t, recorded.Golden(t, 6), 100_000)
	say := func(text string) string {
		t.Helper()
		out, err := hex.DecodeString(c.ask("qRcmd," + hex.EncodeToString([]byte(text))))
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for text, want := range map[string]string{
		"info": "step       100000", "help": "monitor step N", "": "monitor info", "nonsense": "no command",
		"step": "it needs a step", "step x": "neither a number nor a symbol", "step 1e12": "the recording has steps",
		"console": "tiny", "registers rax cr3": "cr3", "registers nix": "no register", "physical 0x100000 20": "0x100010:", "physical start 4": "0x100000:",
		"physical 0xffffffff 4": "not all RAM", "translate 0x100000": "0x100000", "translate 0xfffff000": "not mapped", "disassemble start 2": "0000000000100000",
	} {
		if got := say(text); !strings.Contains(got, want) {
			t.Errorf("monitor %s: %q, want %q in it", text, got, want)
		}
	}
	say("step 123456")
	if s := c.register("step"); s != 123_456 {
		t.Errorf("at step %d", s)
	}
	say("step -456")
	say("step +1")
	if s := c.register("step"); s != 123_001 {
		t.Errorf("at step %d", s)
	}
	c.want("vRun;;"+hex.EncodeToString([]byte("77777")), "T05thread:1;")
	if s := c.register("step"); s != 77_777 {
		t.Errorf("run goes to step %d", s)
	}
	if got := c.ask("vRun;;" + hex.EncodeToString([]byte("1e99"))); !strings.HasPrefix(got, "E.") {
		t.Errorf("run to nowhere: %s", got)
	}
	c.want("D", "OK")
}

func TestInterrupt(t *testing.T) {
	c := dial(t, recorded.Golden(t, 6), 0)
	c.conn.Write([]byte{interruptByte}) // nothing is running: it is for nobody
	c.want("s", "T05thread:1;")
	fmt.Fprintf(c.conn, "$c#%02x", 'c')
	c.in.ReadByte() // +
	c.conn.Write([]byte{interruptByte})
	answer, err := c.in.ReadString('#')
	if err != nil || answer != "$T02thread:1;#" && answer != "$T05replaylog:end;thread:1;#" {
		t.Errorf("answer %q, %v", answer, err)
	}
}

type readWriter struct {
	io.Reader
	io.Writer
}

func TestWhatIsNotTheProtocol(t *testing.T) {
	p := recorded.Open(t, recorded.Golden(t, 6))
	if err := p.Seek(0); err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"GET / HTTP/1.1\r\n\r\n", "$" + strings.Repeat("x", maxPacket+1), "$abc"} {
		var out bytes.Buffer
		err := New(Config{Player: p}).Serve(NewConn(readWriter{strings.NewReader(b), &out}))
		if err == nil && b[0] != '$' {
			t.Errorf("%.20q was taken for a packet", b)
		}
	}
}

func FuzzServe(f *testing.F) {
	for _, p := range []string{"?", "g", "p10", "m100000,20", "Z0,100000,1", "z2,0,4", "vCont;s", "bs", "bc", "qXfer:features:read:target.xml:0,ff", "qRcmd,6865", "vFile:pread:3,1,2", "vRun;;31", "H", "v", "b", "qRcmd,zz"} {
		f.Add([]byte(fmt.Sprintf("$%s#%02x+", p, checksum([]byte(p)))))
	}
	f.Add([]byte("\x03$c}#00"))
	dir := recorded.Golden(f, 6)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := recorded.Open(t, dir)
		if err := p.Seek(1000); err != nil {
			t.Fatal(err)
		}
		s := New(Config{Player: p, Symbols: []byte("symbols")})
		defer s.Close()
		s.Serve(NewConn(readWriter{bytes.NewReader(b), io.Discard}))
	})
}
