package compare

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"

	"refault/replay"
	"refault/traces"
	"refault/vmm"
)

// Outcome is what became of a faulty run, measured by the golden one.
type Outcome string

// The outcomes, in the terms of the fault-injection literature.
const (
	// Masked: the final state is equal.
	Masked Outcome = "masked"
	// Latent: the outputs are equal, the final state is not.
	Latent Outcome = "latent"
	// SDC: an output differs, the console's or what was written to a disk, and nothing was noticed: silent data corruption.
	SDC Outcome = "sdc"
	// Corrected: the guest logged the fault and carried on.
	Corrected Outcome = "corrected"
	// Recovered: the guest gave up a part: it killed a process or failed an I/O.
	Recovered Outcome = "recovered"
	// Crash: panic, oops, triple fault.
	Crash Outcome = "crash"
	// Hang: no end within a multiple of the golden run's length, or nothing left to run.
	Hang Outcome = "hang"
)

// Outcomes lists all outcomes, from harmless to grave.
func Outcomes() []Outcome {
	return []Outcome{Masked, Corrected, Latent, Recovered, Hang, Crash, SDC}
}

// What a guest says when it notices: of Linux, and of this program's own guest.
var (
	crashLog     = regexp.MustCompile(`Kernel panic|Oops:|general protection fault, |BUG: unable to handle|kernel BUG at|Unable to mount root|guest: panic`)
	recoveredLog = regexp.MustCompile(`Memory failure: .*(Recovered|Sending SIGBUS|Killing)|MCE: Killing|I/O error, dev|exit status [1-9]|Out of memory: Killed|segfault at|traps: |guest: recovered`)
	correctedLog = regexp.MustCompile(`\[Hardware Error\]|ata[0-9.]+: exception|soft resetting link|EDAC |No irq handler for vector|nobody cared|(?i:spurious (8259A|APIC) interrupt)|self-detected stall|clocksource: .*unstable|guest: corrected`)
)

// Classify tells the outcome, and in a few words why.
func Classify(golden, faulty *replay.Player) (Outcome, string) {
	f := faulty.Manifest.End
	if f == nil {
		return Hang, "the faulty run was cut off before its end"
	}
	g := Ending{Output: golden.RecordedConsole(), Step: golden.End(), Written: writtenInAll(golden), Disks: diskHashes(golden)}
	if e := golden.Manifest.End; e != nil {
		g.Reason, g.Status = e.Reason, e.Status
	}
	return ClassifyEndings(g, Ending{faulty.RecordedConsole(), f.Step, f.Reason, f.Status, writtenInAll(faulty), diskHashes(faulty)}, func() bool { return equalEnd(golden, faulty) })
}

// Ending is what a run came to, or a part of one.
type Ending struct {
	Output []byte
	Step   uint64
	Reason string // empty: its recorder was killed
	Status uint32
	// Written is what was written to the disks, of which the order does not count, and Disks the hashes of what is on them in the end.
	Written traces.Written
	Disks   []traces.Hash
}

// DiskHashes returns the hashes of what is on the disks, of a machine with such devices.
func DiskHashes(devices []string, m *traces.Mark) (h []traces.Hash) {
	for i, name := range devices {
		if diskName.MatchString(name) {
			h = append(h, m.Devices[i])
		}
	}
	return h
}

func diskHashes(p *replay.Player) []traces.Hash {
	return DiskHashes(p.Manifest.Devices, &p.Marks()[len(p.Marks())-1])
}

// ClassifyEndings is Classify for runs that may be no recordings. equal is asked whether their final states are.
func ClassifyEndings(g, f Ending, equal func() bool) (Outcome, string) {
	said := NewLines(g.Output, f.Output)
	noticed := func(re *regexp.Regexp) (string, bool) {
		for _, l := range said {
			if re.Match(l) {
				return string(bytes.TrimSpace(l)), true
			}
		}
		return "", false
	}
	if l, ok := noticed(crashLog); ok {
		return Crash, fmt.Sprintf("the guest said: %s", l)
	}
	if f.Reason != g.Reason {
		switch f.Reason {
		case vmm.TripleFault.String():
			return Crash, "the processor shut down"
		case vmm.Reset.String():
			return Crash, "the guest reset itself"
		case replay.ReasonMaxSteps:
			return Hang, fmt.Sprintf("no end after %d steps; the golden run took %d", f.Step, g.Step)
		case vmm.Dead.String():
			return Hang, "all processors halted for good"
		}
	}
	if l, ok := noticed(recoveredLog); ok {
		return Recovered, fmt.Sprintf("the guest said: %s", l)
	}
	if l, ok := noticed(correctedLog); ok {
		return Corrected, fmt.Sprintf("the guest said: %s", l)
	}
	if len(said) > 0 || len(NewLines(f.Output, g.Output)) > 0 || g.Reason != "" && (f.Reason != g.Reason || f.Status != g.Status) {
		return SDC, "the outputs differ, and the guest noticed nothing"
	}
	if g.Written.Sectors != f.Written.Sectors || g.Written.Sum != f.Written.Sum || !slices.Equal(g.Disks, f.Disks) {
		return SDC, "what was written to the disks differs, and the guest noticed nothing"
	}
	if equal() {
		return Masked, "the final state is equal"
	}
	if !Align(g.Output, f.Output).Equal {
		return Latent, "the outputs are the same lines in another order, and the final state is not equal"
	}
	return Latent, "the outputs are equal, the final state is not"
}

// equalEnd reports whether both runs end in the same state, but for what is wrong with the hardware itself.
func equalEnd(golden, faulty *replay.Player) bool {
	gm, fm := golden.Marks(), faulty.Marks()
	return SameState(golden.Manifest.Devices, &gm[len(gm)-1], &fm[len(fm)-1])
}

// SameState reports whether two marks of machines with the same devices are of one
// state, but for what is wrong with the hardware itself.
func SameState(devices []string, g, f *traces.Mark) bool {
	if g.Step != f.Step || g.Memory != f.Memory || len(g.Devices) != len(f.Devices) {
		return false
	}
	for i := range g.Devices {
		if g.Devices[i] != f.Devices[i] && !hardware(devices[i]) {
			return false
		}
	}
	return true
}

var (
	driveName = regexp.MustCompile(`^ata\d|^mca\d|^defects$`)
	diskName  = regexp.MustCompile(`^disk\d`)
)

// hardware reports whether a device is one whose state is the fault itself.
func hardware(name string) bool { return driveName.MatchString(name) }

// NewLines returns the lines of b that are not in a, time stamps and process numbers aside.
func NewLines(a, b []byte) (lines [][]byte) {
	count := map[string]int{}
	for _, l := range splitLines(a) {
		count[key(l)]++
	}
	for _, l := range splitLines(b) {
		if count[key(l)]--; count[key(l)] < 0 {
			lines = append(lines, untimed(l))
		}
	}
	return lines
}
