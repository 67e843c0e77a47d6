/* Selectors, handlers and the frame that they get, in 32-bit protected mode: protected.S. */
#ifndef GEMEL_ROMS_PROTECTED
#define GEMEL_ROMS_PROTECTED

#define CODE        0x08
#define DATA        0x10
#define USER_CODE   0x1b
#define USER_DATA   0x23
#define TASK        0x28
/* For the kernel to fill: eight bytes at gdt + (SPARE & ~7). Ring 3 may load it. */
#define SPARE       0x33

#define VECTOR_DIVIDE       0
#define VECTOR_BREAKPOINT   3
#define VECTOR_OVERFLOW     4
#define VECTOR_BOUND        5
#define VECTOR_UNDEFINED    6
#define VECTOR_NOT_PRESENT  11
#define VECTOR_PROTECTION   13
#define VECTOR_PAGE         14
/* The one gate beside breakpoint and overflow that ring 3 may call */
#define VECTOR_CALL         0x80

/* Where a handler finds what was interrupted, from EDI on. What it changes holds when it returns. */
#define FRAME_EDI       8
#define FRAME_ESI       12
#define FRAME_EBX       24
#define FRAME_EDX       28
#define FRAME_ECX       32
#define FRAME_EAX       36
#define FRAME_VECTOR    40
#define FRAME_ERROR     44
#define FRAME_IP        48
#define FRAME_CS        52
#define FRAME_EFLAGS    56

#define IP_NAME         "eip"

/* Makes a vector's handler the routine with this name. */
.macro HANDLE vector, routine
    mov dword ptr [handlers + 4 * \vector], offset \routine
.endm

/* Goes to ring 3, interrupts on. */
.macro ENTER_USER entry, stack
    push USER_DATA
    push offset \stack
    push 0x202
    push USER_CODE
    push offset \entry
    mov eax, USER_DATA
    mov ds, eax
    mov es, eax
    iretd
.endm

/* One instruction that faults, after which it goes on; its vector's handler is on_fault. */
.macro FAULTS instruction:vararg
    mov dword ptr [fault_resume], offset .Lresume\@
    \instruction
.Lresume\@:
.endm

#endif
