package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"refault/injectors"
)

var faultsVerb = verb{
	name:    "faults",
	passive: true,
	summary: "list the kinds of fault, their keys and their triggers",
	example: "refault faults",
	flags:   jsonFlag,
	run: func(_ context.Context, a *app, c *call) (int, error) {
		if *c.flags.(*bool) {
			return statusDone, writeJSON(a.out, struct {
				Kinds    []*injectors.Kind        `json:"kinds"`
				Common   []injectors.Key          `json:"common_keys"`
				Triggers []*injectors.TriggerKind `json:"triggers"`
			}{injectors.Kinds(), injectors.CommonKeys(), injectors.TriggerKinds()})
		}
		fmt.Fprint(a.out, "A fault is KIND:key=value,...@TRIGGER.\n")
		for _, k := range injectors.Kinds() {
			fmt.Fprintf(a.out, "\n%s: %s\n  the guest sees: %s\n  source: %s\n", k.Name, k.Doc, k.Sees, k.Source)
			printKeys(a.out, k.Keys)
		}
		fmt.Fprint(a.out, "\nKeys of every kind:\n")
		printKeys(a.out, injectors.CommonKeys())
		fmt.Fprint(a.out, "\nTriggers; one @ after another is a sequence:\n")
		for _, t := range injectors.TriggerKinds() {
			fmt.Fprintf(a.out, "    %s\n               %s\n", t.Syntax, t.Doc)
		}
		return statusDone, nil
	},
}

func printKeys(w io.Writer, keys []injectors.Key) {
	for _, key := range keys {
		doc := key.Doc
		if key.Values != nil {
			doc += ": " + strings.Join(key.Values, ", ")
		}
		switch {
		case key.Needed:
			doc += " (needed)"
		case key.Default != "":
			doc += " (default " + key.Default + ")"
		}
		fmt.Fprintf(w, "    %-10s %s\n", key.Name, doc)
	}
}
