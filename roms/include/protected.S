/* 32-bit protected mode: descriptor tables, a task state segment with a stack for ring 0, and one way into all handlers.
 *
 * A handler is a routine that is called with EDI at the frame (protected.h) and may use every register. A vector without one
 * ends the run with exit value 1.
 *
 * Not responsible for: paging, interrupt controllers. */
#include "text.h"
#include "protected.h"

#define GATE_INTERRUPT  0x8e00
#define GATE_USER       0xee00

/* Loads the tables. To be called first; EAX and EBX come back unchanged. */
descriptors_init:
    push eax
    push ebx
    mov eax, offset task_state
    mov [gdt + TASK + 2], ax
    shr eax, 16
    mov [gdt + TASK + 4], al
    mov [gdt + TASK + 7], ah
    lgdt [gdt_pointer]
    ljmp CODE, offset 1f
1:  mov eax, DATA
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov eax, TASK
    ltr ax
    /* One gate for each vector; the ways in are 16 bytes long. */
    mov edi, offset idt
    mov ebx, offset ways_in
    mov ecx, 256
2:  mov eax, ebx
    and eax, 0xffff
    or eax, CODE << 16
    mov [edi], eax
    mov eax, ebx
    mov ax, GATE_INTERRUPT
    mov [edi + 4], eax
    add edi, 8
    add ebx, 16
    dec ecx
    jnz 2b
    mov byte ptr [idt + 8 * VECTOR_BREAKPOINT + 5], GATE_USER >> 8
    mov byte ptr [idt + 8 * VECTOR_OVERFLOW + 5], GATE_USER >> 8
    mov byte ptr [idt + 8 * VECTOR_CALL + 5], GATE_USER >> 8
    lidt [idt_pointer]
    mov al, 0xff                /* whatever firmware left running stays out */
    out PIC1_DATA, al
    out PIC2_DATA, al
    pop ebx
    pop eax
    ret

#include "handlers.S"

    .balign 16
trapped:
    pushad
    push ds
    push es
    cld
    mov edi, esp
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov eax, [edi + FRAME_VECTOR]
    mov eax, [handlers + 4 * eax]
    test eax, eax
    jz unexpected
    call eax
    pop es
    pop ds
    popad
    add esp, 8
    iretd

    .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* code, ring 0: flat, 32 bits */
    .quad 0x00cf93000000ffff    /* data, ring 0 */
    .quad 0x00cffb000000ffff    /* code, ring 3 */
    .quad 0x00cff3000000ffff    /* data, ring 3 */
    .quad 0x0000890000000067    /* the task state, its base to be filled in */
    .quad 0                     /* spare */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
idt_pointer:
    .word 8 * 256 - 1
    .long idt
    .balign 16
task_state:
    .long 0
    .long stack_top         /* ESP0 */
    .long DATA              /* SS0 */
    .skip 104 - 12 - 2
    .word 104               /* no I/O bitmap within the limit */

    .bss
    .balign 16
idt:
    .skip 8 * 256
handlers:
    .skip 4 * 256
fault_resume:
    .skip 4
    .balign 16
    .skip 8192
stack_top:
    .skip 8192
boot_stack_top:
    .text
