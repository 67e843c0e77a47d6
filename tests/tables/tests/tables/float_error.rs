//! x87 errors with CR0.NE clear: FERR#, the wait for an interrupt, IGNNE# (SDM 1 8.7.2, appendix D); with it set, #MF.

use crate::board::*;
use crate::case::{Case, cases};
use gemel_machine::Exit;
use gemel_x86::control::CR0_NE;
use gemel_x86::flags::IF;

/// Divide by zero, unmasked, has happened.
const ERROR: u16 = 1 << 2;

/// A guest with a waiting error, about to run `code` with interrupts on.
fn guest(code: &[u8]) -> Guest {
    let mut g = Guest::protected(0);
    g.state.rflags |= IF;
    (g.state.fcw, g.state.fsw) = (0x37f & !ERROR, ERROR | 0x8080);
    g.poke(g.state.rip, code);
    g
}

/// FLD1
const FLD1: &[u8] = &[0xd9, 0xe8, 0xf4];

fn numeric_error_on_is_an_exception() {
    let mut g = guest(FLD1);
    g.state.cr0 |= CR0_NE;
    g.run_for(20);
    assert_eq!((g.vector(), g.frame::<4>(1), g.outside.float_errors.len()), (16, vec![CODE], 0));
}

/// The processor stops before the instruction until an interrupt comes, and comes back to it.
fn numeric_error_off_waits_for_an_interrupt() {
    for code in [FLD1, &[0x9b, 0xf4], &[0x0f, 0x6f, 0xc1, 0xf4]] {
        let mut g = guest(code);
        g.run_for(20);
        assert_eq!((g.state.rip, g.exit, g.state.halted), (CODE, Some(Exit::Halted), true), "{code:x?}");
        assert_eq!(g.outside.float_errors, [true]);
        g.outside.interrupt = Some(0x75);
        g.run_for(20);
        assert_eq!((g.vector(), g.frame::<4>(1)), (0x75, vec![CODE]));
    }
    let mut g = guest(FLD1);
    g.state.rflags &= !IF;
    g.run_for(20);
    assert_eq!(g.exit, Some(Exit::HaltedForGood));
}

/// Instructions that do not wait see the error and report nothing (SDM 1 8.3.12).
fn instructions_that_do_not_wait_pass() {
    // fnstsw ax; fnclex; fld1
    let mut g = guest(&[0xdf, 0xe0, 0xdb, 0xe2, 0xd9, 0xe8, 0xf4]);
    g.run_for(20);
    assert_eq!((g.state.rip, g.state.gpr[0] as u16), (CODE + 7, ERROR | 0x8080));
    assert_eq!(g.outside.float_errors, [false; 0]);
}

/// Under IGNNE# instructions run in spite of the error, which stays.
fn ignored_errors() {
    // fld1; fstp dword [ebx]
    let mut g = guest(&[0xd9, 0xe8, 0xd9, 0x1b, 0xf4]);
    g.outside.ignne = true;
    g.state.gpr[3] = 0x8000;
    g.run_for(20);
    assert_eq!((g.state.rip, g.peek32(0x8000)), (CODE + 5, 1f32.to_bits()));
    assert_eq!(
        (g.state.fsw & (ERROR | 0x8080), g.outside.float_errors.as_slice()),
        (ERROR | 0x8080, &[true][..])
    );
}

/// FERR# falls when the last waiting error is cleared or masked.
fn ferr_falls_with_the_error() {
    let masked = 0x37fu16.to_le_bytes();
    for code in [
        &[0xdb, 0xe2, 0xf4][..],   // fnclex
        &[0xdb, 0xe3, 0xf4],       // fninit
        &[0xd9, 0x2b, 0xf4],       // fldcw [ebx]
        &[0xd9, 0x33, 0xf4],       // fnstenv [ebx]
        &[0xdd, 0x33, 0xf4],       // fnsave [ebx]
        &[0x0f, 0xae, 0x0b, 0xf4], // fxrstor [ebx]
    ] {
        let mut g = guest(FLD1);
        g.state.gpr[3] = 0x8000;
        g.poke(0x8000, &masked);
        g.run_for(20);
        assert_eq!(g.outside.float_errors, [true]);
        (g.state.halted, g.outside.ignne) = (false, true);
        g.poke(CODE, code);
        g.run_for(20);
        assert_eq!(g.outside.float_errors, [true, false], "{code:x?}");
        assert_eq!(g.state.rip, CODE + code.len() as u64);
    }
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    numeric_error_on_is_an_exception,
    numeric_error_off_waits_for_an_interrupt,
    instructions_that_do_not_wait_pass,
    ignored_errors,
    ferr_falls_with_the_error
];
