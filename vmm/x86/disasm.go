package x86

import (
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// Disassemble returns the text of the instruction at the beginning of code, in
// Intel's syntax, and its length in bytes. mode is the default size of its code
// segment in bytes, rip its offset. symbol, if not nil, names an address that the
// instruction refers to, or returns "". Bytes that are no instruction are shown as
// such, with length 1; an instruction that goes on beyond code, with length len(code).
func Disassemble(code []byte, mode int, rip uint64, symbol func(addr uint64) string) (text string, n int) {
	if len(code) == 0 {
		return "(unmapped)", 0
	}
	var in Inst
	switch Decode(code, mode, &in) {
	case DecodeUD:
		return fmt.Sprintf("(bad) %02x", code[0]), 1
	case DecodeTooLong:
		return fmt.Sprintf("(too long) % x", code[:maxInstLen]), maxInstLen
	case DecodeMore:
		return fmt.Sprintf("(cut off) % x", code), len(code)
	}
	n = int(in.Len)
	// The library decides how the operands are written; what is an instruction, and how long, this processor's own table.
	x, err := x86asm.Decode(code[:n], mode*8)
	if err != nil || x.Len != n || strings.Contains(x.String(), "Prefix(") {
		return rows[in.Form].mnemonic, n
	}
	text = strings.ToLower(x86asm.IntelSyntax(x, rip, nil))
	if symbol != nil {
		if a, ok := target(&x, &in, rip); ok {
			if s := symbol(a); s != "" {
				text += " <" + s + ">"
			}
		}
	}
	return text, n
}

// target returns the address that an instruction names by itself, without a register's value.
func target(x *x86asm.Inst, in *Inst, rip uint64) (addr uint64, ok bool) {
	next := rip + uint64(in.Len)
	for _, a := range x.Args {
		switch a := a.(type) {
		case x86asm.Rel:
			return next + uint64(int64(a)), true
		case x86asm.Mem:
			switch {
			case a.Base == x86asm.RIP:
				return next + uint64(a.Disp), true
			case a.Base == 0 && a.Index == 0 && a.Segment == 0:
				return uint64(a.Disp), true
			}
		}
	}
	return 0, false
}
