package xz

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
)

var le = binary.LittleEndian

// Errors that a stream can cause. All are wrapped with what was found.
var (
	ErrDamaged     = errors.New("damaged xz stream")
	ErrUnsupported = errors.New("xz stream with features that are not supported")
	ErrTooLarge    = errors.New("xz stream unpacks to more than it may")
)

// Magic is what a stream begins with.
const Magic = "\xfd7zXZ\x00"

const (
	headerLen = 12 // of a stream's header, and of its footer
	dictMax   = 1<<32 - 1

	filterX86   = 0x04
	filterLZMA2 = 0x21
)

// A check's number in the stream's flags.
const (
	checkNone   = 0
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
)

var crc64Table = crc64.MakeTable(crc64.ECMA)

// sum returns the check of b.
func sum(check byte, b []byte) []byte {
	switch check {
	case checkCRC32:
		return le.AppendUint32(nil, crc32.ChecksumIEEE(b))
	case checkCRC64:
		return le.AppendUint64(nil, crc64.Checksum(b, crc64Table))
	case checkSHA256:
		s := sha256.Sum256(b)
		return s[:]
	}
	return nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// record is what the index says of a block.
type record struct{ packed, unpacked uint64 }

// Unpack returns what the stream at the beginning of p unpacks to, at most limit bytes. About size bytes are
// expected; where that is wrong, it costs time.
func Unpack(p []byte, size, limit int) ([]byte, error) {
	if len(p) < headerLen || string(p[:len(Magic)]) != Magic {
		return nil, damaged("no stream header")
	}
	if crc32.ChecksumIEEE(p[6:8]) != le.Uint32(p[8:]) {
		return nil, damaged("the checksum of the stream header is wrong")
	}
	check := p[7]
	switch {
	case p[6] != 0 || check > 15:
		return nil, fmt.Errorf("%w: stream flags %#x", ErrUnsupported, p[6:8])
	case check != checkNone && sum(check, nil) == nil:
		return nil, fmt.Errorf("%w: check %d", ErrUnsupported, check)
	}
	out := make([]byte, 0, max(min(size, limit), 0)+slack)
	var records []record
	pos := headerLen
	for {
		if pos == len(p) {
			return nil, damaged("it ends before its index")
		}
		if p[pos] == 0 {
			break
		}
		start, first := pos, len(out)
		b, err := blockHeader(p[pos:])
		if err != nil {
			return nil, err
		}
		data := pos + b.headerLen
		if out, pos, err = lzma2(p, data, out, b.dict, limit); err != nil {
			return nil, err
		}
		if b.packed >= 0 && b.packed != int64(pos-data) || b.unpacked >= 0 && b.unpacked != int64(len(out)-first) {
			return nil, damaged("a block has other sizes than its header says")
		}
		padded := data + (pos-data+3)&^3
		if b.x86 {
			unbranch(out[first:], b.origin)
		}
		want := sum(check, out[first:])
		if padded+len(want) > len(p) {
			return nil, damaged("it ends in a block")
		}
		if !zero(p[pos:padded]) {
			return nil, damaged("the padding of a block is not zero")
		}
		if !bytes.Equal(want, p[padded:padded+len(want)]) {
			return nil, damaged("the checksum of a block is wrong")
		}
		records = append(records, record{uint64(pos - start + len(want)), uint64(len(out) - first)})
		pos = padded + len(want)
	}
	return out, index(p[pos:], p[6:8], records)
}

// number decodes a number of variable length at the beginning of p; n is zero where there is none.
func number(p []byte) (v uint64, n int) {
	v, n = binary.Uvarint(p)
	if n > 9 || n < 1 || n > 1 && p[n-1] == 0 {
		return 0, 0
	}
	return v, n
}

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// block is a block's header.
type block struct {
	headerLen        int
	packed, unpacked int64 // sizes in bytes, or -1
	x86              bool
	origin           uint32 // address of the first byte, for the x86 filter
	dict             int
}

// blockHeader decodes the block header at the beginning of p, which is not empty.
func blockHeader(p []byte) (*block, error) {
	n := (int(p[0]) + 1) * 4
	if n > len(p) {
		return nil, damaged("it ends in a block header")
	}
	if crc32.ChecksumIEEE(p[:n-4]) != le.Uint32(p[n-4:]) {
		return nil, damaged("the checksum of a block header is wrong")
	}
	b := &block{headerLen: n, packed: -1, unpacked: -1}
	flags := p[1]
	if flags&0x3c != 0 {
		return nil, fmt.Errorf("%w: block flags %#x", ErrUnsupported, flags)
	}
	p = p[2 : n-4]
	next := func() (v uint64, err error) {
		v, k := number(p)
		if k == 0 {
			return 0, damaged("a number in a block header is none")
		}
		p = p[k:]
		return v, nil
	}
	for _, f := range []struct {
		bit byte
		to  *int64
	}{{0x40, &b.packed}, {0x80, &b.unpacked}} {
		if flags&f.bit != 0 {
			v, err := next()
			if err != nil {
				return nil, err
			}
			*f.to = int64(v)
		}
	}
	last := int(flags & 3)
	for i := range last + 1 {
		id, err := next()
		if err != nil {
			return nil, err
		}
		size, err := next()
		if err != nil {
			return nil, err
		}
		if size > uint64(len(p)) {
			return nil, damaged("a filter of a block has no room in its header")
		}
		props := p[:size]
		p = p[size:]
		switch {
		case id == filterLZMA2 && i == last && len(props) == 1 && props[0] <= 40:
			b.dict = dictMax
			if s := props[0]; s < 40 {
				b.dict = int(2|s&1) << (s/2 + 11)
			}
		case id == filterX86 && i == last-1 && (len(props) == 0 || len(props) == 4):
			b.x86 = true
			if len(props) == 4 {
				b.origin = le.Uint32(props)
			}
		default:
			return nil, fmt.Errorf("%w: filter %#x with %d bytes of properties", ErrUnsupported, id, size)
		}
	}
	if !zero(p) {
		return nil, fmt.Errorf("%w: more in a block header than its flags say", ErrUnsupported)
	}
	return b, nil
}

// index checks the index at the beginning of p and the stream's footer behind it.
func index(p, flags []byte, records []record) error {
	at := 1
	next := func() (v uint64, ok bool) {
		v, n := number(p[at:])
		at += n
		return v, n > 0
	}
	if n, ok := next(); !ok || n != uint64(len(records)) {
		return damaged("its index has another number of blocks")
	}
	for _, r := range records {
		packed, ok := next()
		unpacked, ok2 := next()
		if !ok || !ok2 || (record{packed, unpacked}) != r {
			return damaged("its index has another block")
		}
	}
	end := (at + 3) &^ 3
	if end+4+headerLen > len(p) {
		return damaged("it ends in its index")
	}
	if !zero(p[at:end]) || crc32.ChecksumIEEE(p[:end]) != le.Uint32(p[end:]) {
		return damaged("the checksum of its index is wrong")
	}
	f := p[end+4:][:headerLen]
	if crc32.ChecksumIEEE(f[4:10]) != le.Uint32(f) || (uint64(le.Uint32(f[4:]))+1)*4 != uint64(end+4) ||
		!bytes.Equal(f[8:10], flags) || f[10] != 'Y' || f[11] != 'Z' {
		return damaged("its footer is wrong")
	}
	return nil
}
