/* A driver of the first virtio disk (Virtio 1.2, 4.1 and 5.2): finds the function and its structures on PCI, sets up one queue,
 * writes and reads blocks and compares them, first polling the ring, then with interrupts by MSI-X.
 *
 * Not responsible for: what else is on the disk. It overwrites BLOCKS blocks from FIRST_SECTOR on. */
#define KERNEL "longmode"
#define BITS 64
#include "text.h"
#include "long.h"

#define SLOT            1
#define VENDOR          0x1af4
#define PCI_COMMAND     0x04
#define PCI_BAR0        0x10
#define PCI_CAPABILITY  0x34
#define MEMORY_AND_MASTER 6
#define CAPABILITY_VENDOR 0x09
#define CAPABILITY_MSIX 0x11
#define MSIX_ENABLE     0x80000000      /* in the double word of the capability's id */
#define VECTOR_DISK     0x51

/* Structures of a virtio function, by the capability's type (4.1.4) */
#define COMMON          1
#define NOTIFY          2
#define DEVICE          4

/* Common configuration (4.1.4.3) */
#define DRIVER_SELECT   8
#define DRIVER_FEATURES 12
#define STATUS          20
#define QUEUE_SELECT    22
#define QUEUE_SIZE      24
#define QUEUE_VECTOR    26
#define QUEUE_ENABLE    28
#define QUEUE_NOTIFY    30
#define QUEUE_DESC      32
#define QUEUE_DRIVER    40
#define QUEUE_DEVICE    48
#define ACKNOWLEDGE     1
#define DRIVER          2
#define DRIVER_OK       4
#define FEATURES_OK     8
#define VERSION_1_HIGH  1               /* bit 32 */
#define NO_VECTOR       0xffff

#define RING_SIZE       8
#define DESC_NEXT       1
#define DESC_WRITE      2               /* for the device to write */
#define REQUEST_IN      0
#define REQUEST_OUT     1
#define SECTOR          512
#define BLOCK           4096
#define BLOCKS          16
#define FIRST_SECTOR    64

    .global disk
disk:
    call find
    jc 9f
    call set_up
    mov rsi, [structures + 8 * DEVICE]
    mov eax, [rsi]                      /* capacity in sectors */
    REPORT "disk sectors"
    call transfer
    mov eax, r15d
    REPORT "polled"
    call use_interrupts
    call transfer
    mov eax, r15d
    REPORT "interrupted"
    mov eax, [interrupts]               /* one for each request, or fewer where the disk was faster than the HLT */
    REPORT_TIME "interrupts"
    ret
9:  OUT_LINE "no disk"
    ret

/* EAX = the double word at EAX of the function's configuration space; keeps all else. */
config_read:
    push rdx
    or eax, PCI_ENABLE | SLOT << 11
    mov dx, PCI_ADDRESS
    out dx, eax
    mov dx, PCI_DATA
    in eax, dx
    pop rdx
    ret

/* Stores EDX to the double word at EAX. */
config_write:
    push rdx
    or eax, PCI_ENABLE | SLOT << 11
    mov dx, PCI_ADDRESS
    out dx, eax
    mov dx, PCI_DATA
    pop rax
    out dx, eax
    mov edx, eax
    ret

/* RAX = the address of BAR number EAX, whose other bits are ignored. */
bar_address:
    and eax, 7
    shl eax, 2
    add eax, PCI_BAR0
    call config_read
    and eax, ~15
    ret

/* Walks the capabilities and keeps the addresses of structures, notification and MSI-X table. CF is set without a disk. */
find:
    xor eax, eax
    call config_read
    cmp ax, VENDOR
    jne 9f
    mov eax, PCI_COMMAND
    call config_read
    mov edx, eax
    or edx, MEMORY_AND_MASTER
    mov eax, PCI_COMMAND
    call config_write
    mov eax, PCI_CAPABILITY
    call config_read
    movzx ebx, al
1:  test ebx, ebx
    jz 8f
    mov eax, ebx
    call config_read
    mov ecx, eax                        /* id, next, length, type */
    cmp cl, CAPABILITY_MSIX
    je 3f
    cmp cl, CAPABILITY_VENDOR
    jne 4f
    mov edx, ecx
    shr edx, 24                         /* type */
    cmp edx, DEVICE
    ja 4f
    lea eax, [rbx + 4]
    call config_read
    call bar_address
    mov esi, eax
    lea eax, [rbx + 8]
    call config_read
    add esi, eax
    mov [structures + 8 * rdx], rsi
    cmp edx, NOTIFY
    jne 4f
    lea eax, [rbx + 16]
    call config_read
    mov [notify_multiplier], eax
    jmp 4f
3:  mov [msix_capability], ebx
    lea eax, [rbx + 4]
    call config_read
    mov esi, eax
    call bar_address
    and esi, ~7
    add esi, eax
    mov [msix_table], rsi
4:  movzx ebx, ch
    jmp 1b
8:  clc
    ret
9:  stc
    ret

/* Resets the device, agrees on features, gives it the ring. */
set_up:
    mov rbx, [structures + 8 * COMMON]
    mov byte ptr [rbx + STATUS], 0
    mov byte ptr [rbx + STATUS], ACKNOWLEDGE | DRIVER
    mov dword ptr [rbx + DRIVER_SELECT], 0
    mov dword ptr [rbx + DRIVER_FEATURES], 0
    mov dword ptr [rbx + DRIVER_SELECT], 1
    mov dword ptr [rbx + DRIVER_FEATURES], VERSION_1_HIGH
    mov byte ptr [rbx + STATUS], ACKNOWLEDGE | DRIVER | FEATURES_OK
    movzx eax, byte ptr [rbx + STATUS]
    REPORT "disk status"
    mov word ptr [rbx + QUEUE_SELECT], 0
    mov word ptr [rbx + QUEUE_SIZE], RING_SIZE
    mov word ptr [rbx + QUEUE_VECTOR], NO_VECTOR
    mov eax, offset descriptors
    mov [rbx + QUEUE_DESC], eax
    mov dword ptr [rbx + QUEUE_DESC + 4], 0
    mov eax, offset available
    mov [rbx + QUEUE_DRIVER], eax
    mov dword ptr [rbx + QUEUE_DRIVER + 4], 0
    mov eax, offset used
    mov [rbx + QUEUE_DEVICE], eax
    mov dword ptr [rbx + QUEUE_DEVICE + 4], 0
    movzx eax, word ptr [rbx + QUEUE_NOTIFY]
    imul eax, [notify_multiplier]
    add rax, [structures + 8 * NOTIFY]
    mov [notify], rax
    mov word ptr [rbx + QUEUE_ENABLE], 1
    mov byte ptr [rbx + STATUS], ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
    ret

/* From now on completions interrupt: entry 0 of the MSI-X table goes to the local APIC. */
use_interrupts:
    HANDLE VECTOR_DISK, on_completion
    mov rbx, [msix_table]
    mov dword ptr [rbx], LAPIC
    mov dword ptr [rbx + 4], 0
    mov dword ptr [rbx + 8], VECTOR_DISK
    mov dword ptr [rbx + 12], 0
    mov eax, [msix_capability]
    call config_read
    mov edx, eax
    or edx, MSIX_ENABLE
    mov eax, [msix_capability]
    call config_write
    mov rbx, [structures + 8 * COMMON]
    mov word ptr [rbx + QUEUE_VECTOR], 0
    mov byte ptr [by_interrupt], 1
    ret

on_completion:
    inc dword ptr [interrupts]
    mov eax, LAPIC
    mov dword ptr [rax + LAPIC_EOI], 0
    ret

/* Writes every block with a sequence of its own, then reads all and sums them into R15; ends the run where one is not what was
 * written. */
transfer:
    xor r14d, r14d
1:  call fill
    mov ecx, REQUEST_OUT
    mov r8d, offset outgoing
    call request
    inc r14d
    cmp r14d, BLOCKS
    jb 1b
    xor r14d, r14d
    xor r15d, r15d
2:  call fill
    mov ecx, REQUEST_IN
    mov r8d, offset incoming
    call request
    mov esi, offset outgoing
    mov edi, offset incoming
    mov ecx, BLOCK / 8
    repe cmpsq
    jne 9f
    mov esi, offset incoming
    mov ecx, BLOCK / 4
3:  lodsd
    add r15d, eax
    rol r15d, 3
    dec ecx
    jnz 3b
    inc r14d
    cmp r14d, BLOCKS
    jb 2b
    ret
9:  mov eax, r14d
    REPORT "wrong block"
    EXIT 1

/* Fills the outgoing block with the sequence of block R14. */
fill:
    mov edi, offset outgoing
    mov ecx, BLOCK / 4
    lea eax, [r14 + 1]
1:  imul eax, eax, 1103515245
    add eax, 12345
    stosd
    dec ecx
    jnz 1b
    ret

/* Makes a request of type ECX for block R14 with the buffer at R8, and waits until it is done. */
request:
    mov [header], ecx
    mov dword ptr [header + 4], 0
    imul rax, r14, BLOCK / SECTOR
    add rax, FIRST_SECTOR
    mov [header + 8], rax
    mov byte ptr [result], 0xff
    mov edx, DESC_NEXT
    cmp ecx, REQUEST_IN
    jne 1f
    or edx, DESC_WRITE
1:  mov qword ptr [descriptors], offset header
    mov dword ptr [descriptors + 8], 16
    mov dword ptr [descriptors + 12], DESC_NEXT | 1 << 16
    mov [descriptors + 16], r8
    mov dword ptr [descriptors + 24], BLOCK
    or edx, 2 << 16
    mov [descriptors + 28], edx
    mov qword ptr [descriptors + 32], offset result
    mov dword ptr [descriptors + 40], 1
    mov dword ptr [descriptors + 44], DESC_WRITE
    movzx eax, word ptr [available + 2]
    mov edx, eax
    and edx, RING_SIZE - 1
    mov word ptr [available + 4 + 2 * rdx], 0
    inc eax
    mov [available + 2], ax             /* the device sees the request with the index */
    mov rdx, [notify]
    mov word ptr [rdx], 0
    cmp byte ptr [by_interrupt], 0
    jne 3f
2:  pause
    cmp [used + 2], ax
    jne 2b
    jmp 4f
3:  cli
    cmp [used + 2], ax
    je 4f
    sti
    hlt                                 /* STI's shadow: no interrupt comes before the HLT */
    jmp 3b
4:  cmp byte ptr [result], 0
    jne 9f
    ret
9:  movzx eax, byte ptr [result]
    REPORT "request failed"
    EXIT 1

    .bss
    .balign 4096
outgoing:
    .skip BLOCK
incoming:
    .skip BLOCK
descriptors:
    .skip 16 * RING_SIZE
available:
    .skip 6 + 2 * RING_SIZE
    .balign 4
used:
    .skip 6 + 8 * RING_SIZE
    .balign 16
header:
    .skip 16
result:
    .skip 1
by_interrupt:
    .skip 1
    .balign 8
structures:
    .skip 8 * 5
notify:
    .skip 8
msix_table:
    .skip 8
notify_multiplier:
    .skip 4
msix_capability:
    .skip 4
interrupts:
    .skip 4
