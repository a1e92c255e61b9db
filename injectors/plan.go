package injectors

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A plan says in YAML what flags say in a line each:
//
//	seed: 42                        # of draws, for faults that have none of their own
//	faults:
//	  - kind: mce
//	    type: srao
//	    addr: 0xbaec000
//	    at: step:812345678
//	  - kind: mem
//	    addr: ~ram
//	    bit: ~uniform:0..7
//	    times: 0
//	    at: [console:^hello, "gaps:weibull/0.7/10ms"]
//	  - fault: ata:error=unc,lba=2344@ioread:2344
//
// A list of stages stands for a sequence.

// maxPlan bounds a plan, in bytes.
const maxPlan = 1 << 20

// ReadPlan reads the faults of a plan.
func ReadPlan(path string) ([]*Fault, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, maxPlan+1)
	n := 0
	for n < len(b) {
		k, err := f.Read(b[n:])
		n += k
		if err != nil {
			break
		}
	}
	if n > maxPlan {
		return nil, fmt.Errorf("%s: a plan has up to %d bytes: %w", path, maxPlan, ErrSpec)
	}
	return ParsePlan(path, b[:n])
}

// ParsePlan reads the faults of a plan; name stands for it in errors.
func ParsePlan(name string, text []byte) ([]*Fault, error) {
	bad := func(n *yaml.Node, format string, args ...any) ([]*Fault, error) {
		return nil, fmt.Errorf("%s:%d: %s: %w", name, n.Line, fmt.Sprintf(format, args...), ErrSpec)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", name, strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "), ErrSpec)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: a plan is a mapping with the keys seed and faults: %w", name, ErrSpec)
	}
	root := doc.Content[0]
	var seed uint64
	var list *yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		switch k.Value {
		case "seed":
			n, err := ParseUint(v.Value)
			if err != nil {
				return bad(v, "seed: %v", err)
			}
			seed = n
		case "faults":
			if v.Kind != yaml.SequenceNode {
				return bad(v, "faults is a list")
			}
			list = v
		default:
			return bad(k, "no key %q%s; a plan has the keys seed and faults", k.Value, didYouMean(k.Value, []string{"seed", "faults"}))
		}
	}
	if list == nil || len(list.Content) == 0 {
		return bad(root, "no faults")
	}
	var all []*Fault
	for i, n := range list.Content {
		spec, err := planFault(n)
		if err != nil {
			return bad(n, "%v", err)
		}
		f, err := Parse(spec)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n.Line, err)
		}
		if seed != 0 && !f.Args.Has("seed") {
			s := seed + uint64(i)
			f.Seed, f.seeded = splitmix(&s), true
		}
		all = append(all, f)
	}
	return all, nil
}

// planFault returns the textual form of a fault of a plan.
func planFault(n *yaml.Node) (string, error) {
	if n.Kind != yaml.MappingNode {
		return "", errors.New("a fault is a mapping with the keys kind and at, and those of its kind; or fault: KIND:key=value,…@TRIGGER")
	}
	var kind, at string
	var pairs []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Value == "at" && v.Kind == yaml.SequenceNode:
			var stages []string
			for _, s := range v.Content {
				if s.Kind != yaml.ScalarNode {
					return "", errors.New("at is a trigger or a list of triggers")
				}
				stages = append(stages, s.Value)
			}
			at = strings.Join(stages, "@")
		case v.Kind != yaml.ScalarNode:
			return "", fmt.Errorf("key %s has no plain value", k.Value)
		case k.Value == "fault":
			if len(n.Content) != 2 {
				return "", errors.New("fault: has everything in it, and no other keys beside it")
			}
			return v.Value, nil
		case k.Value == "kind":
			kind = v.Value
		case k.Value == "at":
			at = v.Value
		case strings.ContainsAny(v.Value, ",@"):
			return "", fmt.Errorf("key %s: a value has no comma and no @", k.Value)
		default:
			pairs = append(pairs, k.Value+"="+v.Value)
		}
	}
	switch {
	case kind == "":
		return "", errors.New("no key kind")
	case at == "":
		return "", errors.New("no key at: when it happens")
	}
	return kind + ":" + strings.Join(pairs, ",") + "@" + at, nil
}
