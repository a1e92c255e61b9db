package injectors

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"refault/vmm"
)

// ErrSpec is wrapped by every error that a fault's description can have.
var ErrSpec = errors.New("bad fault description")

// Fault is a described fault that has not happened yet.
type Fault struct {
	Kind    *Kind
	Args    Args
	Trigger Trigger

	// Times is how often it happens, zero without limit; Every makes it every n-th occurrence of the
	// trigger, and Chance (0 to 1) a matter of luck, drawn from Seed.
	Times, Every uint64
	Chance       float64
	Seed         uint64
	// ID names it, for triggers of others.
	ID string

	draws []*draw // by index of Args, for values that are drawn
	late  []*Expr // by index of Args, for symbols of modules

	text   string
	bound  bool
	seeded bool
}

// drawn returns the arguments with what is drawn for them, and with symbols of modules as they are now.
func (f *Fault) drawn(state *uint64, m *vmm.Machine) (Args, error) {
	if f.draws == nil && f.late == nil {
		return f.Args, nil
	}
	a := Args{kind: f.Kind, values: slices.Clone(f.Args.values), guest: f.Args.guest}
	for i, e := range f.late {
		if e == nil {
			continue
		}
		if at, missing, _ := e.Locate(m.CPUs[0], a.guest); at == nil {
			return a, fmt.Errorf("fault %q: key %s: %s: %w", f, f.Kind.keys()[i].Name, missing, ErrSpec)
		}
		a.values[i] = fmt.Sprintf("%#x", e.Addr)
	}
	for i, d := range f.draws {
		if d == nil {
			continue
		}
		v, err := d.pick(state, m)
		for k := 0; err == nil && f.Kind.keys()[i].Name == "addr" && k < 1000; k++ { // a cluster may reach beyond RAM
			n, e := ParseUint(v)
			if _, ok := m.RAM.Offset(n); ok || e != nil {
				break
			}
			v, err = d.pick(state, m)
		}
		if err == nil {
			err = f.Kind.keys()[i].check(v)
		}
		if err != nil {
			return a, fmt.Errorf("fault %q: %w: %w", f, err, ErrSpec)
		}
		a.values[i] = v
	}
	return a, nil
}

// String returns the description that Parse took.
func (f *Fault) String() string { return f.text }

// Kind is a kind of fault.
type Kind struct {
	Name string `json:"name"`
	Doc  string `json:"doc"` // one line
	// Sees says what the guest sees of it.
	Sees string `json:"sees"`
	// Source is where the behaviour is specified.
	Source string `json:"source"`
	Keys   []Key  `json:"keys"`
	// Lasts reports whether the fault stays in the machine, so that the keys times, every and p say what
	// it does there; otherwise, or if it is nil, they say how often the trigger makes it happen.
	Lasts func(a Args) bool `json:"-"`
	// Resolve turns the keys into what happens to this machine. It is called at the
	// trigger's position and does not change the machine.
	Resolve func(m *vmm.Machine, a Args) ([]*vmm.Fault, error) `json:"-"`
	// Begin, in place of Resolve, begins something that makes faults happen over time, with Scheduler.emit.
	Begin func(s *Scheduler, spec string, a Args) error `json:"-"`
}

func always(Args) bool { return true }

// commonKeys are keys of every kind. Of one that Lasts, Resolve looks at the first three.
var commonKeys = []Key{
	{Name: "times", Doc: "how often it happens; 0: without limit", Default: "1"},
	{Name: "every", Doc: "it happens at every n-th occasion", Default: "1"},
	{Name: "p", Doc: "it happens with this chance at each occasion, from 0 to 1", Default: "1", Text: true},
	{Name: "seed", Doc: "of the draws for p (default: the recording's)"},
	{Name: "id", Doc: "a name, for the trigger after: of another fault", Text: true},
}

// CommonKeys lists the keys that every kind has.
func CommonKeys() []Key { return commonKeys }

// keys returns the kind's own and the common keys. A kind may have one of those with another default.
func (k *Kind) keys() []Key {
	all := slices.Clone(k.Keys)
	for _, c := range commonKeys {
		if !slices.ContainsFunc(k.Keys, func(o Key) bool { return o.Name == c.Name }) {
			all = append(all, c)
		}
	}
	return all
}

// Key is one key of a kind.
type Key struct {
	Name    string   `json:"name"`
	Doc     string   `json:"doc"`
	Default string   `json:"default,omitempty"` // empty: none
	Needed  bool     `json:"needed,omitempty"`  // must be given
	Values  []string `json:"values,omitempty"`  // the words that it takes; nil: a number, unless it is of one of the types below
	Text    bool     `json:"text,omitempty"`    // takes any text
	Addr    bool     `json:"addr,omitempty"`    // takes a symbol with an offset too
	Time    bool     `json:"time,omitempty"`    // takes a time, as 5ms
}

// Args are the values of a kind's keys, defaults filled in.
type Args struct {
	kind   *Kind
	values []string // by index of Kind.keys
	guest  Guest    // or nil
}

// Has reports whether a key has a value.
func (a Args) Has(name string) bool { return a.Text(name) != "" }

// Text returns the value of a key as it was written.
func (a Args) Text(name string) string {
	i := slices.IndexFunc(a.kind.keys(), func(k Key) bool { return k.Name == name })
	if i < 0 {
		panic("BUG: kind " + a.kind.Name + " has no key " + name)
	}
	return a.values[i]
}

// Uint returns the value of a number key, or zero without one. Parse has checked it.
func (a Args) Uint(name string) uint64 {
	v, _ := ParseUint(a.Text(name))
	return v
}

// Ns returns the value of a time key in nanoseconds, or zero without one.
func (a Args) Ns(name string) int64 {
	d, _ := time.ParseDuration(a.Text(name))
	return int64(d)
}

// Parse reads a fault's description.
func Parse(text string) (*Fault, error) {
	bad := func(format string, args ...any) (*Fault, error) {
		return nil, fmt.Errorf("fault %q: %s: %w", text, fmt.Sprintf(format, args...), ErrSpec)
	}
	what, when, found := strings.Cut(text, "@")
	name, rest, _ := strings.Cut(what, ":")
	kind := findKind(name)
	if kind == nil {
		return bad("no kind %q%s; the kinds are %s", name, didYouMean(name, kindNames()), strings.Join(kindNames(), ", "))
	}
	if !found {
		return bad("no trigger; add one, for example @step:1000000")
	}
	trigger, err := parseTrigger(when)
	if err != nil {
		return bad("%v", err)
	}
	keys := kind.keys()
	args := Args{kind: kind, values: make([]string, len(keys))}
	given := make([]bool, len(keys))
	var draws []*draw
	for _, pair := range strings.Split(rest, ",") {
		if pair == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == key })
		switch {
		case i < 0:
			return bad("%s has no key %q%s; its keys are %s", kind.Name, key, didYouMean(key, kind.keyNames()), strings.Join(kind.keyNames(), ", "))
		case !found || value == "":
			return bad("key %s has no value", key)
		case given[i]:
			return bad("key %s is given twice", key)
		}
		if strings.HasPrefix(value, "~") {
			if slices.ContainsFunc(commonKeys, func(c Key) bool { return c.Name == key }) {
				return bad("key %s cannot be drawn", key)
			}
			d, err := parseDraw(value)
			if err != nil {
				return bad("key %s: %v", key, err)
			}
			if draws == nil {
				draws = make([]*draw, len(keys))
			}
			draws[i] = d
		} else if err := keys[i].check(value); err != nil {
			return bad("%v", err)
		}
		args.values[i], given[i] = value, true
	}
	for i, k := range keys {
		if !given[i] {
			if k.Needed {
				return bad("%s needs key %s (%s)", kind.Name, k.Name, k.Doc)
			}
			args.values[i] = k.Default
		}
	}
	f := &Fault{Kind: kind, Args: args, Trigger: trigger, text: text, ID: args.Text("id"), draws: draws}
	if err := f.behaviour(); err != nil {
		return bad("%v", err)
	}
	return f, nil
}

// behaviour reads the common keys.
func (f *Fault) behaviour() error {
	f.Times, f.Every, f.Seed = f.Args.Uint("times"), f.Args.Uint("every"), f.Args.Uint("seed")
	f.seeded = f.Args.Has("seed")
	var err error
	if f.Chance, err = strconv.ParseFloat(f.Args.Text("p"), 64); err != nil || !(f.Chance > 0 && f.Chance <= 1) {
		return fmt.Errorf("key p is %q; it is a chance above 0 and up to 1", f.Args.Text("p"))
	}
	if f.Every == 0 {
		return errors.New("key every counts from 1")
	}
	if f.Kind.Lasts != nil && f.Kind.Lasts(f.Args) {
		f.Times, f.Every, f.Chance = 1, 1, 1
		return nil
	}
	if f.Times != 1 {
		last := f.Trigger.Stages[len(f.Trigger.Stages)-1]
		if s, ok := last.cond.(*atStep); ok && s.period == 0 {
			return fmt.Errorf("it cannot happen more than once at %s; give a period, as in %s/1e6", last.Text, last.Text)
		}
		if s, ok := last.cond.(*atTime); ok && s.periodNs == 0 {
			return fmt.Errorf("it cannot happen more than once at %s; give a period, as in %s/10ms", last.Text, last.Text)
		}
		if _, ok := last.cond.(*relative); ok {
			return fmt.Errorf("it cannot happen more than once at %s", last.Text)
		}
	}
	return nil
}

func (k *Kind) keyNames() []string {
	var names []string
	for _, key := range k.keys() {
		names = append(names, key.Name)
	}
	return names
}

func (k *Key) check(value string) error {
	switch {
	case k.Text:
		return nil
	case k.Values != nil:
		if !slices.Contains(k.Values, value) {
			return fmt.Errorf("key %s is %q; it can be %s", k.Name, value, strings.Join(k.Values, ", "))
		}
		return nil
	}
	_, err := ParseUint(value)
	switch {
	case k.Addr:
		_, err = ParseExpr(value)
	case k.Time:
		_, err = time.ParseDuration(value)
		if err != nil {
			err = fmt.Errorf("%q is not a time; write for example 1.5s or 200ms", value)
		}
	}
	if err != nil {
		return fmt.Errorf("key %s: %w", k.Name, err)
	}
	return nil
}

// ParseUint reads a number: decimal, hexadecimal with 0x, or with a whole power of ten as in 5e8.
func ParseUint(s string) (uint64, error) {
	if v, err := strconv.ParseUint(s, 0, 64); err == nil {
		return v, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && strings.ContainsAny(s, "eE") && !strings.HasPrefix(s, "0x") &&
		f >= 0 && f < 1<<53 && f == math.Trunc(f) {
		return uint64(f), nil
	}
	return 0, fmt.Errorf("%q is not a whole number (write 12, 0x1f or 5e8)", s)
}
