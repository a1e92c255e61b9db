package oracle

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// context is what trampoline, signal handler and landing pads work on. It lies at contextAddr.
type context struct {
	FX     [512]byte // 16-byte aligned
	HostFX [512]byte
	Regs   [16]uint64
	RFLAGS uint64
	RIP    uint64 // where the instruction left to

	far            [2]uint64 // where 32-bit code begins: offset and selector
	entry, exit    uint64
	HostSP, HostBP uint64
	active         uint64 // 1 while an instruction executes, 2 after it raised an exception
	faultPad       uint64
	oldHandler     uint64

	faultRIP             uint64
	trap, errorCode, cr2 uint64
}

func enter(ctx *context)

func addresses() (leaveAddr, handlerAddr, restorerAddr uintptr)

// processor executes instructions on the processor that this program runs on. There can be one in a process.
type processor struct {
	*context
	mem      []byte // the mapped span, writable everywhere
	restores []func() error
}

var signals = []unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP}

// newProcessor maps memory at its fixed address and takes the signals over.
func newProcessor() (p *processor, err error) {
	p = new(processor)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	fd, err := unix.MemfdCreate("oracle", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, spanSize); err != nil {
		return nil, fmt.Errorf("sizing the memory of the test: %w", err)
	}
	if p.mem, err = unix.Mmap(fd, 0, spanSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("mapping memory: %w", err)
	}
	if err := mapFixed(base, reserved, -1, 0, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED_NOREPLACE); err != nil {
		return nil, fmt.Errorf("reserving addresses from %#x: %w", base, err)
	}
	p.restores = append(p.restores, func() error { return unmapFixed(base, reserved) })
	for _, m := range mappings {
		prot := unix.PROT_READ
		if m.write {
			prot |= unix.PROT_WRITE
		}
		if m.exec {
			prot |= unix.PROT_EXEC
		}
		if err := mapFixed(uintptr(m.addr), uintptr(m.size), fd, int64(m.addr-base), prot, unix.MAP_SHARED|unix.MAP_FIXED|unix.MAP_POPULATE); err != nil {
			return nil, fmt.Errorf("mapping %#x: %w", m.addr, err)
		}
	}
	if err := mapFixed(contextAddr, pageSize, -1, 0, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("mapping the context: %w", err)
	}
	p.context = contextAt(contextAddr)
	leave, handler, restorer := addresses()
	p.exit = uint64(leave)
	for _, s := range signals {
		old, err := takeSignal(s, handler, restorer)
		if err != nil {
			return nil, fmt.Errorf("taking %v over: %w", s, err)
		}
		p.oldHandler = uint64(old.handler)
		p.restores = append(p.restores, func() error { return setSignal(s, &old) })
	}
	p.layPads()
	return p, nil
}

func (p *processor) close() error {
	var errs []error
	for i := len(p.restores) - 1; i >= 0; i-- {
		errs = append(errs, p.restores[i]())
	}
	if p.mem != nil {
		errs = append(errs, unix.Munmap(p.mem))
	}
	return errors.Join(errs...)
}

// at returns the writable view of n bytes at addr.
func (p *processor) at(addr uint64, n int) []byte { return p.mem[addr-base:][:n:n] }

// abs32 encodes an instruction's absolute memory operand with register field reg, for 64-bit code.
func abs32(op []byte, reg byte, addr uint64) []byte {
	b := append(append([]byte(nil), op...), 0x04|reg<<3, 0x25)
	return append(b, byte(addr), byte(addr>>8), byte(addr>>16), byte(addr>>24))
}

func imm32(v uint64) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }

// pad returns the code to be laid at rip, where code of a mode may go: landing pad number i.
func (p *processor) pad(i int, rip uint64, mode int) []byte {
	if mode == 8 {
		return landingPad(rip)
	}
	at := longPads + uint64(i)*longPadSize
	copy(p.at(at, longPadSize), landingPad(rip))
	return append(append([]byte{0xea}, imm32(at)...), selUserCS, 0) // jmp far
}

// landingPad is code that stores RAX, then rip as where the instruction went, and leaves. DS and ES become null again.
func landingPad(rip uint64) (b []byte) {
	b = append(b, abs32([]byte{0x48, 0x89}, 0, regAddr(0))...) // mov [RAX of the context], rax
	b = append(b, 0xb8, 0, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0)    // mov eax, 0; mov ds, eax; mov es, eax
	b = append(b, 0xb8)                                        // mov eax, rip
	b = append(b, imm32(rip)...)
	b = append(b, abs32([]byte{0x48, 0x89}, 0, contextAddr+offRIP)...) // mov [RIP of the context], rax
	return append(b, abs32([]byte{0xff}, 4, contextAddr+offExit)...)   // jmp [exit]
}

func regAddr(r uint64) uint64 { return contextAddr + offRegs + 8*r }

// The pads that do not depend on the instruction lie at the beginning of the code.
const (
	entryPad = codeAddr
	faultPad = codeAddr + 0x40
	longPads = codeAddr + 0x80 // what the landing pads of 32-bit code continue at

	longPadSize = 64
)

func (p *processor) layPads() {
	p.entry, p.faultPad = entryPad, faultPad
	copy(p.at(faultPad, 64), landingPad(0))
}

// run executes the code at in.RIP, which is of a mode, from state in; its landing pads are laid.
func (p *processor) run(in *state, mode int) (out state) {
	var b []byte
	if mode == 8 {
		b = abs32([]byte{0x48, 0x8b}, 0, regAddr(0)) // mov rax, [RAX of the context]
		b = append(b, 0xe9)                          // jmp to the instruction
		b = append(b, imm32(in.RIP-(entryPad+uint64(len(b))+4))...)
	} else {
		b = append(b, 0xb8, selUserDS, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0) // mov eax, DS; mov ds, eax; mov es, eax
		b = append(b, abs32([]byte{0x48, 0x8b}, 0, regAddr(0))...)
		b = append(b, abs32([]byte{0xff}, 5, contextAddr+offFar)...) // jmp far
		p.far = [2]uint64{in.RIP | selUser32<<32}
	}
	copy(p.at(entryPad, 64), b)

	p.FX, p.Regs, p.RFLAGS = in.FX, in.Regs, in.RFLAGS
	enter(p.context)
	out = state{Regs: p.Regs, RIP: p.RIP, RFLAGS: p.RFLAGS, FX: p.FX}
	if p.active == 2 {
		panic("BUG: left without leaving")
	}
	if p.faultRIP != 0 {
		out.RIP = p.faultRIP
		out.Fault = fault{Raised: true, Vec: uint8(p.trap), Err: uint32(p.errorCode)}
		if p.trap == 14 {
			out.Fault.CR2 = p.cr2
		}
		p.faultRIP = 0
	}
	return out
}
