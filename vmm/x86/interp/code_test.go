package interp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"refault/vmm/mem"
	"refault/vmm/x86"
)

// Code that changes itself, through its own address and through another one, while a device changes it
// too: the cache of decoded blocks against an engine that decodes each instruction when it executes it.
func TestDecodedCodeIsCoherent(t *testing.T) {
	const (
		slots    = 64
		slotSize = 16
		first    = codeAt + mem.PageSize - slots/2*slotSize - 8 // one slot lies across two pages
		alias    = 1 << 21                                      // the other address of the same memory
	)
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 11))
		fast, slow := newRig(t), newRig(t)
		slow.e.Trace = func(*x86.Inst) {}
		both := func(f func(r *rig)) { f(fast); f(slow) }
		both(func(r *rig) {
			r.c.RAM.WriteAt([]byte{0x87, 0, 0, 0, 0, 0, 0, 0}, 0x3008) // the second 2 MiB are the first again
			r.c.Regs[x86.RIP] = first
		})
		// Each slot: add rax,imm8; mov byte [somewhere],imm8; jmp to a slot.
		jump := func(from int) byte {
			to := max(0, min(slots-1, from-7+random.IntN(15)))
			return byte((to-from)*slotSize + 2)
		}
		for i := range slots {
			code := []byte{0x48, 0x83, 0xc0, byte(random.Uint32()), 0xc6, 0x04, 0x25, 0, 0, 0, 0, 0, 0xeb, 0, 0x90, 0x90}
			target, at, v := random.IntN(slots), 3, byte(random.Uint32())
			if random.IntN(3) == 0 {
				at, v = 13, jump(target)
			}
			addr := uint32(first + target*slotSize + at + random.IntN(2)*alias)
			binary.LittleEndian.PutUint32(code[7:], addr)
			code[11], code[13] = v, jump(i)
			both(func(r *rig) { r.c.RAM.WriteAt(code, uint64(first+i*slotSize)) })
		}
		for range 400 {
			n := 1 + random.Uint64N(60)
			both(func(r *rig) {
				for end := r.c.Step + n; r.c.Step < end; {
					r.c.Attention = false
					r.e.Run(end)
				}
			})
			if fast.c.Regs != slow.c.Regs || fast.c.RFLAGS != slow.c.RFLAGS {
				t.Fatalf("seed %d, step %d: registers %x, decoded anew %x", seed, fast.c.Step, fast.c.Regs, slow.c.Regs)
			}
			switch random.IntN(8) {
			case 0: // a device
				at, v := uint64(first+random.IntN(slots)*slotSize+3), []byte{byte(random.Uint32())}
				both(func(r *rig) { r.c.RAM.WriteAt(v, at) })
			case 1: // a snapshot is taken
				both(func(r *rig) { r.c.Save() })
			case 2:
				fast.e.dropAll()
			}
		}
	}
}
