//! The programs that the probes run, as source: each is assembled for 16, 32 and 64 bits alike.
//!
//! Not responsible for: the tables around them (`stage`), what their outcome means (each probe).
//!
//! Every program ends in HLT. Ring 0 leaves by it; at ring 3 it raises #GP, whose handler is another HLT. So no program
//! needs an instruction that an emulator of ring 0 might lack.
#![allow(unsafe_code)] // the assembler's symbols have no other names in Rust than as foreign statics

/// One program in the three encodings.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// For real mode.
    pub bits_16: &'static [u8],
    /// For protected mode.
    pub bits_32: &'static [u8],
    /// For long mode.
    pub bits_64: &'static [u8],
}

macro_rules! program {
    ($(#[$doc:meta])* $name:ident, $($line:literal),+) => {
        std::arch::global_asm!(
            ".pushsection .rodata.gemel_passport, \"a\"",
            ".code16",
            concat!(".globl gemel_passport_", stringify!($name), "_16"),
            concat!("gemel_passport_", stringify!($name), "_16:"),
            $($line,)+
            ".code32",
            concat!(".globl gemel_passport_", stringify!($name), "_32"),
            concat!("gemel_passport_", stringify!($name), "_32:"),
            $($line,)+
            ".code64",
            concat!(".globl gemel_passport_", stringify!($name), "_64"),
            concat!("gemel_passport_", stringify!($name), "_64:"),
            $($line,)+
            concat!(".globl gemel_passport_", stringify!($name), "_end"),
            concat!("gemel_passport_", stringify!($name), "_end:"),
            ".popsection",
        );
        $(#[$doc])*
        pub fn $name() -> Program {
            unsafe extern "C" {
                #[link_name = concat!("gemel_passport_", stringify!($name), "_16")]
                static BITS_16: u8;
                #[link_name = concat!("gemel_passport_", stringify!($name), "_32")]
                static BITS_32: u8;
                #[link_name = concat!("gemel_passport_", stringify!($name), "_64")]
                static BITS_64: u8;
                #[link_name = concat!("gemel_passport_", stringify!($name), "_end")]
                static END: u8;
            }
            // SAFETY: the four labels stand in this order in one piece of read-only data, put there by the assembler above.
            unsafe {
                let marks = [&raw const BITS_16, &raw const BITS_32, &raw const BITS_64, &raw const END];
                let between = |n: usize| {
                    std::slice::from_raw_parts(marks[n], marks[n + 1] as usize - marks[n] as usize)
                };
                Program { bits_16: between(0), bits_32: between(1), bits_64: between(2) }
            }
        }
    };
}

program!(
    /// Counts ECX down: two instructions a round.
    countdown, "2: dec ecx", "jnz 2b", "hlt");
program!(
    /// Three instructions of one byte, to be stepped over and stopped at.
    three_nops, "nop", "nop", "nop", "hlt");
program!(
    /// Opens the interrupt window, then counts in EAX what is executed after it should have been used.
    open_window, "sti", "nop", "2: inc eax", "dec ecx", "jnz 2b", "hlt");
program!(
    /// As [`open_window`], where the window is open from the start.
    in_window, "2: inc eax", "dec ecx", "jnz 2b", "hlt");
program!(
    /// The time-stamp counter to EDX:EAX.
    rdtsc, "rdtsc", "hlt");
program!(
    /// The time-stamp counter and TSC_AUX.
    rdtscp, "rdtscp", "hlt");
program!(
    /// A leaf of CPUID: EAX and ECX say which.
    cpuid, "cpuid", "hlt");
program!(
    /// A random number to EAX.
    rdrand, "rdrand eax", "hlt");
program!(
    /// A seed to EAX.
    rdseed, "rdseed eax", "hlt");
program!(
    /// Performance counter ECX to EDX:EAX.
    rdpmc, "rdpmc", "hlt");
program!(
    /// Trailing zeros of ECX: with BMI1 the count for 8 clears ZF and CF; without it is BSF.
    /// For ECX = 0, TZCNT gives 32 and BSF leaves EAX alone.
    tzcnt, ".byte 0xf3, 0x0f, 0xbc, 0xc1", "hlt");
program!(
    /// Leading zeros of ECX: 29 for 7 by LZCNT, 2 by BSR.
    lzcnt, ".byte 0xf3, 0x0f, 0xbd, 0xc1", "hlt");
program!(
    /// Enters the kernel through LSTAR.
    syscall, "syscall", "hlt");
program!(
    /// A software interrupt through a gate of privilege 3.
    int_80, "int 0x80", "hlt");
program!(
    /// Adds packed singles: XMM0 = XMM0 + XMM0, with its low element to EAX.
    sse, "movd xmm0, ecx", "addps xmm0, xmm0", "movd eax, xmm0", "hlt");
program!(
    /// Adds on the x87 unit: 1 + 1 as an integer at [EDI].
    x87, "fninit", "fld1", "fld1", "faddp", "fistp dword ptr [edi]", "mov eax, [edi]", "hlt");
program!(
    /// Leaves by port I/O, again and again.
    port_exits, "2: out dx, al", "jmp 2b");
program!(
    /// Leaves by a store to what is not RAM, again and again.
    store_exits, "2: mov [edi], al", "jmp 2b");
program!(
    /// Halts again and again.
    halts, "2: hlt", "jmp 2b");
program!(
    /// Reads a register that KVM does not know, again and again.
    msr_exits, "2: rdmsr", "jmp 2b");
program!(
    /// CPUID, ESI times.
    cpuids, "2: xor eax, eax", "cpuid", "dec esi", "jnz 2b", "hlt");
program!(
    /// One load.
    load, "mov al, [edi]", "hlt");
program!(
    /// Stores to two pages and a load from a third.
    two_stores, "mov [edi], al", "mov [esi], al", "mov al, [ebx]", "hlt");
program!(
    /// A loop whose last round skips a load that all rounds before it made: from EDI in those, from ESI in the last, where only
    /// a processor that runs ahead of the branch would load. The division keeps the branch waiting.
    /// EBX rounds, EBP = 1.
    run_ahead,
    "2: cmp ebx, 1", "cmove edi, esi",
    "mov eax, ebx", "xor edx, edx", "div ebp", "xor edx, edx", "div ebp", "xor edx, edx", "div ebp",
    "cmp eax, 1", "je 3f", "mov cl, [edi]",
    "3: dec ebx", "jnz 2b", "hlt");
