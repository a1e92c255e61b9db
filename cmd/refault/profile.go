package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/pprof/profile"
	"github.com/spf13/pflag"

	"refault/replay"
	"refault/vmm"
)

// profileEvery is the default distance between samples: a prime, so that no loop of the guest keeps in step with it.
const profileEvery = 100_003

type profileFlags struct {
	out             string
	from, to, every uint64
	top             int
	json            bool
}

var profileVerb = verb{
	name:    "profile",
	summary: "play a recording and tell where the guest spent its instructions",
	long: `Every so many steps it notes which instruction is next. The same recording gives the
same profile, to the bit: nothing depends on the host's time. What counts is instructions, so a
guest that is halted spends nothing. Code of the kernel and its modules is named by their symbols; code of
programs by the address space (cr3) and the address. Only the place itself is noted, not its
callers: kernels without frame pointers do not tell them. With -o the profile is written for
go tool pprof, with cr3 and privilege as tags.`,
	example: "refault profile boot.rec\nrefault profile boot.rec --from 1e9 --to 2e9 --every 10007 -o boot.pb.gz\ngo tool pprof -top boot.pb.gz",
	args:    "RECORDING", minArgs: 1, maxArgs: 1,
	flags: func(f *pflag.FlagSet) any {
		p := &profileFlags{to: vmm.Never, every: profileEvery}
		f.StringVarP(&p.out, "output", "o", "", "write the profile to this file, for go tool pprof")
		f.Var(stepFlag{v: &p.from}, "from", "first step (default: the beginning)")
		f.Var(stepFlag{&p.to, true}, "to", "step to stop before (default: the end)")
		f.Var(stepFlag{v: &p.every}, "every", "steps between samples")
		f.IntVar(&p.top, "top", 25, "how many places to list; 0: all")
		f.BoolVar(&p.json, "json", false, "tell the result as JSON")
		return p
	},
	run: func(ctx context.Context, a *app, c *call) (int, error) {
		f := c.flags.(*profileFlags)
		switch {
		case f.every == 0:
			return 0, usagef("--every is 0; there is at least one step between samples")
		case f.top < 0:
			return 0, usagef("--top is %d; it is how many places to list", f.top)
		case f.from >= f.to:
			return 0, usagef("--to %d does not come after --from %d", f.to, f.from)
		}
		p, err := a.open(c.args[0])
		if err != nil {
			return 0, err
		}
		defer p.Close()
		f.from = max(f.from, p.Start())
		if f.to == vmm.Never {
			f.to = p.End()
		}
		if f.from >= f.to {
			return 0, fmt.Errorf("step %d: the recording %s has steps %d to %d: %w", f.from, p.Dir, p.Start(), p.End(), replay.ErrBeyond)
		}
		f.every = min(f.every, f.to-f.from)
		var out *replacement
		if f.out != "" {
			if out, err = newReplacement(f.out); err != nil {
				return 0, err
			}
			defer out.discard()
		}
		k, err := readKernel(p.Manifest)
		if err != nil {
			fmt.Fprintf(a.err, "refault: the kernel's code stays without names: %s\n", oneLine(err))
			k = new(kernel)
		}

		g := guestProfile{flags: f, at: map[replay.Sample]int64{}, kernel: map[uint64]string{}}
		lookup := k.lookup(p.Machine())
		prog := newProgress(a.err, "profiling")
		p.Progress = prog.at
		stop := withCancel(ctx, p.Interrupt)
		begin := uint64(0)
		err = p.Sample(f.from, f.to, f.every, func(s replay.Sample) {
			if s.Step == f.from {
				begin = p.Machine().TimeNs()
			}
			g.add(s)
			if _, ok := g.kernel[s.RIP]; !ok && s.CPL != 3 {
				g.kernel[s.RIP], _, _ = lookup(s.RIP) // the module that is there now may be gone at the end
			}
		})
		stop()
		prog.done()
		if d := (*replay.Divergence)(nil); errors.As(err, &d) {
			fmt.Fprintf(a.out, "%s\n", d)
			return statusDifferent, nil
		}
		if err != nil {
			return 0, err
		}
		if out != nil {
			b, err := g.encode(p.Machine().TimeNs() - begin)
			if err != nil {
				return 0, err
			}
			if err := out.commit(b); err != nil {
				return 0, err
			}
		}
		if f.json {
			return statusDone, writeJSON(a.out, g.report(c.args[0]))
		}
		w := bufio.NewWriter(a.out)
		g.text(w, c.args[0])
		return statusDone, w.Flush()
	},
}

// guestProfile folds samples.
type guestProfile struct {
	flags *profileFlags
	n     int64
	at    map[replay.Sample]int64 // by place, which is a sample without a step
	// kernel names functions of the kernel and of its modules, by address; what is in none has an empty name.
	kernel map[uint64]string
}

func (g *guestProfile) add(s replay.Sample) {
	s.Step = 0
	g.n++
	g.at[s]++
}

const (
	kernelCode = "kernel"
	userCode   = "user"
)

func privilege(s replay.Sample) string {
	if s.CPL == 3 {
		return userCode
	}
	return kernelCode
}

// function names the function of a sample's place, as far as it is known.
func (g *guestProfile) function(s replay.Sample) string {
	if s.CPL == 3 {
		return fmt.Sprintf("cr3:%#x:%#x", s.CR3, s.RIP)
	}
	if name := g.kernel[s.RIP]; name != "" {
		return name
	}
	return fmt.Sprintf("%#x", s.RIP)
}

// places returns the places in an order that depends on nothing but them.
func (g *guestProfile) places() []replay.Sample {
	l := make([]replay.Sample, 0, len(g.at))
	for s := range g.at {
		l = append(l, s)
	}
	slices.SortFunc(l, func(a, b replay.Sample) int {
		return cmp.Or(cmp.Compare(a.CPL, b.CPL), cmp.Compare(a.RIP, b.RIP), cmp.Compare(a.CR3, b.CR3))
	})
	return l
}

// profileRow is a function of a profile.
type profileRow struct {
	Function  string  `json:"function"`
	Privilege string  `json:"privilege"`
	Samples   int64   `json:"samples"`
	Share     float64 `json:"share"`
}

// profileReport is what --json tells.
type profileReport struct {
	Recording string       `json:"recording"`
	From      uint64       `json:"from"`
	To        uint64       `json:"to"`
	Every     uint64       `json:"every"`
	Samples   int64        `json:"samples"`
	Kernel    int64        `json:"kernel_samples"`
	User      int64        `json:"user_samples"`
	Functions []profileRow `json:"functions"` // the most frequent first
	more      int          // functions that are not among them
}

func (g *guestProfile) report(recording string) *profileReport {
	r := &profileReport{Recording: recording, From: g.flags.from, To: g.flags.to, Every: g.flags.every, Samples: g.n}
	index := map[profileRow]int{}
	for _, s := range g.places() {
		n := g.at[s]
		row := profileRow{Function: g.function(s), Privilege: privilege(s)}
		if row.Privilege == userCode {
			r.User += n
		} else {
			r.Kernel += n
		}
		i, ok := index[row]
		if !ok {
			i = len(r.Functions)
			index[row] = i
			r.Functions = append(r.Functions, row)
		}
		r.Functions[i].Samples += n
	}
	for i := range r.Functions {
		r.Functions[i].Share = float64(r.Functions[i].Samples) / float64(g.n)
	}
	slices.SortStableFunc(r.Functions, func(a, b profileRow) int { return cmp.Compare(b.Samples, a.Samples) })
	if top := g.flags.top; top > 0 && top < len(r.Functions) {
		r.more = len(r.Functions) - top
		r.Functions = r.Functions[:top]
	}
	return r
}

func (g *guestProfile) text(w io.Writer, recording string) {
	r := g.report(recording)
	share := func(n int64) float64 { return 100 * float64(n) / float64(r.Samples) }
	fmt.Fprintf(w, "%s: %s samples, one every %s steps from step %s to %s; kernel %.1f %%, user %.1f %%\n",
		recording, grouped(uint64(r.Samples)), grouped(r.Every), grouped(r.From), grouped(r.To), share(r.Kernel), share(r.User))
	fmt.Fprintf(w, "%10s %8s %8s  %s\n", "samples", "share", "sum", "function")
	var sum int64
	for _, f := range r.Functions {
		sum += f.Samples
		fmt.Fprintf(w, "%10d %6.1f %% %6.1f %%  %s\n", f.Samples, 100*f.Share, share(sum), f.Function)
	}
	if r.more > 0 {
		fmt.Fprintf(w, "and %d more places; --top 0 lists all\n", r.more)
	}
}

// encode writes the profile as pprof reads it (profile.proto of github.com/google/pprof).
// durationNs is the virtual time that it covers.
func (g *guestProfile) encode(durationNs uint64) ([]byte, error) {
	kernel := &profile.Mapping{ID: 1, File: "[guest kernel]", HasFunctions: true}
	user := &profile.Mapping{ID: 2, File: "[guest user]", HasFunctions: true}
	p := &profile.Profile{
		SampleType:        []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "instructions", Unit: "count"}},
		DefaultSampleType: "instructions",
		PeriodType:        &profile.ValueType{Type: "instructions", Unit: "count"},
		Period:            int64(g.flags.every),
		DurationNanos:     int64(durationNs),
		Mapping:           []*profile.Mapping{kernel, user},
		Comments:          []string{fmt.Sprintf("refault profile: one sample every %d steps from step %d to %d", g.flags.every, g.flags.from, g.flags.to)},
	}
	functions := map[string]*profile.Function{}
	type place struct {
		rip, cr3 uint64
		cpl      uint8
	}
	locations := map[place]*profile.Location{}
	for _, s := range g.places() {
		// A kernel's code is the same in all address spaces.
		at := place{rip: s.RIP, cpl: s.CPL}
		mapping := kernel
		if s.CPL == 3 {
			at.cr3, mapping = s.CR3, user
		}
		l := locations[at]
		if l == nil {
			name := g.function(s)
			f := functions[name]
			if f == nil {
				f = &profile.Function{ID: uint64(len(functions) + 1), Name: name, SystemName: name, Filename: mapping.File}
				functions[name] = f
				p.Function = append(p.Function, f)
			}
			l = &profile.Location{ID: uint64(len(locations) + 1), Mapping: mapping, Address: s.RIP, Line: []profile.Line{{Function: f}}}
			locations[at] = l
			p.Location = append(p.Location, l)
		}
		n := g.at[s]
		p.Sample = append(p.Sample, &profile.Sample{
			Location: []*profile.Location{l},
			Value:    []int64{n, n * int64(g.flags.every)},
			Label:    map[string][]string{"cr3": {fmt.Sprintf("%#x", s.CR3)}, "privilege": {privilege(s)}},
		})
	}
	if err := p.CheckValid(); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return b.Bytes(), nil
}

// replacement is a file that takes its name when it is whole. That it can be written is found out at once.
type replacement struct {
	f    *os.File
	path string
}

func newReplacement(path string) (*replacement, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is there, and is no file", path)
	}
	f, err := os.OpenFile(filepath.Clean(path)+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, err
	}
	return &replacement{f, path}, nil
}

func (r *replacement) commit(b []byte) error {
	_, err := r.f.Write(b)
	if err = errors.Join(err, r.f.Close()); err != nil {
		return err
	}
	return os.Rename(r.f.Name(), r.path)
}

// discard removes what was not committed.
func (r *replacement) discard() {
	r.f.Close()
	os.Remove(r.f.Name())
}
