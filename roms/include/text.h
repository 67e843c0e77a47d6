/* How a kernel prints literals and ends its run; text.S has the routines.
 *
 * A kernel's transcript: lines that start with @OUT are the same on every correct machine; lines that start with @TIME say
 * what depends on the clock; the last one is @END with the kernel's name and 0, as other guests print it.
 * KERNEL is the name, a string. Strings go to the section STRINGS, .rodata where the kernel names no other. */
#ifndef GEMEL_ROMS_TEXT
#define GEMEL_ROMS_TEXT
#include "mode.h"
#include "board.h"

#ifndef STRINGS
#define STRINGS .rodata
#endif

/* Prints a literal. Keeps every register but the flags. */
.macro SAY text
    push xsi
    ADDRESS_OF(xsi, .Ltext\@)
    call put_text
    pop xsi
    .pushsection STRINGS, "a"
.Ltext\@:
    .asciz "\text"
    .popsection
.endm

/* Ends the line. */
.macro SAY_LINE text
    SAY "\text\r\n"
.endm

/* Prints a whole line of the transcript. */
.macro OUT_LINE text
    call put_out
    SAY_LINE "\text"
.endm

/* Prints a name and EAX in hexadecimal as a line of the transcript. */
.macro REPORT name
    call put_out
    SAY "\name "
    call put_hex
    SAY_LINE ""
.endm

/* The same in decimal, for what may differ from run to run. */
.macro REPORT_TIME name
    call put_time
    SAY "\name "
    call put_decimal
    SAY_LINE ""
.endm

/* Prints sixteen bytes by one REP OUTSB: an empty FIFO takes them at once. SI and CX at the mode's size of addresses. */
.macro OUTSB_SIXTEEN source, count, bytes
    mov dx, COM1_LSR
.Lroom\@:
    in al, dx
    test al, LSR_EMPTY
    jz .Lroom\@
    mov dx, COM1
    mov \source, offset \bytes
    mov \count, 16
    rep outsb
    mov dx, COM1_LSR
.Lsent\@:
    in al, dx
    test al, LSR_EMPTY
    jz .Lsent\@
.endm

/* Ends the transcript and the run with a value: zero if all went as it should. The command line's exit code is twice the value plus
 * one, as with QEMU's isa-debug-exit. */
.macro EXIT value
    SAY "@END "
    SAY KERNEL
    SAY_LINE " \value"
    mov eax, \value
    out DEBUG_EXIT, eax
.Lend\@:
    hlt
    jmp .Lend\@
.endm

#endif
