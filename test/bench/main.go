package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"refault/test/guest"
)

func main() {
	b := &bench{}
	flag.StringVar(&b.refault, "refault", "bin/refault", "the program to measure")
	flag.StringVar(&b.engine, "engine", "", "its engine: interp or jit (default: its own default)")
	flag.StringVar(&b.guestDir, "guest", guest.Dir, "where the guest is, or is built")
	flag.IntVar(&b.rounds, "rounds", 3, "how often QEMU runs; the others run three times as often")
	flag.BoolVar(&b.peer, "peer", true, "measure QEMU too")
	works := flag.String("works", strings.Join(guest.Works[:], ","), "pieces of work besides the boot")
	flag.Parse()
	if *works != "" {
		b.works = strings.Split(*works, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
}

// bench is one run of the benchmark.
type bench struct {
	refault, engine, guestDir string
	rounds                    int
	peer                      bool
	works                     []string

	image *guest.Image
	dir   string // for recordings
	rec   string
	round int                               // in work
	times map[string]map[string][][]float64 // seconds, by competitor, by what was done, and by round
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.image, err = guest.Build(ctx, b.guestDir, func(s string) { fmt.Fprintln(os.Stderr, s) }); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "refault-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.times = map[string]map[string][][]float64{}
	if b.peer {
		if _, err := exec.LookPath(qemu); err != nil {
			fmt.Printf("%s is not installed: its columns are skipped\n", qemu)
			b.peer = false
		}
	}
	for b.round = range b.rounds {
		for _, c := range b.order() {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", b.round+1, b.rounds, c.name)
			if err := c.run(ctx, c.name); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	b.print(os.Stdout)
	if err := b.recording(ctx, os.Stdout); err != nil {
		return err
	}
	return b.analysis(ctx, os.Stdout)
}

// Competitors.
const (
	native     = "native"
	plainRun   = "refault run"
	record     = "refault record"
	replay     = "refault replay"
	peerRun    = "QEMU"
	peerRecord = "QEMU record"
	peerReplay = "QEMU replay"
	qemu       = "qemu-system-x86_64"
	memory     = "512M"
	boot       = "boot to user space"
)

type competitor struct {
	name string
	run  func(ctx context.Context, name string) error
}

// passes is how often a round measures what takes seconds: what is a few per cent apart needs it, and
// beside QEMU it takes no time.
const passes = 3

// order lists who runs in a round. Every other time, recording comes before the run without: who
// comes second finds memory that the host has at hand.
func (b *bench) order() (all []competitor) {
	own, peers := b.competitors()
	for pass := range passes {
		plain, recorded := own[1], own[2]
		if (b.round+pass)%2 == 1 {
			plain, recorded = recorded, plain
		}
		all = append(all, own[0], plain, recorded, own[3])
	}
	return append(all, peers...)
}

// competitors lists who takes seconds, in the order of their constants, and who takes longer. A replay plays what the last record left.
func (b *bench) competitors() (own, peers []competitor) {
	b.rec = filepath.Join(b.dir, "bench.rec")
	log := filepath.Join(b.dir, "qemu.rr")
	command := guest.Bench(b.works...)
	if len(b.works) == 0 {
		command = guest.PowerOff
	}
	machine := []string{"--kernel", b.image.Kernel, "--initrd", b.image.Initrd, "--disk", b.image.Disk, "--append", command, "--memory", memory, "--input", "none"}
	var engine []string
	if b.engine != "" {
		engine = []string{"--engine", b.engine}
	}
	guestRun := func(name string, args ...string) func(context.Context, string) error {
		return func(ctx context.Context, competitor string) error {
			if competitor == record {
				if err := os.RemoveAll(b.rec); err != nil {
					return err
				}
			}
			return b.guest(ctx, competitor, name, args...)
		}
	}
	own = []competitor{
		{native, b.native},
		{plainRun, guestRun(b.refault, concat([]string{"run"}, engine, machine)...)},
		{record, guestRun(b.refault, concat([]string{"record", "-o", b.rec}, engine, machine)...)},
		{replay, guestRun(b.refault, concat([]string{"replay", b.rec, "--console"}, engine)...)},
	}
	if !b.peer {
		return own, nil
	}
	pc := []string{"-accel", "tcg", "-M", "pc", "-m", memory, "-display", "none", "-serial", "stdio", "-monitor", "none", "-net", "none", "-no-reboot",
		"-kernel", b.image.Kernel, "-initrd", b.image.Initrd, "-append", command}
	plainDisk := []string{"-drive", "file=" + b.image.Disk + ",format=raw,if=ide,snapshot=on"}
	// Record and replay go through a block driver that makes the disk's timing part of the log.
	rrDisk := []string{"-drive", "file=" + b.image.Disk + ",format=raw,if=none,snapshot=on,id=image", "-drive", "driver=blkreplay,if=none,image=image,id=replayed", "-device", "ide-hd,drive=replayed"}
	return own, []competitor{
		{peerRun, guestRun(qemu, concat(pc, plainDisk)...)},
		{peerRecord, guestRun(qemu, concat(pc, rrDisk, []string{"-icount", "shift=auto,rr=record,rrfile=" + log})...)},
		{peerReplay, guestRun(qemu, concat(pc, rrDisk, []string{"-icount", "shift=auto,rr=replay,rrfile=" + log})...)},
	}
}

func concat(lists ...[]string) (all []string) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}
