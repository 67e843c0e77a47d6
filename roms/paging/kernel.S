/* 32-bit paging: 4 MiB pages and two levels of tables, or (with PAE defined) 2 MiB pages, three levels and no-execute. Demand
 * mapping, accessed and dirty bits, write protection, aliases and INVLPG, ring 3 with faults and a timer.
 *
 * Not responsible for: what works without paging (protected), four levels (longmode). */
#ifdef PAE
#define KERNEL "paging-pae"
#else
#define KERNEL "paging-pse"
#endif
#define BITS 32
#include "multiboot.h"
#include "text.h"
#include "protected.h"

#define PAGE_PRESENT    0x001
#define PAGE_WRITABLE   0x002
#define PAGE_USER       0x004
#define PAGE_ACCESSED   0x020
#define PAGE_DIRTY      0x040
#define PAGE_LARGE      0x080
#define CR0_WP          (1 << 16)
#define CR0_PG          (1 << 31)
#define CR4_PSE         (1 << 4)
#define CR4_PAE         (1 << 5)
#define EFER            0xc0000080
#define EFER_NXE        (1 << 11)

/* Linear addresses that one page table maps, on demand, to frames from FRAMES on */
#define WINDOW          0x40000000
#define WINDOW_SIZE     0x200000
#define FRAMES          0xa00000
/* The last page of the window is one that the kernel maps by itself */
#define OWN_FRAME       (FRAMES + WINDOW_SIZE - 0x1000)
#define OWN_PAGE        (WINDOW + WINDOW_SIZE - 0x1000)

#ifdef PAE
#define ENTRY_SIZE      8
#define LARGE_SIZE      0x200000
#define LARGE_SHIFT     21
#else
#define ENTRY_SIZE      4
#define LARGE_SIZE      0x400000
#define LARGE_SHIFT     22
#define window_directory_entry directory + (WINDOW >> LARGE_SHIFT) * ENTRY_SIZE
#endif

#define PAGES_TOUCHED   64
#define TICKS_AWAITED   10
#define VECTOR_PIC      0x20

/* The entry that maps an address of the window. */
#define ENTRY_OF(address) window_table + (((address) - WINDOW) >> 12) * ENTRY_SIZE

    MULTIBOOT_HEADER

    .global entry
entry:
    mov esp, offset boot_stack_top
    cld
    call descriptors_init
    call serial_init
    HANDLE VECTOR_PAGE, on_page_fault
    HANDLE VECTOR_PROTECTION, on_fault
    call paging_on
    OUT_LINE "on"
    call demand
    call bits
    call protection
    call aliases
#ifdef PAE
    call no_execute
#endif
    call ring_3
    EXIT 0

/* Maps 16 MiB to themselves with large pages, of which ring 3 may use those of its section, and the window with a table. */
paging_on:
    mov edi, offset directory
    mov eax, PAGE_PRESENT | PAGE_WRITABLE | PAGE_LARGE
    mov ecx, 0x1000000 >> LARGE_SHIFT
1:  mov [edi], eax
    cmp eax, 0x400000
    jb 2f
    cmp eax, offset user_end
    jae 2f
    or dword ptr [edi], PAGE_USER
2:  add eax, LARGE_SIZE
    add edi, ENTRY_SIZE
    dec ecx
    jnz 1b
    mov eax, offset window_table
    or eax, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER
    mov [window_directory_entry], eax
#ifdef PAE
    mov eax, offset directory
    or eax, PAGE_PRESENT            /* nothing else is allowed in these four (SDM 3A 4.4.1) */
    mov [pointers], eax
    mov eax, offset window_directory
    or eax, PAGE_PRESENT
    mov [pointers + 8], eax
    mov ecx, EFER
    rdmsr
    or eax, EFER_NXE
    wrmsr
    mov eax, CR4_PAE
    mov cr4, eax
    mov eax, offset pointers
#else
    mov eax, CR4_PSE
    mov cr4, eax
    mov eax, offset directory
#endif
    mov cr3, eax
    mov eax, cr0
    or eax, CR0_PG | CR0_WP
    mov cr0, eax
    ret

/* Maps the page that is missing if it lies in the window, and counts. Any other fault is told, and goes on where FAULTS said. */
on_page_fault:
    mov eax, cr2
    mov ebx, eax
    sub ebx, WINDOW
    cmp ebx, WINDOW_SIZE - 0x1000
    jae 1f
    test dword ptr [edi + FRAME_ERROR], PAGE_PRESENT
    jnz 1f
    inc dword ptr [mapped]
    and ebx, ~0xfff
    lea ecx, [ebx + FRAMES + PAGE_PRESENT + PAGE_WRITABLE + PAGE_USER]
    shr ebx, 12
    mov [window_table + ebx * ENTRY_SIZE], ecx
    ret
1:  push eax
    call on_fault
    pop eax
    REPORT "address"
    ret

/* Touches pages, each by another offset, first with loads, then with stores. */
demand:
    mov esi, WINDOW
    mov ecx, PAGES_TOUCHED
    xor edx, edx
1:  mov eax, [esi + ecx * 4]
    lea eax, [eax + ecx * 8 + 1]
    mov [esi + ecx * 4], eax
    add esi, 0x1000
    dec ecx
    jnz 1b
    mov esi, WINDOW
    mov ecx, PAGES_TOUCHED
2:  add edx, [esi + ecx * 4]
    rol edx, 5
    add esi, 0x1000
    dec ecx
    jnz 2b
    mov eax, edx
    REPORT "demand"
    mov eax, [mapped]
    REPORT "mapped"
    mov esi, WINDOW + 0x100ffe      /* a store over a page boundary, both pages missing */
    mov dword ptr [esi], 0x12345678
    movzx eax, word ptr [esi + 2]
    REPORT "straddle"
    mov eax, [mapped]
    REPORT "mapped"
    ret

/* Accessed and dirty, as a load, a store and a clearing of the bits leave them. */
bits:
    mov eax, OWN_FRAME + PAGE_PRESENT + PAGE_WRITABLE
    mov [ENTRY_OF(OWN_PAGE)], eax
    mov eax, [OWN_PAGE]
    mov eax, [ENTRY_OF(OWN_PAGE)]
    REPORT "after load"
    mov [OWN_PAGE], eax
    mov eax, [ENTRY_OF(OWN_PAGE)]
    REPORT "after store"
    and dword ptr [ENTRY_OF(OWN_PAGE)], ~(PAGE_ACCESSED | PAGE_DIRTY)
    invlpg [OWN_PAGE]
    mov eax, [OWN_PAGE]
    mov eax, [ENTRY_OF(OWN_PAGE)]
    REPORT "after clear"
    mov eax, [directory]            /* the page of this code, and its tables */
    REPORT "large page"
    ret

/* A page that may only be read, for ring 0 with and without CR0.WP. */
protection:
    and dword ptr [ENTRY_OF(OWN_PAGE)], ~PAGE_WRITABLE
    invlpg [OWN_PAGE]
    mov eax, 1
    FAULTS mov [OWN_PAGE], eax
    mov eax, cr0
    and eax, ~CR0_WP
    mov cr0, eax
    mov dword ptr [OWN_PAGE], 0x600d
    mov eax, cr0
    or eax, CR0_WP
    mov cr0, eax
    FAULTS mov [OWN_PAGE], eax
    mov eax, [OWN_PAGE]
    REPORT "write"
    and dword ptr [ENTRY_OF(OWN_PAGE)], ~PAGE_PRESENT
    invlpg [OWN_PAGE]
    FAULTS mov eax, [OWN_PAGE]
    ret

/* One linear address, mapped to one frame after the other. */
aliases:
    mov dword ptr [FRAMES], 0xaaaa
    mov dword ptr [FRAMES + 0x1000], 0xbbbb
    mov dword ptr [ENTRY_OF(OWN_PAGE)], FRAMES + PAGE_PRESENT + PAGE_WRITABLE
    invlpg [OWN_PAGE]
    mov eax, [OWN_PAGE]
    mov dword ptr [ENTRY_OF(OWN_PAGE)], FRAMES + 0x1000 + PAGE_PRESENT + PAGE_WRITABLE
    invlpg [OWN_PAGE]
    shl eax, 16
    or eax, [OWN_PAGE]
    REPORT "aliases"
    ret

#ifdef PAE
/* A page that may not be executed. */
no_execute:
    mov byte ptr [OWN_PAGE], 0xc3   /* RET */
    mov eax, OWN_PAGE
    call eax
    mov dword ptr [ENTRY_OF(OWN_PAGE) + 4], 1 << 31
    invlpg [OWN_PAGE]
    mov [resume_stack], esp
    mov dword ptr [fault_resume], offset 1f
    call eax
1:  mov esp, [resume_stack]         /* the CALL pushed before its target faulted */
    mov dword ptr [ENTRY_OF(OWN_PAGE) + 4], 0
    ret
#endif

on_tick:
    inc dword ptr [ticks]
    mov al, OCW2_EOI
    out PIC1_COMMAND, al
    ret

/* Ring 3 with a timer: touches memory, is refused what is not its own, computes until there were ticks. */
ring_3:
    HANDLE VECTOR_CALL, on_call
    HANDLE VECTOR_PIC, on_tick
    mov al, VECTOR_PIC
    mov bx, 0xfffe
    call pic_init
    mov bx, PIT_1KHZ
    call pit_start
    mov dword ptr [mapped], 0
    mov [ring_0_stack], esp
    ENTER_USER user, user_stack_top

/* What ring 3 can call: EAX = 0 comes back here, 1 prints EBX, 2 says in EAX how many ticks there were, 3 goes on at EBX after
 * the next fault. */
on_call:
    mov eax, [edi + FRAME_EAX]
    mov ebx, [edi + FRAME_EBX]
    cmp eax, 1
    jb 2f
    je 3f
    cmp eax, 3
    je 4f
    mov eax, [ticks]
    mov [edi + FRAME_EAX], eax
    ret
2:  mov esp, [ring_0_stack]
    mov eax, [mapped]
    REPORT "mapped"
    mov eax, [ticks]
    REPORT_TIME "ticks"
    ret                             /* from ring_3 */
3:  mov eax, ebx
    REPORT "ring3"
    ret
4:  mov [fault_resume], ebx
    ret

/* One instruction of ring 3 that faults. */
.macro USER_FAULTS instruction:vararg
    mov ebx, offset .Lresume\@
    mov eax, 3
    int VECTOR_CALL
    \instruction
.Lresume\@:
.endm

    .section .user, "awx"
user:
    mov esi, WINDOW + 0x80000
    mov ecx, PAGES_TOUCHED
1:  mov [esi], ecx
    add esi, 0x1000
    dec ecx
    jnz 1b
    mov ebx, [WINDOW + 0x80000]
    mov eax, 1
    int VECTOR_CALL
    USER_FAULTS mov eax, [0x100000]         /* ring 0's pages */
    USER_FAULTS mov [0x100000], eax
    USER_FAULTS hlt
    USER_FAULTS jmp dword ptr [user_target]
    /* Rounds of arithmetic in registers and in a page, until the clock has ticked enough. */
2:  mov eax, 1
    mov ecx, 100000
3:  imul eax, eax, 1103515245
    add eax, ecx
    xor [user_word], eax
    dec ecx
    jnz 3b
    mov ebx, eax
    mov eax, 2
    int VECTOR_CALL
    cmp eax, TICKS_AWAITED
    jb 2b
    mov eax, 1                      /* every round has the same result */
    int VECTOR_CALL
    xor eax, eax
    int VECTOR_CALL

    .balign 16
user_word:
    .skip 4
user_target:
    .long 0x100000
    .skip 4096
user_stack_top:

    .bss
    .balign 4096
directory:
    .skip 4096
window_table:
    .skip 4096
#ifdef PAE
window_directory:
window_directory_entry:
    .skip 4096
    .balign 32
pointers:
    .skip 32
#endif
mapped:
    .skip 4
ticks:
    .skip 4
ring_0_stack:
    .skip 4
resume_stack:
    .skip 4
    .text

#include "protected.S"
#include "text.S"
#include "timer.S"
