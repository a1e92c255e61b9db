package xz

import "encoding/binary"

// unbranch undoes the filter for x86 branches: the encoder made the operands of CALL and JMP (opcodes E8
// and E9) absolute, where what follows the opcode looks like one, that is, like a displacement of less than 16 MiB either
// way. b begins at address origin.
//
// Opcodes that did not look like branches and lie within the three bytes before another one, whose operand may
// begin within theirs, have a say in whether that is one: recent has a bit for each, the nearest lowest.
func unbranch(b []byte, origin uint32) {
	const most = 0x01ffffff // an operand's magnitude, and its sign
	recent, last := uint32(0), -1
	for i := 0; i < len(b)-4; i++ {
		// Most bytes are no opcode: eight at a time.
		for i+8 < len(b)-4 && !anyBranch(binary.LittleEndian.Uint64(b[i:])) {
			i += 8
		}
		if b[i]&0xfe != 0xe8 {
			continue
		}
		if d := i - last; d > 3 {
			recent = 0
		} else {
			recent = recent << (d - 1) & 7
		}
		last = i
		if recent != 0 && (recent&(recent-1) != 0 || looksSigned(b[i+4-nearest(recent)])) || !looksSigned(b[i+4]) {
			recent = recent<<1 | 1
			continue
		}
		v := binary.LittleEndian.Uint32(b[i+1:])
		for {
			dest := v - (origin + uint32(i) + 5)
			if recent == 0 {
				v = dest
				break
			}
			shift := 8 * nearest(recent)
			if !looksSigned(byte(dest >> (24 - shift))) {
				v = dest
				break
			}
			v = dest ^ (1<<(32-shift) - 1)
		}
		v &= most
		if v > most/2 {
			v |= ^uint32(most)
		}
		binary.LittleEndian.PutUint32(b[i+1:], v)
		i += 4
	}
}

// nearest is how many bytes back the only opcode in recent is.
func nearest(recent uint32) int {
	switch recent {
	case 1:
		return 1
	case 2:
		return 2
	}
	return 3
}

// looksSigned reports whether b is all sign, as the highest byte of a short displacement is.
func looksSigned(b byte) bool { return b == 0 || b == 0xff }

// anyBranch reports whether any byte of v is E8 or E9; it may say so of others.
func anyBranch(v uint64) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	v = v&(0xfe*ones) ^ 0xe8*ones // such a byte is zero now
	return (v-ones)&^v&high != 0
}
