package x86

// cpuSignature is CPUID.1:EAX: family 6, model 0x55 (a server part), stepping 4.
const cpuSignature = 0x00050654
