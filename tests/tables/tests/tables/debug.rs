//! Debug exceptions: single step, breakpoints, general detect, RF (SDM 3B 17.2, 17.3).

use crate::board::*;
use crate::case::{Case, cases};
use gemel_x86::control::{DR6_BD, DR6_BS, DR6_FIXED, DR7_FIXED, DR7_GD};
use gemel_x86::flags::{FIXED, IF, RF, TF, ZF};

/// A single step traps after the instruction, with TF in the frame and clear in the handler.
fn single_step() {
    let mut g = Guest::protected(0);
    g.state.rflags |= TF;
    g.run(&[0x90, 0x90]);
    assert_eq!((g.vector(), g.frame::<4>(3)), (1, vec![CODE + 1, CODE0.into(), FIXED | TF]));
    assert_eq!((g.state.dr6, g.state.rflags), (DR6_FIXED | DR6_BS, FIXED));
}

/// POPF that sets TF: the trap comes after the next instruction.
fn popf_starts_stepping_after_the_next_instruction() {
    let mut g = Guest::protected(0);
    g.state.gpr[4] = STACK - 4;
    g.poke32(STACK - 4, (FIXED | TF) as u32);
    g.run(&[0x9d, 0x90, 0x90]);
    assert_eq!((g.vector(), g.frame::<4>(1)), (1, vec![CODE + 2]));
}

/// SDM 3B 17.3.1.4: INT n clears TF before its handler; no step trap in between.
fn int_n_is_stepped_over() {
    let mut g = Guest::protected(0);
    g.state.rflags |= TF;
    g.run(&[0xcd, 0x30]);
    assert_eq!((g.vector(), g.frame::<4>(3)[2]), (0x30, FIXED | TF));
}

/// SDM 3A 6.8.3: no #DB between MOV SS and the next instruction.
fn mov_ss_holds_the_step_back() {
    let mut g = Guest::protected(0);
    g.state.rflags |= TF;
    g.state.gpr[0] = DATA0.into();
    g.run(&[0x8e, 0xd0, 0x90, 0x90]);
    assert_eq!((g.vector(), g.frame::<4>(1)), (1, vec![CODE + 3]));
}

/// The instruction after MOV SS is the first to be stepped; when it is an INT1 or an INT n, there is no step at all before its handler.
fn mov_ss_is_not_stepped() {
    for (code, vector, length) in [(&[0xf1][..], 1, 1), (&[0xcd, 0x30], 0x30, 2)] {
        let mut g = Guest::protected(0);
        g.state.rflags |= TF;
        g.state.gpr[0] = DATA0.into();
        g.run(&[&[0x8e, 0xd0], code, &[0x90]].concat());
        assert_eq!((g.vector(), g.frame::<4>(1)), (vector, vec![CODE + 2 + length]), "{code:x?}");
        assert_eq!(g.state.dr6, DR6_FIXED, "{code:x?}");
    }
}

/// A data breakpoint that MOV SS held back: INT1 takes it along into its own #DB; after INT n it comes before the handler's first
/// instruction (SDM 3A 6.8.3; the trap that CVE-2018-8897 is about).
fn a_data_breakpoint_behind_mov_ss() {
    for (code, words) in [(&[0xf1][..], 3), (&[0xcd, 0x30], 6)] {
        let mut g = Guest::protected(0);
        g.poke16(0x8000, DATA0);
        g.state.gpr[3] = 0x8000;
        (g.state.dr[0], g.state.dr7) = (0x8000, DR7_FIXED | 1 | 0b0111 << 16);
        g.run(&[&[0x8e, 0x13], code].concat()); // mov ss, [ebx]
        assert_eq!((g.vector(), g.state.dr6), (1, DR6_FIXED | 1), "{code:x?}");
        assert_eq!((STACK - g.state.gpr[4]) / 4, words, "{code:x?}: words on the stack");
    }
}

/// An instruction breakpoint is a fault before the instruction; RF lets it pass once.
fn instruction_breakpoint_and_rf() {
    let mut g = Guest::protected(0);
    g.state.dr[2] = CODE + 1;
    g.state.dr7 = DR7_FIXED | 1 << 4;
    g.run(&[0x90, 0x90, 0x0f, 0x0b]);
    assert_eq!((g.vector(), g.frame::<4>(3)), (1, vec![CODE + 1, CODE0.into(), FIXED]));
    assert_eq!(g.state.dr6, DR6_FIXED | 4);
    // IRETD with RF set goes past it.
    let mut g = Guest::protected(0);
    g.state.dr[2] = CODE + 1;
    g.state.dr7 = DR7_FIXED | 1 << 4;
    g.state.gpr[4] = STACK - 12;
    for (n, value) in [CODE + 1, CODE0.into(), FIXED | RF].into_iter().enumerate() {
        g.poke32(STACK - 12 + 4 * n as u64, value as u32);
    }
    g.run(&[0xcf, 0x90, 0x0f, 0x0b]);
    assert_eq!((g.vector(), g.frame::<4>(1)), (6, vec![CODE + 2]));
}

/// Data breakpoints trap after the access (SDM 3B 17.3.1.2).
fn data_breakpoints() {
    // mov [ebx], al; mov al, [ebx]; ud2
    let run = |kind: u64| {
        let mut g = Guest::protected(0);
        g.state.dr[0] = 0x8002;
        g.state.dr7 = DR7_FIXED | 1 | kind << 16;
        g.state.gpr[3] = 0x8002;
        g.run(&[0x8a, 0x03, 0x88, 0x03, 0x0f, 0x0b]);
        (g.vector(), g.frame::<4>(1)[0] - CODE, g.state.dr6 & 0xf)
    };
    assert_eq!(run(0b11), (1, 2, 1), "reads too");
    assert_eq!(run(0b01), (1, 4, 1), "writes only");
}

/// In a repetition the trap comes after the iteration that hit (SDM 3B 17.3.1.2), and the rest goes on afterwards.
fn data_breakpoint_in_a_repetition() {
    let mut g = Guest::protected(0);
    (g.state.dr[0], g.state.dr7) = (0x8003, DR7_FIXED | 1 | 0b01 << 16);
    (g.state.gpr[7], g.state.gpr[1]) = (0x8000, 10);
    g.run(&[0xf3, 0xaa, 0x0f, 0x0b]); // rep stosb; ud2
    assert_eq!((g.vector(), g.state.dr6), (1, DR6_FIXED | 1));
    assert_eq!((g.state.gpr[1], g.frame::<4>(1)[0]), (6, CODE), "iterations left, where to go on");
    // A trap that MOV SS held back comes after the first iteration.
    let mut g = Guest::protected(0);
    g.poke16(0x9000, DATA0);
    (g.state.dr[0], g.state.dr7) = (0x9000, DR7_FIXED | 1 | 0b0111 << 16);
    (g.state.gpr[3], g.state.gpr[7], g.state.gpr[1]) = (0x9000, 0x8000, 10);
    g.run(&[0x8e, 0x13, 0xf3, 0xaa, 0x0f, 0x0b]); // mov ss, [ebx]; rep stosb; ud2
    assert_eq!((g.vector(), g.state.gpr[1], g.frame::<4>(1)[0]), (1, 9, CODE + 2));
}

/// General detect guards the debug registers, and is off in the handler.
fn general_detect() {
    let mut g = Guest::protected(0);
    g.state.dr7 = DR7_FIXED | DR7_GD;
    g.run(&[0x0f, 0x21, 0xc0]); // mov eax, dr0
    assert_eq!((g.vector(), g.frame::<4>(3)), (1, vec![CODE, CODE0.into(), FIXED]));
    assert_eq!((g.state.dr6, g.state.dr7), (DR6_FIXED | DR6_BD, DR7_FIXED));
}

/// INT1 leaves DR6 alone and is not subject to the gate's DPL (SDM 2A INT n).
fn int1_is_a_hardware_exception() {
    let mut g = Guest::protected(3);
    g.run(&[0xf1]);
    assert_eq!((g.vector(), g.frame::<4>(1), g.state.dr6), (1, vec![CODE + 1], DR6_FIXED));
}

/// SDM 3B 17.4.3: with DEBUGCTL.BTF a single step ends at the next taken branch; #DB clears BTF.
fn single_step_on_branches() {
    const BTF: u64 = 2;
    let run = |flags: u64, rcx: u64, code: &[u8]| {
        let mut g = Guest::protected(0);
        g.state.rflags |= TF | flags;
        g.state.gpr[1] = rcx;
        g.state.debug_ctl = BTF;
        g.run(code);
        assert_eq!((g.vector(), g.state.debug_ctl, g.state.dr6), (1, 0, DR6_FIXED | DR6_BS), "{code:x?}");
        g.frame::<4>(1)[0] - CODE
    };
    for (flags, rcx, code, stopped) in [
        (0, 0, &[0x90, 0x90, 0xeb, 0x10][..], 0x14),    // nop; nop; jmp
        (0, 0, &[0x90, 0xeb, 0x00], 3),                 // a jump to the next instruction is one
        (0, 0, &[0x74, 0x10, 0x90, 0xeb, 0x10], 0x15),  // jz not taken
        (ZF, 0, &[0x74, 0x10, 0x90, 0xeb, 0x10], 0x12), // jz taken
        (ZF, 0, &[0x75, 0x00, 0xeb, 0x10], 0x14),       // jnz to the next instruction, not taken
        (0, 0, &[0x75, 0x00, 0xeb, 0x10], 2),           // and taken
        (0, 1, &[0xe2, 0x00, 0xeb, 0x10], 0x14),        // loop ends
        (0, 2, &[0xe2, 0x00, 0xeb, 0x10], 2),           // loop goes on
        (ZF, 2, &[0xe0, 0x00, 0xeb, 0x10], 0x14),       // loopne
        (0, 1, &[0xe3, 0x00, 0xeb, 0x10], 0x14),        // jecxz not taken
        (0, 0, &[0xe3, 0x00, 0xeb, 0x10], 2),           // and taken
        (0, 0, &[0xe8, 0x10, 0, 0, 0], 0x15),           // call
    ] {
        assert_eq!(run(flags, rcx, code), stopped, "{code:x?}");
    }
    // An instruction that is stepped over leaves BTF alone.
    let mut g = Guest::protected(0);
    g.state.rflags |= TF;
    g.state.debug_ctl = BTF;
    g.poke(g.state.rip, &[0x90, 0x90]);
    g.run_for(1);
    assert_eq!((g.state.rip, g.state.debug_ctl), (CODE + 1, BTF));
}

/// SDM 3B 17.3.1.1: RF is set in what an interrupt pushes between two iterations, and clear before the first and after the
/// last; so an instruction breakpoint on a repeated instruction hits once.
fn rf_between_iterations() {
    for (done, rf) in [(0, 0), (1, RF), (2, RF), (3, 0)] {
        let mut g = Guest::protected(0);
        g.state.rflags |= IF;
        g.state.gpr[1] = 3;
        g.state.gpr[7] = 0x8000;
        g.poke(g.state.rip, &[0xf3, 0xaa, 0x90, 0x90]); // rep stosb
        if done != 0 {
            g.run_for(done);
        }
        assert_eq!(g.state.gpr[1], 3 - done);
        g.outside.interrupt = Some(0x50);
        g.run_for(1);
        assert_eq!(g.frame::<4>(3)[2], FIXED | IF | rf, "after {done}");
    }
    let mut g = Guest::protected(0);
    g.state.dr[0] = CODE;
    g.state.dr7 = DR7_FIXED | 1;
    g.state.rflags |= RF;
    g.state.gpr[1] = 3;
    g.state.gpr[7] = 0x8000;
    g.poke(g.state.rip, &[0xf3, 0xaa, 0x0f, 0x0b]);
    for _ in 0..3 {
        g.run_for(1);
    }
    assert_eq!((g.state.rip, g.state.gpr[1], g.state.rflags), (CODE + 2, 0, FIXED));
}

/// As measured on Zen 4 (the SDM has RF set, 3B 17.3.1.1): RF stays until the repetition is done.
fn a_step_into_a_repetition_pushes_rf_as_it_was() {
    for (count, before, rf) in [(3, 0, 0), (3, RF, RF), (1, RF, 0)] {
        let mut g = Guest::protected(0);
        g.state.rflags |= TF | before;
        g.state.gpr[1] = count;
        g.state.gpr[7] = 0x8000;
        g.run(&[0xf3, 0xaa, 0x90]);
        let at = if count == 1 { CODE + 2 } else { CODE };
        assert_eq!((g.vector(), g.frame::<4>(3)), (1, vec![at, CODE0.into(), FIXED | TF | rf]));
    }
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    single_step,
    popf_starts_stepping_after_the_next_instruction,
    int_n_is_stepped_over,
    mov_ss_holds_the_step_back,
    mov_ss_is_not_stepped,
    a_data_breakpoint_behind_mov_ss,
    instruction_breakpoint_and_rf,
    data_breakpoints,
    data_breakpoint_in_a_repetition,
    general_detect,
    int1_is_a_hardware_exception,
    single_step_on_branches,
    rf_between_iterations,
    a_step_into_a_repetition_pushes_rf_as_it_was
];
