package mca

import (
	"fmt"

	"refault/vmm/dev"
)

// NumBanks is the number of error-reporting banks.
const NumBanks = 20

// MSRs (SDM Vol. 4, table 2-2).
const (
	MSRP5MCAddr  = 0x0
	MSRP5MCType  = 0x1
	MSRMCGCap    = 0x179
	MSRMCGStatus = 0x17a
	MSRMC0CTL2   = 0x280 // one a bank
	MSRMC0CTL    = 0x400 // CTL, STATUS, ADDR, MISC of each bank
)

// Bits of IA32_MCG_CAP.
const (
	CapCMCI = 1 << 10
	CapTES  = 1 << 11
	CapSER  = 1 << 24

	// Cap is what IA32_MCG_CAP reads.
	Cap = NumBanks | CapCMCI | CapTES | CapSER
)

// Bits of IA32_MCG_STATUS.
const (
	McgRIPV = 1 << 0
	McgEIPV = 1 << 1
	McgMCIP = 1 << 2

	mcgWritable = McgRIPV | McgEIPV | McgMCIP
)

// Bits of IA32_MCi_STATUS.
const (
	StatusAR    = 1 << 55
	StatusS     = 1 << 56
	StatusPCC   = 1 << 57
	StatusADDRV = 1 << 58
	StatusMISCV = 1 << 59
	StatusEN    = 1 << 60
	StatusUC    = 1 << 61
	StatusOVER  = 1 << 62
	StatusVAL   = 1 << 63

	// The corrected error count.
	statusCountShift = 38
	statusCountMax   = 1<<15 - 1
	statusCount      = statusCountMax << statusCountShift

	// The threshold-based error status of a corrected error.
	statusTES    = 3 << 53
	statusYellow = 2 << 53
)

// Bits of IA32_MCi_CTL2.
const (
	CTL2Enable    = 1 << 30
	ctl2Threshold = 1<<15 - 1
)

// Record is an error as a bank would log it. Of Status, VAL and the corrected error
// count are the bank's own business. McgStatus is what
// IA32_MCG_STATUS says (RIPV, EIPV) if the error is signalled by #MC.
type Record struct {
	Status    uint64
	Addr      uint64
	Misc      uint64
	McgStatus uint64
}

// Effect says what the processor has to do about an error that was reported.
type Effect struct {
	MachineCheck bool // take #MC
	CMCI         bool // signal the local APIC's CMCI
	Shutdown     bool // a machine check during a machine check
}

// Bank holds the registers of one bank.
type Bank struct {
	CTL, Status, Addr, Misc, CTL2 uint64
}

// State is the saved state of an MCA.
type State struct {
	Version   uint8
	McgStatus uint64
	Banks     []Bank
}

// MCA is the machine-check architecture of one processor.
type MCA struct {
	id        int
	mcgStatus uint64
	banks     [NumBanks]Bank
}

var _ dev.Device = (*MCA)(nil)

// New returns the machine-check architecture of processor id.
func New(id int) *MCA { return &MCA{id: id} }

// class orders errors by how much is lost (15.6.2): each replaces a lower one in a bank.
type class uint8

const (
	corrected   class = iota
	recoverable       // UC without PCC: UCNA, SRAO, SRAR
	fatal
)

func classOf(status uint64) class {
	switch {
	case status&StatusUC == 0:
		return corrected
	case status&StatusPCC == 0:
		return recoverable
	}
	return fatal
}

// Report logs an error in a bank and tells what the processor has to do.
// Preconditions: 0 <= bank < NumBanks.
func (m *MCA) Report(bank int, rec Record) Effect {
	if bank < 0 || bank >= NumBanks {
		panic(fmt.Sprintf("BUG: machine-check bank %d of %d", bank, NumBanks))
	}
	b := &m.banks[bank]
	status := rec.Status&^statusCount | StatusVAL
	if b.CTL == 0 {
		status &^= StatusEN
	}
	if status&StatusUC == 0 {
		status &^= StatusPCC | StatusS | StatusAR // these have no meaning for a corrected error
	} else {
		status &^= statusTES
	}
	count := b.Status & statusCount
	if b.Status&StatusVAL == 0 {
		count = 0
	}
	var e Effect
	if status&StatusUC == 0 {
		if count != statusCount {
			count += 1 << statusCountShift
			threshold := b.CTL2 & ctl2Threshold
			e.CMCI = b.CTL2&CTL2Enable != 0 && threshold == count>>statusCountShift
		}
	}
	b.log(status, rec)
	b.Status = b.Status&^statusCount | count

	if status&StatusUC == 0 {
		return e
	}
	if status&(StatusPCC|StatusS) == 0 {
		e.CMCI = b.CTL2&CTL2Enable != 0
		return e
	}
	if status&StatusEN == 0 {
		return e
	}
	if m.mcgStatus&McgMCIP != 0 {
		return Effect{Shutdown: true}
	}
	m.mcgStatus = rec.McgStatus&mcgWritable | McgMCIP
	e.MachineCheck = true
	return e
}

// log puts an error into the bank, or into what is left of it there, by the overwrite rules.
func (b *Bank) log(status uint64, rec Record) {
	old := b.Status
	if old&StatusVAL == 0 {
		b.replace(status, rec)
		return
	}
	was, is := classOf(old), classOf(status)
	switch {
	case was == corrected && is == corrected:
		// Enabled errors replace disabled ones, and yellow replaces green. No overflow: they are counted.
		if status&^old&StatusEN != 0 || status&old&StatusEN != 0 && status&statusTES == statusYellow && old&statusTES != statusYellow {
			b.replace(status|old&StatusOVER, rec)
		}
	case is > was:
		b.replace(status|StatusOVER, rec)
	case was == recoverable && is == recoverable:
		b.Status = old | StatusOVER | status&(StatusS|StatusAR)
	default:
		b.Status = old | StatusOVER
	}
}

// replace logs an error. A register that is not valid keeps what it had.
func (b *Bank) replace(status uint64, rec Record) {
	b.Status = status
	if status&StatusADDRV != 0 {
		b.Addr = rec.Addr
	}
	if status&StatusMISCV != 0 {
		b.Misc = rec.Misc
	}
}

// Bank returns a copy of a bank's registers, for whoever wants to show them.
func (m *MCA) Bank(bank int) Bank { return m.banks[bank] }

// McgStatus returns IA32_MCG_STATUS.
func (m *MCA) McgStatus() uint64 { return m.mcgStatus }

// StatusOf returns the bank whose IA32_MCi_STATUS an MSR is; ok is false where it is none.
func StatusOf(msr uint32) (bank int, ok bool) {
	return int(msr-MSRMC0CTL) / 4, msr >= MSRMC0CTL && msr < MSRMC0CTL+4*NumBanks && msr&3 == 1
}

// register returns the bank register that an MSR is, or nil, and whether it is one that only zero may be written to.
func (m *MCA) register(msr uint32) (r *uint64, clearOnly bool) {
	switch {
	case msr >= MSRMC0CTL2 && msr < MSRMC0CTL2+NumBanks:
		return &m.banks[msr-MSRMC0CTL2].CTL2, false
	case msr >= MSRMC0CTL && msr < MSRMC0CTL+4*NumBanks:
		b := &m.banks[(msr-MSRMC0CTL)/4]
		switch msr & 3 {
		case 0:
			return &b.CTL, false
		case 1:
			return &b.Status, true
		case 2:
			return &b.Addr, true
		}
		return &b.Misc, true
	}
	return nil, false
}

// ReadMSR reads a register. handled is false where the MSR is not one of these; ok is false for #GP.
func (m *MCA) ReadMSR(msr uint32) (v uint64, handled, ok bool) {
	switch msr {
	case MSRMCGCap:
		return Cap, true, true
	case MSRMCGStatus:
		return m.mcgStatus, true, true
	case MSRP5MCAddr: // aliases, for software of the Pentium (15.10.1)
		return m.banks[0].Addr, true, true
	case MSRP5MCType:
		return m.banks[0].Status, true, true
	}
	if r, _ := m.register(msr); r != nil {
		return *r, true, true
	}
	return 0, false, false
}

// WriteMSR writes a register. handled is false where the MSR is not one of these; ok is false for #GP.
func (m *MCA) WriteMSR(msr uint32, v uint64) (handled, ok bool) {
	switch msr {
	case MSRMCGCap:
		return true, false
	case MSRMCGStatus:
		if v&^mcgWritable != 0 {
			return true, false
		}
		m.mcgStatus = v
		return true, true
	case MSRP5MCAddr, MSRP5MCType:
		return true, v == 0 // nothing relies on clearing through the alias
	}
	r, clearOnly := m.register(msr)
	switch {
	case r == nil:
		return false, false
	case clearOnly && v != 0:
		return true, false
	case msr < MSRMC0CTL && v&^(CTL2Enable|ctl2Threshold) != 0:
		return true, false
	}
	*r = v
	return true, true
}

// Name implements dev.Device.
func (m *MCA) Name() string { return fmt.Sprintf("mca%d", m.id) }

// Reset implements dev.Device.
func (m *MCA) Reset() { *m = MCA{id: m.id} }

// Save implements dev.Device.
func (m *MCA) Save() any {
	return &State{Version: 1, McgStatus: m.mcgStatus, Banks: append([]Bank(nil), m.banks[:]...)}
}

// Restore implements dev.Device.
func (m *MCA) Restore(decode func(any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 || len(s.Banks) != NumBanks {
		return fmt.Errorf("state version %d with %d banks, this program knows version 1 with %d", s.Version, len(s.Banks), NumBanks)
	}
	m.mcgStatus = s.McgStatus & mcgWritable
	copy(m.banks[:], s.Banks)
	return nil
}
