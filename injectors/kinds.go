package injectors

import "refault/vmm"

// kinds is the table of all kinds of fault. A new kind is a new file and a row here.
var kinds = []*Kind{&mceKind, &poisonKind, &eccKind, &cacheKind, &memKind, &pteKind, &regKind, &aluKind, &opcodeKind, &ataKind, &busKind, &irqKind, &clockKind}

// one is what Resolve returns where a fault is one thing.
func one(f *vmm.Fault) []*vmm.Fault { return []*vmm.Fault{f} }

// Kinds lists the kinds of fault.
func Kinds() []*Kind { return kinds }

func findKind(name string) *Kind {
	for _, k := range kinds {
		if k.Name == name {
			return k
		}
	}
	return nil
}

func kindNames() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	return names
}
