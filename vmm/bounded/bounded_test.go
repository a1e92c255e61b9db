package bounded

import (
	"bytes"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

func TestCheckTakesWhatEncodeMakes(t *testing.T) {
	var nested any = 1
	for range nestingMax - 1 {
		nested = []any{nested}
	}
	for _, v := range []any{
		nil, true, 0, -1, -70, 127, 200, 70000, uint64(1) << 63, -1 << 40, 1.5, float32(1), "", "refault",
		make([]byte, 300), make([]byte, 70000), make([]int, 15), make([]int, 16), make([]int, 70000), string(make([]byte, 70000)),
		struct {
			A uint8
			B [3]string
			C []struct{ D, E uint16 }
		}{C: make([]struct{ D, E uint16 }, 3)}, nested,
	} {
		var b bytes.Buffer
		enc := msgpack.NewEncoder(&b)
		enc.UseArrayEncodedStructs(true)
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
		if err := Check(b.Bytes(), 1); err != nil {
			t.Errorf("%T of %d bytes refused", v, b.Len())
		}
		if Check(b.Bytes()[:b.Len()-1], 1) == nil || Check(append(b.Bytes(), 0), 1) == nil {
			t.Errorf("%T: a byte less or more accepted", v)
		}
	}
}

func TestCheckRefusesWhatWouldExhaustTheDecoder(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":             {},
		"huge array":        {0xdd, 0xe4, 0xeb, 0xf2, 0xf9, 0},
		"huge bytes":        {0xc6, 0xff, 0xff, 0xff, 0xff, 0},
		"deep nesting":      append(bytes.Repeat([]byte{0x91}, nestingMax+1), 0),
		"map 32":            {0xdf, 0, 0, 0, 0},
		"extension":         {0xc7, 0, 0},
		"reserved":          {0xc1},
		"header cut short":  {0xdd, 0, 0},
		"payload cut short": {0xcf, 0, 0},
	} {
		if Check(b, 1) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
