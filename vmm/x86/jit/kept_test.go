//go:build linux && amd64

package jit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"refault/vmm/x86"
)

// Programs on which the engines once differed are kept, as small as they could be made, in testdata/kept.
const keptDir = "testdata/kept"

// keptProgram is a program in a file.
type keptProgram struct {
	Seed, Limit uint64
	Stride      int
	Code        string         // in hexadecimal, without the HLTs behind it
	Data        map[int]string // by offset, without zeros
	Regs        map[string]uint64
	Flags       uint64
	FX          map[int]string
	User        bool   `json:",omitempty"`
	CR0         uint64 `json:",omitempty"`
	CR4         uint64 `json:",omitempty"`
	XCR0        uint64 `json:",omitempty"`
	IGNNE       bool   `json:",omitempty"`
}

// keep writes a program to a file, and returns its name.
func (p *program) keep(t testing.TB) string {
	k := keptProgram{Seed: p.seed, Limit: p.limit, Stride: p.stride, Code: hex.EncodeToString(bytes.TrimRight(p.code, "\xf4")), Data: sparse(p.data),
		Regs: map[string]uint64{}, Flags: p.flags, FX: sparse(p.fx[:]), User: p.user, CR0: p.cr0, CR4: p.cr4, XCR0: p.xcr0, IGNNE: p.ignne}
	for g, v := range p.regs {
		if v != 0 {
			k.Regs[x86.Registers()[g].Name] = v
		}
	}
	b, err := json.MarshalIndent(k, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	h := fnv.New32a()
	h.Write(b)
	name := filepath.Join(keptDir, fmt.Sprintf("%08x.json", h.Sum32()))
	if err := os.MkdirAll(keptDir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

func readKept(name string) (*program, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var k keptProgram
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &program{seed: k.Seed, limit: k.Limit, stride: k.Stride, data: make([]byte, dataBytes), flags: k.Flags, user: k.User, cr0: k.CR0, cr4: k.CR4, xcr0: k.XCR0, ignne: k.IGNNE}
	for g := range p.regs {
		p.regs[g] = k.Regs[x86.Registers()[g].Name]
	}
	if p.code, err = hex.DecodeString(k.Code); err == nil {
		p.code = append(p.code, bytes.Repeat([]byte{0xf4}, 0x300)...)
		err = errors.Join(fill(p.data, k.Data), fill(p.fx[:], k.FX))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// sparse returns the pieces of b that are not zero, by offset.
func sparse(b []byte) map[int]string {
	m := map[int]string{}
	const piece = 16
	for i := 0; i < len(b); i += piece {
		if p := b[i:min(i+piece, len(b))]; !zero(p) {
			m[i] = hex.EncodeToString(p)
		}
	}
	return m
}

// fill is the reverse of sparse.
func fill(b []byte, m map[int]string) error {
	for i, s := range m {
		p, err := hex.DecodeString(s)
		if err != nil || i < 0 || i+len(p) > len(b) {
			return fmt.Errorf("%d bytes at %d of %d: %w", len(p), i, len(b), err)
		}
		copy(b[i:], p)
	}
	return nil
}

// TestKeptPrograms runs what once failed.
func TestKeptPrograms(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(keptDir, "*.json"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%d programs in %s: %v", len(names), keptDir, err)
	}
	r := newPair(t)
	for _, name := range names {
		p, err := readKept(name)
		if err != nil {
			t.Fatal(err)
		}
		if n, d := r.differ(p); d != "" {
			t.Errorf("%s: within %d steps\n%s%s", name, n, d, p.list())
		}
	}
}

// shrink takes away from a program that fails what it fails without: instructions, which become NOPs so that
// branches still fit, then what it starts from.
func (r *pair) shrink(p *program) *program {
	try := func(change func(p *program)) {
		small := *p
		small.code, small.data = slices.Clone(p.code), slices.Clone(p.data)
		change(&small)
		if _, d := r.differ(&small); d != "" {
			p = &small
		}
	}
	nops := func(from, to int) {
		try(func(p *program) {
			for i := from; i < to; i++ {
				p.code[i] = 0x90
			}
		})
	}
	var starts []int // of instructions, as they follow each other
	for at := 0; at < len(bytes.TrimRight(p.code, "\xf4")); {
		starts = append(starts, at)
		var in x86.Inst
		if x86.Decode(p.code[at:], 8, &in) == x86.DecodeOK {
			at += int(in.Len)
		} else {
			at++
		}
	}
	starts = append(starts, len(bytes.TrimRight(p.code, "\xf4")))
	for n := len(starts) / 2; n > 0; n /= 2 {
		for i := 0; i+n < len(starts); i += n {
			nops(starts[i], starts[i+n])
		}
	}
	for n := len(p.data); n >= 8; n /= 2 {
		for i := 0; i+n <= len(p.data); i += n {
			if !zero(p.data[i : i+n]) {
				try(func(p *program) { clear(p.data[i : i+n]) })
			}
		}
	}
	for g := range p.regs {
		if g != x86.RSP {
			try(func(p *program) { p.regs[g] = 0 })
		}
	}
	for i := 32; i < len(p.fx); i += 16 {
		try(func(p *program) { clear(p.fx[i : i+16]) })
	}
	try(func(p *program) { p.flags = x86.Flag1 })
	try(func(p *program) { p.user = false })
	return p
}

func zero(b []byte) bool { return len(bytes.TrimRight(b, "\x00")) == 0 }
