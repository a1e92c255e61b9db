package x86

import (
	"testing"
)

// Whatever the bytes: no panic, a length within bounds, and the same answer from no more bytes than it used.
func FuzzDecode(f *testing.F) {
	for _, b := range [][]byte{
		{0x90}, {0xf3, 0x48, 0x0f, 0xb8, 0xc1}, {0x66, 0x0f, 0x3a, 0x0f, 0x44, 0x24, 0x10, 0x08}, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8},
		{0x9a, 1, 2, 3, 4, 5, 6}, {0x67, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8}, {0xf0, 0x48, 0x0f, 0xc7, 0x0c, 0x24}, {0xc8, 1, 2, 3},
		{0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x90},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		for _, mode := range []int{2, 4, 8} {
			var in Inst
			st := Decode(code, mode, &in)
			switch {
			case st != DecodeOK:
				continue
			case in.Len == 0 || int(in.Len) > len(code) || in.Len > maxInstLen:
				t.Fatalf("length %d of % x", in.Len, code)
			}
			var again Inst
			if st := Decode(code[:in.Len], mode, &again); st != DecodeOK {
				t.Fatalf("mode %d: % x is whole, but not without what follows", mode, code[:in.Len])
			}
			in.Fn, again.Fn = nil, nil
			if a, b := describe(&in), describe(&again); a != b {
				t.Fatalf("mode %d: % x depends on what follows: %+v, %+v", mode, code[:in.Len], a, b)
			}
			for n := range int(in.Len) {
				if st := Decode(code[:n], mode, &again); st != DecodeMore {
					t.Fatalf("mode %d: %d bytes of % x: status %d", mode, n, code[:in.Len], st)
				}
			}
		}
	})
}

// describe is all of a decoded instruction that can be compared.
func describe(in *Inst) [7]uint64 {
	return [7]uint64{uint64(in.Form), uint64(in.Op), uint64(in.OpSize)<<8 | uint64(in.AddrSize), uint64(in.Reg)<<8 | uint64(in.RM), in.Disp, in.Imm, in.Imm2}
}
