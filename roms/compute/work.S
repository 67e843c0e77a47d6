/* Integer and SSE work that stays in registers and the first cache, as a function: the kernel runs it in ring 3, a Linux program
 * runs it natively, and the two print the same checksum.
 *
 * Not responsible for: output. */
#define BITS 64
#include "mode.h"

#define TABLE_SIZE  4096

#ifdef FOR_LINUX
    .text
#else
    .section .user, "awx"
#endif

/* RDI rounds of TABLE_SIZE / 16 steps. Returns a checksum in RAX. System V calling convention. */
    .global work
work:
    push rbx
    push rbp
    lea rsi, table[rip]
    /* Fill the table: one multiplicative sequence in it, whatever was there. */
    mov rax, 0x9e3779b97f4a7c15
    mov rbx, rax
    xor ecx, ecx
1:  imul rax, rbx
    add rax, rcx
    mov [rsi + rcx], rax
    add ecx, 8
    cmp ecx, TABLE_SIZE
    jb 1b
    mov rbx, 0xbf58476d1ce4e5b9
    xor ebp, ebp
    mov eax, 1
    cvtsi2sd xmm1, eax
    movapd xmm4, xmm1
    xorpd xmm0, xmm0
    pxor xmm2, xmm2
    movdqu xmm3, [rsi]
2:  xor ecx, ecx
3:  mov rax, [rsi + rcx]        /* integer: multiply, rotate, branch on a bit, store */
    imul rax, rbx
    rol rax, 23
    xor rbp, rax
    test al, 1
    jz 4f
    lea rbp, [rbp + 2 * rbp + 1]
4:  add [rsi + rcx], rbp
    movdqu xmm5, [rsi + rcx]    /* packed integers */
    paddd xmm2, xmm5
    pshufd xmm3, xmm3, 0x39
    pxor xmm3, xmm2
    mov edx, eax                /* a series in double precision */
    and edx, 0xff
    cvtsi2sd xmm6, edx
    addsd xmm4, xmm1
    divsd xmm6, xmm4
    addsd xmm0, xmm6
    add ecx, 16
    cmp ecx, TABLE_SIZE
    jb 3b
    dec rdi
    jnz 2b
    movq rax, xmm0
    xor rax, rbp
    movq rdx, xmm3
    add rax, rdx
    pop rbp
    pop rbx
    ret

#ifdef FOR_LINUX
    .bss
#endif
    .balign 64
table:
    .skip TABLE_SIZE
#ifdef FOR_LINUX
    .section .note.GNU-stack, "", @progbits
#endif
