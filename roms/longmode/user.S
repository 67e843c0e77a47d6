/* What runs in ring 3: memory that comes page by page, system calls, faults, then long computing under a timer.
 *
 * Not responsible for: how a call gets into the kernel (kernel.S). */
#define BITS 64
#include "mode.h"
#include "call.h"

#define PAGES           128
#define CALLS           1000
#define TICKS_AWAITED   20

/* Asks the kernel. */
.macro ASK number
    mov eax, \number
    call call_kernel
.endm

/* One instruction that faults. */
.macro FAULTS instruction:vararg
    mov ebx, offset .Lresume\@
    ASK CALL_RESUME
    \instruction
.Lresume\@:
.endm

    .section .user, "awx"

/* Every way in that there is; `call_entry` says which. */
call_kernel:
    cmp dword ptr [call_entry], ENTRY_UD2
    jb 1f
    je call_by_ud2
    cmp dword ptr [call_entry], ENTRY_INT
    jb 2f
    je 3f
    push rcx
    push r11
    syscall
    pop r11
    pop rcx
    ret
1:  int3
    ret
    .global call_by_ud2
call_by_ud2:
    ud2
    ret
2:  push rdx
    mov rdx, CALL_GATE
    mov dl, [rdx]                   /* two bytes: the kernel goes on behind them */
    pop rdx
    ret
3:  int 0x80
    ret

    .balign 4
    .global call_entry
call_entry:
    .long ENTRY_INT3

    .global user
user:
    /* Load and store in each page, at another offset */
    mov rsi, WINDOW
    mov ecx, PAGES
1:  mov rax, [rsi + 8 * rcx]
    lea rax, [rax + 8 * rcx + 1]
    mov [rsi + 8 * rcx], rax
    add rsi, 0x1000
    dec ecx
    jnz 1b
    xor ebx, ebx
    mov rsi, WINDOW
    mov ecx, PAGES
2:  add rbx, [rsi + 8 * rcx]
    rol rbx, 7
    add rsi, 0x1000
    dec ecx
    jnz 2b
    ASK CALL_REPORT
    /* A copy whose destination is missing page by page, amid its iterations */
    mov rsi, WINDOW
    mov rdi, WINDOW + 0x100ffc
    mov ecx, 3 * 512
    rep movsq
    mov rbx, rdi
    ASK CALL_REPORT
    mov rbx, [rdi - 0x1000 + 8 * (PAGES - 2)]
    ASK CALL_REPORT
    mov r12d, CALLS
3:  ASK CALL_NOTHING
    dec r12d
    jnz 3b
    FAULTS hlt
    FAULTS mov eax, [0x100000]      /* ring 0's pages */
    FAULTS mov [0x100000], eax
    mov eax, 0x100000
    FAULTS call faraway
    xor edx, edx
    xor ecx, ecx
    FAULTS div ecx
    FAULTS ud2
    mov rcx, 0x8000000000000000     /* not canonical */
    FAULTS mov eax, [rcx]
    ASK CALL_END

/* A call whose target faults; the caller's stack is as before when the fault goes on there. */
faraway:
    add rsp, 8
    mov eax, 0x100000
    jmp rax

/* Rounds of integer and SSE work in registers and in the window, until there were ticks enough. Every round has the same result:
 * the last one is printed. */
    .global user_with_timer
user_with_timer:
    mov r13, WINDOW
4:  mov rax, 0x9e3779b97f4a7c15
    mov rdx, rax
    movq xmm0, rax
    pxor xmm1, xmm1
    mov ecx, 1000000
5:  imul rax, rdx
    rol rax, 17
    add rax, rcx
    mov esi, eax
    and esi, 0xfff8
    mov [r13 + rsi], rax            /* somewhere in sixteen pages */
    movq xmm2, rax
    paddq xmm1, xmm2
    pxor xmm0, xmm1
    dec ecx
    jnz 5b
    movq rbx, xmm0
    add rbx, rax
    mov r14, rbx
    ASK CALL_TICKS
    cmp eax, TICKS_AWAITED
    jb 4b
    mov rbx, r14
    ASK CALL_REPORT
    ASK CALL_END

    .balign 16
    .skip 8192
    .global user_stack_top
user_stack_top:
