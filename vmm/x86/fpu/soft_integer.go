package fpu

import "math/bits"

// operation changes the first n bytes of d by s.
type operation func(d, s *register, n int)

// The instructions on integers (SDM Vol. 1 5.4 to 5.12; Vol. 2 for each).

// compileInteger returns an instruction that does not look at MXCSR, or nil.
func (v vectorCode) compileInteger() func(*Context) {
	n := v.size()
	if op, ok := integerOps[v.opcode]; ok && v.prefix|0x66 == 0x66 && v.class&(Flags|Implicit) == 0 {
		return func(c *Context) { op(&c.Dst, &c.Src, n) }
	}
	if op, ok := otherOps[prefixed{v.prefix, v.opcode}]; ok {
		return func(c *Context) { op(&c.Dst, &c.Src, n) }
	}
	if op := v.withImmediate(); op != nil {
		return func(c *Context) { op(&c.Dst, &c.Src, n) }
	}
	switch v.opcode {
	case 0x50, 0xd7: // MOVMSKPS, MOVMSKPD, PMOVMSKB
		w := 1
		if v.opcode == 0x50 {
			w = 4
			if v.prefix == 0x66 {
				w = 8
			}
		}
		return func(c *Context) {
			c.GPR = 0
			for i := 0; i < n; i += w {
				c.GPR |= lane(&c.Src, i, w) >> (8*w - 1) << (i / w)
			}
		}
	case 0x52, 0x53: // RSQRTPS, RSQRTSS, RCPPS, RCPSS
		return v.approximate()
	case 0xc4: // PINSRW
		return v.insert(2, n)
	case 0xc5: // PEXTRW
		return func(c *Context) { c.GPR = lane(&c.Src, int(v.imm)*2&(n-1), 2) }
	case 0x3a20: // PINSRB
		return v.insert(1, n)
	case 0x3a22: // PINSRD, PINSRQ
		return v.insert(v.general(), n)
	case 0x3a14: // PEXTRB
		return v.extract(1)
	case 0x3a15: // PEXTRW
		return v.extract(2)
	case 0x3a16: // PEXTRD, PEXTRQ
		return v.extract(v.general())
	case 0x3a17: // EXTRACTPS
		return v.extract(4)
	case 0x3810, 0x3814, 0x3815: // PBLENDVB, BLENDVPS, BLENDVPD
		w := map[opcode]int{0x3810: 1, 0x3814: 4, 0x3815: 8}[v.opcode]
		return func(c *Context) {
			for i := 0; i < n; i += w {
				if lane(&c.Mask, i, w)>>(8*w-1) != 0 {
					setLane(&c.Dst, i, w, lane(&c.Src, i, w))
				}
			}
		}
	case 0x3817: // PTEST
		return func(c *Context) {
			var and, andNot uint64
			for i := 0; i < n; i += 8 {
				d, s := lane(&c.Dst, i, 8), lane(&c.Src, i, 8)
				and |= d & s
				andNot |= ^d & s
			}
			var ah uint16
			if and == 0 {
				ah |= flagZF
			}
			if andNot == 0 {
				ah |= flagCF
			}
			c.setFlags(ah, false)
		}
	case 0x3a60, 0x3a61, 0x3a62, 0x3a63:
		return func(c *Context) { compareStrings(c, byte(v.opcode), v.imm, v.wide) }
	}
	return nil
}

// general is the size in bytes of a general register as an operand.
func (v vectorCode) general() int {
	if v.wide {
		return 8
	}
	return 4
}

func (v vectorCode) insert(w, n int) func(*Context) {
	return func(c *Context) { setLane(&c.Dst, int(v.imm)*w&(n-1), w, c.GPR) }
}

func (v vectorCode) extract(w int) func(*Context) {
	return func(c *Context) { c.GPR = lane(&c.Dst, int(v.imm)*w&15, w) }
}

// prefixed is an opcode that means different things with different prefixes.
type prefixed struct {
	prefix byte
	opcode opcode
}

var integerOps = map[opcode]operation{
	0x54: and, 0x55: andNot, 0x56: or, 0x57: xor, 0xdb: and, 0xdf: andNot, 0xeb: or, 0xef: xor,
	0x60: unpack(1, 0), 0x61: unpack(2, 0), 0x62: unpack(4, 0), 0x68: unpack(1, 8), 0x69: unpack(2, 8), 0x6a: unpack(4, 8),
	0x6c: unpack(8, 0), 0x6d: unpack(8, 8),
	0x63: pack(2, signed(8)), 0x67: pack(2, unsigned(8)), 0x6b: pack(4, signed(16)), 0x382b: pack(4, unsigned(16)),
	0x64: lanesSigned(1, greater), 0x65: lanesSigned(2, greater), 0x66: lanesSigned(4, greater), 0x3837: lanesSigned(8, greater),
	0x74: lanes(1, equal), 0x75: lanes(2, equal), 0x76: lanes(4, equal), 0x3829: lanes(8, equal),
	0xd1: byCount(2, shiftRight), 0xd2: byCount(4, shiftRight), 0xd3: byCount(8, shiftRight),
	0xe1: byCount(2, shiftArithmetic), 0xe2: byCount(4, shiftArithmetic),
	0xf1: byCount(2, shiftLeft), 0xf2: byCount(4, shiftLeft), 0xf3: byCount(8, shiftLeft),
	0xfc: lanes(1, add), 0xfd: lanes(2, add), 0xfe: lanes(4, add), 0xd4: lanes(8, add),
	0xf8: lanes(1, sub), 0xf9: lanes(2, sub), 0xfa: lanes(4, sub), 0xfb: lanes(8, sub),
	0xec: saturated(1, signed(8), plus), 0xed: saturated(2, signed(16), plus), 0xe8: saturated(1, signed(8), minus), 0xe9: saturated(2, signed(16), minus),
	0xdc: saturatedUnsigned(1, plus), 0xdd: saturatedUnsigned(2, plus), 0xd8: saturatedUnsigned(1, minus), 0xd9: saturatedUnsigned(2, minus),
	0xda: lanes(1, least), 0x383a: lanes(2, least), 0x383b: lanes(4, least), 0xde: lanes(1, most), 0x383e: lanes(2, most), 0x383f: lanes(4, most),
	0x3838: lanesSigned(1, leastSigned), 0xea: lanesSigned(2, leastSigned), 0x3839: lanesSigned(4, leastSigned),
	0x383c: lanesSigned(1, mostSigned), 0xee: lanesSigned(2, mostSigned), 0x383d: lanesSigned(4, mostSigned),
	0xe0: lanes(1, average), 0xe3: lanes(2, average),
	0xd5:   lanes(2, func(a, b uint64) uint64 { return a * b }),
	0x3840: lanes(4, func(a, b uint64) uint64 { return a * b }),
	0xe4:   lanes(2, func(a, b uint64) uint64 { return a * b >> 16 }),
	0xe5:   lanesSigned(2, func(a, b int64) int64 { return a * b >> 16 }),
	0x380b: lanesSigned(2, func(a, b int64) int64 { return (a*b>>14 + 1) >> 1 }),
	0xf4:   lanes(8, func(a, b uint64) uint64 { return a & 0xffffffff * (b & 0xffffffff) }),
	0x3828: lanes(8, func(a, b uint64) uint64 { return uint64(int64(int32(a)) * int64(int32(b))) }),
	0xf5:   multiplyAdd,
	0x3804: multiplyAddBytes,
	0xf6:   sumOfDifferences,
	0x3800: shuffleBytes,
	0x3801: horizontal(2, plus), 0x3802: horizontal(4, plus), 0x3803: horizontal(2, saturating(plus)),
	0x3805: horizontal(2, minus), 0x3806: horizontal(4, minus), 0x3807: horizontal(2, saturating(minus)),
	0x3808: lanesSigned(1, withSign), 0x3809: lanesSigned(2, withSign), 0x380a: lanesSigned(4, withSign),
	0x381c: lanesSigned(1, magnitude), 0x381d: lanesSigned(2, magnitude), 0x381e: lanesSigned(4, magnitude),
	0x3820: widen(1, 2, true), 0x3821: widen(1, 4, true), 0x3822: widen(1, 8, true), 0x3823: widen(2, 4, true), 0x3824: widen(2, 8, true), 0x3825: widen(4, 8, true),
	0x3830: widen(1, 2, false), 0x3831: widen(1, 4, false), 0x3832: widen(1, 8, false), 0x3833: widen(2, 4, false), 0x3834: widen(2, 8, false), 0x3835: widen(4, 8, false),
	0x3841: leastWord,
}

var otherOps = map[prefixed]operation{
	{0x00, 0x14}: unpack(4, 0), {0x00, 0x15}: unpack(4, 8), {0x66, 0x14}: unpack(8, 0), {0x66, 0x15}: unpack(8, 8),
	{0x00, 0x12}: func(d, s *register, _ int) { copy(d[:8], s[8:]) }, // MOVHLPS
	{0x00, 0x16}: func(d, s *register, _ int) { copy(d[8:], s[:8]) }, // MOVLHPS
	{0xf2, 0x12}: func(d, s *register, _ int) { // MOVDDUP
		copy(d[:8], s[:8])
		copy(d[8:], s[:8])
	},
	{0xf3, 0x12}: func(d, s *register, _ int) { *d = shuffled(s, 4, 0, 0, 2, 2) }, // MOVSLDUP
	{0xf3, 0x16}: func(d, s *register, _ int) { *d = shuffled(s, 4, 1, 1, 3, 3) }, // MOVSHDUP
}

// withImmediate returns an instruction that an immediate says more of, or nil.
func (v vectorCode) withImmediate() operation {
	imm := int(v.imm)
	two := func(i int) int { return imm >> (2 * i) & 3 }
	count := uint64(v.imm)
	switch v.opcode {
	case 0x70:
		switch v.prefix {
		case 0x66: // PSHUFD
			return func(d, s *register, _ int) { *d = shuffled(s, 4, two(0), two(1), two(2), two(3)) }
		case 0xf3: // PSHUFHW
			return func(d, s *register, _ int) { *d = shuffled(s, 2, 0, 1, 2, 3, 4+two(0), 4+two(1), 4+two(2), 4+two(3)) }
		case 0xf2: // PSHUFLW
			return func(d, s *register, _ int) { *d = shuffled(s, 2, two(0), two(1), two(2), two(3), 4, 5, 6, 7) }
		}
		return func(d, s *register, _ int) { // PSHUFW
			r := shuffled(s, 2, two(0), two(1), two(2), two(3))
			copy(d[:8], r[:])
		}
	case 0x71, 0x72, 0x73: // shifts
		w := 2 << (v.opcode - 0x71)
		switch v.digit {
		case 2:
			return shiftedBy(w, count, shiftRight)
		case 4:
			return shiftedBy(w, count, shiftArithmetic)
		case 6:
			return shiftedBy(w, count, shiftLeft)
		case 3: // PSRLDQ
			return func(d, _ *register, _ int) { *d = aligned(*d, register{}, min(imm, 16)) }
		case 7: // PSLLDQ
			return func(d, _ *register, _ int) { *d = aligned(register{}, *d, 16-min(imm, 16)) }
		}
	case 0xc6:
		if v.prefix == 0x66 { // SHUFPD
			return func(d, s *register, _ int) {
				lo, hi := lane(d, imm<<3&8, 8), lane(s, imm<<2&8, 8)
				setLane(d, 0, 8, lo)
				setLane(d, 8, 8, hi)
			}
		}
		return func(d, s *register, _ int) { // SHUFPS
			lo, hi := shuffled(d, 4, two(0), two(1)), shuffled(s, 4, two(2), two(3))
			copy(d[:8], lo[:])
			copy(d[8:], hi[:])
		}
	case 0x3a0c, 0x3a0d, 0x3a0e: // BLENDPS, BLENDPD, PBLENDW
		w := map[opcode]int{0x3a0c: 4, 0x3a0d: 8, 0x3a0e: 2}[v.opcode]
		return func(d, s *register, n int) {
			for i := 0; i < n; i += w {
				if imm>>(i/w)&1 != 0 {
					setLane(d, i, w, lane(s, i, w))
				}
			}
		}
	case 0x3a0f: // PALIGNR
		return func(d, s *register, n int) {
			var both [32]byte
			copy(both[:], s[:n])
			copy(both[n:], d[:n])
			clear(d[:n])
			if imm < 2*n {
				copy(d[:n], both[imm:2*n])
			}
		}
	case 0x3a21: // INSERTPS
		return func(d, s *register, _ int) {
			setLane(d, 4*(imm>>4&3), 4, lane(s, 4*(imm>>6), 4))
			for i := range 4 {
				if imm>>i&1 != 0 {
					setLane(d, 4*i, 4, 0)
				}
			}
		}
	case 0x3a42: // MPSADBW
		return func(d, s *register, _ int) {
			old := *d
			for i := range 8 {
				var sum uint64
				for k := range 4 {
					sum += distance(uint64(old[imm&4+i+k]), uint64(s[imm&3*4+k]))
				}
				setLane(d, 2*i, 2, sum)
			}
		}
	}
	return nil
}

// Building blocks.

func lanes(w int, f func(a, b uint64) uint64) operation {
	return func(d, s *register, n int) {
		for i := 0; i < n; i += w {
			setLane(d, i, w, f(lane(d, i, w), lane(s, i, w)))
		}
	}
}

func lanesSigned(w int, f func(a, b int64) int64) operation {
	return func(d, s *register, n int) {
		for i := 0; i < n; i += w {
			setLane(d, i, w, uint64(f(signedLane(d, i, w), signedLane(s, i, w))))
		}
	}
}

func add(a, b uint64) uint64       { return a + b }
func sub(a, b uint64) uint64       { return a - b }
func least(a, b uint64) uint64     { return min(a, b) }
func most(a, b uint64) uint64      { return max(a, b) }
func leastSigned(a, b int64) int64 { return min(a, b) }
func mostSigned(a, b int64) int64  { return max(a, b) }
func average(a, b uint64) uint64   { return (a + b + 1) >> 1 }
func plus(a, b int64) int64        { return a + b }
func minus(a, b int64) int64       { return a - b }
func distance(a, b uint64) uint64  { return max(a, b) - min(a, b) }
func magnitude(_, b int64) int64   { return max(b, -b) }
func and(d, s *register, n int)    { lanes(8, func(a, b uint64) uint64 { return a & b })(d, s, n) }
func andNot(d, s *register, n int) { lanes(8, func(a, b uint64) uint64 { return ^a & b })(d, s, n) }
func or(d, s *register, n int)     { lanes(8, func(a, b uint64) uint64 { return a | b })(d, s, n) }
func xor(d, s *register, n int)    { lanes(8, func(a, b uint64) uint64 { return a ^ b })(d, s, n) }
func signed(k int) func(int64) int64 {
	return func(v int64) int64 { return clamp(v, -1<<(k-1), 1<<(k-1)-1) }
}
func unsigned(k int) func(int64) int64 { return func(v int64) int64 { return clamp(v, 0, 1<<k-1) } }
func clamp(v, low, high int64) int64   { return max(low, min(v, high)) }

func equal(a, b uint64) uint64 {
	if a == b {
		return ^uint64(0)
	}
	return 0
}

func greater(a, b int64) int64 {
	if a > b {
		return -1
	}
	return 0
}

func withSign(a, b int64) int64 {
	switch {
	case b < 0:
		return -a
	case b == 0:
		return 0
	}
	return a
}

func saturated(w int, limit func(int64) int64, f func(a, b int64) int64) operation {
	return lanesSigned(w, func(a, b int64) int64 { return limit(f(a, b)) })
}

func saturatedUnsigned(w int, f func(a, b int64) int64) operation {
	limit := unsigned(8 * w)
	return lanes(w, func(a, b uint64) uint64 { return uint64(limit(f(int64(a), int64(b)))) })
}

func saturating(f func(a, b int64) int64) func(a, b int64) int64 {
	limit := signed(16)
	return func(a, b int64) int64 { return limit(f(a, b)) }
}

// pack halves the signed lanes of both operands.
func pack(w int, limit func(int64) int64) operation {
	return func(d, s *register, n int) {
		var r register
		for i := 0; i < n; i += w {
			setLane(&r, i/2, w/2, uint64(limit(signedLane(d, i, w))))
			setLane(&r, (n+i)/2, w/2, uint64(limit(signedLane(s, i, w))))
		}
		copy(d[:n], r[:])
	}
}

// unpack interleaves the lower or the upper lanes of both operands; from is 0 or 8.
func unpack(w, from int) operation {
	return func(d, s *register, n int) {
		var r register
		at := from * n / 16
		for i := 0; i < n; i += 2 * w {
			setLane(&r, i, w, lane(d, at, w))
			setLane(&r, i+w, w, lane(s, at, w))
			at += w
		}
		copy(d[:n], r[:])
	}
}

func widen(from, to int, sign bool) operation {
	return func(d, s *register, n int) {
		r := *s
		for i := 0; i < n; i += to {
			if sign {
				setLane(d, i, to, uint64(signedLane(&r, i/to*from, from)))
			} else {
				setLane(d, i, to, lane(&r, i/to*from, from))
			}
		}
	}
}

// horizontal combines neighbours: of d for the lower half, of s for the upper.
func horizontal(w int, f func(a, b int64) int64) operation {
	return func(d, s *register, n int) {
		var r register
		for i := 0; i < n; i += 2 * w {
			setLane(&r, i/2, w, uint64(f(signedLane(d, i, w), signedLane(d, i+w, w))))
			setLane(&r, (n+i)/2, w, uint64(f(signedLane(s, i, w), signedLane(s, i+w, w))))
		}
		copy(d[:n], r[:])
	}
}

// Shifts: of v, a lane of k bits that is sign-extended.
func shiftLeft(v int64, count uint64, k int) uint64 {
	if count >= uint64(k) {
		return 0
	}
	return uint64(v) << count
}

func shiftRight(v int64, count uint64, k int) uint64 {
	if count >= uint64(k) {
		return 0
	}
	return uint64(v) << (64 - k) >> (64 - k) >> count
}

func shiftArithmetic(v int64, count uint64, k int) uint64 {
	return uint64(v >> min(count, uint64(k-1)))
}

func shiftedBy(w int, count uint64, f func(v int64, count uint64, k int) uint64) operation {
	return func(d, _ *register, n int) {
		for i := 0; i < n; i += w {
			setLane(d, i, w, f(signedLane(d, i, w), count, 8*w))
		}
	}
}

func byCount(w int, f func(v int64, count uint64, k int) uint64) operation {
	return func(d, s *register, n int) { shiftedBy(w, lane(s, 0, 8), f)(d, nil, n) }
}

// shuffled returns the lanes of s that are named.
func shuffled(s *register, w int, from ...int) (r register) {
	for i, k := range from {
		setLane(&r, i*w, w, lane(s, k*w, w))
	}
	return r
}

// aligned returns the 16 bytes at k of low and high, one after the other.
func aligned(low, high register, k int) (r register) {
	copy(r[:], low[k:])
	copy(r[16-k:], high[:k])
	return r
}

func shuffleBytes(d, s *register, n int) {
	old := *d
	for i := range n {
		d[i] = 0
		if s[i]&0x80 == 0 {
			d[i] = old[int(s[i])&(n-1)]
		}
	}
}

// multiplyAdd is PMADDWD.
func multiplyAdd(d, s *register, n int) {
	for i := 0; i < n; i += 4 {
		sum := signedLane(d, i, 2)*signedLane(s, i, 2) + signedLane(d, i+2, 2)*signedLane(s, i+2, 2)
		setLane(d, i, 4, uint64(sum))
	}
}

// multiplyAddBytes is PMADDUBSW.
func multiplyAddBytes(d, s *register, n int) {
	limit := signed(16)
	for i := 0; i < n; i += 2 {
		sum := int64(d[i])*signedLane(s, i, 1) + int64(d[i+1])*signedLane(s, i+1, 1)
		setLane(d, i, 2, uint64(limit(sum)))
	}
}

// sumOfDifferences is PSADBW.
func sumOfDifferences(d, s *register, n int) {
	for i := 0; i < n; i += 8 {
		var sum uint64
		for k := range 8 {
			sum += distance(uint64(d[i+k]), uint64(s[i+k]))
		}
		setLane(d, i, 8, sum)
	}
}

// leastWord is PHMINPOSUW.
func leastWord(d, s *register, _ int) {
	at := 0
	for i := 2; i < 16; i += 2 {
		if lane(s, i, 2) < lane(s, at, 2) {
			at = i
		}
	}
	v := lane(s, at, 2)
	*d = register{}
	setLane(d, 0, 8, v|uint64(at/2)<<16)
}

// compareStrings is PCMPESTRM, PCMPESTRI, PCMPISTRM and PCMPISTRI, by the last byte of their opcodes (SDM Vol. 1 5.12.2, Vol. 2B 4.1).
func compareStrings(c *Context, op, imm byte, wide bool) {
	w := 1 + int(imm&1)
	n := 16 / w
	a, b := c.Dst, c.Src
	lenA, lenB := n, n
	if op < 0x62 {
		lenA, lenB = explicitLength(c.GPR, wide, n), explicitLength(c.GPR2, wide, n)
	} else {
		lenA, lenB = implicitLength(&a, w), implicitLength(&b, w)
	}
	at := func(r *register, i int) int64 {
		if imm&2 != 0 {
			return signedLane(r, i*w, w)
		}
		return int64(lane(r, i*w, w))
	}
	var result uint32
	for j := range n {
		var is bool
		switch imm >> 2 & 3 {
		case 0: // any of a
			for i := 0; i < lenA && j < lenB; i++ {
				is = is || at(&a, i) == at(&b, j)
			}
		case 1: // in one of the ranges of a
			for i := 0; i+1 < lenA && j < lenB; i += 2 {
				is = is || at(&a, i) <= at(&b, j) && at(&b, j) <= at(&a, i+1)
			}
		case 2: // the same in both
			is = j >= lenA && j >= lenB || j < lenA && j < lenB && at(&a, j) == at(&b, j)
		case 3: // a begins here in b
			is = true
			for i := 0; i < lenA && i+j < n; i++ {
				is = is && i+j < lenB && at(&a, i) == at(&b, i+j)
			}
		}
		if is {
			result |= 1 << j
		}
	}
	all := uint32(1)<<n - 1
	switch imm >> 4 & 3 {
	case 1:
		result ^= all
	case 3:
		result ^= uint32(1)<<lenB - 1
	}
	var ah uint16
	if result != 0 {
		ah |= flagCF
	}
	if lenB < n {
		ah |= flagZF
	}
	if lenA < n {
		ah |= flagSF
	}
	c.setFlags(ah, result&1 != 0)
	switch {
	case op&1 != 0 && result == 0:
		c.Count = uint64(n)
	case op&1 != 0 && imm&0x40 != 0:
		c.Count = uint64(31 - bits.LeadingZeros32(result))
	case op&1 != 0:
		c.Count = uint64(bits.TrailingZeros32(result))
	case imm&0x40 != 0:
		for i := range n {
			setLane(&c.Mask, i*w, w, -uint64(result>>i&1))
		}
	default:
		c.Mask = register{}
		setLane(&c.Mask, 0, 8, uint64(result))
	}
}

// explicitLength is the magnitude of a general register, of at most n.
func explicitLength(v uint64, wide bool, n int) int {
	if !wide {
		v = uint64(int64(int32(v)))
	}
	if int64(v) < 0 {
		v = -v
	}
	return int(min(v, uint64(n)))
}

// implicitLength is the number of elements before the first that is zero.
func implicitLength(r *register, w int) int {
	for i := 0; i < 16; i += w {
		if lane(r, i, w) == 0 {
			return i / w
		}
	}
	return 16 / w
}
