package acpi

import (
	"encoding/binary"
	"slices"
	"strings"
)

// AML terms are byte slices; the functions below put terms together.

// AML opcodes (ACPI 3.0b, 17.2).
const (
	amlZero    = 0x00
	amlOne     = 0x01
	amlName    = 0x08
	amlByte    = 0x0a
	amlWord    = 0x0b
	amlDWord   = 0x0c
	amlString  = 0x0d
	amlScope   = 0x10
	amlBuffer  = 0x11
	amlPackage = 0x12
	amlMethod  = 0x14
	amlDual    = 0x2e
	amlMulti   = 0x2f
	amlExt     = 0x5b
	amlArg0    = 0x68
	amlStore   = 0x70
	amlIf      = 0xa0
	amlReturn  = 0xa4
	amlDevice  = 0x82 // after amlExt
)

// integer encodes a constant in the shortest form.
func integer(v uint32) []byte {
	switch {
	case v == 0:
		return []byte{amlZero}
	case v == 1:
		return []byte{amlOne}
	case v <= 0xff:
		return []byte{amlByte, byte(v)}
	case v <= 0xffff:
		return binary.LittleEndian.AppendUint16([]byte{amlWord}, uint16(v))
	}
	return binary.LittleEndian.AppendUint32([]byte{amlDWord}, v)
}

// text encodes a string constant.
func text(s string) []byte { return append(append([]byte{amlString}, s...), 0) }

// path encodes a name: segments of up to four characters, separated by dots, with a leading backslash where absolute.
func path(s string) []byte {
	var b []byte
	if strings.HasPrefix(s, `\`) {
		b, s = []byte{'\\'}, s[1:]
	}
	if s == "" {
		return append(b, 0)
	}
	segments := strings.Split(s, ".")
	switch len(segments) {
	case 1:
	case 2:
		b = append(b, amlDual)
	default:
		b = append(b, amlMulti, byte(len(segments)))
	}
	for _, seg := range segments {
		if len(seg) == 0 || len(seg) > 4 {
			panic("BUG: ACPI name segment " + seg)
		}
		b = append(b, (seg + "____")[:4]...)
	}
	return b
}

// sized puts a PkgLength (17.2.4), which counts itself, before the terms.
func sized(terms ...[]byte) []byte {
	body := slices.Concat(terms...)
	n := len(body)
	switch {
	case n+1 < 1<<6:
		return append([]byte{byte(n + 1)}, body...)
	case n+2 < 1<<12:
		n += 2
		return append([]byte{1<<6 | byte(n&15), byte(n >> 4)}, body...)
	case n+3 < 1<<20:
		n += 3
		return append([]byte{2<<6 | byte(n&15), byte(n >> 4), byte(n >> 12)}, body...)
	}
	panic("BUG: AML package too long")
}

func op(code ...byte) []byte { return code }

func define(name string, value []byte) []byte {
	return slices.Concat(op(amlName), path(name), value)
}

func scope(name string, terms ...[]byte) []byte {
	return slices.Concat(op(amlScope), sized(append([][]byte{path(name)}, terms...)...))
}

func device(name string, terms ...[]byte) []byte {
	return slices.Concat(op(amlExt, amlDevice), sized(append([][]byte{path(name)}, terms...)...))
}

func method(name string, args byte, terms ...[]byte) []byte {
	return slices.Concat(op(amlMethod), sized(append([][]byte{path(name), {args}}, terms...)...))
}

func packageOf(elements ...[]byte) []byte {
	return slices.Concat(op(amlPackage), sized(append([][]byte{{byte(len(elements))}}, elements...)...))
}

func buffer(b []byte) []byte {
	return slices.Concat(op(amlBuffer), sized(integer(uint32(len(b))), b))
}

func store(value, target []byte) []byte { return slices.Concat(op(amlStore), value, target) }

func ifTrue(condition []byte, terms ...[]byte) []byte {
	return slices.Concat(op(amlIf), sized(append([][]byte{condition}, terms...)...))
}

func returnValue(value []byte) []byte { return slices.Concat(op(amlReturn), value) }

// eisaID encodes a seven-character PNP identifier as an integer (18.5.36).
func eisaID(id string) []byte {
	var v uint32
	for _, c := range id[:3] {
		v = v<<5 | uint32(c-'@')
	}
	for _, c := range id[3:] {
		v = v<<4 | uint32(strings.IndexRune("0123456789ABCDEF", c))
	}
	return slices.Concat(op(amlDWord), binary.BigEndian.AppendUint32(nil, v))
}

// resources encodes a resource template: descriptors and an end tag without checksum (6.4).
func resources(descriptors ...[]byte) []byte {
	return buffer(append(slices.Concat(descriptors...), 0x79, 0))
}

// ioPorts is an I/O port descriptor with a fixed base and 16-bit decoding.
func ioPorts(base uint16, n byte) []byte {
	b := []byte{0x47, 1}
	b = binary.LittleEndian.AppendUint16(b, base)
	b = binary.LittleEndian.AppendUint16(b, base)
	return append(b, 1, n)
}

// irq is an IRQ descriptor for an edge-triggered ISA interrupt.
func irq(n int) []byte {
	return binary.LittleEndian.AppendUint16([]byte{0x22}, 1<<n)
}

// Kinds of address space in address space descriptors.
const (
	spaceMemory = 0
	spaceIO     = 1
	spaceBus    = 2
)

// window16 is a Word Address Space Descriptor: a fixed range that the bridge passes
// on. specific holds the flags that the kind of space defines.
func window16(space, specific byte, first, last uint16) []byte {
	b := []byte{0x88, 13, 0, space, 0x0c, specific}
	for _, v := range []uint16{0, first, last, 0, last - first + 1} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

// window32 is a DWord Address Space Descriptor, for the same purpose.
func window32(space, specific byte, first, last uint32) []byte {
	b := []byte{0x87, 23, 0, space, 0x0c, specific}
	for _, v := range []uint32{0, first, last, 0, last - first + 1} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
