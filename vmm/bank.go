package vmm

import (
	"fmt"

	"refault/vmm/dev/mca"
	"refault/vmm/x86"
)

// The life of an error in a machine-check bank: it is reported, the guest reads it, and clears it.

// reported tells of an error that came to a bank.
func (m *Machine) reported(c *x86.CPU, bank int, how string) {
	m.tellBank(c, bank, 0, "reported %s, status %#x", how, m.mcas[c.ID].Bank(bank).Status)
}

// bankRead tells of a guest that reads an error.
func (m *Machine) bankRead(c *x86.CPU, msr uint32) {
	if bank, ok := mca.StatusOf(msr); ok && m.mcas[c.ID].Bank(bank).Status&mca.StatusVAL != 0 {
		m.tellBank(c, bank, c.InstRIP, "read by the guest")
	}
}

// bankWritten tells of a guest that clears an error. It is called before it does.
func (m *Machine) bankWritten(c *x86.CPU, msr uint32, v uint64) {
	if bank, ok := mca.StatusOf(msr); ok && v == 0 && m.mcas[c.ID].Bank(bank).Status&mca.StatusVAL != 0 {
		m.tellBank(c, bank, c.InstRIP, "cleared by the guest")
	}
}

func (m *Machine) tellBank(c *x86.CPU, bank int, rip uint64, format string, args ...any) {
	for _, o := range m.observers {
		if o.Notice != nil {
			o.Notice(Notice{Step: c.Step, TimeNs: m.TimeNs(), ID: uint64(bank), Kind: NoticeBank, RIP: rip, What: fmt.Sprintf(format, args...)})
		}
	}
}
