/* The instructions through which a host can show through a hypervisor: RDTSC, RDTSCP, CPUID, RDRAND, RDSEED, RDPMC, each in ring 0
 * and in ring 3, and what came of it. Which ones execute is a matter of the CPU model; what they return, of the clock.
 *
 * Not responsible for: a verdict. */
#define KERNEL "leaks"
#define BITS 64
#include "multiboot.h"
#include "text.h"
#include "long.h"

#define FRAME_R8        56
#define CR4_PCE         (1 << 8)
/* Of a result: vector + 1 or zero, EAX, EBX, ECX, EDX */
#define RESULT_SIZE     20
#define RESULTS         8

    .global main
main:
    mov rax, cr4
    or eax, CR4_PCE             /* ring 3 may use RDPMC, as far as there is a counter */
    mov cr4, rax
    HANDLE VECTOR_UNDEFINED, on_probe
    HANDLE VECTOR_PROTECTION, on_probe
    HANDLE VECTOR_BREAKPOINT, leave_user
    mov edi, offset results
    call probe
    mov r12d, '0'
    call tell
    mov eax, offset user
    mov edx, offset user_stack_top
    call enter_user
    mov r12d, '3'
    call tell
    ret

/* Goes on behind a probed instruction, with its vector + 1 in R8. */
on_probe:
    mov rsi, offset probes
1:  mov rax, [rsi]
    test rax, rax
    jz 2f
    add rsi, 16
    cmp rax, [rdi + FRAME_IP]
    jne 1b
    mov rax, [rsi - 8]
    mov [rdi + FRAME_IP], rax
    mov rax, [rdi + FRAME_VECTOR]
    inc rax
    mov [rdi + FRAME_R8], rax
    ret
2:  OUT_LINE "a fault outside the probes"
    EXIT 1

/* Prints the results for ring R12. */
tell:
    mov ebx, offset results
    mov r13d, offset names
1:  mov rsi, r13
    cmp byte ptr [rsi], 0
    je 4f
    call put_out
    call put_ring
    call put_text
    mov eax, [rbx]
    test eax, eax
    jz 2f
    SAY " vector "
    dec eax
    call put_decimal
    jmp 3f
2:  SAY " executed"
3:  SAY_LINE ""
    add ebx, RESULT_SIZE
    mov r13, rsi
    jmp 1b
4:  /* What depends on the CPU model alone ... */
    call put_out
    call put_ring
    SAY "cpuid 0: "
    mov eax, [results + 2 * RESULT_SIZE + 4]
    call put_hex
    SAY " "
    mov eax, [results + 2 * RESULT_SIZE + 8]
    call put_hex
    SAY_LINE ""
    call put_out
    call put_ring
    SAY "cpuid 1: "
    mov eax, [results + 3 * RESULT_SIZE + 4]
    call put_hex
    SAY " "
    mov eax, [results + 3 * RESULT_SIZE + 12]
    call put_hex
    SAY " "
    mov eax, [results + 3 * RESULT_SIZE + 16]
    call put_hex
    SAY_LINE ""
    /* ... and what does not: the counter of RDTSC */
    call put_time
    call put_ring
    SAY "rdtsc "
    mov eax, [results + 16]
    call put_hex
    mov eax, [results + 4]
    call put_hex
    SAY_LINE ""
    ret

put_ring:
    SAY "ring "
    mov al, r12b
    call put_char
    SAY " "
    ret

    .section .rodata
/* In the order of `probe`, each with a zero byte; an empty one ends the list */
names:
    .asciz "rdtsc"
    .asciz "rdtscp"
    .asciz "cpuid-0"
    .asciz "cpuid-1"
    .asciz "rdrand"
    .asciz "rdseed"
    .asciz "rdpmc"
    .byte 0

/* Where each probe's instruction is, and where to go on */
    .data
    .balign 8
probes:
    .previous

/* One instruction with EAX = LEAF and ECX = 0; what it leaves goes to RDI. */
.macro PROBE leaf, instruction:vararg
    mov eax, \leaf
    xor ecx, ecx
    xor edx, edx
    xor r8d, r8d
.Lprobe\@:
    \instruction
.Lresume\@:
    mov [rdi], r8d
    mov [rdi + 4], eax
    mov [rdi + 8], ebx
    mov [rdi + 12], ecx
    mov [rdi + 16], edx
    add rdi, RESULT_SIZE
    .pushsection .data
    .quad .Lprobe\@, .Lresume\@
    .popsection
.endm

    .section .user, "awx"
/* All instructions, results to RDI. Called in either ring. */
probe:
    push rbx
    PROBE 0, rdtsc
    PROBE 0, rdtscp
    PROBE 0, cpuid
    PROBE 1, cpuid
    PROBE 0, rdrand eax
    PROBE 0, rdseed eax
    PROBE 0, rdpmc
    pop rbx
    ret

user:
    mov edi, offset results
    call probe
    int3
results:
    .skip RESULTS * RESULT_SIZE
    .skip 4096
user_stack_top:

    .data
    .quad 0                     /* ends the list of probes */
    .text

#include "long.S"
#include "text.S"
