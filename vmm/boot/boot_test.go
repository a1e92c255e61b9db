package boot

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"refault/vmm/mem"
)

func newRAM(t testing.TB, size uint64) *mem.RAM {
	t.Helper()
	ram, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ram.Close() })
	return ram
}

// part is a PT_LOAD segment of a test kernel.
type part struct {
	vaddr, paddr uint64
	data         []byte
	memsz        uint64
}

// elf64 makes an ELF file for x86-64.
func elf64(entry uint64, parts ...part) []byte {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: entry, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(parts)), Shentsize: 64}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	binary.Write(&b, le, &h)
	off := uint64(64 + 56*len(parts))
	for _, p := range parts {
		binary.Write(&b, le, &elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_X | elf.PF_R), Off: off, Vaddr: p.vaddr, Paddr: p.paddr, Filesz: uint64(len(p.data)), Memsz: p.memsz})
		off += uint64(len(p.data))
	}
	for _, p := range parts {
		b.Write(p.data)
	}
	return b.Bytes()
}

// elf32 makes an ELF file for i386.
func elf32(entry uint32, parts ...part) []byte {
	var b bytes.Buffer
	h := elf.Header32{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: 1, Entry: entry, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: uint16(len(parts)), Shentsize: 40}
	copy(h.Ident[:], elf.ELFMAG+"\x01\x01\x01")
	binary.Write(&b, le, &h)
	off := uint32(52 + 32*len(parts))
	for _, p := range parts {
		binary.Write(&b, le, &elf.Prog32{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_X | elf.PF_R), Off: off, Vaddr: uint32(p.vaddr), Paddr: uint32(p.paddr), Filesz: uint32(len(p.data)), Memsz: uint32(p.memsz)})
		off += uint32(len(p.data))
	}
	for _, p := range parts {
		b.Write(p.data)
	}
	return b.Bytes()
}

var kernelText = bytes.Repeat([]byte("kernel text "), 500)

// vmlinux is a small kernel, linked high and loaded at 16 MiB, as Linux is.
func vmlinux() []byte {
	return elf64(0x1000040,
		part{0xffffffff81000000, 0x1000000, kernelText, 0x2000},
		part{0xffffffff82000000, 0x1200000, []byte("data"), 0x3000})
}

// bzImage wraps a payload as boot.rst describes. Fields can be changed by edit.
func bzImage(payload []byte, edit func(k []byte)) []byte {
	const setupSects = 3
	k := make([]byte, (setupSects+1)*512+100)
	k[bpSetupSects] = setupSects
	le.PutUint16(k[bpBootFlag:], 0xaa55)
	copy(k[bpMagic-2:], "\xeb\x66HdrS") // a jump over the header: to 268H
	le.PutUint16(k[bpVersion:], 0x20f)
	le.PutUint32(k[bpInitrdMax:], 0x7fffffff)
	le.PutUint32(k[bpPayload:], 100)
	le.PutUint32(k[bpPayloadLen:], uint32(len(payload)))
	le.PutUint32(k[bpInitSize:], 0x400000)
	if edit != nil {
		edit(k)
	}
	return append(k, payload...)
}

func packed(t testing.TB, name string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	size := le.AppendUint32(nil, uint32(len(b))) // what the kernel's build appends
	switch name {
	case "none":
		return b
	case "gzip":
		w := gzip.NewWriter(&out)
		w.Write(b)
		w.Close()
		return out.Bytes() // gzip has the length itself
	case "zstd":
		w, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
	case "lz4":
		w := lz4.NewWriter(&out)
		if err := w.Apply(lz4.LegacyOption(true)); err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
	default: // made by the tools of the same names from testdata/vmlinux, which vmlinux() makes too
		p, err := os.ReadFile("testdata/vmlinux." + name)
		if err != nil {
			t.Fatal(err)
		}
		return append(p, size...)
	}
	return append(out.Bytes(), size...)
}

func at(t testing.TB, ram *mem.RAM, addr uint64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if !ram.ReadAt(b, addr) {
		t.Fatalf("%#x is not RAM", addr)
	}
	return b
}

var packings = []string{"none", "gzip", "zstd", "lz4", "xz", "bz2"}

func TestLinuxInEachPacking(t *testing.T) {
	kernels := map[string][]byte{"vmlinux": vmlinux()}
	for _, p := range packings {
		kernels[p] = bzImage(packed(t, p, vmlinux()), nil)
	}
	for name, k := range kernels {
		t.Run(name, func(t *testing.T) {
			ram := newRAM(t, 64<<20)
			initrd := bytes.Repeat([]byte{0xa5, 7}, 3000)
			e, err := Load(ram, Config{Kernel: k, Initrd: initrd, CommandLine: "console=ttyS0", Firmware: []Blob{{0xe0000, []byte("RSD PTR ")}}, RSDP: 0xe0000})
			if err != nil {
				t.Fatal(err)
			}
			if e.Mode != Long64 || e.RIP != 0x1000040 || e.RSI != bootParamsAt {
				t.Errorf("entry %+v", e)
			}
			if !bytes.Equal(at(t, ram, 0x1000000, len(kernelText)), kernelText) || string(at(t, ram, 0x1200000, 5)) != "data\x00" {
				t.Error("the kernel is not where it is linked")
			}
			bp := at(t, ram, bootParamsAt, bootParamsSize)
			if le.Uint64(bp[bpRSDP:]) != 0xe0000 || string(bp[bpMagic:bpMagic+4]) != "HdrS" || le.Uint16(bp[bpBootFlag:]) != 0xaa55 {
				t.Error("the boot parameters are wrong")
			}
			if cl := at(t, ram, uint64(le.Uint32(bp[bpCommandLine:])), 14); string(cl) != "console=ttyS0\x00" {
				t.Errorf("command line %q", cl)
			}
			addr, n := uint64(le.Uint32(bp[bpInitrd:])), int(le.Uint32(bp[bpInitrdSize:]))
			if n != len(initrd) || addr%mem.PageSize != 0 || addr < 0x1203000 || !bytes.Equal(at(t, ram, addr, n), initrd) {
				t.Errorf("initrd at %#x, %d bytes", addr, n)
			}
			entries := bp[bpE820:]
			usable := uint64(0)
			for range bp[bpE820Count] {
				if le.Uint32(entries[16:]) == 1 {
					usable += le.Uint64(entries[8:])
				}
				entries = entries[20:]
			}
			if usable != lowEnd+63<<20 {
				t.Errorf("%#x bytes of memory are usable", usable)
			}
			// The tables map the kernel, the boot parameters and the devices one to one.
			for _, va := range []uint64{e.RIP, bootParamsAt, 0xfee00000} {
				entry := e.CR3
				for level := 3; level >= 1; level-- {
					entry = le.Uint64(at(t, ram, entry&^0xfff|va>>(12+9*level)&0x1ff*8, 8))
					if entry&1 == 0 {
						t.Fatalf("%#x is not mapped", va)
					}
				}
				if pa := entry&^0x1fffff | va&0x1fffff; pa != va || entry&0x80 == 0 {
					t.Errorf("%#x is mapped to %#x", va, pa)
				}
			}
		})
	}
}

// loaded returns RAM from 1 MiB on, where the boot parameters are not, after load.
func loaded(ram *mem.RAM, load func(*mem.RAM, Config) (*Entry, error), k []byte) ([]byte, error) {
	clear(ram.Data())
	_, err := load(ram, Config{Kernel: k})
	return ram.Data()[highMemory:], err
}

// loadWhole loads a vmlinux of which all is there.
func loadWhole(ram *mem.RAM, cfg Config) (*Entry, error) {
	return loadVmlinux(ram, cfg, cfg.Kernel, nil)
}

// TestUnpackedToItsPlaceAndUnpackedWhole: what is decompressed straight to memory is what the kernel has
// in a file of its own, in each packing and with each order of the segments in the file.
func TestUnpackedToItsPlaceAndUnpackedWhole(t *testing.T) {
	ram := newRAM(t, 21<<20)
	text := make([]byte, 300_000)
	for i := range text {
		text[i] = byte(i * i >> 8)
	}
	const text1, text2, text3 = 0x1000123, 0x1200000, 0x1400ffe
	ordinary := elf64(text1, part{0, text1, text, 400_000}, part{0, text2, text[7:], 300_000}, part{0, text3, text[:5], 5})
	header := func(k []byte, n int) []byte { return k[64+56*n:][:56] }
	edit := func(f func(k []byte)) []byte {
		k := bytes.Clone(ordinary)
		f(k)
		return k
	}
	offset := func(k []byte, n int) uint64 { return le.Uint64(header(k, n)[8:]) }
	for name, c := range map[string]struct {
		kernel   []byte
		straight bool
	}{
		"ordinary": {ordinary, true},
		"as Linux": {vmlinux(), true},
		"gaps and a rest": {edit(func(k []byte) {
			le.PutUint64(header(k, 0)[32:], 200_000) // p_filesz
			le.PutUint64(header(k, 1)[32:], 1)
			le.PutUint64(header(k, 2)[32:], 0)
		}), true},
		"section headers": {edit(func(k []byte) {
			le.PutUint64(k[0x28:], uint64(len(k)-640))
			le.PutUint16(k[0x3c:], 10)
			clear(k[len(k)-640:])
		}), true},
		"descending": {edit(func(k []byte) {
			one, two := header(k, 0), header(k, 1)
			first := bytes.Clone(one)
			copy(one, two)
			copy(two, first)
		}), false},
		"overlapping": {edit(func(k []byte) { le.PutUint64(header(k, 1)[8:], offset(k, 1)-100) }), false},
		"one on the other": {edit(func(k []byte) {
			one, two := header(k, 0), header(k, 1)
			le.PutUint64(two[24:], text1+4000) // p_paddr
			le.PutUint64(one[40:], 500_000)
		}), true},
		"headers far behind": {func() []byte {
			k := bytes.Clone(ordinary)
			le.PutUint64(k[0x20:], uint64(len(k)))
			return append(k, ordinary[64:64+3*56]...)
		}(), false},
	} {
		want, err := loaded(ram, loadWhole, c.kernel)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want = bytes.Clone(want)
		for _, p := range packings {
			if (p == "xz" || p == "bz2") && name != "as Linux" {
				continue // there is no packer, and one packed file
			}
			k := bzImage(packed(t, p, c.kernel), nil)
			r, err := openPayload(k)
			if err != nil {
				t.Fatal(err)
			}
			if straight := readAhead(r) != nil; straight != c.straight {
				t.Errorf("%s in %s: decompressed straight to memory: %v", name, p, straight)
			}
			r.Close()
			if got, err := loaded(ram, Load, k); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s in %s: loaded otherwise than from its own file, error %v", name, p, err)
			}
		}
	}
}

// TestDamageBehindTheSegments: also what no segment needs is read, for the sake of the checksum behind it.
func TestDamageBehindTheSegments(t *testing.T) {
	ram := newRAM(t, 21<<20)
	long := append(vmlinux(), make([]byte, 100_000)...)
	for _, c := range []struct {
		packing string
		kernel  []byte
		at      int // of the damage, from the end
	}{
		{"gzip", long, 8}, {"zstd", long, 5}, {"xz", vmlinux(), 4 + 30}, {"bz2", vmlinux(), 4 + 3},
	} {
		k := bzImage(packed(t, c.packing, c.kernel), nil)
		if _, err := loaded(ram, Load, k); err != nil {
			t.Errorf("%s: %v", c.packing, err)
		}
		k[len(k)-c.at] ^= 0x40
		if _, err := loaded(ram, Load, k); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "unpacking its "+strings.Replace(c.packing, "bz2", "bzip2", 1)+" payload") {
			t.Errorf("%s, damaged: %v", c.packing, err)
		}
	}
	bomb := bzImage(packed(t, "zstd", append(vmlinux(), make([]byte, maxKernel)...)), nil)
	if _, err := loaded(ram, Load, bomb); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "larger than 256 MiB") {
		t.Errorf("a payload of more than 256 MiB: %v", err)
	}
}

func multiboot(flags uint32, address ...uint32) []byte {
	b := le.AppendUint32(nil, mbMagic)
	b = le.AppendUint32(b, flags)
	b = le.AppendUint32(b, -(mbMagic + flags))
	for _, a := range address {
		b = le.AppendUint32(b, a)
	}
	return b
}

func TestMultiboot(t *testing.T) {
	text := append(multiboot(mbMemory|mbPageAlign), "code"...)
	flat := append(make([]byte, 64), multiboot(mbAddresses, 0x200040, 0x200000, 0, 0x203000, 0x200064)...)
	flat = append(flat, "flat code"...)
	for name, c := range map[string]struct {
		kernel []byte
		entry  uint64
		addr   uint64
		want   string
	}{
		"elf32":         {elf32(0x10000c, part{0x100000, 0x100000, text, 0x1000}), 0x10000c, 0x10000c, "code"},
		"linked higher": {elf32(0xc010000c, part{0xc0100000, 0x100000, text, 0x1000}), 0x10000c, 0x10000c, "code"},
		"elf64":         {elf64(0x10000c, part{0x100000, 0x100000, text, 0x1000}), 0x10000c, 0x10000c, "code"},
		"flat":          {flat, 0x200064, 0x200060, "flat code"},
		"flat, cut":     {append(append(make([]byte, 64), multiboot(mbAddresses, 0x200040, 0x200000, 0x200064, 0, 0x200000)...), "flat code"...), 0x200000, 0x200060, "flat\x00\x00\x00\x00\x00"},
		"low":           {elf32(0x1000c, part{0x10000, 0x10000, text, 0x1000}), 0x1000c, 0x1000c, "code"},
	} {
		t.Run(name, func(t *testing.T) {
			ram := newRAM(t, 8<<20)
			e, err := Load(ram, Config{Kernel: c.kernel, Initrd: []byte("module"), CommandLine: "a b"})
			if err != nil {
				t.Fatal(err)
			}
			if e.Mode != Protected32 || e.RIP != c.entry || e.RAX != mbLoaderMagic {
				t.Errorf("entry %+v", e)
			}
			if got := at(t, ram, c.addr, len(c.want)); string(got) != c.want {
				t.Errorf("at %#x is %q", c.addr, got)
			}
			info := at(t, ram, e.RBX, 120)
			if f := le.Uint32(info); f != mbInfoMemory|mbInfoCmdline|mbInfoModules|mbInfoMap|mbInfoName {
				t.Errorf("flags %#x", f)
			}
			if le.Uint32(info[4:]) != 639 || le.Uint32(info[8:]) != 7<<10 {
				t.Errorf("memory %d and %d KiB", le.Uint32(info[4:]), le.Uint32(info[8:]))
			}
			if cl := at(t, ram, uint64(le.Uint32(info[16:])), 11); string(cl) != "kernel a b\x00" {
				t.Errorf("command line %q", cl)
			}
			mod := at(t, ram, uint64(le.Uint32(info[24:])), 16)
			if start, end := le.Uint32(mod), le.Uint32(mod[4:]); end-start != 6 || string(at(t, ram, uint64(start), 6)) != "module" {
				t.Errorf("module at %#x to %#x", start, end)
			}
			for n, b := 0, at(t, ram, uint64(le.Uint32(info[48:])), int(le.Uint32(info[44:]))); len(b) > 0; n++ {
				if le.Uint32(b) != 20 || n > 8 {
					t.Fatalf("memory map entry %d has size %d", n, le.Uint32(b))
				}
				b = b[24:]
			}
		})
	}
}

func TestWhatCannotBeBooted(t *testing.T) {
	text := append(multiboot(0), "code"...)
	good := packed(t, "gzip", vmlinux())
	field := func(at int, v uint32) func(k []byte) { return func(k []byte) { le.PutUint32(k[at:], v) } }
	long := vmlinux()
	le.PutUint64(long[64+32:], 1<<40) // p_filesz of the first segment
	wraps := elf64(0x1000000, part{0, ^uint64(0) - 10, []byte("x"), 100})
	shrinks := elf64(0x1000000, part{0, 0x1000000, make([]byte, 100), 50})
	foreign := vmlinux()
	le.PutUint16(foreign[18:], uint16(elf.EM_AARCH64))
	const mib = 1 << 20
	for name, c := range map[string]struct {
		kernel  []byte
		initrd  int
		memory  uint64
		want    error
		message string
	}{
		"nothing":             {nil, 0, 64 * mib, ErrNotKernel, "not a kernel"},
		"text":                {[]byte("#!/bin/sh\n" + strings.Repeat("echo\n", 1000)), 0, 64 * mib, ErrNotKernel, "not a kernel"},
		"zeros":               {make([]byte, 1<<20), 0, 64 * mib, ErrNotKernel, "not a kernel"},
		"other machine":       {foreign, 0, 64 * mib, ErrNotKernel, "EM_AARCH64"},
		"i386 without header": {elf32(0x100000, part{0x100000, 0x100000, []byte("x"), 1}), 0, 64 * mib, ErrNotKernel, "EM_386"},
		"no segments":         {elf64(0), 0, 64 * mib, ErrDamaged, "nothing to load"},
		"segment cut off":     {long, 0, 64 * mib, ErrDamaged, "truncated"},
		"segment wraps":       {wraps, 0, 64 * mib, ErrDamaged, "segment"},
		"segment shrinks":     {shrinks, 0, 64 * mib, ErrDamaged, "segment"},
		"entry elsewhere":     {elf64(0x5000000, part{0, 0x1000000, []byte("x"), 100}), 0, 64 * mib, ErrDamaged, "entry point"},
		"on the tables":       {elf64(0x8f000, part{0, 0x8f000, []byte("x"), 100}), 0, 64 * mib, ErrPlace, "0x8f000"},
		"on the firmware":     {elf64(0xe0000, part{0, 0xe0000, []byte("x"), 100}), 0, 64 * mib, ErrPlace, "0xe0000"},
		"from low to high":    {elf32(0x1000c, part{0x10000, 0x10000, text, 2 * mib}), 0, 64 * mib, ErrPlace, "0x10000"},
		"ELF cut off":         {vmlinux()[:40], 0, 64 * mib, ErrDamaged, "damaged"},
		"too little memory":   {vmlinux(), 0, 16 * mib, ErrTooLarge, "--memory"},
		"memory for part":     {vmlinux(), 0, 18 * mib, ErrTooLarge, "--memory"},
		"initrd too large":    {vmlinux(), 50 * mib, 64 * mib, ErrTooLarge, "initrd of 52428800 bytes"},
		"initrd for bzImage":  {bzImage(good, field(bpInitSize, 47*mib)), 2 * mib, 64 * mib, ErrTooLarge, "initrd"},
		"initrd limit":        {bzImage(good, field(bpInitrdMax, 0x1000000)), 100, 64 * mib, ErrTooLarge, "initrd"},
		"old protocol":        {bzImage(good, field(bpVersion, 0x207)), 0, 64 * mib, ErrNotKernel, "2.07"},
		"payload beyond":      {bzImage(good, field(bpPayload, 1<<31)), 0, 64 * mib, ErrDamaged, "truncated"},
		"payload too long":    {bzImage(good, field(bpPayloadLen, 1<<31)), 0, 64 * mib, ErrDamaged, "truncated"},
		"payload empty":       {bzImage(nil, nil), 0, 64 * mib, ErrNotKernel, "unknown way"},
		"payload unknown":     {bzImage([]byte("LZMA or so"), nil), 0, 64 * mib, ErrNotKernel, "unknown way"},
		"payload no ELF":      {bzImage(packed(t, "gzip", []byte("hello")), nil), 0, 64 * mib, ErrDamaged, "no ELF"},
		"payload cut off":     {bzImage(packed(t, "lz4", vmlinux()[:3000]), nil), 0, 64 * mib, ErrDamaged, "segment ends at byte 6176 of 3000"},
		"payload, no parts":   {bzImage(packed(t, "gzip", elf64(0)), nil), 0, 64 * mib, ErrDamaged, "nothing to load"},
		"payload for i386":    {bzImage(packed(t, "gzip", elf32(0x100000, part{0x100000, 0x100000, []byte("x"), 1})), nil), 0, 64 * mib, ErrNotKernel, "EM_386"},
		"payload elsewhere":   {bzImage(packed(t, "gzip", foreign), nil), 0, 64 * mib, ErrNotKernel, "EM_AARCH64"},
		"payload too large":   {bzImage(good, nil), 0, 18 * mib, ErrTooLarge, "--memory"},
		"payload damaged":     {bzImage(append(bytes.Clone(good[:50]), make([]byte, 500)...), nil), 0, 64 * mib, ErrDamaged, "gzip"},
		"multiboot features":  {elf32(0x10000c, part{0x100000, 0x100000, multiboot(1 << 5), 0x1000}), 0, 8 * mib, ErrNotKernel, "0x20"},
		"multiboot, no ELF":   {multiboot(0), 0, 8 * mib, ErrNotKernel, "no ELF"},
		"multiboot cut off":   {multiboot(mbAddresses, 1, 2), 0, 8 * mib, ErrDamaged, "cut off"},
		"multiboot load":      {multiboot(mbAddresses, 0x100000, 0x200000, 0, 0, 0x100000), 0, 8 * mib, ErrDamaged, "load address"},
		"multiboot before":    {multiboot(mbAddresses, 0x200000, 0x100000, 0, 0, 0x100000), 0, 8 * mib, ErrDamaged, "load address"},
		"multiboot end":       {multiboot(mbAddresses, 0x100000, 0x100000, 0x200000, 0, 0x100000), 0, 8 * mib, ErrDamaged, "beyond the file"},
		"multiboot bss":       {multiboot(mbAddresses, 0x100000, 0x100000, 0, 0xfffffff0, 0x100000), 0, 8 * mib, ErrTooLarge, "--memory"},
		"multiboot entry":     {multiboot(mbAddresses, 0x100000, 0x100000, 0, 0, 0x300000), 0, 8 * mib, ErrDamaged, "entry point"},
		"multiboot module":    {elf32(0x10000c, part{0x100000, 0x100000, text, 0x1000}), 8 * mib, 8 * mib, ErrTooLarge, "initrd"},
	} {
		_, err := Load(newRAM(t, c.memory), Config{Kernel: c.kernel, Initrd: make([]byte, c.initrd)})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.message) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q with %q", name, err, c.want, c.message)
		}
	}
	if _, err := Load(newRAM(t, 8<<20), Config{Kernel: vmlinux(), CommandLine: strings.Repeat("x", commandLineMax)}); err == nil || !strings.Contains(err.Error(), "2047") {
		t.Errorf("a long command line: %v", err)
	}
	if _, err := Load(newRAM(t, 1<<20), Config{Kernel: vmlinux(), Firmware: []Blob{{0xfffff, []byte("ab")}}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("firmware beyond memory: %v", err)
	}
}

func TestKernelCutOffAnywhere(t *testing.T) {
	ram := newRAM(t, 64<<20)
	for _, p := range packings {
		k := bzImage(packed(t, p, vmlinux()), nil)
		for n := 0; n < len(k); n += 1 + n/50 {
			if _, err := Load(ram, Config{Kernel: k[:n]}); !errors.Is(err, ErrNotKernel) && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s cut at byte %d of %d: %v", p, n, len(k), err)
			}
		}
	}
	k := elf32(0x10000c, part{0x100000, 0x100000, append(multiboot(0), "code"...), 0x1000})
	for n := range k {
		if _, err := Load(ram, Config{Kernel: k[:n]}); !errors.Is(err, ErrNotKernel) && !errors.Is(err, ErrDamaged) {
			t.Errorf("Multiboot kernel cut at byte %d of %d: %v", n, len(k), err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, p := range packings {
		f.Add(bzImage(packed(f, p, vmlinux()), nil))
	}
	f.Add(vmlinux())
	f.Add(elf32(0x10000c, part{0x100000, 0x100000, append(multiboot(3), "code"...), 0x1000}))
	f.Add(append(make([]byte, 64), multiboot(mbAddresses, 0x200040, 0x200000, 0, 0x203000, 0x200064)...))
	ram := newRAM(f, 32<<20)
	f.Fuzz(func(t *testing.T, k []byte) {
		e, err := Load(ram, Config{Kernel: k, Initrd: []byte("initrd"), CommandLine: "quiet", Firmware: []Blob{{0xe0000, []byte("RSD PTR ")}}})
		if err == nil {
			if _, ok := ram.Offset(e.RIP); !ok {
				t.Errorf("the entry point %#x is not RAM", e.RIP)
			}
			if !isBzImage(k) {
				return
			}
			// In an ELF file of its own, the kernel is looked at more closely, or is the same.
			if whole, err := Vmlinux(k); err != nil {
				t.Errorf("loaded, but not unpacked: %v", err)
			} else if want, err := loaded(ram, loadWhole, whole); err == nil {
				want = bytes.Clone(want)
				if got, err := loaded(ram, Load, k); err != nil || !bytes.Equal(got, want) {
					t.Errorf("loaded otherwise than from its own file, error %v", err)
				}
			}
			return
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q", err)
		}
	})
}
