package injectors

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"refault/vmm"
	"refault/vmm/mem"
)

// Stochastic processes: when faults come (gaps between them) and where they hit (draws for
// keys). All draws are made from one generator a fault, which starts at key seed or
// follows from the recording's seed, and what came of them is in the log. (On another kind of host, a logarithm
// may differ in its last bit, and so a draw: a faulty run's replay draws nothing.)

// uniform01 returns a number above 0 and below 1.
func uniform01(state *uint64) float64 {
	return (float64(splitmix(state)>>11) + 0.5) / (1 << 53)
}

// normal returns a draw of the standard normal distribution (Box and Muller).
func normal(state *uint64) float64 {
	return math.Sqrt(-2*math.Log(uniform01(state))) * math.Cos(2*math.Pi*uniform01(state))
}

// gamma returns a draw of the gamma distribution of a shape and scale 1 (Marsaglia and Tsang, 2000).
func gamma(shape float64, state *uint64) float64 {
	if shape < 1 {
		return gamma(shape+1, state) * math.Pow(uniform01(state), 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := normal(state)
		v := math.Pow(1+c*x, 3)
		if v > 0 && math.Log(uniform01(state)) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// onGaps comes again and again, after gaps that are drawn.
type onGaps struct {
	draw  func(state *uint64, n uint64) (gap float64, ok bool) // the n-th, from 0
	timed bool                                                 // gaps are in nanoseconds, not in steps
	path  string                                               // of a file that has to be read first
}

// amounts reads numbers of steps, or times.
func amount(s string) (v float64, timed bool, err error) {
	if n, err := ParseUint(s); err == nil {
		return float64(n), false, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, false, fmt.Errorf("%q is neither a number of instructions nor a time", s)
	}
	return float64(d), true, nil
}

func positive(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0) || f > 1e9 {
		return 0, fmt.Errorf("%q is not a positive number", s)
	}
	return f, nil
}

func parseGaps(arg string) (condition, error) {
	name, rest, _ := strings.Cut(arg, "/")
	p := strings.Split(rest, "/")
	want := map[string]int{"exp": 1, "weibull": 2, "gamma": 2, "lognormal": 2}[name]
	switch {
	case name == "file" && rest != "":
		return &onGaps{path: rest}, nil
	case want == 0:
		return nil, fmt.Errorf("no distribution %q%s; there are exp/MEAN, weibull/SHAPE/SCALE, gamma/SHAPE/SCALE, lognormal/MEDIAN/SIGMA and file/PATH",
			name, didYouMean(name, []string{"exp", "weibull", "gamma", "lognormal", "file"}))
	case len(p) != want || p[0] == "":
		return nil, fmt.Errorf("%s takes %d parameters", name, want)
	}
	o := new(onGaps)
	var a, b float64
	var err error
	switch name {
	case "exp":
		b, o.timed, err = amount(p[0])
		o.draw = func(s *uint64, _ uint64) (float64, bool) { return -b * math.Log(uniform01(s)), true }
	case "weibull", "gamma":
		if a, err = positive(p[0]); err == nil {
			b, o.timed, err = amount(p[1])
		}
		o.draw = func(s *uint64, _ uint64) (float64, bool) { return b * math.Pow(-math.Log(uniform01(s)), 1/a), true }
		if name == "gamma" {
			o.draw = func(s *uint64, _ uint64) (float64, bool) { return b * gamma(a, s), true }
		}
	case "lognormal":
		if b, o.timed, err = amount(p[0]); err == nil {
			a, err = positive(p[1])
		}
		o.draw = func(s *uint64, _ uint64) (float64, bool) { return b * math.Exp(a*normal(s)), true }
	}
	return o, err
}

// maxFile bounds how much is read of a file of field data.
const maxFile = 1 << 20

// lines reads the values in a file: one a line, without comments (#).
func lines(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
		if len(all) > maxFile {
			return nil, fmt.Errorf("%s: more than %d values", path, maxFile)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no values", path)
	}
	return all, nil
}

// bind reads the file.
func (o *onGaps) bind(Symbols) error {
	if o.path == "" {
		return nil
	}
	values, err := lines(o.path)
	if err != nil {
		return err
	}
	gaps := make([]float64, len(values))
	for i, s := range values {
		v, timed, err := amount(s)
		if err == nil && i > 0 && timed != o.timed {
			err = errors.New("times and numbers of instructions are mixed")
		}
		if err != nil {
			return fmt.Errorf("%s: value %d: %w", o.path, i+1, err)
		}
		gaps[i], o.timed = v, timed
	}
	o.draw = func(_ *uint64, n uint64) (float64, bool) {
		if n >= uint64(len(gaps)) {
			return 0, false
		}
		return gaps[n], true
	}
	return nil
}

func (o *onGaps) arm(a *armed) (func(), error) {
	a.next = a.since
	if o.timed {
		a.next = a.sinceNs
	}
	a.drawn = 0
	o.more(a)
	return nil, nil
}

// more draws the next gap.
func (o *onGaps) more(a *armed) {
	gap, ok := o.draw(&a.random, a.drawn)
	a.drawn++
	if !ok || gap > 1<<62 {
		a.next = vmm.Never
		return
	}
	a.next += max(uint64(gap), 1)
}

func (o *onGaps) at(a *armed) (step, timeNs uint64, ok bool) {
	if o.timed {
		return vmm.Never, a.next, a.next != vmm.Never
	}
	return a.next, vmm.Never, a.next != vmm.Never
}

// Draws for keys.

// draw is a key's value that is drawn each time that the fault happens.
type draw struct {
	text string
	pick func(s *uint64, m *vmm.Machine) (string, error)
}

// drawForms is what a drawn value can be.
const drawForms = "~uniform:A..B, ~cluster:CENTRE..SPREAD, ~one:A|B|C, ~file:PATH, ~ram, ~dram:row, ~dram:column or ~dram:bank"

func parseDraw(text string) (*draw, error) {
	name, arg, _ := strings.Cut(strings.TrimPrefix(text, "~"), ":")
	d := &draw{text: text}
	ends := func() (a, b uint64, err error) {
		x, y, ok := strings.Cut(arg, "..")
		if !ok {
			return 0, 0, fmt.Errorf("%s needs two numbers, as in ~%s:0..63", text, name)
		}
		if a, err = ParseUint(x); err == nil {
			b, err = ParseUint(y)
		}
		return a, b, err
	}
	switch name {
	case "uniform":
		a, b, err := ends()
		if err == nil && b < a {
			err = fmt.Errorf("%s ends before it begins", text)
		}
		if err != nil {
			return nil, err
		}
		d.pick = func(s *uint64, _ *vmm.Machine) (string, error) { return fmt.Sprint(a + below(s, b-a+1)), nil }
	case "cluster":
		centre, spread, err := ends()
		if err != nil {
			return nil, err
		}
		d.pick = func(s *uint64, _ *vmm.Machine) (string, error) {
			v := float64(centre) + normal(s)*float64(spread)
			return fmt.Sprint(uint64(max(v, 0))), nil
		}
	case "one", "file":
		values := strings.Split(arg, "|")
		if name == "file" {
			var err error
			if values, err = lines(arg); err != nil {
				return nil, err
			}
		}
		d.pick = func(s *uint64, _ *vmm.Machine) (string, error) { return values[below(s, uint64(len(values)))], nil }
	case "ram":
		d.pick = func(s *uint64, m *vmm.Machine) (string, error) { return fmt.Sprint(anywhere(s, m)), nil }
	case "dram":
		pick, err := parseDRAM(arg)
		if err != nil {
			return nil, err
		}
		d.pick = pick
	default:
		return nil, fmt.Errorf("%q is nothing that can be drawn; there are %s", text, drawForms)
	}
	return d, nil
}

// below returns a draw from 0 to n-1; n zero is 2^64.
func below(s *uint64, n uint64) uint64 {
	if n == 0 {
		return splitmix(s)
	}
	// Draws beyond the last whole multiple of n would favour small ones.
	for {
		if v := splitmix(s); v < math.MaxUint64-math.MaxUint64%n {
			return v % n
		}
	}
}

// anywhere returns a physical address in RAM.
func anywhere(s *uint64, m *vmm.Machine) uint64 {
	for {
		pa := m.RAM.Addr(below(s, m.RAM.Size()))
		if _, ok := m.RAM.Offset(pa); ok {
			return pa
		}
	}
}

// A DRAM geometry: of a physical address, the low bits are the column, the next the bank, the rest the row.
const (
	defaultColumnBits = 13 // a row of 8 KiB
	defaultBankBits   = 4
)

// parseDRAM reads which part of a DRAM fails: draws then lie in one row, column or bank, which the first of them picks.
func parseDRAM(arg string) (func(*uint64, *vmm.Machine) (string, error), error) {
	parts := strings.Split(arg, "/")
	if !slices.Contains([]string{"row", "column", "bank"}, parts[0]) {
		return nil, fmt.Errorf("~dram:%s: what fails is a row, a column or a bank", arg)
	}
	bits := map[string]uint64{"colbits": defaultColumnBits, "bankbits": defaultBankBits}
	for _, p := range parts[1:] {
		k, v, _ := strings.Cut(p, "=")
		n, err := ParseUint(v)
		if _, ok := bits[k]; !ok || err != nil || n > 24 {
			return nil, fmt.Errorf("~dram:%s: %q is no option; there are colbits=N and bankbits=N, of up to 24", arg, p)
		}
		bits[k] = n
	}
	column := uint64(1)<<bits["colbits"] - 1
	bank := (uint64(1)<<bits["bankbits"] - 1) << bits["colbits"]
	row := ^(column | bank)
	keep := map[string]uint64{"row": row | bank, "column": column | bank, "bank": bank}[parts[0]]
	var fixed uint64
	first := true
	return func(s *uint64, m *vmm.Machine) (string, error) {
		if first {
			fixed, first = anywhere(s, m)&keep, false
		}
		for range 1 << 20 {
			if pa := anywhere(s, m)&^keep | fixed; pa < mem.MaxSize+mem.HighBase {
				if _, ok := m.RAM.Offset(pa); ok {
					return fmt.Sprint(pa &^ 7), nil
				}
			}
		}
		return "", fmt.Errorf("~dram:%s finds no address in RAM", arg)
	}, nil
}
