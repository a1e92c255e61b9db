package traces

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/vmihailenco/msgpack/v5"
	"github.com/zeebo/xxh3"
)

// sample is a frozen recording of format 1.
const sample = "../replay/testdata/v1"

// blocksAsDocumented reads a file of blocks by the words of the package's
// documentation, and by nothing else of the package.
func blocksAsDocumented(t *testing.T, name string) (contents [][]byte, records []int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(sample, name))
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("refault %s 1\n", name)
	if !bytes.HasPrefix(b, []byte(line)) {
		t.Fatalf("%s begins with %q", name, b[:min(len(b), 40)])
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	le := binary.LittleEndian
	for b = b[len(line):]; len(b) > 0; {
		stored := b[44 : 44+le.Uint32(b[8:])]
		if string(b[:4]) != "RFB1" || le.Uint64(b[32:]) != xxh3.Hash(append(bytes.Clone(b[:32]), stored...)) || le.Uint32(b[40:]) != uint32(xxh3.Hash(b[:40])) {
			t.Fatalf("%s: a block is not as documented", name)
		}
		content, err := dec.DecodeAll(stored, nil)
		if err != nil || len(content) != int(le.Uint32(b[4:])) {
			t.Fatalf("%s: %d bytes, %v", name, len(content), err)
		}
		contents, records = append(contents, content), append(records, int(le.Uint32(b[12:])))
		b = b[44+len(stored):]
	}
	return contents, records
}

// valuesAsDocumented returns the records of a file as what MessagePack makes of them.
func valuesAsDocumented(t *testing.T, name string) (all [][]any) {
	t.Helper()
	contents, records := blocksAsDocumented(t, name)
	for i, c := range contents {
		dec := msgpack.NewDecoder(bytes.NewReader(c))
		for range records[i] {
			v, err := dec.DecodeSlice()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all = append(all, v)
		}
	}
	return all
}

func number(t *testing.T, v any) uint64 {
	t.Helper()
	switch n := reflect.ValueOf(v); {
	case n.CanInt():
		return uint64(n.Int())
	case n.CanUint():
		return n.Uint()
	}
	t.Fatalf("%T %v is no number", v, v)
	return 0
}

func TestSampleIsAsDocumented(t *testing.T) {
	contents, records := blocksAsDocumented(t, FilePages)
	store := [][]byte{make([]byte, 4096)}
	for i, c := range contents {
		if len(c) != 4096*records[i] {
			t.Fatalf("%d pages in %d bytes", records[i], len(c))
		}
		for ; len(c) > 0; c = c[4096:] {
			store = append(store, c[:4096])
		}
	}
	console, err := os.ReadFile(filepath.Join(sample, FileConsole))
	if err != nil {
		t.Fatal(err)
	}
	events := valuesAsDocumented(t, FileEvents)
	kinds := map[uint64]int{}
	for _, e := range events {
		kinds[number(t, e[2])]++
	}
	if len(kinds) != 4 || string(events[0][3].([]byte)) != "hello" {
		t.Errorf("kinds of events %v, the first has %q", kinds, events[0][3])
	}
	marks := valuesAsDocumented(t, FileMarks)
	at := map[uint64][]any{}
	for i, m := range marks {
		at[number(t, m[0])] = m
		n := number(t, m[4])
		if xxh3.Hash(console[:n]) != number(t, m[5]) || (m[8] != "") != (i == len(marks)-1) || number(t, m[6]) > uint64(len(events)) {
			t.Errorf("mark %d is %v", i, m)
		}
	}
	memory := map[uint64]uint64{} // page, number in the store
	for i, s := range valuesAsDocumented(t, FileSnapshots) {
		if s[3] == true {
			clear(memory)
		} else if i == 0 {
			t.Error("the first snapshot is not full")
		}
		ids := s[7].([]any)
		for k, n := range s[6].([]any) {
			memory[number(t, n)] = number(t, ids[k])
		}
		m := at[number(t, s[0])]
		if m == nil {
			continue
		}
		var hi, lo uint64
		for n, id := range memory {
			if id == 0 {
				continue
			}
			h := xxh3.Hash128Seed(store[id], n+1)
			var carry uint64
			lo, carry = bits.Add64(lo, h.Lo, 0)
			hi, _ = bits.Add64(hi, h.Hi, carry)
		}
		sum := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, lo), hi)
		if !bytes.Equal(sum, m[2].([]byte)) {
			t.Errorf("snapshot %d: the hash of memory is %x, its mark says %x", i, sum, m[2])
		}
		hashes := m[3].([]any)
		byName := map[any][]byte{}
		for k, d := range s[5].([]any) {
			byName[d.([]any)[0]] = hashes[k].([]byte)
		}
		for k, d := range s[5].([]any) {
			state, _ := d.([]any)[1].([]byte)
			if len(state) == 0 {
				continue // a disk
			}
			h := xxh3.Hash128(state)
			sum := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, h.Lo), h.Hi)
			if !bytes.Equal(sum, hashes[k].([]byte)) {
				t.Errorf("snapshot %d: the hash of %v is %x, its mark says %x", i, d.([]any)[0], sum, hashes[k])
			}
		}
		disks := s[8].([]any)
		var dhi, dlo uint64
		if d := disks[0].([]any); i == 0 || s[3] == true {
			ids, _ := d[2].([]any)
			numbers, _ := d[1].([]any)
			for k, n := range numbers {
				h := xxh3.Hash128Seed(store[number(t, ids[k])], number(t, n))
				var carry uint64
				dlo, carry = bits.Add64(dlo, h.Lo, 0)
				dhi, _ = bits.Add64(dhi, h.Hi, carry)
			}
			sum := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, dhi), dlo)
			if want := byName[d[0]]; !bytes.Equal(sum, want) {
				t.Errorf("snapshot %d: the hash of %s is %x, its mark says %x", i, d[0], sum, want)
			}
		}
	}
}
