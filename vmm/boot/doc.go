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
//
// # Where does the time before the first instruction go?
//
// Debian's kernel, 8 MB of xz, takes 0.8 s to its first instruction. The xz decoder
// takes 0.65 s of them, on one processor, since the stream is one block; more than
// half is its range coder, where each bit waits for the one before, and a build with the
// decoder's profile (go build -pgo) is no faster. Most of the rest is the first touch of pages, 2.4 µs
// each: 14,500 of guest memory, 8,000 of the decoder's window, 4,200 of the files that are read. To populate
// the guest's beforehand (MADV_POPULATE_WRITE) costs as much; large pages for what is loaded save 2 % here, and
// nothing that can be measured of a whole run. A vmlinux, unpacked once and for all, starts in 0.1 s.
package boot
