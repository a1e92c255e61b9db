package x86

import "encoding/binary"

// The processor model: fixed, the same on every host. GenuineIntel, family 6,
// the x86-64-v2 instruction set, machine-check architecture with recovery.
//
// # Why these features?
//
// What CPUID claims works; the rest raises #UD. AVX and later are not claimed, so
// programs choose SSE code. ERMS is not claimed, so that kernels copy by quadwords
// (one step each) and not by bytes. HYPERVISOR is not claimed, so that a kernel
// does not look for paravirtual clocks, which would be another source of time.
const (
	// cpuSignature is CPUID.1:EAX: family 6, model 0x55 (a server part), stepping 4.
	cpuSignature = 0x00050654

	brand = "refault x86-64-v2 virtual processor, 1.00GHz"

	physBits, linearBits = 40, 48
)

// CPUModel names the processor model in recordings: another model is another machine.
const CPUModel = "refault-v2.2"

// Feature bits (SDM Vol. 2A, CPUID).
const (
	cpuid1EDX = 1<<0 | // FPU
		1<<2 | // DE
		1<<3 | // PSE
		1<<4 | // TSC
		1<<5 | // MSR
		1<<6 | // PAE
		1<<7 | // MCE
		1<<8 | // CX8
		1<<9 | // APIC
		1<<11 | // SEP
		1<<12 | // MTRR
		1<<13 | // PGE
		1<<14 | // MCA
		1<<15 | // CMOV
		1<<16 | // PAT
		1<<17 | // PSE36
		1<<19 | // CLFSH
		1<<23 | // MMX
		1<<24 | // FXSR
		1<<25 | // SSE
		1<<26 // SSE2
	cpuid1ECX = 1<<0 | // SSE3
		1<<9 | // SSSE3
		1<<13 | // CMPXCHG16B
		1<<17 | // PCID
		1<<19 | // SSE4.1
		1<<20 | // SSE4.2
		1<<21 | // x2APIC
		1<<23 | // POPCNT
		1<<24 | // TSC-deadline
		1<<26 | // XSAVE
		1<<30 // RDRAND
	cpuid7EBX = 1<<0 | // FSGSBASE
		1<<1 | // TSC_ADJUST
		1<<6 | // FDP_EXCPTN_ONLY
		1<<7 | // SMEP
		1<<10 | // INVPCID
		1<<13 | // FCS/FDS deprecated
		1<<18 | // RDSEED
		1<<20 // SMAP
	cpuid7ECX = 1 << 2  // UMIP
	cpuid7EDX = 1 << 29 // ARCH_CAPABILITIES
	// BHI_CTRL: IA32_SPEC_CTRL.BHI_DIS_S. Linux does not ask for BHI_NO, and
	// without this clears the branch history in software, at each system call.
	cpuid72EDX = 1 << 4

	cpuid81EDX = 1<<11 | // SYSCALL
		1<<20 | // NX
		1<<26 | // 1 GiB pages
		1<<27 | // RDTSCP
		1<<29 // LM
	cpuid81ECX = 1 << 0 // LAHF in 64-bit mode
)

const (
	maxBasicLeaf    = 0x16
	maxExtendedLeaf = 0x80000008
)

// CPUID executes CPUID.
func (c *CPU) CPUID(leaf, sub uint32) (a, b, cx, d uint32) {
	if leaf >= 0x80000000 {
		if leaf > maxExtendedLeaf {
			leaf = maxBasicLeaf // beyond the last leaf: the last basic one answers (SDM Vol. 2A, CPUID)
		}
	} else if leaf > maxBasicLeaf {
		leaf = maxBasicLeaf
	}
	switch leaf {
	case 0:
		return maxBasicLeaf, 0x756e6547, 0x6c65746e, 0x49656e69 // GenuineIntel
	case 1:
		cx = cpuid1ECX
		if c.CR4&CR4OSXSAVE != 0 {
			cx |= 1 << 27
		}
		return cpuSignature, uint32(c.ID)<<24 | 1<<16 | 8<<8, cx, cpuid1EDX
	case 2:
		return 0x00feff01, 0, 0, 0 // leaf 4 tells the caches
	case 4:
		return cacheLeaf(sub)
	case 5, 9, 0xa, 0xc, 0xe, 0xf, 0x10, 0x11, 0x12, 0x13, 0x14, 3, 8:
		return 0, 0, 0, 0
	case 6:
		return 1 << 2, 0, 0, 0 // the local APIC's timer always runs
	case 7:
		switch sub {
		case 0:
			return 2, cpuid7EBX, cpuid7ECX, cpuid7EDX
		case 2:
			return 0, 0, 0, cpuid72EDX
		}
	case 0xb:
		if sub < 2 {
			return 0, 1, uint32(sub | (sub+1)<<8), uint32(c.ID)
		}
		return 0, 0, sub, uint32(c.ID)
	case 0xd:
		switch sub {
		case 0:
			return 3, 576, 576, 0
		}
	case 0x15:
		return 1, 40, 25_000_000, 0 // TSC 1 GHz from a 25 MHz crystal
	case 0x16:
		return 1000, 1000, 100, 0
	case 0x80000000:
		return maxExtendedLeaf, 0, 0, 0
	case 0x80000001:
		return 0, 0, cpuid81ECX, cpuid81EDX
	case 0x80000002, 0x80000003, 0x80000004:
		var s [48]byte
		copy(s[:], brand)
		w := s[16*(leaf-0x80000002):]
		u := binary.LittleEndian.Uint32
		return u(w), u(w[4:]), u(w[8:]), u(w[12:])
	case 0x80000006:
		return 0, 0, 0x01006040, 0 // L2: 256 KiB, 8-way, 64-byte lines
	case 0x80000007:
		return 0, 0, 0, 1 << 8 // invariant TSC
	case 0x80000008:
		return physBits | linearBits<<8, 0, 0, 0
	}
	return 0, 0, 0, 0
}

// cacheLeaf is CPUID leaf 4: 32 KiB L1 data and instruction, 256 KiB L2, 8 MiB L3.
func cacheLeaf(sub uint32) (a, b, c, d uint32) {
	level := func(typ, level, ways, sets uint32) (a, b, c, d uint32) {
		return typ | level<<5 | 1<<8, 63 | (ways-1)<<22, sets - 1, 0
	}
	switch sub {
	case 0:
		return level(1, 1, 8, 64)
	case 1:
		return level(2, 1, 8, 64)
	case 2:
		return level(3, 2, 8, 512)
	case 3:
		return level(3, 3, 16, 8192)
	}
	return 0, 0, 0, 0
}
