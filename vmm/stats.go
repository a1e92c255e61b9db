package vmm

import (
	"cmp"
	"slices"

	"refault/vmm/x86"
	"refault/vmm/x86/jit"
)

// Stats says how a machine was executed, from when it was made: of the host, and no part of its state.
// A machine that was put at another position, as a replay does, counts what it executed all the same.
type Stats struct {
	Engine       Engine `json:"engine"`
	Instructions struct {
		Total       uint64 `json:"total"`
		Translated  uint64 `json:"translated"`  // executed as generated code
		Interpreted uint64 `json:"interpreted"` // executed by the interpreter
	} `json:"instructions"`
	// Interpreter says for what the translator called the interpreter.
	Interpreter []InterpreterCount `json:"interpreter"`
	// Fallbacks are the instructions that are always left to the interpreter, the most frequent first, in the
	// notation of SDM Vol. 2D appendix A.2: "mov Cy,Ry" writes a control register.
	Fallbacks   []Count `json:"fallbacks"`
	Translation struct {
		Blocks       uint64 `json:"blocks"`
		Instructions uint64 `json:"instructions"` // of the guest, in these blocks
		CodeBytes    uint64 `json:"code_bytes"`
		CacheFlushes uint64 `json:"cache_flushes"`
		Invalidated  uint64 `json:"invalidated"` // blocks, by writes to their pages
	} `json:"translation"`
	// Exits says why generated code was left, the most frequent first. It was entered as often.
	Exits []Count `json:"exits"`
	// Memory counts what went beyond the fast paths of memory.
	Memory struct {
		TLBMisses      uint64 `json:"tlb_misses"`
		FetchMisses    uint64 `json:"fetch_tlb_misses"`
		NotedStores    uint64 `json:"noted_stores"` // to pages of tables or of code
		DeviceAccesses uint64 `json:"device_accesses"`
		TLBFlushes     uint64 `json:"tlb_flushes"`
		RangeFlushes   uint64 `json:"range_flushes"`
		PageFlushes    uint64 `json:"page_flushes"`
		RootChanges    uint64 `json:"root_changes"` // loads of CR3 with other tables
	} `json:"memory"`
}

// Count is how often something happened.
type Count struct {
	Name  string  `json:"name"`
	Count uint64  `json:"count"`
	Share float64 `json:"share"` // of all in its list
}

// InterpreterCount is how often, and for how many instructions, the interpreter was called.
type InterpreterCount struct {
	Reason       string `json:"reason"`
	Times        uint64 `json:"times"`
	Instructions uint64 `json:"instructions"`
}

// Stats returns how the machine was executed so far.
func (m *Machine) Stats() *Stats {
	s := &Stats{Engine: m.engine}
	s.Instructions.Total = m.executed
	s.Instructions.Interpreted = m.executed
	for _, c := range m.CPUs {
		n := &c.Counts
		s.Memory.TLBMisses += n.Misses
		s.Memory.FetchMisses += n.FetchMisses
		s.Memory.NotedStores += n.Noted
		s.Memory.DeviceAccesses += n.Devices
		s.Memory.TLBFlushes += n.Flushes
		s.Memory.RangeFlushes += n.RangeFlushes
		s.Memory.PageFlushes += n.PageFlushes
		s.Memory.RootChanges += n.Roots
	}
	if m.jit != nil {
		s.translator(m.jit.Counted(), m.executedByJIT)
	}
	return s
}

// translator adds what the translator counted, in whose hands executed instructions retired.
func (s *Stats) translator(j *jit.Stats, executed uint64) {
	var left uint64
	for r, n := range j.Interpreted {
		left += n.Insts
		if n.Times > 0 {
			s.Interpreter = append(s.Interpreter, InterpreterCount{jit.Reason(r).String(), n.Times, n.Insts})
		}
	}
	slices.SortStableFunc(s.Interpreter, func(a, b InterpreterCount) int { return cmp.Compare(b.Times, a.Times) })
	s.Instructions.Translated = executed - left
	s.Instructions.Interpreted = s.Instructions.Total - s.Instructions.Translated
	s.Translation.Blocks, s.Translation.Instructions, s.Translation.CodeBytes = j.Blocks, j.Insts, j.CodeBytes
	s.Translation.CacheFlushes, s.Translation.Invalidated = j.Flushes, j.Dropped

	byName := map[string]uint64{}
	var fallbacks uint64
	for form, n := range j.Fallbacks {
		byName[x86.Forms()[form].Syntax] += n
		fallbacks += n
	}
	s.Fallbacks = counts(byName)
	s.Exits = counts(map[string]uint64{
		"instruction not translated":             fallbacks,
		"memory that the TLB does not grant":     j.Memory,
		"target of an indirect jump":             j.Target,
		"vector or x87 instruction not allowed":  j.Vector,
		"modified code":                          j.Slow - fallbacks - j.Memory - j.Target - j.Vector,
		"end of a run":                           j.Budget,
		"direct jump not linked":                 j.Link,
		"target of a jump to another page":       j.Jump,
		"block dropped because its page changed": j.Dead,
	})
}

// counts makes a list, the most frequent first, of what happened at all.
func counts(byName map[string]uint64) (list []Count) {
	var total uint64
	for name, n := range byName {
		if total += n; n > 0 {
			list = append(list, Count{Name: name, Count: n})
		}
	}
	for i := range list {
		list[i].Share = float64(list[i].Count) / float64(total)
	}
	slices.SortFunc(list, func(a, b Count) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name)) })
	return list
}
