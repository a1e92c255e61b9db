package injectors

import (
	"fmt"
	"strings"
	"testing"

	"refault/vmm"
)

func TestMachineChecks(t *testing.T) {
	const addr, at = "addr=0x300000,", "@step:100000"
	for _, tt := range []struct {
		keys    string
		checks  int // that the guest took
		status  uint64
		misc    uint64
		stopped string
	}{
		{"type=corrected," + addr, 0, 0x9c000040000000c0, 0x8c, ""},
		{"type=corrected,count=5,health=yellow,lsb=6," + addr, 0, 0x9c400140000000c0, 0x86, ""},
		{"type=corrected,signal=none,code=memory-read,mscod=0x1234," + addr, 0, 0x9c0000401234009f, 0x8c, ""},
		{"type=ucna," + addr, 0, 0xbc000000000000c0, 0x8c, ""},
		{"type=srao," + addr, 1, 0xbd000000000000c0, 0x8c, ""},
		{"type=srao-wb,over=yes," + addr, 1, 0xfd0000000000017a, 0x8c, ""},
		{"type=srar,mode=linear,lsb=0," + addr, 1, 0xbd80000000000134, 0x40, ""},
		{"type=srar-fetch,misc=0x1c6," + addr, 1, 0xbd80000000000150, 0x1c6, ""},
		{"type=fatal,code=0x402," + addr, 1, 0xbf00000000000402, 0x8c, ""},
		{"type=raw,status=0xb200000000000005,mcgstatus=4", 1, 0xb200000000000005, 0, ""},
	} {
		t.Run(tt.keys, func(t *testing.T) {
			o := inject(t, "mce:"+strings.TrimSuffix(tt.keys, ",")+at)
			if n := strings.Count(o.said(), "M"); n != tt.checks {
				t.Errorf("%d machine checks, want %d: %q", n, tt.checks, o.said())
			}
			if err := o.Seek(100_001); err != nil {
				t.Fatal(err)
			}
			status, a, misc := o.Machine().ReadBank(0, 9)
			if status != tt.status {
				t.Errorf("IA32_MC9_STATUS %#x, want %#x", status, tt.status)
			}
			if status&mciAddrV != 0 && a != 0x300000 {
				t.Errorf("IA32_MC9_ADDR %#x", a)
			}
			if status&mciMiscV != 0 && misc != tt.misc {
				t.Errorf("IA32_MC9_MISC %#x, want %#x", misc, tt.misc)
			}
		})
	}
	t.Run("nested", func(t *testing.T) {
		srar := "mce:type=srar,addr=0x300000"
		if o := inject(t, srar+at, srar+"@vector:mc"); o.reason != vmm.TripleFault.String() {
			t.Errorf("ended: %s", o.reason)
		}
	})
	t.Run("overflow", func(t *testing.T) {
		o := inject(t, "mce:type=ucna,addr=0x300000"+at, "mce:type=ucna,addr=0x300040"+at+"@+10")
		if err := o.Seek(100_020); err != nil {
			t.Fatal(err)
		}
		if status, a, _ := o.Machine().ReadBank(0, 9); status != 0xfc000000000000c0 || a != 0x300000 {
			t.Errorf("status %#x, address %#x: the first stays, with OVER", status, a)
		}
	})
}

func TestDiskFaults(t *testing.T) {
	for _, tt := range []struct {
		keys    string
		errors  int
		changed bool // the guest calculates with other data
	}{
		{"error=unc,lba=7", 1, true},
		{"error=unc,ops=read,every=2", 12, true},
		{"error=unc,ops=read,times=3", 3, true},
		{"error=abrt,ops=write,lba=128,count=128", 24, false},
		{"error=idnf,lba=14", 1, true},
		{"error=df,lba=7", 1, true},
		{"error=slow,by=10ms,lba=7", 0, true},
		{"error=wrong,lba=7,mask=0x80", 0, true},
		{"error=misdirected,ops=read,lba=7,target=9", 0, true},
		{"error=dropped,lba=130", 0, false},
		{"error=torn,lba=130,bytes=100", 0, false},
	} {
		o := inject(t, "ata:"+tt.keys+"@step:0")
		if n := strings.Count(o.said(), "E"); n != tt.errors {
			t.Errorf("%s: %d errors, want %d: %q", tt.keys, n, tt.errors, o.said())
		}
		if sum(o.said()) == sum(strings.ReplaceAll(string(golden(t).RecordedConsole()), "\r\n", "\n")) == tt.changed {
			t.Errorf("%s: the guest calculated %s, changed should be %v", tt.keys, sum(o.said()), tt.changed)
		}
	}
	if o := inject(t, "ata:error=timeout,lba=7@step:0"); o.reason == vmm.DebugExit.String() {
		t.Errorf("a drive that does not answer: ended %s, %q", o.reason, o.said())
	}
}

// sum returns the checksum that the tiny guest prints.
func sum(console string) string {
	lines := strings.Split(strings.TrimSpace(console), "\n")
	if len(lines) < 2 {
		return fmt.Sprintf("none in %q", console)
	}
	return lines[len(lines)-2]
}
