package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"refault/compare"
	"refault/test/guest/bare"
	"refault/traces"
)

type demoFlags struct {
	machineFlags
	dir string
}

var demoVerb = verb{
	name:    "demo",
	summary: "record a guest, replay it, break its hardware in three ways, and tell what that changed",
	long: `Without --kernel the guest is a small one inside the program. With it, any guest will do
whose console says, as the demonstration guests do,
  hello: ... physical 0xADDRESS           a process that keeps touching a page
  blockmap: FILE lba N                    a file that is read afterwards`,
	example: "refault demo\nrefault demo --kernel vmlinuz --initrd initrd.cpio --disk disk.img --append console=ttyS0",
	flags: func(f *pflag.FlagSet) any {
		d := new(demoFlags)
		f.StringVar(&d.dir, "dir", "refault-demo", "directory for the recordings; those of an earlier demonstration are replaced")
		d.machineFlags.add(f)
		return d
	},
	run: runDemo,
}

// What the demonstration's guests say of themselves.
var (
	helloLine    = regexp.MustCompile(`hello: .*physical (0x[0-9a-f]+)`)
	blockmapLine = regexp.MustCompile(`blockmap: \S+ lba (\d+)`)
)

// settleSteps is how long after its line hello is well inside its loop.
const settleSteps = 2_000_000

// demo runs the verbs as a person would.
type demo struct {
	ctx context.Context
	a   *app
	dir string
}

func runDemo(ctx context.Context, a *app, c *call) (int, error) {
	f := c.flags.(*demoFlags)
	d := &demo{ctx, a, f.dir}
	if err := d.prepare(f); err != nil {
		return 0, err
	}
	golden := d.path("golden")

	d.title("1. The machine")
	d.say("kernel %s, initrd %s, disks %s\nkernel command line: %s", shown(f.kernel), orNone(shown(f.initrd)), orNone(strings.Join(f.disks, " ")), orNone(f.append))

	d.title("2. Record: the golden run")
	args := []string{"-o", golden, "--kernel", f.kernel, "--memory", sizeText(f.memory), "--input", "none"}
	if f.initrd != "" {
		args = append(args, "--initrd", f.initrd)
	}
	for _, disk := range f.disks {
		args = append(args, "--disk", disk)
	}
	if f.append != "" {
		args = append(args, "--append", f.append)
	}
	if err := d.do("record", args...); err != nil {
		return 0, err
	}

	d.title("3. Replay: every hash and every byte of output is compared")
	if err := d.do("verify", golden); err != nil {
		return 0, err
	}
	if err := d.do("info", golden); err != nil {
		return 0, err
	}

	d.title("4. Where to aim: the run is deterministic, so the golden console tells the addresses and steps")
	faults, err := d.aim(golden)
	if err != nil {
		return 0, err
	}
	for i, x := range faults {
		if err := d.fault(i, golden, x); err != nil {
			return 0, err
		}
	}
	d.title("Done")
	d.say("The recordings are in %s: try\n  refault replay %s --console\n  refault log %s --console --match hello\n  refault diff %s %s",
		shown(f.dir), golden, golden, golden, d.path(faults[0].name))
	return statusDone, nil
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// prepare makes the directory, and the built-in guest's files where no other guest is given.
func (d *demo) prepare(f *demoFlags) error {
	if err := os.MkdirAll(d.dir, 0o777); err != nil {
		return err
	}
	for _, name := range []string{"golden", "srao", "srar", "unc"} {
		// Only what is a recording is replaced: a directory can hold anything.
		if _, err := os.Stat(filepath.Join(d.path(name), traces.FileFormat)); err == nil {
			if err := os.RemoveAll(d.path(name)); err != nil {
				return err
			}
		}
	}
	if f.kernel != "" {
		return nil
	}
	if f.initrd != "" || len(f.disks) > 0 {
		return usagef("--initrd and --disk are for a guest of yours; give its --kernel too")
	}
	f.kernel, f.disks = filepath.Join(d.dir, "guest.elf"), []string{filepath.Join(d.dir, "guest.img")}
	f.memory = bare.MemoryBytes
	if err := os.WriteFile(f.kernel, bare.Kernel, 0o666); err != nil {
		return err
	}
	return os.WriteFile(f.disks[0], bare.Disk(), 0o666)
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name+".rec") }

func (d *demo) title(s string) { fmt.Fprintf(d.a.out, "\n== %s\n", s) }

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.a.out, format+"\n", args...) }

// do runs a verb and shows it as it would be typed.
func (d *demo) do(name string, args ...string) error {
	line := "refault " + name
	for _, x := range args {
		if strings.ContainsAny(x, " ;&|*?'\"$()") {
			x = "'" + x + "'"
		}
		line += " " + x
	}
	fmt.Fprintf(d.a.out, "$ %s\n", line)
	status, err := d.a.dispatch(d.ctx, append([]string{name}, args...))
	if err != nil {
		return err
	}
	if d.ctx.Err() != nil {
		return fmt.Errorf("interrupted; what was recorded is in %s", d.dir)
	}
	if status == statusDifferent && name != "diff" {
		return fmt.Errorf("%s found a difference where none may be", name)
	}
	return nil
}

// demoFault is one of the demonstration's faults.
type demoFault struct{ name, title, spec string }

// aim reads the targets from the golden console.
func (d *demo) aim(golden string) ([]demoFault, error) {
	if err := d.do("log", golden, "--console", "--match", "hello: .*physical|blockmap: "); err != nil {
		return nil, err
	}
	p, err := d.a.open(golden)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	find := func(re *regexp.Regexp, what string) (match string, step uint64, err error) {
		out := p.RecordedConsole()
		m := re.FindSubmatchIndex(out)
		if m == nil {
			return "", 0, fmt.Errorf("the guest's console has no line of %s (%s)", what, re)
		}
		eol := bytes.IndexByte(out[m[1]:], '\n')
		if eol < 0 {
			return "", 0, fmt.Errorf("the guest's console ends in the line of %s", what)
		}
		step, err = p.OutputStep(uint64(m[1] + eol))
		return string(out[m[2]:m[3]]), step, err
	}
	addr, at, err := find(helloLine, "hello")
	if err != nil {
		return nil, err
	}
	lba, mapped, err := find(blockmapLine, "blockmap")
	if err != nil {
		return nil, err
	}
	if _, err := strconv.ParseUint(lba, 10, 48); err != nil {
		return nil, fmt.Errorf("the guest says LBA %s: %w", lba, err)
	}
	at += settleSteps
	return []demoFault{
		{"srao", "an uncorrected error that the memory scrubber found in hello's page (SRAO)", fmt.Sprintf("mce:type=srao,addr=%s@step:%d", addr, at)},
		{"srar", "the same page's error, consumed by hello's load (SRAR)", fmt.Sprintf("mce:type=srar,addr=%s@step:%d", addr, at)},
		{"unc", "an unreadable sector under the file (UNC)", fmt.Sprintf("ata:error=unc,lba=%s@step:%d", lba, mapped)},
	}, nil
}

// fault injects one fault, compares, and replays the faulty run twice.
func (d *demo) fault(i int, golden string, x demoFault) error {
	faulty := d.path(x.name)
	d.title(fmt.Sprintf("%d. Inject: %s", 5+i, x.title))
	if err := d.do("inject", golden, "-o", faulty, "--fault", x.spec); err != nil {
		return err
	}
	if err := d.newLines(golden, faulty); err != nil {
		return err
	}
	if err := d.do("diff", golden, faulty); err != nil {
		return err
	}
	for range 2 { // without the injector: the fault is in the recording
		if err := d.do("verify", faulty); err != nil {
			return err
		}
	}
	return nil
}

// newLines shows what only the faulty guest said.
func (d *demo) newLines(golden, faulty string) error {
	g, err := os.ReadFile(filepath.Join(golden, traces.FileConsole))
	if err != nil {
		return err
	}
	f, err := os.ReadFile(filepath.Join(faulty, traces.FileConsole))
	if err != nil {
		return err
	}
	d.say("What only the faulty guest said:")
	for _, l := range compare.NewLines(g, f) {
		d.say("  | %s", bytes.TrimRight(l, "\r\n"))
	}
	return nil
}
