/* Ring 3 computes and nothing else happens: no timer, no system call but the last. The command line says for how many rounds:
 * rounds=N, each some thousand instructions.
 *
 * Not responsible for: the work itself (work.S). */
#define KERNEL "compute"
#define BITS 64
#include "multiboot.h"
#include "text.h"
#include "long.h"

#define VECTOR_END      VECTOR_UNDEFINED

    .global main
main:
    HANDLE VECTOR_END, on_end
    mov esi, [rbx + MULTIBOOT_CMDLINE]
    mov edi, offset option
    call find_text
    test rsi, rsi
    jz 1f
    call read_decimal
    mov [rounds], rax
1:  mov eax, offset user
    mov edx, offset user_stack_top
    call enter_user
    mov rax, [checksum]
    shr rax, 32
    REPORT "high"
    mov rax, [checksum]
    REPORT "low"
    ret

on_end:
    mov rax, [rdi + FRAME_RAX]
    mov [checksum], rax
    jmp leave_user

    .section .user, "awx"
user:
    mov rdi, [rounds]
    call work
    ud2                         /* the end, by an instruction that every hypervisor gets right */
    .balign 8
rounds:
    .quad 20000
    .skip 4096
user_stack_top:

    .section .rodata
option:
    .asciz "rounds="

    .bss
checksum:
    .skip 8
    .text

#include "long.S"
#include "text.S"
#include "options.S"
