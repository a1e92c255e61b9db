package ksym

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"sort"
)

// Symbols returns all symbols, by ascending address.
func (t *Table) Symbols() []Symbol { return t.symbols }

// ELF returns an ELF file that has the symbols and nothing else, for debuggers: a kernel
// keeps them in a form of its own.
func (t *Table) ELF() []byte {
	// Sections without content, so that a debugger knows code from data.
	type section struct {
		name  string
		flags elf.SectionFlag
		first uint64
	}
	begin := uint64(0)
	if len(t.symbols) > 0 {
		begin = t.symbols[sort.Search(len(t.symbols), func(i int) bool { return t.symbols[i].Addr >= 1<<20 || i == len(t.symbols)-1 })].Addr
	}
	sections := []section{{".text", elf.SHF_ALLOC | elf.SHF_EXECINSTR, begin}}
	if end, ok := t.Addr("_etext"); ok && end > begin && end < t.end {
		sections = append(sections, section{".data", elf.SHF_ALLOC | elf.SHF_WRITE, end})
		if init, ok := t.Addr("_sinittext"); ok && init > end && init < t.end {
			sections = append(sections, section{".init.text", elf.SHF_ALLOC | elf.SHF_EXECINSTR, init})
			if end, ok := t.Addr("_einittext"); ok && end > init && end < t.end {
				sections = append(sections, section{".init.data", elf.SHF_ALLOC | elf.SHF_WRITE, end})
			}
		}
	}
	kernel := len(sections)
	if t.modulesFirst > t.end {
		// Their code and their data lie between each other's.
		sections = append(sections, section{".modules", elf.SHF_ALLOC | elf.SHF_WRITE | elf.SHF_EXECINSTR, t.modulesFirst})
	}
	last := func(i int) uint64 {
		switch {
		case i == kernel:
			return t.modulesEnd
		case i+1 < kernel:
			return sections[i+1].first
		}
		return max(t.end, sections[i].first)
	}

	le := binary.LittleEndian
	strtab, symtab := []byte{0}, make([]byte, 24)
	for i, s := range t.symbols {
		shndx, typ := uint16(elf.SHN_ABS), elf.STT_NOTYPE
		var size, end uint64
		for k := range sections {
			if s.Addr >= sections[k].first && s.Addr < last(k) {
				shndx, typ, end = uint16(k+1), elf.STT_OBJECT, last(k)
				if sections[k].flags&elf.SHF_EXECINSTR != 0 {
					typ = elf.STT_FUNC
				}
			}
		}
		for k := i + 1; k < len(t.symbols); k++ {
			if t.symbols[k].Addr != s.Addr {
				size = t.symbols[k].Addr - s.Addr
				break
			}
		}
		size = min(size, end-min(end, s.Addr)) // what is in no section has none
		symtab = le.AppendUint32(symtab, uint32(len(strtab)))
		symtab = append(symtab, elf.ST_INFO(elf.STB_GLOBAL, typ), 0)
		symtab = le.AppendUint16(symtab, shndx)
		symtab = le.AppendUint64(symtab, s.Addr)
		symtab = le.AppendUint64(symtab, size)
		strtab = append(append(strtab, s.Name...), 0)
	}
	names := []byte{0}
	name := func(s string) uint32 {
		at := len(names)
		names = append(append(names, s...), 0)
		return uint32(at)
	}
	headers := []elf.Section64{{}}
	for k, s := range sections {
		headers = append(headers, elf.Section64{Name: name(s.name), Type: uint32(elf.SHT_NOBITS), Flags: uint64(s.flags), Addr: s.first, Size: last(k) - s.first, Addralign: 1})
	}
	const ehsize, shsize = 64, 64
	strings := len(headers) + 1
	symAt := uint64(ehsize)
	strAt := symAt + uint64(len(symtab))
	headers = append(headers,
		elf.Section64{Name: name(".symtab"), Type: uint32(elf.SHT_SYMTAB), Off: symAt, Size: uint64(len(symtab)), Link: uint32(strings), Info: 1, Addralign: 8, Entsize: 24},
		elf.Section64{Name: name(".strtab"), Type: uint32(elf.SHT_STRTAB), Off: strAt, Size: uint64(len(strtab)), Addralign: 1})
	namesAt := strAt + uint64(len(strtab))
	h := elf.Section64{Name: name(".shstrtab"), Type: uint32(elf.SHT_STRTAB), Off: namesAt, Addralign: 1}
	h.Size = uint64(len(names))
	headers = append(headers, h)
	shAt := (namesAt + h.Size + 7) &^ 7

	var b bytes.Buffer
	eh := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Shoff: shAt,
		Ehsize: ehsize, Shentsize: shsize, Shnum: uint16(len(headers)), Shstrndx: uint16(len(headers) - 1)}
	copy(eh.Ident[:], elf.ELFMAG)
	eh.Ident[elf.EI_CLASS], eh.Ident[elf.EI_DATA], eh.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	binary.Write(&b, le, &eh)
	b.Write(symtab)
	b.Write(strtab)
	b.Write(names)
	b.Write(make([]byte, shAt-uint64(b.Len())))
	for i := range headers {
		binary.Write(&b, le, &headers[i])
	}
	return b.Bytes()
}
