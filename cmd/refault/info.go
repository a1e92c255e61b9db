package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"refault/traces"
	"refault/vmm"
)

// recordingInfo is what info tells.
type recordingInfo struct {
	*traces.Manifest
	Recording     string           `json:"recording"`
	Complete      bool             `json:"complete"`
	Steps         uint64           `json:"steps"`
	TimeNs        uint64           `json:"time_ns"`
	Marks         int              `json:"marks"`
	Events        map[string]int   `json:"events"`
	SnapshotSteps []uint64         `json:"snapshot_steps"`
	Pages         int              `json:"stored_pages"`
	Bytes         map[string]int64 `json:"file_bytes"`
	// LogPerKilo is bytes of the event log per thousand instructions.
	LogPerKilo float64 `json:"event_bytes_per_1000_steps"`
}

var infoVerb = verb{
	name:    "info",
	passive: true,
	summary: "tell what a recording is",
	example: "refault info boot.rec --json",
	args:    "RECORDING", minArgs: 1, maxArgs: 1,
	flags: jsonFlag,
	run: func(_ context.Context, a *app, c *call) (int, error) {
		p, err := a.open(c.args[0])
		if err != nil {
			return 0, err
		}
		defer p.Close()
		i := recordingInfo{Manifest: p.Manifest, Recording: p.Dir, Complete: p.Complete(), Steps: p.End(), Marks: len(p.Marks()),
			Events: map[string]int{}, SnapshotSteps: p.Snapshots().Steps(), Bytes: map[string]int64{}}
		i.TimeNs = p.Marks()[i.Marks-1].TimeNs
		for _, e := range p.Events() {
			i.Events[e.Kind.String()]++
		}
		_, _, i.Pages = p.Snapshots().Sizes()
		for _, name := range []string{traces.FileManifest, traces.FileEvents, traces.FileMarks, traces.FilePages, traces.FileSnapshots, traces.FileConsole} {
			st, err := os.Stat(filepath.Join(p.Dir, name))
			if err != nil {
				return 0, err
			}
			i.Bytes[name] = st.Size()
		}
		i.LogPerKilo = float64(i.Bytes[traces.FileEvents]) / (float64(max(i.Steps, 1)) / 1000)
		if *c.flags.(*bool) {
			return statusDone, writeJSON(a.out, &i)
		}
		printInfo(a, &i)
		return statusDone, nil
	},
}

func printInfo(a *app, i *recordingInfo) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(a.out, "%-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	file := func(name string, f *traces.File) {
		if f != nil {
			row(name, "%s, %s, SHA-256 %.16s…", shown(f.Path), about(f.Size), f.SHA256)
		}
	}
	row("recording", "%s, by %s", i.Recording, i.Product)
	row("machine", "%s, %d processor %s, %s of memory", i.Machine, i.CPUs, i.CPUModel, about(int64(i.MemoryBytes)))
	file("kernel", i.Kernel)
	file("initrd", i.Initrd)
	for k := range i.Disks {
		file("disk", &i.Disks[k])
	}
	row("command line", "%s", i.CommandLine)
	row("clock", "%s, seed %d", i.Clock, i.Seed)
	if i.Parent != "" {
		row("injected from", "%s", shown(i.Parent))
	}
	for _, f := range i.Faults {
		row("fault", "%s", f)
	}
	row("length", "%s steps, %s of virtual time", grouped(i.Steps), seconds(i.TimeNs))
	if i.End != nil && i.Complete {
		row("end", "%s", endText(i.End.Reason, i.End.Status))
	} else {
		row("end", "cut off: its recorder did not reach the end of the run")
	}
	events := 0
	for _, n := range i.Events {
		events += n
	}
	row("events", "%d, %s, %.4f bytes per 1000 steps", events, about(i.Bytes[traces.FileEvents]), i.LogPerKilo)
	row("marks", "%d, %s", i.Marks, about(i.Bytes[traces.FileMarks]))
	row("snapshots", "%d, %s, and %d pages in %s", len(i.SnapshotSteps), about(i.Bytes[traces.FileSnapshots]), i.Pages, about(i.Bytes[traces.FilePages]))
	row("console", "%s", about(i.Bytes[traces.FileConsole]))
}

// eventText tells what an event was.
func eventText(e *vmm.Event) string {
	switch e.Kind {
	case vmm.EventConsole:
		return fmt.Sprintf("%q", e.Data)
	case vmm.EventClock:
		return fmt.Sprintf("+%d ns", e.DeltaNs)
	case vmm.EventFault:
		s := e.Fault.Spec
		if len(e.Fault.Old) > 0 {
			s += fmt.Sprintf(" (was %x)", e.Fault.Old)
		}
		return s
	}
	return ""
}
