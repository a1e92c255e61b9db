package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"refault/replay"
	"refault/traces"
	"refault/vmm"
)

var runVerb = verb{
	name:    "run",
	summary: "boot a machine without recording it",
	long: `The guest's console is standard output. On a terminal it reads the keyboard too:
Ctrl-A x leaves, Ctrl-A Ctrl-A types Ctrl-A.`,
	example: `refault run --kernel vmlinuz --initrd initrd.cpio --append console=ttyS0 --disk disk.img --clock host`,
	flags: func(f *pflag.FlagSet) any {
		m := new(machineFlags)
		m.add(f)
		return m
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		m := c.flags.(*machineFlags)
		s, err := m.setup(a.engine)
		if err != nil {
			return 0, err
		}
		put, flush := guestOutput(a.out, a.typing(m.input))
		defer flush()
		end, err := a.live(ctx, m, func(in inputs) (liveRun, error) {
			return replay.NewUnrecorded(s, in, replay.Options{MaxSteps: m.maxSteps, Console: put})
		})
		if err != nil {
			return 0, err
		}
		flush()
		fmt.Fprintf(a.err, "refault: ended at step %d: %s\n", end.Step, endText(end.Reason, end.Status))
		return statusDone, nil
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
func (a *app) live(ctx context.Context, m *machineFlags, start func(inputs) (liveRun, error)) (end *traces.End, err error) {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	typed, restore, err := a.guestInput(m.input, quit)
	if err != nil {
		return nil, err
	}
	defer restore()
	var world *replay.Live
	r, err := start(func(vm *vmm.Machine) vmm.Inputs {
		world = replay.NewLive(vm, m.clock, typed)
		return world
	})
	if err != nil {
		return nil, err
	}
	defer withCancel(ctx, world.Interrupt)()
	end, err = r.Run()
	if e := r.Close(); err == nil {
		err = e
	}
	return end, err
}
