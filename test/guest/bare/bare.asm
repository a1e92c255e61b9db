; A guest of refault's own: see doc.go for what it does and why.
;
;	nasm -f bin -o bare.elf bare.asm
;
; It is one flat file with an ELF header written by hand, so no linker is needed. Registers are preserved by
; routines unless they say otherwise.

BASE		equ 0x100000	; where it is loaded
FRAMES		equ 0x400000	; page frames for the task, handed out from here on

; The task's address space.
USER_DATA	equ 0x7f0000200000
USER_CODE	equ USER_DATA + 0x1000
USER_STACK	equ USER_DATA + 0x3000	; its end
FILL		equ 0x5a		; what its page holds, and goes on holding

ROUNDS		equ 10			; of the task, unless the command line says rounds=N
TOUCHES		equ 600 * 1000		; a round: some 6 million instructions

; Segments.
KERNEL_CS	equ 0x08
KERNEL_DS	equ 0x10
USER_DS		equ 0x1b
USER_CS		equ 0x23
TSS		equ 0x28

; Vectors (the PICs are moved away from the exceptions).
V_MC		equ 18
V_TIMER		equ 0x20
V_SLAVE		equ 0x28
V_DISK		equ 0x2e
V_SYSCALL	equ 0x80
V_YIELD		equ 0x81
V_CMCI		equ 0xf1
V_SPURIOUS	equ 0xff

; System calls: number in eax.
SYS_SAY		equ 1			; rsi: template; rdx, r8, r9: its values
SYS_PHYSICAL	equ 2			; rdi: address; rax: its physical address
SYS_EXIT	equ 3			; edi: status

TICK_HZ		equ 1000
PIT_HZ		equ 1193182

; Devices.
COM1		equ 0x3f8
PIC1		equ 0x20
PIC2		equ 0xa0
PIT		equ 0x40
ATA		equ 0x1f0
ATA_CONTROL	equ 0x3f6
DEBUG_EXIT	equ 0xf4
LAPIC		equ 0xfee00000
LAPIC_EOI	equ LAPIC + 0x0b0
LAPIC_SVR	equ LAPIC + 0x0f0
LAPIC_CMCI	equ LAPIC + 0x2f0
LAPIC_LINT0	equ LAPIC + 0x350
LAPIC_LINT1	equ LAPIC + 0x360

; ATA status and commands (ATA8-ACS).
ATA_BSY		equ 0x80
ATA_DF		equ 0x20
ATA_DRQ		equ 0x08
ATA_ERR		equ 0x01
ATA_IDENTIFY	equ 0xec
ATA_READ	equ 0x20
ATA_SRST	equ 0x04
ATA_TRIES	equ 4
ATA_TICKS	equ 500			; how long a command may take

; Machine-check registers (SDM Vol. 3B 15.3).
MSR_APIC_BASE	equ 0x1b
MSR_MCG_CAP	equ 0x179
MSR_MCG_STATUS	equ 0x17a
MSR_MCG_CTL	equ 0x17b
MSR_MC0_CTL2	equ 0x280
MSR_MC0_CTL	equ 0x400
MCG_CTL_P	equ 8			; bits of MCG_CAP
MCG_CMCI_P	equ 10
MCG_RIPV	equ 0			; bits of MCG_STATUS
MCI_AR		equ 55			; bits of MCi_STATUS
MCI_S		equ 56
MCI_PCC		equ 57
MCI_ADDRV	equ 58
MCI_MISCV	equ 59
MCI_UC		equ 61
MCI_VAL		equ 63

SIGBUS_STATUS	equ 128 + 7		; the exit status of a killed task, as a shell tells it
SIGSEGV_STATUS	equ 128 + 11

	org BASE

section .text
bits 32

; The ELF header, and one segment.
image:
	db 0x7f, "ELF", 1, 1, 1, 0
	times 8 db 0
	dw 2, 3				; an executable for the 386
	dd 1, start, program_header - image, 0, 0
	dw 52, 32, 1, 0, 0, 0
program_header:
	dd 1, 0, BASE, BASE, data_end - BASE, bss_end - BASE, 7, 0x1000

	align 4
	dd 0x1badb002, 3, -(0x1badb002 + 3)	; Multiboot 1: modules aligned to pages, memory sizes wanted

start:
	cli
	cld
	mov esp, main_stack_end
	mov [info], ebx
	cmp eax, 0x2badb002
	jne .stop

	; The first 4 GiB one to one, in pages of 2 MiB, for the kernel only.
	mov dword [pml4], pdpt + 7	; what lies below says who may
	mov eax, directories + 3
	mov edi, pdpt
	mov ecx, 4
.pdpt:	mov [edi], eax
	add eax, 0x1000
	add edi, 8
	loop .pdpt
	mov eax, 0x83			; present, writable, large
	mov edi, directories
	mov ecx, 4 * 512
.pd:	mov [edi], eax
	add eax, 0x200000
	add edi, 8
	loop .pd
	or byte [directories + (LAPIC >> 21) * 8], 0x18	; not cached
	; And the task's four pages.
	mov dword [pml4 + (USER_DATA >> 39) * 8], user_pdpt + 7
	mov dword [user_pdpt + (USER_DATA >> 30 & 511) * 8], user_directory + 7
	mov dword [user_directory + (USER_DATA >> 21 & 511) * 8], user_table + 7

	mov eax, pml4
	mov cr3, eax
	mov eax, cr4
	or eax, 1 << 5			; PAE
	mov cr4, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 1 << 8			; EFER.LME
	wrmsr
	mov eax, cr0
	or eax, 1 << 31 | 1 << 16 | 1	; PG, WP, PE
	mov cr0, eax
	lgdt [gdt_pointer]
	jmp KERNEL_CS:start64
.stop:	hlt
	jmp .stop

bits 64

; say TEMPLATE, VALUE...: writes one line, whole. %d, %x and %s in the template take a value each.
%macro say 1-*
	section .data
	%%template: db %1, 0
	section .text
	%rep %0 - 1
	%rotate -1
	push %1
	%endrep
	push %%template
	call write
	lea rsp, [rsp + 8 * %0]
%endmacro

%macro push_all 0
	push rax
	push rcx
	push rdx
	push rbx
	push rbp
	push rsi
	push rdi
	push r8
	push r9
	push r10
	push r11
	push r12
	push r13
	push r14
	push r15
%endmacro

%macro pop_all 0
	pop r15
	pop r14
	pop r13
	pop r12
	pop r11
	pop r10
	pop r9
	pop r8
	pop rdi
	pop rsi
	pop rbp
	pop rbx
	pop rdx
	pop rcx
	pop rax
%endmacro

FRAME_RIP	equ 15 * 8		; after push_all, without an error code
FRAME_CS	equ 16 * 8

%macro port_out 2			; port, value
	mov dx, %1
	mov al, %2
	out dx, al
%endmacro

start64:
	mov ax, KERNEL_DS
	mov ds, ax
	mov es, ax
	mov ss, ax
	xor eax, eax
	mov fs, ax
	mov gs, ax
	mov esp, main_stack_end

	; COM1: 115200 baud, 8 bits, no interrupts, FIFOs on.
	port_out COM1 + 1, 0
	port_out COM1 + 3, 0x80
	port_out COM1 + 0, 1
	port_out COM1 + 1, 0
	port_out COM1 + 3, 0x03
	port_out COM1 + 2, 0x07
	port_out COM1 + 4, 0x0b
	mov ebx, [info]
	mov eax, [rbx + 8]		; KiB above 1 MiB
	shr eax, 10
	inc eax
	say `guest: refault's own guest, in 64-bit mode, with %d MiB of memory\n`, rax

	call options
	call init_interrupts
	call init_machine_checks

	; The timer: mode 2, and a first tick.
	port_out PIT + 3, 0x34
	port_out PIT, (PIT_HZ / TICK_HZ) & 0xff
	port_out PIT, (PIT_HZ / TICK_HZ) >> 8
	sti
.tick:	hlt
	cmp dword [ticks], 0
	je .tick
	say `guest: timer: ticks %d times a second\n`, TICK_HZ

	call disk_identify
	call start_task
	mov eax, 5			; the task says where its page is, and gets well into its loop
	call sleep
	call cat
	push rax
	say `guest: cat: exit status %d\n`, rax
	pop rax
	call wait_task
	mov eax, [task_status]
	say `guest: hello: exit status %d\n`, rax
	say `guest: done\n`
	xor eax, eax
	jmp power_off

; options looks for rounds=N on the command line.
options:
	mov dword [rounds], ROUNDS
	mov ebx, [info]
	test byte [rbx], 1 << 2
	jz .none
	mov esi, [rbx + 16]
.next:	cmp byte [rsi], 0
	je .none
	inc rsi
	cmp dword [rsi - 1], "roun"
	jne .next
	cmp dword [rsi + 2], "nds="	; the rest, one byte before
	jne .next
	add rsi, 6
	xor ecx, ecx
.digit:	movzx eax, byte [rsi]
	sub eax, "0"
	cmp eax, 9
	ja .end
	imul ecx, ecx, 10
	add ecx, eax
	inc rsi
	jmp .digit
.end:	mov [rounds], ecx
.none:	ret

; ---- The console.

; put writes the character in al.
put:
	push rdx
	push rax
	mov dx, COM1 + 5
.busy:	in al, dx
	test al, 0x20			; transmitter holding register empty
	jz .busy
	mov dx, COM1
	mov al, [rsp]
	cmp al, 10
	jne .out
	mov al, 13
	out dx, al
	mov al, 10
.out:	out dx, al
	pop rax
	pop rdx
	ret

; write writes a template, of which the address and then the values are on the stack. No interrupt splits the line.
write:
	pushfq
	cli
	push rax
	push rbx
	push rsi
	mov rsi, [rsp + 40]
	lea rbx, [rsp + 48]
.next:	lodsb
	test al, al
	jz .end
	cmp al, "%"
	je .value
	call put
	jmp .next
.value:	lodsb
	cmp al, "x"
	mov rax, [rbx]
	lea rbx, [rbx + 8]
	je .hex
	cmp byte [rsi - 1], "s"
	je .string
	call put_decimal
	jmp .next
.hex:	call put_hex
	jmp .next
.string:
	push rsi
	mov rsi, rax
.char:	lodsb
	test al, al
	jz .last
	call put
	jmp .char
.last:	pop rsi
	jmp .next
.end:	pop rsi
	pop rbx
	pop rax
	popfq
	ret

put_decimal:
	push rax
	push rcx
	push rdx
	xor edx, edx
	mov ecx, 10
	div rcx
	test rax, rax
	jz .digit
	call put_decimal
.digit:	lea eax, [rdx + "0"]
	call put
	pop rdx
	pop rcx
	pop rax
	ret

put_hex:
	push rax
	mov al, "0"
	call put
	mov al, "x"
	call put
	mov rax, [rsp]
	call .digits
	pop rax
	ret
.digits:
	push rax
	shr rax, 4
	jz .digit
	call .digits
.digit:	mov eax, [rsp]
	and eax, 15
	cmp al, 10
	jb .put
	add al, "a" - 10 - "0"
.put:	add al, "0"
	call put
	pop rax
	ret

; ---- Interrupts and exceptions.

init_interrupts:
	; Gates for the exceptions point into a table of stubs.
	mov ecx, 0
	mov eax, stubs
.gate:	call set_gate
	add eax, stub_size
	inc ecx
	cmp ecx, 32
	jb .gate
	mov eax, ignore
.rest:	call set_gate
	inc ecx
	cmp ecx, 256
	jb .rest
	mov ecx, V_MC
	mov eax, machine_check
	call set_gate
	mov byte [idt + V_MC * 16 + 4], 1	; on a stack of its own
	mov byte [idt + 8 * 16 + 4], 2		; so is the double fault
	mov ecx, V_TIMER
	mov eax, timer
	call set_gate
	mov ecx, V_DISK
	mov eax, disk_interrupt
	call set_gate
	mov ecx, V_YIELD
	mov eax, yield
	call set_gate
	mov ecx, V_CMCI
	mov eax, cmci
	call set_gate
	mov ecx, V_SYSCALL
	mov eax, syscall_entry
	call set_gate
	or byte [idt + V_SYSCALL * 16 + 5], 0x60	; from level 3
	lidt [idt_pointer]

	mov eax, tss
	mov [gdt + TSS + 2], ax
	shr eax, 16
	mov [gdt + TSS + 4], al
	mov [gdt + TSS + 7], ah
	mov qword [tss + 4], task_kernel_stack_end
	mov qword [tss + 0x24], check_stack_end
	mov qword [tss + 0x2c], fault_stack_end
	mov word [tss + 0x66], 104	; no I/O permission map
	mov ax, TSS
	ltr ax

	; The PICs: initialised, moved, all masked but the timer, the cascade and the first disk channel.
	port_out PIC1, 0x11
	port_out PIC2, 0x11
	port_out PIC1 + 1, V_TIMER
	port_out PIC2 + 1, V_SLAVE
	port_out PIC1 + 1, 1 << 2
	port_out PIC2 + 1, 2
	port_out PIC1 + 1, 1
	port_out PIC2 + 1, 1
	port_out PIC1 + 1, ~(1 << 0 | 1 << 2) & 0xff
	port_out PIC2 + 1, ~(1 << 6) & 0xff

	; The local APIC: on, with the PIC behind LINT0. While it is off its vector table stays masked.
	mov ecx, MSR_APIC_BASE
	rdmsr
	or eax, 1 << 11
	wrmsr
	mov eax, LAPIC_SVR
	mov dword [rax], 1 << 8 | V_SPURIOUS
	mov eax, LAPIC_LINT0
	mov dword [rax], 0x700
	mov eax, LAPIC_LINT1
	mov dword [rax], 0x400
	ret

; set_gate makes the gate of vector ecx point to eax, an interrupt gate for the kernel only.
set_gate:
	push rdx
	mov edx, ecx
	shl edx, 4
	mov word [idt + rdx], ax
	mov dword [idt + rdx + 2], KERNEL_CS
	mov byte [idt + rdx + 5], 0x8e
	push rax
	shr eax, 16
	mov [idt + rdx + 6], ax
	pop rax
	pop rdx
	ret

; Exceptions: vector and error code on the stack, whether the processor pushed one or not.
	align 16
stubs:
%assign vector 0
%rep 32
	%if (1 << vector) & (1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21)
	nop
	nop
	%else
	push 0
	%endif
	push vector
	jmp near exception
	align 16
%assign vector vector + 1
%endrep
stub_size	equ 16

exception:
	push_all
	mov rax, [rsp + 15 * 8]		; vector
	mov rbx, [rsp + 16 * 8]		; error code
	mov rcx, [rsp + 17 * 8]		; rip
	mov rdx, cr2
	test byte [rsp + 18 * 8], 3
	jnz .task
	say `guest: panic: exception %d, error code %x at %x, cr2 %x\n`, rax, rbx, rcx, rdx
	jmp panic
.task:	say `guest: recovered: killed hello: exception %d, error code %x at %x, cr2 %x\n`, rax, rbx, rcx, rdx
	mov edi, SIGSEGV_STATUS
	jmp end_task

ignore:	iretq

timer:
	push_all
	inc dword [ticks]
	mov al, 0x20
	out PIC1, al
	test dword [ticks], 63
	jnz switch
	call poll_banks			; what no interrupt tells of
switch:
	; The other task runs, if it may; both keep all they have on their kernel stacks.
	call next_task
	mov ecx, [current]
	mov [stacks + rcx * 8], rsp
	mov [current], eax
	mov rsp, [stacks + rax * 8]
	pop_all
	iretq

yield:
	push_all
	jmp switch

; leave ends an interrupt, unless that came to a task which has ended since.
leave:
	cmp dword [current], 0
	je .return
	cmp byte [task_alive], 0
	je switch
.return:
	pop_all
	iretq

; next_task returns in eax who runs next: 0, the kernel's main thread, or 1, the task hello.
next_task:
	xor eax, eax
	cmp byte [task_alive], 0
	je .got
	mov ecx, [ticks]
	inc eax
	cmp ecx, [wake_at]
	jb .got
	xor eax, [current]		; both want to: they alternate
.got:	ret

; sleep lets eax ticks pass.
sleep:
	add eax, [ticks]
	mov [wake_at], eax
.wait:	int V_YIELD
	cmp byte [task_alive], 0
	jne .look
	hlt				; nobody else to run
.look:	mov eax, [wake_at]
	cmp [ticks], eax
	jb .wait
	ret

; ---- The task.

; alloc returns in rax a page frame.
alloc:
	mov rax, [next_frame]
	add qword [next_frame], 0x1000
	ret

; load_page fills the page frame rax with what the task's page holds when it is clean.
load_page:
	push_all
	mov rdi, rax
	mov al, FILL
	mov ecx, 0x1000
	rep stosb
	pop_all
	ret

start_task:
	call alloc
	mov [task_frame], rax
	call load_page
	or eax, 7
	mov [user_table], rax
	call alloc
	mov rdi, rax
	or eax, 5			; code is not writable
	mov [user_table + 8], rax
	mov esi, user_start
	mov ecx, user_end - user_start
	rep movsb
	call alloc
	or eax, 7
	mov [user_table + 16], rax

	; As if it had been interrupted before its first instruction.
	mov rdi, task_kernel_stack_end - 20 * 8
	mov [stacks + 8], rdi
	xor eax, eax
	mov ecx, 15
	rep stosq
	mov rax, USER_CODE
	stosq
	mov eax, USER_CS
	stosq
	mov eax, 0x202			; IF
	stosq
	mov rax, USER_STACK
	stosq
	mov eax, USER_DS
	stosq
	mov eax, [rounds]
	mov [task_kernel_stack_end - 20 * 8 + 8 * 8], rax	; rdi
	mov byte [task_alive], 1
	ret

; end_task ends the task with the status in edi, and goes on with the main thread. It does not return.
; Precondition: it is the task that runs.
end_task:
	call mark_ended
	mov dword [current], 0
	mov rsp, [stacks]
	pop_all
	iretq

; mark_ended makes the task one that runs no more, with the status in edi, unless it has ended already.
mark_ended:
	cmp byte [task_alive], 0
	je .end
	mov byte [task_alive], 0
	mov [task_status], edi
	mov dword [wake_at], 0
.end:	ret

; wait_task waits for the task's end.
wait_task:
	mov dword [wake_at], -1
	cmp byte [task_alive], 0
	je .end
	int V_YIELD
	jmp wait_task
.end:	mov dword [wake_at], 0
	ret

syscall_entry:
	push_all
	cmp eax, SYS_SAY
	je .say
	cmp eax, SYS_PHYSICAL
	je .physical
	cmp eax, SYS_EXIT
	je end_task
	mov edi, SIGSEGV_STATUS
	jmp end_task
.say:	push r9
	push r8
	push rdx
	push rsi
	call write
	add rsp, 32
	jmp .return
.physical:
	; Through the page tables, as the processor goes.
	mov rax, pml4
	mov cl, 39
.level:	mov rdx, rdi
	shr rdx, cl
	and edx, 511
	mov rax, [rax + rdx * 8]
	test al, 1
	jz .absent
	mov rdx, 0x000ffffffffff000
	and rax, rdx
	sub cl, 9
	cmp cl, 12
	jae .level
	mov edx, edi
	and edx, 0xfff
	add rax, rdx
	mov [rsp + 14 * 8], rax		; rax
	jmp .return
.absent:
	mov qword [rsp + 14 * 8], 0
.return:
	jmp leave

; The program of the task, at level 3: it says where its page is, and goes on touching it.
; It runs from a copy, so it reaches its own data by RIP.
default rel
user_start:
	mov r12d, edi			; rounds
	mov rbx, USER_DATA
	mov ecx, 0x1000
.dirty:	mov byte [rbx + rcx - 1], FILL
	loop .dirty
	mov eax, SYS_PHYSICAL
	mov rdi, rbx
	int V_SYSCALL
	mov r8, rax
	mov rdx, rbx
	mov eax, SYS_SAY
	lea rsi, [.where]
	int V_SYSCALL

	xor r13d, r13d			; round
	xor r14d, r14d			; wrong bytes
.round:	cmp r13d, r12d
	je .done
	inc r13d
	mov ecx, TOUCHES
.touch:	mov edx, ecx
	and edx, 0xfff
	movzx eax, byte [rbx + rdx]
	cmp al, FILL
	je .right
	inc r14
.right:	mov byte [rbx + rdx], FILL
	imul eax, eax, 31
	add r15d, eax
	dec ecx
	jnz .touch
	mov eax, SYS_SAY
	lea rsi, [.progress]
	mov edx, r13d
	mov r8d, r12d
	int V_SYSCALL
	jmp .round
.done:	mov eax, SYS_SAY
	lea rsi, [.end]
	mov rdx, r14
	int V_SYSCALL
	xor edi, edi
	test r14, r14
	setnz dil
	mov eax, SYS_EXIT
	int V_SYSCALL
	ud2
.where:	db `hello: task 1 virtual %x physical %x\n`, 0
.progress:
	db `hello: round %d of %d\n`, 0
.end:	db `hello: done, %d wrong bytes\n`, 0
user_end:
default abs

; ---- The disk: the first drive of the first IDE channel, by programmed I/O with interrupts.

disk_interrupt:
	push_all
	mov dx, ATA + 7			; reading it withdraws the interrupt
	in al, dx
	mov [disk_status], al
	mov byte [disk_done], 1
	mov dword [wake_at], 0
	mov al, 0x20
	out PIC2, al
	out PIC1, al
	cmp dword [current], 0
	jne switch			; the main thread waits for it
	pop_all
	iretq

; disk_ready waits until the drive takes commands. Carry: it does not.
disk_ready:
	push rax
	push rcx
	push rdx
	mov ecx, 1000 * 1000
	mov dx, ATA + 7
.wait:	in al, dx
	test al, ATA_BSY | ATA_DRQ
	jz .ready
	loop .wait
	stc
.ready:	pop rdx
	pop rcx
	pop rax
	ret

; disk_command gives the drive the command in al, for a sector in ebx, and waits for its interrupt. Carry: none came.
disk_command:
	push rax
	push rdx
	mov ah, al
	call disk_ready
	jc .end
	mov byte [disk_done], 0
	port_out ATA + 2, 1		; sectors
	mov edx, ebx
	mov al, bl
	mov dx, ATA + 3
	out dx, al
	mov al, bh
	inc dx
	out dx, al
	push rbx
	shr ebx, 16
	mov al, bl
	inc dx
	out dx, al
	mov al, bh
	and al, 0x0f
	or al, 0xe0			; drive 0, by LBA
	inc dx
	out dx, al
	pop rbx
	mov al, ah
	inc dx
	out dx, al
	mov eax, [ticks]
	add eax, ATA_TICKS
	mov [disk_deadline], eax
	; Interrupts are off from the look at disk_done to the wait, so that none is missed.
.wait:	cli
	cmp byte [disk_done], 0
	jne .done
	mov eax, [ticks]
	cmp eax, [disk_deadline]
	jae .late
	mov eax, [disk_deadline]
	mov [wake_at], eax
	cmp byte [task_alive], 0
	je .halt
	int V_YIELD
	jmp .wait
.halt:	sti
	hlt
	jmp .wait
.late:	mov dword [wake_at], 0
	sti
	stc
	jmp .end
.done:	mov dword [wake_at], 0
	sti
	clc
.end:	pop rdx
	pop rax
	ret

; disk_data reads a sector's data into rdi.
disk_data:
	push rcx
	push rdx
	push rdi
	mov ecx, 256
	mov dx, ATA
	rep insw
	pop rdi
	pop rdx
	pop rcx
	ret

disk_identify:
	port_out ATA_CONTROL, 0		; interrupts on
	port_out ATA + 6, 0xe0
	mov dx, ATA + 7
	in al, dx
	test al, al
	jz .none
	cmp al, 0x7f			; a floating bus
	jae .none
	mov al, ATA_IDENTIFY
	xor ebx, ebx
	call disk_command
	jc .none
	test byte [disk_status], ATA_DRQ
	jz .none
	mov edi, sector
	call disk_data
	; The model: 20 words from word 27 on, each with its first character in the high byte.
	mov esi, sector + 27 * 2
	mov edi, model
	mov ecx, 20
.word:	lodsw
	xchg al, ah
	stosw
	loop .word
.trim:	cmp edi, model
	je .trimmed
	dec edi
	cmp byte [rdi], " "
	je .trim
	inc edi
.trimmed:
	mov byte [rdi], 0
	mov ebx, [sector + 60 * 2]
	say `guest: disk: %s, %d sectors\n`, model, rbx
	mov byte [disk_present], 1
	ret
.none:	say `guest: disk: none\n`
	ret

; disk_read reads sector ebx into the buffer. After ATA_TRIES failures it gives up: carry.
disk_read:
	push rax
	push rcx
	push rdx
	push rsi
	push rdi
	mov ecx, 1
.try:	mov al, ATA_READ
	call disk_command
	jc .timeout
	movzx eax, byte [disk_status]
	test al, ATA_ERR | ATA_DF
	jnz .error
	test al, ATA_DRQ
	jz .error
	mov edi, sector
	call disk_data
	clc
	jmp .end
.error:	push rax
	mov dx, ATA + 1
	in al, dx
	movzx edx, al
	pop rax
	mov esi, error_names
.name:	movzx edi, byte [rsi]
	inc rsi
	test edx, edi
	jnz .named
	test edi, edi
	jz .named
.skip:	inc rsi
	cmp byte [rsi - 1], 0
	jne .skip
	jmp .name
.named:	say `guest: hda: read of sector %d: status %x, error %x { %s }, try %d of %d\n`, rbx, rax, rdx, rsi, rcx, ATA_TRIES
	jmp .again
.timeout:
	say `guest: hda: read of sector %d: no interrupt, reset, try %d of %d\n`, rbx, rcx, ATA_TRIES
	call disk_reset
.again:	inc ecx
	cmp ecx, ATA_TRIES
	jbe .try
	say `guest: I/O error, dev hda, sector %d\n`, rbx
	stc
.end:	pop rdi
	pop rsi
	pop rdx
	pop rcx
	pop rax
	ret

disk_reset:
	push rax
	push rdx
	port_out ATA_CONTROL, ATA_SRST
	mov eax, 2
	call sleep
	port_out ATA_CONTROL, 0
	mov eax, 2
	call sleep
	pop rdx
	pop rax
	ret

; cat finds the file in the disk's directory, says where it lies, and writes it. It returns its exit status in eax.
cat:
	push rbx
	push rcx
	push rsi
	cmp byte [disk_present], 0
	je .failed
	xor ebx, ebx
	call disk_read
	jc .failed
	; The directory: a magic, the first sector, the length in bytes, and the name.
	mov rax, "REFAULT1"
	cmp [sector], rax
	jne .empty
	mov ebx, [sector + 8]
	mov ecx, [sector + 12]
	lea eax, [rcx + 511]
	shr eax, 9
	say `blockmap: %s lba %d count %d\n`, sector + 16, rbx, rax
.next:	test ecx, ecx
	jz .read
	call disk_read
	jc .failed
	mov esi, sector
	mov edx, 512
	cli				; the file's lines stay whole
.char:	lodsb
	call put
	dec ecx
	jz .last
	dec edx
	jnz .char
.last:	sti
	inc ebx
	jmp .next
.read:	xor eax, eax
	jmp .end
.empty:	say `guest: disk: no directory on it\n`
.failed:
	say `cat: cannot read the file\n`
	mov eax, 1
.end:	pop rsi
	pop rcx
	pop rbx
	ret

; ---- Machine checks (SDM Vol. 3B chapter 15).

init_machine_checks:
	mov eax, 1
	cpuid
	and edx, 1 << 14 | 1 << 7	; MCA, MCE
	cmp edx, 1 << 14 | 1 << 7
	jne .none
	mov ecx, MSR_MCG_CAP
	rdmsr
	mov [mcg_cap], eax
	movzx ebx, al
	mov [banks], ebx
	mov esi, eax
	say `guest: machine checks: %d banks, capabilities %x\n`, rbx, rsi
	bt esi, MCG_CTL_P
	jnc .banks
	mov ecx, MSR_MCG_CTL
	mov eax, -1
	mov edx, eax
	wrmsr
.banks:	dec ebx
	js .on
	lea ecx, [MSR_MC0_CTL + rbx * 4]
	mov eax, -1			; every error is to be reported
	mov edx, eax
	wrmsr
	xor eax, eax
	xor edx, edx
	inc ecx
	wrmsr				; MCi_STATUS
	bt esi, MCG_CMCI_P
	jnc .banks
	lea ecx, [MSR_MC0_CTL2 + rbx]
	mov eax, 1 << 30 | 1		; an interrupt after each corrected error
	xor edx, edx
	wrmsr
	jmp .banks
.on:	bt esi, MCG_CMCI_P
	jnc .mce
	mov eax, LAPIC_CMCI
	mov dword [rax], V_CMCI
.mce:	mov rax, cr4
	or eax, 1 << 6			; MCE
	mov cr4, rax
	ret
.none:	say `guest: machine checks: none\n`
	ret

cmci:
	push_all
	call poll_banks
	mov eax, LAPIC_EOI
	mov dword [rax], 0
	jmp leave

; read_bank reads bank ebx: rax is its status, r8 its address, r9 its miscellaneous information; what is not valid is zero.
read_bank:
	push rcx
	push rdx
	xor r8d, r8d
	xor r9d, r9d
	lea ecx, [MSR_MC0_CTL + rbx * 4 + 2]
	dec ecx
	call .read
	push rax
	bt rax, MCI_VAL
	jnc .end
	bt rax, MCI_ADDRV
	jnc .misc
	inc ecx
	call .read
	mov r8, rax
	dec ecx
.misc:	bt qword [rsp], MCI_MISCV
	jnc .end
	add ecx, 2
	call .read
	mov r9, rax
.end:	pop rax
	pop rdx
	pop rcx
	ret
.read:	rdmsr
	shl rdx, 32
	mov eax, eax
	or rax, rdx
	ret

; clear_bank makes bank ebx ready for another error.
clear_bank:
	push rax
	push rcx
	push rdx
	lea ecx, [MSR_MC0_CTL + rbx * 4 + 1]
	xor eax, eax
	xor edx, edx
	wrmsr
	pop rdx
	pop rcx
	pop rax
	ret

; poll_banks logs and clears the errors that raise no exception.
poll_banks:
	push_all
	xor ebx, ebx
.bank:	cmp ebx, [banks]
	jae .end
	call read_bank
	bt rax, MCI_VAL
	jnc .next
	bt rax, MCI_UC
	jc .uncorrected
	say `guest: corrected: memory error, bank %d status %x addr %x misc %x\n`, rbx, rax, r8, r9
	jmp .clear
.uncorrected:
	bt rax, MCI_PCC
	jc .next			; the exception's
	bt rax, MCI_S
	jc .next
	say `guest: corrected: no action required, bank %d status %x addr %x misc %x\n`, rbx, rax, r8, r9
.clear:	call clear_bank
.next:	inc ebx
	jmp .bank
.end:	pop_all
	ret

; #MC. Each error is logged; then the worst of what they call for is done.
machine_check:
	push_all
	mov ecx, MSR_MCG_STATUS
	rdmsr
	mov r10d, eax
	mov r11, [rsp + FRAME_RIP]
	say `guest: machine check: MCG_STATUS %x at rip %x\n`, r10, r11
	xor ebx, ebx
	xor r12d, r12d			; the task is to be killed
.bank:	cmp ebx, [banks]
	jae .end
	call read_bank
	bt rax, MCI_VAL
	jnc .next
	bt rax, MCI_UC
	jnc .next			; the poll's
	say `guest: machine check: bank %d status %x addr %x misc %x\n`, rbx, rax, r8, r9
	bt rax, MCI_PCC
	jc .corrupt
	bt r10, MCG_RIPV
	jnc .lost
	bt rax, MCI_S
	jnc .clear			; nothing to be done
	mov r13, r8
	and r13, ~0xfff
	bt rax, MCI_AR
	jc .required

	; Action optional: an error that a scrubber found. The page is clean, so another one takes its place.
	cmp byte [task_alive], 0
	je .unused
	cmp r13, [task_frame]
	jne .unused
	call alloc
	mov [task_frame], rax
	call load_page
	or eax, 7
	mov [user_table], rax
	mov rax, USER_DATA
	invlpg [rax]
	mov rax, [task_frame]
	say `guest: recovered: page %x offlined, hello goes on with page %x\n`, r13, rax
	jmp .clear
.unused:
	say `guest: recovered: page %x offlined, not in use\n`, r13
	jmp .clear

	; Action required: an error that was consumed. The page's owner has to go; if that is the kernel, so has everything.
.required:
	cmp byte [task_alive], 0
	je .kernel
	cmp r13, [task_frame]
	jne .kernel
	say `guest: recovered: killed hello due to hardware memory corruption at %x\n`, r8
	mov r12d, 1
.clear:	call clear_bank
.next:	inc ebx
	jmp .bank
.end:	xor eax, eax
	xor edx, edx
	mov ecx, MSR_MCG_STATUS
	wrmsr				; another one may come
	test r12d, r12d
	jz .return
	mov edi, SIGBUS_STATUS
	test byte [rsp + FRAME_CS], 3
	jnz end_task
	call mark_ended			; what the kernel was doing comes to its end first
.return:
	pop_all
	iretq
.corrupt:
	say `guest: panic: machine check: processor context corrupt\n`
	jmp panic
.lost:	say `guest: panic: machine check: no way back\n`
	jmp panic
.kernel:
	say `guest: panic: machine check: memory of the kernel at %x\n`, r8
	jmp panic

; ---- The end.

panic:
	mov eax, 1
; power_off ends the machine. Where eax is zero, all went well.
power_off:
	cli
	test eax, eax
	jz .acpi
	mov dx, DEBUG_EXIT
	out dx, al
.acpi:	call find_s5
	jc .exit
	shl eax, 10
	or eax, 1 << 13			; SLP_TYP and SLP_EN (ACPI 4.8.3.2.1)
	out dx, ax
.exit:	xor eax, eax
	mov dx, DEBUG_EXIT
	out dx, al
.stop:	hlt
	jmp .stop

; find_s5 returns the port of PM1a_CNT in dx and what to write there for S5 in eax. Carry: there is no ACPI.
find_s5:
	; The RSDP: on a 16-byte boundary in the BIOS area.
	mov rax, "RSD PTR "
	mov esi, 0xe0000
.rsdp:	cmp [rsi], rax
	je .rsdt
	add esi, 16
	cmp esi, 0x100000
	jb .rsdp
.none:	stc
	ret
.rsdt:	mov esi, [rsi + 16]
	mov ecx, [rsi + 4]
	sub ecx, 36
	shr ecx, 2
	jz .none
.table:	mov ebx, [rsi + 36]
	cmp dword [rbx], "FACP"
	je .fadt
	add esi, 4
	loop .table
	jmp .none
	; The FADT tells the port and the DSDT; in that, the object _S5_ is a package: NameOp, name, PackageOp, length, count, values.
.fadt:	mov edx, [rbx + 64]
	mov esi, [rbx + 40]
	mov ecx, [rsi + 4]
	sub ecx, 36
.s5:	cmp dword [rsi + 36], "_S5_"
	je .package
	inc esi
	loop .s5
	jmp .none
.package:
	movzx eax, byte [rsi + 36 + 7]	; the first value, or the prefix of one in a byte of its own
	cmp al, 0x0a
	jne .value
	movzx eax, byte [rsi + 36 + 8]
.value:	and eax, 7
	clc
	ret

section .data
	align 16
gdt:	dq 0
	dq 0x00af9b000000ffff		; KERNEL_CS
	dq 0x00cf93000000ffff		; KERNEL_DS
	dq 0x00cff3000000ffff		; USER_DS
	dq 0x00affb000000ffff		; USER_CS
	dq 0x0000890000000067, 0	; TSS, its base filled in
gdt_end:
gdt_pointer:
	dw gdt_end - gdt - 1
	dq gdt
idt_pointer:
	dw 256 * 16 - 1
	dq idt
next_frame:
	dq FRAMES
; Bits of the ATA error register, in the order in which they are looked for.
error_names:
	db 0x80, "ICRC", 0
	db 0x40, "UNC", 0
	db 0x10, "IDNF", 0
	db 0x04, "ABRT", 0
	db 0x00, "?", 0

	align 16
data_end:

section .bss nobits align=4096 follows=.data
pml4:		resb 0x1000
pdpt:		resb 0x1000
directories:	resb 0x4000
user_pdpt:	resb 0x1000
user_directory:	resb 0x1000
user_table:	resb 0x1000
idt:		resb 0x1000
main_stack:	resb 0x2000
main_stack_end:
task_kernel_stack: resb 0x2000
task_kernel_stack_end:
check_stack:	resb 0x2000
check_stack_end:
fault_stack:	resb 0x1000
fault_stack_end:
sector:		resb 512
tss:		resb 104
		resb 8
stacks:		resq 2			; of the main thread and the task, while they do not run
task_frame:	resq 1
info:		resd 1
ticks:		resd 1
wake_at:	resd 1			; tick until which the main thread leaves the processor to the task
current:	resd 1
rounds:		resd 1
task_status:	resd 1
mcg_cap:	resd 1
banks:		resd 1
disk_deadline:	resd 1
task_alive:	resb 1
disk_present:	resb 1
disk_done:	resb 1
disk_status:	resb 1
model:		resb 41
bss_end:
