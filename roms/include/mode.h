/* Names for the whole registers of the mode that a file is assembled for, so that one source serves three modes. A file that
 * includes this defines BITS first: 16, 32 or 64. Not responsible for: getting into that mode. */
#ifndef GEMEL_ROMS_MODE
#define GEMEL_ROMS_MODE

#if BITS == 16 || BITS == 32
#define xax eax
#define xbx ebx
#define xcx ecx
#define xdx edx
#define xsi esi
#define xdi edi
#elif BITS == 64
#define xax rax
#define xbx rbx
#define xcx rcx
#define xdx rdx
#define xsi rsi
#define xdi rdi
#else
#error "BITS is 16, 32 or 64"
#endif

/* Everything is linked below 2 GiB: an address fits the immediate of a MOV in every mode. */
#if BITS == 64
#define ADDRESS_OF(register, symbol) mov register, offset flat:symbol
#else
#define ADDRESS_OF(register, symbol) mov register, offset symbol
#endif

.intel_syntax noprefix
#if BITS == 16
.code16
#elif BITS == 32
.code32
#else
.code64
#endif

#endif
