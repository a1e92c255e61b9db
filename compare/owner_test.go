package compare

import (
	"testing"

	"refault/test/recorded"
	"refault/test/tiny"
	"refault/vmm/ksym"
	"refault/vmm/x86"
)

// What Debian's kernel says of its memory is checked with the demonstration, in cmd/refault.

func TestOwnerInAGuestThatIsNoLinux(t *testing.T) {
	p := recorded.Open(t, recorded.Golden(t, 6))
	if err := p.Seek(200_000); err != nil {
		t.Fatal(err)
	}
	syms, err := ksym.Read(tiny.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*Owners{NewOwners(syms, nil), NewOwners(nil, nil)} {
		c := p.Machine().CPUs[0]
		for pa := uint64(0); pa < tiny.MemoryBytes+1<<20; pa += 4096 {
			want := ""
			if stack, ok := c.Translate(c.Regs[x86.RSP]); ok && stack>>12 == pa>>12 {
				want = "the kernel's stack"
			}
			if got := l.Owner(p.Machine(), pa); got != want {
				t.Errorf("%#x belongs to %q", pa, got)
			}
		}
	}
}

// TestMappedAtInBrokenTables looks into tables that map themselves: it has to end.
func TestMappedAtInBrokenTables(t *testing.T) {
	p := recorded.Open(t, recorded.Golden(t, 3))
	if err := p.Seek(0); err != nil {
		t.Fatal(err)
	}
	c := p.Machine().CPUs[0]
	c.EFER |= x86.EFERLMA
	defer func() { c.EFER &^= x86.EFERLMA }()
	const table = 0x3f0000
	var entries []byte
	for range 512 {
		entries = append(entries, 0x03, 0x00, 0x3f, 0, 0, 0, 0, 0) // present, of the table itself
	}
	if !p.Machine().RAM.WriteAt(entries, table) {
		t.Fatal("not RAM")
	}
	if va, ok := mappedAt(c, table, 0x1234); ok {
		t.Errorf("found at %#x", va)
	}
	if va, ok := mappedAt(c, table, table+5); !ok || va&0xfff != 5 {
		t.Errorf("the table itself: %#x, %v", va, ok)
	}
}
