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
		fmt.Fprint(a.out, "\n", symbolsHelp)
		return statusDone, nil
	},
}

// symbolsHelp tells what a symbol can be.
const symbolsHelp = `Where an address is taken as a symbol, that can have an offset (jiffies+4), and is one of
  the kernel: it stays where it is.
  a module of a Linux kernel with BTF, as MODULE:SYMBOL (libata:ata_qc_complete). A trigger looks for
               it from the moment when the kernel starts the module (do_init_module), in the place
               where it then is, and not while the module is not loaded; that the module starts
               without such a symbol is an error, and where it is never loaded the trigger does not
               come. For a key, the module has to be loaded when the fault happens.
  a module that is loaded where the recording ends, by its name alone: as if its module was written.
`

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
