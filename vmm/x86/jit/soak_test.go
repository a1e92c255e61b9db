//go:build linux && amd64

package jit

import (
	"encoding/binary"
	"io"
	"math/bits"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"testing"

	"refault/vmm/x86"
)

// TestSurvivesCollectorAndSignals runs generated code in two machines at once while
// the collector runs all the time and profiling signals arrive.
func TestSurvivesCollectorAndSignals(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	if err := pprof.StartCPUProfile(io.Discard); err == nil {
		defer pprof.StopCPUProfile()
	}
	// l: add rax,[rbx]; mov [rbx+8],rax; paddq xmm1,xmm2; fld1; faddp; lea rdx,[rax+rcx]; cmp rdx,rax; je l; dec rcx; jmp l
	p := &program{code: []byte{0x48, 0x03, 0x03, 0x48, 0x89, 0x43, 8, 0x66, 0x0f, 0xd4, 0xca, 0xd9, 0xe8, 0xde, 0xc1,
		0x48, 0x8d, 0x14, 0x08, 0x48, 0x39, 0xc2, 0x74, 0xe8, 0x48, 0xff, 0xc9, 0xeb, 0xe3}}
	p.regs[x86.RBX], p.regs[x86.RSP], p.regs[x86.RCX] = dataAt, stackAt, 1<<40
	p.data = []byte{3, 0, 0, 0, 0, 0, 0, 0}
	p.fx[0], p.fx[1], p.fx[4], p.fx[24], p.fx[25] = 0x7f, 3, 1, 0x80, 0x1f
	p.fx[160+32] = 5
	p.flags = x86.Flag1
	const rounds, perRound = 20_000, 10 * 500
	stop := make(chan struct{})
	var garbage, work sync.WaitGroup
	garbage.Go(func() {
		var keep [64][]byte
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				keep[i%64] = make([]byte, 1<<12)
			}
		}
	})
	for range 2 {
		r := newRig(t, true)
		r.prepare(p)
		work.Go(func() {
			for range rounds {
				r.run(perRound)
			}
			const n = rounds * perRound / 10
			if got := r.c.Regs[x86.RAX]; got != 3*n {
				t.Errorf("rax = %d, want %d", got, 3*n)
			}
			if got := binary.LittleEndian.Uint64(r.c.FX[32:]); got != n<<bits.LeadingZeros64(n) {
				t.Errorf("st0 has mantissa %#x, want that of %d", got, n)
			}
			if got := r.c.XMM(1)[0]; got != byte(5*n&0xff) {
				t.Errorf("xmm1 = %#x, want %#x", got, byte(5*n&0xff))
			}
		})
	}
	work.Wait()
	close(stop)
	garbage.Wait()
}
