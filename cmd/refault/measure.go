package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"refault/vmm"
	"refault/vmm/x86/jit"
)

// measureFlags say what is to be told about how the instructions were executed.
type measureFlags struct {
	stats   string
	perfMap bool

	perf   *perfMap
	result *vmm.Stats
}

const (
	statsTable = "table"
	statsJSON  = "json"
)

func (m *measureFlags) add(f *pflag.FlagSet) {
	f.StringVar(&m.stats, "stats", "", "tell on standard error how instructions were executed, as a table or as json")
	f.Lookup("stats").NoOptDefVal = statsTable
	f.BoolVar(&m.perfMap, "perf-map", false, "name translated code for Linux perf, in /tmp/perf-PID.map")
}

// check refuses flags that make no sense for an engine.
func (m *measureFlags) check(engine string) error {
	if m.stats != "" && m.stats != statsTable && m.stats != statsJSON {
		return usagef("--stats is %q; it can be %s or %s", m.stats, statsTable, statsJSON)
	}
	if m.perfMap && engine == string(vmm.EngineInterp) {
		return usagef("--perf-map: the interpreter makes no code to name")
	}
	return nil
}

// begin starts to measure a machine that executed nothing yet. read reads its kernel.
func (m *measureFlags) begin(vm *vmm.Machine, read func() (*kernel, error)) (err error) {
	if !m.perfMap {
		return nil
	}
	if vm.Engine() != vmm.EngineJIT {
		return errors.New("--perf-map: this host has only the interpreter, which makes no code to name")
	}
	k, err := read()
	if err != nil {
		return fmt.Errorf("--perf-map: %w", err)
	}
	if m.perf, err = newPerfMap(perfMapPath(os.Getpid()), k.nameOf(vm)); err != nil {
		return fmt.Errorf("--perf-map: %w", err)
	}
	vm.JIT().SetCodeMap(m.perf.codeMap())
	return nil
}

// end takes the results, while the machine is still there.
func (m *measureFlags) end(vm *vmm.Machine) error {
	if m.stats != "" {
		m.result = vm.Stats()
	}
	if m.perf == nil {
		return nil
	}
	vm.JIT().SetCodeMap(nil)
	return m.perf.close()
}

// print tells the results.
func (m *measureFlags) print(w io.Writer) error {
	switch {
	case m.result == nil:
		return nil
	case m.stats == statsJSON:
		return writeJSON(w, m.result)
	}
	out := bufio.NewWriter(w)
	statsText(out, m.result)
	return out.Flush()
}

// statsText writes a table of how instructions were executed.
func statsText(w io.Writer, s *vmm.Stats) {
	row := func(name string, n uint64, more string) { fmt.Fprintf(w, "  %-40s %15s%s\n", name, grouped(n), more) }
	share := func(n, of uint64) string { return fmt.Sprintf("  %5.1f %%", 100*float64(n)/float64(max(of, 1))) }
	list := func(title string, l []vmm.Count) {
		if len(l) == 0 {
			return
		}
		fmt.Fprintln(w, title)
		const top = 25
		for i, c := range l {
			if i == top {
				fmt.Fprintf(w, "  and %d more\n", len(l)-top)
				break
			}
			row(c.Name, c.Count, fmt.Sprintf("  %5.1f %%", 100*c.Share))
		}
	}
	n := &s.Instructions
	fmt.Fprintf(w, "instructions executed (engine %s)\n", s.Engine)
	row("all", n.Total, "")
	row("translated", n.Translated, share(n.Translated, n.Total))
	row("interpreted", n.Interpreted, share(n.Interpreted, n.Total))
	if s.Engine == vmm.EngineJIT {
		fmt.Fprintf(w, "the interpreter, called for                         times    instructions\n")
		for _, i := range s.Interpreter {
			fmt.Fprintf(w, "  %-40s %15s %15s\n", i.Reason, grouped(i.Times), grouped(i.Instructions))
		}
		t := &s.Translation
		fmt.Fprintln(w, "translation")
		row("blocks", t.Blocks, "")
		row("instructions in them", t.Instructions, "")
		row("bytes of code", t.CodeBytes, "")
		row("flushes of the code cache", t.CacheFlushes, "")
		row("blocks invalidated by writes", t.Invalidated, "")
		list("exits from translated code", s.Exits)
		list("instructions that are not translated", s.Fallbacks)
	}
	m := &s.Memory
	fmt.Fprintln(w, "memory")
	row("TLB misses", m.TLBMisses, "")
	row("TLB misses of instruction fetches", m.FetchMisses, "")
	row("stores to pages of tables or of code", m.NotedStores, "")
	row("accesses to devices", m.DeviceAccesses, "")
	row("flushes of the whole TLB", m.TLBFlushes, "")
	row("flushes of a range", m.RangeFlushes, "")
	row("flushes of a page", m.PageFlushes, "")
	row("changes of CR3", m.RootChanges, "")
}

// perfMap writes the file in which Linux perf looks up code that is in no file
// (tools/perf/Documentation/jit-interface.txt of Linux): a line for each piece with its
// address and size in hexadecimal, and its name.
type perfMap struct {
	f      *os.File
	w      *bufio.Writer
	nameOf func(addr uint64) string
	err    error
}

// perfMapPath is where perf looks.
func perfMapPath(pid int) string { return "/tmp/perf-" + strconv.Itoa(pid) + ".map" }

func newPerfMap(path string, nameOf func(addr uint64) string) (*perfMap, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	return &perfMap{f: f, w: bufio.NewWriterSize(f, 64<<10), nameOf: nameOf}, nil
}

func (p *perfMap) codeMap() *jit.CodeMap {
	var common string
	return &jit.CodeMap{
		Common: func(addr uintptr, size int) {
			common = fmt.Sprintf("%x %x refault:between blocks\n", addr, size)
			p.w.WriteString(common)
		},
		Block: func(addr uintptr, size int, rip uint64) {
			name := p.nameOf(rip)
			if name == "" {
				name = fmt.Sprintf("%#x", rip)
			}
			fmt.Fprintf(p.w, "%x %x guest:%s [block]\n", addr, size, name)
		},
		// perf knows no times: the names of what is there at the end have to do.
		Flushed: func() {
			p.err = errors.Join(p.err, p.w.Flush(), p.f.Truncate(0))
			_, err := p.f.Seek(0, io.SeekStart)
			p.err = errors.Join(p.err, err)
			p.w.WriteString(common)
		},
	}
}

func (p *perfMap) close() error {
	err := errors.Join(p.err, p.w.Flush(), p.f.Close())
	if err != nil {
		return fmt.Errorf("--perf-map: %w", err)
	}
	return nil
}
