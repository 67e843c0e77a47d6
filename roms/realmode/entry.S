/* Real mode, as firmware lives in it: this file copies the firmware to where a BIOS is and enters it there.
 *
 * Not responsible for: leaving protected mode (firmware.S does, in a 16-bit segment), and all that follows. */
#define BITS 32
#include "multiboot.h"
#include "mode.h"

#define FIRMWARE    0xf0000
#define CODE_16     0x08
#define DATA_16     0x10

    MULTIBOOT_HEADER

    .global entry
entry:
    cld
    mov esi, offset firmware_image
    mov edi, FIRMWARE
    mov ecx, offset firmware_size
    rep movsb
    lgdt [gdt_pointer]
    lidt [ivt_pointer]
    /* SDM 3A 11.9.2: real mode keeps the limits of the segments that are loaded now, so they must be 64 KiB. */
    mov eax, DATA_16
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    ljmp CODE_16, offset firmware

    .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00009b0f0000ffff    /* 08: 16-bit code at FIRMWARE */
    .quad 0x000093000000ffff    /* 10: 16-bit data at 0 */
gdt_pointer:
    .word . - gdt - 1
    .long gdt
ivt_pointer:
    .word 4 * 256 - 1
    .long 0
