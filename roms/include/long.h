/* Selectors, handlers and the frame that they get, in 64-bit mode: long.S. */
#ifndef GEMEL_ROMS_LONG
#define GEMEL_ROMS_LONG

#define CODE        0x08
#define DATA        0x10
/* In the order in which SYSRET wants them: data, then 64-bit code (SDM 3A 5.8.8) */
#define USER_DATA   0x23
#define USER_CODE   0x2b
#define TASK        0x30

#define VECTOR_DIVIDE       0
#define VECTOR_BREAKPOINT   3
#define VECTOR_UNDEFINED    6
#define VECTOR_PROTECTION   13
#define VECTOR_PAGE         14
/* The one gate beside the breakpoint's that ring 3 may call */
#define VECTOR_CALL         0x80

#define EFER        0xc0000080
#define EFER_SCE    (1 << 0)
#define EFER_LME    (1 << 8)
#define EFER_NXE    (1 << 11)
#define CR0_MP      (1 << 1)
#define CR0_EM      (1 << 2)
#define CR0_NE      (1 << 5)
#define CR0_WP      (1 << 16)
#define CR0_PG      (1 << 31)
#define CR4_PAE     (1 << 5)
#define CR4_PCE     (1 << 8)
#define CR4_OSFXSR  (1 << 9)
#define CR4_OSXMMEX (1 << 10)
#define CR4_OSXSAVE (1 << 18)

#define PAGE_PRESENT    0x001
#define PAGE_WRITABLE   0x002
#define PAGE_USER       0x004
#define PAGE_UNCACHED   0x018
#define PAGE_ACCESSED   0x020
#define PAGE_DIRTY      0x040
#define PAGE_LARGE      0x080

/* Where a handler finds what was interrupted, from RDI on. What it changes holds when it returns. */
#define FRAME_RAX       0
#define FRAME_RBX       8
#define FRAME_RCX       16
#define FRAME_RDX       24
#define FRAME_RSI       32
#define FRAME_RDI       40
#define FRAME_VECTOR    120
#define FRAME_ERROR     128
#define FRAME_IP        136
#define FRAME_CS        144
#define FRAME_RFLAGS    152

#define IP_NAME         "rip"

/* Makes a vector's handler the routine with this name. */
.macro HANDLE vector, routine
    mov qword ptr [handlers + 8 * \vector], offset \routine
.endm

#endif
