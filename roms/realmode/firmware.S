/* The firmware: interrupt vectors and services, a timer tick through the 8259, string I/O, faults, strings, arithmetic.
 *
 * Linked at offset 0 of its segment. Interrupt handlers find DS pointing at low memory, as they do under a BIOS.
 *
 * Not responsible for: the BIOS data area beyond the tick count, services beyond the two that it needs. */
#define KERNEL "realmode"
#define BITS 16
#define STRINGS .firmware.strings
    .section .firmware, "awx"
#include "text.h"

#define FIRMWARE_SEGMENT    0xf000
#define STACK_TOP           0x7c00
#define BUFFER_SEGMENT      0x3000
#define CR0_PE              1

/* Interrupt vectors: where a BIOS has them */
#define VECTOR_DIVIDE       0x00
#define VECTOR_OVERFLOW     0x04
#define VECTOR_UNDEFINED    0x06
#define VECTOR_TIMER        0x08
#define VECTOR_VIDEO        0x10
#define VECTOR_MEMORY       0x12
#define TICKS               0x46c   /* double word in the BIOS data area */
#define TICKS_AWAITED       20
#define MEMORY_KB           639

/* Points a vector at a handler of this segment. DS is 0. */
.macro HANDLE vector, handler
    mov word ptr [4 * \vector], offset \handler
    mov word ptr [4 * \vector + 2], FIRMWARE_SEGMENT
.endm

    .global firmware
firmware:
    mov eax, cr0
    and al, ~CR0_PE
    mov cr0, eax
    ljmp FIRMWARE_SEGMENT, offset real

real:
    xor ax, ax
    mov es, ax
    mov ss, ax
    mov sp, STACK_TOP
    mov ax, cs
    mov ds, ax              /* strings are in this segment */
    call serial_init
    OUT_LINE "entered"
    call vectors
    call services
    call faults
    call string_io
    call strings
    call arithmetic
    call timer
    EXIT 0

/* Fills the vectors that are used; nothing else may happen. */
vectors:
    push ds
    xor ax, ax
    mov ds, ax
    HANDLE VECTOR_DIVIDE, on_divide
    HANDLE VECTOR_OVERFLOW, on_overflow
    HANDLE VECTOR_UNDEFINED, on_undefined
    HANDLE VECTOR_TIMER, on_timer
    HANDLE VECTOR_VIDEO, video_service
    HANDLE VECTOR_MEMORY, memory_service
    pop ds
    ret

/* INT 10h, function 0eh: prints AL. Any other function comes back with CF set, in the flags that IRET restores. */
video_service:
    push bp
    mov bp, sp
    cmp ah, 0x0e
    jne 1f
    call put_char
    and byte ptr [bp + 6], ~1
    jmp 2f
1:  or byte ptr [bp + 6], 1
2:  pop bp
    iret

/* INT 12h: KiB of conventional memory. */
memory_service:
    mov ax, MEMORY_KB
    iret

services:
    call put_out
    SAY "int10 "
    mov ax, 0x0e00 + 'G'
    int VECTOR_VIDEO
    setc bl
    mov ax, 0x0e00 + '!'
    int VECTOR_VIDEO
    SAY_LINE ""
    mov ah, 0xff
    int VECTOR_VIDEO
    setc bh
    movzx eax, bx
    REPORT "carry"
    xor eax, eax
    int VECTOR_MEMORY
    REPORT "int12"
    pushfd
    pop eax
    and eax, 0x200          /* IF, which no service changed */
    REPORT "if"
    ret

/* Each fault's handler counts in BL, BH or CL; faults go on behind the instruction, which is two bytes long. */
on_divide:
    inc bl
    jmp skip_two_bytes
on_undefined:
    inc bh
skip_two_bytes:
    push bp
    mov bp, sp
    add word ptr [bp + 2], 2
    pop bp
    iret
on_overflow:                /* a trap: the address is that of the next instruction already */
    inc cl
    iret

faults:
    xor ebx, ebx
    xor ecx, ecx
    mov ax, 7
    mov dl, 0
    div dl                  /* by zero */
    mov ax, 0x4000
    mov dl, 2
    div dl                  /* the quotient is too large */
    ud2
    mov al, 0x7f
    add al, 1
    into                    /* overflow */
    add al, 1
    into                    /* none */
    movzx eax, bx
    shl ecx, 16
    or eax, ecx
    REPORT "faults"
    ret

/* Strings of bytes, words and double words from and to ports, forwards and backwards. */
string_io:
    push ds
    push es
    mov ax, BUFFER_SEGMENT
    mov es, ax

    mov dx, COM1_SCRATCH    /* a register that reads as it was written */
    mov al, 0x5a
    out dx, al
    xor di, di
    mov cx, 7
    rep insb
    mov eax, PCI_ENABLE     /* the host bridge's vendor and device, four times */
    mov dx, PCI_ADDRESS
    out dx, eax
    mov dx, PCI_DATA
    mov di, 0x100
    mov cx, 4
    rep insd
    mov dx, COM1_LCR        /* the divisor, a word, twice each way; the last value is the one that was in force */
    mov al, LCR_DLAB + LCR_8N1
    out dx, al
    mov dx, COM1
    mov si, offset divisors
    mov cx, 2
    rep outsw
    std
    mov di, 0x202
    mov cx, 2
    rep insw
    cld
    mov dx, COM1_LCR
    mov al, LCR_8N1
    out dx, al

    mov ax, es
    mov ds, ax
    mov eax, [3]            /* of the bytes, the last four */
    mov ebx, [0x10c]
    mov ecx, [0x200]
    movzx edx, di
    pop es
    pop ds
    REPORT "insb"
    mov eax, ebx
    REPORT "insd"
    mov eax, ecx
    REPORT "insw"
    mov eax, edx
    REPORT "insw-di"

    call put_out
    SAY "outsb "
    OUTSB_SIXTEEN si, cx, sixteen
    SAY_LINE ""
    ret

divisors:
    .word 0x1234, 1
sixteen:
    .ascii "sixteen letters!"

/* Fills 2 KiB with a sequence, copies it to an odd address, compares, searches. */
strings:
    push ds
    push es
    mov ax, BUFFER_SEGMENT
    mov es, ax
    mov ds, ax
    mov eax, 1
    mov di, 0x1000
    mov cx, 0x200
1:  imul eax, eax, 1103515245
    add eax, 12345
    stosd
    loop 1b
    mov si, 0x1000
    mov di, 0x1801
    mov cx, 0x800
    rep movsb
    mov si, 0x1000
    mov di, 0x1801
    mov cx, 0x800
    repe cmpsb
    setz bl
    mov word ptr [0x1a00], 0xbeef
    mov di, 0x1000
    mov ax, 0xbeef
    mov cx, 0xffff
    repne scasw
    movzx eax, bl
    shl eax, 16
    mov ax, di              /* behind the word that was found */
    pop es
    pop ds
    REPORT "strings"
    ret

/* A checksum over a segment in 16-bit and 32-bit arithmetic: Fletcher's, multiplied and rotated along the way. */
arithmetic:
    push ds
    mov ax, BUFFER_SEGMENT
    mov ds, ax
    xor si, si
    mov ebx, 1
    xor edi, edi
    mov cx, 0x4000
1:  lodsw
    movzx eax, ax
    add ebx, eax
    imul eax, ebx, 0x9e3779b1
    ror eax, 7
    adc edi, eax
    xor ax, di
    rcl di, 3
    loop 1b
    mov eax, edi
    pop ds
    REPORT "sum"
    ret

/* IRQ 0: counts, keeps all registers. */
on_timer:
    push ds
    push ax
    xor ax, ax
    mov ds, ax
    inc dword ptr [TICKS]
    mov al, OCW2_EOI
    out PIC1_COMMAND, al
    pop ax
    pop ds
    iret

/* Waits for ticks in HLT, then computes while they go on coming. */
timer:
    mov al, VECTOR_TIMER
    mov bx, 0xfffe
    call pic_init
    mov bx, PIT_1KHZ
    call pit_start
    push es
    xor ax, ax
    mov es, ax
    mov dword ptr es:[TICKS], 0
1:  sti
    hlt
    cli
    cmp dword ptr es:[TICKS], TICKS_AWAITED
    jb 1b
    OUT_LINE "ticks"
    sti
    call arithmetic
    cli
    mov eax, es:[TICKS]
    REPORT_TIME "ticks"
    mov al, 0xff
    out PIC1_DATA, al
    pop es
    ret

#include "text.S"
#include "timer.S"
