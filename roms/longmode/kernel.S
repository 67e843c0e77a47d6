/* A 64-bit kernel as small as one can be with all that a large one does: ring 3 with system calls, demand paging, faults, a timer
 * that interrupts it while it computes, a disk.
 *
 * Not responsible for: what ring 3 does (user.S), the disk (disk.S). */
#define KERNEL "longmode"
#define BITS 64
#include "multiboot.h"
#include "text.h"
#include "long.h"
#include "call.h"

#define FRAMES          0xa00000    /* physical memory for the window */
#define IA32_STAR       0xc0000081
#define IA32_LSTAR      0xc0000082
#define IA32_FMASK      0xc0000084

    .global main
main:
    OUT_LINE "entered"
    mov esi, [rbx + MULTIBOOT_CMDLINE]
    call choose_entry
    call map_window
    call calls_init
    HANDLE VECTOR_PAGE, on_page_fault
    HANDLE VECTOR_UNDEFINED, on_undefined
    HANDLE VECTOR_BREAKPOINT, on_call
    HANDLE VECTOR_CALL, on_call
    HANDLE VECTOR_DIVIDE, on_fault
    HANDLE VECTOR_PROTECTION, on_fault
    mov eax, offset user
    mov edx, offset user_stack_top
    call enter_user
    mov eax, [mapped]
    REPORT "mapped"
    call timer_start
    mov eax, offset user_with_timer
    mov edx, offset user_stack_top
    call enter_user
    call timer_stop
    mov eax, [ticks]
    REPORT_TIME "ticks"
    call string_io
    call disk
    ret

/* The system call's way in, by the word behind "entry=" in the text at RSI. */
choose_entry:
    mov edi, offset option
    call find_text
    test rsi, rsi
    jz 9f
    mov r12, rsi
    xor ebx, ebx
    mov r13d, offset entry_names
1:  mov rsi, r12
    mov rdi, r13
    cmp byte ptr [rdi], 0
    je 9f
    call find_text
    test rsi, rsi
    jnz 8f
    add r13, 8
    inc ebx
    jmp 1b
8:  mov [call_entry], ebx
9:  ret

    .section .rodata
option:
    .asciz "entry="
    .balign 8
entry_names:                        /* eight bytes each, by number */
    .asciz "int3"
    .balign 8
    .asciz "ud2"
    .balign 8
    .asciz "page"
    .balign 8
    .asciz "int80"
    .balign 8
    .asciz "syscall"
    .balign 8
    .byte 0
    .text

/* Three tables down to a window of which no page is there. */
map_window:
    mov eax, offset window_pointers
    or eax, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER
    mov [page_map + 8 * (WINDOW >> 39)], rax
    mov eax, offset window_directory
    or eax, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER
    mov [window_pointers], rax
    mov eax, offset window_table
    or eax, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER
    mov [window_directory], rax
    ret

/* Maps a missing page of the window; takes the call gate for a call; tells of any other fault and its address. */
on_page_fault:
    mov rax, cr2
    mov rbx, CALL_GATE
    cmp rax, rbx
    jne 1f
    cmp dword ptr [call_entry], ENTRY_PAGE
    je on_call_by_fault
1:  mov rbx, WINDOW
    mov rcx, rax
    sub rcx, rbx
    cmp rcx, WINDOW_SIZE
    jae 2f
    test dword ptr [rdi + FRAME_ERROR], PAGE_PRESENT
    jnz 2f
    inc dword ptr [mapped]
    and ecx, ~0xfff
    lea edx, [rcx + FRAMES + PAGE_PRESENT + PAGE_WRITABLE + PAGE_USER]
    shr ecx, 12
    mov [window_table + 8 * rcx], rdx
    ret
2:  push rax
    call on_fault
    pop rax
    REPORT "address"
    ret

on_undefined:
    mov rax, [rdi + FRAME_IP]
    cmp rax, offset call_by_ud2
    jne on_fault
    cmp dword ptr [call_entry], ENTRY_UD2
    jne on_fault

/* Calls by an instruction that faulted, of two bytes; and by one that is done. */
on_call_by_fault:
    add qword ptr [rdi + FRAME_IP], 2
on_call:
    push rdi
    mov rax, [rdi + FRAME_RAX]
    mov rbx, [rdi + FRAME_RBX]
    call serve
    pop rdi
    mov [rdi + FRAME_RAX], rax
    ret

/* SYSCALL and its way back. Interrupts are off in between (IA32_FMASK), so one place keeps the stack of ring 3. */
calls_init:
    mov ecx, IA32_STAR
    xor eax, eax
    mov edx, CODE | (USER_DATA - 8) << 16
    wrmsr
    mov ecx, IA32_LSTAR
    mov eax, offset on_syscall
    xor edx, edx
    wrmsr
    mov ecx, IA32_FMASK
    mov eax, 0x700                  /* TF, IF, DF */
    xor edx, edx
    wrmsr
    ret

on_syscall:
    mov [user_stack], rsp
    mov rsp, offset stack_top
    push rcx
    push r11
    call serve
    pop r11
    pop rcx
    mov rsp, [user_stack]
    sysretq

/* Does what RAX and RBX ask for. Keeps everything but RAX and the flags. */
serve:
    cmp eax, CALL_REPORT
    jb 1f
    je 2f
    cmp eax, CALL_RESUME
    jb 3f
    jne 4f
    mov [fault_resume], rbx
4:  ret
3:  mov eax, [ticks]
    ret
2:  mov eax, ebx
    REPORT "ring3"
    ret
1:  jmp leave_user

/* Strings from and to ports, and from a port into pages of which the second is not there yet. */
string_io:
    mov dx, COM1_SCRATCH
    mov al, 0x3c
    out dx, al
    mov rdi, WINDOW + 0x180ffa
    mov ecx, 12
    rep insb
    mov rdi, WINDOW + 0x181000
    mov eax, [rdi + 2]
    REPORT "insb"
    mov dx, PCI_ADDRESS
    mov eax, PCI_ENABLE
    out dx, eax
    mov dx, PCI_DATA
    mov edi, offset window_pointers + 2048
    mov ecx, 3
    rep insd
    mov eax, [rdi - 4]
    REPORT "insd"
    call put_out
    SAY "outsb "
    OUTSB_SIXTEEN esi, ecx, sixteen
    SAY_LINE ""
    ret

    .section .rodata
sixteen:
    .ascii "sixteen letters!"

    .bss
    .balign 4096
window_pointers:
    .skip 4096
window_directory:
    .skip 4096
window_table:
    .skip 4096
user_stack:
    .skip 8
mapped:
    .skip 4
    .text

#include "long.S"
#include "text.S"
#include "options.S"
#include "lapic.S"
