package main

import (
	"context"
	"fmt"
	"strings"

	"refault/injectors"
)

var faultsVerb = verb{
	name:    "faults",
	summary: "list the kinds of fault, their keys and their triggers",
	example: "refault faults",
	flags:   jsonFlag,
	run: func(_ context.Context, a *app, c *call) (int, error) {
		if *c.flags.(*bool) {
			return statusDone, writeJSON(a.out, injectors.Kinds())
		}
		fmt.Fprint(a.out, "A fault is KIND:key=value,...@TRIGGER.\n")
		for _, k := range injectors.Kinds() {
			fmt.Fprintf(a.out, "\n%s: %s\n  the guest sees: %s\n  source: %s\n", k.Name, k.Doc, k.Sees, k.Source)
			for _, key := range k.Keys {
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
				fmt.Fprintf(a.out, "    %-10s %s\n", key.Name, doc)
			}
		}
		fmt.Fprint(a.out, "\nTriggers:\n    step:N     when N instructions have retired\n    time:T     at virtual time T, as 1.5s or 200ms\n")
		return statusDone, nil
	},
}
