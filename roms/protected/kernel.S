/* 32-bit protected mode without paging: descriptor tables, faults with and without error code, ring 3 through a task state
 * segment, timer interrupts through the 8259 pair and through the I/O APIC, string I/O on ports and on device memory.
 *
 * Not responsible for: paging (paging), 16-bit code (realmode). */
#define KERNEL "protected"
#define BITS 32
#include "multiboot.h"
#include "text.h"
#include "protected.h"

#define TICKS_AWAITED   20
#define VECTOR_PIC      0x20
#define VECTOR_IOAPIC   0x50
#define VECTOR_SPURIOUS 0xff
#define POLYNOMIAL      0xedb88320      /* CRC-32 of IEEE 802.3, reflected */
#define BLOCK           16384

    MULTIBOOT_HEADER

    .global entry
entry:
    mov esp, offset boot_stack_top
    cld
    call descriptors_init
    call serial_init
    OUT_LINE "entered"
    call checksum
    call faults
    call ring_3
    call port_strings
    call ticks_by_8259
    call ticks_by_io_apic
    EXIT 0

/* CRC-32 over a block of a linear congruential sequence, bit by bit. */
checksum:
    mov edi, offset block
    mov ecx, BLOCK / 4
    mov eax, 1
1:  imul eax, eax, 1103515245
    add eax, 12345
    stosd
    dec ecx
    jnz 1b
    mov esi, offset block
    mov ecx, BLOCK
    mov edx, -1
2:  lodsb
    xor dl, al
    mov ebx, 8
3:  shr edx, 1
    jnc 4f
    xor edx, POLYNOMIAL
4:  dec ebx
    jnz 3b
    dec ecx
    jnz 2b
    mov eax, edx
    not eax
    REPORT "crc32"
    ret

faults:
    HANDLE VECTOR_DIVIDE, on_fault
    HANDLE VECTOR_BREAKPOINT, on_trap
    HANDLE VECTOR_OVERFLOW, on_trap
    HANDLE VECTOR_BOUND, on_fault
    HANDLE VECTOR_UNDEFINED, on_fault
    HANDLE VECTOR_NOT_PRESENT, on_fault
    HANDLE VECTOR_PROTECTION, on_fault
    xor edx, edx
    xor ecx, ecx
    FAULTS div ecx
    int3
    mov al, 0x7f
    inc al
    into
    mov eax, 9
    FAULTS bound eax, [bounds]
    FAULTS ud2
    mov eax, 0xfff8                         /* beyond the table */
    FAULTS mov fs, eax
    mov dword ptr [gdt + 0x30], 0x0000ffff  /* data, not present */
    mov dword ptr [gdt + 0x34], 0x00cf7300
    mov eax, SPARE
    FAULTS mov fs, eax
    mov eax, offset block                   /* data of 256 bytes at the block */
    shl eax, 16
    mov ax, 0xff
    mov [gdt + 0x30], eax
    mov eax, offset block
    shr eax, 16
    or eax, 0x0040f300
    mov [gdt + 0x34], eax
    mov eax, SPARE
    mov fs, eax
    mov eax, fs:[0xfc]                      /* its last double word */
    REPORT "limit"
    FAULTS mov eax, fs:[0xfd]
    ret

/* Ring 3 computes, calls, and may not touch the machine. */
ring_3:
    HANDLE VECTOR_CALL, on_call
    mov [ring_0_stack], esp
    ENTER_USER user, user_stack_top

/* What ring 3 can call: EAX = 0 comes back here, 1 prints EBX. */
on_call:
    cmp dword ptr [edi + FRAME_EAX], 1
    je 1f
    mov esp, [ring_0_stack]
    ret                                     /* from ring_3 */
1:  mov eax, [edi + FRAME_EBX]
    REPORT "ring3"
    ret

user:
    mov eax, cs
    and eax, 3
    mov ebx, eax
    mov eax, 1
    int VECTOR_CALL
    FAULTS cli
    FAULTS in al, DEBUG_EXIT
    mov eax, CODE
    FAULTS mov ss, eax
    /* Fibonacci numbers, on a stack of its own */
    push 24
    call fibonacci
    mov ebx, eax
    mov eax, 1
    int VECTOR_CALL
    xor eax, eax
    int VECTOR_CALL

fibonacci:
    mov eax, [esp + 4]
    cmp eax, 2
    jb 1f
    dec eax
    push eax
    call fibonacci
    xchg eax, [esp]
    dec eax
    push eax
    call fibonacci
    pop ecx
    pop ecx
    add eax, ecx
1:  ret

/* Strings from and to ports, and from device memory. */
port_strings:
    mov dx, COM1_SCRATCH
    mov al, 0xa5
    out dx, al
    mov edi, offset block
    mov ecx, 6
    rep insb
    mov eax, [block + 2]
    REPORT "insb"
    mov dx, PCI_ADDRESS
    mov eax, PCI_ENABLE
    out dx, eax
    mov dx, PCI_DATA
    mov edi, offset block
    mov ecx, 3
    rep insd
    mov eax, [block + 8]
    REPORT "insd"
    mov esi, LAPIC + 0x20                   /* identity, and three words that hold nothing; version */
    mov edi, offset block
    mov ecx, 5
    rep movsd
    mov eax, [block]
    REPORT "lapic-id"
    mov eax, [block + 16]
    and eax, 0xff
    REPORT "lapic-version"
    call put_out
    SAY "outsb "
    OUTSB_SIXTEEN esi, ecx, sixteen
    SAY_LINE ""
    ret

on_tick_8259:
    inc dword ptr [ticks]
    mov al, OCW2_EOI
    out PIC1_COMMAND, al
    ret

on_tick_io_apic:
    inc dword ptr [ticks]
    mov dword ptr [LAPIC + LAPIC_EOI], 0
    ret

ticks_by_8259:
    HANDLE VECTOR_PIC, on_tick_8259
    mov al, VECTOR_PIC
    mov bx, 0xfffe
    call pic_init
    mov bx, PIT_1KHZ
    call pit_start
    call await_ticks
    OUT_LINE "ticks by 8259"
    mov al, 0xff
    out PIC1_DATA, al
    ret

ticks_by_io_apic:
    HANDLE VECTOR_IOAPIC, on_tick_io_apic
    mov dword ptr [LAPIC + LAPIC_SPURIOUS], LAPIC_ENABLED | VECTOR_SPURIOUS
    mov dword ptr [IOAPIC + IOAPIC_SELECT], 0x10 + 2 * IOAPIC_TIMER
    mov dword ptr [IOAPIC + IOAPIC_WINDOW], VECTOR_IOAPIC
    call await_ticks
    OUT_LINE "ticks by I/O APIC"
    mov dword ptr [IOAPIC + IOAPIC_SELECT], 0x10 + 2 * IOAPIC_TIMER
    mov dword ptr [IOAPIC + IOAPIC_WINDOW], LVT_MASKED
    ret

/* Halts for ticks, then computes while they go on coming. */
await_ticks:
    mov dword ptr [ticks], 0
1:  sti
    hlt
    cli
    cmp dword ptr [ticks], TICKS_AWAITED
    jb 1b
    sti
    call checksum
    cli
    mov eax, [ticks]
    REPORT_TIME "ticks"
    ret

    .data
    .balign 4
bounds:
    .long -8, 8
sixteen:
    .ascii "sixteen letters!"

    .bss
    .balign 16
ring_0_stack:
    .skip 4
ticks:
    .skip 4
    .balign 16
block:
    .skip BLOCK
    .skip 4096
user_stack_top:
    .text

#include "protected.S"
#include "text.S"
#include "timer.S"
