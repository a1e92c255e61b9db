# A guest for tests: a Multiboot kernel that takes a few hundred thousand
# instructions a round and touches everything that a replay could get wrong.
#
#	as --32 -o tiny.o tiny.S && ld -m elf_i386 -n -Ttext=0x100000 -o tiny.elf tiny.o
#
# Its command line is a number of rounds. In each it scatters writes over a
# window of memory that is mapped page by page and remapped as it goes, fills a
# page with a string instruction, calculates in floating point, reads the
# time-stamp counter and the random generator, reads a sector from the disk and
# writes it elsewhere, and halts until the timer ticks. What is typed comes back
# in upper case; q ends it early. Everything it sees goes into one checksum,
# which it prints at the end before "done".

	.intel_syntax noprefix
	.code32
	.text

	.set MAGIC, 0x1badb002
	.set IDT,   0x110000
	.set PGDIR, 0x112000
	.set PT0,   0x113000
	.set PT1,   0x115000
	.set BUF,   0x116000
	.set STACK, 0x11f000
	.set WORK,  0x200000		# physical; 256 pages
	.set WIN,   0x400000		# where they are mapped
	.set DIVISOR, 120		# of the timer: about 100 us

	.balign 4
	.long MAGIC, 2, -(MAGIC + 2)

	.globl _start
_start:	mov esp, STACK
	# The number of rounds follows the first space of the command line.
	mov esi, [ebx + 16]
1:	lodsb
	cmp al, ' '
	jne 1b
	xor ecx, ecx
2:	lodsb
	movzx eax, al
	sub eax, '0'
	cmp eax, 9
	ja 3f
	imul ecx, ecx, 10
	add ecx, eax
	jmp 2b
3:	mov [rounds], ecx

	# Interrupts: everything unexpected ends the run.
	mov edi, IDT
	mov ecx, 256
4:	mov eax, offset unexpected
	call gate
	loop 4b
	mov edi, IDT + 14*8
	mov eax, offset page_fault
	call gate
	mov edi, IDT + 18*8
	mov eax, offset machine_check
	call gate
	mov edi, IDT + 0x20*8
	mov eax, offset timer
	call gate
	mov edi, IDT + 0x24*8
	mov eax, offset serial
	call gate
	mov edi, IDT + 0x27*8
	mov eax, offset spurious
	call gate
	mov edi, IDT + 0x2e*8
	mov eax, offset disk
	call gate
	lidt [idtr]

	# Paging: the first 4 MiB one to one, and the window.
	mov edi, PT0
	mov eax, 3
	mov ecx, 1024
5:	stosd
	add eax, 0x1000
	loop 5b
	mov edi, PT1
	mov eax, WORK + 3
	mov ecx, 256
6:	stosd
	add eax, 0x1000
	loop 6b
	mov dword ptr [PGDIR], PT0 + 3
	mov dword ptr [PGDIR + 4], PT1 + 3
	mov eax, PGDIR
	mov cr3, eax
	mov eax, cr4
	or eax, 0x640			# OSFXSR, OSXMMEXCPT, MCE
	mov cr4, eax
	mov eax, cr0
	or eax, 0x80010002		# PG, WP, MP
	and eax, ~4			# EM
	mov cr0, eax
	fninit

	# All errors of machine-check bank 9 are reported.
	mov ecx, 0x400 + 9*4		# IA32_MC9_CTL
	mov eax, -1
	mov edx, eax
	wrmsr

	# PICs at 20H and 28H; timer, serial port, disk.
	mov esi, offset setup
	mov ecx, (setup_end - setup) / 4
7:	lodsw
	mov edx, eax
	lodsw
	out dx, al
	loop 7b
	mov dword ptr [state], 2463534242
	sti

	mov esi, offset hello
	call print
round:	call scatter
	call fill
	call float
	call sources
	call transfer
	call rest
	mov eax, [done]
	and eax, 7
	jne 8f
	mov al, '.'
	call putc
8:	inc dword ptr [done]
	mov eax, [done]
	cmp eax, [rounds]
	jae 9f
	cmp byte ptr [quit], 0
	je round
9:	mov esi, offset nl
	call print
	mov eax, [state]
	call hex
	mov esi, offset bye
	call print
	mov al, 0x31
	mov edx, 0xf4
	out dx, al
	cli
0:	hlt
	jmp 0b

# gate writes a 32-bit interrupt gate for eax at edi, and advances edi.
gate:	mov [edi], ax
	mov word ptr [edi + 2], 0x10
	mov word ptr [edi + 4], 0x8e00
	shr eax, 16
	mov [edi + 6], ax
	add edi, 8
	ret

# mix takes eax into the checksum.
mix:	rol dword ptr [state], 5
	xor [state], eax
	ret

# scatter: adds to random words of the window. Before that it swaps two pages
# of it and takes a third away, which a page fault will bring back.
scatter:
	mov eax, [done]
	and eax, 255
	mov ecx, [PT1 + eax*4]
	mov edx, eax
	xor edx, 0x55
	xchg ecx, [PT1 + edx*4]
	mov [PT1 + eax*4], ecx
	shl eax, 12
	shl edx, 12
	invlpg [eax + WIN]
	invlpg [edx + WIN]
	imul eax, [done], 7
	and eax, 255
	and dword ptr [PT1 + eax*4], ~1
	shl eax, 12
	invlpg [eax + WIN]
	mov ecx, 3000
	mov eax, [state]
	or eax, 1
1:	mov edx, eax
	shl edx, 13
	xor eax, edx
	mov edx, eax
	shr edx, 17
	xor eax, edx
	mov edx, eax
	shl edx, 5
	xor eax, edx
	mov edx, eax
	and edx, 0xffffc
	add [edx + WIN], eax
	loop 1b
	call mix
	ret

# fill: a page of one word, by a string instruction, and a copy of half of it.
fill:	imul edi, [done], 13
	and edi, 255
	shl edi, 12
	add edi, WIN
	mov esi, edi
	mov eax, [state]
	mov ecx, 1024
	rep stosd
	lea edi, [esi + 2048]
	mov ecx, 512
	rep movsd
	ret

# float: x87 and SSE2.
float:	fld qword ptr [acc]
	fild dword ptr [done]
	faddp
	fsqrt
	fst qword ptr [acc]
	fstp qword ptr [acc2]
	movsd xmm0, [acc]
	mulsd xmm0, xmm0
	addsd xmm0, [acc2]
	cvtsd2si eax, xmm0
	call mix
	mov eax, [acc]
	call mix
	ret

# sources: what is not determined by the program, and has to be by the machine.
sources:
	rdtsc
	call mix
	mov eax, 1
	cpuid
	test ecx, 1 << 30		# RDRAND
	je 1f
	rdrand eax
	call mix
1:	mov al, 0
	out 0x43, al			# latch the timer's count
	in al, 0x40
	movzx eax, al
	call mix
	in al, 0x40
	ret

# transfer: reads a sector and writes it, changed, to the other half of the disk.
transfer:
	mov eax, [done]
	imul eax, eax, 7
	and eax, 127
	mov cl, 0x20			# READ SECTOR(S)
	call command
	call wait_disk
	test byte ptr [status], 1
	jne failed
	mov edi, BUF
	mov ecx, 256
	mov edx, 0x1f0
	rep insw
	mov ecx, 128
	mov esi, BUF
1:	lodsd
	call mix
	loop 1b
	mov eax, [state]
	mov [BUF], eax
	mov eax, [done]
	and eax, 127
	add eax, 128
	mov cl, 0x30			# WRITE SECTOR(S)
	call command
	mov edx, 0x1f7
2:	in al, dx
	test al, 0x80
	jne 2b
	test al, 8
	je failed
	mov esi, BUF
	mov ecx, 256
	mov edx, 0x1f0
	rep outsw
	call wait_disk
	test byte ptr [status], 1
	jne failed
	ret
failed:	mov al, 'E'
	call putc
	ret

# command starts command cl for one sector, eax, of the first drive.
command:
	mov byte ptr [ready], 0
	mov ebx, eax
	mov edx, 0x1f2
	mov al, 1
	out dx, al
	inc edx
	mov al, bl
	out dx, al
	inc edx
	mov al, bh
	out dx, al
	inc edx
	mov al, 0
	out dx, al
	inc edx
	mov al, 0xe0
	out dx, al
	inc edx
	mov al, cl
	out dx, al
	ret

# wait_disk halts until the drive has interrupted.
wait_disk:
	cli
	cmp byte ptr [ready], 0
	jne 1f
	sti
	hlt
	jmp wait_disk
1:	mov byte ptr [ready], 0
	sti
	ret

# rest halts until the timer has ticked.
rest:	mov eax, [ticks]
1:	cli
	cmp eax, [ticks]
	jne 2f
	sti
	hlt
	jmp 1b
2:	sti
	ret

timer:	push eax
	inc dword ptr [ticks]
	mov al, 0x20
	out 0x20, al
	pop eax
	iret

disk:	push eax
	push edx
	mov edx, 0x1f7
	in al, dx
	mov [status], al
	mov byte ptr [ready], 1
	mov al, 0x20
	out 0xa0, al
	out 0x20, al
	pop edx
	pop eax
	iret

serial:	push eax
	push edx
1:	mov edx, 0x3fd
	in al, dx
	test al, 1
	je 3f
	mov edx, 0x3f8
	in al, dx
	cmp al, 'q'
	jne 2f
	mov byte ptr [quit], 1
2:	and al, 0xdf
	call putc
	movzx eax, al
	call mix
	jmp 1b
3:	mov edx, 0x3fa
	in al, dx
	mov al, 0x20
	out 0x20, al
	pop edx
	pop eax
	iret

# page_fault makes the page of the window present again.
page_fault:
	push eax
	mov eax, cr2
	sub eax, WIN
	cmp eax, 0x100000
	jae unexpected
	shr eax, 12
	or dword ptr [PT1 + eax*4], 1
	inc dword ptr [faults]
	pop eax
	add esp, 4
	iret

machine_check:
	pusha
	mov al, 'M'
	call putc
	mov ecx, 0x401 + 9*4		# IA32_MC9_STATUS
	xor eax, eax
	xor edx, edx
	wrmsr
	mov ecx, 0x17a			# IA32_MCG_STATUS
	wrmsr
	popa
	iret

spurious:
	iret

unexpected:
	mov al, 'X'
	call putc
	mov al, 0x7f
	mov edx, 0xf4
	out dx, al
	cli
	hlt

# putc sends al.
putc:	push edx
	push eax
	mov edx, 0x3fd
1:	in al, dx
	test al, 0x20
	je 1b
	mov edx, 0x3f8
	mov eax, [esp]
	out dx, al
	pop eax
	pop edx
	ret

print:	lodsb
	test al, al
	je 1f
	call putc
	jmp print
1:	ret

hex:	mov ecx, 8
1:	rol eax, 4
	push eax
	and eax, 15
	mov al, [digits + eax]
	call putc
	pop eax
	loop 1b
	ret

	.balign 4
idtr:	.word 256*8 - 1
	.long IDT
digits:	.ascii "0123456789abcdef"
hello:	.asciz "tiny\n"
nl:	.asciz "\n"
bye:	.asciz "\ndone\n"

	# Ports and what is written to them.
	.balign 4
setup:	.word 0x20, 0x11, 0xa0, 0x11, 0x21, 0x20, 0xa1, 0x28, 0x21, 4, 0xa1, 2, 0x21, 1, 0xa1, 1
	.word 0x21, 0xea, 0xa1, 0xbf	# IRQ 0, 2, 4 and 14
	.word 0x43, 0x34, 0x40, DIVISOR & 255, 0x40, DIVISOR >> 8
	.word 0x3fb, 3, 0x3fa, 7, 0x3fc, 0x0b, 0x3f9, 1
	.word 0x3f6, 0
setup_end:

	# What is written lies in a page of its own, away from the code.
	.balign 4096
acc:	.double 1.5
acc2:	.double 0
state:	.long 0
rounds:	.long 0
done:	.long 0
ticks:	.long 0
faults:	.long 0
ready:	.byte 0
status:	.byte 0
quit:	.byte 0
