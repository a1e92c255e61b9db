package boot

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/crc64"
	"math/bits"
	"slices"
)

// unxz unpacks the kind of .xz file that kernels are packed in, in memory and at once, which is
// much faster than a general reader: one block of LZMA2, perhaps behind the x86 filter, with a
// CRC of its content. Other files give errNotPlain, and damaged ones may: a general reader says
// what is wrong with them.
//
// The container is described in "The .xz File Format", LZMA in the specification that comes with
// the LZMA SDK; LZMA2 puts it into chunks.
func unxz(p []byte, sizeHint int) ([]byte, error) {
	const (
		streamHeader = 12
		filterX86    = 0x04
		filterLZMA2  = 0x21
	)
	if len(p) < streamHeader+8 || string(p[:6]) != "\xfd7zXZ\x00" || p[6] != 0 || crc32.ChecksumIEEE(p[6:8]) != le.Uint32(p[8:]) {
		return nil, errNotPlain
	}
	check := p[7]
	p = p[streamHeader:]
	headerLen := (int(p[0]) + 1) * 4
	if p[0] == 0 || len(p) < headerLen || crc32.ChecksumIEEE(p[:headerLen-4]) != le.Uint32(p[headerLen-4:]) {
		return nil, errNotPlain
	}
	header := p[1 : headerLen-4]
	p = p[headerLen:]
	flags := header[0]
	header = header[1:]
	// The sizes are optional, and the content tells them again.
	for _, present := range []byte{0x40, 0x80} {
		if flags&present != 0 {
			_, n := binary.Uvarint(header)
			if n <= 0 {
				return nil, errNotPlain
			}
			header = header[n:]
		}
	}
	x86 := false
	switch {
	case flags&0x3f == 1 && len(header) >= 5 && header[0] == filterX86 && header[1] == 0 && header[2] == filterLZMA2 && header[3] == 1:
		x86 = true
	case flags&0x3f == 0 && len(header) >= 3 && header[0] == filterLZMA2 && header[1] == 1:
	default:
		return nil, errNotPlain
	}
	d := newLZMA(sizeHint)
	n, err := d.chunks(p)
	if err != nil {
		return nil, err
	}
	if x86 {
		fromX86(d.out)
	}
	for ; n%4 != 0; n++ {
		if n == len(p) || p[n] != 0 {
			return nil, errNotPlain
		}
	}
	var sum []byte
	switch check {
	case 1:
		sum = le.AppendUint32(nil, crc32.ChecksumIEEE(d.out))
	case 4:
		sum = le.AppendUint64(nil, crc64.Checksum(d.out, crc64.MakeTable(crc64.ECMA)))
	default:
		return nil, errNotPlain
	}
	// Behind it comes the index, which begins with a zero byte where a further block does not.
	if p = p[n:]; len(p) <= len(sum) || string(p[:len(sum)]) != string(sum) || p[len(sum)] != 0 {
		return nil, errNotPlain
	}
	return d.out, nil
}

// errNotPlain reports a file that is not of the kind that unxz knows, or damaged.
var errNotPlain = errors.New("no plain xz file")

const (
	lzmaStates  = 16 // of which 12 are used
	posStates   = 16
	probInit    = 1 << 10 // of 1 << 11: a bit is as likely zero as one
	lengthsLow  = 8
	lengthsMid  = 8
	matchMin    = 2
	distSpecial = 14 // position slots from here on have direct bits
	litStride   = 0x400

	// The input of a chunk is at most 64 KiB. It lies in an array of twice the size, so that
	// reading needs no check: it is enough to see now and then that the end is not passed.
	inputSize = 1 << 17
	inputMask = inputSize - 1
)

// lengthProbs are the probabilities of a length.
type lengthProbs struct {
	choice, choice2 uint16
	low, mid        [posStates][lengthsLow]uint16
	high            [256]uint16
}

// lzmaProbs are the probabilities of the model.
type lzmaProbs struct {
	isMatch    [lzmaStates * posStates]uint16
	isRep0Long [lzmaStates * posStates]uint16
	isRep      [4][lzmaStates]uint16 // is it a repeated distance; another than the last; than the last but one; …
	slot       [4][64]uint16
	special    [128]uint16
	align      [16]uint16
	match, rep lengthProbs
	literal    [16 * litStride]uint16
}

// lzma unpacks LZMA2. The output is its dictionary.
type lzma struct {
	out   []byte
	start int // of the dictionary
	in    [inputSize]byte

	lc, lp, pb uint
	state      uint32
	rep        [4]uint32
	probs      lzmaProbs
}

func newLZMA(sizeHint int) *lzma { return &lzma{out: make([]byte, 0, max(sizeHint, 64<<10))} }

// reset puts the model into its first state.
func (d *lzma) reset() {
	d.state, d.rep = 0, [4]uint32{}
	p := &d.probs
	fill := func(s []uint16) {
		for i := range s {
			s[i] = probInit
		}
	}
	fill(p.isMatch[:])
	fill(p.isRep0Long[:])
	for i := range p.isRep {
		fill(p.isRep[i][:])
	}
	for i := range p.slot {
		fill(p.slot[i][:])
	}
	fill(p.special[:])
	fill(p.align[:])
	for _, l := range []*lengthProbs{&p.match, &p.rep} {
		l.choice, l.choice2 = probInit, probInit
		for i := range l.low {
			fill(l.low[i][:])
			fill(l.mid[i][:])
		}
		fill(l.high[:])
	}
	fill(p.literal[:])
}

// chunks unpacks all chunks of LZMA2 and returns the length of what they are packed in.
func (d *lzma) chunks(p []byte) (n int, err error) {
	for first, ready := true, false; ; first = false {
		if n >= len(p) {
			return 0, errNotPlain
		}
		control := p[n]
		n++
		if control == 0 {
			return n, nil
		}
		if first && control != 1 && control < 0xe0 {
			return 0, errNotPlain // the first has to begin a dictionary
		}
		if control == 1 || control >= 0xe0 {
			d.start = len(d.out)
		}
		if control < 0x80 { // not packed
			if control > 2 || len(p)-n < 2 {
				return 0, errNotPlain
			}
			size := int(binary.BigEndian.Uint16(p[n:])) + 1
			if n += 2; len(p)-n < size || len(d.out)+size > maxKernel {
				return 0, errNotPlain
			}
			d.out = append(d.out, p[n:n+size]...)
			n += size
			ready = ready && control == 2
			continue
		}
		if len(p)-n < 5 {
			return 0, errNotPlain
		}
		size := int(control&0x1f)<<16 + int(binary.BigEndian.Uint16(p[n:])) + 1
		packed := int(binary.BigEndian.Uint16(p[n+2:])) + 1
		n += 4
		if control >= 0xc0 { // new properties
			props := uint(p[n])
			n++
			d.lc, d.lp, d.pb = props%9, props/9%5, props/45
			if d.pb > 4 || d.lc+d.lp > 4 {
				return 0, errNotPlain
			}
			ready = true
		}
		if !ready || len(p)-n < packed || len(d.out)+size > maxKernel {
			return 0, errNotPlain
		}
		if control >= 0xa0 {
			d.reset()
		}
		if err := d.chunk(p[n:n+packed], size); err != nil {
			return 0, err
		}
		n += packed
	}
}

// rangeCoder is the state of the range decoder. It is passed by value, so that it stays in registers.
type rangeCoder struct {
	rng, code uint32
	at        uint32
}

// bit decodes a bit.
func (d *lzma) bit(r rangeCoder, p *uint16) (rangeCoder, uint32) {
	if r.rng < 1<<24 {
		r.rng <<= 8
		r.code = r.code<<8 | uint32(d.in[r.at&inputMask])
		r.at++
	}
	v := uint32(*p)
	if bound := r.rng >> 11 * v; r.code < bound {
		r.rng = bound
		*p = uint16(v + (1<<11-v)>>5)
		return r, 0
	} else {
		r.rng -= bound
		r.code -= bound
	}
	*p = uint16(v - v>>5)
	return r, 1
}

// tree decodes a number of n bits, the highest first, with a leading one.
func (d *lzma) tree(r rangeCoder, p []uint16, n uint) (rangeCoder, uint32) {
	m := uint32(1)
	for range n {
		if r.rng < 1<<24 {
			r.rng <<= 8
			r.code = r.code<<8 | uint32(d.in[r.at&inputMask])
			r.at++
		}
		v := uint32(p[m])
		if bound := r.rng >> 11 * v; r.code < bound {
			r.rng = bound
			p[m] = uint16(v + (1<<11-v)>>5)
			m <<= 1
		} else {
			r.rng -= bound
			r.code -= bound
			p[m] = uint16(v - v>>5)
			m = m<<1 | 1
		}
	}
	return r, m
}

// reverse decodes a number of n bits, the lowest first.
func (d *lzma) reverse(r rangeCoder, p []uint16, n uint) (rangeCoder, uint32) {
	m, sum := uint32(1), uint32(0)
	for i := range n {
		var b uint32
		r, b = d.bit(r, &p[m])
		m = m<<1 | b
		sum |= b << i
	}
	return r, sum
}

// length decodes a length, less matchMin.
func (d *lzma) length(r rangeCoder, p *lengthProbs, posState uint32) (rangeCoder, uint32) {
	var b, m uint32
	if r, b = d.bit(r, &p.choice); b == 0 {
		r, m = d.tree(r, p.low[posState%posStates][:], 3)
		return r, m - 8
	}
	if r, b = d.bit(r, &p.choice2); b == 0 {
		r, m = d.tree(r, p.mid[posState%posStates][:], 3)
		return r, m - 8 + lengthsLow
	}
	r, m = d.tree(r, p.high[:], 8)
	return r, m - 256 + lengthsLow + lengthsMid
}

// distance decodes the distance of a match of a length less matchMin, less one.
func (d *lzma) distance(r rangeCoder, length uint32) (rangeCoder, uint32) {
	r, slot := d.tree(r, d.probs.slot[min(length, 3)][:], 6)
	if slot -= 64; slot < 4 {
		return r, slot
	}
	n := uint(slot>>1 - 1)
	dist := (2 | slot&1) << n
	if slot < distSpecial {
		r, low := d.reverse(r, d.probs.special[dist-slot:], n)
		return r, dist + low
	}
	direct := uint32(0)
	for range n - 4 {
		if r.rng < 1<<24 {
			r.rng <<= 8
			r.code = r.code<<8 | uint32(d.in[r.at&inputMask])
			r.at++
		}
		r.rng >>= 1
		r.code -= r.rng
		below := -(r.code >> 31) // all ones where it was smaller
		r.code += r.rng & below
		direct = direct<<1 + below + 1
	}
	r, low := d.reverse(r, d.probs.align[:], 4)
	return r, dist + direct<<4 + low
}

// chunk unpacks one chunk of LZMA to size bytes.
func (d *lzma) chunk(packed []byte, size int) error {
	if len(packed) < 5 || packed[0] != 0 {
		return errNotPlain
	}
	copy(d.in[:], packed)
	clear(d.in[len(packed) : len(packed)+64])
	end := uint32(len(packed))
	r := rangeCoder{rng: 1<<32 - 1, code: binary.BigEndian.Uint32(packed[1:]), at: 5}

	at := len(d.out)
	limit := at + size
	out := slices.Grow(d.out, size)[:limit]
	state, rep, probs := d.state, d.rep, &d.probs
	posMask, lpMask := uint32(1)<<d.pb-1, uint32(1)<<d.lp-1
	lc := d.lc
	for at < limit {
		if r.at > end {
			return errNotPlain
		}
		pos := uint32(at - d.start)
		posState := pos & posMask
		var b uint32
		if r, b = d.bit(r, &probs.isMatch[(state*posStates+posState)%(lzmaStates*posStates)]); b == 0 {
			var prev byte
			if pos > 0 {
				prev = out[at-1]
			}
			context := (pos&lpMask)<<lc + uint32(prev)>>(8-lc)
			p := (*[litStride]uint16)(probs.literal[context%16*litStride:])
			m := uint32(1)
			rng, code, from := r.rng, r.code, r.at
			if state >= 7 {
				// Behind a match, what would have followed it tells something, as long as it agrees.
				if rep[0] >= pos {
					return errNotPlain
				}
				match := uint32(out[at-1-int(rep[0])])
				offset := uint32(0x100)
				for m < 0x100 {
					if rng < 1<<24 {
						rng <<= 8
						code = code<<8 | uint32(d.in[from&inputMask])
						from++
					}
					match <<= 1
					bit := match & offset
					q := &p[(offset+bit+m)%litStride]
					v := uint32(*q)
					if bound := rng >> 11 * v; code < bound {
						rng = bound
						*q = uint16(v + (1<<11-v)>>5)
						m <<= 1
						offset &^= bit
					} else {
						rng -= bound
						code -= bound
						*q = uint16(v - v>>5)
						m = m<<1 | 1
						offset &= bit
					}
				}
			}
			for m < 0x100 {
				if rng < 1<<24 {
					rng <<= 8
					code = code<<8 | uint32(d.in[from&inputMask])
					from++
				}
				q := &p[m%litStride]
				v := uint32(*q)
				if bound := rng >> 11 * v; code < bound {
					rng = bound
					*q = uint16(v + (1<<11-v)>>5)
					m <<= 1
				} else {
					rng -= bound
					code -= bound
					*q = uint16(v - v>>5)
					m = m<<1 | 1
				}
			}
			r = rangeCoder{rng, code, from}
			out[at] = byte(m)
			at++
			switch {
			case state < 4:
				state = 0
			case state < 10:
				state -= 3
			default:
				state -= 6
			}
			continue
		}
		var length uint32
		if r, b = d.bit(r, &probs.isRep[0][state%lzmaStates]); b == 0 {
			r, length = d.length(r, &probs.match, posState)
			copy(rep[1:], rep[:3])
			r, rep[0] = d.distance(r, length)
			state = afterMatch(state, 7)
		} else {
			if r, b = d.bit(r, &probs.isRep[1][state%lzmaStates]); b == 0 {
				if r, b = d.bit(r, &probs.isRep0Long[(state*posStates+posState)%(lzmaStates*posStates)]); b == 0 {
					if rep[0] >= pos {
						return errNotPlain
					}
					out[at] = out[at-1-int(rep[0])]
					at++
					state = afterMatch(state, 9)
					continue
				}
			} else {
				which := 1
				if r, b = d.bit(r, &probs.isRep[2][state%lzmaStates]); b != 0 {
					r, b = d.bit(r, &probs.isRep[3][state%lzmaStates])
					which = 2 + int(b)
				}
				dist := rep[which]
				copy(rep[1:], rep[:which])
				rep[0] = dist
			}
			r, length = d.length(r, &probs.rep, posState)
			state = afterMatch(state, 8)
		}
		n := int(length) + matchMin
		if rep[0] >= pos || n > limit-at {
			return errNotPlain
		}
		repeat(out, at, int(rep[0])+1, n)
		at += n
	}
	if r.rng < 1<<24 {
		r.code = r.code<<8 | uint32(d.in[r.at&inputMask])
		r.at++
	}
	if r.at != end || r.code != 0 {
		return errNotPlain
	}
	d.out, d.state, d.rep = out, state, rep
	return nil
}

// afterMatch is the state behind a match of a kind: base behind literals, and three more behind matches.
func afterMatch(state, base uint32) uint32 {
	switch {
	case state < 7:
		return base
	case base == 7:
		return 10
	}
	return 11
}

// repeat copies n bytes from dist before at, which may be nearer than n: then they repeat.
func repeat(out []byte, at, dist, n int) {
	if dist >= n {
		copy(out[at:at+n], out[at-dist:])
		return
	}
	for i := range n {
		out[at+i] = out[at-dist+i]
	}
}

// fromX86 undoes the x86 filter, which made the targets of CALL and JMP absolute, so that
// calls of one function look the same. What the filter took for an instruction may
// have been none; mask remembers which of the four bytes before were opcodes, so that both
// ways decide the same.
func fromX86(b []byte) {
	outermost := func(v byte) bool { return v == 0 || v == 0xff }
	mask := uint32(0)
	last := -5 // where the last opcode was
	for i := 0; i+5 <= len(b); {
		// Eight bytes at a time without an opcode.
		if i+8 <= len(b) {
			const ones = 0x0101010101010101
			x := binary.LittleEndian.Uint64(b[i:])&^ones ^ 0xe8*ones
			zero := (x - ones) &^ x & (0x80 * ones)
			if zero == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(zero) / 8
			if i+5 > len(b) {
				return
			}
		} else if b[i]&0xfe != 0xe8 {
			i++
			continue
		}
		if gap := i - last; gap > 3 {
			mask = 0
		} else {
			mask = mask << (gap - 1) & 7
			// An address that overlaps with others is told from the byte that they share.
			if mask != 0 && (mask != 1 && mask != 2 && mask != 4 || outermost(b[i+4-bits.Len32(mask)])) {
				last = i
				mask = mask<<1 | 1
				i++
				continue
			}
		}
		last = i
		if !outermost(b[i+4]) {
			mask = mask<<1 | 1
			i++
			continue
		}
		v := le.Uint32(b[i+1:])
		for {
			v -= uint32(i + 5)
			if mask == 0 {
				break
			}
			shared := 8 * bits.Len32(mask)
			if !outermost(byte(v >> (24 - shared))) {
				break
			}
			v ^= 1<<(32-shared) - 1
		}
		le.PutUint32(b[i+1:], uint32(int32(v<<7)>>7))
		i += 5
	}
}
