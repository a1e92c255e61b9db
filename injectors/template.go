package injectors

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Template is the text of a fault, or a part of one, in which braces stand for what is
// drawn anew for each trial of a campaign:
//
//	{LO..HI}     a number from LO to HI, both included, all equally likely
//	{A|B|C}      one of the words
//
// as in "reg:name={rax|rbx|rcx},bit={0..63}@step:{1e9..2e9}".
type Template struct {
	fixed []string // what stands before each choice, and after the last
	draw  []func(r *rand.Rand) string
}

// ParseTemplate reads a template, and checks that what it makes is a fault.
func ParseTemplate(text string) (*Template, error) {
	t := new(Template)
	rest := text
	for {
		before, inner, found := strings.Cut(rest, "{")
		t.fixed = append(t.fixed, before)
		if !found {
			break
		}
		inner, after, found := strings.Cut(inner, "}")
		if !found {
			return nil, fmt.Errorf("fault %q: { without }: %w", text, ErrSpec)
		}
		d, err := parseChoice(inner)
		if err != nil {
			return nil, fmt.Errorf("fault %q: {%s}: %w: %w", text, inner, err, ErrSpec)
		}
		t.draw = append(t.draw, d)
		rest = after
	}
	if _, err := Parse(t.Draw(rand.New(rand.NewPCG(0, 0)))); err != nil {
		return nil, err
	}
	return t, nil
}

func parseChoice(s string) (func(*rand.Rand) string, error) {
	lo, hi, isRange := strings.Cut(s, "..")
	if !isRange {
		words := strings.Split(s, "|")
		if len(words) < 2 {
			return nil, fmt.Errorf("it is neither a range LO..HI nor a choice A|B")
		}
		return func(r *rand.Rand) string { return words[r.IntN(len(words))] }, nil
	}
	a, err := ParseUint(lo)
	if err != nil {
		return nil, err
	}
	b, err := ParseUint(hi)
	if err != nil {
		return nil, err
	}
	if b < a {
		return nil, fmt.Errorf("%d comes before %d", b, a)
	}
	base, prefix := 10, ""
	if strings.HasPrefix(lo, "0x") || strings.HasPrefix(hi, "0x") {
		base, prefix = 16, "0x"
	}
	return func(r *rand.Rand) string {
		v := a
		if n := b - a + 1; n != 0 {
			v += r.Uint64N(n)
		} else {
			v = r.Uint64()
		}
		return prefix + strconv.FormatUint(v, base)
	}, nil
}

// Draw returns the text of one fault.
func (t *Template) Draw(r *rand.Rand) string {
	var b strings.Builder
	for i, d := range t.draw {
		b.WriteString(t.fixed[i])
		b.WriteString(d(r))
	}
	b.WriteString(t.fixed[len(t.draw)])
	return b.String()
}
