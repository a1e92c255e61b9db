package main

import (
	"context"
	"fmt"
	"runtime"

	"refault/replay"
	"refault/traces"
	"refault/vmm"
	"refault/vmm/x86"
)

var versionVerb = verb{
	name:    "version",
	passive: true,
	summary: "print the versions of the program, its format and its machine",
	example: "refault version",
	run: func(_ context.Context, a *app, _ *call) (int, error) {
		fmt.Fprintf(a.out, "refault %s, recording format %d, machine %s, processor %s, %s\n", replay.Version, traces.FormatVersion, vmm.Model, x86.CPUModel, runtime.Version())
		return statusDone, nil
	},
}
