//! The index of instructions: one line per mnemonic, with its binder, the flags it writes, and those among them that the
//! manuals leave undefined.
//!
//! Not responsible for: the instructions themselves; each family has a file named after its heading in SDM vol. 1
//! chapter 5. What silicon does with undefined flags is in `undefined`.
//!
//! A binder takes the decoded form and returns the handler made for its operand kinds and width, or `None` for a form that
//! does not exist, which raises #UD.

pub mod binary_arith;
pub mod bit_byte;
pub mod bit_manipulation;
pub mod cacheability;
pub mod control_register;
pub mod control_transfer;
pub mod data_transfer;
pub mod decimal_arith;
pub mod descriptor_table;
pub mod evex;
pub mod extended_state;
pub mod far_transfer;
pub mod fast_call;
pub mod flag_control;
pub mod floating_index;
pub mod interrupts;
pub mod io;
mod io_permission;
pub mod latitude;
pub mod logical;
pub mod mmx;
pub mod privileged_flags;
pub mod random;
pub mod segment_register;
pub mod shift_rotate;
pub mod simd;
pub mod simd_transfer;
pub mod simd_unmasked;
pub mod state_management;
pub mod string;
pub mod system;
pub mod undefined;
pub mod vex;
pub mod x87;
pub mod x87_control;

use crate::cpu::Cpu;
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::flags::{AF, CF, OF, PF, SF, ZF};
use iced_x86::EncodingKind;

/// Picks the handler of a width from a generic one.
macro_rules! by_width {
    ($f:expr, $handler:ident $(::<$($g:ty),+>)?) => {
        match $f.width {
            8 => $handler::<$($($g,)+)? u8> as $crate::op::Handler,
            16 => $handler::<$($($g,)+)? u16>,
            32 => $handler::<$($($g,)+)? u32>,
            64 => $handler::<$($($g,)+)? u64>,
            _ => return None,
        }
    };
}
/// The same for instructions without an 8-bit form.
macro_rules! by_wide_width {
    ($f:expr, $handler:ident $(::<$($g:ty),+>)?) => {
        match $f.width {
            16 => $handler::<$($($g,)+)? u16> as $crate::op::Handler,
            32 => $handler::<$($($g,)+)? u32>,
            64 => $handler::<$($($g,)+)? u64>,
            _ => return None,
        }
    };
}
pub(crate) use {by_wide_width, by_width};

const NONE: u64 = 0;
const ALL: u64 = OF | SF | ZF | AF | PF | CF;
const NOT_C: u64 = ALL & !CF;
const SZAP: u64 = SF | ZF | AF | PF;
const O_A: u64 = OF | AF;
const OSAPC: u64 = ALL & !ZF;
const AP: u64 = AF | PF;
const SAP: u64 = SF | AF | PF;
const OSZP: u64 = OF | SF | ZF | PF;
const OAC: u64 = OF | AF | CF;
const A: u64 = AF;
const C: u64 = CF;
const Z: u64 = ZF;
const OC: u64 = OF | CF;
const O: u64 = OF;
const OSAP: u64 = OF | SF | AF | PF;

/// One line of the index.
pub struct Entry {
    /// Makes the handler.
    pub bind: fn(&Form<'_>) -> Option<Handler>,
    /// Status flags that change.
    pub written: u64,
    /// Those of them that the manuals leave undefined.
    pub undefined: u64,
}

macro_rules! index {
    ($($mnemonic:ident => $bind:expr, $written:ident, $undefined:ident;)*) => {
        /// The index line of a mnemonic.
        pub fn entry(mnemonic: iced_x86::Mnemonic) -> Option<Entry> {
            Some(match mnemonic {
                $(iced_x86::Mnemonic::$mnemonic => Entry { bind: $bind, written: $written, undefined: $undefined },)*
                _ => return None,
            })
        }
    };
}

pub(crate) use index;

index! {
    // Data transfer
    Mov => data_transfer::mov, NONE, NONE;
    Movzx => data_transfer::movzx, NONE, NONE;
    Movsx => data_transfer::movsx, NONE, NONE;
    Movsxd => data_transfer::movsx, NONE, NONE;
    Xchg => data_transfer::xchg, NONE, NONE;
    Bswap => data_transfer::bswap, NONE, NONE;
    Movbe => data_transfer::movbe, NONE, NONE;
    Xadd => data_transfer::xadd, ALL, NONE;
    Cmpxchg => data_transfer::cmpxchg, ALL, NONE;
    Cmpxchg8b => data_transfer::cmpxchg8b, Z, NONE;
    Cmpxchg16b => data_transfer::cmpxchg16b, Z, NONE;
    Push => data_transfer::push, NONE, NONE;
    Pop => data_transfer::pop, NONE, NONE;
    Pusha => data_transfer::pusha, NONE, NONE;
    Pushad => data_transfer::pusha, NONE, NONE;
    Popa => data_transfer::popa, NONE, NONE;
    Popad => data_transfer::popa, NONE, NONE;
    Cbw => data_transfer::cbw, NONE, NONE;
    Cwde => data_transfer::cbw, NONE, NONE;
    Cdqe => data_transfer::cbw, NONE, NONE;
    Cwd => data_transfer::cwd, NONE, NONE;
    Cdq => data_transfer::cwd, NONE, NONE;
    Cqo => data_transfer::cwd, NONE, NONE;
    Cmovo => data_transfer::cmov::<0>, NONE, NONE;
    Cmovno => data_transfer::cmov::<1>, NONE, NONE;
    Cmovb => data_transfer::cmov::<2>, NONE, NONE;
    Cmovae => data_transfer::cmov::<3>, NONE, NONE;
    Cmove => data_transfer::cmov::<4>, NONE, NONE;
    Cmovne => data_transfer::cmov::<5>, NONE, NONE;
    Cmovbe => data_transfer::cmov::<6>, NONE, NONE;
    Cmova => data_transfer::cmov::<7>, NONE, NONE;
    Cmovs => data_transfer::cmov::<8>, NONE, NONE;
    Cmovns => data_transfer::cmov::<9>, NONE, NONE;
    Cmovp => data_transfer::cmov::<10>, NONE, NONE;
    Cmovnp => data_transfer::cmov::<11>, NONE, NONE;
    Cmovl => data_transfer::cmov::<12>, NONE, NONE;
    Cmovge => data_transfer::cmov::<13>, NONE, NONE;
    Cmovle => data_transfer::cmov::<14>, NONE, NONE;
    Cmovg => data_transfer::cmov::<15>, NONE, NONE;
    // Binary arithmetic
    Add => binary_arith::add, ALL, NONE;
    Adc => binary_arith::adc, ALL, NONE;
    Sub => binary_arith::sub, ALL, NONE;
    Sbb => binary_arith::sbb, ALL, NONE;
    Cmp => binary_arith::cmp, ALL, NONE;
    Neg => binary_arith::neg, ALL, NONE;
    Inc => binary_arith::inc, NOT_C, NONE;
    Dec => binary_arith::dec, NOT_C, NONE;
    Mul => binary_arith::mul, ALL, SZAP;
    Imul => binary_arith::imul, ALL, SZAP;
    Div => binary_arith::div, ALL, ALL;
    Idiv => binary_arith::idiv, ALL, ALL;
    // Decimal arithmetic
    Daa => decimal_arith::daa, ALL, O;
    Das => decimal_arith::das, ALL, O;
    Aaa => decimal_arith::aaa, ALL, OSZP;
    Aas => decimal_arith::aas, ALL, OSZP;
    Aam => decimal_arith::aam, ALL, OAC;
    Aad => decimal_arith::aad, ALL, OAC;
    // Logical
    And => logical::and, ALL, A;
    Or => logical::or, ALL, A;
    Xor => logical::xor, ALL, A;
    Test => logical::test, ALL, A;
    Not => logical::not, NONE, NONE;
    // Shift and rotate
    Shl => shift_rotate::shl, ALL, OAC;
    Sal => shift_rotate::shl, ALL, OAC;
    Shr => shift_rotate::shr, ALL, OAC;
    Sar => shift_rotate::sar, ALL, O_A;
    Rol => shift_rotate::rol, OC, O;
    Ror => shift_rotate::ror, OC, O;
    Rcl => shift_rotate::rcl, OC, O;
    Rcr => shift_rotate::rcr, OC, O;
    Shld => shift_rotate::shld, ALL, ALL;
    Shrd => shift_rotate::shrd, ALL, ALL;
    // Bit and byte
    Bt => bit_byte::bt, OSAPC, OSAP;
    Bts => bit_byte::bts, OSAPC, OSAP;
    Btr => bit_byte::btr, OSAPC, OSAP;
    Btc => bit_byte::btc, OSAPC, OSAP;
    Bsf => bit_byte::bsf, ALL, OSAPC;
    Bsr => bit_byte::bsr, ALL, OSAPC;
    Popcnt => bit_byte::popcnt, ALL, NONE;
    Seto => bit_byte::set::<0>, NONE, NONE;
    Setno => bit_byte::set::<1>, NONE, NONE;
    Setb => bit_byte::set::<2>, NONE, NONE;
    Setae => bit_byte::set::<3>, NONE, NONE;
    Sete => bit_byte::set::<4>, NONE, NONE;
    Setne => bit_byte::set::<5>, NONE, NONE;
    Setbe => bit_byte::set::<6>, NONE, NONE;
    Seta => bit_byte::set::<7>, NONE, NONE;
    Sets => bit_byte::set::<8>, NONE, NONE;
    Setns => bit_byte::set::<9>, NONE, NONE;
    Setp => bit_byte::set::<10>, NONE, NONE;
    Setnp => bit_byte::set::<11>, NONE, NONE;
    Setl => bit_byte::set::<12>, NONE, NONE;
    Setge => bit_byte::set::<13>, NONE, NONE;
    Setle => bit_byte::set::<14>, NONE, NONE;
    Setg => bit_byte::set::<15>, NONE, NONE;
    // Bit manipulation
    Andn => bit_manipulation::andn, ALL, AP;
    Bextr => bit_manipulation::bextr, ALL, SAP;
    Blsi => bit_manipulation::blsi, ALL, AP;
    Blsmsk => bit_manipulation::blsmsk, ALL, AP;
    Blsr => bit_manipulation::blsr, ALL, AP;
    Bzhi => bit_manipulation::bzhi, ALL, AP;
    Lzcnt => bit_manipulation::lzcnt, ALL, OSAP;
    Mulx => bit_manipulation::mulx, NONE, NONE;
    Pdep => bit_manipulation::pdep, NONE, NONE;
    Pext => bit_manipulation::pext, NONE, NONE;
    Rorx => bit_manipulation::rorx, NONE, NONE;
    Sarx => bit_manipulation::sarx, NONE, NONE;
    Shlx => bit_manipulation::shlx, NONE, NONE;
    Shrx => bit_manipulation::shrx, NONE, NONE;
    Tzcnt => bit_manipulation::tzcnt, ALL, OSAP;
    // Random numbers
    Rdrand => random::rdrand, ALL, NONE;
    Rdseed => random::rdrand, ALL, NONE;
    // Control transfer (near; far ones are in far_transfer)
    Jmp => control_transfer::jmp, NONE, NONE;
    Call => control_transfer::call, NONE, NONE;
    Ret => control_transfer::ret, NONE, NONE;
    Jo => control_transfer::jcc::<0>, NONE, NONE;
    Jno => control_transfer::jcc::<1>, NONE, NONE;
    Jb => control_transfer::jcc::<2>, NONE, NONE;
    Jae => control_transfer::jcc::<3>, NONE, NONE;
    Je => control_transfer::jcc::<4>, NONE, NONE;
    Jne => control_transfer::jcc::<5>, NONE, NONE;
    Jbe => control_transfer::jcc::<6>, NONE, NONE;
    Ja => control_transfer::jcc::<7>, NONE, NONE;
    Js => control_transfer::jcc::<8>, NONE, NONE;
    Jns => control_transfer::jcc::<9>, NONE, NONE;
    Jp => control_transfer::jcc::<10>, NONE, NONE;
    Jnp => control_transfer::jcc::<11>, NONE, NONE;
    Jl => control_transfer::jcc::<12>, NONE, NONE;
    Jge => control_transfer::jcc::<13>, NONE, NONE;
    Jle => control_transfer::jcc::<14>, NONE, NONE;
    Jg => control_transfer::jcc::<15>, NONE, NONE;
    Jcxz => control_transfer::jcxz, NONE, NONE;
    Jecxz => control_transfer::jcxz, NONE, NONE;
    Jrcxz => control_transfer::jcxz, NONE, NONE;
    Loop => control_transfer::loop_, NONE, NONE;
    Loope => control_transfer::loop_on_condition, NONE, NONE;
    Loopne => control_transfer::loop_on_condition, NONE, NONE;
    Enter => control_transfer::enter, NONE, NONE;
    Leave => control_transfer::leave, NONE, NONE;
    Bound => control_transfer::bound, NONE, NONE;
    // String
    Movsb => string::movs, NONE, NONE;
    Movsw => string::movs, NONE, NONE;
    Movsd => string::movs, NONE, NONE;
    Movsq => string::movs, NONE, NONE;
    Stosb => string::stos, NONE, NONE;
    Stosw => string::stos, NONE, NONE;
    Stosd => string::stos, NONE, NONE;
    Stosq => string::stos, NONE, NONE;
    Lodsb => string::lods, NONE, NONE;
    Lodsw => string::lods, NONE, NONE;
    Lodsd => string::lods, NONE, NONE;
    Lodsq => string::lods, NONE, NONE;
    Cmpsb => string::cmps, ALL, NONE;
    Cmpsw => string::cmps, ALL, NONE;
    Cmpsd => string::cmps, ALL, NONE;
    Cmpsq => string::cmps, ALL, NONE;
    Scasb => string::scas, ALL, NONE;
    Scasw => string::scas, ALL, NONE;
    Scasd => string::scas, ALL, NONE;
    Scasq => string::scas, ALL, NONE;
    // I/O
    In => io::in_, NONE, NONE;
    Out => io::out, NONE, NONE;
    Insb => io::ins, NONE, NONE;
    Insw => io::ins, NONE, NONE;
    Insd => io::ins, NONE, NONE;
    Outsb => io::outs, NONE, NONE;
    Outsw => io::outs, NONE, NONE;
    Outsd => io::outs, NONE, NONE;
    // Flag control
    Clc => flag_control::clc, C, NONE;
    Stc => flag_control::stc, C, NONE;
    Cmc => flag_control::cmc, C, NONE;
    Cld => flag_control::cld, NONE, NONE;
    Std => flag_control::std, NONE, NONE;
    Lahf => flag_control::lahf, NONE, NONE;
    Sahf => flag_control::sahf, ALL, NONE;
    Salc => flag_control::salc, NONE, NONE;
    Cli => privileged_flags::cli, NONE, NONE;
    Sti => privileged_flags::sti, NONE, NONE;
    Pushf => privileged_flags::pushf, NONE, NONE;
    Pushfd => privileged_flags::pushf, NONE, NONE;
    Pushfq => privileged_flags::pushf, NONE, NONE;
    Popf => privileged_flags::popf, ALL, NONE;
    Popfd => privileged_flags::popf, ALL, NONE;
    Popfq => privileged_flags::popf, ALL, NONE;
    // Far control transfer and interrupts
    Retf => far_transfer::retf, NONE, NONE;
    Int => interrupts::int, NONE, NONE;
    Int3 => interrupts::int3, NONE, NONE;
    Into => interrupts::into, NONE, NONE;
    Int1 => interrupts::int1, NONE, NONE;
    Iret => interrupts::iret, ALL, NONE;
    Iretd => interrupts::iret, ALL, NONE;
    Iretq => interrupts::iret, ALL, NONE;
    Syscall => fast_call::syscall, ALL, NONE;
    Sysret => fast_call::sysret, ALL, NONE;
    Sysretq => fast_call::sysret, ALL, NONE;
    Sysenter => fast_call::sysenter, NONE, NONE;
    Sysexit => fast_call::sysexit, NONE, NONE;
    Sysexitq => fast_call::sysexit, NONE, NONE;
    Swapgs => fast_call::swapgs, NONE, NONE;
    // Segment registers
    Lds => segment_register::lds, NONE, NONE;
    Les => segment_register::les, NONE, NONE;
    Lss => segment_register::lss, NONE, NONE;
    Lfs => segment_register::lfs, NONE, NONE;
    Lgs => segment_register::lgs, NONE, NONE;
    Rdfsbase => segment_register::rdfsbase, NONE, NONE;
    Rdgsbase => segment_register::rdgsbase, NONE, NONE;
    Wrfsbase => segment_register::wrfsbase, NONE, NONE;
    Wrgsbase => segment_register::wrgsbase, NONE, NONE;
    // System
    Lgdt => descriptor_table::lgdt, NONE, NONE;
    Lidt => descriptor_table::lidt, NONE, NONE;
    Sgdt => descriptor_table::sgdt, NONE, NONE;
    Sidt => descriptor_table::sidt, NONE, NONE;
    Lldt => descriptor_table::lldt, NONE, NONE;
    Ltr => descriptor_table::ltr, NONE, NONE;
    Sldt => descriptor_table::sldt, NONE, NONE;
    Str => descriptor_table::str, NONE, NONE;
    Lar => descriptor_table::lar, Z, NONE;
    Lsl => descriptor_table::lsl, Z, NONE;
    Verr => descriptor_table::verr, Z, NONE;
    Verw => descriptor_table::verw, Z, NONE;
    Arpl => descriptor_table::arpl, Z, NONE;
    Lmsw => control_register::lmsw, NONE, NONE;
    Smsw => control_register::smsw, NONE, NONE;
    Clts => control_register::clts, NONE, NONE;
    Hlt => system::hlt, NONE, NONE;
    Invlpg => system::invalidate, NONE, NONE;
    Invd => system::invalidate, NONE, NONE;
    Wbinvd => system::invalidate, NONE, NONE;
    Invpcid => system::invpcid, NONE, NONE;
    Cpuid => system::cpuid, NONE, NONE;
    Rdtsc => system::rdtsc, NONE, NONE;
    Rdtscp => system::rdtscp, NONE, NONE;
    Rdpmc => system::rdpmc, NONE, NONE;
    Rdmsr => system::rdmsr, NONE, NONE;
    Wrmsr => system::wrmsr, NONE, NONE;
    Xgetbv => system::xgetbv, NONE, NONE;
    Xsetbv => system::xsetbv, NONE, NONE;
    Stac => system::stac, NONE, NONE;
    Clac => system::clac, NONE, NONE;
    Ud0 => system::ud, NONE, NONE;
    Ud1 => system::ud, NONE, NONE;
    Ud2 => system::ud, NONE, NONE;
    Monitor => system::ud, NONE, NONE;
    Mwait => system::ud, NONE, NONE;
    Rsm => system::ud, NONE, NONE;
    // Miscellaneous
    Lea => data_transfer::lea, NONE, NONE;
    Xlatb => data_transfer::xlat, NONE, NONE;
    Nop => data_transfer::nop, NONE, NONE;
    Pause => data_transfer::nop, NONE, NONE;
    Endbr64 => data_transfer::nop, NONE, NONE;
    Endbr32 => data_transfer::nop, NONE, NONE;
    Rdsspd => data_transfer::nop, NONE, NONE;
    Rdsspq => data_transfer::nop, NONE, NONE;
    Reservednop => data_transfer::nop, NONE, NONE;
}

/// The line of a mnemonic in any of the indices.
pub fn find(mnemonic: iced_x86::Mnemonic) -> Option<Entry> {
    entry(mnemonic)
        .or_else(|| floating_index::entry(mnemonic))
        .or_else(|| vex::index::entry(mnemonic))
        .or_else(|| evex::index::entry(mnemonic))
}

/// The handler of a decoded form, or `None` when the form does not exist here.
pub fn bind(f: &Form<'_>) -> Option<Handler> {
    let line = if f.code.encoding() == EncodingKind::EVEX {
        evex::index::entry(f.mnemonic)
    } else {
        find(f.mnemonic)
    };
    (line?.bind)(f)
}

/// The handler of what is no instruction.
pub fn undefined(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    c.undefined()
}
