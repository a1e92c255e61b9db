package x86

// Hardware task switching and virtual-8086 mode. Neither exists in IA-32e mode,
// and no operating system that this machine is made for uses them.

// taskGate would switch to the task that sel selects.
func (c *CPU) taskGate(sel uint16, _ Exception) { c.RaiseErr(VecTS, selError(sel)) }

// taskReturn would return to the task that the current one was called by.
func (c *CPU) taskReturn() { c.RaiseErr(VecTS, selError(c.Seg[TR].Sel)) }

// iretVM86 would return to virtual-8086 mode.
func (c *CPU) iretVM86(uint16, uint64, uint64) { c.RaiseErr(VecGP, 0) }
