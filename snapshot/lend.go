package snapshot

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"refault/vmm/mem"
)

// maxLoans bounds the loans of a lender that were not given back.
const maxLoans = 256

// lender lends pages of a machine's memory to a goroutine, which reads what they hold now while the machine
// goes on. Before the machine writes a page that was not read yet, it keeps what the goroutine needs of
// it: a copy, or, where copies is nil, its hash, which takes no longer.
//
// lend and beforeWrite are the machine's, next, done and giveBack the goroutine's.
type lender struct {
	pages  []lent
	copies *pagePool
	loans  [maxLoans]*loan // the last of them, by number
	count  uint32
}

// lent says for which loan a page has to be read before it is written. Who reads it, the
// goroutine or the machine, puts beingRead there first and notLent afterwards.
type lent struct {
	to atomic.Uint32 // the loan's number
	at uint32        // where it lists the page
}

// Values of lent.to besides the numbers of loans.
const (
	notLent = iota
	beingRead
	firstNumber
)

// loan is what was lent at one position.
type loan struct {
	number uint32
	memory Memory
	pages  []uint32
	read   int // how many of them were read

	// Of the pages that the machine was about to write: the copy's number plus one, or one and the hash.
	kept   []atomic.Int32
	hashes [][2]uint64
}

// lend lends pages, which are all different.
func (l *lender) lend(m Memory, pages []uint32) *loan {
	o := &loan{number: l.count + firstNumber, memory: m, pages: pages, kept: make([]atomic.Int32, len(pages))}
	if l.copies == nil {
		o.hashes = make([][2]uint64, len(pages))
	}
	l.loans[l.count%maxLoans] = o
	l.count++
	for i, n := range pages {
		l.beforeWrite(int(n)) // it may not have been read for an earlier loan
		l.pages[n].at = uint32(i)
		l.pages[n].to.Store(o.number)
	}
	return o
}

// beforeWrite must be called before the first write to a page since it was lent; more often does no harm.
func (l *lender) beforeWrite(page int) {
	s := &l.pages[page]
	for try := 0; ; try++ {
		switch number := s.to.Load(); number {
		case notLent:
			return
		case beingRead:
			pause(try)
		default:
			var p int32
			if l.copies != nil {
				p = l.copies.get() // the page may be read while this waits
			}
			if !s.to.CompareAndSwap(number, beingRead) {
				if l.copies != nil {
					l.copies.put(p)
				}
				continue
			}
			o := l.loans[(number-firstNumber)%maxLoans]
			if l.copies != nil {
				copy(l.copies.page(p), o.memory.Page(page))
			} else {
				o.hashes[s.at] = hashPage(page, o.memory.Page(page))
			}
			o.kept[s.at].Store(p + 1)
			s.to.Store(notLent)
			return
		}
	}
}

// pause is for who waits for the other to read a page: that takes no time, unless the host has taken its processor away.
func pause(try int) {
	if try >= 1000 {
		unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// next goes to the loan's next page. Either it is as it was lent until done is called for it, while the machine may
// have to wait, or the machine kept it.
func (l *lender) next(o *loan) (page int, kept bool) {
	page = int(o.pages[o.read])
	o.read++
	return page, !l.pages[page].to.CompareAndSwap(o.number, beingRead)
}

func (l *lender) done(page int) { l.pages[page].to.Store(notLent) }

// copyOf returns the copy that the machine made, or is making, of the page that next went to.
func (o *loan) copyOf() int32 {
	for try := 0; ; try++ {
		if p := o.kept[o.read-1].Load(); p != 0 {
			return p - 1
		}
		pause(try)
	}
}

// nextCopy copies what the loan's next page was to content.
func (l *lender) nextCopy(o *loan, content []byte) {
	n, kept := l.next(o)
	if !kept {
		copy(content, o.memory.Page(n))
		l.done(n)
		return
	}
	p := o.copyOf()
	copy(content, l.copies.page(p))
	l.copies.put(p)
}

// nextHash returns the loan's next page and its hash.
func (l *lender) nextHash(o *loan) (page int, hash [2]uint64) {
	n, kept := l.next(o)
	if !kept {
		hash = hashPage(n, o.memory.Page(n))
		l.done(n)
		return n, hash
	}
	o.copyOf()
	return n, o.hashes[o.read-1]
}

// giveBack ends the loan of the pages that were not read.
func (l *lender) giveBack(o *loan) {
	for o.read < len(o.pages) {
		n, kept := l.next(o)
		if !kept {
			l.done(n)
		} else if p := o.copyOf(); l.copies != nil {
			l.copies.put(p)
		}
	}
}

// pagesPerSlab is how many pages of a pool the host is asked for together: 2 MiB; pagesReady is how many wait to be needed.
const (
	pagesPerSlab = 512
	pagesReady   = 4 * pagesPerSlab
)

// pagePool is room for a bounded number of pages, which stays when it was needed once: as garbage the pages
// would make the collector run, and when that waits for generated code to return, it disturbs it. It is outside the Go
// heap, in large pages where the host has them: what the host gives anew costs a fault for each of its pages, and that
// hits the machine's thread too. One goroutine gets, another gives back.
type pagePool struct {
	memory []byte       // those that were never needed take no room of the host
	most   int32        // how many pages it may hand out
	made   atomic.Int32 // how many were needed once, or more than most
	free   chan int32   // those of them that are not in use
}

func newPagePool(most int) *pagePool {
	p := &pagePool{most: int32(most), free: make(chan int32, most)}
	var err error
	if p.memory, err = unix.Mmap(-1, 0, most*mem.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE); err != nil {
		p.memory = make([]byte, most*mem.PageSize)
		return p
	}
	_ = unix.Madvise(p.memory, unix.MADV_HUGEPAGE) // a host without them does as well
	return p
}

// close frees the memory. Nobody may have a page, or get one, from now on.
func (p *pagePool) close() {
	_ = unix.Munmap(p.memory) // which refuses what is in the heap
	p.memory = nil
}

// get returns the number of a page that is not in use, and waits for one if there is none.
func (p *pagePool) get() int32 {
	select {
	case n := <-p.free:
		return n
	default:
	}
	p.grow()
	return <-p.free
}

// ready makes sure that the next calls of get find pages, as far as there may be more. It is for who gives back, and has time.
func (p *pagePool) ready() {
	if len(p.free) < pagesReady {
		p.grow()
	}
}

// grow adds pages, if there may be more.
func (p *pagePool) grow() {
	if p.made.Load() >= p.most {
		return
	}
	first := p.made.Add(pagesPerSlab) - pagesPerSlab
	if first >= p.most {
		return // the other was faster
	}
	for n := first; n < min(first+pagesPerSlab, p.most); n++ {
		p.page(n)[0] = 0 // so that it is here that the host gives the memory
		p.free <- n
	}
}

// put gives a page back.
func (p *pagePool) put(n int32) { p.free <- n }

func (p *pagePool) page(n int32) []byte {
	return p.memory[int(n)*mem.PageSize : (int(n)+1)*mem.PageSize]
}

// inUse returns how many pages were not given back, while it does not grow.
func (p *pagePool) inUse() int { return int(min(p.made.Load(), p.most)) - len(p.free) }
