package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"refault/replay"
	"refault/vmm"
)

// machineFlags describe a machine.
type machineFlags struct {
	kernel, initrd, append string
	disks                  []string
	memory, seed, maxSteps uint64
	clock, rtc, input      string
}

func (m *machineFlags) add(f *pflag.FlagSet) {
	m.memory = 512 << 20
	f.StringVar(&m.kernel, "kernel", "", "Linux bzImage or vmlinux, or an ELF multiboot kernel")
	f.StringVar(&m.initrd, "initrd", "", "initial RAM disk")
	f.StringVar(&m.append, "append", "", "kernel command line")
	f.StringArrayVar(&m.disks, "disk", nil, "raw disk image, never written; up to four times")
	f.Var(sizeFlag{&m.memory}, "memory", "guest memory")
	f.StringVar(&m.clock, "clock", replay.ClockVirtual, "virtual: time follows the instructions; host: it follows the host's clock")
	f.Uint64Var(&m.seed, "seed", 1, "seed of RDRAND, RDSEED and the boot entropy")
	f.StringVar(&m.rtc, "rtc", "2024-01-01T00:00:00Z", "what the real-time clock says at power-on")
	f.StringVar(&m.input, "input", "", "what the console reads: a file, - for standard input, none (default: the terminal, if there is one)")
	f.Var(stepFlag{v: &m.maxSteps}, "max-steps", "stop after so many instructions")
}

func (m *machineFlags) setup(engine string) (*replay.Setup, error) {
	if m.kernel == "" {
		return nil, usagef("--kernel is missing")
	}
	if m.clock != replay.ClockVirtual && m.clock != replay.ClockHost {
		return nil, usagef("--clock is %q; it can be %s or %s", m.clock, replay.ClockVirtual, replay.ClockHost)
	}
	t, err := time.Parse(time.RFC3339, m.rtc)
	if err != nil || t.Year() < 1970 || t.Year() > 2099 {
		return nil, usagef("--rtc: %q is not a time like 2024-01-01T00:00:00Z", m.rtc)
	}
	if len(m.disks) > 4 {
		return nil, usagef("%d disks; the machine takes up to 4", len(m.disks))
	}
	return &replay.Setup{
		Kernel: m.kernel, Initrd: m.initrd, CommandLine: m.append, Disks: m.disks, MemoryBytes: m.memory,
		Clock: m.clock, Seed: m.seed, RTCStartUnix: t.Unix(), Engine: vmm.Engine(engine),
	}, nil
}

// endText says how a run ended.
func endText(reason string, status uint32) string {
	switch reason {
	case "debug-exit":
		return fmt.Sprintf("debug-exit with status %d", status)
	case "triple-fault":
		return "the processor shut down (triple fault)"
	case "dead":
		return "all processors halted and nothing can wake them"
	case replay.ReasonMaxSteps:
		return "the given number of steps"
	}
	return strings.ReplaceAll(reason, "-", " ")
}
