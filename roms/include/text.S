/* Text on the first serial port, in the mode that BITS names. Assembled into the section that is in force where it is included.
 *
 * Not responsible for: input. */
#include "text.h"

/* 115200 bit/s, 8N1, FIFOs on. */
    .global serial_init
serial_init:
    mov dx, COM1_LCR
    mov al, LCR_DLAB
    out dx, al
    mov dx, COM1
    mov ax, 1
    out dx, ax              /* both bytes of the divisor */
    mov dx, COM1_LCR
    mov al, LCR_8N1
    out dx, al
    mov dx, COM1_FCR
    mov al, FCR_ENABLE
    out dx, al
    ret

/* Prints AL once the transmitter has room. Keeps every register but the flags. */
    .global put_char
put_char:
    push xdx
    push xax
    mov dx, COM1_LSR
1:  in al, dx
    test al, LSR_EMPTY
    jz 1b
    pop xax
    mov dx, COM1
    out dx, al
    pop xdx
    ret

/* Prints the text at xSI up to its zero byte. xSI is then behind it. */
    .global put_text
put_text:
    push xax
1:  lodsb
    test al, al
    jz 2f
    call put_char
    jmp 1b
2:  pop xax
    ret

/* Prints what every line of the transcript starts with. Keep every register but the flags. */
    .global put_out
put_out:
    SAY "@OUT "
    jmp put_kernel
    .global put_time
put_time:
    SAY "@TIME "
put_kernel:
    SAY KERNEL
    SAY " "
    ret

/* Prints EAX in decimal. Keeps every register but the flags. */
    .global put_decimal
put_decimal:
    push xax
    push xbx
    push xcx
    push xdx
    mov ebx, 10
    xor ecx, ecx
1:  xor edx, edx            /* digits come out from the last to the first: keep them on the stack */
    div ebx
    push xdx
    inc ecx
    test eax, eax
    jnz 1b
2:  pop xax
    add al, '0'
    call put_char
    dec ecx
    jnz 2b
    pop xdx
    pop xcx
    pop xbx
    pop xax
    ret

/* Prints EAX as eight hexadecimal digits. Keeps every register but the flags. */
    .global put_hex
put_hex:
    push xax
    push xcx
    push xdx
    mov edx, eax
    mov ecx, 8
1:  rol edx, 4
    mov al, dl
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe 2f
    add al, 'a' - '0' - 10
2:  call put_char
    dec ecx
    jnz 1b
    pop xdx
    pop xcx
    pop xax
    ret
