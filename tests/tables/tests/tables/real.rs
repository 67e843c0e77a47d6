//! Real mode: the interrupt vector table, far transfers, the way into protected mode.

use crate::board::*;
use crate::case::{Case, cases};
use gemel_machine::Exit;
use gemel_x86::flags::{FIXED, ID, IF, TF, VIF, VM};
use gemel_x86::segment::{CS, DS, SS};
use gemel_x86::{Segment, TableRegister};

/// SDM 3B 20.1.4: FLAGS, CS, IP are pushed; IF and TF are cleared.
fn int_n_pushes_three_words() {
    let mut g = Guest::real();
    g.state.rflags |= IF;
    g.run(&[0xcd, 0x21]);
    assert_eq!(g.vector(), 0x21);
    assert_eq!(g.frame::<2>(3), [CODE + 2, 0, FIXED | IF]);
    assert_eq!(g.state.rflags & (IF | TF), 0);
    assert_eq!(g.state.gpr[4], STACK - 6);
}

/// Faults push the address of the instruction, traps that after it (SDM 3A 6.5).
fn faults_point_at_the_instruction() {
    let mut g = Guest::real();
    g.state.gpr[1] = 0;
    g.run(&[0xf6, 0xf1]); // div cl
    assert_eq!((g.vector(), g.frame::<2>(1)), (0, vec![CODE]));
    let mut g = Guest::real();
    g.run(&[0x0f, 0x0b]); // ud2
    assert_eq!((g.vector(), g.frame::<2>(1)), (6, vec![CODE]));
}

/// A vector beyond the table is #GP, a second one #DF, a third shutdown (SDM 3A 6.15).
fn no_vector_table_is_a_triple_fault() {
    let mut g = Guest::real();
    g.state.idtr = TableRegister { base: 0, limit: 0 };
    g.run(&[0xcd, 0x21]);
    assert_eq!(g.exit, Some(Exit::Shutdown));
    let mut g = Guest::real();
    g.state.idtr.limit = 4 * 0x21 + 2;
    g.run(&[0xcd, 0x21]);
    assert_eq!((g.vector(), g.frame::<2>(1)), (13, vec![CODE]));
}

fn far_call_and_return() {
    let mut g = Guest::real();
    g.poke(0x5000, &[0xcb]); // retf
    g.run(&[0x9a, 0x00, 0x00, 0x00, 0x05, 0xf4]); // call 0500:0000; hlt
    assert_eq!((g.state.rip, g.selector(CS), g.state.seg[CS].base), (CODE + 6, 0, 0));
    assert_eq!((g.peek16(STACK - 2), g.peek16(STACK - 4)), (0, CODE as u16 + 5));
    let mut g = Guest::real();
    g.run(&[0xea, 0x00, 0x01, 0xf0, 0x05]); // jmp 05f0:0100
    assert_eq!((g.state.rip, g.selector(CS), g.state.seg[CS].base), (0x101, 0x5f0, 0x5f00));
}

/// SDM 2A IRET: REAL-ADDRESS-MODE keeps VM, VIF and VIP; the 16-bit form keeps the upper half.
fn iret_restores_what_it_may() {
    let start = |flags: u64, code: &[u8]| {
        let mut g = Guest::real();
        g.state.rflags |= ID;
        g.poke(0x5000, &[0xf4]);
        g.state.gpr[4] = STACK - 12;
        let wide = code.len() == 2;
        for (n, value) in [0x5000, 0, flags].into_iter().enumerate() {
            if wide {
                g.poke32(STACK - 12 + 4 * n as u64, value as u32);
            } else {
                g.poke16(STACK - 12 + 2 * n as u64, value as u16);
            }
        }
        g.run(code);
        assert_eq!((g.state.rip, g.state.gpr[4]), (0x5001, if wide { STACK } else { STACK - 6 }));
        g.state.rflags
    };
    assert_eq!(start(IF | 1, &[0xcf]), FIXED | IF | 1 | ID);
    assert_eq!(start(IF | VM | VIF, &[0x66, 0xcf]), FIXED | IF);
}

/// In real mode a load changes selector and base; a limit from protected mode stays.
fn unreal_mode_keeps_limits() {
    let mut g = Guest::real();
    g.state.seg[DS] = Segment { limit: u32::MAX, ..Segment::real(0) };
    g.state.gpr[0] = 0x1234;
    g.run(&[0x8e, 0xd8, 0xf4]); // mov ds, ax
    let ds = g.state.seg[DS];
    assert_eq!((ds.selector, ds.base, ds.limit), (0x1234, 0x12340, u32::MAX));
}

/// SDM 3A 6.8.3 and 2B STI: one instruction in the shadow of MOV SS, POP SS and STI.
fn shadows_hold_interrupts_off_for_one_instruction() {
    for (code, flags, at) in [
        (&[0x8e, 0xd0, 0x90, 0x90][..], IF, 3),
        (&[0x17, 0x90, 0x90][..], IF, 2),
        (&[0xfb, 0x90, 0x90][..], 0, 2),
    ] {
        let mut g = Guest::real();
        g.state.rflags |= flags;
        g.state.gpr[0] = 0;
        g.poke(g.state.rip, code);
        // The interrupt comes up while the first instruction runs: nothing is pending before it.
        g.run_for(1);
        g.outside.interrupt = Some(0x50);
        g.run_for(20);
        assert_eq!(g.vector(), 0x50);
        assert_eq!(g.frame::<2>(1), [CODE + at], "{code:x?}");
    }
    // A repetition in the shadow makes one iteration (SDM 2B, REP: interrupts are taken between iterations).
    let mut g = Guest::real();
    (g.state.gpr[1], g.state.gpr[7]) = (100, 0x8000);
    g.poke(g.state.rip, &[0xfb, 0xf3, 0xaa, 0x90]); // sti; rep stosb; nop
    g.run_for(1);
    g.outside.interrupt = Some(0x50);
    g.run_for(20);
    assert_eq!((g.vector(), g.state.gpr[1], g.frame::<2>(1)[0]), (0x50, 99, CODE + 1));
}

/// SDM 3A 9.9.1: LGDT, CR0.PE, a far jump, and the code is 32-bit.
fn into_protected_mode() {
    let mut g = Guest::real();
    g.poke64(GDT + 8, flat(TYPE_CODE & !1, 0));
    g.poke64(GDT + 16, flat(TYPE_DATA & !1, 0));
    g.poke16(0x800, 0x17);
    g.poke32(0x802, GDT as u32);
    g.poke(0x5000, &[0xb8, 0x10, 0, 0, 0, 0x8e, 0xd0, 0x8e, 0xd8, 0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4]);
    g.run(&[
        0x0f, 0x01, 0x16, 0x00, 0x08, // lgdt [0x800]
        0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, // mov eax, cr0; or al, 1; mov cr0, eax
        0xea, 0x00, 0x50, 0x08, 0x00, // jmp 8:5000
    ]);
    assert!(g.state.halted && g.state.rip == 0x500f);
    assert_eq!(g.state.gpr[0], 0x1234_5678);
    assert_eq!((g.selector(CS), g.selector(SS), g.selector(DS)), (8, 0x10, 0x10));
    // Loads set the accessed bit in memory (SDM 3A 3.4.5.1).
    assert_eq!(g.peek64(GDT + 8), flat(TYPE_CODE, 0));
    assert_eq!(g.peek64(GDT + 16), flat(TYPE_DATA, 0));
}

/// SDM 3A 9.9.2: until a far jump reloads it, CS stays as protected mode had it: base, size, limit. The jump then sets
/// the base, and leaves size and limit.
fn cs_keeps_its_hidden_part_when_protected_mode_is_left() {
    let mut g = Guest::protected(0);
    let cs = Segment { base: 0x4000, limit: 0xf_ffff, ..g.state.seg[CS] };
    (g.state.seg[CS], g.state.rip) = (cs, 0x10);
    // mov eax, cr0; and al, -2; mov cr0, eax; mov eax, 12345678h; hlt
    g.run(&[0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0, 0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4]);
    assert!(g.state.halted && g.state.cr0 & 1 == 0);
    assert_eq!((g.state.rip, g.state.gpr[0], g.state.seg[CS]), (0x1e, 0x1234_5678, cs));
    // jmp 0500:00000000, decoded as 32-bit code still
    let mut g = Guest::protected(0);
    g.poke(0x5000, &[0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4]);
    g.run(&[0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0, 0xea, 0, 0, 0, 0, 0, 5]);
    assert!(g.state.halted);
    let after = g.state.seg[CS];
    assert_eq!((after.selector, after.base, after.limit), (0x500, 0x5000, u32::MAX));
    assert_eq!((g.state.rip, g.state.gpr[0]), (6, 0x1234_5678));
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    int_n_pushes_three_words,
    faults_point_at_the_instruction,
    no_vector_table_is_a_triple_fault,
    far_call_and_return,
    iret_restores_what_it_may,
    unreal_mode_keeps_limits,
    shadows_hold_interrupts_off_for_one_instruction,
    into_protected_mode,
    cs_keeps_its_hidden_part_when_protected_mode_is_left
];
