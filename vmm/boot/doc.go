// Package boot puts a kernel into guest memory and says how the processor starts.
//
// It takes a Linux bzImage, an ELF vmlinux, or an ELF kernel with a Multiboot 1
// header, and does what a boot loader with firmware behind it would have done
// (Linux Documentation/arch/x86/boot.rst; Multiboot Specification 0.6.96).
//
// # Why is a bzImage decompressed on the host?
//
// The decompressor in the image would take thousands of millions of guest
// instructions in every run. The kernel proper is an ELF file in the payload; its
// segments go where they are linked, and the processor enters it as the
// decompressor would have: in 64-bit mode, on identity-mapping page tables, with
// RSI pointing at the boot parameters. A payload that this package cannot
// unpack is an error that names its format.
//
// The decompressor writes each segment straight to guest memory: a buffer for
// the whole of it would be some 60 MB, and the first touch of so many pages is
// not cheap. That takes segments that lie in the file one behind the other, as a
// linker leaves them; of other files the whole is unpacked first. Damage is found
// either way, since the stream is read to its end, where the checksum is.
package boot
