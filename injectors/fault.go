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
	text    string
}

// String returns the description that Parse took.
func (f *Fault) String() string { return f.text }

// Trigger says when a fault happens. Exactly one of its fields is set.
type Trigger struct {
	Step   uint64 // AtStep: when that many instructions have retired
	TimeNs uint64 // otherwise: when virtual time has reached it
	AtStep bool
}

func (t Trigger) String() string {
	if t.AtStep {
		return fmt.Sprintf("step:%d", t.Step)
	}
	return "time:" + time.Duration(t.TimeNs).String()
}

// Kind is a kind of fault.
type Kind struct {
	Name string
	Doc  string // one line
	// Sees says what the guest sees of it.
	Sees string
	// Source is where the behaviour is specified.
	Source string
	Keys   []Key
	// Resolve turns the keys into what happens to this machine. It is called at the
	// trigger's position and does not change the machine.
	Resolve func(m *vmm.Machine, a Args) (*vmm.Fault, error) `json:"-"`
}

// Key is one key of a kind.
type Key struct {
	Name    string
	Doc     string
	Default string   // empty: none
	Needed  bool     // must be given
	Values  []string // the words that it takes; nil: a number, unless Text
	Text    bool     // takes any text
}

// Args are the values of a kind's keys, defaults filled in.
type Args struct {
	kind   *Kind
	values []string // by index of Kind.Keys
}

// Has reports whether a key has a value.
func (a Args) Has(name string) bool { return a.Text(name) != "" }

// Text returns the value of a key as it was written.
func (a Args) Text(name string) string {
	i := slices.IndexFunc(a.kind.Keys, func(k Key) bool { return k.Name == name })
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

// Parse reads a fault's description.
func Parse(text string) (*Fault, error) {
	bad := func(format string, args ...any) (*Fault, error) {
		return nil, fmt.Errorf("fault %q: %s: %w", text, fmt.Sprintf(format, args...), ErrSpec)
	}
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return bad("no trigger; add one, for example @step:1000000")
	}
	trigger, err := parseTrigger(text[at+1:])
	if err != nil {
		return bad("%v", err)
	}
	name, rest, _ := strings.Cut(text[:at], ":")
	kind := findKind(name)
	if kind == nil {
		return bad("no kind %q; the kinds are %s", name, strings.Join(kindNames(), ", "))
	}
	args := Args{kind: kind, values: make([]string, len(kind.Keys))}
	given := make([]bool, len(kind.Keys))
	for _, pair := range strings.Split(rest, ",") {
		if pair == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		i := slices.IndexFunc(kind.Keys, func(k Key) bool { return k.Name == key })
		switch {
		case i < 0:
			return bad("%s has no key %q; its keys are %s", kind.Name, key, strings.Join(kind.keyNames(), ", "))
		case !found || value == "":
			return bad("key %s has no value", key)
		case given[i]:
			return bad("key %s is given twice", key)
		}
		if err := kind.Keys[i].check(value); err != nil {
			return bad("%v", err)
		}
		args.values[i], given[i] = value, true
	}
	for i, k := range kind.Keys {
		if !given[i] {
			if k.Needed {
				return bad("%s needs key %s (%s)", kind.Name, k.Name, k.Doc)
			}
			args.values[i] = k.Default
		}
	}
	return &Fault{Kind: kind, Args: args, Trigger: trigger, text: text}, nil
}

func (k *Kind) keyNames() []string {
	var names []string
	for _, key := range k.Keys {
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
	if _, err := ParseUint(value); err != nil {
		return fmt.Errorf("key %s: %w", k.Name, err)
	}
	return nil
}

func parseTrigger(s string) (Trigger, error) {
	kind, value, _ := strings.Cut(s, ":")
	switch kind {
	case "step":
		n, err := ParseUint(value)
		if err != nil {
			return Trigger{}, fmt.Errorf("trigger step: %w", err)
		}
		return Trigger{Step: n, AtStep: true}, nil
	case "time":
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return Trigger{}, fmt.Errorf("trigger time: %q is not a time; write for example 1.5s or 200ms", value)
		}
		return Trigger{TimeNs: uint64(d)}, nil
	}
	return Trigger{}, fmt.Errorf("no trigger %q; the triggers are step:N and time:DURATION", kind)
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
