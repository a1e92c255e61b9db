package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"refault/replay"
	"refault/traces"
	"refault/vmm"
)

type runFlags struct {
	machineFlags
	measureFlags
}

var runVerb = verb{
	name:    "run",
	summary: "boot a machine without recording it",
	long: `The guest's console is standard output. On a terminal it reads the keyboard too:
Ctrl-A x leaves, Ctrl-A Ctrl-A types Ctrl-A.`,
	example: `refault run --kernel vmlinuz --initrd initrd.cpio --append console=ttyS0 --disk disk.img --clock host`,
	flags: func(f *pflag.FlagSet) any {
		r := new(runFlags)
		r.machineFlags.add(f)
		r.measureFlags.add(f)
		return r
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		m := c.flags.(*runFlags)
		s, err := m.setup(a.engine)
		if err != nil {
			return 0, err
		}
		put, flush := guestOutput(a.out, a.typing(m.input))
		defer flush()
		end, err := a.live(ctx, &m.machineFlags, &m.measureFlags, func(in inputs) (liveRun, error) {
			return replay.NewUnrecorded(s, in, replay.Options{MaxSteps: m.maxSteps, Console: put})
		})
		if err != nil {
			return 0, err
		}
		flush()
		fmt.Fprintf(a.err, "refault: ended at step %d: %s\n", end.Step, endText(end.Reason, end.Status))
		return statusDone, m.print(a.err)
	},
}

// inputs makes the world behind a machine's door.
type inputs = func(m *vmm.Machine) vmm.Inputs

// liveRun is a run in the live world: replay.Recorder, replay.Unrecorded.
type liveRun interface {
	Run() (*traces.End, error)
	Close() error
}

// live runs a machine with a person, or nobody, at its console.
func (a *app) live(ctx context.Context, m *machineFlags, measure *measureFlags, start func(inputs) (liveRun, error)) (end *traces.End, err error) {
	if err := measure.check(a.engine); err != nil {
		return nil, err
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	typed, restore, err := a.guestInput(m.input, quit)
	if err != nil {
		return nil, err
	}
	defer restore()
	var world *replay.Live
	var machine *vmm.Machine
	r, err := start(func(vm *vmm.Machine) vmm.Inputs {
		machine = vm
		world = replay.NewLive(vm, m.clock, typed)
		return world
	})
	if err != nil {
		return nil, err
	}
	defer withCancel(ctx, world.Interrupt)()
	err = measure.begin(machine, func() (*kernel, error) {
		k, err := os.ReadFile(m.kernel)
		if err != nil {
			return nil, err
		}
		return parseKernel(k)
	})
	if err == nil {
		end, err = r.Run()
	}
	for _, e := range []error{measure.end(machine), r.Close()} {
		if err == nil {
			err = e
		}
	}
	return end, err
}
