/* What the handlers of 32-bit and 64-bit mode share: a way in for each vector, and the handlers that say what came.
 *
 * A way in pushes the error code, zero where the processor pushes none, and the vector, and goes to `trapped`, which makes the rest of
 * the frame and calls the vector's handler with xDI at it.
 *
 * Not responsible for: the frame and the way back (long.S, protected.S, which include this). */

/* The exceptions that push an error code themselves (SDM 3A, table 6-1) */
#define ERROR_CODES (1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17)

    .balign 16
ways_in:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector > 31 || !(ERROR_CODES >> (vector & 31) & 1)
    push 0
    .endif
    .byte 0x68                  /* PUSH imm32 */
    .long vector
    jmp trapped
    .set vector, vector + 1
    .endr

/* A vector without a handler came. */
unexpected:
    call put_out
    SAY "unexpected "
    call put_trap
    SAY " "
    SAY IP_NAME
    SAY " "
    mov eax, [xdi + FRAME_IP]
    call put_hex
    SAY_LINE ""
    EXIT 1

/* Handlers that say the vector and the error code. After a fault it goes on at fault_resume; after a trap, behind the
 * instruction. */
    .global on_fault
on_fault:
    mov xax, [fault_resume]
    mov [xdi + FRAME_IP], xax
on_trap:
    call put_out
    call put_trap
    SAY_LINE ""
    ret

put_trap:
    SAY "vector "
    mov eax, [xdi + FRAME_VECTOR]
    call put_decimal
    SAY " error "
    mov eax, [xdi + FRAME_ERROR]
    jmp put_hex
