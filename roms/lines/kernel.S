/* Ring 3 computes under the timer and has a numbered line printed every ten milliseconds or so. Whoever types a line gets it back with GOT in
 * front, soon after; the line `quit` ends the run, and so does line N with lines=N on the command line.
 *
 * What it prints is what the Linux guest of this name prints, so the same judge reads both. Which instructions the timer and what
 * is typed interrupt is different every time, and what ring 3 has in memory depends on how long it was let.
 *
 * Not responsible for: more than BUFFER bytes of typing. */
#define KERNEL "lines"
#define BITS 64
#include "multiboot.h"
#include "text.h"
#include "long.h"

#define VECTOR_SERIAL   0x51
#define BUFFER          0x10000
#define TICKS_A_LINE    10
#define STEPS           100000      /* of computing, between two looks at the clock */
#define TABLE_SIZE      0x10000

#define CALL_END        0
#define CALL_TICKS      1           /* RAX = ticks so far */
#define CALL_LINE       2           /* prints a line, and the answers that are due; RAX = 0 if that was the last */

    .global main
main:
    mov esi, [rbx + MULTIBOOT_CMDLINE]
    mov edi, offset option
    call find_text
    test rsi, rsi
    jz 1f
    call read_decimal
    mov [last_line], rax
1:  HANDLE VECTOR_BREAKPOINT, on_call
    call timer_start
    call listen
    SAY_LINE "@READY lines"
    mov eax, offset user
    mov edx, offset user_stack_top
    call enter_user
    call timer_stop
    SAY "@INFO printed "
    mov eax, [printed]
    call put_decimal
    SAY " heard "
    mov eax, [heard]
    call put_decimal
    SAY_LINE ""
    OUT_LINE "done"
    ret

/* Has every byte that comes interrupt. */
listen:
    HANDLE VECTOR_SERIAL, on_serial
    mov ebx, IOAPIC
    mov dword ptr [rbx + IOAPIC_SELECT], 0x10 + 2 * IOAPIC_SERIAL
    mov dword ptr [rbx + IOAPIC_WINDOW], VECTOR_SERIAL
    mov dx, COM1_MCR
    mov al, MCR_CONNECTED
    out dx, al
    mov dx, COM1_IER
    mov al, IER_RECEIVED
    out dx, al
    ret

on_serial:
    mov ecx, [filled]
1:  mov dx, COM1_LSR
    in al, dx
    test al, LSR_RECEIVED
    jz 2f
    mov dx, COM1
    in al, dx
    mov ebx, ecx
    and ebx, BUFFER - 1
    mov [buffer + rbx], al
    inc ecx
    jmp 1b
2:  mov [filled], ecx
    jmp end_of_interrupt

on_call:
    push rdi
    mov eax, [rdi + FRAME_RAX]
    cmp eax, CALL_TICKS
    jb leave_user
    mov eax, [ticks]
    je 1f
    call line
1:  pop rdi
    mov [rdi + FRAME_RAX], rax
    ret

/* Prints the next line and answers what has been typed. RAX = 0 if the run is to end. */
line:
    SAY "LINE "
    mov eax, [printed]
    inc eax
    mov [printed], eax
    call put_decimal
    SAY_LINE ""
1:  mov ebx, [answered]             /* is there a whole line? */
2:  cmp ebx, [filled]
    je 8f
    mov ecx, ebx
    and ecx, BUFFER - 1
    inc ebx
    cmp byte ptr [buffer + rcx], '\n'
    jne 2b
    mov ecx, [answered]
    and ecx, BUFFER - 1
    cmp dword ptr [buffer + rcx], 'q' | 'u' << 8 | 'i' << 16 | 't' << 24
    je 9f
    SAY "GOT "
3:  mov ecx, [answered]
    and ecx, BUFFER - 1
    inc dword ptr [answered]
    mov al, [buffer + rcx]
    cmp al, '\n'
    je 4f
    call put_char
    jmp 3b
4:  SAY_LINE ""
    inc dword ptr [heard]
    jmp 1b
8:  mov eax, [printed]
    cmp rax, [last_line]
    jb 7f
9:  xor eax, eax
7:  ret

    .section .user, "awx"
    .balign 8
user:
    mov r12d, TICKS_A_LINE
    mov r13d, offset table
    mov rdx, 0x9e3779b97f4a7c15
    mov rax, rdx
1:  mov ecx, STEPS                  /* a sequence that goes on for as long as there is time, in registers and memory */
2:  imul rax, rdx
    rol rax, 17
    mov esi, eax
    and esi, TABLE_SIZE - 8
    add rax, [r13 + rsi]
    mov [r13 + rsi], rax
    movq xmm2, rax
    paddq xmm1, xmm2
    pxor xmm0, xmm1
    dec ecx
    jnz 2b
    mov rbx, rax
    mov eax, CALL_TICKS
    int3
    cmp eax, r12d
    jb 3f
    lea r12d, [eax + TICKS_A_LINE]
    mov eax, CALL_LINE
    int3
    test eax, eax
    jz 4f
3:  mov rax, rbx
    jmp 1b
4:  mov eax, CALL_END
    int3

    .balign 16
    .skip 4096
user_stack_top:
    .balign 4096
table:
    .skip TABLE_SIZE

    .section .rodata
option:
    .asciz "lines="

    .data
    .balign 8
last_line:
    .quad 0xffffffff

    .bss
    .balign 8
buffer:
    .skip BUFFER + 4                /* a word may be read at its end */
/* Bytes received and answered, and lines, since power-on */
filled:
    .skip 4
answered:
    .skip 4
printed:
    .skip 4
heard:
    .skip 4
    .text

#include "long.S"
#include "text.S"
#include "options.S"
#include "lapic.S"
