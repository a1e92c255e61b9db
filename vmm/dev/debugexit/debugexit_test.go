package debugexit

import (
	"testing"

	"refault/vmm/dev"
)

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		size int
		v    uint32
		want uint32
	}{{1, 0, 1}, {1, 0x10, 0x21}, {1, 0xabcd10, 0x21}, {2, 0x1ffff, 0x1ffff}, {4, 0x31, 0x63}, {4, 0xffffffff, 0xffffffff}} {
		var got []uint32
		d := New(func(s uint32) { got = append(got, s) })
		if d.In(0, c.size) != 0 || len(got) != 0 {
			t.Error("a read ended the machine")
		}
		d.Out(0, c.size, c.v)
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%d bytes %#x: status %#x, want %#x", c.size, c.v, got, c.want)
		}
	}
}

func TestSaveRestore(t *testing.T) {
	d := New(nil)
	if err := dev.Decode(d, dev.Encode(d)); err != nil {
		t.Error(err)
	}
	if err := d.Restore(func(s any) error { s.(*State).Version = 2; return nil }); err == nil {
		t.Error("a later version accepted")
	}
}
