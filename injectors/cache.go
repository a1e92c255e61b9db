package injectors

import (
	"fmt"
	"math/bits"

	"refault/vmm"
	"refault/vmm/dev/mca"
	"refault/vmm/ecc"
	"refault/vmm/x86"
)

// A bit of a cache flips, at a place in the cache and not in memory ("alphabombing"):
// whether that matters depends on which line is there, whether it is dirty, how it is
// protected, and who comes first: a load, a displacement, or the cache's scrubber.
//
// # Where is the cache?
//
// In the injector only. While the fault is under way it looks at every access, and keeps
// tags as a write-back cache with LRU replacement would have them; data needs no copy,
// since memory holds what the processor sees. From the trigger the tags are filled for a
// while (key warm), then the bit flips. What the model decides becomes events at exact
// steps (a machine check, poison, a changed byte), so the faulty run replays without it,
// and without its price.

var cacheKind = Kind{
	Name:   "cache",
	Doc:    "bits of a write-back cache flip, at an offset into the cache",
	Sees:   "what line, protection and first use make of it: nothing, a corrected error, #MC (SRAR, or SRAO from the write-back), or wrong data",
	Source: "error injectors of hardware vendors; SDM Vol. 3B 15.9.2",
	Keys: []Key{
		{Name: "size", Doc: "of the cache in bytes", Default: "262144"},
		{Name: "ways", Doc: "of each set", Default: "8"},
		{Name: "offset", Doc: "the byte of the cache: way first, then set, then the byte of its line", Needed: true},
		{Name: "bit", Doc: "the bits from there on, as 3+17", Default: "0", Text: true},
		{Name: "protect", Doc: "of lines: parity a byte, ECC (SEC-DED) a word, or none", Default: "parity", Values: []string{"parity", "ecc", "none"}},
		{Name: "warm", Doc: "so many instructions fill the cache before the bit flips", Default: "2000000"},
		{Name: "watch", Doc: "so many instructions long it is followed what becomes of it", Default: "50000000"},
		{Name: "bank", Doc: "bank that reports (default: 9; 1 and 0 for loads and fetches of what is uncorrectable)"},
		{Name: "scrub", Doc: "the time that the cache's scrubber takes for a pass (default: there is none)", Time: true},
	},
	Lasts: always,
	Begin: beginCache,
}

const cacheLine = 64

// line is a slot of the cache.
type line struct {
	addr  uint64 // physical
	used  uint64
	valid bool
	dirty bool
}

// cache is the model under way.
type cache struct {
	s          *Scheduler
	spec       string
	slots      []line
	ways, sets uint64
	now        uint64
	observer   *vmm.Observer

	slot             int // where the bits flip
	at               uint64
	mask             []byte // from byte at of the line
	protect          string
	flipStep         uint64
	endStep          uint64
	scrubNs, scrubAt uint64
	flipped          bool
	silent           bool // nothing checks what flipped
	correctable      bool
	addr             uint64 // of the line that was hit
	bank             int    // that reports; negative: the one that fits
}

func beginCache(s *Scheduler, spec string, a Args) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("cache: %s: %w", fmt.Sprintf(format, args...), ErrSpec)
	}
	c := &cache{s: s, spec: spec, ways: a.Uint("ways"), protect: a.Text("protect")}
	size := a.Uint("size")
	if c.ways == 0 || size == 0 || size > 1<<30 || size%(c.ways*cacheLine) != 0 || bits.OnesCount64(size/(c.ways*cacheLine)) != 1 {
		return bad("%d bytes of lines of %d in %d ways do not make a cache", size, cacheLine, c.ways)
	}
	c.sets = size / (c.ways * cacheLine)
	if a.Uint("offset") >= size {
		return bad("offset %s is beyond %d bytes", a.Text("offset"), size)
	}
	c.slots = make([]line, c.sets*c.ways)
	c.slot, c.at = int(a.Uint("offset")/cacheLine), a.Uint("offset")%cacheLine
	var err error
	if c.mask, err = patternOf(a.Text("bit"), "cache"); err != nil {
		return err
	}
	if c.at+uint64(len(c.mask)) > cacheLine {
		return bad("bits %s reach beyond the line", a.Text("bit"))
	}
	c.bank = -1
	if a.Has("bank") {
		if c.bank = int(min(a.Uint("bank"), 1<<16)); c.bank >= mca.NumBanks {
			return bad("bank %d of %d", c.bank, mca.NumBanks)
		}
	}
	step := s.m.Step()
	c.flipStep = step + a.Uint("warm")
	c.endStep = c.flipStep + a.Uint("watch")
	c.scrubNs = uint64(max(a.Ns("scrub"), 0))
	c.observer = &vmm.Observer{Code: vmm.Everywhere, Before: c.fetch, Data: vmm.Everywhere, Access: c.load, DMA: c.dma}
	s.m.Observe(c.observer)
	return nil
}

// fetch is called before each instruction.
func (c *cache) fetch(p *x86.CPU, la uint64, in *x86.Inst) {
	switch {
	case p.Step >= c.endStep:
		c.over("still there, and not used")
		return
	case !c.flipped && p.Step >= c.flipStep:
		if c.flip(); c.observer == nil {
			return
		}
	case c.flipped && c.scrubAt != 0 && c.s.m.TimeNs() >= c.scrubAt:
		if c.scrubbed(); c.observer == nil {
			return
		}
	}
	c.access(p, la, max(int(in.Len), 1), x86.Fetch)
}

func (c *cache) load(p *x86.CPU, va uint64, n int, kind x86.Access) { c.access(p, va, n, kind) }

// access is an access at linear addresses.
func (c *cache) access(p *x86.CPU, va uint64, n int, kind x86.Access) {
	for n > 0 && c.observer != nil {
		k := min(n, int(cacheLine-va%cacheLine))
		if pa, ok := p.Translate(va); ok {
			if _, ram := c.s.m.RAM.Offset(pa); ram {
				c.touch(pa&^(cacheLine-1), kind)
			}
		}
		va, n = va+uint64(k), n-k
	}
}

// index returns which slot a way of the set of an address is. The slots of one way lie together.
func (c *cache) index(addr, way uint64) int { return int(way*c.sets + addr/cacheLine%c.sets) }

// touch is an access to a line.
func (c *cache) touch(addr uint64, kind x86.Access) {
	c.now++
	oldest := c.index(addr, 0)
	for w := range c.ways {
		i := c.index(addr, w)
		l := &c.slots[i]
		if l.valid && l.addr == addr {
			l.used = c.now
			if c.flipped && i == c.slot {
				c.used(l, kind)
			}
			l.dirty = l.dirty || kind == x86.Write
			return
		}
		if o := &c.slots[oldest]; o.valid && (!l.valid || l.used < o.used) {
			oldest = i
		}
	}
	l := &c.slots[oldest]
	if c.flipped && oldest == c.slot {
		c.displaced(l)
	}
	*l = line{addr: addr, used: c.now, valid: true, dirty: kind == x86.Write}
}

// dma is an access of a bus master: reads of what is dirty come out of the cache, writes take the line out of it.
func (c *cache) dma(pa uint64, n int, write bool) {
	for addr := pa &^ (cacheLine - 1); addr < pa+uint64(n) && c.observer != nil; addr += cacheLine {
		for w := range c.ways {
			i := c.index(addr, w)
			l := &c.slots[i]
			if !l.valid || l.addr != addr {
				continue
			}
			switch {
			case write:
				l.valid = false
				if c.flipped && i == c.slot {
					c.over("gone with its line, which a bus master wrote")
				}
			case c.flipped && i == c.slot && l.dirty:
				c.used(l, x86.Read)
			}
		}
	}
}

// flip flips the bits.
func (c *cache) flip() {
	c.flipped = true
	l := &c.slots[c.slot]
	if !l.valid {
		c.over("hit an empty line")
		return
	}
	c.addr = l.addr
	v := c.verdict()
	c.silent, c.correctable = v == ecc.Good, v == ecc.Corrected
	state := "clean"
	if l.dirty {
		state = "dirty"
	}
	c.tell("hit a %s line, %s", state, map[ecc.Verdict]string{ecc.Good: "unnoticed", ecc.Corrected: "correctable", ecc.Uncorrectable: "uncorrectable"}[v])
	if c.scrubNs != 0 {
		// The scrubber passes the slots one by one, and began with the first at power-on.
		pass, now := c.scrubNs, c.s.m.TimeNs()
		c.scrubAt = now - now%pass + pass*uint64(c.slot)/uint64(len(c.slots))
		if c.scrubAt <= now {
			c.scrubAt += pass
		}
	}
	switch {
	case c.silent:
		c.s.emit(c.spec, &vmm.Fault{Kind: vmm.FaultMemory, Addr: c.addr + c.at, Mask: c.mask})
	case l.dirty && !c.correctable:
		c.poison()
	}
}

// verdict is what the line's protection will make of the bits.
func (c *cache) verdict() ecc.Verdict {
	worst := ecc.Good
	switch c.protect {
	case "parity":
		for _, b := range c.mask {
			if bits.OnesCount8(b)%2 != 0 {
				return ecc.Uncorrectable
			}
		}
	case "ecc":
		var words [cacheLine / 8]uint64
		for i, b := range c.mask {
			at := c.at + uint64(i)
			words[at/8] |= uint64(b) << (8 * (at % 8))
		}
		for _, w := range words {
			v, bit := ecc.Judge(ecc.Encode(w))
			if v == ecc.Corrected && w != 1<<uint(bit) {
				v = ecc.Good // miscorrected: wrong, and nobody minds
			}
			worst = max(worst, v)
		}
	}
	return worst
}

// poison makes the line uncorrectable for whoever reads it.
func (c *cache) poison() {
	d := vmm.Defect{Kind: vmm.DefectPoison, Addr: c.addr, Bank: c.bank, Grain: cacheLine, By: vmm.ByAll, Bad: make([]byte, cacheLine/8)}
	for i := range c.mask {
		if b := c.at + uint64(i); c.mask[i] != 0 {
			d.Bad[b/8] |= 1 << (b % 8)
		}
	}
	if c.protect == "parity" {
		d.Grain = 1
	}
	c.s.emit(c.spec, &vmm.Fault{Kind: vmm.FaultDefect, Defect: &d})
}

// used is an access to the line whose bits flipped.
func (c *cache) used(l *line, kind x86.Access) {
	switch {
	case c.silent:
		// What was wrong in a clean line would have gone with it; now it is written back.
		if kind == x86.Write && !l.dirty {
			c.over("in a line that is dirty now")
		}
	case c.correctable:
		c.corrected("corrected on use")
	case !l.dirty:
		c.corrected("found in a clean line, which is fetched again")
	}
}

// displaced is the displacement of the line.
func (c *cache) displaced(l *line) {
	switch {
	case c.silent && !l.dirty:
		// Memory still holds what is right.
		c.s.emit(c.spec, &vmm.Fault{Kind: vmm.FaultMemory, Addr: c.addr + c.at, Mask: c.mask})
		c.over("gone with its clean line")
	case !l.dirty:
		c.over("gone with its clean line")
	case c.silent:
		c.over("written back")
	case c.correctable:
		c.corrected("corrected in the write-back")
	default:
		c.report(mciValid|mciUC|mciEN|mciMiscV|mciAddrV|mciS|0x017a, mcgRIPV|mcgMCIP)
		c.over("found in the write-back")
	}
}

// scrubbed is the scrubber's passing the line.
func (c *cache) scrubbed() {
	c.scrubAt += c.scrubNs
	l := &c.slots[c.slot]
	switch {
	case c.silent:
	case c.correctable || !l.dirty:
		l.dirty = l.dirty && c.correctable
		c.corrected("found by the scrubber in time")
	default:
		c.report(mciValid|mciUC|mciEN|mciMiscV|mciAddrV|mciS|0x0179, mcgRIPV|mcgMCIP)
		c.over("found by the scrubber, too late")
	}
}

// corrected reports a corrected error and ends the story.
func (c *cache) corrected(what string) {
	c.report(mciValid|mciEN|mciMiscV|mciAddrV|0x0135, 0)
	c.over(what)
}

func (c *cache) report(status, mcg uint64) {
	bank := 9
	if c.bank >= 0 {
		bank = c.bank
	}
	c.s.emit(c.spec, &vmm.Fault{Kind: vmm.FaultMCE, Bank: uint8(bank), Status: status, MCGStatus: mcg, Addr: c.addr, Misc: 2<<6 | 6})
}

// over ends the story.
func (c *cache) over(what string) {
	c.tell("%s", what)
	c.s.m.Unobserve(c.observer)
	c.observer = nil
}

func (c *cache) tell(format string, args ...any) {
	c.s.notice(vmm.Notice{Step: c.s.m.Step(), TimeNs: c.s.m.TimeNs(), Kind: vmm.DefectCache, Addr: c.addr, What: fmt.Sprintf(format, args...)})
}
