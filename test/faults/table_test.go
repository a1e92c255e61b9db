package faults

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"refault/compare"
	"refault/injectors"
	"refault/replay"
	"refault/test/guest"
	"refault/vmm"
	"refault/vmm/boot"
	"refault/vmm/ksym"
)

var update = flag.Bool("update", false, "make table.md anew")

const tableFile = "table.md"

// row is one experiment. In its faults $page is the physical address of hello's page, $virtual
// its virtual address, $pte the entry that maps it, $dma the first address that the disk reads, $cache its place in a cache of 4 MiB, $lba
// the first sector of the file that is read, $hello the
// moment at which hello is at work and $file the one before the file is read.
type row struct {
	title  string
	faults []string
	always bool // made without -update too
}

// append returns what is added to the kernel's command line for a row.
func (r row) append() string {
	if strings.Contains(r.faults[0], ",pic=") {
		return noAPIC
	}
	return ""
}

// noAPIC makes Debian take the interrupts of devices from the 8259s, and say what it makes of those that nobody sent.
const noAPIC = " noapic loglevel=8"

var rows = []row{
	{"Machine check: corrected", []string{"mce:type=corrected,addr=$page@$hello"}, false},
	{"… found by a poll, minutes later", []string{"mce:type=corrected,signal=none,addr=$page@$hello", "clock:of=time,by=400s@$hello"}, false},
	{"… UCNA", []string{"mce:type=ucna,addr=$page@$hello"}, false},
	{"… SRAO, scrubber", []string{"mce:type=srao,addr=$page@$hello"}, true},
	{"… SRAO, write-back", []string{"mce:type=srao-wb,addr=$page@$hello"}, false},
	{"… SRAR, data load", []string{"mce:type=srar,addr=$page@$hello"}, true},
	{"… SRAR, instruction fetch", []string{"mce:type=srar-fetch,addr=$page@$hello"}, false},
	{"… fatal", []string{"mce:type=fatal,addr=$page@$hello"}, false},
	{"… nested", []string{"mce:type=srao,addr=$page@$hello", "mce:type=srao,addr=$page@vector:mc"}, false},
	{"Poison: user load", []string{"poison:addr=$page,by=user-load@$hello"}, false},
	{"… user fetch", []string{"poison:vaddr=$text,by=user-fetch@$hello"}, false},
	{"… kernel load", []string{"poison:vaddr=jiffies,by=kernel-load,times=1@$hello"}, false},
	{"… kernel fetch", []string{"poison:vaddr=do_syscall_64,by=kernel-fetch,times=1@$hello"}, false},
	{"… page walk", []string{"poison:addr=$pte,by=walk,times=1@$hello"}, false},
	{"… DMA read by the disk", []string{"poison:addr=$dma,by=dma,times=1@$file"}, false},
	{"… scrubber pass", []string{"poison:vaddr=$text,size=page,by=scrubber,scrub=2e9,times=1@$hello"}, false},
	{"… write-back", []string{"poison:vaddr=$text,size=page,by=writeback,writeback=1ms,times=1@$hello"}, false},
	{"… overwritten", []string{"poison:addr=$page,by=dma@$hello"}, false},
	{"ECC word: one bit", []string{"ecc:addr=$page,bit=3@$hello"}, false},
	{"… two bits", []string{"ecc:addr=$page,bit=3+17@$hello"}, false},
	{"… three bits", []string{"ecc:addr=$page,bit=0+1+2@$hello"}, false},
	{"… one bit again and again", []string{"ecc:addr=$page,bit=3,hold=yes@$hello"}, false},
	{"Cache, parity: a clean line", []string{"cache:offset=70000,warm=1000000@$hello"}, false},
	{"… a dirty line", []string{"cache:offset=$cache,size=4194304,ways=1,warm=1000000@$hello"}, false},
	{"… a dirty line, ECC", []string{"cache:offset=$cache,size=4194304,ways=1,warm=1000000,protect=ecc@$hello"}, false},
	{"Memory: a bit of hello's page", []string{"mem:addr=$page,bit=3@$hello"}, false},
	{"… a bit of the kernel's code", []string{"mem:vaddr=do_syscall_64+1,bit=3@$hello"}, false},
	{"… a bit of its clock", []string{"mem:vaddr=jiffies,bit=40@$hello"}, false},
	{"Page table: present bit", []string{"pte:vaddr=$text,flag=present@$hello"}, false},
	{"… reserved bit", []string{"pte:vaddr=$text,bit=51@$hello"}, false},
	{"Register: RIP", []string{"reg:name=rip,bit=40@$hello"}, false},
	{"… CR3", []string{"reg:name=cr3,bit=30@$hello"}, false},
	{"… LSTAR", []string{"reg:name=lstar,bit=12@$hello"}, false},
	{"Processor logic: what user code loads", []string{"alu:unit=load,bit=3,level=user,skip=1000@$hello"}, false},
	{"… the adder, kernel code", []string{"alu:unit=add,bit=40,level=kernel@$hello"}, false},
	{"… an opcode in flight", []string{"opcode:vaddr=$text,bit=1@$hello"}, false},
	{"Disk: UNC", []string{"ata:error=unc,lba=$lba@$file"}, true},
	{"… IDNF", []string{"ata:error=idnf,lba=$lba@$file"}, false},
	{"… ABRT", []string{"ata:error=abrt,lba=$lba@$file"}, false},
	{"… ICRC, twice", []string{"ata:error=icrc,lba=$lba,times=2@$file"}, false},
	{"… device fault", []string{"ata:error=df,lba=$lba@$file"}, false},
	{"… timeout, once", []string{"ata:error=timeout,lba=$lba,times=1@$file"}, false},
	{"… slow sector", []string{"ata:error=slow,lba=$lba,by=20s@$file"}, false},
	{"… wrong data", []string{"ata:error=wrong,lba=$lba,mask=0x20@$file"}, false},
	{"… misdirected read", []string{"ata:error=misdirected,ops=read,lba=$lba,target=0@$file"}, false},
	{"… every third read fails", []string{"ata:error=unc,ops=read,every=3@step:0"}, false},
	{"Interrupt: lost, of the disk", []string{"irq:do=lose,line=14,times=1@$file@ioread:$lba"}, false},
	{"… late", []string{"irq:do=delay,by=3s,line=14,times=1@$file@ioread:$lba"}, false},
	{"… spurious", []string{"irq:do=spurious,vector=0x60@$hello"}, false},
	{"… lost, of the timer", []string{"irq:do=lose,source=timer,times=1@$hello"}, false},
	{"… lost at the 8259s, of the disk (`noapic`)", []string{"irq:do=lose,pic=ata0,times=1@$file@ioread:$lba"}, true},
	{"… late at the 8259s (`noapic`)", []string{"irq:do=delay,by=3s,pic=ata0,times=1@$file@ioread:$lba"}, false},
	{"… withdrawn before the 8259s are asked (`noapic`)", []string{"irq:do=spurious,pic=7@$hello"}, true},
	{"… spurious, at the 8259s (`noapic`)", []string{"irq:do=spurious,pic=ata0@$hello"}, false},
	{"Bus: the drive's status register does not answer, three times", []string{"bus:port=0x1f7,ops=read,times=3@$file@ioread:$lba"}, false},
	{"… a bit of it flips, once", []string{"bus:port=0x1f7,do=flip,ops=read,bit=0,times=1@$file@ioread:$lba"}, false},
	{"Clock: the TSC jumps forward", []string{"clock:by=10s@$hello"}, false},
	{"… all clocks jump", []string{"clock:of=time,by=100s@$hello"}, false},
}

// bench is a golden run and what the rows need to know of it.
type bench struct {
	golden  *replay.Player
	dir     string
	symbols *ksym.Table
	words   *strings.Replacer
}

func newBench(t *testing.T, commandLine string) *bench {
	t.Helper()
	img := guest.ForTest(t)
	b := &bench{dir: t.TempDir()}
	dir := filepath.Join(b.dir, "golden.rec")
	s := &replay.Setup{Kernel: img.Kernel, Initrd: img.Initrd, Disks: []string{img.Disk}, CommandLine: guest.Demo + commandLine, MemoryBytes: 256 << 20, Clock: replay.ClockVirtual, RTCStartUnix: 1_700_000_000}
	r, err := replay.NewRecorder(dir, s, func(m *vmm.Machine) vmm.Inputs { return replay.NewLive(m, replay.ClockVirtual, nil) },
		replay.Options{SnapshotEvery: 200_000_000})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Run()
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if b.golden, err = replay.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.golden.Close() })
	k, err := os.ReadFile(img.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	elf, err := boot.Vmlinux(k)
	if err == nil {
		b.symbols, err = ksym.Read(elf)
	}
	if err != nil {
		t.Fatal(err)
	}
	hello, at := b.find(t, `hello: pid \d+ virtual (0x[0-9a-f]+) physical (0x[0-9a-f]+)`)
	file, mapped := b.find(t, `blockmap: \S+ lba (\d+)`)
	if err := b.golden.Seek(at + 1_000_000); err != nil {
		t.Fatal(err)
	}
	c := b.golden.Machine().CPUs[0]
	for c.CPL != 3 {
		if err := b.golden.RunTo(c.Step + 1000); err != nil {
			t.Fatal(err)
		}
	}
	page, err := injectors.ParseUint(hello[2])
	if err != nil {
		t.Fatal(err)
	}
	va, err := injectors.ParseUint(hello[1])
	if err != nil {
		t.Fatal(err)
	}
	pte, ok := c.TableEntry(c.CR3, va, 1)
	if !ok {
		t.Fatal("hello's page is not mapped")
	}
	at, text := c.Step, c.LinearRIP()
	var dma uint64
	o := &vmm.Observer{DMA: func(pa uint64, _ int, write bool) {
		if dma == 0 && !write {
			dma = pa
		}
	}}
	if err := b.golden.Seek(mapped); err != nil {
		t.Fatal(err)
	}
	b.golden.Machine().Observe(o)
	if err := b.golden.RunTo(b.golden.End()); err != nil {
		t.Fatal(err)
	}
	b.golden.Machine().Unobserve(o)
	b.words = strings.NewReplacer("$page", hello[2], "$virtual", hello[1], "$lba", file[1], "$text", fmt.Sprintf("%#x", text),
		"$pte", fmt.Sprintf("%#x", pte), "$dma", fmt.Sprintf("%#x", dma), "$cache", fmt.Sprint(page%(4<<20)), "$hello", fmt.Sprintf("step:%d", at), "$file", fmt.Sprintf("step:%d", mapped))
	return b
}

// find returns what a regular expression finds on the golden console, and the step at which its line was out.
func (b *bench) find(t *testing.T, re string) (match []string, step uint64) {
	t.Helper()
	out := b.golden.RecordedConsole()
	m := regexp.MustCompile(re).FindSubmatchIndex(out)
	if m == nil {
		t.Fatalf("no %s on the console:\n%s", re, out)
	}
	for i := 0; i < len(m); i += 2 {
		match = append(match, string(out[m[i]:m[i+1]]))
	}
	step, err := b.golden.OutputStep(uint64(m[1] + bytes.IndexByte(out[m[1]:], '\n')))
	if err != nil {
		t.Fatal(err)
	}
	return match, step
}

// telling are the lines of a log that a row shows, the noise of a crash aside.
var telling = regexp.MustCompile(`mce:|Memory failure|MCE:|Machine check|Kernel panic|BUG:|Oops|general protection|ata\d|I/O error|` +
	`exit status|hello|segfault|traps|error:|status:|rcu:|clocksource|sched:|Hardware Error|spurious|No irq handler|swap|^cat:|Buffer I/O|irq `)

const linesMax = 7

// make makes a row: injects, holds the faulty run to replay, and says what came of it.
func (b *bench) make(t *testing.T, r row) (full, brief string) {
	t.Helper()
	var faults []*injectors.Fault
	for _, text := range r.faults {
		f, err := injectors.Parse(b.words.Replace(text))
		if err == nil {
			err = f.Bind(b.symbols)
		}
		if err != nil {
			t.Fatal(err)
		}
		faults = append(faults, f)
	}
	dir := filepath.Join(b.dir, "faulty.rec")
	defer os.RemoveAll(dir)
	inj, err := injectors.Inject(b.golden, dir, faults, replay.Options{SnapshotEvery: 200_000_000, MaxSteps: b.golden.End() + 1_500_000_000})
	if err != nil {
		t.Fatalf("%s: %v", r.title, err)
	}
	_, err = inj.Run()
	notices := slices.DeleteFunc(inj.Notices(), func(n vmm.Notice) bool { return n.Kind == vmm.NoticeBank })
	if err := errors.Join(err, inj.Close()); err != nil {
		t.Fatalf("%s: %v", r.title, err)
	}
	p, err := replay.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Verify(); err != nil {
		t.Errorf("%s: %v", r.title, err)
	}
	outcome, why := compare.Classify(b.golden, p)
	var said, all []string
	for _, l := range compare.NewLines(b.golden.RecordedConsole(), p.RecordedConsole()) {
		s := cell(strings.TrimSpace(string(l)))
		all = append(all, s)
		if telling.Match(l) {
			said = append(said, s)
		}
	}
	if len(said) == 0 {
		said = all
	}
	brief = cell(why)
	if len(said) > 0 && !strings.Contains(why, "the guest said") {
		brief = "the guest said: " + said[0]
	}
	if n := len(said); n > linesMax {
		said = append(said[:linesMax:linesMax], fmt.Sprintf("… and %d lines more", n-linesMax))
	}
	if len(said) == 0 {
		said = []string{"*(nothing)*"}
	}
	life := ""
	for i, n := range notices[:min(len(notices), 3)] {
		if i > 0 {
			life += "; "
		}
		life += n.What
	}
	if len(notices) > 3 {
		life += "; …"
	}
	if life != "" {
		life = "<br>*" + life + "*"
	}
	if outcome == compare.Crash || outcome == compare.Hang {
		said = append(said, "*("+cell(why)+")*")
	}
	specs := strings.Join(r.faults, "` `")
	return fmt.Sprintf("| %s<br>`%s`%s | %s | %s |\n", r.title, specs, life, strings.Join(said, "<br>"), outcome),
		fmt.Sprintf("| %s | `%s` | %s | %s |\n", r.title, specs, cut(strings.TrimPrefix(brief, "the guest said: ")), outcome)
}

// cell makes a line fit a table's cell.
func cell(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(strings.ReplaceAll(s, "\t", " "), "·"))
	return strings.NewReplacer("|", "\\|", "<", "&lt;", ">", "&gt;", "*", "\\*", "_", "\\_").Replace(s)
}

const briefHead = "| Fault | `--fault` | What Debian's kernel said first, or what became of it | Outcome |\n|---|---|---|---|\n"

// cut shortens a line.
func cut(s string) string {
	const most = 110
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + " …"
	}
	return s
}

// readme puts the short table between its marks in README.md, if they are there.
func readme(t *testing.T, table string) {
	const path, begin, end = "../../README.md", "<!-- faults: made by go test ./test/faults -run Table -update -->\n", "<!-- faults: end -->\n"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Logf("%s has no place for the table", path)
		return
	}
	if err := os.WriteFile(path, []byte(before+begin+table+end+after), 0o666); err != nil {
		t.Fatal(err)
	}
}

const head = "| Fault | What Debian's kernel said | Outcome |\n|---|---|---|\n"

func TestTable(t *testing.T) {
	benches := map[string]*bench{}
	experiment := func(r row) (full, brief string) {
		commandLine := r.append()
		b := benches[commandLine]
		if b == nil {
			b = newBench(t, commandLine)
			benches[commandLine] = b
		}
		return b.make(t, r)
	}
	if *update {
		out, brief := head, briefHead
		for _, r := range rows {
			full, short := experiment(r)
			t.Log(full)
			out += full
			brief += short
			if err := os.WriteFile(tableFile, []byte(out), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		readme(t, brief)
		return
	}
	table, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if !r.always {
			continue
		}
		if got, _ := experiment(r); !bytes.Contains(table, []byte(got)) {
			t.Errorf("%s has no such row:\n%s", tableFile, got)
		}
	}
}
