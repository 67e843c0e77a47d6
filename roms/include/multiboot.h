/* What makes an ELF file a kernel for a multiboot loader (Multiboot Specification 0.6.96, 3.1.1). The loader enters `entry` in
 * 32-bit protected mode with flat segments, interrupts off, EAX = MULTIBOOT_LOADED and EBX -> what it has to tell (3.2, 3.3). */
#ifndef GEMEL_ROMS_MULTIBOOT
#define GEMEL_ROMS_MULTIBOOT
#define MULTIBOOT_MAGIC     0x1badb002
#define MULTIBOOT_LOADED    0x2badb002
#define MULTIBOOT_CMDLINE   16

/* Once in a kernel. */
.macro MULTIBOOT_HEADER
    .pushsection .multiboot, "a"
    .balign 4
    .long MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC
    .popsection
.endm
#endif
