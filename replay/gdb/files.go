package gdb

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// symbolFile is the one file that the target has: GDB asks for it by itself.
const symbolFile = "/kernel.sym"

// Error numbers of GDB's File-I/O (GDB manual, E.13.9.2).
const (
	fileENOENT = 2
	fileEBADF  = 9
	fileEROFS  = 30
)

const symbolFD = 3

// file carries out the host I/O packets (GDB manual, E.7) on the one file.
func (s *Server) file(arg string) string {
	fail := func(errno int) string { return fmt.Sprintf("F-1,%x", errno) }
	name, rest, _ := strings.Cut(arg, ":")
	switch name {
	case "setfs":
		return "F0"
	case "open":
		path, flags, _ := strings.Cut(rest, ",")
		raw, err := hex.DecodeString(path)
		switch {
		case err != nil || string(raw) != symbolFile || s.cfg.Symbols == nil:
			return fail(fileENOENT)
		case !strings.HasPrefix(flags, "0,"):
			return fail(fileEROFS)
		}
		return fmt.Sprintf("F%x", symbolFD)
	case "close":
		return "F0"
	case "fstat":
		if rest != fmt.Sprintf("%x", symbolFD) {
			return fail(fileEBADF)
		}
		// struct stat of File-I/O, big-endian: dev, ino, mode, nlink, uid, gid, rdev (32 bits each), size,
		// blksize, blocks (64), and three times (32).
		st := make([]byte, 64)
		binary.BigEndian.PutUint32(st[8:], 0o100444)
		binary.BigEndian.PutUint32(st[12:], 1)
		binary.BigEndian.PutUint64(st[28:], uint64(len(s.cfg.Symbols)))
		binary.BigEndian.PutUint64(st[36:], 4096)
		binary.BigEndian.PutUint64(st[44:], uint64(len(s.cfg.Symbols)+511)/512)
		return fmt.Sprintf("F%x;%s", len(st), st)
	case "pread":
		v, good := numbers(rest, 3)
		if !good || v[0] != symbolFD {
			return fail(fileEBADF)
		}
		if v[2] >= uint64(len(s.cfg.Symbols)) {
			return "F0;"
		}
		// Half a packet, since each byte may need two.
		b := s.cfg.Symbols[v[2]:]
		b = b[:min(uint64(len(b)), v[1], maxPacket/2-16)]
		return fmt.Sprintf("F%x;%s", len(b), b)
	}
	return unsupported
}
