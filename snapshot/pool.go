package snapshot

import (
	"fmt"

	"golang.org/x/sys/unix"

	"refault/vmm/mem"
)

// pagePool is room for a bounded number of pages. It is outside the Go heap: of what comes and goes with each
// snapshot the collector would take notice, and who waits for generated code to return disturbs it. One goroutine
// gets, another gives back.
type pagePool struct {
	data []byte
	most int32      // how many it may hand out
	used int32      // how many it ever did: the others cost nothing yet
	back chan int32 // those that were given back
}

func newPagePool(most int) (*pagePool, error) {
	data, err := unix.Mmap(-1, 0, most*mem.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("room for snapshots: mapping %d bytes: %w", most*mem.PageSize, err)
	}
	return &pagePool{data: data, most: int32(most), back: make(chan int32, most)}, nil
}

// get returns the number of a page that is not in use, and waits for one if there is none.
func (p *pagePool) get() int32 {
	select {
	case n := <-p.back:
		return n
	default:
	}
	if p.used < p.most {
		p.used++
		return p.used - 1
	}
	return <-p.back
}

// put gives a page back.
func (p *pagePool) put(n int32) { p.back <- n }

func (p *pagePool) page(n int32) []byte { return p.data[int(n)*mem.PageSize:][:mem.PageSize] }

// inUse returns how many pages were not given back. Only who gets may ask.
func (p *pagePool) inUse() int { return int(p.used) - len(p.back) }

// close frees the room, of which nothing may be in use.
func (p *pagePool) close() error { return unix.Munmap(p.data) }
