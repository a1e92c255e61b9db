package vmm

import (
	"slices"
	"strings"
	"testing"

	"refault/vmm/dev/mca"
)

// TestLifeOfABank: whoever looks hears when an error is reported, and how, when the guest reads it, and
// when it clears it; and nothing where there is no error.
func TestLifeOfABank(t *testing.T) {
	m := tinyMachine(t)
	var said []string
	m.Observe(&Observer{Notice: func(n Notice) {
		if n.Kind == NoticeBank {
			what, _, _ := strings.Cut(n.String(), ", status")
			said = append(said, what)
		}
	}})
	c := m.CPUs[0]
	c.InstRIP = 0x1234
	const status, addr = mca.MSRMC0CTL + 4*9 + 1, mca.MSRMC0CTL + 4*9 + 2
	read := func(msr uint32) {
		if _, ok := c.Bus.ReadMSR(c, msr); !ok {
			t.Errorf("reading MSR %#x failed", msr)
		}
	}
	write := func(msr uint32, v uint64) {
		if !c.Bus.WriteMSR(c, msr, v) {
			t.Errorf("writing MSR %#x failed", msr)
		}
	}
	read(status)
	write(status, 0)
	write(mca.MSRMC0CTL+4*9, 1)
	write(mca.MSRMC0CTL2+9, mca.CTL2Enable|1)
	const corrected = mca.StatusEN | mca.StatusADDRV
	inject := func(f Fault) {
		f.Kind, f.Bank = FaultMCE, 9
		if err := m.Inject(&f); err != nil {
			t.Fatal(err)
		}
	}
	inject(Fault{Status: corrected})
	read(addr)
	read(status)
	write(status, 0)
	read(status)
	inject(Fault{Status: corrected, Silent: true})
	inject(Fault{Status: corrected | mca.StatusUC | mca.StatusS})
	inject(Fault{Status: corrected | mca.StatusUC | mca.StatusS})
	want := []string{
		"machine-check bank 9: reported with a CMCI",
		"machine-check bank 9: read by the guest (RIP 0x1234)",
		"machine-check bank 9: cleared by the guest (RIP 0x1234)",
		"machine-check bank 9: reported without a signal",
		"machine-check bank 9: reported with #MC",
		"machine-check bank 9: reported during a machine check, which is a shutdown",
	}
	if !slices.Equal(said, want) {
		t.Errorf("heard\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
}
