package acpi

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testBase = 0xe0000

func testConfig() Config {
	return Config{CPUs: 2, LAPIC: 0xfee00000, IOAPIC: 0xfec00000, Keyboard: true}
}

// parse follows the pointers from the RSDP and returns the tables by signature.
func parse(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	le := binary.LittleEndian
	if string(b[:8]) != signatureRSDP || sum(b[:20]) != 0 || sum(b[:36]) != 0 {
		t.Fatal("RSDP: signature or checksums")
	}
	at := func(addr uint64) []byte {
		off := addr - testBase
		if off > uint64(len(b))-36 {
			t.Fatalf("a table at %#x", addr)
		}
		n := le.Uint32(b[off+4:])
		if uint64(n) > uint64(len(b))-off {
			t.Fatalf("the table at %#x has %d bytes", addr, n)
		}
		return b[off : off+uint64(n)]
	}
	tables := make(map[string][]byte)
	add := func(addr uint64) []byte {
		p := at(addr)
		name := string(p[:4])
		if name != "FACS" && sum(p) != 0 {
			t.Errorf("%s: checksum", name)
		}
		if have, ok := tables[name]; ok && !bytes.Equal(have, p) {
			t.Errorf("two different %s", name)
		}
		tables[name] = p
		return p
	}
	rsdt, xsdt := add(uint64(le.Uint32(b[16:]))), add(le.Uint64(b[24:]))
	var narrow, wide []uint64
	for p := rsdt[36:]; len(p) > 0; p = p[4:] {
		narrow = append(narrow, uint64(le.Uint32(p)))
	}
	for p := xsdt[36:]; len(p) > 0; p = p[8:] {
		wide = append(wide, le.Uint64(p))
	}
	if len(narrow) != 2 || len(wide) != 2 || narrow[0] != wide[0] || narrow[1] != wide[1] {
		t.Errorf("RSDT %#x, XSDT %#x", narrow, wide)
	}
	for _, a := range wide {
		add(a)
	}
	fadt := tables["FACP"]
	if facs := uint64(le.Uint32(fadt[36:])); facs%64 != 0 || len(add(facs)) != 64 {
		t.Errorf("FACS at %#x", facs)
	}
	if add(uint64(le.Uint32(fadt[40:]))); le.Uint64(fadt[140:]) != uint64(le.Uint32(fadt[40:])) {
		t.Error("two addresses of the DSDT")
	}
	return tables
}

func TestTables(t *testing.T) {
	le := binary.LittleEndian
	tables := parse(t, Tables(testBase, testConfig()))
	fadt := tables["FACP"]
	if len(fadt) != 244 || fadt[8] != 4 {
		t.Errorf("FADT of %d bytes, revision %d", len(fadt), fadt[8])
	}
	for _, c := range []struct {
		name      string
		off, ext  int
		port      uint32
		lenOff, n int
	}{
		{"PM1a event", 56, 148, 0x600, 88, 4},
		{"PM1a control", 64, 172, 0x604, 89, 2},
		{"PM timer", 76, 208, 0x608, 91, 4},
		{"GPE0", 80, 220, 0x620, 92, 4},
	} {
		if le.Uint32(fadt[c.off:]) != c.port || int(fadt[c.lenOff]) != c.n ||
			fadt[c.ext] != 1 || int(fadt[c.ext+1]) != 8*c.n || le.Uint64(fadt[c.ext+4:]) != uint64(c.port) {
			t.Errorf("%s: %#x, %d bytes, %x", c.name, le.Uint32(fadt[c.off:]), fadt[c.lenOff], fadt[c.ext:c.ext+12])
		}
	}
	if le.Uint16(fadt[46:]) != SCI || le.Uint32(fadt[48:]) != 0 || le.Uint64(fadt[120:]) != resetPort || fadt[128] != resetValue {
		t.Error("SCI, SMI command or reset register")
	}

	var kinds []byte
	for p := tables["APIC"][44:]; len(p) > 0; p = p[p[1]:] {
		kinds = append(kinds, p[0])
	}
	if !bytes.Equal(kinds, []byte{0, 0, 1, 2, 2, 4}) {
		t.Errorf("MADT entries %v", kinds)
	}
}

func TestPkgLength(t *testing.T) {
	for n, want := range map[int][]byte{
		0:     {1},
		62:    {63},
		63:    {0x41, 4},
		0xffd: {0x4f, 0xff},
		0xffe: {0x81, 0x00, 0x01},
	} {
		if got := sized(make([]byte, n)); !bytes.Equal(got[:len(got)-n], want) {
			t.Errorf("PkgLength for %d bytes: %x, want %x", n, got[:len(got)-n], want)
		}
	}
}

func TestEncodings(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want []byte
	}{
		{"EISA identifier", eisaID("PNP0A03"), []byte{0x0c, 0x41, 0xd0, 0x0a, 0x03}},
		{"absolute path", path(`\_SB.PCI0`), []byte("\\\x2e_SB_PCI0")},
		{"three segments", path("A.B.C"), []byte("\x2f\x03A___B___C___")},
		{"byte", integer(2), []byte{0x0a, 2}},
		{"word", integer(0x1234), []byte{0x0b, 0x34, 0x12}},
		{"dword", integer(0x12345678), []byte{0x0c, 0x78, 0x56, 0x34, 0x12}},
		{"ports", ioPorts(0x3f8, 8), []byte{0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8}},
		{"IRQ", irq(4), []byte{0x22, 0x10, 0}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: %x, want %x", c.name, c.got, c.want)
		}
	}
}

// TestDisassembler holds the tables to ACPICA's disassembler and compiler, where they are installed.
func TestDisassembler(t *testing.T) {
	iasl, err := exec.LookPath("iasl")
	if err != nil {
		t.Skip("iasl (package acpica-tools) is not installed")
	}
	dir := t.TempDir()
	for name, b := range parse(t, Tables(testBase, testConfig())) {
		file := filepath.Join(dir, name+".aml")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(iasl, "-d", file).CombinedOutput()
		if err != nil || strings.Contains(string(out), "Error") || strings.Contains(string(out), "Warning") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	source := filepath.Join(dir, "DSDT.dsl")
	out, err := exec.Command(iasl, "-p", filepath.Join(dir, "again"), source).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "0 Errors, 0 Warnings") {
		t.Errorf("compiling the disassembled DSDT: %v\n%s", err, out)
	}
}
