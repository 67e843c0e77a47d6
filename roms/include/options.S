/* Options on a multiboot kernel's command line, in 64-bit mode: NAME=value among other words.
 *
 * Not responsible for: where the command line is. */
#include "mode.h"

/* Looks for the text at RDI in the one at RSI, both ending with a zero byte. RSI is then behind it, or 0 if it is not there. */
    .global find_text
find_text:
    xor ecx, ecx
1:  mov al, [rdi + rcx]
    test al, al
    jz 3f
    cmp al, [rsi + rcx]
    jne 2f
    inc rcx
    jmp 1b
2:  cmp byte ptr [rsi], 0
    je 4f
    inc rsi
    jmp find_text
3:  add rsi, rcx
    ret
4:  xor esi, esi
    ret

/* RAX = the decimal number at RSI. */
    .global read_decimal
read_decimal:
    xor eax, eax
1:  movzx ecx, byte ptr [rsi]
    sub ecx, '0'
    cmp ecx, 9
    ja 2f
    imul rax, rax, 10
    add rax, rcx
    inc rsi
    jmp 1b
2:  ret
