//go:build linux && amd64

package jit

// coldPath is code behind a block that runs rarely: a way out, or a way around something. It begins at its label. The
// fields are what the translator knew where the path leads off; emit says which of them count.
type coldPath struct {
	label
	emit func(t *translator, p *coldPath)

	fl     flagState
	re     again // what makes the flags, where fl says so
	loop   *loop // the second body that the path leads out of, if it is one
	rest   int32 // what the block's account has left there
	mode   uint8 // of the processor
	target uint64
	site   int // offset of the displacement to patch, or 0
	kind   exitKind

	// Of an exit that leaves an instruction to the interpreter.
	id       int   // the exit
	after    label // behind the instruction,
	resumes  bool  // where the block goes on, if this is set,
	host     bool  // with flags in the host's register,
	sse, x87 bool  // these units loaded,
	keeps    int   // and R10 with a register's value, if not keptNone
}

// later returns a cold path that emit will emit behind the block. Nothing is allocated for it: translating most blocks leaves no garbage.
func (t *translator) later(emit func(t *translator, p *coldPath)) *coldPath {
	p := t.cold.at(t.cold.add(coldPath{}))
	p.at, p.emit = -1, emit
	return p
}

// emitCold emits the cold paths, which may add more.
func (t *translator) emitCold() {
	for i := 0; i < t.cold.n; i++ {
		p := t.cold.at(i)
		t.a.bind(&p.label)
		p.emit(t, p)
	}
}

// saveFlagsOf makes the guest's flags valid in memory, as they were where the path leads off.
func (t *translator) saveFlagsOf(p *coldPath) {
	t.fl, t.re = p.fl, p.re
	t.saveFlags()
}
