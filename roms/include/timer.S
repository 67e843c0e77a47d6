/* The 8259 pair and the 8254, which are programmed through ports alone and so the same way in every mode.
 *
 * Not responsible for: handlers, and the vectors at which a kernel wants them. */
#include "mode.h"
#include "board.h"

/* Initialises the 8259 pair: lines 0-7 at vector AL, lines 8-15 at AL + 8; all masked but those whose bit in BX is clear. */
pic_init:
    mov ah, al
    mov al, ICW1_INIT
    out PIC1_COMMAND, al
    out PIC2_COMMAND, al
    mov al, ah
    out PIC1_DATA, al
    add al, 8
    out PIC2_DATA, al
    mov al, 4               /* ICW3: the second chip is on line 2 ... */
    out PIC1_DATA, al
    mov al, 2               /* ... and knows it */
    out PIC2_DATA, al
    mov al, ICW4_8086
    out PIC1_DATA, al
    out PIC2_DATA, al
    mov al, bl
    out PIC1_DATA, al
    mov al, bh
    out PIC2_DATA, al
    ret

/* Counter 0 in mode 2: an interrupt every BX ticks. */
pit_start:
    mov al, PIT_RATE
    out PIT_CONTROL, al
    mov al, bl
    out PIT_COUNTER0, al
    mov al, bh
    out PIT_COUNTER0, al
    ret
