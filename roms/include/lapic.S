/* The local APIC's timer, once a millisecond, in 64-bit mode: `ticks` counts.
 *
 * Not responsible for: other interrupts. */
#include "mode.h"
#include "board.h"
#include "long.h"

#define VECTOR_TIMER    0x50
#define VECTOR_SPURIOUS 0xff
#define DIVIDE_BY_1     0x0b
#define LAPIC_TICK      1000000     /* its clock has 1 GHz: a millisecond */

timer_start:
    HANDLE VECTOR_TIMER, on_tick
    mov ebx, LAPIC
    mov dword ptr [rbx + LAPIC_SPURIOUS], LAPIC_ENABLED | VECTOR_SPURIOUS
    mov dword ptr [rbx + LAPIC_DIVIDE], DIVIDE_BY_1
    mov dword ptr [rbx + LAPIC_TIMER], LVT_PERIODIC | VECTOR_TIMER
    mov dword ptr [rbx + LAPIC_INITIAL], LAPIC_TICK
    ret

timer_stop:
    mov ebx, LAPIC
    mov dword ptr [rbx + LAPIC_INITIAL], 0
    mov dword ptr [rbx + LAPIC_TIMER], LVT_MASKED
    ret

on_tick:
    inc dword ptr [ticks]
end_of_interrupt:
    mov eax, LAPIC
    mov dword ptr [rax + LAPIC_EOI], 0
    ret

    .bss
    .balign 4
ticks:
    .skip 4
    .text
