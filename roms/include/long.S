/* 64-bit mode: from the loader's 32 bits, page tables that map the first 4 GiB to themselves, descriptor tables, a stack for
 * ring 0, one way into all handlers, and the way to ring 3. Calls `main`, with RBX still what the loader gave.
 *
 * A handler is a routine that is called with RDI at the frame (long.h) and may use every integer register. A vector without
 * one ends the run with exit value 1. Ring 3 may use the pages of the section .user.
 *
 * Not responsible for: system calls, interrupt controllers, what else a kernel maps. */
#include "multiboot.h"
#include "text.h"
#include "long.h"

#define GATE_INTERRUPT  0x8e
#define GATE_USER       0xee

    MULTIBOOT_HEADER

    .code32
    .global entry
entry:
    mov esp, offset boot_stack_top
    cld
    mov eax, offset pointers
    or eax, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER
    mov [page_map], eax
    mov edi, offset pointers
    mov eax, offset directories
    or eax, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER
    mov ecx, 4
1:  mov [edi], eax
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 1b
    mov edi, offset directories
    mov eax, PAGE_PRESENT | PAGE_WRITABLE | PAGE_LARGE
    mov ecx, 4 * 512
2:  mov [edi], eax
    cmp eax, 0x400000           /* .user starts here */
    jb 3f
    cmp eax, offset user_end
    jae 3f
    or dword ptr [edi], PAGE_USER
3:  add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, CR4_PAE | CR4_OSFXSR | CR4_OSXMMEX
    mov cr4, eax
    mov eax, offset page_map
    mov cr3, eax
    mov ecx, EFER
    rdmsr
    or eax, EFER_LME | EFER_NXE | EFER_SCE
    wrmsr
    mov eax, cr0
    or eax, CR0_PG | CR0_WP | CR0_NE | CR0_MP
    and eax, ~CR0_EM
    mov cr0, eax
    lgdt [gdt_pointer]
    ljmp CODE, offset 4f

    .code64
4:  mov eax, DATA
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov ebx, ebx                /* the upper halves are undefined after the switch */
    mov esp, esp
    mov eax, offset task_state
    mov [gdt + TASK + 2], ax
    shr eax, 16
    mov [gdt + TASK + 4], al
    mov [gdt + TASK + 7], ah
    mov eax, TASK
    ltr ax
    /* One gate for each vector; the ways in are 16 bytes long. */
    mov edi, offset idt
    mov edx, offset ways_in
    mov ecx, 256
5:  mov eax, edx
    and eax, 0xffff
    or eax, CODE << 16
    mov [rdi], eax
    mov eax, edx
    mov ax, GATE_INTERRUPT << 8
    mov [rdi + 4], eax
    add edi, 16
    add edx, 16
    dec ecx
    jnz 5b
    mov byte ptr [idt + 16 * VECTOR_BREAKPOINT + 5], GATE_USER
    mov byte ptr [idt + 16 * VECTOR_CALL + 5], GATE_USER
    lidt [idt_pointer]
    mov al, 0xff                /* whatever firmware left running stays out */
    out PIC1_DATA, al
    out PIC2_DATA, al
    call serial_init
    call main
    EXIT 0

#include "handlers.S"

    .balign 16
trapped:
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rbp
    push rdi
    push rsi
    push rdx
    push rcx
    push rbx
    push rax
    cld
    mov rdi, rsp
    mov rax, [rdi + FRAME_VECTOR]
    mov rax, [handlers + 8 * rax]
    test rax, rax
    jz unexpected
    call rax
    pop rax
    pop rbx
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    pop rbp
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    add rsp, 16
    iretq

/* Enters ring 3 at RAX with the stack at RDX, interrupts on. Comes back to the caller when a handler jumps to leave_user. */
    .global enter_user
enter_user:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [kernel_stack], rsp
    push USER_DATA
    push rdx
    push 0x202
    push USER_CODE
    push rax
    iretq

    .global leave_user
leave_user:
    mov rsp, [kernel_stack]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* code, ring 0: 64 bits */
    .quad 0x00cf93000000ffff    /* data, ring 0 */
    .quad 0                     /* for SYSRET's 32-bit code */
    .quad 0x00cff3000000ffff    /* data, ring 3 */
    .quad 0x00affb000000ffff    /* code, ring 3: 64 bits */
    .quad 0x0000890000000067    /* the task state, its base to be filled in */
    .quad 0
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word 16 * 256 - 1
    .quad idt
    .balign 16
task_state:
    .long 0
    .quad stack_top             /* RSP0 */
    .skip 104 - 12 - 2
    .word 104                   /* no I/O bitmap within the limit */

    .bss
    .balign 4096
    .global page_map
page_map:
    .skip 4096
pointers:
    .skip 4096
directories:
    .skip 4 * 4096
idt:
    .skip 16 * 256
    .global handlers
handlers:
    .skip 8 * 256
    .global fault_resume
fault_resume:
    .skip 8
kernel_stack:
    .skip 8
    .skip 8192
    .global stack_top
stack_top:
    .skip 8192
boot_stack_top:
    .text
