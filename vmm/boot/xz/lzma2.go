package xz

import (
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	probBits = 11
	probInit = 1 << (probBits - 1)
	moveBits = 5
	rangeTop = 1 << 24

	matchMin  = 2
	litStates = 7 // states below follow a literal
	numStates = 12

	// symbolMax is how many bytes of input a symbol may take.
	symbolMax = 24
	// slack is how many bytes beyond its end a match may write, before what belongs there.
	slack = 8
)

// coder is a range decoder: it decodes bits that are as likely as their probability says.
type coder struct {
	rng, code uint32
	pos       int // in the input
}

// lengths are the probabilities of a match's length: 2 to 9, 10 to 17, 18 to 273.
type lengths struct {
	choice, choice2 uint16
	low, mid        [16][8]uint16
	high            [256]uint16
}

// lzma decodes chunks. The probabilities are those of a bit to be zero.
type lzma struct {
	lc, lpMask, pbMask int
	state              int
	rep                [4]int // distances of the last matches, less one

	probs
}

type probs struct {
	isMatch, isRep0Long           [16][16]uint16
	isRep, isRep0, isRep1, isRep2 [16]uint16
	slots                         [4][64]uint16
	special                       [128]uint16
	align                         [16]uint16
	match, again                  lengths
	literal                       [16][0x300]uint16
}

// fill makes all of p's elements v.
func fill(v uint16, ps ...[]uint16) {
	for _, p := range ps {
		for i := range p {
			p[i] = v
		}
	}
}

// reset forgets what the probabilities were.
func (d *lzma) reset() {
	d.state, d.rep = 0, [4]int{}
	p := &d.probs
	fill(probInit, p.isRep[:], p.isRep0[:], p.isRep1[:], p.isRep2[:], p.special[:], p.align[:])
	for i := range p.isMatch {
		fill(probInit, p.isMatch[i][:], p.isRep0Long[i][:])
	}
	for i := range p.slots {
		fill(probInit, p.slots[i][:])
	}
	for _, l := range []*lengths{&p.match, &p.again} {
		l.choice, l.choice2 = probInit, probInit
		fill(probInit, l.high[:])
		for i := range l.low {
			fill(probInit, l.low[i][:], l.mid[i][:])
		}
	}
	for i := range p.literal {
		fill(probInit, p.literal[i][:])
	}
}

// properties sets what a chunk says of the literals' contexts.
func (d *lzma) properties(b byte) bool {
	pb, lp, lc := int(b)/45, int(b)/9%5, int(b)%9
	if pb > 4 || lp+lc > 4 {
		return false
	}
	d.lc, d.lpMask, d.pbMask = lc, 1<<lp-1, 1<<pb-1
	return true
}

// lzma2 unpacks the chunks at p[pos:] behind what is in out already, and returns where they end.
func lzma2(p []byte, pos int, out []byte, dict, limit int) ([]byte, int, error) {
	d := new(lzma)
	base := -1 // where the dictionary begins
	ready := false
	var tail []byte
	for {
		if pos >= len(p) {
			return nil, 0, damaged("it ends in a block")
		}
		control := p[pos]
		if control == 0 {
			return out, pos + 1, nil
		}
		header := 3
		switch {
		case control >= 0xc0:
			header = 6
		case control >= 0x80:
			header = 5
		case control > 2:
			return nil, 0, damaged("a chunk is of type %#x", control)
		}
		if pos+header > len(p) {
			return nil, 0, damaged("it ends in a chunk")
		}
		h := p[pos : pos+header]
		n := int(binary.BigEndian.Uint16(h[1:])) + 1
		if control >= 0x80 {
			n += int(control&0x1f) << 16
		}
		if control == 1 || control >= 0xe0 {
			base, ready = len(out), false
		}
		if base < 0 {
			return nil, 0, damaged("its first chunk builds on others")
		}
		if n > limit-len(out) {
			return nil, 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, limit)
		}
		out = slices.Grow(out, n+slack)
		pos += header
		if control < 0x80 {
			if n > len(p)-pos {
				return nil, 0, damaged("it ends in a chunk")
			}
			out = append(out, p[pos:pos+n]...)
			pos += n
			continue
		}
		packed := int(binary.BigEndian.Uint16(h[3:])) + 1
		if packed > len(p)-pos {
			return nil, 0, damaged("it ends in a chunk")
		}
		switch {
		case control >= 0xc0:
			if !d.properties(h[5]) {
				return nil, 0, damaged("a chunk has properties %#x", h[5])
			}
			ready = true
			d.reset()
		case !ready:
			return nil, 0, damaged("a chunk without properties")
		case control >= 0xa0:
			d.reset()
		}
		in := p[pos:]
		if len(in) < packed+symbolMax { // near the end of p: the decoder looks ahead
			tail = append(append(tail[:0], in[:packed]...), make([]byte, symbolMax)...)
			in = tail
		}
		if !d.chunk(in, packed, out[:cap(out)], len(out), len(out)+n, base, dict) {
			return nil, 0, damaged("a chunk cannot be decoded")
		}
		out = out[:len(out)+n]
		pos += packed
	}
}

// chunk decodes in[:end] to out[n:to]. The dictionary begins at out[base], and has at most dict bytes. in goes on for
// symbolMax bytes, and out for slack bytes, which it may change.
func (d *lzma) chunk(in []byte, end int, out []byte, n, to, base, dict int) bool {
	if end < 5 || in[0] != 0 {
		return false
	}
	c := coder{^uint32(0), binary.BigEndian.Uint32(in[1:]), 5}
	state, rep := d.state, d.rep
	for n < to {
		if c.pos > end {
			return false
		}
		posState := (n - base) & d.pbMask & 15
		var bit uint32
		if c, bit = c.normal(in).bit(&d.isMatch[state&15][posState]); bit == 0 {
			prev := byte(0)
			if n > base {
				prev = out[n-1]
			}
			probs := &d.literal[((n-base)&d.lpMask<<d.lc+int(prev)>>(8-d.lc))&15]
			var sym uint32
			if state < litStates {
				c, sym = c.literal(in, probs)
				state = max(state-3, 0)
			} else {
				c, sym = c.matched(in, probs, uint32(out[n-rep[0]-1]))
				if state < 10 {
					state -= 3
				} else {
					state -= 6
				}
			}
			out[n] = byte(sym)
			n++
			continue
		}
		var size int
		if c, bit = c.normal(in).bit(&d.isRep[state&15]); bit == 0 {
			rep[3], rep[2], rep[1] = rep[2], rep[1], rep[0]
			c, size = c.length(in, &d.match, posState)
			c, rep[0] = c.distance(in, d, size)
			state = after(state, 7, 10)
		} else {
			if c, bit = c.normal(in).bit(&d.isRep0[state&15]); bit == 0 {
				if c, bit = c.normal(in).bit(&d.isRep0Long[state&15][posState]); bit == 0 {
					if rep[0] >= n-base {
						return false
					}
					out[n] = out[n-rep[0]-1]
					n++
					state = after(state, 9, 11)
					continue
				}
			} else if c, bit = c.normal(in).bit(&d.isRep1[state&15]); bit == 0 {
				rep[0], rep[1] = rep[1], rep[0]
			} else if c, bit = c.normal(in).bit(&d.isRep2[state&15]); bit == 0 {
				rep[0], rep[1], rep[2] = rep[2], rep[0], rep[1]
			} else {
				rep[0], rep[1], rep[2], rep[3] = rep[3], rep[0], rep[1], rep[2]
			}
			c, size = c.length(in, &d.again, posState)
			state = after(state, 8, 11)
		}
		if rep[0] >= n-base || rep[0] >= dict || size > to-n {
			return false
		}
		repeat(out, n, rep[0]+1, size)
		n += size
	}
	d.state, d.rep = state, rep
	c = c.normal(in)
	return c.pos == end && c.code == 0
}

// after returns the state that follows a match of some kind: one behind a literal, another behind a match.
func after(state, literal, match int) int {
	if state < litStates {
		return literal
	}
	return match
}

// repeat copies size bytes from back bytes before out[n]. It may write up to slack bytes more.
func repeat(out []byte, n, back, size int) {
	if back < 8 {
		for i := n; i < n+size; i++ {
			out[i] = out[i-back]
		}
		return
	}
	dst, src := out[n:], out[n-back:]
	for i := 0; i < size; i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], binary.LittleEndian.Uint64(src[i:]))
	}
}

// normal takes another byte of input where the range has become small.
func (c coder) normal(in []byte) coder {
	if c.rng < rangeTop {
		c.rng <<= 8
		c.code = c.code<<8 | uint32(in[c.pos])
		c.pos++
	}
	return c
}

// bit decodes a bit. Preconditions: the range is not small.
//
// It is passed and returned by value, and small enough to be inlined with normal, so that a coder is in registers.
func (c coder) bit(p *uint16) (coder, uint32) {
	v := uint32(*p)
	bound := c.rng >> probBits * v
	if c.code < bound {
		c.rng = bound
		*p = uint16(v + (1<<probBits-v)>>moveBits)
		return c, 0
	}
	c.rng -= bound
	c.code -= bound
	*p = uint16(v - v>>moveBits)
	return c, 1
}

// guess is bit without a branch, for bits that the host cannot predict: those of what is not repeated.
func (c coder) guess(p *uint16) (coder, uint32) {
	v := uint32(*p)
	bound := c.rng >> probBits * v
	diff := int64(c.code) - int64(bound)
	zero := uint32(diff >> 63) // all ones where the bit is zero
	c.rng -= bound
	c.rng += zero & (bound - c.rng)
	c.code = uint32(diff) + zero&bound
	*p = uint16(v - uint32(int32(v-zero&(1<<probBits-1<<moveBits+1))>>moveBits))
	return c, zero + 1
}

// literal decodes a byte.
func (c coder) literal(in []byte, p *[0x300]uint16) (coder, uint32) {
	sym, bit := uint32(1), uint32(0)
	for sym < 0x100 {
		c, bit = c.normal(in).guess(&p[sym])
		sym = sym<<1 | bit
	}
	return c, sym
}

// matched decodes a byte that is rather not other, the one where a match would have gone on.
func (c coder) matched(in []byte, p *[0x300]uint16, other uint32) (coder, uint32) {
	sym, bit, offset := uint32(1), uint32(0), uint32(0x100)
	for sym < 0x100 {
		other <<= 1
		m := other & offset
		c, bit = c.normal(in).guess(&p[offset+m+sym])
		sym = sym<<1 | bit
		offset &= m ^ (bit - 1)
	}
	return c, sym
}

// tree decodes bits bits, the highest first.
func (c coder) tree(in []byte, p []uint16, bits int) (coder, int) {
	sym, bit := uint32(1), uint32(0)
	for range bits {
		c, bit = c.normal(in).guess(&p[sym])
		sym = sym<<1 | bit
	}
	return c, int(sym) - 1<<bits
}

// reverse decodes bits bits, the lowest first.
func (c coder) reverse(in []byte, p []uint16, bits int) (coder, int) {
	sym, bit, v := uint32(1), uint32(0), uint32(0)
	for i := range bits {
		c, bit = c.normal(in).guess(&p[sym])
		sym = sym<<1 | bit
		v |= bit << i
	}
	return c, int(v)
}

// length decodes the length of a match.
func (c coder) length(in []byte, l *lengths, posState int) (coder, int) {
	c, bit := c.normal(in).bit(&l.choice)
	if bit == 0 {
		c, n := c.tree(in, l.low[posState][:], 3)
		return c, matchMin + n
	}
	if c, bit = c.normal(in).bit(&l.choice2); bit == 0 {
		c, n := c.tree(in, l.mid[posState][:], 3)
		return c, matchMin + 8 + n
	}
	c, n := c.tree(in, l.high[:], 8)
	return c, matchMin + 16 + n
}

// distance decodes the distance of a match of size bytes, less one.
func (c coder) distance(in []byte, d *lzma, size int) (coder, int) {
	// The slot says how many bits there are and what the highest two are.
	c, slot := c.tree(in, d.slots[min(size-matchMin, 3)][:], 6)
	if slot < 4 {
		return c, slot
	}
	bits := slot>>1 - 1
	high := (2 | slot&1) << bits
	if slot < 14 {
		c, low := c.reverse(in, d.special[high-slot:], bits)
		return c, high + low
	}
	direct := uint32(0)
	for range bits - 4 {
		c = c.normal(in)
		c.rng >>= 1
		direct <<= 1
		if c.code >= c.rng {
			c.code -= c.rng
			direct |= 1
		}
	}
	c, low := c.reverse(in, d.align[:], 4)
	return c, high + int(direct)<<4 + low
}
