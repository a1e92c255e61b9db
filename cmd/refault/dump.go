package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/pflag"

	"refault/compare"
	"refault/replay"
	"refault/vmm"
	"refault/vmm/x86"
)

type dumpFlags struct {
	at   uint64
	json bool
}

// maxDump bounds how much memory one dump prints.
const maxDump = 64 << 20

var dumpVerb = verb{
	name:    "dump",
	summary: "show registers or memory at a step of a recording",
	long: `What can be shown:
  regs                 every register
  mem ADDR LEN         memory by physical address
  virt ADDR LEN        memory by virtual address, through the guest's own page tables
  disasm [ADDR [N]]    N instructions (8) from a virtual address (RIP) on
  translate ADDR       the physical address of a virtual one
ADDR may be a number or a symbol: the kernel's, or that of a module which is loaded at this step,
by its name alone or as MODULE:SYMBOL; with an offset too, as jiffies+4.`,
	example: "refault dump boot.rec --at 812345678 regs\nrefault dump boot.rec --at 5e8 mem 0xbaec000 64\nrefault dump boot.rec --at 5e8 disasm memory_failure 20",
	args:    "RECORDING {regs | mem ADDR LEN | virt ADDR LEN | disasm [ADDR [N]] | translate ADDR}", minArgs: 2, maxArgs: 4,
	flags: func(f *pflag.FlagSet) any {
		d := new(dumpFlags)
		f.Var(stepFlag{&d.at, true}, "at", "step to look at, or end")
		f.BoolVar(&d.json, "json", false, "tell registers as JSON")
		return d
	},
	run: runDump,
}

func runDump(ctx context.Context, a *app, c *call) (int, error) {
	d := c.flags.(*dumpFlags)
	if !c.set.Changed("at") {
		return 0, usagef("--at is missing: the step to look at")
	}
	what, args := c.args[1], c.args[2:]
	counts := map[string][2]int{"regs": {0, 0}, "mem": {2, 2}, "virt": {2, 2}, "disasm": {0, 2}, "translate": {1, 1}}
	n, ok := counts[what]
	switch {
	case !ok:
		return 0, usagef("%q cannot be shown; regs, mem, virt, disasm and translate can", what)
	case len(args) < n[0] || len(args) > n[1]:
		return 0, usagef("%s takes %d to %d arguments", what, n[0], n[1])
	}
	p, err := a.open(c.args[0])
	if err != nil {
		return 0, err
	}
	defer p.Close()
	defer withCancel(ctx, p.Interrupt)()
	if d.at == vmm.Never {
		d.at = p.End()
	}
	if err := p.Seek(d.at); err != nil {
		return 0, err
	}
	names := a.names(ctx, p)
	nums := make([]uint64, len(args))
	for i, s := range args {
		if nums[i], err = names.address(p.Machine(), s); err != nil {
			return 0, err
		}
	}
	cpu := p.Machine().CPUs[0]
	switch what {
	case "regs":
		return statusDone, dumpRegisters(a, cpu, d)
	case "mem", "virt":
		return statusDone, dumpMemory(a, cpu, what == "virt", nums[0], nums[1])
	case "disasm":
		at, count := cpu.Regs[x86.RIP], uint64(8)
		if len(nums) > 0 {
			at = nums[0]
		}
		if len(nums) > 1 {
			count = nums[1]
		}
		symbol := names.nameOf(p.Machine())
		for range count {
			code := replay.CodeAt(cpu, at)
			text, n := x86.Disassemble(code, cpu.CodeSize(), at, symbol)
			fmt.Fprintln(a.out, instructionText(at, code[:min(n, len(code))], text, symbol))
			if n == 0 {
				break
			}
			at += uint64(n)
		}
		return statusDone, nil
	}
	pa, ok := cpu.Translate(nums[0])
	if !ok {
		return 0, fmt.Errorf("virtual address %#x is not mapped at step %d", nums[0], d.at)
	}
	fmt.Fprintf(a.out, "%#x\n", pa)
	return statusDone, nil
}

func dumpRegisters(a *app, c *x86.CPU, d *dumpFlags) error {
	if d.json {
		m := map[string]string{}
		for _, r := range x86.Registers() {
			m[r.Name] = compare.Hex(r.Read(c))
		}
		return writeJSON(a.out, struct {
			Step      uint64            `json:"step"`
			Registers map[string]string `json:"registers"`
		}{d.at, m})
	}
	group := x86.RegisterGroup(0)
	for _, r := range x86.Registers() {
		if r.Group != group {
			group = r.Group
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "%-14s %s\n", r.Name, compare.Hex(r.Read(c)))
	}
	return nil
}

func dumpMemory(a *app, c *x86.CPU, virtual bool, addr, n uint64) error {
	if n > maxDump {
		return fmt.Errorf("%d bytes are more than a dump shows (%d)", n, maxDump)
	}
	const row = 16
	b := make([]byte, row)
	for at := addr; at-addr < n; at += row {
		line := b[:min(row, n-(at-addr))]
		if virtual {
			if got := replay.ReadVirtual(c, line, at); got < len(line) {
				return fmt.Errorf("virtual address %#x is not mapped to RAM", at+uint64(got))
			}
		} else if !c.RAM.ReadAt(line, at) {
			return fmt.Errorf("physical address %#x is outside RAM", at)
		}
		text := make([]byte, len(line))
		for i, x := range line {
			if text[i] = x; x < ' ' || x > '~' {
				text[i] = '.'
			}
		}
		if _, err := fmt.Fprintf(a.out, "%016x  %-*s  %s\n", at, 2*row, hex.EncodeToString(line), text); err != nil {
			return err
		}
	}
	return nil
}

// instructionText is one line of disassembly.
func instructionText(rip uint64, code []byte, text string, symbol func(uint64) string) string {
	name := symbol(rip)
	if name != "" {
		name = "<" + name + ">"
	}
	return fmt.Sprintf("%016x  %-30x %-44s %s", rip, code, text, name)
}
