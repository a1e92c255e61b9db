package mca

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"refault/vmm/dev"
	"refault/vmm/dev/devtest"
)

// Statuses of the classes of SDM Vol. 3B 15.6.3, as a Debian guest on QEMU is sent them.
const (
	statusCE   = StatusVAL | StatusEN | StatusADDRV | StatusMISCV | 0x9f
	statusUCNA = StatusVAL | StatusEN | StatusUC | StatusADDRV | StatusMISCV | 0x9f
	statusSRAO = statusUCNA | StatusS
	statusSRAR = statusUCNA | StatusS | StatusAR
	statusUC   = statusUCNA | StatusPCC
)

// newOn returns an MCA as Linux leaves it: every bank enabled, CMCI at the first corrected error.
func newOn(t *testing.T) *MCA {
	t.Helper()
	m := New(0)
	for i := range uint32(NumBanks) {
		m.write(t, MSRMC0CTL+4*i, ^uint64(0))
		m.write(t, MSRMC0CTL+4*i+1, 0)
		m.write(t, MSRMC0CTL2+i, CTL2Enable|1)
	}
	return m
}

func (m *MCA) write(t *testing.T, msr uint32, v uint64) {
	t.Helper()
	if handled, ok := m.WriteMSR(msr, v); !handled || !ok {
		t.Errorf("WRMSR %#x, %#x: handled %v, ok %v", msr, v, handled, ok)
	}
}

func (m *MCA) read(t *testing.T, msr uint32) uint64 {
	t.Helper()
	v, handled, ok := m.ReadMSR(msr)
	if !handled || !ok {
		t.Errorf("RDMSR %#x: handled %v, ok %v", msr, handled, ok)
	}
	return v
}

func TestSignals(t *testing.T) {
	for _, c := range []struct {
		name   string
		status uint64
		want   Effect
	}{
		{"CE", statusCE, Effect{CMCI: true}},
		{"UCNA", statusUCNA, Effect{CMCI: true}},
		{"SRAO", statusSRAO, Effect{MachineCheck: true}},
		{"SRAR", statusSRAR, Effect{MachineCheck: true}},
		{"UC", statusUC, Effect{MachineCheck: true}},
		{"UC without S", statusUC &^ StatusS, Effect{MachineCheck: true}},
		{"SRAO, not enabled", statusSRAO &^ StatusEN, Effect{}},
		{"UC, not enabled", statusUC &^ StatusEN, Effect{}},
	} {
		m := newOn(t)
		if e := m.Report(9, Record{Status: c.status &^ StatusVAL, Addr: 0xbaec000, Misc: 0x8c, McgStatus: McgRIPV}); e != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, e, c.want)
		}
		want := uint64(0)
		if c.want.MachineCheck {
			want = McgRIPV | McgMCIP
		}
		if v := m.read(t, MSRMCGStatus); v != want {
			t.Errorf("%s: IA32_MCG_STATUS %#x, want %#x", c.name, v, want)
		}
		b := m.Bank(9)
		if b.Status&^statusCount != c.status || b.Addr != 0xbaec000 || b.Misc != 0x8c {
			t.Errorf("%s: bank %+v", c.name, b)
		}
		if n := b.Status & statusCount >> statusCountShift; (n == 1) != (c.name == "CE") {
			t.Errorf("%s: count %d", c.name, n)
		}
	}
}

func TestBankThatSoftwareDidNotEnable(t *testing.T) {
	m := New(0)
	if e := m.Report(9, Record{Status: statusSRAR, McgStatus: McgRIPV}); e != (Effect{}) {
		t.Errorf("SRAR: %+v", e)
	}
	if s := m.read(t, MSRMC0CTL+4*9+1); s&(StatusVAL|StatusEN) != StatusVAL {
		t.Errorf("status %#x, want it logged as not enabled", s)
	}
	if e := m.Report(3, Record{Status: statusCE}); e != (Effect{}) {
		t.Errorf("CE: %+v", e)
	}
}

func TestShutdownOnNested(t *testing.T) {
	m := newOn(t)
	m.Report(9, Record{Status: statusSRAO, McgStatus: McgRIPV})
	if e := m.Report(4, Record{Status: statusCE}); e != (Effect{CMCI: true}) {
		t.Errorf("a corrected error during a machine check: %+v", e)
	}
	if e := m.Report(5, Record{Status: statusSRAO, McgStatus: McgRIPV}); e != (Effect{Shutdown: true}) {
		t.Errorf("a machine check during a machine check: %+v", e)
	}
	if m.Bank(5).Status&StatusVAL == 0 {
		t.Error("the second is not logged")
	}
	m = newOn(t)
	m.Report(9, Record{Status: statusSRAO, McgStatus: McgRIPV})
	m.write(t, MSRMCGStatus, 0)
	if e := m.Report(5, Record{Status: statusSRAR, McgStatus: McgRIPV | McgEIPV}); !e.MachineCheck {
		t.Errorf("after software cleared MCIP: %+v", e)
	}
}

// TestOverwrite holds the bank to the overwrite tables, row by row.
func TestOverwrite(t *testing.T) {
	green, yellow := uint64(statusCE|1<<53), uint64(statusCE|2<<53)
	for _, c := range []struct {
		name          string
		first, second uint64
		bank          int // which one's address is kept
		want          uint64
	}{
		{"CE, CE", statusCE, statusCE, 1, statusCE},
		{"green, yellow", green, yellow, 2, yellow},
		{"yellow, green", yellow, green, 1, yellow},
		{"yellow, yellow", yellow, yellow, 1, yellow},
		{"disabled CE, CE", statusCE &^ StatusEN, statusCE, 2, statusCE},
		{"CE, disabled yellow", statusCE, yellow &^ StatusEN, 1, statusCE},
		{"CE, UCNA", statusCE, statusUCNA, 2, statusUCNA | StatusOVER},
		{"CE, SRAR", statusCE, statusSRAR, 2, statusSRAR | StatusOVER},
		{"CE, UC", yellow, statusUC, 2, statusUC | StatusOVER},
		{"UCNA, CE", statusUCNA, yellow, 1, statusUCNA | StatusOVER},
		{"UC, CE", statusUC, statusCE, 1, statusUC | StatusOVER},
		{"UCNA, UCNA", statusUCNA, statusUCNA, 1, statusUCNA | StatusOVER},
		{"UCNA, SRAO", statusUCNA, statusSRAO, 1, statusSRAO | StatusOVER},
		{"UCNA, SRAR", statusUCNA, statusSRAR, 1, statusSRAR | StatusOVER},
		{"SRAO, UCNA", statusSRAO, statusUCNA, 1, statusSRAO | StatusOVER},
		{"SRAO, SRAO", statusSRAO, statusSRAO, 1, statusSRAO | StatusOVER},
		{"SRAO, SRAR", statusSRAO, statusSRAR, 1, statusSRAR | StatusOVER},
		{"SRAR, UCNA", statusSRAR, statusUCNA, 1, statusSRAR | StatusOVER},
		{"SRAR, SRAO", statusSRAR, statusSRAO, 1, statusSRAR | StatusOVER},
		{"SRAR, SRAR", statusSRAR, statusSRAR, 1, statusSRAR | StatusOVER},
		{"SRAR, UC", statusSRAR, statusUC, 2, statusUC | StatusOVER},
		{"UC, SRAR", statusUC, statusSRAR, 1, statusUC | StatusOVER},
		{"UC, UC", statusUC, statusUC, 1, statusUC | StatusOVER},
	} {
		m := newOn(t)
		m.Report(2, Record{Status: c.first, Addr: 1, Misc: 1, McgStatus: McgRIPV})
		m.write(t, MSRMCGStatus, 0)
		m.Report(2, Record{Status: c.second, Addr: 2, Misc: 2, McgStatus: McgRIPV})
		b := m.Bank(2)
		if b.Status&^statusCount != c.want || b.Addr != uint64(c.bank) || b.Misc != uint64(c.bank) {
			t.Errorf("%s: status %#x of error %d, want %#x of error %d", c.name, b.Status&^statusCount, b.Addr, c.want, c.bank)
		}
	}
}

func TestRegistersThatAreNotValidKeepWhatTheyHad(t *testing.T) {
	m := newOn(t)
	m.Report(0, Record{Status: statusCE, Addr: 7, Misc: 8})
	m.write(t, MSRMC0CTL+1, 0)
	m.Report(0, Record{Status: statusCE &^ (StatusADDRV | StatusMISCV), Addr: 9, Misc: 10})
	if b := m.Bank(0); b.Addr != 7 || b.Misc != 8 {
		t.Errorf("%+v", b)
	}
}

func TestThreshold(t *testing.T) {
	m := newOn(t)
	ce := func() bool { return m.Report(1, Record{Status: statusCE}).CMCI }
	m.write(t, MSRMC0CTL2+1, CTL2Enable|3)
	for i, want := range []bool{false, false, true, false, false} {
		if ce() != want {
			t.Errorf("CMCI at corrected error %d is not %v", i+1, want)
		}
	}
	m.write(t, MSRMC0CTL+4+1, 0) // clearing STATUS starts the count again
	for i, want := range []bool{false, false, true} {
		if ce() != want {
			t.Errorf("after clearing: CMCI at corrected error %d is not %v", i+1, want)
		}
	}
	m.write(t, MSRMC0CTL2+1, 4)
	if ce() {
		t.Error("CMCI while CTL2 disables it")
	}
	m.Report(1, Record{Status: statusUCNA})
	ce()
	if n := m.Bank(1).Status & statusCount >> statusCountShift; n != 5 {
		t.Errorf("count %d, want 5: under an uncorrected error too", n)
	}
	m.write(t, MSRMC0CTL2+1, CTL2Enable|ctl2Threshold)
	m.write(t, MSRMC0CTL+4+1, 0)
	for i := 1; i <= statusCountMax+2; i++ {
		if got := ce(); got != (i == statusCountMax) {
			t.Fatalf("CMCI %v at corrected error %d", got, i)
		}
	}
	if n := m.Bank(1).Status & statusCount >> statusCountShift; n != statusCountMax {
		t.Errorf("count %#x, want it saturated", n)
	}
}

func TestMSRs(t *testing.T) {
	m := New(0)
	if v := m.read(t, MSRMCGCap); v&0xff < 10 || v&(CapSER|CapCMCI) != CapSER|CapCMCI || v&(1<<8) != 0 {
		t.Errorf("IA32_MCG_CAP %#x", v)
	}
	for _, c := range []struct {
		msr         uint32
		v           uint64
		handled, ok bool
	}{
		{MSRMCGCap, Cap, true, false},
		{MSRMCGStatus, 7, true, true},
		{MSRMCGStatus, 8, true, false},
		{MSRMCGStatus, 0, true, true},
		{0x17b, 0, false, false}, // IA32_MCG_CTL: MCG_CTL_P is clear
		{MSRMC0CTL, ^uint64(0), true, true},
		{MSRMC0CTL + 1, 0, true, true},
		{MSRMC0CTL + 1, 1, true, false},
		{MSRMC0CTL + 2, 1 << 63, true, false},
		{MSRMC0CTL + 3, 0x8c, true, false},
		{MSRMC0CTL + 4*NumBanks - 1, 0, true, true},
		{MSRMC0CTL + 4*NumBanks, 0, false, false},
		{MSRMC0CTL - 1, 0, false, false},
		{MSRMC0CTL2, CTL2Enable | 0x7fff, true, true},
		{MSRMC0CTL2, 0x8000, true, false},
		{MSRMC0CTL2, 1 << 31, true, false},
		{MSRMC0CTL2 + NumBanks - 1, 1, true, true},
		{MSRMC0CTL2 + NumBanks, 1, false, false},
		{MSRP5MCAddr, 0, true, true},
		{MSRP5MCType, 1, true, false},
	} {
		if handled, ok := m.WriteMSR(c.msr, c.v); handled != c.handled || ok != c.ok {
			t.Errorf("WRMSR %#x, %#x: %v, %v; want %v, %v", c.msr, c.v, handled, ok, c.handled, c.ok)
		}
	}
	if m.read(t, MSRMC0CTL) != ^uint64(0) || m.read(t, MSRMC0CTL2) != CTL2Enable|0x7fff || m.read(t, MSRMC0CTL+1) != 0 {
		t.Error("registers do not hold what was written, or hold what was refused")
	}
	if _, handled, _ := m.ReadMSR(0x17b); handled {
		t.Error("IA32_MCG_CTL exists")
	}
	m.Report(0, Record{Status: statusCE, Addr: 5})
	if m.read(t, MSRP5MCAddr) != 5 || m.read(t, MSRP5MCType) != m.read(t, MSRMC0CTL+1) {
		t.Error("the Pentium's registers are not aliases of bank 0")
	}
	m.Reset()
	if !bytes.Equal(dev.Encode(m), dev.Encode(New(0))) {
		t.Error("reset left something")
	}
}

func TestSaveRestore(t *testing.T) {
	devtest.SaveRestore(t, func() *devtest.Bench {
		m := New(3)
		return &devtest.Bench{Clock: devtest.NewClock(), Devices: []dev.Device{m}, Step: func(r *rand.Rand) any {
			switch bank := r.IntN(4); r.IntN(4) {
			case 0:
				return m.Report(bank, Record{Status: r.Uint64(), Addr: r.Uint64(), Misc: r.Uint64(), McgStatus: r.Uint64()})
			case 1:
				m.WriteMSR(MSRMC0CTL2+uint32(bank), r.Uint64()&(CTL2Enable|3))
			case 2:
				m.WriteMSR(MSRMCGStatus, r.Uint64()&7)
			default:
				m.WriteMSR(MSRMC0CTL+uint32(r.IntN(16)), r.Uint64()*r.Uint64N(2))
			}
			v, _, _ := m.ReadMSR(MSRMC0CTL + uint32(r.IntN(16)))
			return v
		}}
	})
	s := New(0)
	for _, bad := range []State{{Version: 2, Banks: make([]Bank, NumBanks)}, {Version: 1, Banks: make([]Bank, NumBanks-1)}} {
		if s.Restore(func(p any) error { *p.(*State) = bad; return nil }) == nil {
			t.Errorf("version %d with %d banks accepted", bad.Version, len(bad.Banks))
		}
	}
}

func FuzzRestore(f *testing.F) {
	m := New(0)
	m.Report(1, Record{Status: statusSRAR, McgStatus: 7})
	f.Add(dev.Encode(m), uint8(1), uint64(statusCE))
	f.Fuzz(func(t *testing.T, state []byte, bank uint8, status uint64) {
		m := New(0)
		if dev.Decode(m, state) != nil {
			return
		}
		m.Report(int(bank)%NumBanks, Record{Status: status})
		if m.mcgStatus&^mcgWritable != 0 {
			t.Errorf("IA32_MCG_STATUS %#x", m.mcgStatus)
		}
	})
}
