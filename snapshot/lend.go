package snapshot

import (
	"runtime"
	"sync/atomic"

	"refault/vmm/mem"
)

// maxLoans bounds the loans of a lender that were not given back.
const maxLoans = 256

// lender lends pages of a machine's memory to a goroutine, which reads what they hold now while the machine
// goes on. Before the machine writes a page that was not read yet, it copies it.
//
// lend and beforeWrite are the machine's, next and giveBack the goroutine's.
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
	copies []atomic.Int32 // of those that the machine was about to write: the page of the pool, plus one
	read   int            // how many of the pages were read
}

// newLender returns a lender of a memory's pages that holds at most so many copies.
func newLender(pages, copies int) *lender {
	return &lender{pages: make([]lent, pages), copies: newPagePool(copies)}
}

// lend lends pages, which are all different.
func (l *lender) lend(m Memory, pages []uint32) *loan {
	o := &loan{number: l.count + firstNumber, memory: m, pages: pages, copies: make([]atomic.Int32, len(pages))}
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
	for {
		switch number := s.to.Load(); number {
		case notLent:
			return
		case beingRead:
			runtime.Gosched() // it takes no time
		default:
			p := l.copies.get() // the page may be read while this waits
			if !s.to.CompareAndSwap(number, beingRead) {
				l.copies.put(p)
				continue
			}
			o := l.loans[(number-firstNumber)%maxLoans]
			copy(l.copies.page(p), o.memory.Page(page))
			o.copies[s.at].Store(p + 1)
			s.to.Store(notLent)
		}
	}
}

// next calls use with what the loan's next page held when it was lent. The machine may wait meanwhile.
func (l *lender) next(o *loan, use func(content []byte)) {
	i, n := o.read, o.pages[o.read]
	o.read++
	if s := &l.pages[n]; s.to.CompareAndSwap(o.number, beingRead) {
		use(o.memory.Page(int(n)))
		s.to.Store(notLent)
		return
	}
	p := o.copyOf(i)
	use(l.copies.page(p))
	l.copies.put(p)
}

// copyOf returns the copy of a page that the machine made, or is making.
func (o *loan) copyOf(i int) int32 {
	for {
		if p := o.copies[i].Load(); p != 0 {
			return p - 1
		}
		runtime.Gosched()
	}
}

// giveBack ends the loan of the pages that were not read.
func (l *lender) giveBack(o *loan) {
	for ; o.read < len(o.pages); o.read++ {
		if !l.pages[o.pages[o.read]].to.CompareAndSwap(o.number, notLent) {
			l.copies.put(o.copyOf(o.read))
		}
	}
}

// pagesPerSlab is how many pages of a pool are allocated together: 1 MiB.
const pagesPerSlab = 256

// pagePool is room for a bounded number of pages, which stays allocated when it was needed once: as garbage the pages
// would make the collector run, and when that waits for generated code to return, it disturbs it. It is in
// the Go heap, which has room left after a boot; what the host has to give anew costs a page fault for
// each page. One goroutine gets, another gives back.
type pagePool struct {
	slabs []*[pagesPerSlab][mem.PageSize]byte // as far as they were needed
	most  int32                               // how many pages it may hand out
	used  int32                               // how many it ever did
	back  chan int32                          // those that were given back
}

func newPagePool(most int) *pagePool {
	return &pagePool{
		slabs: make([]*[pagesPerSlab][mem.PageSize]byte, (most+pagesPerSlab-1)/pagesPerSlab),
		most:  int32(most),
		back:  make(chan int32, most),
	}
}

// get returns the number of a page that is not in use, and waits for one if there is none.
func (p *pagePool) get() int32 {
	select {
	case n := <-p.back:
		return n
	default:
	}
	if p.used == p.most {
		return <-p.back
	}
	n := p.used
	p.used++
	if slab := &p.slabs[n/pagesPerSlab]; *slab == nil {
		*slab = new([pagesPerSlab][mem.PageSize]byte)
	}
	return n
}

// put gives a page back.
func (p *pagePool) put(n int32) { p.back <- n }

func (p *pagePool) page(n int32) []byte { return p.slabs[n/pagesPerSlab][n%pagesPerSlab][:] }

// inUse returns how many pages were not given back. Only who gets may ask.
func (p *pagePool) inUse() int { return int(p.used) - len(p.back) }
