package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/pflag"

	"refault/compare"
	"refault/replay"
	"refault/vmm/x86"
)

type traceFlags struct {
	from, to   uint64
	regs, json bool
}

var traceVerb = verb{
	name:    "trace",
	summary: "list the instructions of a recording from one step to another",
	long: `Each line is the step, the address, the bytes, the instruction and the symbol. An
instruction that raised an exception is marked; what follows it is the handler, at the same step.`,
	example: "refault trace boot.rec --from 812345678 --to 812345700 --regs",
	args:    "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		t := new(traceFlags)
		f.Var(stepFlag{v: &t.from}, "from", "first step")
		f.Var(stepFlag{v: &t.to}, "to", "step to stop before")
		f.BoolVar(&t.regs, "regs", false, "show the general registers that each instruction changes")
		f.BoolVar(&t.json, "json", false, "one JSON object a line")
		return t
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		t := c.flags.(*traceFlags)
		if !c.set.Changed("from") || !c.set.Changed("to") {
			return 0, usagef("--from and --to are needed")
		}
		if t.to < t.from {
			return 0, usagef("--to %d comes before --from %d", t.to, t.from)
		}
		p, err := a.seek(c.args[0], t.from)
		if err != nil {
			return 0, err
		}
		defer p.Close()
		if t.to > p.End() {
			return 0, fmt.Errorf("step %d: the recording %s has steps %d to %d: %w", t.to, p.Dir, p.Start(), p.End(), replay.ErrBeyond)
		}
		w := bufio.NewWriter(a.out)
		if err := trace(ctx, w, p, t); err != nil {
			return 0, err
		}
		return statusDone, w.Flush()
	},
}

func trace(ctx context.Context, w *bufio.Writer, p *replay.Player, t *traceFlags) error {
	symbol := kernelOrNot(p.Manifest).nameOf(p.Machine())
	cpu := p.Machine().CPUs[0]
	enc := json.NewEncoder(w)
	for p.Machine().Step() < t.to && ctx.Err() == nil {
		before := cpu.Regs
		is, err := p.StepInstruction()
		if err != nil {
			return err
		}
		for _, i := range is {
			text, _ := x86.Disassemble(i.Code, i.Mode, i.RIP, symbol)
			changed := map[string]string{}
			var list string
			if t.regs && !i.Faulted {
				for k, name := range x86.GeneralNames {
					if name != "" && k != x86.RIP && before[k] != cpu.Regs[k] {
						changed[name] = fmt.Sprintf("%#x", cpu.Regs[k])
						list += fmt.Sprintf(" %s=%#x", name, cpu.Regs[k])
					}
				}
			}
			if t.json {
				err = enc.Encode(struct {
					compare.Executed
					Step    uint64            `json:"step"`
					Faulted bool              `json:"faulted,omitempty"`
					Changed map[string]string `json:"changed,omitempty"`
				}{compare.Executed{CS: i.CS, RIP: i.RIP, Symbol: symbol(i.RIP), Code: i.Code, Text: text}, i.Step, i.Faulted, changed})
			} else {
				if i.Faulted {
					list = "  (exception)"
				}
				_, err = fmt.Fprintf(w, "%14d  %s%s\n", i.Step, instructionText(i.RIP, i.Code, text, symbol), list)
			}
			if err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}
